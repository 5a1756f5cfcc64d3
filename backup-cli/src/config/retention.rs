//! `[job.NAME.retention]`: which backups of a job are kept.

use backup_core::{Error, HowMany, Result, RetentionRules};
use jiff::{Span, tz::TimeZone};
use serde::Deserialize;

/// Most backups that one run deletes when the job does not say.
pub const DEFAULT_MAX_DELETE: u32 = 50;

/// `[job.NAME.retention]`. A key that is absent has its default, and 0 switches a rule off.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Written")]
pub struct RetentionConfig {
    /// The newest backups; 0.
    pub keep_last: HowMany,
    /// Days; 30.
    pub keep_daily: HowMany,
    /// ISO weeks; 12.
    pub keep_weekly: HowMany,
    /// Months; 12.
    pub keep_monthly: HowMany,
    /// Years; all.
    pub keep_yearly: HowMany,
    /// Everything within this span of the newest, `"30d"`; nothing.
    pub keep_within: Option<Span>,
    /// Whether a slot keeps its newest backup with a passed drill instead of its newest; false.
    pub prefer_proven: bool,
    /// Most backups one run deletes; above it, it deletes none. 50.
    pub max_delete: u32,
    /// IANA name of the zone in which days begin, `"Europe/Berlin"`; the system's.
    pub time_zone: Option<String>,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        let rules = RetentionRules::default();
        Self {
            keep_last: rules.keep_last,
            keep_daily: rules.keep_daily,
            keep_weekly: rules.keep_weekly,
            keep_monthly: rules.keep_monthly,
            keep_yearly: rules.keep_yearly,
            keep_within: rules.keep_within,
            prefer_proven: rules.prefer_proven,
            max_delete: DEFAULT_MAX_DELETE,
            time_zone: None,
        }
    }
}

impl RetentionConfig {
    /// The rules, with the time zone looked up.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) when this host does not know the zone.
    pub fn policy(&self) -> Result<RetentionRules> {
        let time_zone = match &self.time_zone {
            None => TimeZone::system(),
            Some(name) => TimeZone::get(name).map_err(|e| {
                Error::usage("retention", format!("time_zone = {name:?}: this host knows no such zone"))
                    .next_step("write an IANA name, \"Europe/Berlin\" or \"UTC\"; where none is known, install tzdata")
                    .caused_by(e)
            })?,
        };
        Ok(RetentionRules {
            keep_last: self.keep_last,
            keep_daily: self.keep_daily,
            keep_weekly: self.keep_weekly,
            keep_monthly: self.keep_monthly,
            keep_yearly: self.keep_yearly,
            keep_within: self.keep_within,
            prefer_proven: self.prefer_proven,
            time_zone,
        })
    }
}

/// As it stands in the file. The numbers are looked at by hand: serde would not name the key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    keep_last: Option<Item>,
    keep_daily: Option<Item>,
    keep_weekly: Option<Item>,
    keep_monthly: Option<Item>,
    keep_yearly: Option<Item>,
    keep_within: Option<Item>,
    prefer_proven: Option<Item>,
    max_delete: Option<Item>,
    time_zone: Option<Item>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Item {
    Number(i64),
    Yes(bool),
    Text(String),
    #[serde(deserialize_with = "super::value::anything")]
    Other,
}

impl Item {
    /// As it may stand in a message.
    fn shown(&self) -> String {
        match self {
            Item::Number(number) => number.to_string(),
            Item::Yes(yes) => yes.to_string(),
            Item::Text(text) => format!("{text:?}"),
            Item::Other => "something else".to_owned(),
        }
    }
}

impl TryFrom<Written> for RetentionConfig {
    type Error = String;

    fn try_from(written: Written) -> std::result::Result<Self, String> {
        let default = Self::default();
        let config = Self {
            keep_last: how_many("keep_last", written.keep_last, default.keep_last)?,
            keep_daily: how_many("keep_daily", written.keep_daily, default.keep_daily)?,
            keep_weekly: how_many("keep_weekly", written.keep_weekly, default.keep_weekly)?,
            keep_monthly: how_many("keep_monthly", written.keep_monthly, default.keep_monthly)?,
            keep_yearly: how_many("keep_yearly", written.keep_yearly, default.keep_yearly)?,
            keep_within: written.keep_within.map(span).transpose()?,
            prefer_proven: match written.prefer_proven {
                None => default.prefer_proven,
                Some(Item::Yes(yes)) => yes,
                Some(item) => return Err(wrong("prefer_proven", &item, "write true or false")),
            },
            max_delete: match written.max_delete {
                None => default.max_delete,
                Some(item) => max_delete(&item)?,
            },
            time_zone: written.time_zone.map(zone).transpose()?,
        };
        config.keeps_something()?;
        Ok(config)
    }
}

impl RetentionConfig {
    fn keeps_something(&self) -> std::result::Result<(), String> {
        let counts = [
            self.keep_last,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
        ];
        if counts.iter().all(|count| *count == HowMany::NONE) && self.keep_within.is_none() {
            return Err("retention keeps nothing: every keep_ key is 0; \
                        write keep_last = 1 to keep only the newest backup"
                .to_owned());
        }
        Ok(())
    }
}

fn wrong(key: &str, item: &Item, cure: &str) -> String {
    format!("{key} = {}: {cure}", item.shown())
}

fn how_many(
    key: &str,
    item: Option<Item>,
    default: HowMany,
) -> std::result::Result<HowMany, String> {
    let cure = "write a number, 0 to switch it off, or \"all\"";
    match item {
        None => Ok(default),
        Some(Item::Text(text)) if text == "all" => Ok(HowMany::All),
        Some(Item::Number(number)) => u32::try_from(number)
            .map(HowMany::Number)
            .map_err(|_| wrong(key, &Item::Number(number), cure)),
        Some(item) => Err(wrong(key, &item, cure)),
    }
}

fn max_delete(item: &Item) -> std::result::Result<u32, String> {
    let number = if let Item::Number(number) = item { u32::try_from(*number).ok() } else { None };
    number.filter(|number| *number > 0).ok_or_else(|| {
        wrong(
            "max_delete",
            item,
            "write a number from 1 up; to keep everything, keep_last = \"all\"",
        )
    })
}

fn span(item: Item) -> std::result::Result<Span, String> {
    let cure = "write a span, \"30d\", \"8w\" or \"1y 6mo\"";
    let span = if let Item::Text(text) = &item { text.parse::<Span>().ok() } else { None };
    span.filter(|span| span.is_positive()).ok_or_else(|| wrong("keep_within", &item, cure))
}

fn zone(item: Item) -> std::result::Result<String, String> {
    match item {
        Item::Text(name) if TimeZone::get(&name).is_ok() => Ok(name),
        item => Err(wrong(
            "time_zone",
            &item,
            "write an IANA name, \"Europe/Berlin\" or \"UTC\"; where this host knows none, install tzdata",
        )),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Unit;

    use super::*;
    use crate::config::Config;

    fn read(retention: &str) -> Result<RetentionConfig> {
        let config = Config::parse(&format!(
            r#"
[storage.local]
url = "file:///backups"
[encryption]
passphrase = {{ file = "/key" }}
[job.database]
postgres = {{ url = {{ env = "DATABASE_URL" }} }}
storages = ["local"]
[job.database.retention]
{retention}
"#
        ))?;
        Ok(config.job["database"].retention_or_default())
    }

    #[test]
    fn absent_keys_have_their_defaults() {
        let config = read("keep_daily = 7").unwrap();
        assert_eq!(config.keep_daily, HowMany::Number(7));
        assert_eq!(config.keep_weekly, HowMany::Number(12));
        assert_eq!(config.keep_monthly, HowMany::Number(12));
        assert_eq!(config.keep_yearly, HowMany::All);
        assert_eq!((config.keep_last, config.max_delete), (HowMany::NONE, 50));
        assert!(config.keep_within.is_none() && !config.prefer_proven);
        config.policy().unwrap();
    }

    #[test]
    fn every_key_reaches_the_rules() {
        let config = read(
            "keep_last = 1\nkeep_daily = 2\nkeep_weekly = 3\nkeep_monthly = 0\n\
             keep_yearly = \"all\"\nkeep_within = \"30d\"\nprefer_proven = true\n\
             max_delete = 7\ntime_zone = \"America/Santiago\"",
        )
        .unwrap();
        assert_eq!(config.max_delete, 7);
        let rules = config.policy().unwrap();
        let counts = [
            rules.keep_last,
            rules.keep_daily,
            rules.keep_weekly,
            rules.keep_monthly,
            rules.keep_yearly,
        ];
        let wanted = [
            HowMany::Number(1),
            HowMany::Number(2),
            HowMany::Number(3),
            HowMany::NONE,
            HowMany::All,
        ];
        assert_eq!(counts, wanted);
        assert_eq!(rules.keep_within.map(|span| span.get_days()), Some(30));
        assert!(rules.prefer_proven);
        assert_eq!(rules.time_zone.iana_name(), Some("America/Santiago"));
    }

    #[test]
    fn spans_of_any_length_are_read() {
        for (text, days) in [("30d", 30.0), ("8w", 56.0), ("36h", 1.5), ("1y 6mo", 546.0)] {
            let span = read(&format!("keep_within = {text:?}")).unwrap().keep_within.unwrap();
            let start = jiff::civil::date(2026, 1, 1);
            assert_eq!(span.total((Unit::Day, start)).unwrap().round(), f64::round(days), "{text}");
        }
    }

    #[test]
    fn faults_name_the_key_and_the_cure() {
        let nothing = "keep_daily = 0\nkeep_weekly = 0\nkeep_monthly = 0\nkeep_yearly = 0";
        let cases = [
            (nothing, "retention keeps nothing: every keep_ key is 0; write keep_last = 1"),
            ("keep_daily = -1", "keep_daily = -1: write a number, 0 to switch it off, or \"all\""),
            ("keep_yearly = \"al\"", "keep_yearly = \"al\": write a number, 0"),
            ("keep_weekly = 1.5", "keep_weekly = something else: write a number"),
            ("keep_last = 99999999999", "keep_last = 99999999999: write a number"),
            ("keep_within = \"often\"", "keep_within = \"often\": write a span, \"30d\""),
            ("keep_within = \"-30d\"", "keep_within = \"-30d\": write a span"),
            ("keep_within = \"0d\"", "keep_within = \"0d\": write a span"),
            ("keep_within = 30", "keep_within = 30: write a span"),
            ("prefer_proven = 1", "prefer_proven = 1: write true or false"),
            ("max_delete = 0", "max_delete = 0: write a number from 1 up"),
            ("time_zone = \"Mars\"", "time_zone = \"Mars\": write an IANA name"),
            ("keep_dayly = 3", "unknown key \"keep_dayly\""),
        ];
        for (text, wanted) in cases {
            let error = read(text).unwrap_err();
            assert_eq!(error.kind(), backup_core::ErrorKind::Usage);
            assert!(error.message().contains(wanted), "{text}: {}", error.message());
            assert!(error.message().contains("line "), "{text}: {}", error.message());
        }
        let unknown = read("keep_dayly = 3").unwrap_err();
        assert_eq!(unknown.advice(), Some("did you mean \"keep_daily\"?"));
    }
}
