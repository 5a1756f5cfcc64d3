//! Core of marb-backup. (Overview to be written.)

mod digest;
mod error;
mod inventory;
pub mod layout;
mod manifest;
mod retention;
mod sink;
mod source;
mod storage;
mod transform;

pub use digest::{Digest, Digester};
pub use error::{Error, ErrorKind, Result};
pub use inventory::*;
pub use layout::BackupId;
pub use manifest::*;
pub use retention::{BackupSummary, Decision, KeepLast, RetentionPolicy};
pub use sink::{Committed, Sink, SinkWriter};
pub use source::{Findings, Source, SourceStream};
pub use storage::{ByteRange, Creation, ObjectInfo, Storage};
pub use transform::Transform;
