//! What a restore in place would do to a database: what it replaces, what it takes along, what
//! stays, and what stands in its way. Asked before anything is done, from the server's own records
//! of what depends on what.

use backup_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::STAGE;
use crate::Psql;
use crate::archive::{Toc, TocEntry, is_relation, list_of};
use crate::sql::quote_literal;

/// What a restore in place does to a database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InPlacePlan {
    /// The database.
    #[serde(default)]
    pub database: String,
    /// Tables, views and sequences that are dropped and made anew from the backup.
    pub replaces: Vec<String>,
    /// Those of the backup that the database does not have.
    pub creates: Vec<String>,
    /// What the backup lacks and is dropped all the same, because it belongs to something that is
    /// replaced: indexes, triggers. Never a table, whose rows would be lost: that is in the way.
    pub takes_along: Vec<String>,
    /// What the backup lacks and stays as it is.
    pub stays: Vec<String>,
    /// What the backup lacks and depends on something that would be dropped, or would go with its
    /// rows: a partition that is newer. One is enough to refuse the restore.
    pub blocks: Vec<String>,
}

impl InPlacePlan {
    /// Whether it can be done.
    ///
    /// # Errors
    /// `Refused` when something depends on what would be dropped.
    pub fn check(&self) -> Result<()> {
        if self.blocks.is_empty() {
            return Ok(());
        }
        Err(Error::refused(
            STAGE,
            format!(
                "the backup lacks something that depends on what would be replaced in {}: {}",
                self.database,
                list_of(&self.blocks)
            ),
        )
        .next_step("drop it (a partition: detach it), or restore beside the database and swap: then nothing has to go"))
    }
}

/// An object that pg_restore drops, as the server finds it.
#[derive(Serialize)]
struct Dropped<'a> {
    kind: &'a str,
    schema: &'a str,
    name: &'a str,
}

/// What the question needs to know about an entry; `None` for kinds that are not looked up.
/// Something that depends on one of those makes the restore fail, and all of it is rolled back.
fn dropped(entry: &TocEntry) -> Option<Dropped<'_>> {
    let kind = match entry.desc.as_str() {
        _ if is_relation(entry) => "relation",
        "INDEX" => "index",
        "TYPE" | "DOMAIN" | "SHELL TYPE" => "type",
        "FUNCTION" | "PROCEDURE" | "AGGREGATE" => "function",
        "CONSTRAINT" | "FK CONSTRAINT" | "CHECK CONSTRAINT" => "constraint",
        "TRIGGER" => "trigger",
        "POLICY" => "policy",
        "STATISTICS" => "statistics",
        _ => return None,
    };
    Some(Dropped { kind, schema: &entry.namespace, name: &entry.tag })
}

/// Asks what a restore in place of this archive would do.
pub(super) async fn plan(psql: &Psql, toc: &Toc, database: &str) -> Result<InPlacePlan> {
    let wanted: Vec<Dropped<'_>> = toc.entries.iter().filter_map(dropped).collect();
    let wanted = serde_json::to_string(&wanted)
        .map_err(|e| Error::failed(STAGE, "the plan can't be asked for").caused_by(e))?;
    let sql = PLAN.replace(":wanted", &quote_literal(&wanted));
    let mut plan: InPlacePlan = psql.query_json(&sql).await?;
    database.clone_into(&mut plan.database);
    Ok(plan)
}

/// `gone` is what the backup replaces and everything that goes with it by itself; what depends on
/// that and is not gone is in the way.
const PLAN: &str = "
with recursive wanted as (
    select * from pg_catalog.json_to_recordset(:wanted::json) as w (kind text, schema text, name text)),
mine as (
    select oid, nspname from pg_catalog.pg_namespace
    where nspname !~ '^pg_' and nspname <> 'information_schema'),
of_extensions as (
    select classid, objid from pg_catalog.pg_depend where deptype = 'e'),
named as (
    select case when relkind in ('i', 'I') then 'index' else 'relation' end as kind, nspname as schema, relname::text as name,
        'pg_class'::pg_catalog.regclass::oid as classid, c.oid as objid
    from mine join pg_catalog.pg_class c on c.relnamespace = mine.oid
    union all select 'type', nspname, typname, 'pg_type'::pg_catalog.regclass, t.oid
    from mine join pg_catalog.pg_type t on t.typnamespace = mine.oid
    union all select 'function', nspname, proname || '('
        || case when prokind = 'a' and pronargs = 0 then '*'
           else pg_catalog.oidvectortypes(proargtypes) end || ')',
        'pg_proc'::pg_catalog.regclass, p.oid
    from mine join pg_catalog.pg_proc p on p.pronamespace = mine.oid
    union all select 'constraint', nspname, relname || ' ' || conname,
        'pg_constraint'::pg_catalog.regclass, k.oid
    from mine join pg_catalog.pg_class c on c.relnamespace = mine.oid
    join pg_catalog.pg_constraint k on k.conrelid = c.oid
    union all select 'trigger', nspname, relname || ' ' || tgname,
        'pg_trigger'::pg_catalog.regclass, g.oid
    from mine join pg_catalog.pg_class c on c.relnamespace = mine.oid
    join pg_catalog.pg_trigger g on g.tgrelid = c.oid and not g.tgisinternal
    union all select 'policy', nspname, relname || ' ' || polname,
        'pg_policy'::pg_catalog.regclass, p.oid
    from mine join pg_catalog.pg_class c on c.relnamespace = mine.oid
    join pg_catalog.pg_policy p on p.polrelid = c.oid
    union all select 'statistics', nspname, stxname,
        'pg_statistic_ext'::pg_catalog.regclass, s.oid
    from mine join pg_catalog.pg_statistic_ext s on s.stxnamespace = mine.oid),
dropped as (
    select kind, schema, name, classid, objid from named join wanted using (kind, schema, name)),
gone (classid, objid) as (
    select classid, objid from dropped
    union
    select d.classid, d.objid from gone g
    join pg_catalog.pg_depend d on d.refclassid = g.classid and d.refobjid = g.objid
    where d.deptype in ('a', 'i', 'P', 'S')),
extra as (
    select n.*, (classid, objid) in (select classid, objid from gone) as is_gone,
        n.kind = 'relation' and c.relkind in ('r', 'p', 'f') as is_table
    from named n
    left join pg_catalog.pg_class c on n.kind in ('relation', 'index') and c.oid = n.objid
    left join pg_catalog.pg_constraint k on n.kind = 'constraint' and k.oid = n.objid
    left join pg_catalog.pg_type t on n.kind = 'type' and t.oid = n.objid
    left join pg_catalog.pg_trigger g on n.kind = 'trigger' and g.oid = n.objid
    where (classid, objid) not in (select classid, objid from dropped)
      and (classid, objid) not in (select * from of_extensions)
      and case n.kind
          when 'relation' then c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
          when 'index' then not c.relispartition and not exists (
                  select 1 from pg_catalog.pg_constraint own where own.conindid = c.oid
                      and own.contype in ('p', 'u', 'x'))
          when 'constraint' then k.contype in ('f', 'p', 'u', 'x') and k.conparentid = 0
          when 'type' then t.typtype in ('e', 'd', 'r')
          when 'trigger' then g.tgparentid = 0
          else true end),
in_the_way as (
    select distinct
        pg_catalog.pg_describe_object(
            case when d.classid = 'pg_rewrite'::pg_catalog.regclass
                then 'pg_class'::pg_catalog.regclass::oid else d.classid end,
            coalesce(r.ev_class, d.objid), case when r.oid is null then d.objsubid else 0 end)
        || ' needs ' || pg_catalog.pg_describe_object(g.classid, g.objid, 0) as what
    from gone g
    join pg_catalog.pg_depend d on d.refclassid = g.classid and d.refobjid = g.objid
    left join pg_catalog.pg_rewrite r
        on d.classid = 'pg_rewrite'::pg_catalog.regclass and r.oid = d.objid
    where d.deptype = 'n'
      and (d.classid, d.objid) not in (select classid, objid from gone)
      and not (r.oid is not null and ('pg_class'::pg_catalog.regclass::oid, r.ev_class)
          in (select classid, objid from gone)))
select pg_catalog.json_build_object(
    'replaces', (select coalesce(json_agg(d.schema || '.' || d.name order by d.schema, d.name), '[]')
        from dropped d join pg_catalog.pg_class c on c.oid = d.objid
        where d.kind = 'relation' and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')),
    'creates', (select coalesce(json_agg(w.schema || '.' || w.name order by w.schema, w.name), '[]')
        from wanted w where w.kind = 'relation'
          and not exists (select 1 from dropped d where (d.kind, d.schema, d.name) = (w.kind, w.schema, w.name))),
    'takes_along', (select coalesce(json_agg(what order by what), '[]') from (
        select pg_catalog.pg_describe_object(classid, objid, 0) as what from extra where is_gone and not is_table) x),
    'stays', (select coalesce(json_agg(what order by what), '[]') from (
        select pg_catalog.pg_describe_object(classid, objid, 0) as what from extra
        where not is_gone and kind in ('relation', 'type', 'function')) x),
    'blocks', (select coalesce(json_agg(what order by what), '[]') from (
        select what from in_the_way
        union all select pg_catalog.pg_describe_object(classid, objid, 0)
            || ' would go with its rows: it is a part of what is replaced, and the backup lacks it'
        from extra where is_gone and is_table) x))";
