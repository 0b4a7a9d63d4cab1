//! The ring: a bounded window of every live stream in memory, written once, read by all shards.
//!
//! ```text
//! Arena      one mapping; slabs in two sizes; one atomic word (generation, pins) per slab
//! Window     one stream's slabs, their directory, the byte head and tail, timeline and marks
//! Writer     appends packets, publishes with Release, retires the oldest slabs; never waits
//! Chunks     a writer for chunks that are received in any order; presence says which are there
//! Records    one per subtree: leaf hashes, munro, time and signature; only if asked for
//! Reader     one per shard and window; hands out payloads that pin slabs; never blocks a writer
//! ```
//!
//! How memory is shared, in four rules:
//!
//! 1. Only the writer writes, and only beyond the head that it has published.
//! 2. A reader makes references only to published bytes, and only while it has a pin.
//! 3. A slab's next owner waits for the last pin: in the pool, without anybody blocking.
//! 4. The tail moves before a slab is retired: who fails to pin sees where to go on.
//!
//! The lock-free parts (`word`, `log`, `directory`, `bell`) are checked under loom by `models`,
//! which says how to run it and what it does not cover.

pub mod arena;
pub mod bell;
pub mod chunks;
mod directory;
mod log;
mod map;
pub mod marks;
mod pin;
mod poison;
mod pool;
mod presence;
pub mod reader;
pub mod records;
mod sync;
mod timeline;
pub mod window;
mod word;
pub mod writer;

#[cfg(test)]
#[cfg(headwater_loom)]
mod models;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod received;
#[cfg(test)]
mod tests;
