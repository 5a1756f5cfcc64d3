//! Finding, reading and checking the configuration file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::{Error, Result, layout};
use serde::{Deserialize, Deserializer};

use super::{Config, Environment, Value};

/// Where the configuration is looked for when neither a flag nor a variable names it.
pub const DEFAULT_LOCATIONS: [&str; 2] = ["./marb-backup.toml", "/etc/marb-backup/config.toml"];

/// The variable that names the configuration file.
const CONFIG_VARIABLE: &str = "MARB_BACKUP_CONFIG";

/// Largest edit distance at which a known key is suggested for an unknown one, in characters.
const SUGGESTION_DISTANCE: usize = 3;

/// The configuration file to use: the flag's, else the variable's, else the first default
/// location that exists.
pub fn find_config(flag: Option<&Path>, environment: &Environment) -> Option<PathBuf> {
    let named =
        flag.map(Path::to_owned).or_else(|| environment.get(CONFIG_VARIABLE).map(PathBuf::from));
    named.or_else(|| DEFAULT_LOCATIONS.iter().map(PathBuf::from).find(|path| path.exists()))
}

impl Config {
    /// What opens backups and storages. The databases' URLs are not among them.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Value> {
        let encryption = &self.encryption;
        let of_storages = self.storage.values().flat_map(|storage| storage.secrets.values());
        let of_keys = encryption.passphrase.iter().chain(&encryption.secret_key_passphrase);
        of_keys.chain(of_storages)
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) naming line and key; an unknown key
    /// names the nearest known one.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            Error::usage("config", format!("{} can't be read", path.display()))
                .caused_by(e)
                .next_step("name another file with --config or $MARB_BACKUP_CONFIG")
        })?;
        Self::parse(&text).map_err(|error| {
            let located =
                Error::usage("config", format!("{}, {}", path.display(), error.message()));
            match error.advice() {
                Some(advice) => located.next_step(advice),
                None => located,
            }
        })
    }

    /// Reads a configuration from its text.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text).map_err(|e| explain(text, &e))?;
        config.check()?;
        Ok(config)
    }

    /// Checks what no type can say: that jobs name storages that exist, that nothing is written
    /// unencrypted by accident.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) naming the job and the cure.
    pub fn check(&self) -> Result<()> {
        for (name, job) in &self.job {
            layout::check_job_name(name)?;
            self.check_job(name, job)?;
        }
        self.schedules.check()?;
        self.restore.check()
    }

    fn check_job(&self, name: &str, job: &super::JobConfig) -> Result<()> {
        let wrong = |message: String| Error::usage("config", format!("job {name:?}: {message}"));
        if job.postgres.is_none() && job.files.is_none() {
            return Err(wrong("says not what to back up".to_owned()).next_step(
                "add `postgres = { url = { env = \"DATABASE_URL\" } }`, or `files = { paths = [..] }`",
            ));
        }
        if let Some(files) = &job.files {
            files.check().map_err(|error| {
                let advice = error.advice().unwrap_or("see docs/files.md").to_owned();
                wrong(error.message().to_owned()).next_step(advice)
            })?;
            if !job.encrypt && !job.allow_plaintext {
                return Err(wrong(
                    "would write files unencrypted, and secrets with them".to_owned(),
                )
                .next_step("remove `encrypt = false`, or add `allow_plaintext = true`"));
            }
        }
        if job.storages.is_empty() {
            return Err(wrong("names no storage".to_owned()));
        }
        for storage in &job.storages {
            let Some(config) = self.storage.get(storage) else {
                let known: Vec<&str> = self.storage.keys().map(String::as_str).collect();
                return Err(wrong(format!("there is no [storage.{storage}]"))
                    .next_step(suggestion(storage, &known)));
            };
            let leaves_host = !config.url.starts_with("file:");
            if !job.encrypt && leaves_host && !job.allow_plaintext {
                return Err(wrong(format!("would write unencrypted data to storage {storage:?}"))
                    .next_step("remove `encrypt = false`, or add `allow_plaintext = true`"));
            }
        }
        if let Some(foreign) = job.objects.keys().find(|name| !job.storages.contains(name)) {
            let message = format!("`objects` names {foreign:?}, which is none of its storages");
            let known: Vec<&str> = job.storages.iter().map(String::as_str).collect();
            return Err(wrong(message).next_step(suggestion(foreign, &known)));
        }
        if let Some(n) = job.required_storages
            && (n == 0 || n > job.storages.len())
        {
            return Err(wrong(format!(
                "required_storages = {n}, and it has {} storages",
                job.storages.len()
            )));
        }
        if job.encrypt
            && self.encryption.passphrase.is_none()
            && self.encryption.recipients.is_empty()
        {
            return Err(wrong("is to be encrypted, and there is no key".to_owned()).next_step(
                "set `passphrase` or `recipients` under [encryption], or write `encrypt = false`",
            ));
        }
        Ok(())
    }
}

/// Turns the parser's words into ours: line, what, and the nearest known key.
fn explain(text: &str, error: &toml::de::Error) -> Error {
    let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
    let message = error.message().trim();
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field") {
        let unknown = quoted.next().unwrap_or_default();
        let known: Vec<&str> = quoted.collect();
        return Error::usage("config", format!("line {line}: unknown key {unknown:?}"))
            .next_step(suggestion(unknown, &known));
    }
    Error::usage("config", format!("line {line}: {message}"))
}

fn suggestion(unknown: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|key| (strsim::damerau_levenshtein(unknown, key), key)).min();
    match nearest {
        Some((distance, key)) if distance <= SUGGESTION_DISTANCE => {
            format!("did you mean {key:?}?")
        }
        _ if known.is_empty() => "none is defined".to_owned(),
        _ => format!("known are {}", known.join(", ")),
    }
}

/// Reads `"6h"`, `"90s"`, `"1h 30m"`.
pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    use serde::de::Error as _;
    let text = String::deserialize(from)?;
    let wrong =
        || D::Error::custom(format!("{text:?} is no duration; write \"90s\", \"30m\" or \"6h\""));
    let signed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    let duration = Duration::try_from(signed).map_err(|_| wrong())?;
    if duration.is_zero() { Err(wrong()) } else { Ok(Some(duration)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[storage.local]
url = "file:///backups"
[encryption]
passphrase = { file = "/key" }
[job.database]
postgres = { url = { env = "DATABASE_URL" } }
storages = ["local"]
timeout = "6h"
"#;

    fn fault(text: &str) -> String {
        let error = Config::parse(text).unwrap_err();
        format!("{error} | {}", error.advice().unwrap_or("-"))
    }

    #[test]
    fn the_plain_case_is_read() {
        let config = Config::parse(GOOD).unwrap();
        let job = &config.job["database"];
        assert!(job.encrypt && job.postgres.as_ref().unwrap().globals);
        assert_eq!(job.timeout, Some(Duration::from_secs(6 * 3600)));
    }

    #[test]
    fn faults_name_line_and_cure() {
        let cases = [
            (
                GOOD.replace("storages", "storage"),
                "config: line 8: unknown key \"storage\" | did you mean \"storages\"?",
            ),
            (
                GOOD.replace("[\"local\"]", "[\"locla\"]"),
                "config: job \"database\": there is no [storage.locla] | did you mean \"local\"?",
            ),
            (
                GOOD.replace("passphrase = { file = \"/key\" }", ""),
                "config: job \"database\": is to be encrypted, and there is no key | \
              set `passphrase` or `recipients` under [encryption], or write `encrypt = false`",
            ),
            (
                GOOD.replace("\"6h\"", "\"often\""),
                "config: line 9: \"often\" is no duration; write \"90s\", \"30m\" or \"6h\" | -",
            ),
            (
                GOOD.replace("{ file = \"/key\" }", "{ path = \"/key\" }"),
                "config: line 5: wants \"text\", { env = \"NAME\" }, { file = \"/path\" } or { command = [\"program\"] } | -",
            ),
            (
                GOOD.replace("job.database", "job.\"../up\""),
                "job: \"../up\" can't name a job | use letters, digits, '.', '_' and '-', at most 64 of them",
            ),
            (
                GOOD.replace("timeout = \"6h\"", "required_storages = 2"),
                "config: job \"database\": required_storages = 2, and it has 1 storages | -",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(fault(&text), expected);
        }
    }

    #[test]
    fn plaintext_never_leaves_the_host_by_accident() {
        let remote = GOOD
            .replace("file:///backups", "s3://bucket")
            .replace("timeout = \"6h\"", "encrypt = false");
        assert!(fault(&remote).contains("would write unencrypted data"));
        Config::parse(&format!("{remote}\nallow_plaintext = true")).unwrap();
    }
}
