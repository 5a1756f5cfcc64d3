//! An object of several parts: a multipart upload, and how nothing of it stays behind.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method};
use jiff::{SignedDuration, Timestamp};
use opendal::Buffer;
use serde::Deserialize;
use tokio::task::JoinSet;

use super::super::answer::{NoAnswer, Refusal};
use super::super::service::{Object, Outcome, Stored, Upload};
use super::S3Service;
use super::requests::{crc32c, put};

/// Parts on their way at once.
const CONCURRENT_PARTS: usize = 2;
/// Parts larger than this go one at a time, in bytes: so memory stays at twice the part.
const LARGE_PART_BYTES: usize = 64 << 20;
/// How often a completion that failed inside of the service is tried again.
const COMPLETIONS: u32 = 5;
/// How far the clock of a service may be off.
const CLOCK_SLACK: SignedDuration = SignedDuration::from_mins(10);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    upload_id: String,
}

#[derive(Debug)]
struct Part {
    number: u64,
    etag: String,
    checksum: Option<String>,
}

/// A multipart upload.
pub(super) struct Multipart {
    service: Arc<S3Service>,
    whole_key: String,
    id: String,
    sending: JoinSet<Outcome<Part>>,
    parts: Vec<Part>,
    begun: u64,
    /// An answer to its creation was lost: there may be another one, whose id nobody knows.
    stray_since: Option<Timestamp>,
}

impl Multipart {
    pub(super) async fn start(service: Arc<S3Service>, object: &Object<'_>) -> Outcome<Self> {
        let requests = &service.requests;
        let whole_key = requests.whole_key(object.key);
        let mut headers = service.headers(object)?;
        if service.checksums {
            put(&mut headers, "x-amz-checksum-algorithm", "CRC32C")?;
        }
        let before = Timestamp::now();
        let query = [("uploads", "")];
        let answer =
            requests.object(Method::POST, &whole_key, &query, headers, Buffer::new()).await;
        let created = match answer.and_then(|answer| Ok((answer.document()?, answer.doubtful))) {
            Ok(created) => created,
            Err(error) => {
                if may_be_done(&error) {
                    service.remove_strays(&whole_key, None, before).await;
                }
                return Err(error);
            }
        };
        let (Created { upload_id: id }, doubtful) = created;
        Ok(Self {
            service,
            whole_key,
            id,
            sending: JoinSet::new(),
            parts: Vec::new(),
            begun: 0,
            stray_since: doubtful.then_some(before),
        })
    }

    async fn join_one(&mut self) -> Outcome<()> {
        match self.sending.join_next().await {
            None => Ok(()),
            Some(Ok(part)) => {
                self.parts.push(part?);
                Ok(())
            }
            Some(Err(died)) => {
                Err(NoAnswer::Broken(format!("a part was given up: {died}")).into_error())
            }
        }
    }

    async fn finish(&mut self) -> Outcome<Stored> {
        while !self.sending.is_empty() {
            self.join_one().await?;
        }
        self.parts.sort_by_key(|part| part.number);
        let body = Buffer::from(self.document());
        let mut tries = 0;
        loop {
            tries += 1;
            let query = [("uploadId", self.id.as_str())];
            let mut headers = HeaderMap::new();
            put(&mut headers, "content-type", "application/xml")?;
            let requests = &self.service.requests;
            let answer =
                requests.object(Method::POST, &self.whole_key, &query, headers, body.clone()).await;
            match answer {
                Ok(answer) => return Ok(Stored { version: answer.header("x-amz-version-id") }),
                Err(error) if tries < COMPLETIONS && failed_inside(&error) => {
                    tokio::time::sleep(std::time::Duration::from_secs(u64::from(tries))).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn document(&self) -> Bytes {
        let mut text = String::from("<CompleteMultipartUpload>");
        for part in &self.parts {
            let checksum = part.checksum.as_ref();
            let checksum = checksum
                .map(|sum| format!("<ChecksumCRC32C>{sum}</ChecksumCRC32C>"))
                .unwrap_or_default();
            let etag = quick_xml::escape::escape(&part.etag);
            let number = part.number;
            text.push_str(&format!(
                "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag>{checksum}</Part>"
            ));
        }
        text.push_str("</CompleteMultipartUpload>");
        text.into()
    }

    async fn remove_strays(&mut self) {
        if let Some(since) = self.stray_since.take() {
            self.service.remove_strays(&self.whole_key, Some(&self.id), since).await;
        }
    }
}

#[async_trait]
impl Upload for Multipart {
    async fn part(&mut self, body: Buffer) -> Outcome<()> {
        let at_once = if body.len() > LARGE_PART_BYTES { 1 } else { CONCURRENT_PARTS };
        while self.sending.len() >= at_once {
            self.join_one().await?;
        }
        self.begun += 1;
        let number = self.begun;
        let service = Arc::clone(&self.service);
        let (whole_key, id) = (self.whole_key.clone(), self.id.clone());
        self.sending.spawn(async move { send_part(&service, &whole_key, &id, number, body).await });
        Ok(())
    }

    async fn complete(&mut self, last: Buffer) -> Outcome<Stored> {
        self.part(last).await?;
        let stored = self.finish().await?;
        self.remove_strays().await;
        Ok(stored)
    }

    async fn abort(&mut self) -> Outcome<()> {
        // A part that arrives after the abort would stay: none may be on its way any more.
        self.sending.shutdown().await;
        let aborted = self.service.abort(&self.whole_key, &self.id).await;
        self.remove_strays().await;
        aborted
    }
}

async fn send_part(
    service: &S3Service,
    whole_key: &str,
    id: &str,
    number: u64,
    body: Buffer,
) -> Outcome<Part> {
    let mut headers = HeaderMap::new();
    let checksum = service.checksums.then(|| crc32c(&body));
    if let Some(checksum) = &checksum {
        put(&mut headers, "x-amz-checksum-crc32c", checksum)?;
    }
    let text = number.to_string();
    let query = [("partNumber", text.as_str()), ("uploadId", id)];
    let answer = service.requests.object(Method::PUT, whole_key, &query, headers, body).await?;
    let etag = answer.header("etag").ok_or_else(|| {
        NoAnswer::Broken("the service gave no ETag for a part".to_owned()).into_error()
    })?;
    Ok(Part { number, etag, checksum })
}

fn may_be_done(error: &opendal::Error) -> bool {
    let refusal = Refusal::inside(error);
    refusal.is_some_and(|refusal| refusal.doubtful || refusal.may_be_done())
        || NoAnswer::inside(error).is_some_and(NoAnswer::may_be_done)
}

/// The service said "done" first and then that it failed: it asks to be asked again.
fn failed_inside(error: &opendal::Error) -> bool {
    Refusal::inside(error).is_some_and(|refusal| refusal.status == 500 && refusal.is_temporary())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listing {
    #[serde(default, rename = "Upload")]
    uploads: Vec<Pending>,
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_key_marker: String,
    #[serde(default)]
    next_upload_id_marker: String,
}

/// An upload that was neither completed nor aborted.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Pending {
    pub(super) key: String,
    pub(super) upload_id: String,
    initiated: String,
}

impl Pending {
    fn began(&self) -> Option<Timestamp> {
        self.initiated.parse().ok()
    }
}

impl S3Service {
    /// Aborts one upload; one that isn't there is fine.
    pub(super) async fn abort(&self, whole_key: &str, id: &str) -> Outcome<()> {
        let query = [("uploadId", id)];
        let (headers, body) = (HeaderMap::new(), Buffer::new());
        match self.requests.object(Method::DELETE, whole_key, &query, headers, body).await {
            Err(error) if error.kind() == opendal::ErrorKind::NotFound => Ok(()),
            other => other.map(drop),
        }
    }

    /// Every unfinished upload whose whole key begins with `prefix`.
    pub(super) async fn pending(&self, prefix: &str) -> Outcome<Vec<Pending>> {
        let (mut all, mut key, mut id) = (Vec::new(), String::new(), String::new());
        loop {
            let mut query = vec![("uploads", ""), ("prefix", prefix)];
            if !key.is_empty() {
                query.extend([("key-marker", key.as_str()), ("upload-id-marker", id.as_str())]);
            }
            let page: Listing = self.requests.bucket(&query).await?.document()?;
            all.extend(page.uploads.into_iter().filter(|upload| upload.key.starts_with(prefix)));
            let goes_on = page.is_truncated && page.next_key_marker > key;
            if !goes_on {
                return Ok(all);
            }
            (key, id) = (page.next_key_marker, page.next_upload_id_marker);
        }
    }

    /// Aborts the uploads of a folder that began before a time; says how many.
    pub(super) async fn sweep_uploads(&self, folder: &str, older_than: Timestamp) -> Outcome<u64> {
        let mut swept = 0;
        for upload in self.pending(&self.requests.whole_prefix(folder)).await? {
            if upload.began().is_some_and(|began| began < older_than) {
                self.abort(&upload.key, &upload.upload_id).await?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// Aborts uploads of one key that a lost answer left behind. Keys belong to one run, so a
    /// younger upload of the same key, of which we know nothing, is ours.
    async fn remove_strays(&self, whole_key: &str, ours: Option<&str>, since: Timestamp) {
        let removed = async {
            for upload in self.pending(whole_key).await? {
                let young = upload.began().is_none_or(|began| began >= since - CLOCK_SLACK);
                if upload.key == whole_key && Some(upload.upload_id.as_str()) != ours && young {
                    self.abort(whole_key, &upload.upload_id).await?;
                }
            }
            Ok::<_, opendal::Error>(())
        };
        if let Err(error) = removed.await {
            let cause = Refusal::inside(&error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(
                "an unfinished upload of {whole_key} may stay until it is swept {cause}"
            );
        }
    }
}
