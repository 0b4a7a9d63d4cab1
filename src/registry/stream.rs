//! One stream that is live or held: its window, its publisher's desk, its figures.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use crossbeam::utils::CachePadded;

use crate::base::ids::{ShardId, StreamName, StreamSlot};
use crate::base::time::{Mono, Now, Utc};
use crate::media::health::Health;
use crate::media::segmenter::{Counts, Numbers};
use crate::registry::course::Course;
use crate::registry::graph::Graph;
use crate::registry::identity::Identity;
use crate::registry::keys::KeyId;
use crate::ring::window::Window;
use crate::ring::writer::Writer;
use crate::swarm::crimes::Crime;

/// Silence after which a publisher may be replaced by another one with the same key.
pub const TAKEOVER_SILENCE: Duration = Duration::from_millis(500);

/// Whether a publisher is writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A publisher is connected.
    Live,
    /// The publisher is away; viewers are kept for the linger time.
    Held,
}

/// How a publisher's bytes come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Proto {
    /// The body of a PUT or POST.
    Http,
    /// A TCP connection with nothing but the stream.
    Tcp,
    /// Datagrams of MPEG-TS.
    Udp,
    /// Datagrams of RTP.
    Rtp,
}

impl Proto {
    /// All of them, in the order of their numbers.
    pub const ALL: [Proto; 4] = [Proto::Http, Proto::Tcp, Proto::Udp, Proto::Rtp];

    /// The word in labels and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Proto::Http => "http",
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
            Proto::Rtp => "rtp",
        }
    }
}

/// A stream that is live or held. Shared by all shards.
pub struct Stream {
    /// Its name.
    pub name: StreamName,
    /// Its place in the registry.
    pub slot: StreamSlot,
    /// Its bytes.
    pub window: Arc<Window>,
    /// When it went live.
    pub since: Utc,
    /// Where the numbers of its segments go on. Shared with the publisher's segmenter.
    pub segments: Arc<Numbers>,
    identity: OnceLock<Arc<Identity>>,
    desk: Mutex<Desk>,
    held: AtomicBool,
    ended: AtomicBool,
    heard: AtomicU64,
    health: ArcSwap<Health>,
    proto: AtomicU8,
    ingest_bytes: [AtomicU64; Proto::ALL.len()],
    /// Times that the numbers went on after a break.
    pub discontinuities: AtomicU64,
    /// Times that packet alignment was lost and found again.
    pub resyncs: AtomicU64,
    /// How its swarm has gone over the last minutes. Replaced once a second by the household.
    pub course: ArcSwap<Course>,
    /// The same and who feeds whom as JSON, drawn by the household; empty before.
    pub picture: ArcSwap<Bytes>,
    /// How its swarm is led.
    pub swarm: SwarmState,
    /// Who feeds whom in its swarm. Replaced now and then by the shard that coordinates it.
    pub graph: ArcSwap<Graph>,
    shares: Box<[CachePadded<Share>]>,
}

/// One shard's figures of a stream: written by that shard only.
#[derive(Debug, Default)]
pub struct Share {
    /// Viewers that it serves.
    pub viewers: AtomicU32,
    /// Stream bytes that the kernel accepted for them.
    pub egress_bytes: AtomicU64,
    /// Peers that it serves.
    pub peers: AtomicU32,
    /// UDP payload sent to them in all: what follows, and control.
    pub swarm_bytes: AtomicU64,
    /// Datagrams with chunks that they did not ask for.
    pub push_bytes: AtomicU64,
    /// Datagrams with chunks that they asked for.
    pub rescue_bytes: AtomicU64,
    /// Datagrams with hashes and signatures.
    pub hash_bytes: AtomicU64,
    /// Peers that are to get a stripe or more from the relay, by plan; 0 in direct mode.
    pub seeds: AtomicU32,
    /// What they told in all.
    pub told: Told,
    /// What they did that no honest one does, in the order of [`Crime::ALL`].
    pub crimes: [AtomicU64; Crime::ALL.len()],
    /// How many of them tell of their delay, the sum of their medians, and the largest 99th
    /// percentile.
    pub reporting: AtomicU32,
    /// See `reporting`.
    pub delay_p50_ms_sum: AtomicU64,
    /// See `reporting`.
    pub delay_p99_ms_max: AtomicU32,
    /// The same of the time from signing to verified there.
    pub arrival_p50_ms_sum: AtomicU64,
    /// See `arrival_p50_ms_sum`.
    pub arrival_p99_ms_max: AtomicU32,
}

/// What the controller of a stream's swarm decided: written by the shard that coordinates it.
#[derive(Debug, Default)]
pub struct SwarmState {
    /// Whether peers pass on what they get.
    pub hybrid: AtomicBool,
    /// How often that was changed.
    pub switches: AtomicU64,
    /// The most peers that a stripe is pushed to by plan; 0 in direct mode.
    pub copies: AtomicU32,
    /// Complaints of peers about each other that were forgotten because of newer ones.
    pub forgotten: AtomicU64,
}

/// What peers report of themselves: sums over all sessions, those that ended included.
#[derive(Debug, Default)]
pub struct Told {
    /// Bytes that they got from the relay.
    pub relay_bytes: AtomicU64,
    /// Bytes that they got from each other.
    pub peer_bytes: AtomicU64,
    /// Bytes that they sent each other.
    pub sent_bytes: AtomicU64,
    /// Stalls.
    pub stalls: AtomicU64,
    /// Time stalled in milliseconds.
    pub stall_ms: AtomicU64,
    /// Chunks fetched from the relay because their deadline was near.
    pub rescues: AtomicU64,
    /// Chunks that were not what was signed.
    pub bad: AtomicU64,
    /// Chunks that came more than once.
    pub duplicates: AtomicU64,
}

/// The publisher's place: at most one sits there, and the writer lies there while it is empty.
struct Desk {
    owner: Option<Owner>,
    writer: Option<Writer>,
    ticket: u64,
    parked_at: Mono,
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    key: KeyId,
    shard: ShardId,
}

/// What a publisher gets at the desk.
pub enum Seat {
    /// The writer, and the ticket that names this publisher.
    Granted(Writer, u64),
    /// The same key sits there in silence: ask its shard to give up the ticket, then try again.
    Ask(ShardId, u64),
    /// Somebody else is publishing.
    Taken,
    /// The stream has just ended: look it up again.
    Ended,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", self.name)
    }
}

impl Stream {
    /// A stream whose writer lies on the desk.
    #[must_use]
    pub(super) fn new(
        name: StreamName,
        slot: StreamSlot,
        writer: Writer,
        shards: usize,
        segments: Counts,
        now: Now,
    ) -> Stream {
        let window = Arc::clone(writer.window());
        let desk = Desk { owner: None, writer: Some(writer), ticket: 0, parked_at: now.mono };
        Stream::with(name, slot, window, shards, segments, desk, now)
    }

    fn with(
        name: StreamName,
        slot: StreamSlot,
        window: Arc<Window>,
        shards: usize,
        segments: Counts,
        desk: Desk,
        now: Now,
    ) -> Stream {
        Stream {
            name,
            slot,
            window,
            since: now.utc,
            segments: Arc::new(Numbers::new(segments)),
            identity: OnceLock::new(),
            desk: Mutex::new(desk),
            held: AtomicBool::new(true),
            ended: AtomicBool::new(false),
            heard: AtomicU64::new(now.mono.as_nanos()),
            health: ArcSwap::default(),
            proto: AtomicU8::new(0),
            ingest_bytes: Default::default(),
            discontinuities: AtomicU64::new(0),
            resyncs: AtomicU64::new(0),
            course: ArcSwap::default(),
            picture: ArcSwap::default(),
            graph: ArcSwap::default(),
            swarm: SwarmState::default(),
            shares: (0..shards).map(|_| CachePadded::default()).collect(),
        }
    }

    /// A stream that is received from others: its writer is elsewhere, and nobody can publish it.
    #[must_use]
    pub(super) fn received(
        name: StreamName,
        slot: StreamSlot,
        window: Arc<Window>,
        shards: usize,
        segments: Counts,
        now: Now,
    ) -> Stream {
        let owner = Some(Owner { key: KeyId::received(), shard: ShardId::default() });
        let desk = Desk { owner, writer: None, ticket: 0, parked_at: now.mono };
        Stream::with(name, slot, window, shards, segments, desk, now)
    }

    /// Whether bytes of a received stream come in. Called by its writer.
    pub fn set_live(&self, live: bool) {
        self.held.store(!live, Relaxed);
    }

    /// Ends a received stream.
    pub(super) fn end_received(&self) {
        self.ended.store(true, Relaxed);
    }

    /// Who it is in the swarm; `None` until that is known, or if there is no swarm.
    #[must_use]
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.get()
    }

    /// Gives it its identity, once, a moment after it went live.
    pub fn identify(&self, identity: Arc<Identity>) {
        let _ = self.identity.set(identity);
    }

    /// Live or held.
    #[must_use]
    pub fn state(&self) -> State {
        if self.held.load(Relaxed) { State::Held } else { State::Live }
    }

    /// Whether it is over: viewers are to be closed.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// When the publisher last sent something.
    #[must_use]
    pub fn heard(&self) -> Mono {
        Mono::from_nanos(self.heard.load(Relaxed))
    }

    /// Notes that the publisher sent something. Called by its shard.
    pub fn hear(&self, now: Mono) {
        self.heard.store(now.as_nanos(), Relaxed);
    }

    /// How the newest bytes came in.
    #[must_use]
    pub fn proto(&self) -> Proto {
        Proto::ALL[usize::from(self.proto.load(Relaxed)) % Proto::ALL.len()]
    }

    /// Notes bytes that came in. Called by the publisher's shard.
    pub fn take_in(&self, proto: Proto, bytes: u64) {
        self.proto.store(proto as u8, Relaxed);
        self.ingest_bytes[proto as usize].fetch_add(bytes, Relaxed);
    }

    /// Bytes that came in that way, resynchronisation losses included.
    #[must_use]
    pub fn ingest_bytes(&self, proto: Proto) -> u64 {
        self.ingest_bytes[proto as usize].load(Relaxed)
    }

    /// The publisher's health, as last told by its shard.
    #[must_use]
    pub fn health(&self) -> Arc<Health> {
        self.health.load_full()
    }

    /// Replaces the publisher's health.
    pub fn set_health(&self, health: Health) {
        self.health.store(Arc::new(health));
    }

    /// The figures of one shard.
    #[must_use]
    pub fn share(&self, shard: ShardId) -> &Share {
        &self.shares[usize::from(shard.0)]
    }

    /// Viewers on all shards.
    #[must_use]
    pub fn viewers(&self) -> u64 {
        self.shares.iter().map(|s| u64::from(s.viewers.load(Relaxed))).sum()
    }

    /// The figures of all shards.
    pub fn shares(&self) -> impl Iterator<Item = &Share> {
        self.shares.iter().map(|share| &**share)
    }

    /// Bytes that viewers of all shards got.
    #[must_use]
    pub fn egress_bytes(&self) -> u64 {
        self.shares.iter().map(|s| s.egress_bytes.load(Relaxed)).sum()
    }

    /// Sits down at the desk. First come, first served; the same key may replace a publisher
    /// that has been silent for [`TAKEOVER_SILENCE`].
    pub(super) fn sit(&self, key: KeyId, shard: ShardId, now: Mono) -> Seat {
        let mut desk = self.desk();
        if let Some(owner) = desk.owner {
            let silent = now.since(self.heard()) >= TAKEOVER_SILENCE;
            return match owner.key == key && silent {
                true => Seat::Ask(owner.shard, desk.ticket),
                false => Seat::Taken,
            };
        }
        let Some(writer) = desk.writer.take() else { return Seat::Ended };
        desk.owner = Some(Owner { key, shard });
        desk.ticket += 1;
        self.hear(now);
        self.held.store(false, Relaxed);
        Seat::Granted(writer, desk.ticket)
    }

    /// Leaves the desk; the writer stays there for the next publisher.
    pub fn park(&self, writer: Writer, now: Mono) {
        let mut desk = self.desk();
        desk.owner = None;
        desk.writer = Some(writer);
        desk.parked_at = now;
        self.held.store(true, Relaxed);
    }

    /// Ends the stream if nobody sat down since it was parked with `ticket`, `linger` ago.
    /// Returns the offset at which its numbers will go on.
    pub(super) fn end(&self, ticket: u64, linger: Duration, now: Mono) -> Option<u64> {
        let mut desk = self.desk();
        let over = desk.owner.is_none()
            && desk.ticket == ticket
            && now.since(desk.parked_at) >= linger
            && desk.writer.is_some();
        if !over {
            return None;
        }
        let next = desk.writer.take().map(|writer| writer.next());
        self.ended.store(true, Relaxed);
        next
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
