//! The cluster's roles and tablespaces as a stream: pg_dumpall's globals.

use std::process::Stdio;

use async_trait::async_trait;
use backup_core::{Error, Findings, Inventory, Result, Source, SourceStream};
use bytes::Bytes;

use crate::client::ClientChild;
use crate::dump::STALL_TIMEOUT;
use crate::globals::Globals;
use crate::output::Output;
use crate::{ClientTools, Connection, Server};

const STAGE: &str = "pg_dumpall";

/// The largest text that is taken, in bytes: it is read as a whole at the end. A role takes
/// some 200.
const MAX_GLOBALS_BYTES: usize = 64 * 1024 * 1024;

/// The comment pg_dumpall ends with, and how near the end it stands, in bytes.
const LAST_LINE: &[u8] = b"-- PostgreSQL database cluster dump complete";
const LAST_LINE_WITHIN: usize = 4096;

/// The note for a part without role passwords.
pub const NO_ROLE_PASSWORDS: &str = "role passwords are not in this backup: the connection's role may not read them. After a restore into a new cluster, set a password for every role that logs in with one";

/// Roles, memberships, role settings and tablespaces, as `pg_dumpall --globals-only` writes
/// them.
///
/// Without the right to read stored passwords, as on managed servers, it takes the rest
/// (`--no-role-passwords`) and says so in its findings.
#[derive(Debug, Clone)]
pub struct GlobalsDump {
    tools: ClientTools,
    connection: Connection,
    database: String,
    passwords: bool,
}

impl GlobalsDump {
    /// Dumps the globals of the cluster that `server` was connected to.
    pub fn new(server: &Server) -> Self {
        Self {
            tools: server.tools().clone(),
            connection: server.connection().clone(),
            database: server.database().to_owned(),
            passwords: server.reads_role_passwords(),
        }
    }

    fn start(&self) -> Result<GlobalsStream> {
        let mut command = self.connection.command(&self.tools.pg_dumpall())?;
        command.args(["--globals-only", "--no-password"]);
        // It ignores the connection's database, and this role may not be let into `postgres`.
        command.arg(format!("--database={}", self.database));
        if !self.passwords {
            command.arg("--no-role-passwords");
        }
        let mut child = command.spawn(STAGE, Stdio::null())?;
        let stdout = child
            .take_stdout()
            .ok_or_else(|| Error::failed(STAGE, "was started without its output"))?;
        Ok(GlobalsStream {
            child,
            output: Output::new(stdout, STAGE, STALL_TIMEOUT)?,
            text: Vec::new(),
            passwords: self.passwords,
            findings: Findings::default(),
        })
    }
}

#[async_trait]
impl Source for GlobalsDump {
    fn name(&self) -> &str {
        STAGE
    }

    async fn open(&self) -> Result<Box<dyn SourceStream>> {
        Ok(Box::new(self.start()?))
    }
}

/// A running pg_dumpall.
struct GlobalsStream {
    child: ClientChild,
    output: Output,
    text: Vec<u8>,
    passwords: bool,
    findings: Findings,
}

#[async_trait]
impl SourceStream for GlobalsStream {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        let Some(chunk) = self.output.next_chunk().await? else {
            self.child.success().await?;
            self.findings = findings(&self.text, self.passwords)?;
            return Ok(None);
        };
        if self.text.len() + chunk.len() > MAX_GLOBALS_BYTES {
            return Err(Error::failed(
                STAGE,
                format!("the roles take more than {MAX_GLOBALS_BYTES} bytes"),
            )
            .next_step("look for what created so many roles: select count(*) from pg_roles"));
        }
        self.text.extend_from_slice(&chunk);
        Ok(Some(chunk))
    }

    fn findings(&mut self) -> Findings {
        std::mem::take(&mut self.findings)
    }
}

/// Checks that the text is whole, and reads the roles out of it.
fn findings(text: &[u8], passwords: bool) -> Result<Findings> {
    let tail = &text[text.len().saturating_sub(LAST_LINE_WITHIN)..];
    if memchr::memmem::find(tail, LAST_LINE).is_none() {
        return Err(Error::failed(STAGE, "ended well, but its last line is missing").next_step(
            "run it again; if it repeats, the client tools are broken: install them anew",
        ));
    }
    let text = String::from_utf8_lossy(text);
    let mut roles: Vec<String> = Globals::read(&text)?.role_names().map(str::to_owned).collect();
    roles.sort();
    Ok(Findings {
        inventory: Inventory { roles, ..Inventory::default() },
        archive_version: None,
        notes: if passwords { Vec::new() } else { vec![NO_ROLE_PASSWORDS.to_owned()] },
    })
}

#[cfg(test)]
mod tests;
