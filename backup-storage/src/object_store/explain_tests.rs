//! What users get to read when a service refuses.

use super::*;

fn refusal(status: u16, code: &str, message: &str) -> opendal::Error {
    let (code, message) = (code.to_owned(), message.to_owned());
    Refusal { status, code, message, doubtful: false }.into_error()
}

fn explained(error: &opendal::Error) -> Error {
    let place = Place {
        what: "bucket",
        bucket: "b".into(),
        endpoint: "https://s3.example.com".into(),
        credentials: "the secrets",
        rights: "the right",
    };
    explain("storage offsite", &place, Doing::Write, "write a/x", error)
}

fn text(error: &opendal::Error) -> String {
    let error = explained(error);
    format!("{error} -> {}", error.advice().unwrap_or_default())
}

#[test]
fn causes_and_fixes() {
    let prefix = "storage offsite: can't write a/x: ";
    for (error, wanted) in [
        (
            refusal(404, "NoSuchBucket", "The specified bucket does not exist"),
            "there is no bucket b at https://s3.example.com -> create the bucket, or correct the \
             storage's url and endpoint",
        ),
        (
            refusal(403, "RequestTimeTooSkewed", "The difference between ..."),
            "the clocks of this host and of the service differ too much -> set this host's clock \
             (`timedatectl set-ntp true`), then run again",
        ),
        (
            refusal(403, "AuthenticationFailed", "Request date header too old: 'Sun ...'"),
            "the clocks of this host and of the service differ too much -> set this host's clock \
             (`timedatectl set-ntp true`), then run again",
        ),
        (
            refusal(400, "ExpiredToken", "The provided token has expired."),
            "the session token of the credentials has expired or is wrong -> get new temporary \
             credentials, then run again",
        ),
        (
            refusal(301, "PermanentRedirect", ""),
            "the bucket is in another region, or at another endpoint -> set the option `region` \
             (and `endpoint`) to the bucket's own",
        ),
        (
            refusal(400, "InvalidPart", "All non-trailing parts must have the same length."),
            "the service does not take the parts of the upload (HTTP 400 InvalidPart: All \
             non-trailing parts must have the same length.) -> set `part_size` (such as \
             \"64MiB\"): some services want all parts but the last of one size",
        ),
        (
            refusal(400, "BadDigest", ""),
            "what arrived is not what was sent -> run again; if it stays so, check this host's \
             memory and network",
        ),
        (
            refusal(503, "SlowDown", "Please reduce your request rate."),
            "the service is overloaded or limits requests -> run again later, or raise its limits",
        ),
        (
            refusal(500, "InternalError", "We encountered an internal error."),
            "the service has an error of its own (HTTP 500 InternalError: We encountered an \
             internal error.) -> run again later; look at the service's status page or log",
        ),
        (
            NoAnswer::Unreachable("No route to host (os error 113)".into()).into_error(),
            "no way leads to https://s3.example.com -> check the network, the firewall and a \
             proxy",
        ),
        (
            NoAnswer::Tls("invalid peer certificate: Expired".into()).into_error(),
            "no secure connection to https://s3.example.com: invalid peer certificate: Expired \
             -> install the certificate's authority on this host, or correct the option \
             `endpoint`",
        ),
    ] {
        assert_eq!(text(&error), format!("{prefix}{wanted}"));
    }
}

#[test]
fn what_opendal_attaches_is_left_out() {
    let error = opendal::Error::new(opendal::ErrorKind::Unexpected, "it went wrong")
        .with_context("url", "https://h/b?sig=hunter2");
    let shown = format!("{:?}", explained(&error));
    assert!(shown.contains("it went wrong") && !shown.contains("hunter2"), "{shown}");
}
