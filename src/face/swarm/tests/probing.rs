//! Peers measure what their lines carry.

use super::*;
use crate::wire::ppspp::{Probe, kind};

fn probe(run: u8, index: u8, of: u8) -> Message<'static> {
    Message::Private(Private::Probe(Probe::filling(1_200, run, index, of)))
}

impl World {
    fn measuring() -> (World, Peer) {
        let mut world = World::new();
        let settings = Settings { mode: Mode::Auto, ..(*settings(Join::Open)).clone() };
        world.face.settings = Arc::new(settings);
        let peer = world.open(1);
        world.tell(peer, &[SUBSCRIBE]);
        (world, peer)
    }

    /// What it was answered since it was last heard.
    fn probed(&mut self, peer: Peer) -> Vec<(u8, u32)> {
        self.hear(peer).into_iter().filter_map(|heard| heard.probed).collect()
    }

    /// Sends these datagrams of a train, one every so many milliseconds.
    fn train(&mut self, peer: Peer, run: u8, of: u8, which: &[u8], apart: u64) {
        for index in which {
            self.tell(peer, &[probe(run, *index, of)]);
            self.pass(apart);
        }
    }

    fn count_after(&mut self, millis: u64) {
        self.pass(millis);
        self.face.publish_figures(self.now.mono);
        self.run();
    }
}

#[test]
fn a_train_is_answered_when_its_last_datagram_comes() {
    let (mut world, peer) = World::measuring();
    let all: Vec<u8> = (0..48).collect();
    // Two milliseconds for 1,228 bytes.
    world.train(peer, 7, 48, &all[..47], 2);
    assert!(world.probed(peer).is_empty());
    world.train(peer, 7, 48, &all[47..], 2);
    assert_eq!(world.probed(peer), [(7, 4_912)]);
    assert_eq!(world.cell(Cell::SwarmProbesAnswered), 1);
    assert_eq!(world.cell(Cell::SwarmProbesDropped), 0);
    world.count_after(800);
    assert_eq!(world.face.probings.len(), 0, "forgotten");
    // A faster one in one go: as fast as can be told.
    world.train(peer, 8, 12, &all[..12], 0);
    assert_eq!(world.probed(peer), [(8, 100_000)]);
}

#[test]
fn a_train_whose_end_is_lost_is_answered_by_what_came() {
    let (mut world, peer) = World::measuring();
    let some: Vec<u8> = (0..30).filter(|index| index % 10 != 3).collect();
    world.train(peer, 1, 48, &some, 4);
    world.count_after(200);
    assert!(world.probed(peer).is_empty(), "more may come");
    world.count_after(250);
    // Twenty-seven came, four milliseconds apart.
    assert_eq!(world.probed(peer), [(1, 2_456)]);
    world.count_after(500);
    assert!(world.face.probings.len() == 0 && world.probed(peer).is_empty());
    // What belongs to no train begins none.
    let probe = |index, of| Message::Private(Private::Probe(Probe::filling(1_200, 9, index, of)));
    world.tell(peer, &[probe(0, 0)]);
    world.tell(peer, &[probe(5, 5)]);
    world.tell(peer, &[probe(5, 65)]);
    assert_eq!((world.face.probings.len(), world.cell(Cell::SwarmProbesDropped)), (0, 3));
    // Of too little nothing follows.
    world.train(peer, 2, 48, &[0, 1, 2, 3], 4);
    world.count_after(400);
    assert_eq!(world.probed(peer), [(2, 0)]);
}

#[test]
fn datagrams_that_overtake_others_change_little() {
    let (mut world, peer) = World::measuring();
    let mut mixed: Vec<u8> = (0..32).collect();
    mixed[..31].chunks_mut(3).for_each(|three| three.reverse());
    world.train(peer, 1, 32, &mixed, 2);
    assert_eq!(world.probed(peer), [(1, 4_912)]);
    world.pass(1_000);
    // The last one overtakes two: they are too late.
    let mut early: Vec<u8> = (0..32).collect();
    early.swap(29, 31);
    world.train(peer, 2, 32, &early, 2);
    assert_eq!(world.probed(peer), [(2, 4_912)]);
    assert_eq!(world.cell(Cell::SwarmProbesDropped), 2);
}

#[test]
fn a_flood_is_answered_once_in_a_while_and_with_less_than_it_has() {
    let (mut world, peer) = World::measuring();
    let heard = world.heard;
    for run in 0..100u8 {
        for index in [0, 0, 1, 1, 200] {
            world.tell(peer, &[probe(run, index, 2)]);
        }
        world.tell(peer, &[probe(run, 3, 65)]);
        world.pass(20);
    }
    let answered = world.probed(peer).len();
    assert!((2..=3).contains(&answered), "{answered} in two seconds");
    let dropped = world.cell(Cell::SwarmProbesDropped);
    assert_eq!(dropped as usize, 600 - 2 * answered);
    // The smallest there is, all in one datagram.
    world.pass(1_000);
    drop(world.hear(peer));
    let tiny = |index| {
        Message::Private(Private::Probe(Probe { padding: &[0; 3], run: 200, index, of: 2 }))
    };
    world.tell(peer, &[tiny(0), tiny(1), tiny(0), tiny(1)]);
    let answers = world.hear(peer);
    assert!(answers.iter().all(|heard| heard.bytes < 4 + 2 * 9), "{answers:?}");
    assert!(world.heard > heard);
}

#[test]
fn only_confirmed_peers_that_say_so_are_answered_and_only_where_lines_matter() {
    let (mut world, peer) = World::measuring();
    let answers = |world: &mut World, from: Peer| {
        (0..12).for_each(|index| world.tell(from, &[probe(1, index, 12)]));
        world.hear(from).into_iter().any(|heard| heard.probed.is_some())
    };
    assert!(answers(&mut world, peer));
    // Who leaves in the middle of it is not answered, nor who comes in its place.
    let gone = world.open(3);
    world.tell(gone, &[SUBSCRIBE, probe(1, 0, 2)]);
    world.tell(gone, &[Message::Handshake(Handshake::CLOSE)]);
    world.count_after(400);
    assert_eq!(world.cell(Cell::SwarmProbesAnswered), 1);
    // From elsewhere, and to no channel.
    let foreign = Peer { at: at(99), ..peer };
    assert!(!answers(&mut world, foreign));
    assert!(!answers(&mut world, Peer { theirs: peer.theirs ^ 0x100, at: at(98), ..peer }));
    let plain = MessageSet::OURS.without(kind::PROBE);
    let options = Options { messages: Some(plain), ..world.options() };
    let deaf = world.open_with(2, options).unwrap().0;
    assert!(!answers(&mut world, deaf));
    assert_eq!(world.cell(Cell::SwarmProbesDropped), 12);
    // In direct mode it is not offered, and not done.
    let mut direct = World::new();
    let peer = direct.open(1);
    direct.tell(peer, &[SUBSCRIBE]);
    assert!(!answers(&mut direct, peer));
    assert_eq!(direct.cell(Cell::SwarmProbesDropped), 12);
}

#[test]
fn the_bit_is_set_where_lines_are_measured() {
    for (mode, set) in [(Mode::Direct, false), (Mode::Auto, true), (Mode::Hybrid, true)] {
        let mut world = World::new();
        let settings = Settings { mode, ..(*settings(Join::Open)).clone() };
        world.face.settings = Arc::new(settings);
        let datagram = world.opening(5, world.options());
        world.say(at(1), &datagram);
        let answer = world.take(at(1)).remove(0);
        let (_, messages) = ppspp::split(&answer).unwrap();
        let mut messages = Messages::new(messages, world.addressing, CHUNK);
        let Some(Ok(Message::Handshake(Handshake { options, .. }))) = messages.next() else {
            panic!("no handshake");
        };
        assert_eq!(options.knows(kind::PROBE), set, "{mode:?}");
        assert!(options.knows(kind::LINKS));
    }
}
