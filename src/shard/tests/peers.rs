//! Peers of a stream whose home is another shard: datagrams, mail and bells.

use std::net::SocketAddr;

use super::*;
use crate::base::ids::SocketId;
use crate::base::limits::CHUNK;
use crate::base::time::Utc;
use crate::io::machine::Train;
use crate::registry::identity::Identity;
use crate::ring::records::SubtreeSize;
use crate::swarm::integrity::{KeyPair, SignerClock};
use crate::wire::ppspp::build::opening;
use crate::wire::ppspp::{
    Addressing, Bye, Handshake, Message, Messages, Options, Private, Span, State, Subscribe,
    Writer, split,
};

const MINE: u32 = 0x1234_5678;

fn at() -> SocketAddr {
    ([192, 0, 2, 9], 5_000).into()
}

impl World {
    /// A datagram from the peer comes to a shard.
    fn datagram(&mut self, shard: usize, data: &[u8]) {
        self.datagram_from(at(), shard, data);
    }

    fn datagram_from(&mut self, from: SocketAddr, shard: usize, data: &[u8]) {
        let (socket, segment) = (SocketId::SWARM, data.len());
        self.tell(shard, Input::Datagrams { socket, from, to: None, segment, data });
        self.run();
    }

    /// The addresses of others that were told to one, to feed it or to be fed by it.
    fn named(&mut self, to: SocketAddr) -> Vec<SocketAddr> {
        let mut named = Vec::new();
        let mine = |(_, train): &&(usize, Train)| train.to == to && train.body.is_empty();
        for (_, train) in self.trains.iter().filter(mine) {
            let (_, messages) = split(train.head.as_slice()).unwrap();
            let messages = Messages::new(messages, Addressing::Chunks64, CHUNK);
            for message in messages {
                match message {
                    Ok(Message::PexV4(address)) => named.push(SocketAddr::from(address)),
                    Ok(Message::Private(Private::Links(links))) => {
                        named.extend(links.iter().map(|link| link.address));
                    }
                    _ => {}
                }
            }
        }
        named
    }

    /// Acknowledges all trains that came; the newest chunk of them.
    fn acknowledge(&mut self, channel: u32) -> Option<u64> {
        let mut newest = None;
        for (_, train) in std::mem::take(&mut self.trains) {
            if train.headers.is_empty() {
                continue;
            }
            let first = u64::from_be_bytes(train.headers.as_slice()[5..13].try_into().unwrap());
            let span = Span { first, last: first + 1 };
            self.datagram(1, &words(channel, &[Message::Ack { span, delay: 9 }]));
            newest = Some(span.last);
        }
        newest
    }

    fn identify(&self) -> Arc<Stream> {
        let Lookup::Present(stream) = self.registry.lookup(&"cam".parse().unwrap()) else {
            panic!("no stream");
        };
        let now = Now { mono: self.now, utc: Utc::default() };
        let clock = SignerClock::new(now, Utc::default());
        let key = Box::new(KeyPair::generate().unwrap());
        let size = SubtreeSize::new(2).unwrap();
        let identity = Identity::new(key, Addressing::Chunks64, size, clock, u64::MAX);
        stream.identify(Arc::new(identity));
        stream
    }
}

/// One datagram to `channel`.
fn words(channel: u32, messages: &[Message<'_>]) -> Vec<u8> {
    let mut buf = [0; 256];
    let mut writer = Writer::new(&mut buf, channel, Addressing::Chunks64);
    messages.iter().for_each(|message| assert!(writer.push(*message)));
    writer.written().to_vec()
}

/// A stream with its home on shard 0, and a peer that opened at shard 1.
fn joined() -> (World, Client, Source, Arc<Stream>, u32) {
    let (mut world, publisher, mut source) = live(0);
    let stream = world.identify();
    feed(&mut world, publisher, &mut source, 1_000);
    let id = stream.identity().unwrap().swarm_id;
    let options = Options::opening(id.as_bytes(), Addressing::Chunks64, 4_096, CHUNK as u32);
    let mut buf = [0; 256];
    let length = opening(&mut buf, MINE, options).unwrap();
    world.datagram(1, &buf[..length]);
    let [(1, reply)] = &world.trains[..] else { panic!("{:?}", world.trains) };
    assert_eq!((reply.to, reply.channel), (at(), MINE));
    let (_, messages) = split(reply.head.as_slice()).unwrap();
    let mut messages = Messages::new(messages, Addressing::Chunks64, CHUNK);
    let Some(Ok(Message::Handshake(Handshake { channel, .. }))) = messages.next() else {
        panic!("no handshake");
    };
    assert!(matches!(messages.next(), Some(Ok(Message::Have(_)))));
    assert_eq!(channel & 0xff, 1, "the shard that got the opening");
    world.trains.clear();
    (world, publisher, source, stream, channel)
}

const SUBSCRIBE: Message<'static> = Message::Private(Private::Subscribe(Subscribe {
    start: Subscribe::NEXT,
    stripes: Subscribe::ALL,
    window: 0,
}));

const STATE: Message<'static> = Message::Private(Private::State(State {
    upload_kbit: 40_000,
    room_kbit: 40_000,
    play_chunk: 0,
    buffer_ms: 0,
}));

#[test]
fn a_datagram_that_comes_to_the_wrong_shard_is_passed_on() {
    let (mut world, publisher, mut source, stream, channel) = joined();
    world.datagram(0, &words(channel, &[SUBSCRIBE]));
    assert_eq!(world.cell(0, Cell::SwarmDatagramsForwarded), 1);
    assert_eq!(world.cell(1, Cell::SwarmPeers), 0, "it is on its way");
    world.settle();
    assert_eq!(world.cell(1, Cell::SwarmPeers), 1);
    feed(&mut world, publisher, &mut source, 2_000);
    assert!(!world.trains.is_empty());
    assert!(world.trains.iter().all(|(shard, train)| *shard == 1 && train.channel == MINE));
    assert_eq!(stream.share(ShardId(1)).peers.load(std::sync::atomic::Ordering::Relaxed), 1);
    for n in 0..1_000u32 {
        let (socket, data) = (SocketId::SWARM, [0x80, 0, n as u8, 1]);
        let (from, segment) = (at(), data.len());
        world.tell(0, Input::Datagrams { socket, from, to: None, segment, data: &data });
    }
    assert!(world.cell(0, Cell::SwarmForwardDropped) > 700, "bounded");
    world.settle();
    assert!(world.cell(1, Cell::SwarmDatagramsUnknown) > 200);
}

#[test]
fn peers_of_two_shards_are_told_of_each_other() {
    let (mut world, _, _, stream, channel) = joined();
    world.datagram(1, &words(channel, &[SUBSCRIBE]));
    let other = SocketAddr::from(([198, 51, 100, 7], 6_000));
    let id = stream.identity().unwrap().swarm_id;
    let options = Options::opening(id.as_bytes(), Addressing::Chunks64, 4_096, CHUNK as u32);
    let mut buf = [0; 256];
    let length = opening(&mut buf, 7, options).unwrap();
    world.datagram_from(other, 0, &buf[..length]);
    let (_, reply) = world.trains.iter().find(|(_, train)| train.to == other).unwrap();
    let (_, messages) = split(reply.head.as_slice()).unwrap();
    let Some(Ok(Message::Handshake(Handshake { channel: second, .. }))) =
        Messages::new(messages, Addressing::Chunks64, CHUNK).next()
    else {
        panic!("no handshake");
    };
    world.datagram_from(other, 0, &words(second, &[SUBSCRIBE]));
    // Both shards count, one decides, both hear of it, and write each other. Who has just come is
    // left to the relay.
    for _ in 0..16 {
        world.pass(250);
        world.settle();
        world.datagram(1, &words(channel, &[SUBSCRIBE, STATE]));
        world.datagram_from(other, 0, &words(second, &[SUBSCRIBE, STATE]));
    }
    assert!(stream.graph.load().hybrid && stream.graph.load().all == 2);
    assert!(world.named(at()).contains(&other), "{:?}", world.named(at()));
    assert!(world.named(other).contains(&at()), "{:?}", world.named(other));
    world.trains.clear();
    world.datagram(1, &words(channel, &[Message::PexRequest]));
    assert_eq!(world.named(at()), [other]);
    assert!(world.named(other).is_empty(), "it is on its way");
    world.settle();
    assert_eq!(world.named(other), [at()]);
}

#[test]
fn peers_are_told_of_growth_whatever_viewers_do() {
    let (mut world, publisher, mut source, _, channel) = joined();
    world.datagram(1, &words(channel, &[SUBSCRIBE]));
    let viewer = world.ask(1, "GET /live/cam.ts");
    let mut newest = 0;
    for round in 0..10 {
        feed(&mut world, publisher, &mut source, 1_000);
        if round == 5 {
            world.hang_up(viewer, Closed::Eof);
        }
        let before = newest;
        newest = world.acknowledge(channel).unwrap_or(newest);
        assert!(newest > before, "round {round}");
    }
    // What was published last is signed at most 150 ms later.
    world.pass(200);
    let head = source.sent.len() as u64 / CHUNK as u64;
    newest = world.acknowledge(channel).unwrap_or(newest);
    assert!(newest + 2 * 2 > head, "{newest} of {head}");
}

#[test]
fn peers_are_closed_with_their_stream_and_with_the_process() {
    let farewell = |world: &World| {
        let (_, train) = world.trains.last().unwrap();
        let (_, messages) = split(train.head.as_slice()).unwrap();
        let bye =
            Messages::new(messages, Addressing::Chunks64, CHUNK).find_map(
                |message| match message {
                    Ok(Message::Private(Private::Bye(bye))) => Some(bye),
                    _ => None,
                },
            );
        bye.unwrap()
    };
    let (mut world, _, _, _, channel) = joined();
    world.datagram(1, &words(channel, &[SUBSCRIBE]));
    world.tell(1, Input::Drain);
    world.run();
    assert_eq!(farewell(&world), Bye::Draining);
    let (mut world, publisher, _, _, channel) = joined();
    world.datagram(1, &words(channel, &[SUBSCRIBE]));
    world.hang_up(publisher, Closed::Eof);
    while world.both(Cell::PeersStreamEnded) == 0 {
        assert!(world.now < Mono::from_millis(60_000), "the linger time is over");
        world.acknowledge(channel);
        world.datagram(1, &words(channel, &[SUBSCRIBE]));
        world.pass(500);
    }
    assert_eq!(farewell(&world), Bye::Ended);
    assert_eq!(world.both(Cell::SwarmPeers), 0);
}
