//! The source and the sinks of this crate, run through the pipeline.

mod acls;
mod format;
mod hostile;
mod reading;
mod restoring;
mod stock;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::pipeline::{self, Context, Flow};
use backup_core::{Collect, FilesContents, Findings, InMemory, Result, Sink};

use crate::archive::{Attributes, END, Entry, Kind, Owner, head, padding};
use crate::{
    Dialect, FilesCheck, FilesPlan, FilesPlanner, FilesReport, FilesRestore, FilesRestoreOptions,
    FilesSelection, FilesSource, FilesTarget,
};

/// A folder by its real path, which is gone after the test.
struct Place {
    folder: PathBuf,
    _guard: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let guard = tempfile::tempdir().unwrap();
        Self { folder: guard.path().canonicalize().unwrap(), _guard: guard }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// The names in it, sorted.
    fn names(&self, name: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(name)).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The path that an archive has for a name, with a slash.
    fn inside(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn selection(paths: &[&Path]) -> FilesSelection {
    let paths = paths.iter().map(|path| path.to_str().unwrap().to_owned()).collect();
    FilesSelection { paths, ..FilesSelection::default() }
}

async fn archive(selection: FilesSelection) -> Result<(Vec<u8>, Findings)> {
    let collect = Collect::default();
    let source = Arc::new(FilesSource::new(selection));
    let flow = Flow::new("config.tar", source, Arc::new(collect.clone()));
    let outcome = pipeline::run(flow, &Context::default()).await?;
    Ok((collect.take().unwrap(), outcome.findings))
}

async fn feed(bytes: &[u8], sink: Arc<dyn Sink>) -> Result<()> {
    let source = Arc::new(InMemory::new("archive", bytes.to_vec()));
    let flow = Flow::new("config.tar", source, sink);
    pipeline::run(flow, &Context::default()).await.map(drop)
}

async fn check(bytes: &[u8]) -> Result<FilesContents> {
    check_as(Dialect::Own, bytes).await
}

async fn check_as(dialect: Dialect, bytes: &[u8]) -> Result<FilesContents> {
    let check = FilesCheck::new(dialect);
    feed(bytes, Arc::new(check.clone())).await?;
    Ok(check.contents().unwrap())
}

fn options(target: FilesTarget) -> FilesRestoreOptions {
    FilesRestoreOptions {
        dialect: Dialect::Own,
        target,
        paths: Vec::new(),
        run: "RUN".to_owned(),
        with_text: false,
    }
}

async fn plan(bytes: &[u8], options: FilesRestoreOptions) -> Result<FilesPlan> {
    let planner = FilesPlanner::new(options);
    feed(bytes, Arc::new(planner.clone())).await?;
    Ok(planner.plan().unwrap())
}

async fn restore(bytes: &[u8], options: FilesRestoreOptions) -> Result<FilesReport> {
    let restore = FilesRestore::new(plan(bytes, options).await?);
    feed(bytes, Arc::new(restore.clone())).await?;
    Ok(restore.report().unwrap())
}

/// A name, what it is, and its bytes.
type ByHand<'a> = (&'a [u8], Kind, &'a [u8]);

/// An archive written by hand.
fn by_hand(entries: &[ByHand<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (path, kind, data) in entries {
        let attributes = Attributes {
            mode: if *kind == Kind::Directory { 0o755 } else { 0o644 },
            owner: Owner { id: rustix::process::geteuid().as_raw(), name: None },
            group: Owner { id: rustix::process::getegid().as_raw(), name: None },
            ..Attributes::default()
        };
        let entry = Entry { path: path.to_vec(), kind: kind.clone(), attributes };
        bytes.extend(head(&entry).unwrap());
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len() + padding(data.len() as u64), 0);
    }
    bytes.extend(END);
    bytes
}

fn file(data: &[u8]) -> Kind {
    Kind::File { size: data.len() as u64 }
}

fn link(target: &Path) -> Kind {
    Kind::Link { target: target.as_os_str().as_bytes().to_vec() }
}
