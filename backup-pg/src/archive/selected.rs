//! Some tables of an archive that can be read at any place, as an archive of their own: of the others
//! not a byte is read.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{DataBlock, Error, PartAt, Result, Source, SourceStream};
use bytes::Bytes;

use super::blocks::{TABLE_BLOCK, block_start};
use super::fields::damaged;
use super::rewrite::rewrite_head;
use super::select::{Selection, data_of};
use super::toc::Toc;
use super::toc_parser::TocParser;

const NAME: &str = "selected tables";

/// Bytes that are read at a time.
const READ_BYTES: u64 = 256 << 10;

/// An archive with the same table of contents, but with the data of the chosen tables alone.
///
/// Whoever restores it makes the choice again; what the tables need beside their data is in it.
/// All that is read was compared with its digest: see [`PartAt`].
pub struct SelectedArchive {
    archive: Arc<PartAt>,
    blocks: Vec<DataBlock>,
    selection: Selection,
}

impl SelectedArchive {
    /// Tables of the archive that is the part. `blocks` is what the backup's inventory recorded of
    /// it ([`Inventory::data_blocks`](backup_core::Inventory::data_blocks)).
    pub fn new(archive: Arc<PartAt>, blocks: Vec<DataBlock>, selection: Selection) -> Self {
        Self { archive, blocks, selection }
    }

    /// Header and table of contents, with their bytes.
    async fn head(&self) -> Result<(Toc, Vec<u8>)> {
        let mut parser = TocParser::new();
        let mut head = Vec::new();
        loop {
            let start = head.len() as u64;
            let end = (start + READ_BYTES).min(self.archive.bytes());
            let bytes = self.archive.read(start..end).await?;
            if bytes.is_empty() {
                return Err(damaged(start, format!("the archive ends {}", parser.describe())));
            }
            head.extend_from_slice(&bytes);
            if let Some((toc, _)) = parser.feed(&bytes)? {
                return Ok((toc, head));
            }
        }
    }
}

#[async_trait]
impl Source for SelectedArchive {
    fn name(&self) -> &str {
        NAME
    }

    /// # Errors
    /// `Usage` when a pattern matches nothing; `Damaged` when the archive's table of contents can't
    /// be read, or is not the one that the blocks were recorded of.
    async fn open(&self) -> Result<Box<dyn SourceStream>> {
        let (toc, head) = self.head().await?;
        let wanted = data_of(&toc, &self.selection)?;
        let mut edited = toc.clone();
        edited.entries.retain(|entry| !entry.has_data || wanted.contains(&entry.dump_id));
        let head = rewrite_head(&head, &toc, &edited)?.bytes;
        let of_wanted = |block: &&DataBlock| wanted.contains(&block.entry);
        let blocks: Vec<DataBlock> = self.blocks.iter().filter(of_wanted).copied().collect();
        if blocks.len() != wanted.len() {
            return Err(Error::damaged(
                "contents",
                "they do not tell where in the archive the chosen tables stand",
            )
            .next_step("use another copy or an older backup"));
        }
        Ok(Box::new(Stream {
            archive: Arc::clone(&self.archive),
            int_bytes: toc.header.int_bytes,
            head: Some(head.into()),
            blocks: blocks.into_iter(),
            left: 0..0,
        }))
    }
}

struct Stream {
    archive: Arc<PartAt>,
    int_bytes: usize,
    head: Option<Bytes>,
    blocks: std::vec::IntoIter<DataBlock>,
    /// What of the block at hand was not read yet.
    left: Range<u64>,
}

impl Stream {
    /// The beginning of the next block; it must be what stands where the block was recorded.
    async fn begin(&mut self, block: DataBlock) -> Result<Bytes> {
        let start = block_start(TABLE_BLOCK, block.entry, self.int_bytes);
        let from = block.start.saturating_sub(start.len() as u64);
        let found = self.archive.read(from..block.start).await?;
        if found != start {
            let what = format!("no data of entry {} stands here", block.entry);
            return Err(damaged(from, what));
        }
        self.left = block.start..block.end;
        Ok(found)
    }
}

#[async_trait]
impl SourceStream for Stream {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        if let Some(head) = self.head.take() {
            return Ok(Some(head));
        }
        if self.left.is_empty() {
            return match self.blocks.next() {
                Some(block) => self.begin(block).await.map(Some),
                None => Ok(None),
            };
        }
        let end = (self.left.start + READ_BYTES).min(self.left.end);
        let bytes = self.archive.read(self.left.start..end).await?;
        self.left.start = end;
        Ok(Some(bytes))
    }
}
