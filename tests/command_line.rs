//! The command line as an interface: exit codes, messages, help, JSON, colours, `.env` files.

use std::path::PathBuf;

use backup_testkit::postgres::PostgresServer;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::Command;

use crate::support::{
    CLAIMS, Finished, Scratch, claims_server, finish, finish_started, target_file, while_locked,
};

const VERBS: [&str; 22] = [
    "backup",
    "list",
    "show",
    "verify",
    "restore",
    "drill",
    "cat",
    "copy",
    "sync",
    "adopt",
    "prune",
    "pin",
    "unpin",
    "rekey",
    "recovery-kit",
    "recover",
    "schedule",
    "run",
    "doctor",
    "config",
    "completions",
    "man",
];

/// A transcript with what differs from run to run replaced.
fn redact(text: &str, scratch: &Scratch, server: Option<&PostgresServer>) -> String {
    let mut text = text.replace(&scratch.path("").display().to_string(), "SCRATCH/");
    if let Some(server) = server {
        text = text.replace(&format!("{}:{}", server.host(), server.port()), "SERVER");
        text = text.replace(&format!("port {}", server.port()), "port PORT");
    }
    redact_words(&redact_ids(&text))
}

/// `20261122T020000Z` becomes `ID`.
fn redact_ids(text: &str) -> String {
    const LENGTH: usize = 16;
    let is_id = |at: usize| {
        text.get(at..at + LENGTH).is_some_and(|id| {
            let digits =
                |range: std::ops::Range<usize>| id[range].bytes().all(|b| b.is_ascii_digit());
            id.is_ascii() && digits(0..8) && &id[8..9] == "T" && digits(9..15) && id.ends_with('Z')
        })
    };
    let mut redacted = String::new();
    let mut rest = 0;
    for at in text.char_indices().map(|(at, _)| at) {
        if at >= rest && is_id(at) {
            redacted.push_str(&text[rest..at]);
            redacted.push_str("ID");
            rest = at + LENGTH + letters_after(&text[at + LENGTH..]);
        }
    }
    redacted + &text[rest..]
}

/// The length of `-kqzvbn` when an id goes on with it.
fn letters_after(id: &str) -> usize {
    const LENGTH: usize = 7;
    let letters = id.get(..LENGTH).and_then(|ending| ending.strip_prefix('-'));
    let is_ending = letters.is_some_and(|letters| letters.bytes().all(|b| b.is_ascii_lowercase()));
    if is_ending { LENGTH } else { 0 }
}

/// Words that differ from run to run: digests, sizes, durations.
fn redact_words(text: &str) -> String {
    let redact = |word: &str| {
        match word {
            digest if digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()) => {
                "SHA256"
            }
            number if number.contains('.') && number.parse::<f64>().is_ok() => "N",
            bytes if bytes.len() >= 4 && bytes.bytes().all(|b| b.is_ascii_digit()) => "N",
            other => other,
        }
        .to_owned()
    };
    let lines = text.lines().map(|line| line.split(' ').map(redact).collect::<Vec<_>>().join(" "));
    lines.map(|line| line + "\n").collect()
}

/// A call and what came of it, as it would stand on a terminal.
fn transcript(arguments: &str, run: &Finished) -> String {
    let Finished { code, stdout, stderr } = run;
    format!("$ marb-backup {arguments}\n{stdout}{stderr}[exit {code}]\n\n")
}

/// Runs the program as a line of words, quietly, and notes what came of it.
async fn note(notes: &mut String, scratch: &Scratch, line: &str, code: i32) {
    let arguments: Vec<&str> = line.split(' ').chain(["--quiet"]).collect();
    let run = scratch.run(&arguments).await.expect(code);
    notes.push_str(&transcript(line, &run));
}

#[tokio::test]
async fn every_exit_code_and_its_message() {
    let server = claims_server(15, 10).await;
    let scratch = Scratch::of(&server, CLAIMS);
    let to = target_file(&scratch, &server, CLAIMS);
    let restore = format!("restore latest --to {to}");
    let mut notes = String::new();

    note(&mut notes, &scratch, "verify", 5).await;
    note(&mut notes, &scratch, "list", 0).await;
    scratch.run(&["backup"]).await.expect(0);
    note(&mut notes, &scratch, "backup --colour", 2).await;
    note(&mut notes, &scratch, "backup nightly", 2).await;
    note(&mut notes, &scratch, "show 20200101T000000Z", 5).await;
    note(&mut notes, &scratch, "show yesterday", 2).await;
    note(&mut notes, &scratch, "cat latest roles.sql", 5).await;
    note(&mut notes, &scratch, "verify nothing.dump", 5).await;
    note(&mut notes, &scratch, &restore, 6).await;

    let locked = while_locked(&server, async {
        let first = scratch.start(&["backup"]);
        scratch.wait_for_process("pg_dump").await;
        note(&mut notes, &scratch, "backup", 7).await;
        first
    });
    finish_started(locked.await).await.expect(0);

    let storages = "[storage.offsite]\nurl = 'file:///nonexistent/offsite'\n[storage.local]";
    scratch.edit_config("[storage.local]", storages);
    scratch.edit_config("storages = ['local']", "storages = ['local', 'offsite']");
    note(&mut notes, &scratch, "backup", 1).await;
    scratch.edit_config("'offsite']", "'offsite']\nrequired_storages = 1");
    notes.push_str("(with required_storages = 1)\n");
    note(&mut notes, &scratch, "backup", 3).await;
    note(&mut notes, &scratch, "list", 8).await;

    let storage = format!("file://{}", scratch.path("backups").display());
    note(&mut notes, &scratch, &format!("show latest --contents --from {storage}"), 8).await;
    note(&mut notes, &scratch, &format!("verify latest --from {storage}"), 8).await;
    flip_a_byte(&newest_folder(&scratch).join("claims.dump.zst.gpg"));
    let key = scratch.path("key").display().to_string();
    let line = format!("verify latest --from {storage} --passphrase-file {key}");
    note(&mut notes, &scratch, &line, 4).await;

    let listing = |line: &&str| !line.contains(" ago") && !line.starts_with("ID ");
    let notes: String = notes.lines().filter(listing).map(|line| format!("{line}\n")).collect();
    insta::assert_snapshot!("messages", redact(&notes, &scratch, Some(&server)));
}

fn newest_folder(scratch: &Scratch) -> PathBuf {
    let files = scratch.stored_files();
    let newest = files.iter().rfind(|file| file.ends_with("manifest.json")).unwrap();
    newest.parent().unwrap().to_owned()
}

fn flip_a_byte(file: &std::path::Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn help_of_every_verb() {
    let scratch = Scratch::new("");
    let help = async |arguments: &[&str]| {
        let mut command = scratch.command(arguments);
        command.env_remove("COLUMNS");
        finish(command).await.expect(0).stdout
    };
    insta::assert_snapshot!("help", help(&["--help"]).await);
    for verb in VERBS.into_iter().chain(["demo"]) {
        insta::assert_snapshot!(format!("help_{verb}"), help(&[verb, "--help"]).await);
    }
    let version = help(&["--version"]).await;
    assert_eq!(version, format!("marb-backup {}\n", env!("CARGO_PKG_VERSION")));
}

/// What is wrong with a config, each named with its cure.
#[tokio::test]
async fn config_check_names_what_is_wrong() {
    let scratch = Scratch::new("postgresql:///claims");
    let config = std::fs::read_to_string(scratch.path("marb-backup.toml")).unwrap();
    let faults = [
        ("[storage.local]", "[storrage.local]"),
        ("storages = ", "storage = "),
        ("storages = ['local']", "storages = []"),
        ("storages = ['local']", "storages = ['locale']"),
        ("storages = ['local']", "storages = ['local']\nrequired_storages = 2"),
        ("storages = ['local']", "storages = ['local']\ncompression = 'lzma'"),
        ("storages = ['local']", "storages = ['local']\ntimeout = 'soon'"),
        ("url = 'file:///", "url = 'ftp:///"),
        ("url = 'file:///", "url = 'file://"),
        ("TEST_DATABASE_URL", "UNSET_DATABASE_URL"),
        ("{ env = 'TEST_DATABASE_URL' }", "'mysql://localhost/claims'"),
        ("{ env = 'TEST_DATABASE_URL' }", "['postgresql:///claims']"),
        ("/key'", "/no-such-key'"),
        ("passphrase = ", "recipients = ['no-such-key.asc'] #"),
        ("passphrase = ", "#"),
        ("state_dir", "env_file = 'no-such.env'\nstate_dir"),
        ("[encryption]", "[encryption"),
    ];
    let mut notes = String::new();
    note(&mut notes, &scratch, "config check", 0).await;
    for (right, wrong) in faults {
        assert!(config.contains(right), "{right}");
        scratch.write("marb-backup.toml", &config.replace(right, wrong));
        notes.push_str(&format!("({wrong})\n"));
        note(&mut notes, &scratch, "config check", 2).await;
    }
    std::fs::remove_file(scratch.path("marb-backup.toml")).unwrap();
    note(&mut notes, &scratch, "config check --config none.toml", 2).await;
    insta::assert_snapshot!("config_check", redact(&notes, &scratch, None));
}

/// Exactly one JSON document on stdout, whatever happens.
#[tokio::test]
async fn json_is_one_document() {
    let server = claims_server(15, 10).await;
    let scratch = Scratch::of(&server, CLAIMS);
    let to = target_file(&scratch, &server, "restored");
    let calls: [(&[&str], i32, &str); 16] = [
        (&["list"], 0, "/backups"),
        (&["show"], 5, "/error/next_step"),
        (&["backup"], 0, "/backups/0/manifest/id"),
        (&["backup", "nightly"], 2, "/error/message"),
        (&["backup", "--bogus"], 2, "/error/exit_code"),
        (&["restore"], 2, "/error/exit_code"),
        (&["list"], 0, "/backups/0/manifest/id"),
        (&["show"], 0, "/manifest/host"),
        (&["show", "--contents"], 0, "/contents/parts"),
        (&["verify"], 0, "/verified/0/copies/0/passed"),
        (&["verify", "--all"], 0, "/verified/0/copies/0/passed"),
        (&["restore", "latest", "--to", &to], 0, "/rows_compared"),
        (&["restore", "latest", "--to", &to], 6, "/error/stage"),
        (&["cat", "latest", "nothing"], 5, "/error/message"),
        (&["doctor"], 0, "/findings/0/subject"),
        (&["config", "check"], 0, "/jobs/0"),
    ];
    for (arguments, code, pointer) in calls {
        let run = scratch.run(&[arguments, &["--json"]].concat()).await.expect(code);
        let document: Value = run.json();
        assert!(document.pointer(pointer).is_some(), "{arguments:?}: no {pointer} in {document:#}");
        if code != 0 {
            assert_eq!(document["error"]["exit_code"], code, "{document:#}");
        }
    }
    scratch.write("url", &server.url("missing"));
    let failed = scratch.run(&["backup", "--json"]).await.expect(1).json();
    assert_eq!(failed["error"]["exit_code"], 1);
}

/// Of two jobs the first is interrupted: the second does not start, and the code says by what.
#[tokio::test]
async fn a_signal_ends_all_jobs() {
    let server = claims_server(15, 10).await;
    let scratch = Scratch::of(&server, CLAIMS);
    let other = "[job.later]\npostgres = { url = { env = 'TEST_DATABASE_URL' } }\nstorages = ['local']\n\n[job.database]";
    scratch.edit_config("[job.database]", other);
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let run = while_locked(&server, async {
            let child = scratch.start(&["backup", "--json"]);
            scratch.wait_for_process("pg_dump").await;
            kill(Pid::from_raw(child.id().unwrap().try_into().unwrap()), signal).unwrap();
            finish_started(child).await
        });
        let document = run.await.expect(code).json();
        assert_eq!(document["backups"].as_array().map(Vec::len), Some(1), "{document:#}");
        assert_eq!(scratch.stored_files(), Vec::<PathBuf>::new());
    }
    scratch.run(&["backup"]).await.expect(0);
    assert_eq!(scratch.listed().await.len(), 2);
}

/// A terminal gets colours; a pipe, or who set NO_COLOR, gets none.
#[tokio::test]
async fn colours_only_on_a_terminal_that_wants_them() {
    const BOLD_RED: &str = "\u{1b}[31;1m";
    let scratch = Scratch::new("postgresql:///claims");
    let program = crate::support::program();
    let on_a_terminal = |no_color: &str| {
        let words = scratch.command(&[]);
        let mut command = Command::new("script");
        command.args(["-qec", &format!("'{}' show", program.display()), "/dev/null"]);
        command.current_dir(words.as_std().get_current_dir().unwrap()).env("NO_COLOR", no_color);
        finish(command)
    };
    let coloured = on_a_terminal("").await.expect(5);
    assert!(coloured.stdout.contains(&format!("{BOLD_RED}error:")), "{coloured:?}");
    let plain = on_a_terminal("1").await.expect(5);
    assert!(plain.stdout.contains("error: ") && !plain.stdout.contains("\u{1b}["), "{plain:?}");
    for arguments in [&["show"][..], &["list"], &["doctor", "-vv"], &["--help"], &["backup", "--x"]]
    {
        let mut command = scratch.command(arguments);
        command.env_remove("NO_COLOR");
        let run = finish(command).await;
        assert!(!format!("{}{}", run.stdout, run.stderr).contains('\u{1b}'), "{run:#?}");
    }
}

#[tokio::test]
async fn completions_and_manual_know_every_verb() {
    let scratch = Scratch::new("");
    for shell in ["bash", "zsh", "fish"] {
        let script = scratch.run(&["completions", shell]).await.expect(0).stdout;
        for word in VERBS.into_iter().chain(["passphrase-file"]) {
            assert!(script.contains(word), "{shell}: {word}");
        }
        scratch.write(shell, &script);
    }
    let mut check = Command::new("bash");
    check.arg("-n").arg(scratch.path("bash"));
    finish(check).await.expect(0);
    let page = scratch.run(&["man"]).await.expect(0).stdout;
    assert!(page.contains(".TH marb-backup 1"), "{}", &page[..page.len().min(500)]);
    for verb in VERBS {
        let verb = verb.replace('-', "\\-");
        assert!(
            page.contains(&format!("\nmarb\\-backup\\-{verb} \\-")),
            "{verb} is not in the manual"
        );
    }
}
