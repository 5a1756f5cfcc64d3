//! The verb `copy`: brings to a storage what another one has, byte for byte, without decrypting.

mod files;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::backup::claim::{HOLD_TIMEOUT, Hold, Purpose};
use crate::backup::publish::{Written, create_manifest};
use crate::pin::{Held, hold_pinned};
use crate::pipeline::{Context, Limits, within};
use crate::{
    CatalogEntry, Error, ErrorKind, Manifest, ReaderMarks, Result, Storage, StoredCopy, layout,
};
use files::Files;
pub(crate) use files::read_if_there;

/// How long copying one backup may take; the rule for sweeping rests on it.
pub const COPY_TIMEOUT: Duration = HOLD_TIMEOUT;

/// What a copy did, by file name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// Files that were missing, or not as they should be, and are there now.
    pub copied: Vec<String>,
    /// Files that were there already: of the right size, and with `check` of the right digest.
    pub kept: Vec<String>,
    /// Bytes of the files that were copied.
    pub bytes: u64,
}

/// Brings one backup to the storage `to`, from its copy in the storage `from`.
///
/// Everything is checked against the manifest's digests while it is copied; the manifest comes
/// last, so that the backup is listed in `to` only when it is whole there. Files that are there
/// with their size are kept; with `check` they are read, and copied anew when they are damaged.
/// Proofs are not copied: they are about one copy. A pin is, and where `to` has locks every file
/// is held, as [`pin`](fn@crate::pin) does; where that fails it is told as a warning. `from` is
/// only read, but for the mark that it is being read.
///
/// While it goes on, the folder is claimed: a running backup or another copy is left alone.
///
/// # Errors
/// - [`ErrorKind::NotFound`] when `from` does not have the backup,
/// - [`ErrorKind::Damaged`] when what `from` has is not whole,
/// - [`ErrorKind::Refused`] when `to` has another backup under this id: it is not touched,
/// - [`ErrorKind::Locked`] when somebody else is at work in the folder,
/// - others when a storage fails.
///
/// After each of them the backup is not listed in `to`, unless it was before, and what was
/// written for it is removed again; what can't be is told as a warning.
pub async fn copy(
    entry: &CatalogEntry,
    from: &Arc<dyn Storage>,
    to: &Arc<dyn Storage>,
    check: bool,
    context: &Context,
) -> Result<CopyReport> {
    // A switch of its own: the timeout of this copy must not stop the caller's next one.
    let context = Context { cancel: context.cancel.child(), progress: context.progress.clone() };
    let copying = Copying::new(entry, from, to, check, &context)?;
    let mark = ReaderMarks::default().leave(&entry.folder(), [from], "copy").await;
    let done = within_timeout(copying, &context).await;
    mark.end().await;
    done
}

async fn within_timeout(copying: Copying<'_>, context: &Context) -> Result<CopyReport> {
    let mut running = pin!(copying.run());
    tokio::select! {
        biased;
        result = &mut running => return result,
        () = tokio::time::sleep(COPY_TIMEOUT) => {}
    }
    let seconds = COPY_TIMEOUT.as_secs();
    context.cancel.time_out(format!("copying one backup took more than {seconds} s"));
    running.await
}

/// One backup on its way.
struct Copying<'a> {
    from: &'a Arc<dyn Storage>,
    to: &'a Arc<dyn Storage>,
    folder: String,
    manifest: &'a Manifest,
    manifest_json: &'a [u8],
    check: bool,
    limits: Limits,
    context: &'a Context,
}

impl<'a> Copying<'a> {
    fn new(
        entry: &'a CatalogEntry,
        from: &'a Arc<dyn Storage>,
        to: &'a Arc<dyn Storage>,
        check: bool,
        context: &'a Context,
    ) -> Result<Self> {
        if from.name() == to.name() {
            return Err(Error::usage("copy", format!("{} is both source and target", to.name())));
        }
        let copy = entry.copies.iter().find(|copy| copy.storage == from.name());
        let copy = copy.ok_or_else(|| {
            let message = format!("storage {} has no backup {}", from.name(), entry.id);
            Error::new(ErrorKind::NotFound, "copy", message)
                .next_step("`marb-backup list` shows which storage has it")
        })?;
        if !copy.damaged_parts.is_empty() {
            let parts = copy.damaged_parts.join(", ");
            let message = format!("{} in storage {} misses {parts}", entry.id, from.name());
            return Err(Error::damaged("copy", message).next_step("copy it from another storage"));
        }
        Ok(Self {
            from,
            to,
            folder: entry.folder(),
            manifest: &copy.manifest,
            manifest_json: &copy.manifest_json,
            check,
            limits: Limits::default(),
            context,
        })
    }

    fn key(&self, file: &str) -> String {
        format!("{}/{file}", self.folder)
    }

    async fn run(self) -> Result<CopyReport> {
        self.context.step(&format!("copying {} to {}", self.manifest.id, self.to.name()));
        let cancel = &self.context.cancel;
        let listed = cancel.guard(self.is_listed()).await?;
        // Whoever is at work beside a manifest is not its backup's run: that has ended.
        let hold = if listed { None } else { Some(self.hold().await?) };
        let mut files = Files::new(&self);
        let done = match files.bring_all(hold.is_some()).await {
            Ok(()) => self.publish(hold.as_ref()).await,
            Err(error) => Err(NotPublished::Before(error)),
        };
        if let (Err(failure), Some(hold)) = (&done, &hold) {
            files.remove_again(failure, hold).await;
        }
        if done.is_ok() && files.pinned {
            self.hold_pinned().await;
        }
        if let Some(hold) = hold {
            hold.release(self.context).await;
        }
        done.map(|()| files.report).map_err(NotPublished::into_cause)
    }

    /// Holds what is pinned where `to` has locks. Where it has none, the pin alone keeps it there:
    /// that is told when `from` holds it.
    async fn hold_pinned(&self) {
        let (id, to) = (&self.manifest.id, self.to.name());
        if hold_pinned(id, &self.folder, self.to, self.context).await != Held::NoLocks {
            return;
        }
        let manifest = self.key(layout::MANIFEST);
        let held = match self.from.versioned() {
            Some(versioned) => {
                let asked = versioned.protection(&manifest, None);
                let found = within(self.from.name(), self.limits.sink_stall, asked).await;
                found.is_ok_and(|found| found.held)
            }
            None => false,
        };
        if held {
            self.context.warn(&format!(
                "{id} is held in storage {} by a legal hold; storage {to} has no object lock, so \
                 that only its pin keeps it there",
                self.from.name()
            ));
        }
    }

    /// Whether `to` lists the backup already.
    async fn is_listed(&self) -> Result<bool> {
        match files::read_if_there(self.to, &self.key(layout::MANIFEST)).await? {
            None => Ok(false),
            Some(json) if json == self.manifest_json => Ok(true),
            Some(_) => Err(self.another_is_there()),
        }
    }

    fn another_is_there(&self) -> Error {
        let message = format!(
            "storage {} has another backup as {}: its manifest is not the one in storage {}",
            self.to.name(),
            self.folder,
            self.from.name()
        );
        Error::refused("copy", message)
            .next_step("verify both copies; remove the folder that is wrong, then copy again")
    }

    /// Holds the folder in `to`.
    async fn hold(&self) -> Result<Hold> {
        let hold = Hold::take(
            self.to,
            &self.folder,
            Some(self.manifest),
            Purpose::COPY,
            Timestamp::now(),
            self.limits,
        );
        hold.await?.ok_or_else(|| self.is_being_written())
    }

    fn is_being_written(&self) -> Error {
        let message = format!("{} in storage {} is being written", self.folder, self.to.name());
        Error::new(ErrorKind::Locked, "copy", message).next_step(
            "wait for the backup or the copy that writes it; after a crash its claim ends by \
             itself, a day after its timeout",
        )
    }

    /// What was listed and so was not held may have been removed meanwhile.
    async fn still_listed(&self) -> Result<(), NotPublished> {
        if self.is_listed().await.map_err(NotPublished::Before)? {
            return Ok(());
        }
        let message =
            format!("{} was removed from storage {} meanwhile", self.folder, self.to.name());
        Err(NotPublished::Before(
            Error::new(ErrorKind::Locked, "copy", message).next_step("copy it again"),
        ))
    }

    /// Writes the manifest, unless the backup is listed already and nothing is held.
    async fn publish(&self, hold: Option<&Hold>) -> Result<(), NotPublished> {
        let Some(hold) = hold else { return self.still_listed().await };
        if self.context.cancel.is_cancelled() {
            return Err(NotPublished::Before(self.context.cancel.error()));
        }
        if !hold.is_ours().await.map_err(NotPublished::Before)? {
            return Err(NotPublished::Before(self.is_being_written()));
        }
        let key = self.key(layout::MANIFEST);
        match create_manifest(self.to, &key, self.manifest_json, self.limits.commit).await {
            Ok(Written::Ours) => Ok(()),
            Ok(Written::Foreign) => Err(NotPublished::Before(self.another_is_there())),
            Err(error) => Err(NotPublished::Unknown(error)),
        }
    }
}

/// Why a copy is not listed.
enum NotPublished {
    /// It failed before its manifest was written.
    Before(Error),
    /// The manifest was sent, and nobody knows whether it is there.
    Unknown(Error),
}

impl NotPublished {
    fn into_cause(self) -> Error {
        match self {
            Self::Before(error) | Self::Unknown(error) => error,
        }
    }
}

/// Whether `from` has a backup of which `to` has nothing, not all, or something else.
pub(crate) fn is_lacking(entry: &CatalogEntry, from: &str, to: &str) -> bool {
    let copy = |name: &str| entry.copies.iter().find(|copy| copy.storage == name);
    let Some(theirs) = copy(from) else { return false };
    let same = |copy: &StoredCopy| {
        copy.damaged_parts.is_empty() && copy.manifest_json == theirs.manifest_json
    };
    !copy(to).is_some_and(same)
}
