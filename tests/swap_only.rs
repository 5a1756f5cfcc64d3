//! Temporary: the swap tests alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, unused_imports, reason = "tests")]
mod support;
mod swap;
mod swap_hooks;
mod swap_kills;
mod swap_versions;
mod hostile;
mod command_line;
