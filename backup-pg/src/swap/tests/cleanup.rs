//! Nothing is dropped that is not ours, not over, not old enough or not backed up since.

use std::time::Duration;

use backup_core::ErrorKind;
use jiff::{SignedDuration, Timestamp};

use super::rig::{KEEPER, LIVE, Rig, never};
use crate::sql::quote_ident;
use crate::swap::turn::comment;
use crate::swap::{CleanupItem, CleanupOrder, CleanupOutcome, Marker, Names, Phase, Swap};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn hours(hours: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(hours)
}

/// A week has passed, and a backup of an hour from now has been verified.
pub(super) fn late() -> CleanupOrder {
    CleanupOrder { now: hours(24 * 8), keep_old: 7 * DAY, newest_verified: Some(hours(1)) }
}

fn one(items: &[CleanupItem]) -> &CleanupOutcome {
    assert_eq!(items.len(), 1, "{items:?}");
    &items[0].outcome
}

fn kept(items: &[CleanupItem], why: &str) {
    match one(items) {
        CleanupOutcome::Kept(said) => assert!(said.contains(why), "{said}"),
        other => panic!("{other:?}"),
    }
}

async fn names_of(rig: &Rig) -> Vec<String> {
    rig.databases().await.into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn only_what_is_over_old_and_backed_up_goes() {
    let rig = Rig::start().await;
    let order = rig.old_and_new(KEEPER).await;
    let names = Names::new(LIVE, &order.run);
    // As the owner, who is no superuser.
    let swap = rig.swap_as(KEEPER).await;
    let orders = [
        (CleanupOrder { newest_verified: None, ..late() }, "no backup that began later"),
        (CleanupOrder { newest_verified: Some(hours(-1)), ..late() }, "no backup that began later"),
        (CleanupOrder { now: hours(24 * 6), ..late() }, "it is kept until"),
        (CleanupOrder { keep_old: Duration::MAX, ..late() }, "it is kept for ever"),
    ];
    swap.adopt(&order).await.unwrap();
    kept(&swap.cleanup(&orders[2].0).await.unwrap(), "it is kept until");
    // A scratch database may be in the hands of a run that is at work.
    let at_once = CleanupOrder { keep_old: Duration::ZERO, now: hours(23), newest_verified: None };
    kept(&swap.cleanup(&at_once).await.unwrap(), "it is kept until");
    swap.exchange(&order, &never()).await.unwrap();
    kept(&swap.cleanup(&late()).await.unwrap(), "not finished");
    swap.confirm(&order.run).await.unwrap();
    for (order, why) in &orders {
        kept(&swap.plan_cleanup(order).await.unwrap(), why);
        kept(&swap.cleanup(order).await.unwrap(), why);
    }
    assert_eq!(one(&swap.plan_cleanup(&late()).await.unwrap()), &CleanupOutcome::Drop);
    assert_eq!(names_of(&rig).await, [names.before.as_str(), LIVE]);
    let gone = CleanupOutcome::Dropped { subscriptions: Vec::new(), slots: Vec::new() };
    assert_eq!(one(&swap.cleanup(&late()).await.unwrap()), &gone);
    assert_eq!(names_of(&rig).await, [LIVE]);
    assert_eq!(rig.live_says().await, "new");
    assert_eq!(swap.put_back(None, &never()).await.unwrap_err().kind(), ErrorKind::NotFound);

    // One that was put back: counted from then. A template it may be as well.
    let order = rig.new_one(KEEPER, "newer").await;
    let names = Names::new(LIVE, &order.run);
    swap.exchange(&order, &never()).await.unwrap();
    swap.put_back(None, &never()).await.unwrap();
    for (order, why) in &orders {
        kept(&swap.cleanup(order).await.unwrap(), why);
    }
    rig.execute(&format!("alter database {} is_template true", quote_ident(&names.failed))).await;
    assert_eq!(one(&swap.cleanup(&late()).await.unwrap()), &gone);
    assert_eq!(
        (names_of(&rig).await, rig.live_says().await),
        (vec![LIVE.to_owned()], "new".into())
    );
}

#[tokio::test]
async fn what_is_not_ours_stays() {
    let rig = Rig::start().await;
    let order = rig.old_and_new(KEEPER).await;
    let names = Names::new(LIVE, &order.run);
    let swap = rig.swap();
    swap.exchange(&order, &never()).await.unwrap();
    swap.confirm(&order.run).await.unwrap();
    let text = rig.comment_of(&names.before).await.unwrap();
    let marker = Marker::read(&names.before, &text).unwrap();

    // The marker on other databases: a user's own, one with a name like ours, the live one.
    rig.make("bystander", "postgres", "mine").await;
    rig.make(&names.failed, "postgres", "mine").await;
    for name in ["bystander", names.failed.as_str(), LIVE] {
        rig.execute(&comment(name, Some(&text))).await;
    }
    // One that says it is the live database's own, under its own name.
    let posing = Marker { database: LIVE.to_owned(), ..marker.clone() };
    rig.execute(&comment(LIVE, Some(&posing.text()))).await;
    // Foreign text, and no text, on what is ours.
    let all = names_of(&rig).await;
    for foreign in
        [None, Some("marb-backup swap "), Some("please keep"), Some("marb-backup swap {}")]
    {
        rig.execute(&comment(&names.before, foreign)).await;
        assert_eq!(swap.cleanup(&late()).await.unwrap().len(), 0);
        assert!(rig.state().await.unmarked.contains(&names.before));
    }
    // Another live database's.
    rig.execute(&comment(&names.before, Some(&text))).await;
    let other = Swap::new(rig.admin.clone(), "other", super::rig::limits());
    assert_eq!(other.cleanup(&late()).await.unwrap().len(), 0);
    // In every phase that is not over.
    for phase in [Phase::Swapped, Phase::PuttingBack] {
        rig.execute(&comment(&names.before, Some(&marker.in_phase(phase).text()))).await;
        kept(&swap.cleanup(&late()).await.unwrap(), "not finished");
    }
    // Without a time.
    let timeless = Marker { swapped: None, ..marker.clone() };
    rig.execute(&comment(&names.before, Some(&timeless.text()))).await;
    kept(&swap.cleanup(&late()).await.unwrap(), "since when");
    assert_eq!(names_of(&rig).await, all);
    assert_eq!(rig.live_says().await, "new");

    rig.execute(&comment(&names.before, Some(&text))).await;
    swap.cleanup(&late()).await.unwrap();
    let rest: Vec<_> = all.into_iter().filter(|name| *name != names.before).collect();
    assert_eq!(names_of(&rig).await, rest);
}

#[tokio::test]
async fn a_cleanup_that_was_cut_off_goes_on_and_nobody_puts_back_what_is_being_dropped() {
    let rig = Rig::start().await;
    let order = rig.old_and_new(KEEPER).await;
    let names = Names::new(LIVE, &order.run);
    let swap = rig.swap();
    swap.exchange(&order, &never()).await.unwrap();
    swap.confirm(&order.run).await.unwrap();
    // Cut off right after the marker; the server crashed in DROP DATABASE.
    let look = swap.look().await.unwrap();
    let marker = look.named(&names.before).unwrap().marker().unwrap();
    rig.execute(&comment(&names.before, Some(&marker.in_phase(Phase::Dropping).text()))).await;
    let refused = swap.put_back(Some(&order.run), &never()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert_eq!(swap.put_back(None, &never()).await.unwrap_err().kind(), ErrorKind::NotFound);
    rig.execute("update pg_database set datconnlimit = -2 where datname like '%before%'").await;
    let gone = CleanupOutcome::Dropped { subscriptions: Vec::new(), slots: Vec::new() };
    assert_eq!(one(&swap.cleanup(&late()).await.unwrap()), &gone);
    assert_eq!(names_of(&rig).await, [LIVE]);

    // Somebody is in there: told, and tried again another time.
    let order = rig.new_one(KEEPER, "newer").await;
    swap.exchange(&order, &never()).await.unwrap();
    swap.confirm(&order.run).await.unwrap();
    let before = Names::new(LIVE, &order.run).before;
    rig.execute(&format!("alter database {} allow_connections true", quote_ident(&before))).await;
    let held = rig.hold(rig.admin.with_database(&before), "select 1").await;
    match one(&swap.cleanup(&late()).await.unwrap()) {
        CleanupOutcome::Failed(why) => {
            assert!(why.contains("being accessed by other users"), "{why}")
        }
        other => panic!("{other:?}"),
    }
    rig.execute(&format!("select pg_terminate_backend({}, 5000)", held.pid)).await;
    assert_eq!(one(&swap.cleanup(&late()).await.unwrap()), &gone);
}

#[tokio::test]
async fn a_scratch_database_of_a_failed_run_is_dropped_and_nothing_later() {
    let rig = Rig::start().await;
    let order = rig.old_and_new(KEEPER).await;
    let swap = rig.swap_as(KEEPER).await;
    let names = Names::new(LIVE, &order.run);
    // Marked or not, with somebody in it.
    let held =
        rig.hold(rig.psql_as(KEEPER).await.with_database(&names.restoring), "select 1").await;
    swap.drop_restored(&order.run).await.unwrap();
    swap.drop_restored(&order.run).await.unwrap();
    assert_eq!(names_of(&rig).await, [LIVE]);
    drop(held);
    let order = rig.new_one(KEEPER, "new").await;
    swap.exchange(&order, &never()).await.unwrap();
    swap.drop_restored(&order.run).await.unwrap();
    assert_eq!(names_of(&rig).await.len(), 2, "what was swapped has another name");
    swap.put_back(None, &never()).await.unwrap();
    swap.drop_restored(&order.run).await.unwrap();
    assert_eq!(names_of(&rig).await.len(), 2);

    // A run that is closing is not dropped under its feet.
    let order = rig.new_one(KEEPER, "new").await;
    swap.adopt(&order).await.unwrap();
    let name = Names::new(LIVE, &order.run).restoring;
    let marker = swap.look().await.unwrap().named(&name).unwrap().marker().unwrap();
    rig.execute(&comment(&name, Some(&marker.in_phase(Phase::Closing).text()))).await;
    assert_eq!(swap.drop_restored(&order.run).await.unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(names_of(&rig).await.len(), 3);
}
