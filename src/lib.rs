//! Headwater: one live stream in, tens of thousands of viewers out.
//!
//! This page is the plan of the house. Modules stand on floors and import downward only;
//! `tests/floors.rs` holds every `use crate::` against this table.
//!
//! ```text
//! 6 the door       cli
//! 5 the household  node (assembles)   control   bench   sim   config
//! 4 one core       shard · peer
//! 3 faces          face · ingest                        sans-I/O
//! 2 knowledge      registry · media · swarm             sans-I/O
//! 1 materials      wire · ring · io                     unsafe in ring and io only
//! 0 ground         base · metrics
//! ```
//!
//! A stream comes in through `ingest`, is read by `media` for access points, is written once
//! into a `ring`, and leaves through `face`. One `shard` per core drives all of that as an
//! [`io::machine::Machine`]: it reads no clock and no socket. `io` has the drivers that do:
//! io_uring and epoll, with equal rights; `sim` is a third one, in virtual time.

pub mod base;
pub mod bench;
pub mod cli;
pub mod config;
pub mod control;
pub mod face;
pub mod ingest;
#[allow(unsafe_code, reason = "the only code of the data path that touches the OS")]
pub mod io;
pub mod media;
pub mod metrics;
pub mod node;
pub mod peer;
pub mod registry;
#[allow(unsafe_code, reason = "the only shared memory of the process")]
pub mod ring;
pub mod shard;
pub mod sim;
pub mod swarm;
pub mod wire;
