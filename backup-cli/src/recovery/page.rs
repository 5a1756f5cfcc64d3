//! The page of a recovery kit: Markdown that can be printed.

use std::fmt::Write as _;

use backup_core::{CatalogEntry, restore_note};
use jiff::Timestamp;

use crate::TOOL;

/// What the page tells.
pub(super) struct Page<'a> {
    pub host: String,
    pub written: Timestamp,
    pub storages: Vec<Storage>,
    /// Keys that open the backups.
    pub keys: Vec<String>,
    /// Keys that prove whose they are.
    pub signers: Vec<String>,
    pub credentials: Vec<String>,
    /// The newest of each job.
    pub backups: &'a [CatalogEntry],
    pub unreadable: Vec<String>,
    pub left_out: &'a [String],
    pub config: &'a str,
}

/// Where backups are.
pub(super) struct Storage {
    pub name: String,
    pub url: String,
    pub options: Vec<(String, String)>,
}

impl Page<'_> {
    pub fn write(&self) -> String {
        let mut out = String::new();
        // Writing to a String can't fail.
        let _ = self.write_to(&mut out);
        out
    }

    fn write_to(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "# Recovery kit of {}\n", self.host)?;
        writeln!(out, "Written {} by {TOOL}.", self.written)?;
        writeln!(
            out,
            "It says what one needs when this host is gone, and holds no key and no password: keep \
             it, on paper too,\nwhere the host's end does not reach it. Write it anew when the \
             configuration changes.\n"
        )?;
        self.needed(out)?;
        self.places(out)?;
        self.newest(out)?;
        self.commands(out)?;
        self.by_hand(out)?;
        writeln!(out, "## 6. The configuration, without its secrets\n")?;
        if !self.left_out.is_empty() {
            writeln!(out, "Left out: {}.\n", self.left_out.join(", "))?;
        }
        writeln!(out, "```toml\n{}```", self.config)
    }

    fn needed(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "## 1. What must be at hand\n")?;
        for key in &self.keys {
            writeln!(out, "- The key that opens the backups: {key}.")?;
        }
        if self.keys.is_empty() {
            writeln!(out, "- No key: the backups are not encrypted.")?;
        }
        for signer in &self.signers {
            writeln!(out, "- To tell our backups from forged ones: {signer}.")?;
        }
        for credential in &self.credentials {
            writeln!(out, "- From the configuration: {credential}.")?;
        }
        writeln!(out, "\nNone of them is in this kit, and none is in the backups alone.\n")
    }

    fn places(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "## 2. Where the backups are\n")?;
        writeln!(out, "| storage | URL | options |\n| --- | --- | --- |")?;
        for Storage { name, url, options } in &self.storages {
            let options: Vec<String> =
                options.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            writeln!(out, "| {name} | `{url}` | {} |", options.join(", "))?;
        }
        writeln!(out, "\nA backup is the folder `JOB/YYYY/MM/ID` there.\n")
    }

    fn newest(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "## 3. The newest backup of each job when this was written\n")?;
        writeln!(
            out,
            "| job | id | of | server | stored | in |\n| --- | --- | --- | --- | --- | --- |"
        )?;
        for entry in self.backups {
            let manifest = &entry.manifest;
            let server = manifest.postgres.as_ref().map_or("-", |versions| &versions.server);
            let storages: Vec<&str> =
                entry.copies.iter().map(|copy| copy.storage.as_str()).collect();
            writeln!(
                out,
                "| {} | {} | {} | {server} | {} bytes | {} |",
                manifest.job,
                entry.id,
                manifest.source.database,
                manifest.stored_bytes(),
                storages.join(", ")
            )?;
        }
        if self.backups.is_empty() {
            writeln!(out, "\nThere was none.")?;
        }
        for problem in &self.unreadable {
            writeln!(out, "\nNot everything could be read, so newer ones may exist: {problem}.")?;
        }
        writeln!(out)
    }

    fn commands(&self, out: &mut String) -> std::fmt::Result {
        let majors = self.majors();
        let (newest, packages) = match majors.last() {
            Some(newest) => (
                newest.to_string(),
                format!("postgresql-{newest} postgresql-client-{newest} gnupg zstd"),
            ),
            None => ("the old one".to_owned(), "postgresql gnupg zstd".to_owned()),
        };
        writeln!(out, "## 4. On a new machine\n")?;
        writeln!(
            out,
            "PostgreSQL of version {newest} or later, server and client programs, and {TOOL} or \
             later. Then the\nconfiguration of section 6 as `recovery-config.toml`, the key as a \
             file, and the credentials of section 1.\n"
        )?;
        writeln!(
            out,
            "```sh\nsudo apt-get install {packages}\ninstall -m 0755 marb-backup /usr/local/bin/\n\
             marb-backup list --config recovery-config.toml\n\
             marb-backup recover --config recovery-config.toml --to postgresql:///postgres --dry-run\n\
             marb-backup recover --config recovery-config.toml --to postgresql:///postgres --yes\n```\n"
        )?;
        writeln!(
            out,
            "A key that is not where the configuration says is given with `--passphrase-file FILE` \
             or `--secret-key FILE`.\nRun it as a user who may create databases and roles: root \
             for files in place.\n"
        )
    }

    fn majors(&self) -> Vec<u32> {
        let versions = self.backups.iter().filter_map(|entry| entry.manifest.postgres.as_ref());
        let major = |text: &String| -> Option<u32> { text.split('.').next()?.parse().ok() };
        let mut majors: Vec<u32> =
            versions.filter_map(|versions| major(&versions.server)).collect();
        majors.sort_unstable();
        majors
    }

    fn by_hand(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "## 5. By hand, without this program\n")?;
        writeln!(
            out,
            "Each backup carries its own `RESTORE.md` with these commands. Fetch its folder first, \
             for example:\n"
        )?;
        writeln!(out, "```sh")?;
        for entry in self.backups {
            for copy in &entry.copies {
                if let Some(storage) = self.storages.iter().find(|one| one.name == copy.storage) {
                    writeln!(out, "{}", storage.fetch(&entry.folder(), &entry.id.to_string()))?;
                }
            }
        }
        writeln!(out, "```\n")?;
        for entry in self.backups {
            for line in restore_note(&entry.manifest).lines() {
                let deeper = if is_heading(line) { "##" } else { "" };
                writeln!(out, "{deeper}{line}")?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

fn is_heading(line: &str) -> bool {
    line.trim_start_matches('#').starts_with(' ') && line.starts_with('#')
}

impl Storage {
    /// How to bring a backup's folder here with the service's own program.
    fn fetch(&self, folder: &str, id: &str) -> String {
        let url = self.url.trim_end_matches('/');
        let (scheme, place) = url.split_once("://").unwrap_or(("file", url));
        let option = |name: &str| {
            self.options.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        match scheme {
            "s3" => {
                let endpoint = option("endpoint").map(|url| format!(" --endpoint-url {url}"));
                let region = option("region").map(|region| format!(" --region {region}"));
                format!(
                    "aws s3 cp --recursive{}{} '{url}/{folder}' ./{id}",
                    endpoint.unwrap_or_default(),
                    region.unwrap_or_default()
                )
            }
            "gs" => format!("gcloud storage cp --recursive '{url}/{folder}' ."),
            "az" => {
                let (container, prefix) = place.split_once('/').unwrap_or((place, ""));
                let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
                let account = option("account_name").unwrap_or_else(|| "ACCOUNT".to_owned());
                format!(
                    "az storage blob download-batch --account-name {account} -s {container} \
                     --pattern '{prefix}{folder}/*' -d ."
                )
            }
            "sftp" | "scp" => {
                let (host, path) = place.split_once('/').unwrap_or((place, ""));
                let (host, port) = host.split_once(':').unwrap_or((host, "22"));
                format!("scp -P {port} -r '{host}:/{path}/{folder}' .")
            }
            _ => format!("cp -r '{place}/{folder}' ."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(url: &str, options: &[(&str, &str)]) -> String {
        let options = options.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let storage = Storage { name: "x".to_owned(), url: url.to_owned(), options };
        storage.fetch("db/2026/11/ID", "ID")
    }

    #[test]
    fn each_service_has_its_own_program() {
        assert_eq!(fetch("file:///backups/", &[]), "cp -r '/backups/db/2026/11/ID' .");
        assert_eq!(
            fetch("s3://bucket/pre", &[("endpoint", "http://h:9"), ("region", "r")]),
            "aws s3 cp --recursive --endpoint-url http://h:9 --region r 's3://bucket/pre/db/2026/11/ID' ./ID"
        );
        assert_eq!(
            fetch("sftp://me@h:2222/srv/b", &[]),
            "scp -P 2222 -r 'me@h:/srv/b/db/2026/11/ID' ."
        );
        assert!(fetch("az://c/p", &[]).contains("-s c --pattern 'p/db/2026/11/ID/*'"));
    }

    #[test]
    fn only_headings_go_deeper() {
        assert!(is_heading("# A") && is_heading("## B"));
        assert!(!is_heading("#!/bin/sh") && !is_heading("a # b"));
    }
}
