//! Files that this program did not write: their layers, recognised by content, in any order.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use backup_core::pipeline::{self, Context, Flow, Stage};
use backup_core::{Committed, Decoders, Error, ErrorKind, Result, Sink, SinkWriter};
use bytes::Bytes;

use crate::file_source::FileSource;

/// Most layers that are taken off a file.
const MAX_LAYERS: usize = 8;
/// How much of each layer is looked at, in bytes.
const PEEK_BYTES: usize = 4096;

/// What lies under all layers of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A pg_dump archive in the custom format.
    Archive,
    /// A pg_dump archive in the tar format.
    TarArchive,
    /// A tar archive of files.
    Files,
    /// SQL text, as of `pg_dump --format=plain` or `pg_dumpall`.
    Sql,
    /// Something else.
    Unknown,
}

/// A file and the layers around its content, outermost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignFile {
    /// Where it is.
    pub path: PathBuf,
    /// Names of the transforms to undo, outermost first: `["gzip", "openpgp"]`.
    pub layers: Vec<&'static str>,
    /// What lies under them.
    pub content: Content,
}

impl ForeignFile {
    /// Looks into a file, layer by layer.
    ///
    /// # Errors
    /// When it can't be read or a layer can't be opened with the keys at hand.
    pub async fn recognise(path: &Path, decoders: &Decoders, context: &Context) -> Result<Self> {
        let mut layers = Vec::new();
        loop {
            let start = peek(path, &layers, decoders, context).await?;
            let layer =
                backup_compress::recognise(&start).or_else(|| backup_crypto::recognise(&start));
            match layer {
                Some(_) if layers.len() == MAX_LAYERS => {
                    return Err(Error::new(
                        ErrorKind::Unchecked,
                        "file",
                        format!("{} has more than {MAX_LAYERS} layers", path.display()),
                    ));
                }
                Some(layer) => layers.push(layer),
                None => {
                    let content = recognise_content(&start);
                    return Ok(Self { path: path.to_owned(), layers, content });
                }
            }
        }
    }

    /// A flow of the decoded content into `sink`.
    ///
    /// # Errors
    /// When a layer can't be undone here.
    pub fn flow(&self, decoders: &Decoders, sink: Arc<dyn Sink>) -> Result<Flow> {
        let name =
            self.path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let size = std::fs::metadata(&self.path).ok().map(|metadata| metadata.len());
        Ok(Flow {
            estimated_bytes: size,
            stages: stages(&self.layers, decoders)?,
            ..Flow::new(name, Arc::new(FileSource::new(&self.path)), sink)
        })
    }

    /// Whether damage anywhere in the file is sure to be noticed: all layers carry checksums.
    pub fn has_checksum(&self) -> bool {
        !self.layers.is_empty()
    }
}

fn stages(layers: &[&str], decoders: &Decoders) -> Result<Vec<Stage>> {
    layers.iter().map(|name| decoders.get(name).map(Stage::decode)).collect()
}

fn recognise_content(start: &[u8]) -> Content {
    const TAR_MAGIC_AT: usize = 257;
    let is_tar = start.get(TAR_MAGIC_AT..TAR_MAGIC_AT + 5) == Some(b"ustar");
    let text = start.iter().all(|&b| b >= b' ' || matches!(b, b'\n' | b'\r' | b'\t'));
    if start.starts_with(b"PGDMP") {
        Content::Archive
    } else if is_tar {
        // pg_dump's tar format begins with the entry toc.dat.
        if start.starts_with(b"toc.dat\0") { Content::TarArchive } else { Content::Files }
    } else if text && !start.is_empty() {
        Content::Sql
    } else {
        Content::Unknown
    }
}

/// The first bytes under the layers known so far.
async fn peek(
    path: &Path,
    layers: &[&str],
    decoders: &Decoders,
    context: &Context,
) -> Result<Vec<u8>> {
    let peek = Peek::default();
    let flow = Flow {
        stages: stages(layers, decoders)?,
        ..Flow::new("peek", Arc::new(FileSource::new(path)), Arc::new(peek.clone()))
    };
    let quiet = context.without_progress();
    let result = pipeline::run(flow, &quiet).await;
    let start = std::mem::take(&mut *peek.lock());
    match result {
        // The run ends early on purpose; damage further on is found by whoever reads it all.
        Err(error) if start.is_empty() && error.kind() != ErrorKind::Disconnected => Err(error),
        _ => Ok(start),
    }
}

/// Keeps the first bytes, then stops the run.
#[derive(Clone, Default)]
struct Peek(Arc<Mutex<Vec<u8>>>);

impl Peek {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Sink for Peek {
    fn name(&self) -> &str {
        "peek"
    }

    async fn begin(&self, _key: &str) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl SinkWriter for Peek {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        let mut start = self.lock();
        let wanted = PEEK_BYTES.saturating_sub(start.len()).min(chunk.len());
        start.extend_from_slice(&chunk[..wanted]);
        if start.len() < PEEK_BYTES {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Disconnected, "peek", "has seen enough"))
    }

    async fn commit(self: Box<Self>) -> Result<Committed> {
        Ok(Committed::default())
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_told_by_its_start() {
        let mut tar = vec![0; 512];
        tar[..7].copy_from_slice(b"toc.dat");
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(recognise_content(b"PGDMP\x01\x0e"), Content::Archive);
        assert_eq!(recognise_content(&tar), Content::TarArchive);
        tar[..7].copy_from_slice(b"./.env\0");
        assert_eq!(recognise_content(&tar), Content::Files);
        assert_eq!(
            recognise_content("--\n-- PostgreSQL database dump ü\n".as_bytes()),
            Content::Sql
        );
        assert_eq!(recognise_content(b""), Content::Unknown);
        assert_eq!(recognise_content(b"\x7fELF\x00\x00"), Content::Unknown);
    }
}
