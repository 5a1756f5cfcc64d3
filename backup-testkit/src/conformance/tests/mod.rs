//! Every suite passes what keeps the promises and fails what breaks one: for each promise
//! there is an implementation that breaks just that one.

mod flawed_storage;
mod flawed_transform;

use async_trait::async_trait;
use backup_core::{
    BackupSummary, Decision, Error, HowMany, Result, RetentionPolicy, RetentionRules, Source,
    SourceStream,
};
use bytes::Bytes;
use jiff::Timestamp;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{STAGE, retention, sink, source};
use crate::{Flavour, Generated, Given, Memory, text};

/// The suite found something, and says so in the given words.
#[track_caller]
fn assert_found(found: Result<()>, words: &str, flaw: &dyn std::fmt::Debug) {
    let error = found.err().unwrap_or_else(|| panic!("the suite let {flaw:?} pass"));
    assert_eq!(error.stage(), STAGE, "{flaw:?}");
    assert!(
        error.message().contains(words),
        "{flaw:?} was found by another check: {:?} instead of {words:?}",
        error.message()
    );
}

#[tokio::test]
async fn honest_sources_pass() {
    for len in [0, 1, 64 * 1024, 300_000] {
        let data = text(1, len);
        source(&Generated::new(Flavour::Text, 1, len as u64), &data).await.unwrap();
        source(&Given::new(data.clone(), 1_000), &data).await.unwrap();
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum SourceFlaw {
    LosesTheEnd,
    EmptyChunks,
    OpensOnce,
    Shared,
    FailsAtTheEnd,
    Nameless,
}

struct FlawedSource {
    flaw: SourceFlaw,
    opened: AtomicUsize,
    shared: std::sync::Arc<AtomicUsize>,
}

struct FlawedStream {
    flaw: SourceFlaw,
    at: std::sync::Arc<AtomicUsize>,
    gave_empty: bool,
}

const DATA: &[u8] = b"abcdefghij";

#[async_trait]
impl Source for FlawedSource {
    fn name(&self) -> &str {
        if self.flaw == SourceFlaw::Nameless { " " } else { "flawed" }
    }

    async fn open(&self) -> Result<Box<dyn SourceStream>> {
        if self.flaw == SourceFlaw::OpensOnce && self.opened.fetch_add(1, Ordering::SeqCst) > 0 {
            return Err(Error::failed("flawed", "already read"));
        }
        let at =
            if self.flaw == SourceFlaw::Shared { self.shared.clone() } else { Default::default() };
        Ok(Box::new(FlawedStream { flaw: self.flaw, at, gave_empty: false }))
    }
}

#[async_trait]
impl SourceStream for FlawedStream {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        let at = self.at.fetch_add(4, Ordering::SeqCst);
        if self.flaw == SourceFlaw::EmptyChunks && at > 0 && !self.gave_empty {
            self.gave_empty = true;
            self.at.fetch_sub(4, Ordering::SeqCst);
            return Ok(Some(Bytes::new()));
        }
        let end = if self.flaw == SourceFlaw::LosesTheEnd { 9 } else { DATA.len() };
        if at >= end && self.flaw == SourceFlaw::FailsAtTheEnd {
            return Err(Error::failed("flawed", "bad exit"));
        }
        Ok((at < end).then(|| DATA[at..end.min(at + 4)].to_vec().into()))
    }
}

#[tokio::test]
async fn flawed_sources_are_found() {
    use SourceFlaw::*;
    for (flaw, words) in [
        (LosesTheEnd, "9 bytes came, 10 were wanted"),
        (EmptyChunks, "empty chunk"),
        (OpensOnce, "open while another stream is open"),
        (Shared, "the second stream"),
        (FailsAtTheEnd, "to its end"),
        (Nameless, "has a name"),
    ] {
        let flawed = FlawedSource { flaw, opened: AtomicUsize::new(0), shared: Default::default() };
        assert_found(source(&flawed, DATA).await, words, &flaw);
    }
    let wrong = source(&Given::new("abc", 2), b"abd").await;
    assert_found(wrong, "first difference is at byte 2", &"other data");
}

#[tokio::test]
async fn a_sink_is_looked_at_through_a_closure() {
    let memory = Memory::new("memory");
    let look = |key: &str| Ok(memory.object(key).map(|body| body.to_vec()));
    sink(&memory, &look).await.unwrap();
    let blind = |_: &str| Ok(None);
    assert_found(sink(&memory, &blind).await, "must be visible", &"nothing arrives");
}

#[test]
fn honest_policies_pass() {
    for n in [0, 1, 3, 100] {
        retention(&keep_last(n)).unwrap();
    }
    retention(&RetentionRules::default()).unwrap();
}

fn keep_last(n: u32) -> RetentionRules {
    RetentionRules { keep_last: HowMany::Number(n), ..RetentionRules::nothing() }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum PolicyFlaw {
    ForgetsPins,
    CountsBadOnes,
    ExpiresAll,
    TrustsTheClock,
    TrustsTheOrder,
    AnswersSorted,
    DropsOne,
    Mute,
    Moody,
    BreaksChains,
    FollowsOneLink,
    SparesNothingWhenAllIsBad,
    Creeps,
}

struct FlawedPolicy(PolicyFlaw, AtomicUsize);

impl RetentionPolicy for FlawedPolicy {
    fn decide(&self, backups: &[BackupSummary], now: Timestamp) -> Vec<Decision> {
        use PolicyFlaw::*;
        let mut seen = backups.to_vec();
        let mut asked_at = now;
        match self.0 {
            ForgetsPins => seen.iter_mut().for_each(|b| b.pinned = false),
            CountsBadOnes if backups.iter().any(|b| b.good) => {
                seen.iter_mut().for_each(|b| b.good = true);
            }
            TrustsTheClock => asked_at = Timestamp::MAX,
            BreaksChains => seen.iter_mut().for_each(|b| b.needs.clear()),
            FollowsOneLink => {
                let kept = keep_last(3).decide(
                    &seen
                        .iter()
                        .map(|b| BackupSummary { needs: vec![], ..b.clone() })
                        .collect::<Vec<_>>(),
                    now,
                );
                // Only what is kept by itself pulls others along.
                for (backup, decision) in seen.iter_mut().zip(kept) {
                    if !decision.keeps() {
                        backup.needs.clear();
                    }
                }
            }
            AnswersSorted => seen.sort_by_key(|b| b.id),
            _ => {}
        }
        let mut decisions = keep_last(3).decide(&seen, asked_at);
        match self.0 {
            ExpiresAll => {
                for (backup, decision) in backups.iter().zip(&mut decisions) {
                    if !backup.pinned && backups.iter().all(|b| b.id.started() <= now) {
                        *decision = Decision::Expire("all must go".into());
                    }
                }
            }
            // Takes the first of the list for the newest, as after `list` newest first.
            TrustsTheOrder => {
                for (place, (backup, decision)) in backups.iter().zip(&mut decisions).enumerate() {
                    if place >= 3
                        && !backup.pinned
                        && backups.is_sorted_by(|a, b| a.id >= b.id)
                        && backups.iter().any(|b| b.good && b.id > backup.id)
                        && backups.iter().all(|b| b.id.started() <= now)
                    {
                        *decision = Decision::Expire("behind the first three".into());
                    } else {
                        *decision = Decision::Keep(vec!["order".into()]);
                    }
                }
            }
            SparesNothingWhenAllIsBad => {
                for (backup, decision) in backups.iter().zip(&mut decisions) {
                    let clock_is_right = backups.iter().all(|b| b.id.started() <= now);
                    if clock_is_right && !backup.pinned && backups.iter().all(|b| !b.good) {
                        *decision = Decision::Expire("worthless".into());
                    }
                }
            }
            // Keeps the newer half, so each run takes half of the rest.
            Creeps => decisions = creep(backups, now, decisions),
            DropsOne => drop(decisions.pop()),
            Mute => decisions.iter_mut().for_each(|d| {
                if matches!(d, Decision::Keep(_)) {
                    *d = Decision::Keep(Vec::new())
                }
            }),
            Moody if self.1.fetch_add(1, Ordering::SeqCst) % 2 == 1 => {
                decisions.iter_mut().for_each(|d| *d = Decision::Keep(vec!["mood".into()]));
            }
            _ => {}
        }
        decisions
    }
}

fn creep(backups: &[BackupSummary], now: Timestamp, last: Vec<Decision>) -> Vec<Decision> {
    let half = keep_last(u32::try_from(backups.len() / 2).unwrap()).decide(backups, now);
    let either = |(half, last): (Decision, Decision)| if half.keeps() { half } else { last };
    half.into_iter().zip(last).map(either).collect()
}

#[test]
fn flawed_policies_are_found() {
    use PolicyFlaw::*;
    for (flaw, words) in [
        (ForgetsPins, "is pinned"),
        (CountsBadOnes, "the newest good one"),
        (ExpiresAll, "the newest good one"),
        (TrustsTheClock, "clock"),
        (TrustsTheOrder, "don't depend on it"),
        (AnswersSorted, ""),
        (DropsOne, "one decision per backup"),
        (Mute, "says why"),
        (Moody, "same answer"),
        (BreaksChains, "what it needs is kept"),
        (FollowsOneLink, "what it needs is kept"),
        (SparesNothingWhenAllIsBad, "no good backup"),
        (Creeps, "expires nothing more"),
    ] {
        assert_found(retention(&FlawedPolicy(flaw, AtomicUsize::new(0))), words, &flaw);
    }
}
