//! Reads the manifests that the listings showed, many at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::listing::{Files, Listing};
use super::{Problem, ReaderSeen, StoredCopy};
use crate::download::Patience;
use crate::layout::{self, BackupId};
use crate::object::{StoredObject, read_small};
use crate::{Error, ErrorKind, Manifest, Storage};

/// Most manifests of one storage that are being read at the same time.
const READS_AT_ONCE: usize = 32;
/// Longest time in which a storage may give not one manifest.
const SILENCE: Duration = Duration::from_secs(120);
/// So many manifests that could not be read, for another reason than their content, end the
/// reading: the storage went down, and each takes its time to fail.
const GIVE_UP_AFTER: usize = 10;
/// One more try is enough: the storages have retries of their own.
const PATIENCE: Patience = Patience {
    stall: Duration::from_secs(60),
    first_pause: Duration::from_millis(200),
    tries: 1,
    give_up: Duration::from_secs(60),
};

/// What one storage told.
pub(super) struct Told {
    pub(super) storage: String,
    /// Its copies, by job and id.
    pub(super) copies: BTreeMap<(String, BackupId), StoredCopy>,
    /// Those that are there, and of which no manifest could be read.
    pub(super) unread: Vec<(String, BackupId)>,
    pub(super) problems: Vec<Problem>,
}

/// Reads every manifest of a listing.
pub(super) async fn read_all(storage: &Arc<dyn Storage>, listing: Listing) -> Told {
    let mut told = Told {
        storage: storage.name().to_owned(),
        copies: BTreeMap::new(),
        unread: Vec::new(),
        problems: Vec::new(),
    };
    let mut waiting: BTreeMap<(String, BackupId), Files> = listing;
    let keys: Vec<(String, BackupId)> = waiting.keys().cloned().collect();
    let reads = keys.into_iter().map(|(job, id)| async move {
        let read = read_manifest(storage, id, &job).await;
        ((job, id), read)
    });
    let mut reads = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
    let mut failures = 0;
    loop {
        let (key, read) = match tokio::time::timeout(SILENCE, reads.next()).await {
            Ok(Some(done)) => done,
            Ok(None) => break,
            Err(_) => {
                let silent = format!("gave no manifest for {} s", SILENCE.as_secs());
                give_up(storage, silent, waiting, &mut told);
                break;
            }
        };
        let Some(files) = waiting.remove(&key) else { continue };
        let error = match read {
            Read::Whole(manifest, json) => {
                let copy = copy_in(storage.name(), *manifest, json, &files);
                told.copies.insert(key, copy);
                continue;
            }
            // Removed since it was listed: it is no backup any more.
            Read::Gone => continue,
            Read::Wrong(error) => error,
            Read::Failed(error) => {
                failures += 1;
                error
            }
        };
        told.unread.push(key);
        told.problems.push(Problem { storage: storage.name().to_owned(), error });
        if failures == GIVE_UP_AFTER && !waiting.is_empty() {
            let down = format!("{failures} manifests could not be read");
            give_up(storage, down, waiting, &mut told);
            break;
        }
    }
    told
}

/// What became of one manifest.
enum Read {
    Whole(Box<Manifest>, Vec<u8>),
    Gone,
    /// Its bytes are no manifest of this backup that can be read here.
    Wrong(Error),
    /// Its bytes did not come.
    Failed(Error),
}

fn give_up(
    storage: &Arc<dyn Storage>,
    why: String,
    waiting: BTreeMap<(String, BackupId), Files>,
    told: &mut Told,
) {
    let message = format!("{why}; {} more were not asked for", waiting.len());
    let error = Error::new(ErrorKind::Unchecked, format!("storage {}", storage.name()), message)
        .next_step("look whether the storage is reachable, then list again");
    told.problems.push(Problem { storage: storage.name().to_owned(), error });
    told.unread.extend(waiting.into_keys());
}

async fn read_manifest(storage: &Arc<dyn Storage>, id: BackupId, job: &str) -> Read {
    let key = format!("{}/{}", id.folder(job), layout::MANIFEST);
    let stored = StoredObject::unchecked(Arc::clone(storage), key.clone()).with_patience(PATIENCE);
    let json = match read_small(&stored).await {
        Ok(json) => json,
        Err(error) if error.kind() == ErrorKind::NotFound => return Read::Gone,
        Err(error) => return Read::Failed(name_manifest(&key, error)),
    };
    match Manifest::from_json(&json) {
        Ok(manifest) if manifest.id == id.to_string() && manifest.job == job => {
            Read::Whole(Box::new(manifest), json)
        }
        Ok(_) => {
            Read::Wrong(Error::damaged("manifest", format!("{key} belongs to another backup")))
        }
        // A bad name is a wrong usage only where somebody typed it.
        Err(error) if error.kind() == ErrorKind::Usage => {
            Read::Wrong(name_manifest(&key, error).with_kind(ErrorKind::Damaged))
        }
        Err(error) => Read::Wrong(name_manifest(&key, error)),
    }
}

/// The same failure, with the key of the manifest that it is about.
fn name_manifest(key: &str, error: Error) -> Error {
    if error.message().contains(key) {
        return error;
    }
    let message = format!("{key}: {}", error.message());
    let named = Error::new(error.kind(), error.stage().to_owned(), message);
    let named = match error.advice() {
        Some(advice) => named.next_step(advice),
        None => named,
    };
    named.caused_by(error)
}

fn copy_in(storage: &str, manifest: Manifest, manifest_json: Vec<u8>, files: &Files) -> StoredCopy {
    let whole = |file: &str, bytes: u64| files.get(file).is_some_and(|found| found.bytes == bytes);
    let damaged = manifest.parts.iter().filter(|part| !whole(&part.file, part.bytes));
    let damaged_parts = damaged.map(|part| part.file.clone()).collect();
    let proofs =
        files.keys().filter_map(|name| name.strip_prefix(layout::PROOFS)?.strip_prefix('/'));
    let proofs = proofs.map(str::to_owned).collect();
    let marks = files.iter().filter_map(|(name, object)| {
        let file = name.strip_prefix(layout::READERS)?.strip_prefix('/')?;
        Some(ReaderSeen { file: file.to_owned(), left: object.modified })
    });
    let readers = marks.collect();
    StoredCopy {
        storage: storage.to_owned(),
        manifest,
        manifest_json,
        damaged_parts,
        proofs,
        pinned: files.contains_key(layout::PIN),
        readers,
        half_pruned: files.contains_key(layout::PRUNED),
    }
}
