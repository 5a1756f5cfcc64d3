//! The steps of a restore on stderr, each with the time it took.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use backup_core::pipeline::{Context, Event, Progress};

use super::super::args::Common;
use super::super::output;

/// Tells steps, and hands everything else on.
pub struct Steps {
    next: Arc<dyn Progress>,
    quiet: bool,
    current: Mutex<Option<(String, Instant)>>,
}

impl Steps {
    /// Tells the steps of what runs with this context.
    pub fn over(context: &Context, common: &Common) -> Self {
        Self { next: context.progress.clone(), quiet: common.quiet, current: Mutex::default() }
    }

    fn step(&self, what: &str) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        finish(current.take());
        output::say(what);
        *current = Some((what.to_owned(), Instant::now()));
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        finish(self.current.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Tells how long a step took, where that is worth a line.
fn finish(step: Option<(String, Instant)>) {
    if let Some((_, started)) = step
        && started.elapsed().as_millis() >= 100
    {
        output::say(&format!("  {}", output::duration(started.elapsed())));
    }
}

impl Progress for Steps {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Step { what } if !self.quiet => self.step(what),
            Event::Step { .. } => {}
            other => self.next.event(other),
        }
    }
}
