//! Every fixed limit of the process, with the proof that the limits fit together.
//!
//! What an operator may choose is in the configuration; what is here is chosen once, because
//! code or wire formats rely on it.

/// Bytes of one MPEG-TS packet (ISO/IEC 13818-1, 2.4.3.2).
pub const TS_PACKET: usize = 188;

/// TS packets of one chunk: the most that fit a 1,500 byte Ethernet frame as one datagram.
pub const CHUNK_PACKETS: usize = 7;

/// Bytes of one chunk: the unit of hashing and of one DATA datagram.
pub const CHUNK: usize = CHUNK_PACKETS * TS_PACKET;

/// The most chunks under one signature. Slabs and epochs are multiples of it, so that any
/// smaller power of two fits as well.
pub const SUBTREE_CHUNKS_MAX: usize = 16;

/// Bytes of the largest subtree.
pub const SUBTREE: usize = SUBTREE_CHUNKS_MAX * CHUNK;

/// Bytes of a small slab: three subtrees, half a second at 1 Mbit/s.
pub const SLAB_SMALL: usize = 3 * SUBTREE;

/// Small slabs in a large one.
pub const SLAB_SPLIT: usize = 16;

/// Bytes of a large slab: 48 subtrees, about 1 MiB.
pub const SLAB_LARGE: usize = SLAB_SPLIT * SLAB_SMALL;

/// The least memory of one stream's window: four small slabs, so that one can be written, one
/// read, one reclaimed.
pub const WINDOW_MIN: usize = 4 * SLAB_SMALL;

/// The longest stream name in bytes.
pub const STREAM_NAME_MAX: usize = 64;

/// The most shards of one process. One cache line of flags per stream and shard is kept.
pub const SHARDS_MAX: usize = 256;

/// The most bytes handed to the kernel in one send: writes above 65,160 bytes cost one extra
/// small frame (measured: 15 to 30 % more CPU), so they are cut here.
pub const SEND_MAX: usize = 60 * 1024;

const _: () = assert!(SLAB_LARGE == 1_010_688, "the slab of the design: 48 x 21,056 bytes");
const _: () = assert!(SLAB_SMALL.is_multiple_of(SUBTREE), "a subtree never crosses a slab");
const _: () = assert!(SEND_MAX <= SLAB_SMALL, "a send touches at most two slabs");
const _: () = assert!(SLAB_LARGE < u32::MAX as usize, "offsets inside a slab are 32 bits");
