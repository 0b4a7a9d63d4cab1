//! The ground: clock types, identifiers, limits, and the handle type that the data path passes on.
#![forbid(unsafe_code)]

pub mod ids;
pub mod limits;
pub mod payload;
pub mod planted;
pub mod segment;
pub mod spread;
pub mod time;
