//! The storage that every service has in common: listings, looks, reads, claims.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use backup_core::layout::check_key;
use backup_core::{
    ByteRange, Creation, Error, ErrorKind, ObjectInfo, ObjectVersion, Protection, Result, Sink,
    SinkWriter, SourceStream, Storage, Versioned,
};
use bytes::Bytes;
use futures_util::TryStreamExt;
use jiff::Timestamp;
use opendal::options::{ListOptions, StatOptions};
use opendal::{Buffer, EntryMode, Metadata, Operator};

use super::answer::Refusal;
use super::explain::{Place, explain};
use super::reader::Reader;
use super::service::{Object, Outcome, Service};
use super::writer::{Writer, fresh_mark, is_clear};
use crate::failure::Doing;

/// Objects in a bucket, whatever the service.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) name: String,
    /// `storage NAME`.
    pub(super) stage: String,
    pub(super) place: Place,
    /// Knows the prefix: keys go in and come out relative to it.
    pub(super) operator: Operator,
    pub(super) service: Box<dyn Service>,
    pub(super) request_timeout: Duration,
    pub(super) retry_deadline: Duration,
    pub(super) commit_timeout: Duration,
    /// The bucket was seen to be there.
    bucket_seen: AtomicBool,
}

/// What a look at an object shows.
pub(super) struct Seen {
    pub(super) info: ObjectInfo,
    pub(super) mark: Option<String>,
    pub(super) version: Option<String>,
}

impl Store {
    pub(super) fn new(
        name: String,
        place: Place,
        operator: Operator,
        service: Box<dyn Service>,
        settings: &crate::Settings,
    ) -> Self {
        Self {
            stage: format!("storage {name}"),
            name,
            place,
            operator,
            service,
            request_timeout: settings.request_timeout,
            retry_deadline: settings.retry_deadline,
            commit_timeout: settings.commit_timeout,
            bucket_seen: AtomicBool::new(false),
        }
    }

    pub(super) fn explain(&self, doing: Doing, verb: &str, error: opendal::Error) -> Error {
        explain(&self.stage, &self.place, doing, verb, &error)
    }

    pub(super) fn not_found(&self, key: &str) -> Error {
        Error::new(ErrorKind::NotFound, self.stage.clone(), format!("there is no {key}"))
    }

    /// Looks at an object; `None` when there is none.
    pub(super) async fn look(&self, key: &str) -> Result<Option<Seen>> {
        self.look_at(key, None).await
    }

    /// As [`Store::look`], of one version.
    pub(super) async fn look_at(&self, key: &str, version: Option<&str>) -> Result<Option<Seen>> {
        let options = StatOptions { version: version.map(str::to_owned), ..StatOptions::default() };
        match self.operator.stat_options(key, options).await {
            Ok(metadata) if metadata.mode() == EntryMode::DIR => Ok(None),
            Ok(metadata) => {
                self.bucket_seen.store(true, Ordering::Relaxed);
                Ok(Some(self.seen(key, &metadata)?))
            }
            Err(error) if error.kind() == opendal::ErrorKind::NotFound => {
                self.require_bucket().await?;
                Ok(None)
            }
            Err(error) => {
                let error = self.in_words(error).await;
                Err(self.explain(Doing::Read, &format!("look at {key}"), error))
            }
        }
    }

    /// The answer to a look has no body, so a refusal comes without words: a listing that is
    /// refused says why.
    async fn in_words(&self, error: opendal::Error) -> opendal::Error {
        let wordless =
            Refusal::inside(&error).is_some_and(|no| no.status == 403 && no.code.is_empty());
        if !wordless {
            return error;
        }
        match self.first_entry().await {
            Err(better) if Refusal::inside(&better).is_some_and(|no| no.code != "AccessDenied") => {
                better
            }
            _ => error,
        }
    }

    async fn first_entry(&self) -> Outcome<()> {
        let options = ListOptions { limit: Some(1), ..ListOptions::default() };
        let mut lister = self.operator.lister_options("/", options).await?;
        lister.try_next().await.map(drop).map_err(listing_error)
    }

    /// "Not there" is also what a missing bucket says of every object. That must not pass for
    /// an empty storage, so the first such answer is checked with a listing.
    pub(super) async fn require_bucket(&self) -> Result<()> {
        if self.bucket_seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.first_entry().await {
            Ok(()) => self.bucket_seen.store(true, Ordering::Relaxed),
            // Whoever may not list can't find out.
            Err(error) if error.kind() == opendal::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(self.explain(Doing::Read, "look into it", error)),
        }
        Ok(())
    }

    fn seen(&self, key: &str, metadata: &Metadata) -> Result<Seen> {
        let mark = metadata.user_metadata().and_then(|all| all.get(self.service.mark_name()));
        Ok(Seen {
            info: self.info(key, metadata)?,
            mark: mark.map(str::to_owned),
            version: metadata.version().map(str::to_owned),
        })
    }

    fn info(&self, key: &str, metadata: &Metadata) -> Result<ObjectInfo> {
        // Listings know fractions of a second, looks do not.
        let modified = metadata.last_modified().map(|time| time.into_inner().as_second());
        let modified = modified.and_then(|second| Timestamp::from_second(second).ok());
        let modified = modified.ok_or_else(|| {
            Error::new(
                ErrorKind::Unchecked,
                self.stage.clone(),
                format!("the service does not say when {key} was stored"),
            )
        })?;
        Ok(ObjectInfo { key: key.to_owned(), bytes: metadata.content_length(), modified })
    }

    async fn objects(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let options = ListOptions { recursive: true, ..ListOptions::default() };
        let entries = self.entries(prefix, options).await?;
        let objects = entries.iter().filter(|entry| {
            entry.metadata().mode() == EntryMode::FILE && check_key(entry.path()).is_ok()
        });
        let mut objects = objects
            .map(|entry| self.info(entry.path(), entry.metadata()))
            .collect::<Result<Vec<_>>>()?;
        objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    async fn entries(&self, prefix: &str, options: ListOptions) -> Result<Vec<opendal::Entry>> {
        let path = if prefix.is_empty() { "/".to_owned() } else { format!("{prefix}/") };
        let listing = async {
            self.operator.lister_options(&path, options).await?.try_collect::<Vec<_>>().await
        };
        let entries = listing.await.map_err(|error| {
            let verb = if prefix.is_empty() { "list it".into() } else { format!("list {prefix}") };
            self.explain(Doing::Read, &verb, listing_error(error))
        })?;
        self.bucket_seen.store(true, Ordering::Relaxed);
        Ok(entries)
    }

    /// Of a conditional put that found something: whether that is ours, stored by a try whose
    /// answer was lost.
    async fn is_ours(&self, key: &str, mark: &str) -> bool {
        match self.look(key).await {
            Ok(seen) => seen.is_some_and(|seen| seen.mark.as_deref() == Some(mark)),
            // Whoever may not look takes it for another's: at worst an id stays unused.
            Err(_) => false,
        }
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<Creation> {
        let mark = fresh_mark();
        let object = Object::new(key, &mark);
        let only_new = self.service.excludes();
        if !only_new && self.look(key).await?.is_some() {
            return Ok(Creation::Taken);
        }
        match self.service.put(&object, Buffer::from(body), only_new).await {
            Ok(_) => Ok(Creation::Created),
            Err(error) if was_taken(&error) => Ok(match self.is_ours(key, &mark).await {
                true => Creation::Created,
                false => Creation::Taken,
            }),
            Err(error) if !is_clear(&error) && self.is_ours(key, &mark).await => {
                Ok(Creation::Created)
            }
            Err(error) => Err(self.explain(Doing::Write, &format!("create {key}"), error)),
        }
    }
}

/// A folder that isn't there lists nothing: if something is not there, it is the bucket.
fn listing_error(error: opendal::Error) -> opendal::Error {
    match error.kind() {
        opendal::ErrorKind::NotFound => Refusal::missing_bucket().into_error(),
        _ => error,
    }
}

fn was_taken(error: &opendal::Error) -> bool {
    use opendal::ErrorKind as K;
    matches!(error.kind(), K::ConditionNotMatch | K::AlreadyExists)
}

fn check_folder(prefix: &str) -> Result<()> {
    if prefix.is_empty() { Ok(()) } else { check_key(prefix) }
}

/// A store that its writers and readers share.
#[derive(Debug, Clone)]
pub(super) struct Shared(pub(super) Arc<Store>);

#[async_trait]
impl Sink for Shared {
    fn name(&self) -> &str {
        &self.0.name
    }

    async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
        check_key(key)?;
        Ok(Box::new(Writer::new(Arc::clone(&self.0), key)))
    }
}

#[async_trait]
impl Storage for Shared {
    async fn open(&self, key: &str, range: ByteRange) -> Result<Box<dyn SourceStream>> {
        check_key(key)?;
        Ok(Box::new(Reader::open(Arc::clone(&self.0), key, None, range).await?))
    }

    async fn stat(&self, key: &str) -> Result<Option<ObjectInfo>> {
        check_key(key)?;
        Ok(self.0.look(key).await?.map(|seen| seen.info))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        check_folder(prefix)?;
        self.0.objects(prefix).await
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        check_folder(prefix)?;
        let entries = self.0.entries(prefix, ListOptions::default()).await?;
        let names = entries.iter().filter_map(|entry| {
            let inside = entry.path().strip_prefix(prefix)?.trim_start_matches('/');
            let name = inside.strip_suffix('/')?;
            check_key(name).ok()?;
            Some(name.to_owned())
        });
        Ok(names.collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        check_key(key)?;
        let deleted: Outcome<()> = self.0.service.delete(key).await;
        deleted.map_err(|error| self.0.explain(Doing::Write, &format!("delete {key}"), error))
    }

    async fn create_new(&self, key: &str, body: Bytes) -> Result<Creation> {
        check_key(key)?;
        self.0.create(key, body).await
    }

    fn excludes(&self) -> bool {
        self.0.service.excludes()
    }

    async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<u64> {
        check_folder(prefix)?;
        let swept = self.0.service.sweep(prefix, older_than).await;
        let verb = "remove unfinished uploads";
        swept.map_err(|error| self.0.explain(Doing::Write, verb, error))
    }

    fn versioned(&self) -> Option<&dyn Versioned> {
        self.0.service.may_keep_versions().then_some(self)
    }
}

#[async_trait]
impl Versioned for Shared {
    async fn versions(&self, key: &str) -> Result<Vec<ObjectVersion>> {
        check_key(key)?;
        let versions = self.0.service.versions(key).await;
        let verb = format!("list the versions of {key}");
        versions.map_err(|error| self.0.explain(Doing::Read, &verb, error))
    }

    async fn open_version(
        &self,
        key: &str,
        version: &str,
        range: ByteRange,
    ) -> Result<Box<dyn SourceStream>> {
        check_key(key)?;
        Ok(Box::new(Reader::open(Arc::clone(&self.0), key, Some(version), range).await?))
    }

    async fn lock_until(&self, key: &str, version: Option<&str>, until: Timestamp) -> Result<()> {
        check_key(key)?;
        let locked = self.0.service.lock_until(key, version, until).await;
        locked.map_err(|error| self.0.explain(Doing::Write, &format!("lock {key}"), error))
    }

    async fn hold(&self, key: &str, version: Option<&str>, held: bool) -> Result<bool> {
        check_key(key)?;
        let done = self.0.service.hold(key, version, held).await;
        let verb = if held { format!("hold {key}") } else { format!("give {key} free") };
        done.map_err(|error| self.0.explain(Doing::Write, &verb, error))
    }

    async fn protection(&self, key: &str, version: Option<&str>) -> Result<Protection> {
        check_key(key)?;
        let protection = self.0.service.protection(key, version).await;
        let verb = format!("ask for the lock of {key}");
        protection.map_err(|error| self.0.explain(Doing::Read, &verb, error))
    }
}
