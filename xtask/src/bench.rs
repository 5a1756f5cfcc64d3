//! `cargo xtask bench`: our speed beside the stock tools'. The comparison itself is the bench
//! target of the `tests` package.

use crate::Outcome;
use crate::program::{command, run, run_command, target};
use crate::{servers, setup};

/// Builds everything optimised and runs the comparison; `args` go to it.
pub fn run_comparison(args: &[String]) -> Outcome {
    setup::programs()?;
    servers::ensure()?;
    run("cargo", &["build", "--quiet", "--release", "--package", "backup-cli"])?;
    let mut bench =
        command("cargo", &["bench", "--quiet", "--package", "tests", "--bench", "compare", "--"]);
    bench.args(args);
    bench.env("MARB_BACKUP_PROGRAM", target().join("release/marb-backup"));
    bench.env("MARB_TEST_POSTGRES", "local");
    run_command(&mut bench)
}
