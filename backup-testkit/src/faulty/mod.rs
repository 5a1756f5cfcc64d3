//! Ends that break on purpose, at a chosen byte, moment or call.

mod calls;
mod intercepted;
mod reads;
mod sink;
mod source;
mod transform;

pub use calls::{CountedStorage, FailCalls};
pub use intercepted::{Call, Intercepted};
pub use reads::{FaultyReads, ReadFault};
pub use sink::{FaultySink, FaultyStorage, SinkFault};
pub use source::{FaultySource, SourceFault};
pub use transform::{FaultyTransform, TransformFault};

use backup_core::{Error, Result};

/// The stage of every error that is made here.
pub const INJECTED: &str = "injected fault";

fn injected<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::failed(INJECTED, what).next_step("none: a test wanted this failure"))
}

/// Never comes back: the other side hangs.
async fn stall<T>() -> T {
    std::future::pending().await
}

/// Unwinds without the noise of a panic message.
fn die() -> ! {
    std::panic::resume_unwind(Box::new(INJECTED))
}

#[cfg(test)]
mod tests;
