//! `config check`: reads the configuration and says what is wrong with it.

use backup_cli::Deployment;
use backup_core::Result;
use serde_json::json;

use super::args::{ConfigAction, ConfigArgs};
use super::output;
use super::{Session, setup};

/// Checks.
///
/// # Errors
/// What is wrong.
pub async fn run(args: &ConfigArgs, session: &Session) -> Result<u8> {
    let ConfigAction::Check = args.action;
    let (path, config) = setup::config(&session.common)?;
    let deployment = Deployment::new(config, setup::environment())?;
    deployment.check().await?;
    let warnings = deployment.key_warnings().await?;
    for warning in &warnings {
        session.context.warn(&format!("{}; {}", warning.message, warning.fix));
    }
    let warnings: Vec<&str> = warnings.iter().map(|warning| warning.message.as_str()).collect();
    let config = deployment.config();
    let jobs: Vec<&str> = config.job.keys().map(String::as_str).collect();
    let storages: Vec<&str> = config.storage.keys().map(String::as_str).collect();
    if session.common.json {
        output::print_json(
            &json!({ "config": path, "jobs": jobs, "storages": storages, "warnings": warnings }),
        )?;
    } else {
        output::print(&format!(
            "{} is fine: jobs {}; storages {}\nWhether servers and storages answer: marb-backup doctor\n",
            path.display(),
            jobs.join(", "),
            storages.join(", ")
        ))?;
    }
    Ok(0)
}
