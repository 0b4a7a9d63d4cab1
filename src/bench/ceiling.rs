//! What this machine allows a raw send loop, and whether that is what it allowed before.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::crowd::Crowd;
use crate::bench::machine::{self, Cores};
use crate::bench::report::{Report, Row};
use crate::bench::{Outcome, Progress};
use crate::io::ceiling::{self, Way};
use crate::io::socket;

/// How long the receivers may take to connect.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sending before it counts: congestion windows open, pages and caches are warm.
const WARM_UP: Duration = Duration::from_millis(300);

/// Descriptors of this process that are no connections.
const OTHER_FILES: u64 = 200;

/// CPU seconds per 10^9 bytes on the machine that this was designed on, 4,000 connections over
/// loopback, by bytes per send.
const YARDSTICKS: [(f64, f64); 3] = [(1_316.0, 6.4), (16_384.0, 0.41), (65_536.0, 0.17)];

/// A machine that is this much cheaper or dearer than the yardstick is not the one known.
const CHEAPER: f64 = 0.75;
const DEARER: f64 = 1.40;

/// What to send.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which ways.
    pub ways: Vec<Way>,
    /// Bytes of one send.
    pub sizes: Vec<usize>,
    /// Number of connections.
    pub connections: usize,
    /// Bit/s of one connection, which sets the pace; 0: as fast as the receivers take it.
    pub bitrate: u64,
    /// How long each.
    pub length: Duration,
    /// How often each.
    pub pairs: usize,
}

/// CPU seconds per 10^9 bytes.
#[must_use]
pub fn cost(cpu: Duration, bytes: f64) -> f64 {
    if bytes > 0.0 { cpu.as_secs_f64() / bytes * 1e9 } else { 0.0 }
}

/// What a send loop costs at `size` bytes per send where the design was measured: a straight
/// line between the two nearest yardsticks with both axes logarithmic (cost is nearly a power
/// of size), and on beyond the first and the last.
#[must_use]
pub fn yardstick(size: f64) -> f64 {
    let [small, middle, large] = YARDSTICKS;
    let ((x0, y0), (x1, y1)) = if size < middle.0 { (small, middle) } else { (middle, large) };
    let place = (size.max(1.0) / x0).ln() / (x1 / x0).ln();
    y0 * (y1 / y0).powf(place)
}

/// Says so if the machine is not the one that the yardsticks are from.
#[must_use]
pub fn doubt(size: f64, cost: f64) -> Option<String> {
    let known = yardstick(size);
    let off = cost / known;
    (!(CHEAPER..=DEARER).contains(&off)).then(|| {
        let percent = (off - 1.0) * 100.0;
        format!(
            "machine not itself: the raw ceiling at {size:.0} B per send is {cost:.3} CPU-s/GB, \
             {percent:+.0} % of the known {known:.3}:\n\
             absolute figures of this run do not count, ratios do"
        )
    })
}

/// The most connections of a send loop in a process that may open `files` files: unlike the relay
/// it has no way past that limit.
#[must_use]
pub fn room(files: u64) -> usize {
    usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX)
}

/// Sends `size` bytes at a time to `connections` receivers in processes of their own.
///
/// # Errors
/// If the receivers do not come, or one goes.
pub fn measure(
    way: Way,
    size: usize,
    plan: &Plan,
    cores: &Cores,
    files: u64,
) -> Outcome<ceiling::Outcome> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = socket::listen(any, 1)?.remove(0);
    let count = plan.connections.min(room(files));
    let life = plan.length + WARM_UP + 2 * PATIENCE;
    let crowd = Crowd::silent(listener.local_addr()?, count, life, &cores.others, files)?;
    let connections = accept(&listener, count)?;
    let round = (plan.bitrate > 0)
        .then(|| Duration::from_secs(1).mul_f64(size as f64 * 8.0 / plan.bitrate as f64));
    let full = ceiling::Plan { way, size, round, length: plan.length };
    let outcome = thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<ceiling::Outcome, String> {
            let sent = || -> Outcome<ceiling::Outcome> {
                machine::pin(&cores.relay[..1])?;
                ceiling::run(&ceiling::Plan { length: WARM_UP, ..full }, &connections)?;
                Ok(ceiling::run(&full, &connections)?)
            };
            sent().map_err(|why| why.to_string())
        });
        sender.join()
    });
    drop(crowd);
    Ok(outcome.map_err(|_| "the send loop has panicked")??)
}

fn accept(listener: &TcpListener, count: usize) -> Outcome<Vec<TcpStream>> {
    let start = Instant::now();
    let mut connections = Vec::with_capacity(count);
    while connections.len() < count {
        match listener.accept() {
            Ok((connection, _)) => connections.push(connection),
            Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => {
                if start.elapsed() > PATIENCE {
                    let here = connections.len();
                    return Err(format!("{here} of {count} receivers came").into());
                }
                thread::sleep(Duration::from_millis(1));
            }
            Err(why) => return Err(why.into()),
        }
    }
    Ok(connections)
}

/// Measures every size and way in turn, `pairs` times, and reports.
///
/// # Errors
/// As [`measure`].
pub fn run(plan: &Plan, progress: Progress<'_>) -> Outcome<Report> {
    let (machine, files) = (machine::describe(), machine::raise_open_files());
    let cores = Cores::of_this_machine(1)?;
    let cases: Vec<(usize, Way)> =
        plan.sizes.iter().flat_map(|size| plan.ways.iter().map(|way| (*size, *way))).collect();
    let mut costs = vec![Vec::new(); cases.len()];
    for pair in 1..=plan.pairs {
        for ((size, way), costs) in cases.iter().zip(&mut costs) {
            let sent = measure(*way, *size, plan, &cores, files)?;
            let bytes = sent.bytes as f64;
            costs.push(cost(sent.cpu, bytes));
            let (rate, each) =
                (bytes * 8e-9 / sent.wall.as_secs_f64(), bytes / sent.sends.max(1) as f64);
            progress(&format!(
                "{pair}/{}: {size} B, {}: {:.3} CPU-s/GB, {rate:.2} Gbit/s, {each:.0} B taken per \
                 send, {} blocked, core {:.0} % busy",
                plan.pairs,
                name(*way),
                cost(sent.cpu, bytes),
                sent.blocked,
                sent.cpu.as_secs_f64() / sent.wall.as_secs_f64() * 100.0,
            ));
        }
    }
    let row = |((size, way), costs)| Row::new(row_name(size, way), "CPU-s/GB", costs);
    let rows: Vec<Row> = cases.into_iter().zip(costs).map(row).collect();
    // The machine is judged by the better way: the other may be dearer by its nature.
    let best = |rows: &[Row]| rows.iter().map(|row| row.median).min_by(f64::total_cmp);
    let of_size = plan.sizes.iter().zip(rows.chunks(plan.ways.len().max(1)));
    let notes = of_size.filter_map(|(size, rows)| doubt(*size as f64, best(rows)?)).collect();
    let pace = match plan.bitrate {
        0 => "as fast as they take it".to_owned(),
        bitrate => format!("{:.3} Mbit/s each", bitrate as f64 / 1e6),
    };
    let (connections, seconds) = (plan.connections, plan.length.as_secs_f64());
    Ok(Report {
        title: format!("raw send loop: {connections} connections, {pace}, {seconds} s each"),
        machine,
        rows,
        notes,
        trace: None,
    })
}

fn name(way: Way) -> &'static str {
    match way {
        Way::Uring => "uring",
        Way::Epoll => "epoll",
    }
}

fn row_name(size: usize, way: Way) -> String {
    format!("{size} B per send, {}", name(way))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a / b - 1.0).abs() < 0.01
    }

    #[test]
    fn yardsticks_are_met_and_joined_by_powers() {
        for (size, cost) in YARDSTICKS {
            assert!(near(yardstick(size), cost), "{size}");
        }
        // Half way on a logarithmic scale: the geometric mean.
        assert!(near(yardstick(32_768.0), (0.41_f64 * 0.17).sqrt()));
        assert!(near(yardstick((1_316.0_f64 * 16_384.0).sqrt()), (6.4_f64 * 0.41).sqrt()));
        assert!(
            yardstick(188.0) > 6.4 && yardstick(131_072.0) < 0.17 && yardstick(0.0).is_finite()
        );
    }

    #[test]
    fn a_strange_machine_is_doubted() {
        for (factor, doubted) in [(0.74, true), (0.76, false), (1.39, false), (1.41, true)] {
            let line = doubt(16_384.0, 0.41 * factor);
            assert_eq!(line.is_some(), doubted, "{factor}");
            assert!(line.is_none_or(|line| line.starts_with("machine not itself")));
        }
    }

    #[test]
    fn cost_is_seconds_per_billion_bytes() {
        assert!(near(cost(Duration::from_millis(500), 2e9), 0.25));
        assert_eq!(cost(Duration::from_secs(1), 0.0), 0.0);
    }
}
