//! S3 and what is compatible with it: `s3://bucket/prefix`.

mod credentials;
mod locks;
mod probe;
mod requests;
mod upload;
mod versions;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use backup_core::{Error, ObjectVersion, Protection, Result};
use http::{HeaderMap, Method};
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use opendal::{Buffer, HttpTransporter, Operator, services};
use reqsign_aws_v4::RequestSigner;
use reqsign_core::Signer;

use super::address::{Address, Options};
use super::connect::{operator, root};
use super::explain::Place;
use super::line::Line;
use super::parts::Growth;
use super::probe::{Finding, PROBE_NAME};
use super::service::{Object, Outcome, Service, Stored, Upload};
use super::store::Store;
use crate::{ObjectSettings, ServerEncryption, Settings};
use requests::{Requests, crc32c, put, tagging};
use upload::Multipart;
use versions::Versioning;

const OPTIONS: &[&str] = &[
    "endpoint",
    "region",
    "profile",
    "virtual_host_style",
    "part_size",
    "checksum",
    "conditional",
    "role_arn",
    "external_id",
    "role_session_name",
];
const SECRETS: &[&str] = &["access_key_id", "secret_access_key", "session_token"];
const MARK: &str = "marb-write";
/// A multipart upload's lock counts from its begin; it may last this long.
const LONGEST_UPLOAD_DAYS: i64 = 1;
/// How long a probe object is locked.
const PROBE_LOCK_MINUTES: i64 = 1;

/// 10,000 parts, which reach 5 TiB.
const GROWTH: Growth =
    Growth { most_parts: 10_000, double_every: 800, largest: 1 << 30, fixed: None };

/// The store of an `s3://` URL.
pub(super) fn store(name: String, url: &str, settings: &Settings) -> Result<Store> {
    settings.only(&name, OPTIONS, SECRETS)?;
    let stage = format!("storage {name}");
    let options = Options { stage: &stage, settings };
    let address = Address::of(&stage, "s3", url)?;
    let site = Site::of(&options, &address)?;
    let line = Line::new(&name, settings)?;
    let transporter = HttpTransporter::new(line.clone());
    let chain = || credentials::chain(&options, &site.region, &transporter);

    let mut builder = services::S3::default()
        .bucket(&address.bucket)
        .root(&root(&address.prefix))
        .endpoint(&site.endpoint)
        .region(&site.region)
        .disable_config_load()
        .credential_provider_chain(chain()?);
    if site.virtual_host {
        builder = builder.enable_virtual_host_style();
    }
    let operator = operator(&stage, builder, line)?;
    let context = credentials::context(&transporter, settings.ambient_credentials);
    let service = Arc::new(S3Service {
        requests: Requests {
            signer: Signer::new(context, chain()?, RequestSigner::new("s3", &site.region)),
            line: transporter,
            bucket_url: site.bucket_url(&address.bucket),
            prefix: address.prefix,
        },
        operator: operator.clone(),
        checksums: options.word("checksum", &["crc32c", "none"])? == "crc32c",
        conditional: options.yes("conditional", true)?,
        growth: Growth { fixed: options.part_size()?, ..GROWTH },
        objects: settings.objects.clone(),
        versioning: OnceLock::new(),
    });
    service.headers(&Object::new("", "")).map_err(|error| {
        Error::usage(stage, "tags, metadata or the storage class can't be sent")
            .next_step("use plain letters and digits in them")
            .caused_by(error)
    })?;
    let place = Place {
        what: "bucket",
        bucket: address.bucket,
        endpoint: site.endpoint,
        credentials: "the secrets `access_key_id` and `secret_access_key`",
        rights: "s3:PutObject and s3:AbortMultipartUpload (to write), s3:GetObject and \
                 s3:ListBucket (to read), s3:DeleteObject (to prune)",
    };
    Ok(Store::new(name, place, operator, Box::new(Handle(service)), settings))
}

/// Where a bucket is.
struct Site {
    endpoint: String,
    region: String,
    virtual_host: bool,
}

impl Site {
    fn of(options: &Options<'_>, address: &Address) -> Result<Self> {
        let endpoint = match options.endpoint()? {
            Some(endpoint) => Some(endpoint),
            None => credentials::ambient(options, &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
        };
        let region = options
            .text("region")
            .or_else(|| credentials::ambient(options, &["AWS_REGION", "AWS_DEFAULT_REGION"]));
        let (region, is_aws) = match (region, &endpoint) {
            (Some(region), endpoint) => (region, endpoint.is_none()),
            // Compatible services mostly take any, and this one is what they expect.
            (None, Some(_)) => ("us-east-1".to_owned(), false),
            (None, None) => {
                return Err(Error::usage(
                    options.stage.to_owned(),
                    "the bucket's region is not known",
                )
                .next_step("set the option `region`, such as \"eu-central-1\""));
            }
        };
        let endpoint = endpoint.unwrap_or_else(|| {
            let domain =
                if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            format!("https://s3.{region}.{domain}")
        });
        let dotted = address.bucket.contains('.');
        let virtual_host = options.yes("virtual_host_style", is_aws && !dotted)?;
        if virtual_host && dotted {
            return Err(Error::usage(
                options.stage.to_owned(),
                "a bucket with a dot in its name can't be part of a host's name",
            )
            .next_step("set the option `virtual_host_style` to \"no\""));
        }
        Ok(Self { endpoint, region, virtual_host })
    }

    fn bucket_url(&self, bucket: &str) -> String {
        match self.endpoint.split_once("://") {
            Some((scheme, host)) if self.virtual_host => format!("{scheme}://{bucket}.{host}"),
            _ => format!("{}/{bucket}", self.endpoint),
        }
    }
}

/// S3's own ways.
#[derive(Debug)]
struct S3Service {
    requests: Requests,
    operator: Operator,
    checksums: bool,
    conditional: bool,
    growth: Growth,
    objects: ObjectSettings,
    versioning: OnceLock<Versioning>,
}

impl S3Service {
    /// The headers that make an object what the settings want, whether by one request or by
    /// several.
    fn headers(&self, object: &Object<'_>) -> Outcome<HeaderMap> {
        self.headers_for(&self.objects, object)
    }

    /// As [`S3Service::headers`], for other settings.
    fn headers_for(&self, objects: &ObjectSettings, object: &Object<'_>) -> Outcome<HeaderMap> {
        let mut headers = HeaderMap::new();
        put(&mut headers, &format!("x-amz-meta-{MARK}"), object.mark)?;
        for (name, value) in &objects.metadata {
            put(&mut headers, &format!("x-amz-meta-{name}"), value)?;
        }
        if !objects.tags.is_empty() {
            put(&mut headers, "x-amz-tagging", &tagging(objects.tags.iter()))?;
        }
        if let Some(class) = &objects.storage_class {
            put(&mut headers, "x-amz-storage-class", class)?;
        }
        match &objects.encryption {
            None => {}
            Some(ServerEncryption::Service) => {
                put(&mut headers, "x-amz-server-side-encryption", "AES256")?;
            }
            Some(ServerEncryption::KeyService(key)) => {
                put(&mut headers, "x-amz-server-side-encryption", "aws:kms")?;
                if let Some(key) = key {
                    put(&mut headers, "x-amz-server-side-encryption-aws-kms-key-id", key)?;
                }
            }
        }
        if let Some(lock) = objects.object_lock.as_ref().filter(|_| !object.passing) {
            put(&mut headers, "x-amz-object-lock-mode", locks::word(lock.mode))?;
            let span = match object.probes {
                true => PROBE_LOCK_MINUTES.minutes(),
                false => (i64::from(lock.days) + LONGEST_UPLOAD_DAYS).days(),
            };
            let until = Timestamp::now().to_zoned(TimeZone::UTC).saturating_add(span);
            put(
                &mut headers,
                "x-amz-object-lock-retain-until-date",
                &locks::written(until.timestamp()),
            )?;
        }
        Ok(headers)
    }
}

/// A service that its uploads share.
#[derive(Debug)]
struct Handle(Arc<S3Service>);

#[async_trait]
impl Service for Handle {
    fn mark_name(&self) -> &'static str {
        MARK
    }

    fn growth(&self) -> Growth {
        self.0.growth
    }

    async fn put(&self, object: &Object<'_>, body: Buffer, only_new: bool) -> Outcome<Stored> {
        let mut headers = self.0.headers(object)?;
        if only_new {
            put(&mut headers, "if-none-match", "*")?;
        }
        if self.0.checksums {
            put(&mut headers, "x-amz-checksum-crc32c", &crc32c(&body))?;
        }
        let requests = &self.0.requests;
        let whole_key = requests.whole_key(object.key);
        let answer = requests.object(Method::PUT, &whole_key, &[], headers, body).await?;
        Ok(Stored { version: answer.header("x-amz-version-id") })
    }

    async fn start(&self, object: &Object<'_>) -> Outcome<Box<dyn Upload>> {
        Ok(Box::new(Multipart::start(Arc::clone(&self.0), object).await?))
    }

    async fn delete(&self, key: &str) -> Outcome<()> {
        self.0.delete_object(key).await
    }

    async fn sweep(&self, folder: &str, older_than: Timestamp) -> Outcome<u64> {
        let uploads = self.0.sweep_uploads(folder, older_than).await?;
        let prefix = self.0.requests.whole_prefix(folder);
        Ok(uploads + self.0.sweep_hidden(&prefix, older_than).await?)
    }

    fn may_keep_versions(&self) -> bool {
        true
    }

    async fn versions(&self, key: &str) -> Outcome<Vec<ObjectVersion>> {
        self.0.versions_of(key).await
    }

    async fn lock_until(&self, key: &str, id: Option<&str>, until: Timestamp) -> Outcome<()> {
        self.0.lock_until(key, id, until).await
    }

    async fn hold(&self, key: &str, id: Option<&str>, held: bool) -> Outcome<bool> {
        self.0.hold(key, id, held).await
    }

    async fn protection(&self, key: &str, id: Option<&str>) -> Outcome<Protection> {
        self.0.protection(key, id).await
    }

    fn excludes(&self) -> bool {
        self.0.conditional
    }

    fn conditional_remedy(&self) -> &'static str {
        "conditional = \"no\": the ids of backups then get random letters"
    }

    async fn asked_too_much(&self, object: &Object<'_>, error: &opendal::Error) -> Vec<Finding> {
        self.0.asked_too_much(object, error).await
    }

    async fn sweep_probes(&self, older_than: Timestamp) -> Outcome<()> {
        let probes = self.0.requests.whole_key(PROBE_NAME);
        self.0.sweep_hidden(&probes, older_than).await.map(drop)
    }

    async fn probe_more(&self, object: &Object<'_>) -> Vec<Finding> {
        self.0.probe_more(object).await
    }
}
