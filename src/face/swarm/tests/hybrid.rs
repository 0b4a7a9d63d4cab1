//! Peers that pass on what they get: who is pushed what, and who is told of whom.

use super::*;
use crate::face::swarm::notes::Note;
use crate::swarm::controller::{Candidate, Census, Orders};
use crate::wire::ppspp::{Link, Links, State};

const STATE: Message<'static> = Message::Private(Private::State(State {
    upload_kbit: 8_000,
    room_kbit: 8_000,
    play_chunk: 0,
    buffer_ms: 1_500,
}));

impl World {
    /// A stream that is hybrid whoever is there.
    fn hybrid() -> World {
        let mut world = World::new();
        let settings = Settings { mode: Mode::Hybrid, ..(*settings(Join::Open)).clone() };
        world.face.settings = Arc::new(settings);
        world
    }

    /// Opens and wants the stream.
    fn join(&mut self, n: u16) -> Peer {
        let peer = self.open(n);
        self.tell(peer, &[SUBSCRIBE, STATE]);
        peer
    }

    /// So many quarters of a second, in which the peers say that they are there.
    fn tick(&mut self, times: u64, peers: &[Peer]) {
        for _ in 0..times {
            self.pass(250);
            self.count(peers);
        }
    }

    fn count(&mut self, peers: &[Peer]) {
        peers.iter().for_each(|peer| self.tell(*peer, &[SUBSCRIBE, STATE]));
        self.face.publish_figures(self.now.mono);
        self.run();
    }

    /// The addresses that a peer was told since it was last heard.
    fn named(&mut self, peer: Peer) -> Vec<SocketAddr> {
        self.hear(peer).into_iter().flat_map(|heard| heard.named).collect()
    }

    fn stripes(&mut self, peer: Peer) -> u8 {
        let (place, _) = self.face.sessions.find(peer.theirs).unwrap();
        self.face.sessions.get(place).unwrap().sender.pushed_stripes()
    }

    /// Tells the relay that these are its neighbours.
    fn links(&mut self, peer: Peer, neighbours: &[Peer]) {
        let mut buf = [0; Links::MAX * Link::BYTES];
        let links = neighbours.iter().map(|one| Link { address: one.at, stripes_in: 1 });
        let links = Links::fill(links, &mut buf);
        self.tell(peer, &[Message::Private(Private::Links(links))]);
    }
}

#[test]
fn in_direct_mode_nobody_hears_of_anybody() {
    let mut world = World::new();
    let peers: Vec<Peer> = (1..=12).map(|n| world.join(n)).collect();
    world.tick(20, &peers);
    for peer in &peers {
        world.tell(*peer, &[Message::PexRequest]);
        assert!(world.named(*peer).is_empty() && world.stripes(*peer) == 0xff);
    }
    assert_eq!(world.cell(Cell::Introductions), 0);
}

#[test]
fn both_ends_are_told_at_the_same_moment() {
    let mut world = World::hybrid();
    let peers: Vec<Peer> = (1..=3).map(|n| world.join(n)).collect();
    world.tick(1, &peers);
    world.pass(1_100);
    // Everybody is told of everybody when the stream becomes hybrid.
    for peer in &peers {
        let others: Vec<SocketAddr> =
            peers.iter().map(|other| other.at).filter(|at| *at != peer.at).collect();
        let named = world.named(*peer);
        assert!(others.iter().all(|at| named.contains(at)), "{named:?}");
        assert!(!named.contains(&peer.at));
    }
    world.tick(1, &peers);
    peers.iter().for_each(|peer| drop(world.hear(*peer)));
    let new = world.join(4);
    assert_eq!(world.named(new).len(), 3, "without having asked");
    for peer in &peers {
        assert_eq!(world.named(*peer), [new.at]);
    }
    // Asking again at once is in vain; later those that are neighbours are left out.
    world.tell(new, &[Message::PexRequest]);
    assert_eq!(world.cell(Cell::IntroductionsTooSoon), 1);
    world.links(new, &peers[..1]);
    world.tick(8, &[&peers[..], &[new]].concat());
    assert!(world.named(new).is_empty());
    world.tell(new, &[Message::PexRequest]);
    let mut named = world.named(new);
    named.sort();
    assert_eq!(named, [peers[1].at, peers[2].at]);
    // From peers such messages are crimes, as ever.
    let std::net::SocketAddr::V4(address) = new.at else { panic!() };
    world.tell(new, &[Message::PexV4(address)]);
    assert_eq!(world.cell(Cell::CrimePexFromPeer), 1);
}

#[test]
fn peers_of_other_shards_are_told_by_mail() {
    let mut world = World::hybrid();
    let peer = world.join(1);
    let stream = Arc::clone(&world.lease.stream);
    let far = Candidate {
        channel: 1 << 31 | 77 << 8 | 1,
        id: 9,
        address: at(9),
        upload_kbit: 1_000,
        room_kbit: 1_000,
        links: 0,
        age: Duration::from_secs(9),
    };
    let census = Census { peers: 1, best: vec![far], ..Census::default() };
    let (shard, census) = (ShardId(1), Box::new(census));
    let note = Note::Census { stream: Arc::clone(&stream), shard, census, graph: None };
    world.face.handle_note(world.now.mono, note);
    let Some((ShardId(1), Note::Orders { orders, .. })) = world.face.poll_note() else { panic!() };
    assert!(orders.hybrid && orders.candidates == [far]);
    let notes: Vec<_> = std::iter::from_fn(|| world.face.poll_note()).collect();
    assert!(notes.is_empty(), "this shard has not counted yet");
    world.face.handle_note(world.now.mono, Note::Orders { stream, orders });
    world.pass(2_100);
    world.tell(peer, &[Message::PexRequest]);
    assert_eq!(world.named(peer), [at(9), at(9)], "as the stream became hybrid, and now");
    for _ in 0..2 {
        let Some((ShardId(1), Note::Introduce { channel, address })) = world.face.poll_note()
        else {
            panic!()
        };
        assert_eq!((channel, address), (far.channel, peer.at));
    }
    // And the other way round.
    let note = Note::Introduce { channel: peer.theirs, address: at(12) };
    world.face.handle_note(world.now.mono, note);
    world.face.handle_note(world.now.mono, Note::Introduce { channel: 5, address: at(12) });
    world.run();
    assert_eq!(world.named(peer), [at(12)]);
}

#[test]
fn seeds_are_pushed_their_stripes_and_others_what_they_keep_asking_for() {
    let mut world = World::hybrid();
    world.tick(1, &[]);
    let first = world.join(1);
    world.tick(2, &[first]);
    let mut peers = vec![first];
    peers.extend((2..=12).map(|n| world.join(n)));
    let masks: Vec<u8> = peers[1..].iter().map(|peer| world.stripes(*peer)).collect();
    assert_eq!(masks.iter().max(), Some(&0xff), "as many copies as peers: nothing is known yet");
    world.links(first, &peers[1..3]);
    world.tick(60, &peers);
    let mut counts = [0; 8];
    for peer in &peers {
        let stripes = world.stripes(*peer);
        (0..8).for_each(|stripe| counts[stripe] += u32::from(stripes >> stripe & 1));
    }
    assert_eq!(counts, [3; 8]);
    let stream = Arc::clone(&world.lease.stream);
    let share = stream.share(ShardId(0));
    let seeds = share.seeds.load(Relaxed);
    assert!((8..=12).contains(&seeds), "{seeds}");
    assert_eq!(world.lease.stream.swarm.copies.load(Relaxed), 3);
    let graph = world.lease.stream.graph.load();
    assert!(graph.hybrid && graph.all == 12 && graph.peers.len() == 12);
    assert_eq!(graph.peers.iter().map(|peer| peer.links.len()).sum::<usize>(), 2);
    let known = |id: u32| graph.peers.iter().any(|peer| peer.id == id);
    assert!(graph.peers.iter().flat_map(|peer| &peer.links).all(|(id, _)| known(*id)));
    // One of them gets nothing of a stripe from anybody but us.
    let poor = peers[7];
    let mask = world.stripes(poor);
    let stripe = (0..8).find(|stripe| mask >> stripe & 1 == 0).unwrap();
    for _ in 0..60 {
        let subtree = world.next;
        let span = Span { first: subtree * 16, last: subtree * 16 + 15 };
        world.sign(1);
        if subtree % 8 == stripe {
            world.tell(poor, &[Message::Request(span)]);
        }
        world.pass(82);
        peers.iter().for_each(|peer| world.tell(*peer, &[ack(span.first, span.last)]));
        if subtree.is_multiple_of(3) {
            world.count(&peers);
        }
    }
    assert!(world.stripes(poor) >> stripe & 1 == 1, "leased");
    assert!(share.rescue_bytes.load(Relaxed) > 0 && share.push_bytes.load(Relaxed) > 0);
    world.tick(40, &peers);
    assert_eq!(world.stripes(poor) >> stripe & 1, 0, "for a while");
}

#[test]
fn peers_without_our_extensions_are_pushed_everything_for_ever() {
    let mut world = World::hybrid();
    let plain = world.open_plain(1);
    world.tell(plain, &[Message::Request(Span { first: 40, last: 47 })]);
    world.tell(plain, &[ack(40, 47)]);
    world.tick(2, &[]);
    let peers: Vec<Peer> = (2..=4).map(|n| world.join(n)).collect();
    world.tick(8, &peers);
    assert_eq!(world.stripes(plain), 0xff);
    world.tell(plain, &[Message::PexRequest]);
    assert!(world.named(plain).is_empty());
    assert!(peers.iter().all(|peer| !world.named(*peer).contains(&plain.at)));
}

#[test]
fn a_flood_of_wishes_costs_one_answer_in_two_seconds() {
    let mut world = World::hybrid();
    let peers: Vec<Peer> = (1..=30).map(|n| world.join(n)).collect();
    world.tick(6, &peers);
    peers.iter().for_each(|peer| drop(world.hear(*peer)));
    let told = world.cell(Cell::Introductions);
    for _ in 0..400 {
        world.tell(peers[0], &[Message::PexRequest]);
        world.pass(10);
    }
    let named = world.named(peers[0]).len();
    assert!((8..=24).contains(&named), "{named}");
    assert_eq!(world.cell(Cell::Introductions) - told, 2 * named as u64);
    assert!(world.cell(Cell::IntroductionsTooSoon) > 390);
}

#[test]
fn the_way_back_to_direct_is_taken_at_once() {
    let mut world = World::hybrid();
    let mut peers = vec![world.join(1)];
    world.tick(2, &peers);
    peers.extend((2..=12).map(|n| world.join(n)));
    world.tick(60, &peers);
    assert!(peers.iter().any(|peer| world.stripes(*peer) != 0xff));
    let stream = Arc::clone(&world.lease.stream);
    let orders = Arc::new(Orders::direct(world.now.mono));
    world.face.handle_note(world.now.mono, Note::Orders { stream, orders });
    assert!(peers.iter().all(|peer| world.stripes(*peer) == 0xff));
}
