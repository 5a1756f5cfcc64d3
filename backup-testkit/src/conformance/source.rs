//! What every source must do.

use backup_core::{Result, Source};

use super::{Must, read_to_end, require, require_same};

/// Checks `source`, whose data is known to be `expected`:
///
/// - it gives exactly these bytes, in chunks that are never empty, and then `Ok(None)`,
/// - opening it again reads again, also while another stream of it is open or after one was
///   dropped halfway.
///
/// How a source tells of its producer's death can't be forced from here: test it where the
/// producer can be killed.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use backup_testkit::{Given, conformance};
/// conformance::source(&Given::new("abc", 2), b"abc").await?;
/// # Ok::<(), backup_core::Error>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// The first promise found broken.
pub async fn source(source: &dyn Source, expected: &[u8]) -> Result<()> {
    require(!source.name().trim().is_empty(), || "a source has a name".into())?;

    let mut first = source.open().await.must("open")?;
    let begun = first.next_chunk().await.must("give a first chunk")?;
    require(begun.as_ref().is_none_or(|chunk| !chunk.is_empty()), || {
        "a stream never hands out an empty chunk".into()
    })?;

    let mut second = source.open().await.must("open while another stream is open")?;
    let whole = read_to_end(second.as_mut(), "the second stream").await?;
    require_same(&whole, expected, "the second stream")?;
    second.findings();

    if let Some(mut all) = begun.map(|chunk| chunk.to_vec()) {
        all.extend(read_to_end(first.as_mut(), "the first stream, interleaved").await?);
        require_same(&all, expected, "the first stream, interleaved with a second one")?;
    } else {
        require_same(&[], expected, "the first stream")?;
    }

    let mut dropped = source.open().await.must("open a third time")?;
    dropped.next_chunk().await.must("give a first chunk again")?;
    drop(dropped);
    let mut last = source.open().await.must("open after a stream was dropped halfway")?;
    let again = read_to_end(last.as_mut(), "a stream after a dropped one").await?;
    require_same(&again, expected, "a stream after one was dropped halfway")
}
