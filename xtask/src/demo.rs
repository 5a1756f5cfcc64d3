//! `cargo xtask demo`: builds marb-backup and lets it show itself on a throwaway server.

use crate::program::{command, run_command};
use crate::{Outcome, setup};

/// Installs PostgreSQL where it is missing, builds the program, runs `marb-backup demo`.
pub fn run(args: &[String]) -> Outcome {
    setup::programs()?;
    println!("Building marb-backup (the first time takes some minutes).");
    run_command(&mut command("cargo", &["build", "--release", "--package", "backup-cli"]))?;
    let program = crate::program::target().join("release/marb-backup");
    let mut demo = command(&program.to_string_lossy(), &["demo"]);
    run_command(demo.args(args))
}
