//! A database's own properties, which a restore into a database of another name has to carry
//! over itself: pg_restore does so only for the old name.

use std::collections::BTreeMap;

use backup_core::{DatabaseFacts, Error, Result};

use crate::archive::{Toc, TocEntry};
use crate::sql::{Token, TokenKind, quote_ident, statements, tokens, words};

const STAGE: &str = "database properties";

/// PostgreSQL 15 brought `LOCALE_PROVIDER`; before it, libc was the only one.
const LOCALE_PROVIDER_SINCE: u32 = 15;

/// What happens to the tablespaces that an archive names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TablespaceMap {
    /// Everything goes into the database's own tablespace.
    pub ignore: bool,
    /// Old name to new name; names that are not in it stay.
    pub renamed: BTreeMap<String, String>,
}

impl TablespaceMap {
    /// Where something of this tablespace goes; `None` for the default.
    pub fn target<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        if self.ignore || name.is_empty() {
            return None;
        }
        Some(self.renamed.get(name).map_or(name, String::as_str))
    }
}

/// The statements that give a database made under a new name the properties of an archive's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabasePlan {
    /// Makes it, empty: encoding, locale provider and locale are those of the archive.
    pub create: String,
    /// Run after the data is in: owner, grants, settings, limits, security labels. Each is one
    /// statement, or several that belong together.
    pub properties: Vec<String>,
    /// The statement that gives it the archive's comment. Apart, because until it is complete the
    /// comment is where its mark stands.
    pub comment: Option<String>,
    /// The role that owns it in the archive; empty where that is not told.
    pub owner: String,
}

/// Plans the database of an archive under the name `new_name` on a server of `target_major`.
///
/// # Errors
/// When the archive holds no database entry, or one that can't be understood.
pub fn plan_database(
    toc: &Toc,
    new_name: &str,
    target_major: u32,
    tablespaces: &TablespaceMap,
) -> Result<DatabasePlan> {
    let entry = toc.of_kind("DATABASE").next().ok_or_else(|| {
        Error::usage(STAGE, "the archive does not tell how its database was made").next_step(
            "make an empty database with the encoding and locale wanted, and restore into that",
        )
    })?;
    let (mut properties, mut comment) = (Vec::new(), None);
    if !entry.owner.is_empty() {
        properties.push(format!(
            "ALTER DATABASE {} OWNER TO {}",
            quote_ident(new_name),
            quote_ident(&entry.owner)
        ));
    }
    for property in toc.entries.iter().filter(|e| is_database_property(e)) {
        exact(property)?;
        let renamed = statements(&property.defn)
            .map(|statement| rename(statement, &entry.tag, new_name))
            .collect::<Result<Vec<String>>>()?;
        match property.desc.as_str() {
            // Grants by others than the owner stand between two changes of the session's role.
            "ACL" => properties.push(renamed.join(";\n")),
            "COMMENT" => comment = renamed.into_iter().next(),
            _ => properties.extend(renamed),
        }
    }
    Ok(DatabasePlan {
        create: create_statement(entry, new_name, target_major, tablespaces)?,
        properties,
        comment,
        owner: entry.owner.clone(),
    })
}

/// What an archive tells about its database; `None` when it holds no database entry.
pub fn database_facts(toc: &Toc) -> Option<DatabaseFacts> {
    let entry = toc.of_kind("DATABASE").next()?;
    let options = create_options(entry).unwrap_or_default();
    let option = |name: &str| {
        let (_, token) = options.iter().find(|(option, _)| *option == name)?;
        token.string().or_else(|| token.name()).map(String::from)
    };
    let locale = ["ICU_LOCALE", "BUILTIN_LOCALE", "LOCALE", "LC_COLLATE"];
    Some(DatabaseFacts {
        name: entry.tag.clone(),
        encoding: option("ENCODING").unwrap_or_default(),
        locale_provider: option("LOCALE_PROVIDER"),
        locale: locale.iter().find_map(|name| option(name)),
        collation_version: option("COLLATION_VERSION"),
    })
}

/// The tablespace that an archive's database lies in; `None` for the server's default.
pub(crate) fn database_tablespace(toc: &Toc) -> Option<String> {
    let options = create_options(toc.of_kind("DATABASE").next()?).ok()?;
    let (_, token) = options.iter().find(|(option, _)| *option == "TABLESPACE")?;
    token.name().map(String::from)
}

/// Entries that belong to the database itself, which pg_restore leaves out without `--create`.
fn is_database_property(entry: &TocEntry) -> bool {
    match entry.desc.as_str() {
        "DATABASE PROPERTIES" => true,
        "COMMENT" | "SECURITY LABEL" | "ACL" => entry.tag.starts_with("DATABASE "),
        _ => false,
    }
}

fn create_statement(
    entry: &TocEntry,
    new_name: &str,
    target_major: u32,
    tablespaces: &TablespaceMap,
) -> Result<String> {
    let mut sql = format!("CREATE DATABASE {} WITH TEMPLATE = template0", quote_ident(new_name));
    for (option, value) in create_options(entry)? {
        let value = match option {
            // The target's collation library has a version of its own.
            "TEMPLATE" | "COLLATION_VERSION" | "OID" => continue,
            "LOCALE_PROVIDER" if target_major < LOCALE_PROVIDER_SINCE && value.text == "libc" => {
                continue;
            }
            "TABLESPACE" => {
                let name = value.name().unwrap_or_default();
                match tablespaces.target(&name) {
                    Some(name) => quote_ident(name),
                    None => continue,
                }
            }
            _ => value.text.to_owned(),
        };
        sql.push_str(&format!(" {option} = {value}"));
    }
    Ok(sql)
}

/// The options of `CREATE DATABASE name WITH option = value ..`, each with its value.
fn create_options(entry: &TocEntry) -> Result<Vec<(&str, Token<'_>)>> {
    exact(entry)?;
    let not_understood =
        || Error::failed(STAGE, format!("can't understand the archive's {:?}", entry.defn));
    let create = statements(&entry.defn).next().ok_or_else(not_understood)?;
    let found = words(create);
    let [create, database, _name, with, options @ ..] = found.as_slice() else {
        return Err(not_understood());
    };
    if !create.is_keyword("CREATE") || !database.is_keyword("DATABASE") || !with.is_keyword("WITH")
    {
        return Err(not_understood());
    }
    let mut out = Vec::new();
    for option in options.chunks(3) {
        match option {
            [name, equals, value] if name.kind == TokenKind::Word && equals.is_symbol("=") => {
                out.push((name.text, *value));
            }
            _ => return Err(not_understood()),
        }
    }
    Ok(out)
}

/// Puts `new_name` where a statement names the database: the name behind the keyword
/// `DATABASE`, which pg_dump writes in capitals, never inside a string or a quoted name.
fn rename(statement: &str, old_name: &str, new_name: &str) -> Result<String> {
    let mut out = String::with_capacity(statement.len() + new_name.len());
    let mut behind_keyword = false;
    let mut renamed = false;
    for token in tokens(statement) {
        if behind_keyword && !token.is_blank() {
            behind_keyword = false;
            if token.name().as_deref() == Some(old_name) {
                out.push_str(&quote_ident(new_name));
                renamed = true;
                continue;
            }
        }
        behind_keyword |= token.kind == TokenKind::Word && token.text == "DATABASE";
        out.push_str(token.text);
    }
    let session = words(statement)
        .first()
        .is_some_and(|first| first.is_keyword("SET") || first.is_keyword("RESET"));
    if !renamed && !session {
        return Err(Error::failed(STAGE, format!("does not name {old_name:?}: {statement:?}")));
    }
    Ok(out)
}

fn exact(entry: &TocEntry) -> Result<()> {
    if entry.exact {
        return Ok(());
    }
    Err(Error::failed(
        STAGE,
        format!("the archive's {} {:?} is not written in UTF-8", entry.desc, entry.tag),
    )
    .next_step("make the database yourself, and restore into it while it is empty"))
}

#[cfg(test)]
#[path = "database_tests.rs"]
mod tests;
