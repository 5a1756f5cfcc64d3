//! What an archive wants from the server it is restored on.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{DatabaseFacts, Inventory};
use serde::Serialize;

use super::statements::{all_tables, named_roles, needs_superuser, subscription};
use crate::archive::{Toc, TocEntry};
use crate::database::{database_facts, database_tablespace};
use crate::globals::grantees;
use crate::sql::{statements, words};
use crate::{ArchiveVersion, Version};

/// What an archive wants. Made from its table of contents, which tells nearly all of it, or
/// from the inventory of a backup, which tells less.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Needs {
    /// Major version of the server it was dumped from.
    pub server_major: Option<u32>,
    /// Major version of the pg_dump that wrote it.
    pub dump_major: Option<u32>,
    /// Version of its format.
    #[serde(skip)]
    pub archive: Option<ArchiveVersion>,
    /// Encoding and locale of its database.
    pub database: Option<DatabaseFacts>,
    /// Every C library locale that its database names.
    pub libc_locales: BTreeSet<String>,
    /// Its extensions, with the version where it is known.
    pub extensions: BTreeMap<String, Option<String>>,
    /// Roles that own its objects.
    pub owners: BTreeSet<String>,
    /// Roles that its grants name. They are not needed where owners and grants are left out.
    pub grantees: BTreeSet<String>,
    /// Roles that its policies and user mappings name: these are needed in any case.
    pub named_roles: BTreeSet<String>,
    /// The tablespace of its database, where that is not the server's default.
    pub database_tablespace: Option<String>,
    /// Tablespaces of its objects.
    pub tablespaces: BTreeSet<String>,
    /// Its publications.
    pub publications: BTreeSet<String>,
    /// Its subscriptions, each with the server it subscribes to.
    pub subscriptions: BTreeMap<String, String>,
    /// What only a superuser may create: the kind, and the names.
    pub superuser_objects: BTreeMap<String, BTreeSet<String>>,
    /// Bytes of the archive without compression.
    pub plain_bytes: Option<u64>,
    /// Whether the table of contents was read. Without it grants, tablespaces, publications and
    /// the like are not known.
    pub complete: bool,
}

impl Needs {
    /// What a table of contents tells.
    pub fn from_toc(toc: &Toc) -> Self {
        let major = |text: &str| Version::parse(text).map(|version| version.major);
        let mut needs = Self {
            server_major: major(&toc.header.server_version),
            dump_major: major(&toc.header.dump_version),
            archive: Some(toc.header.version),
            database: database_facts(toc),
            database_tablespace: database_tablespace(toc),
            complete: true,
            ..Self::default()
        };
        if let Some(entry) = toc.of_kind("DATABASE").next() {
            needs.libc_locales = libc_locales(&entry.defn);
        }
        toc.entries.iter().for_each(|entry| needs.add(entry));
        needs
    }

    /// What a backup's inventory tells.
    pub fn from_inventory(inventory: &Inventory) -> Self {
        Self::default().with_inventory(inventory)
    }

    /// Adds what an inventory tells and the table of contents did not.
    #[must_use]
    pub fn with_inventory(mut self, inventory: &Inventory) -> Self {
        match (&mut self.database, &inventory.database) {
            (Some(known), Some(facts)) if known.collation_version.is_none() => {
                known.collation_version.clone_from(&facts.collation_version);
            }
            (place @ None, Some(facts)) => {
                let libc = facts.locale_provider.as_deref().is_none_or(|name| name == "libc");
                self.libc_locales.extend(facts.locale.iter().filter(|_| libc).cloned());
                *place = Some(facts.clone());
            }
            _ => {}
        }
        if !self.complete {
            let extensions = inventory.extensions.iter().map(|name| (name.clone(), None));
            self.extensions.extend(extensions);
            self.owners.extend(inventory.roles.iter().cloned());
        }
        self
    }

    /// Sets the version of the server it came from (`15.18`), where that is not known yet.
    #[must_use]
    pub fn with_server_version(mut self, version: &str) -> Self {
        let major = Version::parse(version).map(|version| version.major);
        self.server_major = self.server_major.or(major);
        self
    }

    /// Sets the size of the archive without compression.
    #[must_use]
    pub fn with_plain_bytes(mut self, bytes: u64) -> Self {
        self.plain_bytes = Some(bytes);
        self
    }

    fn add(&mut self, entry: &TocEntry) {
        if !entry.owner.is_empty() {
            self.owners.insert(entry.owner.clone());
        }
        if !entry.tablespace.is_empty() {
            self.tablespaces.insert(entry.tablespace.clone());
        }
        if needs_superuser(entry) {
            let objects = self.superuser_objects.entry(entry.desc.to_lowercase()).or_default();
            objects.insert(entry.tag.clone());
        }
        match entry.desc.as_str() {
            "ACL" | "DEFAULT ACL" => {
                statements(&entry.defn).for_each(|sql| self.grantees.extend(grantees(sql)));
            }
            "POLICY" | "USER MAPPING" => self.named_roles.extend(named_roles(&entry.defn)),
            "EXTENSION" => {
                self.extensions.insert(entry.tag.clone(), None);
            }
            "PUBLICATION" => {
                self.publications.insert(entry.tag.clone());
                if all_tables(&entry.defn) {
                    let kind = "publication for all tables".to_owned();
                    self.superuser_objects.entry(kind).or_default().insert(entry.tag.clone());
                }
            }
            "SUBSCRIPTION" => {
                self.subscriptions.insert(entry.tag.clone(), subscription(&entry.defn));
            }
            _ => {}
        }
    }
}

/// The values of `LOCALE`, `LC_COLLATE` and `LC_CTYPE` of a `CREATE DATABASE`.
fn libc_locales(create: &str) -> BTreeSet<String> {
    let found = words(create);
    let options = found.windows(3).filter_map(|three| match three {
        [name, equals, value] if equals.is_symbol("=") => Some((name, value)),
        _ => None,
    });
    let names = ["LOCALE", "LC_COLLATE", "LC_CTYPE"];
    options
        .filter(|(name, _)| names.iter().any(|wanted| name.is_keyword(wanted)))
        .filter_map(|(_, value)| value.string().map(String::from))
        .collect()
}
