//! `restore`: brings a database back, beside the live one, into a new one, or onto it.

mod afterwards;
mod files;
mod plan;
mod steps;
mod tell;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use backup_cli::config::Value;
use backup_cli::{Deployment, RestoreFrom, RestoreOptions, SafetyBackup, SwapOptions, SwapTarget};
use backup_core::pipeline::Context;
use backup_core::{Catalog, CatalogEntry, Error, ErrorKind, Query, Result};
use backup_pg::{SelectedPart, Selection};

use super::args::RestoreArgs;
use super::verify::names_a_file;
use super::{Session, catalog, exit_code, setup};
use steps::Steps;

/// Restores, or finishes or undoes what an earlier restore did.
///
/// # Errors
/// The first cause. What was there before is there again then, or the error says what to do.
pub async fn run(args: RestoreArgs, session: &Session) -> Result<u8> {
    let to = args.to.clone();
    let done = restore_or_mend(args, session).await;
    done.map_err(|error| naming_target(error, to.as_deref()))
}

/// Without --to the commands that an error names would be about the job's own database.
fn naming_target(error: Error, to: Option<&str>) -> Error {
    let (Some(to), Some(advice)) = (to, error.advice()) else { return error };
    let mut named = advice.to_owned();
    for flag in ["--rollback", "--continue", "--cleanup"] {
        named = named.replace(flag, &format!("{flag} --to '{to}'"));
    }
    error.next_step(named)
}

async fn restore_or_mend(args: RestoreArgs, session: &Session) -> Result<u8> {
    if args.is_afterwards() {
        return afterwards::run(&args, session).await;
    }
    if let Some(to) = &args.to {
        // A password that was typed is refused before anything else is said about the wish.
        setup::url_value(to)?;
    }
    let what = args.what.clone().unwrap_or_default();
    if names_a_file(&what) {
        if args.files.are_meant() {
            return Err(files::refuse_plain_file());
        }
        let deployment = setup::for_file(&args.from, &session.common)?;
        let from = RestoreFrom::File(Path::new(&what));
        return restore(&args, &deployment, from, None, session).await;
    }
    let deployment = setup::for_reading(&args.from, &session.common)?;
    let query = Query::for_backup(args.from.job.as_deref(), &what)?;
    let catalog: Catalog = catalog(&deployment, &query, session).await?;
    let entry: &CatalogEntry = catalog.find(&what)?;
    if files::are_meant(&args, entry) {
        return files::run(&args, &deployment, entry, session).await;
    }
    let job = Some(entry.manifest.job.as_str());
    restore(&args, &deployment, RestoreFrom::Backup(entry), job, session).await
}

/// One restore, with all that its flags say.
struct Wanted<'a> {
    args: &'a RestoreArgs,
    deployment: &'a Deployment,
    from: RestoreFrom<'a>,
    target: SwapTarget,
    options: RestoreOptions,
    context: Context,
    session: &'a Session,
}

async fn restore(
    args: &RestoreArgs,
    deployment: &Deployment,
    from: RestoreFrom<'_>,
    job: Option<&str>,
    session: &Session,
) -> Result<u8> {
    let target = target(args, deployment, job)?;
    let swaps = is_to_be_swapped(args, deployment, &target, session).await?;
    let mut options = options(args, target_url(deployment, &target)?)?;
    if !swaps {
        let looking = deployment.refuse_unfinished_swap(&target);
        refuse_unfinished(session.context.cancel.guard(looking).await, &target, session)?;
    }
    // A server with a live database has its roles; for a new one they come along.
    let is_new = !swaps && !args.how.in_place && options.selection.is_none();
    options.globals = args.how.with_globals || is_new && !args.how.no_globals;
    let steps = Steps::over(&session.context, &session.common);
    let context = Context { progress: Arc::new(steps), ..session.context.clone() };
    let wanted = Wanted { args, deployment, from, target, options, context, session };
    if args.how.in_place {
        wanted.in_place().await
    } else if swaps {
        wanted.swap().await
    } else {
        wanted.plain().await
    }
}

/// Whatever is restored into a database with an unfinished swap would go with a rollback. A login
/// for --to may see that one database alone: then it is said that nobody looked.
fn refuse_unfinished(looked: Result<()>, target: &SwapTarget, session: &Session) -> Result<()> {
    match (looked, target) {
        (Err(error), SwapTarget::Url(_))
            if !matches!(error.kind(), ErrorKind::Refused | ErrorKind::Interrupted) =>
        {
            session.context.warn(&format!(
                "it can't be seen whether a restore of this database is unfinished: {}",
                error.message()
            ));
            Ok(())
        }
        (looked, _) => looked,
    }
}

/// Whether the database is exchanged for a new one: a job's that is in use always, another one
/// only when it is said.
async fn is_to_be_swapped(
    args: &RestoreArgs,
    deployment: &Deployment,
    target: &SwapTarget,
    session: &Session,
) -> Result<bool> {
    if args.how.in_place || !args.tables.tables.is_empty() {
        return Ok(false);
    }
    match target {
        SwapTarget::Url(_) => Ok(args.how.swap),
        SwapTarget::Job(_) => session.context.cancel.guard(deployment.is_in_use(target)).await,
    }
}

/// The database that is restored into: `--to`, or that of the backup's job.
fn target(args: &RestoreArgs, deployment: &Deployment, job: Option<&str>) -> Result<SwapTarget> {
    if let Some(to) = &args.to {
        return Ok(SwapTarget::Url(setup::url_value(to)?));
    }
    let jobs = &deployment.config().job;
    let job = args.from.job.as_deref().or(job);
    match (job, jobs.len()) {
        (Some(job), _) if jobs.contains_key(job) => Ok(SwapTarget::Job(job.to_owned())),
        (Some(job), _) => {
            Err(Error::usage("restore", format!("the config has no job {job:?} to restore into"))
                .next_step("name the database with --to URL"))
        }
        (None, 1) => Ok(SwapTarget::Job(jobs.keys().next().cloned().unwrap_or_default())),
        (None, _) => Err(Error::usage("restore", "it is not said which database to restore into")
            .next_step("name it with --to URL, or its job with --job NAME")),
    }
}

fn target_url(deployment: &Deployment, target: &SwapTarget) -> Result<Value> {
    match target {
        SwapTarget::Job(job) => Ok(deployment.database_of(job)?.url.clone()),
        SwapTarget::Url(value) => Ok(value.clone()),
    }
}

fn options(args: &RestoreArgs, url: Value) -> Result<RestoreOptions> {
    let how = &args.how;
    let tables = &args.tables;
    let what = match (tables.data_only, tables.schema_only) {
        (true, _) => SelectedPart::DataOnly,
        (_, true) => SelectedPart::SchemaOnly,
        _ => SelectedPart::All,
    };
    let selection = (!tables.tables.is_empty()).then(|| Selection {
        tables: tables.tables.clone(),
        what,
        into_schema: tables.into_schema.clone(),
    });
    Ok(RestoreOptions {
        tablespaces: pairs("--tablespace", &how.tablespaces)?,
        no_tablespaces: how.no_tablespaces,
        accept_unsigned: args.accept_unsigned,
        accept_missing_rows: how.accept_missing_rows,
        accept_replication_break: how.accept_replication_break,
        roles: pairs("--role", &how.roles)?,
        no_owners: how.no_owner,
        jobs: how.jobs,
        selection,
        ..RestoreOptions::into_database(url)
    })
}

fn pairs(flag: &str, all: &[String]) -> Result<Vec<(String, String)>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => {
            Ok((old.to_owned(), new.to_owned()))
        }
        _ => Err(Error::usage("flags", format!("{flag} {text:?} is no OLD=NEW"))),
    };
    all.iter().map(pair).collect()
}

impl Wanted<'_> {
    async fn swap(&self) -> Result<u8> {
        let options = SwapOptions {
            target: self.target.clone(),
            restore: self.options.clone(),
            keep_failed: self.args.how.keep_failed,
        };
        if self.args.dry_run {
            let plan = self.deployment.plan_swap(self.from, &options, &self.context).await?;
            plan::print(&plan, self.session)?;
            return self.planned(plan.refuse_blocking());
        }
        self.safety_backup().await?;
        let started = Instant::now();
        let tell = |plan: &_| plan::show_findings(plan, self.session);
        let restored =
            self.deployment.restore_and_swap(self.from, &options, &self.context, &tell).await;
        tell::swapped(&restored?, self.args.to.as_deref(), started.elapsed(), self.session)?;
        Ok(0)
    }

    /// The exit code of a plan. For machines what is in the way stands in the plan itself, the
    /// only document on stdout.
    fn planned(&self, possible: Result<()>) -> Result<u8> {
        match possible {
            Err(error) if self.session.common.json => Ok(exit_code(error.kind())),
            possible => possible.map(|()| 0),
        }
    }

    async fn in_place(&self) -> Result<u8> {
        let (options, context) = (&self.options, &self.context);
        let safety = self.safety_of_in_place()?;
        if self.args.dry_run {
            self.deployment.check_safety_backup(&safety)?;
            let plan = self.deployment.plan_in_place(self.from, options, context).await?;
            plan::print_in_place(&plan, &self.from.label(), self.session)?;
            return self.planned(plan.check());
        }
        let started = Instant::now();
        let tell = |plan: &_| plan::show_in_place(plan, &self.from.label(), self.session);
        let done =
            self.deployment.restore_in_place(self.from, options, &safety, context, &tell).await?;
        tell::in_place(&done, started.elapsed(), self.session)?;
        Ok(0)
    }

    fn safety_of_in_place(&self) -> Result<SafetyBackup> {
        match &self.target {
            _ if self.args.how.no_safety_backup => Ok(SafetyBackup::None),
            SwapTarget::Job(job) => Ok(SafetyBackup::Of(job.clone())),
            SwapTarget::Url(_) => Err(Error::usage(
                "restore",
                "there is no job that could make the safety backup of the database in --to",
            )
            .next_step("back it up yourself, and say --no-safety-backup")),
        }
    }

    /// Into a new or an empty database, or selected tables into any.
    async fn plain(&self) -> Result<u8> {
        let (options, context) = (&self.options, &self.context);
        if self.args.dry_run {
            let plan = self.deployment.plan_restore(self.from, options, context).await?;
            plan::print_plain(&plan, &self.from.label(), options, self.session)?;
            return self.planned(backup_pg::refuse_blocking(&plan.findings));
        }
        self.safety_backup().await?;
        let started = Instant::now();
        let tell = |plan: &backup_pg::RestorePlan| {
            plan::show_warnings(&plan.findings);
        };
        let summary =
            self.deployment.restore_after_a_look(self.from, options, context, &tell).await?;
        tell::restored(&summary, started.elapsed(), self.session)?;
        Ok(0)
    }

    async fn safety_backup(&self) -> Result<()> {
        let SwapTarget::Job(job) = &self.target else { return Ok(()) };
        if !self.args.how.safety_backup {
            return Ok(());
        }
        self.context.step("safety backup");
        let context = &self.session.context;
        let id = self.deployment.back_up_before_restore(job, self.from, context).await?;
        self.context
            .step(&format!("safety backup is {id}; it is pinned, until `marb-backup unpin {id}`"));
        Ok(())
    }
}
