//! The program itself starts. That there is a test of it here also makes every test run build
//! it, with the features that the other tests are built with, instead of a second time.

use std::process::Command;

#[test]
fn the_program_starts_and_knows_its_version() {
    let told = Command::new(env!("CARGO_BIN_EXE_marb-backup")).arg("--version").output().unwrap();
    assert!(told.status.success());
    assert_eq!(String::from_utf8_lossy(&told.stdout).trim(), backup_cli::TOOL);
}
