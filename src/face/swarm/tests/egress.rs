//! The egress budget: who is let in for it, and what it does not do for those inside.

use super::*;
use crate::face::swarm::notes::Note;
use crate::media::health::Health;
use crate::swarm::controller::Orders;

/// What may go out to peers, in bits per second. The stream takes 2 Mbit/s, with hashes and
/// headers 2.22.
const EGRESS: u64 = 10_000_000;
const WHOLE: u64 = 2_220_000;

/// From one subtree of such a stream to the next, in milliseconds.
const PERIOD: u64 = 84;

fn world(mode: Mode) -> World {
    let mut world = World::within(Some(EGRESS), Addressing::Chunks64, 16, Join::Open, 100);
    world.face.settings = Arc::new(Settings { mode, ..Settings::clone(&settings(Join::Open)) });
    // Somebody opens and never comes: now the stream is known, and takes orders.
    world.open(999);
    world
}

impl World {
    /// The controller has decided so, and that newcomers cost so much, in percent of the stream.
    fn charge(&mut self, hybrid: bool, charge: u64) {
        let (now, stream) = (self.now.mono, Arc::clone(&self.lease.stream));
        let orders = Orders { hybrid, charge, ..Orders::direct(Mono::ZERO) };
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

    /// Whether the peer `number` is refused for the budget, and that is counted.
    fn refuses(&mut self, number: u16) -> bool {
        let before = self.cell(Cell::RejectedEgress);
        let refused = self.let_in(number..number + 1).is_empty();
        assert_eq!(self.cell(Cell::RejectedEgress), before + u64::from(refused));
        refused
    }

    fn promised(&self) -> u64 {
        self.registry.admission.egress().promised()
    }

    fn measured(&self) -> u64 {
        self.registry.admission.egress().measured()
    }

    /// All have the relay push so much to them.
    fn subscribe_all(&mut self, peers: &[Peer], stripes: u8) {
        peers.iter().for_each(|peer| self.tell(*peer, &[subscribe(stripes)]));
    }

    /// A second of the stream, of which all acknowledge what they have got, and `ask` for what is
    /// not pushed. What is sent, in bits per second, and how many trains each gets.
    fn second(&mut self, peers: &[Peer], ask: bool) -> (u64, Vec<usize>) {
        self.sent.clear();
        let mut bytes = 0;
        let mut got = vec![0; peers.len()];
        let rounds = 1_000u64.div_ceil(PERIOD);
        for _ in 0..rounds {
            let first = self.chunks.len() as u64;
            self.sign(1);
            if ask {
                let span = Span { first, last: first + 15 };
                peers.iter().for_each(|peer| self.tell(*peer, &[Message::Request(span)]));
            }
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
            self.face.publish_figures(self.now.mono);
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
    let mut world = world(Mode::Direct);
    let inside = world.let_in(1..9);
    assert_eq!((inside.len(), world.cell(Cell::RejectedEgress)), (4, 4));
    assert_eq!(world.promised(), 4 * WHOLE, "whatever they subscribe to");
    world.subscribe_all(&inside, 0xff);
    world.second(&inside, false);
    let (sent, got) = world.second(&inside, false);
    assert!((EGRESS * 8 / 10..=EGRESS).contains(&sent), "{sent}");
    assert_eq!(got, [12; 4]);
    let measured = world.measured();
    assert!(
        (sent * 101 / 100..sent * 104 / 100).contains(&measured),
        "headers are on top: {measured}"
    );
}

/// The budget decides who is let in, and is held against nobody afterwards: who is inside is
/// served, whatever that takes. That is the promise to those inside, and may cost several times
/// the budget; but nobody is let in on top of it.
#[test]
fn when_all_fall_back_at_once_nobody_is_degraded_and_nobody_let_in() {
    let mut world = world(Mode::Hybrid);
    world.charge(true, 100);
    let mut inside = world.let_in(1..2);
    world.subscribe_all(&inside, 0xff);
    world.charge(true, 10);
    inside.extend(world.let_in(2..60));
    assert_eq!(inside.len(), 1 + 35, "2.22 Mbit/s, and 0.222 each");
    world.subscribe_all(&inside, 0xff);
    assert_eq!(world.promised(), 36 * WHOLE);
    world.second(&inside, false);
    let (sent, got) = world.second(&inside, false);
    assert!(sent > 7 * EGRESS, "{sent}");
    assert!(got.iter().all(|got| *got == 12), "{got:?}");
    world.charge(true, 10);
    assert!(world.refuses(60) && world.refuses(61));
    // Others feed them again.
    world.subscribe_all(&inside, 0);
    world.second(&inside, false);
    world.second(&inside, false);
    world.charge(true, 10);
    assert!(!world.refuses(62));
}

#[test]
fn a_peer_is_reckoned_at_what_it_has_the_relay_push() {
    let mut world = world(Mode::Hybrid);
    world.charge(true, 40);
    let peer = world.open(1);
    world.tell(peer, &[SUBSCRIBE]);
    assert_eq!(world.promised(), WHOLE, "not at what it came in for");
    world.tell(peer, &[subscribe(0b111)]);
    assert_eq!(world.promised(), 833_000);
    // It can have it back at any time.
    world.tell(peer, &[Message::Choke]);
    world.tell(peer, &[subscribe(0b101)]);
    assert_eq!(world.promised(), WHOLE / 4);
    world.tell(peer, &[subscribe(0)]);
    assert_eq!(world.promised(), WHOLE / 10, "never for nothing");
    // Who cannot share costs the whole stream, in a hybrid one as well.
    let plain = world.open_plain(2);
    world.tell(plain, &[Message::Have(Span { first: 0, last: 15 })]);
    assert_eq!(world.promised(), WHOLE / 10 + WHOLE);
    world.tell(peer, &[Message::Handshake(Handshake::CLOSE)]);
    assert_eq!(world.promised(), WHOLE);
    let health = Health { bitrate_bps: 4_000_000, ..Health::default() };
    world.lease.stream.set_health(health);
    world.pass(250);
    world.face.publish_figures(world.now.mono);
    assert_eq!(world.promised(), 2 * WHOLE, "the stream is another one");
}

/// What peers ask for is in no subscription.
#[test]
fn nobody_is_let_in_while_nearly_all_of_the_budget_goes_out() {
    let mut world = world(Mode::Hybrid);
    world.charge(true, 10);
    let inside = world.let_in(1..6);
    world.second(&inside, true);
    world.second(&inside, true);
    assert!(world.measured() > EGRESS * 9 / 10, "{}", world.measured());
    world.charge(true, 10);
    assert!(world.promised() < EGRESS / 2 && world.refuses(6));
    // Four of them take less than nine tenths and more than eight.
    world.second(&inside[..4], true);
    world.second(&inside[..4], true);
    let measured = world.measured();
    assert!((EGRESS * 8 / 10..EGRESS * 9 / 10).contains(&measured), "{measured}");
    world.charge(true, 10);
    assert!(world.refuses(7));
    world.second(&inside[..3], true);
    world.second(&inside[..3], true);
    world.charge(true, 10);
    assert!(!world.refuses(8));
}

/// The controller gives up: the relay sends everything to everybody from now on.
#[test]
fn nobody_is_let_in_on_top_of_a_fall_back() {
    let mut world = world(Mode::Auto);
    world.charge(true, 10);
    let inside = world.let_in(1..11);
    assert_eq!((inside.len(), world.promised()), (10, WHOLE));
    world.charge(false, 100);
    assert_eq!(world.promised(), 10 * WHOLE, "before any of them has asked for it");
    assert!(world.refuses(11));
    world.subscribe_all(&inside, 0xff);
    world.second(&inside, false);
    assert!(world.second(&inside, false).1.iter().all(|got| *got == 12));
    assert!(world.refuses(12));
}

#[test]
fn a_shard_without_peers_does_not_keep_the_door_closed() {
    let mut world = world(Mode::Hybrid);
    world.charge(true, 10);
    let inside = world.let_in(1..6);
    world.second(&inside, true);
    world.second(&inside, true);
    assert!(world.measured() > EGRESS * 9 / 10, "{}", world.measured());
    let close = [Message::Handshake(Handshake::CLOSE)];
    inside.iter().for_each(|peer| world.tell(*peer, &close));
    assert_eq!((world.measured(), world.promised()), (0, 0));
    assert!(!world.refuses(6));
}
