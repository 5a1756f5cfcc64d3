//! Google Cloud Storage: `gs://bucket/prefix`.

use std::collections::HashMap;

use async_trait::async_trait;
use backup_core::{Error, Result};
use jiff::Timestamp;
use opendal::options::WriteOptions;
use opendal::services;
use opendal::{Buffer, ErrorKind, Operator};
use reqsign_core::ProvideCredentialChain;
use reqsign_google::StaticCredentialProvider;

use super::address::{Address, Options};
use super::connect::{operator, root};
use super::explain::Place;
use super::given::Given;
use super::line::Line;
use super::parts::{FIRST_PART_BYTES, Growth};
use super::service::{Blocks, Object, Outcome, Service, Stored, Upload, delete_with, put_with};
use super::store::Store;
use crate::Settings;

const OPTIONS: &[&str] = &["endpoint", "credential_file", "anonymous"];
const SECRETS: &[&str] = &["credential_json"];
const ENDPOINT: &str = "https://storage.googleapis.com";
const MARK: &str = "marb-write";

/// A resumable upload has no count of parts, only a length. opendal sends 8 MiB at a time.
const GROWTH: Growth = Growth {
    most_parts: (5 << 40) / FIRST_PART_BYTES,
    double_every: u64::MAX,
    largest: FIRST_PART_BYTES,
    fixed: None,
};

/// The store of a `gs://` URL.
pub(super) fn store(name: String, url: &str, settings: &Settings) -> Result<Store> {
    settings.only(&name, OPTIONS, SECRETS)?;
    let stage = format!("storage {name}");
    let options = Options { stage: &stage, settings };
    super::connect::refuse_s3_only(&stage, &settings.objects)?;
    let address = Address::of(&stage, "gs", url)?;
    let endpoint = options.endpoint()?.unwrap_or_else(|| ENDPOINT.to_owned());
    let mut builder = services::Gcs::default()
        .bucket(&address.bucket)
        .root(&root(&address.prefix))
        .endpoint(&endpoint);
    if let Some(class) = &settings.objects.storage_class {
        builder = builder.default_storage_class(class);
    }
    let given = if let Some(json) = options.secret("credential_json") {
        let given = Given(StaticCredentialProvider::new(json));
        builder = builder.credential_provider_chain(ProvideCredentialChain::new().push(given));
        true
    } else if let Some(path) = options.text("credential_file") {
        builder = builder.credential_path(&path);
        true
    } else {
        false
    };
    let anonymous = options.yes("anonymous", false)?;
    if anonymous {
        builder = builder.skip_signature();
    } else if !given && !settings.ambient_credentials {
        return Err(Error::usage(stage.clone(), "no credentials are given").next_step(
            "give the option `credential_file` or the secret `credential_json`, or allow the \
             credentials of the environment",
        ));
    }
    if given || anonymous || !settings.ambient_credentials {
        builder = builder.disable_config_load().disable_vm_metadata();
    }
    let operator = operator(&stage, builder, Line::new(&name, settings)?)?;
    let metadata = settings.objects.metadata.clone().into_iter().collect();
    let service = Box::new(Gcs { operator: operator.clone(), metadata });
    let place = Place {
        what: "bucket",
        bucket: address.bucket,
        endpoint,
        credentials: "the option `credential_file`, the secret `credential_json` or \
                      GOOGLE_APPLICATION_CREDENTIALS",
        rights: "the role Storage Object Creator (to write), Viewer (to read) or User (to delete)",
    };
    Ok(Store::new(name, place, operator, service, settings))
}

#[derive(Debug)]
struct Gcs {
    operator: Operator,
    metadata: HashMap<String, String>,
}

impl Gcs {
    fn metadata(&self, object: &Object<'_>) -> HashMap<String, String> {
        let mut metadata = self.metadata.clone();
        metadata.insert(MARK.to_owned(), object.mark.to_owned());
        metadata
    }
}

#[async_trait]
impl Service for Gcs {
    fn mark_name(&self) -> &'static str {
        MARK
    }

    fn growth(&self) -> Growth {
        GROWTH
    }

    fn conditional_remedy(&self) -> &'static str {
        "use Google's own service, which keeps conditions (emulators don't); else let one host \
         alone run each job"
    }

    async fn put(&self, object: &Object<'_>, body: Buffer, only_new: bool) -> Outcome<Stored> {
        put_with(&self.operator, object.key, body, only_new, self.metadata(object)).await
    }

    /// A condition makes opendal use a resumable upload, which expires by itself; its other
    /// way, multipart, stays pending for good. So there is always one: "there is none yet", or
    /// where there is one, "there is one".
    async fn start(&self, object: &Object<'_>) -> Outcome<Box<dyn Upload>> {
        let replaces = match self.operator.stat(object.key).await {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            // Whoever may not look writes new objects only.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => false,
            Err(error) => return Err(error),
        };
        let options = WriteOptions {
            if_not_exists: !replaces,
            if_version_not_match: replaces.then(|| "0".to_owned()),
            user_metadata: Some(self.metadata(object)),
            ..WriteOptions::default()
        };
        Ok(Box::new(Blocks::start(&self.operator, object.key, options).await?))
    }

    async fn delete(&self, key: &str) -> Outcome<()> {
        delete_with(&self.operator, key).await
    }

    /// Unfinished resumable uploads can't be listed; they expire within a week.
    async fn sweep(&self, _folder: &str, _older_than: Timestamp) -> Outcome<u64> {
        Ok(0)
    }
}
