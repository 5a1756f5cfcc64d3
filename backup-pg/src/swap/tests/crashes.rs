//! Everything killed at random moments: the server, our process, its psql. Afterwards the live
//! name is the old or the new database, whole, and one call finishes it.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::rig::{Chance, KEEPER, LIVE, Rig, cases, never};
use crate::sql::quote_ident;
use crate::swap::{Names, Phase, PutBack, Resumed, Swap, SwapOrder};
use crate::test_server::command_lines;
use crate::throwaway::Shutdown;

/// Longer than a swap usually takes.
const LONGEST: Duration = Duration::from_millis(450);
pub(super) const COMMENT: &str = "mine: it's \\ \"this\"";

/// What is left is old or new, whole, and says which.
pub(super) async fn whole(rig: &Rig, order: &SwapOrder) -> Phase {
    let state = rig.state().await;
    let names = Names::new(LIVE, &order.run);
    let databases = rig.databases().await;
    let has = |name: &str| databases.iter().any(|(one, _)| one == name);
    assert!(has(LIVE) && databases.len() == 2, "{databases:?}");
    let one = state.of_run(&order.run).unwrap();
    let (swapped, says) = match one.marker.phase {
        Phase::Restored | Phase::Closing => (names.restoring, "old"),
        Phase::Swapped | Phase::Confirmed | Phase::PuttingBack => (names.before, "new"),
        Phase::Failed => (names.failed, "old"),
        Phase::Dropping => panic!("{state:?}"),
    };
    assert_eq!(one.name, swapped, "{state:?}");
    assert_eq!(rig.comment_of(LIVE).await.as_deref(), Some(COMMENT));
    let open = state.live.as_ref().unwrap().open;
    if !matches!(one.marker.phase, Phase::Closing | Phase::PuttingBack) {
        assert!(open, "{one:?}");
    }
    if open {
        assert_eq!(rig.live_says().await, says);
    }
    one.marker.phase
}

/// Puts back, or goes on and then puts back: in the end it is the old one, and the new one is
/// dropped, for the next round.
pub(super) async fn finished(rig: &Rig, order: &SwapOrder, chance: &mut Chance) {
    let (swap, phase) = (rig.swap(), whole(rig, order).await);
    if chance.below(2) == 0 && phase.is_unfinished() {
        let resumed = swap.resume(&never()).await.unwrap();
        match (phase, &resumed) {
            (Phase::Closing, Resumed::Exchanged(_)) | (Phase::Swapped, Resumed::Swapped { .. }) => {
                assert_eq!(whole(rig, order).await, Phase::Swapped);
            }
            (Phase::PuttingBack, Resumed::PutBack(PutBack::Returned { .. })) => {}
            _ => panic!("{phase:?} {resumed:?}"),
        }
    }
    let back = swap.put_back(Some(&order.run), &never()).await.unwrap();
    let phase = whole(rig, order).await;
    match back {
        PutBack::Reopened { .. } => assert_eq!(phase, Phase::Restored),
        PutBack::Returned { .. } => assert_eq!(phase, Phase::Failed),
    }
    assert_eq!(rig.live_says().await, "old");
    let state = rig.state().await;
    rig.execute(&format!("drop database {} with (force)", quote_ident(&state.marked[0].name)))
        .await;
}

/// Swaps and puts back, until it is broken off or an error comes.
async fn back_and_forth(swap: Swap, order: SwapOrder) -> backup_core::Result<()> {
    swap.exchange(&order, &never()).await?;
    swap.confirm(&order.run).await?;
    swap.put_back(None, &never()).await.map(drop)
}

pub(super) async fn rig() -> Rig {
    let rig = Rig::start().await;
    rig.make(LIVE, KEEPER, "old").await;
    rig.execute(&crate::swap::turn::comment(LIVE, Some(COMMENT))).await;
    rig
}

pub(super) async fn next(rig: &Rig) -> SwapOrder {
    let order = rig.new_one(KEEPER, "new").await;
    rig.swap().adopt(&order).await.unwrap();
    order
}

/// Nobody is at work at the server any more: what a dead client had sent is over.
async fn quiet(rig: &Rig) {
    let sql = "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()";
    while rig.admin.query_json::<u64>(sql).await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_crashes_at_random_moments() {
    let mut rig = rig().await;
    let mut chance = Chance::new();
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for _ in 0..cases(10, 100) {
        let order = next(&rig).await;
        let work = tokio::spawn(back_and_forth(rig.swap(), order.clone()));
        tokio::time::sleep(chance.moment(LONGEST * 2)).await;
        rig.server.shut_down(Shutdown::Kill).unwrap();
        // Sometimes our side gives up as well, sometimes it waits and settles it.
        let ours_too = chance.below(2) == 0;
        if ours_too {
            work.abort();
        }
        rig.server.start_up().unwrap();
        if !ours_too {
            let outcome = work.await.unwrap();
            let phase = whole(&rig, &order).await;
            assert!(rig.state().await.live.unwrap().open, "{outcome:?}");
            assert!(!matches!(phase, Phase::Closing | Phase::PuttingBack), "{outcome:?} {phase:?}");
        }
        // The task of a swap that was given up opens the database in a while.
        while ours_too && still_at_it(&rig).await {}
        let phase = whole(&rig, &order).await;
        *seen.entry(format!("{phase:?}")).or_default() += 1;
        finished(&rig, &order, &mut chance).await;
    }
    println!("{seen:?}");
}

/// Whether sessions of a swap come and go still, looked at for a while.
async fn still_at_it(rig: &Rig) -> bool {
    tokio::time::sleep(Duration::from_millis(700)).await;
    let port = format!("port='{}'", rig.server.port());
    let of_ours =
        command_lines("psql").into_iter().filter(|(_, line)| line.contains(&port)).count();
    of_ours > 0
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_it_goes_away_at_random_moments() {
    let rig = rig().await;
    let mut chance = Chance::new();
    for _ in 0..cases(10, 150) {
        let order = next(&rig).await;
        let work = back_and_forth(rig.swap(), order.clone());
        // The caller's future is dropped; its runtime lives on and opens the database.
        let _ = tokio::time::timeout(chance.moment(LONGEST * 2), work).await;
        while still_at_it(&rig).await {}
        let phase = whole(&rig, &order).await;
        assert!(!matches!(phase, Phase::Closing | Phase::PuttingBack), "{phase:?}");
        assert!(rig.state().await.live.unwrap().open);
        finished(&rig, &order, &mut chance).await;
    }
}

/// All of our side at once: no task goes on, as when the process is killed. Its psql may.
#[tokio::test(flavor = "multi_thread")]
async fn our_process_goes_away_at_random_moments() {
    let rig = rig().await;
    let mut chance = Chance::new();
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for _ in 0..cases(12, 200) {
        let order = next(&rig).await;
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let ours = threads.worker_threads(2).enable_all().build().unwrap();
        ours.spawn(back_and_forth(rig.swap(), order.clone()));
        tokio::time::sleep(chance.moment(LONGEST * 2)).await;
        ours.shutdown_background();
        tokio::time::sleep(Duration::from_millis(30)).await;
        quiet(&rig).await;
        *seen.entry(format!("{:?}", whole(&rig, &order).await)).or_default() += 1;
        finished(&rig, &order, &mut chance).await;
    }
    println!("{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_is_killed_at_random_moments() {
    let rig = rig().await;
    let mut chance = Chance::new();
    let port = format!("port='{}'", rig.server.port());
    let mut killed = 0;
    for _ in 0..cases(12, 200) {
        let order = next(&rig).await;
        let work = tokio::spawn(back_and_forth(rig.swap(), order.clone()));
        tokio::time::sleep(chance.moment(LONGEST * 2)).await;
        for (pid, _) in command_lines("psql").into_iter().filter(|(_, line)| line.contains(&port)) {
            let process = Pid::from_raw(pid.try_into().unwrap()).unwrap();
            killed += usize::from(kill_process(process, Signal::KILL).is_ok());
        }
        let outcome = work.await.unwrap();
        let phase = whole(&rig, &order).await;
        assert!(rig.state().await.live.unwrap().open, "{outcome:?}");
        assert!(!matches!(phase, Phase::Closing | Phase::PuttingBack), "{outcome:?} {phase:?}");
        finished(&rig, &order, &mut chance).await;
    }
    println!("killed {killed}");
}
