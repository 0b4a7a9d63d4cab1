//! The relay names who is to feed the viewer; neighbours made for it answer, or do not.

use std::net::SocketAddrV4;

use super::*;
use crate::base::limits::CHUNK;
use crate::wire::ppspp::{Bye, Links, Subscribe, split};

/// The channel of every neighbour made here.
const CHANNEL: u32 = 77;

/// How long a new port of a neighbour's is tried.
const OPENINGS_MAX: usize = 5;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl World {
    /// The relay names neighbours, and is heard.
    fn advise(&mut self, named: &[(SocketAddr, u8)]) {
        let link = |(address, stripes_in): &(SocketAddr, u8)| Link {
            address: *address,
            stripes_in: *stripes_in,
        };
        let mut room = [0; Links::MAX * Link::BYTES];
        let links = Links::fill(named.iter().map(link), &mut room);
        let mut buf = [0; 400];
        let mut writer = Writer::new(&mut buf, self.relay.source.us, Addressing::Chunks64);
        assert!(writer.push(Message::Private(Private::Links(links))));
        let letter = writer.written().to_vec();
        self.down(letter);
        // Openings go out one by one.
        self.run(50 + 20 * named.len() as u64);
    }

    /// The viewer's channels, one for each opening to an address.
    fn openings(&self, to: SocketAddr) -> Vec<u32> {
        let letters = self.others.iter().filter(|(_, at, data)| *at == to && data[..4] == [0; 4]);
        let opened = |data: &[u8]| match Messages::opening(&data[4..]).next() {
            Some(Ok(Message::Handshake(open))) => open.channel,
            other => panic!("{other:?}"),
        };
        letters.map(|(.., data)| opened(data)).collect()
    }

    /// A neighbour says something.
    fn hear(&mut self, from: SocketAddr, data: &[u8]) {
        let (socket, segment) = (SocketId::SWARM, data.len());
        let now = self.now();
        self.peer.handle(now, Input::Datagrams { socket, from, to: None, segment, data });
        self.poll();
    }

    /// A neighbour answers the viewer's last opening to `to`, from `from`; the viewer's channel.
    fn answer(&mut self, to: SocketAddr, from: SocketAddr) -> u32 {
        let ours = *self.openings(to).last().expect("an opening");
        let options = Options::reply(Addressing::Chunks64, 4_096, CHUNK as u32);
        let mut buf = [0; 200];
        let n = build::reply(&mut buf, ours, CHANNEL, options, []).unwrap();
        self.hear(from, &buf[..n]);
        ours
    }

    /// For `millis` a neighbour pushes what it was asked for, as fast as the relay.
    fn feed(&mut self, millis: u64, from: SocketAddr, channel: u32, stripes: u8) {
        for _ in 0..millis {
            let before = self.relay.source.end();
            self.run(1);
            let subtree = before / self.relay.source.n();
            if self.relay.source.end() > before && stripes >> (subtree % 8) & 1 != 0 {
                for mut datagram in self.train.clone() {
                    datagram[..4].copy_from_slice(&channel.to_be_bytes());
                    self.hear(from, &datagram);
                }
            }
        }
    }

    /// The stripes that a neighbour was last asked for.
    fn asked(&self, to: SocketAddr) -> Option<u8> {
        let mut stripes = None;
        for (_, _, data) in self.others.iter().filter(|(_, at, _)| *at == to) {
            let (channel, messages) = split(data).unwrap();
            let mut all = Messages::new(messages, Addressing::Chunks64, CHUNK);
            while let Some(Ok(message)) = all.next().filter(|_| channel == CHANNEL) {
                if let Message::Private(Private::Subscribe(subscribe)) = message {
                    stripes = Some(subscribe.stripes);
                }
            }
        }
        stripes
    }
}

#[test]
fn who_is_named_is_opened_to_and_takes_its_stripes_from_the_relay() {
    let mut world = World::new(5_000);
    world.run(3_000);
    assert_eq!((world.stripes, world.others.len()), (Some(0xff), 0));
    let neighbour = addr("198.51.100.7:4000");
    world.advise(&[(neighbour, 0b11)]);
    assert_eq!(world.openings(neighbour).len(), 1);
    let channel = world.answer(neighbour, neighbour);
    world.run(200);
    assert_eq!((world.asked(neighbour), world.stripes), (Some(0b11), Some(0xff)));
    world.feed(1_400, neighbour, channel, 0b11);
    assert_eq!(world.stripes, Some(!0b11), "it brings them");
    let known = world.figures().sharing.neighbours;
    assert_eq!(known.iter().map(|one| one.stripes_in).collect::<Vec<_>>(), [0b11]);
    // Said again and again: that changes nothing.
    for _ in 0..3 {
        world.advise(&[(neighbour, 0b11)]);
        world.feed(2_000, neighbour, channel, 0b11);
    }
    assert_eq!((world.openings(neighbour).len(), world.stripes), (1, Some(!0b11)));
    // One stripe less; then nobody.
    world.advise(&[(neighbour, 0b01)]);
    world.feed(500, neighbour, channel, 0b01);
    assert_eq!((world.asked(neighbour), world.stripes), (Some(0b01), Some(!0b01)));
    world.advise(&[]);
    world.feed(1_000, neighbour, channel, 0b01);
    assert_eq!((world.asked(neighbour), world.stripes), (Some(0), Some(0xff)));
    assert_eq!(world.figures().tally.stalls, 0);
    world.check();
}

/// A viewer that a neighbour feeds everything, and the neighbour's channel.
fn fed() -> (World, SocketAddr, u32) {
    let mut world = World::new(5_000);
    world.run(3_000);
    let neighbour = addr("198.51.100.7:4000");
    world.advise(&[(neighbour, 0xff)]);
    let channel = world.answer(neighbour, neighbour);
    world.feed(2_000, neighbour, channel, 0xff);
    assert_eq!(world.stripes, Some(0), "it feeds everything");
    (world, neighbour, channel)
}

#[test]
fn a_parent_that_falls_silent_costs_nothing_but_egress() {
    let (mut world, ..) = fed();
    world.run(2_000);
    assert_eq!(world.stripes, Some(0xff), "the relay is asked for everything");
    world.run(3_000);
    assert!(world.figures().sharing.neighbours.is_empty(), "and nobody is kept who says nothing");
    assert_eq!((world.figures().tally.stalls, world.figures().http_bytes), (0, 0));
    world.check();
}

#[test]
fn who_does_not_answer_is_not_called_for_ever() {
    let mut world = World::new(5_000);
    world.run(3_000);
    let [deaf, other] = [addr("198.51.100.7:4000"), addr("198.51.100.8:4000")];
    for round in 0..20 {
        // Also when it was not named in between.
        let named = if round % 3 == 2 { other } else { deaf };
        world.advise(&[(named, 0b11)]);
        world.run(1_950);
    }
    for address in [deaf, other] {
        let openings = world.openings(address).len();
        assert!((1..=OPENINGS_MAX).contains(&openings), "{openings} to {address}");
    }
    assert_eq!((world.stripes, world.figures().tally.stalls), (Some(0xff), 0));
    assert_eq!(world.figures().sharing.unreachable, 2);
    world.check();
}

/// Behind a NAT that gives every destination another port a neighbour is not where the relay sees
/// it.
#[test]
fn a_neighbour_with_another_port_here_is_the_one_that_was_named() {
    let mut world = World::new(5_000);
    world.run(3_000);
    let [named, seen] = [addr("198.51.100.7:4000"), addr("198.51.100.7:4999")];
    world.advise(&[(named, 0b101)]);
    let channel = world.answer(named, seen);
    world.run(200);
    assert_eq!(world.asked(seen), Some(0b101));
    let before = world.openings(named).len();
    for _ in 0..4 {
        world.advise(&[(named, 0b101)]);
        world.feed(1_950, seen, channel, 0b101);
    }
    assert_eq!((world.openings(named).len(), world.openings(seen).len()), (before, 0));
    assert_eq!(world.stripes, Some(!0b101));
    // A second one of the same household is another one.
    let second = addr("198.51.100.7:4001");
    world.advise(&[(named, 0b101), (second, 0b10)]);
    world.answer(second, second);
    world.run(200);
    assert_eq!((world.asked(seen), world.asked(second)), (Some(0b101), Some(0b10)));
}

/// Many viewers on one machine: another port is another viewer.
#[test]
fn who_shares_an_ip_with_a_neighbour_is_opened_to_itself() {
    let mut world = World::new(5_000);
    world.run(3_000);
    let [first, second] = [addr("198.51.100.7:4000"), addr("198.51.100.7:4001")];
    world.advise(&[(first, 0b1)]);
    world.answer(first, first);
    world.run(200);
    world.advise(&[(second, 0b10)]);
    world.run(200);
    assert_eq!(world.asked(first), Some(0), "not what is meant for the other");
    world.answer(second, second);
    world.run(200);
    assert_eq!(world.asked(second), Some(0b10));
}

/// A viewer may have more neighbours than it can tell the relay of.
#[test]
fn the_relay_hears_first_of_who_feeds_us_and_whom_we_feed() {
    let mut world = World::new(5_000);
    world.relay.kbit = Some(8_000);
    world.run(6_000);
    let at = |n: usize| addr(&format!("198.51.100.{n}:4000"));
    // As many as are told, who only talk; then two more.
    let mut channels = Vec::new();
    for (some, stripes) in [(1..9, 0), (9..17, 0), (17..18, 0), (18..19, 0b11)] {
        let named: Vec<_> = some.map(|n| (at(n), stripes)).collect();
        world.advise(&named);
        channels.extend(named.iter().map(|(at, _)| (*at, world.answer(*at, *at))));
    }
    let ([(fed, to_fed), (feeder, to_feeder)], told) = (channels[16..].try_into().unwrap(), 0b11);
    // Right after it was told the relay is told again two seconds later.
    world.links.clear();
    while world.links.len() < Links::MAX {
        world.feed(100, feeder, to_feeder, told);
    }
    channels.iter().for_each(|(at, channel)| world.hear(*at, &channel.to_be_bytes()));
    world.feed(1_500, feeder, to_feeder, told);
    assert!(world.links.iter().all(|link| link.address != fed), "who came first");
    let subscribe = Subscribe { start: Subscribe::NEXT, stripes: 0xff, window: 4_096 };
    let mut buf = [0; 40];
    let mut writer = Writer::new(&mut buf, to_fed, Addressing::Chunks64);
    assert!(writer.push(Message::Private(Private::Subscribe(subscribe))));
    world.hear(fed, writer.written());
    world.links.clear();
    world.feed(600, feeder, to_feeder, told);
    let told: Vec<_> = world.links.iter().map(|link| (link.address, link.stripes_in)).collect();
    assert_eq!(told.len(), Links::MAX);
    assert_eq!(told[..2], [(feeder, 0b11), (fed, 0)]);
}

/// A peer among three hundred had forty links, thirty of which fed nobody.
#[test]
fn links_that_feed_nobody_are_ended_but_for_a_few() {
    let mut world = World::new(5_000);
    world.relay.kbit = Some(8_000);
    world.run(6_000);
    let at = |n: usize| addr(&format!("198.51.100.{n}:4000"));
    let feeder = at(20);
    world.advise(&[(feeder, 0b11)]);
    let to_feeder = world.answer(feeder, feeder);
    let mut channels = Vec::new();
    for some in [1..9, 9..14] {
        let named: Vec<_> = some.map(|n| (at(n), 0)).chain([(feeder, 0b11)]).collect();
        world.advise(&named);
        let others = named.iter().filter(|(at, _)| *at != feeder);
        channels.extend(others.map(|(at, _)| (*at, world.answer(*at, *at))));
    }
    let talk = |world: &mut World, times: usize| {
        for _ in 0..times {
            let keepalive = |(at, channel): &(_, u32)| world.hear(*at, &channel.to_be_bytes());
            channels.iter().for_each(keepalive);
            world.feed(500, feeder, to_feeder, 0b11);
        }
    };
    talk(&mut world, 6);
    assert_eq!(world.figures().sharing.neighbours.len(), 14, "none for long");
    talk(&mut world, 14);
    let sharing = world.figures().sharing;
    assert_eq!((sharing.neighbours.len(), sharing.idle_ended), (9, 5));
    assert!(sharing.neighbours.iter().any(|one| one.address == feeder), "it is not idle");
    let byes = world.others.iter().filter(|(.., data)| is_bye(data)).count();
    assert_eq!(byes, 5, "and they know");
    world.check();
}

/// Whether a datagram ends a link for want of room.
fn is_bye(data: &[u8]) -> bool {
    split(data).is_some_and(|(_, messages)| {
        Messages::new(messages, Addressing::Chunks64, CHUNK)
            .any(|message| message == Ok(Message::Private(Private::Bye(Bye::Busy))))
    })
}

#[test]
fn what_finds_no_room_is_counted() {
    let mut world = World::new(5_000);
    world.run(3_000);
    let asker = addr("198.51.100.1:4000");
    world.advise(&[(asker, 0)]);
    let channel = world.answer(asker, asker);
    // More than are opened to at a time.
    for n in 1..=3_u16 {
        let at = |port| SocketAddr::from(([198, 51, 100, 2], port));
        let named: Vec<_> = (0..10).map(|k| (at(n * 1_000 + k), 0)).collect();
        world.advise(&named);
    }
    let end = world.relay.source.end();
    for chunk in (end - 300..end).step_by(2) {
        let mut buf = [0; 40];
        let mut writer = Writer::new(&mut buf, channel, Addressing::Chunks64);
        assert!(writer.push(Message::Request(Span { first: chunk, last: chunk })));
        world.hear(asker, writer.written());
    }
    world.run(750);
    let sharing = world.figures().sharing;
    assert_eq!((sharing.introduced, sharing.addresses_forgotten), (31, 14), "{sharing:?}");
    assert!((1..150).contains(&sharing.questions_forgotten), "{sharing:?}");
}

#[test]
fn more_addresses_than_are_taken_at_once_are_counted() {
    let mut world = World::new(5_000);
    world.run(3_000);
    let mut buf = [0; 400];
    let mut writer = Writer::new(&mut buf, world.relay.source.us, Addressing::Chunks64);
    for port in 4_000..4_020 {
        let address = SocketAddrV4::new([198, 51, 100, 7].into(), port);
        assert!(writer.push(Message::PexV4(address)));
    }
    let letter = writer.written().to_vec();
    world.down(letter);
    world.run(600);
    let sharing = world.figures().sharing;
    assert_eq!((sharing.introduced, sharing.addresses_forgotten), (16, 4), "{sharing:?}");
}

/// The line of a viewer who can pass nothing on is thin: what he has would fill it for nothing.
#[test]
fn who_can_pass_nothing_on_announces_nothing() {
    for (kbit, announces) in [(200, false), (8_000, true)] {
        let mut world = World::new(5_000);
        world.relay.kbit = Some(kbit);
        world.run(6_000);
        let neighbour = addr("198.51.100.7:4000");
        world.advise(&[(neighbour, 0)]);
        world.answer(neighbour, neighbour);
        world.others.clear();
        world.run(2_000);
        let said: Vec<&[u8]> = world.others.iter().map(|(.., data)| &data[4..]).collect();
        let all = said.iter().flat_map(|data| Messages::new(data, Addressing::Chunks64, CHUNK));
        let haves = all.filter(|message| matches!(message, Ok(Message::Have(_)))).count();
        assert!(said.len() > 1, "it says something every second");
        assert_eq!(haves > 8, announces, "{haves} with {kbit} kbit/s");
        assert!(announces || haves == 0, "{haves}");
    }
}

/// The relay falls silent, and a neighbour brings what was late: nothing of that is newer.
#[test]
fn a_neighbour_that_only_brings_what_is_late_does_not_keep_http_away() {
    let (mut world, neighbour, channel) = fed();
    // Of the last subtrees it brings the hashes and a chunk, the rest later.
    let mut late = Vec::new();
    for _ in 0..500 {
        let before = world.relay.source.end();
        world.run(1);
        if world.relay.source.end() > before {
            let mut train = world.train.clone();
            train.iter_mut().for_each(|one| one[..4].copy_from_slice(&channel.to_be_bytes()));
            train[..2].iter().for_each(|datagram| world.hear(neighbour, datagram));
            late.extend(train.into_iter().skip(2));
        }
    }
    world.relay.udp = false;
    let playing = |world: &World| world.relay.conns.values().any(|conn| conn.at.is_some());
    let mut begun = None;
    let (start, before) = (world.ms, world.figures().sharing.peer_bytes);
    for datagram in &late {
        world.run(15);
        world.hear(neighbour, datagram);
        begun = begun.or(playing(&world).then_some(world.ms - start));
    }
    assert!(begun.is_some_and(|after| (600..900).contains(&after)), "{begun:?}");
    world.run(500);
    assert!(world.figures().sharing.peer_bytes > before, "what came late was of use");
    assert_eq!(world.figures().tally.stalls, 0);
    world.check();
}
