//! Waits until the application answers that it works. Without the feature `health` (a build
//! without an HTTP client) a configured health check is refused, never skipped.

#[cfg(not(feature = "health"))]
mod absent;
#[cfg(feature = "health")]
mod http;

#[cfg(not(feature = "health"))]
pub(crate) use absent::Health;
#[cfg(feature = "health")]
pub(crate) use http::Health;

/// Stage of its errors.
const STAGE: &str = "health";
