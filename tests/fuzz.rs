//! Readers of what strangers send, fed with broken input from a seed, in process and fast.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::seed;
use fastrand::Rng;
use headwater::base::time::Now;
use headwater::peer::client::{Event, Exchange, Limits, Url};
use headwater::wire::ppspp::{
    Addressing, Bye, Handshake, Message, Messages, Options, Private, Report, Span, State,
    Subscribe, Writer, split,
};

/// Datagrams in all.
const CASES: usize = 400_000;
/// Bytes of a chunk, small so that most of a datagram is structure.
const CHUNK: usize = 40;

/// A well-formed message.
fn message<'a>(rng: &mut Rng, bytes: &'a [u8; 256]) -> Message<'a> {
    let first = rng.u64(..) >> rng.u32(33..64);
    let span = Span { first, last: first + (rng.u64(..) >> rng.u32(44..64)) };
    let (hash, signature) = (bytes.first_chunk().unwrap(), bytes.last_chunk().unwrap());
    match rng.u8(..18) {
        0 => {
            let to = if rng.bool() { Addressing::Chunks32 } else { Addressing::Chunks64 };
            let options = match rng.u8(..4) {
                0 => Options::NONE,
                1 => Options::reply(to, first, CHUNK as u32),
                _ => Options::opening(&bytes[..65], to, first, CHUNK as u32),
            };
            Message::Handshake(Handshake { channel: rng.u32(..), options })
        }
        1 => {
            let bytes = &bytes[..[CHUNK, CHUNK, CHUNK, rng.usize(..CHUNK)][rng.usize(..4)]];
            Message::Data { chunk: first, stamp: rng.u64(..), bytes }
        }
        2 | 3 => Message::Ack { span, delay: rng.i64(..) },
        4 => Message::Have(span),
        5 | 6 => Message::Integrity { span, hash },
        7 => Message::SignedIntegrity { span, ntp: rng.u64(..), signature },
        8 => Message::PexCert(&bytes[..rng.usize(..100)]),
        9 => Message::Request(span),
        10 => Message::Cancel(span),
        11 => [Message::Choke, Message::PexRequest][rng.usize(..2)],
        12 => Message::Unchoke,
        13 => {
            let window = rng.u32(..);
            Message::Private(Private::Subscribe(Subscribe { start: first, stripes: 1, window }))
        }
        14 => Message::Private(Private::State(State { play_chunk: first, ..State::default() })),
        15 => Message::Private(Private::Token(&bytes[..rng.usize(..40)])),
        16 => Message::Private(Private::Report(Report { stalls: 1, ..Report::default() })),
        _ => Message::Private(Private::Bye(Bye::from_code(rng.u8(..)))),
    }
}

/// One change, of a kind that transmission or a hostile hand makes.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let at = rng.usize(..=bytes.len());
    match rng.u8(..8) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
        1 if at < bytes.len() => bytes[at] = rng.u8(..),
        // Types, options, lengths, ends.
        2 if at < bytes.len() => {
            bytes[at] = [0, 1, 4, 9, 0x0b, 0x0d, 0x0e, 0x30, 0x32, 0x3f, 0xff][rng.usize(..11)];
        }
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at..(at + rng.usize(..20)).min(bytes.len()))),
        5 => drop(bytes.splice(at..at, (0..rng.usize(..40)).map(|_| rng.u8(..)))),
        6 => bytes.extend_from_within(at..),
        _ => bytes.rotate_left(at.min(1)),
    }
}

#[test]
fn broken_datagrams() {
    let seed = seed("broken_datagrams");
    let (mut whole, mut faults, mut compared) = (0usize, 0usize, 0usize);
    let mut rng = Rng::with_seed(seed);
    let bytes: [u8; 256] = std::array::from_fn(|_| rng.u8(..));
    let (mut buf, mut again) = ([0; 2000], [0; 4000]);
    for case in 0..CASES {
        let to = if rng.bool() { Addressing::Chunks32 } else { Addressing::Chunks64 };
        let mut writer = Writer::new(&mut buf, rng.u32(..), to);
        for _ in 0..rng.usize(..8) {
            let _ = writer.push(message(&mut rng, &bytes));
        }
        let mut datagram = writer.written().to_vec();
        for _ in 0..rng.usize(..5) {
            mutate(&mut rng, &mut datagram);
        }
        let Some((channel, messages)) = split(&datagram) else { continue };
        let read = match rng.u8(..4) {
            0 => Messages::opening(messages),
            _ => Messages::new(messages, to, CHUNK),
        };
        let (before, mut good) = (whole + faults, Vec::new());
        for message in read {
            match message {
                Ok(message) => good.push(message),
                Err(_) => faults += 1,
            }
        }
        whole += good.len();
        assert!(whole + faults - before <= messages.len(), "case {case} of seed {seed}");
        // What was read can be said, and is then read as the same: but for a chunk that the end
        // of the datagram cut short, and for ids of an opening that are too wide for `to`.
        let mut writer = Writer::new(&mut again, channel, to);
        let said = good.iter().all(|message| writer.push(*message));
        let short = |bytes: &[u8]| bytes.len() != CHUNK;
        if said && !good.iter().any(|m| matches!(m, Message::Data { bytes, .. } if short(bytes))) {
            let reread = Messages::new(&writer.written()[4..], to, CHUNK);
            let reread: Result<Vec<_>, _> = reread.collect();
            assert_eq!(reread.as_ref(), Ok(&good), "case {case} of seed {seed}");
            compared += 1;
        }
    }
    let mix = format!("{whole} messages, {faults} faults, {compared} said again");
    println!("{mix}");
    assert!(whole > CASES && faults > CASES / 10 && compared > CASES / 4, "a bad mix: {mix}");
}

/// Answers in all.
const ANSWERS: usize = 100_000;

const ANSWER: Limits =
    Limits { body: 500, answer: Duration::from_secs(1), idle: Duration::from_secs(1), total: None };

/// A well-formed answer.
fn answer(rng: &mut Rng) -> Vec<u8> {
    let mut text = String::new();
    for _ in 0..rng.usize(..2) {
        text.push_str("HTTP/1.1 100 Continue\r\n\r\n");
    }
    let body = "b".repeat(rng.usize(..600));
    let (length, half) = (body.len(), body.len() / 2);
    text.push_str(["HTTP/1.1 200 OK\r\n", "HTTP/1.0 404 Not Found\r\nA: b\r\n"][rng.usize(..2)]);
    match rng.u8(..4) {
        0 => text.push_str(&format!("\r\n{body}")),
        1 => text.push_str(&format!("Content-Length: {length}\r\n\r\n{body}")),
        _ => {
            text.push_str("Transfer-Encoding: chunked\r\n\r\n");
            for part in [&body[..half], &body[half..]].into_iter().filter(|part| !part.is_empty()) {
                text.push_str(&format!("{:x}\r\n{part}\r\n", part.len()));
            }
            text.push_str("0\r\n\r\n");
        }
    }
    text.into_bytes()
}

#[test]
fn broken_answers() {
    let seed = seed("broken_answers");
    let mut rng = Rng::with_seed(seed);
    let url: Url = "http://relay/".parse().unwrap();
    let (mut good, mut bad) = (0usize, 0usize);
    for case in 0..ANSWERS {
        let mut bytes = answer(&mut rng);
        for _ in 0..rng.usize(..3) {
            mutate(&mut rng, &mut bytes);
        }
        let mut exchange = Exchange::get(Now::default(), &url, &[], None, ANSWER).unwrap();
        let (mut head, mut body, mut ends) = (0, 0, 0);
        let mut take = |event: Event<'_>| {
            assert_eq!(ends, 0, "case {case} of seed {seed}: {event:?} after the last event");
            match event {
                Event::Head(_) => head += 1,
                Event::Body(bytes) => body += bytes.len(),
                Event::End => (ends, good) = (1, good + 1),
                Event::Failed(_) => (ends, bad) = (1, bad + 1),
            }
        };
        let piece = rng.usize(1..200);
        for piece in bytes.chunks(piece) {
            exchange.handle_received(Now::default(), piece, &mut take);
        }
        exchange.handle_closed(rng.bool(), &mut take);
        assert!(ends == 1 && head <= 1 && body <= 500, "case {case} of seed {seed}");
    }
    assert!(good > ANSWERS / 10 && bad > ANSWERS / 10, "{good} good, {bad} bad: a bad mix");
}
