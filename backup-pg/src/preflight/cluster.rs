//! What the whole server knows: roles and databases.

use std::collections::BTreeMap;

use backup_core::Result;
use serde::Deserialize;

use crate::Psql;

/// From PostgreSQL 16 on a membership alone does not let one hand objects over.
const SET_OPTION_SINCE: u32 = 16;

/// From PostgreSQL 15 on databases know the version of their collation library.
const COLLATION_VERSION_SINCE: u32 = 15;

/// Roles that providers give their customers: they may do more than the catalog says.
const MANAGED_ADMINS: &str = "'rds_superuser', 'cloudsqlsuperuser', 'azure_pg_admin', \
    'alloydbsuperuser', 'doadmin', 'neon_superuser'";

/// Roles and databases.
#[derive(Debug, Deserialize)]
pub(super) struct Cluster {
    pub role: Role,
    pub roles: BTreeMap<String, OtherRole>,
    pub databases: Vec<Database>,
}

/// The role that asks.
#[derive(Debug, Deserialize)]
pub(super) struct Role {
    pub name: String,
    pub superuser: bool,
    pub createdb: bool,
    pub createrole: bool,
    /// Whether it may end sessions of other roles (not those of superusers).
    pub signals: bool,
    /// Whether it is an administrator as hosting providers have it.
    pub managed: bool,
}

/// A role of the server.
#[derive(Debug, Deserialize)]
pub(super) struct OtherRole {
    /// Whether the role that asks may give objects to it.
    pub assumable: bool,
    /// Whether the role that asks has its rights.
    pub usable: bool,
}

/// A database of the server.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Database {
    pub oid: u32,
    pub name: String,
    pub owner: String,
    pub encoding: String,
    pub is_template: bool,
    pub allows_connections: bool,
    pub connection_limit: i64,
    /// `libc`, `icu` or `builtin`.
    pub provider: String,
    pub collate: String,
    /// Of the providers other than libc.
    pub locale: Option<String>,
    /// Version of the collation library that it was made with, or confirmed for.
    pub collation_version: Option<String>,
    /// Version of the collation library that the server has now.
    pub actual_collation_version: Option<String>,
    /// `None` where the role that asks may not see it.
    pub bytes: Option<u64>,
}

/// The connection limit of a database whose DROP was cut off.
const INVALID: i64 = -2;

impl Database {
    /// Whether dropping it was cut off.
    pub fn is_invalid(&self) -> bool {
        self.connection_limit == INVALID
    }

    /// Its locale, as its provider counts it.
    pub fn effective_locale(&self) -> &str {
        self.locale.as_deref().filter(|_| self.provider != "libc").unwrap_or(&self.collate)
    }
}

/// Asks for them.
pub(super) async fn ask(psql: &Psql, major: u32) -> Result<Cluster> {
    let assume = if major >= SET_OPTION_SINCE { "SET" } else { "MEMBER" };
    let actual = match major >= COLLATION_VERSION_SINCE {
        true => "pg_catalog.pg_database_collation_actual_version(d.oid)",
        false => "null",
    };
    // What only some versions have is taken out of the whole row.
    let sql = format!(
        "select json_build_object(
    'role', (select json_build_object(
        'name', rolname, 'superuser', rolsuper, 'createdb', rolsuper or rolcreatedb,
        'createrole', rolsuper or rolcreaterole,
        'signals', rolsuper or pg_has_role(oid, 'pg_signal_backend', 'usage'),
        'managed', exists(select from pg_catalog.pg_roles m
            where m.rolname in ({MANAGED_ADMINS}) and pg_has_role(r.oid, m.oid, 'member')))
        from pg_catalog.pg_roles r where rolname = current_user),
    'roles', (select json_object_agg(rolname, json_build_object(
        'assumable', pg_has_role(oid, '{assume}'),
        'usable', pg_has_role(oid, 'usage'))) from pg_catalog.pg_roles),
    'databases', (select json_agg(json_build_object(
        'oid', d.oid::int8, 'name', datname, 'owner', pg_get_userbyid(datdba),
        'encoding', pg_encoding_to_char(encoding), 'is_template', datistemplate,
        'allows_connections', datallowconn, 'connection_limit', datconnlimit,
        'provider', case to_jsonb(d) ->> 'datlocprovider'
            when 'i' then 'icu' when 'b' then 'builtin' else 'libc' end,
        'collate', datcollate,
        'locale', coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
        'collation_version', to_jsonb(d) ->> 'datcollversion',
        'actual_collation_version', {actual},
        'bytes', case when has_database_privilege(d.oid, 'connect')
            or pg_has_role('pg_read_all_stats', 'usage') then pg_database_size(d.oid) end))
        from pg_catalog.pg_database d))"
    );
    psql.query_json(&sql).await
}
