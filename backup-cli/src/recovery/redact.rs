//! A configuration without its secrets: what stands in it as text is taken out, and a variable
//! to give it in is named instead, so that the result can be used.

use std::collections::BTreeSet;

use backup_core::{Error, Result};
use backup_pg::Connection;
use toml::{Table, Value};

/// Sections that a recovery needs. Others (alerts, a dashboard) are left out as a whole: what of
/// them is secret, this version may not know.
const KEPT_SECTIONS: [&str; 8] = [
    "env_file",
    "state_dir",
    "postgres_bin_dir",
    "storage",
    "encryption",
    "job",
    "restore",
    "drill",
];

/// Parameters of a connection that are kept when it brings a secret.
const CONNECTION_PARAMETERS: [&str; 9] =
    ["service", "host", "hostaddr", "port", "user", "dbname", "sslmode", "sslrootcert", "sslcert"];

/// Words in a name that make its value a secret.
const SECRET_WORDS: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "authorization",
    "apikey",
    "api_key",
    "api-key",
    "signature",
];

/// Names of `[encryption]` that hold paths, whatever words are in them.
const PATHS: [&str; 4] = ["recipients", "signing_key", "trusted_signers", "secret_keys"];

/// Shortest text that is looked for everywhere else in the configuration, in characters. Shorter
/// ones are ordinary words.
const SHORTEST_SCRUBBED: usize = 6;

/// What stands where a secret was and no variable can be named.
pub(super) const TAKEN_OUT: &str = "[taken out]";

/// A configuration without secrets.
#[derive(Debug, Default)]
pub(super) struct Redacted {
    /// What is left of it.
    pub table: Table,
    /// Variables to set, and what belongs into each.
    pub variables: Vec<(String, String)>,
    /// Sections that were left out.
    pub left_out: Vec<String>,
}

/// Takes the secrets out of a configuration. `known` are values that must not be seen in it,
/// wherever they stand.
///
/// # Errors
/// When the text is no TOML; nothing of it is repeated.
pub(super) fn redact(text: &str, known: &[String]) -> Result<Redacted> {
    let table: Table = text.parse().map_err(|_: toml::de::Error| {
        Error::usage("recovery kit", "the configuration is no TOML").next_step("run `config check`")
    })?;
    let mut redactor = Redactor { secrets: known.iter().cloned().collect(), ..Redactor::default() };
    let mut redacted = Redacted::default();
    for (name, mut value) in table {
        if !KEPT_SECTIONS.contains(&name.as_str()) {
            redacted.left_out.push(name);
            continue;
        }
        redactor.value(&mut vec![name.clone()], &mut value);
        redacted.table.insert(name, value);
    }
    // Once more, for what stands in two places.
    for (_, value) in &mut redacted.table {
        redactor.scrub(value);
    }
    redacted.variables = redactor.variables;
    Ok(redacted)
}

#[derive(Default)]
struct Redactor {
    secrets: BTreeSet<String>,
    variables: Vec<(String, String)>,
}

impl Redactor {
    fn value(&mut self, path: &mut Vec<String>, value: &mut Value) {
        match value {
            Value::Table(table) => {
                for (name, value) in table.iter_mut() {
                    path.push(name.clone());
                    self.value(path, value);
                    path.pop();
                }
            }
            Value::Array(all) => self.list(path, all),
            Value::String(text) => {
                if let Some(new) = self.text(path, text) {
                    *value = new;
                }
            }
            _ => {}
        }
    }

    /// What a text is replaced by.
    fn text(&mut self, path: &[String], text: &str) -> Option<Value> {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        match names[..] {
            ["encryption", "passphrase"] => {
                Some(self.variable("MARB_BACKUP_PASSPHRASE", "the passphrase of the backups", text))
            }
            ["encryption", "secret_key_passphrase"] => Some(self.variable(
                "MARB_BACKUP_KEY_PASSPHRASE",
                "what opens the private keys",
                text,
            )),
            ["storage", storage, "secrets", name] => {
                let variable = format!("MARB_BACKUP_{}_{}", spelled(storage), spelled(name));
                let what = format!("{name} of storage {storage}");
                Some(self.variable(&variable, &what, text))
            }
            // Where the value is: a name or a path, no secret.
            [.., "env" | "file"] => None,
            ["encryption", name] if PATHS.contains(&name) => None,
            [.., name] if is_connection(&names) && !name.is_empty() => self.connection(text),
            [.., name] if is_secret_name(name) => {
                self.secrets.insert(text.to_owned());
                Some(Value::String(TAKEN_OUT.to_owned()))
            }
            _ => self.harmless(text),
        }
    }

    fn variable(&mut self, variable: &str, what: &str, secret: &str) -> Value {
        self.secrets.insert(secret.to_owned());
        // Of a file or a text the first line is the passphrase.
        self.secrets.extend(secret.lines().next().map(str::to_owned));
        self.variables.push((variable.to_owned(), what.to_owned()));
        let mut from = Table::new();
        from.insert("env".to_owned(), Value::String(variable.to_owned()));
        Value::Table(from)
    }

    /// A connection string keeps what is no secret.
    fn connection(&mut self, text: &str) -> Option<Value> {
        let Ok(connection) = text.trim().parse::<Connection>() else {
            self.secrets.insert(text.to_owned());
            return Some(Value::String(TAKEN_OUT.to_owned()));
        };
        if !connection.brings_secrets() {
            return None;
        }
        self.secrets.extend(login_password(text));
        let kept = CONNECTION_PARAMETERS.iter().filter_map(|name| {
            let value = connection.parameter(name)?.replace('\\', "\\\\").replace('\'', "\\'");
            Some(format!("{name}='{value}'"))
        });
        Some(Value::String(kept.collect::<Vec<_>>().join(" ")))
    }

    /// A text that holds no secret by its name may still: a password in a URL.
    fn harmless(&mut self, text: &str) -> Option<Value> {
        let clean = self.clean(text);
        (clean != text).then_some(Value::String(clean))
    }

    fn clean(&mut self, text: &str) -> String {
        let mut clean = text.to_owned();
        if let Some(password) = login_password(text) {
            clean = clean.replace(&format!(":{password}@"), "@");
            self.secrets.insert(password);
        }
        if let Some((start, query)) = clean.clone().split_once('?').filter(|_| text.contains("://"))
        {
            let parameters = query.split('&').map(|one| self.assignment(one, '='));
            clean = format!("{start}?{}", parameters.collect::<Vec<_>>().join("&"));
        }
        clean
    }

    /// `name=value` where the name is that of a secret.
    fn assignment(&mut self, text: &str, mark: char) -> String {
        match text.split_once(mark) {
            Some((name, value)) if is_secret_name(name) && !value.trim().is_empty() => {
                self.secrets.insert(value.trim().to_owned());
                format!("{name}{mark}{TAKEN_OUT}")
            }
            _ => text.to_owned(),
        }
    }

    /// A command's words: what follows `--password`, `password=` or `Authorization:` goes.
    fn list(&mut self, path: &mut Vec<String>, all: &mut [Value]) {
        let mut after_secret_flag = false;
        for value in all {
            let Value::String(word) = value else {
                self.value(path, value);
                after_secret_flag = false;
                continue;
            };
            if after_secret_flag {
                self.secrets.insert(word.clone());
                *word = TAKEN_OUT.to_owned();
                after_secret_flag = false;
                continue;
            }
            after_secret_flag =
                word.starts_with('-') && !word.contains('=') && is_secret_name(word);
            let cleaned = self.clean(word);
            let cleaned = self.assignment(&cleaned, '=');
            *word = self.assignment(&cleaned, ':');
        }
    }

    fn scrub(&self, value: &mut Value) {
        match value {
            Value::Table(table) => table.iter_mut().for_each(|(_, value)| self.scrub(value)),
            Value::Array(all) => all.iter_mut().for_each(|value| self.scrub(value)),
            Value::String(text) => {
                for secret in self.secrets.iter().filter(|s| s.chars().count() >= SHORTEST_SCRUBBED)
                {
                    if text.contains(secret.as_str()) && secret != TAKEN_OUT {
                        *text = text.replace(secret.as_str(), TAKEN_OUT);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Keys that hold a connection string.
fn is_connection(path: &[&str]) -> bool {
    matches!(path, ["job", _, "postgres", "url"] | ["restore", "admin_url"] | ["drill", .., "url"])
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_lowercase();
    let is_place = name.ends_with("_file") || name.ends_with("-file");
    !is_place && SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// The password of `scheme://user:password@host`, as it stands there.
fn login_password(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("://")?;
    let (login, _) = rest.split('/').next()?.rsplit_once('@')?;
    let (_, password) = login.split_once(':')?;
    (!password.is_empty()).then(|| password.to_owned())
}

/// A name as part of a variable's.
fn spelled(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const CONFIG: &str = r#"
# planted-1 in a comment
env_file = "/opt/app/.env"
[alert]
webhook = "https://hooks.example/planted-2"
[storage.local]
url = "file:///backups"
[storage.offsite]
url = "sftp://me:planted-3@host/path"
options = { region = "x", sas_token = "planted-4" }
secrets = { access_key_id = { env = "AWS_ID" }, secret_access_key = "planted-5" }
objects = { metadata = { owner = "planted-5" } }
[encryption]
passphrase = "planted-6"
secret_keys = ["/keys/secret.asc"]
[job.database]
postgres = { url = "postgresql://app:planted-7@db:5433/claims?sslpassword=planted-8" }
storages = ["local", "offsite"]
app_version = { command = ["tell", "--token", "planted-9", "--api-key=planted-10", "-v"] }
[restore]
start = [["curl", "-H", "Authorization: Bearer planted-11", "http://u:planted-12@host/x"]]
health = { url = "http://localhost:8000/health?deep=1&token=planted-13" }
admin_url = "host=db password=planted-14 user=root"
"#;

    fn redacted() -> Redacted {
        redact(CONFIG, &["claims-key-value".to_owned()]).unwrap()
    }

    #[test]
    fn no_secret_is_left_and_the_rest_is() {
        let text = toml::to_string_pretty(&redacted().table).unwrap();
        assert!(!text.contains("planted"), "{text}");
        for kept in [
            "/opt/app/.env",
            "sftp://me@host/path",
            "AWS_ID",
            "/keys/secret.asc",
            "region",
            "host='db' port='5433' user='app' dbname='claims'",
            "deep=1",
            "\"-v\"",
        ] {
            assert!(text.contains(kept), "{kept} is gone: {text}");
        }
        assert_eq!(redacted().left_out, ["alert"]);
        let variables: Vec<String> =
            redacted().variables.into_iter().map(|(name, _)| name).collect();
        assert_eq!(variables, ["MARB_BACKUP_PASSPHRASE", "MARB_BACKUP_OFFSITE_SECRET_ACCESS_KEY"]);
    }

    #[test]
    fn what_is_left_is_a_configuration() {
        Config::parse(&toml::to_string_pretty(&redacted().table).unwrap()).unwrap();
    }

    #[test]
    fn a_known_secret_goes_wherever_it_stands() {
        let text = "state_dir = \"/var/known-secret/x\"";
        let left = redact(text, &["known-secret".to_owned()]).unwrap();
        assert_eq!(left.table["state_dir"].as_str(), Some("/var/[taken out]/x"));
    }
}
