//! The crowd as its conductor sees it: some load processes, asked together.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::Outcome;
use crate::bench::child::Child;
use crate::bench::load::{Mark, Plan};

/// The most connections of one process: well inside the ports of one address, 28,232 by default.
const PER_PROCESS_MAX: usize = 14_000;

/// Descriptors of a process that are no connections.
const OTHER_FILES: u64 = 100;

/// How often the crowd is asked whether it is complete.
const ASK: Duration = Duration::from_millis(100);

/// Load processes.
#[derive(Debug)]
pub struct Crowd {
    children: Vec<Child>,
    connections: usize,
}

/// How `connections` are spread over processes that may open `files` files each: evenly, over
/// as few as possible.
fn spread(connections: usize, files: u64) -> Vec<usize> {
    let room = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX);
    let processes = connections.div_ceil(room.clamp(1, PER_PROCESS_MAX)).max(1);
    let share = |index| connections * (index + 1) / processes - connections * index / processes;
    (0..processes).map(share).collect()
}

/// The arguments that make this program the load of `plan`.
fn arguments(plan: &Plan) -> Vec<String> {
    let seconds = |time: Duration| time.as_secs_f64().to_string();
    let mut arguments: Vec<String> = ["bench", "load"].map(str::to_owned).into();
    for (flag, value) in [
        ("--to", plan.to.to_string()),
        ("--from", plan.from.to_string()),
        ("--connections", plan.connections.to_string()),
        ("--ramp", seconds(plan.ramp)),
        ("--nap", seconds(plan.nap)),
        ("--bitrate", plan.bitrate.to_string()),
        ("--life", seconds(plan.life)),
    ] {
        arguments.extend([flag.to_owned(), value]);
    }
    if let Some(path) = &plan.path {
        arguments.extend(["--path".to_owned(), path.clone()]);
    }
    arguments
}

impl Crowd {
    /// Starts `plan` in as many processes as it needs; `plan.from` is the first one's address.
    ///
    /// # Errors
    /// If a process cannot be started.
    pub fn start(plan: &Plan, cores: &[usize], files: u64) -> Outcome<Crowd> {
        let shares = spread(plan.connections, files);
        let mut children = Vec::with_capacity(shares.len());
        for (connections, number) in shares.into_iter().zip(0u8..) {
            let from = match plan.from {
                IpAddr::V4(from) => {
                    let [a, b, c, d] = from.octets();
                    IpAddr::V4(Ipv4Addr::new(a, b, c, d.wrapping_add(number).max(1)))
                }
                other => other,
            };
            let plan = Plan { from, connections, ..plan.clone() };
            children.push(Child::talking("load", cores, &arguments(&plan))?);
        }
        Ok(Crowd { children, connections: plan.connections })
    }

    /// A crowd that says nothing and receives what the raw send loop at `to` sends.
    ///
    /// # Errors
    /// As [`Crowd::start`].
    pub fn silent(
        to: SocketAddr,
        connections: usize,
        life: Duration,
        cores: &[usize],
        files: u64,
    ) -> Outcome<Crowd> {
        let plan = Plan {
            to,
            from: FROM,
            path: None,
            connections,
            ramp: Duration::ZERO,
            nap: NAP,
            bitrate: 0,
            life,
        };
        Crowd::start(&plan, cores, files)
    }

    /// What happened since the last call, summed; of times to first byte the worst process's.
    ///
    /// # Errors
    /// If a process has ended.
    pub fn mark(&mut self) -> Outcome<Mark> {
        for child in &mut self.children {
            child.ask()?;
        }
        let mut sum = Mark::default();
        for child in &mut self.children {
            add(&mut sum, serde_json::from_str(&child.answer()?)?);
        }
        Ok(sum)
    }

    /// Waits until every viewer is served.
    ///
    /// # Errors
    /// After `limit`, or when one was refused: how many are, and why.
    pub fn complete(&mut self, limit: Duration) -> Outcome<()> {
        let start = Instant::now();
        loop {
            let Mark { open, failed, why, .. } = self.mark()?;
            if open as usize == self.connections {
                return Ok(());
            }
            if failed > 0 || start.elapsed() > limit {
                let (all, time) = (self.connections, start.elapsed().as_secs());
                let why = why.unwrap_or_else(|| "no time left".to_owned());
                return Err(format!("{open} of {all} viewers served after {time} s: {why}").into());
            }
            thread::sleep(ASK);
        }
    }
}

/// The address of the first load process.
pub const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1));

/// The pause of a load that is not measured itself.
pub const NAP: Duration = Duration::from_millis(2);

fn add(sum: &mut Mark, mark: Mark) {
    sum.seconds = sum.seconds.max(mark.seconds);
    sum.bytes += mark.bytes;
    sum.open += mark.open;
    sum.failed += mark.failed;
    sum.slow += mark.slow;
    sum.silent += mark.silent;
    for (sum, time) in sum.first_byte_ms.iter_mut().zip(mark.first_byte_ms) {
        *sum = sum.max(time);
    }
    sum.why = sum.why.take().or(mark.why);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_spread_over_few_processes() {
        assert_eq!(spread(20, 20_000), [20]);
        assert_eq!(spread(14_001, 20_000), [7_000, 7_001]);
        assert_eq!(spread(22_000, 20_000), [11_000, 11_000]);
        assert_eq!(spread(2_000, 1_100), [1_000, 1_000]);
        assert_eq!(spread(0, 20_000), [0]);
    }

    #[test]
    fn marks_add_up() {
        let mark = |n: u64| Mark {
            seconds: n as f64,
            bytes: n,
            open: n,
            failed: n,
            slow: n,
            silent: n,
            first_byte_ms: [n as f64, 1.0, 5.0 - n as f64],
            why: (n > 2).then(|| n.to_string()),
        };
        let mut sum = Mark::default();
        for n in 1..=4 {
            add(&mut sum, serde_json::from_str(&serde_json::to_string(&mark(n)).unwrap()).unwrap());
        }
        let wanted = Mark {
            seconds: 4.0,
            first_byte_ms: [4.0, 1.0, 4.0],
            why: Some("3".to_owned()),
            ..mark(10)
        };
        assert_eq!(sum, wanted);
    }
}
