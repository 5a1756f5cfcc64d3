//! Schedules as units of systemd: a timer and a service for each task.

use std::path::{Component, Path, PathBuf};

use backup_core::{Error, Result};

use super::{STOP_TIMEOUT, Task, Work, install, tasks};
use crate::config::{Config, Value};

/// The folder of state where the configuration names none; systemd makes it for the user.
const STATE_DIRECTORY: &str = "marb-backup";
/// Variables for the services, when an administrator writes any.
const ENVIRONMENT_FILE: &str = "/etc/marb-backup/environment";
/// Capabilities of a service that runs as root: it reads and writes others' files; a drill
/// starts its throwaway server as another user.
const ROOT_CAPABILITIES: &str =
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_KILL CAP_SETGID CAP_SETUID";

/// Where and as whom the program is to run.
#[derive(Debug, Clone)]
pub struct Site {
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Absolute path of the configuration.
    pub config: PathBuf,
    /// User that runs it; root when absent.
    pub user: Option<String>,
    /// Name of the host's time zone, where known.
    pub local_zone: Option<String>,
}

impl Site {
    /// The command that does a task.
    ///
    /// # Errors
    /// When a path is no text, which no unit or crontab can hold.
    pub(super) fn command(&self, task: &Task) -> Result<Vec<String>> {
        let text = |path: &Path| {
            let text = path.to_str().filter(|text| !text.contains(char::is_control));
            text.map(str::to_owned).ok_or_else(|| {
                Error::usage("schedule", format!("{} can't be written down", path.display()))
                    .next_step("use a path of letters and digits")
            })
        };
        let mut words = vec![
            text(&self.program)?,
            "--config".to_owned(),
            text(&self.config)?,
            "--quiet".to_owned(),
        ];
        words.push(task.work.verb().to_owned());
        match task.work {
            Work::Backup => words.push(task.job.clone()),
            Work::Verify | Work::Drill => {
                words.extend(["latest", "--job", &task.job].map(str::to_owned));
            }
        }
        Ok(words)
    }
}

/// The units, by file name and text.
///
/// # Errors
/// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) for a path that no unit can hold.
pub fn units(config: &Config, site: &Site) -> Result<Vec<(String, String)>> {
    let mut units = Vec::new();
    for task in tasks(config) {
        let name = format!("marb-backup-{}-{}", task.work.verb(), task.job);
        units.push((format!("{name}.service"), service(config, &task, site)?));
        units.push((format!("{name}.timer"), timer(config, &task, site)));
    }
    Ok(units)
}

fn timer(config: &Config, task: &Task, site: &Site) -> String {
    let zone = config.schedules.time_zone.as_ref().map(|zone| format!(" {zone}"));
    let delay =
        config.schedules.random_delay.map(|d| format!("RandomizedDelaySec={}\n", d.as_secs()));
    format!(
        "{header}\n[Unit]\nDescription=marb-backup: {task}, {when}\n\n[Timer]\nOnCalendar={calendar}{zone}\n\
         Persistent=true\nAccuracySec=1s\n{delay}\n[Install]\nWantedBy=timers.target\n",
        header = install::header(&site.config),
        when = task.calendar,
        calendar = task.calendar.to_systemd(),
        zone = zone.unwrap_or_default(),
        delay = delay.unwrap_or_default(),
    )
}

fn service(config: &Config, task: &Task, site: &Site) -> Result<String> {
    let mut text = format!(
        "{}\n[Unit]\nDescription=marb-backup: {task}\nWants=network-online.target\n\
         After=network-online.target postgresql.service\n",
        install::header(&site.config)
    );
    let mut add = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    if let Some(unit) = &config.schedules.on_failure {
        add(format!("OnFailure={unit}"));
    }
    let words = site.command(task)?;
    let words: Vec<String> = words.iter().map(|word| quoted(word).replace('$', "$$")).collect();
    add(format!("\n[Service]\nType=oneshot\nExecStart={}", words.join(" ")));
    let user = site.user.as_deref().filter(|user| *user != "root");
    if let Some(user) = user {
        add(format!("User={}", escaped(user)));
    }
    // The program stops itself at its timeout and cleans up; this is for when it can't.
    add(format!("TimeoutStartSec={}", task.timeout.saturating_add(STOP_TIMEOUT).as_secs()));
    add(format!("TimeoutStopSec={}", STOP_TIMEOUT.as_secs()));
    add(format!("EnvironmentFile=-{ENVIRONMENT_FILE}"));
    let credentials = secret_files(config);
    if !credentials.is_empty() {
        add("\n# Read by systemd as root, and shown to this service only.".to_owned());
    }
    for path in &credentials {
        add(format!("LoadCredential={}:{}", credential_name(path), escaped(&straight(path)?)));
    }
    add("\nNice=10\nIOSchedulingClass=idle".to_owned());
    let writable = writable(config)?;
    if config.state_dir.is_none() {
        add(format!("StateDirectory={STATE_DIRECTORY}\nStateDirectoryMode=0700"));
        add("Environment=XDG_STATE_HOME=/var/lib".to_owned());
    }
    for path in &writable {
        add(format!("ReadWritePaths={}", quoted(&straight(path)?)));
    }
    let in_tmp =
        writable.iter().any(|path| path.starts_with("/tmp") || path.starts_with("/var/tmp"));
    add(format!("PrivateTmp={}", if in_tmp { "no" } else { "yes" }));
    let capabilities = if user.is_some() { "" } else { ROOT_CAPABILITIES };
    add(format!("CapabilityBoundingSet={capabilities}"));
    // PostgreSQL compiles queries while they run: a drill's server must be allowed to.
    let is_drill = task.work == Work::Drill;
    add(format!("MemoryDenyWriteExecute={}", if is_drill { "no" } else { "yes" }));
    text.push_str(HARDENING);
    Ok(text)
}

const HARDENING: &str = "\
UMask=0077
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
PrivateDevices=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
";

/// Folders that the program writes to.
fn writable(config: &Config) -> Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = config.state_dir.iter().cloned().collect();
    for storage in config.storage.values() {
        if let Some(path) = storage.url.strip_prefix("file://") {
            paths.push(PathBuf::from(path));
        }
    }
    paths.extend(config.drill.folder.iter().cloned());
    paths.sort();
    paths.dedup();
    match paths.iter().find(|path| !path.is_absolute()) {
        Some(path) => {
            Err(Error::usage("schedule", format!("{} is no absolute path", path.display()))
                .next_step("write it from / on: systemd does not know where it begins"))
        }
        None => Ok(paths),
    }
}

/// Files with secrets that a configuration names, which another user may not be able to read.
fn secret_files(config: &Config) -> Vec<PathBuf> {
    let encryption = &config.encryption;
    let mut values: Vec<&Value> = config.secrets().collect();
    values.extend(config.job.values().filter_map(|job| job.postgres.as_ref()).map(|p| &p.url));
    values.extend(config.drill.server.as_ref().map(|server| &server.url));
    let mut files: Vec<PathBuf> = values
        .into_iter()
        .filter_map(|value| match value {
            Value::File(from) => Some(from.file.clone()),
            _ => None,
        })
        .collect();
    files.extend(config.env_file.iter().cloned());
    files.extend(encryption.signing_key.iter().cloned());
    files.extend(encryption.secret_keys.iter().cloned());
    files.retain(|path| path.is_absolute());
    files.sort();
    files.dedup();
    files
}

/// The name of a file's credential. The program finds the file's content under it in
/// `$CREDENTIALS_DIRECTORY`, and reads it instead of the file. No two paths share one.
pub fn credential_name(path: &Path) -> String {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;
    let mut name = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' => name.push('-'),
            b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => name.push(char::from(*byte)),
            other => drop(write!(name, "_{other:02x}")),
        }
    }
    name
}

/// A path as text. systemd passes over one with `..`, and only says so in its log.
fn straight(path: &Path) -> Result<String> {
    let climbs = path.components().any(|part| part == Component::ParentDir);
    let text = path.to_str().filter(|text| !climbs && !text.contains(char::is_control));
    text.map(str::to_owned).ok_or_else(|| {
        Error::usage("schedule", format!("{} can't be written into a unit", path.display()))
            .next_step("use a path of letters and digits, without `..`")
    })
}

/// Without specifiers of systemd.
fn escaped(text: &str) -> String {
    text.replace('%', "%%")
}

/// A word of a command or a path, as systemd unquotes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=+:,@".contains(c);
    let word = escaped(word);
    if word.chars().all(plain) {
        return word;
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}
