//! Two at once: two runs, two processes of the same run, a swap and its rollback.

use backup_core::ErrorKind;

use super::rig::{Chance, KEEPER, LIVE, Rig, cases, never};
use crate::sql::quote_ident;
use crate::swap::turn::comment;
use crate::swap::{Marker, Names, Phase, PutBack};

/// Nothing is unfinished, one database has the live name and is open, the others stay closed but
/// for scratch databases.
async fn settled(rig: &Rig) -> String {
    let state = rig.state().await;
    assert!(state.live.as_ref().unwrap().open, "{state:?}");
    assert_eq!(state.unmarked, [""; 0], "{state:?}");
    for one in &state.marked {
        assert_eq!(one.open, one.marker.phase == Phase::Restored, "{one:?}");
    }
    rig.live_says().await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_runs_one_swaps_and_the_other_is_refused() {
    let rig = Rig::start().await;
    rig.make(LIVE, KEEPER, "old").await;
    let mut chance = Chance::new();
    for round in 0..cases(4, 40) {
        let (a, b) = (rig.new_one(KEEPER, "a").await, rig.new_one(KEEPER, "b").await);
        for order in [&a, &b] {
            rig.swap().adopt(order).await.unwrap();
        }
        // Over different maintenance databases, as two hosts may do it.
        let (here, mut there) = (rig.swap(), rig.swap());
        there.admin = there.admin.with_database("template1");
        let (wait, other) = (chance.moment(LATE), chance.moment(LATE));
        let late = async {
            tokio::time::sleep(wait).await;
            there.exchange(&b, &never()).await
        };
        let soon = async {
            tokio::time::sleep(other).await;
            here.exchange(&a, &never()).await
        };
        let (a_done, b_done) = tokio::join!(soon, late);
        println!("round {round}: {} {}", a_done.is_ok(), b_done.is_ok());
        assert_ne!(a_done.is_ok(), b_done.is_ok(), "{a_done:?} {b_done:?}");
        let (won, lost) = if a_done.is_ok() { ("a", b_done) } else { ("b", a_done) };
        assert_eq!(lost.unwrap_err().kind(), ErrorKind::Refused);
        assert_eq!(settled(&rig).await, won);
        let state = rig.state().await;
        assert_eq!(state.unfinished().unwrap().marker.phase, Phase::Swapped);
        rig.swap().put_back(None, &never()).await.unwrap();
        assert_eq!(settled(&rig).await, "old");
        drop_rest(&rig).await;
    }
}

/// For the next round.
async fn drop_rest(rig: &Rig) {
    for (name, _) in rig.databases().await.into_iter().filter(|(name, _)| name != LIVE) {
        rig.execute(&format!("drop database {} with (force)", quote_ident(&name))).await;
    }
}

const LATE: std::time::Duration = std::time::Duration::from_millis(120);

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_beside_a_swap_leaves_one_of_both() {
    let rig = Rig::start().await;
    rig.make(LIVE, KEEPER, "old").await;
    let mut chance = Chance::new();
    let (mut reopened, mut returned, mut too_early) = (0, 0, 0);
    for _ in 0..cases(12, 150) {
        let order = rig.new_one(KEEPER, "new").await;
        rig.swap().adopt(&order).await.unwrap();
        let (swap, other, wait) = (rig.swap(), rig.swap(), chance.moment(LATE * 2));
        let (never_one, never_two) = (never(), never());
        let back = async {
            tokio::time::sleep(wait).await;
            other.put_back(Some(&order.run), &never_one).await
        };
        let (there, back) = tokio::join!(swap.exchange(&order, &never_two), back);
        let said = settled(&rig).await;
        let phase = rig.state().await.of_run(&order.run).unwrap().marker.phase;
        match (&there, &back, phase) {
            (Err(_), Ok(PutBack::Reopened { .. }), Phase::Restored) => reopened += 1,
            (Ok(_), Ok(PutBack::Returned { .. }), Phase::Failed) => returned += 1,
            // It came before anything was closed, and said so; the swap went on.
            (Ok(_), Ok(PutBack::Reopened { .. }), Phase::Swapped) => too_early += 1,
            _ => panic!("{there:?} {back:?} {phase:?}"),
        }
        assert_eq!(said == "new", phase == Phase::Swapped, "{there:?} {back:?}");
        rig.swap().put_back(Some(&order.run), &never()).await.unwrap();
        assert_eq!(settled(&rig).await, "old");
        drop_rest(&rig).await;
    }
    println!("reopened {reopened}, returned {returned}, too early {too_early}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_continue_the_same_run_swap_it_once() {
    let rig = Rig::start().await;
    rig.make(LIVE, KEEPER, "old").await;
    for _ in 0..cases(3, 30) {
        let order = rig.new_one(KEEPER, "new").await;
        // As a run leaves it that is killed right after the closing.
        let marker = Marker::restored(LIVE, &order.run, None, jiff::Timestamp::now());
        let marker =
            Marker { closed: Some(jiff::Timestamp::now()), ..marker.in_phase(Phase::Closing) };
        rig.execute(&comment(&marker.database, Some(&marker.text()))).await;
        rig.execute(&format!("alter database {} allow_connections false", quote_ident(LIVE))).await;
        let (one, two) = (rig.swap(), rig.swap());
        let (never_one, never_two) = (never(), never());
        let (a, b) = tokio::join!(one.resume(&never_one), two.resume(&never_two));
        assert!(a.is_ok() || b.is_ok(), "{a:?} {b:?}");
        assert_eq!(settled(&rig).await, "new");
        let state = rig.state().await;
        let before = state.of_run(&order.run).unwrap();
        assert_eq!(before.marker.phase, Phase::Swapped);
        assert_eq!(before.name, Names::new(LIVE, &order.run).before);
        rig.swap().put_back(None, &never()).await.unwrap();
        drop_rest(&rig).await;
    }
}
