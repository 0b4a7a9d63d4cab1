//! Peers that pass on what they get: who is told of whom.

use super::*;
use crate::face::swarm::notes::Note;
use crate::swarm::controller::{Orders, Plan, Row};
use crate::swarm::stripes::STRIPES;
use crate::wire::ppspp::{Links, State};

const STATE: Message<'static> = Message::Private(Private::State(State {
    upload_kbit: 8_000,
    room_kbit: 8_000,
    play_chunk: 0,
    buffer_ms: 1_500,
}));

/// Who is to feed a peer and with which stripes, as it is told.
type Told = Vec<(SocketAddr, u8)>;

fn subscribe(stripes: u8) -> Message<'static> {
    let start = Subscribe::NEXT;
    Message::Private(Private::Subscribe(Subscribe { start, stripes, window: 0 }))
}

/// A row of a plan: each feeder with its stripes.
fn row(peer: Peer, feeders: &[(Peer, u8)]) -> Row {
    let mut parents = [0; STRIPES];
    for (stripe, parent) in parents.iter_mut().enumerate() {
        let feeder = feeders.iter().find(|(_, stripes)| stripes >> stripe & 1 == 1);
        *parent = feeder.map_or(0, |(feeder, _)| feeder.theirs);
    }
    Row { channel: peer.theirs, address: peer.at, parents }
}

/// Peers that share a stream, what each asks the relay for, and what their controller says.
struct Flock {
    world: World,
    peers: Vec<(Peer, u8)>,
    orders: Option<Arc<Orders>>,
}

impl Flock {
    fn new(peers: u16) -> Flock {
        let world = World::of(Addressing::Chunks64, 16, Join::Open, 2_000);
        let mut flock = Flock { world, peers: Vec::new(), orders: None };
        for n in 1..=peers {
            flock.join(n, 0xff);
        }
        flock
    }

    /// Opens and wants the stream.
    fn join(&mut self, n: u16, stripes: u8) -> Peer {
        let peer = self.world.open(n);
        self.world.tell(peer, &[subscribe(stripes), STATE]);
        self.peers.push((peer, stripes));
        peer
    }

    fn peer(&self, at: usize) -> Peer {
        self.peers[at].0
    }

    /// The controller has a plan.
    fn plan(&mut self, rows: Vec<Row>) {
        let orders = Orders { hybrid: true, plan: Plan::new(rows), ..Orders::direct(Mono::ZERO) };
        self.order(orders);
    }

    fn order(&mut self, orders: Orders) {
        self.orders = Some(Arc::new(orders));
        self.repeat();
        self.world.run();
    }

    fn repeat(&mut self) {
        let (now, stream) = (self.world.now.mono, Arc::clone(&self.world.lease.stream));
        if let Some(orders) = self.orders.clone() {
            self.world.face.handle_note(now, Note::Orders { stream, orders });
        }
    }

    /// So many quarters of a second, in which peers repeat what they want, and the controller
    /// what it said.
    fn tick(&mut self, times: u64) {
        for _ in 0..times {
            self.world.pass(250);
            for (peer, stripes) in &self.peers {
                self.world.tell(*peer, &[subscribe(*stripes), STATE]);
            }
            self.world.face.publish_figures(self.world.now.mono);
            self.repeat();
            self.world.run();
        }
    }

    /// What a peer was told since it was last heard: who is to feed it, and whom it is to feed.
    fn news(&mut self, peer: Peer) -> (Vec<Told>, Vec<SocketAddr>) {
        let heard = self.world.hear(peer);
        let named = heard.iter().flat_map(|one| one.named.clone()).collect();
        (heard.into_iter().filter_map(|one| one.links).collect(), named)
    }

    fn named(&mut self, peer: Peer) -> Vec<SocketAddr> {
        self.news(peer).1
    }

    fn forget_news(&mut self) {
        self.world.sent.clear();
    }

    fn stripes(&mut self, peer: Peer) -> u8 {
        let (place, _) = self.world.face.sessions.find(peer.theirs).unwrap();
        self.world.face.sessions.get(place).unwrap().sender.pushed_stripes()
    }

    fn seeds(&self) -> u32 {
        self.world.lease.stream.share(ShardId(0)).seeds.load(Relaxed)
    }
}

#[test]
fn in_direct_mode_nobody_hears_of_anybody() {
    let mut flock = Flock::new(12);
    flock.tick(20);
    for at in 0..12 {
        let peer = flock.peer(at);
        flock.world.tell(peer, &[Message::PexRequest]);
        assert_eq!(flock.news(peer), (vec![], vec![]));
        assert_eq!(flock.stripes(peer), 0xff);
    }
    assert_eq!((flock.world.cell(Cell::Introductions), flock.seeds()), (0, 0));
}

#[test]
fn a_plan_is_told_and_both_ends_meet_at_the_same_moment() {
    let mut flock = Flock::new(3);
    let [a, b, child] = [0, 1, 2].map(|at| flock.peer(at));
    let roots = [row(a, &[]), row(b, &[])];
    let rows = |feeders: &[(Peer, u8)]| [&roots[..], &[row(child, feeders)]].concat();
    flock.plan(rows(&[(a, 0x0f), (b, 0xf0)]));
    let told: Told = vec![(a.at, 0x0f), (b.at, 0xf0)];
    assert_eq!(flock.news(child), (vec![told.clone()], vec![]));
    assert_eq!(flock.news(a), (vec![], vec![child.at]), "it is fed by the relay, and knows");
    assert_eq!(flock.news(b), (vec![], vec![child.at]));
    assert_eq!(flock.world.cell(Cell::Introductions), 4);
    flock.tick(7);
    assert_eq!(flock.news(child), (vec![], vec![]), "nothing is new");
    assert_eq!(flock.seeds(), 2);
    // It goes on asking for everything: perhaps it reaches neither.
    flock.tick(1);
    assert_eq!(flock.news(child).0, std::slice::from_ref(&told));
    assert_eq!((flock.named(a), flock.named(b)), (vec![child.at], vec![child.at]));
    flock.peers[2].1 = 0xf0;
    flock.tick(8);
    assert_eq!(flock.news(child).0, std::slice::from_ref(&told));
    assert_eq!((flock.named(a), flock.named(b)), (vec![], vec![child.at]), "one of them feeds it");
    flock.peers[2].1 = 0;
    flock.tick(8);
    assert_eq!(flock.news(child).0, std::slice::from_ref(&told));
    assert_eq!((flock.named(a), flock.named(b)), (vec![], vec![]));
    // Another division between the same, then somebody else.
    flock.plan(rows(&[(a, 0x8f), (b, 0x70)]));
    assert_eq!(flock.news(child).0, [[(a.at, 0x8f), (b.at, 0x70)]]);
    assert_eq!((flock.named(a), flock.named(b)), (vec![], vec![]));
    let new = flock.join(4, 0xff);
    flock.plan([rows(&[(a, 0x8f), (new, 0x70)]), vec![row(new, &[(child, 1)])]].concat());
    assert_eq!(flock.news(child), (vec![vec![(a.at, 0x8f), (new.at, 0x70)]], vec![new.at]));
    assert_eq!(flock.news(new), (vec![vec![(child.at, 1)]], vec![child.at]));
    assert_eq!((flock.named(a), flock.named(b)), (vec![], vec![]));
}

#[test]
fn that_nobody_is_to_feed_a_peer_any_more_is_said_twice() {
    let mut flock = Flock::new(2);
    let [parent, child] = [0, 1].map(|at| flock.peer(at));
    flock.plan(vec![row(parent, &[]), row(child, &[(parent, 0xff)])]);
    flock.tick(3);
    flock.forget_news();
    flock.plan(vec![row(parent, &[]), row(child, &[])]);
    assert_eq!(flock.news(child), (vec![vec![]], vec![]));
    flock.tick(7);
    assert_eq!(flock.news(child).0, Vec::<Told>::new());
    flock.tick(1);
    assert_eq!(flock.news(child).0, [vec![]], "it may have been lost");
    flock.tick(20);
    assert_eq!(flock.news(child).0, Vec::<Told>::new());
    assert_eq!(flock.seeds(), 2);
}

#[test]
fn peers_of_other_shards_are_told_by_mail() {
    let mut flock = Flock::new(1);
    let peer = flock.peer(0);
    let far = Peer { at: at(9), mine: 0, theirs: 1 << 31 | 77 << 8 | 1 };
    flock.plan(vec![row(peer, &[(far, 0xff)]), row(far, &[])]);
    assert_eq!(flock.news(peer), (vec![vec![(far.at, 0xff)]], vec![]));
    flock.world.tell(peer, &[Message::PexRequest]);
    assert_eq!(flock.named(peer), [far.at]);
    for _ in 0..2 {
        let Some((ShardId(1), Note::Introduce { channel, address })) = flock.world.face.poll_note()
        else {
            panic!()
        };
        assert_eq!((channel, address), (far.theirs, peer.at));
    }
    assert!(flock.world.face.poll_note().is_none());
    // And the other way round: two of them in one datagram.
    for (channel, n) in [(peer.theirs, 12), (5, 12), (peer.theirs, 13)] {
        let note = Note::Introduce { channel, address: at(n) };
        flock.world.face.handle_note(flock.world.now.mono, note);
    }
    assert_eq!(flock.world.face.deadline(), Some(flock.world.now.mono), "to be told now");
    flock.world.run();
    let heard = flock.world.hear(peer);
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].named, [at(12), at(13)]);
}

#[test]
fn peers_without_our_extensions_are_pushed_everything_for_ever() {
    let mut flock = Flock::new(3);
    let plain = flock.world.open_plain(9);
    flock.world.tell(plain, &[Message::Request(Span { first: 40, last: 47 })]);
    flock.world.tell(plain, &[ack(40, 47)]);
    let [a, b] = [0, 1].map(|at| flock.peer(at));
    // A controller that errs, which was told of no such peer.
    flock.plan(vec![row(plain, &[(a, 0xff)]), row(a, &[(plain, 0xff)]), row(b, &[])]);
    flock.tick(8);
    assert_eq!(flock.stripes(plain), 0xff);
    flock.world.tell(plain, &[Message::PexRequest]);
    assert_eq!(flock.news(plain), (vec![], vec![]));
    assert_eq!(flock.named(a), []);
    let stream = Arc::clone(&flock.world.lease.stream);
    assert_eq!(stream.share(ShardId(0)).peers.load(Relaxed), 4);
    assert_eq!(flock.seeds(), 2, "those that the plan can be about");
}

#[test]
fn a_flood_of_wishes_costs_one_answer_in_two_seconds() {
    let mut flock = Flock::new(30);
    flock.plan(flock.peers.iter().map(|(peer, _)| row(*peer, &[])).collect());
    let peer = flock.peer(0);
    for _ in 0..400 {
        flock.world.tell(peer, &[Message::PexRequest]);
        flock.world.pass(10);
    }
    let named = flock.named(peer);
    assert_eq!((named.len(), named.contains(&peer.at)), (24, false));
    assert_eq!(flock.world.cell(Cell::Introductions), 48, "and each was told of it");
    assert_eq!(flock.world.cell(Cell::IntroductionsTooSoon), 397);
    let others: Vec<Peer> = flock.peers[1..].iter().map(|(peer, _)| *peer).collect();
    let told: Vec<SocketAddr> = others.iter().flat_map(|other| flock.named(*other)).collect();
    assert_eq!(told, [peer.at; 24]);
    // From peers such messages are crimes, as ever.
    let SocketAddr::V4(address) = peer.at else { panic!() };
    flock.world.tell(peer, &[Message::PexV4(address)]);
    assert_eq!(flock.world.cell(Cell::CrimePexFromPeer), 1);
}

#[test]
fn nobody_is_told_of_more_than_many() {
    let mut flock = Flock::new(1);
    let peer = flock.peer(0);
    let mut name = |numbers: std::ops::Range<u16>| {
        for n in numbers {
            let note = Note::Introduce { channel: peer.theirs, address: at(n) };
            flock.world.face.handle_note(flock.world.now.mono, note);
        }
        flock.world.run();
        let heard = flock.world.hear(peer);
        assert!(heard.iter().all(|one| one.named.len() <= 8));
        let named = heard.iter().map(|one| one.named.len()).sum::<usize>();
        flock.tick(1);
        flock.world.hear(peer);
        named
    };
    assert_eq!(name(1_000..1_200), 128);
    assert_eq!(name(2_000..2_100), 16);
    assert_eq!(flock.world.cell(Cell::IntroductionsDropped), 72 + 84);
}

/// A flock of which the first feed all the others.
fn crowd(peers: u16, roots: usize) -> (Flock, Vec<Row>) {
    let flock = Flock::new(peers);
    let rows = (0..flock.peers.len()).map(|n| match n < roots {
        true => row(flock.peer(n), &[]),
        false => row(flock.peer(n), &[(flock.peer(n % roots), 0xff)]),
    });
    let rows = rows.collect();
    (flock, rows)
}

#[test]
fn a_large_stream_is_told_in_steps_and_the_socket_is_left_to_others_as_well() {
    let (mut flock, rows) = crowd(1_300, 20);
    flock.world.face.handle_socket(true);
    flock.plan(rows);
    flock.world.pass(100);
    let waiting = flock.world.face.letters.len();
    assert!((LETTERS_MAX / 2..=LETTERS_MAX / 4 * 3).contains(&waiting), "{waiting}");
    let datagram = flock.world.opening(77, flock.world.options());
    flock.world.say(at(7_777), &datagram);
    flock.world.face.handle_socket(false);
    flock.world.run();
    assert_eq!(flock.world.take(at(7_777)).len(), 1, "there was room for an answer");
    flock.world.pass(50);
    assert_eq!(flock.world.cell(Cell::SwarmLettersDropped), 0);
    assert_eq!(flock.world.cell(Cell::IntroductionsDropped), 0);
    assert_eq!(flock.world.cell(Cell::Introductions), 2 * 1_280);
    for n in 0..1_300 {
        let peer = flock.peer(n);
        let heard = flock.world.hear(peer);
        let letters = heard.len();
        let links: Vec<Told> = heard.iter().filter_map(|one| one.links.clone()).collect();
        let named: usize = heard.iter().map(|one| one.named.len()).sum();
        match n < 20 {
            true => assert!((links.len(), named) == (0, 64) && letters <= 20, "{letters}"),
            false => assert_eq!((links, named), (vec![vec![(at(n as u16 % 20 + 1), 0xff)]], 0)),
        }
    }
}

#[test]
fn the_way_back_to_direct_is_taken_at_once() {
    let (mut flock, rows) = crowd(700, 20);
    flock.plan(rows);
    flock.world.pass(50);
    flock.forget_news();
    flock.order(Orders::direct(flock.world.now.mono));
    flock.world.pass(10);
    let peers: Vec<Peer> = flock.peers.iter().map(|(peer, _)| *peer).collect();
    let told = |flock: &mut Flock| {
        let news: Vec<_> = peers.iter().map(|peer| flock.news(*peer)).collect();
        assert!(news.iter().all(|(links, named)| named.is_empty() && links.len() <= 1));
        assert!(news.iter().flat_map(|(links, _)| links).all(Vec::is_empty));
        news.iter().filter(|(links, _)| !links.is_empty()).count()
    };
    assert_eq!(told(&mut flock), 680, "all that were to be fed by others");
    flock.tick(8);
    flock.world.pass(10);
    assert_eq!((told(&mut flock), flock.seeds()), (680, 0));
    flock.tick(9);
    assert_eq!(told(&mut flock), 0);
    assert!(flock.world.face.advise_at.is_none(), "and nobody is looked at any more");
}

#[test]
fn who_asks_for_nothing_is_inside_all_the_same() {
    let mut flock = Flock::new(1);
    let parent = flock.peer(0);
    let child = flock.join(2, 0);
    flock.plan(vec![row(parent, &[]), row(child, &[(parent, 0xff)])]);
    for _ in 0..60 {
        flock.world.sign(3);
        flock.world.tell(parent, &[ack(0, flock.world.chunks.len() as u64 - 1)]);
        flock.tick(1);
    }
    let heard = flock.world.hear(child);
    assert!(heard.iter().all(|one| !one.closed && one.signed.is_none() && one.data.is_none()));
    let haves = heard.iter().filter(|one| one.have.is_some()).count();
    assert!((55..=61).contains(&haves), "{haves}");
    let links = heard.iter().filter(|one| one.links.is_some()).count();
    assert!((7..=8).contains(&links), "{links}");
    assert_eq!(flock.seeds(), 1);
    let graph = flock.world.lease.stream.graph.load();
    let asked = |stripes| graph.peers.iter().filter(|peer| peer.relay_stripes == stripes).count();
    assert_eq!((graph.all, asked(0), asked(0xff)), (2, 1, 1));
    // One question of those who are long inside is a rescue.
    let share = flock.world.lease.stream.share(ShardId(0)).rescue_bytes.load(Relaxed);
    let first = flock.world.chunks.len() as u64 - 16;
    flock.world.tell(child, &[Message::Request(Span { first, last: first + 3 })]);
    let data: Vec<_> = flock.world.hear(child).iter().filter_map(|one| one.data).collect();
    assert!(data.into_iter().eq(first..first + 4));
    let rescued = flock.world.lease.stream.share(ShardId(0)).rescue_bytes.load(Relaxed) - share;
    assert_eq!(rescued, 4 * 1_345);
    flock.world.tell(child, &[ack(first, first + 3)]);
    // The parent fails.
    flock.peers[1].1 = 0b100;
    flock.tick(1);
    let next = flock.world.next;
    flock.world.hear(child);
    flock.world.sign(8);
    let heard = flock.world.hear(child);
    let signed: Vec<u64> =
        heard.iter().filter_map(|one| one.signed).map(|s| s.first / 16).collect();
    assert!((next..next + 8).filter(|n| n % 8 == 2).eq(signed), "from the next one on");
}

#[test]
fn neighbours_are_drawn_as_peers_tell_of_them() {
    let mut flock = Flock::new(3);
    let [a, b, c] = [0, 1, 2].map(|at| flock.peer(at));
    let mut buf = [0; Links::MAX * Link::BYTES];
    let links = [b, c].map(|one| Link { address: one.at, stripes_in: 1 });
    let links = Links::fill(links.into_iter(), &mut buf);
    flock.world.tell(a, &[Message::Private(Private::Links(links))]);
    flock.tick(10);
    let graph = flock.world.lease.stream.graph.load();
    assert!(!graph.hybrid && graph.all == 3 && graph.peers.len() == 3);
    assert_eq!(graph.peers.iter().map(|peer| peer.links.len()).sum::<usize>(), 2);
    let known = |id: u32| graph.peers.iter().any(|peer| peer.id == id);
    assert!(graph.peers.iter().flat_map(|peer| &peer.links).all(|(id, _)| known(*id)));
}

#[test]
fn what_the_controller_plans_is_told() {
    let mut flock = Flock::new(0);
    let settings = Settings { mode: Mode::Hybrid, ..(*settings(Join::Open)).clone() };
    flock.world.face.settings = Arc::new(settings);
    for n in 1..=12 {
        flock.join(n, 0xff);
    }
    let peers: Vec<Peer> = flock.peers.iter().map(|(peer, _)| *peer).collect();
    let mut news: Vec<(Told, Vec<SocketAddr>)> = vec![(vec![], vec![]); peers.len()];
    for _ in 0..60 {
        flock.tick(1);
        for (n, (links, named)) in news.iter_mut().enumerate() {
            let (told, more) = flock.news(peers[n]);
            named.extend(more);
            // Those who are to feed it do.
            if let Some(told) = told.last() {
                flock.peers[n].1 = told.iter().fold(0xff, |asked, (_, stripes)| asked & !stripes);
                links.clone_from(told);
            }
        }
    }
    let mut fed = 0;
    for (child, (links, _)) in peers.iter().zip(&news) {
        for (feeder, stripes) in links {
            fed += stripes.count_ones();
            let met = |(peer, (_, named)): (&Peer, &(Told, Vec<SocketAddr>))| {
                peer.at == *feeder && named.contains(&child.at)
            };
            assert!(peers.iter().zip(&news).any(met), "{feeder} was not told of {}", child.at);
        }
    }
    let swarm = &flock.world.lease.stream.swarm;
    let copies = swarm.copies.load(Relaxed);
    assert!(swarm.hybrid.load(Relaxed) && (1..=6).contains(&copies), "{copies}");
    assert!(fed >= 8 * (12 - copies), "{fed}");
    assert!((1..=12).contains(&flock.seeds()));
}
