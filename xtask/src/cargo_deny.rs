//! `cargo xtask deny`: licences, sources and banned crates; advisories where they can be reached.

use crate::Outcome;
use crate::packages::cargo_install;
use crate::program::{command, is_there, output, run};

const VERSION: &str = "0.20.2";

/// Installs cargo-deny where it is missing.
pub fn install() -> Outcome {
    if is_there("cargo-deny") || output("cargo", &["deny", "--version"]).is_ok() {
        return Ok(());
    }
    cargo_install("cargo-deny", VERSION)
}

/// Checks everything; only the advisories may be out of reach, and then it says so.
pub fn check() -> Outcome {
    install()?;
    run("cargo", &["deny", "--all-features", "check", "bans", "licenses", "sources"])?;
    check_advisories()
}

fn check_advisories() -> Outcome {
    let args = ["deny", "--all-features", "check", "advisories"];
    let done =
        command("cargo", &args).output().map_err(|e| format!("cannot run cargo deny: {e}"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    if done.status.success() {
        println!("advisories: none that concerns us");
        return Ok(());
    }
    // Its way to say that the database itself could not be had.
    if said.contains("failed to fetch advisory database") {
        println!("advisories: NOT CHECKED, their database cannot be reached from here");
        return Ok(());
    }
    Err(format!("advisories:\n{said}"))
}
