//! Integration tests of marb-backup, against real servers and programs.

mod failures;
mod hostile;
mod pipeline;
mod stock_tools;
mod support;
