//! `schedule`: prints, installs and removes what makes jobs run by themselves.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backup_cli::config::Config;
use backup_cli::schedule::{self, Changes, Site};
use backup_core::{Error, Result};
use serde_json::json;

use super::args::{Kind, ScheduleArgs};
use super::{Session, output, setup};

/// The table's name in cron's folder: one with a dot is passed over.
const CRON_FILE: &str = "marb-backup";
/// Is there exactly when systemd is what started this host.
const SYSTEMD_RUNS: &str = "/run/systemd/system";
/// The folder of units that systemd reads.
const SYSTEM_DIR: &str = "/etc/systemd/system";

/// Prints, installs or removes.
///
/// # Errors
/// When the config is wrong or has no schedule, a file is not ours, or systemctl fails.
pub fn run(args: &ScheduleArgs, session: &Session) -> Result<u8> {
    let (path, config) = setup::config(&session.common)?;
    let site = site(&path, args)?;
    if args.remove {
        return remove(args, &site, session);
    }
    let files = files(args, &config, &site)?;
    if !args.install {
        print(&files, session)?;
    } else {
        install(args, &files, &site, session)?;
    }
    warn_of_gaps(args, &config, session)?;
    Ok(0)
}

fn site(config: &Path, args: &ScheduleArgs) -> Result<Site> {
    let lost =
        |what: &str, e| Error::failed("schedule", format!("{what} can't be found")).caused_by(e);
    Ok(Site {
        program: std::env::current_exe().map_err(|e| lost("this program", e))?,
        config: std::path::absolute(config).map_err(|e| lost("the config", e))?,
        user: args.user.clone(),
        local_zone: jiff::tz::TimeZone::system().iana_name().map(str::to_owned),
    })
}

fn files(args: &ScheduleArgs, config: &Config, site: &Site) -> Result<Vec<(String, String)>> {
    if schedule::tasks(config).is_empty() {
        return Err(Error::usage("schedule", "nothing in the config has a schedule")
            .next_step("add `schedule = \"02:00\"` to a [job.NAME], or use --remove"));
    }
    match args.kind {
        Kind::Systemd => schedule::units(config, site),
        Kind::Cron => Ok(vec![(CRON_FILE.to_owned(), schedule::crontab(config, site)?)]),
    }
}

fn print(files: &[(String, String)], session: &Session) -> Result<()> {
    if session.common.json {
        let files: Vec<_> =
            files.iter().map(|(name, text)| json!({ "name": name, "text": text })).collect();
        return output::print_json(&json!({ "files": files }));
    }
    match files {
        [(_, text)] => output::print(text),
        files => files
            .iter()
            .try_for_each(|(name, text)| output::print(&format!("### {name}\n{text}\n"))),
    }
}

fn folder(args: &ScheduleArgs) -> &PathBuf {
    match args.kind {
        Kind::Systemd => &args.system_dir,
        Kind::Cron => &args.cron_dir,
    }
}

fn install(
    args: &ScheduleArgs,
    files: &[(String, String)],
    site: &Site,
    session: &Session,
) -> Result<()> {
    let folder = folder(args);
    let live = args.kind == Kind::Systemd && systemd_reads(folder);
    if live {
        let wanted = |name: &String| files.iter().any(|(file, _)| file == name);
        let mut gone = timers(schedule::present(folder, &site.config)?);
        gone.retain(|name| !wanted(name));
        // Disabled while they are still there: their links go with them.
        systemctl(&["disable", "--now"], &gone)?;
    }
    let changes = schedule::install(folder, files, &site.config)?;
    if live {
        systemctl(&["daemon-reload"], &[])?;
        let names = timers(files.iter().map(|(name, _)| name.clone()).collect());
        systemctl(&["enable"], &names)?;
        // A timer that runs does not take over a new time by itself.
        systemctl(&["restart"], &names)?;
    }
    tell(args, &changes, live, session)
}

fn remove(args: &ScheduleArgs, site: &Site, session: &Session) -> Result<u8> {
    let folder = folder(args);
    let live = args.kind == Kind::Systemd && systemd_reads(folder);
    if live {
        systemctl(&["disable", "--now"], &timers(schedule::present(folder, &site.config)?))?;
    }
    let removed = schedule::remove(folder, &site.config)?;
    if live {
        systemctl(&["daemon-reload"], &[])?;
    }
    tell(args, &Changes { removed, ..Changes::default() }, live, session)?;
    Ok(0)
}

fn timers(mut names: Vec<String>) -> Vec<String> {
    names.retain(|name| name.ends_with(".timer"));
    names
}

fn systemd_reads(folder: &Path) -> bool {
    folder == Path::new(SYSTEM_DIR) && Path::new(SYSTEMD_RUNS).is_dir()
}

/// Runs systemctl, on units when some are wanted.
fn systemctl(arguments: &[&str], units: &[String]) -> Result<()> {
    if units.is_empty() && arguments != ["daemon-reload"] {
        return Ok(());
    }
    let what = format!("systemctl {}", arguments.join(" "));
    let failed = || Error::failed("schedule", format!("{what} failed"));
    let mut command = Command::new("systemctl");
    let output = command.args(arguments).args(units).stdin(Stdio::null()).output();
    let output = output.map_err(|e| failed().caused_by(e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed().next_step(format!("the files are in place; {}", said.trim())))
}

fn tell(args: &ScheduleArgs, changes: &Changes, live: bool, session: &Session) -> Result<()> {
    let folder = folder(args).display();
    if session.common.json {
        return output::print_json(&json!({
            "folder": folder.to_string(), "written": changes.written,
            "unchanged": changes.unchanged, "removed": changes.removed, "active": live,
        }));
    }
    if session.common.quiet {
        return Ok(());
    }
    let list =
        [("wrote", &changes.written), ("kept", &changes.unchanged), ("removed", &changes.removed)];
    for (what, names) in list {
        for name in names {
            output::print(&format!("{what} {folder}/{name}\n"))?;
        }
    }
    if args.kind == Kind::Systemd && !live {
        let line = "systemd does not run here or does not read this folder: nothing was switched on or off";
        output::say(line);
    }
    Ok(())
}

/// systemd leaves out what the clocks skip; our daemon and cron do it right after.
fn warn_of_gaps(args: &ScheduleArgs, config: &Config, session: &Session) -> Result<()> {
    if args.kind != Kind::Systemd {
        return Ok(());
    }
    let zone = config.schedules.zone(jiff::tz::TimeZone::system())?;
    let now = jiff::Timestamp::now();
    for task in schedule::tasks(config).iter().filter(|task| task.calendar.meets_a_gap(now, &zone))
    {
        session.context.warn(&format!(
            "{task}: systemd leaves out {} when the clocks skip it in spring; choose another hour",
            task.calendar
        ));
    }
    Ok(())
}
