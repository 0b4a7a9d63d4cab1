//! The egress budget: who is let in for it, and what it does not do for those inside.

use super::*;
use crate::face::swarm::notes::Note;
use crate::swarm::controller::Orders;

/// What may be promised to peers, in bits per second. The stream takes 2 Mbit/s, with hashes and
/// headers 2.22.
const EGRESS: u64 = 10_000_000;

/// From one subtree of such a stream to the next, in milliseconds.
const PERIOD: u64 = 84;

fn world() -> World {
    World::within(Some(EGRESS), Addressing::Chunks64, 16, Join::Open, 100)
}

impl World {
    /// The controller has decided that newcomers cost so much, in percent of the stream.
    fn charge(&mut self, charge: u64) {
        let (now, stream) = (self.now.mono, Arc::clone(&self.lease.stream));
        let orders = Orders { hybrid: charge < 100, charge, ..Orders::direct(Mono::ZERO) };
        self.face.handle_note(now, Note::Orders { stream, orders: Arc::new(orders) });
        self.run();
    }

    /// Those of the peers `numbers` that are let in; they ask the relay for nothing yet.
    fn let_in(&mut self, numbers: std::ops::Range<u16>) -> Vec<Peer> {
        let come = |n| {
            let peer = self.open(n);
            self.tell(peer, &[subscribe(0)]);
            self.face.sessions.find(peer.theirs).is_some().then_some(peer)
        };
        numbers.filter_map(come).collect()
    }

    /// All ask for everything for a second, and acknowledge it. What is sent, in bits per second,
    /// and how many trains each gets.
    fn fall_back(&mut self, peers: &[Peer]) -> (u64, Vec<usize>) {
        peers.iter().for_each(|peer| self.tell(*peer, &[subscribe(0xff)]));
        self.sent.clear();
        let mut bytes = 0;
        let mut got = vec![0; peers.len()];
        let rounds = 1_000 / PERIOD;
        for _ in 0..rounds {
            let first = self.chunks.len() as u64;
            self.sign(1);
            // Each is paced by itself, so nothing is left after a period.
            self.pass(PERIOD - 2);
            bytes += self.sent.iter().map(|(_, data)| data.len() as u64).sum::<u64>();
            for (got, peer) in got.iter_mut().zip(peers) {
                let came =
                    self.sent.iter().filter(|(to, data)| *to == peer.at && data.len() > CHUNK);
                *got += usize::from(came.count() >= self.size);
            }
            self.sent.clear();
            peers.iter().for_each(|peer| self.tell(*peer, &[ack(first, first + 15)]));
        }
        (bytes * 8 * 1_000 / (rounds * PERIOD), got)
    }
}

fn subscribe(stripes: u8) -> Message<'static> {
    let start = Subscribe::NEXT;
    Message::Private(Private::Subscribe(Subscribe { start, stripes, window: 0 }))
}

#[test]
fn in_direct_mode_what_is_sent_stays_within_what_was_promised() {
    let mut world = world();
    let inside = world.let_in(1..9);
    assert_eq!((inside.len(), world.cell(Cell::RejectedEgress)), (4, 4));
    let (sent, got) = world.fall_back(&inside);
    assert!((EGRESS * 8 / 10..=EGRESS).contains(&sent), "{sent}");
    assert_eq!(got, [11; 4]);
}

/// The budget decides who is let in, by what a peer costs while others feed it, and is held
/// against nothing afterwards: who is inside is served, whatever that takes. That is the promise
/// to those inside, and it may cost several times the budget.
#[test]
fn when_all_fall_back_at_once_the_budget_does_not_hold_and_nobody_is_degraded() {
    let mut world = world();
    let mut inside = world.let_in(1..2);
    world.charge(10);
    inside.extend(world.let_in(2..60));
    assert_eq!(inside.len(), 1 + 35, "2.22 Mbit/s, and 0.222 each");
    let (sent, got) = world.fall_back(&inside);
    assert!(sent > 7 * EGRESS, "{sent}");
    assert!(got.iter().all(|got| *got == 11), "{got:?}");
    // Nobody is let in on top of that: here, because all of the budget is promised.
    world.charge(100);
    let before = world.cell(Cell::RejectedEgress);
    assert!(world.let_in(60..63).is_empty());
    assert_eq!(world.cell(Cell::RejectedEgress), before + 3);
}

/// What was promised to somebody is not reckoned anew when peers cost more than when it came.
#[test]
fn newcomers_are_let_in_although_more_is_sent_than_the_budget_allows() {
    let mut world = world();
    let mut inside = world.let_in(1..2);
    world.charge(10);
    inside.extend(world.let_in(2..12));
    let (sent, _) = world.fall_back(&inside);
    assert!(sent > 2 * EGRESS, "{sent}");
    world.charge(100);
    assert_eq!(world.let_in(12..20).len(), 2, "4.44 Mbit/s are promised");
}
