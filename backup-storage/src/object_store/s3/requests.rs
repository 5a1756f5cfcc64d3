//! S3's own requests, signed: what opendal does not expose.
//!
//! Writing is done with them too, for three reasons. An upload's id has to be known, or nothing
//! can be cleaned up after a lost answer. Tags and locks can be given when an object is made,
//! so that there is never one without them. And an answer has to say whether an earlier try may
//! have been carried out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use opendal::{Buffer, ErrorKind, HttpTransporter};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqsign_aws_v4::Credential;
use reqsign_core::Signer;
use serde::de::DeserializeOwned;

use super::super::answer::{NoAnswer, Refusal};
use super::super::line::{Cleaning, Doubtful};
use super::super::service::Outcome;

/// What S3's signatures want percent-encoded: all but the unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const ENCODED_PATH: &AsciiSet = &ENCODED.remove(b'/');

/// Sends signed requests for one bucket.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) line: HttpTransporter,
    pub(super) signer: Signer<Credential>,
    /// With the bucket, in either style.
    pub(super) bucket_url: String,
    /// Without slashes around it.
    pub(super) prefix: String,
}

/// An answer that came in the end.
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Buffer,
    /// An earlier try of the same request may have been carried out.
    pub(super) doubtful: bool,
}

impl Answer {
    /// A header's text.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let value = self.headers.get(name)?.to_str().ok()?;
        (!value.is_empty() && value != "null").then(|| value.to_owned())
    }

    /// The body, read as a document.
    pub(super) fn document<T: DeserializeOwned>(&self) -> Outcome<T> {
        quick_xml::de::from_reader(self.body.to_bytes().as_ref()).map_err(|error| {
            NoAnswer::Broken(format!("the service's answer can't be read: {error}")).into_error()
        })
    }
}

impl Requests {
    /// The whole key of an object in the bucket.
    pub(super) fn whole_key(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) }
    }

    /// What the whole keys of a folder ("" for all) begin with.
    pub(super) fn whole_prefix(&self, folder: &str) -> String {
        let whole = match (self.prefix.as_str(), folder) {
            (prefix, "") => prefix.to_owned(),
            ("", folder) => folder.to_owned(),
            (prefix, folder) => format!("{prefix}/{folder}"),
        };
        if whole.is_empty() { whole } else { format!("{whole}/") }
    }

    /// A request about an object.
    pub(super) async fn object(
        &self,
        method: Method,
        whole_key: &str,
        query: &[(&str, &str)],
        headers: HeaderMap,
        body: Buffer,
    ) -> Outcome<Answer> {
        let path = utf8_percent_encode(whole_key, ENCODED_PATH).to_string();
        self.send(method, &format!("{}/{path}", self.bucket_url), query, headers, body).await
    }

    /// A request about the bucket.
    pub(super) async fn bucket(&self, query: &[(&str, &str)]) -> Outcome<Answer> {
        let url = format!("{}/", self.bucket_url);
        self.send(Method::GET, &url, query, HeaderMap::new(), Buffer::new()).await
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        query: &[(&str, &str)],
        mut headers: HeaderMap,
        body: Buffer,
    ) -> Outcome<Answer> {
        let writes = matches!(method, Method::PUT | Method::POST);
        let aborts = method == Method::DELETE && query.iter().any(|(name, _)| *name == "uploadId");
        if writes {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        let mut request = Request::builder().method(method).uri(with_query(url, query));
        if let Some(all) = request.headers_mut() {
            *all = headers;
        }
        if aborts {
            request = request.extension(Cleaning);
        }
        let request = request.body(body).map_err(impossible)?;
        let (mut parts, body) = request.into_parts();
        self.signer.sign(&mut parts, None).await.map_err(|error| {
            opendal::Error::new(ErrorKind::Unexpected, "signing the request failed")
                .set_source(error)
        })?;
        let response = self.line.send(Request::from_parts(parts, body)).await?;
        accept(response)
    }
}

fn impossible(error: http::Error) -> opendal::Error {
    NoAnswer::Impossible(error.to_string()).into_error()
}

/// Also a success may carry an error document: of a request that takes long, the status is
/// sent before its end is known.
fn accept(response: Response<Buffer>) -> Outcome<Answer> {
    let doubtful = response.extensions().get::<Doubtful>().is_some();
    let (parts, body) = response.into_parts();
    let bytes = body.to_bytes();
    let failed_late = parts.status.is_success() && is_error_document(&bytes);
    if parts.status.is_success() && !failed_late {
        return Ok(Answer { headers: parts.headers, body: Buffer::from(bytes), doubtful });
    }
    let mut refusal = Refusal::read(parts.status, Some(&parts.headers), &bytes, &[]);
    if failed_late {
        refusal.status = 500;
    }
    refusal.doubtful = doubtful;
    Err(refusal.into_error())
}

fn is_error_document(body: &[u8]) -> bool {
    let start = &body[..body.len().min(200)];
    let text = String::from_utf8_lossy(start);
    let text = text.trim_start();
    let text = match text.split_once("?>") {
        Some((declaration, rest)) if declaration.starts_with("<?xml") => rest.trim_start(),
        _ => text,
    };
    text.starts_with("<Error>") || text.starts_with("<Error ")
}

fn with_query(url: &str, query: &[(&str, &str)]) -> String {
    let encode = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
    let pairs: Vec<String> = query
        .iter()
        .map(|(name, value)| match value.is_empty() {
            true => encode(name),
            false => format!("{}={}", encode(name), encode(value)),
        })
        .collect();
    if pairs.is_empty() { url.to_owned() } else { format!("{url}?{}", pairs.join("&")) }
}

/// Tags as S3 wants them in a header.
pub(super) fn tagging<'a>(tags: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let encode = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
    let pairs: Vec<String> =
        tags.map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    pairs.join("&")
}

/// The checksum that the service verifies: CRC32C, in S3's writing.
pub(super) fn crc32c(body: &Buffer) -> String {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    for chunk in body.clone() {
        digest.update(&chunk);
    }
    let sum = u32::try_from(digest.finalize() & u64::from(u32::MAX)).unwrap_or_default();
    STANDARD.encode(sum.to_be_bytes())
}

/// Adds a header; a value that no header can have is an error.
pub(super) fn put(headers: &mut HeaderMap, name: &str, value: &str) -> Outcome<()> {
    let name = HeaderName::try_from(name).map_err(|error| impossible(error.into()))?;
    let value = HeaderValue::try_from(value).map_err(|error| impossible(error.into()))?;
    headers.insert(name, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_the_known_one() {
        // RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(
            crc32c(&Buffer::from(vec![0_u8; 32])),
            STANDARD.encode([0x8a, 0x91, 0x36, 0xaa])
        );
    }

    #[test]
    fn queries_are_encoded_once() {
        assert_eq!(
            with_query("http://h/b/", &[("uploads", ""), ("prefix", "a b/ü&")]),
            "http://h/b/?uploads&prefix=a%20b%2F%C3%BC%26"
        );
    }

    #[test]
    fn an_error_in_a_success_is_seen() {
        let late = b"<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code></Error>";
        assert!(is_error_document(late));
        assert!(!is_error_document(b"<CompleteMultipartUploadResult/>"));
        assert!(!is_error_document(b""));
    }
}
