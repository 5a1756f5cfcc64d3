//! What a preflight says: findings, each with what to do about it.

use std::borrow::Cow;
use std::fmt;

use backup_core::{Error, Result};
use serde::Serialize;

/// How much a finding matters. Ordered: the blocking ones come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The restore would fail, or break something else.
    Blocking,
    /// It may fail, or its result may surprise.
    Warning,
    /// To be known.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Blocking => "blocking",
            Severity::Warning => "warning",
            Severity::Note => "note",
        })
    }
}

/// Something that a preflight found. It carries no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about: `roles`, `extensions`, `replication slots`.
    pub subject: Cow<'static, str>,
    /// How much it matters.
    pub severity: Severity,
    /// What is so.
    pub detail: String,
    /// What to do. May have several lines, with SQL.
    pub remedy: String,
}

impl Finding {
    /// One that forbids the restore.
    pub fn blocking(
        subject: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Blocking, subject, detail, remedy)
    }

    /// One to look at before going on.
    pub fn warning(
        subject: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Warning, subject, detail, remedy)
    }

    /// One to know.
    pub fn note(
        subject: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Note, subject, detail, remedy)
    }

    /// One of this severity.
    pub fn new(
        severity: Severity,
        subject: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (detail, remedy) = (detail.into(), remedy.into());
        Self { subject: subject.into(), severity, detail, remedy }
    }
}

impl fmt::Display for Finding {
    /// Without the remedy, which may have several lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.severity, self.subject, self.detail)
    }
}

/// The refusal for the findings that block.
///
/// # Errors
/// [`ErrorKind::Refused`](backup_core::ErrorKind::Refused) when there are any: what they are in
/// the message, what to do as the next step.
pub fn refuse_blocking(findings: &[Finding]) -> Result<()> {
    let blocking = || findings.iter().filter(|finding| finding.severity == Severity::Blocking);
    if blocking().next().is_none() {
        return Ok(());
    }
    let details: Vec<String> =
        blocking().map(|finding| format!("{}: {}", finding.subject, finding.detail)).collect();
    let remedies: Vec<&str> = blocking().map(|finding| finding.remedy.as_str()).collect();
    Err(Error::refused("preflight", details.join("; ")).next_step(remedies.join("; ")))
}

/// The first names of a list, and how many more there are.
pub(super) fn some_of<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    /// Names that a message takes.
    const SHOWN: usize = 10;
    let all: Vec<S> = names.into_iter().collect();
    let shown: Vec<&str> = all.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match all.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::ErrorKind;

    #[test]
    fn only_blocking_findings_refuse() {
        let mut findings = vec![
            Finding::note("sessions", "3 of them", "none"),
            Finding::warning("space", "little", "make some"),
        ];
        refuse_blocking(&findings).unwrap();
        findings.push(Finding::blocking("roles", "nobody is missing", "create it"));
        let error = refuse_blocking(&findings).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert_eq!(error.message(), "roles: nobody is missing");
        assert_eq!(error.advice(), Some("create it"));
        findings.sort_by_key(|finding| finding.severity);
        assert_eq!(findings[0].severity, Severity::Blocking);
        assert_eq!(findings[0].to_string(), "blocking: roles: nobody is missing");
    }

    #[test]
    fn a_long_list_is_cut_and_counted() {
        assert_eq!(some_of(["a", "b"]), "a, b");
        let names: Vec<String> = (0..13).map(|i| i.to_string()).collect();
        assert_eq!(some_of(&names), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 3 more");
    }
}
