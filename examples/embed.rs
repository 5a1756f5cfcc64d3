//! A backup and a restore from an application's own code.
//!
//! `cargo run --example embed -- CONFIG JOB TARGET_URL`

use backup_cli::config::{Config, Environment, Value};
use backup_cli::{Deployment, RestoreOptions};
use backup_core::pipeline::Context;
use backup_core::{Error, Query, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, job, target] = &arguments[..] else {
        return Err(Error::usage("embed", "wants CONFIG JOB TARGET_URL"));
    };
    let environment = Environment::new(std::env::vars_os());
    let deployment = Deployment::new(Config::read(config.as_ref())?, environment)?;
    let context = Context::default();

    let made = deployment.backup(job, false, &context).await?;
    println!("{} is in {}", made.manifest.id, made.stored_in.join(", "));

    let catalog = deployment.catalog(&Query { job: Some(job), ..Query::default() }).await?;
    let options = RestoreOptions::into_database(Value::Literal(target.clone()));
    let back = deployment.restore(catalog.find("latest")?, &options, &context).await?;
    println!("{} rows of {} tables are back", back.rows_compared, back.tables_compared);
    Ok(())
}
