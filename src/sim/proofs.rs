//! Who has shown that they receive what is sent to their address: nobody else is sent more bytes
//! than they sent.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::net::SocketAddrV4;
use std::time::Duration;

use crate::base::spread::Mix;
use crate::base::time::Mono;

/// The time in which calls are counted, from the first one on.
const PERIOD: Duration = Duration::from_secs(60);

/// A host, and an address with which it speaks.
type Pair = (usize, SocketAddrV4);

/// A pair as it is looked up, for each datagram twice: a hash of two words.
fn key((host, address): Pair) -> (usize, u64) {
    (host, u64::from(u32::from(*address.ip())) << 16 | u64::from(address.port()))
}

/// What went between hosts and addresses.
#[derive(Debug, Default)]
pub struct Proofs(HashMap<(usize, u64), Proof, BuildHasherDefault<Mix>>);

#[derive(Debug, Default)]
struct Proof {
    /// Bytes that came and were not answered with as many.
    credit: usize,
    /// Something went there.
    answered: bool,
    proven: bool,
    /// Bytes that went there without having been asked for, since when.
    calls: usize,
    since: Mono,
}

impl Proofs {
    /// Datagrams came to a host from an address; `echo`: to a channel that was given out.
    pub fn asks(&mut self, pair: Pair, bytes: usize, echo: bool) {
        let proof = self.0.entry(key(pair)).or_default();
        proof.credit += bytes;
        // A channel cannot be known to somebody who was never answered.
        proof.proven |= echo && proof.answered;
    }

    /// Datagrams go from a host to an address, which may get so many bytes `unasked` in a minute.
    /// False if they may not.
    pub fn answers(&mut self, now: Mono, pair: Pair, bytes: usize, unasked: usize) -> bool {
        let proof = self.0.entry(key(pair)).or_default();
        let first = !std::mem::replace(&mut proof.answered, true);
        if proof.proven {
            return true;
        }
        if first || now.since(proof.since) >= PERIOD {
            (proof.calls, proof.since) = (0, now);
        }
        let answer = bytes.min(proof.credit);
        proof.credit -= answer;
        proof.calls += bytes - answer;
        proof.calls <= unasked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_echo_opens_the_door() {
        let at = (0, SocketAddrV4::new([198, 18, 0, 1].into(), 1));
        let now = Mono::from_millis(5_000);
        let mut proofs = Proofs::default();
        assert!(!proofs.answers(now, at, 1, 0), "unasked");
        let mut proofs = Proofs::default();
        proofs.asks(at, 100, true);
        assert!(proofs.answers(now, at, 100, 0), "as much as it asked with");
        assert!(!proofs.answers(now, at, 1, 0), "it guessed a channel");
        proofs.asks(at, 20, true);
        assert!(proofs.answers(now, at, 10_000, 0));
    }

    #[test]
    fn who_does_not_answer_is_called_a_few_times_a_minute() {
        let at = (0, SocketAddrV4::new([198, 18, 0, 1].into(), 1));
        let mut proofs = Proofs::default();
        // However long it goes on.
        for minute in 0..100 {
            let now = Mono::from_millis(7_000 + minute * 60_000);
            assert!((0..5).all(|n| proofs.answers(now + PERIOD / 10 * n, at, 113, 565)));
        }
        let mut proofs = Proofs::default();
        let now = Mono::from_millis(7_000);
        assert!((0..5).all(|_| proofs.answers(now, at, 113, 565)));
        assert!(!proofs.answers(now + PERIOD * 9 / 10, at, 113, 565), "a sixth in a minute");
        // What came is answered beside the calls, once.
        let mut proofs = Proofs::default();
        proofs.asks(at, 80, false);
        assert!(proofs.answers(now, at, 80 + 565, 565) && !proofs.answers(now, at, 1, 565));
    }
}
