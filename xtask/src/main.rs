//! The project's commands: `cargo xtask demo`, `test`, `ci`, `bench`, `soak`, `containers`, `setup`.
//!
//! Each installs what it misses through the ordinary package managers and says what it does.

mod arrows;
mod bench;
mod cargo_deny;
mod ci;
mod containers;
mod demo;
mod packages;
mod program;
mod servers;
mod setup;
mod soak;
mod storage_servers;
mod test;
mod tidy;

use std::process::ExitCode;

/// What a task ends with; the error is a sentence for the terminal.
type Outcome<T = ()> = Result<T, String>;

const USAGE: &str = "\
cargo xtask COMMAND

  demo                  a throwaway PostgreSQL with sample data, backed up and brought back
  test [ARGS...]        every test against real servers; ARGS go to the test runner
  ci                    what the project's CI runs: formatting, lints, tests, docs, licences
  bench [ARGS...]       our speed beside the stock tools'
  soak [ARGS...]        the long sweeps in full
  containers up|down    a container engine and PostgreSQL images for `test`
  setup                 only installs what the others need
  tidy | arrows | deny  one check of `ci`
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rest = args.get(1..).unwrap_or_default();
    let outcome = match args.first().map(String::as_str) {
        Some("demo") => demo::run(rest),
        Some("test") => test::run(rest),
        Some("ci") => ci::run(),
        Some("bench") => bench::run_comparison(rest),
        Some("soak") => soak::run(rest),
        Some("containers") => containers::run(rest),
        Some("setup") => setup::run(),
        Some("tidy") => tidy::check(),
        Some("arrows") => arrows::check(),
        Some("deny") => cargo_deny::check(),
        Some("help" | "--help" | "-h") | None => {
            print!("{USAGE}");
            Ok(())
        }
        Some(other) => Err(format!("no command {other:?}\n\n{USAGE}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
