//! What makes bytes from strangers trustworthy: hashes, signatures and their age.
//!
//! A stream is signed by whoever it belongs to, and by nobody else: its name in the swarm is its
//! public key. Hashes of N chunks make a tree, its root (the munro) is signed together with its
//! place and the time of signing (RFC 7574, 6.1.2: unified Merkle tree). Whoever holds the key's
//! public half can so tell bytes of this stream, at this place, not older than half a minute,
//! from anything else.

pub mod clock;
pub mod freshness;
mod keys;
pub mod ntp;

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

pub use crate::ring::records::Hash;
pub use clock::SignerClock;
pub use freshness::{Freshness, Stale};
pub use keys::{BadKey, BadSwarmId, KeyPair, Real, SwarmId};

use crate::base::limits::SUBTREE_CHUNKS_MAX;
use crate::wire::ppspp::{Addressing, Span};

/// An ECDSA P-256 signature: r and s, 32 bytes each (RFC 6605, 4).
pub type Signature = [u8; 64];

/// The signer could not sign: it has no randomness or no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CannotSign;

/// Who signs a stream. A simulator, which has thousands of them, has its own.
pub trait Signer: Send + Sync {
    /// The name of the swarm: the public half.
    fn swarm_id(&self) -> SwarmId;

    /// Signs what [`plaintext`] made.
    ///
    /// # Errors
    /// [`CannotSign`]; trying again later is right.
    fn sign(&self, plaintext: &[u8]) -> Result<Signature, CannotSign>;
}

impl<S: Signer + ?Sized> Signer for Arc<S> {
    fn swarm_id(&self) -> SwarmId {
        (**self).swarm_id()
    }

    fn sign(&self, plaintext: &[u8]) -> Result<Signature, CannotSign> {
        (**self).sign(plaintext)
    }
}

/// Who checks what others sent. A simulator has its own here as well.
pub trait Verifier {
    /// The hash of one chunk.
    fn leaf(&mut self, chunk: &[u8]) -> Hash;

    /// The root over the hashes of a subtree's chunks.
    fn munro(&mut self, leaves: &[Hash]) -> Hash;

    /// Whether the owner of `id` signed this text.
    fn verify(&mut self, id: &SwarmId, plaintext: &[u8], signature: &Signature) -> bool;
}

impl<V: Verifier + ?Sized> Verifier for Box<V> {
    fn leaf(&mut self, chunk: &[u8]) -> Hash {
        (**self).leaf(chunk)
    }

    fn munro(&mut self, leaves: &[Hash]) -> Hash {
        (**self).munro(leaves)
    }

    fn verify(&mut self, id: &SwarmId, plaintext: &[u8], signature: &Signature) -> bool {
        (**self).verify(id, plaintext, signature)
    }
}

/// The hash of a chunk.
#[must_use]
pub fn leaf(chunk: &[u8]) -> Hash {
    sha256(chunk)
}

/// The root over the hashes of a subtree's chunks: a power of two of them, at most 16; all zeroes
/// otherwise, which no bytes have as their hash.
///
/// Hashes of chunks that do not exist are never part of it: a subtree is completed with null
/// packets before it is signed.
#[must_use]
pub fn munro(leaves: &[Hash]) -> Hash {
    let mut level = [[0; 32]; SUBTREE_CHUNKS_MAX];
    let mut width = leaves.len();
    if !width.is_power_of_two() || width > SUBTREE_CHUNKS_MAX {
        return [0; 32];
    }
    level[..width].copy_from_slice(leaves);
    while width > 1 {
        width /= 2;
        for parent in 0..width {
            level[parent] = sha256(level[2 * parent..2 * parent + 2].as_flattened());
        }
    }
    level[0]
}

fn sha256(bytes: &[u8]) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// The most bytes that are signed: place, time, munro.
const PLAINTEXT_MAX: usize = 16 + 8 + 32;

/// What is signed: `spec || NTP time || munro hash` (RFC 7574, 6.1.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plaintext {
    bytes: [u8; PLAINTEXT_MAX],
    len: usize,
}

impl AsRef<[u8]> for Plaintext {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The text that is signed for the chunks `span`, whose root is `munro`, at the time `ntp`.
#[must_use]
pub fn plaintext(addressing: Addressing, span: Span, ntp: u64, munro: &Hash) -> Plaintext {
    let mut text = Plaintext { bytes: [0; PLAINTEXT_MAX], len: 0 };
    let mut put = |bytes: &[u8]| {
        text.bytes[text.len..][..bytes.len()].copy_from_slice(bytes);
        text.len += bytes.len();
    };
    for chunk in [span.first, span.last] {
        match addressing {
            // Who may not go beyond 32 bits is stopped before it comes to signing.
            Addressing::Chunks32 => put(&(chunk as u32).to_be_bytes()),
            Addressing::Chunks64 => put(&chunk.to_be_bytes()),
        }
    }
    put(&ntp.to_be_bytes());
    put(munro);
    text
}

#[cfg(test)]
mod tests;
