//! `[restore]`: what surrounds a restore into the application's own database.

use std::path::PathBuf;
use std::time::Duration;

use backup_core::{Error, Result};
use jiff::{Span, SpanRelativeTo};
use serde::{Deserialize, Deserializer};

use super::{Value, load};

/// Longest time one hook may take when the config does not say.
pub const DEFAULT_HOOK_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How long the application may take to be healthy again when the config does not say.
pub const DEFAULT_HEALTH_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the database that was swapped out is kept when the config does not say.
pub const DEFAULT_KEEP_OLD: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long sessions may take to end when the config does not say.
pub const DEFAULT_SESSION_TIMEOUT: Duration = Duration::from_secs(30);

/// A program and its arguments: no shell reads them. Everybody on the host can see them with
/// `ps`, so no secret belongs there.
pub type Argv = Vec<String>;

/// `[restore]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestoreConfig {
    /// Run before anything is restored; one that fails stops the run.
    pub before: Vec<Argv>,
    /// Stop what uses the database, right before the swap. They may run twice, so stopping what
    /// is stopped must succeed, as `systemctl stop` does.
    pub stop: Vec<Argv>,
    /// Bring the restored database to the application's schema. They find its URL in the variable
    /// DATABASE_URL, and in the one that the job's `postgres.url` names.
    pub migrate: Vec<Argv>,
    /// Start what `stop` stopped. They may run twice, so starting what runs must succeed.
    pub start: Vec<Argv>,
    /// Run at the end, whatever came of it.
    pub after: Vec<Argv>,
    /// Run when it failed, before `after`.
    pub on_failure: Vec<Argv>,
    /// Longest time for each of them, `"5m"`.
    #[serde(deserialize_with = "load::duration")]
    pub hook_timeout: Option<Duration>,
    /// The folder that they run in; the program's own when absent.
    pub directory: Option<PathBuf>,
    /// How the application tells that it works.
    pub health: Option<HealthConfig>,
    /// SQL that must give one true value in the restored database,
    /// `"select count(*) > 0 from claims"`.
    pub checks: Vec<String>,
    /// Another database of the server, as a role that may rename the live one; the job's URL with
    /// the database `postgres` when absent.
    pub admin_url: Option<Value>,
    /// How long the swapped-out database must stay before `restore --cleanup` may drop it, `"7d"`.
    #[serde(deserialize_with = "days")]
    pub keep_old: Option<Duration>,
    /// How long the sessions on the live database may take to end, `"30s"`.
    #[serde(deserialize_with = "load::duration")]
    pub session_timeout: Option<Duration>,
}

/// `health = { url, timeout }`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthConfig {
    /// Where a GET must be answered with 2xx.
    pub url: String,
    /// How long the application may take until it does, `"60s"`.
    #[serde(default, deserialize_with = "load::duration")]
    pub timeout: Option<Duration>,
}

impl RestoreConfig {
    /// Every list of hooks with its key.
    pub fn hooks(&self) -> [(&'static str, &[Argv]); 6] {
        [
            ("before", &self.before),
            ("stop", &self.stop),
            ("migrate", &self.migrate),
            ("start", &self.start),
            ("after", &self.after),
            ("on_failure", &self.on_failure),
        ]
    }

    /// Checks what no type can say.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) naming the key and the cure.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |message: String| Error::usage("config", format!("[restore]: {message}"));
        for (key, hooks) in self.hooks() {
            if hooks.iter().any(|argv| argv.first().is_none_or(|program| program.is_empty())) {
                return Err(wrong(format!("`{key}` has an empty command")).next_step(format!(
                    "write {key} = [[\"systemctl\", \"status\", \"app\"]], a list of lists"
                )));
            }
        }
        if !self.stop.is_empty() && self.start.is_empty() {
            return Err(wrong(
                "`stop` without `start` would leave the services stopped".to_owned(),
            )
            .next_step("add the `start` commands"));
        }
        if self.checks.iter().any(|check| check.trim().is_empty()) {
            return Err(wrong("`checks` has an empty one".to_owned()).next_step("remove it"));
        }
        match &self.health {
            Some(health) if !is_http(&health.url) => {
                Err(wrong("`health.url` is no http:// or https:// URL".to_owned())
                    .next_step("write health = { url = \"http://localhost:8000/health\" }"))
            }
            _ => Ok(()),
        }
    }
}

fn is_http(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty())
}

/// Reads `"7d"`, too: a day is 24 hours.
fn days<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<Duration>, D::Error> {
    use serde::de::Error as _;
    let text = String::deserialize(from)?;
    let wrong = || D::Error::custom(format!("{text:?} is no duration; write \"7d\" or \"12h\""));
    let span: Span = text.parse().map_err(|_| wrong())?;
    let signed = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(signed).map(Some).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use std::time::Duration;

    fn fault(text: &str) -> String {
        let error = Config::parse(&format!("[restore]\n{text}")).unwrap_err();
        format!("{error} | {}", error.advice().unwrap_or("-"))
    }

    #[test]
    fn the_plain_case_is_read() {
        let text = "[restore]\nstop = [['systemctl', 'stop', 'app']]\nstart = [['x']]\n\
                    keep_old = '7d'\nhook_timeout = '90s'\nhealth = { url = 'https://a/b' }";
        let restore = Config::parse(text).unwrap().restore;
        assert_eq!(restore.keep_old, Some(Duration::from_secs(7 * 86_400)));
        assert_eq!(restore.hook_timeout, Some(Duration::from_secs(90)));
        assert_eq!(restore.stop, [["systemctl", "stop", "app"]]);
        assert_eq!(restore.health.unwrap().timeout, None);
        assert_eq!(Config::parse("").unwrap().restore.keep_old, None);
        let soon = Config::parse("[restore]\nkeep_old = '0s'").unwrap().restore;
        assert_eq!(soon.keep_old, Some(Duration::ZERO));
    }

    #[test]
    fn faults_name_the_cure() {
        let cases = [
            (
                "before = [[]]",
                "`before` has an empty command | write before = [[\"systemctl\", \"status\", \"app\"]], a list of lists",
            ),
            (
                "stop = [['x']]",
                "`stop` without `start` would leave the services stopped | add the `start` commands",
            ),
            ("checks = ['  ']", "`checks` has an empty one | remove it"),
            (
                "health = { url = 'localhost:8000' }",
                "`health.url` is no http:// or https:// URL | write health = { url = \"http://localhost:8000/health\" }",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(fault(text), format!("config: [restore]: {expected}"));
        }
        assert!(fault("before = ['rm -rf']").contains("line 2"));
        assert!(fault("keep_old = '-7d'").contains("is no duration"));
        assert!(fault("stopp = [['x']]").ends_with("did you mean \"stop\"?"));
    }
}
