//! Somebody who floods relay and peers under the addresses of others: openings that are well
//! made, and words for channels that were guessed.

use std::net::{Ipv4Addr, SocketAddrV4};

use bytes::Bytes;

use crate::base::time::Mono;
use crate::sim::dice::Dice;
use crate::sim::flight::{Cargo, Flight};
use crate::sim::world::{Event, PORT, World};
use crate::swarm::opener::Opener;
use crate::swarm::receiver::Profile;

/// Addresses that nobody has (RFC 5737).
const NOBODY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 0);

/// Datagrams at a time.
const AT_ONCE: usize = 20;

/// The flood.
pub struct Spoofer {
    dice: Dice,
    /// Openings that were sent under the sender's own address.
    pub openings: u64,
}

impl Spoofer {
    /// With these dice.
    #[must_use]
    pub fn new(dice: Dice) -> Spoofer {
        Spoofer { dice, openings: 0 }
    }

    /// Sends some datagrams to `victims`; half of them seem to come from one of these.
    pub fn flood(&mut self, world: &mut World, profile: Profile, victims: &[Ipv4Addr]) {
        for _ in 0..AT_ONCE {
            let mut pick = || victims[self.dice.below(victims.len() as u64) as usize];
            let (to, other) = (pick(), pick());
            let nobody = Ipv4Addr::from(u32::from(NOBODY) + self.dice.below(256) as u32);
            let from = if self.dice.happens(500_000) { other } else { nobody };
            let bytes = match self.dice.happens(500_000) {
                true => self.opening(profile, world.now()),
                false => self.garbage(),
            };
            throw(world, from, to, bytes);
        }
    }

    /// Sends an opening from each of these addresses to somebody: whoever is there may answer.
    pub fn besiege(
        &mut self,
        world: &mut World,
        profile: Profile,
        attackers: &[Ipv4Addr],
        victims: &[Ipv4Addr],
    ) {
        for from in attackers {
            let to = victims[self.dice.below(victims.len() as u64) as usize];
            let bytes = self.opening(profile, world.now());
            throw(world, *from, to, bytes);
            self.openings += 1;
        }
    }

    fn opening(&mut self, profile: Profile, now: Mono) -> Vec<u8> {
        let channel = 0x8000_0000 | self.dice.number() as u32;
        let mut buf = [0; 1_500];
        let mut opener = Opener::new(profile, channel, now);
        let len = opener.poll_datagram(now, 4_096, &mut buf).unwrap_or(0);
        buf[..len].to_vec()
    }

    fn garbage(&mut self) -> Vec<u8> {
        let len = 5 + self.dice.below(1_300) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| self.dice.number() as u8).collect();
        // A channel as they are given out, and a type that exists.
        bytes[0] |= 0x80;
        bytes[4] %= 14;
        bytes
    }
}

/// A datagram comes to the line of `to`, and seems to come from `from`.
fn throw(world: &mut World, from: Ipv4Addr, to: Ipv4Addr, bytes: Vec<u8>) {
    let [from, to] = [from, to].map(|ip| SocketAddrV4::new(ip, PORT));
    let flight = Flight::new(from, to, Cargo::Datagram(Bytes::from(bytes).into()), 0);
    world.inject(Event::Router(Box::new(flight)));
}
