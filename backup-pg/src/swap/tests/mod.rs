//! The swap on real servers.

mod cleanup;
mod crashes;
mod cuts;
mod obstacles;
mod properties;
mod replication;
mod rig;
mod rivals;
mod ways;
