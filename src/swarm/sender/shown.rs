//! Which subtrees a peer has shown a chunk of: it has their hashes.

/// Which of the newest subtrees a peer has shown a chunk of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shown {
    newest: u64,
    /// The newest and the 63 before it.
    bits: u64,
}

impl Shown {
    pub(super) fn set(&mut self, subtree: u64) {
        if let Some(ahead) = subtree.checked_sub(self.newest).filter(|ahead| *ahead > 0) {
            self.bits =
                u32::try_from(ahead).ok().and_then(|n| self.bits.checked_shl(n)).unwrap_or(0);
            self.newest = subtree;
        }
        let back = self.newest - subtree;
        self.bits |= u32::try_from(back).ok().and_then(|n| 1u64.checked_shl(n)).unwrap_or(0);
    }

    pub(super) fn has(&self, subtree: u64) -> bool {
        let back = self.newest.checked_sub(subtree).and_then(|back| u32::try_from(back).ok());
        back.and_then(|n| self.bits.checked_shr(n)).is_some_and(|bits| bits & 1 != 0)
    }
}
