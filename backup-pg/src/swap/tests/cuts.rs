//! The moments that chance seldom hits, each for certain: a psql of the tests' own stands before
//! the real one and breaks a transaction off after each of its statements, loses its answer, or
//! lets somebody else in right before it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::crashes::{COMMENT, finished, next, rig, whole};
use super::rig::{Chance, LIVE, Rig, connection, limits, never};
use crate::swap::turn::{allow, comment};
use crate::swap::{Marker, Names, Phase, PutBack, Swap, SwapOrder};
use crate::test_server::search;
use crate::{Psql, ToolSearch};

/// What is in the transaction that closes, in the one that renames, and in those of the way back.
const CLOSING: &str = "\"phase\":\"closing\"";
const SWAPPING: &str = "\"phase\":\"swapped\"";
const PUTTING_BACK: &str = "\"phase\":\"putting-back\"";
const RETURNING: &str = "\"phase\":\"failed\"";

/// What happens to a script of psql that has a certain text in it.
enum Fate<'a> {
    /// Its end, from behind so many statements on, never reaches psql.
    Cut(usize),
    /// It is carried out, and the answer is lost.
    Silence,
    /// This is carried out first, once, by somebody else.
    Overtaken(&'a str),
}

/// A swap whose psql meets this fate.
async fn fated(rig: &Rig, folder: &Path, text: &str, fate: Fate<'_>) -> Swap {
    let real = search().newest().await.unwrap();
    let psql = real.folder().join("psql").display().to_string();
    let first = folder.join("first.sql");
    let act = match &fate {
        // Every statement is followed by one \\endif, a condition by two.
        Fate::Cut(0) => "exit 2".to_owned(),
        Fate::Cut(count) => format!(
            "printf '%s' \"$script\" | awk '{{print}} /^.endif$/ {{ if (++n == {count}) exit }}' | {psql} \"$@\""
        ),
        Fate::Silence => {
            format!(
                "printf '%s' \"$script\" | {psql} \"$@\" >/dev/null; echo 'the answer is lost' >&2; exit 2"
            )
        }
        Fate::Overtaken(sql) => {
            std::fs::write(&first, sql).unwrap();
            format!(
                "test -e {0} && {psql} \"$@\" -f {0} >&2 && rm {0}; printf '%s' \"$script\" | {psql} \"$@\"",
                first.display()
            )
        }
    };
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in --version) exec {psql} --version;; esac\n\
         script=$(cat; echo x)\nscript=\"${{script%x}}\"\n\
         case \"$script\" in *'{text}'*'commit'*) {act}; exit;; esac\n\
         printf '%s' \"$script\" | {psql} \"$@\"\n"
    );
    for program in ["pg_dump", "pg_dumpall", "pg_restore"] {
        let _ = std::os::unix::fs::symlink(real.folder().join(program), folder.join(program));
    }
    std::fs::write(folder.join("psql"), script).unwrap();
    std::fs::set_permissions(folder.join("psql"), PermissionsExt::from_mode(0o755)).unwrap();
    let search = ToolSearch { configured: Some(folder.into()), ..ToolSearch::default() };
    let tools = search.newest().await.unwrap();
    let admin = Psql::new(&tools, &connection(rig.server.port(), "postgres", "postgres"));
    Swap::new(admin, LIVE, limits())
}

async fn swapped(rig: &Rig) -> SwapOrder {
    let order = next(rig).await;
    rig.swap().exchange(&order, &never()).await.unwrap();
    order
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_broken_off_anywhere_changes_nothing() {
    let (rig, folder) = (rig().await, tempfile::tempdir().unwrap());
    for (text, statements) in [(CLOSING, 7), (SWAPPING, 10), (PUTTING_BACK, 7), (RETURNING, 10)] {
        let there = [CLOSING, SWAPPING].contains(&text);
        let order = if there { next(&rig).await } else { swapped(&rig).await };
        for count in 0..=statements {
            let swap = fated(&rig, folder.path(), text, Fate::Cut(count)).await;
            let done = match there {
                true => swap.exchange(&order, &never()).await.map(drop),
                false => swap.put_back(None, &never()).await.map(drop),
            };
            let phase = whole(&rig, &order).await;
            println!("{text} cut behind {count}: {phase:?}");
            // All of it reached psql: then it was committed. A renaming counts.
            let renamed = count == statements && [SWAPPING, RETURNING].contains(&text);
            assert_eq!(done.is_ok(), renamed, "{text} {count}: {done:?}");
            let expected = match (there, renamed) {
                (true, false) => Phase::Restored,
                (true, true) | (false, false) => Phase::Swapped,
                (false, true) => Phase::Failed,
            };
            assert_eq!(phase, expected, "{text} {count}: {done:?}");
            assert!(rig.state().await.live.unwrap().open);
        }
        finished(&rig, &order, &mut Chance::new()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_after_the_commit_is_found_out() {
    let (rig, folder) = (rig().await, tempfile::tempdir().unwrap());
    let order = next(&rig).await;
    let swap = fated(&rig, folder.path(), CLOSING, Fate::Silence).await;
    let lost = swap.exchange(&order, &never()).await.unwrap_err();
    assert!(lost.to_string().contains("the answer is lost"), "{lost:?}");
    assert_eq!(whole(&rig, &order).await, Phase::Restored);

    let swap = fated(&rig, folder.path(), SWAPPING, Fate::Silence).await;
    let done = swap.exchange(&order, &never()).await.unwrap();
    assert_eq!(done.before, Names::new(LIVE, &order.run).before);
    assert_eq!(whole(&rig, &order).await, Phase::Swapped);

    let swap = fated(&rig, folder.path(), PUTTING_BACK, Fate::Silence).await;
    swap.put_back(None, &never()).await.unwrap_err();
    assert_eq!(whole(&rig, &order).await, Phase::Swapped);
    let swap = fated(&rig, folder.path(), RETURNING, Fate::Silence).await;
    let back = swap.put_back(None, &never()).await.unwrap();
    assert!(matches!(back, PutBack::Returned { .. }), "{back:?}");
    assert_eq!(whole(&rig, &order).await, Phase::Failed);
    finished(&rig, &order, &mut Chance::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_overtakes_a_transaction_is_noticed() {
    let (rig, folder) = (rig().await, tempfile::tempdir().unwrap());
    let order = next(&rig).await;
    let names = Names::new(LIVE, &order.run);
    let marker = Marker::restored(LIVE, &order.run, None, jiff::Timestamp::now());
    let restored = comment(&names.restoring, Some(&marker.text()));

    // Somebody gives the run up, right before the names would change.
    let rollback = format!("{}; {restored}", allow(LIVE, true));
    let swap = fated(&rig, folder.path(), SWAPPING, Fate::Overtaken(&rollback)).await;
    let noticed = swap.exchange(&order, &never()).await.unwrap_err();
    assert!(noticed.to_string().contains("ended this swap"), "{noticed}");
    assert_eq!(whole(&rig, &order).await, Phase::Restored);

    // Another run closes the database, right before this one would.
    let other = rig.swap().new_run(jiff::Timestamp::now()).await.unwrap();
    let name = Names::new(LIVE, &other).restoring;
    let closing = Marker::restored(LIVE, &other, None, jiff::Timestamp::now());
    rig.execute(&format!("create database {}", crate::sql::quote_ident(&name))).await;
    let closing = comment(&name, Some(&closing.in_phase(Phase::Closing).text()));
    let swap = fated(&rig, folder.path(), CLOSING, Fate::Overtaken(&closing)).await;
    let noticed = swap.exchange(&order, &never()).await.unwrap_err();
    assert_eq!(noticed.kind(), backup_core::ErrorKind::Refused, "{noticed}");
    rig.execute(&format!("drop database {}", crate::sql::quote_ident(&name))).await;
    assert_eq!(whole(&rig, &order).await, Phase::Restored);

    // Somebody writes another comment: that one is kept, and the swap goes on.
    rig.execute(&comment(LIVE, Some("about to be changed"))).await;
    let other = comment(LIVE, Some(COMMENT));
    let swap = fated(&rig, folder.path(), SWAPPING, Fate::Overtaken(&other)).await;
    swap.exchange(&order, &never()).await.unwrap();
    assert_eq!(whole(&rig, &order).await, Phase::Swapped);

    // A cleanup begins to drop the old one, right before it would be put back; and the rollback
    // begins, right before it would be dropped.
    rig.swap().confirm(&order.run).await.unwrap();
    let look = rig.swap().look().await.unwrap();
    let marker = look.named(&names.before).unwrap().marker().unwrap();
    let dropping = comment(&names.before, Some(&marker.in_phase(Phase::Dropping).text()));
    let swap = fated(&rig, folder.path(), PUTTING_BACK, Fate::Overtaken(&dropping)).await;
    swap.put_back(None, &never()).await.unwrap_err();
    assert_eq!(rig.state().await.marked[0].marker.phase, Phase::Dropping);
    assert_eq!(rig.live_says().await, "new");

    rig.execute(&comment(&names.before, Some(&marker.text()))).await;
    let back = comment(&names.before, Some(&marker.in_phase(Phase::PuttingBack).text()));
    let swap = fated(&rig, folder.path(), "\"phase\":\"dropping\"", Fate::Overtaken(&back)).await;
    swap.cleanup(&super::cleanup::late()).await.unwrap();
    assert_eq!(rig.state().await.marked[0].marker.phase, Phase::PuttingBack);
    finished(&rig, &order, &mut Chance::new()).await;
}
