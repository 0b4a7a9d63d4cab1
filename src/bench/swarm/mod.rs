//! Peers of the swarm in direct mode: pairs of the relay and a raw loop that sends trains.
//!
//! The load takes each train by one call and looks at its first headers only; it answers with one
//! ACK. Beside it a few honest peers verify everything. The second half of a pair is a thread that
//! sends trains to as many sockets, at as many bytes per second, and is answered by nobody: what
//! the relay does besides, receiving ACKs included, is what the ratio shows.

mod facts;
pub mod load;
mod peers;
mod probe;

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::bench::ceiling::cost;
use crate::bench::crowd::Crowd;
use crate::bench::machine::{self, Cores};
use crate::bench::playout::PlayOut;
use crate::bench::relay::{self, Counters, Relay, Setting, Setup};
use crate::bench::report::{Report, Row};
use crate::bench::swarm::facts::Facts;
use crate::bench::swarm::load::Mark;
use crate::bench::work::Work;
use crate::bench::{Outcome, Progress};
use crate::io::ceiling::{self, TRAIN, Trains, Way};
use crate::io::udp;

/// How long the peers may take to be served, and the swarm to be known.
const PATIENCE: Duration = Duration::from_secs(60);

/// Peers join evenly, this many a second.
const JOINS_PER_SECOND: f64 = 2_000.0;

/// The pause of the load: trains that came meanwhile are taken together.
const NAP: Duration = Duration::from_millis(1);

/// Sending before it counts.
const WARM_UP: Duration = Duration::from_millis(300);

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How the relay is started; its viewers are the peers.
    pub relay: Setup,
    /// Bit/s of the stream.
    pub bitrate: u64,
    /// Sockets of the load, each with an address of its own.
    pub sockets: u8,
    /// How long each half of a pair counts.
    pub length: Duration,
    /// How long the peers are served before it counts.
    pub warm_up: Duration,
    /// Number of pairs.
    pub pairs: usize,
    /// Peers that verify everything and look at the time markers.
    pub probes: usize,
    /// How far behind live a probe plays.
    pub behind: Duration,
}

struct Pair {
    relay: Counters,
    io_driver: String,
    subtree: u64,
    load: Mark,
    play: PlayOut,
    /// Bytes per peer: what the relay has allocated, and the kernel's.
    memory: [f64; 2],
    /// Share of a core that the load took.
    load_share: f64,
    raw: Raw,
}

/// What the raw send loop did.
#[derive(Clone, Copy, Debug, Default)]
struct Raw {
    /// CPU-s/GB.
    cost: f64,
    /// Share of its bytes that were received: what is dropped costs less.
    received: f64,
}

impl Pair {
    /// Per byte of datagrams, as the raw loop's.
    fn cost(&self) -> f64 {
        cost(self.relay.cpu, self.load.wire as f64)
    }

    fn seconds(&self) -> f64 {
        self.relay.at.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Measures pair by pair and reports; the delays of all probes are beside the report.
///
/// # Errors
/// If the relay, a load process or a probe fails, or peers are refused.
pub fn run(plan: &Plan, progress: Progress<'_>) -> Outcome<(Report, Histogram<u64>)> {
    let (machine, cores) = (machine::describe(), Cores::of_this_machine(plan.relay.shards)?);
    machine::raise_open_files();
    let mut relay = plan.relay.clone();
    let peers = relay.viewers + plan.probes;
    relay.settings.insert(0, Setting::parse(&format!("swarm.peers={}", peers + 100))?);
    let plan = &Plan { relay, ..plan.clone() };
    let mut delays = PlayOut::new(plan.behind)?.delays;
    let mut pairs = Vec::with_capacity(plan.pairs);
    for number in 1..=plan.pairs {
        let mut pair = serve(plan, &cores)?;
        pair.raw = bare(plan, &pair, &cores)?;
        delays.add(&pair.play.delays)?;
        progress(&format!(
            "{number}/{}: relay {:.3} CPU-s/GB, raw trains {:.3}; {} peers, {} slow, \
             {} chunks lost, {} late, p99 {:.1} ms",
            plan.pairs,
            pair.cost(),
            pair.raw.cost,
            pair.load.open,
            pair.load.slow,
            pair.load.lost,
            pair.load.late,
            pair.play.delays.value_at_quantile(0.99) as f64 / 1e3,
        ));
        pairs.push(pair);
    }
    Ok((report(plan, machine, &cores, &pairs), delays))
}

/// The first half of a pair: the relay with its peers.
fn serve(plan: &Plan, cores: &Cores) -> Outcome<Pair> {
    let peers = plan.relay.viewers;
    let ramp = Duration::from_secs_f64(peers as f64 / JOINS_PER_SECOND);
    let life = ramp + plan.warm_up + plan.length + 3 * PATIENCE;
    let relay = Relay::start(&plan.relay, cores)?;
    let _source = relay::publish(relay.http(), plan.bitrate, life, &cores.others)?;
    let facts = Facts::fetch(relay.http(), PATIENCE)?;
    let probes = probe::start(plan.probes, &facts, plan.behind, &cores.others)?;
    let memory = || -> Outcome<[u64; 2]> { Ok([relay.memory()?.own, machine::kernel_memory()]) };
    let before = memory()?;
    let subtree = facts.subtree;
    let work = Work::Swarm(load::Plan {
        to: facts.udp,
        facts: Some(facts),
        from: [127, 0, 1, 1].into(),
        sockets: plan.sockets,
        peers,
        ramp,
        nap: NAP,
        bitrate: plan.bitrate,
        life,
    });
    let mut crowd: Crowd<Mark> = Crowd::of([work].into_iter(), peers, &cores.others)?;
    crowd.complete(ramp + PATIENCE)?;
    thread::sleep(plan.warm_up);
    let clock = Instant::now();
    let (first, busy) = (relay.counters(clock)?, crowd.cpu()?);
    crowd.mark()?;
    probes.begin();
    thread::sleep(plan.length);
    let last = relay.counters(clock)?;
    let (load, busy) = (crowd.mark()?, crowd.cpu()?.saturating_sub(busy));
    let after = memory()?;
    let play = probes.end(plan.behind)?;
    let each = |n: usize| (after[n] as f64 - before[n] as f64) / peers.max(1) as f64;
    Ok(Pair {
        relay: last.since(&first),
        io_driver: relay.io_driver().to_owned(),
        subtree,
        load,
        play,
        memory: [each(0), each(1)],
        load_share: busy.as_secs_f64() / plan.length.as_secs_f64().max(f64::MIN_POSITIVE),
        raw: Raw::default(),
    })
}

/// The second half: raw trains to as many sockets, at as many bytes per second.
fn bare(plan: &Plan, pair: &Pair, cores: &Cores) -> Outcome<Raw> {
    let way = if pair.io_driver == "epoll" { Way::Epoll } else { Way::Uring };
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = udp::bind_swarm(any, 1)?.remove(0);
    let work = Work::Swarm(load::Plan {
        facts: None,
        to: socket.local_addr()?,
        from: [127, 0, 1, 1].into(),
        sockets: plan.sockets,
        peers: 0,
        ramp: Duration::ZERO,
        nap: NAP,
        bitrate: 0,
        life: plan.length + WARM_UP + 2 * PATIENCE,
    });
    let mut crowd: Crowd<Mark> = Crowd::of([work].into_iter(), 0, &cores.others)?;
    let to = addresses(&socket, usize::from(plan.sockets))?;
    let per_second = pair.load.wire as f64 / pair.load.seconds.max(f64::MIN_POSITIVE);
    let gap = Duration::from_secs_f64(TRAIN as f64 / per_second.max(1.0));
    let full = Trains { way, gap: Some(gap), length: plan.length };
    let core = cores.relay.first().copied().unwrap_or(0);
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<[ceiling::Outcome; 2], String> {
            let sent = || -> Outcome<[ceiling::Outcome; 2]> {
                machine::pin(&[core])?;
                let warm = Trains { length: WARM_UP, ..full };
                let warm = ceiling::run_trains(&warm, &socket, &to)?;
                Ok([warm, ceiling::run_trains(&full, &socket, &to)?])
            };
            sent().map_err(|why| why.to_string())
        });
        sender.join()
    });
    let [warm, sent] = sent.map_err(|_| "the send loop has panicked")??;
    // What is on its way arrives.
    thread::sleep(WARM_UP);
    let received = crowd.mark()?.wire as f64 / (warm.bytes + sent.bytes).max(1) as f64;
    Ok(Raw { cost: cost(sent.cpu, sent.bytes as f64), received })
}

/// Who has said that they are there.
fn addresses(socket: &UdpSocket, count: usize) -> Outcome<Vec<SocketAddr>> {
    let (start, mut buffer) = (Instant::now(), [0; 16]);
    let mut addresses = Vec::with_capacity(count);
    while addresses.len() < count {
        match socket.recv_from(&mut buffer) {
            Ok((_, from)) => addresses.push(from),
            Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => {
                if start.elapsed() > PATIENCE {
                    let here = addresses.len();
                    return Err(format!("{here} of {count} receivers came").into());
                }
                thread::sleep(NAP);
            }
            Err(why) => return Err(why.into()),
        }
    }
    Ok(addresses)
}

fn report(plan: &Plan, machine: String, cores: &Cores, pairs: &[Pair]) -> Report {
    let row = |name: &str, unit, value: &dyn Fn(&Pair) -> f64| {
        Row::new(name, unit, pairs.iter().map(value).collect())
    };
    let peers = plan.relay.viewers.max(1) as f64;
    let per_second = |n: u64, pair: &Pair| n as f64 / pair.load.seconds.max(f64::MIN_POSITIVE);
    let quantile =
        |pair: &Pair, quantile: f64| pair.play.delays.value_at_quantile(quantile) as f64 / 1e3;
    let rows = vec![
        row("relay, per byte of datagrams", "CPU-s/GB", &Pair::cost),
        row("raw trains, same bytes/s", "CPU-s/GB", &|p| p.raw.cost),
        row("ratio: raw trains / relay", "", &|p| p.raw.cost / p.cost().max(f64::MIN_POSITIVE)),
        row("relay, per byte of the stream", "CPU-s/GB", &|p| {
            cost(p.relay.cpu, p.load.bytes as f64)
        }),
        row("relay's share of its cores", "%", &|p| {
            p.relay.cpu.as_secs_f64() / p.seconds() / cores.relay.len() as f64 * 100.0
        }),
        row("load's share of a core", "%", &|p| p.load_share * 100.0),
        row("raw trains received", "%", &|p| p.raw.received * 100.0),
        row("peers served", "", &|p| p.load.open as f64),
        row("received per peer", "Mbit/s", &|p| per_second(p.load.bytes, p) * 8e-6 / peers),
        row("peers under 97 % of the rate", "", &|p| p.load.slow as f64),
        row("trains per second", "", &|p| per_second(p.load.trains, p)),
        row("ACKs per train", "", &|p| p.load.acks as f64 / p.load.trains.max(1) as f64),
        row("chunks lost", "", &|p| p.load.lost as f64),
        row("runs of chunks that came again", "", &|p| p.load.again as f64),
        row("subtrees late (500 ms)", "", &|p| p.load.late as f64),
        row("peers silent for a second", "", &|p| p.load.silent as f64),
        row("after the first peer, p50", "ms", &|p| p.load.spread_ms[0]),
        row("after the first peer, p99", "ms", &|p| p.load.spread_ms[1]),
        row("delay p50", "ms", &|p| quantile(p, 0.5)),
        row("delay p99", "ms", &|p| quantile(p, 0.99)),
        row("markers seen by the probes", "", &|p| p.play.delays.len() as f64),
        row("stalls at the probes", "", &|p| p.play.stalls as f64),
        row("relay's own memory per peer", "kB", &|p| p.memory[0] / 1e3),
        row("kernel memory per peer", "kB", &|p| p.memory[1] / 1e3),
    ];
    Report {
        title: format!(
            "{} peers on {} sockets and {} probes, {:.3} Mbit/s, {} chunks under a \
             signature, {} s, pairs: {}, io_driver {}",
            plan.relay.viewers,
            plan.sockets,
            plan.probes,
            plan.bitrate as f64 / 1e6,
            pairs.first().map_or(0, |pair| pair.subtree),
            plan.length.as_secs_f64(),
            pairs.len(),
            pairs.first().map_or("", |pair| &pair.io_driver),
        ),
        machine,
        rows,
        notes: notes(plan, pairs),
        trace: None,
    }
}

fn notes(plan: &Plan, pairs: &[Pair]) -> Vec<String> {
    let mut notes = Vec::new();
    if plan.pairs < 5 {
        notes.push("fewer than 5 pairs: a trial, not a result".to_owned());
    }
    if pairs.iter().any(|pair| pair.subtree != 16) {
        notes.push(format!(
            "The raw loop's trains have 17 datagrams ({TRAIN} B), the relay's fewer here:\n\
             the ratio also holds what smaller trains cost."
        ));
    }
    notes.push(
        "Every byte that the probes saw was signed. Delay: from the source to a verified chunk.\n\
         After the first peer: how much later than the first peer the others had a subtree."
            .to_owned(),
    );
    let why = pairs.iter().find_map(|pair| pair.load.why.as_ref());
    notes.extend(why.map(|why| format!("The first failure: {why}")));
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_follow_from_the_counters() {
        let plan = Plan {
            relay: Setup { viewers: 1_000, ..Setup::new("epoll") },
            bitrate: 2_000_000,
            sockets: 64,
            length: Duration::from_secs(10),
            warm_up: Duration::ZERO,
            pairs: 1,
            probes: 1,
            behind: Duration::from_millis(1_500),
        };
        let cores = Cores { relay: vec![0], others: vec![1] };
        let at = Duration::from_secs(10);
        let relay = Counters { at, cpu: at / 2, ..Counters::default() };
        let load = Mark {
            seconds: 10.0,
            bytes: 2_500_000_000,
            wire: 2_700_000_000,
            trains: 1_000,
            acks: 1_000,
            open: 1_000,
            ..Mark::default()
        };
        let pair = Pair {
            relay,
            io_driver: "epoll".to_owned(),
            subtree: 8,
            load,
            play: PlayOut::new(plan.behind).unwrap(),
            memory: [900.0, 100.0],
            load_share: 0.3,
            raw: Raw { cost: 1.0, received: 1.0 },
        };
        let report = report(&plan, String::new(), &cores, &[pair]);
        let value = |name: &str| report.rows.iter().find(|row| row.name == name).unwrap().median;
        assert!((value("relay, per byte of datagrams") - 5.0 / 2.7).abs() < 1e-9);
        assert!((value("ratio: raw trains / relay") - 2.7 / 5.0).abs() < 1e-9);
        assert_eq!(value("relay, per byte of the stream"), 2.0);
        assert_eq!(value("received per peer"), 2.0);
        assert_eq!((value("ACKs per train"), value("relay's share of its cores")), (1.0, 50.0));
        assert_eq!(value("relay's own memory per peer"), 0.9);
        assert!(report.notes[0].contains("trial") && report.notes[1].contains("smaller trains"));
    }

    #[test]
    fn receivers_are_known_when_they_have_spoken() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let senders: Vec<UdpSocket> =
            (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        for sender in &senders {
            sender.send_to(b"here", socket.local_addr().unwrap()).unwrap();
        }
        let wanted: Vec<SocketAddr> = senders.iter().map(|s| s.local_addr().unwrap()).collect();
        assert_eq!(addresses(&socket, 3).unwrap(), wanted);
    }
}
