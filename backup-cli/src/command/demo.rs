//! `demo`: the main job on a throwaway database, run as a user would run it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use backup_core::{Error, Result};
use backup_pg::throwaway::{ThrowawayOptions, ThrowawayServer};
use backup_pg::{ClientTools, Psql, ToolSearch};
use serde::Deserialize;

use super::Session;
use super::args::DemoArgs;
use super::output::{self, Style, Table};

/// A medical-claims application, about 200,000 rows, no real persons.
const SAMPLE: &str = include_str!("../demo/sample.sql");
/// The sample's database, and the one it is restored into.
const DATABASE: &str = "marb_risk_engine";
const RESTORED: &str = "marb_restored";
/// The demo's passphrase protects nothing.
const PASSPHRASE: &str = "demo only: correct horse battery staple";
/// Longest time the sample may take to load.
const LOAD_TIMEOUT: Duration = Duration::from_secs(300);

/// Runs the demo in a folder of its own and removes it afterwards.
///
/// # Errors
/// When PostgreSQL's server is not installed, or a step fails.
pub async fn run(args: DemoArgs, session: &Session) -> Result<u8> {
    let folder = tempfile::Builder::new()
        .prefix("marb-backup-demo-")
        .permissions(open_to_the_server())
        .tempdir()
        .map_err(|e| Error::failed("demo", "no temporary folder can be made").caused_by(e))?;
    let result = session.context.cancel.guard(Demo::show(folder.path())).await;
    if args.keep {
        let kept = folder.keep();
        eprintln!("kept: {} (the server is stopped)", kept.display());
    }
    result.map(|()| 0)
}

/// The server runs as another user when root starts it, and must reach its own folder below.
fn open_to_the_server() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o711)
}

struct Demo {
    folder: PathBuf,
    server: ThrowawayServer,
    tools: ClientTools,
    times: Vec<(String, Duration)>,
}

impl Demo {
    async fn show(folder: &Path) -> Result<()> {
        let mut demo = Self::prepare(folder).await?;
        demo.verb(&["backup"]).await?;
        demo.verb(&["list"]).await?;
        demo.verb(&["show", "latest", "--contents"]).await?;
        demo.verb(&["verify", "latest"]).await?;
        let target = demo.server.connection_string(RESTORED);
        demo.verb(&["restore", "latest", "--to", &target]).await?;
        demo.compare().await?;
        demo.finish()
    }

    async fn prepare(folder: &Path) -> Result<Self> {
        let (tools, bin_dir) = find_server().await?;
        let mut times = Vec::new();

        heading(&format!(
            "A throwaway PostgreSQL {} with a medical-claims application",
            tools.version()
        ))?;
        let started = Instant::now();
        let data = folder.join("server");
        let server =
            blocking(move || ThrowawayServer::start(&bin_dir, &data, &ThrowawayOptions::default()))
                .await?;
        times.push(("start the server".to_owned(), started.elapsed()));

        let started = Instant::now();
        let connection = server.connection_string("postgres").parse()?;
        let psql = Psql::new(&tools, &connection).with_timeout(LOAD_TIMEOUT);
        psql.execute(&format!("create database {DATABASE} template template0")).await?;
        let sample = format!("set search_path = public;\n{SAMPLE}");
        psql.with_database(DATABASE).execute(&sample).await?;
        times.push(("load the sample".to_owned(), started.elapsed()));

        let demo = Self { folder: folder.to_owned(), server, tools, times };
        demo.write_config()?;
        Ok(demo)
    }

    fn write_config(&self) -> Result<()> {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let path = |name: &str| quoted(&self.folder.join(name).to_string_lossy());
        let config = format!(
            "state_dir = {state}\n\n\
             [storage.local]\nurl = {storage}\n\n\
             [encryption]\npassphrase = {{ file = {key} }}\n\n\
             [job.database]\npostgres = {{ url = {url} }}\ncompression = \"zstd\"\nstorages = [\"local\"]\n",
            state = path("state"),
            storage = quoted(&format!("file://{}", self.folder.join("backups").display())),
            key = path("passphrase"),
            url = quoted(&self.server.connection_string(DATABASE)),
        );
        write(&self.folder.join("passphrase"), &format!("{PASSPHRASE}\n"))?;
        write(&self.folder.join("marb-backup.toml"), &config)
    }

    /// Runs this very program, as a user would.
    async fn verb(&mut self, arguments: &[&str]) -> Result<()> {
        heading(&format!("$ marb-backup {}", arguments.join(" ")))?;
        let program = std::env::current_exe()
            .map_err(|e| Error::failed("demo", "this program can't find itself").caused_by(e))?;
        let started = Instant::now();
        let status = tokio::process::Command::new(program)
            .arg("--config")
            .arg(self.folder.join("marb-backup.toml"))
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .status()
            .await
            .map_err(|e| Error::failed("demo", "this program can't start itself").caused_by(e))?;
        self.times.push((arguments[0].to_owned(), started.elapsed()));
        if status.success() {
            return Ok(());
        }
        Err(Error::failed("demo", format!("`marb-backup {}` ended with {status}", arguments[0]))
            .next_step("see its message above"))
    }

    /// Compares every row of every table of both databases.
    async fn compare(&mut self) -> Result<()> {
        heading("Both databases, row by row")?;
        let started = Instant::now();
        let before = self.fingerprints(DATABASE).await?;
        let after = self.fingerprints(RESTORED).await?;
        let mut table = Table::new(&["  TABLE", "ROWS", "RESTORED", ""], &[1, 2]);
        for one in &before {
            let other = after.iter().find(|other| other.table == one.table);
            table.row(vec![
                format!("  {}", one.table),
                output::count(one.rows),
                other.map_or("-".to_owned(), |other| output::count(other.rows)),
                if other == Some(one) { "equal" } else { "DIFFERS" }.to_owned(),
            ]);
        }
        output::print(&table.render())?;
        self.times.push(("compare".to_owned(), started.elapsed()));
        if before == after {
            return Ok(());
        }
        Err(Error::damaged("demo", "the restored database is not the original")
            .next_step("please report this: it must never happen"))
    }

    async fn fingerprints(&self, database: &str) -> Result<Vec<Fingerprint>> {
        // The sum of a hash of every row's text: independent of the order of rows.
        const QUERY: &str = "select coalesce(json_agg(t order by t.\"table\"), '[]') from (\
            select relname as \"table\", \
                   (xpath('/row/n/text()', x))[1]::text::bigint as rows, \
                   (xpath('/row/d/text()', x))[1]::text as digest \
            from (select c.relname, query_to_xml(format(\
                     'select count(*) as n, coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) as d from %s t', \
                     c.oid::regclass), false, true, '') as x \
                  from pg_class c where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace) s) t";
        let connection = self.server.connection_string(database).parse()?;
        Psql::new(&self.tools, &connection).with_timeout(LOAD_TIMEOUT).query_json(QUERY).await
    }

    fn finish(self) -> Result<()> {
        heading("How long it took")?;
        let mut table = Table::new(&["  STEP", "TIME"], &[1]);
        for (step, took) in &self.times {
            table.row(vec![format!("  {step}"), output::duration(*took)]);
        }
        output::print(&table.render())?;
        heading("Now your own database")?;
        output::print(
            "  marb-backup backup --url postgresql:///YOUR_DATABASE --to file:///var/backups/marb \\\n      \
               --passphrase-file /root/backup-passphrase\n  \
             marb-backup list --from file:///var/backups/marb\n  \
             marb-backup restore latest --from file:///var/backups/marb \\\n      \
               --passphrase-file /root/backup-passphrase --to postgresql:///YOUR_DATABASE_restored\n\
             With a config file the flags go away: see README.md. `marb-backup doctor` checks it.\n",
        )?;
        self.server.stop()
    }
}

/// A table's rows, as a number and a sum over all of them.
#[derive(Debug, PartialEq, Deserialize)]
struct Fingerprint {
    table: String,
    rows: u64,
    digest: String,
}

/// The newest client programs that a server lies beside.
async fn find_server() -> Result<(ClientTools, PathBuf)> {
    let search = ToolSearch { path: std::env::var_os("PATH"), ..ToolSearch::default() };
    for tools in search.installed().await? {
        let folder = tools.folder().to_owned();
        if ["initdb", "pg_ctl", "postgres"].iter().all(|program| folder.join(program).exists()) {
            return Ok((tools, folder));
        }
    }
    Err(Error::usage("demo", "no PostgreSQL server is installed here")
        .next_step("apt-get install postgresql, then run the demo again"))
}

fn heading(text: &str) -> Result<()> {
    output::print(&format!("\n{}\n", Style::for_stdout().bold(text)))
}

fn write(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let unwritable = |e: std::io::Error| {
        Error::failed("demo", format!("{} can't be written", path.display())).caused_by(e)
    };
    let mut options = std::fs::File::options();
    let mut file =
        options.create_new(true).write(true).mode(0o600).open(path).map_err(unwritable)?;
    file.write_all(text.as_bytes()).map_err(unwritable)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::failed("demo", "a thread died").caused_by(e))?
}
