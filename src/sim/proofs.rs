//! Who has shown that they receive what is sent to their address: nobody else is sent more bytes
//! than they sent.

use std::collections::HashMap;
use std::net::SocketAddrV4;

/// A host, and an address with which it speaks.
type Pair = (usize, SocketAddrV4);

/// What went between hosts and addresses.
#[derive(Debug, Default)]
pub struct Proofs(HashMap<Pair, Proof>);

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
