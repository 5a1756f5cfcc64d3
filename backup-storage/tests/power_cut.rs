//! What survives a power cut: the order in which bytes and names reach the disk, read from the
//! system calls that the storage really makes.
#![cfg(all(feature = "local", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::process::Command;

use backup_core::{Creation, Sink, Storage};
use backup_storage::Local;

const FOLDER: &str = "BACKUP_STORAGE_TEST_TRACED_FOLDER";
/// Calls that change what is on the disk, or bring it there.
const CALLS: &str = "write,fsync,fdatasync,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,\
                     unlink,unlinkat";

/// What the traced child does.
async fn work(folder: &Path) {
    let storage = Local::new("local", folder.join("root")).unwrap();
    let mut writer = storage.begin("a/b/object").await.unwrap();
    for _ in 0..5 {
        writer.write(vec![1; 700_000].into()).await.unwrap();
    }
    writer.commit().await.unwrap();
    let created = storage.create_new("a/claim", "ours".into()).await.unwrap();
    assert_eq!(created, Creation::Created);
    storage.delete("a/claim").await.unwrap();
}

/// The calls of the child, in order, one line each, with the paths behind file descriptors.
struct Trace(Vec<String>);

impl Trace {
    fn first(&self, from: usize, call: &str, about: &str) -> usize {
        let wanted = |line: &String| line.contains(&format!("{call}(")) && line.contains(about);
        from + self.0[from..].iter().position(wanted).unwrap_or_else(|| {
            panic!("no {call} of {about} after line {from} of:\n{}", self.0.join("\n"))
        })
    }

    fn last(&self, call: &str, about: &str) -> usize {
        let wanted = |line: &String| line.contains(&format!("{call}(")) && line.contains(about);
        self.0.iter().rposition(wanted).unwrap_or_else(|| panic!("no {call} of {about}"))
    }
}

#[test]
fn bytes_come_to_the_disk_before_names_and_names_before_the_answer() {
    if let Ok(folder) = std::env::var(FOLDER) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        return runtime.block_on(work(Path::new(&folder)));
    }
    let scratch = tempfile::tempdir().unwrap();
    let log = scratch.path().join("trace");
    let name = "bytes_come_to_the_disk_before_names_and_names_before_the_answer";
    let traced = Command::new("strace")
        .args(["-f", "-y", "-s", "0", "-e", &format!("trace={CALLS}"), "-o"])
        .arg(&log)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(FOLDER, scratch.path())
        .output();
    match traced {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => return eprintln!("SKIPPED: no strace to look with ({error})"),
    }
    let text = std::fs::read_to_string(log).unwrap();
    let trace = Trace(text.lines().map(str::to_owned).collect());
    let folder = |name: &str| format!("{}{name}>", scratch.path().display());

    // The object: its bytes, then every folder around it, then its name, then that name.
    let written = trace.last("write", "/a/b/object.");
    let bytes_safe = trace.first(written, "fsync", "/a/b/object.");
    let renamed = trace.first(bytes_safe, "rename", "/a/b/object.");
    for around in ["/root/a/b", "/root/a", "/root", ""] {
        let synced = trace.first(bytes_safe, "fsync", &folder(around));
        assert!(synced < renamed, "{around:?} must be safe before the object is visible");
    }
    let name_safe = trace.first(renamed, "fsync", &folder("/root/a/b"));

    // The claim: as durable, and before anybody can see it.
    let written = trace.first(name_safe, "write", "/a/claim.");
    let bytes_safe = trace.first(written, "fsync", "/a/claim.");
    let named = trace.first(bytes_safe, "renameat2", "/a/claim\"");
    assert!(trace.0[named].contains("RENAME_NOREPLACE"), "{}", trace.0[named]);
    let name_safe = trace.first(named, "fsync", &folder("/root/a"));

    // The deletion: a manifest that comes back would promise parts that are gone.
    let removed = trace.first(name_safe, "unlink", "/a/claim\"");
    trace.first(removed, "fsync", &folder("/root/a"));
}
