//! Buckets that keep versions: a delete there hides an object, and frees nothing.
//!
//! So a delete names the versions. What a lock still holds is skipped and reported: the object is
//! hidden, its bytes are paid for until the lock ends.

use http::{HeaderMap, Method};
use opendal::{Buffer, ErrorKind};
use serde::Deserialize;

use super::super::service::{Outcome, delete_with};
use super::S3Service;

/// Whether a bucket keeps versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Versioning {
    /// It never did.
    Never,
    /// It does, or once did.
    Kept,
    /// Whoever asked may not know.
    Unknown,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Configuration {
    #[serde(default)]
    status: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listing {
    #[serde(default, rename = "Version")]
    versions: Vec<Version>,
    #[serde(default, rename = "DeleteMarker")]
    markers: Vec<Version>,
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_key_marker: String,
    #[serde(default)]
    next_version_id_marker: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    key: String,
    version_id: String,
    #[serde(default)]
    size: u64,
}

impl S3Service {
    /// Asks once, and remembers a clear answer.
    pub(super) async fn versioning(&self) -> Versioning {
        if let Some(known) = self.versioning.get() {
            return *known;
        }
        let asked = self.requests.bucket(&[("versioning", "")]).await;
        let configured = asked.and_then(|answer| answer.document::<Configuration>());
        let found = match configured {
            Ok(configuration) if configuration.status.is_empty() => Versioning::Never,
            Ok(_) => Versioning::Kept,
            Err(error) if error.is_temporary() => return Versioning::Unknown,
            Err(_) => Versioning::Unknown,
        };
        *self.versioning.get_or_init(|| found)
    }

    /// Removes an object, with every version of it.
    pub(super) async fn delete_object(&self, key: &str) -> Outcome<()> {
        if self.versioning().await != Versioning::Kept {
            return delete_with(&self.operator, key).await;
        }
        let whole_key = self.requests.whole_key(key);
        let (mut held, mut locked) = (0, 0);
        for version in self.versions(&whole_key).await? {
            match self.delete_version(&whole_key, &version.version_id).await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    held += version.size;
                    locked += 1;
                }
                Err(error) => return Err(error),
            }
        }
        if locked > 0 {
            // Without a version: what can't go is at least not seen any more.
            delete_with(&self.operator, key).await?;
            tracing::warn!(
                "{key} is deleted, but {locked} versions of it are locked (or these credentials \
                 may not delete versions): {held} bytes stay until the lock ends"
            );
        }
        Ok(())
    }

    async fn delete_version(&self, whole_key: &str, id: &str) -> Outcome<()> {
        let query = [("versionId", id)];
        let (headers, body) = (HeaderMap::new(), Buffer::new());
        match self.requests.object(Method::DELETE, whole_key, &query, headers, body).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other.map(drop),
        }
    }

    async fn versions(&self, whole_key: &str) -> Outcome<Vec<Version>> {
        let (mut all, mut key, mut id) = (Vec::new(), String::new(), String::new());
        loop {
            let mut query = vec![("versions", ""), ("prefix", whole_key)];
            if !key.is_empty() {
                query.extend([("key-marker", key.as_str()), ("version-id-marker", id.as_str())]);
            }
            let page: Listing = self.requests.bucket(&query).await?.document()?;
            let both = page.versions.into_iter().chain(page.markers);
            all.extend(both.filter(|version| version.key == whole_key));
            let marker = (page.next_key_marker, page.next_version_id_marker);
            // Sorted by key: behind ours there is nothing to look for.
            let ours = page.is_truncated && marker.0 == whole_key && marker != (key, id);
            if !ours {
                return Ok(all);
            }
            (key, id) = marker;
        }
    }
}
