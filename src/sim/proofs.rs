//! Who has shown that they receive what is sent to their address: nobody else is sent more bytes
//! than they sent.

use std::collections::HashMap;
use std::net::SocketAddrV4;

/// What went between the relay and each address.
#[derive(Debug, Default)]
pub struct Proofs(HashMap<SocketAddrV4, Proof>);

#[derive(Debug, Default)]
struct Proof {
    asked: usize,
    answered: usize,
    proven: bool,
}

impl Proofs {
    /// A datagram came from `from`; `echo`: to a channel that was given out.
    pub fn asks(&mut self, from: SocketAddrV4, bytes: usize, echo: bool) {
        let proof = self.0.entry(from).or_default();
        proof.asked += bytes;
        // A channel cannot be known to somebody who was never answered.
        proof.proven |= echo && proof.answered > 0;
    }

    /// Datagrams go to `to`. False if they may not.
    pub fn answers(&mut self, to: SocketAddrV4, bytes: usize) -> bool {
        let proof = self.0.entry(to).or_default();
        proof.answered += bytes;
        proof.proven || proof.answered <= proof.asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_echo_opens_the_door() {
        let at = SocketAddrV4::new([198, 18, 0, 1].into(), 1);
        let mut proofs = Proofs::default();
        assert!(!proofs.answers(at, 1), "unasked");
        let mut proofs = Proofs::default();
        proofs.asks(at, 100, true);
        assert!(proofs.answers(at, 100) && !proofs.answers(at, 1), "it guessed a channel");
        proofs.asks(at, 20, true);
        assert!(proofs.answers(at, 10_000));
    }
}
