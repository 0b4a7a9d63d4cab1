//! Stripes: a stream's subtrees are dealt out to eight, in turn. A stripe is a label on a link.

/// Stripes of a stream.
pub const STRIPES: usize = 8;

/// All of them, a bit each.
pub const ALL_STRIPES: u8 = u8::MAX;

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
