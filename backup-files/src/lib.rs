//! Configuration files for marb-backup: [`FilesSource`] reads them into a tar stream,
//! [`FilesCheck`] proves that one is whole, [`FilesRestore`] brings them back.

mod archive;
mod attributes;
mod check;
mod folder;
mod reading;
mod restore;
mod select;
mod source;
mod users;
mod worker;

pub use archive::{Dialect, MAX_ENTRIES};
pub use check::FilesCheck;
pub use restore::{
    Change, FileChange, FilesPlan, FilesPlanner, FilesReport, FilesRestore, FilesRestoreOptions,
    FilesTarget,
};
pub use select::{FilesSelection, Survey};
pub use source::FilesSource;

#[cfg(test)]
mod tests;
