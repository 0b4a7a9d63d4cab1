//! Stripes: a stream's subtrees are dealt out to eight, in turn. A stripe is a label on a link.

/// Stripes of a stream.
pub const STRIPES: usize = 8;

/// All of them, a bit each.
pub const ALL_STRIPES: u8 = u8::MAX;

/// What a stripe takes beyond its share of the stream, in percent: headers and hashes.
const OVERHEAD: u64 = 108;

/// Bits per second of one stripe on the wire, of a stream of `bitrate`. Who plans and who grants
/// count links by it, and must not differ.
#[must_use]
pub const fn rate_of(bitrate: u64) -> u64 {
    bitrate * OVERHEAD / 100 / STRIPES as u64
}

/// The stripe of a subtree.
#[must_use]
pub const fn stripe_of(subtree: u64) -> usize {
    (subtree % STRIPES as u64) as usize
}

/// The bit of a subtree's stripe.
#[must_use]
pub const fn bit_of(subtree: u64) -> u8 {
    1 << stripe_of(subtree)
}
