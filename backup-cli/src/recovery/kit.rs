//! `recovery-kit`: gathers what the page tells.

use backup_core::pipeline::Context;
use backup_core::{Problem, Query, Result};
use jiff::Timestamp;
use secrecy::ExposeSecret;

use super::page::{Page, Storage};
use super::redact::{self, Redacted};
use crate::config::Value;
use crate::{Deployment, wiring};

/// What one needs when the server is gone. Holds no secret.
#[derive(Debug)]
pub struct RecoveryKit {
    /// The page, as Markdown; the configuration is in it.
    pub markdown: String,
    /// The configuration without its secrets, which name variables instead.
    pub config: String,
    /// What could not be read: newer backups may exist than the page names.
    pub problems: Vec<Problem>,
}

impl Deployment {
    /// Writes down what one needs when this host is gone: where the backups are, which keys
    /// and credentials are needed (by name and fingerprint, never themselves), the commands for
    /// a new machine, the way by hand, and the configuration `config_text` without its secrets.
    ///
    /// # Errors
    /// When the configuration or its keys can't be read. Storages that can't be are told.
    pub async fn recovery_kit(&self, config_text: &str, context: &Context) -> Result<RecoveryKit> {
        let keys = self.keys().await?;
        let redacted = redact::redact(config_text, &self.known_secrets().await)?;
        let query = Query { limit: Some(1), ..Query::default() };
        let catalog = context.cancel.guard(self.catalog(&query)).await?;
        let config = document(&redacted);
        let page = Page {
            host: wiring::host_name(),
            written: Timestamp::now(),
            storages: storages(&redacted),
            keys: keys.descriptions(),
            signers: keys.signers(),
            credentials: self.credentials(&redacted),
            backups: &catalog.backups,
            unreadable: catalog
                .problems
                .iter()
                .map(|p| format!("{}: {}", p.storage, p.error))
                .collect(),
            left_out: &redacted.left_out,
            config: &config,
        };
        let markdown = page.write();
        Ok(RecoveryKit { markdown, config, problems: catalog.problems })
    }

    /// Every secret that can be had without running a command. One that can't be read is none
    /// that could be shown.
    async fn known_secrets(&self) -> Vec<String> {
        let config = self.config();
        let mut known = Vec::new();
        for value in config.secrets().filter(|value| !matches!(value, Value::Command(_))) {
            if let Ok(secret) = value.fetch("secret", self.environment()).await {
                known.push(secret.expose_secret().trim().to_owned());
            }
        }
        for job in config.job.values() {
            let Some(postgres) = &job.postgres else { continue };
            if let Ok(url) = postgres.url.fetch("database", self.environment()).await
                && let Some(password) = crate::swapping::url::password(&url)
            {
                known.push(password.expose_secret().to_owned());
            }
        }
        known
    }

    /// What must be at hand on the new machine, by name.
    fn credentials(&self, redacted: &Redacted) -> Vec<String> {
        let config = self.config();
        let mut all: Vec<String> = Vec::new();
        let mut add = |what: &str, value: &Value| match value {
            Value::Literal(_) => {}
            Value::Env(from) => all.push(format!("the variable `{}`: {what}", from.env)),
            Value::File(from) => all.push(format!("the file `{}`: {what}", from.file.display())),
            Value::Command(from) => {
                let program = from.command.first().map_or("", String::as_str);
                all.push(format!("the program `{program}`, which prints {what}"));
            }
        };
        if let Some(passphrase) = &config.encryption.passphrase {
            add("the passphrase of the backups", passphrase);
        }
        if let Some(passphrase) = &config.encryption.secret_key_passphrase {
            add("what opens the private keys", passphrase);
        }
        for (storage, config) in &config.storage {
            for (name, value) in &config.secrets {
                add(&format!("{name} of storage {storage}"), value);
            }
        }
        for (job, config) in &config.job {
            if let Some(postgres) = &config.postgres {
                add(&format!("the database of job {job}"), &postgres.url);
            }
        }
        let named = redacted.variables.iter();
        all.extend(named.map(|(variable, what)| format!("the variable `{variable}`: {what}")));
        if let Some(file) = &config.env_file {
            all.push(format!(
                "the file `{}` (`env_file`), or its variables in the environment",
                file.display()
            ));
        }
        for (storage, config) in &config.storage {
            if config.secrets.is_empty()
                && config.ambient_credentials
                && !config.url.starts_with("file:")
            {
                all.push(format!(
                    "credentials of storage {storage}, which this host finds the way its service's \
                     own programs do: a profile, an instance's role, a key"
                ));
            }
        }
        all
    }
}

fn storages(redacted: &Redacted) -> Vec<Storage> {
    let Some(all) = redacted.table.get("storage").and_then(toml::Value::as_table) else {
        return Vec::new();
    };
    let storage = |(name, table): (&String, &toml::Value)| {
        let options = table.get("options").and_then(toml::Value::as_table);
        let options = options.into_iter().flatten();
        let text =
            |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Storage {
            name: name.clone(),
            url: table.get("url").and_then(toml::Value::as_str).unwrap_or_default().to_owned(),
            options: options.map(|(name, value)| (name.clone(), text(value))).collect(),
        }
    };
    all.iter().map(storage).collect()
}

/// The configuration as a file.
fn document(redacted: &Redacted) -> String {
    let mut text = String::from(
        "# Written by `marb-backup recovery-kit`: the configuration without its secrets.\n",
    );
    for (variable, what) in &redacted.variables {
        text.push_str(&format!("# Set {variable}: {what}.\n"));
    }
    // Tables of text can always be written.
    text.push_str(&toml::to_string_pretty(&redacted.table).unwrap_or_default());
    text
}
