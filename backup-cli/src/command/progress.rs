//! Progress on stderr: a bar on a terminal, plain lines in a log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use backup_core::pipeline::{Event, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::{self, Style};

/// How often a log gets a line while a part is on its way.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// How much to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loudness {
    /// Warnings and errors.
    Quiet,
    /// What a person wants to know.
    Normal,
}

/// Tells a person on stderr how a run goes.
pub struct Reporter {
    loudness: Loudness,
    style: Style,
    on_terminal: bool,
    part: Mutex<Option<PartInProgress>>,
}

struct PartInProgress {
    name: String,
    started: Instant,
    last_line: Instant,
    read: u64,
    estimate: Option<u64>,
    bar: ProgressBar,
}

impl Reporter {
    /// A reporter for stderr.
    pub fn new(loudness: Loudness) -> Self {
        let on_terminal = output::stderr_is_a_terminal();
        Self { loudness, style: Style::for_stderr(), on_terminal, part: Mutex::new(None) }
    }

    fn start(&self, name: &str, estimate: Option<u64>) {
        let bar = if self.on_terminal && self.loudness == Loudness::Normal {
            bar(name, estimate)
        } else {
            ProgressBar::hidden()
        };
        let now = Instant::now();
        *self.part.lock().unwrap_or_else(PoisonError::into_inner) = Some(PartInProgress {
            name: name.to_owned(),
            started: now,
            last_line: now,
            read: 0,
            estimate,
            bar,
        });
    }

    fn advance(&self, bytes: u64) {
        let mut part = self.part.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(part) = part.as_mut() else { return };
        part.read += bytes;
        part.bar.inc(bytes);
        // The estimate is one: the bar must not stand at 100 % while bytes still come.
        if part.bar.length().is_some_and(|length| part.read > length) {
            part.bar.unset_length();
        }
        if !self.on_terminal && part.last_line.elapsed() >= LOG_INTERVAL {
            part.last_line = Instant::now();
            self.line(&format!("{}: {}", part.name, part.so_far()));
        }
    }

    fn finish(&self, name: &str, read: u64, written: u64) {
        let part = self.part.lock().unwrap_or_else(PoisonError::into_inner).take();
        let took = part.as_ref().map_or(Duration::ZERO, |part| part.started.elapsed());
        if let Some(part) = part {
            part.bar.finish_and_clear();
        }
        let read_text = output::size(read);
        let arrow =
            if written == read { String::new() } else { format!(" -> {}", output::size(written)) };
        self.line(&format!("  {name:<28} {read_text:>9}{arrow:<13} {:>9}", output::duration(took)));
    }

    fn line(&self, text: &str) {
        if self.loudness == Loudness::Normal {
            output::say(text);
        }
    }

    fn warning(&self, text: &str) {
        let label = self.style.yellow("warning:");
        let part = self.part.lock().unwrap_or_else(PoisonError::into_inner);
        match part.as_ref() {
            Some(part) if !part.bar.is_hidden() => {
                part.bar.suspend(|| output::say(&format!("{label} {text}")));
            }
            _ => output::say(&format!("{label} {text}")),
        }
    }

    /// Takes a bar off the screen that a failed part left behind.
    pub fn clear(&self) {
        if let Some(part) = self.part.lock().unwrap_or_else(PoisonError::into_inner).take() {
            part.bar.finish_and_clear();
        }
    }
}

impl PartInProgress {
    fn so_far(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "shown rounded"
        )]
        let rate = (self.read as f64 / seconds) as u64;
        let left = self.estimate.filter(|total| *total > self.read && rate > 0).map(|total| {
            let seconds = (total - self.read) / rate.max(1);
            format!(", about {} left", output::duration(Duration::from_secs(seconds)))
        });
        let of = self
            .estimate
            .map_or(String::new(), |total| format!(" of about {}", output::size(total)));
        format!(
            "{}{of}, {}/s{}",
            output::size(self.read),
            output::size(rate),
            left.unwrap_or_default()
        )
    }
}

fn bar(name: &str, estimate: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(estimate, ProgressDrawTarget::stderr_with_hz(8));
    let template = if estimate.is_some() {
        "  {msg:28!} {bar:24.cyan} {decimal_bytes:>9} of ~{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left"
    } else {
        "  {msg:28!} {spinner} {decimal_bytes:>9} {decimal_bytes_per_sec}"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸ "));
    }
    bar.set_message(name.to_owned());
    bar
}

impl Progress for Reporter {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::PartStarted { part, estimated_bytes } => self.start(part, estimated_bytes),
            Event::Read { bytes } => self.advance(bytes),
            Event::PartFinished { part, read, written } => self.finish(part, read, written),
            Event::Warning { message } => self.warning(message),
            _ => {}
        }
    }
}
