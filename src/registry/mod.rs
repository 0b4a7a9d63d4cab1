//! The registry: which streams there are, who may write them, who may come in.
//!
//! Lookups on the way of a viewer read an immutable snapshot and take no lock. Locks are taken
//! only when a publisher comes or goes and when a connection is accepted or ends.
#![forbid(unsafe_code)]

pub mod admission;
pub mod budget;
pub mod course;
pub mod graph;
pub mod identity;
pub mod keys;
pub mod pulse;
pub mod settings;
pub mod stream;
pub mod streams;

#[cfg(test)]
mod tests;
