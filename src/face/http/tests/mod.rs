//! A client, a shard that says yes or no, and a socket that takes a few bytes at a time.

mod answers;
mod bodies;
mod chaos;
mod lifetimes;
mod segments;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::base::ids::StreamName;
use crate::base::time::Mono;
use crate::face::http::connection::{Connection, Event, Refusal, Site, SocketWish};
use crate::face::http::settings::Settings;
use crate::metrics::table::Cell;
use crate::registry::settings::Network;

const HEAD_BYTES: usize = 8192;

fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        request_timeout: Duration::from_secs(10),
        head_bytes: HEAD_BYTES,
        header_lines: 32,
        trusted_proxies: vec![Network { address: [10, 0, 0, 0].into(), prefix: 8 }],
        cors: "*".into(),
        publisher_silence: Duration::from_secs(3),
        swarm: None,
    })
}

/// Knows one stream, `cam`.
#[derive(Default)]
struct TestSite {
    counts: Vec<Cell>,
}

impl Site for TestSite {
    fn streams_json(&mut self, _: Mono) -> Bytes {
        Bytes::from_static(b"{\"streams\":[]}\n")
    }
    fn status_json(&mut self, name: &StreamName) -> Option<Bytes> {
        (name.as_str() == "cam").then(|| Bytes::from_static(b"{\"live\":true}\n"))
    }
    fn graph_json(&mut self, name: &StreamName) -> Option<Bytes> {
        (name.as_str() == "cam").then(|| Bytes::from_static(b"{\"nodes\":[]}\n"))
    }
    fn swarm_json(&mut self, name: &StreamName, host: Option<&str>) -> Result<Bytes, Refusal> {
        match name.as_str() {
            "cam" => Ok(format!("{{\"host\":{host:?}}}\n").into()),
            _ => Err(Refusal::new(503, "not yet").retry_after(1)),
        }
    }
    fn count(&mut self, cell: Cell) {
        self.counts.push(cell);
    }
}

/// What the shard does with events.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shard {
    Admits,
    Refuses,
    /// Leaves the question open; the test answers.
    Thinks,
}

struct Probe {
    conn: Connection,
    site: TestSite,
    shard: Shard,
    now: Mono,
    /// The most bytes the socket takes at once.
    takes: usize,
    /// Everything sent.
    wire: Vec<u8>,
    /// Everything published.
    body: Vec<u8>,
    events: Vec<String>,
    wishes: Vec<SocketWish>,
}

impl Probe {
    fn new(shard: Shard) -> Probe {
        Probe::from(shard, "127.0.0.1:5000", &settings())
    }

    fn from(shard: Shard, peer: &str, settings: &Arc<Settings>) -> Probe {
        let now = Mono::from_millis(1000);
        Probe {
            conn: Connection::new(now, peer.parse().unwrap(), settings),
            site: TestSite::default(),
            shard,
            now,
            takes: usize::MAX,
            wire: Vec::new(),
            body: Vec::new(),
            events: Vec::new(),
            wishes: Vec::new(),
        }
    }

    fn receive(&mut self, data: &[u8]) -> &mut Probe {
        let body = &mut self.body;
        self.conn.handle_received(self.now, data, &mut |b| body.extend_from_slice(b));
        self.pump()
    }

    /// Until nothing is left to be done.
    fn pump(&mut self) -> &mut Probe {
        loop {
            while self.poll() {}
            self.wishes.extend(self.conn.poll_socket(self.now));
            let Some(parts) = self.conn.next_send() else {
                return self;
            };
            assert!(self.conn.next_send().is_none(), "a second send before the first is answered");
            let all = parts.iter().flat_map(|p| p.as_slice().to_vec());
            let before = self.wire.len();
            self.wire.extend(all.take(self.takes));
            let n = self.wire.len() - before;
            assert!(n > 0, "an empty send");
            self.conn.handle_sent(self.now, n);
        }
    }

    fn poll(&mut self) -> bool {
        let event = self.conn.poll(self.now, &mut self.site);
        let refusal = Refusal::new(503, "not live; try again").retry_after(2);
        match &event {
            Event::None => return false,
            Event::Play(request) => {
                match (self.shard, request.head_only) {
                    (Shard::Thinks, _) => {}
                    (Shard::Refuses, _) => self.conn.refuse(self.now, &refusal),
                    (Shard::Admits, true) => self.conn.head_ok(self.now, request.at),
                    (Shard::Admits, false) => {
                        let start = self.conn.play(request.at);
                        self.wire.extend_from_slice(&start.head);
                    }
                }
                self.events.push(format!("{request:?}"));
            }
            Event::Hls(request) => {
                match self.shard {
                    Shard::Thinks => {}
                    _ => self.conn.refuse(self.now, &refusal),
                }
                self.events.push(format!("{request:?}"));
            }
            Event::Publish(request) => {
                match self.shard {
                    Shard::Thinks => {}
                    Shard::Refuses => self.conn.refuse(self.now, &refusal),
                    Shard::Admits => self.publish(),
                }
                self.events.push(format!("{request:?} key {:?}", request.key));
            }
            other => self.events.push(format!("{other:?}")),
        }
        true
    }

    fn publish(&mut self) {
        self.conn.publish(self.now);
        let body = &mut self.body;
        self.conn.drain_body(&mut |b| body.extend_from_slice(b));
    }

    fn text(&self) -> String {
        String::from_utf8(self.wire.clone()).unwrap()
    }

    /// The statuses of all responses so far.
    fn statuses(&self) -> Vec<u16> {
        let text = String::from_utf8_lossy(&self.wire);
        // Our own texts name HTTP/1.1, too.
        text.split("HTTP/1.1 ").filter_map(|part| part.get(..3)?.parse().ok()).collect()
    }

    fn pass(&mut self, time: Duration) -> &mut Probe {
        self.now = self.now + time;
        self.conn.handle_timer(self.now);
        self.pump()
    }

    fn is_open(&self) -> bool {
        self.wishes.is_empty()
    }

    /// What must not depend on how the bytes were cut.
    fn outcome(&self) -> (String, Vec<u8>, Vec<String>, Vec<SocketWish>, Vec<String>) {
        // Whether to ask for a body that has begun to arrive does depend on it.
        let wire = String::from_utf8_lossy(&self.wire).replace("HTTP/1.1 100 Continue\r\n\r\n", "");
        let counts = self.site.counts.iter().map(|c| format!("{c:?}")).collect();
        (wire, self.body.clone(), self.events.clone(), self.wishes.clone(), counts)
    }
}

/// The outcome of one request on a fresh connection.
fn ask(shard: Shard, request: &str) -> Probe {
    let mut probe = Probe::new(shard);
    probe.receive(request.as_bytes());
    probe
}
