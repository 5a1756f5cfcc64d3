//! The other ways to restore: other roles, some tables, into a database in use, in place.

use super::*;
use crate::archive::{SelectedPart, Selection};

const TABLES: &str = include_str!("../../archive/fixtures/tables.sql");

/// A server with the database `src` of many kinds of objects, and its archive.
async fn with_source() -> (Bench, Vec<Bytes>) {
    let bench = Bench::start().await;
    bench.sql("postgres", "CREATE DATABASE src").await;
    bench.sql("src", TABLES).await;
    bench.sql("src", "insert into public.parent(t) values ('p1'), ('p2')").await;
    bench
        .sql("src", "insert into audit.log(m, pid) select 'b', 1 from generate_series(1, 998)")
        .await;
    let archive = dump_of(&bench, "src").await;
    (bench, archive)
}

pub(super) async fn dump_of(bench: &Bench, database: &str) -> Vec<Bytes> {
    let server = Server::connect(&bench.connection(database), &bench.search).await.unwrap();
    let mut stream = PgDump::new(&server, DumpOptions::default()).open().await.unwrap();
    let mut chunks = Vec::new();
    while let Some(chunk) = stream.next_chunk().await.unwrap() {
        chunks.push(chunk);
    }
    pieces(&chunks, 3000)
}

pub(super) async fn restored(
    bench: &Bench,
    database: &str,
    options: RestoreOptions,
    archive: &[Bytes],
) -> Result<RestoreReport> {
    let restore = bench.restore(database, options);
    write(&restore, archive).await?.commit().await?;
    Ok(restore.report().unwrap())
}

fn tables(patterns: &[&str], what: SelectedPart) -> RestoreOptions {
    let tables = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    let selection = Some(Selection { tables, what, into_schema: None });
    RestoreOptions { selection, ..Default::default() }
}

fn in_place() -> RestoreOptions {
    RestoreOptions { in_place: true, ..Default::default() }
}

/// A database as its dump tells, whatever its name.
fn dump_text(bench: &Bench, database: &str) -> String {
    bench
        .text(database)
        .replace(&format!("Name: {database}"), "Name: src")
        .replace("DATABASE fx", "DATABASE src")
        .replace("\\connect fx\n", "\\connect src\n")
        .replace("Name: fx;", "Name: src;")
}

#[tokio::test]
async fn other_roles_take_the_place_of_those_in_the_backup() {
    let (bench, _) = with_source().await;
    let sql = "CREATE ROLE \"New Bob\"; CREATE ROLE other; ALTER ROLE bob IN DATABASE src SET work_mem = '2MB';
        ALTER DATABASE src OWNER TO bob; GRANT CONNECT ON DATABASE src TO eve";
    bench.sql("postgres", sql).await;
    bench
        .sql(
            "src",
            "ALTER TABLE public.parent OWNER TO bob; ALTER POLICY po ON audit.log TO bob, eve",
        )
        .await;
    let archive = dump_of(&bench, "src").await;
    let roles = [("bob", "New Bob"), ("eve", "other"), ("nobody", "other")];
    let roles = roles.map(|(old, new)| (old.to_owned(), new.to_owned())).into();
    let report = restored(&bench, "dst", RestoreOptions { roles, ..Default::default() }, &archive)
        .await
        .unwrap();
    assert!(report.notes.iter().any(|note| note.contains("names no role nobody")), "{report:?}");
    let text = dump_text(&bench, "dst");
    assert!(!text.contains("bob") && !text.contains("eve"), "{text}");
    // As the original with the new names in it, but for the order of grants.
    let wanted = dump_text(&bench, "src");
    let renamed = |line: &str| {
        line.replace("TO bob", "TO \"New Bob\"")
            .replace("FOR ROLE bob", "FOR ROLE \"New Bob\"")
            .replace("Owner: bob", "Owner: New Bob")
            .replace("PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: audit; Owner: bob", "")
            .replace("ROLE bob", "ROLE \"New Bob\"")
            .replace("eve", "other")
    };
    let mut wanted: Vec<String> = wanted.lines().map(renamed).collect();
    let mut found: Vec<String> = text.lines().map(str::to_owned).collect();
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted);
    // Without owners nothing but the policy needs a role.
    let options = RestoreOptions { no_owners: true, ..Default::default() };
    restored(&bench, "plain", options, &archive).await.unwrap();
    assert!(!dump_text(&bench, "plain").contains("OWNER TO bob"));
}

#[tokio::test]
async fn a_lost_table_comes_back_into_a_database_in_use() {
    let (bench, archive) = with_source().await;
    restored(&bench, "live", RestoreOptions::default(), &archive).await.unwrap();
    assert_eq!(dump_text(&bench, "live"), dump_text(&bench, "src"));
    bench.sql("live", "DROP TABLE audit.log CASCADE; DROP TABLE public.pt1").await;
    let options = || tables(&["audit.*", "pt?"], SelectedPart::All);
    // Nobody sees anything of it before the commit, and an abort leaves nothing.
    let restore = bench.restore("live", options());
    write(&restore, &archive).await.unwrap().abort().await.unwrap();
    let gone = "select count(*) from pg_class where relname in ('log', 'pt1', 'log_id_seq')";
    assert_eq!(bench.sql("live", gone).await, "0");
    let report = restored(&bench, "live", options(), &archive).await.unwrap();
    assert_eq!((report.created, report.tables_compared, report.rows_compared), (false, 2, 1100));
    assert!(report.spooled_bytes > 5000, "{report:?}");
    // The rule of another table that wrote to the lost one went with it, and is not part of it.
    bench.sql("src", "DROP RULE r ON public.parent").await;
    assert_eq!(dump_text(&bench, "live"), dump_text(&bench, "src"));
    assert_eq!(
        bench.sql("live", "select reltuples from pg_class where relname = 'log'").await,
        "1000"
    );

    // What is there is neither replaced nor added to.
    let error = restored(&bench, "live", options(), &archive).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(
        error.message().contains("audit.log") && error.message().contains("already"),
        "{error}"
    );
    assert_eq!(children(&bench), [""; 0]);
}

#[tokio::test]
async fn rows_are_added_while_others_write() {
    let (bench, archive) = with_source().await;
    restored(&bench, "live", RestoreOptions::default(), &archive).await.unwrap();
    bench.sql("live", "ALTER TABLE audit.log DROP CONSTRAINT log_pkey").await;
    let writer = bench.psql("live").await;
    let writing = tokio::spawn(async move {
        loop {
            writer.execute("insert into audit.log(m) values ('a')").await.unwrap();
        }
    });
    let report =
        restored(&bench, "live", tables(&["log"], SelectedPart::DataOnly), &archive).await.unwrap();
    writing.abort();
    assert_eq!(report.tables_compared, 1);
    let count = "select count(*) from audit.log where m = 'b'";
    assert_eq!(bench.sql("live", count).await, "1996");
    assert_ne!(bench.sql("live", "select count(*) from audit.log where m = 'a'").await, "0");

    // A trigger that eats rows: what came is not what was backed up, and so nothing comes.
    let eater =
        "create function eat() returns trigger language plpgsql as $$ begin return null; end $$;
        create trigger eater before insert on public.dd for each row execute function public.eat()";
    bench.sql("live", eater).await;
    let error = restored(&bench, "live", tables(&["dd"], SelectedPart::DataOnly), &archive)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.message().contains("public.dd has 50 rows, the backup 100"), "{error}");
    assert!(error.message().contains("as it was before"), "{error}");
    assert_eq!(bench.sql("live", "select count(*) from dd").await, "50");
    bench.sql("live", "drop table dd").await;
    let error = restored(&bench, "live", tables(&["dd"], SelectedPart::DataOnly), &archive)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
}

#[tokio::test]
async fn tables_go_into_another_schema_beside_those_that_are_there() {
    let (bench, archive) = with_source().await;
    restored(&bench, "live", RestoreOptions::default(), &archive).await.unwrap();
    let before = dump_text(&bench, "live");
    let mut options = tables(&["audit.log", "parent", "dd", "pt"], SelectedPart::All);
    options.selection.as_mut().unwrap().into_schema = Some("Old one".to_owned());
    for database in ["live", "new"] {
        let report = restored(&bench, database, options.clone(), &archive).await.unwrap();
        assert_eq!(report.tables_compared, 4, "{report:?}");
        let rows = "select (select count(*) from \"Old one\".log) || ' ' || (select count(*) from \"Old one\".pt)";
        assert_eq!(bench.sql(database, rows).await, "1000 100");
        let defaults = "insert into \"Old one\".parent(t) values ('x'); select id from \"Old one\".parent where t = 'x'";
        assert_eq!(bench.sql(database, defaults).await, "3");
        // What it refers to is its own copy, where there is one.
        let refers = "select confrelid::regclass from pg_constraint where conname = 'log_pid_fkey'
            and conrelid = '\"Old one\".log'::regclass";
        assert_eq!(bench.sql(database, refers).await, "\"Old one\".parent");
    }
    bench.sql("live", "drop schema \"Old one\" cascade").await;
    assert_eq!(dump_text(&bench, "live"), before, "the others stayed as they were");
}

#[tokio::test]
async fn a_new_database_gets_some_tables_and_what_they_need() {
    let (bench, archive) = with_source().await;
    for (jobs, what, rows) in [
        (1, SelectedPart::All, "1000"),
        (2, SelectedPart::All, "1000"),
        (1, SelectedPart::SchemaOnly, "0"),
    ] {
        let mut options = tables(&["log"], what);
        options.jobs = NonZeroUsize::new(jobs).unwrap();
        let report = restored(&bench, "few", options, &archive).await.unwrap();
        assert!(report.created);
        assert!(report.notes.iter().any(|note| note.contains("log_pid_fkey")), "{report:?}");
        assert_eq!(bench.sql("few", "select count(*) from audit.log").await, rows);
        let others = "select string_agg(relname, ' ') from pg_class where relkind = 'r' and relnamespace in ('public'::regnamespace, 'audit'::regnamespace)";
        assert_eq!(bench.sql("few", others).await, "log");
        bench.sql("postgres", "drop database few").await;
    }
    let error =
        restored(&bench, "few", tables(&["lag"], SelectedPart::All), &archive).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.advice().unwrap().contains("audit.log"), "{error}");
    assert_eq!(bench.databases().await, "fx src");
}

#[tokio::test]
async fn in_place_everything_is_as_in_the_backup_and_the_rest_stays() {
    let (bench, archive) = with_source().await;
    restored(&bench, "live", RestoreOptions::default(), &archive).await.unwrap();
    let changes = "delete from audit.log; drop table dd; alter table parent add extra int;
        create table audit.mine (i int); insert into audit.mine values (7); create index later on audit.log (pid);
        create table public.pt9 partition of public.pt for values from (90) to (99);
        insert into public.pt values (95, 'new');
        create function public.own() returns int language sql as 'select 1'";
    bench.sql("live", changes).await;
    let restore = bench.restore("live", in_place());
    let toc = finish(&archive.concat()).toc().clone();
    let plan = restore.plan_in_place(&toc).await.unwrap();
    let has = |list: &[String], what: &str| list.iter().any(|line| line == what);
    assert!(has(&plan.replaces, "audit.log") && has(&plan.replaces, "public.vw"), "{plan:?}");
    assert_eq!(plan.creates, ["public.dd"]);
    assert_eq!(plan.takes_along, ["index audit.later"], "{plan:?}");
    assert_eq!(plan.stays, ["function public.own()", "table audit.mine"], "{plan:?}");
    assert!(plan.blocks.len() == 1 && plan.blocks[0].starts_with("table public.pt9 "), "{plan:?}");
    // A partition that is newer than the backup has rows that nothing else has.
    let refused = restored(&bench, "live", in_place(), &archive).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    assert_eq!(bench.sql("live", "select count(*) from pt9").await, "1");
    bench.sql("live", "alter table pt detach partition pt9").await;
    let plan = restore.plan_in_place(&toc).await.unwrap();
    assert_eq!(plan.blocks, [""; 0]);
    assert_eq!(plan.stays, ["function public.own()", "table audit.mine", "table public.pt9"]);

    let report = restored(&bench, "live", in_place(), &archive).await.unwrap();
    assert_eq!(report.in_place, Some(plan));
    assert_eq!(bench.sql("live", "select sum(i) from audit.mine").await, "7");
    bench.sql("live", "drop table audit.mine, pt9; drop function public.own()").await;
    assert_eq!(dump_text(&bench, "live"), dump_text(&bench, "src"));
}

#[tokio::test]
async fn in_place_what_depends_on_something_replaced_is_in_the_way() {
    let (bench, archive) = with_source().await;
    restored(&bench, "live", RestoreOptions::default(), &archive).await.unwrap();
    for (sql, undo, what) in [
        (
            "create view over as select v from audit.log",
            "drop view over",
            "view public.over needs table audit.log",
        ),
        (
            "create table refers (i int references parent)",
            "drop table refers",
            "constraint refers_i_fkey on table public.refers needs",
        ),
        (
            "create table typed (m audit.mood)",
            "drop table typed",
            "column m of table public.typed needs type audit.mood",
        ),
        (
            "create table t (); create trigger x before insert on t for each row execute function audit.tf()",
            "drop table t",
            "trigger x on table public.t needs function audit.tf()",
        ),
        (
            "create table heir () inherits (audit.log)",
            "drop table heir",
            "table public.heir needs table audit.log",
        ),
    ] {
        bench.sql("live", sql).await;
        let before = dump_text(&bench, "live");
        let error = restored(&bench, "live", in_place(), &archive).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.message().contains(what), "{error}");
        assert_eq!(dump_text(&bench, "live"), before);
        bench.sql("live", undo).await;
    }
    restored(&bench, "live", in_place(), &archive).await.unwrap();
    let error = restored(&bench, "nowhere", in_place(), &archive).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
}

/// However it ends before the commit, nothing changed.
#[tokio::test]
async fn in_place_it_is_all_or_nothing() {
    let (bench, archive) = with_source().await;
    restored(&bench, "live", RestoreOptions::default(), &archive).await.unwrap();
    bench.sql("live", "update parent set t = 'mine'; delete from audit.log").await;
    let before = dump_text(&bench, "live");
    // Everything was written and decoded, and nobody said yes.
    for dropped in [true, false] {
        let restore = bench.restore("live", in_place());
        let writer = write(&restore, &archive).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        if dropped {
            drop(writer)
        } else {
            writer.abort().await.unwrap()
        }
        assert_eq!(children(&bench), [""; 0]);
        assert_eq!(dump_text(&bench, "live"), before);
    }
    // A row that the server refuses, and a row too many: the count inside finds it.
    let whole = archive.concat();
    let at = whole.windows(5).position(|w| w == b"1\tp1\n").unwrap();
    for broken in [&b"x\tp1\n"[..], b"1\np1\n", b"1\tp\n\n"] {
        let mut archive = whole.clone();
        archive[at..at + 5].copy_from_slice(broken);
        let error =
            restored(&bench, "live", in_place(), &[Bytes::from(archive)]).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Failed | ErrorKind::Damaged), "{error}");
        assert_eq!(dump_text(&bench, "live"), before);
        assert_eq!(children(&bench), [""; 0]);
    }
    // Somebody holds a table: it gives up after a while, and nothing waits behind it for ever.
    restored(&bench, "live", in_place(), &archive).await.unwrap();
    assert_eq!(dump_text(&bench, "live"), dump_text(&bench, "src"));
}
