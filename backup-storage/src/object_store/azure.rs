//! Azure Blob Storage: `az://container/prefix`.

use std::collections::HashMap;

use async_trait::async_trait;
use backup_core::{Error, Result};
use jiff::Timestamp;
use opendal::options::WriteOptions;
use opendal::services;
use opendal::{Buffer, Operator};
use reqsign_azure_storage::{DefaultCredentialProvider, StaticCredentialProvider};
use reqsign_core::{Env, OsEnv, ProvideCredentialChain};

use super::address::{Address, Options};
use super::connect::{operator, root};
use super::explain::Place;
use super::line::Line;
use super::parts::Growth;
use super::service::{Blocks, Object, Outcome, Service, Stored, Upload, delete_with, put_with};
use super::store::Store;
use crate::Settings;

const OPTIONS: &[&str] = &["endpoint", "account_name", "part_size"];
const SECRETS: &[&str] = &["account_key", "sas_token"];
/// Metadata names are identifiers of C# there.
const MARK: &str = "marb_write";

/// 50,000 blocks, which reach 5 TiB.
const GROWTH: Growth =
    Growth { most_parts: 50_000, double_every: 7_000, largest: 256 << 20, fixed: None };

/// The store of an `az://` URL.
pub(super) fn store(name: String, url: &str, settings: &Settings) -> Result<Store> {
    settings.only(&name, OPTIONS, SECRETS)?;
    let stage = format!("storage {name}");
    let options = Options { stage: &stage, settings };
    super::connect::refuse_s3_only(&stage, &settings.objects)?;
    if settings.objects.storage_class.is_some() {
        return Err(Error::usage(stage, "has no storage class for its objects")
            .next_step("leave `storage_class` out; the account has a default access tier"));
    }
    let address = Address::of(&stage, "az", url)?;
    let ambient = |names: [&str; 2]| {
        let found = names.into_iter().find_map(|name| OsEnv.var(name));
        found.filter(|_| settings.ambient_credentials)
    };
    let account = options
        .text("account_name")
        .or_else(|| ambient(["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"]));
    let endpoint = match (options.endpoint()?, &account) {
        (Some(endpoint), _) => endpoint,
        (None, Some(account)) => format!("https://{account}.blob.core.windows.net"),
        (None, None) => {
            return Err(Error::usage(stage, "the account is not known")
                .next_step("set the option `account_name`, or `endpoint`"));
        }
    };
    let mut builder = services::Azblob::default()
        .container(&address.bucket)
        .root(&root(&address.prefix))
        .endpoint(&endpoint);
    if let Some(account) = &account {
        builder = builder.account_name(account);
    }
    let mut chain = ProvideCredentialChain::new();
    if let Some(token) = options.secret("sas_token") {
        let token = token.trim().trim_start_matches('?').to_owned();
        chain = chain.push(StaticCredentialProvider::new_sas_token(&token));
    } else if let Some(key) = options
        .secret("account_key")
        .or_else(|| ambient(["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY"]))
    {
        let account = account.as_deref().ok_or_else(|| {
            Error::usage(stage.clone(), "an account key needs the account's name")
                .next_step("set the option `account_name`")
        })?;
        // Checks that the key is one.
        builder = builder.account_key(&key);
        chain = chain.push(StaticCredentialProvider::new_shared_key(account, &key));
    } else if settings.ambient_credentials {
        chain = chain.push(DefaultCredentialProvider::new());
    } else {
        return Err(Error::usage(stage, "no credentials are given").next_step(
            "give the secret `account_key` or `sas_token`, or allow the credentials of the \
             environment",
        ));
    }
    let builder = builder.credential_provider_chain(chain);
    let operator = operator(&stage, builder, Line::new(&name, settings)?)?;
    let metadata = settings.objects.metadata.clone().into_iter().collect();
    let growth = Growth { fixed: options.part_size()?, ..GROWTH };
    let service = Box::new(Azure { operator: operator.clone(), metadata, growth });
    let place = Place {
        what: "container",
        bucket: address.bucket,
        endpoint,
        credentials: "the option `account_name` and the secret `account_key` or `sas_token`",
        rights: "the role Storage Blob Data Contributor, or a SAS token with racwdl",
    };
    Ok(Store::new(name, place, operator, service, settings))
}

#[derive(Debug)]
struct Azure {
    operator: Operator,
    metadata: HashMap<String, String>,
    growth: Growth,
}

impl Azure {
    fn metadata(&self, object: &Object<'_>) -> HashMap<String, String> {
        let mut metadata = self.metadata.clone();
        metadata.insert(MARK.to_owned(), object.mark.to_owned());
        metadata
    }
}

#[async_trait]
impl Service for Azure {
    fn mark_name(&self) -> &'static str {
        MARK
    }

    fn growth(&self) -> Growth {
        self.growth
    }

    fn conditional_remedy(&self) -> &'static str {
        "use Azure's own service, which keeps conditions; else let one host alone run each job"
    }

    async fn put(&self, object: &Object<'_>, body: Buffer, only_new: bool) -> Outcome<Stored> {
        put_with(&self.operator, object.key, body, only_new, self.metadata(object)).await
    }

    async fn start(&self, object: &Object<'_>) -> Outcome<Box<dyn Upload>> {
        let options =
            WriteOptions { user_metadata: Some(self.metadata(object)), ..WriteOptions::default() };
        Ok(Box::new(Blocks::start(&self.operator, object.key, options).await?))
    }

    async fn delete(&self, key: &str) -> Outcome<()> {
        delete_with(&self.operator, key).await
    }

    /// Uncommitted blocks can't be told from those of a running writer; they expire within a
    /// week.
    async fn sweep(&self, _folder: &str, _older_than: Timestamp) -> Outcome<u64> {
        Ok(0)
    }
}
