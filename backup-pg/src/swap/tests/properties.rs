//! Owner, grants, limits, settings, labels: after the swap they are the live database's.

use super::rig::{KEEPER, LIVE, PASSWORD, Rig, every_version, never};
use crate::sql::{quote_ident, quote_literal};
use crate::swap::Names;

/// Everything that makes a database what it is, but for its number and name.
const EVERYTHING: &str = "
select json_build_object(
  'row', (select to_jsonb(d) - '{oid,datname,datfrozenxid,datminmxid,datacl,datlastsysoid}'::text[]
    from pg_database d where d.oid = x.oid),
  'acl', (select coalesce(json_agg(a::text order by a::text), '[]') from pg_database d,
    unnest(coalesce(d.datacl, acldefault('d', d.datdba))) a where d.oid = x.oid),
  'settings', (select json_agg(json_build_array(pg_get_userbyid(setrole), setconfig) order by setrole)
    from pg_db_role_setting where setdatabase = x.oid),
  'comment', shobj_description(x.oid, 'pg_database'))::text
from pg_database x where x.datname = ";

async fn everything(rig: &Rig, name: &str) -> serde_json::Value {
    rig.admin.query_json(&format!("{EVERYTHING}{}", quote_literal(name))).await.unwrap()
}

/// Roles, grants by several, settings of every kind, on the live database; others on the new one.
async fn dress(rig: &Rig, new: &str) {
    let (live, new, keeper) = (quote_ident(LIVE), quote_ident(new), quote_ident(KEEPER));
    rig.execute(&format!(
        r#"create role "a ""gra'ntor"; create role lower; create role "PUBLIC"; create role leftover;
        grant {keeper} to app;
        revoke all on database {live} from public;
        revoke temporary on database {live} from {keeper};
        grant connect on database {live} to "a ""gra'ntor" with grant option;
        grant create, temporary on database {live} to "PUBLIC";
        set role "a ""gra'ntor"; grant connect on database {live} to lower with grant option; reset role;
        set role lower; grant connect on database {live} to app; reset role;
        alter database {live} connection limit 17;
        alter database {live} set search_path to "$user", public, "a ""b", "x,y z";
        alter database {live} set work_mem = '7MB';
        alter database {live} set log_min_duration_statement = '1234';
        alter database {live} set temp_tablespaces = '';
        alter database {live} set "app.jwt_secret" to E'it''s \\ a "secret", =x\ny';
        alter database {live} set datestyle to iso, dmy;
        alter role app in database {live} set statement_timeout = '9s';
        alter role app in database {live} set search_path to 'one', 'Two';
        alter role "a ""gra'ntor" in database {live} set timezone to 'Europe/Vienna';
        alter database {live} is_template true;
        comment on database {live} is 'mine';

        grant all on database {new} to leftover with grant option;
        set role leftover; grant connect on database {new} to lower; reset role;
        alter database {new} set maintenance_work_mem = '70MB';
        alter database {new} set work_mem = '9MB';
        alter role leftover in database {new} set work_mem = '1MB';
        alter database {new} connection limit 3;
        comment on database {new} is 'from the archive'"#
    ))
    .await;
}

#[tokio::test]
async fn everything_is_carried_over_on_every_version() {
    for programs in every_version() {
        println!("{}", programs.display());
        let rig = Rig::start_with(programs, &[]).await;
        rig.make(LIVE, KEEPER, "old").await;
        let order = rig.new_one("app", "new").await;
        let names = Names::new(LIVE, &order.run);
        dress(&rig, &names.restoring).await;
        let (before, new) =
            (everything(&rig, LIVE).await, everything(&rig, &names.restoring).await);
        assert_ne!(before, new);

        let swap = rig.swap();
        let notes = swap.carry_properties(&order.run, true).await.unwrap();
        assert_eq!(notes, [""; 0]);
        // Once more changes nothing.
        assert_eq!(swap.carry_properties(&order.run, false).await.unwrap(), [""; 0]);
        let analyzed =
            "select count(*) from pg_stats where tablename = 't' and schemaname = 'public'";
        let there = rig.admin.with_database(&names.restoring);
        assert_eq!(there.query_text(analyzed).await.unwrap(), "1");

        swap.exchange(&order, &never()).await.unwrap();
        assert_eq!(everything(&rig, LIVE).await, before);
        assert_eq!(rig.live_says().await, "new");
        swap.put_back(None, &never()).await.unwrap();
        assert_eq!(everything(&rig, LIVE).await, before);
        let live = rig.admin.with_database(LIVE);
        let path = live.query_text("reset search_path; show search_path").await.unwrap();
        assert_eq!(path, r#""$user", public, "a ""b", "x,y z""#);
    }
}

#[tokio::test]
async fn a_database_without_anything_gets_nothing() {
    let rig = Rig::start().await;
    rig.make(LIVE, KEEPER, "old").await;
    let order = rig.new_one("app", "new").await;
    let names = Names::new(LIVE, &order.run);
    let new = quote_ident(&names.restoring);
    let before = everything(&rig, LIVE).await;
    rig.execute(&format!(
        "revoke all on database {new} from public; grant all on database {new} to {} with grant option;
         alter database {new} set work_mem = '9MB'; alter role app in database {new} set work_mem = '8MB';
         alter database {new} is_template true; alter database {new} connection limit 0",
        quote_ident(KEEPER)
    ))
    .await;
    assert_eq!(rig.swap().carry_properties(&order.run, false).await.unwrap(), [""; 0]);
    assert_eq!(everything(&rig, &names.restoring).await, before);
}

#[tokio::test]
async fn a_tablespace_is_taken_or_told() {
    let rig = Rig::start().await;
    rig.make(LIVE, KEEPER, "old").await;
    let order = rig.new_one(KEEPER, "new").await;
    let names = Names::new(LIVE, &order.run);
    let place = rig.server.data_dir().parent().unwrap().join("space");
    rig.execute(&format!(
        "copy (select 1) to program 'mkdir -m 700 {0}';
         create tablespace \"fa\"\"st\" location '{0}';
         alter database {1} set tablespace \"fa\"\"st\"",
        place.display(),
        quote_ident(LIVE)
    ))
    .await;

    // The owner may not use it: told. In use: told. Otherwise: done.
    let notes = rig.swap_as(KEEPER).await.carry_properties(&order.run, false).await.unwrap();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(
        notes[0].starts_with("the tablespace fa\"st could not be taken: permission denied"),
        "{notes:?}"
    );
    assert_eq!(notes[1], "the tablespaces differ between the live and the new database");
    let held = rig.hold(rig.admin.with_database(&names.restoring), "select 1").await;
    let notes = rig.swap().carry_properties(&order.run, false).await.unwrap();
    assert!(notes[0].contains("is being accessed by other users"), "{notes:?}");
    rig.execute(&format!("select pg_terminate_backend({}, 5000)", held.pid)).await;
    assert_eq!(rig.swap().carry_properties(&order.run, false).await.unwrap(), [""; 0]);
    let left = everything(&rig, &names.restoring).await;
    assert_eq!(left["row"]["dattablespace"], everything(&rig, LIVE).await["row"]["dattablespace"]);
}

/// An owner who is no superuser: what he may is done, the rest is told, and no value with it.
#[tokio::test]
async fn what_needs_a_superuser_is_told_without_its_value() {
    let rig = Rig::start().await;
    rig.make(LIVE, KEEPER, "old").await;
    let order = rig.new_one(KEEPER, "new").await;
    let names = Names::new(LIVE, &order.run);
    let live = quote_ident(LIVE);
    rig.execute(&format!(
        "create role granted; grant connect on database {live} to app with grant option;
         set role app; grant connect on database {live} to granted; reset role;
         alter database {live} set work_mem = '7MB';
         alter database {live} set log_min_duration_statement = '4711s';
         alter role app in database {live} set statement_timeout = '4712s';
         insert into pg_shseclabel select oid, 'pg_database'::regclass, 'nobody', 'se cret'
           from pg_database where datname = {}",
        quote_literal(LIVE)
    ))
    .await;
    let notes = rig.swap_as(KEEPER).await.carry_properties(&order.run, true).await.unwrap();
    let all = notes.join("\n");
    println!("{all}");
    for expected in [
        "the grant of CONNECT to \"granted\" by \"app\" could not be carried over: permission denied to set role",
        "the setting log_min_duration_statement could not be carried over: permission denied",
        "the setting statement_timeout of app could not be carried over: ",
        "the security label of nobody could not be carried over: ",
        "the grants differ",
        "the settings of the database differ",
        "the settings of app in this database differ",
        "the security labels differ",
    ] {
        assert!(all.contains(expected), "{expected}\n{all}");
    }
    assert_eq!(notes.len(), 8, "{all}");
    assert!(!all.contains("471") && !all.contains("se cret") && !all.contains(PASSWORD), "{all}");
    let new = everything(&rig, &names.restoring).await;
    assert!(new["settings"].to_string().contains("work_mem=7MB"), "{new}");
    assert!(new["acl"].to_string().contains("app=c*"), "{new}");
}

/// A value that the server quotes in its refusal.
#[tokio::test]
async fn a_refused_value_is_not_repeated() {
    let rig = Rig::start().await;
    let order = rig.old_and_new(KEEPER).await;
    rig.execute(&format!(
        "insert into pg_db_role_setting select oid, 0, array['work_mem=very-secret'] from pg_database where datname = {}",
        quote_literal(LIVE)
    ))
    .await;
    let notes = rig.swap().carry_properties(&order.run, false).await.unwrap();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(
        notes[0].starts_with("the setting work_mem could not be carried over: invalid value"),
        "{notes:?}"
    );
    assert!(!notes.join("").contains("very-secret"), "{notes:?}");
}
