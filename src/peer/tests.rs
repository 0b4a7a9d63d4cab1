//! A node against a relay made for it, under virtual time: UDP, HTTP, restarts.

mod advice;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::base::limits::{CHUNK, SLAB_LARGE};
use crate::base::time::Utc;
use crate::io::machine::ConnectError;
use crate::peer::figures::{Figures, Source as From};
use crate::peer::settings::NoNames;
use crate::ring::arena::Arena;
use crate::ring::reader::Reader;
use crate::ring::window;
use crate::swarm::playout;
use crate::swarm::receiver::source::{START, Source, THEM, chunk};
use crate::wire::ppspp::{
    Addressing, Link, Message, Messages, Options, Private, Span, Writer, build, channel,
};

const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const UDP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7000);

/// One subtree in this many milliseconds: 2 Mbit/s.
const PERIOD: u64 = 84;

/// A subtree with an access point among so many: about one a second.
const GOP: u64 = 12;

/// A connection at the relay.
#[derive(Default)]
struct Conn {
    request: Vec<u8>,
    /// The next stream offset that it sends.
    at: Option<u64>,
}

/// A relay: one source, `swarm.json`, the stream over HTTP.
struct Relay {
    source: Source,
    up: bool,
    udp: bool,
    conns: BTreeMap<u32, Conn>,
    /// When each subtree was signed.
    times: Vec<u64>,
    /// At which rate trains come, if that is told, and when each came, with its datagrams.
    kbit: Option<u32>,
    trains: Vec<(u64, u8, usize)>,
}

impl Relay {
    fn document(&self, now: u64) -> Vec<u8> {
        let n = self.source.n();
        let points = self.times.iter().enumerate().filter(|(n, _)| (*n as u64).is_multiple_of(GOP));
        let points: Vec<_> = points
            .map(|(number, at)| {
                let chunk = self.source.first + number as u64 * n;
                let began = at.saturating_sub(PERIOD);
                serde_json::json!({"chunk": chunk, "offset": 188, "age_ms": now - began})
            })
            .collect();
        let document = serde_json::json!({
            "ext": 1, "swarm_id": self.source.profile.swarm_id.to_string(), "chunk_size": CHUNK,
            "chunk_addressing": 4, "chunks_per_signature": n, "integrity": 3, "hash": 2,
            "signature": 13, "udp": [UDP.to_string()],
            "live": {"signed": self.source.end(), "now": START + now},
            "access_points": points, "alternates": [],
        });
        serde_json::to_vec(&document).unwrap()
    }

    /// What the stream has from `at` on.
    fn bytes(&self, at: u64) -> Vec<u8> {
        let end = self.source.end();
        (at / CHUNK as u64..end).flat_map(chunk).skip((at % CHUNK as u64) as usize).collect()
    }

    /// Takes bytes of a request; what is answered, and whether it closes then.
    fn take(&mut self, index: u32, data: &[u8], now: u64) -> Option<(Vec<u8>, bool)> {
        let conn = self.conns.get_mut(&index).unwrap();
        conn.request.extend_from_slice(data);
        let text = String::from_utf8(conn.request.clone()).unwrap();
        if !text.ends_with("\r\n\r\n") {
            return None;
        }
        let target = text.split(' ').nth(1).unwrap();
        if target == "/live/cam/swarm.json" {
            let body = self.document(now);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            return Some(([head.into_bytes(), body].concat(), true));
        }
        let at: u64 = target.strip_prefix("/live/cam.ts?at=").unwrap().parse().unwrap();
        assert!(at.is_multiple_of(188), "packets");
        let (first, end) = (self.source.first, self.source.end());
        if !(first * CHUNK as u64..=end * CHUNK as u64).contains(&at) {
            return Some((b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n".to_vec(), true));
        }
        self.conns.get_mut(&index).unwrap().at = Some(end * CHUNK as u64);
        let head = format!("HTTP/1.1 200 OK\r\nHeadwater-Offset: {at}\r\n\r\n");
        Some(([head.into_bytes(), self.bytes(at)].concat(), false))
    }
}

/// What is on its way to the node.
enum Event {
    Datagram(Vec<u8>),
    Connected(u64, u32),
    Refused(u64),
    Data(u32, Vec<u8>),
    Sent(u32, usize),
    Closed(u32),
}

struct World {
    ms: u64,
    peer: Peer<()>,
    relay: Relay,
    board: Board,
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
    next_conn: u32,
    random: fastrand::Rng,
    lost: u32,
    /// Datagrams to the relay, and those of them that open a link, be it there or not.
    up: u64,
    openings: u64,
    /// Datagrams to others, and when they were sent.
    others: Vec<(u64, SocketAddr, Vec<u8>)>,
    /// The newest train of the relay.
    train: Vec<Vec<u8>>,
    /// The stripes that it was last asked to push.
    stripes: Option<u8>,
    /// The neighbours that it was last told of.
    links: Vec<Link>,
}

fn id(index: u32) -> ConnId {
    ConnId { index, generation: 0 }
}

fn settings() -> Settings {
    Settings {
        url: "http://127.0.0.1:8080/live/cam".parse().unwrap(),
        name: "cam".parse().unwrap(),
        addresses: vec![HTTP],
        pin: None,
        token: None,
        tls: None,
        playout: playout::Settings::default(),
        upload: None,
        strategy: crate::swarm::settings::Strategy::Trees,
    }
}

impl World {
    /// A relay that has been live for `age` milliseconds, and a node that begins.
    fn new(age: u64) -> World {
        let board = Board::default();
        let arena = Arena::create(16 * SLAB_LARGE as u64).unwrap();
        let memory = window::Settings { bytes: 12 << 20, span: Duration::from_secs(600) };
        let peer = Peer::new(Parts {
            settings: settings(),
            rooms: vec![Room::Own { arena, memory }],
            names: Box::new(NoNames),
            board: board.clone(),
            live: None,
            key: [7; 32],
            now: Mono::from_millis(age),
        });
        let source = Source::new(16, Addressing::Chunks64, 1_600);
        let relay = Relay {
            source,
            up: true,
            udp: true,
            conns: BTreeMap::new(),
            times: vec![],
            kbit: None,
            trains: vec![],
        };
        let mut world = World {
            ms: 0,
            peer,
            relay,
            board,
            events: BTreeMap::new(),
            count: 0,
            next_conn: 0,
            random: fastrand::Rng::with_seed(3),
            lost: 0,
            up: 0,
            openings: 0,
            others: vec![],
            train: vec![],
            stripes: None,
            links: vec![],
        };
        for ms in 1..=age {
            world.ms = ms;
            world.publish();
        }
        world
    }

    fn mono(&self) -> Mono {
        Mono::from_millis(self.ms)
    }

    fn now(&self) -> Now {
        Now { mono: self.mono(), utc: Utc::from_unix_millis(5) }
    }

    fn event(&mut self, after: u64, event: Event) {
        self.count += 1;
        self.events.insert((self.ms + after, self.count), event);
    }

    fn down(&mut self, datagram: Vec<u8>) {
        if self.relay.udp && self.random.u32(..1_000) >= self.lost {
            self.event(10, Event::Datagram(datagram));
        }
    }

    fn publish(&mut self) {
        if !self.relay.up || !self.ms.is_multiple_of(PERIOD) {
            return;
        }
        let before = self.relay.source.end();
        let train = self.relay.source.sign(self.mono());
        self.relay.times.push(self.ms);
        self.train.clone_from(&train);
        let n = self.relay.source.n();
        if self.stripes.is_none_or(|stripes| stripes >> (before / n % 8) & 1 != 0) {
            train.into_iter().for_each(|datagram| self.down(datagram));
        } else {
            // Of what is not pushed it tells.
            let mut buf = [0; 40];
            let mut writer = Writer::new(&mut buf, self.relay.source.us, Addressing::Chunks64);
            let span = Span { first: before, last: before + n - 1 };
            assert!(writer.push(Message::Have(span)));
            let have = writer.written().to_vec();
            self.down(have);
        }
        let bytes: Vec<u8> = (before..self.relay.source.end()).flat_map(chunk).collect();
        let live: Vec<u32> =
            self.relay.conns.iter().filter(|(_, c)| c.at.is_some()).map(|(n, _)| *n).collect();
        for conn in live {
            self.event(1, Event::Data(conn, bytes.clone()));
        }
    }

    fn datagram(&mut self, bytes: &[u8]) {
        self.up += 1;
        self.openings += u64::from(channel(bytes) == Some(0));
        if !self.relay.up || !self.relay.udp {
            return;
        }
        if channel(bytes) == Some(0) {
            let Some(Ok(Message::Handshake(open))) = Messages::opening(&bytes[4..]).next() else {
                panic!("an opening");
            };
            let source = &mut self.relay.source;
            source.us = open.channel;
            source.shown.clear();
            source.pushes = false;
            self.stripes = None;
            let options = Options::reply(Addressing::Chunks64, 4_096, CHUNK as u32);
            let mut buf = [0; 200];
            let have = source.have();
            let n = build::reply(&mut buf, source.us, THEM, options, have).unwrap();
            return self.down(buf[..n].to_vec());
        }
        self.measure(bytes);
        for message in Messages::new(&bytes[4..], Addressing::Chunks64, CHUNK) {
            match message {
                Ok(Message::Private(Private::Subscribe(subscribe))) => {
                    self.stripes = Some(subscribe.stripes);
                }
                Ok(Message::Private(Private::Links(links))) => self.links = links.iter().collect(),
                _ => {}
            }
        }
        let answers = self.relay.source.take(self.mono(), bytes);
        answers.into_iter().for_each(|answer| self.down(answer));
    }

    /// Tells the peer how fast its train came.
    fn measure(&mut self, bytes: &[u8]) {
        let mut messages = Messages::new(&bytes[4..], Addressing::Chunks64, CHUNK);
        let Some(Ok(Message::Private(Private::Probe(probe)))) = messages.next() else { return };
        if probe.index + 1 < probe.of {
            return;
        }
        self.relay.trains.push((self.ms, probe.of, bytes.len()));
        if let Some(kbit) = self.relay.kbit {
            let mut buf = [0; 20];
            let mut writer = Writer::new(&mut buf, self.relay.source.us, Addressing::Chunks64);
            assert!(writer.push(Message::Private(Private::Probed { run: probe.run, kbit })));
            let answer = writer.written().to_vec();
            self.down(answer);
        }
    }

    fn deliver(&mut self, event: Event) {
        let now = self.now();
        let input = match &event {
            Event::Datagram(data) => Input::Datagrams {
                socket: SocketId::SWARM,
                from: UDP,
                to: None,
                segment: data.len(),
                data,
            },
            Event::Connected(token, conn) => {
                self.relay.conns.insert(*conn, Conn::default());
                Input::Connected { token: *token, conn: id(*conn) }
            }
            Event::Refused(token) => {
                Input::ConnectFailed { token: *token, why: ConnectError::Refused }
            }
            Event::Data(conn, data) => Input::Received { conn: id(*conn), data },
            Event::Sent(conn, n) => Input::Sent { conn: id(*conn), n: *n },
            Event::Closed(conn) => {
                self.relay.conns.remove(conn);
                Input::Closed { conn: id(*conn), why: Closed::Eof }
            }
        };
        self.peer.handle(now, input);
    }

    fn poll(&mut self) {
        let mut out = Outbox::new(32);
        loop {
            self.peer.poll(self.now(), &mut out);
            if out.is_empty() {
                return;
            }
            for output in out.drain().collect::<Vec<_>>() {
                self.output(output);
            }
        }
    }

    fn output(&mut self, output: Output<()>) {
        match output {
            Output::Connect { token, to } => {
                assert_eq!(to, HTTP);
                self.next_conn += 1;
                let conn = self.next_conn;
                let event = if self.relay.up {
                    Event::Connected(token, conn)
                } else {
                    Event::Refused(token)
                };
                self.event(2, event);
            }
            Output::Send { conn, parts } => {
                let [data, _] = parts;
                self.event(0, Event::Sent(conn.index, data.len()));
                if self.relay.up
                    && let Some((answer, ends)) =
                        self.relay.take(conn.index, data.as_slice(), self.ms)
                {
                    for part in answer.chunks(16_000) {
                        self.event(2, Event::Data(conn.index, part.to_vec()));
                    }
                    if ends {
                        self.event(2, Event::Closed(conn.index));
                    }
                }
            }
            Output::Close { conn } => self.event(0, Event::Closed(conn.index)),
            Output::Datagram { to: UDP, data, .. } => self.datagram(data.as_slice()),
            Output::Datagram { to, data, .. } => {
                self.others.push((self.ms, to, data.as_slice().to_vec()));
            }
            // What it passes on.
            Output::Train(train) => assert_ne!(train.to, UDP),
            other => panic!("{other:?}"),
        }
    }

    fn run(&mut self, millis: u64) {
        let end = self.ms + millis;
        while self.ms < end {
            self.ms += 1;
            self.publish();
            let mut busy = self.peer.next_deadline().is_some_and(|at| at <= self.mono());
            while let Some(entry) = self.events.first_entry().filter(|e| e.key().0 <= self.ms) {
                let event = entry.remove();
                self.deliver(event);
                busy = true;
            }
            if busy {
                self.poll();
            }
        }
    }

    fn figures(&self) -> Figures {
        self.board.read().remove(0)
    }

    /// Everything played equals the stream, but for what is known to be missing. Returns bytes.
    fn check(&self) -> u64 {
        let figures = self.figures();
        let (window, start) = figures.window.clone().unwrap();
        let mut reader = Reader::new(Arc::clone(&window));
        let (mut at, head) = (start, window.head());
        while at < head {
            let run = figures.runs.iter().rev().find(|run| run.local <= at).unwrap();
            let chunk_end = (at / CHUNK as u64 + 1) * CHUNK as u64;
            let missing = figures.losses.iter().any(|l| l.local <= at && at < l.local + l.bytes);
            let part = reader.read(at, (chunk_end.min(head) - at) as usize).unwrap();
            let got: Vec<u8> = part.iter().flat_map(|p| p.as_slice().to_vec()).collect();
            let wire = at - run.local + run.wire;
            let offset = (wire % CHUNK as u64) as usize;
            if !missing {
                let want = chunk(wire / CHUNK as u64);
                assert!(got == want[offset..offset + got.len()], "offset {wire}");
            }
            at += got.len() as u64;
        }
        head - start
    }

    /// The relay goes away and comes back `after` milliseconds, with its ids far ahead.
    fn restart(&mut self, after: u64) {
        self.relay.up = false;
        let conns: Vec<u32> = self.relay.conns.keys().copied().collect();
        conns.into_iter().for_each(|conn| self.event(1, Event::Closed(conn)));
        self.run(after);
        let old = &mut self.relay.source;
        let old = std::mem::replace(old, Source::new(16, Addressing::Chunks64, 1 << 24));
        self.relay.source.profile = old.profile;
        self.relay.source.key = old.key;
        self.relay.times.clear();
        self.relay.up = true;
    }
}

/// Sources in order, without times.
fn sources(figures: &Figures) -> Vec<From> {
    figures.switches.iter().map(|(_, source)| *source).collect()
}

#[test]
fn plays_over_udp_soon_and_without_a_stall() {
    for age in [3_000, 3_200, 3_400, 3_600, 3_800] {
        let mut world = World::new(age);
        world.lost = 20;
        world.run(10_000);
        let figures = world.figures();
        // An access point is waited for up to 1.5 s; with the handshakes.
        assert!(figures.startup.unwrap() <= Duration::from_millis(1_600), "{:?}", figures.startup);
        assert_eq!((figures.tally.stalls, figures.given_up, figures.http_bytes), (0, 0, 0));
        assert_eq!(sources(&figures), [From::Udp]);
        assert!(figures.counts.lost > 0 && figures.counts.repaired <= figures.counts.lost);
        let p99 = figures.delay.value_at_quantile(0.99);
        assert!((1_750..2_800).contains(&p99), "{p99} ms behind live");
        assert!(world.check() > 2_000_000);
        assert_eq!(figures.joins, 1);
        // About one datagram a train, and the repairs.
        assert!(world.up < 400, "{} datagrams", world.up);
    }
}

#[test]
fn the_line_is_measured_once_it_plays_and_not_for_ever() {
    let mut world = World::new(3_000);
    world.relay.kbit = Some(4_000);
    let begun = world.ms;
    world.run(3_000);
    let told = world.figures().sharing.upload_kbit;
    assert!((3_000..=3_400).contains(&told), "{told}");
    world.run(180_000);
    let startup = world.figures().startup.unwrap().as_millis() as u64;
    let [(first, 12, 400), (second, 48, 1_200), (third, 48, 1_200)] = world.relay.trains[..] else {
        panic!("{:?}", world.relay.trains);
    };
    assert!(first >= begun + startup && first < begun + startup + 400, "{first}");
    assert!((1_100..1_200).contains(&(second - first)), "{second}");
    assert!((60_000..60_200).contains(&(third - second)), "{third}");
    // Nobody says: a stripe is tried.
    let mut world = World::new(3_000);
    world.run(30_000);
    assert_eq!(world.relay.trains.len(), 4);
    assert!((200..400).contains(&world.figures().sharing.upload_kbit));
}

/// Nobody knows which opening was answered; which train was measured, the answer says.
#[test]
fn a_round_trip_that_a_lost_opening_made_longer_is_mended_by_the_first_train() {
    let mut world = World::new(3_000);
    world.relay.kbit = Some(4_000);
    world.relay.udp = false;
    while world.openings == 0 {
        world.run(1);
    }
    world.relay.udp = true;
    let rtt = |world: &World| world.peer.viewers[0].relay_rtt();
    while rtt(&world).is_none() {
        world.run(1);
    }
    assert_eq!(rtt(&world), Some(Duration::from_millis(110)), "from the first opening on");
    world.run(3_000);
    assert!(!world.relay.trains.is_empty());
    assert_eq!(rtt(&world), Some(Duration::from_millis(10)));
}

#[test]
fn a_young_stream_is_waited_for() {
    let mut world = World::new(40);
    world.run(400);
    assert!(world.figures().window.is_none() || world.figures().startup.is_none());
    world.run(4_000);
    assert!(world.figures().startup.unwrap() < Duration::from_millis(2_200));
    assert_eq!(world.figures().tally.stalls, 0);
    world.check();
}

#[test]
fn without_udp_it_plays_over_http_and_changes_over_when_udp_comes() {
    let mut world = World::new(5_000);
    world.relay.udp = false;
    world.run(8_000);
    let figures = world.figures();
    assert!(figures.startup.unwrap() <= Duration::from_millis(2_000), "{:?}", figures.startup);
    assert_eq!(sources(&figures), [From::Http]);
    assert_eq!((figures.counts.payload, figures.tally.stalls), (0, 0));
    assert!(world.check() > 1_000_000);
    world.relay.udp = true;
    world.run(6_000);
    let figures = world.figures();
    assert_eq!(sources(&figures), [From::Http, From::Udp]);
    assert_eq!((figures.tally.stalls, figures.given_up), (0, 0));
    assert!(world.relay.conns.is_empty(), "HTTP is left");
    let over_http = figures.http_bytes;
    world.run(3_000);
    assert_eq!(world.figures().http_bytes, over_http);
    world.check();
}

#[test]
fn udp_that_stops_in_the_middle_is_no_stall() {
    let mut world = World::new(5_000);
    world.run(5_000);
    for round in 1..=3_usize {
        world.relay.udp = false;
        world.run(5_000);
        world.relay.udp = true;
        world.run(6_000);
        let figures = world.figures();
        assert_eq!(figures.switches.len(), 1 + 2 * round, "{:?}", figures.switches);
        assert_eq!((figures.tally.stalls, figures.given_up), (0, 0), "round {round}");
        world.check();
    }
}

#[test]
fn a_link_that_was_silent_for_a_moment_is_kept() {
    let mut world = World::new(5_000);
    world.run(5_000);
    let openings = world.openings;
    for silent in [1_200, 2_500] {
        world.relay.udp = false;
        world.run(silent);
        world.relay.udp = true;
        world.run(4_000);
        let figures = world.figures();
        assert_eq!((figures.joins, figures.tally.stalls), (1, 0), "{silent}");
        assert_eq!(figures.source, Some(From::Udp), "{silent}");
        // The relay plans anew for whoever opens, even if what it says on the old link is first.
        assert_eq!(world.openings, openings, "{silent}");
        world.check();
    }
    let before = world.figures().joins;
    world.restart(1_000);
    world.run(1_500);
    assert_eq!(world.figures().joins, before + 1, "another life is no silence");
}

#[test]
fn a_relay_that_was_started_again_is_joined_again() {
    for down in [300, 1_500, 4_000] {
        let mut world = World::new(5_000);
        world.run(5_000);
        let before = world.figures().counts.payload;
        world.restart(down);
        world.run(2_000);
        let figures = world.figures();
        assert!(figures.counts.payload + figures.http_bytes > before, "{down}: joined again");
        world.run(6_000);
        let figures = world.figures();
        assert_eq!(figures.runs.len(), 2, "{down}: {:?}", figures.runs);
        assert!(figures.runs[1].wire >= (1 << 24) * CHUNK as u64, "ids only go forward");
        assert_eq!(figures.tally.stalls, 0, "{down}: what does not exist is not waited for");
        assert_eq!(figures.source, Some(From::Udp));
        let (window, _) = figures.window.clone().unwrap();
        assert!(window.head() > figures.runs[1].local + 1_000_000, "{down}: plays on");
        world.check();
    }
}

/// What it plays next does not exist any more, and nothing tells it so but HTTP.
#[test]
fn a_relay_that_was_started_again_is_played_over_http_where_udp_does_not_come() {
    let mut world = World::new(5_000);
    world.relay.udp = false;
    world.run(5_000);
    world.restart(1_500);
    world.run(6_000);
    let figures = world.figures();
    assert_eq!(figures.runs.len(), 2, "{:?}", figures.runs);
    let (window, _) = figures.window.clone().unwrap();
    assert!(window.head() > figures.runs[1].local + 500_000, "{}", window.head());
    assert_eq!((figures.tally.stalls, figures.given_up), (0, 0));
    world.check();
}

#[test]
fn another_stream_of_the_same_name_is_not_taken_for_this_one() {
    let mut world = World::new(5_000);
    world.run(3_000);
    world.restart(500);
    let played = world.figures().window.unwrap().0.head();
    world.relay.source = Source::new(16, Addressing::Chunks64, 0);
    world.run(6_000);
    let figures = world.figures();
    assert!(figures.failed && figures.problem.contains("swarm id"), "{}", figures.problem);
    assert!(figures.window.unwrap().0.head() < played + 500_000, "only what was there");
    world.check();
}

#[test]
fn leaving_is_said() {
    let mut world = World::new(5_000);
    world.run(2_000);
    world.relay.source.heard.clear();
    let now = world.now();
    world.peer.handle(now, Input::Drain);
    world.poll();
    let heard: Vec<u8> = world.relay.source.heard.iter().flatten().copied().collect();
    assert!(heard.ends_with(&[0x35, 0x00]), "{heard:?}");
    assert_eq!(world.peer.next_deadline(), None);
}
