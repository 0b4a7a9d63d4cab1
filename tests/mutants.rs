//! A million mutations of each kind, straight into the machines that meet strangers' bytes: no
//! panic, bounded memory, and nothing but whole packets in the window.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use common::ts::{Broadcast, PACKET, Shape};
use common::{mutate, seed};
use fastrand::Rng;
use headwater::base::ids::StreamName;
use headwater::base::time::{Mono, Now, Utc};
use headwater::face::http::connection::{Connection, Event, Refusal, Site};
use headwater::face::http::settings::Settings;
use headwater::ingest::intake::Intake;
use headwater::media::segmenter::Segmenter;
use headwater::metrics::table::Cell;
use headwater::ring::arena::Arena;
use headwater::ring::window;

const MUTATIONS: usize = 1_000_000;
/// Packets of one piece; half as many mutations hit it on average.
const PIECE: usize = 400;
/// Threads that share the work, each with its own part of the seeds.
const THREADS: u64 = 2;

fn at(millis: u64) -> Now {
    Now { mono: Mono::from_millis(millis), utc: Utc::from_unix_millis(1_600_000_000_000 + millis) }
}

fn intake() -> (Intake, Arc<window::Window>) {
    let arena = Arena::create(0).unwrap();
    let settings = window::Settings { bytes: arena.bytes(), span: Duration::from_secs(30) };
    let (writer, window) = window::open(&arena, &settings, 0, 1).unwrap();
    let segmenter = Segmenter::new(Duration::from_secs(2), Arc::default(), false);
    (Intake::new(writer, segmenter, false, at(0)), window)
}

/// Feeds mutated pieces of `good` until `mutations` were made.
fn publish(rng: &mut Rng, good: &[u8], mutations: usize) -> u64 {
    let (mut intake, window) = intake();
    let (mut millis, mut made, mut taken) = (0, 0, 0);
    while made < mutations {
        let from = rng.usize(..good.len() / PACKET - PIECE) * PACKET;
        let mut piece = good[from..from + PIECE * PACKET].to_vec();
        for _ in 0..rng.usize(1..PIECE) {
            mutate::ts(rng, &mut piece);
            made += 1;
        }
        for part in piece.chunks(rng.usize(100..40_000)) {
            millis += rng.u64(..40);
            let did = intake.push(at(millis), part);
            assert!(did.written.is_multiple_of(PACKET as u64), "a part of a packet was written");
            taken += did.written + did.dropped;
        }
        assert!(window.head() - window.tail() <= 3 << 20, "more than the window holds");
        let health = intake.health(at(millis));
        assert!(health.tracks.len() <= 64 && health.warnings.len() < 8, "{health:?}");
        if rng.u8(..64) == 0 {
            intake = intake.restart(at(millis)).0;
        }
    }
    taken
}

#[test]
fn a_million_mutations_of_packets() {
    let seed = seed("a_million_mutations_of_packets");
    let video = Broadcast::new(seed, Shape::new(2_000_000), 10.0);
    let audio = Shape { video: false, ..Shape::new(200_000) };
    let audio = Broadcast::new(seed, audio, 30.0);
    thread::scope(|scope| {
        for n in 0..THREADS {
            let (video, audio) = (&video.bytes, &audio.bytes);
            scope.spawn(move || {
                let mut rng = Rng::with_seed(seed ^ n);
                let share = MUTATIONS / THREADS as usize;
                let taken = publish(&mut rng, video, share * 4 / 5)
                    + publish(&mut rng, audio, share.div_ceil(5));
                let fed = share as u64 * 2 * PACKET as u64;
                assert!(taken > fed / 4, "most never came through: {taken} of about {fed}");
            });
        }
    });
}

struct Nothing;

impl Site for Nothing {
    fn streams_json(&mut self, _: Mono) -> Bytes {
        Bytes::from_static(b"{}")
    }
    fn status_json(&mut self, _: &StreamName) -> Option<Bytes> {
        None
    }
    fn graph_json(&mut self, _: &StreamName) -> Option<Bytes> {
        None
    }
    fn swarm_json(&mut self, _: &StreamName, _: Option<&str>) -> Result<Bytes, Refusal> {
        Err(Refusal::new(503, "no swarm"))
    }
    fn count(&mut self, _: Cell) {}
}

/// Does all that the connection wants done; a stream is refused, a publisher let in.
fn pump(connection: &mut Connection, now: Mono, statuses: &mut BTreeSet<u16>) {
    loop {
        match connection.poll(now, &mut Nothing) {
            Event::None => {}
            Event::Publish(_) => {
                connection.publish(now);
                connection.drain_body(&mut |_| {});
                continue;
            }
            Event::Play(_) | Event::Hls(_) => {
                connection.refuse(now, &Refusal::new(503, "not live"));
                continue;
            }
            _ => continue,
        }
        let _ = connection.poll_socket(now);
        let Some(parts) = connection.next_send() else { return };
        let first = parts[0].as_slice();
        if let Some(status) = first.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3)) {
            statuses.insert(std::str::from_utf8(status).unwrap().parse().unwrap());
        }
        let all = parts.iter().map(|part| part.as_slice().len()).sum();
        connection.handle_sent(now, all);
    }
}

#[test]
fn a_million_mutated_requests() {
    let seed = seed("a_million_mutated_requests");
    let settings = Arc::new(Settings {
        request_timeout: Duration::from_secs(10),
        head_bytes: 8192,
        header_lines: 32,
        trusted_proxies: Vec::new(),
        cors: "*".into(),
        publisher_silence: Duration::from_secs(3),
        swarm: None,
    });
    let work = |n: u64| {
        let mut rng = Rng::with_seed(seed ^ n << 40);
        let mut statuses = BTreeSet::new();
        for _ in 0..MUTATIONS as u64 / THREADS {
            let bytes = mutate::http(&mut rng);
            let mut connection = Connection::new(at(0).mono, ([127, 0, 0, 1], 1).into(), &settings);
            let cut = rng.usize(..=bytes.len());
            for (millis, part) in [(1, &bytes[..cut]), (2, &bytes[cut..])] {
                connection.handle_received(at(millis).mono, part, &mut |_| {});
                pump(&mut connection, at(millis).mono, &mut statuses);
                assert!(connection.memory() < 256 << 10, "{} bytes", connection.memory());
            }
            connection.handle_timer(at(20_000).mono);
            pump(&mut connection, at(20_000).mono, &mut statuses);
        }
        statuses
    };
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || work(n))).collect();
        for thread in threads {
            let statuses = thread.join().unwrap();
            println!("answers: {statuses:?}");
            let expected = [200, 400, 404, 405, 408, 431, 503];
            assert!(expected.iter().all(|s| statuses.contains(s)), "{statuses:?}");
        }
    });
}
