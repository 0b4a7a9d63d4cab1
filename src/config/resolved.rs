//! What the process runs on: every value checked, every default filled in.
//!
//! An `Option` here means that the operator chose to have none, never that nobody chose.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::face::http::settings::Settings as Http;
use crate::ingest::settings::Settings as Ingest;
use crate::registry::settings::Settings as Registry;
use crate::shard::settings::Settings as Shard;
use crate::swarm::settings::Settings as Swarm;

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[listen]`
    pub listen: Listen,
    /// `[cores]`
    pub cores: Cores,
    /// Bytes of the arena, at least 8 MiB.
    pub arena: u64,
    /// Connections of the whole process. The node resolves `Auto`, for it knows the limit of
    /// open files, and passes the number to [`Config::registry`].
    pub connections: Choice<usize>,
    /// What the HTTP face is told.
    pub http: Http,
    /// What a shard is told.
    pub shard: Shard,
    /// `[swarm]`: what the swarm is told.
    pub swarm: Swarm,
    /// Every `[[ingest]]`, in the order of the file.
    pub ingest: Vec<Ingest>,
    /// Where what outlives the process is kept.
    pub state_dir: Option<PathBuf>,
    /// `[log]`
    pub log: Log,
    /// The file that is written when every socket is bound.
    pub ready_file: Option<PathBuf>,
    /// Complete but for the number of connections.
    pub(super) registry: Registry,
}

impl Config {
    /// What the registry is told, with the limits of the swarm, the number of connections that
    /// the node settled on, and a window that is long enough for HLS.
    #[must_use]
    pub fn registry(&self, connections: usize) -> Registry {
        let mut settings = self.registry.clone();
        // A segment is to be had for its own duration and that of the longest playlist that
        // listed it after it was dropped from it (RFC 8216 section 6.2.2): two playlists and the
        // longest segment that is cut while key frames are at most `hls.segment` apart.
        let playlist = u32::try_from(self.shard.playlist).unwrap_or(u32::MAX);
        let needed = self.shard.segment.saturating_mul(2).saturating_mul(playlist + 1);
        settings.window = settings.window.max(needed);
        settings.limits.connections = connections;
        settings.limits.peers = self.swarm.peers;
        settings.limits.egress = self.swarm.egress;
        settings
    }
}

/// A number that the operator fixed, or that the node finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice<T> {
    /// The node finds out.
    Auto,
    /// The operator's choice.
    Fixed(T),
}

impl<T> Choice<T> {
    /// The operator's choice, or else `auto()`.
    pub fn fixed_or(self, auto: impl FnOnce() -> T) -> T {
        match self {
            Choice::Auto => auto(),
            Choice::Fixed(value) => value,
        }
    }
}

/// Where connections come in. Port 0: the system chooses.
#[derive(Clone, Copy, Debug)]
pub struct Listen {
    /// Viewers and publishers.
    pub http: SocketAddr,
    /// Metrics, health and the JSON API.
    pub control: SocketAddr,
}

/// How the work is spread over cores.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// Number of shards, 1 to 256. `Auto`: one per available core.
    pub shards: Choice<usize>,
    /// Whether each shard stays on a core of its own.
    pub pin: bool,
    /// Which driver runs the shards.
    pub io_driver: IoDriver,
}

/// Which driver runs the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoDriver {
    /// io_uring where it works, else epoll.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

/// What is reported, and how.
#[derive(Clone, Debug)]
pub struct Log {
    /// The form.
    pub format: LogFormat,
    /// Directives for `tracing_subscriber::EnvFilter`, checked.
    pub level: String,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Journald where systemd has connected it, else text.
    Auto,
    /// Lines for people, on stdout.
    Text,
    /// One JSON object per line, on stdout.
    Json,
    /// The journal's own protocol.
    Journald,
}
