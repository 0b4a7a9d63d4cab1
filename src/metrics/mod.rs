//! One table of all series, one block of cells per shard.
//!
//! A shard writes only its own block, with plain loads and stores; a scrape adds the blocks up.
//! Neither ever waits for the other.
#![forbid(unsafe_code)]

pub mod cells;
pub mod delay;
pub mod table;
