//! What a storage needs beside its URL: options, secrets, and how its objects are to be kept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use backup_core::{Error, Result};
use secrecy::SecretString;

/// Longest time for one request to be answered, when [`Settings::request_timeout`] is not set.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a failing request is tried again, when [`Settings::retry_deadline`] is not set.
pub const RETRY_DEADLINE: Duration = Duration::from_secs(3 * 60);

/// How long a commit may take, when [`Settings::commit_timeout`] is not set: two minutes less than
/// the pipeline waits for it, in which is settled what became of it.
pub const COMMIT_TIMEOUT: Duration = Duration::from_secs(8 * 60);

/// Everything about a storage that its URL does not say.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Plain options by name, such as `region`.
    pub options: BTreeMap<String, String>,
    /// Secrets by name, such as `secret_access_key`.
    pub secrets: BTreeMap<String, SecretString>,
    /// Whether credentials that are not given may be found the ecosystem's own way: in the
    /// process's environment, profiles of the user, the instance's role, an agent.
    pub ambient_credentials: bool,
    /// How the objects are to be kept.
    pub objects: ObjectSettings,
    /// Longest time for one request to be answered.
    pub request_timeout: Duration,
    /// How long a failing request is tried again before it is given up, from its first try on.
    pub retry_deadline: Duration,
    /// How long the service may take to make an object of what was sent, with all tries. After
    /// that the storage looks what became of it, and cleans up.
    pub commit_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            options: BTreeMap::new(),
            secrets: BTreeMap::new(),
            ambient_credentials: true,
            objects: ObjectSettings::default(),
            request_timeout: REQUEST_TIMEOUT,
            retry_deadline: RETRY_DEADLINE,
            commit_timeout: COMMIT_TIMEOUT,
        }
    }
}

impl Settings {
    /// Refuses every setting: for a storage that has none, such as a folder.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage), naming the one that was given.
    pub fn refuse_all(&self, storage: &str) -> Result<()> {
        self.only(storage, &[], &[])?;
        self.refuse_objects(storage)
    }

    /// Refuses settings of objects: for a storage that keeps plain files.
    pub(crate) fn refuse_objects(&self, storage: &str) -> Result<()> {
        if self.objects == ObjectSettings::default() {
            return Ok(());
        }
        let message = "keeps plain files: it has no tags, metadata, classes, encryption or locks";
        Err(Error::usage(format!("storage {storage}"), message)
            .next_step("remove `objects` for this storage"))
    }

    /// Refuses options and secrets that the storage does not know.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage), naming the ones that are known.
    pub(crate) fn only(&self, storage: &str, options: &[&str], secrets: &[&str]) -> Result<()> {
        let check = |what: &str, given: BTreeSet<&String>, known: &[&str]| {
            let Some(unknown) = given.into_iter().find(|name| !known.contains(&name.as_str()))
            else {
                return Ok(());
            };
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Err(Error::usage(format!("storage {storage}"), format!("has no {what} {unknown:?}"))
                .next_step(format!("its {what}s are: {known}")))
        };
        check("option", self.options.keys().collect(), options)?;
        check("secret", self.secrets.keys().collect(), secrets)
    }
}

/// How a storage is to keep the objects, where it can.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectSettings {
    /// Tags of every object, which rules of the bucket can refer to.
    pub tags: BTreeMap<String, String>,
    /// Metadata of every object, for people.
    pub metadata: BTreeMap<String, String>,
    /// The storage class or access tier, in the service's own word.
    pub storage_class: Option<String>,
    /// Encryption by the service itself.
    pub encryption: Option<ServerEncryption>,
    /// Keeps every object from being deleted or overwritten for some time.
    pub object_lock: Option<ObjectLock>,
}

/// Encryption at rest by the service, beside ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEncryption {
    /// With keys that the service keeps (S3: SSE-S3, `AES256`).
    Service,
    /// With a key of its key service, by its id; `None` for the account's default key.
    KeyService(Option<String>),
}

/// Write-once protection of every object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLock {
    /// Who may lift it.
    pub mode: LockMode,
    /// For how many days from the commit on.
    pub days: u32,
}

/// Who may lift an [`ObjectLock`] before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Those with a special right.
    Governance,
    /// Nobody.
    Compliance,
}
