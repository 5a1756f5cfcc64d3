//! Where a swap happens and with what: the live database, the server's administration, the
//! application around it.

use std::time::Duration;

use backup_core::pipeline::{Cancel, Context};
use backup_core::{Error, Result};
use backup_pg::swap::{RunId, Swap, SwapLimits};
use backup_pg::{Connection, Psql, Server};
use secrecy::{ExposeSecret, SecretString};

use super::ticket::Ticket;
use super::url;
use crate::Deployment;
use crate::config::{
    Argv, DEFAULT_HEALTH_TIMEOUT, DEFAULT_HOOK_TIMEOUT, DEFAULT_KEEP_OLD, DEFAULT_SESSION_TIMEOUT,
    RestoreConfig, Value,
};
use crate::health::Health;
use crate::hooks::{DATABASE_URL, Hooks, shown};
use crate::lock::JobLock;

/// Databases that every cluster has, to administrate others from.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];

/// Whether anybody has put anything into a database. What an extension brought counts: it is
/// safer to swap once too often.
const IS_FILLED: &str = "
with mine as (select oid, nspname from pg_catalog.pg_namespace
    where nspname !~ '^pg_' and nspname <> 'information_schema')
select exists (select from mine where nspname <> 'public')
    or exists (select from pg_catalog.pg_class where relnamespace in (select oid from mine))
    or exists (select from pg_catalog.pg_proc where pronamespace in (select oid from mine))
    or exists (select from pg_catalog.pg_type where typnamespace in (select oid from mine))
    or exists (select from pg_catalog.pg_largeobject_metadata)";

/// The live database that a swap is about.
#[derive(Debug, Clone)]
pub enum SwapTarget {
    /// That of a job, with the hooks, checks and health of `[restore]`.
    Job(String),
    /// Another one, with nothing around it.
    Url(Value),
}

/// Everything around one live database. Cheap to clone, so that the part of a run that must not
/// be cut off can have its own.
#[derive(Clone)]
pub(crate) struct Site {
    /// The live database's name.
    pub live: String,
    /// On a maintenance database of the same server.
    pub admin: Server,
    /// What the application is configured with.
    app_url: SecretString,
    /// What the maintenance database is reached by.
    admin_url: SecretString,
    /// Names of variables that hold the application's URL.
    url_variables: Vec<String>,
    /// `[restore]`; empty for another database than a job's.
    pub config: RestoreConfig,
    hooks: Hooks,
    pub health: Option<Health>,
    pub job: Option<String>,
}

impl Deployment {
    /// Finds out where a swap of `target` would happen. Asks the server who it is.
    pub(crate) async fn site(&self, target: &SwapTarget) -> Result<Site> {
        let (value, config, job) = match target {
            SwapTarget::Job(job) => {
                let config = self.config().restore.clone();
                (&self.database_of(job)?.url, config, Some(job.clone()))
            }
            SwapTarget::Url(value) => (value, RestoreConfig::default(), None),
        };
        let app_url = value.fetch("database", self.environment()).await?;
        let connection: Connection = app_url.expose_secret().trim().parse()?;
        let live = connection.database().map(str::to_owned).ok_or_else(|| {
            Error::usage("connection", "the connection string names no database")
                .next_step("write postgresql://user@host:5432/database")
        })?;
        let admin_url = match &config.admin_url {
            Some(value) => value.fetch("admin_url", self.environment()).await?,
            None => {
                let maintenance = MAINTENANCE.iter().find(|name| **name != live);
                url::with_database(&app_url, maintenance.copied().unwrap_or("template1"))?
            }
        };
        let admin = self.admin(&admin_url, &live, config.admin_url.is_some()).await?;
        let limit = config.hook_timeout.unwrap_or(DEFAULT_HOOK_TIMEOUT);
        let mut url_variables = vec![DATABASE_URL.to_owned()];
        if let Value::Env(from) = value
            && from.env != DATABASE_URL
        {
            url_variables.push(from.env.clone());
        }
        let health = config.health.as_ref().map(|health| {
            Health::new(&health.url, health.timeout.unwrap_or(DEFAULT_HEALTH_TIMEOUT))
        });
        Ok(Site {
            live,
            admin,
            app_url,
            admin_url,
            url_variables,
            hooks: Hooks::new(limit, config.directory.clone()),
            health: health.transpose()?,
            config,
            job,
        })
    }

    /// Whether the database exists and holds anything, as far as can be told: when not, there is
    /// nothing to swap.
    ///
    /// # Errors
    /// When the server can't be asked.
    pub async fn is_in_use(&self, target: &SwapTarget) -> Result<bool> {
        let site = self.site(target).await?;
        let state = site.swap().state().await?;
        let Some(live) = &state.live else { return Ok(state.unfinished().is_some()) };
        if !live.open || state.unfinished().is_some() {
            return Ok(true);
        }
        let filled = site.admin.psql().with_database(&site.live).query_text(IS_FILLED).await;
        Ok(filled.map_or(true, |answer| answer != "f"))
    }

    async fn admin(&self, url: &SecretString, live: &str, configured: bool) -> Result<Server> {
        let connection: Connection = url.expose_secret().trim().parse()?;
        let server = Server::connect(&connection, &self.tool_search()).await;
        match server {
            Ok(server) if server.database() == live => Err(Error::usage(
                "config",
                format!("[restore]: `admin_url` leads to {live}, which is to be renamed"),
            )
            .next_step("let it lead to another database of the server, as a rule postgres")),
            Err(error) if !configured => {
                let advice = error.advice().unwrap_or("see above").to_owned();
                Err(Error::new(error.kind(), "admin_url", error.message().to_owned())
                    .next_step(format!(
                        "{advice}; or set `admin_url` under [restore] to another database of the server"
                    ))
                    .caused_by(error))
            }
            server => server,
        }
    }
}

impl Site {
    /// The engine that renames.
    pub fn swap(&self) -> Swap {
        let sessions = self.config.session_timeout.unwrap_or(DEFAULT_SESSION_TIMEOUT);
        let limits = SwapLimits { sessions, ..SwapLimits::default() };
        Swap::new(self.admin.psql(), self.live.clone(), limits)
    }

    /// Keeps others away from the live database as long as it lives: restores, and backups of
    /// its job, whose session would be ended.
    pub(super) fn lock(&self, deployment: &Deployment) -> Result<(Ticket, Option<JobLock>)> {
        let ticket = Ticket::take(deployment, &format!("{}/{}", self.admin.name(), self.live))?;
        let job = self.job.as_ref().map(|job| JobLock::take(&deployment.state_dir(), job));
        Ok((ticket, job.transpose()?))
    }

    /// Says that a run was killed which may have stopped services.
    pub(super) fn warn_of_killed(&self, ticket: &Ticket, context: &Context) {
        if let Some(run) = self.stopped_by(ticket) {
            context.warn(&format!(
                "restore {run} was killed, and the services may stand still: `restore --rollback` or `restore --continue` starts them"
            ));
        }
    }

    /// Starts what a killed run may have stopped. The application need not wait for the restore
    /// that comes now: what is live is whole.
    ///
    /// # Errors
    /// When they could not be started, which was told.
    pub(super) async fn start_after_killed(
        &self,
        ticket: &Ticket,
        context: &Context,
    ) -> Result<()> {
        let Some(run) = self.stopped_by(ticket) else { return Ok(()) };
        context.warn(&format!("restore {run} was killed: starting what it may have stopped"));
        self.start(context).await
    }

    /// The killed run that may have stopped services.
    fn stopped_by(&self, ticket: &Ticket) -> Option<RunId> {
        let has_services = !(self.config.stop.is_empty() && self.config.start.is_empty());
        ticket.killed().filter(|_| has_services)
    }

    /// How long the database that was swapped out has to stay.
    pub fn keep_old(&self) -> Duration {
        self.config.keep_old.unwrap_or(DEFAULT_KEEP_OLD)
    }

    /// The URL that restores into the database `name`: with the rights of the administration,
    /// or, where everything is to belong to the application, as the application.
    pub fn restore_url(&self, name: &str, as_application: bool) -> Result<Value> {
        let base = if as_application { &self.app_url } else { &self.admin_url };
        let text = url::with_database(base, name)?;
        Ok(Value::Literal(text.expose_secret().to_owned()))
    }

    /// How the application connects.
    pub fn application(&self) -> Result<Connection> {
        self.app_url.expose_secret().trim().parse()
    }

    /// What runs SQL in the database `name` as the application would.
    pub fn as_application(&self, name: &str) -> Result<Psql> {
        Ok(Psql::new(self.admin.tools(), &self.application()?.with_database(name)))
    }

    /// Runs the migrations against the database `name`, and nothing else: they are told its URL.
    pub async fn migrate(&self, name: &str, context: &Context) -> Result<()> {
        let text = url::with_database(&self.app_url, name)?;
        let hooks = self.hooks.clone().for_database(&self.url_variables, &text);
        let all = &self.config.migrate;
        run_all(&hooks, "migrate", all, context, &context.cancel).await
    }

    /// Runs hooks until one fails.
    pub async fn run_until_failure(
        &self,
        key: &str,
        all: &[Argv],
        context: &Context,
    ) -> Result<()> {
        run_all(&self.hooks, key, all, context, &context.cancel).await
    }

    /// Runs every hook, also after a stop was asked for and after one failed.
    ///
    /// # Errors
    /// The first failure; each is told as a warning, too.
    pub async fn run_every(&self, key: &str, all: &[Argv], context: &Context) -> Result<()> {
        let undisturbed = Cancel::default();
        let mut first = Ok(());
        for argv in all {
            context.step(&shown(key, argv));
            if let Err(error) = self.hooks.run(key, argv, &undisturbed).await {
                let causes = error.causes().join(": ");
                context
                    .warn(&format!("{error}{}{causes}", if causes.is_empty() { "" } else { ": " }));
                first = first.and(Err(error));
            }
        }
        first
    }

    /// Starts the services. They may run already.
    ///
    /// # Errors
    /// The first failure, after all were tried.
    pub async fn start(&self, context: &Context) -> Result<()> {
        self.run_every("start", &self.config.start, context).await
    }

    /// Waits until the application is healthy, where it can tell.
    pub async fn wait_for_health(&self, context: &Context, cancel: &Cancel) -> Result<()> {
        let Some(health) = &self.health else { return Ok(()) };
        context.step(&format!("waiting for {}", health.label()));
        health.wait(cancel).await
    }
}

async fn run_all(
    hooks: &Hooks,
    key: &str,
    all: &[Argv],
    context: &Context,
    cancel: &Cancel,
) -> Result<()> {
    for argv in all {
        context.step(&shown(key, argv));
        hooks.run(key, argv, cancel).await?;
    }
    Ok(())
}
