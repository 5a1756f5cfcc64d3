//! Names: job, backup id, and where the objects of a backup lie in a storage.
//!
//! ```text
//! <job>/<YYYY>/<MM>/<id>/manifest.json      a backup exists if and only if this does
//! ```

use std::fmt::{self, Write as _};
use std::str::FromStr;

use jiff::{Timestamp, tz::TimeZone};
use rand::Rng as _;

use crate::{Error, Result};

/// File name of the manifest: written last, deleted first.
pub const MANIFEST: &str = "manifest.json";
/// File name of the manifest's authentication.
pub const SIGNATURE: &str = "manifest.json.sig";
/// File name of the checksum list for `sha256sum -c`.
pub const SHA256SUMS: &str = "SHA256SUMS";
/// File name of the instructions for a restore by hand.
pub const RESTORE_NOTE: &str = "RESTORE.md";
/// File name of the object that reserves an id for a run.
pub const CLAIM: &str = "claim.json";
/// File name of the object that marks a backup as being removed: from it on, what is left of the
/// folder without its manifest is free to go.
pub const PRUNED: &str = "pruned.json";
/// File name of the object that keeps a backup from being pruned.
pub const PIN: &str = "pin.json";
/// Folder of the marks of those that read a backup just now, in a backup's folder.
pub const READERS: &str = "readers";
/// Plain name of the part that tells what is inside the others.
pub const CONTENTS: &str = "contents.json";
/// Folder of the proofs in a backup's folder.
pub const PROOFS: &str = "proofs";
/// Longest key a storage must take, in bytes.
pub const MAX_KEY_BYTES: usize = 800;
/// Most runs of one job that may start in the same second.
pub const MAX_SAME_SECOND: u32 = 99;

/// Letters at the end of an id that is one's own by chance: some 300 million of them.
pub const RANDOM_LETTERS: usize = 6;

/// One backup's name: the UTC second it started, `20261122T020000Z`; `-2`, `-3` when taken.
///
/// Where it can't be told whether it is taken, it ends in random letters instead:
/// `20261122T020000Z-kqzvbn`.
///
/// Orders by time, then by suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackupId {
    started: Timestamp,
    suffix: Suffix,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Suffix {
    /// 1 is not written.
    Number(u32),
    /// Lower-case ASCII letters, so that no number looks like it.
    Letters([u8; RANDOM_LETTERS]),
}

impl BackupId {
    /// The id of a run that starts at `started`; `suffix` is 1 for the first in that second.
    pub fn new(started: Timestamp, suffix: u32) -> Self {
        Self { started: whole_second(started), suffix: Suffix::Number(suffix.max(1)) }
    }

    /// An id of a run that starts at `started` which nobody else will come upon.
    pub fn random(started: Timestamp) -> Self {
        let mut random = rand::thread_rng();
        let letters = std::array::from_fn(|_| random.gen_range(b'a'..=b'z'));
        Self { started: whole_second(started), suffix: Suffix::Letters(letters) }
    }

    /// The second the run started.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// The folder of this backup in a storage, without a trailing slash.
    pub fn folder(&self, job: &str) -> String {
        format!("{}/{self}", self.month_folder(job))
    }

    /// The folder of this backup's month, without a trailing slash.
    pub(crate) fn month_folder(&self, job: &str) -> String {
        month_folder(job, self.started)
    }
}

fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let utc = self.started.to_zoned(TimeZone::UTC);
        write!(f, "{}", utc.strftime("%Y%m%dT%H%M%SZ"))?;
        match self.suffix {
            Suffix::Number(1) => Ok(()),
            Suffix::Number(number) => write!(f, "-{number}"),
            Suffix::Letters(letters) => {
                f.write_char('-')?;
                letters.iter().try_for_each(|letter| f.write_char(char::from(*letter)))
            }
        }
    }
}

impl FromStr for BackupId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage("backup id", format!("{text:?} is no backup id"))
                .next_step("ids look like 20261122T020000Z; `marb-backup list` shows them")
        };
        let (time, suffix) = match text.split_once('-') {
            None => (text, Suffix::Number(1)),
            Some((time, suffix)) => (time, suffix.parse().map_err(|()| wrong())?),
        };
        if time.len() != 16 || !time.is_ascii() {
            return Err(wrong());
        }
        let started = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", time)
            .and_then(|civil| civil.to_zoned(TimeZone::UTC))
            .map_err(|e| wrong().caused_by(e))?
            .timestamp();
        let id = Self { started, suffix };
        // Only the one spelling: an id is also a folder name.
        if id.to_string() == text { Ok(id) } else { Err(wrong()) }
    }
}

impl FromStr for Suffix {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Ok(letters) = <[u8; RANDOM_LETTERS]>::try_from(text.as_bytes())
            && letters.iter().all(u8::is_ascii_lowercase)
        {
            return Ok(Suffix::Letters(letters));
        }
        text.parse().ok().filter(|number| *number > 1).map(Suffix::Number).ok_or(())
    }
}

/// The folder that holds the backups of a month, that of `time` in UTC.
pub(crate) fn month_folder(job: &str, time: Timestamp) -> String {
    let date = time.to_zoned(TimeZone::UTC);
    format!("{job}/{:04}/{:02}", date.year(), date.month())
}

/// Takes an object's key apart into its backup and the name inside the backup's folder;
/// `None` for whatever else lies in the storage.
pub fn parse_key(key: &str) -> Option<(&str, BackupId, &str)> {
    let mut pieces = key.splitn(5, '/');
    let job = pieces.next()?;
    let (year, month) = (pieces.next()?, pieces.next()?);
    let id: BackupId = pieces.next()?.parse().ok()?;
    let name = pieces.next()?;
    let folder = id.folder(job);
    (folder == format!("{job}/{year}/{month}/{id}")).then_some((job, id, name))
}

/// Whether an object comes and goes while its backup stays: a storage must be able to remove it at
/// any time, so it is never locked.
pub fn is_passing(key: &str) -> bool {
    let mut names = key.rsplit('/');
    let file = names.next().unwrap_or(key);
    matches!(file, CLAIM | PRUNED | PIN) || names.next() == Some(READERS)
}

/// Refuses a job name that would make a bad folder.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for anything but letters, digits, `.`, `_`
/// and `-`, a leading dot or dash included.
pub fn check_job_name(name: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if starts_well && name.len() <= 64 && name.chars().all(fine) {
        return Ok(());
    }
    Err(Error::usage("job", format!("{name:?} can't name a job"))
        .next_step("use letters, digits, '.', '_' and '-', at most 64 of them"))
}

/// Refuses a key that could leave its storage or confuse another system.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for an empty or overlong key, an empty, `.`
/// or `..` segment, a control character, a backslash (some services take it for a slash), or a
/// name that ends in `.partial`.
pub fn check_key(key: &str) -> Result<()> {
    let bad_segment = |s: &str| s.is_empty() || s == "." || s == ".." || s.contains(is_hazardous);
    if key.len() <= MAX_KEY_BYTES && !key.split('/').any(bad_segment) && !key.ends_with(".partial")
    {
        return Ok(());
    }
    Err(Error::usage("key", format!("{key:?} can't be the key of an object")))
}

fn is_hazardous(c: char) -> bool {
    c.is_control() || c == '\\'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let good = [
            "20261122T020000Z",
            "20240229T235959Z-2",
            "20261122T020000Z-12",
            "20261122T020000Z-123456",
            "20261122T020000Z-kqzvbn",
        ];
        for good in good {
            assert_eq!(good.parse::<BackupId>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "latest",
            "20261122T020000",
            "20261322T020000Z",
            "20261122T020000Z-1",
            "20261122T020000Z-02",
            "20261122T020000Z-",
            "20261122T020000Z-kqzvb",
            "20261122T020000Z-kqzvbnn",
            "20261122T020000Z-KQZVBN",
            "20261122T020000Z-kqzv2n",
            "20261122T020000Z-kqz-bn",
            "20261122T020000Z-kqzvb\u{e9}",
            "20261122T020000Z-0",
            "../../etc",
            "20261122t020000z",
        ] {
            assert!(bad.parse::<BackupId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_order_by_time_then_suffix() {
        let ids =
            ["20261122T020000Z", "20261122T020000Z-2", "20261122T020000Z-10", "20261122T020001Z"];
        let parsed: Vec<BackupId> = ids.iter().map(|s| s.parse().unwrap()).collect();
        assert!(parsed.is_sorted());
    }

    #[test]
    fn random_ids_differ_and_come_after_the_numbered() {
        let now = Timestamp::now();
        let ids: std::collections::BTreeSet<_> = (0..100).map(|_| BackupId::random(now)).collect();
        assert_eq!(ids.len(), 100);
        for id in ids {
            assert_eq!(id.to_string().parse::<BackupId>().unwrap(), id);
            assert!(id > BackupId::new(now, MAX_SAME_SECOND));
        }
    }

    #[test]
    fn a_key_is_taken_apart_only_where_it_belongs() {
        let id: BackupId = "20261122T020000Z".parse().unwrap();
        assert_eq!(
            parse_key("db/2026/11/20261122T020000Z/manifest.json"),
            Some(("db", id, "manifest.json"))
        );
        assert_eq!(parse_key("db/2026/12/20261122T020000Z/manifest.json"), None);
        assert_eq!(parse_key("db/2026/11/notes.txt"), None);
    }

    #[test]
    fn keys_that_leave_the_storage_are_refused() {
        for bad in ["", "/etc/passwd", "a/../b", "a//b", "a/", "a/./b", "a\0b", "a/b.partial"] {
            assert!(check_key(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "a/b.dump", "a b/ü/🦀.zst"] {
            check_key(good).unwrap();
        }
    }
}
