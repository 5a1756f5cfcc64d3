//! One connection to a server, with the requests that a storage makes of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use backup_core::Result;
use bytes::Bytes;

use super::child::Ssh;
use super::login::Login;
use super::packet::{self, Attributes, Entry, Reply, Request};
use super::refusal::{self, NotConnected};
use super::session::{Answer, Session, Ticket, Trouble};

/// What a server without `limits@openssh.com` takes and gives in one request, in bytes.
const SMALL: usize = 32 * 1024;
/// Most that is asked for or sent in one request, in bytes, whatever a server would take.
const LARGE: u64 = 255 * 1024;
/// A sync waits for the server's disk: it may take this many deadlines.
const SYNC_DEADLINES: u32 = 5;

const LIMITS: &str = "limits@openssh.com";
const SYNC: &str = "fsync@openssh.com";
const REPLACE: &str = "posix-rename@openssh.com";
const LINK: &str = "hardlink@openssh.com";
const SPACE: &str = "statvfs@openssh.com";
/// Only OpenSSH's own server has it, whose plain rename makes a link and so never replaces.
const OWN_SERVER: &str = "lsetstat@openssh.com";

/// What a server can do beyond the plain protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offers {
    pub(super) sync: bool,
    pub(super) replace: bool,
    pub(super) link: bool,
    pub(super) space: bool,
    pub(super) own_server: bool,
    pub(super) read_bytes: usize,
    pub(super) write_bytes: usize,
}

impl Offers {
    fn new(offered: &BTreeMap<String, String>) -> Self {
        let has = |name: &str| offered.contains_key(name);
        Self {
            sync: has(SYNC),
            replace: has(REPLACE),
            link: has(LINK),
            space: has(SPACE),
            own_server: has(OWN_SERVER),
            read_bytes: SMALL,
            write_bytes: SMALL,
        }
    }
}

/// The free space of a file system.
#[derive(Debug, Clone, Copy)]
pub(super) struct Space {
    pub(super) free_bytes: u64,
    pub(super) free_names: u64,
    pub(super) read_only: bool,
}

/// An open file or folder of the server.
pub(super) type Handle = Bytes;

/// An `ssh` with a server behind it. Ends with its last user.
#[derive(Debug)]
pub(super) struct Connection {
    // First: it is dropped first.
    session: Session,
    ssh: Ssh,
    pub(super) offers: Offers,
    /// Whether a plain rename replaces: 0 for not known yet, 1 for no, 2 for yes.
    rename_replaces: AtomicU8,
}

impl Connection {
    /// Starts ssh and greets the server.
    pub(super) async fn open(stage: &str, login: &Login) -> Result<Self, NotConnected> {
        let (mut ssh, stream) =
            Ssh::start(stage, login).await.map_err(|error| NotConnected { error, again: false })?;
        let (read, write) = stream.into_split();
        // A little more than ssh itself has: it knows better what went wrong.
        let patience = login.timeout + Duration::from_secs(1);
        let started = Session::start(read, write, login.timeout, patience).await;
        let (session, offered) = match started {
            Ok(started) => started,
            Err(Trouble::Lost(why)) => {
                let said = ssh.last_words().await;
                return Err(refusal::explain(stage, login, &said, &why));
            }
            Err(Trouble::Status { message, .. }) => {
                return Err(refusal::explain(stage, login, "", &message));
            }
        };
        let mut offers = Offers::new(&offered);
        if offered.contains_key(LIMITS) {
            match session.ask(Request::extended(LIMITS)).await {
                Ok(Reply::Extended(limits)) => take_limits(&mut offers, limits),
                Ok(_) | Err(Trouble::Status { .. }) => {}
                Err(Trouble::Lost(why)) => {
                    let said = ssh.last_words().await;
                    return Err(refusal::explain(stage, login, &said, &why));
                }
            }
        }
        tracing::debug!(stage, ?offers, "connected");
        if !offers.sync {
            tracing::warn!(
                stage,
                "the server has no fsync@openssh.com: objects are accepted, not durable"
            );
        }
        Ok(Self { session, ssh, offers, rename_replaces: AtomicU8::new(0) })
    }

    pub(super) fn is_alive(&self) -> bool {
        self.session.is_alive()
    }

    /// The last line that ssh said.
    pub(super) fn last_line(&self) -> Option<String> {
        let said = self.ssh.said_so_far();
        said.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
    }

    pub(super) fn rename_replaces(&self) -> Option<bool> {
        match self.rename_replaces.load(Ordering::Relaxed) {
            0 => None,
            known => Some(known == 2),
        }
    }

    pub(super) fn set_rename_replaces(&self, replaces: bool) {
        self.rename_replaces.store(if replaces { 2 } else { 1 }, Ordering::Relaxed);
    }

    /// Sends a request without waiting for its reply, only for room.
    pub(super) async fn send(&self, request: Request) -> Answer<Ticket> {
        self.session.slot().await?.send(request)
    }

    /// Waits for room; what is sent through it is sent at once.
    pub(super) async fn slot(&self) -> Answer<super::session::Slot<'_>> {
        self.session.slot().await
    }

    pub(super) async fn attributes(&self, ticket: &mut Ticket) -> Answer<Attributes> {
        as_attributes(self.session.reply(ticket).await?)
    }

    /// The reply to a [`read_request`]; `None` at the end of the file.
    pub(super) async fn data(&self, ticket: &mut Ticket) -> Answer<Option<Bytes>> {
        match self.session.reply(ticket).await {
            Ok(Reply::Data(data)) => Ok(Some(data)),
            Err(Trouble::Status { code: packet::END, .. }) => Ok(None),
            Ok(_) => Err(unexpected()),
            Err(trouble) => Err(trouble),
        }
    }

    pub(super) async fn done(&self, ticket: &mut Ticket) -> Answer<()> {
        self.session.reply(ticket).await.map(drop)
    }

    pub(super) async fn stat(&self, path: &str) -> Answer<Attributes> {
        self.attributes(&mut self.send(path_request(packet::STAT, path)).await?).await
    }

    pub(super) async fn lstat(&self, path: &str) -> Answer<Attributes> {
        self.attributes(&mut self.send(path_request(packet::LSTAT, path)).await?).await
    }

    pub(super) async fn fstat(&self, handle: &Handle) -> Answer<Attributes> {
        as_attributes(self.session.ask(Request::new(packet::FSTAT).string(handle)).await?)
    }

    pub(super) async fn open_to_read(&self, path: &str) -> Answer<Handle> {
        let request = path_request(packet::OPEN, path).u32(packet::FOR_READING).no_attributes();
        as_handle(self.session.ask(request).await?)
    }

    pub(super) async fn open_to_write(&self, path: &str) -> Answer<Handle> {
        let request = path_request(packet::OPEN, path).u32(packet::FOR_WRITING).no_attributes();
        as_handle(self.session.ask(request).await?)
    }

    /// Makes a file that was not there, readable for its owner only.
    pub(super) async fn create(&self, path: &str) -> Answer<Handle> {
        let flags = packet::FOR_WRITING | packet::NEW_ONLY;
        let request = path_request(packet::OPEN, path).u32(flags).mode(0o600);
        let handle = as_handle(self.session.ask(request).await?)?;
        // Some servers make it with the mode that they like.
        let mode = self.fstat(&handle).await?.mode;
        if mode.is_some_and(|mode| mode & 0o077 != 0) {
            let private = Request::new(packet::FSETSTAT).string(&handle).mode(0o600);
            if let Err(Trouble::Status { message, .. }) = self.session.ask(private).await {
                tracing::warn!(path, message, "others may read what is written here");
            }
        }
        Ok(handle)
    }

    pub(super) async fn close(&self, handle: &Handle) -> Answer<()> {
        self.session.ask(Request::new(packet::CLOSE).string(handle)).await.map(drop)
    }

    pub(super) fn close_quietly(&self, handle: &Handle) {
        self.session.close_quietly(handle);
    }

    /// Brings a file, or the names in a folder, to the disk.
    pub(super) async fn sync(&self, handle: &Handle) -> Answer<()> {
        let request = Request::extended(SYNC).string(handle);
        self.session.ask_patiently(request, SYNC_DEADLINES).await.map(drop)
    }

    pub(super) async fn make_folder(&self, path: &str) -> Answer<()> {
        self.session.ask(path_request(packet::MKDIR, path).mode(0o700)).await.map(drop)
    }

    pub(super) async fn remove_folder(&self, path: &str) -> Answer<()> {
        self.session.ask(path_request(packet::RMDIR, path)).await.map(drop)
    }

    pub(super) async fn remove(&self, path: &str) -> Answer<()> {
        self.session.ask(path_request(packet::REMOVE, path)).await.map(drop)
    }

    /// Gives a file another name; by the protocol, an error when that is taken.
    pub(super) async fn rename(&self, from: &str, to: &str) -> Answer<()> {
        let request = path_request(packet::RENAME, from).string(to.as_bytes());
        self.session.ask(request).await.map(drop)
    }

    /// Gives a file another name, in place of what has it. At once.
    pub(super) async fn replace(&self, from: &str, to: &str) -> Answer<()> {
        self.two_paths(REPLACE, from, to).await
    }

    /// Gives a file a second name, never in place of another.
    pub(super) async fn link(&self, from: &str, to: &str) -> Answer<()> {
        self.two_paths(LINK, from, to).await
    }

    async fn two_paths(&self, what: &str, from: &str, to: &str) -> Answer<()> {
        let request = Request::extended(what).string(from.as_bytes()).string(to.as_bytes());
        self.session.ask(request).await.map(drop)
    }

    /// The space of the file system that holds `path`; `None` where the server doesn't tell.
    pub(super) async fn space(&self, path: &str) -> Answer<Option<Space>> {
        if !self.offers.space {
            return Ok(None);
        }
        match self.session.ask(Request::extended(SPACE).string(path.as_bytes())).await? {
            Reply::Extended(mut numbers) => {
                let mut all = [0; 11];
                for number in &mut all {
                    *number = packet::take_u64(&mut numbers).map_err(|_| unexpected())?;
                }
                // As in statvfs(3), with the flag for read-only as 1.
                let [_, fragment, _, _, available, names, _, free_names, _, flags, _] = all;
                Ok(Some(Space {
                    free_bytes: available.saturating_mul(fragment),
                    // File systems without a table of names say 0 of 0.
                    free_names: if names == 0 { u64::MAX } else { free_names },
                    read_only: flags & 1 != 0,
                }))
            }
            _ => Err(unexpected()),
        }
    }

    /// Everything in a folder but itself and the one above, in no order.
    pub(super) async fn read_folder(&self, path: &str) -> Answer<Vec<Entry>> {
        let handle = as_handle(self.session.ask(path_request(packet::OPENDIR, path)).await?)?;
        let mut all = Vec::new();
        let ended = loop {
            match self.session.ask(Request::new(packet::READDIR).string(&handle)).await {
                Ok(Reply::Names(entries)) => all.extend(entries),
                Ok(_) => break Err(unexpected()),
                Err(Trouble::Status { code: packet::END, .. }) => break Ok(()),
                Err(trouble) => break Err(trouble),
            }
        };
        self.close_quietly(&handle);
        all.retain(|entry| entry.name[..] != *b"." && entry.name[..] != *b"..");
        ended.map(|()| all)
    }
}

pub(super) fn path_request(kind: u8, path: &str) -> Request {
    Request::new(kind).string(path.as_bytes())
}

/// Asks for `length` bytes of an open file from `offset` on.
pub(super) fn read_request(handle: &Handle, offset: u64, length: u32) -> Request {
    Request::new(packet::READ).string(handle).u64(offset).u32(length)
}

/// Puts `pieces` into an open file at `offset`.
pub(super) fn write_request(handle: &Handle, offset: u64, pieces: Vec<Bytes>) -> Request {
    Request::new(packet::WRITE).string(handle).u64(offset).data(pieces)
}

fn take_limits(offers: &mut Offers, mut limits: Bytes) {
    let mut next = || packet::take_u64(&mut limits).unwrap_or(0);
    let (_packet, read, write) = (next(), next(), next());
    let within = |limit: u64| match usize::try_from(limit.min(LARGE)) {
        Ok(limit) if limit > 0 => limit,
        _ => SMALL,
    };
    offers.read_bytes = within(read);
    offers.write_bytes = within(write);
}

fn as_attributes(reply: Reply) -> Answer<Attributes> {
    match reply {
        Reply::Attributes(found) => Ok(found),
        _ => Err(unexpected()),
    }
}

fn as_handle(reply: Reply) -> Answer<Handle> {
    match reply {
        Reply::Handle(handle) => Ok(handle),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> Trouble {
    let message = "the server answers something else than was asked".to_owned();
    Trouble::Status { code: packet::BAD_MESSAGE, message }
}
