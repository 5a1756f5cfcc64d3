//! Schedules as a table for `/etc/cron.d`.

use backup_core::{Error, Result};

use super::{Site, Task, install, tasks};
use crate::config::Config;

/// Longest line that Debian's cron takes as a command, in bytes.
const MAX_COMMAND_BYTES: usize = 998;

/// The table; with the user's column. Empty of lines when nothing has a schedule.
///
/// # Errors
/// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) for what cron can't do: a time zone other
/// than the host's, or a path with a line's end.
pub fn crontab(config: &Config, site: &Site) -> Result<String> {
    if let Some(zone) = &config.schedules.time_zone
        && site.local_zone.as_ref() != Some(zone)
    {
        let local = site.local_zone.as_deref().unwrap_or("unknown");
        return Err(Error::usage(
            "schedule",
            format!("cron runs in the host's time zone ({local}), and time_zone is {zone:?}"),
        )
        .next_step(
            "use `schedule systemd` or `run`, or set the host's zone: Debian's cron has no CRON_TZ",
        ));
    }
    let mut table = format!("{}\n", install::header(&site.config));
    table.push_str("# What a run says is mailed by cron; exit codes are in no mail.\n");
    if config.schedules.random_delay.is_some() {
        table.push_str("# random_delay is not in here: cron has none.\n");
    }
    table.push_str(
        "SHELL=/bin/sh\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
    );
    for task in tasks(config) {
        table.push_str(&line(&task, site)?);
    }
    Ok(table)
}

fn line(task: &Task, site: &Site) -> Result<String> {
    let words = site.command(task)?;
    let quoted: Vec<String> = words.iter().map(|word| shell_quoted(word)).collect();
    // Cron ends a command at a bare %, and makes \% one.
    let command = quoted.join(" ").replace('%', "\\%");
    if command.contains(['\n', '\r']) || command.len() > MAX_COMMAND_BYTES {
        return Err(Error::usage("schedule", format!("{task}: no line of a crontab can hold it"))
            .next_step("put program and config into shorter paths without line ends"));
    }
    let user = site.user.as_deref().unwrap_or("root");
    Ok(format!("{} {user} {command}\n", task.calendar.to_cron()))
}

fn shell_quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=+:,@".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_program_as_they_are() {
        for word in ["it's", "a b", "100%", "$HOME", "", "/plain/path"] {
            let command = format!("printf %s {}", shell_quoted(word));
            let output = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }
}
