//! What only S3 promises, tried on a probe object.

use http::{HeaderMap, Method};
use opendal::{Buffer, ErrorKind};

use super::super::answer::Refusal;
use super::super::probe::{CONTENT, Finding, why};
use super::super::service::{Object, Outcome};
use super::S3Service;
use super::requests::{crc32c, put};
use super::versions::Versioning;
use crate::ObjectSettings;

/// The CRC32C of nothing, in S3's writing.
const WRONG_SUM: &str = "AAAAAA==";

/// Whether a refusal can come from what the settings ask for, and not from the credentials or
/// the bucket.
fn may_be_about_settings(refusal: &Refusal) -> bool {
    let signed_well = !matches!(
        refusal.code.as_str(),
        "SignatureDoesNotMatch" | "InvalidAccessKeyId" | "RequestTimeTooSkewed"
    );
    let status = matches!(refusal.status, 400 | 403 | 405 | 501);
    status && signed_well && !refusal.is_missing_bucket()
}

fn refused(ability: &'static str, error: &opendal::Error, remedy: &str) -> Finding {
    Finding::missing(ability, format!("the service refuses it ({})", why(error)), remedy)
}

impl S3Service {
    /// Which of the settings the service refuses, after it refused them together. Found out by
    /// asking for each alone: an error seldom says what it is about.
    pub(super) async fn asked_too_much(
        &self,
        object: &Object<'_>,
        error: &opendal::Error,
    ) -> Vec<Finding> {
        let Some(refusal) = Refusal::inside(error) else { return Vec::new() };
        let asked = self.asked();
        if (asked.is_empty() && !self.checksums) || !may_be_about_settings(refusal) {
            return Vec::new();
        }
        let none = ObjectSettings::default();
        if self.put_asking(object, &none, false).await.is_err() {
            return Vec::new();
        }
        let mut findings = Vec::new();
        let mut sums = false;
        if self.checksums {
            match self.put_asking(object, &none, true).await {
                Ok(()) => sums = true,
                Err(error) => findings.push(refused("checksum", &error, "checksum = \"none\"")),
            }
        }
        for (ability, only, remedy) in &asked {
            // With the checksum where that is accepted: a lock needs one.
            if let Err(error) = self.put_asking(object, only, sums).await {
                findings.push(refused(ability, &error, remedy));
            }
        }
        if findings.is_empty() {
            let message = format!("the service takes each alone, but not together ({refusal})");
            findings.push(Finding::missing(
                "objects",
                message,
                "leave some of the settings under `objects` out",
            ));
        }
        findings
    }

    /// What the settings ask for beside the checksum, each alone, and what to set instead.
    fn asked(&self) -> Vec<(&'static str, ObjectSettings, &'static str)> {
        let ours = &self.objects;
        let none = ObjectSettings::default;
        let each = [
            (
                "tags",
                ObjectSettings { tags: ours.tags.clone(), ..none() },
                "leave `tags` out, or grant s3:PutObjectTagging",
            ),
            (
                "metadata",
                ObjectSettings { metadata: ours.metadata.clone(), ..none() },
                "leave `metadata` out, or shorten it",
            ),
            (
                "storage_class",
                ObjectSettings { storage_class: ours.storage_class.clone(), ..none() },
                "leave `storage_class` out, or use one that the service has",
            ),
            (
                "encryption",
                ObjectSettings { encryption: ours.encryption.clone(), ..none() },
                "leave `encryption` out, or correct its key and the right to use it",
            ),
            (
                "object_lock",
                ObjectSettings { object_lock: ours.object_lock, ..none() },
                "leave `object_lock` out, or use a bucket made with object lock (and grant \
                 s3:PutObjectRetention)",
            ),
        ];
        let wanted = |only: &ObjectSettings| *only != none();
        each.into_iter().filter(|(_, only, _)| wanted(only)).collect()
    }

    async fn put_asking(
        &self,
        object: &Object<'_>,
        objects: &ObjectSettings,
        sums: bool,
    ) -> Outcome<()> {
        let mut headers = self.headers_for(objects, object)?;
        let body = Buffer::from(CONTENT);
        if sums {
            put(&mut headers, "x-amz-checksum-crc32c", &crc32c(&body))?;
        }
        let key = self.requests.whole_key(object.key);
        self.requests.object(Method::PUT, &key, &[], headers, body).await.map(drop)
    }

    /// Everything beside the conditional put.
    pub(super) async fn probe_more(&self, object: &Object<'_>) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !self.objects.tags.is_empty() {
            findings.push(self.try_tags(object.key).await);
        }
        if self.objects.object_lock.is_some() {
            findings.push(self.try_lock(object.key).await);
        }
        findings.push(self.try_checksum(object).await);
        let said = match self.versioning().await {
            Ok(Versioning::Never) => "the bucket keeps no older versions",
            Ok(Versioning::Kept) => "the bucket keeps versions; deletes name them",
            Ok(Versioning::Unknown) => "these credentials may not ask whether there are versions",
            Err(_) => "whether there are versions could not be asked just now",
        };
        findings.push(Finding::fine("versions", said));
        findings
    }

    async fn try_checksum(&self, object: &Object<'_>) -> Finding {
        let ability = "checksum";
        if !self.checksums {
            return Finding::fine(ability, "checksums are switched off");
        }
        let wrong = async {
            let mut headers = self.headers(object)?;
            put(&mut headers, "x-amz-checksum-crc32c", WRONG_SUM)?;
            let (key, body) = (self.requests.whole_key(object.key), Buffer::from(CONTENT));
            self.requests.object(Method::PUT, &key, &[], headers, body).await
        };
        match wrong.await {
            Err(_) => Finding::fine(ability, "a wrong checksum is refused"),
            Ok(_) => Finding::missing(
                ability,
                "the service stores what does not match its CRC32C: it does not verify uploads",
                "checksum = \"none\"; what was stored is still checked by `marb-backup verify`",
            ),
        }
    }

    async fn try_tags(&self, key: &str) -> Finding {
        let (ability, remedy) = ("tags", "leave `tags` out: the service does not keep them");
        match self.ask(key, "tagging").await {
            Ok(body) => {
                let kept = self.objects.tags.iter().all(|(name, value)| {
                    let [name, value] = [name, value].map(quick_xml::escape::escape);
                    body.contains(&format!("<Key>{name}</Key>"))
                        && body.contains(&format!("<Value>{value}</Value>"))
                });
                match kept {
                    true => Finding::fine(ability, "objects keep their tags"),
                    false => Finding::missing(ability, "the tags of an object are lost", remedy),
                }
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Finding::fine(
                ability,
                "tags are accepted; these credentials may not read them back",
            ),
            Err(error) => Finding::missing(
                ability,
                format!("the service does not know tags ({})", why(&error)),
                remedy,
            ),
        }
    }

    async fn try_lock(&self, key: &str) -> Finding {
        let ability = "object_lock";
        match self.ask(key, "retention").await {
            Ok(body) if body.contains("RetainUntilDate") => {
                Finding::fine(ability, "objects are locked")
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Finding::fine(
                ability,
                "locks are accepted; these credentials may not read them back",
            ),
            _ => Finding::missing(
                ability,
                "an object that was to be locked is not",
                "leave `object_lock` out, or use a bucket made with object lock",
            ),
        }
    }

    /// One of an object's properties, as the service's document.
    async fn ask(&self, key: &str, property: &str) -> Outcome<String> {
        let key = self.requests.whole_key(key);
        let (headers, body) = (HeaderMap::new(), Buffer::new());
        let query = [(property, "")];
        let answer = self.requests.object(Method::GET, &key, &query, headers, body).await?;
        Ok(String::from_utf8_lossy(&answer.body.to_bytes()).into_owned())
    }
}
