//! Who has shown that they receive what is sent to their address: nobody else is sent more bytes
//! than they sent.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::SocketAddrV4;

use crate::base::spread::spread;

/// A host, and an address with which it speaks.
type Pair = (usize, SocketAddrV4);

/// What went between hosts and addresses.
#[derive(Debug, Default)]
pub struct Proofs(HashMap<Pair, Proof, BuildHasherDefault<Mix>>);

/// A hash for numbers that nobody chooses to harm us.
#[derive(Debug, Default)]
pub struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = spread(self.0 ^ word);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

#[derive(Debug, Default)]
struct Proof {
    asked: usize,
    answered: usize,
    proven: bool,
}

impl Proofs {
    /// A datagram came to a host from an address; `echo`: to a channel that was given out.
    pub fn asks(&mut self, pair: Pair, bytes: usize, echo: bool) {
        let proof = self.0.entry(pair).or_default();
        proof.asked += bytes;
        // A channel cannot be known to somebody who was never answered.
        proof.proven |= echo && proof.answered > 0;
    }

    /// Datagrams go from a host to an address, which may get so many bytes `unasked`. False if
    /// they may not.
    pub fn answers(&mut self, pair: Pair, bytes: usize, unasked: usize) -> bool {
        let proof = self.0.entry(pair).or_default();
        proof.answered += bytes;
        proof.proven || proof.answered <= proof.asked + unasked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_echo_opens_the_door() {
        let at = (0, SocketAddrV4::new([198, 18, 0, 1].into(), 1));
        let mut proofs = Proofs::default();
        assert!(!proofs.answers(at, 1, 0), "unasked");
        assert!(Proofs::default().answers(at, 9, 9), "a call");
        let mut proofs = Proofs::default();
        proofs.asks(at, 100, true);
        assert!(proofs.answers(at, 100, 0) && !proofs.answers(at, 1, 0), "it guessed a channel");
        proofs.asks(at, 20, true);
        assert!(proofs.answers(at, 10_000, 0));
    }
}
