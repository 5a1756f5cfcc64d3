//! Storages beyond this host, through the program: several at once, one that fails, one that
//! dies while it is read, copies that repair what was missed.

use backup_testkit::proxy::{Direction, Fault, FaultProxy, Plan};
use backup_testkit::servers::{S3Access, S3Keys, S3Server, SftpServer};
use serde_json::Value;

use crate::support::stores::{STORES, Stores, s3_section, sftp_section};
use crate::support::{CLAIMS, Scratch, claims_digest, claims_server, target_file};

/// Rows of the database: some 15 MB, more than a part of an upload when compressed.
const ROWS: u32 = 120_000;

fn names(of: &Value) -> Vec<&str> {
    let listed = of.as_array().unwrap().iter();
    listed.map(|one| one["storage"].as_str().or(one.as_str()).unwrap()).collect()
}

/// Where the newest backup is, and where it is missing or not known.
async fn whereabouts(scratch: &Scratch, code: i32) -> [Vec<String>; 3] {
    let listed = scratch.run(&["list", "--json"]).await.expect(code).json();
    let newest = listed["backups"].as_array().unwrap().last().unwrap().clone();
    ["copies", "missing_in", "unknown_in"]
        .map(|key| names(&newest[key]).into_iter().map(str::to_owned).collect())
}

#[tokio::test]
async fn a_backup_goes_to_every_storage_at_once_and_comes_back_from_each() {
    let (server, stores) = tokio::join!(claims_server(15, ROWS), Stores::start());
    let scratch = Scratch::of(&server, CLAIMS);
    stores.configure(&scratch);
    let backup = scratch.run(&["backup", "--json"]).await.expect(0).json();
    let stored = names(&backup["backups"][0]["stored_in"]);
    assert_eq!(stored, ["local", "s3", "azure", "gcs", "sftp"]);
    // The nearest first.
    let listed = ["local", "azure", "gcs", "s3", "sftp"];
    assert_eq!(whereabouts(&scratch, 0).await[0], listed);
    let verified = scratch.run(&["verify", "--json"]).await.expect(0).json();
    assert_eq!(verified["verified"][0]["copies"].as_array().unwrap().len(), stored.len());

    let digest = claims_digest(&server, CLAIMS).await;
    let everything = std::fs::read_to_string(scratch.path("marb-backup.toml")).unwrap();
    for name in STORES {
        // Only this storage: no other copy can help.
        let alone = everything.replace(
            "storages = ['local', 's3', 'azure', 'gcs', 'sftp']",
            &format!("storages = ['{name}']"),
        );
        let (before, after) = alone.split_once(&format!("[storage.{name}]")).unwrap();
        let head = before.split_once("[storage.").unwrap().0;
        let (section, rest) = after.split_once("\n[").unwrap();
        let job = &rest[rest.find("encryption]").unwrap()..];
        scratch.write("marb-backup.toml", &format!("{head}[storage.{name}]{section}\n[{job}"));
        let database = format!("from_{name}");
        let to = target_file(&scratch, &server, &database);
        scratch.run(&["restore", "latest", "--to", &to]).await.expect(0);
        assert_eq!(claims_digest(&server, &database).await, digest, "{name}");
    }
}

/// A scratch with `local` and an S3 behind a proxy, of which one must succeed.
async fn with_proxied_s3(scratch: &Scratch) -> (S3Server, FaultProxy) {
    let s3 = S3Server::start().await.unwrap();
    let proxy = FaultProxy::start(s3.address(), Plan::pass()).unwrap();
    let section = s3_section(&s3, &format!("http://{}", proxy.address()));
    scratch.edit_config("[encryption]", &format!("{section}[encryption]"));
    scratch
        .edit_config("storages = ['local']", "storages = ['local', 's3']\nrequired_storages = 1");
    (s3, proxy)
}

#[tokio::test]
async fn an_optional_storage_that_fails_is_named_and_repaired_later() {
    let server = claims_server(15, ROWS).await;
    let scratch = Scratch::of(&server, CLAIMS);
    let (_s3, proxy) = with_proxied_s3(&scratch).await;

    // Down from the start, then dying in the middle of a part.
    let reset = Plan::after_bytes(1_000_000, Direction::Up, Fault::Reset).for_ever();
    let stalled = Plan::after_bytes(2_000_000, Direction::Up, Fault::Stall(None)).for_ever();
    for (plan, causes) in [
        (Plan::refuse(), ["nothing listens at", "it can't be reached"]),
        (reset, ["the connection to", "no way leads to"]),
        (stalled, ["did not answer for", "nothing moved for"]),
    ] {
        proxy.set_plan(plan).unwrap();
        let run = scratch.run(&["backup"]).await.expect(3);
        let told = "storage s3 has no copy: storage s3: can't ";
        let told = run.stderr.lines().find(|line| line.contains(told));
        let told = told.unwrap_or_else(|| panic!("not named: {run:#?}"));
        assert!(causes.iter().any(|cause| told.contains(cause)), "{causes:?}: {told}");
        proxy.set_plan(Plan::refuse()).unwrap();
        let [copies, missing, unknown] = whereabouts(&scratch, 8).await;
        assert_eq!((copies, missing.len(), unknown), (vec!["local".into()], 0, vec!["s3".into()]));
        proxy.set_plan(Plan::pass()).unwrap();
        assert_eq!(whereabouts(&scratch, 0).await[1], ["s3"]);
        scratch.run(&["verify"]).await.expect(3);
    }
    let synced = scratch.run(&["sync", "--from", "local", "--to", "s3", "--json"]).await;
    assert_eq!(synced.expect(0).json()["copied"].as_array().unwrap().len(), 3);
    let listed = scratch.run(&["list", "--json"]).await.expect(0).json();
    for backup in listed["backups"].as_array().unwrap() {
        assert_eq!(names(&backup["copies"]), ["local", "s3"]);
    }
    scratch.run(&["verify", "--all"]).await.expect(0);
    scratch.run(&["sync", "--from", "local", "--to", "s3"]).await.expect(0);

    // And back, into a storage that lost one.
    std::fs::remove_dir_all(scratch.path("backups")).unwrap();
    scratch.run(&["copy", "latest", "--from", "s3", "--to", "local"]).await.expect(0);
    scratch.run(&["verify", "latest"]).await.expect(0);
}

/// A key that may only put: no list, no read, no delete.
#[tokio::test]
async fn a_key_that_may_only_write_is_enough_for_a_backup() {
    let server = claims_server(15, ROWS).await;
    let scratch = Scratch::of(&server, CLAIMS);
    let s3 = S3Server::start().await.unwrap();
    let [admin, writer] = [S3Access::Admin, S3Access::WriteOnly].map(|access| s3.keys(access));
    let section = s3_section(&s3, &s3.endpoint());
    scratch.edit_config("[encryption]", &format!("{section}[encryption]"));
    scratch.edit_config("storages = ['local']", "storages = ['s3']");
    let swap = |from: S3Keys, to: S3Keys| {
        scratch.edit_config(from.access_key, to.access_key);
        scratch.edit_config(from.secret_key, to.secret_key);
    };
    swap(admin, writer);
    for _ in 0..2 {
        let run = scratch.run(&["backup"]).await.expect(0);
        for told in [
            "could not check in storage s3 that job",
            "storage s3 could not be swept: it can't be listed",
            "could not check in storage s3 that every part is there",
            "a claim stays in s3: storage s3: can't delete",
        ] {
            assert!(run.stderr.contains(told), "{told:?} is not told: {run:#?}");
        }
    }
    swap(writer, admin);
    let listed = scratch.run(&["list", "--json"]).await.expect(0).json();
    assert_eq!(listed["backups"].as_array().unwrap().len(), 2);
    assert_eq!(whereabouts(&scratch, 0).await[0], ["s3"]);
    scratch.run(&["verify", "--all"]).await.expect(0);
}

/// A secret that vanished keeps its storage from being opened; the others get their backup.
#[tokio::test]
async fn an_optional_storage_that_cant_be_opened_is_named_and_the_others_are_written() {
    let server = claims_server(15, 1_000).await;
    let scratch = Scratch::of(&server, CLAIMS);
    let (s3, _proxy) = with_proxied_s3(&scratch).await;
    let secret = s3.keys(S3Access::Admin).secret_key;
    scratch.write("s3-secret", secret);
    let file = scratch.path("s3-secret");
    let literal = format!("secret_access_key = '{secret}'");
    let from_file = format!("secret_access_key = {{ file = '{}' }}", file.display());
    scratch.edit_config(&literal, &from_file);
    scratch.run(&["backup"]).await.expect(0);

    std::fs::remove_file(&file).unwrap();
    let from_command = "secret_access_key = { command = ['false'] }";
    for (cause, next) in [
        (format!("the file {} can't be read", file.display()), from_command),
        ("the command false ended with".to_owned(), from_command),
    ] {
        let run = scratch.run(&["backup"]).await.expect(3);
        let named = "storage s3 has no copy: config: storage \"s3\", secret secret_access_key";
        assert!(run.stderr.contains(&format!("{named}: {cause}")), "{run:#?}");
        assert_eq!(whereabouts(&scratch, 8).await[0], ["local"]);
        let config = std::fs::read_to_string(scratch.path("marb-backup.toml")).unwrap();
        scratch.write("marb-backup.toml", &config.replace(&from_file, next));
    }
    // Where all must have it, nothing is begun.
    scratch.edit_config("required_storages = 1", "required_storages = 2");
    let run = scratch.run(&["backup"]).await.expect(2);
    assert!(run.stderr.contains("the command false ended with"), "{run:#?}");
}

#[tokio::test]
async fn a_storage_that_dies_while_it_is_read_is_replaced_by_another() {
    let server = claims_server(15, ROWS).await;
    let scratch = Scratch::of(&server, CLAIMS);
    let (_s3, proxy) = with_proxied_s3(&scratch).await;
    let sftp = SftpServer::start().await.unwrap();
    scratch.edit_config("[encryption]", &format!("{}[encryption]", sftp_section(&sftp)));
    // s3 is read first: both are far, and it comes first by name.
    scratch.edit_config("['local', 's3']", "['s3', 'sftp']");
    scratch.run(&["backup"]).await.expect(0);
    let digest = claims_digest(&server, CLAIMS).await;

    let dies = Plan::after_bytes(3_000_000, Direction::Down, Fault::Reset).for_ever();
    proxy.set_plan(dies).unwrap();
    let to = target_file(&scratch, &server, "other");
    let restored = scratch.run(&["restore", "latest", "--to", &to]).await.expect(0);
    assert!(proxy.strikes() > 0, "nothing was read from s3: {restored:#?}");
    assert!(restored.stderr.contains("s3"), "the change is not told: {restored:#?}");
    assert_eq!(claims_digest(&server, "other").await, digest);

    // The same for `cat`, whose reader has seen the first bytes already.
    proxy.set_plan(Plan::pass()).unwrap();
    let whole = scratch.run(&["cat", "latest"]).await.expect(0).stdout;
    proxy.set_plan(dies).unwrap();
    let again = scratch.run(&["cat", "latest"]).await.expect(0);
    assert!(proxy.strikes() > 0 && again.stderr.contains("s3"), "{}", again.stderr);
    assert!(!whole.is_empty() && again.stdout == whole, "{} bytes", again.stdout.len());
}

#[tokio::test]
async fn max_rate_slows_a_backup_down() {
    const SECONDS: u64 = 5;
    let server = claims_server(15, 40_000).await;
    let scratch = Scratch::of(&server, CLAIMS);
    let stored = |backup: &Value| -> u64 {
        let parts = backup["backups"][0]["manifest"]["parts"].as_array().unwrap().clone();
        parts.iter().map(|part| part["bytes"].as_u64().unwrap()).sum()
    };
    let bytes = stored(&scratch.run(&["backup", "--json"]).await.expect(0).json());
    let rate = bytes / SECONDS;
    assert!(rate > backup_core::MIN_RATE, "{bytes} bytes are too few for this test");
    let began = std::time::Instant::now();
    scratch.edit_config("[storage.local]", &format!("[storage.local]\nmax_rate = '{rate}B/s'"));
    scratch.run(&["backup"]).await.expect(0);
    let took = began.elapsed();
    assert!(took.as_secs_f64() > SECONDS as f64 * 0.9, "{bytes} bytes in {took:?}");
}
