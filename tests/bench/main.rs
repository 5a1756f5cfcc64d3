//! `cargo xtask bench`: our speed beside the stock tools', on one database, in one run.
//!
//! Rounds are interleaved (a b c d e, a b c d e, ...), so that a machine whose speed drifts
//! treats all alike; ratios are medians of the ratios within a round.

mod measure;
mod put;
mod restore;
mod storages;
mod subjects;

use std::path::{Path, PathBuf};

use backup_testkit::postgres::{PostgresServer, client_tools};
use measure::{Figures, measure};
use subjects::{DATABASE, Subject, subjects};

/// Rounds when `--rounds N` doesn't say.
const ROUNDS: usize = 3;

/// What a server has by itself, where a test server is set for speed: a restore goes to one that
/// people use, which writes a log that a standby or an archive can be fed with.
const USUAL: [(&str, &str); 5] = [
    ("wal_level", "replica"),
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    ("shared_buffers", "128MB"),
];

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == measure::FLAG) {
        return measure::report_on(&arguments[1..]);
    }
    if arguments.first().is_some_and(|first| first == put::FLAG) {
        return put::put(&arguments[1..]);
    }
    let rounds = match arguments.iter().position(|a| a == "--rounds") {
        Some(at) => arguments.get(at + 1).ok_or("--rounds wants a number")?.parse()?,
        None => ROUNDS,
    };
    let only =
        |what: &str| arguments.first().is_none_or(|first| first == what || first.starts_with('-'));
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        if only("backup") {
            compare_backups(rounds).await?;
        }
        if only("restore") {
            compare_restores(rounds).await?;
        }
        if only("storages") {
            compare_storages(rounds).await?;
        }
        Ok(())
    })
}

async fn compare_storages(rounds: usize) -> Outcome<()> {
    eprintln!("starting the storage servers");
    let (servers, folder) = (storages::Servers::start().await?, tempfile::tempdir()?);
    let subjects = servers.subjects(folder.path())?;
    let figures = run_rounds(&subjects, rounds, folder.path())?;
    print_tables(&subjects, &figures, &storages::RATIOS);
    Ok(())
}

async fn compare_backups(rounds: usize) -> Outcome<()> {
    let (server, tools) = loaded_server(&[]).await?;
    let folder = tempfile::tempdir()?;
    let subjects = subjects(&server, &tools, folder.path())?;
    let figures = run_rounds(&subjects, rounds, folder.path())?;
    print_tables(&subjects, &figures, &subjects::RATIOS);
    Ok(())
}

async fn compare_restores(rounds: usize) -> Outcome<()> {
    let (server, tools) = loaded_server(&USUAL).await?;
    let folder = tempfile::tempdir()?;
    let subjects = restore::subjects(&server, &tools, folder.path()).await?;
    let figures = run_rounds(&subjects, rounds, folder.path())?;
    print_tables(&subjects, &figures, &restore::RATIOS);
    Ok(())
}

/// A server with the database that all of them work on, and its client tools.
async fn loaded_server(settings: &[(&str, &str)]) -> Outcome<(PostgresServer, PathBuf)> {
    eprintln!("starting a server and loading about 1 GB");
    let settings = [&[("max_wal_size", "4GB")], settings].concat();
    let server = PostgresServer::start_with(15, &settings).await?;
    server.sql("postgres", &format!("create database {DATABASE}")).await?;
    let sql = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/database.sql");
    server.load(DATABASE, &sql, &[]).await?;
    let size = server.sql(DATABASE, "select pg_database_size(current_database())").await?;
    eprintln!("the database takes {size} bytes");
    let tools = client_tools(15).ok_or("PostgreSQL's client tools 15 are not here")?;
    Ok((server, tools))
}

fn run_rounds(subjects: &[Subject], rounds: usize, folder: &Path) -> Outcome<Vec<Vec<Figures>>> {
    let mut figures: Vec<Vec<Figures>> = vec![Vec::new(); subjects.len()];
    for round in 1..=rounds {
        for (subject, results) in subjects.iter().zip(&mut figures) {
            let result = measure(subject, folder)?;
            eprintln!("round {round}/{rounds}  {}  {:.1} s", subject.letter, result.wall);
            results.push(result);
        }
    }
    Ok(figures)
}

/// A ratio of two subjects' wall times: its name, their letters, what is wanted.
type Ratio = (&'static str, char, char, &'static str);

fn print_tables(subjects: &[Subject], figures: &[Vec<Figures>], ratios: &[Ratio]) {
    println!("| | what | wall s | client CPU s | peak MB | output MB |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for (subject, runs) in subjects.iter().zip(figures) {
        let median = |of: fn(&Figures) -> f64| median(runs.iter().map(of).collect());
        println!(
            "| {} | {} | {:.1} | {:.1} | {:.0} | {:.0} |",
            subject.letter,
            subject.what,
            median(|f| f.wall),
            median(|f| f.cpu),
            median(|f| f.peak_megabytes),
            median(|f| f.output_megabytes),
        );
    }
    println!("\n| ratio of wall times | median | min | max | wanted |");
    println!("| --- | --- | --- | --- | --- |");
    for &(name, a, b, wanted) in ratios {
        let of = |letter: char| subjects.iter().position(|subject| subject.letter == letter);
        let (Some(a), Some(b)) = (of(a), of(b)) else { continue };
        let pairs = figures[a].iter().zip(&figures[b]);
        let ratios: Vec<f64> = pairs.map(|(a, b)| a.wall / b.wall).collect();
        let min = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let max = ratios.iter().copied().fold(0.0, f64::max);
        println!("| {name} | {:.2} | {min:.2} | {max:.2} | {wanted} |", median(ratios.clone()));
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}
