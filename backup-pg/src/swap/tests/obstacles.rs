//! What keeps a swap from happening: sessions, locks, prepared transactions, a change of mind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use backup_core::ErrorKind;
use backup_core::pipeline::Cancel;
use rustix::process::{Pid, Signal, kill_process};

use super::rig::{KEEPER, LIVE, Rig, limits, never};
use crate::sql::quote_ident;
use crate::swap::turn::comment;
use crate::swap::{Names, Phase, Swap, SwapLimits, SwapOrder};
use crate::test_server::bin_dir;

/// The old database is live and open, and the new one waits as before.
async fn nothing_happened(rig: &Rig, order: &SwapOrder) {
    assert_eq!(rig.live_says().await, "old");
    let state = rig.state().await;
    let new = state.of_run(&order.run).unwrap();
    assert_eq!((new.marker.phase, new.open), (Phase::Restored, true));
    assert_eq!(rig.comment_of(LIVE).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_come_back_without_pause() {
    let users = ["postgres", "app", "app", "postgres", KEEPER, "app"];
    sessions_come_back("postgres", &users).await;
}

/// Ended by an owner who is no superuser, over `pg_signal_backend`.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_others_that_come_back_are_ended_by_an_owner() {
    sessions_come_back(KEEPER, &["app", KEEPER, "app", "app"]).await;
}

async fn sessions_come_back(who: &str, users: &[&str]) {
    let rig = Rig::start().await;
    let order = rig.old_and_new(KEEPER).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (old, new) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Vec::new();
    for user in users {
        let psql = rig.psql_as(user).await.with_database(LIVE);
        let (stop, old, new) = (stop.clone(), old.clone(), new.clone());
        tasks.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                // A row that was acknowledged has to be where the answer said.
                let sql = "insert into public.log(who) select what from public.t returning who";
                match psql.query_text(sql).await.as_deref() {
                    Ok("old") => drop(old.fetch_add(1, Ordering::Relaxed)),
                    Ok("new") => drop(new.fetch_add(1, Ordering::Relaxed)),
                    Ok(other) => panic!("{other}"),
                    Err(_) => {}
                }
            }
        }));
    }
    while old.load(Ordering::Relaxed) < 10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // One that sits there for good, with a transaction.
    let there = rig.psql_as(users[0]).await.with_database(LIVE);
    let _sitting = rig.hold(there, "begin; insert into public.log default values").await;
    let done = rig.swap_as(who).await.exchange(&order, &never()).await.unwrap();
    println!("closed for {:?}, {} sessions ended", done.closed_for, done.sessions_ended.len());
    assert!(done.sessions_ended.iter().any(|one| one.user.as_deref() == Some(users[0])));
    let until = new.load(Ordering::Relaxed) + 10;
    while new.load(Ordering::Relaxed) < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    // One row may be in, its answer lost to pg_terminate_backend, per session that was ended.
    let count = "select count(*) from public.log";
    let in_new: usize = rig.admin.with_database(LIVE).query_json(count).await.unwrap();
    rig.execute(&format!("alter database {} allow_connections true", quote_ident(&done.before)))
        .await;
    let in_old: usize = rig.admin.with_database(&done.before).query_json(count).await.unwrap();
    assert_eq!(in_new, new.load(Ordering::Relaxed));
    let acknowledged = old.load(Ordering::Relaxed);
    assert!(
        (acknowledged..=acknowledged + done.sessions_ended.len()).contains(&in_old),
        "{in_old} {acknowledged}"
    );
}

#[tokio::test]
async fn a_session_that_will_not_end_is_named_and_nothing_happened() {
    let rig = Rig::start().await;
    let order = rig.old_and_new(KEEPER).await;
    let brief = SwapLimits { sessions: Duration::from_millis(600), ..limits() };

    // A superuser's, for one who is none.
    let held = rig.hold(rig.admin.with_database(LIVE), "select 1").await;
    let keeper = Swap::new(rig.psql_as(KEEPER).await, LIVE, brief);
    let stays = keeper.exchange(&order, &never()).await.unwrap_err();
    let expected = format!(
        "pid {} (user postgres, psql): a superuser's, which only a superuser may end",
        held.pid
    );
    assert!(stays.message().contains(&expected), "{stays}");
    assert!(stays.advice().unwrap().contains("superuser"), "{stays:?}");
    nothing_happened(&rig, &order).await;
    drop(held);

    // One whose process does nothing any more; also in the new database.
    for database in [LIVE, &Names::new(LIVE, &order.run).restoring] {
        let held = rig.hold(rig.admin.with_database(database), "select 1").await;
        let process = Pid::from_raw(held.pid).unwrap();
        kill_process(process, Signal::STOP).unwrap();
        let began = Instant::now();
        let swap = Swap::new(rig.admin.clone(), LIVE, brief);
        let stays = swap.exchange(&order, &never()).await;
        kill_process(process, Signal::CONT).unwrap();
        let stays = stays.unwrap_err();
        assert!(
            stays.message().contains(&format!(
                "pid {} (user postgres, psql): was told to end and has not",
                held.pid
            )),
            "{stays}"
        );
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        nothing_happened(&rig, &order).await;
    }
    // And with nobody in the way, it works.
    keeper.exchange(&order, &never()).await.unwrap();
    assert_eq!(rig.live_says().await, "new");

    // The way back knows the same: the new one stays live, and open.
    let held = rig.hold(rig.admin.with_database(LIVE), "select 1").await;
    let stays = keeper.put_back(None, &never()).await.unwrap_err();
    assert!(stays.message().contains(&format!("pid {}", held.pid)), "{stays}");
    assert_eq!(rig.live_says().await, "new");
    assert_eq!(rig.state().await.unfinished().unwrap().marker.phase, Phase::Swapped);
    keeper.confirm(&order.run).await.unwrap();
    keeper.put_back(None, &never()).await.unwrap_err();
    assert_eq!(rig.state().await.of_run(&order.run).unwrap().marker.phase, Phase::Confirmed);
    assert_eq!(rig.live_says().await, "new");
}

#[tokio::test]
async fn a_lock_that_does_not_come_is_told_and_nothing_happened() {
    let rig = Rig::start().await;
    let order = rig.old_and_new(KEEPER).await;
    let brief = SwapLimits { lock: Duration::from_millis(400), ..limits() };
    let swap = Swap::new(rig.admin.clone(), LIVE, brief);
    let live = quote_ident(LIVE);
    let uncommitted = [
        // Locks the database as CREATE DATABASE .. TEMPLATE does.
        format!("begin; {}", comment(LIVE, Some("never committed"))),
        // Locks its row.
        format!("begin; alter database {live} connection limit 7"),
        // As for one that is renamed itself.
        format!(
            "begin; alter database {} connection limit 7",
            quote_ident(&Names::new(LIVE, &order.run).restoring)
        ),
    ];
    for sql in uncommitted {
        let held = rig.hold(rig.admin.clone(), &sql).await;
        let began = Instant::now();
        let locked = swap.exchange(&order, &never()).await.unwrap_err();
        assert!(
            locked.message().contains(&format!("pid {} (user postgres in postgres)", held.pid)),
            "{sql}: {locked}"
        );
        // Open while the lock is still held.
        assert!(began.elapsed() < Duration::from_secs(10), "{sql}: {:?}", began.elapsed());
        let state = rig.state().await;
        assert!(state.live.as_ref().unwrap().open, "{sql}");
        assert!(state.unfinished().is_none(), "{sql}: {state:?}");
        drop(held);
    }
    rig.execute(&format!("alter database {live} connection limit -1")).await;
    assert_eq!(rig.live_says().await, "old");
    swap.exchange(&order, &never()).await.unwrap();
    assert_eq!(rig.live_says().await, "new");
}

#[tokio::test]
async fn a_prepared_transaction_is_told_before_anything_is_closed() {
    let rig = Rig::start_with(bin_dir(), &[("max_prepared_transactions", "5")]).await;
    let order = rig.old_and_new(KEEPER).await;
    let live = rig.admin.with_database(LIVE);
    live.execute("begin; insert into public.log default values; prepare transaction 'it''s me'")
        .await
        .unwrap();
    let held = rig.hold(live.clone(), "select 1").await;
    let refused = rig.swap().exchange(&order, &never()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(refused.message().contains("\"it's me\""), "{refused}");
    assert!(!held.task.is_finished(), "nobody's session was ended");
    assert_eq!(rig.live_says().await, "old");
    assert_eq!(rig.state().await.marked.len(), 0);
    live.execute("rollback prepared 'it''s me'").await.unwrap();
    rig.swap().exchange(&order, &never()).await.unwrap();
}

#[tokio::test]
async fn who_changes_his_mind_gets_an_open_database() {
    let rig = Rig::start().await;
    let order = rig.old_and_new(KEEPER).await;
    let at_once = never();
    at_once.interrupt("enough");
    let stopped = rig.swap().exchange(&order, &at_once).await.unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Interrupted);
    assert_eq!(rig.state().await.marked.len(), 0, "nothing was begun");

    // While it waits for a session that does not end.
    let held = rig.hold(rig.admin.with_database(LIVE), "select 1").await;
    let process = Pid::from_raw(held.pid).unwrap();
    kill_process(process, Signal::STOP).unwrap();
    let long = SwapLimits { sessions: Duration::from_secs(300), ..limits() };
    let swap = Swap::new(rig.admin.clone(), LIVE, long);
    let closed = async || {
        while rig.state().await.live.unwrap().open {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (cancel, began) = (Cancel::default(), Instant::now());
    let never = never();
    let (outcome, ()) = tokio::join!(swap.exchange(&order, &cancel), async {
        closed().await;
        cancel.interrupt("enough");
    });
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Interrupted);
    nothing_happened(&rig, &order).await;

    // Dropped instead: the task of its own opens it.
    tokio::select! {
        done = swap.exchange(&order, &never) => panic!("{done:?}"),
        () = closed() => {}
    }
    while rig.state().await.unfinished().is_some() {
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    nothing_happened(&rig, &order).await;
    kill_process(process, Signal::CONT).unwrap();
}
