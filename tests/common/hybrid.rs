//! A relay and a crowd of peers on shaped lines, and what came of it: counted at the relay's
//! port of the switch and in the files that peers wrote, told by the peers only where nobody
//! else knows.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::client::Framing;
use super::netns::{Count, Host, Traffic, World};
use super::peer::{Peer, Played, judge};
use super::ts::{Broadcast, Shape};
use super::{Driver, Publisher, PutStream, Relay, Setup, key_hash, millis, pass, secs, wait_for};

/// Bits per second of the stream, and frames from key frame to key frame: two seconds.
pub const BITRATE: u64 = 2_000_000;
const GOP: u64 = 50;

/// Between two starts: all at once would wait for two cores, not for the network.
const APART: Duration = millis(100);

/// What is played.
#[derive(Clone, Copy)]
pub struct Plan {
    pub driver: Driver,
    pub peers: usize,
    /// Of every peer's input.
    pub loss_permille: u32,
    /// Flags of every peer.
    pub more: &'static [&'static str],
    /// The longest that it may take, for which there is a stream.
    pub seconds: u64,
}

/// A world in which a relay and its peers run.
pub struct Swarm {
    pub plan: Plan,
    pub peers: Vec<Option<Peer>>,
    pub relay: Relay,
    pub broadcast: Broadcast,
    publisher: Option<Publisher>,
    /// Host 0 is the relay's and the publisher's, host k + 1 that of peer k.
    pub world: World,
    began: Mark,
}

/// What was counted up to a moment.
#[derive(Clone, Copy, Default)]
pub struct Mark {
    relay: Traffic,
    /// Bytes that peers played.
    written: u64,
    /// Processor time of the machine: all of it, and idle.
    cpu: [u64; 2],
}

/// What a line carries upwards: a fifth of the peers next to nothing, the others 1 to 6.5 Mbit/s,
/// in the mean 1.5 times the stream; `headwater sim` assumes the same.
pub fn uplink(peer: usize) -> u64 {
    let golden = (peer as f64 * 0.618_034).fract();
    if peer % 5 == 2 { 200_000 } else { 1_000_000 + (golden * 5_500_000.0) as u64 }
}

/// A relay on a host, which takes publishers that have the key.
pub fn relay(host: &Host, driver: Driver) -> Setup {
    let keys = toml::Value::Array(vec![key_hash("key").into()]);
    let setup = Setup::new(driver).host(host.v4().into()).within(host.words());
    setup.set("publish.keys", keys)
}

/// A publisher on the relay's host, and the swarm that peers can join.
pub fn publish(host: &Host, relay: &Relay, broadcast: &Broadcast) -> Publisher {
    host.enter(|| {
        let key = ["Authorization: Bearer key"];
        let put = PutStream::begin_with(relay.http, "/live/cam", Framing::Chunked, &key);
        let publisher = Publisher::drive(put, broadcast);
        relay.wait_live("cam");
        wait_for("swarm.json", secs(10), || {
            (relay.get("/live/cam/swarm.json").status == 200).then_some(())
        });
        publisher
    })
}

/// `seconds` of the stream.
pub fn broadcast(seed: u64, seconds: u64) -> Broadcast {
    Broadcast::new(seed, Shape { gop: GOP, ..Shape::new(BITRATE) }, seconds as f64)
}

impl Swarm {
    /// Starts everything in a world of at least `plan.peers + 1` hosts.
    pub fn start(world: World, plan: Plan, setup: impl FnOnce(Setup) -> Setup) -> Swarm {
        let home = world.host(0);
        let setup = setup(relay(home, plan.driver));
        let relay = home.enter(|| setup.start());
        let broadcast = broadcast(4, plan.seconds + plan.peers as u64 / 10 + 20);
        let publisher = Some(publish(home, &relay, &broadcast));
        let mut swarm = Swarm {
            plan,
            peers: Vec::new(),
            relay,
            broadcast,
            publisher,
            world,
            began: Mark::default(),
        };
        swarm.began = swarm.mark();
        for number in 0..plan.peers {
            let host = swarm.world.host(number + 1);
            host.lose_udp_to(plan.loss_permille);
            host.shape(uplink(number));
        }
        for number in 0..plan.peers {
            swarm.begin(number);
            pass(APART);
        }
        swarm
    }

    /// The stream's address.
    pub fn url(&self) -> String {
        format!("http://{}/live/cam", self.relay.http)
    }

    fn begin(&mut self, number: usize) {
        let name = format!("peer-{number}");
        let more: Vec<String> = self.plan.more.iter().map(|flag| (*flag).to_owned()).collect();
        let (url, host) = (self.url(), self.world.host(number + 1));
        let files = (self.relay.dir.path(), name.as_str());
        let peer = Peer::start_with(files, (&url, Some(host)), (self.plan.driver, 1), &more);
        self.peers.push(Some(peer));
    }

    /// The host of peer `number`.
    pub fn host(&self, number: usize) -> &Host {
        self.world.host(number + 1)
    }

    /// Those of `numbers` who are there.
    pub fn some(&self, numbers: impl IntoIterator<Item = usize>) -> impl Iterator<Item = &Peer> {
        numbers.into_iter().filter_map(|number| self.peers[number].as_ref())
    }

    /// What was counted so far.
    pub fn mark(&self) -> Mark {
        let written = self.some(0..self.peers.len()).map(Peer::written).sum();
        let stat = fs::read_to_string("/proc/stat").expect("procfs");
        let first = stat.lines().next().expect("all processors");
        let ticks: Vec<u64> = first.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        // idle and iowait; guest time is part of user time (proc(5)).
        let cpu = [ticks[..8].iter().sum(), ticks[3] + ticks[4]];
        Mark { relay: self.world.host(0).traffic(), written, cpu }
    }

    /// Lets time pass, and tells how the offload goes meanwhile.
    pub fn watch(&self, seconds: u64) {
        const STEP: u64 = 5;
        let (mut before, mut told) = (self.mark(), String::new());
        for _ in 0..seconds / STEP {
            pass(secs(STEP));
            let now = self.mark();
            told += &format!(" {:.0}", offload([before, now]) * 100.0);
            before = now;
            self.keep_series();
        }
        pass(secs(seconds % STEP));
        println!("offload in % of every {STEP} s:{told}");
        let home = self.world.host(0);
        let status = home.enter(|| self.relay.status("cam"));
        println!("{}", status.map_or(Value::Null, |status| status["swarm"].clone()));
    }

    /// Keeps what the relay tells operators of the swarm now, if that is wanted.
    fn keep_series(&self) {
        let Some(dir) = keep_dir() else { return };
        let home = self.world.host(0);
        let text = home.enter(|| self.relay.control("/metrics")).text();
        let swarm = |line: &&str| line.contains("swarm") && !line.ends_with(" 0");
        let lines: Vec<_> =
            text.lines().filter(|line| !line.starts_with('#')).filter(swarm).collect();
        let path = dir.join(format!("series-{:?}.txt", self.plan.driver));
        let before = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, before + &lines.join("\n") + "\n\n").expect("the directory is there");
    }

    /// Waits until every peer there has played something.
    pub fn wait_playing(&self, limit: Duration) {
        wait_for("everybody to play", limit, || {
            self.some(0..self.peers.len()).all(|peer| peer.written() > 0).then_some(())
        });
    }

    /// Kills some peers; what they had played was published.
    pub fn kill(&mut self, numbers: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
        let killed = numbers.into_iter().filter_map(|number| self.peers[number].take());
        killed.map(Peer::kill).collect()
    }

    /// Takes the publisher, to be stopped.
    pub fn publisher(&mut self) -> Publisher {
        self.publisher.take().expect("once")
    }

    /// Replaces the relay, whose directory stays, and its publisher.
    #[must_use = "peers write to the directory of the first"]
    pub fn set_relay(&mut self, relay: Relay, publisher: Publisher) -> Relay {
        self.publisher = Some(publisher);
        std::mem::replace(&mut self.relay, relay)
    }

    /// Stops everybody who is there and sums up what they said and what was counted between two
    /// marks. Each one's bytes are held against `published`.
    pub fn end(&mut self, published: &[u8], marks: [Mark; 2]) -> Outcome {
        let whole = self.mark();
        let there: Vec<Peer> = self.peers.iter_mut().filter_map(Option::take).collect();
        there.iter().for_each(|peer| peer.signal(rustix::process::Signal::TERM));
        let mut outcome = Outcome::new(self.plan, [self.began, whole], marks);
        for peer in there {
            let played = peer.end();
            judge(published, &played.dumps[0], &played.report["viewers"][0]);
            outcome.add(played);
        }
        outcome
    }
}

/// What came of it.
pub struct Outcome {
    plan: Plan,
    /// From before the first peer, and while all were there.
    whole: [Mark; 2],
    middle: [Mark; 2],
    /// Bytes that came by UDP and were verified, each once.
    pub payload: u64,
    /// Bytes that were played.
    pub played: u64,
    /// Viewers' own words.
    pub viewers: Vec<Value>,
    /// What they printed.
    pub logs: Vec<String>,
}

impl Outcome {
    fn new(plan: Plan, whole: [Mark; 2], middle: [Mark; 2]) -> Outcome {
        Outcome {
            plan,
            whole,
            middle,
            payload: 0,
            played: 0,
            viewers: Vec::new(),
            logs: Vec::new(),
        }
    }

    fn add(&mut self, played: Played) {
        let viewer = played.report["viewers"][0].clone();
        let (udp, http) = (number(&viewer, "/bytes/udp"), number(&viewer, "/bytes/http"));
        let wrote = played.dumps[0].len() as u64;
        // What it says of itself is what it wrote, but for what it had not played yet.
        let lost: u64 = viewer["losses"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|loss| number(loss, "/bytes"))
            .sum();
        assert!(udp + http + lost >= wrote && udp <= wrote + 6 * BITRATE / 8, "{udp}, {wrote}");
        self.payload += udp;
        self.played += wrote;
        self.viewers.push(viewer);
        self.logs.push(played.log);
    }

    /// The sum of a number over all viewers.
    pub fn sum(&self, pointer: &str) -> u64 {
        self.viewers.iter().map(|viewer| number(viewer, pointer)).sum()
    }

    /// A number of every viewer, in order.
    pub fn sorted(&self, pointer: &str) -> Vec<u64> {
        let mut all: Vec<u64> = self.viewers.iter().map(|one| number(one, pointer)).collect();
        all.sort_unstable();
        all
    }

    /// Where a part of all counts of a distribution ends, over all viewers.
    pub fn quantile(&self, counts: &str, part: f64) -> u64 {
        let pair = |pair: &Value| (number(pair, "/0"), number(pair, "/1"));
        let lists = self.viewers.iter().filter_map(|viewer| viewer[counts].as_array());
        let mut all: Vec<(u64, u64)> = lists.flatten().map(pair).collect();
        all.sort_unstable();
        let mut left = (all.iter().map(|(_, n)| n).sum::<u64>() as f64 * part).ceil() as u64;
        let reached = all.iter().find(|(_, n)| {
            left = left.saturating_sub(*n);
            left == 0
        });
        reached.map_or(0, |(value, _)| *value)
    }

    /// The share that did not come from the relay, over the whole run: what left the relay's port
    /// against what peers had.
    pub fn offload(&self) -> f64 {
        let [from, to] = self.whole.map(|mark| mark.relay.sent);
        1.0 - (to - from).payload() as f64 / self.payload as f64
    }

    /// The same while everybody was there, and against what they wrote.
    pub fn offload_then(&self) -> f64 {
        offload(self.middle)
    }

    /// The share of what peers brought that nobody had to ask for.
    pub fn pushed(&self) -> f64 {
        self.sum("/sharing/pushed_bytes") as f64 / self.sum("/sharing/peer_bytes").max(1) as f64
    }

    /// The worst stalls of one viewer, in milliseconds.
    pub fn worst_stall(&self) -> u64 {
        self.sorted("/stalls/ms").pop().unwrap_or(0)
    }

    /// Everything, as README's tables have it.
    pub fn table(&self) -> String {
        let viewers = self.viewers.len();
        let [from, to] = self.middle.map(|mark| mark.cpu);
        let [all, idle] = [0, 1].map(|index| to[index] - from[index]);
        let rank = |pointer: &str| self.sorted(pointer)[(viewers * 95).div_ceil(100) - 1];
        let of_payload = |bytes: u64| percent(bytes as f64 / self.payload as f64);
        let [relay_from, relay_to] = self.whole.map(|mark| mark.relay);
        let asked: Count = relay_to.received - relay_from.received;
        let stalled = self.viewers.iter().filter(|viewer| number(viewer, "/stalls/count") > 0);
        let rows = [
            ("offload, counted by nftables", percent(self.offload())),
            ("offload while all were there", percent(self.offload_then())),
            ("of what peers brought, pushed", percent(self.pushed())),
            ("arrival p50 / p99", self.pair("arrival_counts")),
            ("behind live p50 / p99", self.pair("delay_counts")),
            ("startup p95", format!("{} ms", rank("/startup_ms"))),
            ("viewers that stalled", format!("{} of {viewers}", stalled.count())),
            ("stalls, all / the worst viewer", {
                format!("{} / {} ms", self.sum("/stalls/ms"), self.worst_stall())
            }),
            ("came twice", of_payload(self.sum("/sharing/duplicates") * 1316)),
            ("control in / out", {
                let [inward, out] = ["/sharing/control_in", "/sharing/control_out"];
                format!("{} / {}", of_payload(self.sum(inward)), of_payload(self.sum(out)))
            }),
            ("integrity in", of_payload(self.sum("/sharing/integrity_in"))),
            ("over http", of_payload(self.sum("/bytes/http"))),
            ("given up", format!("{} chunks", self.sum("/chunks/given_up"))),
            ("rescues", format!("{} chunks", self.sum("/sharing/rescues"))),
            ("grafts / prunes", {
                format!("{} / {}", self.sum("/sharing/grafts"), self.sum("/sharing/prunes"))
            }),
            ("introduced / opened / unreachable", {
                let of = |what: &str| self.sum(&format!("/sharing/{what}"));
                format!("{} / {} / {}", of("introduced"), of("opened"), of("unreachable"))
            }),
            (
                "peers to relay",
                format!("{} datagrams, {}", asked.packets, { of_payload(asked.payload()) }),
            ),
            ("processors busy", percent(1.0 - idle as f64 / all.max(1) as f64)),
        ];
        let head = format!("{viewers} peers, {:?}", self.plan.driver);
        let mut text = format!("| {head} | |\n|---|---|\n");
        rows.iter().for_each(|(name, value)| text += &format!("| {name} | {value} |\n"));
        text
    }

    fn pair(&self, counts: &str) -> String {
        let [half, most] = [0.5, 0.99].map(|part| self.quantile(counts, part));
        format!("{half} / {most} ms")
    }
}

/// The share of what was written between two marks that the relay did not send.
fn offload([from, to]: [Mark; 2]) -> f64 {
    let sent = (to.relay.sent - from.relay.sent).payload();
    1.0 - sent as f64 / to.written.saturating_sub(from.written).max(1) as f64
}

/// A number in what a viewer said.
pub fn number(of: &Value, pointer: &str) -> u64 {
    let value = of.pointer(pointer);
    value.and_then(Value::as_u64).unwrap_or_else(|| panic!("no {pointer} in {of:#}"))
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

/// Where a run leaves what was said, if `HEADWATER_WORLD_KEEP` names a directory.
fn keep_dir() -> Option<PathBuf> {
    std::env::var_os("HEADWATER_WORLD_KEEP").map(PathBuf::from)
}

/// Leaves what peers said there.
pub fn keep(outcome: &Outcome, name: &str) {
    let Some(dir) = keep_dir() else { return };
    let text = serde_json::to_string_pretty(&outcome.viewers).expect("JSON");
    fs::write(dir.join(format!("{name}.json")), text).expect("the directory is there");
    fs::write(dir.join(format!("{name}.log")), outcome.logs.join("\n----\n")).expect("a log");
}
