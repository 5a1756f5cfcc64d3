//! What the conformance suites can't know: files, modes, links, foreign files.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use backup_core::{ByteRange, Creation, ErrorKind, Sink, SourceStream, Storage};
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

use super::*;

mod given_up;

fn local() -> (TempDir, Local) {
    let scratch = tempfile::tempdir().unwrap();
    let storage = Local::new("local", scratch.path().join("root")).unwrap();
    (scratch, storage)
}

async fn store(storage: &Local, key: &str, body: &[u8]) {
    let mut writer = storage.begin(key).await.unwrap();
    writer.write(body.to_vec().into()).await.unwrap();
    writer.commit().await.unwrap();
}

async fn keys(storage: &Local, prefix: &str) -> Vec<String> {
    storage.list(prefix).await.unwrap().into_iter().map(|object| object.key).collect()
}

async fn read(stream: &mut dyn SourceStream) -> Result<Vec<Bytes>> {
    let mut chunks = Vec::new();
    while let Some(chunk) = stream.next_chunk().await? {
        chunks.push(chunk);
    }
    Ok(chunks)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Every path below a folder, sorted.
fn everything(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn files_and_folders_are_private() {
    let (_scratch, storage) = local();
    store(&storage, "a/b/c", b"x").await;
    storage.create_new("a/new", "x".into()).await.unwrap();
    let open = storage.begin("a/open").await.unwrap();
    for name in everything(storage.root()) {
        let path = storage.root().join(&name);
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), wanted, "{name}");
    }
    assert_eq!(mode(storage.root()), 0o700);
    open.abort().await.unwrap();
}

#[tokio::test]
async fn aborting_and_deleting_remove_the_folders_they_leave_empty() {
    let (_scratch, storage) = local();
    store(&storage, "a/keep", b"x").await;
    storage.begin("a/b/c/d").await.unwrap().abort().await.unwrap();
    assert_eq!(everything(storage.root()), ["a", "a/keep"]);
    store(&storage, "a/b/c/d", b"x").await;
    storage.delete("a/b/c/d").await.unwrap();
    assert_eq!(everything(storage.root()), ["a", "a/keep"]);
    storage.delete("a/keep").await.unwrap();
    assert_eq!(everything(storage.root()), [""; 0]);
    assert!(storage.root().is_dir(), "the root itself stays");
}

#[tokio::test]
async fn a_crash_leaves_a_file_that_only_a_sweep_sees() {
    let (_scratch, storage) = local();
    store(&storage, "a/done", b"x").await;
    let mut writer = storage.begin("a/b/crashed").await.unwrap();
    writer.write(vec![7; 3_000_000].into()).await.unwrap();
    drop(writer);
    fs::write(storage.root().join("a/notes.partial"), "somebody's own").unwrap();
    assert_eq!(keys(&storage, "").await, ["a/done"]);

    let hour = SignedDuration::from_hours(1);
    assert_eq!(storage.sweep("", Timestamp::now() - hour).await.unwrap(), 0);
    assert_eq!(storage.sweep("other", Timestamp::now() + hour).await.unwrap(), 0);
    // A disk thread of the dropped writer may still be at its last batch.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(storage.sweep("a", Timestamp::now() + hour).await.unwrap(), 1);
    assert_eq!(everything(storage.root()), ["a", "a/done", "a/notes.partial"]);
}

#[tokio::test]
async fn a_writer_whose_file_was_swept_says_so() {
    let (_scratch, storage) = local();
    let mut writer = storage.begin("a").await.unwrap();
    writer.write("x".into()).await.unwrap();
    storage.sweep("", Timestamp::now() + SignedDuration::from_hours(1)).await.unwrap();
    let error = writer.commit().await.unwrap_err();
    assert!(error.to_string().contains("it is gone"), "{error}");
    assert_eq!(keys(&storage, "").await, [""; 0]);
}

#[tokio::test]
async fn links_are_not_followed() {
    let (scratch, storage) = local();
    let outside = scratch.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    store(&storage, "a/x", b"x").await;
    symlink(&outside, storage.root().join("folder")).unwrap();
    symlink(outside.join("secret"), storage.root().join("file")).unwrap();

    assert_eq!(keys(&storage, "").await, ["a/x"]);
    for key in ["folder/secret", "file"] {
        let refused = [
            storage.stat(key).await.map(drop),
            storage.open(key, ByteRange::ALL).await.map(drop),
            storage.begin(key).await.map(drop),
            storage.delete(key).await,
            storage.create_new(key, "x".into()).await.map(drop),
        ];
        for outcome in refused {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
            assert!(error.to_string().contains("symbolic link"), "{error}");
        }
    }
    assert_eq!(storage.list("folder").await.unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
    assert_eq!(everything(&outside), ["secret"]);
}

#[tokio::test]
async fn the_root_itself_may_be_a_link() {
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir(scratch.path().join("disk")).unwrap();
    symlink(scratch.path().join("disk"), scratch.path().join("link")).unwrap();
    let storage = Local::new("local", scratch.path().join("link")).unwrap();
    store(&storage, "a/x", b"x").await;
    assert_eq!(keys(&storage, "").await, ["a/x"]);

    fs::remove_dir_all(scratch.path().join("disk")).unwrap();
    let error = storage.list("").await.unwrap_err();
    assert!(error.to_string().contains("link to nothing"), "{error}");
    assert!(storage.begin("a").await.is_err());
}

#[tokio::test]
async fn foreign_things_are_no_objects() {
    use std::os::unix::ffi::OsStrExt;
    let (_scratch, storage) = local();
    store(&storage, "ours", b"x").await;
    fs::write(storage.root().join("theirs.dump"), "x").unwrap();
    fs::write(storage.root().join("line\nbreak"), "x").unwrap();
    fs::write(storage.root().join(std::ffi::OsStr::from_bytes(b"latin-\xe9")), "x").unwrap();
    fs::create_dir(storage.root().join("empty")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(storage.root().join("socket")).unwrap();
    assert_eq!(keys(&storage, "").await, ["ours", "theirs.dump"]);
    assert_eq!(storage.stat("socket").await.unwrap(), None);
    drop(socket);
}

#[tokio::test]
async fn a_storage_that_is_not_there_yet_is_empty_but_an_unmounted_one_is_an_error() {
    let scratch = tempfile::tempdir().unwrap();
    let fresh = Local::new("local", scratch.path().join("root")).unwrap();
    assert_eq!(keys(&fresh, "").await, [""; 0]);
    assert_eq!(fresh.stat("a").await.unwrap(), None);
    assert_eq!(fresh.open("a", ByteRange::ALL).await.err().unwrap().kind(), ErrorKind::NotFound);
    fresh.delete("a").await.unwrap();
    assert_eq!(fresh.sweep("", Timestamp::now()).await.unwrap(), 0);
    assert!(fresh.free_bytes().await.unwrap() > 0);
    assert!(!fresh.root().exists(), "looking makes nothing");

    let unmounted = Local::new("local", scratch.path().join("mnt/root")).unwrap();
    for error in [
        unmounted.list("").await.unwrap_err(),
        unmounted.stat("a").await.unwrap_err(),
        unmounted.begin("a").await.err().unwrap(),
        unmounted.create_new("a", "x".into()).await.unwrap_err(),
        unmounted.delete("a").await.unwrap_err(),
        unmounted.free_bytes().await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("mnt does not exist"), "{error}");
        assert!(error.advice().unwrap().contains("mount"), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Failed);
    }
    assert_eq!(everything(scratch.path()), [""; 0]);
}

#[tokio::test]
async fn what_is_in_the_way_is_told_at_the_beginning() {
    let (_scratch, storage) = local();
    store(&storage, "file", b"x").await;
    store(&storage, "folder/x", b"x").await;
    let long = format!("new/{}", "n".repeat(256));
    for (key, words) in [
        ("file/inside", "a file lies where a folder is needed"),
        ("folder", "a folder of that name is there"),
        (&long, "the name is too long"),
    ] {
        let error = storage.begin(key).await.err().unwrap();
        assert!(error.to_string().contains(words) && error.advice().is_some(), "{error:?}");
        let error = storage.create_new(key, "x".into()).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error:?}");
    }
    assert_eq!(everything(storage.root()), ["file", "folder", "folder/x"]);
    fs::write(storage.root().parent().unwrap().join("plain"), "x").unwrap();
    let on_a_file = Local::new("local", storage.root().parent().unwrap().join("plain")).unwrap();
    assert!(on_a_file.list("").await.unwrap_err().to_string().contains("a file lies"));
}

#[tokio::test]
async fn reading_comes_in_chunks_and_notices_a_file_that_shrank() {
    let (_scratch, storage) = local();
    let body: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    store(&storage, "big", &body).await;
    let mut stream = storage.open("big", ByteRange::ALL).await.unwrap();
    let chunks = read(stream.as_mut()).await.unwrap();
    assert!(chunks.iter().all(|chunk| chunk.len() <= CHUNK_BYTES));
    assert_eq!(chunks.concat(), body);

    let mut stream = storage.open("big", ByteRange::ALL).await.unwrap();
    stream.next_chunk().await.unwrap();
    let file = fs::OpenOptions::new().write(true).open(storage.root().join("big")).unwrap();
    file.set_len(3_000_000).unwrap();
    let error = read(stream.as_mut()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
}

#[tokio::test]
async fn tiny_chunks_do_not_pile_up() {
    let (_scratch, storage) = local();
    let mut writer = storage.begin("tiny").await.unwrap();
    for _ in 0..10_000 {
        writer.write("x".into()).await.unwrap();
    }
    let committed = writer.commit().await.unwrap();
    assert_eq!(committed.bytes, 10_000);
}

/// Begins, commits, aborts and deletes in the same folders at once: folders come and go under
/// everybody's feet, yet no operation fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_may_come_and_go() {
    let (_scratch, storage) = local();
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let storage = storage.clone();
            tokio::spawn(async move {
                for round in 0..60 {
                    let key = format!("a/b/c{}/{task}", round % 2);
                    match (task + round) % 4 {
                        0 => storage.begin(&key).await?.abort().await?,
                        1 => drop(storage.create_new(&key, "x".into()).await?),
                        2 => drop(storage.begin(&key).await?.commit().await?),
                        _ => drop(storage.list("a").await?),
                    }
                    storage.delete(&key).await?;
                }
                Ok::<(), Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(everything(storage.root()), [""; 0]);
}

/// The folder of a storage appears between two looks at it, again and again.
#[test]
fn many_may_be_the_first() {
    for _ in 0..300 {
        let scratch = tempfile::tempdir().unwrap();
        let place = Place::new("storage x".into(), scratch.path().join("root"));
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    place.draft("a/b").unwrap();
                });
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_racers_one_creates_and_none_sees_half() {
    let (_scratch, storage) = local();
    for round in 0..20 {
        let key = format!("claims/{round}");
        let tasks: Vec<_> = (0..8_u8)
            .map(|racer| {
                let (storage, key) = (storage.clone(), key.clone());
                tokio::spawn(async move {
                    let made = storage.create_new(&key, vec![racer; 10_000].into()).await.unwrap();
                    let mut stream = storage.open(&key, ByteRange::ALL).await.unwrap();
                    let seen = read(stream.as_mut()).await.unwrap().concat();
                    assert!(seen.len() == 10_000 && seen.iter().all(|byte| *byte == seen[0]));
                    (made == Creation::Created).then_some((racer, seen[0]))
                })
            })
            .collect();
        let mut winners = Vec::new();
        for task in tasks {
            winners.extend(task.await.unwrap());
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(winners[0].0, winners[0].1, "the winner's own bytes are there");
    }
    assert!(everything(storage.root()).iter().all(|name| !name.ends_with(".partial")));
}

#[test]
fn relative_and_root_folders_are_refused() {
    for bad in ["backups", "./backups", "", "/", "/.."] {
        assert_eq!(Local::new("x", bad).unwrap_err().kind(), ErrorKind::Usage, "{bad}");
    }
    let error = Local::from_url("offsite", "s3://bucket").unwrap_err();
    assert_eq!((error.kind(), error.stage()), (ErrorKind::Usage, "storage offsite"));
    assert!(error.advice().is_some());
}
