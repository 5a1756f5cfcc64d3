//! From a `[storage.NAME]` to the settings of a storage: what it says, and behind it the
//! variables by which each service's own programs are configured.

use backup_core::{Error, Result};
use backup_storage::{LockMode, ObjectLock, ObjectSettings, ServerEncryption, Settings};
use secrecy::SecretString;

use crate::config::{Environment, ObjectLockMode, ObjectsConfig, StorageConfig};

/// A variable, and the option or secret that it stands for.
struct Usual {
    scheme: &'static str,
    variable: &'static str,
    name: &'static str,
    secret: bool,
}

const fn option(scheme: &'static str, variable: &'static str, name: &'static str) -> Usual {
    Usual { scheme, variable, name, secret: false }
}

const fn secret(scheme: &'static str, variable: &'static str, name: &'static str) -> Usual {
    Usual { scheme, variable, name, secret: true }
}

/// Earlier lines beat later ones. The storages find the process's own variables by themselves;
/// those of `env_file`, or of an embedding application, only come through here.
const USUAL: [Usual; 13] = [
    option("s3", "AWS_REGION", "region"),
    option("s3", "AWS_DEFAULT_REGION", "region"),
    option("s3", "AWS_ENDPOINT_URL_S3", "endpoint"),
    option("s3", "AWS_ENDPOINT_URL", "endpoint"),
    option("s3", "AWS_PROFILE", "profile"),
    secret("s3", "AWS_ACCESS_KEY_ID", "access_key_id"),
    secret("s3", "AWS_SECRET_ACCESS_KEY", "secret_access_key"),
    secret("s3", "AWS_SESSION_TOKEN", "session_token"),
    option("gs", "GOOGLE_APPLICATION_CREDENTIALS", "credential_file"),
    option("az", "AZURE_STORAGE_ENDPOINT", "endpoint"),
    option("az", "AZURE_STORAGE_ACCOUNT", "account_name"),
    secret("az", "AZURE_STORAGE_KEY", "account_key"),
    secret("az", "AZURE_STORAGE_SAS_TOKEN", "sas_token"),
];

/// What a storage needs to know beside its URL.
///
/// # Errors
/// When a secret can't be fetched or a word is unknown.
pub(super) async fn settings(
    storage: &str,
    config: &StorageConfig,
    objects: &ObjectsConfig,
    environment: &Environment,
) -> Result<Settings> {
    let mut settings = Settings {
        options: config.options.clone(),
        ambient_credentials: config.ambient_credentials,
        objects: object_settings(storage, objects)?,
        ..Settings::default()
    };
    for (name, value) in &config.secrets {
        let fetched = value.fetch("storage secret", environment).await.map_err(|error| {
            let message = format!("storage {storage:?}, secret {name}: {}", error.message());
            let named = Error::new(error.kind(), "config", message);
            named.next_step(error.advice().unwrap_or("correct it in the config").to_owned())
        })?;
        settings.secrets.insert(name.clone(), fetched);
    }
    if config.ambient_credentials {
        add_usual(&mut settings, &config.url, environment);
    }
    settings.request_timeout = config.request_timeout.unwrap_or(settings.request_timeout);
    settings.retry_deadline = config.retry_deadline.unwrap_or(settings.retry_deadline);
    Ok(settings)
}

/// Adds what the usual variables say where the configuration says nothing. Secrets go together:
/// half of one key and half of another would open nothing.
fn add_usual(settings: &mut Settings, url: &str, environment: &Environment) {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    let has_secrets = !settings.secrets.is_empty() || settings.options.contains_key("profile");
    for usual in USUAL.iter().filter(|usual| usual.scheme == scheme) {
        let Some(value) = environment.get(usual.variable) else { continue };
        let name = usual.name.to_owned();
        if !usual.secret {
            settings.options.entry(name).or_insert(value);
        } else if !has_secrets {
            settings.secrets.insert(name, SecretString::from(value));
        }
    }
}

fn object_settings(storage: &str, objects: &ObjectsConfig) -> Result<ObjectSettings> {
    let encryption = objects.encryption.as_deref().map(|word| match word {
        "service" => Ok(ServerEncryption::Service),
        "kms" => Ok(ServerEncryption::KeyService(None)),
        other => match other.strip_prefix("kms:").filter(|key| !key.is_empty()) {
            Some(key) => Ok(ServerEncryption::KeyService(Some(key.to_owned()))),
            None => Err(Error::usage(
                "config",
                format!("storage {storage:?}: objects can't be encrypted by {other:?}"),
            )
            .next_step("write \"service\", \"kms\" or \"kms:KEY\"")),
        },
    });
    Ok(ObjectSettings {
        tags: objects.tags.clone(),
        metadata: objects.metadata.clone(),
        storage_class: objects.storage_class.clone(),
        encryption: encryption.transpose()?,
        object_lock: objects.object_lock.map(|lock| ObjectLock {
            days: lock.days,
            mode: match lock.mode {
                ObjectLockMode::Governance => LockMode::Governance,
                ObjectLockMode::Compliance => LockMode::Compliance,
            },
        }),
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use secrecy::ExposeSecret;

    use super::*;
    use crate::config::{FromEnv, Value};

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let owned = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
        Environment::new(variables.iter().map(owned))
    }

    async fn told(config: &StorageConfig, environment: &Environment) -> Vec<String> {
        let settings = settings("x", config, &config.objects, environment).await.unwrap();
        let options = settings.options.iter().map(|(name, value)| format!("{name}={value}"));
        let secrets = settings.secrets.iter();
        let secrets = secrets.map(|(name, value)| format!("{name}!{}", value.expose_secret()));
        options.chain(secrets).collect()
    }

    #[tokio::test]
    async fn the_usual_variables_stand_behind_the_config() {
        let variables = environment(&[
            ("AWS_REGION", "eu-1"),
            ("AWS_DEFAULT_REGION", "us-1"),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "key"),
            ("MINE", "mine"),
        ]);
        let mut config = StorageConfig::new("s3://bucket");
        assert_eq!(
            told(&config, &variables).await,
            ["region=eu-1", "access_key_id!id", "secret_access_key!key"]
        );
        let mine = Value::Env(FromEnv { env: "MINE".to_owned() });
        config.secrets.insert("access_key_id".to_owned(), mine);
        config.options.insert("region".to_owned(), "mars".to_owned());
        assert_eq!(told(&config, &variables).await, ["region=mars", "access_key_id!mine"]);
        assert!(told(&StorageConfig::new("gs://bucket"), &variables).await.is_empty());
        config.ambient_credentials = false;
        config.secrets.clear();
        config.options.clear();
        assert!(told(&config, &variables).await.is_empty());
    }

    #[tokio::test]
    async fn a_missing_secret_names_storage_and_secret() {
        let mut config = StorageConfig::new("s3://bucket");
        let missing = Value::Env(FromEnv { env: "NOT_SET".to_owned() });
        config.secrets.insert("secret_access_key".to_owned(), missing);
        let objects = ObjectsConfig::default();
        let failed = settings("offsite", &config, &objects, &environment(&[])).await;
        assert_eq!(
            failed.unwrap_err().to_string(),
            "config: storage \"offsite\", secret secret_access_key: the variable NOT_SET is not set"
        );
    }

    #[test]
    fn an_unknown_encryption_is_refused() {
        let with = |word: &str| ObjectsConfig {
            encryption: Some(word.to_owned()),
            ..ObjectsConfig::default()
        };
        assert!(object_settings("x", &with("kms:")).is_err());
        assert!(object_settings("x", &with("rot13")).is_err());
        let key = object_settings("x", &with("kms:abc")).unwrap().encryption;
        assert_eq!(key, Some(ServerEncryption::KeyService(Some("abc".to_owned()))));
    }
}
