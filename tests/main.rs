//! Integration tests of marb-backup, against real servers and programs.

mod backup_faults;
mod backup_verb;
mod catalog;
mod failures;
mod hostile;
mod interrupts;
mod pipeline;
mod rig;
mod stock_tools;
mod support;
mod troubled;
mod verify_verb;
