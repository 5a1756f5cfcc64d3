//! The verbs of the command line, and what surrounds them: runtime, signals, errors.

mod adopt;
mod args;
mod backup;
mod cat;
mod config;
mod copy;
mod demo;
mod doctor;
mod drill;
mod generate;
mod list;
mod output;
mod pin;
mod progress;
mod prune;
mod recover;
mod recovery_kit;
mod rekey;
mod restore;
mod run;
mod schedule;
mod setup;
mod show;
mod verify;

use std::process::ExitCode;
use std::sync::Arc;

use backup_core::pipeline::{Cancel, Context};
use backup_core::{Error, ErrorKind, Query, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use args::{Arguments, Common, Verb};
use progress::{Loudness, Reporter};

/// Exit code of a run that SIGINT ended.
const EXIT_SIGINT: u8 = 130;
/// Exit code of a run that SIGTERM ended.
const EXIT_SIGTERM: u8 = 143;
/// Exit code of a run whose terminal went away.
const EXIT_SIGHUP: u8 = 129;

/// How long threads may take to end once a verb is done.
const SHUTDOWN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// What a verb works with.
pub struct Session {
    /// Flags of every verb.
    pub common: Common,
    /// Cancellation and progress.
    pub context: Context,
}

/// Runs the program.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(usage) => {
            // Help and version count as success, everything else as wrong usage.
            let _ = usage.print();
            if !usage.use_stderr() {
                return ExitCode::SUCCESS;
            }
            return ExitCode::from(refuse_usage());
        }
    };
    log_to_stderr(&arguments.common);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let code = match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(run_verb(arguments));
            // A thread that still waits for a key press must not keep the program.
            runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
            code
        }
        Err(e) => tell(&Error::failed("start", "no threads can be started").caused_by(e), false),
    };
    ExitCode::from(code)
}

/// Wrong usage was told on stderr; who asked for JSON gets that, too. What was typed is not
/// repeated there: it may be a secret.
fn refuse_usage() -> u8 {
    if std::env::args_os().any(|argument| argument == "--json") {
        let error = Error::usage("flags", "the command line is wrong: see stderr")
            .next_step("marb-backup --help");
        let _ = output::print_json(&serde_json::json!({ "error": error_json(&error) }));
    }
    exit_code(ErrorKind::Usage)
}

async fn run_verb(arguments: Arguments) -> u8 {
    let Arguments { verb, common } = arguments;
    let loudness = if common.quiet { Loudness::Quiet } else { Loudness::Normal };
    let reporter = Arc::new(Reporter::new(loudness));
    let context = Context::with_progress(reporter.clone());
    let json = common.json;
    if let Err(error) = listen_for_signals(context.cancel.clone()) {
        return tell(&error, json);
    }
    let (cancel, marks) = (context.cancel.clone(), common.marks.clone());
    let result = dispatch(verb, Session { common, context }).await;
    marks.settled().await;
    reporter.clear();
    match result {
        // Of several jobs the interrupted one decided.
        Ok(EXIT_SIGINT) => interrupted_code(&cancel),
        Ok(code) => code,
        Err(error) => {
            let code = tell(&error, json);
            if error.kind() == ErrorKind::Interrupted { interrupted_code(&cancel) } else { code }
        }
    }
}

async fn dispatch(verb: Verb, session: Session) -> Result<u8> {
    match verb {
        Verb::Backup(args) => backup::run(args, &session).await,
        Verb::List(args) => list::run(args, &session).await,
        Verb::Show(args) => show::run(args, &session).await,
        Verb::Verify(args) => verify::run(args, &session).await,
        Verb::Restore(args) => restore::run(args, &session).await,
        Verb::Drill(args) => drill::run(args, &session).await,
        Verb::Cat(args) => cat::run(args, &session).await,
        Verb::Copy(args) => copy::copy(args, &session).await,
        Verb::Sync(args) => copy::sync(args, &session).await,
        Verb::Adopt(args) => adopt::run(args, &session).await,
        Verb::Prune(args) => prune::run(args, &session).await,
        Verb::Pin(args) => pin::pin(args, &session).await,
        Verb::Unpin(args) => pin::unpin(args, &session).await,
        Verb::Rekey(args) => rekey::run(args, &session).await,
        Verb::RecoveryKit(args) => recovery_kit::run(args, &session).await,
        Verb::Recover(args) => recover::run(args, &session).await,
        Verb::Schedule(args) => schedule::run(&args, &session),
        Verb::Run(args) => run::run(&args, &session).await,
        Verb::Doctor(args) => doctor::run(args, &session).await,
        Verb::Config(args) => config::run(&args, &session).await,
        Verb::Completions(args) => generate::completions(args.shell),
        Verb::Man => generate::man(),
        Verb::Demo(args) => demo::run(args, &session).await,
    }
}

/// What backups there are. What could not be read is told: the wanted one may be there.
pub async fn catalog(
    deployment: &backup_cli::Deployment,
    query: &Query<'_>,
    session: &Session,
) -> Result<backup_core::Catalog> {
    let catalog = session.context.cancel.guard(deployment.catalog(query)).await?;
    for problem in &catalog.problems {
        session.context.warn(&format!("storage {}: {}", problem.storage, problem.error));
    }
    Ok(catalog)
}

/// SIGINT, SIGTERM and a terminal that goes away ask the run to stop; it cleans up and ends.
fn listen_for_signals(cancel: Cancel) -> Result<()> {
    let no_handler = |e| Error::failed("start", "signals can't be handled").caused_by(e);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_handler)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_handler)?;
    // Under nohup it is ignored, and is to stay so.
    let mut hangup = match hangup_is_ignored() {
        true => None,
        false => Some(signal(SignalKind::hangup()).map_err(no_handler)?),
    };
    tokio::spawn(async move {
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => cancel.interrupt("interrupted by SIGINT"),
            _ = terminate.recv() => cancel.interrupt("interrupted by SIGTERM"),
            _ = hung_up => cancel.interrupt("interrupted by SIGHUP"),
        }
    });
    Ok(())
}

/// Whether this program was started with SIGHUP ignored. Linux tells; elsewhere it counts as not.
fn hangup_is_ignored() -> bool {
    const SIGHUP: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & SIGHUP != 0)
}

fn interrupted_code(cancel: &Cancel) -> u8 {
    match cancel.error().message() {
        by if by.ends_with("SIGTERM") => EXIT_SIGTERM,
        by if by.ends_with("SIGHUP") => EXIT_SIGHUP,
        _ => EXIT_SIGINT,
    }
}

/// The exit code for a kind of failure, as the contract has it.
pub fn exit_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Usage => 2,
        ErrorKind::Incomplete => 3,
        ErrorKind::Damaged => 4,
        ErrorKind::NotFound => 5,
        ErrorKind::Refused => 6,
        ErrorKind::Locked => 7,
        ErrorKind::Unchecked => 8,
        ErrorKind::Interrupted => EXIT_SIGINT,
        _ => 1,
    }
}

/// Tells an error on stderr, for machines also on stdout; gives its exit code.
fn tell(error: &Error, json: bool) -> u8 {
    let code = exit_code(error.kind());
    let style = output::Style::for_stderr();
    output::say(&format!("{} {error}", style.red("error:")));
    for cause in error.causes() {
        if !error.message().contains(&cause) {
            output::say(&format!("  cause: {cause}"));
        }
    }
    if let Some(advice) = error.advice() {
        output::say(&format!("  next:  {advice}"));
    }
    if json {
        // Where stdout is gone too, the exit code still tells.
        let _ = output::print_json(&serde_json::json!({ "error": error_json(error) }));
    }
    code
}

/// An error as JSON.
pub fn error_json(error: &Error) -> serde_json::Value {
    serde_json::json!({
        "exit_code": exit_code(error.kind()),
        "stage": error.stage(),
        "message": error.message(),
        "causes": error.causes(),
        "next_step": error.advice(),
    })
}

/// Logs go to stderr: warnings, with -q only errors, more with -v and -vv. The libraries log no
/// secrets.
fn log_to_stderr(common: &Common) {
    let level = match (common.quiet, common.verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "backup_core=debug,backup_pg=debug,backup_cli=debug,backup_storage=debug,warn",
        _ => "trace",
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(level))
        .with_writer(std::io::stderr)
        // It would tell them on the very stderr that can't be written to, and panic.
        .log_internal_errors(false)
        .with_ansi(output::stderr_is_a_terminal() && std::env::var_os("NO_COLOR").is_none())
        .init();
}
