//! Archive bytes set aside in a file without a name, until all of them were checked.
//!
//! The file never has a name (or loses it before the first byte comes), so that nothing is left of
//! it once the last process that holds it ends, however that happens. pg_restore opens it again
//! through one of its standard streams, and can seek in it.

use std::collections::BTreeSet;
use std::io::SeekFrom;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use backup_core::pipeline::CHUNK_BYTES;
use backup_core::{Error, Result};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::STAGE;
use crate::archive::{BlockSpan, LARGE_OBJECTS_BLOCK, NewHead, TABLE_BLOCK, block_start};

/// The name under which a child opens its standard input anew, at its first byte.
pub(super) const STANDARD_INPUT: &str = "/dev/stdin";

/// "The data is at the offset that follows", in an entry's state.
const OFFSET_KNOWN: u8 = 2;

/// A file without a name, for as long as somebody holds it.
pub(super) struct Spool {
    file: File,
    folder: PathBuf,
    bytes: u64,
}

impl Spool {
    /// Makes one that only this user may read. `needed`: how many bytes will come, if known.
    ///
    /// # Errors
    /// `Refused` when there is less space than needed.
    pub fn create(folder: &Path, needed: Option<u64>) -> Result<Self> {
        let failed = |e: std::io::Error| {
            Error::failed(STAGE, format!("no file can be made in {}", folder.display()))
                .next_step("name a folder with space that can be written to: TMPDIR")
                .caused_by(e)
        };
        if let Some(needed) = needed {
            let room = rustix::fs::statvfs(folder).map_err(|e| failed(e.into()))?;
            let free = room.f_bavail.saturating_mul(room.f_frsize);
            if free < needed {
                let message = format!(
                    "the decoded backup takes {needed} bytes, and {} has {free} free",
                    folder.display()
                );
                return Err(Error::refused(STAGE, message).next_step(
                    "name a folder with more space (TMPDIR), or restore with --jobs 1",
                ));
            }
        }
        let file = tempfile::tempfile_in(folder).map_err(failed)?;
        let mut file = File::from_std(file);
        file.set_max_buf_size(CHUNK_BYTES);
        Ok(Self { file, folder: folder.to_owned(), bytes: 0 })
    }

    /// Adds bytes at the end.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all(bytes).await;
        self.bytes += bytes.len() as u64;
        written.map_err(|e| self.failed(e))
    }

    /// How many bytes it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts other bytes in place of some that are there.
    async fn overwrite(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let written = async {
            self.file.seek(SeekFrom::Start(at)).await?;
            self.file.write_all(bytes).await
        };
        written.await.map_err(|e| self.failed(e))
    }

    /// The whole file, for reading only.
    pub async fn into_file(mut self) -> Result<std::fs::File> {
        self.file.flush().await.map_err(|e| self.failed(e))?;
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        std::fs::File::open(path).map_err(|e| self.failed(e))
    }

    fn failed(&self, cause: std::io::Error) -> Error {
        let message = format!(
            "the backup can't be set aside in {}: {} bytes were written",
            self.folder.display(),
            self.bytes
        );
        Error::failed(STAGE, message)
            .next_step("name a folder with more space: TMPDIR")
            .caused_by(cause)
    }
}

/// An archive on its way into a spool: a new head, and of the data what is wanted.
pub(super) struct Spooling {
    spool: Spool,
    head: NewHead,
    int_bytes: usize,
    offset_bytes: usize,
    wanted: BTreeSet<i64>,
    /// Blocks that were dealt with.
    done: usize,
    /// Whether the next block is open already.
    is_open: bool,
    /// Where each block starts in the spool.
    starts: Vec<(i64, u64)>,
}

impl Spooling {
    /// Starts with the head. Data blocks are kept whose entry is in it.
    pub async fn start(mut spool: Spool, head: NewHead, widths: (usize, usize)) -> Result<Self> {
        spool.write(&head.bytes).await?;
        let wanted = head.data_states.iter().map(|(id, _)| *id).collect();
        let (int_bytes, offset_bytes) = widths;
        let starts = Vec::new();
        Ok(Self { spool, head, int_bytes, offset_bytes, wanted, done: 0, is_open: false, starts })
    }

    /// Takes what is wanted out of `chunk`, which starts at `offset` of the archive that was
    /// read and lies in the blocks `spans`.
    pub async fn take(&mut self, chunk: &[u8], offset: u64, spans: &[BlockSpan]) -> Result<()> {
        let chunk_end = offset + chunk.len() as u64;
        while let Some(span) = spans.get(self.done) {
            if self.wanted.contains(&span.dump_id) {
                self.open(span).await?;
                let place = |at: u64| usize::try_from(at.clamp(offset, chunk_end) - offset);
                let (from, to) = (place(span.start), place(span.end.unwrap_or(chunk_end)));
                if let (Ok(from), Ok(to)) = (from, to) {
                    self.spool.write(chunk.get(from..to).unwrap_or_default()).await?;
                }
            }
            if span.end.is_none_or(|end| end > chunk_end) {
                break;
            }
            self.done += 1;
            self.is_open = false;
        }
        Ok(())
    }

    /// Writes the beginning of a block, once.
    async fn open(&mut self, span: &BlockSpan) -> Result<()> {
        if self.is_open {
            return Ok(());
        }
        self.is_open = true;
        self.starts.push((span.dump_id, self.spool.bytes));
        let kind = if span.large_objects { LARGE_OBJECTS_BLOCK } else { TABLE_BLOCK };
        self.spool.write(&block_start(kind, span.dump_id, self.int_bytes)).await
    }

    /// Writes into the head where each block starts: pg_restore then goes straight to it, where it
    /// would walk over all the others, once for each of its jobs.
    pub async fn finish(mut self) -> Result<Spool> {
        for (dump_id, start) in &self.starts {
            let place = self.head.data_states.iter().find(|(id, _)| id == dump_id);
            let Some((_, place)) = place else { continue };
            let mut state = vec![OFFSET_KNOWN];
            state.extend_from_slice(&start.to_le_bytes()[..self.offset_bytes]);
            self.spool.overwrite(*place as u64, &state).await?;
        }
        Ok(self.spool)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::ArchiveReader;
    use crate::archive::rewrite_head;

    async fn spooled(archive: &[u8], piece: usize, keep: impl Fn(&str) -> bool) -> Vec<u8> {
        let mut first = ArchiveReader::new();
        first.feed(archive).unwrap();
        let toc = first.toc().unwrap().clone();
        let mut edited = toc.clone();
        edited.entries.retain(|entry| !entry.has_data || keep(&entry.tag));
        let head = rewrite_head(archive, &toc, &edited).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::create(folder.path(), Some(1)).unwrap();
        let widths = (toc.header.int_bytes, toc.header.offset_bytes);
        let mut spooling = Spooling::start(spool, head, widths).await.unwrap();
        let mut reader = ArchiveReader::new();
        let end = toc.end as usize;
        reader.feed(&archive[..end]).unwrap();
        for chunk in archive[end..].chunks(piece) {
            let offset = reader.offset();
            reader.feed(chunk).unwrap();
            spooling.take(chunk, offset, reader.blocks()).await.unwrap();
        }
        let spool = spooling.finish().await.unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it has no name");
        let mut bytes = Vec::new();
        spool.into_file().await.unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// What is set aside is an archive itself, however the bytes came, and its offsets are right.
    #[tokio::test]
    async fn an_archive_of_some_tables_is_a_whole_archive() {
        for archive in [
            include_bytes!("../archive/fixtures/pg15-none.dump").as_slice(),
            include_bytes!("../archive/fixtures/pg17-zstd.dump"),
            include_bytes!("../archive/fixtures/pg18-none.dump"),
            include_bytes!("../archive/fixtures/pg18-redirected.dump"),
        ] {
            let mut whole = ArchiveReader::new();
            whole.feed(archive).unwrap();
            let whole = whole.finish().unwrap();
            let one = whole.toc().of_kind("TABLE DATA").next().unwrap().tag.clone();
            for piece in [1, 7, 4096, usize::MAX] {
                for keep in [None, Some(one.as_str())] {
                    let bytes = spooled(archive, piece, |tag| keep.is_none_or(|k| k == tag)).await;
                    let mut reader = ArchiveReader::new();
                    reader.feed(&bytes).unwrap();
                    let spans = reader.blocks().to_vec();
                    let toc = reader.toc().unwrap().clone();
                    let summary = reader.finish().unwrap();
                    let rows = |inventory: backup_core::Inventory| {
                        let mut tables = inventory.tables;
                        tables.retain(|table| keep.is_none_or(|k| k == table.name));
                        tables
                    };
                    assert_eq!(rows(summary.inventory()), rows(whole.inventory()));
                    let expected = whole
                        .toc()
                        .entries
                        .iter()
                        .filter(|e| e.has_data && keep.is_none_or(|k| k == e.tag));
                    assert_eq!(spans.len(), expected.count());
                    for span in spans {
                        let entry = toc.entries.iter().find(|e| e.dump_id == span.dump_id).unwrap();
                        let state = entry.places.data_state.start as usize;
                        assert_eq!(bytes[state], OFFSET_KNOWN);
                        let offset =
                            u64::from_le_bytes(bytes[state + 1..state + 9].try_into().unwrap());
                        assert_eq!(offset + 2 + toc.header.int_bytes as u64, span.start);
                    }
                }
            }
        }
    }

    #[test]
    fn too_little_space_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let error = Spool::create(folder.path(), Some(u64::MAX)).err().unwrap();
        assert_eq!(error.kind(), backup_core::ErrorKind::Refused);
        assert!(error.to_string().contains("free"), "{error}");
        assert!(Spool::create(&folder.path().join("none"), None).is_err());
    }
}
