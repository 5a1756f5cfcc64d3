//! The ways through a swap, on every version, by a superuser and by an owner.

use backup_core::ErrorKind;

use super::rig::{KEEPER, LIVE, Rig, every_version, never};
use crate::sql::quote_ident;
use crate::swap::turn::{allow, comment};
use crate::swap::{Marker, Names, Phase, PutBack, Resumed, Swap, SwapOrder};

/// What people write into comments.
const NASTY: [&str; 6] = [
    "plain",
    "it's \\ \"mine\" $$ $1 :name :'name' -- ;\n\\quit\n\\! false\r\t",
    "marb-backup swap {\"phase\":\"swapped\"}",
    "{\"a\":[1,\"é😀\"]}",
    "   ",
    "\\",
];

async fn there_and_back(rig: &Rig, swap: &Swap, owner: &str, own: Option<&str>) -> SwapOrder {
    let order = rig.new_one(owner, "new").await;
    let names = Names::new(LIVE, &order.run);
    rig.execute(&comment(LIVE, own)).await;
    let own = own.map(str::to_owned);

    swap.adopt(&order).await.unwrap();
    assert_eq!(rig.state().await.of_run(&order.run).unwrap().marker.phase, Phase::Restored);
    assert_eq!(rig.live_says().await, "old");
    let done = swap.exchange(&order, &never()).await.unwrap();
    assert_eq!((rig.live_says().await.as_str(), &done.before), ("new", &names.before));
    assert!(done.closed_for.as_millis() > 0 && done.closed_at < done.opened_at);
    let state = rig.state().await;
    let before = state.unfinished().unwrap();
    assert_eq!(
        (before.marker.phase, before.open, before.name == names.before),
        (Phase::Swapped, false, true)
    );
    assert_eq!((&before.marker.comment, before.bytes.unwrap() > 1_000_000), (&own, true));
    assert_eq!(rig.comment_of(LIVE).await, own);

    // Nothing else begins meanwhile, and what begins is told what to do.
    let refused = swap.refuse_unfinished().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(
        refused.advice().unwrap().contains("--continue")
            && refused.advice().unwrap().contains("--rollback")
    );
    let Resumed::Swapped { run, .. } = swap.resume(&never()).await.unwrap() else { panic!() };
    assert_eq!(run, order.run);

    swap.confirm(&order.run).await.unwrap();
    swap.confirm(&order.run).await.unwrap();
    swap.refuse_unfinished().await.unwrap();
    assert_eq!(swap.resume(&never()).await.unwrap_err().kind(), ErrorKind::NotFound);

    rig.execute(&comment(LIVE, Some("of the new one"))).await;
    let PutBack::Returned { run, failed, window, .. } =
        swap.put_back(None, &never()).await.unwrap()
    else {
        panic!()
    };
    assert_eq!((&run, &failed), (&order.run, &names.failed));
    assert!(done.closed_at < window.0 && window.0 < done.opened_at && done.opened_at < window.1);
    assert_eq!((rig.live_says().await.as_str(), rig.comment_of(LIVE).await), ("old", own));
    let state = rig.state().await;
    let failed = state.of_run(&order.run).unwrap();
    assert_eq!((failed.marker.phase, failed.open), (Phase::Failed, false));
    assert_eq!(failed.marker.comment.as_deref(), Some("of the new one"));
    assert_eq!((failed.marker.swapped, failed.marker.put_back), (Some(window.0), Some(window.1)));
    // Again is the same.
    let again = swap.put_back(Some(&order.run), &never()).await.unwrap();
    assert!(matches!(again, PutBack::Returned { window: w, .. } if w == window), "{again:?}");
    assert_eq!(swap.put_back(None, &never()).await.unwrap_err().kind(), ErrorKind::NotFound);
    order
}

#[tokio::test]
async fn there_and_back_on_every_version() {
    for programs in every_version() {
        println!("{}", programs.display());
        let rig = Rig::start_with(programs, &[]).await;
        rig.make(LIVE, KEEPER, "old").await;
        there_and_back(&rig, &rig.swap(), "postgres", None).await;
        there_and_back(&rig, &rig.swap_as(KEEPER).await, KEEPER, Some("its own")).await;
    }
}

#[tokio::test]
async fn the_users_comment_is_never_lost() {
    let rig = Rig::start().await;
    rig.make(LIVE, KEEPER, "old").await;
    for own in NASTY {
        there_and_back(&rig, &rig.swap(), "postgres", Some(own)).await;
    }
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let rig = Rig::start().await;
    let swap = rig.swap();
    assert_eq!(swap.put_back(None, &never()).await.unwrap_err().kind(), ErrorKind::NotFound);
    rig.make(LIVE, KEEPER, "old").await;
    let order =
        SwapOrder { run: swap.new_run(jiff::Timestamp::now()).await.unwrap(), backup: None };
    let names = Names::new(LIVE, &order.run);
    assert_eq!(swap.exchange(&order, &never()).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(swap.adopt(&order).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(swap.confirm(&order.run).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        swap.put_back(Some(&order.run), &never()).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );

    // A maintenance connection that leads to what is to be renamed.
    let inside = Swap::new(rig.admin.with_database(LIVE), LIVE, super::rig::limits());
    assert_eq!(inside.state().await.unwrap_err().kind(), ErrorKind::Usage);

    // Unmarked ones are seen, and nothing else is done to them.
    rig.make(&names.before, "postgres", "mine").await;
    let state = rig.state().await;
    assert_eq!((state.marked.len(), &state.unmarked), (0, &vec![names.before]));
    assert!(state.live.unwrap().open);

    // The name for the old one is taken: nothing is left half-done.
    rig.make(&names.restoring, "postgres", "new").await;
    let taken = swap.exchange(&order, &never()).await.unwrap_err();
    assert!(taken.to_string().contains("already exists"), "{taken:?}");
    assert_eq!(rig.live_says().await, "old");
    assert_eq!(rig.state().await.of_run(&order.run).unwrap().marker.phase, Phase::Restored);
    let reopened = swap.put_back(Some(&order.run), &never()).await.unwrap();
    assert!(matches!(reopened, PutBack::Reopened { .. }), "{reopened:?}");
    assert!(rig.databases().await.iter().all(|(_, open)| *open));
}

#[tokio::test]
async fn a_role_that_may_not_is_told_what_it_lacks() {
    let rig = Rig::start().await;
    let order = rig.old_and_new(KEEPER).await;
    // Not an owner; an owner without CREATEDB.
    let refused = rig.swap_as("app").await.exchange(&order, &never()).await.unwrap_err();
    assert!(refused.to_string().contains("must be owner"), "{refused}");
    assert!(refused.advice().unwrap().contains("superuser"), "{refused:?}");
    assert!(rig.databases().await.iter().all(|(_, open)| *open));
    rig.execute(&format!("alter role {} nocreatedb", quote_ident(KEEPER))).await;
    let refused = rig.swap_as(KEEPER).await.exchange(&order, &never()).await.unwrap_err();
    assert!(refused.to_string().contains("permission denied to rename"), "{refused}");
    assert_eq!(rig.live_says().await, "old");
    assert_eq!(rig.state().await.of_run(&order.run).unwrap().marker.phase, Phase::Restored);
}

#[tokio::test]
async fn going_back_twice_does_not_go_back_two_swaps() {
    let rig = Rig::start().await;
    let swap = rig.swap();
    let first = rig.old_and_new(KEEPER).await;
    swap.exchange(&first, &never()).await.unwrap();
    swap.confirm(&first.run).await.unwrap();
    let second = rig.new_one(KEEPER, "newer").await;
    swap.exchange(&second, &never()).await.unwrap();
    // The first can't be put back while the second is unfinished.
    let refused = swap.put_back(Some(&first.run), &never()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    swap.put_back(None, &never()).await.unwrap();
    assert_eq!(rig.live_says().await, "new");
    let once = swap.put_back(None, &never()).await.unwrap_err();
    assert_eq!(once.kind(), ErrorKind::NotFound);
    assert!(once.advice().unwrap().contains(&first.run.to_string()), "{once:?}");
    assert_eq!(rig.live_says().await, "new");
    swap.put_back(Some(&first.run), &never()).await.unwrap();
    assert_eq!(rig.live_says().await, "old");
    assert_eq!(rig.databases().await.iter().filter(|(_, open)| *open).count(), 1);
}

/// A run that crashed with the database closed, and that can't be gone on with: it is opened.
#[tokio::test]
async fn a_crashed_run_that_can_not_go_on_opens_the_database() {
    let rig = Rig::start().await;
    let order = rig.old_and_new(KEEPER).await;
    let names = Names::new(LIVE, &order.run);
    let marker = Marker::restored(LIVE, &order.run, None, jiff::Timestamp::now());
    let marker = Marker { closed: Some(jiff::Timestamp::now()), ..marker.in_phase(Phase::Closing) };
    let crash = async || {
        rig.execute(&comment(&names.restoring, Some(&marker.text()))).await;
        for name in [LIVE, &names.restoring] {
            rig.execute(&allow(name, false)).await;
        }
    };
    crash().await;
    let stop = never();
    stop.interrupt("at once");
    let stopped = rig.swap().resume(&stop).await.unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Interrupted);
    assert_eq!(rig.live_says().await, "old");
    assert!(rig.state().await.unfinished().is_none());

    crash().await;
    let other = rig.new_one(KEEPER, "other").await;
    let refused = rig.swap().exchange(&other, &never()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(!rig.state().await.live.unwrap().open, "another run's business");
    let back = rig.swap().put_back(None, &never()).await.unwrap();
    assert!(matches!(back, PutBack::Reopened { .. }), "{back:?}");
    assert_eq!(rig.live_says().await, "old");
    rig.swap().exchange(&other, &never()).await.unwrap();
    assert_eq!(rig.live_says().await, "other");
}
