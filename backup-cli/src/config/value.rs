//! A value that need not stand in the file itself: from the environment, a file, a command.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use backup_core::{Error, Result};
use secrecy::SecretString;
use serde::Deserialize;
use tokio::io::AsyncReadExt;

use super::Environment;

/// Longest time a command may take to print a value.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest value, in bytes.
const MAX_VALUE_BYTES: u64 = 64 * 1024;

/// Where a value comes from.
#[derive(Clone, Deserialize)]
#[serde(try_from = "Written")]
pub enum Value {
    /// `"text"`.
    Literal(String),
    /// `{ env = "NAME" }`.
    Env(FromEnv),
    /// `{ file = "/path" }`.
    File(FromFile),
    /// `{ command = ["pass", "show", "backup"] }`; run without a shell.
    Command(FromCommand),
}

/// The name of a variable.
#[derive(Clone)]
pub struct FromEnv {
    /// Variable name.
    pub env: String,
}

/// A file whose content is the value.
#[derive(Clone)]
pub struct FromFile {
    /// Path.
    pub file: PathBuf,
}

/// A command whose output is the value.
#[derive(Clone)]
pub struct FromCommand {
    /// Program and arguments.
    pub command: Vec<String>,
}

/// What a value looks like, for who wrote something else.
const FORMS: &str =
    r#"wants "text", { env = "NAME" }, { file = "/path" } or { command = ["program"] }"#;

/// A value as it stands in the file. Serde would take `["text"]` for a struct, too, and so a
/// passphrase for the name of a variable, which messages show.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Table(BTreeMap<String, Item>),
    #[serde(deserialize_with = "anything")]
    Other,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Text(String),
    List(Vec<String>),
    #[serde(deserialize_with = "anything")]
    Other,
}

pub(super) fn anything<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> std::result::Result<(), D::Error> {
    serde::de::IgnoredAny::deserialize(from).map(|_| ())
}

impl TryFrom<Written> for Value {
    type Error = &'static str;

    fn try_from(written: Written) -> std::result::Result<Self, &'static str> {
        let table = match written {
            Written::Text(text) => return Ok(Self::Literal(text)),
            Written::Table(table) if table.len() == 1 => table,
            Written::Table(_) | Written::Other => return Err(FORMS),
        };
        match table.into_iter().next() {
            Some((key, Item::Text(env))) if key == "env" => Ok(Self::Env(FromEnv { env })),
            Some((key, Item::Text(file))) if key == "file" => {
                Ok(Self::File(FromFile { file: file.into() }))
            }
            Some((key, Item::List(command))) if key == "command" => {
                Ok(Self::Command(FromCommand { command }))
            }
            _ => Err(FORMS),
        }
    }
}

impl std::fmt::Debug for Value {
    /// Never shows a literal: it may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Literal(_) => f.write_str("Literal(..)"),
            _ => write!(f, "{}", self.origin()),
        }
    }
}

impl Value {
    /// Where it comes from, in words for a message.
    pub fn origin(&self) -> String {
        match self {
            Value::Literal(_) => "the configuration".to_owned(),
            Value::Env(from) => format!("the variable {}", from.env),
            Value::File(from) => format!("the file {}", from.file.display()),
            Value::Command(from) => {
                format!("the command {}", from.command.first().map_or("", String::as_str))
            }
        }
    }

    /// Fetches the value: the first line of a file or of a command's output, without its end.
    ///
    /// # Errors
    /// When it is absent or empty; the error names where it was looked for.
    pub async fn fetch(
        &self,
        what: &'static str,
        environment: &Environment,
    ) -> Result<SecretString> {
        let text = match self {
            Value::Literal(text) => text.clone(),
            Value::Env(from) => environment.get(&from.env).ok_or_else(|| {
                Error::usage(what, format!("the variable {} is not set", from.env))
                    .next_step(format!("set {} or put it into `env_file`", from.env))
            })?,
            Value::File(from) => read_file(what, &environment.credential(&from.file))?,
            Value::Command(from) => run(what, &from.command).await?,
        };
        // As gpg reads a passphrase file: a carriage return belongs to the line.
        let line = text.split('\n').next().unwrap_or_default();
        if line.is_empty() {
            return Err(Error::usage(what, format!("{} gives nothing", self.origin())));
        }
        Ok(SecretString::from(line.to_owned()))
    }
}

fn read_file(what: &'static str, path: &Path) -> Result<String> {
    use std::io::Read;
    let wrong = |e: std::io::Error| {
        Error::usage(what, format!("the file {} can't be read", path.display()))
            .next_step("correct the path, or let this user read the file")
            .caused_by(e)
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(wrong)?;
    file.take(MAX_VALUE_BYTES).read_to_string(&mut text).map_err(wrong)?;
    Ok(text)
}

async fn run(what: &'static str, argv: &[String]) -> Result<String> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Error::usage(what, "the command is empty"));
    };
    let wrong = |message: String| {
        Error::usage(what, format!("the command {program} {message}"))
            .next_step("run it by hand as the same user")
    };
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| wrong("can't be run".to_owned()).caused_by(e))?;
    let finished = async {
        let mut text = String::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_VALUE_BYTES).read_to_string(&mut text).await?;
        }
        Ok::<_, std::io::Error>((text, child.wait().await?))
    };
    let (text, status) = tokio::time::timeout(COMMAND_TIMEOUT, finished)
        .await
        .map_err(|_| wrong(format!("did not end within {} s", COMMAND_TIMEOUT.as_secs())))?
        .map_err(|e| wrong("failed".to_owned()).caused_by(e))?;
    if status.success() { Ok(text) } else { Err(wrong(format!("ended with {status}"))) }
}
