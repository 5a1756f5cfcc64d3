//! One run of a job at a time on this host: a lock that a crash frees.

use std::fs::{File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use backup_core::{Error, ErrorKind, Result};

/// Held as long as it lives.
#[derive(Debug)]
pub struct JobLock {
    _file: File,
}

impl JobLock {
    /// Takes the lock of a job, without waiting.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`] when another run holds it; otherwise when the state folder can't
    /// be used.
    pub fn take(state_dir: &Path, job: &str) -> Result<Self> {
        let path = state_dir.join(format!("{job}.lock"));
        let unusable = |e: std::io::Error| {
            Error::failed("lock", format!("{} can't be used", path.display()))
                .next_step("set `state_dir` to a folder that this user may write to")
                .caused_by(e)
        };
        let mut folder = std::fs::DirBuilder::new();
        folder.recursive(true).mode(0o700).create(state_dir).map_err(unusable)?;
        let mut options = File::options();
        let file = options.create(true).append(true).mode(0o600).open(&path).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::new(
                ErrorKind::Locked,
                "lock",
                format!("another run of job {job:?} is going on"),
            )
            .next_step(format!("wait for it; `fuser {}` names its process", path.display()))),
            Err(TryLockError::Error(e)) => Err(unusable(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_of_one_job_exclude_each_other() {
        let state = tempfile::tempdir().unwrap();
        let held = JobLock::take(state.path(), "database").unwrap();
        let error = JobLock::take(state.path(), "database").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        JobLock::take(state.path(), "other").unwrap();
        drop(held);
        JobLock::take(state.path(), "database").unwrap();
    }
}
