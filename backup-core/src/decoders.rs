//! The inverses at hand when a backup is read.

use std::sync::Arc;

use crate::pipeline::Stage;
use crate::{Error, ErrorKind, Part, PartContents, Result, Transform};

/// The transforms that can be undone here, by the names that manifests record.
#[derive(Clone, Default)]
pub struct Decoders {
    known: Vec<Arc<dyn Transform>>,
    missing: Vec<(String, String)>,
}

impl Decoders {
    /// Adds a transform.
    #[must_use]
    pub fn with(mut self, transform: Arc<dyn Transform>) -> Self {
        self.known.push(transform);
        self
    }

    /// Says why the transform `name` can't be undone here, and what to do.
    #[must_use]
    pub fn without(mut self, name: impl Into<String>, next_step: impl Into<String>) -> Self {
        self.missing.push((name.into(), next_step.into()));
        self
    }

    /// The transform with this name.
    ///
    /// # Errors
    /// [`ErrorKind::Unchecked`] when it is not at hand.
    pub fn get(&self, name: &str) -> Result<Arc<dyn Transform>> {
        if let Some(transform) = self.known.iter().find(|t| t.name() == name) {
            return Ok(Arc::clone(transform));
        }
        let advice = self.missing.iter().find(|(missing, _)| missing == name);
        let error = Error::new(
            ErrorKind::Unchecked,
            name.to_owned(),
            format!("{name} can't be undone here, so the data can't be read"),
        );
        Err(match advice {
            Some((_, next_step)) => error.next_step(next_step.clone()),
            None => error.next_step("use a marb-backup that knows it, or the backup's RESTORE.md"),
        })
    }

    /// The inverses of a part's transforms, in the order of reading.
    pub(crate) fn stages(&self, part: &Part) -> Result<Vec<Stage>> {
        part.transforms.iter().rev().map(|name| self.get(name).map(Stage::decode)).collect()
    }

    /// The same; where `recorded` lists frames, the last stage fails when they are others.
    pub(crate) fn stages_checking(
        &self,
        part: &Part,
        recorded: Option<&PartContents>,
    ) -> Result<Vec<Stage>> {
        let mut stages = self.stages(part)?;
        let frames = recorded.and_then(|recorded| Some((recorded.frames.clone()?, recorded.bytes)));
        if let (Some((frames, plain)), Some(innermost)) = (frames, part.transforms.first()) {
            stages.pop();
            let innermost = self.get(innermost)?;
            stages.push(Stage::decode_checking(innermost, Arc::new(frames), plain));
        }
        Ok(stages)
    }
}
