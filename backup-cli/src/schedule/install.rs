//! Puts files of ours into a folder of the system's, and takes them away again. What is not ours
//! is left alone: the first line says whose a file is.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use backup_core::{Error, Result};

/// How the first line of our files begins.
pub const MARK: &str = "# Written by marb-backup schedule for ";
/// Rights of the files: the system's programs read them, and no secret is in them.
const MODE: u32 = 0o644;
/// Most of a file that is read to see whose it is, in bytes.
const HEADER_BYTES: usize = 8 * 1024;

/// What was done, by file names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// New, or with another content.
    pub written: Vec<String>,
    /// Were there already.
    pub unchanged: Vec<String>,
    /// Ours, and not wanted any more.
    pub removed: Vec<String>,
}

/// The first line of files for a configuration.
pub(super) fn header(config: &Path) -> String {
    format!("{MARK}{}", config.display())
}

/// Makes a folder hold these files (name and text) for a configuration, and removes others of
/// the same configuration. Each file is replaced at once.
///
/// # Errors
/// [`ErrorKind::Refused`](backup_core::ErrorKind::Refused), with nothing changed, when a file of
/// that name is not ours; or when the folder can't be written to.
pub fn install(folder: &Path, files: &[(String, String)], config: &Path) -> Result<Changes> {
    for (name, _) in files {
        let path = folder.join(name);
        if std::fs::symlink_metadata(&path).is_ok() && !is_ours(&path, config) {
            return Err(Error::refused(
                "schedule",
                format!("{} is not what this program wrote for this config", path.display()),
            )
            .next_step(
                "look at its first line, and move it away or remove it with its own config",
            ));
        }
    }
    let mut changes = Changes::default();
    for (name, text) in files {
        let path = folder.join(name);
        if std::fs::read(&path).is_ok_and(|present| present == text.as_bytes()) {
            changes.unchanged.push(name.clone());
            continue;
        }
        replace(folder, &path, text).map_err(|e| unusable(&path, "can't be written", e))?;
        changes.written.push(name.clone());
    }
    let wanted = |name: &str| files.iter().any(|(file, _)| file == name);
    changes.removed = remove_ours(folder, config, |name| !wanted(name))?;
    sync(folder)?;
    Ok(changes)
}

/// Removes every file of ours for a configuration; gives their names.
///
/// # Errors
/// When the folder can't be read or written to.
pub fn remove(folder: &Path, config: &Path) -> Result<Vec<String>> {
    let removed = remove_ours(folder, config, |_| true)?;
    sync(folder)?;
    Ok(removed)
}

/// Names of our files for a configuration that are in a folder.
///
/// # Errors
/// When the folder can't be read.
pub fn present(folder: &Path, config: &Path) -> Result<Vec<String>> {
    let failed = |e| unusable(folder, "can't be read", e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with("marb-backup") && is_ours(&entry.path(), config) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn remove_ours(folder: &Path, config: &Path, which: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let mut names = present(folder, config)?;
    names.retain(|name| which(name));
    for name in &names {
        let path = folder.join(name);
        std::fs::remove_file(&path).map_err(|e| unusable(&path, "can't be removed", e))?;
    }
    Ok(names)
}

/// Whether a file is a plain one whose first line is ours for this configuration.
fn is_ours(path: &Path, config: &Path) -> bool {
    use std::io::Read;
    if !std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file()) {
        return false;
    }
    let mut start = Vec::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(HEADER_BYTES as u64).read_to_end(&mut start));
    let first = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    read.is_ok() && first == header(config).as_bytes()
}

fn replace(folder: &Path, path: &PathBuf, text: &str) -> std::io::Result<()> {
    // systemd and cron take no notice of such a name.
    let mut file = tempfile::Builder::new().prefix(".marb-backup-").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(MODE))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error).map(drop)
}

fn sync(folder: &Path) -> Result<()> {
    let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|e| unusable(folder, "can't be synced", e))
}

fn unusable(path: &Path, what: &str, cause: std::io::Error) -> Error {
    Error::failed("schedule", format!("{} {what}", path.display()))
        .next_step("run it as root, or name another folder")
        .caused_by(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, config: &Path, text: &str) -> (String, String) {
        (name.to_owned(), format!("{}\n{text}", header(config)))
    }

    #[test]
    fn only_what_is_ours_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (Path::new("/a.toml"), Path::new("/b.toml"));
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("marb-backup-own.timer"), "somebody's").unwrap();
        let foreign = [file("marb-backup-x.timer", theirs, "t")];
        install(folder.path(), &foreign, theirs).unwrap();

        let first =
            [file("marb-backup-1.timer", ours, "1"), file("marb-backup-2.timer", ours, "2")];
        let changes = install(folder.path(), &first, ours).unwrap();
        assert_eq!(changes.written.len(), 2);
        let second = [file("marb-backup-1.timer", ours, "1")];
        let changes = install(folder.path(), &second, ours).unwrap();
        assert_eq!(changes.unchanged, ["marb-backup-1.timer"]);
        assert_eq!(changes.removed, ["marb-backup-2.timer"]);

        for name in ["marb-backup-own.timer", "marb-backup-x.timer"] {
            let both = [file("marb-backup-new.timer", ours, ""), file(name, ours, "")];
            let error = install(folder.path(), &both, ours).unwrap_err();
            assert_eq!(error.kind(), backup_core::ErrorKind::Refused);
            assert!(!path("marb-backup-new.timer").exists(), "nothing was changed");
        }
        std::os::unix::fs::symlink(path("marb-backup-1.timer"), path("marb-backup-l.timer"))
            .unwrap();
        assert_eq!(remove(folder.path(), ours).unwrap(), ["marb-backup-1.timer"]);
        assert!(path("marb-backup-own.timer").exists() && path("marb-backup-x.timer").exists());
        assert!(std::fs::symlink_metadata(path("marb-backup-l.timer")).is_ok());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "no temporary file");
    }
}
