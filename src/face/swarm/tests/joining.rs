//! Openings, their confirmation, and who is not let in.

use super::*;
use crate::swarm::halfopen::OPENINGS_MAX;

fn span(first: u64, last: u64) -> Span {
    Span { first, last }
}

#[test]
fn an_opening_is_answered_with_what_is_there_and_no_more_bytes() {
    let mut world = World::new();
    let options = world.options();
    assert_eq!(world.opening(1, options).len(), 113, "the size of the specification");
    let (peer, have) = world.open_with(1, options).unwrap();
    assert_eq!(have, [span(0, 47)]);
    assert_eq!(shard_of(peer.theirs), Some(ShardId(0)));
    assert_eq!(world.shipments[0].bytes(), 60);
    assert_eq!(world.shipments[0].from, Some([192, 0, 2, 77].into()), "from where it was asked");
    let (again, _) = world.open_with(1, options).unwrap();
    assert_eq!(again.theirs, peer.theirs, "the answer may have been lost");
    assert_eq!((world.face.openings.len(), world.face.sessions.len()), (1, 0));
    assert_eq!(world.registry.admission.peers(), 0, "nobody is in before the echo");
    world.tell(peer, &[SUBSCRIBE]);
    assert_eq!((world.face.openings.len(), world.face.sessions.len()), (0, 1));
    let (late, _) = world.open_with(1, options).unwrap();
    assert_eq!(late.theirs, peer.theirs, "a late copy opens nothing new");
    assert_eq!(world.face.openings.len(), 0);
    world.pass(30_000);
    let (_, have) = world.open_with(2, options).unwrap();
    assert_eq!(have, [], "signed more than 20 s ago");
}

#[test]
fn what_is_wrong_meets_silence() {
    let mut world = World::new();
    let good = world.options();
    let other = World::new().options();
    let wrong = [
        (Options { version: None, ..good }, Cell::SwarmOpeningsUnfit),
        (Options { min_version: None, ..good }, Cell::SwarmOpeningsUnfit),
        (Options { min_version: Some(2), ..good }, Cell::SwarmOpeningsUnfit),
        (Options { swarm_id: None, ..good }, Cell::SwarmOpeningsUnfit),
        (Options { swarm_id: other.swarm_id, ..good }, Cell::SwarmOpeningsUnknown),
        (Options { swarm_id: Some(b"short"), ..good }, Cell::SwarmOpeningsUnknown),
        (Options { integrity: Some(1), ..good }, Cell::SwarmOpeningsUnfit),
        (Options { integrity: None, ..good }, Cell::SwarmOpeningsUnfit),
        (Options { hash: Some(0), ..good }, Cell::SwarmOpeningsUnfit),
        (Options { signature: Some(14), ..good }, Cell::SwarmOpeningsUnfit),
        (Options { addressing: Some(2), ..good }, Cell::SwarmOpeningsUnfit),
        (Options { window: None, ..good }, Cell::SwarmOpeningsUnfit),
        (Options { chunk_size: Some(1_024), ..good }, Cell::SwarmOpeningsUnfit),
        (Options { chunk_size: None, ..good }, Cell::SwarmOpeningsUnfit),
    ];
    for (n, (options, cell)) in wrong.into_iter().enumerate() {
        let before = world.cell(cell);
        assert!(world.open_with(n as u16, options).is_none(), "{options:?}");
        assert_eq!(world.cell(cell), before + 1, "{options:?}");
    }
    let datagram = world.opening(5, good);
    let swap = |a: usize, b: usize| {
        let mut swapped = datagram.clone();
        swapped.swap(a, b);
        swapped
    };
    for bad in [
        swap(9, 11), // Options out of order.
        datagram[..datagram.len() - 1].to_vec(),
        [&datagram[..4], &[0x0a], &datagram[4..]].concat(), // CHOKE first.
        world.opening(0, good),                             // A close.
        vec![0, 0, 0, 0],
    ] {
        world.say(at(99), &bad);
    }
    assert_eq!(world.cell(Cell::SwarmOpeningsMalformed), 5);
    // A tracker's connect, STUN, a tracker's id, too short, a shard that does not exist.
    for stray in [
        &[0, 0, 4, 0x17, 0x27, 0x10][..],
        &[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42],
        &[0x40, 0, 0, 1, 0],
        &[1, 2, 3],
        &[0xff, 0, 0, 9],
    ] {
        world.say(at(99), stray);
    }
    assert_eq!(world.cell(Cell::SwarmDatagramsStray), 5);
    world.say(at(99), &[0xff, 0, 0, 0]);
    assert_eq!(world.cell(Cell::SwarmDatagramsUnknown), 1);
    world.say(at(99), &[0x81, 2, 3, 1, 0x0b]);
    assert_eq!(world.forwarded, [(ShardId(1), vec![0x81, 2, 3, 1, 0x0b])]);
    assert!(world.sent.is_empty(), "silence");
    // What counts: a broken message behind the handshake, zero bytes behind the bitmap.
    world.say(at(98), &[&datagram[..], &[0x77, 1, 2]].concat());
    assert_eq!(world.take(at(98)).len(), 1);
}

#[test]
fn only_the_address_that_opened_can_confirm() {
    let mut world = World::new();
    let peer = world.open(1);
    world.tell(Peer { at: at(2), ..peer }, &[SUBSCRIBE]);
    assert_eq!(world.cell(Cell::SwarmDatagramsForeign), 1);
    assert_eq!(world.face.sessions.len(), 0);
    world.tell(peer, &[SUBSCRIBE]);
    world.tell(Peer { at: at(2), ..peer }, &[Message::Handshake(Handshake::CLOSE)]);
    assert_eq!((world.face.sessions.len(), world.cell(Cell::SwarmPeers)), (1, 1));
    let late = world.open(3);
    world.pass(3_001);
    world.tell(late, &[SUBSCRIBE]);
    assert_eq!(world.cell(Cell::SwarmDatagramsUnknown), 1, "three seconds are over");
}

#[test]
fn a_flood_of_openings_gets_less_than_it_sends_and_takes_no_memory() {
    let mut world = World::new();
    let inside = world.open(1);
    world.tell(inside, &[SUBSCRIBE]);
    (world.heard, world.shipments) = (0, Vec::new());
    let options = world.options();
    for n in 0..2 * OPENINGS_MAX as u32 {
        let from = ([10, 9, n.to_be_bytes()[2], n.to_be_bytes()[3]], 1_000).into();
        let datagram = world.opening(n + 1, options);
        world.say(from, &datagram);
    }
    let sent: u64 = world.shipments.iter().map(Shipment::bytes).sum();
    assert!(sent < world.heard as u64, "{sent} of {}", world.heard);
    assert_eq!(world.face.openings.len(), OPENINGS_MAX);
    assert_eq!(world.cell(Cell::SwarmOpeningsEvicted), OPENINGS_MAX as u64);
    assert!(world.face.letters.capacity() <= 2 * LETTERS_MAX);
    world.sent.clear();
    world.sign(1);
    assert_eq!(world.hear(inside).len(), 17, "who is inside does not notice");
}

#[test]
fn letters_wait_for_the_socket_up_to_a_bound() {
    let mut world = World::new();
    world.face.handle_socket(true);
    let options = world.options();
    for n in 0..2_000 {
        let datagram = world.opening(9, options);
        world.say(at(n), &datagram);
    }
    assert!(world.sent.is_empty());
    world.face.handle_socket(false);
    world.run();
    assert_eq!(world.sent.len(), LETTERS_MAX);
    assert_eq!(world.cell(Cell::SwarmLettersDropped), 2_000 - LETTERS_MAX as u64);
}

#[test]
fn a_token_opens_where_one_is_needed() {
    let hash = |token: &[u8]| {
        let mut hash = [0; 32];
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token);
        hash.copy_from_slice(digest.as_ref());
        hash
    };
    let join = Join::Token(vec![hash(b"other"), hash(b"secret")]);
    let mut world = World::of(Addressing::Chunks64, 16, join, 9);
    let token = |text: &'static [u8]| Message::Private(Private::Token(text));
    for (n, messages) in [&[SUBSCRIBE][..], &[token(b"wrong"), SUBSCRIBE]].into_iter().enumerate() {
        let peer = world.open(n as u16);
        world.tell(peer, messages);
        let [told] = &world.hear(peer)[..] else { panic!("one datagram") };
        assert_eq!((told.bye, told.closed, told.bytes), (Some(Bye::Token), true, 14));
    }
    let plain = world.open_plain(7);
    world.tell(plain, &[]);
    assert_eq!(world.hear(plain)[0], Heard { bytes: 10, closed: true, ..Heard::default() });
    assert_eq!(world.cell(Cell::RejectedToken), 3);
    let good = world.open(8);
    world.tell(good, &[token(b"secret"), SUBSCRIBE]);
    world.sign(1);
    assert_eq!(world.hear(good).len(), 17);
}

#[test]
fn beyond_a_limit_who_has_proven_the_address_is_told_and_leaves_nothing() {
    let mut world = World::of(Addressing::Chunks64, 16, Join::Open, 1);
    let first = world.open(1);
    world.tell(first, &[SUBSCRIBE]);
    let second = world.open(2);
    world.tell(second, &[SUBSCRIBE]);
    assert_eq!(world.hear(second)[0].bye, Some(Bye::Busy));
    assert_eq!((world.cell(Cell::RejectedPeers), world.face.sessions.len()), (1, 1));
    world.tell(second, &[SUBSCRIBE]);
    assert!(world.hear(second).is_empty(), "its channel is forgotten");
    world.tell(
        first,
        &[Message::Private(Private::Bye(Bye::Leaving)), Message::Handshake(Handshake::CLOSE)],
    );
    assert!(world.hear(first).is_empty(), "a close is not answered");
    assert_eq!(world.cell(Cell::PeersLeft), 1);
    assert_eq!((world.registry.admission.peers(), world.cell(Cell::SwarmPeers)), (0, 0));
    world.face.set_busy(true);
    let options = world.options();
    assert!(world.open_with(3, options).is_none());
    assert_eq!(world.cell(Cell::SwarmOpeningsBusy), 1);
    world.face.set_busy(false);
    let third = world.open(3);
    world.tell(third, &[SUBSCRIBE]);
    assert_eq!(world.face.sessions.len(), 1);
}

#[test]
fn everybody_is_told_when_the_process_or_the_stream_ends() {
    for (bye, cell) in [(Bye::Draining, Cell::PeersDrain), (Bye::Ended, Cell::PeersStreamEnded)] {
        let mut world = World::new();
        let peers: Vec<_> = (0..20).map(|n| world.open(n)).collect();
        peers.iter().for_each(|peer| world.tell(*peer, &[SUBSCRIBE]));
        let plain = world.open_plain(50);
        world.tell(plain, &[]);
        world.sent.clear();
        match bye {
            Bye::Draining => world.face.handle_drain(),
            _ => world.face.handle_end(&Arc::clone(&world.lease.stream)),
        }
        world.run();
        for peer in peers {
            let [told] = &world.hear(peer)[..] else { panic!("one datagram") };
            assert_eq!((told.bye, told.closed), (Some(bye), true));
        }
        assert_eq!(world.hear(plain)[0].bytes, 10);
        assert_eq!((world.cell(cell), world.registry.admission.peers()), (21, 0));
        assert_eq!(world.lease.stream.share(ShardId(0)).peers.load(Relaxed), 0);
        if bye == Bye::Draining {
            let options = world.options();
            assert!(world.open_with(60, options).is_none());
        }
    }
}
