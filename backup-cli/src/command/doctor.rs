//! `doctor`: every prerequisite, with the fix for each that is missing.

use std::io::BufRead;

use backup_cli::{Condition, Deployment, Diagnosis, Finding};
use backup_core::{Error, Result};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::args::DoctorArgs;
use super::output::{self, Style};
use super::{Session, setup};

/// Examines, or takes the confirmation that the key is kept elsewhere.
///
/// # Errors
/// When there is no configuration, or the typed key is another.
pub async fn run(args: DoctorArgs, session: &Session) -> Result<u8> {
    let (_, config) = setup::config(&session.common)?;
    let deployment = Deployment::new(config, setup::environment())?;
    if args.confirm_key {
        return session.context.cancel.guard(confirm(&deployment)).await;
    }
    let diagnosis = session
        .context
        .cancel
        .guard(async { Ok(deployment.diagnose(&session.context).await) })
        .await?;
    if session.common.json {
        output::print_json(&as_json(&diagnosis))?;
    } else {
        output::print(&as_text(&diagnosis))?;
    }
    Ok(if diagnosis.worst() == Condition::Bad { 1 } else { 0 })
}

async fn confirm(deployment: &Deployment) -> Result<u8> {
    let wanted = deployment.key_to_confirm().await?;
    eprint!("Type {wanted}, from the copy that is kept off this host: ");
    let typed = {
        // Restored when this future is dropped, by Ctrl-C too.
        let _hidden = HiddenInput::start();
        tokio::task::spawn_blocking(read_line).await.unwrap_or_else(|_| Err(nothing_typed()))?
    };
    deployment.confirm_key(&typed).await?;
    output::print("Confirmed. `doctor` stays quiet about it until the key changes.\n")?;
    Ok(0)
}

fn nothing_typed() -> Error {
    Error::usage("doctor", "nothing was typed")
}

fn read_line() -> Result<SecretString> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|e| nothing_typed().caused_by(e))?;
    Ok(SecretString::from(line.trim_end_matches('\n').to_owned()))
}

/// Keeps the terminal from showing what is typed, as long as it lives.
struct HiddenInput {
    before: rustix::termios::Termios,
}

impl HiddenInput {
    fn start() -> Option<Self> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let terminal = std::io::stdin();
        let before = tcgetattr(&terminal).ok()?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&terminal, OptionalActions::Now, &hidden).ok()?;
        Some(Self { before })
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        let now = rustix::termios::OptionalActions::Now;
        let _ = rustix::termios::tcsetattr(std::io::stdin(), now, &self.before);
        eprintln!();
    }
}

fn as_text(diagnosis: &Diagnosis) -> String {
    let style = Style::for_stdout();
    let mut text = String::new();
    let width = diagnosis.findings.iter().map(|f| f.subject.chars().count()).max().unwrap_or(0);
    for Finding { subject, condition, detail, fix } in &diagnosis.findings {
        let mark = match condition {
            Condition::Good => style.green("ok     "),
            Condition::Warning => style.yellow("warning"),
            Condition::Bad => style.red("BAD    "),
        };
        text.push_str(&format!("{mark}  {subject:<width$}  {detail}\n"));
        if let Some(fix) = fix {
            text.push_str(&format!("{:width$}           fix: {fix}\n", ""));
        }
    }
    text
}

fn as_json(diagnosis: &Diagnosis) -> Value {
    let condition = |condition: Condition| match condition {
        Condition::Good => "good",
        Condition::Warning => "warning",
        Condition::Bad => "bad",
    };
    let findings: Vec<Value> = diagnosis
        .findings
        .iter()
        .map(|f| {
            json!({ "subject": f.subject, "condition": condition(f.condition), "detail": f.detail, "fix": f.fix })
        })
        .collect();
    json!({ "condition": condition(diagnosis.worst()), "findings": findings })
}
