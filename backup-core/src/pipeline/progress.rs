//! What a run tells while it goes on.

use std::sync::Arc;

/// Takes the events of a run. Called from several threads, often; must not block.
pub trait Progress: Send + Sync {
    /// Something happened.
    fn event(&self, event: Event<'_>);
}

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A part begins.
    PartStarted {
        /// Its name.
        part: &'a str,
        /// Expected plain bytes, where somebody has an estimate.
        estimated_bytes: Option<u64>,
    },
    /// So many more bytes came out of the source.
    Read {
        /// How many, since the last event.
        bytes: u64,
    },
    /// So many more bytes went to the sinks (counted once, however many there are).
    Written {
        /// How many, since the last event.
        bytes: u64,
    },
    /// A part is committed.
    PartFinished {
        /// Its name.
        part: &'a str,
        /// Bytes out of the source.
        read: u64,
        /// Bytes into each sink.
        written: u64,
    },
    /// A step begins that is no stream of bytes.
    Step {
        /// What it is, "sweeping leftovers".
        what: &'a str,
    },
    /// Something the operator should know though the run goes on.
    Warning {
        /// One sentence.
        message: &'a str,
    },
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event<'_>) {}
}

struct OnlyWarnings(Arc<dyn Progress>);

impl Progress for OnlyWarnings {
    fn event(&self, event: Event<'_>) {
        if matches!(event, Event::Warning { .. }) {
            self.0.event(event);
        }
    }
}

/// What every run shares: the switch that stops it and the ear that hears it.
#[derive(Clone)]
pub struct Context {
    /// Stops the run.
    pub cancel: super::Cancel,
    /// Hears its events.
    pub progress: Arc<dyn Progress>,
}

impl Default for Context {
    fn default() -> Self {
        Self { cancel: super::Cancel::default(), progress: Arc::new(Silent) }
    }
}

impl Context {
    /// A context that tells `progress`.
    pub fn with_progress(progress: Arc<dyn Progress>) -> Self {
        Self { progress, ..Self::default() }
    }

    /// The same context for work too small to be worth progress; warnings still get through.
    #[must_use]
    pub fn without_progress(&self) -> Self {
        Self {
            cancel: self.cancel.clone(),
            progress: Arc::new(OnlyWarnings(self.progress.clone())),
        }
    }

    /// Tells the operator something.
    pub fn warn(&self, message: &str) {
        self.progress.event(Event::Warning { message });
    }

    /// Tells that a step begins.
    pub fn step(&self, what: &str) {
        tracing::debug!("{what}");
        self.progress.event(Event::Step { what });
    }
}
