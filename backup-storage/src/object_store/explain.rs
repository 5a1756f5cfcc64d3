//! Turns what a service said into an error that names the cause and the fix.

use std::fmt;

use backup_core::{Error, ErrorKind};

use super::answer::{NoAnswer, Refusal};
use crate::failure::Doing;

/// Where a storage is, in the words of its service.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// "bucket" or "container".
    pub(super) what: &'static str,
    pub(super) bucket: String,
    /// Without any secret.
    pub(super) endpoint: String,
    /// Where its credentials come from, for a next step.
    pub(super) credentials: &'static str,
    /// Where its rights are granted, for a next step.
    pub(super) rights: &'static str,
}

/// A cause in plain words. The error underneath is not kept: it may carry a whole URL, and with
/// it a token.
#[derive(Debug)]
struct Cause(String);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cause {}

/// The error of `stage` for what struck while `verb` ("write a/b") was done.
pub(super) fn explain(
    stage: &str,
    place: &Place,
    doing: Doing,
    verb: &str,
    error: &opendal::Error,
) -> Error {
    let (cause, next_step, underneath) = if let Some(refusal) = Refusal::inside(error) {
        let (cause, next_step) = of_refusal(refusal, place);
        (cause, next_step, refusal.to_string())
    } else if let Some(silence) = NoAnswer::inside(error) {
        let (cause, next_step) = of_silence(silence, place);
        (cause, next_step, silence.to_string())
    } else if doing == Doing::Write && error.kind() == opendal::ErrorKind::NotFound {
        // Whatever is written, only the bucket can be missing.
        let refusal = Refusal::missing_bucket();
        let (cause, next_step) = of_refusal(&refusal, place);
        (cause, next_step, refusal.to_string())
    } else {
        of_opendal(error, place)
    };
    let kind = match doing {
        Doing::Read => ErrorKind::Unchecked,
        Doing::Write => ErrorKind::Failed,
    };
    Error::new(kind, stage.to_owned(), format!("can't {verb}: {cause}"))
        .next_step(next_step)
        .caused_by(Cause(underneath))
}

fn of_refusal(refusal: &Refusal, place: &Place) -> (String, String) {
    let Place { what, bucket, endpoint, credentials, rights } = place;
    if refusal.is_missing_bucket() {
        return (
            format!("there is no {what} {bucket} at {endpoint}"),
            format!("create the {what}, or correct the storage's url and endpoint"),
        );
    }
    let said = |text: &str| text.to_owned();
    match (refusal.code.as_str(), refusal.status) {
        ("InvalidAccessKeyId" | "InvalidAccessKey", _) => {
            (said("the service does not know the access key"), format!("correct {credentials}"))
        }
        ("SignatureDoesNotMatch", _) => {
            (said("the secret of the credentials is wrong"), format!("correct {credentials}"))
        }
        ("RequestTimeTooSkewed" | "RequestExpired", _) => clock(),
        ("ExpiredToken" | "TokenRefreshRequired" | "InvalidToken", _) => (
            said("the session token of the credentials has expired or is wrong"),
            said("get new temporary credentials, then run again"),
        ),
        ("AuthenticationFailed" | "InvalidAuthenticationInfo" | "AuthorizationFailure", _)
            if refusal.code != "AuthorizationFailure"
                || refusal.message.contains("authenticat") =>
        {
            if refusal.message.contains("date header") || refusal.message.contains("clock") {
                return clock();
            }
            (
                said("the service does not accept the credentials"),
                format!("correct {credentials}; a token may have expired"),
            )
        }
        (
            "AuthorizationHeaderMalformed"
            | "PermanentRedirect"
            | "IllegalLocationConstraintException",
            _,
        )
        | (_, 301 | 307) => (
            format!("the {what} is in another region, or at another endpoint"),
            said("set the option `region` (and `endpoint`) to the bucket's own"),
        ),
        ("BadDigest" | "InvalidDigest" | "XAmzContentChecksumMismatch" | "Md5Mismatch", _) => (
            said("what arrived is not what was sent"),
            said("run again; if it stays so, check this host's memory and network"),
        ),
        ("InvalidPart" | "InvalidPartOrder" | "EntityTooSmall", _) => (
            format!("the service does not take the parts of the upload ({refusal})"),
            said(
                "set `part_size` (such as \"64MiB\"): some services want all parts but the last of \
                 one size",
            ),
        ),
        ("InvalidObjectState" | "BlobArchived", _) => (
            said("the object is in an archive"),
            said("have the service restore it from its archive class first, then run again"),
        ),
        ("QuotaExceeded" | "XMinioStorageFull" | "ServerFull" | "InsufficientStorage", _)
        | (_, 507) => (
            said("the service has no room left"),
            said("raise its quota or delete expired backups (`marb-backup prune`)"),
        ),
        ("NotImplemented" | "NotSupported" | "InvalidRequest", _) | (_, 501 | 405) => (
            format!("the service does not know such a request ({refusal})"),
            said(
                "run `marb-backup doctor`: it finds out what the service lacks and says what to set",
            ),
        ),
        (_, 401) => (
            said("the service does not accept the credentials"),
            format!("correct {credentials}; a token may have expired"),
        ),
        (_, 403) => (said("permission refused"), format!("grant these credentials {rights}")),
        (_, 429 | 503) => (
            said("the service is overloaded or limits requests"),
            said("run again later, or raise its limits"),
        ),
        (_, 500..) => (
            format!("the service has an error of its own ({refusal})"),
            said("run again later; look at the service's status page or log"),
        ),
        _ => (
            format!("the service refused ({refusal})"),
            said("look the service's code up in its documentation"),
        ),
    }
}

fn clock() -> (String, String) {
    (
        "the clocks of this host and of the service differ too much".to_owned(),
        "set this host's clock (`timedatectl set-ntp true`), then run again".to_owned(),
    )
}

fn of_silence(silence: &NoAnswer, place: &Place) -> (String, String) {
    let endpoint = &place.endpoint;
    match silence {
        NoAnswer::UnknownHost(_) => (
            format!("the host of {endpoint} is not known"),
            "check the option `endpoint`, the region and this host's DNS".to_owned(),
        ),
        NoAnswer::Unreachable(cause) if cause.contains("refused") => (
            format!("nothing listens at {endpoint}"),
            "see that the service runs, and check the option `endpoint`".to_owned(),
        ),
        NoAnswer::Unreachable(_) => (
            format!("no way leads to {endpoint}"),
            "check the network, the firewall and a proxy".to_owned(),
        ),
        NoAnswer::Tls(cause) => (
            format!("no secure connection to {endpoint}: {cause}"),
            "install the certificate's authority on this host, or correct the option `endpoint`"
                .to_owned(),
        ),
        NoAnswer::Silent(time) => (
            format!("{endpoint} did not answer for {} s", time.as_secs_f32().ceil()),
            "check the network, the firewall and the service's health, then run again".to_owned(),
        ),
        NoAnswer::Broken(_) => (
            format!("the connection to {endpoint} breaks"),
            "check the network and the service's health, then run again".to_owned(),
        ),
        NoAnswer::Impossible(cause) => {
            (cause.clone(), "correct the storage's url and options".to_owned())
        }
    }
}

/// What opendal found itself. Its own context is left out: it holds URLs and headers.
fn of_opendal(error: &opendal::Error, place: &Place) -> (String, String, String) {
    let mut next = std::error::Error::source(error);
    let mut innermost = error.message().to_owned();
    let mut signing = innermost.contains("signing");
    while let Some(cause) = next {
        innermost = cause.to_string();
        signing |= innermost.contains("credential");
        next = cause.source();
    }
    let innermost = innermost.lines().next().unwrap_or_default().to_owned();
    if signing {
        let cause = "no credentials were found, or they can't be used".to_owned();
        return (cause, format!("give {}", place.credentials), innermost);
    }
    let cause = match error.kind() {
        opendal::ErrorKind::ConditionNotMatch => "another writer stored it meanwhile".to_owned(),
        opendal::ErrorKind::NotFound => "it is not there (any more)".to_owned(),
        _ => error.message().lines().next().unwrap_or_default().chars().take(300).collect(),
    };
    (cause, "run again; if it stays so, `marb-backup doctor` tells more".to_owned(), innermost)
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
