//! Buckets that keep versions: a delete there hides an object, and frees nothing.
//!
//! So a delete names the versions. What a lock still holds is skipped and reported: the object is
//! hidden, its bytes are paid for until the lock ends. Then a sweep removes it, if it belonged to a
//! run that never came to its manifest. A backup that was once listed is left: a hidden manifest may
//! as well be an intruder's doing, and its versions are what one gets it back from.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{ObjectVersion, layout};
use http::{HeaderMap, Method};
use jiff::Timestamp;
use opendal::{Buffer, ErrorKind};
use serde::Deserialize;

use super::super::answer::{NoAnswer, Refusal};
use super::super::probe::PROBE_NAME;
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
    #[serde(default)]
    is_latest: bool,
    #[serde(default)]
    last_modified: String,
    /// It is no object but the note that there is none any more.
    #[serde(skip)]
    deletes: bool,
}

impl Version {
    fn modified(&self) -> Option<Timestamp> {
        self.last_modified.parse().ok()
    }
}

impl S3Service {
    /// Asks once, and remembers a clear answer.
    ///
    /// # Errors
    /// When the service could not be asked just now, which says nothing about the bucket.
    pub(super) async fn versioning(&self) -> Outcome<Versioning> {
        if let Some(known) = self.versioning.get() {
            return Ok(*known);
        }
        let asked = self.requests.bucket(&[("versioning", "")]).await;
        let configured = asked.and_then(|answer| answer.document::<Configuration>());
        let found = match configured {
            Ok(configuration) if configuration.status.is_empty() => Versioning::Never,
            Ok(_) => Versioning::Kept,
            Err(error) if says_nothing(&error) => return Err(error),
            Err(_) => Versioning::Unknown,
        };
        Ok(*self.versioning.get_or_init(|| found))
    }

    /// Removes an object, with every version of it.
    pub(super) async fn delete_object(&self, key: &str) -> Outcome<()> {
        if self.versioning().await? != Versioning::Kept {
            return delete_with(&self.operator, key).await;
        }
        let whole_key = self.requests.whole_key(key);
        let (mut held, mut locked) = (0, 0);
        for version in self.all_versions(&whole_key, true).await? {
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

    /// Every kept version of an object, the newest first; empty for whoever may not ask.
    pub(super) async fn versions_of(&self, key: &str) -> Outcome<Vec<ObjectVersion>> {
        if self.versioning().await? != Versioning::Kept {
            return Ok(Vec::new());
        }
        let listed = match self.all_versions(&self.requests.whole_key(key), true).await {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(Vec::new()),
            listed => listed?,
        };
        let objects = listed.into_iter().filter(|version| !version.deletes);
        let known = objects.filter_map(|version| {
            Some(ObjectVersion {
                modified: version.modified()?,
                id: version.version_id,
                bytes: version.size,
                current: version.is_latest,
            })
        });
        let mut known: Vec<_> = known.collect();
        known.sort_by_key(|version| std::cmp::Reverse((version.current, version.modified)));
        Ok(known)
    }

    /// Removes, of the keys that begin with `prefix`, what is hidden and belonged to runs that
    /// never came to a manifest (or to a probe), and was last touched before a time; says how many
    /// versions. What is still locked waits for a later sweep.
    pub(super) async fn sweep_hidden(&self, prefix: &str, before: Timestamp) -> Outcome<u64> {
        if self.versioning().await? != Versioning::Kept {
            return Ok(0);
        }
        let all = match self.all_versions(prefix, false).await {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(0),
            all => all?,
        };
        let mut swept = 0;
        for (whole_key, versions) in hidden_leftovers(&all, &self.requests.whole_prefix(""), before)
        {
            for version in versions {
                match self.delete_version(whole_key, &version.version_id).await {
                    Ok(()) => swept += u64::from(!version.deletes),
                    // Its mark of deletion goes when nothing is left that it hides.
                    Err(error) if error.kind() == ErrorKind::PermissionDenied => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(swept)
    }

    async fn delete_version(&self, whole_key: &str, id: &str) -> Outcome<()> {
        let query = [("versionId", id)];
        let (headers, body) = (HeaderMap::new(), Buffer::new());
        match self.requests.object(Method::DELETE, whole_key, &query, headers, body).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other.map(drop),
        }
    }

    /// Every version and mark of deletion of one key, or of all keys that begin so.
    async fn all_versions(&self, prefix: &str, one_key: bool) -> Outcome<Vec<Version>> {
        let (mut all, mut key, mut id) = (Vec::new(), String::new(), String::new());
        loop {
            let mut query = vec![("versions", ""), ("prefix", prefix)];
            if !key.is_empty() {
                query.extend([("key-marker", key.as_str()), ("version-id-marker", id.as_str())]);
            }
            let page: Listing = self.requests.bucket(&query).await?.document()?;
            let markers = page.markers.into_iter().map(|m| Version { deletes: true, ..m });
            let both = page.versions.into_iter().chain(markers);
            all.extend(both.filter(|version| match one_key {
                true => version.key == prefix,
                false => version.key.starts_with(prefix),
            }));
            let marker = (page.next_key_marker, page.next_version_id_marker);
            // Sorted by key: behind a single one there is nothing to look for.
            let wanted = if one_key { marker.0 == prefix } else { !marker.0.is_empty() };
            if !(page.is_truncated && wanted && marker != (key, id)) {
                return Ok(all);
            }
            (key, id) = marker;
        }
    }
}

/// No answer, or one that may be another one in a moment.
fn says_nothing(error: &opendal::Error) -> bool {
    match Refusal::inside(error) {
        Some(refusal) => refusal.is_temporary(),
        None => NoAnswer::inside(error).is_some(),
    }
}

/// Keys that are hidden, of probes and of backups without any version of a manifest, with their
/// versions, the marks of deletion last. Nothing of a backup of which any part is younger than
/// `before`.
fn hidden_leftovers<'a>(
    all: &'a [Version],
    prefix: &str,
    before: Timestamp,
) -> BTreeMap<&'a str, Vec<&'a Version>> {
    let unit_of = |version: &'a Version| {
        let key = version.key.strip_prefix(prefix)?;
        if key.starts_with(PROBE_NAME) && !key.contains('/') {
            return Some((Unit::Probe(key), key));
        }
        let (job, id, name) = layout::parse_key(key)?;
        Some((Unit::Folder(job, id), name))
    };
    let (mut spared, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for version in all {
        let Some((unit, name)) = unit_of(version) else { continue };
        let mut young = version.modified().is_none_or(|modified| modified >= before);
        let listed = name == layout::MANIFEST && !version.deletes;
        if let Unit::Folder(_, id) = &unit {
            young |= id.started() >= before;
        }
        if young || listed {
            spared.insert(unit);
        }
        if version.is_latest && !version.deletes {
            seen.insert(version.key.as_str());
        }
    }
    let mut leftovers: BTreeMap<&str, Vec<&Version>> = BTreeMap::new();
    for version in all {
        let swept = unit_of(version).is_some_and(|(unit, _)| !spared.contains(&unit));
        if swept && !seen.contains(version.key.as_str()) {
            leftovers.entry(&version.key).or_default().push(version);
        }
    }
    leftovers.values_mut().for_each(|versions| versions.sort_by_key(|version| version.deletes));
    leftovers
}

/// What goes or stays as a whole.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unit<'a> {
    /// The object of a probe that was locked when the probe was over.
    Probe(&'a str),
    /// A backup's folder.
    Folder(&'a str, layout::BackupId),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(key: &str, deletes: bool, is_latest: bool) -> Version {
        Version {
            key: format!("p/{key}"),
            version_id: "1".into(),
            size: 1,
            is_latest,
            last_modified: "2026-01-02T00:00:00.000Z".into(),
            deletes,
        }
    }

    fn swept(all: &[Version], before: &str) -> Vec<String> {
        hidden_leftovers(all, "p/", before.parse().unwrap())
            .into_keys()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn only_what_was_never_listed_and_is_hidden_and_old_goes() {
        let part = "db/2026/01/20260101T000000Z/a.dump";
        let manifest = "db/2026/01/20260101T000000Z/manifest.json";
        let after = "2026-02-01T00:00:00Z";
        let hidden = || vec![version(part, false, false), version(part, true, true)];
        assert_eq!(swept(&hidden(), after), [format!("p/{part}")]);
        assert!(swept(&hidden(), "2026-01-01T12:00:00Z").is_empty(), "young");
        assert!(swept(&[version(part, false, true)], after).is_empty(), "it can be seen");
        let mut listed_once = hidden();
        listed_once.extend([version(manifest, false, false), version(manifest, true, true)]);
        assert!(swept(&listed_once, after).is_empty(), "its manifest is only hidden");
        let mut given_back = hidden();
        given_back.push(version(manifest, true, true));
        assert_eq!(swept(&given_back, after).len(), 2, "no manifest was ever there");
        let probe = ".marb-probe-0123456789abcdef0123456789abcdef";
        let probed = [version(probe, false, false), version(probe, true, true)];
        assert_eq!(swept(&probed, after), [format!("p/{probe}")]);
        assert!(swept(&probed, "2026-01-01T12:00:00Z").is_empty(), "young");
        assert!(swept(&[version(probe, false, true)], after).is_empty(), "it can be seen");
        let foreign = [version("notes.txt", false, false), version("notes.txt", true, true)];
        assert!(swept(&foreign, after).is_empty(), "not ours");
        let mut versions = hidden();
        versions.reverse();
        let found = hidden_leftovers(&versions, "p/", after.parse().unwrap());
        assert!(found.values().all(|all| !all[0].deletes && all[1].deletes), "marks go last");
    }
}
