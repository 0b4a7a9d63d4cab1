//! The ring: a bounded window of every live stream in memory, written once, read by all shards.
//!
//! ```text
//! Arena      one mapping; slabs in two sizes; one atomic word (generation, pins) per slab
//! Window     one stream's slabs, their directory, the byte head and tail, timeline and marks
//! Writer     appends packets, publishes with Release, retires the oldest slabs; never waits
//! Chunks     a writer for chunks that are received in any order; presence says which are there
//! Records    one per subtree: leaf hashes, munro, time and signature; only if asked for
//! Mirror     only in a simulator: what thousands of windows hold alike, once
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
//! How it is proved, and what each proof does not see (`.ci/ring/run TOOL`):
//!
//! - The oracles (`oracle`, `received`): every operation on several windows, in one thread.
//! - loom (`models`): every interleaving of the lock-free parts alone; it says what it leaves out.
//! - AddressSanitizer: the arena is one mapping, in which it would see nothing, so the arena tells
//!   it (`poison`): bytes that were not written, and slabs without a pin, must not be touched. It
//!   does not see bytes that are written but not published; `Pin` asserts those.
//! - ThreadSanitizer: races on the bytes of the mapping, in the tests with threads. It knows no
//!   fences, hence nothing of the last drop of an `Arc`, nor what the std does inside itself; the
//!   kernel's part (mmap, munmap) goes past it.
//! - valgrind: leaks, and invalid or uninitialised memory outside the arena, without being built
//!   for it; inside the arena all is valid to it. A mapping that is gone it sees, as a fault.
//! - Miri, where it is found: the parts that stand on no mapping.

pub mod arena;
pub mod bell;
pub mod chunks;
mod directory;
mod log;
mod map;
pub mod marks;
mod mirror;
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
