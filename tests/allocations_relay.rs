//! A relay that serves allocates nothing per send and nothing per chunk.
//!
//! The whole relay runs inside this process, with an allocator that counts what the threads
//! named `shard-N` ask for once everybody watches, viewers and peers. The relay may allocate one
//! handle per slab and shard, and a little for each mark, each publication of figures, each
//! signature and each subtree that is made ready to send: all are bounded here, and all are far
//! below one per send, train, acknowledgement or chunk.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "a global allocator can be written in no other way")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use common::crowd::Crowd;
use common::leech::{Leech, Mode, Swarm};
use common::ts::{Broadcast, Shape};
use common::{Driver, Publisher, http, secs, wait_for};
use headwater::base::limits::{CHUNK, SLAB_SMALL, SUBTREE};
use headwater::wire::ppspp::Addressing;
use headwater::{config, node};

const VIEWERS: usize = 200;
const PEERS: u64 = 60;
const SHARDS: u64 = 2;
/// Seconds of the stream that are measured, after some of warming up. The window holds eight
/// of them, so that slabs are used again.
const SECONDS: u64 = 10;
const WARM_UP: u64 = 6;

/// Allocations per second for what is told about the stream, which its home shard alone does:
/// health four times (a copy, its tracks and their two names each), a mark at each of two access
/// points (itself, and a new list of all) and at each segment, the codec's name in the picture's
/// own headers.
const FIGURES: u64 = 56;

/// Allocations inside aws-lc-rs for one signature, which is one for each subtree of 16 chunks: its
/// DER form, that cut to its length, and the two numbers in it.
const SIGNATURE: u64 = 4;

/// Allocations for a subtree on one shard that has peers: its hash datagram and its headers in
/// one, and what that is shared by.
const READY: u64 = 2;

/// Allocations per second for what is counted of a stream's swarm and decided about it: four times
/// each shard's proposals, the count itself and its letter, the orders, and the list of shards;
/// once who feeds whom, on each shard and all together.
const COUNTS: u64 = 4 * (3 * SHARDS + 4) + 2 * SHARDS + 4;

/// How often what is kept of one peer may grow meanwhile: what is under way, what was asked for.
const GROWTH: u64 = 2;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static WATCHING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// Where the first allocations came from, for who has to find them.
static SITES: Mutex<Vec<Backtrace>> = Mutex::new(Vec::new());
static SITES_LEFT: AtomicUsize = AtomicUsize::new(SITES_MAX);
const SITES_MAX: usize = 600;

thread_local! {
    /// Whether this thread is a shard; nobody has looked yet.
    static SHARD: Cell<Option<bool>> = const { Cell::new(None) };
    /// Taking a backtrace allocates as well.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

fn is_shard() -> bool {
    let name = rustix::thread::name();
    name.is_ok_and(|name| name.to_bytes().starts_with(b"shard-"))
}

fn note() {
    if !WATCHING.load(Relaxed) || INSIDE.replace(true) {
        return;
    }
    let shard = SHARD.get().unwrap_or_else(is_shard);
    SHARD.set(Some(shard));
    if shard {
        ALLOCATIONS.fetch_add(1, Relaxed);
        if SITES_LEFT.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            let site = Backtrace::force_capture();
            SITES.lock().unwrap().push(site);
        }
    }
    INSIDE.set(false);
}

// SAFETY: every call is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`; `ptr` came from the system.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller keeps the contract of `realloc`; `ptr` came from the system.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

/// A relay on a thread of this process.
struct Inside {
    http: SocketAddr,
    control: SocketAddr,
    swarm: SocketAddr,
    thread: thread::JoinHandle<Result<(), String>>,
    _dir: tempfile::TempDir,
}

impl Inside {
    fn start(driver: Driver) -> Inside {
        let dir = tempfile::TempDir::with_prefix("headwater-").unwrap();
        let file = dir.path().join("headwater.toml");
        let text = format!(
            "[listen]\nhttp = \"127.0.0.1:0\"\ncontrol = \"127.0.0.1:0\"\n\
             [cores]\nshards = {SHARDS}\nio_driver = \"{}\"\n\
             [swarm]\nchunks_per_signature = 16\n\
             [memory]\narena = \"64MiB\"\n[streams]\nmemory = \"2MiB\"\nmax = 4\n\
             [log]\nlevel = \"warn\"\n",
            driver.name()
        );
        std::fs::write(&file, text).unwrap();
        let loaded = config::load(Some(&file), [], &[]).unwrap();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            node::Relay::load(loaded.config)?.run(|addresses| tell.send(addresses.clone()).unwrap())
        });
        let addresses = told.recv_timeout(secs(20)).expect("the relay gets ready");
        Inside {
            http: addresses.http,
            control: addresses.control,
            swarm: addresses.swarm.expect("a swarm"),
            thread,
            _dir: dir,
        }
    }

    /// The sum of a counter over its labels.
    fn count(&self, name: &str) -> u64 {
        let text = http::get(self.control, "/metrics").text();
        let lines = text.lines().filter(|line| line.starts_with(name));
        let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        values.sum::<f64>() as u64
    }

    fn stop(self) {
        let me = rustix::process::getpid();
        rustix::process::kill_process(me, rustix::process::Signal::TERM).unwrap();
        self.thread.join().unwrap().unwrap();
    }
}

/// Peers that only acknowledge, on one thread.
struct Peers {
    thread: thread::JoinHandle<Vec<Leech>>,
    stop: Arc<AtomicBool>,
}

impl Peers {
    fn join(relay: &Inside, stream: &str) -> Peers {
        let id = wait_for("the swarm's id", secs(10), || {
            let answer = http::get(relay.http, &format!("/live/{stream}/swarm.json"));
            let json: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
            json["swarm_id"].as_str()?.parse().ok()
        });
        let swarm = Swarm { address: relay.swarm, id, addressing: Addressing::Chunks64, size: 16 };
        let mut leeches: Vec<_> =
            (0..PEERS).map(|n| Leech::join(swarm, Mode::Push, 0, n)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Relaxed) {
                leeches.iter_mut().for_each(Leech::skim);
                common::pass(common::millis(5));
            }
            leeches
        });
        Peers { thread, stop }
    }

    fn leave(self) {
        self.stop.store(true, Relaxed);
        let leeches = self.thread.join().unwrap();
        assert!(leeches.iter().all(|leech| !leech.closed), "nobody was given up");
        leeches.iter().for_each(Leech::leave);
    }
}

/// The innermost frames that are ours, most frequent first.
fn sites() -> String {
    let mut counts = BTreeMap::<String, usize>::new();
    for site in SITES.lock().unwrap().drain(..) {
        let text = site.to_string();
        let ours = text.lines().filter(|line| line.contains(" headwater::"));
        let names = ours.filter_map(|line| Some(line.split_once(": ")?.1));
        let frames: Vec<&str> = names.take(4).collect();
        *counts.entry(frames.join(" < ")).or_default() += 1;
    }
    SITES_LEFT.store(SITES_MAX, Relaxed);
    let mut lines: Vec<_> = counts.into_iter().map(|(site, n)| format!("{n:6} {site}")).collect();
    lines.sort_by(|a, b| b.cmp(a));
    lines.join("\n")
}

fn measure(driver: Driver) {
    let stream = Broadcast::new(77, Shape::new(2_000_000), (WARM_UP + SECONDS + 6) as f64);
    let relay = Inside::start(driver);
    let publisher = Publisher::start(relay.http, "lean", &stream);
    wait_for("a live stream", secs(10), || {
        let answer = http::get(relay.http, "/live/lean/status.json");
        (answer.status == 200 && answer.text().contains("\"live\"")).then_some(())
    });
    let crowd = Crowd::join(relay.http, "lean", VIEWERS);
    let peers = Peers::join(&relay, "lean");
    let reach = |seconds: u64| {
        let frame = seconds as usize * 25;
        wait_for("the broadcast", secs(60), || (publisher.frames() >= frame).then_some(()));
    };
    reach(WARM_UP);
    let trains = || relay.count("headwater_swarm_trains_total{");
    let (frames, sends) = (publisher.frames(), relay.count("headwater_sends_total{"));
    let trains_before = trains();
    ALLOCATIONS.store(0, Relaxed);
    WATCHING.store(true, Relaxed);
    reach(WARM_UP + SECONDS);
    WATCHING.store(false, Relaxed);
    let allocations = ALLOCATIONS.load(Relaxed);
    let sent = relay.count("headwater_sends_total{") - sends;
    let trains = trains() - trains_before;
    let published = stream.slice(frames, publisher.frames()).len() as u64;
    let received = crowd.total();
    drop(publisher.silence());
    crowd.leave();
    peers.leave();
    relay.stop();

    let slabs = published / SLAB_SMALL as u64 + 2;
    let subtrees = published / SUBTREE as u64 + 2;
    // Peers and viewers have a handle each on a slab.
    let budget = 2 * SHARDS * slabs
        + SECONDS * (FIGURES + COUNTS)
        + subtrees * SIGNATURE
        + SHARDS * subtrees * READY
        + GROWTH * PEERS;
    let chunks = published / CHUNK as u64;
    println!(
        "{}: {allocations} allocations (at most {budget}) for {sent} sends, {trains} trains, \
         {chunks} chunks, {slabs} slabs:\n{}",
        driver.name(),
        sites()
    );
    assert!(sent > 5 * budget && trains > 2 * budget, "too little happened to tell");
    assert!(allocations <= budget, "{allocations} allocations, at most {budget}");
    assert!(received > published * VIEWERS as u64 / 2, "the viewers got it");
}

/// One after the other: the count is one for the process.
#[test]
fn serving_allocates_nothing_per_send_or_chunk() {
    for driver in Driver::available() {
        measure(driver);
    }
}
