//! The swarm's state machines: what one link between two peers needs, at either end of it.
//!
//! RFC 7574 (PPSPP) in the profile of live streams: one signature per subtree. All of it is
//! sans-I/O and knows neither relay nor viewer, so that both are made of the same parts.
//!
//! ```text
//! crimes     everything that the other end can do wrong, what it costs, how it is counted
//! ```
#![forbid(unsafe_code)]

pub mod crimes;
