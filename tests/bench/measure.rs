//! Wall, CPU and peak memory of one command with all its children.
//!
//! The bench runs itself once per measurement, so that "all children this process waited for"
//! means exactly one command. The server's own CPU is not in it: it is the same for everybody.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::json;

use crate::Outcome;
use crate::subjects::Subject;

/// First argument of the measuring child.
pub const FLAG: &str = "--measure";

/// What one run took.
#[derive(Debug, Clone)]
pub struct Figures {
    /// Seconds from start to end.
    pub wall: f64,
    /// Seconds of CPU, user and system.
    pub cpu: f64,
    /// Resident memory of its largest process.
    pub peak_megabytes: f64,
    /// What it wrote.
    pub output_megabytes: f64,
}

/// Runs a subject once.
pub fn measure(subject: &Subject, folder: &Path) -> Outcome<Figures> {
    let _ = std::fs::remove_dir_all(&subject.output);
    std::fs::create_dir_all(&subject.output)?;
    // What the previous one wrote must not be flushed on this one's time.
    nix::unistd::sync();
    let output = Command::new(std::env::current_exe()?)
        .args([FLAG, &subject.script])
        .envs(subject.environment.iter().cloned())
        .current_dir(folder)
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("({}) ended with {}", subject.letter, output.status).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let report: serde_json::Value = serde_json::from_str(text.lines().last().unwrap_or_default())?;
    let number = |name: &str| report[name].as_f64().ok_or_else(|| format!("no {name}"));
    Ok(Figures {
        wall: number("wall")?,
        cpu: number("cpu")?,
        peak_megabytes: number("peak_kilobytes")? / 1000.0,
        output_megabytes: folder_bytes(&subject.output)? / 1e6,
    })
}

/// The measuring child: runs the script and prints what it took.
pub fn report_on(arguments: &[String]) -> Outcome<()> {
    let script = arguments.first().ok_or("no script")?;
    let started = Instant::now();
    let status =
        Command::new("bash").args(["-ec", &format!("set -o pipefail; {script}")]).status()?;
    let wall = started.elapsed().as_secs_f64();
    if !status.success() {
        return Err(format!("code {:?}, signal {:?}", status.code(), status.signal()).into());
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: nix::sys::time::TimeVal| {
        let (seconds, micros) = (time.tv_sec(), time.tv_usec());
        std::time::Duration::new(seconds.unsigned_abs(), micros.unsigned_abs() as u32 * 1000)
            .as_secs_f64()
    };
    let cpu = seconds(usage.user_time()) + seconds(usage.system_time());
    println!("{}", json!({ "wall": wall, "cpu": cpu, "peak_kilobytes": usage.max_rss() }));
    Ok(())
}

fn folder_bytes(folder: &Path) -> Outcome<f64> {
    let mut sum = 0.0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() { folder_bytes(&entry.path())? } else { metadata.len() as f64 };
    }
    Ok(sum)
}
