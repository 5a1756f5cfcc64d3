//! Credentials that were given: they are used, and never shown.

use std::fmt;

use reqsign_core::{Context, ProvideCredential, Result};

/// A provider of given credentials. Others' providers show what they hold, and the chain that
/// asks them logs them.
pub(super) struct Given<P>(pub(super) P);

impl<P> fmt::Debug for Given<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("given credentials")
    }
}

impl<P: ProvideCredential> ProvideCredential for Given<P> {
    type Credential = P::Credential;

    async fn provide_credential(&self, context: &Context) -> Result<Option<P::Credential>> {
        self.0.provide_credential(context).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "s3")]
    #[tokio::test]
    async fn given_aws_keys_are_used_and_not_shown() {
        let provider = Given(reqsign_aws_v4::StaticCredentialProvider::new("me", "hunter2"));
        assert!(!format!("{provider:?}").contains("hunter2"));
        let credential = provider.provide_credential(&Context::new()).await.unwrap().unwrap();
        assert!(!format!("{credential:?}").contains("hunter2"));
        assert_eq!(credential.secret_access_key, "hunter2");
    }

    #[cfg(feature = "gcs")]
    #[tokio::test]
    async fn a_given_key_is_used_and_not_shown() {
        let key = r#"{"type": "service_account", "private_key": "hunter2", "client_email": "me"}"#;
        let provider = Given(reqsign_google::StaticCredentialProvider::new(key));
        assert!(!format!("{provider:?}").contains("hunter2"));
        let credential = provider.provide_credential(&Context::new()).await.unwrap().unwrap();
        assert!(!format!("{credential:?}").contains("hunter2"));
        assert_eq!(credential.service_account.unwrap().private_key, "hunter2");
    }

    /// Nothing wraps this one.
    #[cfg(feature = "azure")]
    #[test]
    fn azure_hides_its_own() {
        use reqsign_azure_storage::StaticCredentialProvider;
        for provider in [
            StaticCredentialProvider::new_shared_key("me", "hunter2"),
            StaticCredentialProvider::new_sas_token("hunter2"),
        ] {
            assert!(!format!("{provider:?}").contains("hunter2"));
        }
    }
}
