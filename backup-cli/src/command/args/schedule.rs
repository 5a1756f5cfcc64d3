//! Flags of `schedule` and `run`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `schedule`
#[derive(Debug, Args)]
#[command(after_help = "\
Everything comes from the config: `schedule` of each job, `verify` and `drill` under [schedules].
Without --install it is only printed. Only files that this program wrote for the same config are
replaced or removed, also those of jobs that are gone.

Examples:
  marb-backup schedule systemd
  marb-backup schedule systemd --install --user postgres
  marb-backup schedule cron --install
  marb-backup schedule systemd --remove")]
pub struct ScheduleArgs {
    /// What is to keep the time
    #[arg(value_enum)]
    pub kind: Kind,
    /// Put it in place, and switch it on where systemd runs
    #[arg(long, conflicts_with = "remove")]
    pub install: bool,
    /// Take away what was installed
    #[arg(long)]
    pub remove: bool,
    /// User that runs it [default: root]
    #[arg(long, value_name = "NAME", value_parser = user)]
    pub user: Option<String>,
    /// Where systemd's units go
    #[arg(long, value_name = "FOLDER", default_value = "/etc/systemd/system")]
    pub system_dir: PathBuf,
    /// Where cron's tables go
    #[arg(long, value_name = "FOLDER", default_value = "/etc/cron.d")]
    pub cron_dir: PathBuf,
}

/// What keeps the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A timer and a service for each task
    Systemd,
    /// A table for /etc/cron.d
    Cron,
}

/// A name as Debian takes it: it stands unquoted in units and tables.
fn user(name: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    match !name.is_empty() && !name.starts_with(['-', '.']) && name.chars().all(good) {
        true => Ok(name.to_owned()),
        false => Err("a user's name has letters, digits, '_', '-' and '.'".to_owned()),
    }
}

/// `run`
#[derive(Debug, Args)]
#[command(after_help = "\
One thing at a time. What was missed is done once, at the start or when the time has come. SIGTERM
stops what is going on, which cleans up, and ends the program with 143; after the next start it is
done again. Needs no cron and no systemd.

Example:
  marb-backup run --config /etc/marb-backup/config.toml")]
pub struct RunArgs {}
