//! Two shards without sockets: connections are buffers, mail is carried by hand, time is made up.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::{ConnId, ListenerId, ShardId, SocketId, StreamSlot};
use crate::base::limits::SLAB_LARGE;
use crate::base::time::{Mono, Now, Utc};
use crate::face::http;
use crate::io::machine::{Closed, Input, Machine, Outbox, Output, Train};
use crate::media::looper::Looper;
use crate::media::sample::DEMO;
use crate::metrics::cells::Cells;
use crate::metrics::delay::DelayShelf;
use crate::metrics::table::Cell;
use crate::registry::settings::{Limits, Settings as RegistrySettings};
use crate::registry::streams::Registry;
use crate::ring::arena::Arena;
use crate::shard::mail::Mail;
use crate::shard::settings::Settings;
use crate::shard::swarm::Swarming;
use crate::shard::{Parts, Shard};
use crate::swarm::settings::{Addressing, Join, Mode};

/// A connection: its shard and its id there.
pub(super) type Client = (usize, ConnId);

/// The other end of a connection.
#[derive(Debug, Default)]
pub(super) struct End {
    /// What it received.
    pub(super) got: Vec<u8>,
    /// Bytes that the kernel takes before it blocks.
    pub(super) room: usize,
    pub(super) closed: bool,
    sending: bool,
    blocked: bool,
}

/// What is under way between two shards.
pub(super) enum Letter {
    Mail(Mail),
    Head(StreamSlot),
}

pub(super) struct World {
    pub(super) now: Mono,
    pub(super) shards: Vec<Shard>,
    pub(super) registry: Arc<Registry>,
    pub(super) ends: HashMap<(usize, u32), End>,
    /// Letters by receiver, not yet delivered.
    pub(super) post: Vec<VecDeque<Letter>>,
    /// What went out to peers, and from which shard.
    pub(super) trains: Vec<(usize, Train)>,
    next: u32,
}

impl World {
    pub(super) fn new() -> World {
        let limits = Limits {
            viewers: 100,
            connections: 200,
            per_address: 200,
            exempt: Vec::new(),
            peers: 100,
            egress: None,
        };
        let settings = RegistrySettings {
            max_streams: 4,
            window: Duration::from_secs(60),
            window_bytes: 4 * SLAB_LARGE as u64,
            linger: Duration::from_secs(30),
            keys: Vec::new(),
            limits,
        };
        let arena = Arena::create(9 * SLAB_LARGE as u64).unwrap();
        let registry = Arc::new(Registry::new(settings, arena, 2));
        let shards = (0..2).map(|id| Shard::new(parts(id, &registry))).collect();
        World {
            now: Mono::from_millis(1_000),
            shards,
            registry,
            ends: HashMap::new(),
            post: vec![VecDeque::new(), VecDeque::new()],
            trains: Vec::new(),
            next: 0,
        }
    }

    fn clock(&self) -> Now {
        Now { mono: self.now, utc: Utc::from_unix_millis(self.now.as_nanos() / 1_000_000) }
    }

    pub(super) fn tell(&mut self, shard: usize, input: Input<'_, Mail>) {
        let now = self.clock();
        self.shards[shard].handle(now, input);
    }

    pub(super) fn connect(&mut self, shard: usize) -> Client {
        let conn = ConnId { index: self.next, generation: 7 };
        self.next += 1;
        self.ends.insert((shard, conn.index), End { room: usize::MAX, ..End::default() });
        let peer = ([127, 0, 0, 1], 4_000).into();
        self.tell(shard, Input::Accepted { conn, listener: ListenerId(0), peer });
        self.run();
        (shard, conn)
    }

    pub(super) fn say(&mut self, client: Client, data: &[u8]) {
        self.tell(client.0, Input::Received { conn: client.1, data });
        self.run();
    }

    /// A client of `shard` that sends `request`.
    pub(super) fn ask(&mut self, shard: usize, request: &str) -> Client {
        let client = self.connect(shard);
        self.say(client, format!("{request} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        client
    }

    /// A publisher with an endless body.
    pub(super) fn publisher(&mut self, shard: usize, name: &str) -> Client {
        let client = self.connect(shard);
        let head =
            format!("PUT /live/{name} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
        self.say(client, head.as_bytes());
        client
    }

    pub(super) fn end(&mut self, client: Client) -> &mut End {
        self.ends.get_mut(&(client.0, client.1.index)).unwrap()
    }

    pub(super) fn text(&mut self, client: Client) -> String {
        String::from_utf8_lossy(&self.end(client).got).into_owned()
    }

    /// The kernel takes bytes of a blocked client again.
    pub(super) fn unblock(&mut self, client: Client) {
        let end = self.end(client);
        end.room = usize::MAX;
        if std::mem::take(&mut end.blocked) {
            self.tell(client.0, Input::Writable { conn: client.1 });
            self.run();
        }
    }

    /// The other end goes away.
    pub(super) fn hang_up(&mut self, client: Client, why: Closed) {
        self.end(client).closed = true;
        self.tell(client.0, Input::Closed { conn: client.1, why });
        self.run();
    }

    /// Asks both shards until they have nothing more to do; letters stay in the post.
    pub(super) fn run(&mut self) {
        for shard in 0..self.shards.len() {
            for round in 0.. {
                assert!(round < 10_000, "shard {shard} is never done");
                let mut out = Outbox::new(8);
                let now = self.clock();
                self.shards[shard].poll(now, &mut out);
                if out.is_empty() {
                    break;
                }
                for output in out.drain() {
                    self.carry_out(shard, output);
                }
            }
        }
    }

    fn carry_out(&mut self, shard: usize, output: Output<Mail>) {
        match output {
            Output::Send { conn, parts } => {
                let Some(end) = self.ends.get_mut(&(shard, conn.index)) else { return };
                assert!(!end.sending && !end.blocked, "a send before the last was answered");
                if end.closed {
                    return;
                }
                let bytes = [parts[0].as_slice(), parts[1].as_slice()].concat();
                assert!(!bytes.is_empty());
                let n = bytes.len().min(end.room);
                end.room -= n;
                end.got.extend_from_slice(&bytes[..n]);
                end.blocked = n == 0;
                let input = match n {
                    0 => Input::Blocked { conn },
                    n => Input::Sent { conn, n },
                };
                self.tell(shard, input);
            }
            Output::Close { conn } => {
                let end = self.ends.get_mut(&(shard, conn.index)).unwrap();
                if !std::mem::replace(&mut end.closed, true) {
                    self.tell(shard, Input::Closed { conn, why: Closed::Local });
                }
            }
            Output::Mail { shard: to, mail } => {
                self.post[usize::from(to.0)].push_back(Letter::Mail(mail));
            }
            Output::Head { shard: to, stream } => {
                self.post[usize::from(to.0)].push_back(Letter::Head(stream));
            }
            Output::Backlog { .. } | Output::Shutdown { .. } => {}
            Output::Train(train) => {
                assert_eq!(train.socket, SocketId::SWARM);
                self.trains.push((shard, train));
            }
            Output::Datagram { .. } | Output::Connect { .. } => {
                panic!("not what a shard does")
            }
        }
    }

    /// Delivers the oldest letter for `shard`, without letting it act.
    pub(super) fn deliver_one(&mut self, shard: usize) -> bool {
        match self.post[shard].pop_front() {
            None => return false,
            Some(Letter::Mail(mail)) => self.tell(shard, Input::Mail(mail)),
            Some(Letter::Head(stream)) => self.tell(shard, Input::Head { stream }),
        }
        true
    }

    /// Delivers everything until nothing moves.
    pub(super) fn settle(&mut self) {
        self.run();
        for round in 0.. {
            assert!(round < 10_000, "mail goes round in circles");
            if !(self.deliver_one(0) | self.deliver_one(1)) {
                return;
            }
            self.run();
        }
    }

    /// Lets time pass in steps of 10 ms, with all mail delivered.
    pub(super) fn pass(&mut self, millis: u64) {
        for _ in 0..millis.div_ceil(10) {
            self.now = self.now + Duration::from_millis(10);
            self.settle();
        }
    }

    pub(super) fn cell(&self, shard: usize, cell: Cell) -> u64 {
        self.shards[shard].cells.get(cell)
    }

    pub(super) fn both(&self, cell: Cell) -> u64 {
        self.cell(0, cell) + self.cell(1, cell)
    }
}

fn parts(id: u16, registry: &Arc<Registry>) -> Parts {
    let http = http::settings::Settings {
        request_timeout: Duration::from_secs(10),
        head_bytes: 8_192,
        header_lines: 32,
        trusted_proxies: Vec::new(),
        cors: String::new(),
        publisher_silence: Duration::from_millis(2_500),
        swarm: None,
    };
    let settings = Settings {
        max_lag: Duration::from_secs(5),
        max_jumps: 6,
        stall_timeout: Duration::from_secs(30),
        busy_target: 0.35,
        max_batch_delay: Duration::from_millis(200),
        segment: Duration::from_secs(2),
        playlist: 6,
    };
    let swarm = crate::swarm::settings::Settings {
        listen: None,
        advertise: Vec::new(),
        addressing: Addressing::Chunks64,
        size: None,
        join: Join::Open,
        peers: 100,
        egress: None,
        mode: Mode::Hybrid,
        strategy: crate::swarm::settings::Strategy::Trees,
    };
    Parts {
        ingest: [].into(),
        id: ShardId(id),
        settings,
        http: Arc::new(http),
        registry: Arc::clone(registry),
        swarm: Some(Swarming { settings: Arc::new(swarm), key: [3; 32] }),
        cells: Arc::new(Cells::default()),
        shelf: Arc::new(DelayShelf::default()),
    }
}

/// The demo's stream, cut as a publisher sends it.
pub(super) struct Source {
    looper: Looper,
    time: Duration,
    /// Everything that was sent.
    pub(super) sent: Vec<u8>,
}

impl Source {
    pub(super) fn new() -> Source {
        Source { looper: Looper::new(DEMO).unwrap(), time: Duration::ZERO, sent: Vec::new() }
    }

    /// The next `millis` of the stream.
    pub(super) fn next(&mut self, millis: u64) -> Vec<u8> {
        self.time += Duration::from_millis(millis);
        let mut due = Vec::new();
        self.looper.next(self.time, &mut due);
        self.sent.extend_from_slice(&due);
        due
    }
}

/// `data` as one chunk of a body.
pub(super) fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}
