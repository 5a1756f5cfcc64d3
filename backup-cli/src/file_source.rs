//! A plain file as a source.

use std::path::PathBuf;

use async_trait::async_trait;
use backup_core::pipeline::CHUNK_BYTES;
use backup_core::{Error, ErrorKind, Result, Source, SourceStream};
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;

/// Reads a file from start to end.
#[derive(Debug, Clone)]
pub struct FileSource {
    path: PathBuf,
}

impl FileSource {
    /// The file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

#[async_trait]
impl Source for FileSource {
    fn name(&self) -> &str {
        "file"
    }

    async fn open(&self) -> Result<Box<dyn SourceStream>> {
        let path = self.path.display().to_string();
        let mut file = tokio::fs::File::open(&self.path).await.map_err(|e| {
            let kind = match e.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                _ => ErrorKind::Unchecked,
            };
            Error::new(kind, "file", format!("{path} can't be opened"))
                .next_step("name a readable file, or the id of a backup")
                .caused_by(e)
        })?;
        file.set_max_buf_size(CHUNK_BYTES);
        Ok(Box::new(FileStream { file, path }))
    }
}

struct FileStream {
    file: tokio::fs::File,
    path: String,
}

#[async_trait]
impl SourceStream for FileStream {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
        let n = self.file.read_buf(&mut buffer).await.map_err(|e| {
            Error::new(ErrorKind::Unchecked, "file", format!("{} can't be read", self.path))
                .next_step("check the disk it lies on")
                .caused_by(e)
        })?;
        Ok((n > 0).then(|| buffer.freeze()))
    }
}
