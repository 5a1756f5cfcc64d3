//! Installs what is missing, by package name, through the system's package manager and cargo.

use std::process::Command;

use crate::Outcome;
use crate::program::{command, is_root, is_there, run_command};

/// A program and the Debian package it comes from.
pub type Need = (&'static str, &'static str);

/// Makes the programs available that are not on the PATH yet.
pub fn need(needs: &[Need]) -> Outcome {
    let mut missing: Vec<&str> =
        needs.iter().filter(|(program, _)| !is_there(program)).map(|&(_, name)| name).collect();
    missing.sort_unstable();
    missing.dedup();
    apt_install(&missing)
}

/// Installs Debian packages; nothing to do for none.
pub fn apt_install(names: &[&str]) -> Outcome {
    if names.is_empty() {
        return Ok(());
    }
    println!("Missing: {}. Installing.", names.join(", "));
    if !is_there("apt-get") {
        return Err(format!("there is no apt-get here: please install {}", names.join(", ")));
    }
    // A machine fresh from its image has no package lists, one that is not needs no update.
    let install = ["install", "-y", "--no-install-recommends"];
    let install: Vec<&str> = install.iter().chain(names).copied().collect();
    if run_command(&mut apt_get(&install)).is_ok() {
        return Ok(());
    }
    run_command(&mut apt_get(&["update"]))?;
    run_command(&mut apt_get(&install))
}

/// Installs a cargo subcommand from its crate, which takes minutes.
pub fn cargo_install(name: &str, version: &str) -> Outcome {
    println!("Missing: {name}. Building it, which takes some minutes (once).");
    // It runs for seconds: a quick build is worth more than a quick program.
    let args = ["install", "--debug", "--locked", "--quiet", name, "--version", version];
    run_command(command("cargo", &args).env("CARGO_PROFILE_DEV_DEBUG", "0"))
}

fn apt_get(args: &[&str]) -> Command {
    let mut apt = if is_root() {
        command("apt-get", &["-qq", "-o", "Dpkg::Use-Pty=0"])
    } else {
        command("sudo", &["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"])
    };
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(args);
    apt
}
