//! The ring: what it costs to publish and to seal, and how soon a reader on another core sees it.
//!
//! `cargo bench --bench ring`. Each figure is the median of several rounds, with the least and
//! the most. The goals: publishing at most 20 ns, a spinning reader's median at most 1 us, sealing
//! at least 1 Gbit/s with two chunks under one signature.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails by panicking")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use headwater::base::limits::{SLAB_LARGE, SUBTREE, TS_PACKET};
use headwater::base::time::{Mono, Now, Utc};
use headwater::ingest::sealer::Sealer;
use headwater::registry::identity::Identity;
use headwater::ring::arena::Arena;
use headwater::ring::reader::Reader;
use headwater::ring::records::SubtreeSize;
use headwater::ring::window::{Settings, Window, open};
use headwater::ring::writer::Writer;
use headwater::swarm::integrity::{KeyPair, SignerClock};
use headwater::wire::ppspp::Addressing;

/// Rounds of each measurement.
const ROUNDS: usize = 15;

/// Publishes of one round.
const PUBLISHES: u32 = 200_000;

/// Bytes of the largest subtree that are sealed in one round, as many times.
const SEALED: usize = 500;

/// Packets that the spinning reader is timed on in one round.
const SEEN: usize = 20_000;

/// Between two of them: the reader has found the last one and spins again.
const APART: Duration = Duration::from_micros(5);

fn ring() -> (Writer, Arc<Window>) {
    let bytes = 16 * SLAB_LARGE as u64;
    let arena = Arena::create(bytes).unwrap();
    open(&arena, &Settings { bytes, span: Duration::from_secs(60) }, 0, 1).unwrap()
}

/// Nanoseconds per packet of appending, with a publish after every `every`.
fn append(every: u32) -> f64 {
    let (mut writer, window) = ring();
    let (packet, now) = ([0x47; TS_PACKET], Mono::from_millis(1));
    let start = Instant::now();
    for number in 1..=PUBLISHES {
        black_box(writer.append(now, black_box(&packet)));
        if number.is_multiple_of(every) {
            writer.publish(now);
        }
    }
    let time = start.elapsed();
    black_box(window.head());
    time.as_nanos() as f64 / f64::from(PUBLISHES)
}

/// Nanoseconds per chunk of sealing what was published, with `chunks` under one signature.
fn seal(chunks: usize) -> f64 {
    let (mut writer, _) = ring();
    let now = Mono::from_millis(1);
    let (key, size) = (KeyPair::generate().unwrap(), SubtreeSize::new(chunks).unwrap());
    let clock = SignerClock::new(Now::default(), Utc::default());
    let identity = Identity::new(Box::new(key), Addressing::Chunks64, size, clock, u64::MAX);
    let mut sealer = Sealer::new(Arc::new(identity), &mut writer);
    let mut time = Duration::ZERO;
    for number in 0..SEALED {
        writer.append(now, &[number as u8; SUBTREE]);
        writer.publish(now);
        let start = Instant::now();
        black_box(sealer.seal(now, &mut writer));
        time += start.elapsed();
    }
    time.as_nanos() as f64 / (SEALED * 16) as f64
}

/// Nanoseconds from just before a publish to the moment at which a reader that spins on another
/// core has the packet in hand: median and 99th percentile.
fn latency(cores: &[core_affinity::CoreId]) -> (f64, f64) {
    let (mut writer, window) = ring();
    let (start, ready) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let (core, tell) = (cores[0], Arc::clone(&ready));
    let reading = std::thread::spawn(move || {
        core_affinity::set_for_current(core);
        let mut reader = Reader::new(Arc::clone(&window));
        let (mut at, mut times) = (0, Vec::with_capacity(SEEN));
        tell.store(true, Ordering::Release);
        while times.len() < SEEN {
            if window.head() == at {
                std::hint::spin_loop();
                continue;
            }
            // Several may have come while this thread was off its core: the last one counts.
            at = window.head();
            let parts = reader.read(at - TS_PACKET as u64, TS_PACKET).unwrap();
            let now = start.elapsed().as_nanos() as u64;
            let bytes = parts[0].as_slice().first_chunk::<16>().unwrap();
            let (_, sent) = bytes.split_last_chunk::<8>().unwrap();
            times.push(now.saturating_sub(u64::from_be_bytes(*sent)));
            reader.release();
        }
        times
    });
    core_affinity::set_for_current(cores[1]);
    while !ready.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    let (mut packet, now) = ([0x47; TS_PACKET], Mono::from_millis(1));
    while !reading.is_finished() {
        let next = Instant::now() + APART;
        let sent = start.elapsed().as_nanos() as u64;
        packet[8..16].copy_from_slice(&sent.to_be_bytes());
        writer.append(now, &packet);
        writer.publish(now);
        while Instant::now() < next {
            std::hint::spin_loop();
        }
    }
    let mut times = reading.join().unwrap();
    times.sort_unstable();
    (times[SEEN / 2] as f64, times[SEEN * 99 / 100] as f64)
}

fn report(name: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let (min, max) = (values[0], values[values.len() - 1]);
    println!("{name:<44}{:>9.1} ns  (least {min:.1}, most {max:.1})", values[values.len() / 2]);
}

fn main() {
    let all: Vec<f64> = (0..ROUNDS).map(|_| append(1)).collect();
    let few: Vec<f64> = (0..ROUNDS).map(|_| append(64)).collect();
    // Both copy the same bytes; they differ by 63 of 64 publishes.
    let publish = all.iter().zip(&few).map(|(all, few)| (all - few) * 64.0 / 63.0).collect();
    report("append a packet and publish it", all);
    report("append a packet, publish every 64th", few);
    report("publish", publish);
    for chunks in [16, 8, 4, 2] {
        let all = (0..ROUNDS / 3).map(|_| seal(chunks)).collect();
        report(&format!("seal a chunk, {chunks} under one signature"), all);
    }
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if cores.len() < 2 {
        println!("SKIPPED: a reader on another core needs two cores");
        return;
    }
    let (p50, p99) = (0..ROUNDS / 3).map(|_| latency(&cores)).unzip();
    report("a spinning reader has the packet, p50", p50);
    report("a spinning reader has the packet, p99", p99);
}
