//! Network namespaces: hosts of their own on one switch, with losses, cuts and counters at its
//! ports. Needs root, `ip` and `nft`; without them a test says SKIPPED.
//!
//! ```text
//! world.host(0) 10.77.0.1, fd77::1   eth0 ── p0 ┐
//! world.host(1) 10.77.0.2, fd77::2   eth0 ── p1 ├ switch: a bridge in a namespace of its own
//! …                                             ┘
//! ```
//! Faults belong to the network, so they sit at the switch's ports: a host that cannot send does
//! not learn it, as behind a firewall. Every datagram of a train is lost or counted on its own,
//! because the hosts' links take no trains (`gso_max_segs 1`): else one throw of the dice would
//! take all seventeen. What makes a home out of a host is in [`super::homes`].

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::skipped;

/// Where `ip netns` keeps the names.
const NAMES: &str = "/run/netns";
/// What all of our names begin with; the process id of the test follows.
const PREFIX: &str = "headwater-";
/// Bytes of an Ethernet header, which only the way out of the switch counts.
const ETHERNET: u64 = 14;

/// Hosts on one switch. Dropping it kills what runs there and removes everything.
pub struct World {
    pub(super) tag: String,
    pub(super) hosts: Vec<Host>,
}

/// A network namespace with one interface.
pub struct Host {
    /// The namespace where its programs run.
    pub(super) name: String,
    switch: String,
    index: usize,
    faults: Mutex<Faults>,
}

/// What the network does to UDP of one host.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    /// From the host, and to it.
    loss_permille: [u32; 2],
    mangled_permille: u32,
    cut: bool,
}

/// Packets and their bytes, IP headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub packets: u64,
    /// How much.
    pub bytes: u64,
}

/// What UDP came to the switch's port of a host, before faults, and what faults took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Sent by the host.
    pub sent: Count,
    /// Sent to the host.
    pub received: Count,
    /// Lost, both ways.
    pub lost: Count,
    /// Sent by the host and changed on the way.
    pub mangled: Count,
    /// What the host sent over TCP.
    pub sent_tcp: Count,
}

impl Count {
    /// Bytes without the headers of IPv4 and UDP.
    pub fn payload(&self) -> u64 {
        self.bytes - self.packets * 28
    }

    /// Bytes without the headers of IPv4 and TCP, which has timestamps but where it breaks off.
    pub fn tcp_payload(&self) -> u64 {
        self.bytes.saturating_sub(self.packets * 52)
    }
}

impl std::ops::Sub for Count {
    type Output = Count;

    fn sub(self, before: Count) -> Count {
        Count { packets: self.packets - before.packets, bytes: self.bytes - before.bytes }
    }
}

impl World {
    /// `hosts` hosts, or `None` and SKIPPED where this process may not make them.
    pub fn new(hosts: usize) -> Option<World> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if let Some(why) = why_not() {
            skipped("network namespaces", &why);
            return None;
        }
        remove_leftovers();
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let tag = format!("{PREFIX}{}-{serial}-", std::process::id());
        let switch = format!("{tag}switch");
        let host = |index| Host {
            name: format!("{tag}{index}"),
            switch: switch.clone(),
            index,
            faults: Mutex::default(),
        };
        // From here on everything that was made is removed, even after a panic.
        let world = World { hosts: (0..hosts).map(host).collect(), tag };
        world.build(&switch);
        Some(world)
    }

    fn build(&self, switch: &str) {
        let names = self.hosts.iter().map(|host| format!("netns add {}\n", host.name));
        ip(&["-batch", "-"], &format!("netns add {switch}\n{}", names.collect::<String>()));
        let mut wires = "link add name hub type bridge\nlink set hub up\n".to_owned();
        for host @ Host { index, name, .. } in &self.hosts {
            let mac = host.mac();
            wires +=
                &format!("link add p{index} type veth peer name eth0 address {mac} netns {name}\n");
            wires += &format!("link set p{index} master hub up\n");
        }
        ip(&["-n", switch, "-batch", "-"], &wires);
        // Everybody knows everybody: the kernel has one table of neighbours for all namespaces,
        // of a thousand places (`gc_thresh3`) but for those that are permanent. When it is full
        // datagrams are lost that nobody counts.
        let known = |host: &Host| {
            let (v4, mac) = (host.v4(), host.mac());
            format!("neigh replace {v4} lladdr {mac} dev eth0 nud permanent\n")
        };
        let known: String = self.hosts.iter().map(known).collect();
        for host in &self.hosts {
            let (v4, v6) = (host.v4(), host.v6());
            let own = format!(
                "link set lo up\nlink set eth0 gso_max_segs 1 up\n\
                 addr add {v4}/16 dev eth0\naddr add {v6}/64 dev eth0 nodad\n{known}"
            );
            ip(&["-n", &host.name, "-batch", "-"], &own);
        }
        nft(switch, &self.hosts.iter().map(Host::ruleset).collect::<String>());
    }

    /// A host.
    pub fn host(&self, index: usize) -> &Host {
        &self.hosts[index]
    }

    /// All hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// What went through every host's port so far, in order.
    pub fn traffic(&self) -> Vec<Traffic> {
        let Some(host) = self.hosts.first() else { return Vec::new() };
        let counters = host.counters(&["counters"]);
        self.hosts.iter().map(|host| host.read(&counters)).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        remove(|name| name.starts_with(&self.tag));
    }
}

impl Host {
    /// Its IPv4 address.
    pub fn v4(&self) -> Ipv4Addr {
        let [high, low] = (self.index as u16 + 1).to_be_bytes();
        Ipv4Addr::new(10, 77, high, low)
    }

    /// The address of its card.
    fn mac(&self) -> String {
        let [high, low] = (self.index as u16 + 1).to_be_bytes();
        format!("02:77:00:00:{high:02x}:{low:02x}")
    }

    /// Its IPv6 address.
    pub fn v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, self.index as u16 + 1)
    }

    /// Its addresses, on which everything must work alike.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4().into(), self.v6().into()]
    }

    /// The words in front of a command line that is to run here. The process keeps its id.
    pub fn words(&self) -> [OsString; 4] {
        ["ip", "netns", "exec", &self.name].map(OsString::from)
    }

    /// A program that will run here.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let [ip, words @ ..] = self.words();
        let mut command = Command::new(ip);
        command.args(words).arg(program);
        command
    }

    /// Runs `work` on a thread of this host: sockets that it opens are here, threads that it
    /// starts are too.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            let namespace = std::fs::File::open(Path::new(NAMES).join(&self.name)).expect("it is");
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may enter");
            work()
        };
        let joined = std::thread::scope(|scope| scope.spawn(inside).join());
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Everything that this host has no route for goes to `gateway`, which drops it.
    pub fn route_the_rest_to(&self, gateway: &Host) {
        for (family, via) in ["-4", "-6"].iter().zip(gateway.addresses()) {
            ip(&[family, "-n", &self.name, "route", "add", "default", "via", &via.to_string()], "");
        }
    }

    /// Loses that share of UDP at random, in each direction.
    pub fn lose_udp(&self, permille: u32) {
        self.change(|faults| faults.loss_permille = [permille; 2]);
    }

    /// Loses that share of UDP to the host at random.
    pub fn lose_udp_to(&self, permille: u32) {
        self.change(|faults| faults.loss_permille = [0, permille]);
    }

    /// Changes one byte in that share of the large datagrams of the host: byte 100 of a chunk
    /// (behind 8 bytes of UDP and 29 of ours). The checksum still fits: between these links the
    /// kernel makes none, and trusts what it did not take from a wire.
    pub fn mangle_udp(&self, permille: u32) {
        self.change(|faults| faults.mangled_permille = permille);
    }

    /// Loses all UDP, as a firewall would, until told otherwise.
    pub fn cut_udp(&self, cut: bool) {
        self.change(|faults| faults.cut = cut);
    }

    fn change(&self, change: impl FnOnce(&mut Faults)) {
        let mut faults = self.faults.lock().expect("nobody panics with it");
        change(&mut faults);
        let Faults { loss_permille, mangled_permille, cut } = *faults;
        let table = format!("netdev {}", self.table());
        let mut rules = String::new();
        for (chain, loss) in ["sent_faults", "received_faults"].into_iter().zip(loss_permille) {
            let mut rule = |rule: &str| rules += &format!("add rule {table} {chain} {rule}\n");
            if cut {
                rule("counter name lost drop");
            }
            if loss > 0 {
                rule(&format!("numgen random mod 1000 < {loss} counter name lost drop"));
            }
            if mangled_permille > 0 && chain == "sent_faults" {
                let which =
                    format!("udp length > 1300 numgen random mod 1000 < {mangled_permille}");
                rule(&format!(
                    "{which} @th,{},8 set 0x55 counter name mangled",
                    (8 + 29 + 100) * 8
                ));
            }
        }
        let flush = |chain| format!("flush chain {table} {chain}\n");
        rules = flush("sent_faults") + &flush("received_faults") + &rules;
        nft(&self.switch, &rules);
    }

    /// The rules of the switch's port: one table with its counters, faults in a chain of their
    /// own. nft 1.0 wants the line ends.
    fn ruleset(&self) -> String {
        let chain = |name: &str, hook: &str, counter: &str, more: &str| {
            format!(
                "chain {name} {{\n\
                 type filter hook {hook} device \"p{}\" priority 0; policy accept;\n\
                 meta l4proto udp counter name {counter} jump {counter}_faults\n{more}}}\n",
                self.index
            )
        };
        format!(
            "table netdev port{} {{\n\
             counter sent {{\n}}\ncounter received {{\n}}\ncounter lost {{\n}}\n\
             counter mangled {{\n}}\ncounter sent_tcp {{\n}}\n\
             chain sent_faults {{\n}}\nchain received_faults {{\n}}\n{}{}}}\n",
            self.index,
            chain("from", "ingress", "sent", "meta l4proto tcp counter name sent_tcp\n"),
            chain("to", "egress", "received", "")
        )
    }

    /// What went through so far.
    pub fn traffic(&self) -> Traffic {
        self.read(&self.counters(&["table", "netdev", &self.table()]))
    }

    /// The name of the port's table.
    fn table(&self) -> String {
        format!("port{}", self.index)
    }

    /// The counters in a list of the switch's packet filter.
    fn counters(&self, list: &[&str]) -> Vec<serde_json::Value> {
        let words = ["netns", "exec", &self.switch, "nft", "-j", "list"];
        let text = ip(&[&words, list].concat(), "");
        let all: serde_json::Value = serde_json::from_str(&text).expect("nft prints JSON");
        let all = all["nftables"].as_array().expect("a list").iter();
        all.filter_map(|one| one.get("counter")).cloned().collect()
    }

    /// What they say of this host.
    fn read(&self, counters: &[serde_json::Value]) -> Traffic {
        let table = self.table();
        let own: Vec<_> = counters.iter().filter(|one| one["table"] == *table).collect();
        let count = |name: &str| {
            let counter = own.iter().find(|counter| counter["name"] == name);
            let number = |key| counter.and_then(|c| c[key].as_u64()).expect("a number");
            Count { packets: number("packets"), bytes: number("bytes") }
        };
        let mut received = count("received");
        received.bytes -= received.packets * ETHERNET;
        let [sent, lost, mangled, sent_tcp] = ["sent", "lost", "mangled", "sent_tcp"].map(count);
        Traffic { sent, received, lost, mangled, sent_tcp }
    }
}

/// Why this process cannot make namespaces.
fn why_not() -> Option<String> {
    if !geteuid().is_root() {
        return Some("only root may".to_owned());
    }
    for program in ["ip", "nft"] {
        let mut probe = Command::new(program);
        probe.arg("-V").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Err(why) = probe.status() {
            return Some(format!("{program}: {why}"));
        }
    }
    // The real thing once: a container may be root without the right to this.
    let name = format!("{PREFIX}{}-probe-{:?}", std::process::id(), std::thread::current().id());
    let name = name.replace(['(', ')'], "");
    let script = format!(
        "ip netns add {name} && ip -n {name} link add name hub type bridge && \
         ip netns exec {name} nft add table netdev t; s=$?; ip netns del {name}; exit $s"
    );
    let probe = Command::new("sh").args(["-c", &script]).output().expect("sh runs");
    (!probe.status.success()).then(|| String::from_utf8_lossy(&probe.stderr).into_owned())
}

/// Runs `ip` with `input`; fails with what it says.
#[track_caller]
pub(super) fn ip(words: &[&str], input: &str) -> String {
    let mut child = Command::new("ip")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ip runs");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("ip reads");
    let output = child.wait_with_output().expect("ip ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words:?}: {errors}\n{input}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Gives `rules` to the packet filter of a namespace.
#[track_caller]
pub(super) fn nft(namespace: &str, rules: &str) {
    ip(&["netns", "exec", namespace, "nft", "-f", "-"], rules);
}

/// Removes what processes that are gone have left.
fn remove_leftovers() {
    let dead = |name: &str| {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let owner: Option<u32> = owner.and_then(|pid| pid.parse().ok());
        owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    };
    remove(dead);
}

/// Kills what runs in the namespaces that are meant and removes them.
fn remove(meant: impl Fn(&str) -> bool) {
    let Ok(names) = std::fs::read_dir(NAMES) else { return };
    let names: Vec<String> =
        names.flatten().filter_map(|name| name.file_name().into_string().ok()).collect();
    for name in names.iter().filter(|name| meant(name)) {
        // Another test may be faster with leftovers, so nothing here may fail.
        if let Ok(pids) = Command::new("ip").args(["netns", "pids", name]).output() {
            let pids = String::from_utf8_lossy(&pids.stdout).into_owned();
            for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
            }
        }
        let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
    }
}
