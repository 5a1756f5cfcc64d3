//! A server in a container of the official image, or of one with the same interface.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use backup_core::{Error, Result};
use testcontainers::bollard::Docker;
use testcontainers::bollard::query_parameters::KillContainerOptionsBuilder;
use testcontainers::core::{IntoContainerPort as _, WaitFor};
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, GenericImage, ImageExt as _};

use super::{Ending, PASSWORD, STAGE, SUPERUSER};

const PORT: u16 = 5432;
const START_TIMEOUT: Duration = Duration::from_secs(120);
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Data that nobody will miss.
const SETTINGS: [&str; 3] = ["fsync=off", "synchronous_commit=off", "full_page_writes=off"];

#[derive(Debug)]
pub(super) struct Container {
    container: ContainerAsync<GenericImage>,
    host: String,
    port: u16,
}

/// Whether servers are to run in containers: as told, else where an engine answers.
pub(super) async fn wanted() -> bool {
    match std::env::var("MARB_TEST_POSTGRES").as_deref() {
        Ok("containers") => return true,
        Ok("local") => return false,
        _ => {}
    }
    let Ok(engine) = Docker::connect_with_defaults() else { return false };
    tokio::time::timeout(PING_TIMEOUT, engine.ping()).await.is_ok_and(|pong| pong.is_ok())
}

impl Container {
    pub(super) async fn start(major: u32, settings: &[(String, String)]) -> Result<Self> {
        let (name, tag) = image(major);
        // A mapped port of the engine's choice would change when the container starts again.
        let port = free_port()?;
        let mut command = vec!["postgres".to_owned()];
        let ours = SETTINGS.iter().map(|&setting| setting.to_owned());
        let theirs = settings.iter().map(|(name, value)| format!("{name}={value}"));
        command.extend(ours.chain(theirs).flat_map(|setting| ["-c".to_owned(), setting]));
        let ready = WaitFor::message_on_stderr("database system is ready to accept connections");
        let container = GenericImage::new(name, tag)
            .with_wait_for(ready)
            .with_mapped_port(port, PORT.tcp())
            .with_env_var("POSTGRES_USER", SUPERUSER)
            .with_env_var("POSTGRES_PASSWORD", PASSWORD)
            .with_cmd(command)
            .with_startup_timeout(START_TIMEOUT)
            .start()
            .await
            .map_err(|e| failed("start", e))?;
        let host = container.get_host().await.map_err(|e| failed("find", e))?.to_string();
        // "localhost" may mean ::1, where nothing is mapped.
        let host = if host == "localhost" { "127.0.0.1".into() } else { host };
        Ok(Self { container, host, port })
    }

    pub(super) fn address(&self) -> (String, u16) {
        (self.host.clone(), self.port)
    }

    pub(super) async fn end(&self, how: Ending) -> Result<()> {
        match how {
            Ending::Stop => self.container.stop().await.map_err(|e| failed("stop", e)),
            Ending::Crash => {
                let engine = Docker::connect_with_defaults().map_err(|e| failed("kill", e))?;
                let sigkill = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
                let killed = engine.kill_container(self.container.id(), Some(sigkill)).await;
                killed.map_err(|e| failed("kill", e))
            }
        }
    }

    pub(super) async fn start_again(&self) -> Result<()> {
        self.container.start().await.map_err(|e| failed("start", e))
    }
}

/// The image's name and tag for one version; the one place that knows them.
fn image(major: u32) -> (String, String) {
    let pattern = std::env::var("MARB_TEST_POSTGRES_IMAGE");
    let image =
        pattern.as_deref().unwrap_or("postgres:{major}").replace("{major}", &major.to_string());
    match image.rsplit_once(':') {
        // A colon before a slash belongs to a registry's port.
        Some((name, tag)) if !tag.contains('/') => (name.to_owned(), tag.to_owned()),
        _ => (image, "latest".to_owned()),
    }
}

fn free_port() -> Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|e| Error::failed(STAGE, "no free port").caused_by(e))
}

fn failed(verb: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::failed(STAGE, format!("cannot {verb} the container")).caused_by(error)
}
