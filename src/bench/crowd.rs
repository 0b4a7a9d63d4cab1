//! The crowd as its conductor sees it: some load processes, asked together.

use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::bench::child::Child;
use crate::bench::load::{self, Plan};
use crate::bench::work::Work;
use crate::bench::{Outcome, machine};

/// The most connections of one process: well inside the ports of one address, 28,232 by default.
const PER_PROCESS_MAX: usize = 14_000;

/// Descriptors of a process that are no connections.
const OTHER_FILES: u64 = 100;

/// How often the crowd is asked whether it is complete.
const ASK: Duration = Duration::from_millis(100);

/// What a load process has counted.
pub trait Count: Default + DeserializeOwned {
    /// Adds what another process has counted.
    fn add(&mut self, other: Self);
    /// Viewers that are being served.
    fn open(&self) -> u64;
    /// Viewers that will not be.
    fn failed(&self) -> u64;
    /// Why the first of these.
    fn why(&self) -> Option<&str>;
}

/// Load processes that answer with a `C`.
#[derive(Debug)]
pub struct Crowd<C = load::Mark> {
    children: Vec<Child>,
    viewers: usize,
    counts: PhantomData<C>,
}

/// One process's part of a crowd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The address that it comes from.
    pub from: IpAddr,
    /// Its viewers.
    pub viewers: usize,
}

/// How `viewers` with a connection each are spread over processes that may open `files` files
/// each: evenly, over as few as possible, each with an address of its own from `first` on.
#[must_use]
pub fn spread(viewers: usize, files: u64, first: IpAddr) -> Vec<Share> {
    let room = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX);
    let processes = viewers.div_ceil(room.clamp(1, PER_PROCESS_MAX)).max(1);
    let share = |index| viewers * (index + 1) / processes - viewers * index / processes;
    let from = |index: usize| match first {
        IpAddr::V4(first) => {
            let [a, b, c, d] = first.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d.wrapping_add(index as u8).max(1)))
        }
        other => other,
    };
    (0..processes).map(|index| Share { from: from(index), viewers: share(index) }).collect()
}

impl Crowd<load::Mark> {
    /// Starts `plan` in as many processes as it needs; `plan.from` is the first one's address.
    ///
    /// # Errors
    /// If a process cannot be started.
    pub fn start(plan: &Plan, cores: &[usize], files: u64) -> Outcome<Crowd> {
        let work = |Share { from, viewers }| {
            Work::Http(Plan { from, connections: viewers, ..plan.clone() })
        };
        let works = spread(plan.connections, files, plan.from).into_iter().map(work);
        Crowd::of(works, plan.connections, cores)
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
            streams: 0,
            connections,
            ramp: Duration::ZERO,
            nap: NAP,
            bitrate: 0,
            life,
        };
        Crowd::start(&plan, cores, files)
    }
}

impl<C: Count> Crowd<C> {
    /// Starts a process for each of `works`, on `cores`; together they are `viewers`.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn of(
        works: impl Iterator<Item = Work>,
        viewers: usize,
        cores: &[usize],
    ) -> Outcome<Crowd<C>> {
        let start = |work: Work| {
            let arguments = ["bench".to_owned(), "load".to_owned(), work.argument()?];
            Child::talking("load", cores, &arguments)
        };
        let children = works.map(start).collect::<Outcome<Vec<Child>>>()?;
        Ok(Crowd { children, viewers, counts: PhantomData })
    }

    /// What happened since the last call, in all processes.
    ///
    /// # Errors
    /// If a process has ended.
    pub fn mark(&mut self) -> Outcome<C> {
        for child in &mut self.children {
            child.ask()?;
        }
        let mut sum = C::default();
        for child in &mut self.children {
            sum.add(serde_json::from_str(&child.answer()?)?);
        }
        Ok(sum)
    }

    /// Processor time of all processes.
    ///
    /// # Errors
    /// If one has ended.
    pub fn cpu(&self) -> Outcome<Duration> {
        self.children.iter().map(|child| machine::process_cpu(child.pid())).sum()
    }

    /// Waits until every viewer is served.
    ///
    /// # Errors
    /// After `limit`, or when one was refused: how many are, and why.
    pub fn complete(&mut self, limit: Duration) -> Outcome<()> {
        let start = Instant::now();
        loop {
            let mark = self.mark()?;
            let open = mark.open();
            if open as usize == self.viewers {
                return Ok(());
            }
            if mark.failed() > 0 || start.elapsed() > limit {
                let (all, time) = (self.viewers, start.elapsed().as_secs());
                let why = mark.why().unwrap_or("no time left");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_are_spread_over_few_processes_with_addresses_of_their_own() {
        let viewers = |all, files| -> Vec<usize> {
            spread(all, files, FROM).iter().map(|share| share.viewers).collect()
        };
        assert_eq!(viewers(20, 20_000), [20]);
        assert_eq!(viewers(14_001, 20_000), [7_000, 7_001]);
        assert_eq!(viewers(22_000, 20_000), [11_000, 11_000]);
        assert_eq!(viewers(2_000, 1_100), [1_000, 1_000]);
        assert_eq!(viewers(0, 20_000), [0]);
        let from = |index: usize| spread(22_000, 20_000, FROM)[index].from.to_string();
        assert_eq!([from(0), from(1)], ["127.0.1.1", "127.0.1.2"]);
    }

    #[test]
    fn work_comes_back_as_it_was_sent() {
        let plan = Plan {
            to: "127.0.0.1:80".parse().unwrap(),
            from: FROM,
            path: Some("/live/a.ts?wait=10".to_owned()),
            streams: 3,
            connections: 7,
            ramp: Duration::from_millis(400),
            nap: NAP,
            bitrate: 64_000,
            life: Duration::from_secs(9),
        };
        let text = Work::Http(plan).argument().unwrap();
        let again = Work::parse(&text).unwrap();
        assert_eq!(again.argument().unwrap(), text);
        assert!(Work::parse("{}").is_err());
    }
}
