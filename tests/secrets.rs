//! Secrets: planted in everything the program is given, and then looked for everywhere others
//! can see: arguments of processes, output, logs, manifests, stored files, errors.

use backup_testkit::postgres::PostgresServer;

use crate::support::{
    CLAIMS, Finished, Scratch, Watch, assert_absent_below, claims_server, target_file,
};

const OPERATOR: &str = "operator";
/// Nothing in them that a URL, JSON or a terminal would write differently, so that they can't
/// hide.
const PASSWORD: &str = "planted-database-password-4711";
const SSL_PASSWORD: &str = "planted-ssl-password-4712";
const KEY: &str = "planted-passphrase-4713";
const OTHER_KEY: &str = "planted-other-passphrase-4714";
const WRONG_PASSWORD: &str = "planted-wrong-password-4715";
const FROM_ENV_FILE: &str = "planted-in-env-file-4716";
/// What all of them have in common.
const PLANTED: &str = "planted-";
/// What a test itself writes on a command line; so the others' watches must not look for it.
const TYPED: &str = "typed-secret-4717";

/// A server with a role whose password is planted, and a scratch full of planted secrets.
async fn planted(major: u32) -> (PostgresServer, Scratch) {
    let server = claims_server(major, 20_000).await;
    let scratch = Scratch::new(&url(&server, PASSWORD, CLAIMS));
    // From a file: `ps` would show SQL in an argument, and others watch.
    let role = format!("CREATE ROLE {OPERATOR} SUPERUSER LOGIN PASSWORD '{PASSWORD}'");
    scratch.write("role.sql", &role);
    server.load("postgres", &scratch.path("role.sql"), &[]).await.unwrap();
    scratch.write("key", &format!("{KEY}\n"));
    scratch.write(".env", &format!("SECRET_KEY={FROM_ENV_FILE}\nOTHER='{FROM_ENV_FILE}'\n"));
    scratch.edit_config("state_dir", "env_file = '.env'\nstate_dir");
    std::fs::create_dir(scratch.path("tmp")).unwrap();
    (server, scratch)
}

fn url(server: &PostgresServer, password: &str, database: &str) -> String {
    let url = server.url_of(OPERATOR, password, database);
    format!("{url}?sslpassword={SSL_PASSWORD}")
}

/// Runs the program at its loudest and asserts that it said no secret.
async fn run(scratch: &Scratch, arguments: &[&str]) -> Finished {
    let mut command = scratch.command(arguments);
    command.arg("-vv").env("TMPDIR", scratch.path("tmp"));
    let run = crate::support::finish(command).await;
    for secret in [PLANTED, TYPED] {
        let all = run.stdout.lines().chain(run.stderr.lines());
        assert_eq!(all.filter(|line| line.contains(secret)).collect::<Vec<_>>(), [""; 0]);
    }
    run
}

/// Asserts that no process had a secret in its arguments, and that it was looked when the clients
/// ran.
fn assert_silent(watch: Watch, clients: &[(&str, &str)]) {
    let seen: Vec<String> = watch.finish().iter().map(|line| line.join(" ")).collect();
    for (program, argument) in clients {
        let runs = |line: &&String| {
            let name = line.split(' ').next().and_then(|path| path.rsplit('/').next());
            name == Some(*program) && line.contains(argument)
        };
        assert!(seen.iter().any(|line| runs(&line)), "did not see {program} {argument}");
    }
    let leaked: Vec<&String> = seen.iter().filter(|line| line.contains(PLANTED)).collect();
    assert_eq!(leaked, Vec::<&String>::new());
}

/// Everything that works, watched. Server 16 has no client of its own here: psql restores.
async fn nothing_leaks_on(major: u32, restores: (&str, &str)) {
    let (server, scratch) = planted(major).await;
    let to = format!("file:{}", scratch.path("target-url").display());
    scratch.write("target-url", &url(&server, PASSWORD, "restored"));

    let watch = Watch::start();
    run(&scratch, &["backup"]).await.expect(0);
    run(&scratch, &["backup", "--json"]).await.expect(0);
    run(&scratch, &["verify", "--all"]).await.expect(0);
    run(&scratch, &["restore", "latest", "--to", &to]).await.expect(0);
    let clients = [("pg_dump", "--format=custom"), ("pg_dumpall", "--globals-only"), restores];
    assert_silent(watch, &clients);

    for arguments in [
        &["list", "--json"][..],
        &["show", "latest", "--contents", "--json"],
        &["cat", "latest", "globals.sql"],
        &["cat", "latest", "contents.json"],
        &["doctor", "--json"],
        &["config", "check", "--json"],
    ] {
        run(&scratch, arguments).await.expect(0);
    }
    let names: Vec<String> = scratch
        .stored_files()
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    for name in ["manifest.json", "RESTORE.md", "claims.dump.zst.gpg"] {
        assert!(names.iter().any(|stored| stored == name), "{names:?}");
    }
    for folder in ["backups", "state"] {
        assert_absent_below(&scratch.path(folder), &[PLANTED]);
    }
    let temporary: Vec<_> = std::fs::read_dir(scratch.path("tmp")).unwrap().collect();
    assert!(temporary.is_empty(), "left behind: {temporary:?}");
}

#[tokio::test]
async fn nothing_leaks_while_pg_restore_restores() {
    nothing_leaks_on(15, ("pg_restore", "--exit-on-error")).await;
}

#[tokio::test]
async fn nothing_leaks_while_psql_restores() {
    nothing_leaks_on(16, ("psql", "--file=-")).await;
}

#[tokio::test]
async fn no_connection_error_tells_a_secret() {
    let (server, scratch) = planted(15).await;
    run(&scratch, &["backup"]).await.expect(0);
    let (host, port) = (server.host(), server.port());
    let urls = [
        (1, url(&server, WRONG_PASSWORD, CLAIMS)),
        (1, url(&server, PASSWORD, "missing")),
        (1, format!("postgresql://{OPERATOR}:{PASSWORD}@no-such-host.invalid/claims")),
        (1, format!("postgresql://{OPERATOR}:{PASSWORD}@{host}:1/claims")),
        (2, format!("postgresql://{OPERATOR}:{PASSWORD}@{host}:port/claims")),
        (2, format!("postgres//{OPERATOR}:{PASSWORD}@{host}/claims")),
        (2, format!("mysql://{OPERATOR}:{PASSWORD}@{host}/claims")),
        (
            2,
            format!("postgresql://{OPERATOR}:{PASSWORD}@{host}:{port}/claims?oops={FROM_ENV_FILE}"),
        ),
        (2, format!("postgresql://{OPERATOR}:{PASSWORD}@{host}:{port}/claims?sslmode=sometimes")),
        (2, format!("postgresql://{OPERATOR}:{PASSWORD}%zz@{host}:{port}/claims")),
        (2, format!("host={host} user={OPERATOR} password='{PASSWORD}")),
        (2, format!("host={host} user={OPERATOR} password {PASSWORD}")),
    ];
    for (code, url) in urls {
        scratch.write("url", &url);
        scratch.write("target-url", &url);
        let to = format!("file:{}", scratch.path("target-url").display());
        println!("{url}");
        run(&scratch, &["backup"]).await.expect(code);
        run(&scratch, &["doctor"]).await.expect(1);
        run(&scratch, &["restore", "latest", "--to", &to]).await;
    }
}

#[tokio::test]
async fn no_key_error_tells_a_secret() {
    let (server, scratch) = planted(15).await;
    run(&scratch, &["backup"]).await.expect(0);
    let to = target_file(&scratch, &server, "restored");
    scratch.write("key", &format!("{OTHER_KEY}\n"));
    for arguments in [
        &["verify"][..],
        &["restore", "latest", "--to", &to],
        &["show", "--contents"],
        &["cat", "latest", "globals.sql"],
    ] {
        let run = run(&scratch, arguments).await;
        assert_ne!(run.code, 0, "{run:#?}");
    }
}

/// The secret stands in the file itself, and something is wrong beside it.
#[tokio::test]
async fn no_config_error_tells_a_secret() {
    let (_server, scratch) = planted(15).await;
    let config = std::fs::read_to_string(scratch.path("marb-backup.toml")).unwrap();
    scratch.write("print-key", &format!("echo {KEY}; exit 1"));
    let key = format!("passphrase = {{ file = '{}' }}", scratch.path("key").display());
    for wrong in [
        format!("passphrase = '{KEY}'\npassphrase = '{KEY}'"),
        format!("passphrase = ['{KEY}']"),
        format!("passphrase = '{KEY}"),
        format!("passphrase = '{KEY}' '{KEY}'"),
        format!("passphrase = {{ text = '{KEY}' }}"),
        format!("passfrase = '{KEY}'"),
        format!("passphrase = {{ command = ['sh', '{}'] }}", scratch.path("print-key").display()),
    ] {
        assert!(config.contains(&key));
        scratch.write("marb-backup.toml", &config.replace(&key, &wrong));
        println!("{wrong}");
        run(&scratch, &["config", "check"]).await.expect(2);
        run(&scratch, &["backup", "--json"]).await.expect(2);
    }
    scratch.write("marb-backup.toml", &config);
    for wrong in [
        format!("A=1\n{FROM_ENV_FILE}\n"),
        format!("A='{FROM_ENV_FILE}\n"),
        format!("A=\"x\" {FROM_ENV_FILE}"),
    ] {
        scratch.write(".env", &wrong);
        run(&scratch, &["config", "check"]).await.expect(2);
    }
}

/// `ps` shows arguments to everybody; what is on them already is not repeated into logs.
#[tokio::test]
async fn a_password_in_the_arguments_is_refused() {
    let scratch = Scratch::new("postgresql:///claims");
    std::fs::create_dir(scratch.path("tmp")).unwrap();
    let key = scratch.path("key").display().to_string();
    let storage = format!("file://{}", scratch.path("backups").display());
    for url in [
        format!("postgresql://{OPERATOR}:{TYPED}@localhost/claims"),
        format!("postgresql+psycopg2://{OPERATOR}:{TYPED}@localhost/claims"),
        format!("postgresql://localhost/claims?password={TYPED}"),
        format!("postgresql://localhost/claims?sslpassword={TYPED}"),
        format!("host=localhost password={TYPED}"),
    ] {
        let backup = ["backup", "--url", &url, "--to", &storage, "--passphrase-file", &key];
        let told = run(&scratch, &backup).await.expect(2);
        assert!(told.stderr.contains("everyone with `ps`"), "{url}: {}", told.stderr);
        run(&scratch, &["restore", "latest", "--to", &url]).await.expect(2);
        run(&scratch, &["backup", "--url", &url]).await.expect(2);
    }
    assert_eq!(scratch.stored_files(), Vec::<std::path::PathBuf>::new());
}
