//! `cargo xtask test`: every test, against real servers, and the examples in the documentation.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::program::{command, run as run_program, run_command, target};
use crate::{Outcome, containers, servers, setup, storage_servers};

/// Tests at the same time for each core: they wait for servers as much as they compute.
const TESTS_PER_CORE: usize = 2;

/// Runs every test; `args` go to the test runner.
pub fn run(args: &[String]) -> Outcome {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = (cores * TESTS_PER_CORE).to_string();
    run_with(&[], &["--test-threads", &threads], args)
}

/// Runs the tests with further environment and further options of nextest.
pub fn run_with(env: &[(&str, &str)], nextest_args: &[&str], args: &[String]) -> Outcome {
    setup::programs()?;
    setup::schedule_readers()?;
    let servers = servers::ensure()?;
    storage_servers::ensure()?;
    let in_containers = containers::usable();
    match &in_containers {
        Some(engine) => println!("PostgreSQL from: containers ({engine})"),
        None => println!("PostgreSQL from: local servers ({})", setup::majors(&servers)),
    }
    let seed = seed();
    println!("Seed of the random cases: {seed} (MARB_TEST_SEED={seed} repeats them)");
    let program = target().join("debug/marb-backup");

    let nextest = setup::nextest();
    let mut tests = command("cargo", if nextest { &["nextest", "run"] } else { &["test"] });
    tests.args(["--workspace", "--no-fail-fast"]);
    if nextest {
        tests.args(nextest_args);
    }
    tests.envs(env.iter().copied());
    tests.env("MARB_TEST_SEED", seed.to_string()).env("MARB_BACKUP_PROGRAM", program);
    if in_containers.is_some() {
        tests.args(["--features", "backup-testkit/containers"]);
        tests.env("MARB_TEST_POSTGRES", "containers");
    } else {
        tests.env("MARB_TEST_POSTGRES", "local");
    }
    tests.args(args);
    if nextest && args.is_empty() {
        // First, so that the runner's summary stays the last thing said.
        run_program("cargo", &["test", "--workspace", "--doc", "--quiet"])?;
    }
    run_command(&mut tests)
}

fn seed() -> u64 {
    let given = std::env::var("MARB_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    given.unwrap_or(since_1970.as_secs())
}
