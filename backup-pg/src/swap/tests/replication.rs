//! A database with a subscription is dropped without a word to the publisher: two real servers.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::rig::{KEEPER, LIVE, PASSWORD, Rig, every_version, never};
use crate::sql::{quote_ident, quote_literal};
use crate::swap::{CleanupOrder, CleanupOutcome, Names, PutBack};
use crate::throwaway::Shutdown;

const LOGICAL: &[(&str, &str)] = &[
    ("wal_level", "logical"),
    ("max_wal_senders", "10"),
    ("max_replication_slots", "10"),
    ("max_logical_replication_workers", "8"),
    ("max_worker_processes", "16"),
    ("max_sync_workers_per_subscription", "2"),
    ("wal_retrieve_retry_interval", "50ms"),
];

const SUBSCRIPTION: &str = "my \"sub'";

fn over() -> CleanupOrder {
    let now = Timestamp::now() + SignedDuration::from_hours(1);
    CleanupOrder { now, keep_old: Duration::ZERO, newest_verified: Some(now) }
}

/// Waits until a query says this.
async fn until(psql: &crate::Psql, sql: &str, expected: &str) {
    for _ in 0..600 {
        if psql.query_text(sql).await.unwrap() == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{sql}: {:?}", psql.query_text(sql).await);
}

/// Counts who knocks at the publisher's port while it is away.
fn listen(port: u16) -> (Arc<AtomicUsize>, Arc<std::sync::atomic::AtomicBool>) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let (knocks, stop) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let (counted, stopped) = (knocks.clone(), stop.clone());
    std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok(_) => drop(counted.fetch_add(1, Ordering::Relaxed)),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    });
    (knocks, stop)
}

#[tokio::test]
async fn a_subscription_goes_and_its_publisher_never_hears_of_it() {
    for programs in every_version() {
        println!("{}", programs.display());
        dropped_in_silence(programs).await;
    }
}

async fn dropped_in_silence(programs: std::path::PathBuf) {
    let mut publisher = Rig::start_with(programs.clone(), LOGICAL).await;
    let subscriber = Rig::start_with(programs, LOGICAL).await;
    publisher
        .execute("create table public.t(what text); create table public.u(i int); create publication p for all tables;
            insert into public.t values ('published')")
        .await;
    let order = subscriber.old_and_new(KEEPER).await;
    let names = Names::new(LIVE, &order.run);
    let live = subscriber.admin.with_database(LIVE);
    let address = format!(
        "host=127.0.0.1 port={} user=postgres dbname=postgres password='{}'",
        publisher.server.port(),
        PASSWORD.replace('\\', "\\\\").replace('\'', "\\'")
    );
    let subscription = quote_ident(SUBSCRIPTION);
    live.execute(&format!(
        "create table public.u(i int);
         create subscription {subscription} connection {} publication p with (slot_name = 'the_slot')",
        quote_literal(&address)
    ))
    .await
    .unwrap();
    until(&live, "select count(*) from public.t", "2").await;
    until(&live, "select count(*) from pg_subscription_rel where srsubstate <> 'r'", "0").await;

    // Away and back: it goes on as before.
    let swap = subscriber.swap();
    let done = swap.exchange(&order, &never()).await.unwrap();
    assert!(
        done.sessions_ended.iter().any(|one| one.user.as_deref() == Some("postgres")),
        "{done:?}"
    );
    assert!(matches!(swap.put_back(None, &never()).await.unwrap(), PutBack::Returned { .. }));
    publisher.execute("insert into public.t values ('again')").await;
    until(&live, "select count(*) from public.t", "3").await;

    // Now for good; one table is in the middle of its first copy, which has a slot of its own.
    let order = subscriber.new_one(KEEPER, "newest").await;
    let before = Names::new(LIVE, &order.run).before;
    assert_ne!(before, names.before);
    swap.exchange(&order, &never()).await.unwrap();
    swap.confirm(&order.run).await.unwrap();
    let inside = subscriber.admin.with_database(&before);
    let slot =
        "select slot_name || ' ' || active || ' ' || confirmed_flush_lsn from pg_replication_slots";
    until(&publisher.admin, "select bool_or(active) from pg_replication_slots", "f").await;
    // What a slot has reached is written down lazily; a restart goes back to that.
    publisher.server.shut_down(Shutdown::Fast).unwrap();
    publisher.server.start_up().unwrap();
    let slot_before = publisher.admin.query_text(slot).await.unwrap();
    assert!(slot_before.starts_with("the_slot f"), "{slot_before}");
    publisher.server.shut_down(Shutdown::Fast).unwrap();
    let (knocks, stop) = listen(publisher.server.port());
    copying(&subscriber, &before).await;
    // The launcher tries every 50 ms, and is refused by the closed database.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(knocks.load(Ordering::Relaxed), 0, "the closed database contacts nobody");

    let items = swap.cleanup(&over()).await.unwrap();
    let gone = items.iter().find(|item| item.database == before).unwrap();
    let subscriptions = vec![SUBSCRIPTION.to_owned()];
    assert_eq!(gone.outcome, CleanupOutcome::Dropped { subscriptions, slots: Vec::new() });
    assert!(inside.query_text("select 1").await.is_err());
    assert_eq!(knocks.load(Ordering::Relaxed), 0, "the publisher was contacted");
    assert_eq!(
        subscriber.admin.query_text("select count(*) from pg_subscription").await.unwrap(),
        "0"
    );

    stop.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(20)).await;
    publisher.server.start_up().unwrap();
    assert_eq!(publisher.admin.query_text(slot).await.unwrap(), slot_before);
    assert_eq!(subscriber.live_says().await, "newest");
}

/// Makes it look as if one table of the closed database's subscription were being copied.
async fn copying(rig: &Rig, database: &str) {
    let (name, quoted) = (quote_literal(database), quote_ident(database));
    // Only with the subscription switched off may the database be opened.
    let switch = |on: bool| format!("update pg_subscription set subenabled = {on}");
    rig.execute(&switch(false)).await;
    rig.execute(&format!("alter database {quoted} allow_connections true")).await;
    let inside = rig.admin.with_database(database);
    inside
        .execute("update pg_subscription_rel set srsubstate = 'd', srsublsn = null where srrelid = 'public.u'::regclass")
        .await
        .unwrap();
    rig.execute(&format!("alter database {quoted} allow_connections false")).await;
    rig.execute(&switch(true)).await;
    until(
        &rig.admin,
        &format!("select count(*) from pg_stat_activity where datname = {name}"),
        "0",
    )
    .await;
}

/// Who may not change subscriptions is told so, and nothing is opened.
#[tokio::test]
async fn an_owner_without_the_right_is_told() {
    let rig = Rig::start_with(crate::test_server::bin_dir(), LOGICAL).await;
    let order = rig.old_and_new(KEEPER).await;
    let live = rig.admin.with_database(LIVE);
    live.execute("create publication p; create subscription s connection 'host=127.0.0.1 port=1' publication p with (connect = false)")
        .await
        .unwrap();
    // A slot of the database itself goes with it, and is named.
    live.execute("select pg_create_logical_replication_slot('mine', 'pgoutput')").await.unwrap();
    let swap = rig.swap_as(KEEPER).await;
    swap.exchange(&order, &never()).await.unwrap();
    swap.confirm(&order.run).await.unwrap();
    let items = swap.cleanup(&over()).await.unwrap();
    match &items[0].outcome {
        CleanupOutcome::Failed(why) => {
            assert!(why.contains("(s)") && why.contains("as a superuser"), "{why}")
        }
        other => panic!("{other:?}"),
    }
    assert!(rig.databases().await.contains(&(items[0].database.clone(), false)));
    // The superuser goes on with it.
    let outcome = &rig.swap().cleanup(&over()).await.unwrap()[0].outcome;
    let expected =
        CleanupOutcome::Dropped { subscriptions: vec!["s".into()], slots: vec!["mine".into()] };
    assert_eq!(outcome, &expected);
}
