//! The server's folder and the files in it that only its user may read.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::Path;

use backup_core::{Error, Result};

use super::account::Account;
use super::{STAGE, cannot};

/// Makes `folder` the server's own, unless it holds something.
pub(super) fn claim_folder(folder: &Path, user: Option<Account>) -> Result<()> {
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::refused(STAGE, format!("{} is not empty", folder.display()))
            .next_step("name a folder that is empty or not there: it is removed afterwards"));
    }
    make_private_folder(folder, user)
}

pub(super) fn make_private_folder(folder: &Path, user: Option<Account>) -> Result<()> {
    fs::create_dir_all(folder)
        .and_then(|()| fs::set_permissions(folder, Permissions::from_mode(0o700)))
        .and_then(|()| user.map_or(Ok(()), |u| chown(folder, Some(u.uid), Some(u.gid))))
        .map_err(|e| cannot("make", folder, e))
}

pub(super) fn write_private(path: &Path, text: &str, user: Option<Account>) -> Result<()> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| user.map_or(Ok(()), |u| chown(path, Some(u.uid), Some(u.gid))))
        .map_err(|e| cannot("write", path, e))
}
