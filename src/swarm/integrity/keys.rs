//! P-256 keys: the name of a swarm, its signer, and who checks signatures.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    ParsedPublicKey,
};

use crate::swarm::integrity::{CannotSign, Hash, Signature, Signer, Verifier, leaf, munro};

/// DNSSEC's number of ECDSA P-256 with SHA-256 (RFC 6605).
const ALGORITHM: u8 = 13;

/// What stands before an uncompressed point (SEC 1, 2.3.3), and not in a swarm id.
const UNCOMPRESSED: u8 = 4;

/// Bytes of a swarm id.
const LEN: usize = 65;

/// The name of a live swarm: its algorithm's number and its public key (RFC 7574, 6.1).
///
/// Every value of this type names an algorithm that can be verified here; whether its key lies
/// on the curve is known when the first signature is checked.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SwarmId([u8; LEN]);

/// Why bytes or text are no swarm id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadSwarmId {
    /// Not 65 bytes, or not 130 hexadecimal digits.
    Length,
    /// Not ECDSA P-256 with SHA-256.
    Algorithm,
    /// A character that is no hexadecimal digit.
    Digit,
}

impl fmt::Display for BadSwarmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadSwarmId::Length => "a swarm id has 130 hexadecimal digits",
            BadSwarmId::Algorithm => "a swarm id begins with 0d (ECDSA P-256 with SHA-256)",
            BadSwarmId::Digit => "a swarm id has hexadecimal digits only",
        })
    }
}

impl std::error::Error for BadSwarmId {}

impl SwarmId {
    /// The id as it stands in a handshake.
    ///
    /// # Errors
    /// If these bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<SwarmId, BadSwarmId> {
        let bytes: [u8; LEN] = bytes.try_into().map_err(|_| BadSwarmId::Length)?;
        if bytes[0] == ALGORITHM { Ok(SwarmId(bytes)) } else { Err(BadSwarmId::Algorithm) }
    }

    /// The id of a key, whose public half is this point: uncompressed, as SEC 1 writes it.
    ///
    /// # Errors
    /// If the point has another length.
    pub fn of_point(point: &[u8]) -> Result<SwarmId, BadSwarmId> {
        let mut bytes: [u8; LEN] = point.try_into().map_err(|_| BadSwarmId::Length)?;
        bytes[0] = ALGORITHM;
        Ok(SwarmId(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }

    /// The public key as an uncompressed point.
    pub(super) fn point(&self) -> [u8; LEN] {
        let mut point = self.0;
        point[0] = UNCOMPRESSED;
        point
    }
}

impl fmt::Display for SwarmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SwarmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SwarmId({self})")
    }
}

impl FromStr for SwarmId {
    type Err = BadSwarmId;
    fn from_str(text: &str) -> Result<SwarmId, BadSwarmId> {
        if text.len() != 2 * LEN {
            return Err(BadSwarmId::Length);
        }
        let digit = |c: u8| (c as char).to_digit(16).ok_or(BadSwarmId::Digit);
        let mut bytes = [0; LEN];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            // Below 256: two digits.
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        SwarmId::from_bytes(&bytes)
    }
}

/// A key could not be made or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadKey;

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no P-256 key in PKCS#8")
    }
}

impl std::error::Error for BadKey {}

/// Both halves of a stream's key. Never shown, not even to a debugger's eye.
pub struct KeyPair {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    id: SwarmId,
}

impl KeyPair {
    /// A new key.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate() -> Result<KeyPair, BadKey> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        pair.map_err(|_| BadKey).and_then(KeyPair::new)
    }

    /// A key that was kept as [`KeyPair::pkcs8`].
    ///
    /// # Errors
    /// If these bytes are none, or of another kind.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<KeyPair, BadKey> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, bytes);
        pair.map_err(|_| BadKey).and_then(KeyPair::new)
    }

    fn new(pair: EcdsaKeyPair) -> Result<KeyPair, BadKey> {
        let id = SwarmId::of_point(pair.public_key().as_ref()).map_err(|_| BadKey)?;
        Ok(KeyPair { pair, random: SystemRandom::new(), id })
    }

    /// The secret half, to be kept (PKCS#8, version 1).
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn pkcs8(&self) -> Result<Vec<u8>, BadKey> {
        self.pair.to_pkcs8v1().map(|document| document.as_ref().to_vec()).map_err(|_| BadKey)
    }

    #[cfg(test)]
    pub(super) fn from_private(d: &[u8; 32], point: &[u8]) -> Result<KeyPair, BadKey> {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, d, point);
        pair.map_err(|_| BadKey).and_then(KeyPair::new)
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.id)
    }
}

impl Signer for KeyPair {
    fn swarm_id(&self) -> SwarmId {
        self.id
    }

    fn sign(&self, plaintext: &[u8]) -> Result<Signature, CannotSign> {
        let signature = self.pair.sign(&self.random, plaintext).map_err(|_| CannotSign)?;
        signature.as_ref().try_into().map_err(|_| CannotSign)
    }
}

/// SHA-256 and P-256 as they are.
#[derive(Default)]
pub struct Real {
    /// The key asked for last: reading one costs a part of a verification.
    key: Option<(SwarmId, ParsedPublicKey)>,
}

impl Real {
    fn key(&mut self, id: &SwarmId) -> Option<&ParsedPublicKey> {
        if self.key.as_ref().is_none_or(|(known, _)| known != id) {
            let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, id.point());
            self.key = Some((*id, key.ok()?));
        }
        self.key.as_ref().map(|(_, key)| key)
    }
}

impl fmt::Debug for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Real")
    }
}

impl Verifier for Real {
    fn leaf(&mut self, chunk: &[u8]) -> Hash {
        leaf(chunk)
    }

    fn munro(&mut self, leaves: &[Hash]) -> Hash {
        munro(leaves)
    }

    fn verify(&mut self, id: &SwarmId, plaintext: &[u8], signature: &Signature) -> bool {
        self.key(id).is_some_and(|key| key.verify_sig(plaintext, signature).is_ok())
    }
}
