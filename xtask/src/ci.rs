//! `cargo xtask ci`: every check of a change, cheapest first, the tests last.

use std::time::Instant;

use crate::program::{command, run as run_program, run_command};
use crate::{Outcome, arrows, cargo_deny, test, tidy};

/// The feature sets that must stay silent under clippy.
const FEATURES: [&[&str]; 3] = [&[], &["--no-default-features"], &["--all-features"]];

/// A check by its name.
type Step = (&'static str, fn() -> Outcome);

const STEPS: [Step; 7] = [
    ("formatting", formatting),
    ("tidy", tidy::check),
    ("arrows", arrows::check),
    ("clippy", clippy),
    ("documentation", documentation),
    ("deny", cargo_deny::check),
    ("tests", tests),
];

/// Runs every step, also after one failed, and ends with what each said.
pub fn run() -> Outcome {
    let mut failed = Vec::new();
    for (name, step) in STEPS {
        println!("\n== {name}");
        let start = Instant::now();
        if let Err(message) = step() {
            eprintln!("{name}: {message}");
            failed.push(name);
        }
        // The test runner's summary stays the last line.
        if name != "tests" {
            println!("== {name}: {} s", start.elapsed().as_secs());
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

fn formatting() -> Outcome {
    run_program("cargo", &["fmt", "--all", "--check"])
}

fn clippy() -> Outcome {
    for features in FEATURES {
        let args = ["clippy", "--workspace", "--all-targets", "--quiet"];
        let args = [&args[..], features, &["--", "-D", "warnings"]].concat();
        run_program("cargo", &args)?;
    }
    // Alone: in the workspace the others' wishes switch its features on.
    let bare = ["clippy", "--package", "backup-cli", "--no-default-features", "--quiet"];
    run_program("cargo", &[&bare[..], &["--", "-D", "warnings"]].concat())
}

fn documentation() -> Outcome {
    let args = ["doc", "--workspace", "--no-deps", "--all-features", "--quiet"];
    run_command(command("cargo", &args).env("RUSTDOCFLAGS", "-D warnings"))
}

fn tests() -> Outcome {
    test::run(&[])
}
