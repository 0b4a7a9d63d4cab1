//! The peer protocol PPSPP (RFC 7574) in our profile, as bytes: datagrams to messages and back.
//!
//! A datagram is the four bytes of the channel it is for, then messages without a common length
//! field. So whoever cannot read one message cannot find the next: [`Messages`] gives what came
//! before the fault, then the fault, then nothing more. A datagram without messages is a
//! keepalive.

pub mod build;
pub mod decode;
pub mod encode;
pub mod handshake;
pub mod message;
pub mod private;

pub use build::SignedSubtree;
pub use decode::{Malformed, Messages};
pub use encode::Writer;
pub use handshake::{Handshake, MessageSet, Options, Unfit};
pub use message::{Message, kind};
pub use private::{Bye, Link, Links, Private, Probe, Report, State, Subscribe};

#[cfg(test)]
mod tests;

/// A SHA-256 hash: merkle hash function 2, the only one of this profile.
pub type Hash = [u8; 32];

/// An ECDSA P-256 signature, r and s: live signature algorithm 13, the only one of this profile.
pub type Signature = [u8; 64];

/// Bytes of the channel id in front of every datagram.
pub const CHANNEL: usize = 4;

/// How chunks are named on the wire: the two methods that every peer must know (RFC 7574, 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Addressing {
    /// Method 2: ranges of 32-bit chunk ids. A stream of 2 Mbit/s uses them up in 260 days.
    Chunks32,
    /// Method 4: ranges of 64-bit chunk ids, which a permanent channel never uses up.
    #[default]
    Chunks64,
}

impl Addressing {
    /// The method of option 6; `None` for one that this profile does not speak.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Addressing> {
        match code {
            2 => Some(Addressing::Chunks32),
            4 => Some(Addressing::Chunks64),
            _ => None,
        }
    }

    /// The value of option 6.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Addressing::Chunks32 => 2,
            Addressing::Chunks64 => 4,
        }
    }

    /// Bytes of a chunk specification: first and last id.
    #[must_use]
    pub const fn spec_bytes(self) -> usize {
        match self {
            Addressing::Chunks32 => 8,
            Addressing::Chunks64 => 16,
        }
    }

    /// Bytes in front of the chunk in a datagram with one DATA message: channel, type, chunk
    /// specification, time stamp. The time stamp is the last eight.
    #[must_use]
    pub const fn data_header(self) -> usize {
        CHANNEL + 1 + self.spec_bytes() + 8
    }

    /// The largest chunk id.
    #[must_use]
    pub const fn id_max(self) -> u64 {
        match self {
            Addressing::Chunks32 => u32::MAX as u64,
            Addressing::Chunks64 => u64::MAX,
        }
    }
}

/// A range of chunks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first chunk.
    pub first: u64,
    /// The last chunk: never before the first.
    pub last: u64,
}

impl Span {
    /// The range from `first` to `last`; `None` if it runs backwards.
    #[must_use]
    pub const fn new(first: u64, last: u64) -> Option<Span> {
        if first <= last { Some(Span { first, last }) } else { None }
    }

    /// One chunk.
    #[must_use]
    pub const fn one(chunk: u64) -> Span {
        Span { first: chunk, last: chunk }
    }

    /// How many chunks it names; all 2^64 of them count as one less.
    #[must_use]
    pub const fn chunks(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }

    /// Whether `chunk` is one of them.
    #[must_use]
    pub const fn contains(self, chunk: u64) -> bool {
        self.first <= chunk && chunk <= self.last
    }
}

/// The channel that a datagram is for: 0 in an opening handshake. `None` if it is too short.
#[must_use]
pub fn channel(datagram: &[u8]) -> Option<u32> {
    split(datagram).map(|(channel, _)| channel)
}

/// The channel that a datagram is for, and its messages.
#[must_use]
pub fn split(datagram: &[u8]) -> Option<(u32, &[u8])> {
    let (channel, messages) = datagram.split_first_chunk::<CHANNEL>()?;
    Some((u32::from_be_bytes(*channel), messages))
}
