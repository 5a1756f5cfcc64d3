//! Schedules through the program: what it writes is read by systemd and cron themselves, and the
//! daemon does what was missed.

mod daemon;
mod folders;
mod rounds;
mod table;
mod units;

use std::path::Path;

use tokio::process::Command;

use crate::support::{Finished, Scratch, finish};

/// A schedule of every form.
const FORMS: [&str; 11] = [
    "02:00",
    "2,14:30",
    "*:15",
    "*:0/20",
    "0/6:30",
    "Sun 03:00",
    "Mon,Thu 03:00",
    "Mon..Fri 02:05",
    "sat,Mon 14,2:5",
    "monthly 1 04:00",
    "monthly 1,15 04:00",
];

/// A job of files with a schedule.
fn files_job(name: &str, schedule: &str) -> String {
    format!(
        "[job.{name}]\nfiles = {{ paths = ['/etc/hostname'] }}\nstorages = ['local']\n\
         schedule = '{schedule}'\n"
    )
}

/// A scratch with folders for what is installed, whose config has a job `database` and a job
/// `files-N` for each form, and verifies and drills them.
fn planned() -> Scratch {
    let scratch = Scratch::with_job("postgresql:///claims", "schedule = '01:00'\ntimeout = '3h'");
    let jobs = FORMS.iter().enumerate();
    let jobs: String = jobs.map(|(n, form)| files_job(&format!("files-{n}"), form)).collect();
    let schedules = "[schedules]\nverify = 'Sun 05:00'\ndrill = 'monthly 1 06:00'\n\
                     random_delay = '10m'\non_failure = 'alert@%n.service'\n";
    scratch.edit_config("[encryption]", &format!("{schedules}{jobs}[encryption]"));
    for folder in ["units", "cron.d", "backups"] {
        std::fs::create_dir(scratch.path(folder)).unwrap();
    }
    scratch
}

/// Jobs of [`planned`], and what is done for them: backups, verifications, one drill.
const TASKS: usize = (FORMS.len() + 1) * 2 + 1;

/// `schedule KIND` for the folders of the scratch.
async fn schedule(scratch: &Scratch, kind: &str, more: &[&str]) -> Finished {
    let (units, tables) = (scratch.path("units"), scratch.path("cron.d"));
    let mut command = scratch.command(&["schedule", kind]);
    command.arg("--system-dir").arg(units).arg("--cron-dir").arg(tables).args(more);
    finish(command).await
}

/// The paths in a folder, in order.
fn paths_in(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}
