//! What a restore into the live database needs: hooks that can be run, a health address that
//! answers, a maintenance connection with the rights.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use backup_core::Result;
use backup_core::pipeline::Cancel;
use serde::Deserialize;
use tokio::process::Command;

use super::{Condition, Diagnosis, sudo};
use crate::Deployment;
use crate::config::{Argv, HealthConfig};
use crate::health::Health;
use crate::hooks::shown;
use crate::swapping::SwapTarget;

/// How long a program that tells what one may do may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the application may take to answer; it is running.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// What the maintenance connection may do with the live database.
const RIGHTS: &str = "
select json_build_object(
  'superuser', current_setting('is_superuser') = 'on',
  'createdb', (select rolcreatedb from pg_catalog.pg_roles where rolname = current_user),
  'owns', coalesce((select pg_has_role(datdba, 'USAGE') from pg_catalog.pg_database where datname = $LIVE), true),
  'signals', pg_has_role('pg_signal_backend', 'USAGE'))";

#[derive(Deserialize)]
struct Rights {
    superuser: bool,
    createdb: bool,
    owns: bool,
    signals: bool,
}

impl Deployment {
    /// Looks at everything that `[restore]` names, and at what restores left.
    pub(super) async fn examine_restore(&self, diagnosis: &mut Diagnosis) {
        let config = &self.config().restore;
        if let Some(folder) = &config.directory
            && !folder.is_dir()
        {
            diagnosis.add(
                "restore",
                Condition::Bad,
                format!("the folder of the hooks, {}, is not there", folder.display()),
                Some("correct `directory` under [restore]".to_owned()),
            );
        }
        for (key, hooks) in config.hooks() {
            for argv in hooks {
                self.examine_hook(key, argv, diagnosis).await;
            }
        }
        if let Some(health) = &config.health {
            examine_health(health, diagnosis).await;
        }
        let databases = self.config().job.iter().filter(|(_, job)| job.postgres.is_some());
        for (job, _) in databases {
            if let Err(error) = self.examine_swap(job, diagnosis).await {
                diagnosis.bad(&format!("restore {job}"), &error);
            }
        }
    }

    async fn examine_hook(&self, key: &str, argv: &Argv, diagnosis: &mut Diagnosis) {
        let Some((program, arguments)) = argv.split_first() else { return };
        let hook = shown(key, argv);
        let Some(path) = self.find_program(program) else {
            return diagnosis.add(
                "restore",
                Condition::Bad,
                format!("hook {hook}: {program} is not here, or is not executable"),
                Some(format!("correct `{key}` under [restore], or install the program")),
            );
        };
        let asked = match path.file_name().and_then(|name| name.to_str()) {
            Some("sudo") => sudo::ask(&path, arguments).await,
            Some("systemctl") if !rustix::process::geteuid().is_root() => self.ask_polkit().await,
            _ => None,
        };
        match asked {
            None => diagnosis.good("restore", format!("hook {hook}: can be run")),
            Some(Err((detail, fix))) => {
                diagnosis.warning("restore", format!("hook {hook}: {detail}"), fix);
            }
            Some(Ok(())) => diagnosis.good("restore", format!("hook {hook}: may be run")),
        }
    }

    /// Whether polkit lets this user start and stop units.
    async fn ask_polkit(&self) -> Option<Result<(), (String, String)>> {
        let pkcheck = self.find_program("pkcheck").unwrap_or_else(|| "pkcheck".into());
        let mut check = Command::new(pkcheck);
        check.args(["--action-id", "org.freedesktop.systemd1.manage-units", "--process"]);
        check.arg(std::process::id().to_string());
        if succeeds(check).await == Some(true) {
            return Some(Ok(()));
        }
        Some(Err((
            "it is not known that this user may start and stop units".to_owned(),
            "write sudo -n systemctl .. with a sudoers line, add a polkit rule, or run restores as root"
                .to_owned(),
        )))
    }

    /// Where the program is, as starting it would find it.
    fn find_program(&self, program: &str) -> Option<PathBuf> {
        let runs = |path: &Path| {
            std::fs::metadata(path)
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        };
        if program.contains('/') {
            let folder = self.config().restore.directory.clone().unwrap_or_default();
            let path = folder.join(program);
            return runs(&path).then_some(path);
        }
        let path = self.environment().path().unwrap_or_default();
        std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| runs(path))
    }

    async fn examine_swap(&self, job: &str, diagnosis: &mut Diagnosis) -> Result<()> {
        let subject = format!("restore {job}");
        let site = self.site(&SwapTarget::Job(job.to_owned())).await?;
        let state = site.swap().state().await?;
        if let Some(one) = state.unfinished() {
            diagnosis.add(
                &subject,
                Condition::Bad,
                format!("restore {} was cut off while it swapped {}", one.marker.run, site.live),
                Some(
                    "run `marb-backup restore --continue` or `marb-backup restore --rollback`"
                        .to_owned(),
                ),
            );
        }
        let kept: Vec<&str> = state.marked.iter().map(|one| one.name.as_str()).collect();
        if !kept.is_empty() {
            diagnosis.good(&subject, format!("kept from earlier restores: {}", kept.join(", ")));
        }
        let live = backup_pg::sql::quote_literal(&site.live);
        let rights: Rights = site.admin.psql().query_json(&RIGHTS.replace("$LIVE", &live)).await?;
        let lacking: Vec<&str> = [
            (rights.createdb, "make databases (CREATEDB)"),
            (rights.owns, "rename the live one (it does not own it)"),
            (rights.signals, "end others' sessions (pg_signal_backend)"),
        ]
        .into_iter()
        .filter_map(|(has, what)| (!has && !rights.superuser).then_some(what))
        .collect();
        let user = site.admin.user();
        match lacking.is_empty() {
            true => diagnosis.good(&subject, format!("{user} may restore beside and swap")),
            false => diagnosis.warning(
                &subject,
                format!("{user} may not {}: a restore into {} would be refused", lacking.join(", "), site.live),
                "set `admin_url` under [restore] to a role that may, on another database of the server",
            ),
        }
        Ok(())
    }
}

/// Whether a program that only tells something ends well; `None` when it can't be asked.
pub(super) async fn succeeds(mut command: Command) -> Option<bool> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let status = tokio::time::timeout(ASK_TIMEOUT, command.status()).await.ok()?;
    Some(status.ok()?.success())
}

async fn examine_health(config: &HealthConfig, diagnosis: &mut Diagnosis) {
    match Health::new(&config.url, HEALTH_TIMEOUT) {
        Err(error) => diagnosis.bad("restore", &error),
        Ok(health) => match health.wait(&Cancel::default()).await {
            Ok(()) => diagnosis.good("restore", format!("{} answers 2xx", health.label())),
            Err(error) => diagnosis.warning(
                "restore",
                error.message().to_owned(),
                "a restore waits for it and is put back when it does not come: correct `health` under [restore], or start the application",
            ),
        },
    }
}
