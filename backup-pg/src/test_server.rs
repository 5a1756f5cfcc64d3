//! A real server for this crate's tests, gone with the test.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::throwaway::{ThrowawayOptions, ThrowawayServer};
use crate::{Connection, Psql, Server, ToolSearch};

/// The password of the superuser: no text of the tests' own holds it.
pub(crate) const PASSWORD: &str = "pw'Zq7 \\x@/%";

/// A running server with a password, on TCP and a socket.
pub(crate) struct TestServer {
    pub(crate) server: ThrowawayServer,
    _folder: TempDir,
}

impl TestServer {
    /// Starts one; the whole crate has some ten.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        let options = ThrowawayOptions {
            tcp: true,
            password: Some(PASSWORD.into()),
            ..ThrowawayOptions::default()
        };
        let server = ThrowawayServer::start(&bin_dir(), &folder.path().join("pg"), &options);
        Self { server: server.unwrap(), _folder: folder }
    }

    /// The superuser's connection over TCP.
    pub(crate) fn connection(&self, database: &str) -> Connection {
        self.connection_as("postgres", PASSWORD, database)
    }

    pub(crate) fn connection_as(&self, user: &str, password: &str, database: &str) -> Connection {
        let parameters = [
            ("host", "127.0.0.1"),
            ("port", &self.server.port().to_string()),
            ("user", user),
            ("password", password),
            ("dbname", database),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Connection::from_parameters(parameters).unwrap()
    }

    pub(crate) async fn facts(&self, connection: &Connection) -> Server {
        Server::connect(connection, &search()).await.unwrap()
    }

    pub(crate) async fn psql(&self, database: &str) -> Psql {
        let tools = search().newest().await.unwrap();
        Psql::new(&tools, &self.connection(database))
    }

    pub(crate) async fn execute(&self, database: &str, sql: &str) {
        self.psql(database).await.execute(sql).await.unwrap();
    }
}

/// The tools beside the server's programs.
pub(crate) fn search() -> ToolSearch {
    ToolSearch { configured: Some(bin_dir()), ..ToolSearch::default() }
}

/// The newest packaged server.
pub(crate) fn bin_dir() -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let major = path.file_name()?.to_str()?.parse().ok()?;
            path.join("bin/initdb").exists().then(|| (major, path.join("bin")))
        })
        .collect();
    found.sort();
    found.pop().unwrap().1
}

/// Command lines of all processes of this machine whose program is `name`.
pub(crate) fn command_lines(name: &str) -> Vec<(u32, String)> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let bytes = std::fs::read(entry.path().join("cmdline")).ok()?;
            let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
            let program = text.split(' ').next()?;
            (Path::new(program).file_name()?.to_str()? == name).then_some((id, text))
        })
        .collect()
}
