//! `cargo xtask soak`: the sweeps that `test` runs a sample of, in full. Takes hours.

use crate::Outcome;

/// Runs the tests that are marked as soak tests too, with the full number of cases.
pub fn run(args: &[String]) -> Outcome {
    crate::test::run_with(
        &[("MARB_SOAK", "1")],
        &["--profile", "soak", "--run-ignored", "all"],
        args,
    )
}
