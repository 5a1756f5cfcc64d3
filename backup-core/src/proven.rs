//! When a backup was last proven, read off the names of its proofs.
//!
//! | name | meaning |
//! | --- | --- |
//! | `<time>-verify.json` | everything was read, decrypted and walked through |
//! | `<time>-checksums.json` | the stored bytes are those that were written |
//! | `<time>-drill.json` | it was restored, and what came back was compared |
//!
//! with `-failed` before `.json` when it did not pass. A checksum that is right proves less than
//! a verification, so it never counts as one; but it shows that a damage is mended.

use jiff::Timestamp;
use serde::Serialize;

use crate::CatalogEntry;

/// The last proof of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LastProof {
    /// When the check began.
    pub at: Timestamp,
    /// Whether it passed.
    pub passed: bool,
}

/// What the proofs beside a copy, or beside all copies, say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Proven {
    /// The last verification; `None`: never.
    pub verified: Option<LastProof>,
    /// The last drill; `None`: never.
    pub drilled: Option<LastProof>,
}

impl Proven {
    /// What these file names say. Of two in the same second the failure counts.
    pub fn by<'a>(names: impl IntoIterator<Item = &'a String>) -> Self {
        let mut proven = Self::default();
        let mut checksums = None;
        for (kind, proof) in names.into_iter().filter_map(|name| parse(name)) {
            match kind {
                Kind::Verify => keep_newer(&mut proven.verified, proof),
                Kind::Drill => keep_newer(&mut proven.drilled, proof),
                Kind::Checksums => keep_newer(&mut checksums, proof),
            }
        }
        // Bytes that were damaged later, and not mended since.
        if let Some(damaged) = checksums.filter(|last| !last.passed) {
            keep_newer(&mut proven.verified, damaged);
        }
        proven
    }

    /// What is proven of a backup as a whole: what is proven of the copy about which least is
    /// known or the news are worst. A drill reads one copy, so any copy's drill counts for all,
    /// but a failed one is never hidden.
    pub fn of(entry: &CatalogEntry) -> Self {
        let copies = || entry.copies.iter().map(|copy| Self::by(&copy.proofs));
        let verified = copies().map(|copy| copy.verified).min_by_key(badness);
        let drilled = copies().filter_map(|copy| copy.drilled).max_by_key(newest);
        Self { verified: verified.flatten(), drilled }
    }
}

/// A failure before "never" before what was checked long ago.
fn badness(last: &Option<LastProof>) -> (u8, Option<Timestamp>) {
    match last {
        Some(last) if !last.passed => (0, Some(last.at)),
        None => (1, None),
        Some(last) => (2, Some(last.at)),
    }
}

fn newest(last: &LastProof) -> (Timestamp, bool) {
    (last.at, !last.passed)
}

fn keep_newer(kept: &mut Option<LastProof>, other: LastProof) {
    if kept.is_none_or(|kept| newest(&kept) < newest(&other)) {
        *kept = Some(other);
    }
}

enum Kind {
    Verify,
    Checksums,
    Drill,
}

fn parse(name: &str) -> Option<(Kind, LastProof)> {
    let (time, rest) = name.strip_suffix(".json")?.split_once('-')?;
    let (kind, passed) = match rest.strip_suffix("-failed") {
        Some(kind) => (kind, false),
        None => (rest, true),
    };
    let kind = match kind {
        "verify" => Kind::Verify,
        "checksums" => Kind::Checksums,
        "drill" => Kind::Drill,
        _ => return None,
    };
    let at = jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", time).ok()?.to_datetime().ok()?;
    let at = at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    Some((kind, LastProof { at, passed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(names: &[&str]) -> (Option<String>, Option<String>) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let proven = Proven::by(&names);
        let told = |last: LastProof| {
            format!("{} {}", last.at.strftime("%d"), if last.passed { "good" } else { "bad" })
        };
        (proven.verified.map(told), proven.drilled.map(told))
    }

    #[test]
    fn the_newest_of_each_kind_counts_and_failures_are_not_hidden() {
        let good = |text: &str| Some(text.to_owned());
        assert_eq!(by(&[]), (None, None));
        assert_eq!(by(&["20261122T020000Z-verify.json"]), (good("22 good"), None));
        let both = ["20261122T020000Z-verify-failed.json", "20261122T020000Z-verify.json"];
        assert_eq!(by(&both), (good("22 bad"), None));
        let mended = ["20261122T020000Z-verify.json", "20261121T020000Z-verify-failed.json"];
        assert_eq!(by(&mended), (good("22 good"), None));
        let drills = ["20261120T020000Z-drill.json", "20261121T020000Z-drill-failed.json"];
        assert_eq!(by(&drills), (None, good("21 bad")));
        let of_others = ["claim.json", "20261122T020000Z-later.json", "2026-verify.json", ".json"];
        assert_eq!(by(&of_others), (None, None));
    }

    #[test]
    fn checksums_show_damage_and_prove_nothing_else() {
        let good = |text: &str| Some(text.to_owned());
        assert_eq!(by(&["20261122T020000Z-checksums.json"]), (None, None));
        let damaged = ["20261121T020000Z-verify.json", "20261122T020000Z-checksums-failed.json"];
        assert_eq!(by(&damaged), (good("22 bad"), None));
        let mended = [damaged[0], damaged[1], "20261123T020000Z-checksums.json"];
        assert_eq!(by(&mended), (good("21 good"), None));
        let not_mended = ["20261121T020000Z-verify-failed.json", "20261123T020000Z-checksums.json"];
        assert_eq!(by(&not_mended), (good("21 bad"), None));
    }
}
