//! Tablespaces: are they there, may they be used, and is there room?

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use backup_core::Result;
use serde::Deserialize;

use super::finding::some_of;
use super::{Finding, Inquiry};
use crate::sql::quote_ident;

const TABLESPACES: &str = "tablespaces";
const SPACE: &str = "space";

/// A database is at least this part of its COPY text: long texts are stored compressed.
const LEAST_PART: u64 = 4;

#[derive(Debug, Deserialize)]
struct Places {
    tablespaces: BTreeMap<String, Tablespace>,
    /// `None` where the role may not see it.
    data_directory: Option<PathBuf>,
    /// Client and server see each other on one address, or on a socket.
    same_host: bool,
    socket: bool,
}

#[derive(Debug, Deserialize)]
struct Tablespace {
    usable: bool,
    /// Empty for those in the data directory.
    location: String,
}

pub(super) async fn check(inquiry: &Inquiry<'_>) -> Result<Vec<Finding>> {
    let sql = "select json_build_object(
        'tablespaces', (select json_object_agg(spcname, json_build_object(
            'usable', has_tablespace_privilege(oid, 'create'),
            'location', pg_tablespace_location(oid))) from pg_catalog.pg_tablespace),
        'data_directory', (select setting from pg_catalog.pg_settings where name = 'data_directory'),
        'same_host', coalesce(inet_server_addr() = inet_client_addr(), true),
        'socket', inet_server_addr() is null)";
    let places: Places = inquiry.psql.query_json(sql).await?;
    let mut findings = tablespaces(inquiry, &places);
    findings.extend(space(inquiry, &places));
    Ok(findings)
}

fn tablespaces(inquiry: &Inquiry<'_>, places: &Places) -> Vec<Finding> {
    let map = &inquiry.options.tablespaces;
    let own = inquiry.needs.database_tablespace.iter().filter(|_| !inquiry.is_in_place());
    let wanted: BTreeSet<&str> = inquiry
        .needs
        .tablespaces
        .iter()
        .chain(own)
        .filter_map(|name| map.target(name))
        .filter(|name| *name != "pg_default")
        .collect();
    let (there, missing): (Vec<&str>, Vec<&str>) =
        wanted.into_iter().partition(|name| places.tablespaces.contains_key(*name));
    let refused: Vec<&str> =
        there.into_iter().filter(|name| !places.tablespaces[*name].usable).collect();
    let mut findings = Vec::new();
    if !missing.is_empty() {
        findings.push(Finding::blocking(
            TABLESPACES,
            format!("the server lacks {}", some_of(&missing)),
            "make it, map it to one there is (--tablespace OLD=NEW), or restore without tablespaces (--no-tablespaces)",
        ));
    }
    if !refused.is_empty() {
        let me = &inquiry.role.name;
        let grants = refused.iter().map(|name| {
            format!("GRANT CREATE ON TABLESPACE {} TO {}", quote_ident(name), quote_ident(me))
        });
        findings.push(Finding::blocking(
            TABLESPACES,
            format!("{me} may not use {}", some_of(&refused)),
            grants.collect::<Vec<_>>().join("; "),
        ));
    }
    findings
}

/// What the restored database takes, as far as anybody can say beforehand.
#[derive(Debug, PartialEq, Eq)]
struct Demand {
    /// Less can't be.
    least: u64,
    /// About so much, with its indexes.
    likely: u64,
}

impl Demand {
    /// The COPY text tells little of the size on disk, and a live database may be bloated or
    /// have grown: of both, the lower is the least.
    fn of(plain: u64, live: Option<u64>) -> Self {
        let live = live.unwrap_or(0);
        let with_indexes = plain.saturating_add(plain / 2);
        let least = plain / LEAST_PART;
        Self { least, likely: live.max(with_indexes) }
    }
}

fn space(inquiry: &Inquiry<'_>, places: &Places) -> Option<Finding> {
    let plain = inquiry.needs.plain_bytes?;
    let live = inquiry.live().and_then(|live| live.bytes);
    let demand = Demand::of(plain, live);
    let sizes = match live {
        Some(live) => format!(
            "the backup holds {}, the live database takes {}",
            readable(plain),
            readable(live)
        ),
        None => format!("the backup holds {}", readable(plain)),
    };
    let Some(free) = folder(inquiry, places).and_then(|folder| free_bytes(&folder)) else {
        return Some(Finding::note(
            SPACE,
            format!("{sizes}; how much is free on the server can't be seen from here"),
            format!(
                "look there (df): about {} are wanted beside what is there",
                readable(demand.likely)
            ),
        ));
    };
    let found = format!("{sizes}; {} are free on the server", readable(free));
    if free < demand.least {
        let remedy = "make room, or restore on another server or tablespace";
        return Some(Finding::blocking(SPACE, found, remedy));
    }
    if free < demand.likely {
        let remedy = format!(
            "make room: about {} are wanted beside what is there. A full disk stops the live database, too",
            readable(demand.likely)
        );
        return Some(Finding::warning(SPACE, found, remedy));
    }
    None
}

/// The folder that the restored database lies in, when it is on this very host.
fn folder(inquiry: &Inquiry<'_>, places: &Places) -> Option<PathBuf> {
    let data = places.data_directory.as_ref().filter(|_| places.same_host)?;
    // A tunnel or a container looks like this host as well.
    match system_identifier(data) {
        Some(found) if Some(found.to_string().as_str()) != inquiry.admin.system_identifier() => {
            return None;
        }
        Some(_) => {}
        None if places.socket && data.is_dir() => {}
        None => return None,
    }
    let name = inquiry.needs.database_tablespace.as_deref().unwrap_or_default();
    let tablespace = inquiry.options.tablespaces.target(name);
    let location =
        tablespace.and_then(|name| Some(places.tablespaces.get(name)?.location.as_str()));
    // Joined, because one inside the data directory is given relative to it.
    Some(data.join(location.unwrap_or_default()))
}

/// The first eight bytes of the control file, where it may be read.
fn system_identifier(data: &Path) -> Option<u64> {
    let mut bytes = [0; 8];
    File::open(data.join("global/pg_control")).ok()?.read_exact(&mut bytes).ok()?;
    Some(u64::from_ne_bytes(bytes))
}

fn free_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn readable(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} bytes") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demand_counts_both_sizes() {
        assert_eq!(Demand::of(1000, None), Demand { least: 250, likely: 1500 });
        assert_eq!(Demand::of(1000, Some(5000)), Demand { least: 250, likely: 5000 });
        assert_eq!(Demand::of(1000, Some(10)), Demand { least: 250, likely: 1500 });
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(readable(1023), "1023 bytes");
        assert_eq!(readable(3 << 29), "1.5 GiB");
        assert_eq!(readable(u64::MAX), "16384.0 PiB");
    }
}
