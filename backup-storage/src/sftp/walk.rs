//! Listing and sweeping: walks over the files below a folder, several folders at once.

use std::sync::Arc;

use backup_core::layout::check_key;
use backup_core::{Error, ErrorKind, ObjectInfo, Result};
use jiff::Timestamp;
use tokio::task::JoinSet;

use super::connection::Connection;
use super::link::Failed;
use super::packet::{self, Attributes};
use super::place::{Place, unless_absent};
use super::session::Trouble;
use crate::partial;

/// Folders that are read at once.
const FOLDERS_AT_ONCE: usize = 8;
/// The folder that fsck keeps at the top of a disk, closed to everybody but root.
const LOST_AND_FOUND: &str = "lost+found";

/// What lies in one folder.
#[derive(Default)]
struct Inside {
    /// Keys of folders.
    folders: Vec<String>,
    /// Files, by what would be their keys.
    files: Vec<(String, Attributes)>,
}

impl Inside {
    fn holds_object(&self) -> bool {
        self.files.iter().any(|(key, _)| check_key(key).is_ok())
    }
}

impl Place {
    /// Every object below `prefix`, sorted by key.
    pub(super) async fn list(
        self: Arc<Self>,
        c: Arc<Connection>,
        prefix: &str,
    ) -> Result<Vec<ObjectInfo>, Failed> {
        let mut objects = Vec::new();
        for (key, file) in self.files(&c, prefix).await? {
            // A leftover's name can't be a key; nor can many a foreign one.
            if check_key(&key).is_ok() {
                objects.push(self.describe(key, &file)?);
            }
        }
        objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// Names of the folders directly in `prefix` that hold an object at any depth, sorted. Each
    /// is looked into only until one is found.
    pub(super) async fn folders(
        self: Arc<Self>,
        c: Arc<Connection>,
        prefix: &str,
    ) -> Result<Vec<String>, Failed> {
        let mut names = Vec::new();
        if !self.is_folder(&c, prefix).await? {
            return Ok(names);
        }
        let mut waiting = self.inside(&c, prefix).await?.folders;
        let mut looking = JoinSet::new();
        loop {
            while looking.len() < FOLDERS_AT_ONCE
                && let Some(folder) = waiting.pop()
            {
                let (place, c) = (Arc::clone(&self), Arc::clone(&c));
                looking.spawn(async move {
                    let holds = place.holds_object(&c, &folder).await?;
                    Ok::<_, Failed>(holds.then_some(folder))
                });
            }
            let Some(looked) = looking.join_next().await else { break };
            let found = looked.map_err(|died| self.task_died(died))??;
            names.extend(found.map(|folder| name_of(&folder).to_owned()));
        }
        names.sort_unstable();
        Ok(names)
    }

    async fn holds_object(&self, c: &Connection, folder: &str) -> Result<bool, Failed> {
        let mut waiting = vec![folder.to_owned()];
        while let Some(folder) = waiting.pop() {
            let inside = self.inside(c, &folder).await?;
            if inside.holds_object() {
                return Ok(true);
            }
            waiting.extend(inside.folders);
        }
        Ok(false)
    }

    /// Removes leftovers below `prefix` last written before `older_than`; says how many.
    pub(super) async fn sweep(
        self: Arc<Self>,
        c: Arc<Connection>,
        prefix: &str,
        older_than: Timestamp,
    ) -> Result<u64, Failed> {
        let is_old = |file: &Attributes| {
            file.modified.is_some_and(|touched| i64::from(touched) < older_than.as_second())
        };
        let mut removed = 0;
        for (key, file) in self.files(&c, prefix).await? {
            if !partial::is_leftover(name_of(&key)) || !is_old(&file) {
                continue;
            }
            let path = self.path(&key);
            match unless_absent(c.remove(&path).await) {
                Ok(gone) => removed += u64::from(gone.is_some()),
                Err(trouble) => {
                    return Err(self.writing("remove", &path).failed_on(&c, trouble).await);
                }
            }
            self.remove_empty_folders(&c, &path).await;
        }
        Ok(removed)
    }

    async fn is_folder(&self, c: &Connection, prefix: &str) -> Result<bool, Failed> {
        if prefix.is_empty() {
            return self.is_there(c).await;
        }
        check_key(prefix)?;
        Ok(self.find(c, prefix).await?.is_some_and(|found| found.is_folder()))
    }

    /// Every file below the folder `prefix`, in no order. What vanishes meanwhile is skipped, so
    /// are links and what is neither file nor folder.
    async fn files(
        self: &Arc<Self>,
        c: &Arc<Connection>,
        prefix: &str,
    ) -> Result<Vec<(String, Attributes)>, Failed> {
        let mut files = Vec::new();
        let mut waiting = Vec::new();
        if self.is_folder(c, prefix).await? {
            waiting.push(prefix.to_owned());
        }
        let mut reading = JoinSet::new();
        loop {
            while reading.len() < FOLDERS_AT_ONCE
                && let Some(folder) = waiting.pop()
            {
                let (place, c) = (Arc::clone(self), Arc::clone(c));
                reading.spawn(async move { place.inside(&c, &folder).await });
            }
            let Some(read) = reading.join_next().await else { return Ok(files) };
            let inside = read.map_err(|died| self.task_died(died))??;
            waiting.extend(inside.folders);
            files.extend(inside.files);
        }
    }

    /// What lies in the folder `folder`.
    async fn inside(&self, c: &Connection, folder: &str) -> Result<Inside, Failed> {
        let path = self.path(folder);
        let entries = match c.read_folder(&path).await {
            Ok(entries) => entries,
            // Removed, or replaced by something else, since its name was read.
            Err(Trouble::Status { code: packet::NO_SUCH_FILE, .. }) if !folder.is_empty() => {
                return Ok(Inside::default());
            }
            Err(Trouble::Status { code: packet::PERMISSION_DENIED, .. })
                if folder == LOST_AND_FOUND =>
            {
                return Ok(Inside::default());
            }
            Err(trouble) => return Err(self.reading("list", &path).failed(trouble)),
        };
        let mut inside = Inside::default();
        for entry in entries {
            // A name that isn't UTF-8 can't be part of a key, and a slash would lead elsewhere.
            let Some(name) = std::str::from_utf8(&entry.name).ok().filter(|n| !n.contains('/'))
            else {
                let name = String::from_utf8_lossy(&entry.name);
                tracing::warn!(path, %name, "no name of a file of ours: skipped");
                continue;
            };
            let key = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            let Some(found) = self.told(c, &key, entry.attributes).await? else { continue };
            if found.is_folder() {
                // Else nothing in it can be a key.
                if check_key(&format!("{key}/x")).is_ok() {
                    inside.folders.push(key);
                }
            } else if found.is_file() {
                inside.files.push((key, found));
            } else {
                tracing::warn!(path, name, "neither file nor folder: skipped");
            }
        }
        Ok(inside)
    }

    /// What a listing told of a file, or, where it left it out, what the server says of it.
    async fn told(
        &self,
        c: &Connection,
        key: &str,
        listed: Attributes,
    ) -> Result<Option<Attributes>, Failed> {
        if listed.kind().is_some() && listed.bytes.is_some() && listed.modified.is_some() {
            return Ok(Some(listed));
        }
        let path = self.path(key);
        unless_absent(c.lstat(&path).await)
            .map_err(|trouble| self.reading("look at", &path).failed(trouble))
    }

    fn task_died(&self, died: tokio::task::JoinError) -> Error {
        Error::failed(self.stage().to_owned(), "the task that reads the server's folders died")
            .with_kind(if died.is_cancelled() { ErrorKind::Interrupted } else { ErrorKind::Failed })
            .caused_by(died)
    }
}

fn name_of(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, name)| name)
}
