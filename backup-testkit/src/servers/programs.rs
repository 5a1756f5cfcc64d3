//! Where the servers' programs are, from the list that `cargo xtask setup` writes.

use std::path::{Path, PathBuf};

use backup_core::Result;

use super::cannot;

/// The list; what this machine has not is absent.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Programs {
    weed: Option<PathBuf>,
    node: Option<PathBuf>,
    azurite: Option<PathBuf>,
    fake_gcs: Option<PathBuf>,
    sshd: Option<PathBuf>,
    pam_wrapper: Option<PathBuf>,
    pam_matrix: Option<PathBuf>,
}

impl Programs {
    /// What the list says; every program is absent without one.
    pub(super) fn listed() -> Self {
        let path = std::env::var_os("MARB_TEST_STORAGE_SERVERS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/storage-servers.json"),
            PathBuf::from,
        );
        let text = std::fs::read_to_string(path).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// SeaweedFS.
    pub(super) fn weed(self) -> Result<PathBuf> {
        there(self.weed, "SeaweedFS")
    }

    /// Node.js and Azurite's script for blobs.
    pub(super) fn azurite(self) -> Result<(PathBuf, PathBuf)> {
        Ok((there(self.node, "Node.js")?, there(self.azurite, "Azurite")?))
    }

    pub(super) fn fake_gcs(self) -> Result<PathBuf> {
        there(self.fake_gcs, "fake-gcs-server")
    }

    pub(super) fn sshd(&self) -> Result<PathBuf> {
        there(self.sshd.clone(), "sshd")
    }

    /// The library that gives sshd passwords of its own, and the module that knows them.
    pub(super) fn password_login(self) -> Result<(PathBuf, PathBuf)> {
        Ok((there(self.pam_wrapper, "pam_wrapper")?, there(self.pam_matrix, "pam_matrix")?))
    }
}

fn there(program: Option<PathBuf>, name: &str) -> Result<PathBuf> {
    program.filter(|path| path.exists()).ok_or_else(|| {
        cannot(format!("{name} is not on this machine")).next_step("run `cargo xtask setup`")
    })
}
