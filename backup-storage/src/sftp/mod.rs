//! A storage on a folder of a server that is reached with SSH.
//!
//! ```text
//! begin    folder/NAME.<random>.partial     0600, in the folder of the final file
//! commit   fsync file, rename to folder/NAME, fsync the folders above it
//! ```
//!
//! At every instant the final name shows no object, the older object, or all of the new one.
//!
//! Architecture invariant: the stock `ssh` makes the connection, so ssh_config, agents, jump
//! hosts and known hosts are what the user knows; only the file protocol inside is spoken here.
//!
//! | module | knows |
//! | --- | --- |
//! | `address`, `login`, `cipher`, `child` | the URL, ssh's command line, the running ssh |
//! | `packet`, `session` | the protocol's bytes; requests and replies |
//! | `connection`, `link` | what is asked of a server; opening it again, trying again |
//! | `place`, `publish`, `walk` | a storage's files and folders |
//! | `writer`, `reader` | streams |
//! | `refusal`, `explain` | causes and next steps |

mod address;
mod child;
mod cipher;
mod connection;
mod explain;
mod link;
mod login;
mod packet;
mod partial;
mod place;
mod publish;
mod reader;
mod refusal;
mod session;
mod walk;
mod writer;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::{
    ByteRange, Creation, Error, ObjectInfo, Result, Sink, SinkWriter, SourceStream, Storage,
};
use bytes::Bytes;
use jiff::Timestamp;

use crate::Settings;
use address::Address;
use link::Link;
use login::Login;
use place::{Begun, Place};
use reader::{Open, Reader};
use writer::Writer;

/// Most of one object that is on its way to or from the server, in bytes. ssh itself has no
/// more than 2 MiB under way.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// Objects as files under a folder of an SFTP server: key `a/b` is the file `a/b` in it.
///
/// - The stock `ssh` connects: the user's ssh_config, agent and keys count, unless
///   [`Settings::ambient_credentials`] is off. Host keys are always checked strictly. One
///   connection serves all; it is opened at the first need, again when it was lost, and ends
///   with the storage.
/// - Files are made `0600`, folders `0700`. The folder itself is made by the first write; the
///   one above it must exist, so that a disk that isn't mounted is noticed.
/// - A commit is on the server's disk when it returns, where the server has
///   `fsync@openssh.com`; [`Sftp::probe`] tells.
/// - Foreign files in the folder are listed like objects if their names can be keys. Symbolic
///   links are never followed inside the folder: listings skip them, other calls refuse. The
///   folder itself may be a link.
/// - Times are whole seconds: the protocol has no finer ones.
/// - Errors of one `write` may come out of a later one, at the latest out of `commit`.
/// - A connection lost while an object is written is an error; anything else is tried again
///   until [`Settings::retry_deadline`] is over. A reading goes on where it stood.
///
/// Memory: 4 MiB for each object being written or read, and a chunk.
///
/// Needs a tokio runtime, and OpenSSH's client (8.4 or newer for passwords).
///
/// ```
/// use backup_core::Storage;
/// use backup_storage::{Settings, Sftp};
///
/// # async fn list() -> backup_core::Result<()> {
/// let url = "sftp://backup@storage.example.com/srv/backups/app";
/// let storage = Sftp::from_url("offsite", url, &Settings::default())?;
/// for object in storage.list("").await? {
///     println!("{} {}", object.key, object.bytes);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Sftp {
    name: String,
    place: Arc<Place>,
}

/// What a server can do, found out by asking it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SftpServer {
    /// A committed object is on its disk. Without `fsync@openssh.com` it is accepted, not durable.
    pub syncs: bool,
    /// An older object is replaced at once (`posix-rename@openssh.com`). Without, it is removed
    /// first.
    pub replaces_at_once: bool,
    /// Of two callers of `create_new` exactly one wins, by the server's own doing. Without, it
    /// depends on its rename, which is tried before.
    pub excludes: bool,
    /// Bytes that may still be written; `None` where the server doesn't tell.
    pub free_bytes: Option<u64>,
}

impl Sftp {
    /// The storage `name` on the folder of a URL such as `sftp://user@host:22/absolute/path`;
    /// `scp://` means the same. Nothing is connected yet.
    ///
    /// Options: `identity_file` (the private key), `known_hosts` (instead of the user's own),
    /// `ssh_config` (instead of the user's own), `jump` (`[user@]host[:port]`). Secrets:
    /// `password`, `passphrase` (of the key).
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) for a URL that isn't such a one, for options and secrets that it
    /// does not know, and for object settings: a file system has none of them.
    ///
    /// ```
    /// use backup_storage::{Settings, Sftp};
    /// assert!(Sftp::from_url("s", "sftp://me@host:2222/backups", &Settings::default()).is_ok());
    /// assert!(Sftp::from_url("s", "sftp://me:secret@host/backups", &Settings::default()).is_err());
    /// ```
    pub fn from_url(name: impl Into<String>, url: &str, settings: &Settings) -> Result<Self> {
        let name = name.into();
        let stage = format!("storage {name}");
        settings.only(&name, &login::OPTIONS, &login::SECRETS)?;
        settings.refuse_objects(&name)?;
        let address = Address::parse(url).map_err(|wrong| {
            Error::usage(stage.clone(), wrong)
                .next_step("write it as sftp://user@host:port/absolute/path; a password is a secret of its own")
        })?;
        let root = address.root.clone();
        let login = Login::new(address, settings).map_err(|wrong| {
            Error::usage(stage.clone(), wrong).next_step("see the options of SFTP storages")
        })?;
        let link = Link::new(stage.clone(), login, settings.retry_deadline);
        Ok(Self { name, place: Arc::new(Place::new(stage, root, link)) })
    }

    /// The folder that holds the objects, as the server sees it.
    pub fn root(&self) -> &str {
        self.place.root()
    }

    /// Asks the server what it can do. Changes nothing.
    ///
    /// # Errors
    /// When it can't be reached, or neither the folder nor the one above it can be looked at.
    pub async fn probe(&self) -> Result<SftpServer> {
        let place = &*self.place;
        let asked = place.link.retrying(|c| async move {
            let folder = if place.is_there(&c).await? { place.root() } else { place.above() };
            let space = c.space(folder).await;
            let space =
                space.map_err(|t| place.reading("ask for the free space of", folder).failed(t))?;
            Ok(SftpServer {
                syncs: c.offers.sync,
                replaces_at_once: c.offers.replace,
                excludes: c.offers.own_server || c.offers.link,
                free_bytes: space.map(|space| space.free_bytes),
            })
        });
        asked.await
    }
}

#[async_trait]
impl Sink for Sftp {
    fn name(&self) -> &str {
        &self.name
    }

    async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
        // In a task of its own: a caller that stops waiting would leave a file behind.
        let (tell, started) = tokio::sync::oneshot::channel();
        let (place, key) = (Arc::clone(&self.place), key.to_owned());
        tokio::spawn(async move {
            let begun = Begun::default();
            let draft = place.link.retrying(|c| place.draft(c, &key, &begun)).await;
            let writer = draft.map(|draft| Box::new(Writer::new(Arc::clone(&place), draft)));
            let Err(Ok(unwanted)) = tell.send(writer) else { return };
            if let Err(error) = unwanted.abort().await {
                tracing::warn!("{error}; a file that was begun stays until it is swept");
            }
        });
        let died = |_| Err(Error::failed(self.place.stage().to_owned(), "the start was given up"));
        Ok(started.await.unwrap_or_else(died)?)
    }
}

#[async_trait]
impl Storage for Sftp {
    async fn open(&self, key: &str, range: ByteRange) -> Result<Box<dyn SourceStream>> {
        let place = &*self.place;
        let opened = place.link.retrying(|c| async move {
            let (handle, object, left) = place.open_range(&c, key, range).await?;
            Ok((Open { connection: c, handle }, object, left))
        });
        let (open, object, left) = opened.await?;
        let place = Arc::clone(&self.place);
        Ok(Box::new(Reader::new(place, key.to_owned(), open, object, range.offset, left)))
    }

    async fn stat(&self, key: &str) -> Result<Option<ObjectInfo>> {
        let place = &*self.place;
        let looked = place.link.retrying(|c| async move { place.look(&c, key).await });
        looked.await?.map(|file| place.describe(key.to_owned(), &file)).transpose()
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        self.place.link.retrying(|c| Arc::clone(&self.place).list(c, prefix)).await
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        self.place.link.retrying(|c| Arc::clone(&self.place).folders(c, prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let place = &*self.place;
        place.link.retrying(|c| async move { place.delete(&c, key).await }).await
    }

    async fn create_new(&self, key: &str, body: Bytes) -> Result<Creation> {
        let tried = (Begun::default(), Mutex::new(None));
        let (place, body, tried) = (&*self.place, &body, &tried);
        place.link.retrying(|c| place.create_new(c, key, body, tried)).await
    }

    async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<u64> {
        self.place.link.retrying(|c| Arc::clone(&self.place).sweep(c, prefix, older_than)).await
    }
}
