//! Who signs the requests: given keys, or what the ecosystem's own places hold.

use backup_core::{Error, Result};
use opendal::HttpTransporter;
use reqsign_aws_v4::{
    AssumeRoleCredentialProvider, Credential, DefaultCredentialProvider, RequestSigner,
    StaticCredentialProvider,
};
use reqsign_core::{Context, Env, OsEnv, ProvideCredentialChain, Signer};
use reqsign_file_read_tokio::TokioFileRead;

use super::super::address::Options;
use super::super::given::Given;

/// The surroundings in which credentials are looked for.
pub(super) fn context(line: &HttpTransporter, ambient: bool) -> Context {
    let context = Context::new().with_file_read(TokioFileRead).with_http_send(line.clone());
    if ambient { context.with_env(OsEnv) } else { context }
}

/// A variable of the process's environment, where that may be asked.
pub(super) fn ambient(options: &Options<'_>, names: &[&str]) -> Option<String> {
    let found = names.iter().find_map(|name| OsEnv.var(name)).filter(|value| !value.is_empty());
    found.filter(|_| options.settings.ambient_credentials)
}

/// The chain of places that are asked for credentials, in order.
pub(super) fn chain(
    options: &Options<'_>,
    region: &str,
    line: &HttpTransporter,
) -> Result<ProvideCredentialChain<Credential>> {
    let ambient = options.settings.ambient_credentials;
    let mut chain = ProvideCredentialChain::new();
    match (options.secret("access_key_id"), options.secret("secret_access_key")) {
        (Some(id), Some(secret)) => {
            let mut given = StaticCredentialProvider::new(&id, &secret);
            if let Some(token) = options.secret("session_token") {
                given = given.with_session_token(&token);
            }
            chain = chain.push(Given(given));
        }
        (None, None) if ambient => {
            let mut builder = DefaultCredentialProvider::builder();
            if let Some(profile) = options.text("profile") {
                builder = builder.with_profile(profile).no_env();
            }
            chain = chain.push(builder.build());
        }
        (None, None) => {
            return Err(Error::usage(options.stage.to_owned(), "no credentials are given")
                .next_step(
                    "give the secrets `access_key_id` and `secret_access_key`, or allow the \
                     credentials of the environment",
                ));
        }
        _ => {
            return Err(Error::usage(
                options.stage.to_owned(),
                "of access_key_id and secret_access_key only one is given",
            )
            .next_step("give both"));
        }
    }
    let Some(role) = options.text("role_arn") else { return Ok(chain) };
    let signer = Signer::new(context(line, ambient), chain, RequestSigner::new("sts", region));
    let mut assumed = AssumeRoleCredentialProvider::new(role, signer)
        .with_region(region.to_owned())
        .with_regional_sts_endpoint();
    if let Some(id) = options.text("external_id") {
        assumed = assumed.with_external_id(id);
    }
    if let Some(name) = options.text("role_session_name") {
        assumed = assumed.with_role_session_name(name);
    }
    Ok(ProvideCredentialChain::new().push(assumed))
}
