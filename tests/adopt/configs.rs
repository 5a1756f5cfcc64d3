//! Archives of configuration files, made by stock tar, gzip and gpg, become backups of a job of
//! files: listed, verified, restored, kept by its retention.

use std::path::Path;

use serde_json::Value;

use super::{Old, fates};
use crate::prune::history::NO_SLOTS;
use crate::support::{Finished, PASSPHRASE};

/// The old scripts' archives: name, and the pipe behind tar that made them.
const CONFIGS: [(&str, &str); 5] = [
    ("config_backup_20260104_030000.tar", "cat"),
    ("config_backup_20260105_030000.tar.gz", "gzip"),
    ("config_backup_20260106_030000.tar.gpg.gz", "$GPG | gzip"),
    ("config_backup_20260107_030000.tar.gz.gpg", "gzip | $GPG"),
    ("config_backup_20260108_030000.tar.gpg", "$GPG"),
];
/// Three o'clock in Berlin, in winter.
const IDS: [&str; 5] = [
    "20260104T020000Z",
    "20260105T020000Z",
    "20260106T020000Z",
    "20260107T020000Z",
    "20260108T020000Z",
];
/// What was backed up, below the scratch.
const ENV: &str = "opt/marb2.0/.env";
const SITE: &str = "etc/nginx/sites-available/marb2.0";
const ENABLED: &str = "etc/nginx/sites-enabled/marb2.0";

/// The old scripts' dumps and archives, and a job for each kind.
async fn old() -> Old {
    let old = Old::new().await;
    let job = "[job.config]\nfiles = { paths = ['/etc/hostname'] }\nstorages = ['local']\n";
    old.scratch.edit_config("[job.database]", &format!("{job}[job.database]"));
    for (path, content) in [(ENV, "SECRET=sehr-geheim-42\n"), (SITE, "server {}\n")] {
        let path = old.scratch.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let enabled = old.scratch.path(ENABLED);
    std::fs::create_dir_all(enabled.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("../sites-available/marb2.0", enabled).unwrap();
    for (name, pipe) in CONFIGS {
        write(&old, name, pipe).await;
    }
    let meta = format!("{}.meta", CONFIGS[1].0);
    std::fs::write(old.file(&meta), "type=config\n").unwrap();
    old
}

/// As they did, with overlapping arguments: stock tar stores the second as another name.
async fn write(old: &Old, name: &str, pipe: &str) {
    old.shell(&format!("tar -cf - opt etc {ENV} | {pipe} > old/{name}")).await;
}

async fn adopt(old: &Old, more: &[&str]) -> Finished {
    old.adopt(&[&["--files-job", "config"], more].concat()).await
}

async fn listed(old: &Old, job: &str) -> Vec<String> {
    let listed = old.scratch.run(&["list", "--job", job, "--json"]).await.expect(0).json();
    let backups = listed["backups"].as_array().unwrap();
    backups.iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
}

fn folder(old: &Old, id: &str) -> std::path::PathBuf {
    old.scratch.path("backups/config").join(&id[..4]).join(&id[4..6]).join(id)
}

fn assert_restored(to: &Path) {
    let read = |path: &str| std::fs::read_to_string(to.join(path)).unwrap();
    assert_eq!((&*read(ENV), &*read(SITE)), ("SECRET=sehr-geheim-42\n", "server {}\n"));
    let enabled = std::fs::read_link(to.join(ENABLED)).unwrap();
    assert_eq!(enabled, Path::new("../sites-available/marb2.0"));
}

#[tokio::test]
async fn old_archives_of_files_become_backups_that_verify_and_restore() {
    let old = old().await;
    let originals = old.originals();
    assert_eq!(fates(&adopt(&old, &[]).await.expect(0).json()), ["whole"; 9]);
    assert!(old.scratch.listed().await.is_empty());

    let adopted = adopt(&old, &["--apply"]).await.expect(0).json();
    assert_eq!(fates(&adopted), ["adopted"; 9]);
    assert_eq!(listed(&old, "config").await, IDS);
    assert_eq!(listed(&old, "database").await.len(), 4);
    assert_eq!(old.originals(), originals, "the originals are untouched");
    assert_eq!(fates(&adopt(&old, &["--apply"]).await.expect(0).json()), ["there"; 9]);

    let order: [&[&str]; 5] =
        [&[], &["gzip"], &["openpgp", "gzip"], &["gzip", "openpgp"], &["openpgp"]];
    for (number, id) in IDS.iter().enumerate() {
        let name = CONFIGS[number].0;
        let manifest = std::fs::read(folder(&old, id).join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let part = &manifest["parts"][0];
        assert_eq!(part["transforms"], serde_json::json!(order[number]), "{manifest:#}");
        assert_eq!((&part["file"], &part["role"]), (&name.into(), &"files".into()));
        let stored = std::fs::read(folder(&old, id).join(name)).unwrap();
        assert_eq!(stored, std::fs::read(old.file(name)).unwrap(), "byte for byte");

        old.scratch.run(&["verify", id, "--job", "config"]).await.expect(0);
        let to = old.scratch.path(&format!("to-{number}"));
        let into = to.display().to_string();
        old.scratch.run(&["restore", id, "--job", "config", "--into", &into]).await.expect(0);
        assert_restored(&to);
    }
    let shown = old.scratch.run(&["show", IDS[2], "--contents"]).await.expect(0).stdout;
    for told in ["Files       of an unknown host", "etc/nginx/sites-available/marb2.0", ".env"] {
        assert!(shown.contains(told), "{told}: {shown}");
    }
    let meta = ["cat", IDS[1], "config_backup_20260105_030000.tar.meta", "--job", "config"];
    assert_eq!(old.scratch.run(&meta).await.expect(0).stdout, "type=config\n");

    // One file, by its name.
    let into = old.scratch.path("one").display().to_string();
    let one = ["restore", IDS[3], "--job", "config", "--into", &into, "--path", "*.env"];
    old.scratch.run(&one).await.expect(0);
    assert!(old.scratch.path("one").join(ENV).exists());
    assert!(!old.scratch.path("one/etc").exists());

    // By hand: the commands of RESTORE.md, as they stand.
    let note = std::fs::read_to_string(folder(&old, IDS[2]).join("RESTORE.md")).unwrap();
    let blocks = note.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let script: String = blocks.collect();
    let below = folder(&old, IDS[2]).display().to_string();
    old.shell(&format!("export PASSPHRASE_FILE=$PWD/key; cd {below}; {script}")).await;
    assert_restored(&folder(&old, IDS[2]).join("restored-files"));
}

/// `tar -C FOLDER` leaves no trace of the folder: the names may have begun anywhere.
#[tokio::test]
async fn they_do_not_go_where_nobody_knows_that_they_were() {
    const CAUSE: &str = "nobody knows which folder its names began in";
    let old = old().await;
    old.shell(&format!("tar -C opt/marb2.0 -czf old/{} .env", CONFIGS[1].0)).await;
    for (number, (name, _)) in CONFIGS.iter().enumerate() {
        if number != 1 {
            std::fs::remove_file(old.file(name)).unwrap();
        }
    }
    adopt(&old, &["--apply"]).await.expect(0);
    // One that this would do nothing to: if it is not refused, it finds nothing.
    let in_place = ["restore", IDS[1], "--job", "config", "--in-place", "--path", "/none"];
    for more in [&[][..], &["--dry-run"]] {
        let refused = old.scratch.run(&[&in_place[..], more].concat()).await;
        refused.expect(6).explains("restore", CAUSE);
    }

    // Nor with a recovery, which does nothing else before.
    let root = old.scratch.path("root");
    std::fs::create_dir(&root).unwrap();
    let (tree, out) = (root.display().to_string(), old.scratch.path("out").display().to_string());
    let recover = ["recover", "--job", "config", "--yes"];
    for more in [&[][..], &["--dry-run"]] {
        let in_place = ["--in-place", "--root", &tree];
        let refused = old.scratch.run(&[&recover, &in_place[..], more].concat()).await;
        refused.expect(6).explains("recover", CAUSE);
    }
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
    let into = [&recover, &["--config-out", &out][..]].concat();
    old.scratch.run(&into).await.expect(0);
    let restored = std::fs::read_to_string(old.scratch.path("out/.env")).unwrap();
    assert_eq!(restored, "SECRET=sehr-geheim-42\n");
}

#[tokio::test]
async fn retention_covers_them_and_the_job_goes_on() {
    let old = old().await;
    let retention = format!("[job.config.retention]\nkeep_last = 3\n{NO_SLOTS}[job.database]");
    old.scratch.edit_config("[job.database]", &retention);
    adopt(&old, &["--apply"]).await.expect(0);
    let pruned = old.scratch.run(&["prune", "config", "--apply"]).await.expect(0);
    assert!(pruned.stdout.contains("local: 2 backups removed"), "{}", pruned.stdout);
    assert_eq!(listed(&old, "config").await, IDS[2..]);
    // A backup of its own, which prunes behind itself.
    old.scratch.run(&["backup", "config"]).await.expect(0);
    let left = listed(&old, "config").await;
    assert_eq!((left.len(), &left[..2]), (3, &[IDS[3].to_owned(), IDS[4].to_owned()][..]));
    assert_eq!(listed(&old, "database").await.len(), 4, "the dumps are another job's");
}

#[tokio::test]
async fn without_a_job_for_them_they_are_named_and_the_dumps_are_taken() {
    let old = old().await;
    let done = old.adopt(&["--apply"]).await.expect(3);
    let wanted: Vec<&str> = [["adopted"; 4].as_slice(), &["failed"; 5]].concat();
    assert_eq!(fates(&done.json()), wanted);
    for (name, _) in CONFIGS {
        assert!(done.stderr.contains(&format!("failed: {name}: ")), "{}", done.stderr);
    }
    assert!(done.stderr.contains("--files-job NAME"), "{}", done.stderr);
    assert_eq!(listed(&old, "database").await.len(), 4);
    assert!(listed(&old, "config").await.is_empty());

    // Neither the dumps' job nor another one with a database is a place for them.
    let same = ["--files-job", "database", "--apply"];
    old.adopt(&same).await.expect(2).explains("adopt", "is that of a database");
}

#[tokio::test]
async fn damage_is_found_before_and_after() {
    let old = old().await;
    for number in [0, 1, 2] {
        let cut = old.file(CONFIGS[number].0);
        let bytes = std::fs::read(&cut).unwrap();
        std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    }
    std::fs::write(old.file(CONFIGS[4].0), "no archive\n").unwrap();
    let done = adopt(&old, &["--apply"]).await.expect(4);
    let wanted = [["adopted"; 4].as_slice(), &["failed"; 3], &["adopted", "failed"]].concat();
    assert_eq!(fates(&done.json()), wanted);
    assert_eq!(listed(&old, "config").await, [IDS[3]]);

    write(&old, CONFIGS[0].0, CONFIGS[0].1).await;
    adopt(&old, &["--apply"]).await.expect(4);
    assert_eq!(listed(&old, "config").await, [IDS[0], IDS[3]]);
    // Inside a tar archive without checksums the digest tells; around one that has, all does.
    for id in [IDS[0], IDS[3]] {
        let number = IDS.iter().position(|other| *other == id).unwrap();
        let stored = folder(&old, id).join(CONFIGS[number].0);
        let mut bytes = std::fs::read(&stored).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&stored, bytes).unwrap();
        old.scratch.run(&["verify", id, "--job", "config"]).await.expect(4);
        let into = old.scratch.path("damaged").display().to_string();
        let restore = ["restore", id, "--job", "config", "--into", &into];
        old.scratch.run(&restore).await.expect(4);
        assert!(!old.scratch.path("damaged").exists());
    }
}

/// Nothing is called taken over that a restore would refuse.
#[tokio::test]
async fn one_with_a_name_below_a_link_is_named_and_stays() {
    const CAUSE: &str = "lies below \"opt/current\", which is no folder in the archive";
    let old = old().await;
    let name = CONFIGS[1].0;
    let script = "ln -s marb2.0 opt/current; tar -czf - opt opt/current/.env";
    old.shell(&format!("{script} > old/{name}")).await;
    let done = adopt(&old, &["--apply"]).await.expect(3);
    assert!(done.stderr.contains(&format!("failed: {name}: ")), "{}", done.stderr);
    assert!(done.stderr.contains(CAUSE), "{}", done.stderr);
    assert_eq!(listed(&old, "config").await, [IDS[0], IDS[2], IDS[3], IDS[4]]);
    let file = old.file(name).display().to_string();
    old.scratch.run(&["verify", &file]).await.expect(8).explains("tar", CAUSE);
}

/// Its archive is stock tar's under any key.
#[tokio::test]
async fn one_that_is_encrypted_anew_is_read_as_before() {
    let old = old().await;
    for (name, _) in old.originals() {
        if name != CONFIGS[3].0 {
            std::fs::remove_file(old.file(&name)).unwrap();
        }
    }
    adopt(&old, &["--apply"]).await.expect(0);
    old.scratch.write("old-key", &format!("{PASSPHRASE}\n"));
    old.scratch.write("key", "another passphrase\n");
    let rekey = ["rekey", "--all", "--old-passphrase-file", "old-key"];
    old.scratch.run(&rekey).await.expect(0);
    let id = format!("{}-2", IDS[3]);
    assert_eq!(listed(&old, "config").await, [id.as_str()]);
    old.scratch.run(&["verify", &id]).await.expect(0);
    let into = old.scratch.path("to").display().to_string();
    old.scratch.run(&["restore", &id, "--into", &into]).await.expect(0);
    assert_restored(&old.scratch.path("to"));
}
