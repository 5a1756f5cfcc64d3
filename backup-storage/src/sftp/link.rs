//! Keeps a connection open, opens it again when it was lost, and tries again what may be.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::{Error, Result};
use rand::Rng;
use tokio::sync::Mutex;

use super::connection::Connection;
use super::login::Login;
use super::refusal::NotConnected;

/// The first pause before another try; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Failed {
    /// The connection is gone; perhaps it was done.
    Lost(String),
    /// For good.
    Told(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

/// The way to one server.
#[derive(Debug)]
pub(super) struct Link {
    stage: String,
    login: Login,
    retry_deadline: Duration,
    open: Mutex<Option<Arc<Connection>>>,
}

impl Link {
    pub(super) fn new(stage: String, login: Login, retry_deadline: Duration) -> Self {
        Self { stage, login, retry_deadline, open: Mutex::new(None) }
    }

    /// The connection; a new one if there is none, or none any more.
    async fn connection(&self) -> Result<Arc<Connection>, NotConnected> {
        let mut open = self.open.lock().await;
        if let Some(connection) = open.as_ref().filter(|connection| connection.is_alive()) {
            return Ok(Arc::clone(connection));
        }
        // The old one's ssh goes before a new one comes.
        *open = None;
        let connection = Arc::new(Connection::open(&self.stage, &self.login).await?);
        *open = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// Does `work` on a connection, on a new one when the last was lost, until the deadline for
    /// tries is over. `work` must bear being done twice.
    pub(super) async fn retrying<T, F>(
        &self,
        work: impl Fn(Arc<Connection>) -> F + Send,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, Failed>> + Send,
    {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.connection().await {
                Err(NotConnected { error, again: false }) => return Err(error),
                Err(NotConnected { error, .. }) => error,
                Ok(connection) => match work(Arc::clone(&connection)).await {
                    Ok(done) => return Ok(done),
                    Err(Failed::Told(error)) => return Err(error),
                    Err(Failed::Lost(why)) => self.lost(&connection, &why),
                },
            };
            // Somewhere in the second half: clients that lost one server don't come back as one.
            let pause_now = pause.mul_f64(rand::thread_rng().gen_range(0.5..1.0));
            if began.elapsed() + pause_now >= self.retry_deadline {
                return Err(error);
            }
            tracing::warn!(%error, seconds = pause_now.as_secs_f64(), "trying again");
            tokio::time::sleep(pause_now).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The error for a connection that was lost.
    pub(super) fn lost(&self, connection: &Connection, why: &str) -> Error {
        let host = &self.login.address.host;
        let mut message = format!("the connection to {host} was lost: {why}");
        if let Some(line) = connection.last_line() {
            message = format!("{message} (ssh says: {line})");
        }
        Error::failed(self.stage.clone(), message)
            .next_step("look at the network and at the server's log, then run again")
    }
}
