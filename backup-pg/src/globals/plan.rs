//! What of a backup's globals a target cluster misses, and how to make it.

use std::collections::BTreeSet;
use std::fmt;

use secrecy::ExposeSecret;

use super::{Globals, Membership, Role, Tablespace};
use crate::sql::{quote_ident, quote_literal};

/// PostgreSQL 16 brought options and a meaningful grantor to memberships.
const MEMBERSHIP_OPTIONS_SINCE: u32 = 16;

/// PostgreSQL 15 brought rights on configuration parameters.
const PARAMETER_GRANTS_SINCE: u32 = 15;

/// What to create on a target so that it has the roles of a backup. Neither `Debug` nor
/// [`differences`](Self::differences) shows a password; only the statements hold them.
#[derive(Clone, Default)]
pub struct GlobalsPlan {
    statements: Vec<String>,
    /// Roles that it creates, sorted.
    pub creates: Vec<String>,
    /// What differs between backup and target and is left as it is, a line each.
    pub differences: Vec<String>,
    /// Roles that it creates and that can't log in: they may, but the backup has no password.
    pub cannot_log_in: Vec<String>,
    /// Tablespaces of the backup, to be mapped, ignored or made before a restore.
    pub tablespaces: Vec<Tablespace>,
}

impl GlobalsPlan {
    /// The statements, in the order to run them. They hold password hashes: not to be logged.
    pub fn statements(&self) -> Vec<String> {
        self.statements.clone()
    }
}

impl fmt::Debug for GlobalsPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GlobalsPlan")
            .field("statements", &self.statements.len())
            .field("creates", &self.creates)
            .field("differences", &self.differences)
            .field("cannot_log_in", &self.cannot_log_in)
            .field("tablespaces", &self.tablespaces)
            .finish()
    }
}

/// Plans how a cluster of version `target_major` with the globals `target` gets what it misses
/// of `backup`. What exists there is never altered.
pub fn plan_globals(backup: &Globals, target: &Globals, target_major: u32) -> GlobalsPlan {
    let mut plan = GlobalsPlan { tablespaces: backup.tablespaces.clone(), ..Default::default() };
    for (name, role) in &backup.roles {
        match target.roles.get(name) {
            Some(existing) => plan.differences.extend(role_differences(name, role, existing)),
            None => create_role(&mut plan, name, role),
        }
    }
    let created: BTreeSet<String> = plan.creates.iter().cloned().collect();
    for membership in &backup.memberships {
        add_membership(&mut plan, membership, target, target_major);
    }
    for (grantees, statement) in &backup.parameter_grants {
        if grantees.is_empty() || !grantees.is_subset(&created) {
            continue;
        }
        if target_major >= PARAMETER_GRANTS_SINCE {
            plan.statements.push(statement.clone());
        } else {
            plan.differences.push(format!("this server knows no {statement:?}"));
        }
    }
    if backup.tablespace_grants > 0 {
        plan.differences.push("rights on tablespaces are not restored".to_owned());
    }
    plan.cannot_log_in = backup
        .roles_without_password()
        .filter(|name| created.contains(*name))
        .map(str::to_owned)
        .collect();
    plan
}

fn create_role(plan: &mut GlobalsPlan, name: &str, role: &Role) {
    let quoted = quote_ident(name);
    let mut sql = format!("CREATE ROLE {quoted}");
    if !role.attributes.is_empty() || role.password.is_some() {
        sql.push_str(" WITH");
    }
    for attribute in &role.attributes {
        sql.push(' ');
        sql.push_str(attribute);
    }
    if let Some(password) = &role.password {
        sql.push_str(&format!(" PASSWORD {}", quote_literal(password.expose_secret())));
    }
    plan.statements.push(sql);
    let settings = role.settings.iter().map(|set| format!("ALTER ROLE {quoted} {set}"));
    plan.statements.extend(settings);
    plan.statements.extend(role.labels.iter().cloned());
    plan.creates.push(name.to_owned());
}

fn role_differences(name: &str, backup: &Role, target: &Role) -> Vec<String> {
    let join = |set: Vec<&str>| if set.is_empty() { "nothing".into() } else { set.join(", ") };
    let missing = |a: &Role, b: &Role| -> String {
        let attributes = a.attributes.difference(&b.attributes).map(String::as_str);
        let settings = a.settings.iter().filter(|s| !b.settings.contains(s)).map(String::as_str);
        let labels = a.labels.iter().filter(|s| !b.labels.contains(s)).map(String::as_str);
        join(attributes.chain(settings).chain(labels).collect())
    };
    let (backup_has, target_has) = (missing(backup, target), missing(target, backup));
    if backup_has == target_has {
        return Vec::new();
    }
    vec![format!(
        "role {name} exists and stays as it is: the backup has {backup_has}, the server {target_has}"
    )]
}

fn add_membership(plan: &mut GlobalsPlan, wanted: &Membership, target: &Globals, major: u32) {
    let same_pair = |m: &&Membership| m.role == wanted.role && m.member == wanted.member;
    let mut existing = target.memberships.iter().filter(same_pair).peekable();
    if existing.peek().is_some() {
        let same = |m: &Membership| {
            m.admin == wanted.admin && (m.options == wanted.options || wanted.options.is_empty())
        };
        if !existing.any(same) {
            plan.differences.push(format!(
                "membership of {} in {} exists and stays as it is; the backup has: {wanted}",
                wanted.member, wanted.role
            ));
        }
        return;
    }
    let mut options = Vec::new();
    if wanted.admin {
        options.push("ADMIN OPTION");
    }
    if major >= MEMBERSHIP_OPTIONS_SINCE {
        options.extend(wanted.options.iter().map(String::as_str));
    } else if wanted.options.iter().any(|option| option != "INHERIT TRUE") {
        plan.differences.push(format!("this server can't express all of the membership {wanted}"));
    }
    let mut sql = format!("GRANT {} TO {}", quote_ident(&wanted.role), quote_ident(&wanted.member));
    if !options.is_empty() {
        sql.push_str(&format!(" WITH {}", options.join(", ")));
    }
    // A grantor that is on neither side would make the whole grant fail; so would one from
    // before PostgreSQL 16 (no options there), which needed no right to grant by then.
    let checked = major >= MEMBERSHIP_OPTIONS_SINCE && wanted.options.is_empty();
    let known = |name: &String| {
        !checked && (target.roles.contains_key(name) || plan.creates.contains(name))
    };
    if let Some(grantor) = wanted.grantor.as_ref().filter(|name| known(name)) {
        sql.push_str(&format!(" GRANTED BY {}", quote_ident(grantor)));
    }
    plan.statements.push(sql);
}
