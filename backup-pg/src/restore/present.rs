//! What a database has already, as far as a choice of tables needs to know.

use std::collections::HashSet;

use backup_core::Result;

use crate::Psql;
use crate::archive::Present;

/// Everything of users and extensions; functions by name and the types of their arguments, in the
/// words of an archive (with an empty `search_path`, as every session here).
const PRESENT: &str = "
with mine as (
    select oid, nspname from pg_catalog.pg_namespace
    where nspname !~ '^pg_' and nspname <> 'information_schema')
select pg_catalog.json_build_object(
    'schemas', (select coalesce(json_agg(nspname), '[]') from mine),
    'extensions', (select coalesce(json_agg(extname), '[]') from pg_catalog.pg_extension),
    'relations', (select coalesce(json_agg(json_build_array(nspname, relname)), '[]')
        from mine join pg_catalog.pg_class c on c.relnamespace = mine.oid),
    'types', (select coalesce(json_agg(json_build_array(nspname, typname)), '[]')
        from mine join pg_catalog.pg_type t on t.typnamespace = mine.oid),
    'functions', (select coalesce(json_agg(json_build_array(nspname, proname || '('
            || case when prokind = 'a' and pronargs = 0 then '*'
               else pg_catalog.oidvectortypes(proargtypes) end || ')')), '[]')
        from mine join pg_catalog.pg_proc p on p.pronamespace = mine.oid))";

#[derive(serde::Deserialize)]
struct Listed {
    schemas: HashSet<String>,
    extensions: HashSet<String>,
    relations: HashSet<(String, String)>,
    types: HashSet<(String, String)>,
    functions: HashSet<(String, String)>,
}

/// Asks a database that exists.
pub(super) async fn present(psql: &Psql) -> Result<Present> {
    let listed: Listed = psql.query_json(PRESENT).await?;
    Ok(Present {
        relations: listed.relations,
        types: listed.types,
        functions: listed.functions,
        schemas: listed.schemas,
        extensions: listed.extensions,
        is_existing: true,
    })
}

/// What every database has that was made from template0.
pub(super) fn new_database() -> Present {
    Present {
        schemas: HashSet::from(["public".to_owned()]),
        extensions: HashSet::from(["plpgsql".to_owned()]),
        ..Present::default()
    }
}
