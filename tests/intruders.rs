//! Somebody else's manifest, written where ours was about to go: it is not ours to remove.

use std::sync::Arc;

use backup_core::{Error, ErrorKind, Storage, layout};
use backup_testkit::{Call, Intercepted, Memory};

use crate::copies::{backed_up, copy_to};
use crate::rig::{memory, plan_at, run_quietly};

pub const FOREIGN: &str = "another backup's";

/// A storage in which another writes the manifest just before us; `blind`, it can't be read then.
pub fn intruded(memory: &Arc<Memory>, blind: bool) -> Intercepted {
    let inside = memory.clone();
    Intercepted::new(memory.clone()).before(move |call, key| {
        if call == Call::CreateNew && key.ends_with(layout::MANIFEST) {
            inside.plant(key, FOREIGN);
        }
        if blind && call == Call::Open && key.ends_with(layout::MANIFEST) {
            return Err(Error::failed("storage", "can't be read"));
        }
        Ok(())
    })
}

/// A storage in which another removes the manifest as soon as a part is begun.
fn pruned(memory: &Arc<Memory>) -> Intercepted {
    let inside = memory.clone();
    Intercepted::new(memory.clone()).before(move |call, key| {
        if call == Call::Begin {
            let folder = key.rsplit_once('/').unwrap().0;
            inside.remove(&format!("{folder}/{}", layout::MANIFEST));
        }
        Ok(())
    })
}

#[tokio::test]
async fn a_backup_leaves_what_may_be_somebody_elses() {
    for blind in [false, true] {
        let memory = memory("memory");
        let intruded: Arc<dyn Storage> = Arc::new(intruded(&memory, blind));
        // Reading is tried again, with pauses.
        tokio::time::pause();
        let started = "2026-11-20T02:00:00Z".parse().unwrap();
        run_quietly(plan_at(started, vec![intruded])).await.unwrap_err();
        tokio::time::resume();
        let manifest = memory.keys().into_iter().find(|key| key.ends_with(layout::MANIFEST));
        let manifest = manifest.expect("the other's manifest was removed");
        assert_eq!(memory.object(&manifest).unwrap(), FOREIGN, "blind: {blind}");
    }
}

/// A prune of another host takes a copy away while what it lacks is brought: what stays is no
/// backup, and that is said.
#[tokio::test]
async fn a_listed_copy_that_is_removed_meanwhile_is_no_success() {
    let (from, entry) = backed_up().await;
    let to = memory("to");
    copy_to(&entry, &from, to.clone()).await.unwrap();
    to.delete(&entry.key(&entry.manifest.parts[0].file)).await.unwrap();
    let error = copy_to(&entry, &from, Arc::new(pruned(&to))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
}
