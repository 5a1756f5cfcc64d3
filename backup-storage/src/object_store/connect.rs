//! Puts an opendal service on our line.

use backup_core::{Error, Result};
use opendal::{Builder, Executor, HttpTransporter, OperationContext, Operator};

use super::line::Line;

/// An operator whose requests go through `line`.
pub(super) fn operator(stage: &str, builder: impl Builder, line: Line) -> Result<Operator> {
    let operator = Operator::new(builder).map_err(|error| {
        Error::usage(stage.to_owned(), error.message().to_owned())
            .next_step("correct the storage's url, options and secrets")
    })?;
    let context = OperationContext::from_parts(HttpTransporter::new(line), Executor::default());
    Ok(operator.with_context(context))
}

/// A prefix in opendal's form.
pub(super) fn root(prefix: &str) -> String {
    format!("/{prefix}")
}

/// Refuses what only S3 can do with objects: kept silently it would be believed in.
#[cfg(any(feature = "gcs", feature = "azure"))]
pub(super) fn refuse_s3_only(stage: &str, objects: &crate::ObjectSettings) -> Result<()> {
    let wanted = [
        ("tags", !objects.tags.is_empty()),
        ("object_lock", objects.object_lock.is_some()),
        ("encryption", objects.encryption.is_some()),
    ];
    match wanted.into_iter().find(|(_, wanted)| *wanted) {
        None => Ok(()),
        Some((name, _)) => {
            Err(Error::usage(stage.to_owned(), format!("has no {name} for its objects")).next_step(
                format!("leave `{name}` out; the service has its own rules for buckets"),
            ))
        }
    }
}
