//! The program `marb-backup`: arguments in, exit code out. Everything else is the library.

mod command;

use std::process::ExitCode;

fn main() -> ExitCode {
    command::run()
}
