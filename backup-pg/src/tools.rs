//! Finds PostgreSQL's client programs and picks those that suit a server.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use backup_core::{Error, Result};
use tokio::process::Command;
use tokio::time::timeout;

const STAGE: &str = "client tools";

/// The oldest server that is supported.
pub const OLDEST_SERVER: u32 = 14;

/// How long `pg_dump --version` may take.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// What a folder must hold to count as a set of client tools.
const PROGRAMS: [&str; 4] = ["pg_dump", "pg_dumpall", "pg_restore", "psql"];

/// Debian's dispatcher in /usr/bin: which version it runs depends on the user's settings, and
/// the programs themselves are found anyway.
const DISPATCHER: &str = "pg_wrapper";

/// Where packages put the tools: a parent folder, the start of the version's folder in it, and
/// what follows it.
const PACKAGED: &[(&str, &str, &str)] = &[
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/local", "pgsql", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/opt/homebrew/opt", "libpq", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "libpq", "bin"),
    ("/opt/bitnami", "postgresql", "bin"),
    ("/Library/PostgreSQL", "", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

/// Where to look for the client tools. The library reads no environment: `path` is the value
/// of `PATH` where that shall count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolSearch {
    /// The folder the configuration names. When given, nothing else is looked at.
    pub configured: Option<PathBuf>,
    /// A `PATH`, colon-separated.
    pub path: Option<OsString>,
    /// More folders, looked at before the packages' usual ones.
    pub extra: Vec<PathBuf>,
}

impl ToolSearch {
    /// Every complete set of client tools, the newest first.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](backup_core::ErrorKind::Refused) when the configured folder holds
    /// no complete, working set. Other folders that don't are passed over.
    pub async fn installed(&self) -> Result<Vec<ClientTools>> {
        if let Some(configured) = &self.configured {
            return Ok(vec![ClientTools::in_folder(configured).await?]);
        }
        let mut found = Vec::new();
        for folder in self.folders() {
            match ClientTools::in_folder(&folder).await {
                Ok(tools) => found.push(tools),
                Err(error) => tracing::debug!(folder = %folder.display(), %error, "passed over"),
            }
        }
        // Stable: of equal versions the one found first stays first.
        found.sort_by(|a, b| b.version.cmp(&a.version));
        Ok(found)
    }

    /// The newest set there is.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](backup_core::ErrorKind::Refused) when there is none.
    pub async fn newest(&self) -> Result<ClientTools> {
        newest_of(&self.installed().await?).cloned()
    }

    /// The set for a server of this major version: the same major, else the next higher.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](backup_core::ErrorKind::Refused) when the server is older than
    /// [`OLDEST_SERVER`] or all tools are older than the server.
    pub async fn for_server(&self, major: u32) -> Result<ClientTools> {
        self.pick(&self.installed().await?, major).cloned()
    }

    /// The rule of [`ToolSearch::for_server`]; `installed` is sorted newest first.
    pub(crate) fn pick<'a>(
        &self,
        installed: &'a [ClientTools],
        server: u32,
    ) -> Result<&'a ClientTools> {
        let newest = newest_of(installed)?;
        if server < OLDEST_SERVER {
            return Err(Error::refused(
                STAGE,
                format!("the server is PostgreSQL {server}; versions from {OLDEST_SERVER} on are supported"),
            )
            .next_step("upgrade the server: its version gets no more security fixes"));
        }
        let majors = installed.iter().map(|tools| tools.version.major);
        // The first of the lowest major that suits is its newest minor release.
        majors
            .filter(|major| *major >= server)
            .min()
            .and_then(|major| installed.iter().find(|tools| tools.version.major == major))
            .ok_or_else(|| self.too_old(newest, server))
    }

    fn too_old(&self, newest: &ClientTools, major: u32) -> Error {
        let version = &newest.version;
        let advice = match &self.configured {
            Some(_) => "name a newer folder in the configuration, or leave the setting out: all installed versions are searched then".to_owned(),
            None => format!(
                "install version {major}: Debian, Ubuntu: apt-get install postgresql-common && /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y && apt-get install postgresql-client-{major}; RHEL, Fedora: dnf install postgresql{major} from download.postgresql.org; macOS: brew install postgresql@{major}"
            ),
        };
        Error::refused(
            STAGE,
            format!(
                "the server is PostgreSQL {major}, the newest client tools here are {version} ({}): an older pg_dump can't dump a newer server",
                newest.folder.display()
            ),
        )
        .next_step(advice)
    }

    /// Existing folders to look at, in order, each once, links followed.
    fn folders(&self) -> Vec<PathBuf> {
        let on_path = self.path.iter().flat_map(std::env::split_paths).collect::<Vec<_>>();
        // A link /usr/local/bin/pg_dump leads to the folder with the whole set.
        let behind_links = on_path
            .iter()
            .filter_map(|folder| {
                fs::canonicalize(folder.join("pg_dump")).ok()?.parent().map(Into::into)
            })
            .collect::<Vec<PathBuf>>();
        let all =
            on_path.into_iter().chain(behind_links).chain(self.extra.clone()).chain(packaged());
        let mut seen = BTreeSet::new();
        all.filter_map(|folder| fs::canonicalize(folder).ok())
            .filter(|folder| seen.insert(folder.clone()))
            .collect()
    }
}

/// The packages' folders that exist on this machine.
fn packaged() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for (parent, start, rest) in PACKAGED {
        let Ok(entries) = fs::read_dir(parent) else { continue };
        let fitting = entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(start))
            .map(|entry| entry.path().join(rest));
        folders.extend(fitting);
    }
    folders
}

/// The set whose psql asks a server for its version.
pub(crate) fn newest_of(installed: &[ClientTools]) -> Result<&ClientTools> {
    installed.first().ok_or_else(|| {
        Error::refused(STAGE, "no PostgreSQL client tools were found").next_step(
            "install them (Debian, Ubuntu: apt-get install postgresql-client), or name their folder in the configuration",
        )
    })
}

/// One installed set of client tools: pg_dump, pg_dumpall, pg_restore and psql of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTools {
    folder: PathBuf,
    version: Version,
}

impl ClientTools {
    /// The set in this folder.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](backup_core::ErrorKind::Refused) when a program is missing, is
    /// only Debian's dispatcher, or doesn't tell its version.
    pub async fn in_folder(folder: &Path) -> Result<Self> {
        let refused = |what: String| {
            Error::refused(STAGE, format!("{}: {what}", folder.display())).next_step(
                "name a folder with pg_dump, pg_dumpall, pg_restore and psql, such as /usr/lib/postgresql/17/bin",
            )
        };
        for program in PROGRAMS {
            let path = fs::canonicalize(folder.join(program))
                .map_err(|e| refused(format!("{program} is missing")).caused_by(e))?;
            if path.file_name().is_some_and(|name| name == DISPATCHER) {
                return Err(refused(format!("{program} is only Debian's dispatcher")));
            }
        }
        let program = folder.join("pg_dump");
        let age = fs::metadata(&program).and_then(|file| file.modified()).ok();
        let known = |told: &[Told]| {
            let found = told.iter().find(|told| told.program == program && told.age == age);
            found.map(|told| told.version.clone())
        };
        if let Some(version) = age.and_then(|_| known(&told_versions())) {
            return Ok(Self { folder: folder.to_owned(), version });
        }
        let output = Command::new(&program)
            .arg("--version")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = timeout(VERSION_TIMEOUT, output)
            .await
            .map_err(|_| refused("pg_dump --version did not answer".to_owned()))?
            .map_err(|e| refused("pg_dump can't be run".to_owned()).caused_by(e))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = Version::from_program(&text)
            .filter(|_| output.status.success())
            .ok_or_else(|| refused("pg_dump does not tell its version".to_owned()))?;
        let mut told = told_versions();
        told.retain(|told| told.program != program);
        told.push(Told { program, age, version: version.clone() });
        drop(told);
        Ok(Self { folder: folder.to_owned(), version })
    }

    /// The folder they are in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Their version.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Path of pg_dump.
    pub fn pg_dump(&self) -> PathBuf {
        self.folder.join("pg_dump")
    }

    /// Path of pg_dumpall.
    pub fn pg_dumpall(&self) -> PathBuf {
        self.folder.join("pg_dumpall")
    }

    /// Path of pg_restore.
    pub fn pg_restore(&self) -> PathBuf {
        self.folder.join("pg_restore")
    }

    /// Path of psql.
    pub fn psql(&self) -> PathBuf {
        self.folder.join("psql")
    }
}

/// What a program said of its version. It is asked once, and again when it was replaced.
struct Told {
    program: PathBuf,
    /// When it was last written.
    age: Option<SystemTime>,
    version: Version,
}

/// What was told so far in this process.
fn told_versions() -> MutexGuard<'static, Vec<Told>> {
    static TOLD: Mutex<Vec<Told>> = Mutex::new(Vec::new());
    TOLD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next step of whoever lacks client tools of this major version.
pub(crate) fn how_to_install(major: u32) -> String {
    format!(
        "install the client tools of PostgreSQL {major} or newer (Debian: apt-get install \
         postgresql-client-{major} from apt.postgresql.org)"
    )
}

/// A PostgreSQL version, ordered by age: `15.18`, `17beta1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Major version, `15`.
    pub major: u32,
    /// Minor release; `None` before the first one (`17beta1`).
    pub minor: Option<u32>,
    text: String,
}

impl Version {
    /// Reads what a program's `--version` prints:
    /// `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
    pub fn from_program(line: &str) -> Option<Self> {
        Self::parse(line.split_once(") ")?.1)
    }

    /// Reads a version that may be followed by a vendor's own words, as `server_version` is.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.split_whitespace().next()?;
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (major, rest) = text.split_at(end);
        let minor = rest.strip_prefix('.').and_then(|rest| {
            rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok())
        });
        Some(Self { major: major.parse().ok()?, minor, text: text.to_owned() })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
