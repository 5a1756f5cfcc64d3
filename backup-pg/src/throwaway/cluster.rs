//! The cluster of a throwaway server: made by initdb, set up for data that nobody will miss.

use std::fs::{self, File};
use std::io::Write as _;
use std::time::Duration;

use backup_core::{Error, Result};
use secrecy::ExposeSecret as _;

use super::folder::{make_private_folder, write_private};
use super::process::{dismiss, spawn, wait_for};
use super::{STAGE, SUPERUSER, ThrowawayServer, cannot, failed};

/// A socket address holds 107 bytes on Linux and 103 on macOS.
const SOCKET_PATH_BYTES: usize = 103;
const INITDB_TIMEOUT: Duration = Duration::from_secs(180);

/// Made for speed and for data nobody will miss; `ThrowawayOptions::settings` come later and win.
const SETTINGS: [(&str, &str); 10] = [
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("shared_buffers", "32MB"),
    ("max_connections", "100"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("logging_collector", "off"),
];

impl ThrowawayServer {
    /// Runs initdb and writes the settings.
    ///
    /// # Errors
    /// With the end of what initdb said.
    pub(super) fn initialise(&self) -> Result<()> {
        let socket = self.socket_folder().join(".s.PGSQL.65535");
        if socket.as_os_str().len() > SOCKET_PATH_BYTES {
            let message = format!("{} is too long for a socket's path", self.folder.display());
            return Err(Error::usage(STAGE, message).next_step("choose a folder nearer the root"));
        }
        make_private_folder(&self.socket_folder(), self.user)?;
        let mut command = self.command("initdb");
        command.arg("--pgdata").arg(self.data_dir());
        command.args(["--username", SUPERUSER, "--encoding", "UTF8", "--no-sync"]);
        command.arg("--locale").arg(&self.options.locale);
        let secret = self.folder.join("password");
        if let Some(password) = &self.options.password {
            write_private(&secret, password.expose_secret(), self.user)?;
            command.args(["--auth", "scram-sha-256", "--pwfile"]).arg(&secret);
        } else {
            command.args(["--auth-local", "trust", "--auth-host", "reject"]);
        }
        let log = self.folder.join("initdb.log");
        let mut child = spawn(&mut command, &log)?;
        let status = wait_for(&mut child, INITDB_TIMEOUT);
        if status.is_none() {
            dismiss(Some(child));
        }
        if self.options.password.is_some() {
            fs::remove_file(&secret).map_err(|e| cannot("remove", &secret, e))?;
        }
        if !status.is_some_and(|s| s.success()) {
            return Err(failed("initdb did not make a cluster", status, &log).next_step(
                "the server's user must be able to enter the folder and bin directory",
            ));
        }
        self.write_settings()
    }

    fn write_settings(&self) -> Result<()> {
        let path = self.data_dir().join("postgresql.conf");
        let mut text = String::from("\n# throwaway server\n");
        let ours = SETTINGS.iter().map(|&(name, value)| (name, value));
        let theirs = self.options.settings.iter().map(|(name, value)| (&name[..], &value[..]));
        let listen = if self.options.tcp { "127.0.0.1" } else { "" };
        let socket = self.socket_folder().to_string_lossy().into_owned();
        let places = [("listen_addresses", listen), ("unix_socket_directories", &socket[..])];
        for (name, value) in ours.chain(theirs).chain(places) {
            let value = value.replace('\\', "\\\\").replace('\'', "''");
            text.push_str(&format!("{name} = '{value}'\n"));
        }
        File::options()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|e| cannot("write", &path, e))
    }
}
