//! Seats, takeover, linger and numbers, as two shards see them.

use std::time::Duration;

use super::settings::{Limits, Settings};
use super::streams::{Claim, Lease, Lookup, NotReceived, Registry, Resume};
use crate::base::ids::{ShardId, StreamName};
use crate::base::limits::{CHUNK, SLAB_LARGE, SUBTREE, TS_PACKET};
use crate::base::time::{Mono, Now, Utc};
use crate::registry::keys::KeyId;
use crate::registry::settings::KeySetting;
use crate::registry::stream::State;
use crate::ring::arena::Arena;
use crate::ring::records::SubtreeSize;

const LINGER: Duration = Duration::from_secs(30);
const HERE: ShardId = ShardId(0);
const THERE: ShardId = ShardId(1);

fn registry_of(frames: u64, max_streams: usize) -> Registry {
    let key = |text: &str| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        KeySetting { sha256: digest.as_ref().try_into().unwrap(), streams: Vec::new() }
    };
    let limits = Limits {
        viewers: 9,
        connections: 9,
        per_address: 9,
        exempt: Vec::new(),
        peers: 9,
        egress: None,
    };
    let settings = Settings {
        max_streams,
        window: Duration::from_secs(60),
        window_bytes: 4 * SLAB_LARGE as u64,
        linger: LINGER,
        keys: vec![key("red"), key("blue")],
        limits,
    };
    Registry::new(settings, Arena::create(frames * SLAB_LARGE as u64).unwrap(), 2)
}

fn name(text: &str) -> StreamName {
    text.parse().unwrap()
}

fn key(registry: &Registry, text: &str) -> KeyId {
    registry.authorise(Some(text), &name("a"), [127, 0, 0, 1].into(), true).unwrap()
}

fn at(millis: u64) -> Now {
    Now { mono: Mono::from_millis(millis), utc: Utc::default() }
}

fn granted(claim: Claim) -> Lease {
    match claim {
        Claim::Granted(lease) => lease,
        Claim::Ask(..) => panic!("asked to ask"),
        Claim::Taken => panic!("taken"),
        Claim::TooMany => panic!("too many"),
        Claim::NoMemory => panic!("no memory"),
        Claim::Refused(why) => panic!("{why}"),
    }
}

#[test]
fn first_come_first_served_and_only_the_same_key_takes_over_silence() {
    let registry = registry_of(8, 4);
    let (red, blue) = (key(&registry, "red"), key(&registry, "blue"));
    let cam = name("cam");
    let claim = |key, shard, millis| registry.claim(&cam, key, shard, at(millis));
    assert!(matches!(registry.lookup(&cam), Lookup::Unknown));
    let lease = granted(claim(red, HERE, 1_000));
    assert!(!lease.resumed);
    assert_eq!(lease.stream.state(), State::Live);
    assert!(matches!(claim(red, THERE, 1_499), Claim::Taken), "not yet silent");
    assert!(matches!(claim(blue, THERE, 9_000), Claim::Taken), "another key");
    match claim(red, THERE, 1_500) {
        Claim::Ask(_, shard, ticket) => assert_eq!((shard, ticket), (HERE, lease.ticket)),
        _ => panic!("the same key after half a second of silence"),
    }
    lease.stream.hear(Mono::from_millis(1_600));
    assert!(matches!(claim(red, THERE, 2_000), Claim::Taken), "it spoke again");
    let next = lease.writer.next();
    lease.stream.park(lease.writer, Mono::from_millis(2_000));
    assert_eq!(lease.stream.state(), State::Held);
    let second = granted(claim(blue, THERE, 2_100));
    assert!(second.resumed && second.ticket > lease.ticket);
    assert_eq!(second.writer.next(), next, "the same window");
}

#[test]
fn a_refused_name_is_refused_by_itself_alone() {
    let registry = registry_of(8, 4);
    let red = key(&registry, "red");
    registry.refuse(name("broken"), "file: broken".into());
    match registry.claim(&name("broken"), red, HERE, at(0)) {
        Claim::Refused(why) => assert_eq!(&*why, "file: broken"),
        _ => panic!("not refused"),
    }
    granted(registry.claim(&name("whole"), red, HERE, at(0)));
}

fn resume(next: u64) -> Resume {
    Resume { next, ..Resume::default() }
}

#[test]
fn a_stream_ends_by_its_last_ticket_only_and_its_numbers_go_on() {
    let registry = registry_of(8, 4);
    let (red, cam) = (key(&registry, "red"), name("cam"));
    let first = granted(registry.claim(&cam, red, HERE, at(0)));
    let stream = first.stream;
    stream.park(first.writer, Mono::from_millis(1_000));
    assert!(!registry.end(&stream, first.ticket, Mono::from_millis(30_999)), "too early");
    let mut second = granted(registry.claim(&cam, red, THERE, at(30_999)));
    assert!(!registry.end(&stream, first.ticket, Mono::from_millis(99_000)), "somebody sits");
    assert!(!registry.end(&stream, second.ticket, Mono::from_millis(99_000)), "and writes");
    assert_eq!(second.writer.append(Mono::ZERO, &[0x47; TS_PACKET]), TS_PACKET);
    second.writer.publish(Mono::ZERO);
    stream.park(second.writer, Mono::from_millis(40_000));
    assert!(!registry.end(&stream, first.ticket, Mono::from_millis(99_000)), "an old ticket");
    assert!(matches!(registry.lookup(&cam), Lookup::Present(_)));
    assert!(registry.end(&stream, second.ticket, Mono::from_millis(70_000)));
    assert!(stream.ended() && !registry.end(&stream, second.ticket, Mono::from_millis(99_000)));
    assert!(matches!(registry.lookup(&cam), Lookup::Known));
    assert_eq!(registry.directory().iter().count(), 0);
    assert_eq!(registry.numbers(), [(cam.clone(), resume(SUBTREE as u64))], "rounded up");
    let third = granted(registry.claim(&cam, red, HERE, at(100_000)));
    assert!(!third.resumed);
    assert_eq!(third.writer.next(), SUBTREE as u64);
    assert_eq!(third.stream.segments.counts().breaks, 1, "its segments follow a break");
    assert_eq!(third.stream.slot, stream.slot, "the place is free again");
}

#[test]
fn streams_are_refused_beyond_the_number_and_beyond_the_memory() {
    let registry = registry_of(12, 2);
    let red = key(&registry, "red");
    let claim = |text: &str| registry.claim(&name(text), red, HERE, at(0));
    let a = granted(claim("a"));
    let _b = granted(claim("b"));
    assert!(matches!(claim("c"), Claim::TooMany));
    assert!(matches!(registry.lookup(&name("c")), Lookup::Unknown), "a refusal is not remembered");
    a.stream.park(a.writer, Mono::ZERO);
    assert!(registry.end(&a.stream, a.ticket, Mono::from_millis(30_000)));
    granted(claim("c"));

    let registry = registry_of(7, 4);
    let claim = |text: &str| registry.claim(&name(text), red, HERE, at(0));
    let a = granted(claim("a"));
    assert!(matches!(claim("b"), Claim::NoMemory), "two windows of four slabs in seven");
    a.stream.park(a.writer, Mono::ZERO);
    assert!(registry.end(&a.stream, a.ticket, Mono::from_millis(30_000)));
    assert!(matches!(claim("b"), Claim::NoMemory), "a viewer still holds the window");
    drop(a.stream);
    granted(claim("b"));
}

#[test]
fn numbers_are_kept_for_a_bounded_number_of_names() {
    let registry = registry_of(8, 4);
    let names = |range: std::ops::Range<u64>| range.map(|n| (name(&format!("n{n}")), resume(n)));
    registry.restore(names(0..4_096));
    assert_eq!(registry.numbers().len(), 4_096);
    registry.restore([(name("n0"), resume(7))]);
    registry.restore(names(5_000..5_001));
    assert_eq!(registry.numbers().len(), 4_096);
    assert!(matches!(registry.lookup(&name("n0")), Lookup::Known), "touched again");
    assert!(matches!(registry.lookup(&name("n1")), Lookup::Unknown), "the oldest is forgotten");
    // A live one is not forgotten, whatever comes.
    let red = key(&registry, "red");
    let live = granted(registry.claim(&name("live"), red, HERE, at(0)));
    registry.restore(names(10_000..15_000));
    assert!(registry.numbers().iter().any(|(n, _)| n.as_str() == "live"));
    live.stream.park(live.writer, Mono::ZERO);
    assert!(registry.end(&live.stream, live.ticket, Mono::from_millis(30_000)));
    assert!(matches!(registry.lookup(&name("live")), Lookup::Known));
}

#[test]
fn a_received_stream_is_found_and_nobody_publishes_it() {
    let registry = registry_of(9, 1);
    let size = SubtreeSize::new(8).unwrap();
    let (stream, mut writer) = registry.receive(&name("a"), size, at(5)).unwrap();
    assert_eq!(stream.state(), State::Held, "until something comes");
    stream.set_live(true);
    assert!(matches!(registry.lookup(&name("a")), Lookup::Present(s) if s.state() == State::Live));
    let red = key(&registry, "red");
    let later = at(60_000);
    assert!(matches!(registry.claim(&name("a"), red, HERE, later), Claim::Taken));
    assert_eq!(registry.receive(&name("a"), size, later).err(), Some(NotReceived::Taken));
    assert_eq!(registry.receive(&name("b"), size, later).err(), Some(NotReceived::TooMany));
    assert!(!registry.end(&stream, 0, at(600_000).mono), "it is not a parked one");
    for chunk in 0..3 {
        writer.write_chunk(later.mono, chunk, &[0x47; CHUNK]).unwrap();
    }
    writer.publish(later.mono);
    registry.end_received(&stream, writer);
    assert!(stream.ended() && matches!(registry.lookup(&name("a")), Lookup::Known));
    let (again, _) = registry.receive(&name("a"), size, later).unwrap();
    assert_eq!(again.window.head(), SUBTREE as u64, "numbers go on");
    assert_eq!(registry.receive(&name("a"), size, later).err(), Some(NotReceived::Taken));
}
