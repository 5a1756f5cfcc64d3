//! The database a restore goes into: found, made, published or dropped.

use backup_core::{Error, Result};
use tokio::task::JoinHandle;

use super::STAGE;
use super::working::{Purpose, comment_sql, create_sql, working_name};
use crate::archive::Toc;
use crate::database::{DatabasePlan, TablespaceMap, plan_database};
use crate::sql::{quote_ident, quote_literal};
use crate::{Connection, Psql, Server, ToolSearch};

/// Databases that every cluster has, to connect to while the target does not exist.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];

/// What somebody put into a database: nothing of the system, of extensions, or of the schema
/// `public` itself.
const CONTENTS: &str = "
with mine as (
    select n.oid from pg_catalog.pg_namespace n
    where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'),
of_extensions as (
    select classid, objid from pg_catalog.pg_depend where deptype = 'e')
select pg_catalog.json_build_object(
    'tables', (select count(*) from pg_catalog.pg_class c
        where c.relnamespace in (select oid from mine) and c.relkind in ('r', 'p', 'f', 'm', 'v', 'S')
          and ('pg_class'::pg_catalog.regclass, c.oid) not in (select * from of_extensions)),
    'others', (select count(*) from pg_catalog.pg_proc p
        where p.pronamespace in (select oid from mine)
          and ('pg_proc'::pg_catalog.regclass, p.oid) not in (select * from of_extensions))
      + (select count(*) from pg_catalog.pg_type t
        where t.typnamespace in (select oid from mine) and t.typtype in ('e', 'd', 'r')
          and ('pg_type'::pg_catalog.regclass, t.oid) not in (select * from of_extensions))
      + (select count(*) from pg_catalog.pg_namespace n
        where n.oid in (select oid from mine) and n.nspname <> 'public'
          and ('pg_namespace'::pg_catalog.regclass, n.oid) not in (select * from of_extensions))
      + (select count(*) from pg_catalog.pg_largeobject_metadata))";

#[derive(serde::Deserialize)]
struct Contents {
    tables: u64,
    others: u64,
}

/// The database a restore goes into.
pub(super) struct Target {
    /// Reached over another database while the target does not exist.
    server: Server,
    /// The name it has in the end.
    name: String,
    /// What was made of it so far.
    made: Made,
    /// `synchronous_commit` is off.
    forgets_commits: bool,
}

enum Made {
    /// Was there, and was empty.
    Existing,
    /// Does not exist yet.
    Nothing,
    /// Exists under its working name, or may.
    Working {
        name: String,
        plan: DatabasePlan,
        /// The comment that it gets with its name, where that is not the archive's.
        comment: Option<String>,
        /// The server is at it. A task of its own, so that nobody who gives up waiting has to
        /// guess whether the database came into being.
        creating: Option<JoinHandle<Result<()>>>,
    },
}

impl Target {
    /// Finds out whether the database exists and can be restored into.
    /// One that is `shared` may hold something.
    pub async fn find(connection: &Connection, search: &ToolSearch, shared: bool) -> Result<Self> {
        let unreachable = match Server::connect(connection, search).await {
            Ok(server) => {
                if !shared {
                    refuse_contents(&server).await?;
                }
                let name = server.database().to_owned();
                return Ok(Self { server, name, made: Made::Existing, forgets_commits: false });
            }
            Err(error) => error,
        };
        let Some(name) = connection.database().map(str::to_owned) else { return Err(unreachable) };
        for maintenance in MAINTENANCE {
            let Ok(server) = Server::connect(&connection.with_database(maintenance), search).await
            else {
                continue;
            };
            if !exists(&server.psql(), &name).await? {
                return Ok(Self { server, name, made: Made::Nothing, forgets_commits: false });
            }
            break;
        }
        Err(unreachable)
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The name it has in the end.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the database was there before.
    pub fn is_existing(&self) -> bool {
        matches!(self.made, Made::Existing)
    }

    /// How the database is reached now.
    pub fn connection(&self) -> Connection {
        let name = match &self.made {
            Made::Working { name, .. } => name,
            Made::Existing | Made::Nothing => &self.name,
        };
        let connection = self.server.connection().with_database(name);
        if !self.forgets_commits {
            return connection;
        }
        let options = connection.parameter("options").unwrap_or_default();
        let options = format!("{options} -c synchronous_commit=local");
        connection.with_public("options", options.trim())
    }

    /// Asks whether the server answers a commit before it is on disk. A crash could take an
    /// index or a constraint then, which pg_restore was told is there.
    async fn ask_for_commits(&mut self) -> Result<()> {
        let sql = "select to_json(reset_val = 'off') from pg_catalog.pg_settings
            where name = 'synchronous_commit'";
        self.forgets_commits = self.server.psql().query_json(sql).await?;
        Ok(())
    }

    /// Runs SQL in the database.
    pub fn psql(&self) -> Psql {
        Psql::new(self.server.tools(), &self.connection())
    }

    /// Makes the database, empty, as the archive describes it; one that exists stays as it is.
    pub async fn prepare(
        &mut self,
        toc: &Toc,
        tablespaces: &TablespaceMap,
        no_owners: bool,
        purpose: Option<&Purpose>,
    ) -> Result<()> {
        self.ask_for_commits().await?;
        if self.is_existing() {
            return Ok(());
        }
        let working = working_name();
        let major = self.server.version().major;
        let mut plan = plan_database(toc, &working, major, tablespaces)?;
        if no_owners {
            plan.properties.retain(|sql| !needs_roles(sql));
        }
        let purpose = purpose.cloned().unwrap_or_else(|| Purpose {
            kind: "restore".to_owned(),
            live: self.name.clone(),
            run: None,
            comment: None,
        });
        let (psql, create) = (self.server.psql(), create_sql(&plan.create, &working, &purpose));
        let creating = tokio::spawn(async move { psql.execute(&create).await });
        let (comment, creating) = (purpose.comment, Some(creating));
        self.made = Made::Working { name: working, plan, comment, creating };
        self.created().await
    }

    /// Waits until `CREATE DATABASE` is done, well or not. May be dropped and called again.
    async fn created(&mut self) -> Result<()> {
        let Made::Working { creating, .. } = &mut self.made else { return Ok(()) };
        let Some(running) = creating else { return Ok(()) };
        let done = running.await;
        *creating = None;
        done.unwrap_or_else(|died| {
            Err(Error::failed(STAGE, "making the database was cut off").caused_by(died))
        })
    }

    /// Gives the database its properties and its name: from here on it can be seen. Returns
    /// what could not be set.
    pub async fn publish(&mut self) -> Result<Vec<String>> {
        let Made::Working { name, plan, comment, .. } = &self.made else { return Ok(Vec::new()) };
        let psql = self.server.psql();
        let rename =
            format!("ALTER DATABASE {} RENAME TO {}", quote_ident(name), quote_ident(&self.name));
        // The mark goes together with the working name, or what a kill leaves would be nobody's.
        let own = comment_sql(name, comment.as_deref());
        let archived = plan.comment.as_ref().filter(|_| comment.is_none());
        let naming: Vec<&String> = [&own].into_iter().chain(archived).chain([&rename]).collect();
        let all: Vec<&String> = plan.properties.iter().chain(naming.iter().copied()).collect();
        let mut notes = Vec::new();
        if let Err(error) = psql.execute(&transaction(&all)).await
            && !self.is_published(&psql, name).await?
        {
            tracing::debug!(%error, "database properties one by one");
            let not_set = |sql: &String, error: Error| {
                format!("{sql:?} could not be run: {}", error.message())
            };
            for property in &plan.properties {
                if let Err(error) = psql.execute(property).await {
                    notes.push(not_set(property, error));
                }
            }
            if let Err(error) = psql.execute(&transaction(&naming)).await {
                psql.execute(&transaction(&[&own, &rename])).await?;
                notes.extend(archived.map(|sql| not_set(sql, error)));
            }
        }
        self.made = Made::Existing;
        Ok(notes)
    }

    /// Whether it has its own name: the answer that says so may have been lost.
    async fn is_published(&self, psql: &Psql, working: &str) -> Result<bool> {
        Ok(!exists(psql, working).await? && exists(psql, &self.name).await?)
    }

    /// Whether the database that was there before holds anything by now.
    pub async fn is_filled(&self) -> Result<bool> {
        contents(&self.server).await.map(|Contents { tables, others }| tables + others > 0)
    }

    /// Drops the database if it is one that [`prepare`](Self::prepare) made.
    pub async fn drop_made(&mut self) -> Result<()> {
        // Whoever waited for it has its error; what counts here is whether the database is there.
        let _ = self.created().await;
        let Made::Working { name, .. } = &self.made else { return Ok(()) };
        let quoted = quote_ident(name);
        // A template can't be dropped; the archived property may have made it one already.
        let drop = format!(
            "ALTER DATABASE {quoted} IS_TEMPLATE false;\n\
             DROP DATABASE IF EXISTS {quoted} WITH (FORCE)"
        );
        let psql = self.server.psql();
        let dropped = match exists(&psql, name).await {
            Ok(true) => psql.execute(&drop).await,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        dropped.map_err(|error| {
            Error::failed(STAGE, format!("the unfinished database {name} could not be dropped"))
                .next_step(format!("drop it by hand: DROP DATABASE {quoted} WITH (FORCE)"))
                .caused_by(error)
        })?;
        self.made = Made::Nothing;
        Ok(())
    }
}

/// Statements that are done together or not at all.
fn transaction(all: &[&String]) -> String {
    let all: Vec<&str> = all.iter().map(|sql| sql.as_str()).collect();
    format!("BEGIN;\n{};\nCOMMIT", all.join(";\n"))
}

async fn exists(psql: &Psql, name: &str) -> Result<bool> {
    let name = quote_literal(name);
    let sql = format!("select count(*) from pg_catalog.pg_database where datname = {name}");
    psql.query_json::<u64>(&sql).await.map(|count| count > 0)
}

async fn contents(server: &Server) -> Result<Contents> {
    server.psql().query_json(CONTENTS).await
}

async fn refuse_contents(server: &Server) -> Result<()> {
    let Contents { tables, others } = contents(server).await?;
    if tables + others == 0 {
        return Ok(());
    }
    let what = match (tables, others) {
        (tables, 0) => format!("{tables} tables, views or sequences"),
        (0, others) => format!("{others} objects, though no table"),
        (tables, others) => {
            format!("{tables} tables, views or sequences and {others} other objects")
        }
    };
    Err(Error::refused(
        STAGE,
        format!("the database {} is not empty: it has {what}", server.database()),
    )
    .next_step("restore into a database that does not exist yet: it will be made; or replace this one with --swap or --in-place"))
}

/// Whether a property of a database is about roles, which `no_owners` leaves out.
fn needs_roles(property: &str) -> bool {
    ["GRANT ", "REVOKE ", "SET SESSION ", "ALTER ROLE "].iter().any(|s| property.starts_with(s))
        || property.contains(" OWNER TO ")
}
