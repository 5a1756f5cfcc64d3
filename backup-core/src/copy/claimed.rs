//! The claim of a copy: nobody else works in the folder, and nobody sweeps it.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::{Copying, claim_body};
use crate::backup::claim::{self, release};
use crate::pipeline::{Context, Limits, within};
use crate::{Creation, Error, ErrorKind, Result, Storage, layout};

/// A claim that is ours.
pub(super) struct Claimed<'a> {
    storage: &'a Arc<dyn Storage>,
    key: String,
    limits: Limits,
    context: &'a Context,
}

impl<'a> Claimed<'a> {
    /// Claims the folder. A claim whose run has ended, or must have, is taken over.
    pub(super) async fn take(copying: &Copying<'a>) -> Result<Self> {
        let (storage, key) = (copying.to, copying.key(layout::CLAIM));
        let (limits, context) = (copying.limits, copying.context);
        let now = Timestamp::now();
        let body = Bytes::from(claim_body(now, copying.from.name()));
        let create =
            || within(storage.name(), limits.commit, storage.create_new(&key, body.clone()));
        let mut created = create().await?;
        if created == Creation::Taken
            && claim::is_over(storage, &copying.folder, copying.manifest, now).await?
        {
            within(storage.name(), limits.sink_stall, storage.delete(&key)).await?;
            created = create().await?;
        }
        match created {
            Creation::Created => Ok(Self { storage, key, limits, context }),
            Creation::Taken => {
                let message =
                    format!("{} in storage {} is being written", copying.folder, storage.name());
                Err(Error::new(ErrorKind::Locked, "copy", message).next_step(
                    "wait for the backup or the copy that writes it; after a crash its claim ends \
                     by itself, a day after its timeout",
                ))
            }
        }
    }

    /// Gives the folder free; a claim that stays is told.
    pub(super) async fn give_back(self) {
        release(self.storage.as_ref(), &self.key, self.limits.sink_stall, self.context).await;
    }
}
