//! What the process may use: cores, open files, memory. Declared at start, and kept.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

use crate::config::Config;
use crate::config::resolved::Choice;
use crate::face::swarm::PEER_BYTES;
use crate::ingest::settings::Way;
use crate::io::{probe, udp, uring};
use crate::registry;
use crate::ring::records::SubtreeSize;
use crate::shard;
use crate::swarm::halfopen::OPENINGS_MAX;

/// Descriptors kept for everything that is no connection: listeners, logs, the control port.
/// At most a quarter of the limit.
const RESERVED_FILES: usize = 256;

/// Memory of one shard for openings that are not confirmed, with their index.
const OPENINGS_BYTES: u64 = OPENINGS_MAX as u64 * (40 + 32);

/// Kernel memory of one idle TCP connection, in bytes (measured: 4.4 kB at one end).
const KERNEL_IDLE: u64 = 4_400;

/// Kernel memory of one viewer who reads nothing, in bytes, with the backlog bound that the
/// faces set (measured: 135 kB).
const KERNEL_DEAD_READER: u64 = 135_000;

/// Shards where the operator left it to us: one per core that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Pins the calling thread to the `index`th core that this process may use.
pub(super) fn pin(index: usize) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let pinned = !cores.is_empty() && core_affinity::set_for_current(cores[index % cores.len()]);
    if !pinned {
        warn!(shard = index, "cannot pin a shard to its core (sched_setaffinity refused)");
    }
}

/// How many connections there may be, and where their sockets live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seats {
    /// Connections of the whole process.
    pub(super) connections: usize,
    /// The most of one shard.
    pub(super) per_shard: usize,
    /// How many of a shard's have a descriptor; the others live in its ring's table.
    pub(super) descriptors: usize,
}

/// The most connections: the operator's choice, or what the limit of open files allows after
/// it was raised as far as it goes.
///
/// # Errors
/// If the choice does not fit the limit, and io_uring cannot go past it.
pub(super) fn connections(config: &Config, shards: usize, uring: bool) -> Result<Seats, String> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let files = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let past = || if uring { probe::uring_table() } else { Err("epoll runs".to_owned()) };
    let seats = seats(config.connections, files, shards, past)?;
    if seats.descriptors < seats.per_shard {
        info!(
            connections = seats.connections,
            nofile = files,
            descriptors_per_shard = seats.descriptors,
            "limits.connections is above the limit of open files: beyond it connections live in \
             io_uring's own tables (a higher LimitNOFILE would be simpler)"
        );
    }
    Ok(seats)
}

/// `past` says whether connections may do without a descriptor, or why not.
fn seats(
    wish: Choice<usize>,
    files: usize,
    shards: usize,
    past: impl Fn() -> Result<(), String>,
) -> Result<Seats, String> {
    let most = files - RESERVED_FILES.min(files / 4);
    let connections = wish.fixed_or(|| most);
    if connections <= most {
        return Ok(Seats { connections, per_shard: connections, descriptors: connections });
    }
    let refuse = |why: &str| {
        Err(format!(
            "limits.connections = {connections}, but only {files} files may be open{why}; raise \
             LimitNOFILE (systemd) or `ulimit -n` to {}",
            connections + RESERVED_FILES
        ))
    };
    if let Err(why) = past() {
        return refuse(&format!(", and only io_uring can go past that ({why})"));
    }
    let descriptors = most / shards;
    // A ring's table is bounded by the limit of open files as well, but each ring has its own.
    let per_shard = descriptors + files.min(uring::PLACES_MAX);
    if connections > shards * per_shard {
        let held = shards * per_shard;
        return refuse(&format!(", and {shards} io_uring tables hold no more than {held}"));
    }
    Ok(Seats { connections, per_shard: per_shard.min(connections), descriptors })
}

/// Says the most that this configuration can use.
pub(super) fn log_memory(
    config: &Config,
    registry: &registry::settings::Settings,
    arena: u64,
    shards: usize,
) {
    let connections = registry.limits.connections as u64;
    let viewers = registry.limits.viewers.min(registry.limits.connections) as u64;
    let swarm = config.swarm.listen.is_some();
    let peers = if swarm { registry.limits.peers as u64 } else { 0 };
    let user = connections * (config.http.head_bytes as u64 + shard::CONNECTION_BYTES)
        + registry.max_streams as u64 * shard::PUBLISHER_BYTES
        + shards as u64 * shard::CLAIMANTS_BYTES;
    let peers_bytes = peers * PEER_BYTES + u64::from(swarm) * shards as u64 * OPENINGS_BYTES;
    let size = config.swarm.size.unwrap_or(SubtreeSize::SMALLEST);
    let records = match config.swarm.listen {
        Some(_) => registry.max_streams as u64 * size.index_bytes(registry.window_bytes),
        None => 0,
    };
    let datagrams =
        config.ingest.iter().filter(|ingest| matches!(ingest.way, Way::Udp { .. })).count() as u64;
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    info!(
        arena_mib = mib(arena),
        records_mib = mib(records),
        connections_mib = mib(user),
        peers_mib = mib(peers_bytes),
        kernel_idle_mib = mib(connections * KERNEL_IDLE),
        kernel_worst_mib = mib(viewers * KERNEL_DEAD_READER),
        kernel_datagrams_mib = mib(datagrams * 2 * udp::BACKLOG as u64),
        max_streams = registry.max_streams,
        max_viewers = viewers,
        max_connections = connections,
        max_peers = peers,
        "memory: the most that this configuration can use"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_the_limit_of_open_files_or_the_rings() {
        let no = || Err("epoll runs".to_owned());
        let plain = |n| Ok(Seats { connections: n, per_shard: n, descriptors: n });
        assert_eq!(seats(Choice::Auto, 20_000, 2, || Ok(())), plain(19_744), "never past it");
        assert_eq!(seats(Choice::Auto, 256, 2, no), plain(192));
        assert_eq!(seats(Choice::Fixed(100), 20_000, 2, no), plain(100));
        let why = seats(Choice::Fixed(19_745), 20_000, 2, no).unwrap_err();
        assert!(why.contains("epoll runs") && why.contains("LimitNOFILE"), "{why}");
        assert!(why.contains("20001"), "the number that would do: {why}");
        let wanted = Seats { connections: 22_000, per_shard: 22_000, descriptors: 9_872 };
        assert_eq!(seats(Choice::Fixed(22_000), 20_000, 2, || Ok(())), Ok(wanted));
        let wanted = Seats { connections: 59_744, per_shard: 29_872, descriptors: 9_872 };
        assert_eq!(seats(Choice::Fixed(59_744), 20_000, 2, || Ok(())), Ok(wanted));
        let why = seats(Choice::Fixed(59_745), 20_000, 2, || Ok(())).unwrap_err();
        assert!(why.contains("59744"), "{why}");
    }
}
