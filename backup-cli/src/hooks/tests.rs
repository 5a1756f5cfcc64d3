//! Hooks that end well, badly, too late, or not at all.

use super::*;
use backup_core::ErrorKind;
use std::path::Path;
use std::time::Instant;

fn sh(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(String::from).to_vec()
}

fn hooks(seconds: f64) -> Hooks {
    Hooks::new(Duration::from_secs_f64(seconds), None)
}

async fn run(hooks: &Hooks, script: &str) -> Result<()> {
    hooks.run("stop", &sh(script), &Cancel::default()).await
}

/// Whether the process whose id stands in this file still runs. One that nobody waited for does
/// not count.
fn alive(id_file: &Path) -> bool {
    let id = std::fs::read_to_string(id_file).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/stat", id.trim()));
    status.is_ok_and(|stat| !stat.contains(") Z "))
}

fn gone(id_file: &Path) -> bool {
    let started = Instant::now();
    while alive(id_file) {
        if started.elapsed() > Duration::from_secs(5) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

#[tokio::test]
async fn no_shell_reads_the_arguments_and_the_folder_counts() {
    let folder = tempfile::tempdir().unwrap();
    let hooks = Hooks::new(Duration::from_secs(20), Some(folder.path().to_owned()));
    let argv = ["touch", "a b; $HOME"].map(String::from);
    hooks.run("before", &argv, &Cancel::default()).await.unwrap();
    assert!(folder.path().join("a b; $HOME").exists());
}

#[tokio::test]
async fn a_failure_shows_the_last_lines_and_no_secret() {
    let secret = |text: &str| SecretString::from(text.to_owned());
    let hooks = hooks(20.0).for_database(&[DATABASE_URL], &secret("postgresql://u:hunter2@h/db"));
    let script = "for n in $(seq 1 50); do echo line $n; done; echo $DATABASE_URL; \
                  echo to err $(echo $DATABASE_URL | cut -c16-22) >&2; sleep 0.2; printf 'caf\\351 no end'; exit 3";
    let error = run(&hooks, script).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.message().contains("ended with exit status: 3"), "{error}");
    let causes = error.causes().join("\n");
    assert!(causes.contains("line 50") && causes.contains("no end"), "{causes}");
    assert!(!causes.contains("line 20\n"), "{causes}");
    assert!(causes.contains("to err ***") && causes.contains("\n    ***\n"), "{causes}");
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[tokio::test]
async fn what_can_not_be_started_says_so() {
    let argv = ["/no/such/program".to_owned()];
    let error = hooks(1.0).run("start", &argv, &Cancel::default()).await.unwrap_err();
    assert!(error.message().contains("start (/no/such/program) can't be started"), "{error}");
}

/// The whole group is ended, also a grandchild that ignores SIGTERM.
#[tokio::test]
async fn a_hook_that_hangs_is_ended_with_all_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let id = folder.path().join("id");
    let script = format!(
        "sh -c 'trap \"\" TERM; echo $$ > {}; while :; do sleep 0.1; done' & \
         trap 'echo asked to end; exit 1' TERM; while :; do sleep 0.1; done",
        id.display()
    );
    let started = Instant::now();
    let error = run(&hooks(0.5), &script).await.unwrap_err();
    assert!(error.message().contains("did not end within 0.5 s"), "{error}");
    assert!(error.causes().join(" ").contains("asked to end"), "{error:?}");
    assert!(started.elapsed() < TERM_GRACE, "SIGTERM was enough for the hook itself");
    assert!(gone(&id), "the grandchild runs on");
}

#[tokio::test]
async fn a_stop_and_a_drop_end_it() {
    let folder = tempfile::tempdir().unwrap();
    let id = folder.path().join("id");
    let script = format!("echo $$ > {}; exec sleep 60", id.display());
    let written = async || {
        while std::fs::read_to_string(&id).map_or(true, |text| text.is_empty()) {
            sleep(Duration::from_millis(5)).await;
        }
    };

    let cancel = Cancel::default();
    let argv = sh(&script);
    let calm = hooks(50.0);
    let (ended, ()) = tokio::join!(calm.run("migrate", &argv, &cancel), async {
        written().await;
        cancel.interrupt("interrupted by SIGINT");
    });
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Interrupted);
    assert!(gone(&id));
    // Nothing is started any more.
    std::fs::remove_file(&id).unwrap();
    assert_eq!(
        calm.run("migrate", &argv, &cancel).await.unwrap_err().kind(),
        ErrorKind::Interrupted
    );
    assert!(!id.exists());

    let other = Cancel::default();
    tokio::select! {
        _ = calm.run("migrate", &argv, &other) => panic!("it ended"),
        () = written() => {}
    }
    assert!(gone(&id), "it outlives who waited for it");
}

/// A start hook that leaves the service behind is not waited for, and the service lives.
#[tokio::test]
async fn a_daemon_survives_its_hook() {
    let folder = tempfile::tempdir().unwrap();
    let id = folder.path().join("id");
    let script = format!("sleep 60 > /dev/null 2>&1 & echo $! > {}", id.display());
    let holding = format!("sleep 60 & echo $! > {}", id.display());
    for script in [script, holding] {
        let started = Instant::now();
        run(&hooks(20.0), &script).await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(10));
        assert!(alive(&id));
        let daemon = std::fs::read_to_string(&id).unwrap();
        std::process::Command::new("kill").arg(daemon.trim()).status().unwrap();
        assert!(gone(&id));
    }
}
