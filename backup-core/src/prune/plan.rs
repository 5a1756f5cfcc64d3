//! What becomes of each backup: pure, from the catalog alone.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::{
    BackupId, BackupSummary, Catalog, CatalogEntry, Decision, Error, LEGACY, Problem, Proven,
    RetentionPolicy, SourceIdentity, StoredCopy,
};

use super::{Foreign, Judged, PrunePlan, PruneRules, StoragePlan, Verdict};

/// What a policy is told of one copy. A pin beside any copy counts, and so does a drill, which
/// reads one of them.
pub(super) fn summary_of(entry: &CatalogEntry, copy: &StoredCopy) -> BackupSummary {
    let drilled = Proven::of(entry).drilled.is_some_and(|last| last.passed);
    let rekeyed_from: Option<BackupId> =
        entry.manifest.rekeyed.as_ref().and_then(|of| of.from.parse().ok());
    BackupSummary {
        id: entry.id,
        good: is_good(entry, copy),
        pinned: entry.is_pinned(),
        drilled,
        // As long as the older one is there, nobody has read the new one to its end: `rekey`
        // removes it itself when it has.
        needs: rekeyed_from.into_iter().collect(),
        same_data_as: rekeyed_from,
    }
}

/// Whether it can be relied on: all parts there, and its newest word is no failed verification.
/// Of copies with different manifests nobody knows which one was altered.
fn is_good(entry: &CatalogEntry, copy: &StoredCopy) -> bool {
    let failed = Proven::by(&copy.proofs).verified.is_some_and(|last| !last.passed);
    copy.damaged_parts.is_empty() && !failed && is_undisputed(entry)
}

fn is_undisputed(entry: &CatalogEntry) -> bool {
    entry.copies.iter().all(|copy| copy.manifest_json == entry.manifest_json)
}

/// Every storage that the catalog tells of, each judged by what it holds itself.
pub(super) fn judge(catalog: &Catalog, rules: &PruneRules<'_>) -> PrunePlan {
    let of_job = |entry: &&CatalogEntry| entry.manifest.job == rules.job;
    let entries: Vec<&CatalogEntry> = catalog.backups.iter().filter(of_job).collect();
    let copies = entries.iter().flat_map(|entry| &entry.copies).map(|copy| &copy.storage);
    let problems = catalog.problems.iter().map(|problem| &problem.storage);
    let names: BTreeSet<&String> = copies.chain(problems).collect();
    let storages = names.into_iter().map(|name| StoragePlan {
        storage: name.clone(),
        problem: problem_of(name, &catalog.problems),
        backups: judge_storage(name, &entries, rules),
        unfinished: Vec::new(),
    });
    PrunePlan {
        job: rules.job.to_owned(),
        storages: storages.collect(),
        refused: None,
        now: rules.now,
        host: rules.host.clone(),
    }
}

fn problem_of(storage: &str, problems: &[Problem]) -> Option<Error> {
    let mut ours = problems.iter().filter(|problem| problem.storage == storage);
    let first = &ours.next()?.error;
    let more = match ours.count() {
        0 => String::new(),
        n => format!(" (and {n} more problems)"),
    };
    let message = format!("nothing is removed here: {}{more}", first.message());
    let told = Error::new(first.kind(), first.stage().to_owned(), message);
    Some(match first.advice() {
        Some(advice) => told.next_step(advice),
        None => told,
    })
}

fn judge_storage(name: &str, entries: &[&CatalogEntry], rules: &PruneRules<'_>) -> Vec<Judged> {
    let owner = owner(entries);
    let foreign = |entry: &CatalogEntry| is_foreign(owner, entry);
    let here = entries.iter().filter_map(|entry| {
        let copy = entry.copies.iter().find(|copy| copy.storage == name)?;
        Some((*entry, copy))
    });
    let here: Vec<(&CatalogEntry, &StoredCopy)> = here.collect();
    let apart = |entry: &CatalogEntry| rules.foreign == Foreign::Keep && foreign(entry);
    let judged = here.iter().filter(|(entry, _)| !apart(entry));
    let summaries: Vec<BackupSummary> =
        judged.map(|(entry, copy)| summary_of(entry, copy)).collect();
    let mut decisions = decide(&summaries, rules.policy, rules.now).into_iter();
    let all = here.iter().map(|(entry, copy)| {
        let decision = match apart(entry) {
            true => Decision::Keep(vec![format!("of another source: {}", source(entry))]),
            // A policy that says too little lets nothing go.
            false => decisions.next().unwrap_or_else(|| keep("the policy does not tell")),
        };
        judged_as(decision, entry, copy, foreign(entry), rules)
    });
    all.collect()
}

/// Whose a job's folder is: says the newest of its backups in any storage.
pub(super) fn owner<'a>(entries: &[&'a CatalogEntry]) -> Option<&'a CatalogEntry> {
    entries.iter().rev().find(|entry| !is_legacy(entry)).or(entries.last()).copied()
}

pub(super) fn is_foreign(owner: Option<&CatalogEntry>, entry: &CatalogEntry) -> bool {
    owner.is_some_and(|owner| !same_source(&owner.manifest.source, entry))
}

/// Of what other scripts wrote only the database's name is known.
fn is_legacy(entry: &CatalogEntry) -> bool {
    entry.manifest.kind == LEGACY
}

fn same_source(owner: &SourceIdentity, entry: &CatalogEntry) -> bool {
    let source = &entry.manifest.source;
    match is_legacy(entry) {
        true => owner.database == source.database,
        false => owner.same_source(source),
    }
}

fn source(entry: &CatalogEntry) -> String {
    let source = &entry.manifest.source;
    let system = source.system_identifier.as_deref().unwrap_or("unknown");
    format!("database {:?} of system {system}", source.database)
}

fn keep(reason: &str) -> Decision {
    Decision::Keep(vec![reason.to_owned()])
}

/// The policy's word, and behind it what no policy may let go.
pub(super) fn decide(
    summaries: &[BackupSummary],
    policy: &dyn RetentionPolicy,
    now: Timestamp,
) -> Vec<Decision> {
    let mut decisions = policy.decide(summaries, now);
    decisions.truncate(summaries.len());
    let newest_good = summaries.iter().filter(|one| one.good).map(|one| one.id).max();
    let behind = summaries.iter().any(|one| one.id.started() > now);
    // Whatever becomes of the one that needs it: it goes with the next prune at the earliest.
    let needed: BTreeSet<BackupId> = summaries.iter().flat_map(|one| one.needs.clone()).collect();
    for (decision, summary) in decisions.iter_mut().zip(summaries) {
        let never = if newest_good == Some(summary.id) {
            "the newest good one"
        } else if summary.pinned {
            "pinned"
        } else if newest_good.is_none() {
            "no good backup exists"
        } else if needed.contains(&summary.id) {
            "another one needs it"
        } else if behind {
            "the clock stands before the newest backup"
        } else {
            continue;
        };
        if matches!(decision, Decision::Expire(_)) {
            *decision = keep(never);
        }
    }
    decisions
}

fn judged_as(
    decision: Decision,
    entry: &CatalogEntry,
    copy: &StoredCopy,
    foreign: bool,
    rules: &PruneRules<'_>,
) -> Judged {
    let (live, dead): (Vec<_>, Vec<_>) =
        copy.readers.iter().partition(|reader| reader.is_live(rules.now));
    let verdict = match decision {
        Decision::Keep(reasons) => Verdict::Keep(reasons),
        Decision::Expire(expired) => match live.first() {
            Some(reader) => Verdict::Skip {
                expired,
                because: format!("being read since {}", reader.left.strftime("%Y-%m-%d %H:%M UTC")),
            },
            None if !is_undisputed(entry) => {
                let because = "its copies have different manifests: verify tells which is right";
                Verdict::Skip { expired, because: because.to_owned() }
            }
            None => Verdict::Delete(expired),
        },
    };
    Judged {
        id: entry.id,
        verdict,
        good: is_good(entry, copy),
        extend_lock: None,
        foreign,
        manifest: copy.manifest.clone(),
        half_pruned: copy.half_pruned,
        dead_readers: dead.into_iter().map(|reader| reader.file.clone()).collect(),
    }
}

/// Nothing goes from a storage that could not be read in full.
pub(super) fn spare_unread(plan: &mut PrunePlan) {
    let unread = plan.storages.iter_mut().filter(|storage| storage.problem.is_some());
    for one in unread.flat_map(|storage| &mut storage.backups) {
        if let Verdict::Delete(expired) = &one.verdict {
            let because = "the storage could not be read in full".to_owned();
            one.verdict = Verdict::Skip { expired: expired.clone(), because };
        }
        one.extend_lock = None;
    }
}

/// Why nothing of a plan may be done.
pub(super) fn refusal(plan: &PrunePlan, rules: &PruneRules<'_>) -> Option<Error> {
    let doomed = |one: &&Judged| matches!(one.verdict, Verdict::Delete(_));
    let all = || plan.storages.iter().flat_map(|storage| &storage.backups);
    if rules.foreign == Foreign::Refuse {
        let foreign: BTreeSet<BackupId> =
            all().filter(doomed).filter(|one| one.foreign).map(|one| one.id).collect();
        if let Some(first) = foreign.first() {
            let message = format!(
                "{} of the backups of job {:?} that would go, {first} the first, came from another \
                 database or cluster than its newest one",
                foreign.len(),
                rules.job
            );
            return Some(Error::refused("safety check", message).next_step(
                "give each database a job name of its own; if the new one really replaced the old \
                 one, say so with --adopt",
            ));
        }
    }
    let (count, most) = (plan.deletions().len(), rules.max_delete?);
    (count > most).then(|| {
        let message = format!(
            "{count} backups of job {:?} would go, and at most {most} may in one run",
            rules.job
        );
        Error::refused("safety check", message).next_step(
            "look at what `marb-backup prune` shows; if it is right, allow it with --max-delete",
        )
    })
}
