//! `cargo xtask bench`: our speed beside the stock tools'. The comparison itself is the bench
//! target of the `tests` package.

use std::path::PathBuf;

use crate::Outcome;
use crate::packages::need;
use crate::program::{command, run, run_command, target};
use crate::servers::{self, cache};
use crate::{setup, storage_servers};

/// The peer's version that the recorded figures are of.
const AWS_CLI: &str = "awscli==1.46.3";

/// Builds everything optimised and runs the comparison; `args` go to it.
pub fn run_comparison(args: &[String]) -> Outcome {
    setup::programs()?;
    servers::ensure()?;
    storage_servers::ensure()?;
    let aws = peers()?;
    run("cargo", &["build", "--quiet", "--release", "--package", "backup-cli"])?;
    let mut bench =
        command("cargo", &["bench", "--quiet", "--package", "tests", "--bench", "compare", "--"]);
    bench.args(args);
    bench.env("MARB_BACKUP_PROGRAM", target().join("release/marb-backup"));
    bench.env("MARB_TEST_POSTGRES", "local");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [aws.join("bin")].into_iter().chain(std::env::split_paths(&path));
    bench.env("PATH", std::env::join_paths(folders).map_err(|error| error.to_string())?);
    bench.env("PYTHONPATH", aws);
    // The servers speak plain HTTP, and rclone can't load a bundle.
    bench.env_remove("AWS_CA_BUNDLE");
    run_command(&mut bench)
}

/// The tools that ours are compared with; gives the folder of the AWS command line.
fn peers() -> Outcome<PathBuf> {
    need(&[("rclone", "rclone"), ("scp", "openssh-client"), ("pip3", "python3-pip")])?;
    let folder = cache().join(AWS_CLI);
    if !folder.join("bin/aws").exists() {
        println!("Missing: {AWS_CLI}. Installing it into {}.", folder.display());
        let folder = folder.display().to_string();
        run("pip3", &["install", "--quiet", "--target", &folder, AWS_CLI])?;
    }
    Ok(folder)
}
