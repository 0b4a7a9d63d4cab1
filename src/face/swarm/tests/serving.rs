//! What peers get: trains, answers, news; and what they lose it for.

use super::*;
use crate::swarm::crimes::Crime;
use crate::swarm::requests::RUNS_MAX;

fn request(first: u64, last: u64) -> Message<'static> {
    Message::Request(Span { first, last })
}

#[test]
fn a_subscriber_gets_each_subtree_as_one_train() {
    let mut world = World::new();
    let (one, two) = (world.open(1), world.open(2));
    world.tell(one, &[SUBSCRIBE]);
    world.tell(two, &[SUBSCRIBE]);
    assert!(world.hear(one).is_empty(), "what was before is not pushed");
    world.shipments.clear();
    world.sign(1);
    assert_eq!(world.shipments.len(), 2, "one train each");
    let [a, b] = &world.shipments[..] else { panic!() };
    let same = |a: &Payload, b: &Payload| a.as_slice().as_ptr() == b.as_slice().as_ptr();
    assert!(same(&a.head, &b.head) && same(&a.headers, &b.headers) && same(&a.body, &b.body));
    assert_eq!((a.bytes(), a.header), (22_865, 29));
    for peer in [one, two] {
        let heard = world.hear(peer);
        assert!(heard.iter().all(|datagram| datagram.bytes == 1_345));
        let span = Some(Span { first: 48, last: 63 });
        assert_eq!((heard[0].signed, heard[0].have, heard[0].leaves), (span, span, 16));
        let chunks: Vec<_> = heard[1..].iter().map(|datagram| datagram.data.unwrap()).collect();
        assert_eq!(chunks, (48..64).collect::<Vec<_>>());
    }
    for n in 4..40 {
        world.tell(one, &[ack((n - 1) * 16, n * 16 - 1)]);
        world.sign(1);
        assert_eq!(world.hear(one).len(), 17, "subtree {n}");
        world.pass(84);
    }
    assert_eq!(world.cell(Cell::SwarmTrainsPush), 36 + 2 + 1, "the other one is silent");
    let share = world.lease.stream.share(ShardId(0));
    assert!(share.swarm_bytes.load(Relaxed) > 39 * 22_865);
    assert_eq!(world.cell(Cell::PeersMtu), 1, "and was given up after its third train");
    world.face.publish_figures(world.now.mono);
    assert_eq!(share.peers.load(Relaxed), 1);
}

#[test]
fn small_subtrees_send_their_hashes_apart() {
    for (addressing, size, hash, data) in
        [(Addressing::Chunks32, 4, 299, 1_337), (Addressing::Chunks64, 8, 551, 1_345)]
    {
        let mut world = World::of(addressing, size, Join::Open, 9);
        let peer = world.open(1);
        world.tell(peer, &[SUBSCRIBE]);
        world.sign(1);
        let heard = world.hear(peer);
        assert_eq!(heard.len(), size + 1);
        assert_eq!((heard[0].bytes, heard[0].leaves), (hash, size), "not padded");
        assert!(heard[1..].iter().all(|datagram| datagram.bytes == data));
    }
}

#[test]
fn a_plain_peer_pulls_and_is_pushed_to_when_it_asks_at_the_live_edge() {
    let mut world = World::of(Addressing::Chunks32, 16, Join::Open, 9);
    let peer = world.open_plain(1);
    world.tell(peer, &[]);
    let [newest] = &world.hear(peer)[..] else { panic!("datagram 4") };
    assert_eq!(newest.signed, Some(Span { first: 32, last: 47 }), "the right-most munro, once");
    world.tell(peer, &[request(3, 3)]);
    let heard = world.hear(peer);
    assert_eq!((heard[0].leaves, heard[1].data, heard.len()), (16, Some(3), 2), "hashes first");
    world.tell(peer, &[ack(3, 3), request(4, 5)]);
    let chunks: Vec<_> = world.hear(peer).iter().map(|datagram| datagram.data).collect();
    assert_eq!(chunks, [Some(4), Some(5)]);
    world.tell(peer, &[ack(4, 4), ack(5, 5)]);
    world.pass(60);
    world.sent.clear();
    world.sign(2);
    world.pass(60);
    let told = world.hear(peer);
    assert_eq!(told.len(), 1, "news of both in one datagram: {told:?}");
    assert_eq!((told[0].have, told[0].bytes), (Some(Span { first: 48, last: 79 }), 13));
    world.tell(peer, &[request(70, 90)]);
    let heard = world.hear(peer);
    assert_eq!(
        heard.iter().filter_map(|d| d.data).collect::<Vec<_>>(),
        (70..80).collect::<Vec<_>>()
    );
    (70..80).for_each(|chunk| world.tell(peer, &[ack(chunk, chunk)]));
    world.sign(1);
    let heard = world.hear(peer);
    assert_eq!((heard.len(), heard[0].leaves, heard[1].data), (17, 16, Some(80)), "pushed");
    world.tell(peer, &[ack(80, 95), Message::Choke]);
    world.sign(1);
    world.pass(60);
    let heard = world.hear(peer);
    assert!(heard.len() == 1 && heard[0].have.is_some(), "HAVE flows on: {heard:?}");
    world.tell(peer, &[Message::Unchoke]);
    world.sign(1);
    assert_eq!(world.hear(peer).len(), 17);
}

#[test]
fn questions_are_paced_and_can_be_cancelled() {
    let mut world = World::new();
    world.sign(30);
    let peer = world.open(1);
    world.tell(peer, &[request(0, 319), Message::Cancel(Span { first: 100, last: 199 })]);
    let mut got = Vec::new();
    for _ in 0..3_000 {
        world.pass(1);
        let chunks: Vec<_> = world.hear(peer).iter().filter_map(|d| d.data).collect();
        chunks.iter().for_each(|chunk| world.tell(peer, &[ack(*chunk, *chunk)]));
        got.extend(chunks);
    }
    assert_eq!(got, (0..100).chain(200..320).collect::<Vec<_>>());
    assert!(world.cell(Cell::SwarmTrainsAnswer) >= 15);
}

#[test]
fn questions_for_which_there_is_no_room_are_counted() {
    let mut world = World::new();
    world.sign(30);
    let peer = world.open(1);
    let single = |n: u64| request(2 * n, 2 * n);
    for n in 0..100 {
        world.tell(peer, &[single(n)]);
    }
    let dropped = world.cell(Cell::SwarmQuestionsDropped);
    // Some were answered in between.
    assert!((1..=100 - RUNS_MAX as u64).contains(&dropped), "{dropped}");
}

#[test]
fn silence_is_probed_and_then_forgotten() {
    let mut world = World::new();
    let peer = world.open(1);
    world.tell(peer, &[SUBSCRIBE]);
    world.sign(1);
    world.tell(peer, &[ack(48, 63)]);
    for _ in 0..160 {
        world.pass(84);
        world.sign(1);
    }
    assert_eq!(world.cell(Cell::PeersDead), 1);
    assert!((40..60).contains(&world.cell(Cell::SwarmTrainsProbe)));
    assert_eq!((world.face.sessions.len(), world.registry.admission.peers()), (0, 0));
    assert!(world.hear(peer).last().unwrap().closed);
    assert!(!world.face.has_peers());
    world.face.release();
}

#[test]
fn crimes_are_counted_by_name_and_the_third_closes() {
    let mut world = World::new();
    let peer = world.open(1);
    world.tell(peer, &[SUBSCRIBE]);
    let raw = |world: &mut World, body: &[u8]| {
        let datagram = [&peer.theirs.to_be_bytes()[..], body].concat();
        world.say(peer.at, &datagram);
    };
    world.tell(peer, &[ack(10_000, 10_000), Message::PexRequest]);
    world.tell(peer, &[Message::PexV4("192.0.2.1:9".parse().unwrap())]);
    raw(&mut world, &[0x02, 1, 2]);
    raw(&mut world, &[0x7f]);
    assert_eq!(world.face.sessions.len(), 1);
    world.tell(peer, &[Message::Data { chunk: 1, stamp: 0, bytes: &[1; CHUNK] }]);
    let told = world.hear(peer);
    assert_eq!(told.last().unwrap().bye, Some(Bye::BadData));
    for crime in [
        Cell::CrimeAckOfNothing,
        Cell::CrimePexFromPeer,
        Cell::CrimeMalformed,
        Cell::CrimeUnknownMessage,
        Cell::CrimeDataToSource,
        Cell::PeersMisconduct,
    ] {
        assert_eq!(world.cell(crime), 1, "{crime:?}");
    }
    let plain = world.open_plain(2);
    world.tell(plain, &[SUBSCRIBE]);
    assert_eq!(world.cell(Cell::CrimePrivateUnasked), 1);
    let counts = &world.lease.stream.share(ShardId(0)).crimes;
    let seen: u64 = counts.iter().map(|count| count.load(Relaxed)).sum();
    assert_eq!((seen, counts[Crime::PexFromPeer as usize].load(Relaxed)), (6, 1));
}

#[test]
fn reports_add_up_over_sessions() {
    let mut world = World::new();
    let (one, two) = (world.open(1), world.open(2));
    world.tell(one, &[SUBSCRIBE, report(100, 1, 200, 300)]);
    world.tell(two, &[SUBSCRIBE, report(50, 0, 400, 900)]);
    world.tell(one, &[report(250, 1, 210, 320)]);
    world.face.publish_figures(world.now.mono);
    let stream = Arc::clone(&world.lease.stream);
    let share = stream.share(ShardId(0));
    assert_eq!(share.told.relay_bytes.load(Relaxed), 300);
    assert_eq!(share.told.stalls.load(Relaxed), 1);
    assert_eq!((share.reporting.load(Relaxed), share.delay_p50_ms_sum.load(Relaxed)), (2, 610));
    assert_eq!(share.delay_p99_ms_max.load(Relaxed), 900);
    assert_eq!(share.arrival_p50_ms_sum.load(Relaxed), 61);
    assert_eq!(share.arrival_p99_ms_max.load(Relaxed), 90);
    assert_eq!(share.told.duplicates.load(Relaxed), 7);
    world.tell(one, &[Message::Handshake(Handshake::CLOSE)]);
    assert_eq!(share.told.relay_bytes.load(Relaxed), 300, "who left is not forgotten");
}

#[test]
fn the_way_is_known_from_the_handshake_on() {
    let mut world = World::new();
    world.sign(3);
    let peer = world.open(1);
    world.pass(230);
    world.tell(peer, &[request(0, 0)]);
    let (_, session) = world.face.sessions.find(peer.theirs).unwrap();
    assert_eq!(session.sender.rtt(), Some(Duration::from_millis(230)));
}
