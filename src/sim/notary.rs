//! Integrity that thousands of peers share: what one has hashed or checked, none does again.
//!
//! Found again by content, byte for byte: a corrupted copy is never taken for the original, it is
//! hashed and checked for real. So the memory is a matter of speed alone, and a world gives the
//! same digest with it and without.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::sim::truth::sum;
use crate::swarm::integrity::{Hash, Real, Signature, SwarmId, Verifier};

/// Places of each memory; older content is forgotten when a place is needed.
const PLACES: usize = 1 << 13;

/// Content, and what is known of it.
type Known<T> = (Box<[u8]>, T);

/// Checks chunks and signatures. A clone shares the memory.
#[derive(Clone)]
pub struct Notary(Arc<Mutex<Memory>>);

struct Memory {
    real: Real,
    remembers: bool,
    leaves: Vec<Option<Known<Hash>>>,
    munros: Vec<Option<Known<Hash>>>,
    verdicts: Vec<Option<Known<bool>>>,
    /// What was hashed or checked for real.
    real_work: u64,
}

impl Notary {
    /// One without memories; it keeps none at all unless it `remembers`.
    #[must_use]
    pub fn new(remembers: bool) -> Notary {
        fn places<T>(n: usize) -> Vec<Option<T>> {
            std::iter::repeat_with(|| None).take(n).collect()
        }
        Notary(Arc::new(Mutex::new(Memory {
            real: Real::default(),
            remembers,
            leaves: places(PLACES),
            munros: places(PLACES),
            verdicts: places(PLACES),
            real_work: 0,
        })))
    }

    /// How much was hashed or checked for real.
    #[must_use]
    pub fn real_work(&self) -> u64 {
        self.memory().real_work
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of content in a memory. Collisions cost time and nothing else.
fn place(content: &[u8]) -> usize {
    (sum(content) >> 40) as usize % PLACES
}

/// The value of `content`: from the memory, if it is used, or made.
fn recall<T: Copy>(
    memory: &mut [Option<Known<T>>],
    remembers: bool,
    content: &[u8],
    real_work: &mut u64,
    make: impl FnOnce() -> T,
) -> T {
    if !remembers {
        *real_work += 1;
        return make();
    }
    let place = &mut memory[place(content)];
    if let Some((known, value)) = place
        && **known == *content
    {
        return *value;
    }
    *real_work += 1;
    let value = make();
    *place = Some((content.into(), value));
    value
}

impl Verifier for Notary {
    fn leaf(&mut self, chunk: &[u8]) -> Hash {
        let Memory { real, remembers, leaves, real_work, .. } = &mut *self.memory();
        recall(leaves, *remembers, chunk, real_work, || real.leaf(chunk))
    }

    fn munro(&mut self, hashes: &[Hash]) -> Hash {
        let Memory { real, remembers, munros, real_work, .. } = &mut *self.memory();
        recall(munros, *remembers, hashes.as_flattened(), real_work, || real.munro(hashes))
    }

    fn verify(&mut self, id: &SwarmId, plaintext: &[u8], signature: &Signature) -> bool {
        let Memory { real, remembers, verdicts, real_work, .. } = &mut *self.memory();
        let content = [&id.as_bytes()[..], plaintext, signature].concat();
        let make = || real.verify(id, plaintext, signature);
        recall(verdicts, *remembers, &content, real_work, make)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::integrity::{KeyPair, Signer, leaf, munro};

    #[test]
    fn copies_are_known_and_corrupted_copies_are_not() {
        let mut notary = Notary::new(true);
        let chunk = [7; 1_316];
        assert_eq!(notary.leaf(&chunk), leaf(&chunk));
        assert_eq!(notary.clone().leaf(&chunk), leaf(&chunk));
        assert_eq!(notary.real_work(), 1, "clones share");
        for at in [0, 700, 1_315] {
            let mut bad = chunk;
            bad[at] ^= 1;
            assert_eq!(notary.leaf(&bad), leaf(&bad));
        }
        let leaves = [leaf(b"a"), leaf(b"b")];
        assert_eq!([notary.munro(&leaves), notary.munro(&leaves)], [munro(&leaves); 2]);
        let key = KeyPair::generate().unwrap();
        let signature = key.sign(b"text").unwrap();
        let work = notary.real_work();
        assert!(notary.verify(&key.swarm_id(), b"text", &signature));
        assert!(notary.verify(&key.swarm_id(), b"text", &signature));
        assert_eq!(notary.real_work(), work + 1);
        let mut bad = signature;
        bad[63] ^= 1;
        assert!(!notary.verify(&key.swarm_id(), b"text", &bad));
        assert!(!notary.verify(&key.swarm_id(), b"texu", &signature));
    }

    #[test]
    fn who_remembers_nothing_works_each_time() {
        let mut notary = Notary::new(false);
        let key = KeyPair::generate().unwrap();
        let signature = key.sign(b"text").unwrap();
        for n in 1..=3 {
            assert_eq!(notary.leaf(b"chunk"), leaf(b"chunk"));
            assert!(notary.verify(&key.swarm_id(), b"text", &signature));
            assert_eq!(notary.real_work(), 2 * n);
        }
    }
}
