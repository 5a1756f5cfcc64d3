//! `verify`: reads backups or files back, all of them, and says whether they are whole.

mod sample;
mod telling;

use std::path::Path;

use backup_cli::{Deployment, Verified, VerifyOptions};
use backup_core::pipeline::Context;
use backup_core::{Catalog, CatalogEntry, Error, ErrorKind, Query, Result};
use futures_util::{StreamExt, stream};
use jiff::Zoned;
use serde_json::json;

use super::args::VerifyArgs;
use super::{Session, exit_code, list, output, setup};
use sample::Sample;

/// Verifies. Exit code 0 only when everything was read and found good.
///
/// # Errors
/// When flags or config are wrong, there is no such backup, or a file is damaged.
pub async fn run(args: VerifyArgs, session: &Session) -> Result<u8> {
    let is_one = !args.all && args.since.is_none() && args.sample.is_none();
    if is_one && names_a_file(&args.what) {
        if args.repair || args.level != super::args::LevelArg::Content {
            return Err(Error::usage("flags", "--repair and --level are for backups in a storage")
                .next_step("verify the file without them"));
        }
        let deployment = setup::for_file(&args.from, &session.common)?;
        let path = Path::new(&args.what);
        let check = deployment.verify_file(path, &session.context).await?;
        return telling::tell_file(&check, session);
    }
    let sample = args.sample.as_deref().map(|text| Sample::new(text, args.seed)).transpose()?;
    let deployment = setup::for_reading(&args.from, &session.common)?;
    let query = match is_one {
        true => Query::for_backup(args.from.job.as_deref(), &args.what)?,
        false => Query {
            job: args.from.job.as_deref(),
            since: args.since.as_deref().map(|t| list::since(t, &Zoned::now())).transpose()?,
            ..Query::default()
        },
    };
    let catalog = session.context.cancel.guard(deployment.catalog(&query)).await?;
    let mut entries = match is_one {
        true => vec![wanted(&catalog, &args.what)?],
        false => catalog.backups.iter().collect(),
    };
    if entries.is_empty() {
        // What can't even be listed can't be checked either.
        wanted(&catalog, "latest")?;
    }
    let of = entries.len();
    if let Some(sample) = &sample {
        entries = sample.choose(entries);
        telling::tell_sample(sample, &entries, of, session)?;
    }
    let mut round = Round::default();
    let options = VerifyOptions { level: args.level.into(), repair: args.repair };
    round.verify(&deployment, &entries, options, args.jobs.get(), session).await?;
    // What was repaired is no problem any more.
    let fresh = match round.has_repaired {
        true => Some(session.context.cancel.guard(deployment.catalog(&query)).await?),
        false => None,
    };
    let problems = &fresh.as_ref().unwrap_or(&catalog).problems;
    for problem in problems {
        round.worst = worse(round.worst, Some(problem_kind(&problem.error)));
    }
    telling::tell_problems(problems);
    if session.common.json {
        let sample = sample.map(|sample| telling::sample_json(&sample, &entries, of));
        output::print_json(&json!({
            "verified": round.documents, "problems": telling::problems_json(problems),
            "sample": sample,
        }))?;
    }
    Ok(round.worst.map_or(0, exit_code))
}

/// Whether an argument means a file: it names one, or at least looks like a path.
pub fn names_a_file(what: &str) -> bool {
    let is_id = what == "latest" || what.parse::<backup_core::BackupId>().is_ok();
    !is_id && (what.contains(['/', '.']) || Path::new(what).exists())
}

/// The backup to verify. A manifest that is damaged somewhere is found damage, and keeps no
/// other copy of the backup from being looked at.
fn wanted<'a>(catalog: &'a Catalog, what: &str) -> Result<&'a CatalogEntry> {
    let is_damage = |error: &Error| error.kind() == ErrorKind::Damaged;
    let only_damage = catalog.problems.iter().all(|problem| is_damage(&problem.error));
    match (catalog.find(what), &catalog.backups[..]) {
        (Err(error), [entry]) if error.kind() == ErrorKind::Unchecked && only_damage => Ok(entry),
        (Err(error), _) if error.kind() == ErrorKind::Unchecked && only_damage => {
            Err(error.with_kind(ErrorKind::Damaged))
        }
        (found, _) => found,
    }
}

/// What was found so far.
#[derive(Default)]
struct Round {
    documents: Vec<serde_json::Value>,
    worst: Option<ErrorKind>,
    has_repaired: bool,
}

impl Round {
    /// Verifies several backups, `jobs` at the same time; tells of each in its turn.
    async fn verify(
        &mut self,
        deployment: &Deployment,
        entries: &[&CatalogEntry],
        options: VerifyOptions,
        jobs: usize,
        session: &Session,
    ) -> Result<()> {
        // Of several at once no bar could tell.
        let context = match jobs {
            1 => session.context.clone(),
            _ => session.context.without_progress(),
        };
        let verify = |entry| verify_one(deployment, entry, options, &context);
        let mut verified = stream::iter(entries.iter().copied().map(verify)).buffered(jobs);
        let mut failure = None;
        // After a failure, too, what has begun is ended: a repair must not be dropped.
        while let Some((entry, result)) = verified.next().await {
            match result {
                Ok(verified) if failure.is_none() => self.note(entry, &verified, session)?,
                Ok(_) => {}
                Err(error) => {
                    // The others would fail in the same way: no key, no storage.
                    context.cancel.interrupt("the verification of another backup failed");
                    failure = failure.or(Some(error));
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn note(&mut self, entry: &CatalogEntry, verified: &Verified, session: &Session) -> Result<()> {
        self.has_repaired |= !verified.repaired.is_empty();
        for report in &verified.reports {
            self.worst = worse(self.worst, report.worst().map(Error::kind));
        }
        for unrepaired in &verified.unrepaired {
            self.worst = worse(self.worst, Some(problem_kind(&unrepaired.error)));
        }
        if !entry.missing_in.is_empty() {
            self.worst = worse(self.worst, Some(ErrorKind::Incomplete));
        }
        telling::tell_backup(entry, verified, session)?;
        self.documents.push(telling::backup_json(entry, verified));
        Ok(())
    }
}

async fn verify_one<'a>(
    deployment: &Deployment,
    entry: &'a CatalogEntry,
    options: VerifyOptions,
    context: &Context,
) -> (&'a CatalogEntry, Result<Verified>) {
    if context.cancel.is_cancelled() {
        return (entry, Err(context.cancel.error()));
    }
    let verified = deployment.verify(entry, &options, context).await;
    // One that had read everything when the signal came stands.
    let is_interrupted = |verified: &Verified| {
        let worst = verified.reports.iter().filter_map(|report| report.worst());
        worst.map(Error::kind).any(|kind| kind == ErrorKind::Interrupted)
    };
    match verified {
        Ok(verified) if is_interrupted(&verified) => (entry, Err(context.cancel.error())),
        other => (entry, other),
    }
}

/// A damaged manifest is damage; a storage that does not answer is not.
fn problem_kind(error: &Error) -> ErrorKind {
    match error.kind() {
        ErrorKind::Damaged => ErrorKind::Damaged,
        _ => ErrorKind::Unchecked,
    }
}

/// Damage before "could not check" before anything else.
fn worse(a: Option<ErrorKind>, b: Option<ErrorKind>) -> Option<ErrorKind> {
    let rank = |kind: &ErrorKind| match kind {
        ErrorKind::Damaged => 0,
        ErrorKind::Refused => 1,
        ErrorKind::Unchecked => 2,
        ErrorKind::Incomplete => 3,
        _ => 4,
    };
    [a, b].into_iter().flatten().min_by_key(rank)
}
