//! What a service said instead of "done": a refusal, or nothing.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use opendal::ErrorKind;
use secrecy::SecretString;
use serde::Deserialize;

use super::line::scrubbed;

/// Longest message of a service that is repeated, in characters.
const MESSAGE_CHARS: usize = 300;

/// The service answered, and the answer was no.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The service's own word for the cause, such as `NoSuchBucket`; may be empty.
    pub(super) code: String,
    pub(super) message: String,
    /// An earlier try of the same request may have been carried out.
    pub(super) doubtful: bool,
}

impl Refusal {
    /// The refusal in an answer. `None` when it is none, or one that opendal's services have to
    /// see themselves: "not there", "condition not met".
    pub(super) fn of(
        status: StatusCode,
        headers: Option<&HeaderMap>,
        body: &[u8],
        secrets: &[SecretString],
    ) -> Option<Self> {
        if status.is_success() || matches!(status.as_u16(), 304 | 308 | 410 | 412 | 499) {
            return None;
        }
        let refusal = Self::read(status, headers, body, secrets);
        let plain_404 = status == StatusCode::NOT_FOUND && !refusal.is_missing_bucket();
        let condition = status == StatusCode::CONFLICT && !refusal.is_temporary();
        (!plain_404 && !condition).then_some(refusal)
    }

    /// What an answer says, as a refusal.
    pub(super) fn read(
        status: StatusCode,
        headers: Option<&HeaderMap>,
        body: &[u8],
        secrets: &[SecretString],
    ) -> Self {
        let (mut code, message) = words(body);
        if code.is_empty()
            && let Some(value) = headers.and_then(|headers| headers.get("x-ms-error-code"))
        {
            code = value.to_str().unwrap_or_default().to_owned();
        }
        let line = message.lines().next().unwrap_or_default();
        let line: String = line.chars().take(MESSAGE_CHARS).collect();
        let message = scrubbed(&line, secrets);
        Self { status: status.as_u16(), code, message, doubtful: false }
    }

    /// What an answer without words means where only a missing bucket can be the cause.
    pub(super) fn missing_bucket() -> Self {
        let code = "NoSuchBucket".to_owned();
        Self { status: 404, code, message: String::new(), doubtful: false }
    }

    pub(super) fn is_missing_bucket(&self) -> bool {
        let google = || self.status == 404 && matches!(self.code.as_str(), "" | "notFound");
        matches!(self.code.as_str(), "NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted")
            || google() && self.message.to_lowercase().contains("bucket")
    }

    /// Whether trying again may help.
    pub(super) fn is_temporary(&self) -> bool {
        let by_code = [
            "RequestTimeout",
            "OperationAborted",
            "ConditionalRequestConflict",
            "SlowDown",
            "InternalError",
            "ServiceUnavailable",
            "ServerBusy",
            "OperationTimedOut",
            // What arrived was not what was sent: mostly a bit that flipped on the way.
            "BadDigest",
            "XAmzContentChecksumMismatch",
            "Md5Mismatch",
            "Crc64Mismatch",
        ];
        matches!(self.status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
            || by_code.contains(&self.code.as_str())
    }

    /// Whether the request may have been carried out nevertheless.
    pub(super) fn may_be_done(&self) -> bool {
        self.status >= 500 || self.status == 408
    }

    pub(super) fn into_error(self) -> opendal::Error {
        let kind = match self.status {
            401 | 403 => ErrorKind::PermissionDenied,
            404 if !self.is_missing_bucket() => ErrorKind::NotFound,
            412 => ErrorKind::ConditionNotMatch,
            416 => ErrorKind::RangeNotSatisfied,
            429 => ErrorKind::RateLimited,
            _ => ErrorKind::Unexpected,
        };
        opendal::Error::new(kind, self.to_string()).set_source(self)
    }

    /// The refusal inside an error, if it is one.
    pub(super) fn inside(error: &opendal::Error) -> Option<&Self> {
        inside(error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

impl StdError for Refusal {}

/// The code and the message of an error document: S3's and Azure's XML, Google's JSON.
fn words(body: &[u8]) -> (String, String) {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Xml {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    #[derive(Deserialize)]
    struct Json {
        error: JsonError,
    }
    #[derive(Deserialize)]
    struct JsonError {
        #[serde(default)]
        message: String,
        #[serde(default)]
        errors: Vec<JsonReason>,
    }
    #[derive(Deserialize)]
    struct JsonReason {
        #[serde(default)]
        reason: String,
    }
    if let Ok(Json { error }) = serde_json::from_slice(body) {
        let reason = error.errors.into_iter().next().map(|first| first.reason);
        return (reason.unwrap_or_default(), error.message);
    }
    match quick_xml::de::from_reader::<_, Xml>(body) {
        Ok(xml) if !xml.code.is_empty() => (xml.code, xml.message),
        _ => (String::new(), String::from_utf8_lossy(body).into_owned()),
    }
}

/// No answer came, or only half of one.
#[derive(Debug, Clone)]
pub(super) enum NoAnswer {
    /// The name of the host could not be looked up.
    UnknownHost(String),
    /// Nobody listens there, or no way leads there.
    Unreachable(String),
    /// TLS was not agreed upon: mostly a certificate.
    Tls(String),
    /// Nothing moved for this long.
    Silent(Duration),
    /// The connection broke on the way.
    Broken(String),
    /// No such request can be made.
    Impossible(String),
}

impl NoAnswer {
    pub(super) fn of(error: &reqwest::Error) -> Self {
        let mut innermost = error.to_string();
        let mut next: Option<&(dyn StdError + 'static)> = error.source();
        let mut unknown_host = false;
        while let Some(cause) = next {
            innermost = cause.to_string();
            unknown_host |= innermost.contains("dns error");
            if let Some(tls) = tls_inside(cause) {
                return Self::Tls(tls.to_string());
            }
            next = cause.source();
        }
        if unknown_host {
            return Self::UnknownHost(innermost);
        }
        if error.is_builder() {
            return Self::Impossible(innermost);
        }
        if error.is_connect() { Self::Unreachable(innermost) } else { Self::Broken(innermost) }
    }

    pub(super) fn is_temporary(&self) -> bool {
        !matches!(self, Self::Tls(_) | Self::Impossible(_))
    }

    pub(super) fn may_be_done(&self) -> bool {
        matches!(self, Self::Silent(_) | Self::Broken(_))
    }

    pub(super) fn into_error(self) -> opendal::Error {
        opendal::Error::new(ErrorKind::Unexpected, self.to_string())
            .with_temporary(self.is_temporary())
            .set_source(self)
    }

    pub(super) fn inside(error: &opendal::Error) -> Option<&Self> {
        inside(error)
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownHost(cause) => write!(f, "its host is not known: {cause}"),
            Self::Unreachable(cause) => write!(f, "it can't be reached: {cause}"),
            Self::Tls(cause) => write!(f, "no secure connection: {cause}"),
            Self::Silent(time) => {
                write!(f, "nothing moved for {} s", time.as_secs_f32().ceil())
            }
            Self::Broken(cause) => write!(f, "the connection broke: {cause}"),
            Self::Impossible(cause) => f.write_str(cause),
        }
    }
}

impl StdError for NoAnswer {}

/// I/O errors hide what they carry from the chain of sources, and carry each other.
fn tls_inside<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls) = cause.downcast_ref() {
        return Some(tls);
    }
    tls_inside(cause.downcast_ref::<io::Error>()?.get_ref()?)
}

fn inside<T: StdError + 'static>(error: &opendal::Error) -> Option<&T> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str) -> Option<Refusal> {
        let status = StatusCode::from_u16(status).unwrap();
        Refusal::of(status, None, body.as_bytes(), &["hunter2".into()])
    }

    const NO_BUCKET: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchBucket\
        </Code><Message>The specified bucket does not exist</Message><BucketName>b</BucketName>\
        <RequestId>1</RequestId></Error>";

    #[test]
    fn a_missing_bucket_is_told_from_a_missing_object() {
        let refusal = refused(404, NO_BUCKET).unwrap();
        assert!(refusal.is_missing_bucket() && !refusal.is_temporary());
        let google = r#"{"error":{"code":404,"message":"The specified bucket does not exist."}}"#;
        assert!(refused(404, google).unwrap().is_missing_bucket());
        assert!(refused(404, &NO_BUCKET.replace("NoSuchBucket", "NoSuchKey")).is_none());
        assert!(refused(404, "").is_none());
        assert!(refused(412, "").is_none());
    }

    #[test]
    fn what_may_pass_is_temporary() {
        let code = |code: &str| NO_BUCKET.replace("NoSuchBucket", code);
        for (status, body) in [
            (503, code("SlowDown")),
            (500, code("InternalError")),
            (429, String::new()),
            (400, code("RequestTimeout")),
            (409, code("ConditionalRequestConflict")),
            (400, code("BadDigest")),
            (400, code("XAmzContentChecksumMismatch")),
        ] {
            assert!(refused(status, &body).unwrap().is_temporary(), "{status} {body}");
        }
        for (status, body) in [(403, code("AccessDenied")), (400, code("InvalidDigest"))] {
            assert!(!refused(status, &body).unwrap().is_temporary(), "{status} {body}");
        }
    }

    #[test]
    fn messages_are_short_and_hold_no_secret() {
        let body = NO_BUCKET.replace("The specified", &format!("hunter2 {}\n", "x".repeat(1000)));
        let refusal = refused(403, &body).unwrap();
        assert!(refusal.message.starts_with("*** x") && refusal.message.len() <= MESSAGE_CHARS);
    }
}
