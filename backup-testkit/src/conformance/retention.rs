//! What every retention policy must do.

use backup_core::{BackupId, BackupSummary, Decision, Result, RetentionPolicy};
use jiff::{SignedDuration, Timestamp};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{broken, require};

/// How many histories a run looks at.
const HISTORIES: u64 = 2_000;
/// Most backups in one history.
const MOST_BACKUPS: usize = 40;

/// Checks `policy` against random histories (always the same ones; a failure names its seed):
///
/// - one decision per backup, in the order given, and the same whenever it is asked,
/// - the order given says nothing: a shuffled history gives every backup the same fate,
/// - the newest good backup is kept, and so is every pinned one,
/// - what a kept backup needs is kept, over any number of links, also where links form a ring or
///   lead to a backup that is gone,
/// - with `now` before the newest backup nothing expires,
/// - without a good backup nothing expires,
/// - deciding again over what was kept expires nothing more,
/// - every decision says why.
///
/// ```
/// use backup_core::{HowMany, RetentionRules};
/// use backup_testkit::conformance;
/// let rules = RetentionRules { keep_last: HowMany::Number(3), ..RetentionRules::nothing() };
/// conformance::retention(&rules)?;
/// # Ok::<(), backup_core::Error>(())
/// ```
///
/// # Errors
/// The first promise found broken, with the seed of the history that shows it.
pub fn retention(policy: &dyn RetentionPolicy) -> Result<()> {
    for seed in 0..HISTORIES {
        let mut rng = StdRng::seed_from_u64(seed);
        let history = history(&mut rng);
        let now = moment(&mut rng, &history);
        check(policy, &history, now, &mut rng).map_err(|found| {
            let told = format!(
                "{}; seed {seed}, now {now}, {} backups: {history:?}",
                found.message(),
                history.len()
            );
            broken(told)
        })?;
    }
    Ok(())
}

/// A random history, in random order.
fn history(rng: &mut StdRng) -> Vec<BackupSummary> {
    // From bursts within seconds to one backup in a year.
    let widest_gap = *[2, 3_600, 86_400, 86_400 * 30, 86_400 * 366].choose(rng).unwrap_or(&1);
    let share_good = *[0.0, 0.1, 0.5, 0.9, 1.0].choose(rng).unwrap_or(&1.0);
    let share_pinned = *[0.0, 0.1, 1.0].choose(rng).unwrap_or(&0.0);
    let share_drilled = *[0.0, 0.1, 0.5, 1.0].choose(rng).unwrap_or(&0.0);
    let share_linked = *[0.0, 0.0, 0.2, 0.9].choose(rng).unwrap_or(&0.0);
    let mut second = 1_700_000_000 + rng.gen_range(0..100_000_000);
    let mut suffix = 1;
    let mut history = Vec::new();
    for _ in 0..rng.gen_range(0..=MOST_BACKUPS) {
        let gap = rng.gen_range(0..widest_gap);
        suffix = if gap == 0 { suffix + 1 } else { 1 };
        second += gap;
        let started = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
        history.push(BackupSummary {
            id: BackupId::new(started, suffix),
            good: rng.gen_bool(share_good),
            pinned: rng.gen_bool(share_pinned),
            drilled: rng.gen_bool(share_drilled),
            needs: Vec::new(),
            same_data_as: None,
        });
    }
    link(rng, &mut history, share_linked);
    match rng.gen_range(0..3) {
        0 => {}
        1 => history.reverse(),
        _ => history.shuffle(rng),
    }
    history
}

/// Lets a share of the backups need others: the one before, as increments do, or any.
fn link(rng: &mut StdRng, history: &mut [BackupSummary], share: f64) {
    let ids: Vec<BackupId> = history.iter().map(|backup| backup.id).collect();
    for (place, backup) in history.iter_mut().enumerate() {
        if !rng.gen_bool(share) {
            continue;
        }
        match rng.gen_range(0..8) {
            0 => backup.needs.extend(ids.choose_multiple(rng, 3)),
            1 => backup.needs.push(BackupId::new(Timestamp::UNIX_EPOCH, 1)),
            _ => backup.needs.extend(place.checked_sub(1).map(|before| ids[before])),
        }
    }
}

/// A moment to ask at: mostly after the history, sometimes at its end, inside or before it.
fn moment(rng: &mut StdRng, history: &[BackupSummary]) -> Timestamp {
    let started = || history.iter().map(|backup| backup.id.started());
    let newest = started().max().unwrap_or(Timestamp::UNIX_EPOCH);
    let oldest = started().min().unwrap_or(Timestamp::UNIX_EPOCH);
    let second = SignedDuration::from_secs(1);
    match rng.gen_range(0..8) {
        0 => newest,
        1 => newest - second,
        2 => oldest - second,
        3 => oldest + (newest.duration_since(oldest)) / 2,
        4 => newest + SignedDuration::from_hours(24 * 366 * 50),
        _ => newest + SignedDuration::from_secs(rng.gen_range(1..86_400 * 40)),
    }
}

fn check(
    policy: &dyn RetentionPolicy,
    history: &[BackupSummary],
    now: Timestamp,
    rng: &mut StdRng,
) -> Result<()> {
    let decisions = policy.decide(history, now);
    require(decisions.len() == history.len(), || {
        format!("one decision per backup, but {} came", decisions.len())
    })?;
    require(policy.decide(history, now) == decisions, || {
        "the same input gives the same answer".into()
    })?;
    require(decisions.iter().all(says_why), || "every decision says why".into())?;

    let newest_good = history.iter().filter(|b| b.good).map(|b| b.id).max();
    let newest = history.iter().map(|b| b.id.started()).max();
    for (backup, decision) in history.iter().zip(&decisions) {
        let kept = decision.keeps();
        let id = backup.id;
        require(kept || Some(id) != newest_good, || format!("{id}, the newest good one, is kept"))?;
        require(kept || !backup.pinned, || format!("{id} is pinned, so it is kept"))?;
        require(kept || newest <= Some(now), || {
            format!("{id} must not expire while the clock stands before the newest backup")
        })?;
        require(kept || newest_good.is_some(), || {
            format!("{id} must not expire when there is no good backup")
        })?;
    }

    let mut shuffled: Vec<(BackupSummary, bool)> =
        history.iter().cloned().zip(decisions.iter().map(Decision::keeps)).collect();
    shuffled.shuffle(rng);
    let (reordered, fates): (Vec<_>, Vec<_>) = shuffled.into_iter().unzip();
    let again = policy.decide(&reordered, now);
    require(again.iter().map(Decision::keeps).eq(fates), || {
        "decisions come in the order of the backups, and don't depend on it".into()
    })?;
    check_the_kept(policy, history, &decisions, now)
}

/// What is kept is whole, and settled.
fn check_the_kept(
    policy: &dyn RetentionPolicy,
    history: &[BackupSummary],
    decisions: &[Decision],
    now: Timestamp,
) -> Result<()> {
    let kept: Vec<BackupSummary> = history
        .iter()
        .zip(decisions)
        .filter(|(_, decision)| decision.keeps())
        .map(|(backup, _)| backup.clone())
        .collect();
    let gone =
        |id: &BackupId| history.iter().any(|b| b.id == *id) && kept.iter().all(|b| b.id != *id);
    for backup in &kept {
        require(!backup.needs.iter().any(gone), || {
            format!("{} is kept, so what it needs is kept", backup.id)
        })?;
    }
    require(policy.decide(&kept, now).iter().all(Decision::keeps), || {
        "deciding again over what was kept expires nothing more".into()
    })
}

fn says_why(decision: &Decision) -> bool {
    match decision {
        Decision::Keep(reasons) => {
            !reasons.is_empty() && reasons.iter().all(|reason| !reason.trim().is_empty())
        }
        Decision::Expire(reason) => !reason.trim().is_empty(),
    }
}
