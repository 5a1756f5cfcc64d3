//! Making a backup exist in one storage.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::pipeline::within;
use crate::{Creation, Result, Storage, StoredObject, read_small};

/// Whose manifest is there now.
pub(crate) enum Written {
    Ours,
    Foreign,
}

/// Creates a manifest where there is none.
///
/// An answer that got lost, or that a retry inside the storage turned into "taken", is settled
/// by looking.
pub(crate) async fn create_manifest(
    storage: &Arc<dyn Storage>,
    key: &str,
    json: &[u8],
    limit: Duration,
) -> Result<Written> {
    let name = storage.name();
    let created = storage.create_new(key, Bytes::copy_from_slice(json));
    let answer = within(name, limit, created).await;
    if matches!(answer, Ok(Creation::Created)) {
        return Ok(Written::Ours);
    }
    let stored = StoredObject::unchecked(Arc::clone(storage), key);
    match (answer, within(name, limit, read_small(&stored)).await) {
        (_, Ok(found)) if found == json => Ok(Written::Ours),
        // Also when it can't be looked at: what may be somebody else's is nobody's to remove.
        (Ok(_), _) => Ok(Written::Foreign),
        (Err(error), _) => Err(error),
    }
}
