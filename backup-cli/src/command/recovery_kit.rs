//! `recovery-kit`: writes what one needs when this host is gone.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use backup_cli::Deployment;
use backup_core::{Error, ErrorKind, Result};
use serde_json::json;

use super::args::RecoveryKitArgs;
use super::{Session, exit_code, output, setup};

/// The page in a folder.
const PAGE: &str = "recovery-kit.md";
/// The configuration beside it.
const CONFIG: &str = "recovery-config.toml";

/// Writes the kit to stdout, a file or a folder.
///
/// # Errors
/// When the configuration or its keys can't be read, or nothing can be written.
pub async fn run(args: RecoveryKitArgs, session: &Session) -> Result<u8> {
    let (path, config) = setup::config(&session.common)?;
    let unreadable =
        |e| Error::usage("config", format!("{} can't be read", path.display())).caused_by(e);
    let text = std::fs::read_to_string(&path).map_err(unreadable)?;
    let deployment = Deployment::new(config, setup::environment())?;
    let kit = deployment.recovery_kit(&text, &session.context).await?;
    let files = match &args.out {
        None => Vec::new(),
        Some(out) if is_folder(out) => {
            vec![(out.join(PAGE), &kit.markdown), (out.join(CONFIG), &kit.config)]
        }
        Some(out) => vec![(out.clone(), &kit.markdown)],
    };
    for (path, text) in &files {
        write(path, text)?;
    }
    for problem in &kit.problems {
        let what = "not everything could be read, so newer backups may exist";
        session.context.warn(&format!("{what}: storage {}: {}", problem.storage, problem.error));
    }
    let written: Vec<&PathBuf> = files.iter().map(|(path, _)| path).collect();
    if session.common.json {
        output::print_json(&json!({
            "files": written, "markdown": kit.markdown, "config": kit.config,
        }))?;
    } else if files.is_empty() {
        output::print(&kit.markdown)?;
    } else if !session.common.quiet {
        for path in written {
            output::print(&format!("{}\n", path.display()))?;
        }
        output::print("It holds no key. Keep it where this host's end does not reach it.\n")?;
    }
    Ok(if kit.problems.is_empty() { 0 } else { exit_code(ErrorKind::Incomplete) })
}

/// A folder that is there, or a name that looks like one.
fn is_folder(path: &Path) -> bool {
    path.is_dir() || !path.exists() && path.extension().is_none()
}

/// As a whole or not at all: half a kit must not replace a good one. Readable by its owner.
fn write(path: &Path, text: &str) -> Result<()> {
    let unwritable = |e: std::io::Error| {
        Error::failed("recovery kit", format!("{} can't be written", path.display()))
            .next_step("name another place with --out")
            .caused_by(e)
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(unwritable)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = folder.join(format!(".{name}.partial"));
    let mut options = std::fs::File::options();
    let opened = options.create(true).write(true).truncate(true).mode(0o600).open(&draft);
    let mut file = opened.map_err(unwritable)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(unwritable)?;
    std::fs::rename(&draft, path).map_err(unwritable)?;
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(unwritable)
}
