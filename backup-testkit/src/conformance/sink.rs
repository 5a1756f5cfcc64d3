//! What every sink must do.

use async_trait::async_trait;
use backup_core::{ErrorKind, Result, Sink, SinkWriter, Storage};

use super::{BAD_KEYS, Must, SIZES, broken, fresh_folder, odd_keys, read_object, require};
use super::{require_same, store};
use crate::random;

/// Looks at what a sink made visible, from outside: the way a reader would.
///
/// A closure `Fn(&str) -> Result<Option<Vec<u8>>>` is one, and so is every `&dyn Storage`.
#[async_trait]
pub trait Inspector: Send + Sync {
    /// The bytes visible under `key`; `None` when there is nothing.
    ///
    /// # Errors
    /// When it can't be told.
    async fn look(&self, key: &str) -> Result<Option<Vec<u8>>>;
}

#[async_trait]
impl<F: Fn(&str) -> Result<Option<Vec<u8>>> + Send + Sync> Inspector for F {
    async fn look(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self(key)
    }
}

#[async_trait]
impl Inspector for &dyn Storage {
    async fn look(&self, key: &str) -> Result<Option<Vec<u8>>> {
        read_object(*self, key).await
    }
}

/// Checks `sink`, whose visible objects `inspector` can look at:
///
/// - what is committed is visible, byte for byte, whatever its size and however it was cut,
///   under every clean key; `commit` says its size,
/// - before the commit nothing of it is visible, and an older object stays whole,
/// - an abort, at any moment, leaves things as they were; so does a dropped writer, and
///   neither is in the way of the next one,
/// - an older object is replaced as a whole; of two writers the one that commits last wins
///   as a whole; writers of different keys don't mix,
/// - keys that aren't clean are refused with [`ErrorKind::Usage`].
///
/// # Errors
/// The first promise found broken.
pub async fn sink(sink: &dyn Sink, inspector: &dyn Inspector) -> Result<()> {
    sink_in(&fresh_folder(), sink, inspector).await.map(drop)
}

/// As [`sink`], in a folder; gives the keys of what it left there.
pub(super) async fn sink_in(
    folder: &str,
    sink: &dyn Sink,
    inspector: &dyn Inspector,
) -> Result<Vec<String>> {
    require(!sink.name().trim().is_empty(), || "a sink has a name".into())?;
    let mut checks = Checks { sink, inspector, folder, keys: Vec::new() };
    checks.round_trips().await?;
    checks.tiny_pieces().await?;
    checks.odd_names().await?;
    checks.nothing_before_commit().await?;
    checks.abort_leaves_nothing().await?;
    checks.drop_leaves_nothing_visible().await?;
    checks.replaced_as_a_whole().await?;
    checks.two_writers().await?;
    checks.bad_keys().await?;
    Ok(checks.keys)
}

struct Checks<'a> {
    sink: &'a dyn Sink,
    inspector: &'a dyn Inspector,
    folder: &'a str,
    keys: Vec<String>,
}

impl Checks<'_> {
    fn key(&mut self, name: &str) -> String {
        let key = format!("{}/{name}", self.folder);
        self.keys.push(key.clone());
        key
    }

    async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
        self.sink.begin(key).await.must(format!("begin {key}"))
    }

    async fn require_visible(&self, key: &str, wanted: &[u8], when: &str) -> Result<()> {
        match self.inspector.look(key).await.must(format!("be inspected, {when}"))? {
            Some(bytes) => require_same(&bytes, wanted, format!("{when}, {key}")),
            None => Err(broken(format!("{when}, {key} must be visible"))),
        }
    }

    async fn require_invisible(&self, key: &str, when: &str) -> Result<()> {
        let seen = self.inspector.look(key).await.must(format!("be inspected, {when}"))?;
        require(seen.is_none(), || format!("{when}, {key} must not be visible"))
    }

    async fn round_trips(&mut self) -> Result<()> {
        for size in SIZES {
            let key = self.key(&format!("size/{size}"));
            let data = random(size as u64, size);
            let pieces: Vec<&[u8]> = data.chunks(100_000).collect();
            store(self.sink, &key, &pieces).await?;
            self.require_visible(&key, &data, "after a commit").await?;
        }
        Ok(())
    }

    async fn tiny_pieces(&mut self) -> Result<()> {
        let key = self.key("tiny");
        let data = random(3, 12_000);
        let pieces: Vec<&[u8]> = data.chunks(5).collect();
        store(self.sink, &key, &pieces).await?;
        self.require_visible(&key, &data, "written in pieces of 5 bytes").await
    }

    async fn odd_names(&mut self) -> Result<()> {
        let keys = odd_keys(&format!("{}/odd", self.folder));
        for key in &keys {
            store(self.sink, key, &[key.as_bytes()]).await?;
        }
        // Only now: two keys that mean the same place would have overwritten each other.
        for key in &keys {
            self.require_visible(key, key.as_bytes(), "under an odd name").await?;
        }
        self.keys.extend(keys);
        Ok(())
    }

    async fn nothing_before_commit(&mut self) -> Result<()> {
        let key = self.key("late");
        let data = random(4, 3_000_000);
        self.require_invisible(&key, "before begin").await?;
        let mut writer = self.begin(&key).await?;
        self.require_invisible(&key, "after begin").await?;
        for piece in data.chunks(256 * 1024) {
            writer.write(piece.to_vec().into()).await.must("write")?;
            self.require_invisible(&key, "before the commit").await?;
        }
        writer.commit().await.must("commit")?;
        self.require_visible(&key, &data, "after the commit").await
    }

    async fn abort_leaves_nothing(&mut self) -> Result<()> {
        let key = self.key("aborted");
        for size in [0, 1, 3_000_000] {
            let mut writer = self.begin(&key).await?;
            if size > 0 {
                writer.write(random(5, size).into()).await.must("write")?;
            }
            writer.abort().await.must(format!("abort after {size} bytes"))?;
            self.require_invisible(&key, "after an abort").await?;
        }
        store(self.sink, &key, &[b"after the aborts"]).await?;
        self.require_visible(&key, b"after the aborts", "after aborts and a commit").await
    }

    async fn drop_leaves_nothing_visible(&mut self) -> Result<()> {
        let key = self.key("dropped");
        for size in [0, 1, 3_000_000] {
            let mut writer = self.begin(&key).await?;
            if size > 0 {
                writer.write(random(6, size).into()).await.must("write")?;
            }
            drop(writer);
            self.require_invisible(&key, "after a writer was dropped").await?;
        }
        store(self.sink, &key, &[b"after the crash"]).await?;
        self.require_visible(&key, b"after the crash", "after a crash and a commit").await
    }

    async fn replaced_as_a_whole(&mut self) -> Result<()> {
        let key = self.key("replaced");
        let (old, new) = (random(7, 700_000), random(8, 1_000));
        store(self.sink, &key, &[&old]).await?;

        for commits in [false, true] {
            let mut writer = self.begin(&key).await?;
            writer.write(new.clone().into()).await.must("write over an object")?;
            self.require_visible(&key, &old, "while it is being replaced").await?;
            if commits {
                writer.commit().await.must("replace an object")?;
                self.require_visible(&key, &new, "after it was replaced").await?;
            } else {
                writer.abort().await.must("abort over an object")?;
                self.require_visible(&key, &old, "after replacing it was aborted").await?;
            }
        }
        Ok(())
    }

    async fn two_writers(&mut self) -> Result<()> {
        let (one, two) = (random(9, 600_000), random(10, 500_000));
        for (name, same_key) in [("race", true), ("beside", false)] {
            let first_key = self.key(name);
            let second_key = if same_key { first_key.clone() } else { self.key("beside-2") };
            let mut first = self.begin(&first_key).await?;
            let mut second = self.begin(&second_key).await?;
            for (a, b) in one.chunks(60_000).zip(two.chunks(50_000)) {
                first.write(a.to_vec().into()).await.must("write beside another writer")?;
                second.write(b.to_vec().into()).await.must("write beside another writer")?;
            }
            second.commit().await.must("commit beside another writer")?;
            self.require_visible(&second_key, &two, "with another writer still at it").await?;
            first.commit().await.must("commit after another writer")?;
            self.require_visible(&first_key, &one, "the one that commits last wins as a whole")
                .await?;
            if !same_key {
                self.require_visible(&second_key, &two, "beside another key").await?;
            }
        }
        Ok(())
    }

    async fn bad_keys(&self) -> Result<()> {
        for key in BAD_KEYS {
            match self.sink.begin(key).await {
                Err(error) if error.kind() == ErrorKind::Usage => {}
                Err(error) => {
                    return Err(broken(format!("begin must refuse {key:?} as usage: {error}")));
                }
                Ok(writer) => {
                    let _ = writer.abort().await;
                    return Err(broken(format!("begin must refuse the key {key:?}")));
                }
            }
        }
        Ok(())
    }
}
