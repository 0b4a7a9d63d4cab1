//! Broken input from a seed: a million transport packets and twenty thousand requests that
//! no honest program sends. The relay lives, its memory stays, nothing panics. (A million changes
//! of each kind go straight to the machines in `mutants.rs`.)

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use common::ts::{Broadcast, PACKET, Shape};
use common::{Driver, Idle, PutStream, Relay, Setup, Watch, mutate, seed};
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
                mutate::ts(&mut rng, &mut bytes);
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

/// Sends it in pieces, reads some of the answer and leaves without a word.
fn exchange(address: SocketAddr, rng: &mut Rng) -> std::io::Result<()> {
    let bytes = mutate::http(rng);
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
