//! `run`: the daemon. Does what the verbs do, on their schedules, and logs a line for each step.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_cli::Deployment;
use backup_cli::schedule::{
    self, Agenda, Clock, Daemon, Event, Log, Runner, StateFile, Task, Work,
};
use backup_core::pipeline::{Cancel, Context};
use backup_core::{Error, Result};
use clap::Parser;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use super::args::{Arguments, Common, RunArgs, Verb};
use super::{Session, output, setup};

/// Stays until a signal comes.
///
/// # Errors
/// When the config is wrong or has no schedule, or the state can't be kept.
pub async fn run(_args: &RunArgs, session: &Session) -> Result<u8> {
    let (path, config) = setup::config(&session.common)?;
    let deployment = Deployment::new(config, setup::environment())?;
    let config = deployment.config();
    let tasks = schedule::tasks(config);
    if tasks.is_empty() {
        return Err(Error::usage("schedule", "nothing in the config has a schedule")
            .next_step("add `schedule = \"02:00\"` to a [job.NAME]"));
    }
    let agenda = Agenda {
        tasks,
        zone: config.schedules.zone(TimeZone::system())?,
        random_delay: config.schedules.random_delay.unwrap_or_default(),
        seed: rand::random(),
    };
    // Of what a verb prints only its errors are wanted: the rest is in our own lines.
    let common = Common { config: Some(path), json: false, quiet: true, ..session.common.clone() };
    let daemon = Daemon {
        agenda,
        state: StateFile::new(&deployment.state_dir()),
        clock: Arc::new(SystemClock),
        runner: Arc::new(Verbs { common, context: session.context.without_progress() }),
        log: Arc::new(Lines { json: session.common.json }),
    };
    daemon.run(&session.context.cancel).await?;
    Err(session.context.cancel.error())
}

struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Runs the very verbs of the command line.
struct Verbs {
    common: Common,
    context: Context,
}

#[async_trait(?Send)]
impl Runner for Verbs {
    async fn run(&self, task: &Task, cancel: &Cancel) -> u8 {
        let context = Context { cancel: cancel.clone(), ..self.context.clone() };
        let session = Session { common: self.common.clone(), context };
        let done = match verb(task) {
            // Behind a pointer: what the verbs lead to includes this daemon.
            Ok(verb) => Box::pin(super::dispatch(verb, session)).await,
            Err(error) => Err(error),
        };
        match done.unwrap_or_else(|error| super::tell(&error, false)) {
            super::EXIT_SIGINT => super::interrupted_code(cancel),
            code => code,
        }
    }
}

/// The verb with its defaults, as if it were typed.
fn verb(task: &Task) -> Result<Verb> {
    let name = task.work.verb();
    let words = match task.work {
        Work::Backup => vec!["marb-backup", name, &task.job],
        Work::Verify | Work::Drill => vec!["marb-backup", name, "latest", "--job", &task.job],
    };
    // By the whole command line: flags of verbs refer to those that every verb has.
    Arguments::try_parse_from(words)
        .map(|arguments| arguments.verb)
        .map_err(|e| Error::usage("schedule", format!("{task} can't be run")).caused_by(e))
}

/// A line on stderr for each event: `time event key=value`, or JSON.
struct Lines {
    json: bool,
}

impl Log for Lines {
    fn tell(&self, event: &Event<'_>) {
        let (what, task, more) = match event {
            Event::Waiting(task, due) => ("next", Some(task), Some(("due", due.to_string()))),
            Event::Started(task, due) => ("started", Some(task), Some(("due", due.to_string()))),
            Event::Ended(task, code) => ("ended", Some(task), Some(("exit", code.to_string()))),
            Event::TimedOut(task) => ("timeout", Some(task), None),
            Event::GivenUp(task) => ("given-up", Some(task), None),
            Event::NotNoted(error) => {
                ("state-not-written", None, Some(("error", error.to_string())))
            }
            Event::Idle => ("idle", None, None),
        };
        let time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let task = task.map(|task| task.to_string());
        if self.json {
            let mut line = json!({ "time": time, "event": what, "task": task });
            if let Some((key, value)) = more {
                line[key] = value.into();
            }
            return output::say(&line.to_string());
        }
        let task = task.map(|task| format!(" task={task}")).unwrap_or_default();
        let more = more.map(|(key, value)| match value.contains(' ') {
            true => format!(" {key}={value:?}"),
            false => format!(" {key}={value}"),
        });
        output::say(&format!("{time} {what}{task}{}", more.unwrap_or_default()));
    }
}
