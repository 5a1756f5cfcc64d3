//! What tests of marb-backup, and of what others plug into it, are made of.
//!
//! - [`conformance`]: suites that say in code what every source, transform, sink, storage and
//!   retention policy must do. Whoever writes one runs its suite first.
//! - Faulty ends, which break at a chosen byte, moment or call: [`FaultySource`],
//!   [`FaultyTransform`], [`FaultySink`], [`FaultyStorage`], [`FaultyReads`],
//!   [`CountedStorage`]. [`Intercepted`], where a test stands in between.
//! - [`Memory`], a real storage in memory; [`random`], [`text`], [`Generated`] and [`Given`],
//!   data that is the same for the same seed.
//! - [`postgres`]: real PostgreSQL servers of every supported version, in containers or here.
//! - `servers`: real storage servers, of S3, Azure, GCS and SFTP; `proxy`: what breaks the
//!   connections to them. Each behind the feature of its name.
//!
//! Absent on purpose: mocks. What is here keeps the promises of the traits, or breaks exactly
//! the one that it was asked to break.

pub mod conformance;
mod data;
mod faulty;
mod memory;
#[cfg(all(unix, feature = "postgres"))]
pub mod postgres;
#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(all(unix, feature = "servers"))]
pub mod servers;

pub use data::{Flavour, Generated, Given, random, text};
pub use faulty::{
    Call, CountedStorage, FailCalls, FaultyReads, FaultySink, FaultySource, FaultyStorage,
    FaultyTransform, INJECTED, Intercepted, ReadFault, SinkFault, SourceFault, TransformFault,
};
pub use memory::Memory;
