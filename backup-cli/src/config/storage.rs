//! `[storage.NAME]`: where backups live, and how their objects are kept there.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::{Value, load, yes};

/// One `[storage.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// `file:///path`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`,
    /// `sftp://user@host:port/path`.
    pub url: String,
    /// Plain options of the service, such as `region`.
    #[serde(default, deserialize_with = "texts")]
    pub options: BTreeMap<String, String>,
    /// Its secrets, such as `secret_access_key`.
    #[serde(default)]
    pub secrets: BTreeMap<String, Value>,
    /// Whether credentials that are not given may be found the ecosystem's own way: profiles,
    /// an instance's role, an agent.
    #[serde(default = "yes")]
    pub ambient_credentials: bool,
    /// How objects are kept.
    #[serde(default)]
    pub objects: ObjectsConfig,
    /// Most bytes per second to and from this storage, `"20MB/s"`.
    #[serde(default, deserialize_with = "rate")]
    pub max_rate: Option<u64>,
    /// Longest time for one request to be answered, `"60s"`.
    #[serde(default, deserialize_with = "load::duration")]
    pub request_timeout: Option<Duration>,
    /// How long a failing request is tried again, `"5m"`.
    #[serde(default, deserialize_with = "load::duration")]
    pub retry_deadline: Option<Duration>,
}

impl StorageConfig {
    /// A storage with all defaults.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            options: BTreeMap::new(),
            secrets: BTreeMap::new(),
            ambient_credentials: true,
            objects: ObjectsConfig::default(),
            max_rate: None,
            request_timeout: None,
            retry_deadline: None,
        }
    }
}

/// `objects` of a storage, or of a job for one of its storages: how objects are kept.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectsConfig {
    /// Tags that rules of the bucket can refer to, `{ RetentionDays = "90" }`.
    #[serde(deserialize_with = "texts")]
    pub tags: BTreeMap<String, String>,
    /// Metadata for people.
    #[serde(deserialize_with = "texts")]
    pub metadata: BTreeMap<String, String>,
    /// Storage class or access tier, in the service's own word: `STANDARD_IA`.
    pub storage_class: Option<String>,
    /// Encryption by the service, beside ours: `service`, `kms`, `kms:KEY`.
    pub encryption: Option<String>,
    /// Keeps every object from being deleted: `{ mode = "governance", days = 30 }`.
    pub object_lock: Option<ObjectLockConfig>,
}

impl ObjectsConfig {
    /// These settings, and where they say nothing, those of `other`.
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        let merged = |ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>| {
            let mut all = theirs.clone();
            all.extend(ours.clone());
            all
        };
        Self {
            tags: merged(&self.tags, &other.tags),
            metadata: merged(&self.metadata, &other.metadata),
            storage_class: self.storage_class.clone().or_else(|| other.storage_class.clone()),
            encryption: self.encryption.clone().or_else(|| other.encryption.clone()),
            object_lock: self.object_lock.or(other.object_lock),
        }
    }
}

/// `object_lock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectLockConfig {
    /// Who may lift it before its time.
    pub mode: ObjectLockMode,
    /// Days from the commit on.
    pub days: u32,
}

/// Who may lift an object lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectLockMode {
    /// Those with a special right.
    Governance,
    /// Nobody.
    Compliance,
}

/// Text, or what TOML has its own spelling for: `true`, `5`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Number(i64),
    Flag(bool),
}

fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let scalars = BTreeMap::<String, Scalar>::deserialize(from)?;
    let text = |scalar| match scalar {
        Scalar::Text(text) => text,
        Scalar::Number(number) => number.to_string(),
        Scalar::Flag(flag) => flag.to_string(),
    };
    Ok(scalars.into_iter().map(|(name, scalar)| (name, text(scalar))).collect())
}

fn rate<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    use serde::de::Error as _;
    let text = String::deserialize(from)?;
    parse_rate(&text).map(Some).ok_or_else(|| {
        D::Error::custom(format!("{text:?} is no rate; write \"20MB/s\" or \"512kB/s\""))
    })
}

/// `20MB/s` in bytes per second; units of 1000, as `MB` means, or of 1024, as `MiB` does.
fn parse_rate(text: &str) -> Option<u64> {
    let amount = text.trim().strip_suffix("/s")?.trim_end();
    let digits = amount.find(|c: char| !c.is_ascii_digit()).unwrap_or(amount.len());
    let (number, unit) = amount.split_at(digits);
    let factor = match unit.trim_start() {
        "B" => 1,
        "kB" | "KB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|rate| *rate > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units() {
        assert_eq!(parse_rate("20MB/s"), Some(20_000_000));
        assert_eq!(parse_rate(" 512 KiB/s "), Some(512 * 1024));
        for wrong in ["20MB", "20", "MB/s", "0MB/s", "-1MB/s", "20Mb/s", "99999999999GB/s"] {
            assert_eq!(parse_rate(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_jobs_word_stands_over_the_storages() {
        let parse = |text: &str| toml::from_str::<ObjectsConfig>(text).unwrap();
        let storage = parse(
            "tags = { a = 1, b = true }\nstorage_class = \"X\"\nobject_lock = { mode = \"compliance\", days = 9 }",
        );
        let job = parse("tags = { b = \"job\" }\nencryption = \"kms\"");
        let expected = "tags = { a = \"1\", b = \"job\" }\nstorage_class = \"X\"\nencryption = \"kms\"\n\
                        object_lock = { mode = \"compliance\", days = 9 }";
        assert_eq!(job.over(&storage), parse(expected));
    }
}
