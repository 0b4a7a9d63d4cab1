//! The relay as a seed of the swarm: what peers get over UDP is what was published, proven chunk
//! by chunk; strangers get nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use common::leech::{Leech, Mode, Swarm};
use common::relay::on_each_host;
use common::ts::{Broadcast, NULL_PID, PACKET, Shape, pid};
use common::{Driver, Publisher, Relay, Setup, both_drivers, millis, secs, seed, wait_for};
use headwater::wire::ppspp::build::opening;
use headwater::wire::ppspp::{Addressing, Bye, Options};
use rustix::process::Signal;

both_drivers!(
    subscribers_get_every_byte_over_a_lossy_path,
    plain_peers_pull,
    strangers_meet_silence,
    peers_are_told_when_the_relay_ends,
    a_token_is_asked_for,
);

const RATE: u64 = 1_200_000;

fn setup(driver: Driver, addressing: i64, size: i64) -> Setup {
    Setup::new(driver)
        .set("swarm.chunk_addressing", addressing)
        .set("swarm.chunks_per_signature", size)
}

/// A stream without its null packets, which a relay may add and a source may send.
fn payload(bytes: &[u8]) -> Vec<u8> {
    let packets = bytes.chunks_exact(PACKET).filter(|packet| pid(packet) != NULL_PID);
    packets.flatten().copied().collect()
}

/// Whether what a peer got is a stretch of what was published.
#[track_caller]
fn assert_published(leech: &Leech, broadcast: &Broadcast, seconds: f64) {
    let got = payload(&leech.bytes());
    let all = payload(&broadcast.bytes);
    let least = (seconds * RATE as f64 / 8.0) as usize;
    assert!(got.len() > least, "{} bytes, {least} at least", got.len());
    let head = &got[..8 * PACKET];
    let at = all.windows(head.len()).step_by(PACKET).position(|window| window == head);
    let at = at.expect("its first packets were published") * PACKET;
    assert!(all[at..].starts_with(&got), "what came differs from what was published");
}

fn peers(relay: &Relay) -> u64 {
    relay.status("live").and_then(|status| status["swarm"]["peers"].as_u64()).unwrap_or(0)
}

fn subscribers_get_every_byte_over_a_lossy_path(driver: Driver) {
    let seed = seed("swarm_seed");
    on_each_host(
        || setup(driver, 4, 16),
        |relay| {
            let broadcast = Broadcast::new(seed, Shape::new(RATE), 60.0);
            let publisher = Publisher::start(relay.http, "live", &broadcast);
            relay.wait_live("live");
            let swarm = Swarm::of(relay, "live", Addressing::Chunks64, 16);
            // Several, so that both shards have some: each socket has a port of its own.
            let losses = [0, 0, 5, 5, 2, 2];
            let until = Instant::now() + secs(7);
            let threads = losses.map(|loss| {
                let random = seed ^ fastrand::u64(..);
                std::thread::spawn(move || {
                    let mut leech = Leech::join(swarm, Mode::Push, loss, random);
                    leech.run(until);
                    leech
                })
            });
            wait_for("six peers", secs(6), || (peers(relay) == 6).then_some(()));
            let leeches = threads.map(|thread| thread.join().unwrap());
            for (leech, loss) in leeches.iter().zip(losses) {
                assert_eq!((leech.closed, leech.bye), (false, None), "loss {loss}");
                assert_published(leech, &broadcast, 4.0);
                let chunks = leech.chunks.len();
                assert!(loss == 0 || leech.repaired > 0, "loss was repaired");
                assert!(leech.twice * 10 < chunks, "{} of {chunks} came twice", leech.twice);
            }
            let sent = |kind: &str| relay.metric("headwater_swarm_trains_total", &[kind]).unwrap();
            assert!(sent("kind=\"push\"") > 6.0 * 20.0);
            assert!(sent("kind=\"answer\"") > 10.0);
            let crimes = relay.metric("headwater_swarm_crimes_total", &[]).unwrap();
            assert_eq!(crimes, 0.0);
            leeches.iter().for_each(Leech::leave);
            wait_for("no peers", secs(3), || (peers(relay) == 0).then_some(()));
            let left = relay.metric("headwater_sessions_closed_total", &["swarm", "\"left\""]);
            assert_eq!(left, Some(6.0));
            let bytes = relay.status("live").unwrap()["swarm"]["bytes"].as_u64().unwrap();
            assert!(bytes > 6 * 4 * RATE / 8, "{bytes}");
            publisher.silence();
        },
    );
}

fn plain_peers_pull(driver: Driver) {
    let seed = seed("swarm_pull");
    for (addressing, size) in [(Addressing::Chunks32, 4_u8), (Addressing::Chunks64, 8)] {
        let relay = setup(driver, addressing.code().into(), size.into()).start();
        let broadcast = Broadcast::new(seed, Shape::new(RATE), 30.0);
        let publisher = Publisher::start(relay.http, "live", &broadcast);
        relay.wait_live("live");
        let swarm = Swarm::of(&relay, "live", addressing, size.into());
        let mut leech = Leech::join(swarm, Mode::Pull, 2, seed);
        leech.run(Instant::now() + secs(5));
        assert!(!leech.closed);
        assert_published(&leech, &broadcast, 3.0);
        assert!(leech.twice * 4 < leech.chunks.len(), "{} twice", leech.twice);
        publisher.silence();
    }
}

fn strangers_meet_silence(driver: Driver) {
    let relay = setup(driver, 4, 16).start();
    let broadcast = Broadcast::new(1, Shape::new(RATE), 30.0);
    let publisher = Publisher::start(relay.http, "live", &broadcast);
    relay.wait_live("live");
    let swarm = Swarm::of(&relay, "live", Addressing::Chunks64, 16);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(swarm.address).unwrap();
    socket.set_read_timeout(Some(millis(400))).unwrap();
    let good = swarm.options(Mode::Push);
    let mut other = *swarm.id.as_bytes();
    other[64] ^= 1;
    let wrong = [
        Options { swarm_id: Some(&other), ..good },
        Options { addressing: Some(2), ..good },
        Options { chunk_size: Some(1_024), ..good },
        Options { integrity: Some(2), ..good },
        Options { min_version: Some(2), ..good },
        Options { swarm_id: None, ..good },
    ];
    let mut buf = [0; 256];
    for options in wrong {
        let length = opening(&mut buf, 7, options).unwrap();
        socket.send(&buf[..length]).unwrap();
    }
    let length = opening(&mut buf, 7, good).unwrap();
    for bad in [&buf[..40], &[0, 0, 0, 0], &[0x80, 0, 0, 0, 1], &[0xff; 1_300], &[1]] {
        socket.send(bad).unwrap();
    }
    let answer = socket.recv(&mut [0; 2_048]);
    assert!(answer.is_err(), "{answer:?}");
    socket.send(&buf[..length]).unwrap();
    let n = socket.recv(&mut [0; 2_048]).unwrap();
    assert!(n <= length, "{n} for {length}");
    // Nobody confirms: nothing more comes.
    let answer = socket.recv(&mut [0; 2_048]);
    assert!(answer.is_err(), "{answer:?}");
    let counted = |outcome: &str| relay.metric("headwater_swarm_openings_total", &[outcome]);
    assert_eq!(counted("\"unfit\""), Some(5.0));
    assert_eq!(counted("\"unknown_swarm\""), Some(1.0));
    assert_eq!(counted("\"answered\""), Some(1.0));
    assert_eq!(peers(&relay), 0);
    publisher.silence();
}

fn peers_are_told_when_the_relay_ends(driver: Driver) {
    let mut relay = setup(driver, 4, 16).start();
    let broadcast = Broadcast::new(2, Shape::new(RATE), 30.0);
    let publisher = Publisher::start(relay.http, "live", &broadcast);
    relay.wait_live("live");
    let swarm = Swarm::of(&relay, "live", Addressing::Chunks64, 16);
    let mut leeches: Vec<_> = (0..8).map(|n| Leech::join(swarm, Mode::Push, 0, n)).collect();
    for leech in &mut leeches {
        leech.run(Instant::now() + millis(100));
    }
    relay.signal(Signal::TERM);
    for leech in &mut leeches {
        leech.run(Instant::now() + secs(5));
        assert_eq!((leech.closed, leech.bye), (true, Some(Bye::Draining)));
    }
    assert!(relay.wait_exit(Duration::from_secs(8)).success());
    drop(publisher);
}

fn a_token_is_asked_for(driver: Driver) {
    let relay = setup(driver, 4, 16)
        .set("swarm.join", "token")
        .set("swarm.tokens", vec![common::key_hash("let me in")])
        .start();
    let broadcast = Broadcast::new(3, Shape::new(RATE), 30.0);
    let publisher = Publisher::start(relay.http, "live", &broadcast);
    relay.wait_live("live");
    let swarm = Swarm::of(&relay, "live", Addressing::Chunks64, 16);
    let mut leech = Leech::join(swarm, Mode::Push, 0, 1);
    leech.run(Instant::now() + secs(3));
    assert_eq!((leech.closed, leech.bye), (true, Some(Bye::Token)));
    assert_eq!(peers(&relay), 0);
    publisher.silence();
}
