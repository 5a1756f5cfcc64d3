//! What a storage's listings must show.

use backup_core::{ObjectInfo, Result, Storage};

use super::{Must, require, store};

async fn list(storage: &dyn Storage, prefix: &str) -> Result<Vec<ObjectInfo>> {
    storage.list(prefix).await.must(format!("list {prefix:?}"))
}

async fn require_keys(storage: &dyn Storage, prefix: &str, wanted: &[String]) -> Result<()> {
    let listed = list(storage, prefix).await?;
    let keys: Vec<&str> = listed.iter().map(|object| object.key.as_str()).collect();
    require(keys.is_sorted(), || format!("a listing is sorted by key: {keys:?}"))?;
    let mut wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    wanted.sort_unstable();
    let missing: Vec<_> = wanted.iter().filter(|key| !keys.contains(key)).collect();
    let foreign: Vec<_> = keys.iter().filter(|key| !wanted.contains(key)).collect();
    require(keys == wanted, || {
        format!(
            "the listing of {prefix:?} shows each object in it once: \
             missing {missing:?}, not in it {foreign:?}"
        )
    })
}

/// Every key of `keys`, and no other, is listed in `folder`, as `stat` tells it.
pub(super) async fn complete(storage: &dyn Storage, folder: &str, keys: &[String]) -> Result<()> {
    require_keys(storage, folder, keys).await?;
    for object in list(storage, folder).await? {
        let stat = storage.stat(&object.key).await.must("stat a listed object")?;
        require(stat.as_ref() == Some(&object), || {
            format!("list and stat tell the same: {object:?} and {stat:?}")
        })?;
    }
    Ok(())
}

/// A prefix is a folder, and the order is that of the keys' bytes.
pub(super) async fn folders(storage: &dyn Storage, folder: &str) -> Result<()> {
    // '-' and '.' sort before '/': a walk from folder to folder gets these wrong.
    let names = ["a-b/x", "a.b", "a/b", "a/b-c", "a/b.d/e", "a/bc/d", "ab/c", "b", "B", "a b/c"];
    let keys = names.map(|name| format!("{folder}/{name}"));
    for key in keys.iter().rev() {
        store(storage, key, &[key.as_bytes()]).await?;
    }
    require_keys(storage, folder, &keys).await?;
    for (prefix, inside) in [
        ("a", &["a/b", "a/b-c", "a/b.d/e", "a/bc/d"][..]),
        ("a/b.d", &["a/b.d/e"]),
        // An object's own name is no folder with the object in it.
        ("a/b", &[]),
        ("b", &[]),
        ("never", &[]),
        ("a/b/deeper", &[]),
    ] {
        let inside: Vec<String> = inside.iter().map(|name| format!("{folder}/{name}")).collect();
        require_keys(storage, &format!("{folder}/{prefix}"), &inside).await?;
    }
    for (prefix, inside) in [
        ("", &["a", "a b", "a-b", "ab"][..]),
        ("/a", &["b.d", "bc"]),
        ("/a/b.d", &[]),
        ("/a/b", &[]),
        ("/never", &[]),
    ] {
        let prefix = format!("{folder}{prefix}");
        let folders = storage.folders(&prefix).await.must(format!("folders of {prefix:?}"))?;
        require(folders == inside, || {
            format!("the folders in {prefix:?} are {inside:?}, sorted, and not {folders:?}")
        })?;
    }
    let everything = list(storage, "").await?;
    require(keys.iter().all(|key| everything.iter().any(|object| object.key == *key)), || {
        "the listing of \"\" shows everything".into()
    })
}

/// What is being written, was aborted or was dropped is not listed.
pub(super) async fn unfinished(storage: &dyn Storage, folder: &str) -> Result<()> {
    let key = |name: &str| format!("{folder}/{name}");
    let mut open = storage.begin(&key("open")).await.must("begin")?;
    open.write(vec![1; 2_000_000].into()).await.must("write")?;
    let mut dropped = storage.begin(&key("dropped/x")).await.must("begin")?;
    dropped.write(vec![1; 2_000_000].into()).await.must("write")?;
    drop(dropped);
    let aborted = storage.begin(&key("aborted/x")).await.must("begin")?;
    aborted.abort().await.must("abort")?;
    require_keys(storage, folder, &[]).await?;
    open.commit().await.must("commit")?;
    require_keys(storage, folder, &[key("open")]).await
}
