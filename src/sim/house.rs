//! The relay of a world: two production shards, with a registry and memory of their own.

use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::{ShardId, StreamName};
use crate::base::limits::{CHUNK, SLAB_LARGE, SUBTREE};
use crate::base::time::Now;
use crate::face::http::invitation::Door;
use crate::face::http::settings::Settings as HttpSettings;
use crate::metrics::cells::Cells;
use crate::metrics::delay::DelayShelf;
use crate::metrics::table::Cell;
use crate::registry::identity::Identity;
use crate::registry::settings::{Limits, Settings as RegistrySettings};
use crate::registry::stream::Stream;
use crate::registry::streams::{Lookup, Registry, Resume};
use crate::ring::arena::Arena;
use crate::shard::settings::Settings as ShardSettings;
use crate::shard::swarm::Swarming;
use crate::shard::{Parts, Shard};
use crate::sim::dice::Dice;
use crate::sim::scribe::Scribe;
use crate::sim::world::{Driven, PORT};
use crate::swarm::integrity::{Signer, SignerClock};
use crate::swarm::settings::{
    Addressing, Join, Mode, Settings as SwarmSettings, Strategy, SubtreeSize,
};

/// Shards of the relay.
pub const SHARDS: u16 = 2;

/// How much of the stream the relay keeps.
const WINDOW: Duration = Duration::from_secs(30);

/// Numbers that are kept ahead of those in use, as in the relay's state on disk.
const AHEAD: Duration = Duration::from_secs(60);

/// A subtree lasts at most this long; see `ingest::sealer`.
const SUBTREE_TIME: Duration = Duration::from_millis(150);

/// What a relay is built from.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its address, as peers are told.
    pub address: String,
    /// The stream.
    pub name: StreamName,
    /// The stream's bits per second.
    pub bitrate: u64,
    /// The most peers.
    pub peers: usize,
    /// What it may send to peers, in bits per second.
    pub egress: Option<u64>,
    /// Whether peers pass on what they get.
    pub mode: Mode,
    /// Who is to feed whom.
    pub strategy: Strategy,
}

/// One life of the relay's process.
pub struct House {
    plan: Plan,
    /// Its registry.
    pub registry: Arc<Registry>,
    /// Its figures, by shard.
    pub cells: Vec<Arc<Cells>>,
    key: Arc<Scribe>,
    clock: Option<SignerClock>,
}

impl House {
    /// A relay that begins with these numbers.
    ///
    /// # Errors
    /// If the machine has no memory for it.
    pub fn new(
        plan: Plan,
        key: Arc<Scribe>,
        numbers: Vec<(StreamName, Resume)>,
    ) -> std::io::Result<House> {
        let window_bytes = bytes_of(plan.bitrate, WINDOW).max(4 * SLAB_LARGE as u64);
        let arena = Arena::create(window_bytes + 4 * SLAB_LARGE as u64)?;
        let all = 8 * plan.peers + 16;
        let limits = Limits {
            viewers: all,
            connections: all,
            per_address: 64,
            exempt: Vec::new(),
            peers: plan.peers,
            egress: plan.egress,
        };
        let settings = RegistrySettings {
            max_streams: 1,
            window: WINDOW,
            window_bytes,
            linger: Duration::from_secs(30),
            keys: Vec::new(),
            limits,
        };
        let registry = Arc::new(Registry::new(settings, arena, usize::from(SHARDS)));
        registry.restore(numbers);
        let cells = (0..SHARDS).map(|_| Arc::default()).collect();
        Ok(House { plan, registry, cells, key, clock: None })
    }

    /// Its shards; `secrets` are random, and other ones in each life.
    pub fn shards(&self, secrets: &mut Dice) -> Vec<Driven> {
        let mut key = [0; 32];
        key.chunks_mut(8).for_each(|part| part.copy_from_slice(&secrets.number().to_le_bytes()));
        let settings = Arc::new(SwarmSettings {
            listen: Some(([0, 0, 0, 0], PORT).into()),
            advertise: vec![self.plan.address.clone()],
            addressing: Addressing::Chunks64,
            size: None,
            join: Join::Open,
            peers: self.plan.peers,
            egress: self.plan.egress,
            mode: self.plan.mode,
            strategy: self.plan.strategy,
        });
        let swarming = Swarming { settings, key };
        (0..SHARDS).map(|id| self.shard(id, swarming.clone())).collect()
    }

    fn shard(&self, id: u16, swarming: Swarming) -> Driven {
        let door = Door {
            address: ([0, 0, 0, 0], PORT).into(),
            advertise: vec![self.plan.address.clone()],
        };
        let http = HttpSettings {
            request_timeout: Duration::from_secs(10),
            head_bytes: 8_192,
            header_lines: 32,
            trusted_proxies: Vec::new(),
            cors: String::new(),
            publisher_silence: Duration::from_millis(2_500),
            swarm: Some(door),
        };
        let settings = ShardSettings {
            max_lag: Duration::from_secs(5),
            max_jumps: 6,
            stall_timeout: Duration::from_secs(30),
            busy_target: 0.35,
            max_batch_delay: Duration::from_millis(200),
            segment: Duration::from_secs(2),
            playlist: 6,
        };
        Box::new(Shard::new(Parts {
            id: ShardId(id),
            settings,
            http: Arc::new(http),
            ingest: [].into(),
            registry: Arc::clone(&self.registry),
            swarm: Some(swarming),
            cells: Arc::clone(&self.cells[usize::from(id)]),
            shelf: Arc::new(DelayShelf::default()),
        }))
    }

    /// The stream, if it is there.
    #[must_use]
    pub fn stream(&self) -> Option<Arc<Stream>> {
        match self.registry.lookup(&self.plan.name) {
            Lookup::Present(stream) => Some(stream),
            Lookup::Known | Lookup::Unknown => None,
        }
    }

    /// Gives the stream its identity a moment after it went live, as the household does.
    pub fn tend(&mut self, now: Now) {
        let clock = *self.clock.get_or_insert_with(|| SignerClock::new(now, now.utc));
        let Some(stream) = self.stream().filter(|stream| stream.identity().is_none()) else {
            return;
        };
        if stream.window.head() == 0 {
            return;
        }
        let mark = stream.window.head() + bytes_of(self.plan.bitrate, Duration::from_secs(86_400));
        let signer: Box<dyn Signer> = Box::new(Arc::clone(&self.key));
        let (addressing, size) = (Addressing::Chunks64, size(self.plan.bitrate));
        stream.identify(Arc::new(Identity::new(signer, addressing, size, clock, mark)));
    }

    /// What would be found on disk after the process was killed: numbers that lie ahead.
    #[must_use]
    pub fn numbers(&self) -> Vec<(StreamName, Resume)> {
        let ahead = bytes_of(self.plan.bitrate, AHEAD).next_multiple_of(SUBTREE as u64);
        let mut numbers = self.registry.numbers();
        for (_, resume) in &mut numbers {
            resume.next += ahead;
            resume.segments.next += 1_000;
        }
        numbers
    }

    /// A figure, of all shards together.
    #[must_use]
    pub fn cell(&self, cell: Cell) -> u64 {
        self.cells.iter().map(|cells| cells.get(cell)).sum()
    }
}

/// Bytes of a stream in some time.
#[must_use]
pub fn bytes_of(bitrate: u64, time: Duration) -> u64 {
    bitrate / 8 * u64::try_from(time.as_millis()).unwrap_or(u64::MAX) / 1_000
}

/// Chunks under one signature at this bitrate: protocol.md, "Profile".
fn size(bitrate: u64) -> SubtreeSize {
    let fits = |n: &usize| bytes_of(bitrate, SUBTREE_TIME) >= (n * CHUNK) as u64;
    let n = [16, 8, 4].into_iter().find(fits).unwrap_or(2);
    SubtreeSize::new(n).unwrap_or(SubtreeSize::SMALLEST)
}
