//! Killing at a moment: when the program says that it comes to a step, or after a while.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::scene::Scene;
use crate::support::{CLAIMS, Finished};
use crate::swap_kills::{STEP_LIMIT, kill_a_backend, strike};

/// How long a run may take.
const RUN_LIMIT: Duration = Duration::from_secs(180);

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    ThisProgram,
    PgRestore,
    Backend,
}

/// When.
#[derive(Debug)]
pub enum Moment {
    /// So long after this step was told.
    Step(&'static str, Duration),
    /// So long after the start.
    After(Duration),
}

impl Moment {
    /// Waits for it; whether it came.
    async fn comes(&self, told: &mut UnboundedReceiver<String>) -> bool {
        match self {
            Self::After(after) => sleep(*after).await,
            Self::Step(step, later) => loop {
                match told.recv().await {
                    Some(line) if line.contains(step) => break sleep(*later).await,
                    Some(_) => {}
                    None => return false,
                }
            },
        }
        true
    }
}

impl Scene {
    /// A restore that may meet a blow: how it ended, and whether the blow met somebody.
    pub async fn restore_struck(&self, blow: Option<&(Victim, Moment)>) -> (Finished, bool) {
        let mut child = self.stage.scratch.start(&["restore", "latest"]);
        let mut printed = child.stdout.take().unwrap();
        let printing = tokio::spawn(async move {
            let mut text = String::new();
            printed.read_to_string(&mut text).await.map(|_| text)
        });
        let said = child.stderr.take().unwrap();
        let (tell, mut told) = unbounded_channel();
        let listening = tokio::spawn(async move {
            let (mut lines, mut text) = (BufReader::new(said).lines(), String::new());
            while let Ok(Some(line)) = lines.next_line().await {
                text.push_str(&format!("{line}\n"));
                let _ = tell.send(line);
            }
            text
        });
        let mut struck = false;
        if let Some((victim, moment)) = blow {
            struck = moment.comes(&mut told).await
                && self.meets(*victim, &child, || listening.is_finished()).await;
        }
        let status = timeout(RUN_LIMIT, child.wait()).await.expect("it hangs").unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        let run = Finished {
            code: status.code().or(signal.map(|n| 128 + n)).unwrap(),
            stdout: printing.await.unwrap().unwrap(),
            stderr: listening.await.unwrap(),
        };
        // One that had ended before was not met.
        let ended = matches!(blow, Some((Victim::ThisProgram, _))) && run.code != 137;
        (run, struck && !ended)
    }

    async fn meets(&self, victim: Victim, child: &Child, is_over: impl Fn() -> bool) -> bool {
        let started = Instant::now();
        while !is_over() && started.elapsed() < STEP_LIMIT {
            let met = match victim {
                Victim::ThisProgram => {
                    strike(child, Signal::SIGKILL);
                    true
                }
                Victim::Backend => kill_a_backend(&self.stage),
                Victim::PgRestore => match self.stage.scratch.working("pg_restore") {
                    Some(process) => {
                        process.signal(Signal::SIGKILL);
                        true
                    }
                    None => false,
                },
            };
            if met {
                return true;
            }
            sleep(Duration::from_millis(1)).await;
        }
        false
    }

    /// A session on the live database that comes back as soon as it is ended.
    pub fn restless_session(&self) -> JoinHandle<()> {
        let url = self.stage.server.url(CLAIMS);
        tokio::spawn(async move {
            loop {
                let mut session = Command::new("psql");
                session.args(["-X", "-q", "-c", "SELECT pg_sleep(0.2)", "-d", &url]);
                session.kill_on_drop(true).stdin(Stdio::null());
                session.stderr(Stdio::null()).stdout(Stdio::null());
                let _ = session.status().await;
            }
        })
    }
}
