//! What only S3 promises, tried on a probe object.

use http::{HeaderMap, Method};
use opendal::{Buffer, ErrorKind};

use super::super::answer::Refusal;
use super::super::probe::{CONTENT, Finding, why};
use super::super::service::{Object, Outcome};
use super::S3Service;
use super::requests::put;
use super::versions::Versioning;
use crate::ObjectSettings;

/// The CRC32C of nothing, in S3's writing.
const WRONG_SUM: &str = "AAAAAA==";

impl S3Service {
    /// What the settings ask for and the service refused, where an error says so.
    pub(super) fn asked_too_much(&self, error: &opendal::Error) -> Option<Finding> {
        let refusal = Refusal::inside(error)?;
        let objects = &self.objects;
        let asks = self.checksums || *objects != ObjectSettings::default();
        let may_refuse_tags = refusal.status == 403 && !objects.tags.is_empty();
        let about_the_request = matches!(refusal.status, 400 | 405 | 501) || may_refuse_tags;
        let signed_well = !matches!(
            refusal.code.as_str(),
            "SignatureDoesNotMatch" | "InvalidAccessKeyId" | "RequestTimeTooSkewed"
        );
        if !asks || !about_the_request || !signed_well || refusal.is_missing_bucket() {
            return None;
        }
        let (ability, remedy) = if objects.object_lock.is_some() {
            ("object_lock", "leave `object_lock` out, or use a bucket made with object lock")
        } else if !objects.tags.is_empty() {
            ("tags", "leave `tags` out, or grant s3:PutObjectTagging")
        } else if objects.encryption.is_some() {
            ("encryption", "leave `encryption` out, or correct its key")
        } else if objects.storage_class.is_some() {
            ("storage_class", "leave `storage_class` out, or use one that the service has")
        } else {
            ("checksum", "checksum = \"none\"")
        };
        Some(Finding::missing(ability, format!("the service refuses it ({refusal})"), remedy))
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
