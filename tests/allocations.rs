//! Nothing is allocated per packet, per publication, per read or per train: counted, at ring,
//! viewer, codec and drivers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]
#![allow(unsafe_code, reason = "a global allocator is an unsafe trait; it only counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use bytes::Bytes;
use headwater::base::ids::{ShardId, SocketId};
use headwater::base::limits::{SLAB_LARGE, TS_PACKET};
use headwater::base::payload::Payload;
use headwater::base::time::{Mono, Now};
use headwater::face::http::progressive::{Next, Rules, Start, Viewer};
use headwater::io::clock::Clock;
use headwater::io::driver::Setup;
use headwater::io::machine::{Input, Machine, Outbox, Output, Train};
use headwater::io::mailbox::Post;
use headwater::io::udp::bind_swarm;
use headwater::ring::arena::Arena;
use headwater::ring::reader::Reader;
use headwater::ring::window::{Settings, open};
use headwater::wire::ppspp::{
    Addressing, Message, Messages, SignedSubtree, Span, Writer, build, split,
};

/// The system's allocator, and how often this thread asked it for memory.
struct Counting;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came; the counter is a `Cell` that is
// initialised at compile time and has no destructor, so that touching it allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.with(|asked| asked.set(asked.get() + 1));
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`; the memory came from there.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Packets of one append: what a socket gives at a time.
const BURST: usize = 7 * 8;

const VIEWERS: usize = 200;
const READERS: usize = 2;

/// One round of all viewers of a reader, each in the middle of what it may send.
fn serve(now: Mono, reader: &mut Reader, viewers: &mut [Viewer], rules: &Rules) -> u64 {
    let mut sent = 0;
    for viewer in viewers {
        while let Next::Send(parts) = viewer.poll(now, reader, u64::MAX, rules) {
            let bytes: usize = parts.iter().map(Payload::len).sum();
            sent += bytes as u64;
            viewer.handle_sent(bytes, reader);
        }
    }
    reader.release();
    sent
}

#[test]
fn a_round_allocates_nothing_but_a_handle_per_slab_and_reader() {
    let arena = Arena::create(8 * SLAB_LARGE as u64).unwrap();
    let settings = Settings { bytes: 8 * SLAB_LARGE as u64, span: Duration::from_secs(20) };
    let (mut writer, window) = open(&arena, &settings, 0, READERS).unwrap();
    let rules = Rules { max_lag: Duration::from_secs(2), max_jumps: 3 };
    let start = Start { at: 0, tables: Bytes::new(), exact: false };
    let mut shards: Vec<_> = (0..READERS)
        .map(|_| {
            let new = || Viewer::new(Mono::ZERO, &start, b"", Duration::ZERO, 256 << 10, &rules);
            let viewers: Vec<_> = (0..VIEWERS / READERS).map(|_| new()).collect();
            (Reader::new(Arc::clone(&window)), viewers)
        })
        .collect();
    let packets = [0x47; BURST * TS_PACKET];
    let mut now = Mono::from_millis(1);
    let mut rounds = |count: u64| {
        let mut sent = 0;
        for _ in 0..count {
            now = now + Duration::from_millis(1);
            assert_eq!(writer.append(now, &packets), packets.len(), "starved");
            writer.publish(now);
            for (reader, viewers) in &mut shards {
                sent += serve(now, reader, viewers, &rules);
            }
        }
        sent
    };
    // To large slabs, and until the oldest have left.
    rounds(1_000);
    const ROUNDS: u64 = 10_000;
    let before = ASKED.get();
    let sent = rounds(ROUNDS);
    let allocations = ASKED.get() - before;
    let bytes = ROUNDS * packets.len() as u64;
    assert_eq!(sent, bytes * VIEWERS as u64, "every viewer got every byte");
    // A slab that begins or ends in the measured time counts as well.
    let slabs = bytes / SLAB_LARGE as u64 + 2;
    let most = slabs * READERS as u64;
    assert!(allocations <= most, "{allocations} allocations, {most} handles");
    assert!(allocations > 0, "the allocator does not count");
}

#[test]
fn datagrams_are_read_and_written_without_memory_of_their_own() {
    let (mut buf, to) = ([0; 1500], Addressing::Chunks64);
    let (leaves, signature, span) = ([[1; 32]; 16], [2; 64], Span { first: 32, last: 47 });
    let mut round = || {
        let subtree = SignedSubtree {
            first: 32,
            leaves: &leaves,
            munro: &leaves[0],
            ntp: 3,
            signature: &signature,
        };
        let length = build::hash_datagram(&mut buf, 4, to, &subtree, true, Some(1345)).unwrap();
        let read = Messages::new(split(&buf[..length]).unwrap().1, to, 1316).flatten().count();
        let mut writer = Writer::new(&mut buf, 4, to);
        assert!(writer.push(Message::Ack { span, delay: 5 }));
        let read = read + Messages::new(&writer.written()[4..], to, 1316).flatten().count();
        build::data_headers(&mut buf, to, 32, 16).unwrap();
        read
    };
    assert_eq!(round(), 20);
    let before = ASKED.with(Cell::get);
    (0..1000).for_each(|_| assert_eq!(round(), 20));
    assert_eq!(ASKED.with(Cell::get), before);
}

/// Sends trains and datagrams to itself, over and over.
struct Circle {
    to: SocketAddr,
    head: Payload,
    headers: Payload,
    body: Payload,
    /// Datagrams that came back, and how many must before the next round.
    got: usize,
    wanted: usize,
    rounds: u64,
    before: u64,
    report: Sender<u64>,
}

impl Circle {
    const WARM_UP: u64 = 100;
    const ROUNDS: u64 = 2_000;
    const TRAINS: usize = 3;
}

impl Machine for Circle {
    type Mail = ();

    fn handle(&mut self, _: Now, input: Input<'_, ()>) {
        if let Input::Datagrams { segment, data, .. } = input {
            self.got += data.len().div_ceil(segment);
        }
    }

    fn poll(&mut self, _: Now, out: &mut Outbox<()>) {
        if self.got < self.wanted || self.rounds > Circle::WARM_UP + Circle::ROUNDS {
            return;
        }
        match self.rounds {
            Circle::WARM_UP => self.before = ASKED.get(),
            n if n == Circle::WARM_UP + Circle::ROUNDS => {
                let _ = self.report.send(ASKED.get() - self.before);
            }
            _ => {}
        }
        let (socket, to) = (SocketId::SWARM, self.to);
        for _ in 0..Circle::TRAINS {
            let (head, headers) = (self.head.clone(), self.headers.clone());
            let (body, from) = (self.body.clone(), Some(to.ip()));
            let (channel, header, chunk) = (0x8000_0000, 29, 1316);
            let train = Train { socket, to, from, channel, head, headers, header, body, chunk };
            out.push(Output::Train(train));
            let data = self.head.clone();
            out.push(Output::Datagram { socket, to, from, data });
        }
        self.wanted += Circle::TRAINS * 18;
        self.rounds += 1;
    }

    fn next_deadline(&self) -> Option<Mono> {
        None
    }
}

type Run = fn(Setup<()>, &mut Circle) -> std::io::Result<()>;

/// Trains on their way out and in again, through both drivers.
#[test]
fn trains_are_sent_and_received_without_memory_of_their_own() {
    let mut ways: Vec<Run> = vec![headwater::io::epoll::run];
    match headwater::io::probe::uring() {
        Ok(()) => ways.push(headwater::io::uring::run),
        Err(why) => println!("SKIPPED: {why}"),
    }
    for run in ways {
        let socket = bind_swarm("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
        let to = socket.local_addr().unwrap();
        let post = Post::new(1, 1, 1).unwrap();
        let setup = Setup {
            shard: ShardId(0),
            listeners: Vec::new(),
            sockets: vec![(SocketId::SWARM, socket)],
            post: post.clone(),
            clock: Clock::start(),
            cells: Arc::default(),
            max_connections: 1,
            descriptors: 1,
            on_ready: Box::new(|| {}),
        };
        let (report, reported) = std::sync::mpsc::channel();
        let driver = std::thread::spawn(move || {
            let payload = |len: usize| Payload::from(Bytes::from(vec![7; len]));
            let (head, headers, body) = (payload(1345), payload(16 * 29), payload(16 * 1316));
            let (got, wanted, rounds, before) = (0, 0, 0, 0);
            let mut machine =
                Circle { to, head, headers, body, got, wanted, rounds, before, report };
            run(setup, &mut machine)
        });
        let allocations = reported.recv_timeout(Duration::from_secs(60));
        post.halt();
        driver.join().unwrap().unwrap();
        assert_eq!(allocations, Ok(0), "in {} rounds", Circle::ROUNDS);
    }
}
