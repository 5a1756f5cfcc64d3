//! Integration tests of marb-backup, against real servers and programs.

mod pipeline;
