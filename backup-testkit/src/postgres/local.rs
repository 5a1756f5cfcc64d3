//! A server that is a process of this machine, in a folder below the system's temporary one.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use backup_core::{Error, Result};
use backup_pg::throwaway::{Shutdown, ThrowawayOptions, ThrowawayServer};
use tempfile::TempDir;

use super::{Ending, PASSWORD, STAGE, programs};

/// A [`ThrowawayServer`] with a folder of its own.
#[derive(Debug)]
pub struct LocalServer {
    /// Only while a thread starts or ends it there is none.
    server: Option<Box<ThrowawayServer>>,
    // After the server, for it lives in there.
    _folder: TempDir,
}

impl LocalServer {
    pub(super) async fn start(major: u32, settings: Vec<(String, String)>) -> Result<Self> {
        let programs = programs::server_programs(major)?;
        let folder = TempDir::with_prefix("marb-test-")
            .map_err(|e| Error::failed(STAGE, "no temporary folder").caused_by(e))?;
        // The server's user must come through; what lies below is closed to everybody else.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711))
            .map_err(|e| Error::failed(STAGE, "cannot open the folder").caused_by(e))?;
        let options = ThrowawayOptions {
            tcp: true,
            password: Some(PASSWORD.to_owned().into()),
            locale: "C.UTF-8".into(),
            settings,
        };
        let place = folder.path().join("pg");
        let server =
            blocking(move || ThrowawayServer::start(&programs, &place, &options)).await??;
        Ok(Self { server: Some(Box::new(server)), _folder: folder })
    }

    /// The server itself: data directory, socket, log, process id.
    ///
    /// # Errors
    /// After a start or an end that was abandoned half-way.
    pub fn server(&self) -> Result<&ThrowawayServer> {
        self.server.as_deref().ok_or_else(abandoned)
    }

    pub(super) fn port(&self) -> u16 {
        self.server.as_ref().map_or(0, |server| server.port())
    }

    pub(super) async fn end(&mut self, how: Ending) -> Result<()> {
        let how = match how {
            Ending::Stop => Shutdown::Fast,
            Ending::Crash => Shutdown::Kill,
        };
        self.on_a_thread(move |server| server.shut_down(how)).await
    }

    pub(super) async fn start_again(&mut self) -> Result<()> {
        self.on_a_thread(ThrowawayServer::start_up).await
    }

    async fn on_a_thread<F>(&mut self, act: F) -> Result<()>
    where
        F: FnOnce(&mut ThrowawayServer) -> Result<()> + Send + 'static,
    {
        let mut server = self.server.take().ok_or_else(abandoned)?;
        let (server, result) = blocking(move || {
            let result = act(&mut server);
            (server, result)
        })
        .await?;
        self.server = Some(server);
        result
    }
}

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(act).await;
    done.map_err(|e| Error::failed(STAGE, "a thread ended early").caused_by(e))
}

fn abandoned() -> Error {
    Error::failed(STAGE, "a start or an end of this server was abandoned")
}
