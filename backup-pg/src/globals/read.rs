//! Reads what pg_dumpall writes about roles, memberships and tablespaces.

use std::collections::BTreeSet;

use backup_core::{Error, Result};
use secrecy::SecretString;

use super::{Globals, Membership, Role, Tablespace};
use crate::sql::{Token, TokenKind, statements, words};

pub(super) fn read(text: &str) -> Result<Globals> {
    let mut globals = Globals::default();
    for statement in statements(text) {
        let found = words(statement);
        if take(&mut globals, statement, &found).is_none() {
            // Only its first words: a password may stand further behind.
            let start: Vec<&str> = found.iter().take(2).map(|token| token.text).collect();
            return Err(Error::failed(
                "globals",
                format!("can't understand a statement of pg_dumpall: {} ..", start.join(" ")),
            ));
        }
    }
    Ok(globals)
}

/// Takes one statement in; `None` when it is not understood.
fn take(globals: &mut Globals, statement: &str, found: &[Token<'_>]) -> Option<()> {
    let keyword = |i: usize, word: &str| found.get(i).is_some_and(|token| token.is_keyword(word));
    let name = |i: usize| found.get(i)?.name().map(String::from);
    if keyword(0, "SET") || keyword(0, "SELECT") || keyword(0, "RESET") {
        return Some(()); // session settings of the dump
    }
    if keyword(0, "CREATE") && keyword(1, "ROLE") {
        globals.roles.entry(name(2)?).or_default();
        return Some(());
    }
    if keyword(0, "ALTER") && keyword(1, "ROLE") {
        let role = globals.roles.entry(name(2)?).or_default();
        return match () {
            () if keyword(3, "WITH") => attributes(role, found.get(4..)?),
            () if keyword(3, "SET") => {
                role.settings.push(statement.get(found.get(3)?.start..)?.to_owned());
                Some(())
            }
            () => None,
        };
    }
    if let Some(on) = object_of_label(found) {
        let name = name(on + 2)?;
        if keyword(on + 1, "ROLE") {
            globals.roles.entry(name).or_default().labels.push(statement.to_owned());
        }
        return Some(());
    }
    if keyword(0, "CREATE") && keyword(1, "TABLESPACE") {
        let location = found.last()?.string()?.into_owned();
        globals.tablespaces.push(Tablespace { name: name(2)?, location });
        return Some(());
    }
    if keyword(0, "ALTER") && keyword(1, "TABLESPACE") {
        return Some(());
    }
    if keyword(0, "GRANT") || keyword(0, "REVOKE") {
        return grant(globals, statement, found);
    }
    None
}

/// Where `ON ROLE` or `ON TABLESPACE` stands in a `COMMENT` or `SECURITY LABEL`.
fn object_of_label(found: &[Token<'_>]) -> Option<usize> {
    let first = found.first()?;
    if !first.is_keyword("COMMENT") && !first.is_keyword("SECURITY") {
        return None;
    }
    let on = found.iter().position(|token| token.is_keyword("ON"))?;
    let kind = found.get(on + 1)?;
    (kind.is_keyword("ROLE") || kind.is_keyword("TABLESPACE")).then_some(on)
}

/// `NOSUPERUSER INHERIT .. CONNECTION LIMIT 5 PASSWORD '..' VALID UNTIL '..'`.
fn attributes(role: &mut Role, found: &[Token<'_>]) -> Option<()> {
    let mut rest = found.iter();
    while let Some(token) = rest.next() {
        if token.is_keyword("PASSWORD") {
            role.password = Some(SecretString::from(rest.next()?.string()?.into_owned()));
        } else if token.is_keyword("CONNECTION") {
            rest.next().filter(|limit| limit.is_keyword("LIMIT"))?;
            role.attributes.insert(format!("CONNECTION LIMIT {}", rest.next()?.text));
        } else if token.is_keyword("VALID") {
            rest.next().filter(|until| until.is_keyword("UNTIL"))?;
            role.attributes.insert(format!("VALID UNTIL {}", rest.next()?.text));
        } else if token.kind == TokenKind::Word {
            role.attributes.insert(token.text.to_owned());
        } else {
            return None;
        }
    }
    Some(())
}

fn grant(globals: &mut Globals, statement: &str, found: &[Token<'_>]) -> Option<()> {
    if let Some(on) = found.iter().position(|token| token.text == "ON") {
        // Rights on an object: a tablespace, or a configuration parameter.
        let kind = found.get(on + 1)?;
        if kind.is_keyword("PARAMETER") {
            globals.parameter_grants.push((grantees(statement), statement.to_owned()));
        } else if kind.is_keyword("TABLESPACE") {
            globals.tablespace_grants += 1;
        } else {
            return None;
        }
        return Some(());
    }
    let [grant, role, to, member, rest @ ..] = found else { return None };
    if !grant.is_keyword("GRANT") || !to.is_keyword("TO") {
        return None;
    }
    let mut membership = Membership {
        role: role.name()?.into_owned(),
        member: member.name()?.into_owned(),
        admin: false,
        options: Vec::new(),
        grantor: None,
    };
    let mut rest = rest.iter();
    while let Some(token) = rest.next() {
        if token.is_keyword("GRANTED") {
            rest.next().filter(|by| by.is_keyword("BY"))?;
            membership.grantor = Some(rest.next()?.name()?.into_owned());
        } else if token.is_keyword("ADMIN") {
            rest.next()?;
            membership.admin = true;
        } else if token.is_keyword("INHERIT") || token.is_keyword("SET") {
            membership.options.push(format!("{} {}", token.text, rest.next()?.text));
        } else if !token.is_keyword("WITH") && !token.is_symbol(",") {
            return None;
        }
    }
    globals.memberships.push(membership);
    Some(())
}

/// The roles that a `GRANT`, a `REVOKE` or an `ALTER DEFAULT PRIVILEGES` needs: those it gives
/// to or takes from, those it acts for. pg_dump writes keywords in capitals and quotes names
/// that look like one.
pub(crate) fn grantees(statement: &str) -> BTreeSet<String> {
    let found = words(statement);
    let is = |token: &Token<'_>, word: &str| token.kind == TokenKind::Word && token.text == word;
    let mut names = BTreeSet::new();
    let list = found.iter().rposition(|token| is(token, "TO") || is(token, "FROM"));
    for token in found.iter().skip(list.map_or(found.len(), |at| at + 1)) {
        if is(token, "WITH") || is(token, "GRANTED") || is(token, "CASCADE") {
            break;
        }
        if !is(token, "PUBLIC") && !is(token, "GROUP") {
            names.extend(token.name().map(String::from));
        }
    }
    for pair in found.windows(3) {
        if let [first, second, name] = pair {
            let acts_for = is(first, "FOR") && is(second, "ROLE");
            let acts_as = is(first, "SESSION") && is(second, "AUTHORIZATION");
            if acts_for || acts_as {
                names.extend(name.name().map(String::from));
            }
        }
    }
    names
}
