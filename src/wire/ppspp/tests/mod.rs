//! What the tests of the codec share: hexadecimal, hashes, and a signer that always signs alike.

mod datagrams;
mod edges;
mod roundtrip;
mod vectors;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use p256::ecdsa::SigningKey;
use p256::ecdsa::signature::Signer;

use super::*;

/// Bytes written as hexadecimal.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

pub fn sha256(bytes: &[u8]) -> Hash {
    digest(&SHA256, bytes).as_ref().try_into().unwrap()
}

/// The hashes of `chunks` chunks of `size` bytes, chunk k being bytes of value k.
pub fn leaves(chunks: u8, size: usize) -> Vec<Hash> {
    (0..chunks).map(|k| sha256(&vec![k; size])).collect()
}

/// The root over a power of two of leaves.
pub fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len() / 2);
            sha256(&[root(left), root(right)].concat())
        }
    }
}

/// The private key 1, which signs with the nonce of RFC 6979: the same text, the same signature.
pub fn sign(plaintext: &[u8]) -> Signature {
    let mut scalar = [0; 32];
    scalar[31] = 1;
    let key = SigningKey::from_slice(&scalar).unwrap();
    let signature: p256::ecdsa::Signature = key.sign(plaintext);
    signature.to_bytes().into()
}

/// Whether the key of a swarm id signed `plaintext`.
pub fn verify(swarm_id: &[u8], plaintext: &[u8], signature: &Signature) -> bool {
    assert_eq!((swarm_id.len(), swarm_id[0]), (65, handshake::ECDSA_P256));
    let point = [&[4], &swarm_id[1..]].concat();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(plaintext, signature).is_ok()
}

/// Every message of a datagram on a known channel; it must be whole.
pub fn read(datagram: &[u8], addressing: Addressing, size: usize) -> Vec<Message<'_>> {
    Messages::new(split(datagram).unwrap().1, addressing, size).map(Result::unwrap).collect()
}

/// A datagram of these messages.
pub fn write(channel: u32, addressing: Addressing, messages: &[Message<'_>]) -> Vec<u8> {
    let mut buf = [0; 70_000];
    let mut writer = Writer::new(&mut buf, channel, addressing);
    for message in messages {
        assert!(writer.push(*message), "{message:?}");
    }
    writer.written().to_vec()
}
