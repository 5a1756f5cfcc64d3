//! A sink of one's own, and the conformance suite run on it.
//!
//! `cargo run --example custom_sink`
//!
//! A sink takes a stream of bytes under a key and makes it visible all at once. [`Sink`] and
//! [`SinkWriter`] say what one has to promise; the comments here say how this one keeps it. To
//! see a promise watched over, break one (drop the `rename`, say) and run it again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use backup_core::layout::check_key;
use backup_core::{Committed, Error, Result, Sink, SinkWriter};
use backup_testkit::conformance;
use bytes::Bytes;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

/// A drop box: files arrive in `incoming`, and appear in `objects` only when they are complete,
/// so that another program may pick up whatever it finds there.
struct DropBox {
    incoming: PathBuf,
    objects: PathBuf,
    next: AtomicU64,
}

/// One file on its way.
struct Arrival {
    file: File,
    unfinished: PathBuf,
    objects: PathBuf,
    key: String,
    bytes: u64,
}

#[async_trait]
impl Sink for DropBox {
    fn name(&self) -> &str {
        "drop box"
    }

    async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
        check_key(key)?; // "../../etc/passwd" is a key, too
        // A name of its own, so that two writers of one key don't meet before they commit.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.incoming.join(format!("{}-{number}", std::process::id()));
        let file = File::create_new(&unfinished).await.map_err(|e| failed("create", e))?;
        let (objects, key) = (self.objects.clone(), key.to_owned());
        Ok(Box::new(Arrival { file, unfinished, objects, key, bytes: 0 }))
    }
}

#[async_trait]
impl SinkWriter for Arrival {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.bytes += chunk.len() as u64;
        // When this fails the caller aborts: there is nothing to clean up here.
        self.file.write_all(&chunk).await.map_err(|e| failed("write", e))
    }

    async fn commit(mut self: Box<Self>) -> Result<Committed> {
        // A commit cleans up after its own failure: the caller no longer has anything to abort.
        if let Err(error) = self.publish().await {
            let _ = fs::remove_file(&self.unfinished).await;
            return Err(failed("commit", error));
        }
        Ok(Committed { bytes: self.bytes, version: None })
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        fs::remove_file(&self.unfinished).await.map_err(|e| failed("abort", e))
    }

    // No `Drop`: a dropped writer is a crash, and a crash runs no code. What it leaves lies in
    // `incoming`, where nobody takes it for an object.
}

impl Arrival {
    async fn publish(&mut self) -> io::Result<()> {
        let target = self.objects.join(&self.key);
        let folder = target.parent().unwrap_or(&self.objects);
        // The bytes come to the disk before the name does, else a power cut between the two
        // leaves an empty file under a good name.
        self.file.flush().await?;
        self.file.sync_all().await?;
        fs::create_dir_all(folder).await?;
        // The one step that makes it visible, all at once, in place of an older one if need be.
        fs::rename(&self.unfinished, &target).await?;
        // The name itself lasts once its folder, and those above that may be new, are synced.
        for folder in target.ancestors().skip(1).take_while(|f| f.starts_with(&self.objects)) {
            if let Err(error) = sync(folder).await {
                fs::remove_file(&target).await?; // failed means: nothing is visible
                return Err(error);
            }
        }
        Ok(())
    }
}

async fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder).await?.sync_all().await
}

/// Says where and what, and what to do about it; wraps the error underneath.
fn failed(verb: &str, error: io::Error) -> Error {
    Error::failed("drop box", format!("can't {verb} the file: {error}"))
        .next_step("look at the folder and the free space of its disk")
        .caused_by(error)
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("drop-box-{}", std::process::id()));
    let (incoming, objects) = (folder.join("incoming"), folder.join("objects"));
    for new in [&incoming, &objects] {
        fs::create_dir_all(new).await.map_err(|e| failed("make a folder for", e))?;
    }

    // The suite looks at the result from outside, the way whoever picks up the files would.
    let look = |key: &str| match std::fs::read(objects.join(key)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("look at", e)),
    };
    let sink = DropBox { incoming, objects: objects.clone(), next: AtomicU64::new(0) };
    let outcome = conformance::sink(&sink, &look).await;

    fs::remove_dir_all(&folder).await.map_err(|e| failed("remove", e))?;
    match &outcome {
        Ok(()) => println!("{} keeps every promise of a sink", sink.name()),
        Err(broken) => println!("{} breaks a promise: {}", sink.name(), broken.message()),
    }
    outcome
}
