//! `cargo xtask soak`: the sweeps that `test` runs a sample of, in full. Takes hours.

use crate::Outcome;

/// Cases of each kind, where `MARB_SOAK` does not say otherwise.
const CASES: &str = "1000";

/// Runs every test with the full number of cases.
pub fn run(args: &[String]) -> Outcome {
    let cases = std::env::var("MARB_SOAK").unwrap_or_else(|_| CASES.into());
    println!("Cases of each kind: {cases} (MARB_SOAK=...)");
    crate::test::run_with(&[("MARB_SOAK", &cases)], &["--profile", "soak"], args)
}
