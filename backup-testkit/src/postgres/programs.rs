//! Which PostgreSQL programs this machine has, from the list that `cargo xtask setup` writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backup_core::{Error, Result};

use super::STAGE;

/// The versions marb-backup supports, and containers are had of.
#[cfg(feature = "containers")]
const SUPPORTED: [u32; 5] = [14, 15, 16, 17, 18];

#[derive(serde::Deserialize)]
struct Listed {
    major: u32,
    bin: PathBuf,
    clients: bool,
}

/// The versions [`PostgresServer::start`](super::PostgresServer::start) can start here.
pub async fn majors() -> Vec<u32> {
    #[cfg(feature = "containers")]
    if super::container::wanted().await {
        return SUPPORTED.to_vec();
    }
    listed().into_keys().collect()
}

/// The folder of pg_dump, psql and the other clients of version `major`, where there is one.
pub fn client_tools(major: u32) -> Option<PathBuf> {
    listed().remove(&major).filter(|found| found.clients).map(|found| found.bin)
}

pub(super) fn server_programs(major: u32) -> Result<PathBuf> {
    listed().remove(&major).map(|found| found.bin).ok_or_else(|| {
        Error::failed(STAGE, format!("no PostgreSQL {major} on this machine"))
            .next_step("run `cargo xtask setup`")
    })
}

/// The newest psql: it speaks to every server.
pub(super) fn psql() -> PathBuf {
    let newest = listed().into_values().rfind(|found| found.clients);
    newest.map_or_else(|| "psql".into(), |found| found.bin.join("psql"))
}

/// What the list says and still is there; without a list what the system's packages brought.
fn listed() -> BTreeMap<u32, Listed> {
    let path = std::env::var_os("MARB_TEST_SERVERS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/servers.json"),
        PathBuf::from,
    );
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let list: Vec<Listed> = serde_json::from_str(&text).unwrap_or_else(|_| of_the_system());
    let there = list.into_iter().filter(|found| found.bin.join("initdb").exists());
    there.map(|found| (found.major, found)).collect()
}

fn of_the_system() -> Vec<Listed> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions
        .filter_map(|entry| {
            let bin = entry.path().join("bin");
            let major = entry.file_name().to_str()?.parse().ok()?;
            Some(Listed { major, clients: bin.join("pg_dump").exists(), bin })
        })
        .collect()
}
