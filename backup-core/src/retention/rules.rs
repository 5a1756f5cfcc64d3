//! The rules of a job, as plain data.

use std::fmt;

use jiff::{Span, Timestamp, tz::TimeZone};

use super::{BackupSummary, Decision, RetentionPolicy, decide};

/// Daily slots kept when nothing else is said.
const DEFAULT_DAILY: u32 = 30;
/// Weekly slots kept when nothing else is said.
const DEFAULT_WEEKLY: u32 = 12;
/// Monthly slots kept when nothing else is said.
const DEFAULT_MONTHLY: u32 = 12;

/// How many slots a rule keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HowMany {
    /// This many; 0 switches the rule off.
    Number(u32),
    /// Every one, for good.
    All,
}

impl HowMany {
    /// Off: the rule keeps nothing.
    pub const NONE: Self = Self::Number(0);

    /// The most slots that count.
    pub(super) fn limit(self) -> usize {
        match self {
            HowMany::Number(number) => usize::try_from(number).unwrap_or(usize::MAX),
            HowMany::All => usize::MAX,
        }
    }
}

impl fmt::Display for HowMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HowMany::Number(number) => number.fmt(f),
            HowMany::All => f.write_str("all"),
        }
    }
}

/// Keeps the newest good backup of each of the last days, weeks, months and years.
///
/// A slot (a day, an ISO week, a month, a year, in `time_zone`) counts only when it holds a good
/// backup, so gaps cost nothing; its newest good backup is kept. A backup that any rule keeps
/// stays. Nothing expires by age: a job that stopped keeps what it had.
///
/// A backup that is not good never fills a slot. It stays
///
/// - when it is newer than the newest good one: it may be repairable, and is the latest state,
/// - when a rule would keep it if it were good and its slot holds no good one: there is nothing
///   better of that time. Of several such in a slot the newest stays.
///
/// What every [`RetentionPolicy`] promises holds whatever is set here.
///
/// ```
/// use backup_core::{BackupSummary, HowMany, RetentionPolicy, RetentionRules};
///
/// let rules = RetentionRules { keep_daily: HowMany::Number(2), ..RetentionRules::nothing() };
/// let ids = ["20261120T020000Z", "20261121T020000Z", "20261122T020000Z", "20261122T130000Z"];
/// let backups: Vec<_> = ids.iter().map(|id| Ok(BackupSummary::good(id.parse()?))).collect::<backup_core::Result<_>>()?;
/// let decisions = rules.decide(&backups, "2026-11-22T14:00:00Z".parse().unwrap());
/// let kept: Vec<bool> = decisions.iter().map(|decision| decision.keeps()).collect();
/// assert_eq!(kept, [false, true, false, true]);
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RetentionRules {
    /// The newest good backups; two that hold the same data under different keys count once.
    pub keep_last: HowMany,
    /// Days.
    pub keep_daily: HowMany,
    /// ISO weeks, Monday to Sunday.
    pub keep_weekly: HowMany,
    /// Months.
    pub keep_monthly: HowMany,
    /// Years.
    pub keep_yearly: HowMany,
    /// Everything made within this span before the newest good backup. Days and longer units are
    /// those of the calendar.
    pub keep_within: Option<Span>,
    /// Whether a slot keeps its newest backup with a passed drill, if it has one.
    pub prefer_proven: bool,
    /// Where a day begins.
    pub time_zone: TimeZone,
}

impl Default for RetentionRules {
    /// 30 days, 12 weeks, 12 months and all years, in UTC.
    fn default() -> Self {
        Self {
            keep_daily: HowMany::Number(DEFAULT_DAILY),
            keep_weekly: HowMany::Number(DEFAULT_WEEKLY),
            keep_monthly: HowMany::Number(DEFAULT_MONTHLY),
            keep_yearly: HowMany::All,
            ..Self::nothing()
        }
    }
}

impl RetentionRules {
    /// No rule set, in UTC: only what no policy may expire is kept. To build on.
    pub fn nothing() -> Self {
        Self {
            keep_last: HowMany::NONE,
            keep_daily: HowMany::NONE,
            keep_weekly: HowMany::NONE,
            keep_monthly: HowMany::NONE,
            keep_yearly: HowMany::NONE,
            keep_within: None,
            prefer_proven: false,
            time_zone: TimeZone::UTC,
        }
    }
}

impl RetentionPolicy for RetentionRules {
    fn decide(&self, backups: &[BackupSummary], now: Timestamp) -> Vec<Decision> {
        decide::decide(self, backups, now)
    }
}
