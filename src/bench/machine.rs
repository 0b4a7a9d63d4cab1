//! The machine: what it is, which cores are whose, and what the kernel has counted.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread::CpuSet;

use crate::bench::Outcome;
use crate::io::zerocopy::{self, ZeroCopy};

/// Which cores the relay and everything else run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// The relay's, one per shard; also the raw send loop's.
    pub relay: Vec<usize>,
    /// Load, source and probes.
    pub others: Vec<usize>,
}

impl Cores {
    /// The first `shards` of the `available` cores for the relay and the rest for the others;
    /// they share the last one if there are no more.
    #[must_use]
    pub fn split(available: &[usize], shards: usize) -> Cores {
        let at = shards.clamp(1, available.len().max(1));
        let (relay, others) = available.split_at(at.min(available.len()));
        let last = || available.last().copied().into_iter().collect();
        Cores {
            relay: relay.to_vec(),
            others: if others.is_empty() { last() } else { others.to_vec() },
        }
    }

    /// Splits the cores that this process may use.
    ///
    /// # Errors
    /// Of sched_getaffinity(2).
    pub fn of_this_machine(shards: usize) -> Outcome<Cores> {
        let set = rustix::thread::sched_getaffinity(None)?;
        let available: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
        Ok(Cores::split(&available, shards))
    }
}

/// Keeps the calling thread on `cores`.
///
/// # Errors
/// Of sched_setaffinity(2).
pub fn pin(cores: &[usize]) -> Outcome<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Becomes `program` with these arguments, on `cores`, and killed when the thread of the process
/// `parent` that started this process ends. Returns only if that fails.
pub fn become_pinned(
    parent: u32,
    cores: &[usize],
    program: &Path,
    arguments: &[String],
) -> Box<dyn std::error::Error> {
    let ready = || -> Outcome<()> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have ended before it was asked to take us with it.
        if std::os::unix::process::parent_id() != parent {
            return Err("the process that started this one has ended".into());
        }
        pin(cores)
    };
    match ready() {
        Ok(()) => Command::new(program).args(arguments).exec().into(),
        Err(why) => why,
    }
}

/// Raises the soft limit of open files to the hard one, for this process and its children.
/// Returns it.
pub fn raise_open_files() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wish = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Refused: then the soft limit stays, and is what counts.
    let _ = rustix::process::setrlimit(Resource::Nofile, wish);
    rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// One line: processor, cores, kernel, load.
#[must_use]
pub fn describe() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (kernel, load) = (read("/proc/sys/kernel/osrelease"), read("/proc/loadavg"));
    let load = load.split(' ').next().unwrap_or_default();
    let zero_copy = match zerocopy::probe() {
        Ok(ZeroCopy::Copied) => "copies over loopback".to_owned(),
        Ok(ZeroCopy::Avoided) => "saves the copy over loopback".to_owned(),
        Err(why) => format!("does not work ({why})"),
    };
    format!("{model}, {cores} cores, Linux {}, load {load}, SEND_ZC {zero_copy}", kernel.trim())
}

/// Length of one tick in which the kernel reports processor time in /proc.
fn tick() -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_secs(1) / u32::try_from(per_second).unwrap_or(100)
}

/// Processor time of a process, user and system, all threads (proc_pid_stat(5)). Softirq work
/// done inside its system calls is in it.
///
/// # Errors
/// If there is no such process.
pub fn process_cpu(pid: u32) -> Outcome<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).map(|ticks| tick() * ticks).ok_or_else(|| "unreadable stat".into())
}

/// utime + stime: fields 14 and 15. The second field, the name, may hold spaces and brackets.
fn parse_stat(text: &str) -> Option<u32> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

/// Time in which `cores` did anything at all (proc_stat(5)), theft by the hypervisor included.
#[must_use]
pub fn busy(cores: &[usize]) -> Duration {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    tick() * cores.iter().map(|core| parse_busy(&text, *core).unwrap_or(0)).sum::<u32>()
}

/// All fields of a core's line but idle and iowait, and guest, which is in user already.
fn parse_busy(text: &str, core: usize) -> Option<u32> {
    let name = format!("cpu{core}");
    let line = text.lines().find(|line| line.split(' ').next() == Some(&name))?;
    let fields = line.split_whitespace().skip(1).take(8).enumerate();
    let busy = fields.filter(|(index, _)| !matches!(index, 3 | 4));
    let sum: u64 = busy.filter_map(|(_, field)| field.parse::<u64>().ok()).sum();
    u32::try_from(sum).ok()
}

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// What is resident: its own, its files' and what it shares, such as the relay's rings.
    pub resident: u64,
    /// What it has allocated and touched itself.
    pub own: u64,
}

/// Memory of a process (proc_pid_status(5)).
///
/// # Errors
/// If there is no such process.
pub fn memory(pid: u32) -> Outcome<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = |name: &str| number_line(&text, name).ok_or_else(|| format!("no {name}"));
    Ok(Memory { resident: line("VmRSS:")? * 1024, own: line("RssAnon:")? * 1024 })
}

/// Write calls of a process and the bytes that they wrote, sendfile(2) included and send(2)
/// not (proc_pid_io(5)).
///
/// # Errors
/// If there is no such process or it belongs to somebody else.
pub fn writes(pid: u32) -> Outcome<[u64; 2]> {
    let text = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = |name: &str| number_line(&text, name).ok_or_else(|| format!("no {name}"));
    Ok([line("syscw:")?, line("wchar:")?])
}

/// Kernel memory of all sockets and slabs of the machine in bytes: pages of TCP and UDP buffers
/// (`/proc/net/sockstat`) and unreclaimable slabs (`/proc/meminfo`).
#[must_use]
pub fn kernel_memory() -> u64 {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let sockstat = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let slabs = number_line(&meminfo, "SUnreclaim:").unwrap_or(0) * 1024;
    socket_pages(&sockstat) * page + slabs
}

fn socket_pages(sockstat: &str) -> u64 {
    let pages = |line: &str| -> Option<u64> {
        line.split_whitespace().skip_while(|word| *word != "mem").nth(1)?.parse().ok()
    };
    let lines =
        sockstat.lines().filter(|line| line.starts_with("TCP:") || line.starts_with("UDP:"));
    lines.filter_map(pages).sum()
}

fn number_line(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_has_the_first_cores() {
        let split = |available: &[usize], shards| {
            let cores = Cores::split(available, shards);
            (cores.relay, cores.others)
        };
        assert_eq!(split(&[0, 1], 1), (vec![0], vec![1]));
        assert_eq!(split(&[2, 5, 7, 9], 2), (vec![2, 5], vec![7, 9]));
        assert_eq!(split(&[0, 1], 2), (vec![0, 1], vec![1]));
        assert_eq!(split(&[0, 1], 5), (vec![0, 1], vec![1]));
        assert_eq!(split(&[3], 1), (vec![3], vec![3]));
    }

    #[test]
    fn counters_are_found_in_their_files() {
        let stat = "42 (a b) c) R 1 2 3 4 5 6 7 8 9 10 250 31 0 0 20 0 3";
        assert_eq!(parse_stat(stat), Some(281));
        let all = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 4 8 16 32 64 128 256 512\ncpu10 9 9\n";
        assert_eq!(parse_busy(all, 0), Some(1 + 2 + 4 + 32 + 64 + 128));
        assert_eq!(parse_busy(all, 1), None);
        let sockstat = "sockets: used 9\nTCP: inuse 8 orphan 0 tw 3 alloc 8 mem 77\nUDP: mem 5\n";
        assert_eq!(socket_pages(sockstat), 77 + 5);
        assert_eq!(number_line("VmPeak:\t9 kB\nVmRSS:\t   123 kB\n", "VmRSS:"), Some(123));
    }

    #[test]
    fn this_process_has_counters() {
        let pid = std::process::id();
        let memory = memory(pid).unwrap();
        assert!(memory.resident > 1 << 20 && memory.own <= memory.resident);
        assert!(writes(pid).is_ok() && writes(0).is_err());
        assert!(process_cpu(pid).is_ok() && process_cpu(0).is_err());
        assert!(kernel_memory() > 0 && describe().contains("Linux"));
        assert!(describe().contains("SEND_ZC"));
        assert!(busy(&Cores::of_this_machine(1).unwrap().relay) > Duration::ZERO);
    }
}
