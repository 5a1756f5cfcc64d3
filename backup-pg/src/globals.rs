//! Roles, memberships and tablespaces, as `pg_dumpall --globals-only` writes them, and what of
//! them a target cluster misses.
//!
//! Architecture invariant: a plan only ever *creates*. A role that exists on the target is
//! never altered, nor is its password.

mod plan;
mod read;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use secrecy::SecretString;

pub use plan::{GlobalsPlan, plan_globals};
pub(crate) use read::grantees;

/// The globals of one cluster. Passwords stay inside: `Debug` does not show them.
#[derive(Debug, Clone, Default)]
pub struct Globals {
    roles: BTreeMap<String, Role>,
    memberships: Vec<Membership>,
    tablespaces: Vec<Tablespace>,
    /// Grants on configuration parameters: the grantees and the statement.
    parameter_grants: Vec<(BTreeSet<String>, String)>,
    tablespace_grants: usize,
}

impl Globals {
    /// Reads the text of `pg_dumpall --globals-only` or `--roles-only`, of PostgreSQL 14 to 18.
    ///
    /// # Errors
    /// When it holds a statement that is not understood: better no roles than wrong ones.
    pub fn read(text: &str) -> backup_core::Result<Self> {
        read::read(text)
    }

    /// The same without some roles, and without memberships that they have a part in.
    #[must_use]
    pub fn without<'a>(&self, roles: impl IntoIterator<Item = &'a String>) -> Self {
        let mut left = self.clone();
        for name in roles {
            left.roles.remove(name);
            let names_it = |m: &Membership| m.role == *name || m.member == *name;
            left.memberships.retain(|membership| !names_it(membership));
        }
        left
    }

    /// Names of the roles, sorted.
    pub fn role_names(&self) -> impl Iterator<Item = &str> {
        self.roles.keys().map(String::as_str)
    }

    /// The tablespaces, in the order of the dump.
    pub fn tablespaces(&self) -> &[Tablespace] {
        &self.tablespaces
    }

    /// Roles that may log in but come without a password, sorted. Either it was dumped with
    /// `--no-role-passwords`, or they never had one.
    pub fn roles_without_password(&self) -> impl Iterator<Item = &str> {
        let locked_out = |role: &Role| role.attributes.contains("LOGIN") && role.password.is_none();
        self.roles.iter().filter(move |(_, role)| locked_out(role)).map(|(name, _)| name.as_str())
    }
}

/// A tablespace of the dumped cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Its name.
    pub name: String,
    /// Its folder there.
    pub location: String,
}

#[derive(Debug, Clone, Default)]
struct Role {
    /// `LOGIN`, `NOSUPERUSER`, `CONNECTION LIMIT 5`, `VALID UNTIL '..'`: as they stood.
    attributes: BTreeSet<String>,
    password: Option<SecretString>,
    /// `SET search_path TO 'a'`, as they stood, without the role.
    settings: Vec<String>,
    /// Whole statements: comment, security labels.
    labels: Vec<String>,
}

/// That `member` is a member of `role`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Membership {
    role: String,
    member: String,
    /// May hand the membership on.
    admin: bool,
    /// `INHERIT TRUE`, `SET FALSE`: from PostgreSQL 16 on.
    options: Vec<String>,
    grantor: Option<String>,
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.member, self.role)?;
        if self.admin {
            f.write_str(" with ADMIN OPTION")?;
        }
        self.options.iter().try_for_each(|option| write!(f, ", {option}"))
    }
}
