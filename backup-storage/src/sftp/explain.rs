//! Turns a server's "no" into an error that names the cause and the next step.

use backup_core::{Error, ErrorKind};

use super::connection::{Connection, Space};
use super::link::Failed;
use super::packet;
use super::session::Trouble;
use crate::failure::Doing;

/// Less free space than this is a full disk, in bytes: servers don't say why a write failed.
const FULL_BELOW: u64 = 1024 * 1024;

/// What was being done to which path, in which storage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) stage: &'a str,
    pub(super) doing: Doing,
    pub(super) verb: &'a str,
    pub(super) path: &'a str,
}

impl Attempt<'_> {
    /// The failure that `trouble` makes of it.
    pub(super) fn failed(self, trouble: Trouble) -> Failed {
        self.failed_with(trouble, None)
    }

    /// As [`Attempt::failed`], after a look at the disk: the protocol has no code for a full one.
    pub(super) async fn failed_on(self, connection: &Connection, trouble: Trouble) -> Failed {
        let unclear = matches!(&trouble, Trouble::Status { code, .. } if !is_clear(*code));
        let folder = self.path.rsplit_once('/').map_or("/", |(folder, _)| folder);
        let space = match unclear {
            true => connection.space(folder).await.ok().flatten(),
            false => None,
        };
        self.failed_with(trouble, space)
    }

    fn failed_with(self, trouble: Trouble, space: Option<Space>) -> Failed {
        let (code, said) = match trouble {
            Trouble::Lost(why) => return Failed::Lost(why),
            Trouble::Status { code, message } => (code, message),
        };
        let (cause, next_step) = cause_and_remedy(code, self.doing, space);
        let said = if said.is_empty() { format!("status {code}") } else { said };
        let cause = cause.map_or_else(|| format!("the server says {said:?}"), str::to_owned);
        let kind = match (self.doing, code) {
            // Not allowed to look: neither good nor bad.
            (Doing::Read, packet::PERMISSION_DENIED) => ErrorKind::Unchecked,
            _ => ErrorKind::Failed,
        };
        let message = format!("can't {} {}: {cause}", self.verb, self.path);
        let error = Error::new(kind, self.stage.to_owned(), message)
            .next_step(next_step)
            .caused_by(std::io::Error::other(format!("SFTP status {code}: {said}")));
        Failed::Told(error)
    }
}

/// Whether a status tells the cause.
fn is_clear(code: u32) -> bool {
    matches!(code, packet::NO_SUCH_FILE | packet::PERMISSION_DENIED | packet::UNSUPPORTED)
}

fn cause_and_remedy(
    code: u32,
    doing: Doing,
    space: Option<Space>,
) -> (Option<&'static str>, &'static str) {
    match (code, space) {
        (packet::NO_SUCH_FILE, _) => (
            Some("it is gone"),
            "somebody else removed it meanwhile: look for another run or a cleaning job, then run again",
        ),
        (packet::PERMISSION_DENIED, _) => (
            Some("permission denied"),
            match doing {
                Doing::Read => "log in as a user that may read this folder and every one above it",
                Doing::Write => {
                    "let the user that logs in own the folder (chown), enter every folder above it, \
                     and be allowed this by the server (internal-sftp -P)"
                }
            },
        ),
        (packet::UNSUPPORTED, _) => {
            (Some("the server can't do this"), "use a server with OpenSSH's sftp-server")
        }
        (packet::BAD_MESSAGE, _) => (
            None,
            "the name may be too long for its file system: most take 255 bytes between two slashes",
        ),
        (_, Some(space)) if doing == Doing::Write && space.read_only => (
            Some("the file system is read-only"),
            "mount it writable there; if that went by itself, `dmesg` tells why: it may be damaged",
        ),
        (_, Some(space))
            if doing == Doing::Write
                && (space.free_bytes < FULL_BELOW || space.free_names == 0) =>
        {
            (
                Some("the disk is full"),
                "free some space there, or let `marb-backup prune` delete expired backups, then run again",
            )
        }
        _ => (
            None,
            "SFTP tells no more: look at the server's log, its disk and the quota, then run again",
        ),
    }
}
