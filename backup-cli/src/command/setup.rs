//! From flags, environment and config file to a [`Deployment`]. Flags beat environment, the
//! environment beats the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backup_cli::Deployment;
use backup_cli::config::{
    Config, EncryptionConfig, Environment, FromEnv, FromFile, JobConfig, StorageConfig, Value,
    find_config,
};
use backup_core::{Error, Result};

use super::args::{BackupArgs, Between, Common, From, JobFlags, KeyFiles, RecoverArgs};

/// The environment of this process.
pub fn environment() -> Environment {
    Environment::new(std::env::vars_os())
}

/// A deployment of this process, which waits in the end for the marks that it leaves.
fn deployment(config: Config, common: &Common) -> Result<Deployment> {
    Ok(Deployment::new(config, environment())?.with_marks(common.marks.clone()))
}

/// The configuration that the flags, the environment or the default locations name.
///
/// # Errors
/// When there is none, or it is wrong.
pub fn config(common: &Common) -> Result<(PathBuf, Config)> {
    let Some(path) = find_config(common.config.as_deref(), &environment()) else {
        return Err(Error::usage("config", "there is no configuration").next_step(format!(
            "write one ({}), name it with --config, or use flags: see --help",
            backup_cli::config::DEFAULT_LOCATIONS.join(" or ")
        )));
    };
    let config = Config::read(&path)?;
    Ok((path, config))
}

/// The deployment for a `backup`, and the names of the jobs to run.
///
/// # Errors
/// When flags or config are wrong.
pub fn for_backup(args: &BackupArgs, common: &Common) -> Result<(Deployment, Vec<String>)> {
    let Some(url) = &args.url else {
        let (_, config) = config(common)?;
        if config.job.is_empty() {
            return Err(Error::usage("config", "there is no job to run")
                .next_step("add a [job.NAME] to the config"));
        }
        let jobs = if args.jobs.is_empty() {
            config.job.keys().cloned().collect()
        } else {
            args.jobs.clone()
        };
        return Ok((deployment(config, common)?, jobs));
    };
    let config = config_from_flags(url, &args.flags, &args.to)?;
    Ok((deployment(config, common)?, vec![args.flags.job_name.clone()]))
}

/// The deployment for pruning, and the names of the jobs.
///
/// # Errors
/// When the config is wrong or has no such job.
pub fn for_pruning(jobs: &[String], common: &Common) -> Result<(Deployment, Vec<String>)> {
    let deployment = deployment(config(common)?.1, common)?;
    let named = match jobs.is_empty() {
        true => deployment.config().job.keys().cloned().collect(),
        false => jobs.to_vec(),
    };
    for job in &named {
        deployment.job(job)?;
    }
    if named.is_empty() {
        return Err(Error::usage("config", "there is no job to prune")
            .next_step("add a [job.NAME] to the config"));
    }
    Ok((deployment, named))
}

fn config_from_flags(url: &str, flags: &JobFlags, to: &[String]) -> Result<Config> {
    let storage = storages(to)?;
    let mut job = JobConfig::new(url_value(url)?, storage.keys().cloned().collect());
    job.compression = flags.compression.clone();
    job.encrypt = !flags.no_encryption;
    job.allow_plaintext = flags.no_encryption;
    let encryption = EncryptionConfig {
        passphrase: flags.passphrase_file.as_deref().map(file_value),
        recipients: flags.recipients.clone(),
        ..EncryptionConfig::default()
    };
    let jobs = [(flags.job_name.clone(), job)].into();
    let config = Config { storage, encryption, job: jobs, ..Config::default() };
    config.check().map_err(name_the_flags)?;
    Ok(config)
}

/// The same refusal, in the words of the flags.
fn name_the_flags(error: Error) -> Error {
    if !error.message().contains("there is no key") {
        return error;
    }
    Error::usage("flags", "the backup is to be encrypted, and there is no key")
        .next_step("give --passphrase-file FILE or --recipient FILE, or say --no-encryption")
}

/// The deployment for reading: a config, or `--from` and keys.
///
/// # Errors
/// When flags or config are wrong.
pub fn for_reading(from: &From, common: &Common) -> Result<Deployment> {
    let mut config = if from.from.is_empty() {
        config(common)?.1
    } else {
        Config { storage: storages(&from.from)?, ..Config::default() }
    };
    add_keys(&mut config.encryption, &from.keys);
    deployment(config, common)
}

/// The deployment for a recovery: storages by URL, the options of a config where one is given.
///
/// # Errors
/// When flags or config are wrong, or neither names a storage.
pub fn for_recovery(args: &RecoverArgs, common: &Common) -> Result<Deployment> {
    // On an empty machine only a config that is named counts, or the one in its usual place.
    let mut config = match find_config(common.config.as_deref(), &environment()) {
        Some(path) => Config::read(&path)?,
        None => Config::default(),
    };
    if !args.from.is_empty() {
        let known = std::mem::take(&mut config.storage);
        config.storage = storages(&args.from)?;
        let same = |a: &str, b: &str| a.trim_end_matches('/') == b.trim_end_matches('/');
        for storage in config.storage.values_mut() {
            let configured = known.values().find(|other| same(&other.url, &storage.url));
            if let Some(configured) = configured {
                *storage = configured.clone();
            }
        }
    }
    super::recover::no_place(&config)?;
    leave_out_what_is_gone(&mut config);
    add_keys(&mut config.encryption, &args.keys);
    config.encryption.trusted_signers.extend(args.trusted_signers.iter().cloned());
    Deployment::new(config, environment())
}

/// What a config names and a new machine need not have: nothing of it is needed to read.
fn leave_out_what_is_gone(config: &mut Config) {
    config.env_file = config.env_file.take().filter(|path| path.exists());
    let has_env_file = config.env_file.is_some();
    let encryption = &mut config.encryption;
    encryption.recipients.clear();
    encryption.secret_keys.retain(|path| path.exists());
    encryption.trusted_signers.retain(|path| path.exists());
    encryption.signing_key = encryption.signing_key.take().filter(|path| path.exists());
    let is_there = |value: &Value| match value {
        Value::File(from) => from.file.exists(),
        Value::Env(from) => has_env_file || environment().get(&from.env).is_some(),
        Value::Literal(_) | Value::Command(_) => true,
    };
    encryption.passphrase = encryption.passphrase.take().filter(is_there);
    encryption.secret_key_passphrase = encryption.secret_key_passphrase.take().filter(is_there);
}

/// The deployment for copying, and the names of the two storages in it.
///
/// # Errors
/// When flags or config are wrong.
pub fn for_copying(between: &Between, common: &Common) -> Result<(Deployment, [String; 2])> {
    let is_url = |text: &str| text.contains(":/");
    let mut config = match find_config(common.config.as_deref(), &environment()) {
        None if is_url(&between.from) && is_url(&between.to) => Config::default(),
        _ => config(common)?.1,
    };
    let mut name = |text: &str, role: &str| {
        if !is_url(text) {
            return Ok(text.to_owned());
        }
        config.storage.insert(role.to_owned(), storage_from_flag(text)?);
        Ok::<_, Error>(role.to_owned())
    };
    // Names that a config can't sensibly have, so that none of its storages is replaced.
    let names = [name(&between.from, "--from")?, name(&between.to, "--to")?];
    Ok((deployment(config, common)?, names))
}

/// The deployment for a plain file: a config is welcome but not needed.
///
/// # Errors
/// When flags or config are wrong.
pub fn for_file(from: &From, common: &Common) -> Result<Deployment> {
    let named = find_config(common.config.as_deref(), &environment());
    let mut config = match named {
        Some(path) => Config::read(&path)?,
        None => Config::default(),
    };
    add_keys(&mut config.encryption, &from.keys);
    deployment(config, common)
}

fn add_keys(encryption: &mut EncryptionConfig, keys: &KeyFiles) {
    if let Some(path) = &keys.passphrase_file {
        encryption.passphrase = Some(file_value(path));
    }
    if let Some(path) = &keys.secret_key_passphrase_file {
        encryption.secret_key_passphrase = Some(file_value(path));
    }
    encryption.secret_keys.extend(keys.secret_keys.iter().cloned());
}

fn file_value(path: &Path) -> Value {
    Value::File(FromFile { file: path.to_owned() })
}

/// Storages from URLs; the scheme names a single one, a number tells several apart.
///
/// # Errors
/// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) for one with a password.
fn storages(urls: &[String]) -> Result<BTreeMap<String, StorageConfig>> {
    let name = |index: usize, url: &str| match (urls.len(), url.split_once(':')) {
        (1, Some(("file", _))) => "local".to_owned(),
        (1, Some((scheme, _))) => scheme.to_owned(),
        _ => format!("storage-{}", index + 1),
    };
    let named = urls.iter().enumerate();
    named.map(|(i, url)| Ok((name(i, url), storage_from_flag(url)?))).collect()
}

/// A storage from the command line. One with a password is refused: every user of this machine
/// could read it with `ps`.
///
/// # Errors
/// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) for such a URL.
fn storage_from_flag(url: &str) -> Result<StorageConfig> {
    let authority = url.split_once("://").and_then(|(_, rest)| rest.split('/').next());
    let user = authority.and_then(|authority| authority.rsplit_once('@')).map(|(user, _)| user);
    if user.is_some_and(|user| user.contains(':')) {
        return Err(Error::usage(
            "flags",
            "a password on the command line is seen by everyone with `ps`",
        )
        .next_step(
            "use a key or an agent, or write a config with `secrets`; then change the password",
        ));
    }
    Ok(StorageConfig::new(url))
}

/// A database URL from the command line. One with a password is refused: every user of this
/// machine could read it with `ps`.
///
/// # Errors
/// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) for such a URL.
pub fn url_value(text: &str) -> Result<Value> {
    if let Some(name) = text.strip_prefix("env:") {
        return Ok(Value::Env(FromEnv { env: name.to_owned() }));
    }
    if let Some(path) = text.strip_prefix("file:") {
        return Ok(Value::File(FromFile { file: PathBuf::from(path) }));
    }
    let connection: backup_pg::Connection = text.parse()?;
    if connection.brings_secrets() {
        return Err(Error::usage("flags", "a password on the command line is seen by everyone with `ps`")
            .next_step("put the URL into a variable and write env:NAME, or use ~/.pgpass; then change the password"));
    }
    Ok(Value::Literal(text.to_owned()))
}
