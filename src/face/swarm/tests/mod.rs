//! The face without sockets: a signed stream, peers made of datagrams, time made up.

mod egress;
mod hybrid;
mod joining;
mod probing;
mod serving;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::base::limits::{CHUNK, SLAB_LARGE, SUBTREE_CHUNKS_MAX};
use crate::base::time::{Now, Utc};
use crate::registry::identity::Identity;
use crate::registry::settings::{Limits, Settings as RegistrySettings};
use crate::registry::streams::{Claim, Lease};
use crate::ring::arena::Arena;
use crate::ring::records::{Record, SubtreeSize};
use crate::swarm::integrity::{self, KeyPair, SignerClock};
use crate::swarm::settings::{Join, Mode, Strategy};
use crate::wire::ppspp::build::opening;
use crate::wire::ppspp::{
    Addressing, Handshake, Link, Message, MessageSet, Messages, Options, Private, Report, Span,
    Subscribe, Writer,
};

/// A relay's shard and what its socket sent.
struct World {
    now: Now,
    face: Swarm,
    cells: Arc<Cells>,
    registry: Arc<Registry>,
    lease: Lease,
    addressing: Addressing,
    size: usize,
    /// The next subtree to be signed.
    next: u64,
    random: fastrand::Rng,
    /// Every chunk, from number 0.
    chunks: Vec<[u8; CHUNK]>,
    /// Datagrams that went out, in order, and the address that each came from.
    sent: Vec<(SocketAddr, Vec<u8>)>,
    forwarded: Vec<(ShardId, Vec<u8>)>,
    heard: usize,
    shipments: Vec<Shipment>,
}

fn settings(join: Join) -> Arc<Settings> {
    Arc::new(Settings {
        listen: None,
        advertise: Vec::new(),
        addressing: Addressing::Chunks64,
        size: None,
        join,
        peers: 0,
        egress: None,
        mode: Mode::Direct,
        strategy: Strategy::Trees,
    })
}

impl World {
    fn new() -> World {
        World::of(Addressing::Chunks64, 16, Join::Open, 100)
    }

    fn of(addressing: Addressing, size: usize, join: Join, peers: usize) -> World {
        World::within(None, addressing, size, join, peers)
    }

    /// One that may send so many bits per second to peers.
    fn within(
        egress: Option<u64>,
        addressing: Addressing,
        size: usize,
        join: Join,
        peers: usize,
    ) -> World {
        let limits = Limits {
            viewers: 1,
            connections: 1,
            per_address: 20_000,
            exempt: Vec::new(),
            peers,
            egress,
        };
        let window = Duration::from_secs(60);
        let registry = RegistrySettings {
            max_streams: 2,
            window,
            window_bytes: 4 * SLAB_LARGE as u64,
            linger: Duration::ZERO,
            keys: Vec::new(),
            limits,
        };
        let arena = Arena::create(8 * SLAB_LARGE as u64).unwrap();
        let registry = Arc::new(Registry::new(registry, arena, 2));
        let now = Now { mono: Mono::from_millis(100_000), utc: Utc::from_unix_millis(1 << 40) };
        let name = "live".parse().unwrap();
        let key = registry.authorise(None, &name, [127, 0, 0, 1].into(), true).unwrap();
        let Claim::Granted(mut lease) = registry.claim(&name, key, ShardId(0), now) else {
            panic!("not granted");
        };
        let subtree = SubtreeSize::new(size).unwrap();
        assert!(lease.writer.begin_records(subtree, 0));
        let pair = Box::new(KeyPair::generate().unwrap());
        let clock = SignerClock::new(now, Utc::default());
        let identity = Identity::new(pair, addressing, subtree, clock, u64::MAX);
        lease.stream.identify(Arc::new(identity));
        let cells = Arc::new(Cells::default());
        let face = Swarm::new(Parts {
            shard: ShardId(0),
            settings: settings(join),
            key: [7; 32],
            registry: Arc::clone(&registry),
            cells: Arc::clone(&cells),
        });
        let mut world = World {
            now,
            face,
            cells,
            registry,
            lease,
            addressing,
            size,
            next: 0,
            random: fastrand::Rng::with_seed(9),
            chunks: Vec::new(),
            sent: Vec::new(),
            forwarded: Vec::new(),
            heard: 0,
            shipments: Vec::new(),
        };
        world.sign(3);
        world
    }

    /// Publishes and signs so many subtrees now.
    fn sign(&mut self, subtrees: u64) {
        for _ in 0..subtrees {
            let first = self.chunks.len();
            for _ in 0..self.size {
                let mut chunk = [0; CHUNK];
                self.random.fill(&mut chunk);
                chunk.chunks_exact_mut(188).for_each(|packet| packet[0] = 0x47);
                self.chunks.push(chunk);
            }
            let bytes = self.chunks[first..].as_flattened();
            assert_eq!(self.lease.writer.append(self.now.mono, bytes), bytes.len());
            self.lease.writer.publish(self.now.mono);
            let mut leaves = [[0; 32]; SUBTREE_CHUNKS_MAX];
            for (leaf, chunk) in leaves.iter_mut().zip(&self.chunks[first..]) {
                *leaf = integrity::leaf(chunk);
            }
            let munro = integrity::munro(&leaves[..self.size]);
            let identity = self.lease.stream.identity().unwrap();
            let ntp = identity.clock.ntp(self.now.mono);
            let span = Span::new(first as u64, (first + self.size) as u64 - 1).unwrap();
            let text = integrity::plaintext(self.addressing, span, ntp, &munro);
            let signature = identity.sign(text.as_ref()).unwrap();
            let record = Record { leaves, munro, ntp, signature };
            self.lease.writer.sign(self.next, &record).unwrap();
            self.next += 1;
        }
        self.face.handle_head(self.now.mono, self.lease.stream.slot);
        self.pass(2);
    }

    /// Lets time pass, a millisecond at a time.
    fn pass(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now.mono = self.now.mono + Duration::from_millis(1);
            if self.face.deadline().is_some_and(|at| at <= self.now.mono) {
                self.run();
            }
        }
    }

    fn run(&mut self) {
        self.face.turn(self.now.mono);
        for round in 0.. {
            assert!(round < 100_000, "never done");
            let Some(shipment) = self.face.poll(self.now.mono) else { return };
            let datagrams = expand(&shipment, self.now.mono);
            self.sent.extend(datagrams.into_iter().map(|data| (shipment.to, data)));
            self.shipments.push(shipment);
        }
    }

    fn say(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.heard += datagram.len();
        let forwarded = &mut self.forwarded;
        self.face.handle_datagrams(
            self.now.mono,
            from,
            Some([192, 0, 2, 77].into()),
            datagram.len().max(1),
            datagram,
            &mut |shard, data| forwarded.push((shard, data.to_vec())),
        );
        self.run();
    }

    fn options(&self) -> Options<'static> {
        let id = self.lease.stream.identity().unwrap().swarm_id.as_bytes().to_vec();
        Options::opening(id.leak(), self.addressing, 4_096, CHUNK as u32)
    }

    /// What was sent to an address since the last call.
    fn take(&mut self, to: SocketAddr) -> Vec<Vec<u8>> {
        let (taken, rest) = self.sent.drain(..).partition(|(at, _)| *at == to);
        self.sent = rest;
        let taken: Vec<(SocketAddr, Vec<u8>)> = taken;
        taken.into_iter().map(|(_, data)| data).collect()
    }

    fn cell(&self, cell: Cell) -> u64 {
        self.cells.get(cell)
    }
}

/// A shipment as the datagrams that a driver makes of it.
fn expand(shipment: &Shipment, now: Mono) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    if !shipment.head.is_empty() {
        all.push(shipment.head.as_slice().to_vec());
    }
    let header = usize::from(shipment.header);
    let headers = shipment.headers.as_slice().chunks_exact(header);
    assert_eq!(headers.len() * CHUNK, shipment.body.len());
    for (header, chunk) in headers.zip(shipment.body.as_slice().chunks_exact(CHUNK)) {
        let mut datagram = [header, chunk].concat();
        let stamp = now.as_nanos() / 1_000;
        datagram[header.len() - 8..header.len()].copy_from_slice(&stamp.to_be_bytes());
        all.push(datagram);
    }
    let joined = all.len() > 1 && !shipment.head.is_empty();
    assert!(!joined || all[0].len() == all[1].len(), "segments of one length");
    for datagram in &mut all {
        datagram[..4].copy_from_slice(&shipment.channel.to_be_bytes());
    }
    all
}

/// A peer: where it is and the two channels.
#[derive(Clone, Copy, Debug)]
struct Peer {
    at: SocketAddr,
    mine: u32,
    theirs: u32,
}

fn at(n: u16) -> SocketAddr {
    ([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]], 4_000).into()
}

impl World {
    /// The opening of a peer, as bytes.
    fn opening(&self, mine: u32, options: Options<'_>) -> Vec<u8> {
        let mut buf = [0; 256];
        let length = opening(&mut buf, mine, options).unwrap();
        buf[..length].to_vec()
    }

    /// Opens, and reads the answer: the peer and what it is told to be there.
    fn open_with(&mut self, n: u16, options: Options<'_>) -> Option<(Peer, Vec<Span>)> {
        let (at, mine) = (at(n), 0x1000 + u32::from(n));
        let datagram = self.opening(mine, options);
        self.say(at, &datagram);
        let answers = self.take(at);
        let [answer] = &answers[..] else {
            assert!(answers.is_empty());
            return None;
        };
        assert!(answer.len() <= datagram.len(), "no larger than the request");
        let (channel, messages) = ppspp::split(answer).unwrap();
        assert_eq!(channel, mine);
        let mut messages = Messages::new(messages, self.addressing, CHUNK);
        let Some(Ok(Message::Handshake(Handshake { channel, options }))) = messages.next() else {
            panic!("no handshake");
        };
        assert_eq!(options.judge_reply(self.addressing, CHUNK as u32), Ok(()));
        let have = messages.map(|message| match message {
            Ok(Message::Have(span)) => span,
            other => panic!("{other:?}"),
        });
        Some((Peer { at, mine, theirs: channel }, have.collect()))
    }

    fn open(&mut self, n: u16) -> Peer {
        let options = self.options();
        self.open_with(n, options).unwrap().0
    }

    /// A peer without our extensions.
    fn open_plain(&mut self, n: u16) -> Peer {
        let options =
            Options { messages: Some(MessageSet::from_bits(0xf9f0 << 48)), ..self.options() };
        self.open_with(n, options).unwrap().0
    }

    /// One datagram with these messages.
    fn tell(&mut self, peer: Peer, messages: &[Message<'_>]) {
        let mut buf = [0; 1500];
        let mut writer = Writer::new(&mut buf, peer.theirs, self.addressing);
        messages.iter().for_each(|message| assert!(writer.push(*message)));
        let datagram = writer.written().to_vec();
        self.say(peer.at, &datagram);
    }

    /// What came for a peer.
    fn hear(&mut self, peer: Peer) -> Vec<Heard> {
        let datagrams = self.take(peer.at);
        datagrams.iter().map(|datagram| self.read(peer, datagram)).collect()
    }

    fn read(&self, peer: Peer, datagram: &[u8]) -> Heard {
        let (channel, messages) = ppspp::split(datagram).unwrap();
        assert_eq!(channel, peer.mine);
        let mut heard = Heard { bytes: datagram.len(), ..Heard::default() };
        for message in Messages::new(messages, self.addressing, CHUNK) {
            match message.unwrap() {
                Message::Integrity { span, .. } if span.first == span.last => heard.leaves += 1,
                Message::Integrity { .. } => {}
                Message::SignedIntegrity { span, .. } => heard.signed = Some(span),
                Message::Have(span) => heard.have = Some(span),
                Message::Data { chunk, bytes, .. } => {
                    assert_eq!(bytes, self.chunks[chunk as usize], "chunk {chunk}");
                    heard.data = Some(chunk);
                }
                Message::PexV4(address) => heard.named.push(address.into()),
                Message::Private(Private::Probed { run, kbit }) => heard.probed = Some((run, kbit)),
                Message::Private(Private::Bye(bye)) => heard.bye = Some(bye),
                Message::Private(Private::Links(links)) => {
                    let one = |link: Link| (link.address, link.stripes_in);
                    heard.links = Some(links.iter().map(one).collect());
                }
                Message::Handshake(handshake) => heard.closed = handshake.channel == 0,
                other => panic!("{other:?}"),
            }
        }
        heard
    }
}

/// One datagram, as a peer reads it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Heard {
    bytes: usize,
    signed: Option<Span>,
    leaves: usize,
    have: Option<Span>,
    data: Option<u64>,
    bye: Option<Bye>,
    named: Vec<SocketAddr>,
    /// Who is to feed the peer, and with what.
    links: Option<Vec<(SocketAddr, u8)>>,
    probed: Option<(u8, u32)>,
    closed: bool,
}

const SUBSCRIBE: Message<'static> = Message::Private(Private::Subscribe(Subscribe {
    start: Subscribe::NEXT,
    stripes: Subscribe::ALL,
    window: 0,
}));

fn ack(first: u64, last: u64) -> Message<'static> {
    Message::Ack { span: Span { first, last }, delay: 30_000 }
}

fn report(relay_bytes: u64, stalls: u16, p50: u16, p99: u16) -> Message<'static> {
    let report = Report {
        relay_bytes,
        stalls,
        delay_p50_ms: p50,
        delay_p99_ms: p99,
        arrival_p50_ms: p50 / 10,
        arrival_p99_ms: p99 / 10,
        duplicates: u32::from(stalls) * 7,
        ..Report::default()
    };
    Message::Private(Private::Report(report))
}
