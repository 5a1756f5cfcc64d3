//! The state of a swap, as it survives a crash: a comment on the database that is not under the
//! live name.
//!
//! Absent on purpose: a table or a file for it. The comment moves with its database, and changes
//! in the very transaction that renames it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Names, RunId};

/// How such a comment begins.
pub(super) const PREFIX: &str = "marb-backup swap ";

/// How far a run is, told by the database that carries its marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The new database is complete and was never live.
    Restored,
    /// The live database is closed, or about to be; the names are still the old ones.
    Closing,
    /// The new database is live; nobody has said yet that it works. The old one carries this.
    Swapped,
    /// The new database is live and works. The old one carries this.
    Confirmed,
    /// The new database is closed, or about to be, and the old one shall be live again. The old
    /// one carries this.
    PuttingBack,
    /// The old database is live again. The new one carries this.
    Failed,
    /// Is being dropped.
    Dropping,
}

impl Phase {
    /// Whether a run in this phase has to be finished or put back before another may begin.
    pub fn is_unfinished(self) -> bool {
        matches!(self, Self::Closing | Self::Swapped | Self::PuttingBack)
    }

    /// Which of its run's names a database in this phase has.
    fn names(self, names: &Names) -> Vec<&str> {
        match self {
            Self::Restored | Self::Closing => vec![&names.restoring],
            Self::Swapped | Self::Confirmed | Self::PuttingBack => vec![&names.before],
            Self::Failed => vec![&names.failed],
            Self::Dropping => names.all().to_vec(),
        }
    }
}

/// What the comment says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// How far the run is.
    pub phase: Phase,
    /// The run.
    pub run: RunId,
    /// The name of the live database.
    pub live: String,
    /// The name of the database that carries this.
    pub database: String,
    /// The backup that was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// When the marker was first written.
    pub started: Timestamp,
    /// When the database that was live then was closed, in the phases that close one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Timestamp>,
    /// When the new database became live, at the earliest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swapped: Option<Timestamp>,
    /// Whether the new database was said to work before it was put back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirmed: bool,
    /// When the last session of the new database was gone and the old one live again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put_back: Option<Timestamp>,
    /// The user's own comment, which this one stands in for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

impl Marker {
    /// The marker of a database that was just restored.
    pub(super) fn restored(
        live: &str,
        run: &RunId,
        backup: Option<String>,
        now: Timestamp,
    ) -> Self {
        Self {
            phase: Phase::Restored,
            run: run.clone(),
            live: live.to_owned(),
            database: Names::new(live, run).restoring,
            backup,
            started: now,
            closed: None,
            swapped: None,
            confirmed: false,
            put_back: None,
            comment: None,
        }
    }

    /// The same in another phase.
    pub(super) fn in_phase(&self, phase: Phase) -> Self {
        Self { phase, ..self.clone() }
    }

    /// Reads the comment of the database `name`; `None` when it is not a marker of ours, or of
    /// another database (one that a dump brought along).
    pub(super) fn read(name: &str, comment: &str) -> Option<Self> {
        let marker: Self = serde_json::from_str(comment.strip_prefix(PREFIX)?).ok()?;
        let names = Names::new(&marker.live, &marker.run);
        let suits = marker.database == name && marker.phase.names(&names).contains(&name);
        suits.then_some(marker)
    }

    /// The comment.
    pub(super) fn text(&self) -> String {
        // A map of plain values with text keys can't fail.
        format!("{PREFIX}{}", serde_json::to_string(self).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Marker {
        let run: RunId = "20260730t142501z_k3x9".parse().unwrap();
        let now = "2026-07-30T14:25:01Z".parse().unwrap();
        Marker::restored("cla'ims \"é\"", &run, Some("20260730T000000Z".into()), now)
    }

    #[test]
    fn a_marker_reads_back_on_its_own_database_only() {
        let mut restored = marker();
        restored.comment = Some("it's \\ \"mine\"\n😀 marb-backup swap {\"phase\":1}".into());
        let text = restored.text();
        assert!(text.starts_with("marb-backup swap {\"phase\":\"restored\",\"run\":"), "{text}");
        assert_eq!(Marker::read(&restored.database, &text), Some(restored.clone()));
        assert_eq!(Marker::read("another", &text), None);
        // The right name for another phase.
        let names = Names::new(&restored.live, &restored.run);
        let swapped =
            Marker { database: names.before.clone(), ..restored.in_phase(Phase::Swapped) };
        assert_eq!(Marker::read(&names.before, &swapped.text()), Some(swapped));
        let wrong = Marker { database: names.before.clone(), ..restored.clone() };
        assert_eq!(Marker::read(&names.before, &wrong.text()), None);
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over_and_foreign_text_is_nobodys() {
        let text = marker().text().replacen('{', "{\"later\":[1,{}],", 1);
        assert_eq!(Marker::read(&marker().database, &text), Some(marker()));
        let unknown = marker().text().replace("restored", "levitating");
        let cut = &marker().text()[..40].to_owned();
        for foreign in ["", PREFIX, "marb-backup swap null", "our swap {}", &unknown, cut] {
            assert_eq!(Marker::read(&marker().database, foreign), None, "{foreign}");
        }
    }
}
