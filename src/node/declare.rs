//! What the process may use: cores, open files, memory. Declared at start, and kept.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

use crate::config::Config;
use crate::ingest::settings::Way;
use crate::io::udp;
use crate::registry;
use crate::shard;

/// Descriptors kept for everything that is no connection: listeners, logs, the control port.
const RESERVED_FILES: u64 = 256;

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

/// The most connections: the operator's choice, or what the limit of open files allows after
/// it was raised as far as it goes.
///
/// # Errors
/// If the choice does not fit the limit.
pub(super) fn connections(config: &Config) -> Result<usize, String> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let files = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    let most = usize::try_from(files.saturating_sub(RESERVED_FILES)).unwrap_or(usize::MAX);
    let chosen = config.connections.fixed_or(|| most);
    if chosen > most {
        return Err(format!(
            "limits.connections = {chosen}, but only {files} files may be open; raise \
             LimitNOFILE (systemd) or `ulimit -n` to {}",
            chosen as u64 + RESERVED_FILES
        ));
    }
    Ok(chosen)
}

/// Says the most that this configuration can use.
pub(super) fn log_memory(config: &Config, registry: &registry::settings::Settings, arena: u64) {
    let connections = registry.limits.connections as u64;
    let viewers = registry.limits.viewers.min(registry.limits.connections) as u64;
    let user = connections * (config.http.head_bytes as u64 + shard::CONNECTION_BYTES)
        + registry.max_streams as u64 * shard::PUBLISHER_BYTES;
    let datagrams =
        config.ingest.iter().filter(|ingest| matches!(ingest.way, Way::Udp { .. })).count() as u64;
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    info!(
        arena_mib = mib(arena),
        connections_mib = mib(user),
        kernel_idle_mib = mib(connections * KERNEL_IDLE),
        kernel_worst_mib = mib(viewers * KERNEL_DEAD_READER),
        kernel_datagrams_mib = mib(datagrams * 2 * udp::BACKLOG as u64),
        max_streams = registry.max_streams,
        max_viewers = viewers,
        max_connections = connections,
        "memory: the most that this configuration can use"
    );
}
