//! What a client program's stderr means: the cause in one line, and what to do about it.

mod causes;
mod scrub;
#[cfg(test)]
mod tests;

use backup_core::{Error, ErrorKind};

use crate::Connection;
use causes::{CAUSES, Cause};
pub(crate) use scrub::Scrubber;

/// Longest piece of stderr that becomes an error's source, in characters.
const QUOTED_CHARS: usize = 2000;

/// Turns what a client program said into an error of `stage`. `stderr` is already scrubbed.
pub(crate) fn explain(stage: &'static str, stderr: &str, connection: &Connection) -> Error {
    let known = CAUSES.iter().find(|cause| cause.fits(stderr));
    let (kind, message, advice) = match known {
        Some(cause) => (cause.kind, cause.message(stderr), cause.next_step),
        None => (ErrorKind::Failed, unknown(stderr), "look into the server's log for the details"),
    };
    let mut quoted: String = stderr.trim().chars().take(QUOTED_CHARS).collect();
    if quoted.len() < stderr.trim().len() {
        quoted.push_str(" [...]");
    }
    let advice = advice
        .replace("{server}", &connection.label())
        .replace("{filed}", &connection.filed_parameters().join(", "));
    Error::new(kind, stage, message).next_step(advice).caused_by(quoted)
}

impl Cause {
    fn fits(&self, stderr: &str) -> bool {
        self.all_of.iter().all(|needle| stderr.contains(needle))
    }

    /// Our words, then the program's own sentence: people search for it.
    fn message(&self, stderr: &str) -> String {
        let line = stderr.lines().find(|line| line.contains(self.all_of[0])).unwrap_or("");
        match self.meaning {
            "" => sentence(line).to_owned(),
            meaning => format!("{meaning} ({})", sentence(line)),
        }
    }
}

/// The first line that says "error", else the first line.
fn unknown(stderr: &str) -> String {
    let telling = |line: &&str| {
        let line = line.to_ascii_lowercase();
        ["error:", "fatal:", "panic:"].iter().any(|word| line.contains(word))
    };
    let line = stderr.lines().find(telling).or_else(|| stderr.lines().find(|l| !l.is_empty()));
    sentence(line.unwrap_or("failed without a message")).to_owned()
}

/// `pg_dump: error: query failed: ERROR:  permission denied` -> `permission denied`.
fn sentence(line: &str) -> &str {
    let marks = [
        "FATAL:  ",
        "ERROR:  ",
        "PANIC:  ",
        "Error message from server: ",
        "error: ",
        "detail: ",
        "psql: ",
    ];
    marks
        .iter()
        .find_map(|mark| line.rfind(mark).map(|at| &line[at + mark.len()..]))
        .unwrap_or(line)
        .trim()
}
