//! Broken input from a seed: a million transport packets and twenty thousand requests that
//! no honest program sends. The relay lives, its memory stays, nothing panics.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use common::ts::{Broadcast, PACKET, Shape};
use common::{Driver, Idle, PutStream, Relay, Setup, Watch, seed};
use fastrand::Rng;

/// Transport packets in all, over the drivers that there are.
const PACKETS: usize = 1_000_000;
/// Packets of one publish.
const PUBLISH: usize = 25_000;
/// Requests in all.
const REQUESTS: usize = 20_000;
const CLIENTS: usize = 8;
/// What resident memory may grow by after the warm-up.
const RSS_NOISE: u64 = 24 << 20;
/// A run that takes longer than this hangs.
const LIMIT: Duration = Duration::from_secs(180);

fn relay(driver: Driver) -> Relay {
    Setup::new(driver).set("streams.linger", "1s").set("limits.request_timeout", "2s").start()
}

fn assert_well(relay: &mut Relay, warm: u64, what: &str) {
    assert!(relay.is_running(), "{what}: the relay has ended:\n{}", relay.log());
    assert_eq!(relay.control("/livez").status, 200, "{what}");
    let log = relay.log();
    assert!(!log.contains("panicked"), "{what}:\n{log}");
    assert!(log.len() < 16 << 20, "{what}: {} bytes of log", log.len());
    let grown = relay.rss().saturating_sub(warm);
    assert!(grown < RSS_NOISE, "{what}: resident memory grew by {grown}");
    // It still does its work.
    let stream = Broadcast::new(1, Shape::new(500_000), 1.0);
    let mut put = PutStream::begin(relay.http, "afterwards");
    put.push(&stream.bytes);
    let put = Idle::begin(put);
    relay.wait_live("afterwards");
    let viewer = Watch::live(relay.http, "afterwards").start();
    viewer.wait_bytes(3 * PACKET, Duration::from_secs(10));
    assert!(matches!(put.finish().status, 200 | 201), "{what}");
}

/// One change somewhere in `bytes`, of a kind that transmission or a hostile hand makes.
fn mutate_ts(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let packet = rng.usize(..bytes.len() / PACKET) * PACKET;
    let at = rng.usize(..bytes.len() - PACKET);
    match rng.u8(..12) {
        0 => bytes[at] ^= 1 << rng.u8(..8),
        1 => bytes[packet] = rng.u8(..),
        2 => drop(bytes.drain(at..at + rng.usize(1..PACKET))),
        3 => drop(bytes.splice(at..at, (0..rng.usize(1..400)).map(|_| rng.u8(..)))),
        4 => bytes[packet + 1] = rng.u8(..),
        5 => bytes[packet + 2] = rng.u8(..),
        // Scrambling, adaptation control, counter; then the adaptation length and flags.
        6 => bytes[packet + 3] = rng.u8(..),
        7 => bytes[packet + 4] = rng.u8(..),
        8 => bytes[packet + 5] = rng.u8(..),
        // Headers of sections and PES, their lengths, time stamps, descriptors.
        9 => bytes[packet + rng.usize(5..30)] = [0, 1, 0x7f, 0x80, 0xff, 0x47][rng.usize(..6)],
        10 => {
            let other = rng.usize(..bytes.len() / PACKET - 1) * PACKET;
            bytes.copy_within(other..other + PACKET, packet);
        }
        _ => {
            // A table of another program, another size, another version.
            let (pid, len) = ([0, 0x1000][rng.usize(..2)], rng.u16(..1200));
            let head = [0x47, 0x40 | (pid >> 8) as u8, pid as u8, 0x10, rng.u8(..3)];
            bytes[packet..packet + 5].copy_from_slice(&head);
            bytes[packet + 6] = 0xb0 | (len >> 8) as u8;
            bytes[packet + 7] = len as u8;
        }
    }
}

/// Publishes one piece; the relay may refuse or cut it, but must answer or close in time. The
/// status, where one was read; and how much was taken.
fn publish(
    address: SocketAddr,
    name: &str,
    bytes: &[u8],
    rng: &mut Rng,
    taken: &mut usize,
) -> Option<u16> {
    let mut put = PutStream::begin(address, name);
    for piece in bytes.chunks(rng.usize(500..60_000)) {
        if put.try_push(piece).is_err() {
            break;
        }
        *taken += piece.len();
    }
    if rng.u8(..3) == 0 {
        put.reset();
        return None;
    }
    let _ = put.connection().try_send(b"0\r\n\r\n");
    let connection = put.connection();
    loop {
        match connection.fill(Duration::from_secs(10)) {
            Ok(true) => {
                let text = String::from_utf8_lossy(connection.pending()).into_owned();
                if let Some((head, _)) = text.split_once("\r\n") {
                    return head.split(' ').nth(1).and_then(|status| status.parse().ok());
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("neither answered nor closed: {e}");
            }
            Ok(false) | Err(_) => return None,
        }
    }
}

#[test]
fn broken_transport_streams() {
    let seed = seed("broken_transport_streams");
    let start = Instant::now();
    let drivers = Driver::available();
    let publishes = PACKETS.div_ceil(PUBLISH) / drivers.len();
    let mut taken = 0;
    for driver in drivers {
        let mut relay = relay(driver);
        let video = Broadcast::new(seed, Shape::new(4_000_000), 10.0);
        let audio = Shape { video: false, ..Shape::new(200_000) };
        let audio = Broadcast::new(seed, audio, 60.0);
        let mut warm = 0;
        for n in 0..publishes {
            let mut rng = Rng::with_seed(seed ^ n as u64);
            let good = if n % 5 == 4 { &audio } else { &video };
            let mut bytes = good.bytes.repeat(1 + PUBLISH * PACKET / good.bytes.len());
            bytes.truncate(PUBLISH * PACKET);
            // From nearly whole to hardly any packet left alone.
            for _ in 0..PUBLISH >> rng.u32(2..10) {
                mutate_ts(&mut rng, &mut bytes);
            }
            let name = format!("broken-{}", n % 7);
            let status = publish(relay.http, &name, &bytes, &mut rng, &mut taken);
            // Refused for another reason than its bytes, the piece would test nothing.
            assert!(!matches!(status, Some(401..=429 | 503)), "publish {n}: {status:?}");
            assert!(relay.is_running(), "publish {n} ended the relay:\n{}", relay.log());
            assert!(start.elapsed() < LIMIT, "hangs at publish {n}");
            if n == publishes / 4 {
                warm = relay.rss();
            }
        }
        assert_well(&mut relay, warm, driver.name());
    }
    println!("{} packets' worth of bytes were taken", taken / PACKET);
    assert!(taken / PACKET > PACKETS / 2, "most publishes were cut off early");
}

const GOOD: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /live/target.ts HTTP/1.1\r\nHost: a\r\nRange: bytes=0-\r\n\r\n",
    "GET /live/target.ts?start=-10s&wait=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /live/target/status.json HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    "HEAD /streams.json HTTP/1.0\r\n\r\n",
    "OPTIONS /live/x.ts HTTP/1.1\r\nHost: a\r\nOrigin: b\r\n\r\n",
    "PUT /live/p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nGabcd\r\n0\r\n\r\n",
    "PUT /live/p?key=x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nGabcdefgh",
    "POST /live/p HTTP/1.1\r\nAuthorization: Bearer x\r\nExpect: 100-continue\r\n\r\n",
    "PUT /live/p HTTP/1.1\r\nX-Forwarded-For: 1.2.3.4, ::1\r\nVia: 1.1 x\r\n\r\n",
];

const PIECES: &[&str] = &[
    "\r\n",
    "\r",
    "\n",
    "\0",
    " ",
    ":",
    "%",
    "%2e%2e/",
    "%00",
    "?",
    "&key=",
    "..",
    "/",
    "//",
    "HTTP/1.1",
    "HTTP/1.0",
    "Content-Length: 18446744073709551616\r\n",
    "Content-Length: -1\r\n",
    "Content-Length: 0\r\nContent-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "ffffffffffffffff\r\n",
    "10000000000000000\r\n",
    "0\r\n\r\n",
    "5;ext=\"\r\n",
    "Connection: close\r\n",
    "Connection: upgrade\r\n",
    "\u{fe0f}",
    "Host: \r\n",
    "X: \x7f\x01\r\n",
    " folded\r\n",
    "?start=-99999999999999999999s",
    "?wait=99999999999",
    "Expect: 100-continue\r\n",
    "G",
];

/// Some changes of one or several good requests in a row.
fn mutate_http(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..rng.usize(1..4) {
        bytes.extend_from_slice(GOOD[rng.usize(..GOOD.len())].as_bytes());
    }
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=bytes.len());
        match rng.u8(..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            1 if at < bytes.len() => bytes[at] = rng.u8(..),
            2 => bytes.truncate(at),
            3 => {
                let end = (at + rng.usize(..40)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let count = 1 << rng.u8(..9);
                let piece = PIECES[rng.usize(..PIECES.len())].repeat(count);
                bytes.splice(at..at, piece.bytes().take(20_000));
            }
            _ => {
                let piece = PIECES[rng.usize(..PIECES.len())];
                bytes.splice(at..at, piece.bytes());
            }
        }
    }
    bytes
}

/// Sends it in pieces, reads some of the answer and leaves without a word.
fn exchange(address: SocketAddr, rng: &mut Rng) -> std::io::Result<()> {
    let bytes = mutate_http(rng);
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    // A reset at the end leaves no TIME_WAIT: twenty thousand ports are more than there are.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    let cut = rng.usize(..=bytes.len());
    stream.write_all(&bytes[..cut])?;
    stream.write_all(&bytes[cut..])?;
    if rng.u8(..4) > 0 {
        stream.shutdown(Shutdown::Write)?;
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer)?;
        assert!(n == 0 || buffer.starts_with(b"HTTP/1."), "{:?}", &buffer[..n.min(40)]);
    }
    Ok(())
}

#[test]
fn broken_requests() {
    let seed = seed("broken_requests");
    let start = Instant::now();
    let drivers = Driver::available();
    let requests = REQUESTS / drivers.len();
    for driver in drivers {
        let mut relay = relay(driver);
        let mut live = PutStream::begin(relay.http, "target");
        live.push(&Broadcast::new(seed, Shape::new(500_000), 2.0).bytes);
        let _live = Idle::begin(live);
        relay.wait_live("target");
        // Connections that could not be made say that something else is wrong.
        let refused = AtomicUsize::new(0);
        let round = |from: usize, to: usize| {
            thread::scope(|scope| {
                for client in 0..CLIENTS {
                    let (address, refused) = (relay.http, &refused);
                    scope.spawn(move || {
                        for n in (from..to).skip(client).step_by(CLIENTS) {
                            let mut rng = Rng::with_seed(seed ^ (n as u64) << 20);
                            let result = exchange(address, &mut rng);
                            if result.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused) {
                                refused.fetch_add(1, Relaxed);
                            }
                            assert!(start.elapsed() < LIMIT, "hangs at request {n}");
                        }
                    });
                }
            });
        };
        round(0, requests / 4);
        let warm = relay.rss();
        round(requests / 4, requests);
        assert_eq!(refused.into_inner(), 0, "connections refused:\n{}", relay.log());
        assert_well(&mut relay, warm, driver.name());
    }
}
