//! A real publisher and a real subscriber, preflighted from both ends; and what the findings
//! tell one to run brings the replication back.

use backup_pg::{Finding, Needs, PreflightOptions, RestoreMode, Severity::*};

use super::{ABLE, Rig, SCRATCH, options};

/// `claims` of the first server, with a table `t` that `claims` of the second follows.
async fn pair(publisher: u32, subscriber: u32) -> (Rig, Rig) {
    let (from, to) = (
        Rig::start_with(publisher, &ABLE[..4]).await,
        Rig::start_with(subscriber, &ABLE[..4]).await,
    );
    from.live(
        "create role follower login replication password 'geheim''s';
         create table t (i int primary key); grant select on t to follower;
         insert into t select generate_series(1, 100); create publication \"the rows\" for table t",
    )
    .await;
    to.live("create table t (i int primary key)").await;
    to.live(&format!(
        "create subscription \"my rows\" connection '{}' publication \"the rows\" with (slot_name = 'far')",
        conninfo(&from).replace('\'', "''")
    ))
    .await;
    rows(&to, 100).await;
    (from, to)
}

fn conninfo(from: &Rig) -> String {
    let (host, port) = (from.server.host(), from.server.port());
    format!("host={host} port={port} dbname=claims user=follower password='geheim\\'s'")
}

async fn rows(rig: &Rig, wanted: u64) {
    for _ in 0..600 {
        if rig.live("select count(*) from t").await == wanted.to_string() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{} rows, not {wanted}", rig.live("select count(*) from t").await);
}

fn accepting() -> PreflightOptions {
    PreflightOptions { accept_replication_break: true, ..options() }
}

/// The SQL in a remedy.
fn sql_of(finding: &Finding) -> String {
    let statements: Vec<&str> =
        finding.remedy.lines().map(str::trim).filter(|line| line.starts_with("SELECT ")).collect();
    statements.join("\n")
}

#[tokio::test]
async fn both_ends_of_a_replication_are_told() {
    let (from, to) = pair(16, 15).await;
    let needs = Needs { complete: true, ..Needs::default() };

    let found = from.ask(&needs).await;
    let slots = found.has("replication slots", Blocking, "far (pgoutput, in use)");
    assert!(slots.remedy.starts_with("to go on, give --accept-replication-break"), "{slots:?}");
    assert!(slots.remedy.contains("the rows (1 tables)"), "{slots:?}");
    found.has("publications", Warning, "the rows (1 tables)");
    found.lacks("subscriptions", "");
    found.lacks("standbys", "");
    let found = from.ask_with(&needs, &accepting()).await;
    let slots = found.has("replication slots", Warning, "far");
    assert!(!slots.remedy.contains("--accept"), "{slots:?}");
    found.passes();
    let same = Needs { publications: ["the rows".into()].into(), ..needs.clone() };
    from.ask(&same).await.lacks("publications", "");

    let at = format!("{}:{}/claims", from.server.host(), from.server.port());
    let found = to.ask(&needs).await;
    found.has("subscriptions", Blocking, &format!("my rows (the rows of {at}, enabled)"));
    found.lacks("replication slots", "");
    let found_accepting = to.ask_with(&needs, &accepting()).await;
    let told = found_accepting.has("subscriptions", Warning, "my rows");
    assert!(told.remedy.contains("SELECT pg_drop_replication_slot('far')"), "{told:?}");
    for text in [serde_json::to_string(&found.0).unwrap(), format!("{found:?}{found_accepting:?}")]
    {
        assert!(!text.contains("geheim"), "{text}");
    }

    // Who is no superuser does not see the connection.
    to.sql("create role plain login password 'plain'; alter database claims owner to plain").await;
    let plain = to.admin_of("plain", "plain").await;
    let found = super::ask(&plain, Some("claims"), &needs, &options()).await;
    found.has("subscriptions", Blocking, "that only superusers may see");
    assert!(found.0.iter().all(|f| !f.detail.contains("could not be checked")), "{found:#?}");

    for rig in [&from, &to] {
        let in_place = PreflightOptions { mode: RestoreMode::InPlace, ..options() };
        let found = rig.ask_with(&needs, &in_place).await;
        assert!(
            backup_pg::refuse_blocking(&found.0).unwrap_err().message().contains("live database")
        );
        // Another database of the same server has nothing to do with it.
        let other = super::ask(&rig.admin().await, Some("template1"), &needs, &options()).await;
        other.lacks("replication slots", "");
        other.lacks("subscriptions", "");
    }
}

/// What a swap does, by hand.
async fn swap(rig: &Rig) {
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'claims'";
    rig.sql(&format!("alter database claims allow_connections false; {end}")).await;
    rig.until("select count(*) from pg_stat_activity where datname = 'claims'", |n| n == "0").await;
    rig.sql("alter database claims rename to claims_before").await;
    rig.sql(&format!("alter database {SCRATCH} rename to claims")).await;
}

#[tokio::test]
async fn the_publishers_remedy_brings_the_replication_back() {
    let (from, to) = pair(17, 18).await;
    from.sql(&format!("create database {SCRATCH} template template0")).await;
    let restored =
        "create table t (i int primary key); insert into t select generate_series(1, 30);
        grant select on t to follower; create publication \"the rows\" for table t";
    from.server.sql(SCRATCH, restored).await.unwrap();
    let other_name = PreflightOptions { new_names: vec!["unused".into()], ..accepting() };
    let found = from.ask_with(&Needs::default(), &other_name).await;
    let slots = found.has("replication slots", Warning, "far");
    to.live("alter subscription \"my rows\" disable").await;
    from.until("select count(*) from pg_replication_slots where active", |n| n == "0").await;
    swap(&from).await;
    assert_eq!(from.sql("select database from pg_replication_slots").await, "claims_before");
    from.live(&sql_of(slots)).await;
    assert_eq!(
        from.sql("select slot_name, database from pg_replication_slots").await,
        "far|claims"
    );
    to.live("truncate t").await;
    to.live("alter subscription \"my rows\" enable").await;
    from.live("insert into t values (1000)").await;
    rows(&to, 1).await;
}

#[tokio::test]
async fn the_subscribers_remedy_brings_the_replication_back() {
    let (from, to) = pair(15, 16).await;
    to.sql(&format!("create database {SCRATCH} template template0")).await;
    to.server.sql(SCRATCH, "create table t (i int primary key)").await.unwrap();
    let other_name = PreflightOptions { new_names: vec!["unused".into()], ..accepting() };
    let found = to.ask_with(&Needs::default(), &other_name).await;
    let told = found.has("subscriptions", Warning, "my rows").clone();
    swap(&to).await;
    from.until("select count(*) from pg_replication_slots where active", |n| n == "0").await;
    let lines: Vec<&str> = told.remedy.lines().map(str::trim).collect();
    let drop_slot = lines.iter().find_map(|line| line.split_once(": SELECT ")).unwrap().1;
    from.live(&format!("select {drop_slot}")).await;
    let create = lines.iter().find(|line| line.starts_with("CREATE SUBSCRIPTION")).unwrap();
    let connection = format!("'{}'", conninfo(&from).replace('\'', "''"));
    to.live(&create.replace("'..'", &connection)).await;
    rows(&to, 100).await;
    from.live("insert into t values (1000)").await;
    rows(&to, 101).await;
}
