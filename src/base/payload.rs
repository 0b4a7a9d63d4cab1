//! What the data path hands to a driver: a handle on bytes, never the bytes themselves.

use std::fmt;
use std::rc::Rc;

use bytes::Bytes;

/// Memory whose published bytes do not change while a handle on it lives.
///
/// The ring implements this for a pinned slab. A handle covers the whole slab, of which only
/// the published part may be asked for: so one handle per slab and shard serves every send,
/// and the open end of the newest slab needs no new handle whenever it grows.
pub trait Slab {
    /// The published bytes `at .. at + len` of the slab.
    ///
    /// # Panics
    /// If the range is not published: a bug of the caller, never the effect of outside input.
    fn published(&self, at: u32, len: u32) -> &[u8];
}

/// A handle on bytes to send. Cloning never copies the bytes and never allocates.
#[derive(Clone, Default)]
pub enum Payload {
    /// Nothing.
    #[default]
    Empty,
    /// Bytes made for this send: response heads, pages, table packets in front of a jump.
    Owned(Bytes),
    /// A range of a pinned slab.
    Slab {
        /// The pin.
        slab: Rc<dyn Slab>,
        /// First byte in the slab.
        at: u32,
        /// Number of bytes.
        len: u32,
    },
}

impl Payload {
    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Payload::Empty => &[],
            Payload::Owned(bytes) => bytes,
            Payload::Slab { slab, at, len } => slab.published(*at, *len),
        }
    }

    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Payload::Empty => 0,
            Payload::Owned(bytes) => bytes.len(),
            Payload::Slab { len, .. } => *len as usize,
        }
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Payload {
        if bytes.is_empty() { Payload::Empty } else { Payload::Owned(bytes) }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Empty => f.write_str("Empty"),
            Payload::Owned(bytes) => write!(f, "Owned({} B)", bytes.len()),
            Payload::Slab { at, len, .. } => write!(f, "Slab({at}+{len})"),
        }
    }
}
