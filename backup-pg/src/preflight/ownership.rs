//! Whom a role that is no superuser may give objects to.

use super::finding::some_of;
use super::{Finding, Inquiry};

/// Owners that exist, or will, and that the role which restores may not give objects to.
pub(super) fn check(inquiry: &Inquiry<'_>, created: &[&str]) -> Option<Finding> {
    if inquiry.role.superuser || inquiry.options.no_owners {
        return None;
    }
    let target = |owner: &'_ String| inquiry.options.role_map.get(owner).unwrap_or(owner).clone();
    let mut refused: Vec<String> = inquiry.needs.owners.iter().map(target).collect();
    refused.retain(|owner| match inquiry.roles.get(owner) {
        // The server's own roles own what template0 brings along.
        Some(role) => !role.assumable && !owner.starts_with("pg_"),
        // Who creates a role may not act as it, unless he grants himself that.
        None => created.contains(&owner.as_str()),
    });
    if refused.is_empty() {
        return None;
    }
    let (me, names) = (&inquiry.role.name, some_of(&refused));
    Some(Finding::new(
        inquiry.superuser_severity(),
        "owners",
        format!("{me} may not give objects to {names}"),
        format!(
            "restore as a superuser, make {me} a member of these roles, or leave owners and grants out (--no-owner)"
        ),
    ))
}
