//! A receiver against a source made for it, under virtual time: loss, reordering, delay, damage.

mod links;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::assembly::Assembly;
use super::compose::View;
use super::source::{START, Source, THEM, US, chunk};
use super::store::Store;
use super::*;
use crate::base::limits::{SLAB_LARGE, SUBTREE};
use crate::ring::arena::Arena;
use crate::ring::reader::Reader;
use crate::ring::window::{Settings, Window, open_received};
use crate::swarm::integrity::Real;
use crate::swarm::opener::Opener;
use crate::wire::ppspp::{MessageSet, Options, Writer, build, kind, split};

/// What a network does to datagrams, in parts of a thousand.
#[derive(Clone, Copy, Default)]
struct Weather {
    lost: u32,
    late: u32,
    damaged: u32,
    twice: u32,
}

/// Both ends and the network between them.
struct World {
    now: Mono,
    random: fastrand::Rng,
    weather: Weather,
    source: Source,
    period: u64,
    /// Datagrams under way: to the receiver (true) or to the source.
    wire: BTreeMap<(Mono, u64), (bool, Vec<u8>)>,
    sent: u64,
    receiver: Receiver,
    assembly: Assembly,
    store: Store,
    fresh: Freshness,
    verifier: Real,
    counts: Counts,
}

impl World {
    fn new(source: Source, weather: Weather, period: u64) -> World {
        let mut world = World::before(source, weather, period);
        world.join();
        world
    }

    fn before(mut source: Source, weather: Weather, period: u64) -> World {
        let arena = Arena::create(16 * SLAB_LARGE as u64).unwrap();
        let memory = Settings { bytes: 8 << 20, span: Duration::from_secs(60) };
        let size = source.profile.size;
        let (writer, _) = open_received(&arena, &memory, size, 5 * SUBTREE as u64, 1).unwrap();
        let store = Store::new(writer, size, source.first).unwrap();
        for n in 0..10 {
            source.sign(Mono::from_millis(n * period));
        }
        let now = Mono::from_millis(10 * period);
        let opened = opened(&source, now);
        let mut assembly = Assembly::new(source.profile, &store, None);
        World {
            receiver: Receiver::new(source.profile, &opened, now, &store, &mut assembly),
            assembly,
            now,
            random: fastrand::Rng::with_seed(7),
            weather,
            period,
            wire: BTreeMap::new(),
            sent: 0,
            store,
            fresh: Freshness::new(START, Mono::ZERO, Mono::ZERO),
            verifier: Real::default(),
            counts: Counts::default(),
            source,
        }
    }

    /// A new link from what is there.
    fn join(&mut self) {
        self.counts.add(self.receiver.counts());
        let opened = opened(&self.source, self.now);
        let World { store, assembly, .. } = self;
        *assembly = Assembly::new(self.source.profile, store, None);
        self.receiver = Receiver::new(self.source.profile, &opened, self.now, store, assembly);
        self.source.shown.clear();
    }

    fn send(&mut self, down: bool, mut datagram: Vec<u8>) {
        let Weather { lost, late, damaged, twice } = self.weather;
        let mut chance = |part: u32| self.random.u32(..1_000) < part;
        if chance(lost) {
            return;
        }
        if down && chance(damaged) {
            let at = self.random.usize(..datagram.len());
            datagram[at] ^= 1 << self.random.u32(..8);
        }
        let mut chance = |part: u32| self.random.u32(..1_000) < part;
        let copies = 1 + u32::from(chance(twice));
        let hold = if chance(late) { 35 } else { 0 };
        for _ in 0..copies {
            self.sent += 1;
            let delay = Duration::from_millis(20 + hold);
            self.wire.insert((self.now + delay, self.sent), (down, datagram.clone()));
        }
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.wire.first_entry().filter(|e| e.key().0 <= self.now) {
            let (down, datagram) = entry.remove();
            if !down {
                if split(&datagram).is_some_and(|(channel, _)| channel == THEM) {
                    let answers = self.source.take(self.now, &datagram);
                    answers.into_iter().for_each(|answer| self.send(true, answer));
                }
            } else if let Some((US, messages)) = split(&datagram) {
                self.receive(messages);
            }
        }
        let mut buf = [0; 1_500];
        loop {
            let World { assembly, store, .. } = self;
            let view = View { assembly, store, asks: Some(&|_| true) };
            let wrote = self.receiver.poll_datagram(self.now, view, &mut buf, &mut |_, _| {});
            let Some(n) = wrote else { break };
            assert!(n <= 1_200);
            self.send(false, buf[..n].to_vec());
        }
    }

    fn receive(&mut self, messages: &[u8]) {
        let World { assembly, store, fresh, verifier, .. } = self;
        let mut tools = Tools { assembly, store, fresh, verifier };
        self.receiver.handle_datagram(self.now, messages, &mut tools, &mut |_| Ok(()));
    }

    fn next_deadline(&self) -> Option<Mono> {
        let World { assembly, store, .. } = self;
        self.receiver.next_deadline(View { assembly, store, asks: Some(&|_| true) })
    }

    /// Runs for `millis`; the receiver is polled when it asks for it.
    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now = self.now + Duration::from_millis(1);
            if (self.now.as_nanos() / 1_000_000).is_multiple_of(self.period) {
                let pushed = self.source.sign(self.now);
                pushed.into_iter().for_each(|datagram| self.send(true, datagram));
            }
            let due = self.next_deadline().is_some_and(|at| at <= self.now);
            let arrived = self.wire.keys().next().is_some_and(|(at, _)| *at <= self.now);
            if due || arrived {
                self.deliver();
            }
            self.store.writer().publish(self.now);
        }
    }

    /// Everything in the window is what the source has; returns how many chunks.
    fn check(&self) -> u64 {
        let window: &Arc<Window> = self.store.window();
        let mut reader = Reader::new(Arc::clone(window));
        let mut found = 0;
        for id in self.source.first..self.source.end() + 64 {
            let local = self.store.local_offset(id * CHUNK as u64) / CHUNK as u64;
            if let Ok(Some(payload)) = reader.read_chunk(local) {
                assert!(id < self.source.end() && payload.as_slice() == chunk(id), "chunk {id}");
                found += 1;
            }
        }
        found
    }

    /// Chunks between the first missing one and the source's newest.
    fn behind(&self) -> u64 {
        self.source.end() - self.store.next()
    }
}

fn opened(source: &Source, now: Mono) -> Opened {
    let mut opener = Opener::new(source.profile, US, now);
    let mut buf = [0; 200];
    opener.poll_datagram(now, 4_096, &mut buf).unwrap();
    let mut options = Options::reply(source.profile.addressing, 4_096, CHUNK as u32);
    if !source.private {
        options.messages = Some(MessageSet::RFC_ALL);
    }
    let n = build::reply(&mut buf, US, THEM, options, source.have()).unwrap();
    opener.handle_datagram(now + Duration::from_millis(40), split(&buf[..n]).unwrap().1).unwrap()
}

#[test]
fn a_clean_link_is_acknowledged_once_per_train() {
    for (size, addressing) in [(16, Addressing::Chunks64), (4, Addressing::Chunks32)] {
        let mut world = World::new(Source::new(size, addressing, 160), Weather::default(), 80);
        world.run(3_000);
        assert!(world.behind() <= 2 * world.source.n(), "{} behind", world.behind());
        assert!(world.check() > 100);
        let counts = world.receiver.counts();
        assert_eq!((counts.bad(), counts.lost, counts.duplicates), (0, 0, 0));
        assert_eq!(counts.payload, world.check() * CHUNK as u64);
        // The backlog by one REQUEST in the first datagram; then one ACK a train, of all of it.
        let heard = &world.source.heard;
        assert_eq!(heard[0], [kind::SUBSCRIBE, kind::REQUEST]);
        let acks = heard.iter().filter(|kinds| kinds.contains(&kind::ACK)).count();
        let trains = world.source.signed.len();
        assert!(acks <= trains + 6, "{acks} ACK datagrams for {trains} trains");
        let more = heard.iter().skip(1).flatten().filter(|kind| **kind == kind::REQUEST).count();
        assert!(more <= 1, "{more}: the subtree that was signed before SUBSCRIBE came");
        assert!(world.source.acked.len() as u64 + 2 * world.source.n() >= world.check());
        assert!(world.source.delays.iter().all(|delay| *delay == 20_000 - 77_000_000));
    }
}

/// What is played jumps far ahead when the hole is filled; the source hears of it all the same.
#[test]
fn a_hole_that_is_filled_late_is_acknowledged() {
    let mut world = World::new(Source::new(16, Addressing::Chunks64, 160), Weather::default(), 80);
    world.run(500);
    let hole = world.source.end() + 3;
    let data = [&[kind::DATA][..], &hole.to_be_bytes()].concat();
    for _ in 0..1_500 {
        world.run(1);
        world.wire.retain(|_, (down, datagram)| !(*down && datagram[4..].starts_with(&data)));
    }
    assert_eq!(world.store.next(), hole);
    world.run(500);
    assert!(world.store.next() > hole + 160);
    assert!(world.source.acked.contains_key(&hole));
}

#[test]
fn losses_are_repaired_whatever_the_weather() {
    let weathers = [
        Weather { lost: 20, ..Weather::default() },
        Weather { lost: 200, late: 100, ..Weather::default() },
        Weather { late: 300, twice: 100, ..Weather::default() },
    ];
    for weather in weathers {
        for (size, uncles) in [(16, false), (2, false), (16, true)] {
            let mut source = Source::new(size, Addressing::Chunks64, 160);
            source.uncles = uncles;
            let mut world = World::new(source, weather, 80);
            world.run(6_000);
            world.weather = Weather::default();
            world.run(600);
            assert!(world.behind() <= 2 * world.source.n(), "{} behind", world.behind());
            let counts = world.receiver.counts();
            assert_eq!(counts.bad(), 0, "weather is no crime");
            assert!(counts.repaired <= counts.lost);
            // What comes late is taken for lost, and is there when the answer comes.
            assert!(weather.late > 0 || counts.repaired + 40 > counts.lost);
            assert!(weather.lost == 0 || counts.lost > 0);
            world.check();
        }
    }
}

#[test]
fn a_source_without_our_messages_is_asked_for_everything_and_for_no_more() {
    for uncles in [false, true] {
        let mut source = Source::new(8, Addressing::Chunks32, 160);
        (source.private, source.uncles) = (false, uncles);
        let weather = Weather { lost: 50, ..Weather::default() };
        let mut world = World::new(source, weather, 80);
        world.run(4_000);
        world.weather = Weather::default();
        world.run(600);
        assert!(world.behind() <= 3 * world.source.n(), "{} behind", world.behind());
        assert!(world.check() > 300);
        assert_eq!(world.receiver.counts().bad(), 0);
        let private = world.source.heard.iter().flatten().any(|kind| *kind >= 0x30);
        assert!(!private, "nothing that it cannot read");
    }
}

#[test]
fn damage_never_reaches_the_window_and_is_named() {
    let weather = Weather { damaged: 10, ..Weather::default() };
    let mut world = World::new(Source::new(16, Addressing::Chunks64, 160), weather, 80);
    let mut endings = Vec::new();
    for _ in 0..800 {
        world.run(10);
        if let Some(why) = world.receiver.ended() {
            endings.push(why);
            world.join();
        }
    }
    assert!(world.check() > 1_000);
    world.counts.add(world.receiver.counts());
    let named = |crime: Crime| world.counts.crimes[crime as usize];
    assert!(named(Crime::BadChunk) > 0 && world.counts.bad() > 3, "{:?}", world.counts.crimes);
    assert!(endings.contains(&Ending::Crime(Crime::BadChunk)), "{endings:?}");
}

#[test]
fn silence_is_answered_by_saying_everything_again() {
    let mut world = World::new(Source::new(16, Addressing::Chunks64, 160), Weather::default(), 80);
    world.run(2_000);
    world.weather.lost = 1_000;
    let (before, at) = (world.sent, world.now);
    world.run(1_000);
    assert_eq!(world.sent, before, "all was lost");
    assert!(world.receiver.silence(world.now) >= Duration::from_millis(900));
    world.weather.lost = 0;
    world.source.heard.clear();
    world.source.pushes = false;
    world.run(400);
    assert!(world.source.pushes, "subscribed again within 200 ms");
    let all = [kind::ACK, kind::SUBSCRIBE];
    assert!(world.source.heard.iter().any(|kinds| kinds[..2] == all), "{:?}", world.source.heard);
    world.run(1_000);
    assert!(world.behind() <= 2 * world.source.n(), "the gap was asked for");
    assert!(world.receiver.counts().lost >= 16 * 10 && world.now > at);
}

#[test]
fn both_ends_can_close() {
    let mut world = World::new(Source::new(16, Addressing::Chunks64, 160), Weather::default(), 80);
    world.run(500);
    let mut buf = [0; 100];
    let mut writer = Writer::new(&mut buf, US, Addressing::Chunks64);
    assert!(writer.push(Message::Private(Private::Bye(Bye::Draining))));
    let bye = writer.written().to_vec();
    world.send(true, bye);
    world.run(30);
    assert_eq!(world.receiver.ended(), Some(Ending::Bye(Bye::Draining)));
    assert_eq!(world.next_deadline(), None, "nothing more is said");
    world.join();
    world.run(300);
    world.receiver.leave(Bye::Leaving);
    world.source.heard.clear();
    world.run(50);
    let heard = &world.source.heard;
    assert_eq!(heard[heard.len() - 2..], [vec![kind::BYE], vec![kind::HANDSHAKE]]);
    world.join();
    world.run(100);
    world.send(true, build::close(US).to_vec());
    world.run(30);
    assert_eq!(world.receiver.ended(), Some(Ending::Closed));
}

#[test]
fn ids_that_do_not_exist_are_jumped_over() {
    let mut world = World::new(Source::new(16, Addressing::Chunks64, 160), Weather::default(), 80);
    world.run(1_000);
    let (shown, next) = (world.store.window().head(), world.store.next());
    let key = std::mem::replace(&mut world.source, Source::new(16, Addressing::Chunks64, 1 << 20));
    world.source.key = key.key;
    world.source.profile = key.profile;
    world.wire.clear();
    world.source.sign(world.now);
    assert!(world.store.jump(world.now, 1 << 20));
    assert_eq!(world.store.floor(), 1 << 20, "what was before has other numbers");
    assert_eq!((world.store.next(), world.store.jump(world.now, 160)), (1 << 20, false));
    assert!(world.store.has(next + 1), "what is below counts as there");
    world.join();
    world.run(1_000);
    assert!(world.check() > 100 && world.behind() <= 32);
    assert!(world.store.window().head() > shown, "one window, one numbering");
}

#[test]
fn what_is_old_or_signed_by_others_is_not_taken() {
    let mut world =
        World::before(Source::new(16, Addressing::Chunks64, 160), Weather::default(), 80);
    world.now = Mono::from_millis(40_000);
    let datagram = world.source.hashes(160);
    world.send(true, datagram);
    world.run(30);
    assert_eq!(world.assembly.stale, 1);
    assert_eq!(world.receiver.counts().bad(), 0, "old is no crime");
    let other = Source::new(16, Addressing::Chunks64, 160);
    world.source.key = other.key;
    world.source.signed.clear();
    let train = {
        world.source.pushes = true;
        world.source.sign(world.now)
    };
    train.into_iter().for_each(|datagram| world.send(true, datagram));
    world.run(30);
    assert_eq!(world.receiver.ended(), Some(Ending::Crime(Crime::BadSignature)));
    assert_eq!(world.check(), 0);
}

#[test]
fn no_bytes_make_it_panic() {
    let mut random = fastrand::Rng::with_seed(11);
    let mut world = World::new(Source::new(16, Addressing::Chunks64, 160), Weather::default(), 80);
    world.source.pushes = true;
    let train = world.source.sign(world.now);
    for round in 0..3_000 {
        let mut datagram = train[round % train.len()].clone();
        for _ in 0..random.usize(0..4) {
            let at = random.usize(4..datagram.len());
            datagram[at] = random.u8(..);
        }
        datagram.truncate(random.usize(4..=datagram.len()));
        world.receive(&datagram[4..]);
        if world.receiver.ended().is_some() {
            world.join();
        }
    }
    world.check();
}

/// Hashes by one link, chunks by another, also before the hashes; what a neighbour tells of
/// uncles is not taken, so that nobody can be made to look like a liar.
#[test]
fn a_subtree_is_put_together_from_two_links() {
    let mut world = World::new(Source::new(16, Addressing::Chunks64, 160), Weather::default(), 80);
    let (profile, now) = (world.source.profile, world.now);
    let mut other = Receiver::neighbour(profile, 7, true, None, now);
    world.source.pushes = true;
    let train = world.source.sign(now);
    let first = world.source.end() - 16;
    let hear = |world: &mut World, receiver: &mut Receiver, datagram: &[u8]| {
        let World { assembly, store, fresh, verifier, now, .. } = world;
        let mut tools = Tools { assembly, store, fresh, verifier };
        receiver.handle_datagram(*now, &datagram[4..], &mut tools, &mut |_| Ok(()));
    };
    let mut lie = [0; 100];
    let mut writer = Writer::new(&mut lie, US, profile.addressing);
    assert!(writer.push(Message::Integrity { span: Span::one(first), hash: &[9; 32] }));
    let lie = writer.written().to_vec();
    hear(&mut world, &mut other, &lie);
    hear(&mut world, &mut other, &train[1]);
    assert!(!world.store.has(first), "kept until its hash comes");
    world.receive(&train[0][4..]);
    hear(&mut world, &mut other, &train[2]);
    assert!(world.store.has(first) && world.store.has(first + 1), "the hashes came elsewhere");
    (3..17).for_each(|n| world.receive(&train[n][4..]));
    hear(&mut world, &mut other, &train[9]);
    assert_eq!(other.counts().duplicates, 1);
    assert_eq!(other.counts().payload, 2 * CHUNK as u64);
    assert_eq!((other.counts().bad(), world.receiver.counts().bad()), (0, 0));
    let whole = world.assembly.take_whole();
    assert_eq!(whole.len(), 1);
    assert_eq!(world.assembly.servable(first / 16), Some(u16::MAX));
    assert_eq!(
        other.take_news().collect::<Vec<_>>(),
        [News::Hashed(first / 16)],
        "pushed, though its hash came elsewhere"
    );
    // Each is acknowledged where it came.
    let World { assembly, store, .. } = &world;
    let view = View { assembly, store, asks: Some(&|_| false) };
    let mut buf = [0; 200];
    let n = other.poll_datagram(now, view, &mut buf, &mut |_, _| {}).unwrap();
    let mut acked = Vec::new();
    for message in Messages::new(&buf[4..n], profile.addressing, CHUNK) {
        if let Message::Ack { span, .. } = message.unwrap() {
            acked.push((span.first - first, span.last - first));
        }
    }
    assert_eq!(acked, [(0, 1), (8, 8)]);
}
