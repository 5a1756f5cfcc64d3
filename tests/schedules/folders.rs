//! What `--install` and `--remove` leave alone in folders of the system.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use super::*;

/// A folder's files: their content, mode, and which file it is.
type Files = BTreeMap<PathBuf, (Vec<u8>, u32, u64)>;

fn files_in(folder: &Path) -> Files {
    let entry = |path: PathBuf| {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        (path.clone(), (std::fs::read(path).unwrap(), meta.mode(), meta.ino()))
    };
    paths_in(folder).into_iter().map(entry).collect()
}

fn names(files: &Files) -> Vec<String> {
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    files.keys().map(name).collect()
}

/// Removes a job from the config.
fn drop_job(scratch: &Scratch, n: usize) {
    scratch.edit_config(&files_job(&format!("files-{n}"), FORMS[n]), "");
}

#[tokio::test]
async fn units_of_others_stay_and_those_of_gone_jobs_go() {
    let scratch = planned();
    let units = scratch.path("units");
    // Somebody's own, under a name like ours; and what another config had installed.
    for name in ["marb-backup-own.timer", "postgresql.service"] {
        std::fs::write(units.join(name), "# by hand\n").unwrap();
    }
    std::os::unix::fs::symlink("/dev/null", units.join("marb-backup-masked.timer")).unwrap();
    let config = std::fs::read_to_string(scratch.path("marb-backup.toml")).unwrap();
    let other = config.replace("[job.", "[job.other-");
    scratch.write("other.toml", &other);
    schedule(&scratch, "systemd", &["--install", "--config", "other.toml"]).await.expect(0);
    let theirs = files_in(&units);
    assert_eq!(theirs.len(), 3 + 2 * TASKS);

    schedule(&scratch, "systemd", &["--install"]).await.expect(0);
    let all = files_in(&units);
    assert_eq!(all.len(), theirs.len() + 2 * TASKS);
    let ours: Files =
        all.clone().into_iter().filter(|(path, _)| !theirs.contains_key(path)).collect();
    assert!(ours.values().all(|(_, mode, _)| mode & 0o7777 == 0o644), "systemd reads them");
    assert!(theirs.iter().all(|(path, file)| all.get(path) == Some(file)));

    // A second time nothing is written.
    let told = schedule(&scratch, "systemd", &["--install", "--json"]).await.expect(0).json();
    assert_eq!(told["unchanged"].as_array().map(Vec::len), Some(2 * TASKS));
    assert_eq!(told["active"], false);
    assert_eq!(files_in(&units), all);

    // The job's units go with it, and nothing else changes.
    drop_job(&scratch, 3);
    let told = schedule(&scratch, "systemd", &["--install", "--json"]).await.expect(0).json();
    let gone: Vec<String> = ["backup", "verify"]
        .into_iter()
        .flat_map(|verb| {
            ["service", "timer"].map(|kind| format!("marb-backup-{verb}-files-3.{kind}"))
        })
        .collect();
    assert_eq!(told["removed"], serde_json::json!(gone));
    let mut left = all.clone();
    left.retain(|path, _| !gone.iter().any(|name| path.ends_with(name)));
    assert_eq!(files_in(&units), left);

    // All of ours, also those of a job that the config does not know any more.
    drop_job(&scratch, 4);
    let told = schedule(&scratch, "systemd", &["--remove", "--json"]).await.expect(0).json();
    assert_eq!(told["removed"].as_array().map(Vec::len), Some(2 * TASKS - gone.len()));
    assert_eq!(files_in(&units), theirs);
    schedule(&scratch, "systemd", &["--remove"]).await.expect(0);
    assert_eq!(files_in(&units), theirs);
}

#[tokio::test]
async fn a_file_that_is_not_ours_is_not_replaced() {
    let scratch = planned();
    let unit = "marb-backup-verify-files-9.timer";
    for (kind, folder, name) in [("systemd", "units", unit), ("cron", "cron.d", "marb-backup")] {
        let folder = scratch.path(folder);
        let path = folder.join(name);
        // By hand, of another config, and a link.
        let first = schedule(&scratch, kind, &["--install"]).await.expect(0);
        assert!(first.stdout.contains(&format!("wrote {}", path.display())), "{first:#?}");
        let ours = std::fs::read_to_string(&path).unwrap();
        schedule(&scratch, kind, &["--remove"]).await.expect(0);
        assert_eq!(names(&files_in(&folder)), Vec::<String>::new());
        let another = ours.replacen("marb-backup.toml\n", "marb-backup.toml.old\n", 1);
        assert_ne!(another, ours);
        for text in ["# by hand\n", &another, ""] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
            let before = files_in(&folder);
            let told = schedule(&scratch, kind, &["--install"]).await.expect(6);
            told.explains("schedule", &path.display().to_string());
            assert_eq!(files_in(&folder), before, "nothing else was written, either");
            schedule(&scratch, kind, &["--remove"]).await.expect(0);
            assert_eq!(files_in(&folder), before);
        }
        std::fs::remove_file(&path).unwrap();
        scratch.write("elsewhere", &ours);
        std::os::unix::fs::symlink(scratch.path("elsewhere"), &path).unwrap();
        schedule(&scratch, kind, &["--install"]).await.expect(6);
        schedule(&scratch, kind, &["--remove"]).await.expect(0);
        assert_eq!(names(&files_in(&folder)), [name]);
    }
}
