//! The names that the old scripts gave their files.

use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind, Result};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Largest `.meta` that is taken over, in bytes.
const MAX_META_BYTES: u64 = 1 << 20;
/// Letters of the time in a name, `20260101_020000`.
const TIME_LETTERS: usize = 15;

/// A file that the old scripts wrote, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
    /// The name without what was put around it: `db_backup_20260101_020000.dump`.
    pub plain_name: String,
    /// When it was made, by its name.
    pub time: Timestamp,
    /// Its size in bytes.
    pub bytes: u64,
    /// What the scripts wrote about it.
    pub meta: Option<PathBuf>,
    /// An archive of configuration files, not a dump.
    pub is_config: bool,
}

/// The old files of a folder, oldest first. Whatever else lies there is passed over.
///
/// # Errors
/// When the folder can't be read.
pub fn old_files(folder: &Path, time_zone: &TimeZone) -> Result<Vec<OldFile>> {
    let unreadable = |e: std::io::Error| {
        let kind = match e.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Unchecked,
        };
        Error::new(kind, "adopt", format!("{} can't be read", folder.display()))
            .next_step("name the folder of the old backups, and let this user read it")
            .caused_by(e)
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some((plain_name, time, is_config)) = parse(name) else { continue };
        let metadata = std::fs::metadata(&path).map_err(unreadable)?;
        let Ok(time) = time.to_zoned(time_zone.clone()) else { continue };
        if metadata.is_file() {
            found.push(OldFile {
                name: name.to_owned(),
                plain_name,
                time: time.timestamp(),
                bytes: metadata.len(),
                meta: meta_of(&path),
                is_config,
                path,
            });
        }
    }
    found.sort_by(|a, b| (a.time, &a.name).cmp(&(b.time, &b.name)));
    Ok(found)
}

/// Plain name, local time, and whether it holds configuration files.
fn parse(name: &str) -> Option<(String, DateTime, bool)> {
    let (rest, is_config) = match name.strip_prefix("db_backup_") {
        Some(rest) => (rest, false),
        None => (name.strip_prefix("config_backup_")?, true),
    };
    let time = rest.get(..TIME_LETTERS)?;
    let kind = if is_config { ".tar" } else { ".dump" };
    let around = rest.get(TIME_LETTERS..)?.strip_prefix(kind)?;
    if !matches!(around, "" | ".gz" | ".gpg" | ".gpg.gz" | ".gz.gpg") {
        return None;
    }
    let time = DateTime::strptime("%Y%m%d_%H%M%S", time).ok()?;
    Some((name[..name.len() - around.len()].to_owned(), time, is_config))
}

/// `FILE.meta`, or the same name with `.meta` for its endings.
fn meta_of(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let stem = name.find(".dump").or_else(|| name.find(".tar")).map(|end| &name[..end]);
    let candidates =
        [Some(name), stem].map(|name| Some(path.with_file_name(name?.to_owned() + ".meta")));
    let is_small = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= MAX_META_BYTES)
    };
    candidates.into_iter().flatten().find(is_small)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_old_scripts_are_known() {
        let plain = "db_backup_20260101_020000.dump";
        for around in ["", ".gz", ".gpg", ".gpg.gz", ".gz.gpg"] {
            let (name, time, is_config) = parse(&format!("{plain}{around}")).unwrap();
            assert_eq!((name.as_str(), is_config), (plain, false));
            assert_eq!(time.to_string(), "2026-01-01T02:00:00");
        }
        assert!(parse("config_backup_20260101_030000.tar.gz.gpg").unwrap().2);
        for other in [
            "db_backup_20260101_020000.dump.gz.meta",
            "db_backup_20261301_020000.dump",
            "db_backup_2026.dump",
            "db_backup_20260101_020000.sql",
            "db_backup_20260101_020000.dump.gz.partial",
            "notes.txt",
        ] {
            assert!(parse(other).is_none(), "{other}");
        }
    }

    #[test]
    fn the_time_is_the_old_hosts() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("db_backup_20260701_020000.dump"), "x").unwrap();
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let found = old_files(folder.path(), &zone).unwrap();
        assert_eq!(found[0].time.to_string(), "2026-07-01T00:00:00Z");
    }

    #[test]
    fn the_meta_has_the_name_of_its_file_with_or_without_endings() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("old.dump.d");
        std::fs::create_dir(&below).unwrap();
        for (name, meta) in [
            ("db_backup_20260701_020000.dump.gz", "db_backup_20260701_020000.dump.gz.meta"),
            ("db_backup_20260702_020000.dump.gz", "db_backup_20260702_020000.meta"),
            ("config_backup_20260703_020000.tar.gz", "config_backup_20260703_020000.meta"),
        ] {
            std::fs::write(below.join(name), "x").unwrap();
            std::fs::write(below.join(meta), "x").unwrap();
            let found = old_files(&below, &TimeZone::UTC).unwrap().pop().unwrap();
            assert_eq!((found.name.as_str(), found.meta), (name, Some(below.join(meta))));
        }
    }
}
