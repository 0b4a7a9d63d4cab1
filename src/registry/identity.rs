//! Who a stream is in the swarm: its name there, and what its owner may sign.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::base::limits::CHUNK;
use crate::ring::records::SubtreeSize;
use crate::swarm::integrity::{CannotSign, Signature, Signer, SignerClock, SwarmId};
use crate::wire::ppspp::Addressing;

/// A stream's identity: made when it goes live, the same for all its publishers.
pub struct Identity {
    /// Its public key.
    pub swarm_id: SwarmId,
    /// How its chunks are named.
    pub addressing: Addressing,
    /// How many chunks are under one signature.
    pub size: SubtreeSize,
    /// The clock of its signatures.
    pub clock: SignerClock,
    signer: Box<dyn Signer>,
    /// Stream offset that is kept on disk: what lies at or beyond it is not signed, for a process
    /// that comes after a crash begins there. Moved ahead long before it is reached.
    mark: AtomicU64,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.swarm_id)
    }
}

impl Identity {
    /// The identity whose secret half `signer` has. Nothing at or beyond stream offset `mark` is
    /// signed.
    #[must_use]
    pub fn new(
        signer: Box<dyn Signer>,
        addressing: Addressing,
        size: SubtreeSize,
        clock: SignerClock,
        mark: u64,
    ) -> Identity {
        let swarm_id = signer.swarm_id();
        Identity { swarm_id, addressing, size, clock, signer, mark: AtomicU64::new(mark) }
    }

    /// Stream offset at which signing stops: what is kept on disk, or where names of chunks end.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.mark.load(Relaxed).min(Identity::last(self.addressing))
    }

    /// Moves the mark ahead, after it was kept on disk.
    pub fn set_mark(&self, mark: u64) {
        self.mark.fetch_max(mark, Relaxed);
    }

    /// Signs a text.
    ///
    /// # Errors
    /// See [`Signer::sign`].
    pub fn sign(&self, plaintext: &[u8]) -> Result<Signature, CannotSign> {
        self.signer.sign(plaintext)
    }

    /// Stream offset behind the last chunk that has a name.
    #[must_use]
    pub fn last(addressing: Addressing) -> u64 {
        addressing.id_max().saturating_add(1).saturating_mul(CHUNK as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::{Now, Utc};
    use crate::swarm::integrity::KeyPair;

    #[test]
    fn signing_ends_at_the_mark_and_where_names_end() {
        let identity = |addressing, mark| {
            let clock = SignerClock::new(Now::default(), Utc::default());
            let key = Box::new(KeyPair::generate().unwrap());
            Identity::new(key, addressing, SubtreeSize::new(16).unwrap(), clock, mark)
        };
        let wide = identity(Addressing::Chunks64, 21_056);
        assert_eq!(wide.limit(), 21_056);
        wide.set_mark(7);
        assert_eq!(wide.limit(), 21_056, "never back");
        wide.set_mark(1 << 50);
        assert_eq!(wide.limit(), 1 << 50);
        let narrow = identity(Addressing::Chunks32, u64::MAX);
        assert_eq!(narrow.limit(), (1 << 32) * CHUNK as u64);
        assert!(!format!("{wide:?}").is_empty());
    }
}
