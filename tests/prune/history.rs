//! Years of backups in a moment: a real one, planted under other ids.

use std::sync::Arc;

use backup_core::{BackupId, Catalog, Digest, Manifest, Storage, StoredObject, layout, read_small};
use backup_storage::Local;
use bytes::Bytes;
use jiff::SignedDuration;

use crate::rig::JOB;
use crate::support::Scratch;

/// Switches off what a retention keeps by default.
pub const NO_SLOTS: &str = "keep_daily = 0\nkeep_weekly = 0\nkeep_monthly = 0\nkeep_yearly = 0\n";

/// The storage `local` of a scratch.
pub fn local(scratch: &Scratch) -> Arc<dyn Storage> {
    let url = format!("file://{}", scratch.path("backups").display());
    Arc::new(Local::from_url("local", &url).unwrap())
}

/// The list of checksums with another manifest.
fn sums_with(sums: &[u8], manifest: &[u8]) -> Vec<u8> {
    let sums = std::str::from_utf8(sums).unwrap();
    let lines = sums.lines().map(|line| match line.ends_with(layout::MANIFEST) {
        true => format!("{}  {}\n", Digest::of(manifest).sha256, layout::MANIFEST),
        false => format!("{line}\n"),
    });
    lines.collect::<String>().into_bytes()
}

/// Plants the newest backup of a storage again under ids so many hours before it, its manifest
/// changed by `edit`. Each of them is listed and complete; their signatures do not fit. Returns their ids, the oldest
/// first.
pub async fn plant(
    storage: &Arc<dyn Storage>,
    hours: impl IntoIterator<Item = i64>,
    edit: impl Fn(&mut Manifest),
) -> Vec<String> {
    let catalog = Catalog::load(&[Arc::clone(storage)], Some(JOB)).await;
    let seed = catalog.backups.last().expect("there is no backup to plant");
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for object in storage.list(&seed.folder()).await.unwrap() {
        let name = object.key.strip_prefix(&format!("{}/", seed.folder())).unwrap().to_owned();
        if name != layout::MANIFEST && !layout::is_passing(&object.key) {
            let stored = StoredObject::unchecked(Arc::clone(storage), &object.key);
            files.push((name, read_small(&stored).await.unwrap()));
        }
    }
    let mut planted = Vec::new();
    for hours in hours {
        let started = seed.id.started() - SignedDuration::from_hours(hours);
        let id = BackupId::new(started, 1);
        let mut manifest = seed.manifest.clone();
        (manifest.id, manifest.started) = (id.to_string(), started);
        edit(&mut manifest);
        let manifest = (layout::MANIFEST.to_owned(), manifest.to_json().unwrap());
        for (name, body) in files.iter().chain([&manifest]) {
            let body = match name.as_str() {
                layout::SHA256SUMS => &sums_with(body, &manifest.1),
                _ => body,
            };
            let key = format!("{}/{name}", id.folder(JOB));
            let mut writer = storage.begin(&key).await.unwrap();
            writer.write(Bytes::from(body.clone())).await.unwrap();
            writer.commit().await.unwrap();
        }
        planted.push(id.to_string());
    }
    planted.sort();
    planted
}
