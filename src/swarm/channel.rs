//! Ids of the links that we answer: what a stranger must know to be heard.
//!
//! The attack: somebody who cannot see our datagrams sends data or a close in another peer's
//! name. RFC 7574 has one defence, and it costs nothing per datagram: 32 bits that cannot be
//! guessed (section 12.1). Ours have 23 such bits, for one says that we issued the id, and eight
//! which shard did:
//!
//! ```text
//! 1 | keyed hash of address, port and the other end's id: 23 | shard: 8
//! ```
//!
//! The top bit keeps them apart from a tracker's connection ids (01) and from openings (00). The
//! hash makes the answer to a repeated opening the same, without looking for the first one.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::hmac;

use crate::base::ids::ShardId;

/// Ids of closed links that are not given again as long as they are remembered.
const CLOSED_MAX: usize = 1_024;

/// How many ids are tried for one opening: with 20,000 links a try fails once in 400.
const TRIES: u8 = 8;

/// The bit that says that the id is one of ours.
const OURS: u32 = 1 << 31;

/// The shard that issued an id; `None` if nobody here did.
#[must_use]
pub const fn shard_of(channel: u32) -> Option<ShardId> {
    if channel & OURS == 0 { None } else { Some(ShardId((channel & 0xff) as u16)) }
}

/// What an id stands for already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nothing.
    Free,
    /// The same opening, made before.
    Same,
    /// Another link.
    Other,
}

/// Issues the ids of one shard.
#[derive(Debug)]
pub struct Channels {
    key: hmac::Key,
    shard: u8,
    closed: VecDeque<u32>,
}

impl Channels {
    /// Ids of `shard` (one of the first 256), made with a key that is random and the process's.
    #[must_use]
    pub fn new(key: &[u8; 32], shard: ShardId) -> Channels {
        Channels {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            shard: shard.0.to_be_bytes()[1],
            closed: VecDeque::with_capacity(CLOSED_MAX),
        }
    }

    /// A short name of an address, the same on all shards, which tells nothing about it.
    #[must_use]
    pub fn name(&self, address: SocketAddr) -> u32 {
        let ip = match address.ip().to_canonical() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut text = [b'n'; 19];
        text[1..17].copy_from_slice(&ip.octets());
        text[17..].copy_from_slice(&address.port().to_be_bytes());
        let tag = hmac::sign(&self.key, &text);
        tag.as_ref().iter().take(4).fold(0, |name, byte| name << 8 | u32::from(*byte))
    }

    /// The id for an opening from `from`, whose own id is `theirs`; `None` when all that were
    /// tried are in use. `taken` says what an id stands for.
    pub fn issue(
        &self,
        from: SocketAddr,
        theirs: u32,
        taken: impl Fn(u32) -> Taken,
    ) -> Option<u32> {
        (0..TRIES).map(|salt| self.hash(from, theirs, salt)).find(|id| match taken(*id) {
            Taken::Same => true,
            Taken::Free => !self.closed.contains(id),
            Taken::Other => false,
        })
    }

    /// The link with this id is gone: late datagrams for it must not meet another one.
    pub fn retire(&mut self, channel: u32) {
        if self.closed.len() == CLOSED_MAX {
            self.closed.pop_front();
        }
        self.closed.push_back(channel);
    }

    fn hash(&self, from: SocketAddr, theirs: u32, salt: u8) -> u32 {
        let ip = match from.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut input = [0; 23];
        input[..16].copy_from_slice(&ip.octets());
        input[16..18].copy_from_slice(&from.port().to_be_bytes());
        input[18..22].copy_from_slice(&theirs.to_be_bytes());
        input[22] = salt;
        let tag = hmac::sign(&self.key, &input);
        let word = tag.as_ref().first_chunk().map_or(0, |word| u32::from_be_bytes(*word));
        OURS | word & !0xff | u32::from(self.shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    #[test]
    fn ids_carry_the_shard_and_cannot_be_guessed() {
        let (a, b) = (Channels::new(&[1; 32], ShardId(7)), Channels::new(&[2; 32], ShardId(7)));
        let mut seen = std::collections::HashSet::new();
        for port in 1..500 {
            let id = a.issue(from(port), 9, |_| Taken::Free).unwrap();
            assert_eq!(shard_of(id), Some(ShardId(7)));
            assert_ne!(Some(id), b.issue(from(port), 9, |_| Taken::Free), "another key");
            seen.insert(id);
        }
        assert!(seen.len() > 497, "{} of 499", seen.len());
        assert_eq!(shard_of(0), None);
        assert_eq!(shard_of(0x4000_0001), None, "a tracker's");
    }

    #[test]
    fn an_opening_that_is_repeated_gets_the_same_id() {
        let channels = Channels::new(&[1; 32], ShardId(0));
        let id = channels.issue(from(1), 9, |_| Taken::Free);
        assert_eq!(channels.issue(from(1), 9, |_| Taken::Same), id);
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:1".parse().unwrap();
        assert_eq!(channels.issue(mapped, 9, |_| Taken::Free), id, "the same address");
        let other = channels.issue(from(1), 9, |at| match Some(at) == id {
            true => Taken::Other,
            false => Taken::Free,
        });
        assert!(other.is_some() && other != id);
        assert_eq!(channels.issue(from(1), 9, |_| Taken::Other), None, "all are in use");
    }

    #[test]
    fn closed_ids_rest_before_they_are_used_again() {
        let mut channels = Channels::new(&[1; 32], ShardId(0));
        let free = |channels: &Channels| channels.issue(from(1), 9, |_| Taken::Free).unwrap();
        let id = free(&channels);
        channels.retire(id);
        assert_ne!(free(&channels), id);
        (0..CLOSED_MAX as u32).for_each(|other| channels.retire(other));
        assert_eq!(free(&channels), id, "bounded");
        assert_eq!(channels.closed.capacity(), CLOSED_MAX);
    }
}
