//! Making a finished file visible, durably and at once.
//!
//! Everything here may be done twice: when a connection was lost, nobody knows how far the
//! server came. So each try looks first.

use std::sync::{Arc, Mutex, PoisonError};

use backup_core::{Creation, Error, Result};
use bytes::Bytes;

use super::connection::{Connection, Handle, write_request};
use super::link::Failed;
use super::packet::{self, Attributes};
use super::partial;
use super::place::{Begun, Draft, Place, folder_of, unless_absent};
use super::session::Trouble;

/// A written file that waits for its name.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) partial: String,
    pub(super) target: String,
    pub(super) bytes: u64,
    /// When it was last written, once it was settled: its name is given only after that, and
    /// changes nothing of it.
    written: Mutex<Option<Option<u32>>>,
    /// The connection that still has it open; the first try takes it.
    open: Mutex<Option<(Arc<Connection>, Handle)>>,
}

impl Finished {
    pub(super) fn new(draft: Draft, bytes: u64) -> Self {
        let (partial, target) = (draft.partial.clone(), draft.target.clone());
        Self {
            partial,
            target,
            bytes,
            written: Mutex::default(),
            open: Mutex::new(draft.into_open()),
        }
    }

    fn settled(&self, found: &Attributes) {
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.modified);
    }

    /// Whether what lies under the final name can be this file: an older object of the same size
    /// was not written in the same second. Before it was settled, nobody gave it its name.
    fn is(&self, found: &Attributes) -> bool {
        let written = *self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let same_time = written.is_some_and(|written| written == found.modified);
        found.is_file() && found.bytes == Some(self.bytes) && same_time
    }

    fn take_open(&self, c: &Arc<Connection>) -> Option<Handle> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        open.filter(|(connection, _)| Arc::ptr_eq(connection, c)).map(|(_, handle)| handle)
    }
}

/// The file of a `create_new` whose connection was lost.
#[derive(Debug)]
pub(super) struct Earlier {
    partial: String,
    /// A removal was lost, too: that the file is gone doesn't say any more that it was renamed.
    perhaps_removed: bool,
}

impl Place {
    /// Gives a written file its final name; an older object of that name is replaced as a whole.
    pub(super) async fn publish(&self, c: Arc<Connection>, file: &Finished) -> Result<(), Failed> {
        if !self.settle(&c, file).await? {
            return self.find_published(&c, file).await;
        }
        self.replace(&c, file).await?;
        self.sync_above(&c, &file.target).await
    }

    /// Brings the content of a file to the disk. `false` when it isn't there any more: then an
    /// earlier try may have renamed it.
    async fn settle(&self, c: &Arc<Connection>, file: &Finished) -> Result<bool, Failed> {
        let path = &file.partial;
        let handle = match file.take_open(c) {
            Some(handle) => handle,
            None => match unless_absent(c.open_to_write(path).await) {
                Ok(Some(handle)) => handle,
                Ok(None) => return Ok(false),
                Err(trouble) => return Err(self.writing("sync", path).failed(trouble)),
            },
        };
        let settled = async {
            if c.offers.sync {
                c.sync(&handle).await?;
            }
            c.fstat(&handle).await
        };
        let settled = settled.await;
        let closed = c.close(&handle).await;
        let found = match settled.and_then(|found| closed.map(|()| found)) {
            Ok(found) => found,
            Err(trouble) => return Err(self.writing("sync", path).failed_on(c, trouble).await),
        };
        match found.bytes {
            Some(bytes) if bytes != file.bytes => {
                let message = format!("{path} has {bytes} bytes, {} were written", file.bytes);
                Err(Error::failed(self.stage().to_owned(), message)
                    .next_step("somebody else writes there, or its disk is failing")
                    .into())
            }
            _ => {
                file.settled(&found);
                Ok(true)
            }
        }
    }

    /// Finds the object that an earlier try published.
    pub(super) async fn find_published(
        &self,
        c: &Connection,
        file: &Finished,
    ) -> Result<(), Failed> {
        match unless_absent(c.lstat(&file.target).await) {
            Ok(Some(found)) if file.is(&found) => self.sync_above(c, &file.target).await,
            Ok(_) => Err(Error::failed(
                self.stage().to_owned(),
                format!("{} vanished before it could be published", file.partial),
            )
            .next_step("look for another run or a cleaning job on the server, then run again")
            .into()),
            Err(trouble) => Err(self.writing("look at", &file.target).failed(trouble)),
        }
    }

    async fn replace(&self, c: &Connection, file: &Finished) -> Result<(), Failed> {
        let (from, to) = (&file.partial, &file.target);
        let mut renamed = match c.offers.replace {
            true => c.replace(from, to).await,
            false => c.rename(from, to).await,
        };
        let taken = matches!(&renamed, Err(Trouble::Status { .. }));
        if taken && !c.offers.replace && c.lstat(to).await.is_ok_and(|old| old.is_file()) {
            // Without an extension there is no replacing: for a moment, neither is there.
            unless_absent(c.remove(to).await)
                .map_err(|trouble| self.writing("replace", to).failed(trouble))?;
            renamed = c.rename(from, to).await;
        }
        match renamed {
            Ok(()) => Ok(()),
            Err(trouble) => Err(self.writing("publish", to).failed_on(c, trouble).await),
        }
    }

    /// Syncs the folders from the one of `path` up to the one above the root, all at once. All of
    /// them, not only those made by us: who made them may have crashed before syncing.
    async fn sync_above(&self, c: &Connection, path: &str) -> Result<(), Failed> {
        let mut folder = folder_of(path);
        loop {
            self.sync_folder(c, folder).await?;
            if folder == self.above() || folder == "/" {
                return Ok(());
            }
            folder = folder_of(folder);
        }
    }

    /// Syncs a folder's entries to the disk, where the server lets us open one: OpenSSH does.
    /// Elsewhere the file system's own promises count.
    pub(super) async fn sync_folder(&self, c: &Connection, folder: &str) -> Result<(), Failed> {
        if !c.offers.sync {
            return Ok(());
        }
        let handle = match c.open_to_read(folder).await {
            Ok(handle) => handle,
            Err(Trouble::Status { .. }) => return Ok(()),
            Err(lost @ Trouble::Lost(_)) => return Err(self.writing("sync", folder).failed(lost)),
        };
        let synced = c.sync(&handle).await;
        c.close_quietly(&handle);
        match synced {
            Ok(()) => Ok(()),
            // Such a file system, or somebody else's folder.
            Err(Trouble::Status { code, .. }) if code != packet::FAILURE => Ok(()),
            Err(trouble) => Err(self.writing("sync", folder).failed(trouble)),
        }
    }

    /// Stores a small object if there is none of that name. `begun` and `earlier` are for the next
    /// try.
    pub(super) async fn create_new(
        &self,
        c: Arc<Connection>,
        key: &str,
        body: &Bytes,
        (begun, earlier): &(Begun, Mutex<Option<Earlier>>),
    ) -> Result<Creation, Failed> {
        let remember = |file| {
            *earlier.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        };
        let before = earlier.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(before) = before {
            let created = self.was_created(&c, &before, &self.path(key), body).await;
            if matches!(&created, Err(Failed::Lost(_))) {
                remember(Earlier { perhaps_removed: true, ..before });
            }
            if created? {
                return Ok(Creation::Created);
            }
        }
        if self.look_to_change(&c, key).await?.is_some() {
            return Ok(Creation::Taken);
        }
        let draft = self.draft(Arc::clone(&c), key, begun).await?;
        let partial = draft.partial.clone();
        remember(Earlier { partial: partial.clone(), perhaps_removed: false });
        let outcome = self.create_from(&c, draft, body).await;
        // Gone already where it was renamed.
        if !matches!(&outcome, Err(Failed::Lost(_))) {
            self.remove_leftover(&c, &partial).await;
        }
        outcome
    }

    async fn create_from(
        &self,
        c: &Arc<Connection>,
        draft: Draft,
        body: &Bytes,
    ) -> Result<Creation, Failed> {
        let mut tickets = Vec::new();
        let cannot = |trouble| self.writing("write to", &draft.partial).failed_on(c, trouble);
        let mut offset = 0;
        let mut rest = body.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(c.offers.write_bytes));
            let bytes = piece.len() as u64;
            match c.send(write_request(&draft.handle, offset, vec![piece])).await {
                Ok(ticket) => tickets.push(ticket),
                Err(trouble) => return Err(cannot(trouble).await),
            }
            offset += bytes;
        }
        for mut ticket in tickets {
            if let Err(trouble) = c.done(&mut ticket).await {
                return Err(cannot(trouble).await);
            }
        }
        let file = Finished::new(draft, offset);
        if !self.settle(c, &file).await? {
            return self.find_published(c, &file).await.map(|()| Creation::Created);
        }
        let creation = self.give_new_name(c, &file).await?;
        if creation == Creation::Created {
            self.sync_above(c, &file.target).await?;
        }
        Ok(creation)
    }

    /// Gives a file its name if that is free. Atomic on OpenSSH and wherever there are hard links.
    async fn give_new_name(&self, c: &Connection, file: &Finished) -> Result<Creation, Failed> {
        let (from, to) = (&file.partial, &file.target);
        let named = if c.offers.own_server || !c.offers.link {
            self.require_safe_rename(c, to).await?;
            c.rename(from, to).await
        } else {
            c.link(from, to).await
        };
        let trouble = match named {
            Ok(()) => return Ok(Creation::Created),
            Err(trouble @ Trouble::Lost(_)) => {
                return Err(self.writing("create", to).failed(trouble));
            }
            Err(trouble) => trouble,
        };
        // The protocol has no code for "taken".
        match unless_absent(c.lstat(to).await) {
            Ok(Some(found)) if found.is_folder() => Err(self.in_the_way(to, "create").into()),
            Ok(Some(_)) => Ok(Creation::Taken),
            _ => Err(self.writing("create", to).failed_on(c, trouble).await),
        }
    }

    /// Makes sure, once for each connection, that this server's rename does not replace.
    async fn require_safe_rename(&self, c: &Connection, beside: &str) -> Result<(), Failed> {
        if c.offers.own_server || c.rename_replaces() == Some(false) {
            return Ok(());
        }
        let replaces = match c.rename_replaces() {
            Some(known) => known,
            None => self.try_whether_rename_replaces(c, beside).await?,
        };
        c.set_rename_replaces(replaces);
        if !replaces {
            return Ok(());
        }
        Err(Error::failed(
            self.stage().to_owned(),
            "the server's rename replaces what is there, and it has no hard links",
        )
        .next_step(
            "use a server with OpenSSH's sftp-server: two runs can't exclude each other here",
        )
        .into())
    }

    async fn try_whether_rename_replaces(
        &self,
        c: &Connection,
        beside: &str,
    ) -> Result<bool, Failed> {
        let (one, two) = (partial::beside(beside), partial::beside(beside));
        for path in [&one, &two] {
            match c.create(path).await {
                Ok(handle) => c.close_quietly(&handle),
                Err(trouble) => {
                    return Err(self.writing("write", path).failed_on(c, trouble).await);
                }
            }
        }
        let renamed = c.rename(&one, &two).await;
        self.remove_leftover(c, &one).await;
        self.remove_leftover(c, &two).await;
        match renamed {
            Ok(()) => Ok(true),
            Err(Trouble::Status { .. }) => Ok(false),
            Err(lost) => Err(self.writing("rename", &one).failed(lost)),
        }
    }

    /// Whether a try whose answer was lost put its file at `target`. Takes the file away: what the server may still be about to do with it then fails.
    async fn was_created(
        &self,
        c: &Arc<Connection>,
        earlier: &Earlier,
        target: &str,
        body: &Bytes,
    ) -> Result<bool, Failed> {
        let partial = &earlier.partial;
        let cannot = |trouble| self.writing("look at", target).failed(trouble);
        let gone = match unless_absent(c.remove(partial).await) {
            Ok(removed) => removed.is_none(),
            Err(lost @ Trouble::Lost(_)) => return Err(cannot(lost)),
            Err(_) => unless_absent(c.lstat(partial).await).map_err(cannot)?.is_none(),
        };
        let is_there = unless_absent(c.lstat(target).await)
            .map_err(cannot)?
            .is_some_and(|found| found.is_file());
        let renamed = gone && !earlier.perhaps_removed;
        // A link leaves the file where it was; there the content tells.
        let linked = !gone && c.offers.link && !c.offers.own_server;
        let content_tells = linked || (gone && earlier.perhaps_removed);
        let ours = is_there && (renamed || (content_tells && self.holds(c, target, body).await?));
        if ours {
            self.sync_above(c, target).await?;
        }
        Ok(ours)
    }

    async fn holds(&self, c: &Connection, path: &str, body: &Bytes) -> Result<bool, Failed> {
        let cannot = |trouble| self.reading("read", path).failed(trouble);
        let handle = c.open_to_read(path).await.map_err(cannot)?;
        let read = self.read_up_to(c, &handle, body.len() + 1).await;
        c.close_quietly(&handle);
        read.map(|bytes| bytes == *body).map_err(cannot)
    }

    /// Removes a file that is in nobody's way; what stays is named and swept later.
    pub(super) async fn remove_leftover(&self, c: &Connection, partial: &str) {
        match unless_absent(c.remove(partial).await) {
            Ok(removed) => {
                if removed.is_some() {
                    self.remove_empty_folders(c, partial).await;
                }
            }
            Err(trouble) => {
                let why = self.writing("remove", partial).failed(trouble);
                tracing::warn!(partial, ?why, "a leftover stays until it is swept");
            }
        }
    }

    /// Removes a draft and the folders it leaves empty; `false` when it wasn't there any more.
    pub(super) async fn discard(&self, c: Arc<Connection>, partial: &str) -> Result<bool, Failed> {
        match unless_absent(c.remove(partial).await) {
            Ok(removed) => {
                self.remove_empty_folders(&c, partial).await;
                Ok(removed.is_some())
            }
            Err(trouble) => Err(self.writing("remove", partial).failed_on(&c, trouble).await),
        }
    }
}
