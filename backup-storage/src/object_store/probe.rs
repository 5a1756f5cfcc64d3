//! Finds out with a real object what a service keeps of the promises that are relied on.

use backup_core::Result;
use jiff::{SignedDuration, Timestamp};
use opendal::{Buffer, ErrorKind};

use super::answer::Refusal;
use super::service::Object;
use super::store::Store;
use super::writer::fresh_mark;
use crate::failure::Doing;

/// What the probe object holds.
pub(super) const CONTENT: &[u8] =
    b"marb-backup asks what this storage can do. This object may be deleted.\n";

/// How the names of probe objects begin.
pub(super) const PROBE_NAME: &str = ".marb-probe-";
/// A probe object of this age is no running probe's, and not locked any more.
const PROBE_AGE: SignedDuration = SignedDuration::from_hours(1);

/// What a probe found out about one ability of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The ability, by the name of the option or setting that asks for it: `conditional`,
    /// `checksum`, `tags`, `object_lock`, `versions`, `delete`.
    pub ability: &'static str,
    /// What was found, in words.
    pub message: String,
    /// What to set where something that was asked for is missing; `None` where all is well.
    pub remedy: Option<String>,
    /// The service refuses every object as long as the remedy isn't set: no backup can succeed.
    pub fatal: bool,
}

impl Finding {
    pub(super) fn fine(ability: &'static str, message: impl Into<String>) -> Self {
        Self { ability, message: message.into(), remedy: None, fatal: false }
    }

    pub(super) fn missing(
        ability: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { ability, message: message.into(), remedy: Some(remedy.into()), fatal: false }
    }
}

/// The service's own word for an error.
pub(super) fn why(error: &opendal::Error) -> String {
    Refusal::inside(error).map_or_else(|| error.message().to_owned(), ToString::to_string)
}

impl Store {
    /// Writes an object, tries things on it, and removes it.
    pub(super) async fn probe(&self) -> Result<Vec<Finding>> {
        if let Err(error) = self.service.sweep_probes(Timestamp::now() - PROBE_AGE).await {
            tracing::debug!("{}: earlier probes may stay: {}", self.stage, why(&error));
        }
        let mark = fresh_mark();
        let key = format!("{PROBE_NAME}{mark}");
        let object = Object { probes: true, ..Object::new(&key, &mark) };
        if let Err(error) = self.service.put(&object, Buffer::from(CONTENT), false).await {
            let refused = self.service.asked_too_much(&object, &error).await;
            if refused.is_empty() {
                return Err(self.explain(Doing::Write, "write a probe object", error));
            }
            let fatal = |finding| Finding { fatal: true, ..finding };
            let mut findings: Vec<_> = refused.into_iter().map(fatal).collect();
            findings.extend(self.remove_probe(&key).await);
            return Ok(findings);
        }
        let mut findings = vec![self.try_conditional(&object).await];
        findings.extend(self.service.probe_more(&object).await);
        findings.extend(self.remove_probe(&key).await);
        Ok(findings)
    }

    async fn remove_probe(&self, key: &str) -> Option<Finding> {
        let error = self.service.delete(key).await.err()?;
        let why = why(&error);
        Some(Finding::fine(
            "delete",
            format!("these credentials can't delete; the probe object {key} stays ({why})"),
        ))
    }

    async fn try_conditional(&self, object: &Object<'_>) -> Finding {
        let ability = "conditional";
        let again = self.service.put(object, Buffer::from(CONTENT), true).await;
        let remedy = self.service.conditional_remedy();
        match again {
            Err(error) if error.kind() == ErrorKind::ConditionNotMatch => {
                Finding::fine(ability, "a conditional put leaves what is there alone")
            }
            Ok(_) => Finding::missing(
                ability,
                "the service stores over an object although it was told not to: two runs could \
                 claim one id",
                remedy,
            ),
            Err(error) => Finding::missing(
                ability,
                format!("the service does not know conditional puts ({})", why(&error)),
                remedy,
            ),
        }
    }
}
