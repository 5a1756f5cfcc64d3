//! Which run a rollback or a continuation is about.

use super::*;
use backup_pg::swap::{LiveDatabase, MarkedDatabase, Marker, Names};

const LIVE: &str = "claims";

fn at(time: &str) -> Timestamp {
    format!("2026-11-22T{time}:00Z").parse().unwrap()
}

fn run(time: &str) -> RunId {
    RunId::new(at(time))
}

fn marked(run: &RunId, phase: &str) -> MarkedDatabase {
    let names = Names::new(LIVE, run);
    let name = match phase {
        "restored" | "closing" => names.restoring,
        "failed" => names.failed,
        _ => names.before,
    };
    let mut marker = serde_json::json!({
        "phase": phase, "run": run, "live": LIVE, "database": name, "started": run.started(),
    });
    if !matches!(phase, "restored" | "closing") {
        marker["swapped"] = serde_json::json!(run.started());
    }
    let marker: Marker = serde_json::from_value(marker).unwrap();
    MarkedDatabase { name, marker, bytes: None, open: false }
}

fn state(marked: Vec<MarkedDatabase>) -> SwapState {
    SwapState { live: Some(LiveDatabase { open: true }), marked, unmarked: Vec::new() }
}

fn rollback(marked: Vec<MarkedDatabase>, killed: Option<&RunId>) -> Result<Aim> {
    aim_of_rollback(&state(marked), killed, None, at("20:00"))
}

#[test]
fn a_rollback_takes_the_unfinished_run_or_the_newest_swap() {
    let (old, new) = (run("08:00"), run("18:00"));
    for phase in ["closing", "swapped", "putting-back"] {
        let both = vec![marked(&old, "confirmed"), marked(&new, phase)];
        assert_eq!(rollback(both, Some(&new)).unwrap(), Aim::PutBack(new.clone()));
    }
    let both = vec![marked(&old, "confirmed"), marked(&new, "confirmed")];
    assert_eq!(rollback(both, None).unwrap(), Aim::PutBack(new.clone()));
    assert_eq!(rollback(Vec::new(), None).unwrap_err().kind(), ErrorKind::NotFound);
}

/// The killed run had not swapped: going back to the swap *before* it would lose what was
/// written since then.
#[test]
fn a_rollback_never_takes_an_older_swap_for_the_killed_run() {
    let (old, new) = (run("08:00"), run("18:00"));
    let confirmed = || marked(&old, "confirmed");
    let only_start = Aim::OnlyStart(new.clone());
    // Killed before it left a marker, with one, and after it was put back.
    assert_eq!(rollback(vec![confirmed()], Some(&new)).unwrap(), only_start);
    for phase in ["restored", "failed"] {
        let both = || vec![confirmed(), marked(&new, phase)];
        assert_eq!(rollback(both(), None).unwrap(), only_start);
        assert_eq!(rollback(both(), Some(&new)).unwrap(), only_start);
        let named = aim_of_rollback(&state(both()), None, Some(&old), at("20:00")).unwrap();
        assert_eq!(named, Aim::PutBack(old.clone()));
    }
}

#[test]
fn a_swap_of_long_ago_has_to_be_named() {
    let old = run("08:00");
    let state = state(vec![marked(&old, "confirmed")]);
    let later = "2026-11-24T08:00:00Z".parse().unwrap();
    let refused = aim_of_rollback(&state, None, None, later).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(refused.advice().unwrap().contains(&format!("--run {old}")));
    let named = aim_of_rollback(&state, None, Some(&old), later).unwrap();
    assert_eq!(named, Aim::PutBack(old));
    let unknown = run("09:00");
    let error = aim_of_rollback(&state, None, Some(&unknown), later).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn another_run_can_not_be_named_while_one_is_unfinished() {
    let (old, new) = (run("08:00"), run("18:00"));
    let state = state(vec![marked(&old, "confirmed"), marked(&new, "swapped")]);
    let refused = aim_of_rollback(&state, None, Some(&old), at("20:00")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
}

#[test]
fn going_on_takes_the_unfinished_run_and_never_an_old_one() {
    let (old, new) = (run("08:00"), run("18:00"));
    let going_on = |marked, killed: Option<&RunId>| aim_of_going_on(&state(marked), killed);
    for phase in ["closing", "swapped", "putting-back"] {
        let both = vec![marked(&old, "confirmed"), marked(&new, phase)];
        assert_eq!(going_on(both, None).unwrap(), Aim::Finish(new.clone()));
    }
    let confirmed = || marked(&old, "confirmed");
    assert_eq!(going_on(vec![confirmed()], None).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(going_on(vec![confirmed()], Some(&old)).unwrap(), Aim::OnlyStart(old.clone()));
    assert_eq!(going_on(vec![confirmed()], Some(&new)).unwrap(), Aim::OnlyStart(new.clone()));
    let restored = vec![confirmed(), marked(&new, "restored")];
    assert_eq!(going_on(restored, None).unwrap(), Aim::OnlyStart(new));
}
