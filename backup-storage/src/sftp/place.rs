//! The folder of a storage: looking at objects, making room for them, removing them.

use std::sync::{Arc, Mutex, PoisonError};

use backup_core::layout::check_key;
use backup_core::{ByteRange, Error, ErrorKind, ObjectInfo, Result};
use jiff::Timestamp;

use super::connection::{Connection, Handle, path_request};
use super::explain::Attempt;
use super::link::{Failed, Link};
use super::packet::{self, Attributes};
use super::partial;
use super::session::{Answer, Trouble};
use crate::failure::Doing;

/// How often folders are made again that a delete on the side removed as empty.
const FOLDER_ATTEMPTS: u32 = 100;

/// File work below one root folder of a server.
#[derive(Debug)]
pub(super) struct Place {
    stage: String,
    root: String,
    pub(super) link: Link,
}

/// A file being written, where it will go, and the connection that has it open.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) connection: Arc<Connection>,
    pub(super) handle: Handle,
    pub(super) partial: String,
    pub(super) target: String,
    taken: bool,
}

impl Draft {
    /// Who gets it has to close it.
    pub(super) fn into_open(mut self) -> Option<(Arc<Connection>, Handle)> {
        self.taken = true;
        Some((Arc::clone(&self.connection), self.handle.clone()))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.taken {
            self.connection.close_quietly(&self.handle);
        }
    }
}

/// The file that a try was making when its connection was lost: perhaps it is there.
#[derive(Debug, Default)]
pub(super) struct Begun(Mutex<Option<String>>);

impl Begun {
    fn set(&self, partial: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), partial)
    }
}

/// What was found on the way to a key.
struct Way {
    /// The root is there.
    root: bool,
    /// What lies at each piece of the key, as far as there is anything.
    pieces: Vec<(String, Option<Attributes>)>,
}

impl Place {
    pub(super) fn new(stage: String, root: String, link: Link) -> Self {
        Self { stage, root, link }
    }

    pub(super) fn stage(&self) -> &str {
        &self.stage
    }

    pub(super) fn root(&self) -> &str {
        &self.root
    }

    pub(super) fn path(&self, key: &str) -> String {
        if key.is_empty() { self.root.clone() } else { format!("{}/{key}", self.root) }
    }

    pub(super) fn reading<'a>(&'a self, verb: &'a str, path: &'a str) -> Attempt<'a> {
        Attempt { stage: &self.stage, doing: Doing::Read, verb, path }
    }

    pub(super) fn writing<'a>(&'a self, verb: &'a str, path: &'a str) -> Attempt<'a> {
        Attempt { stage: &self.stage, doing: Doing::Write, verb, path }
    }

    /// Whether the root folder is there. When it isn't, the one above it must be.
    ///
    /// # Errors
    /// When there is no telling: a disk that isn't mounted must not look like an empty storage.
    pub(super) async fn is_there(&self, c: &Connection) -> Result<bool, Failed> {
        self.judge_root(c, c.stat(&self.root).await).await
    }

    async fn judge_root(&self, c: &Connection, root: Answer<Attributes>) -> Result<bool, Failed> {
        match unless_absent(root) {
            Ok(Some(found)) if found.is_folder() => Ok(true),
            Ok(Some(_)) => Err(self.in_the_way(&self.root, "use").into()),
            Ok(None) => self.require_above(c).await.map(|()| false),
            Err(trouble) => Err(self.reading("look at", &self.root).failed(trouble)),
        }
    }

    pub(super) fn above(&self) -> &str {
        match self.root.rsplit_once('/') {
            Some((above, _)) if !above.is_empty() => above,
            _ => "/",
        }
    }

    async fn require_above(&self, c: &Connection) -> Result<(), Failed> {
        let above = self.above();
        // A link that leads nowhere is a disk that isn't mounted, too.
        let dangling = c.lstat(&self.root).await.is_ok_and(|found| found.is_link());
        let found = unless_absent(c.stat(above).await)
            .map_err(|trouble| self.reading("look at", above).failed(trouble))?;
        if found.is_some_and(|found| found.is_folder()) && !dangling {
            return Ok(());
        }
        let (what, missing) = if dangling {
            ("is a link to nothing", &*self.root)
        } else {
            ("does not exist", above)
        };
        let message = format!("{missing} {what} on the server");
        Err(Error::failed(self.stage.clone(), message)
            .next_step(
                "mount the disk that should be there, or make that folder; the path of the URL \
                 is absolute, as the server sees it (chroot)",
            )
            .into())
    }

    pub(super) fn in_the_way(&self, path: &str, verb: &str) -> Error {
        let message = format!("can't {verb} {path}: something else lies where it should be");
        Error::failed(self.stage.clone(), message)
            .next_step("move that file or folder away, or use another folder for this storage")
    }

    fn refuse_link(&self, path: &str) -> Error {
        Error::refused(self.stage.clone(), format!("{path} is a symbolic link")).next_step(
            "put a real folder there (or a bind mount): links inside a storage are not followed",
        )
    }

    /// Looks at the root and at each piece of `relative`, all at once.
    async fn way(&self, c: &Connection, relative: &str) -> Result<Way, Failed> {
        let lost = |trouble| self.reading("look at", &self.root).failed(trouble);
        let mut asked_root = c.send(path_request(packet::STAT, &self.root)).await.map_err(lost)?;
        let mut asked = Vec::new();
        let ends = relative.match_indices('/').map(|(at, _)| at).chain([relative.len()]);
        for end in ends.filter(|end| *end > 0) {
            let path = self.path(&relative[..end]);
            asked.push((c.send(path_request(packet::LSTAT, &path)).await.map_err(lost)?, path));
        }
        let root = c.attributes(&mut asked_root).await;
        if !self.judge_root(c, root).await? {
            return Ok(Way { root: false, pieces: Vec::new() });
        }
        let mut pieces = Vec::new();
        for (mut ticket, path) in asked {
            let found = match unless_absent(c.attributes(&mut ticket).await) {
                Ok(Some(found)) if found.is_link() => return Err(self.refuse_link(&path).into()),
                Ok(found) => found,
                // Too long for a name: it can't be there.
                Err(Trouble::Status { code: packet::BAD_MESSAGE, .. }) => None,
                Err(trouble) => return Err(self.reading("look at", &path).failed(trouble)),
            };
            pieces.push((path, found));
        }
        Ok(Way { root: true, pieces })
    }

    /// File or folder at `relative`, which is a clean key.
    pub(super) async fn find(
        &self,
        c: &Connection,
        relative: &str,
    ) -> Result<Option<Attributes>, Failed> {
        Ok(self.way(c, relative).await?.pieces.pop().and_then(|(_, found)| found))
    }

    /// What lies under `key`, without following links; `None` unless it is a file.
    pub(super) async fn look(
        &self,
        c: &Connection,
        key: &str,
    ) -> Result<Option<Attributes>, Failed> {
        check_key(key)?;
        Ok(self.find(c, key).await?.filter(Attributes::is_file))
    }

    /// As [`Place::look`], on the way to change something.
    pub(super) async fn look_to_change(
        &self,
        c: &Connection,
        key: &str,
    ) -> Result<Option<Attributes>, Failed> {
        self.look(c, key).await.map_err(unchecked_is_failed)
    }

    /// What a listing shows of a file.
    pub(super) fn describe(&self, key: String, file: &Attributes) -> Result<ObjectInfo> {
        let untold = |what: &str| {
            Error::failed(
                self.stage.clone(),
                format!("the server doesn't tell the {what} of {key}"),
            )
            .next_step("use a server with OpenSSH's sftp-server")
        };
        let bytes = file.bytes.ok_or_else(|| untold("size"))?;
        let seconds = file.modified.ok_or_else(|| untold("time"))?;
        let modified = Timestamp::from_second(i64::from(seconds)).map_err(|_| untold("time"))?;
        Ok(ObjectInfo { key, bytes, modified })
    }

    pub(super) fn absent(&self, key: &str) -> Error {
        Error::new(ErrorKind::NotFound, self.stage.clone(), format!("there is no {key}"))
            .next_step("`marb-backup list` shows what there is")
    }

    /// Opens an object; also what it is and how many bytes of the range there are.
    pub(super) async fn open_range(
        &self,
        c: &Connection,
        key: &str,
        range: ByteRange,
    ) -> Result<(Handle, Attributes, u64), Failed> {
        self.look(c, key).await?.ok_or_else(|| self.absent(key))?;
        let path = self.path(key);
        let handle = match unless_absent(c.open_to_read(&path).await) {
            Ok(Some(handle)) => handle,
            Ok(None) => return Err(self.absent(key).into()),
            Err(trouble) => return Err(self.reading("read", &path).failed(trouble)),
        };
        let found = c.fstat(&handle).await;
        let found = found.map_err(|trouble| {
            c.close_quietly(&handle);
            self.reading("look at", &path).failed(trouble)
        })?;
        let left = self.describe(key.to_owned(), &found)?.bytes.saturating_sub(range.offset);
        Ok((handle, found, range.length.map_or(left, |wanted| wanted.min(left))))
    }

    /// Starts a file that will become `key`. Leaves nothing when it fails; what a lost try may
    /// have left is in `begun`, for the next one.
    pub(super) async fn draft(
        &self,
        c: Arc<Connection>,
        key: &str,
        begun: &Begun,
    ) -> Result<Draft, Failed> {
        check_key(key)?;
        let target = self.path(key);
        if let Some(earlier) = begun.set(None)
            && let Err(lost @ Trouble::Lost(_)) = unless_absent(c.remove(&earlier).await)
        {
            let failed = self.writing("remove", &earlier).failed(lost);
            begun.set(Some(earlier));
            return Err(failed);
        }
        for _ in 0..FOLDER_ATTEMPTS {
            self.make_way(&c, key).await.map_err(unchecked_is_failed)?;
            let partial = partial::beside(&target);
            match c.create(&partial).await {
                Ok(handle) => {
                    return Ok(Draft { connection: c, handle, partial, target, taken: false });
                }
                // A delete on the side found our new folder empty.
                Err(Trouble::Status { code: packet::NO_SUCH_FILE, .. }) => {}
                Err(trouble) => {
                    if matches!(&trouble, Trouble::Lost(_)) {
                        begun.set(Some(partial));
                    }
                    let failed = self.writing("write", &target).failed_on(&c, trouble).await;
                    self.remove_empty_folders(&c, &target).await;
                    return Err(failed);
                }
            }
        }
        let gone = Trouble::Status { code: packet::NO_SUCH_FILE, message: String::new() };
        Err(self.writing("write to", &target).failed(gone))
    }

    /// Makes what is missing of the folders above `key`, and finds out now, not after hours of
    /// writing, that its name can't be taken.
    async fn make_way(&self, c: &Connection, key: &str) -> Result<(), Failed> {
        let mut way = self.way(c, key).await?;
        if !way.root {
            self.make_folder(c, &self.root).await?;
            tracing::info!(storage = self.stage, folder = self.root, "made the storage's folder");
            way = self.way(c, key).await?;
        }
        let Some((target, at_target)) = way.pieces.pop() else { return Ok(()) };
        if at_target.is_some_and(|found| found.is_folder()) {
            return Err(self.in_the_way(&target, "write").into());
        }
        for (path, found) in way.pieces {
            match found {
                Some(found) if found.is_folder() => {}
                Some(_) => return Err(self.in_the_way(&path, "make").into()),
                None => {
                    if let Err(failed) = self.make_folder(c, &path).await {
                        self.remove_empty_folders(c, &path).await;
                        return Err(failed);
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes a folder, if it isn't there yet. That the one above it went is not an error: the
    /// next step finds out. It is made durable by the commit.
    async fn make_folder(&self, c: &Connection, path: &str) -> Result<(), Failed> {
        let trouble = match c.make_folder(path).await {
            Ok(()) | Err(Trouble::Status { code: packet::NO_SUCH_FILE, .. }) => return Ok(()),
            Err(trouble) => trouble,
        };
        // Made by somebody else meanwhile: the protocol has no code for that.
        match unless_absent(c.lstat(path).await) {
            Ok(Some(found)) if found.is_folder() => Ok(()),
            Ok(Some(found)) if found.is_link() => Err(self.refuse_link(path).into()),
            Ok(Some(_)) => Err(self.in_the_way(path, "make").into()),
            _ => Err(self.writing("make", path).failed_on(c, trouble).await),
        }
    }

    /// Removes an object, durably, and the folders that it leaves empty.
    pub(super) async fn delete(&self, c: &Connection, key: &str) -> Result<(), Failed> {
        let path = self.path(key);
        if self.look_to_change(c, key).await?.is_some() {
            match unless_absent(c.remove(&path).await) {
                // Else a manifest could come back after a power cut, without its parts.
                Ok(_) => self.sync_folder(c, folder_of(&path)).await?,
                Err(trouble) => {
                    return Err(self.writing("delete", &path).failed_on(c, trouble).await);
                }
            }
        }
        self.remove_empty_folders(c, &path).await;
        Ok(())
    }

    /// Removes the folders above `path`, below the root, as long as they are empty. What can't be
    /// removed stays: an empty folder harms nobody.
    pub(super) async fn remove_empty_folders(&self, c: &Connection, path: &str) {
        let mut folder = folder_of(path);
        while folder.len() > self.root.len() && folder.starts_with(&self.root) {
            // Also gone on the side, or never made: the one above may be empty all the same.
            if unless_absent(c.remove_folder(folder).await).is_err() {
                return;
            }
            folder = folder_of(folder);
        }
    }
}

pub(super) fn folder_of(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some((folder, _)) if !folder.is_empty() => folder,
        _ => "/",
    }
}

/// `None` for what isn't there.
pub(super) fn unless_absent<T>(answer: Answer<T>) -> Answer<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(Trouble::Status { code: packet::NO_SUCH_FILE, .. }) => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

/// "Could not be looked at" is an answer to a reader; to a writer it is a failure.
fn unchecked_is_failed(failed: Failed) -> Failed {
    match failed {
        Failed::Told(error) if error.kind() == ErrorKind::Unchecked => {
            Failed::Told(error.with_kind(ErrorKind::Failed))
        }
        other => other,
    }
}
