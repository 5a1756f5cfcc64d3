//! Locks and holds on versions that are there already.

use backup_core::Protection;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use opendal::{Buffer, ErrorKind};
use serde::Deserialize;

use super::super::answer::Refusal;
use super::super::service::Outcome;
use super::S3Service;
use super::requests::{Answer, crc32c, put};
use crate::LockMode;

/// S3's word for a mode.
pub(super) fn word(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Governance => "GOVERNANCE",
        LockMode::Compliance => "COMPLIANCE",
    }
}

/// A time in S3's writing.
pub(super) fn written(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Retention {
    #[serde(default)]
    mode: String,
    #[serde(default)]
    retain_until_date: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LegalHold {
    #[serde(default)]
    status: String,
}

impl S3Service {
    /// Locks a version, unless its lock lasts as long already: S3 itself would let whoever may
    /// bypass locks shorten one.
    pub(super) async fn lock_until(
        &self,
        key: &str,
        id: Option<&str>,
        until: Timestamp,
    ) -> Outcome<()> {
        let there = self.retention(key, id).await?;
        let lasts_longer = there.as_ref().and_then(|lock| lock.until()).is_some_and(|t| t >= until);
        if lasts_longer {
            return Ok(());
        }
        let configured = self.objects.object_lock.as_ref().map(|lock| word(lock.mode));
        let mode = match &there {
            // Compliance is never weakened, and no mode is changed by the way.
            Some(lock) if !lock.mode.is_empty() => lock.mode.as_str(),
            _ => configured.unwrap_or("GOVERNANCE"),
        };
        let mode = quick_xml::escape::escape(mode);
        let until = written(until);
        self.set(
            key,
            id,
            "retention",
            format!(
                "<Retention><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"
            ),
        )
        .await
    }

    /// Sets or removes a legal hold; `false` where the bucket has no locks.
    pub(super) async fn hold(&self, key: &str, id: Option<&str>, held: bool) -> Outcome<bool> {
        let status = if held { "ON" } else { "OFF" };
        let body = format!("<LegalHold><Status>{status}</Status></LegalHold>");
        match self.set(key, id, "legal-hold", body).await {
            Ok(()) => Ok(true),
            Err(error) if is_without(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lock and hold of a version.
    pub(super) async fn protection(&self, key: &str, id: Option<&str>) -> Outcome<Protection> {
        let locked_until = self.retention(key, id).await?.and_then(|lock| lock.until());
        let hold = self.get(key, id, "legal-hold").await?;
        let hold = hold.map(|answer| answer.document::<LegalHold>()).transpose()?;
        Ok(Protection { locked_until, held: hold.is_some_and(|hold| hold.status == "ON") })
    }

    async fn retention(&self, key: &str, id: Option<&str>) -> Outcome<Option<Retention>> {
        let answer = self.get(key, id, "retention").await?;
        answer.map(|answer| answer.document()).transpose()
    }

    /// One of the properties of a version; `None` where it has none.
    async fn get(&self, key: &str, id: Option<&str>, property: &str) -> Outcome<Option<Answer>> {
        let (headers, body) = (HeaderMap::new(), Buffer::new());
        match self.about(Method::GET, key, id, property, headers, body).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if is_without(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn set(&self, key: &str, id: Option<&str>, property: &str, body: String) -> Outcome<()> {
        let body = Buffer::from(body);
        let mut headers = HeaderMap::new();
        put(&mut headers, "content-type", "application/xml")?;
        // Services want one for such a request, whatever is said of objects.
        put(&mut headers, "x-amz-checksum-crc32c", &crc32c(&body))?;
        self.about(Method::PUT, key, id, property, headers, body).await.map(drop)
    }

    async fn about(
        &self,
        method: Method,
        key: &str,
        id: Option<&str>,
        property: &str,
        headers: HeaderMap,
        body: Buffer,
    ) -> Outcome<Answer> {
        let mut query = vec![(property, "")];
        query.extend(id.map(|id| ("versionId", id)));
        let whole_key = self.requests.whole_key(key);
        self.requests.object(method, &whole_key, &query, headers, body).await
    }
}

impl Retention {
    fn until(&self) -> Option<Timestamp> {
        self.retain_until_date.parse().ok()
    }
}

/// There is an object, and it has no lock; or there are no locks at all.
fn is_without(error: &opendal::Error) -> bool {
    let Some(refusal) = Refusal::inside(error) else { return false };
    let by_code = matches!(
        refusal.code.as_str(),
        "NoSuchObjectLockConfiguration"
            | "NoSuchObjectLegalHold"
            | "ObjectLockConfigurationNotFoundError"
    );
    // 405 and 501: the service knows no such request.
    let without = matches!(refusal.status, 405 | 501)
        || refusal.status == 400 && refusal.code == "InvalidRequest";
    by_code || (without && error.kind() != ErrorKind::NotFound)
}
