//! Units before systemd's own parser.

use jiff::Timestamp;

use super::*;

/// What systemd says of our units in the scratch, and its exit code.
async fn verified(scratch: &Scratch) -> (i32, Vec<String>) {
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).args(paths_in(&scratch.path("units")));
    let told = finish(verify).await;
    // It also reads units of this host, which may have faults of their own.
    let lines = format!("{}{}", told.stdout, told.stderr);
    let ours = lines.lines().filter(|line| line.contains("marb-backup"));
    (told.code, ours.map(str::to_owned).collect())
}

/// What has to be quoted in a unit, and what is a specifier or a variable in one.
const ODD: &str = "odd $HOME \\ 100% \"it's\"";

/// A config in a folder of that name, with a storage and secrets in it; gives its path.
fn odd_config(scratch: &Scratch) -> String {
    let folder = scratch.path(ODD);
    std::fs::create_dir(&folder).unwrap();
    let folder = folder.display().to_string().replace('\\', "\\\\").replace('"', "\\\"");
    let config = std::fs::read_to_string(scratch.path("marb-backup.toml")).unwrap();
    let storage = format!("[storage.odd]\nurl = \"file://{folder}\"\n[storage.local]");
    let config = config.replace("[storage.local]", &storage);
    scratch.write(&format!("{ODD}/env"), "TEST_DATABASE_URL=postgresql:///claims\n");
    let path = format!("{ODD}/config.toml");
    scratch.write(&path, &format!("env_file = \"{folder}/env\"\n{config}"));
    path
}

#[tokio::test]
async fn systemd_has_nothing_to_say_against_any_unit() {
    let scratch = planned();
    let odd = odd_config(&scratch);
    for config in ["marb-backup.toml", &odd] {
        for user in ["root", "backup"] {
            let more = ["--install", "--user", user, "--config", config];
            schedule(&scratch, "systemd", &more).await.expect(0);
            assert_eq!(paths_in(&scratch.path("units")).len(), 2 * TASKS);
            assert_eq!(verified(&scratch).await, (0, Vec::new()), "{more:?}");
            let more = ["--remove", "--config", config];
            schedule(&scratch, "systemd", &more).await.expect(0);
        }
    }

    // It would have told.
    schedule(&scratch, "systemd", &["--install"]).await.expect(0);
    for (unit, from, to) in [
        ("marb-backup-backup-database.timer", "OnCalendar=", "OnCalendar=Son "),
        ("marb-backup-drill-database.service", "ExecStart=", "ExecStart=/missing"),
        ("marb-backup-verify-files-1.service", "LockPersonality", "LockPersona"),
    ] {
        let path = scratch.path("units").join(unit);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace(from, to)).unwrap();
        let (_, lines) = verified(&scratch).await;
        assert!(lines.iter().any(|line| line.contains(unit)), "{unit}: {lines:#?}");
        std::fs::write(&path, text).unwrap();
    }
}

/// docs/schedules.md tells what was measured: 2.8 and 1.7, and 0.2 more for a storage in /tmp.
#[tokio::test]
async fn a_service_can_do_little_else() {
    for (user, threshold) in [("root", "31"), ("backup", "20")] {
        let scratch = planned();
        schedule(&scratch, "systemd", &["--install", "--user", user]).await.expect(0);
        let mut services = paths_in(&scratch.path("units"));
        services.retain(|path| path.extension().is_some_and(|kind| kind == "service"));
        for service in services {
            let mut measure = Command::new("systemd-analyze");
            measure.args(["security", "--offline=true", "--no-pager", "--threshold", threshold]);
            measure.arg(service);
            finish(measure).await.expect(0);
        }
    }
}

/// systemd would pass over it, and start the service without its secret.
#[tokio::test]
async fn a_path_that_systemd_would_pass_over_is_refused() {
    for path in ["/key", "/backups"] {
        let scratch = planned();
        scratch.edit_config(&format!("{path}'"), &format!("/units/..{path}'"));
        let told = schedule(&scratch, "systemd", &["--install"]).await.expect(2);
        told.explains("schedule", &format!("/units/..{path} can't be written"));
        assert_eq!(paths_in(&scratch.path("units")).len(), 0);
    }
}

/// A job with a schedule in Berlin's time, and nothing else.
fn timed(form: &str) -> Scratch {
    let scratch = Scratch::with_job("postgresql:///claims", &format!("schedule = '{form}'"));
    let zone = "[schedules]\ntime_zone = 'Europe/Berlin'\n[encryption]";
    scratch.edit_config("[encryption]", zone);
    scratch
}

/// When systemd would do it next.
async fn theirs(scratch: &Scratch, after: Timestamp) -> Timestamp {
    let written = schedule(scratch, "systemd", &["--json"]).await.expect(0).json();
    let files = written["files"].as_array().unwrap();
    let texts = files.iter().map(|file| file["text"].as_str().unwrap());
    let mut times = texts.flat_map(str::lines).filter_map(|l| l.strip_prefix("OnCalendar="));
    let mut calendar = Command::new("systemd-analyze");
    let base = format!("--base-time=@{}", after.as_second());
    calendar.args(["calendar", &base, times.next().unwrap()]).env("TZ", "UTC");
    let told = finish(calendar).await.expect(0).stdout;
    // "  Next elapse: Sun 2024-03-31 03:00:00 UTC", once more in the zone's own time.
    let in_utc = told.lines().find(|line| line.contains(" UTC")).expect(&told);
    let words: Vec<&str> = in_utc.split_whitespace().rev().take(3).collect();
    format!("{}T{}Z", words[2], words[1]).parse().unwrap()
}

/// When the daemon would have done it, from what it says when it catches up.
async fn ours(scratch: &Scratch, after: Timestamp) -> Timestamp {
    daemon::plant(scratch, after);
    let mut daemon = daemon::Running::start(scratch);
    let started = daemon.expect("started").await;
    started["due"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_daemon_and_systemd_mean_the_same_times() {
    // Around a leap day, before and after both changes of the clock, the end of a year.
    let moments = [
        "2024-02-28T20:00:00Z",
        "2024-03-31T01:00:00Z",
        "2024-10-26T23:59:59Z",
        "2024-10-27T00:50:00Z",
        "2024-12-31T22:59:59Z",
    ];
    for form in FORMS {
        let scratch = timed(form);
        for moment in moments {
            let after = moment.parse().unwrap();
            let (theirs, ours) = (theirs(&scratch, after).await, ours(&scratch, after).await);
            assert_eq!(theirs, ours, "{form} after {moment}");
        }
    }
}
