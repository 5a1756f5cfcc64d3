//! Turns an I/O error into one that names the cause and the next step.

use std::io;
use std::path::Path;

use backup_core::{Error, ErrorKind};

use crate::failure::Doing;

/// `EIO`, which [`io::ErrorKind`] has no name for.
const IO_ERROR: i32 = 5;

/// An error of `stage` for an I/O error that struck while `verb` ("write", "list") was done
/// to `path`. An [`Error`] carried inside comes out unchanged.
pub(super) fn explain(
    stage: &str,
    doing: Doing,
    verb: &str,
    path: &Path,
    error: io::Error,
) -> Error {
    let error = match error.downcast::<Error>() {
        Ok(carried) => return carried,
        Err(plain) => plain,
    };
    let (cause, next_step) = cause_and_remedy(&error, doing);
    let cause = cause.map_or_else(|| error.to_string(), str::to_owned);
    let kind = match (doing, error.kind()) {
        // Not allowed to look: neither good nor bad.
        (Doing::Read, io::ErrorKind::PermissionDenied) => ErrorKind::Unchecked,
        _ => ErrorKind::Failed,
    };
    Error::new(kind, stage.to_owned(), format!("can't {verb} {}: {cause}", path.display()))
        .next_step(next_step)
        .caused_by(error)
}

fn cause_and_remedy(error: &io::Error, doing: Doing) -> (Option<&'static str>, &'static str) {
    use io::ErrorKind as K;
    if error.raw_os_error() == Some(IO_ERROR) {
        return (
            Some("the disk reports an I/O error"),
            "look at `dmesg`: the disk may be failing; use another one",
        );
    }
    match error.kind() {
        K::StorageFull => (
            Some("the disk is full"),
            "free some space there, or let `marb-backup prune` delete expired backups, then run again",
        ),
        K::QuotaExceeded => (
            Some("the disk quota of this user is used up"),
            "raise the quota or delete expired backups (`marb-backup prune`), then run again",
        ),
        K::ReadOnlyFilesystem => (
            Some("the file system is read-only"),
            "mount it writable; if that went by itself, `dmesg` tells why: it may be damaged",
        ),
        K::PermissionDenied => (
            Some("permission denied"),
            match doing {
                Doing::Read => "run as a user that may read this folder and every one above it",
                Doing::Write => {
                    "let the user that runs this own the folder (chown), enter every folder above \
                     it, and see that it is not set immutable (lsattr)"
                }
            },
        ),
        K::NotFound => (
            Some("it is gone"),
            "somebody else removed it meanwhile: look for another run or a cleaning job, then run again",
        ),
        K::NotADirectory => (
            Some("a file lies where a folder is needed"),
            "move that file away or use another folder for this storage",
        ),
        K::IsADirectory | K::DirectoryNotEmpty => (
            Some("a folder of that name is there"),
            "move that folder away or use another folder for this storage",
        ),
        K::InvalidFilename => (
            Some("the name is too long for this file system"),
            "use shorter names: most file systems take 255 bytes between two slashes",
        ),
        K::FileTooLarge => (
            Some("the file is too large for this file system or for this user's limit"),
            "use a file system without that limit (FAT ends at 4 GiB), or raise `ulimit -f`",
        ),
        K::StaleNetworkFileHandle => {
            (Some("the network share went away under it"), "mount the share again, then run again")
        }
        _ => (None, "look at the folder and at `dmesg`, then run again"),
    }
}
