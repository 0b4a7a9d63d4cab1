//! What came of a crowd: counted at the relay's port of the switch and in the files that peers
//! wrote, told by the peers only where nobody else knows.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::hybrid::{BITRATE, Plan, Swarm};
use super::netns::Traffic;
use super::peer::{Peer, Played};
use super::scale::keep_dir;

/// What was counted up to a moment.
#[derive(Clone, Debug, Default)]
pub struct Mark {
    /// At the ports of the switch, by host.
    ports: Vec<Traffic>,
    /// Bytes that peers played, also those who are gone.
    written: u64,
    /// Processor time of the machine: all of it, and idle.
    cpu: [u64; 2],
}

impl Mark {
    /// What was counted so far.
    pub fn new(swarm: &Swarm) -> Mark {
        let written: u64 = swarm.some(0..swarm.peers.len()).map(Peer::written).sum();
        let stat = fs::read_to_string("/proc/stat").expect("procfs");
        let first = stat.lines().next().expect("all processors");
        let ticks: Vec<u64> = first.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        // idle and iowait; guest time is part of user time (proc(5)).
        let cpu = [ticks[..8].iter().sum(), ticks[3] + ticks[4]];
        Mark { ports: swarm.world.traffic(), written: written + swarm.gone, cpu }
    }
}

/// The time between two marks.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a>(pub &'a Mark, pub &'a Mark);

impl Span<'_> {
    /// Bytes that peers played, as their files say.
    pub fn played(self) -> u64 {
        self.1.written - self.0.written
    }

    /// Bytes that the relay's port of the switch took from the relay: UDP payload, and that of
    /// TCP, which is what peers take over HTTP.
    pub fn relay_sent(self) -> u64 {
        let sent = |mark: &Mark| (mark.ports[0].sent, mark.ports[0].sent_tcp);
        let ((udp, tcp), (udp_before, tcp_before)) = (sent(self.1), sent(self.0));
        (udp - udp_before).payload() + (tcp - tcp_before).tcp_payload()
    }

    /// UDP payload that ports of peers gave them and that the relay had not sent.
    pub fn straight(self) -> u64 {
        let received = |mark: &Mark| -> u64 {
            mark.ports[1..].iter().map(|port| port.received.payload()).sum()
        };
        let relay = |mark: &Mark| mark.ports[0].sent.payload();
        (received(self.1) - received(self.0)).saturating_sub(relay(self.1) - relay(self.0))
    }

    /// The share of what was played that the relay did not send.
    pub fn offload(self) -> f64 {
        1.0 - self.relay_sent() as f64 / self.played().max(1) as f64
    }

    /// The share of the processors that was at work.
    fn busy(self) -> f64 {
        let [all, idle] = [0, 1].map(|index| self.1.cpu[index] - self.0.cpu[index]);
        1.0 - idle as f64 / all.max(1) as f64
    }
}

/// What came of it.
pub struct Outcome {
    plan: Plan,
    /// Before the first peer, when those who are counted began to be, and the end of that.
    marks: [Mark; 3],
    /// Bytes that came by UDP and were verified, each once, by the peers' own account.
    pub payload: u64,
    /// Bytes that were played by those who were there at the end.
    pub played: u64,
    /// Viewers' own words, by the number of the peer.
    pub viewers: BTreeMap<usize, Value>,
    /// What they printed.
    pub logs: Vec<String>,
}

impl Outcome {
    pub(super) fn new(plan: Plan, marks: [Mark; 3]) -> Outcome {
        let (viewers, logs) = (BTreeMap::new(), Vec::new());
        Outcome { plan, marks, payload: 0, played: 0, viewers, logs }
    }

    pub(super) fn add(&mut self, peer: usize, played: Played) {
        let viewer = played.report["viewers"][0].clone();
        let (udp, http) = (number(&viewer, "/bytes/udp"), number(&viewer, "/bytes/http"));
        let wrote = played.dumps[0].len() as u64;
        // What it says of itself is what it wrote, but for what it had not played yet.
        let losses = viewer["losses"].as_array().expect("a list").iter();
        let lost: u64 = losses.map(|loss| number(loss, "/bytes")).sum();
        assert!(udp + http + lost >= wrote && udp <= wrote + 6 * BITRATE / 8, "{udp}, {wrote}");
        self.payload += udp;
        self.played += wrote;
        self.viewers.insert(peer, viewer);
        self.logs.push(played.log);
    }

    /// From before the first peer on.
    pub fn whole(&self) -> Span<'_> {
        Span(&self.marks[0], &self.marks[2])
    }

    /// The time that counts.
    pub fn then(&self) -> Span<'_> {
        Span(&self.marks[1], &self.marks[2])
    }

    /// The sum of a number over all viewers.
    pub fn sum(&self, pointer: &str) -> u64 {
        self.viewers.values().map(|viewer| number(viewer, pointer)).sum()
    }

    /// A number of every viewer, in order.
    pub fn sorted(&self, pointer: &str) -> Vec<u64> {
        let mut all: Vec<u64> = self.viewers.values().map(|one| number(one, pointer)).collect();
        all.sort_unstable();
        all
    }

    /// Where a part of all counts of a distribution ends, over all viewers.
    pub fn quantile(&self, counts: &str, part: f64) -> u64 {
        let pair = |pair: &Value| (number(pair, "/0"), number(pair, "/1"));
        let lists = self.viewers.values().filter_map(|viewer| viewer[counts].as_array());
        let mut all: Vec<(u64, u64)> = lists.flatten().map(pair).collect();
        all.sort_unstable();
        let mut left = (all.iter().map(|(_, n)| n).sum::<u64>() as f64 * part).ceil() as u64;
        let reached = all.iter().find(|(_, n)| {
            left = left.saturating_sub(*n);
            left == 0
        });
        reached.map_or(0, |(value, _)| *value)
    }

    /// The share of what peers brought that nobody had to ask for.
    pub fn pushed(&self) -> f64 {
        self.sum("/sharing/pushed_bytes") as f64 / self.sum("/sharing/peer_bytes").max(1) as f64
    }

    /// What a viewer stalled in all, the worst one, of those whom `meant` names: its number and
    /// milliseconds.
    pub fn worst_stall_of(&self, meant: impl Fn(usize) -> bool) -> (usize, u64) {
        let stalls = self.viewers.iter().filter(|(peer, _)| meant(**peer));
        let stalls = stalls.map(|(peer, viewer)| (*peer, number(viewer, "/stalls/ms")));
        stalls.max_by_key(|(_, ms)| *ms).unwrap_or((0, 0))
    }

    /// The same of all.
    pub fn worst_stall(&self) -> u64 {
        self.worst_stall_of(|_| true).1
    }

    /// Datagrams of a peer that were changed on the way.
    pub fn mangled(&self, peer: usize) -> u64 {
        self.marks[2].ports[peer + 1].mangled.packets
    }

    /// How many viewers stalled.
    pub fn stalled(&self) -> usize {
        self.sorted("/stalls/count").iter().filter(|count| **count > 0).count()
    }

    /// Everything in one line.
    pub fn line(&self, name: &str) -> String {
        let (viewers, seconds) = (self.viewers.len(), self.plan.seconds);
        let plan = &self.plan;
        let lines = (0..plan.peers).map(|peer| (plan.uplink)(peer)).sum::<u64>() as f64
            / (plan.peers as u64 * BITRATE) as f64;
        format!(
            "{name}, {}: {viewers} of {} peers, uplinks {lines:.2}x, {seconds} s: offload {} \
             ({} from the first peer on), pushed {}, arrival p50/p99 {}, behind live {}, \
             {} stalled, the worst {} ms, startup p95 {} ms, twice {}, rescues {}, control {}, \
             processors {}",
            plan.driver.name(),
            plan.peers,
            percent(self.then().offload()),
            percent(self.whole().offload()),
            percent(self.pushed()),
            self.pair("arrival_counts"),
            self.pair("delay_counts"),
            self.stalled(),
            self.worst_stall(),
            self.rank95("/startup_ms"),
            self.of_payload(self.sum("/sharing/duplicates") * 1316),
            self.of_payload(self.sum("/sharing/rescues") * 1316),
            self.of_payload(self.sum("/sharing/control_in")),
            percent(self.then().busy()),
        )
    }

    /// Everything, as README's tables have it.
    pub fn table(&self) -> String {
        let viewers = self.viewers.len();
        let (from, to) = (self.marks[0].ports[0], self.marks[2].ports[0]);
        let asked = to.received - from.received;
        let sum = |what: &str| self.sum(&format!("/sharing/{what}"));
        let rows = [
            ("offload, counted by nftables", percent(self.then().offload())),
            ("offload from the first peer on", percent(self.whole().offload())),
            ("of what peers brought, pushed", percent(self.pushed())),
            ("arrival p50 / p99", self.pair("arrival_counts")),
            ("behind live p50 / p99", self.pair("delay_counts")),
            ("startup p95", format!("{} ms", self.rank95("/startup_ms"))),
            ("viewers that stalled", format!("{} of {viewers}", self.stalled())),
            ("stalls, all / the worst viewer", {
                format!("{} / {} ms", self.sum("/stalls/ms"), self.worst_stall())
            }),
            ("came twice", self.of_payload(sum("duplicates") * 1316)),
            ("control in / out", {
                let [inward, out] = ["control_in", "control_out"].map(sum);
                format!("{} / {}", self.of_payload(inward), self.of_payload(out))
            }),
            ("integrity in", self.of_payload(sum("integrity_in"))),
            ("over http", self.of_payload(self.sum("/bytes/http"))),
            ("given up", format!("{} chunks", self.sum("/chunks/given_up"))),
            ("rescues", format!("{} chunks", sum("rescues"))),
            ("grafts / prunes", format!("{} / {}", sum("grafts"), sum("prunes"))),
            ("introduced / opened / unreachable", {
                format!("{} / {} / {}", sum("introduced"), sum("opened"), sum("unreachable"))
            }),
            ("peers to relay", {
                format!("{} datagrams, {}", asked.packets, self.of_payload(asked.payload()))
            }),
            ("processors busy", percent(self.then().busy())),
        ];
        let head = format!("{viewers} peers, {:?}", self.plan.driver);
        let mut text = format!("| {head} | |\n|---|---|\n");
        rows.iter().for_each(|(name, value)| text += &format!("| {name} | {value} |\n"));
        text
    }

    /// Prints it all, and leaves what was said where that is wanted.
    pub fn tell(&self, name: &str) {
        println!("{}\n{}", self.line(name), self.table());
        for (peer, viewer) in self.viewers.iter().filter(|(_, one)| stalled(one)) {
            let line = (self.plan.uplink)(*peer) as f64 / 1e6;
            println!("peer {peer} ({line:.1} Mbit/s up) stalled: {}", viewer["stalls"]);
        }
        let Some(dir) = keep_dir() else { return };
        let name = format!("{name}-{:?}", self.plan.driver);
        let text = serde_json::to_string_pretty(&self.viewers).expect("JSON");
        fs::write(dir.join(format!("{name}.json")), text).expect("the directory is there");
        fs::write(dir.join(format!("{name}.log")), self.logs.join("\n----\n")).expect("a log");
    }

    fn pair(&self, counts: &str) -> String {
        let [half, most] = [0.5, 0.99].map(|part| self.quantile(counts, part));
        format!("{half} / {most} ms")
    }

    /// What 95 of 100 viewers do not exceed.
    fn rank95(&self, pointer: &str) -> u64 {
        self.sorted(pointer)[(self.viewers.len() * 95).div_ceil(100) - 1]
    }

    fn of_payload(&self, bytes: u64) -> String {
        percent(bytes as f64 / self.payload.max(1) as f64)
    }
}

fn stalled(viewer: &Value) -> bool {
    number(viewer, "/stalls/count") > 0
}

/// A number in what a viewer said.
pub fn number(of: &Value, pointer: &str) -> u64 {
    let value = of.pointer(pointer);
    value.and_then(Value::as_u64).unwrap_or_else(|| panic!("no {pointer} in {of:#}"))
}

/// A part of one, in per cent.
pub fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}
