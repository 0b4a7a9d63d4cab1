//! All streams: found by name or place, opened by publishers, forgotten after the linger time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

use crate::base::ids::{ShardId, StreamName, StreamSlot};
use crate::base::limits::SUBTREE;
use crate::base::time::{Mono, Now};
use crate::media::segmenter::Counts;
use crate::registry::admission::Admission;
use crate::registry::keys::{KeyId, KeyRefusal, Keyring};
use crate::registry::pulse::Pulse;
use crate::registry::settings::Settings;
use crate::registry::stream::{Seat, Stream};
use crate::ring::arena::Arena;
use crate::ring::chunks::ChunkWriter;
use crate::ring::records::SubtreeSize;
use crate::ring::window;
use crate::ring::writer::Writer;

/// Names of streams that are over, kept so that their numbers go on. The oldest is forgotten.
const KNOWN_MAX: usize = 4096;

/// An immutable picture of all streams that are live or held.
#[derive(Debug, Default)]
pub struct Directory {
    by_name: HashMap<StreamName, Arc<Stream>>,
    by_slot: Vec<Option<Arc<Stream>>>,
}

impl Directory {
    /// The stream of this name.
    #[must_use]
    pub fn get(&self, name: &StreamName) -> Option<&Arc<Stream>> {
        self.by_name.get(name)
    }

    /// All streams, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Stream>> {
        self.by_slot.iter().flatten()
    }
}

/// What is known of a name.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// Live or held.
    Present(Arc<Stream>),
    /// It was live before.
    Known,
    /// Never heard of it.
    Unknown,
}

/// The answer to somebody who wants to publish.
pub enum Claim {
    /// The stream is theirs until they park the writer.
    Granted(Lease),
    /// Ask that shard to give up `ticket` of the stream, then claim again.
    Ask(Arc<Stream>, ShardId, u64),
    /// Somebody else publishes it.
    Taken,
    /// There are as many streams as allowed.
    TooMany,
    /// No memory for another window.
    NoMemory,
    /// What was kept of this stream cannot be used: why, in one line.
    Refused(Arc<str>),
}

/// The right to write a stream.
pub struct Lease {
    /// The stream.
    pub stream: Arc<Stream>,
    /// Its writer.
    pub writer: Writer,
    /// Names this publisher among those of the stream.
    pub ticket: u64,
    /// Whether the stream has had another publisher since it went live.
    pub resumed: bool,
}

/// Why a stream cannot be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReceived {
    /// There is a stream of this name.
    Taken,
    /// There are as many streams as allowed.
    TooMany,
    /// No memory for another window.
    NoMemory,
}

/// Where the numbers of a name go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resume {
    /// The next stream offset.
    pub next: u64,
    /// Its segments.
    pub segments: Counts,
}

#[derive(Debug, Default)]
struct Table {
    known: HashMap<StreamName, Known>,
    /// Names that nobody may publish: what was kept of them is broken.
    refused: HashMap<StreamName, Arc<str>>,
    clock: u64,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    resume: Resume,
    touched: u64,
}

/// The registry of one process.
pub struct Registry {
    settings: Settings,
    keyring: Keyring,
    arena: Arc<Arena>,
    shards: usize,
    directory: ArcSwap<Directory>,
    table: Mutex<Table>,
    /// Who may come in.
    pub admission: Arc<Admission>,
    /// How the process feels.
    pub pulse: ArcSwap<Pulse>,
}

impl Registry {
    /// A registry without streams.
    #[must_use]
    pub fn new(settings: Settings, arena: Arc<Arena>, shards: usize) -> Registry {
        let by_slot = vec![None; settings.max_streams];
        Registry {
            keyring: Keyring::new(settings.keys.clone()),
            admission: Arc::new(Admission::new(settings.limits.clone())),
            arena,
            shards,
            directory: ArcSwap::from_pointee(Directory { by_slot, ..Directory::default() }),
            table: Mutex::default(),
            pulse: ArcSwap::default(),
            settings,
        }
    }

    /// The streams as they are now. Takes no lock.
    #[must_use]
    pub fn directory(&self) -> Guard<Arc<Directory>> {
        self.directory.load()
    }

    /// The memory that the windows live in.
    #[must_use]
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// How long viewers are held without a publisher.
    #[must_use]
    pub fn linger(&self) -> Duration {
        self.settings.linger
    }

    /// Shards of the process.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// What is known of `name`.
    #[must_use]
    pub fn lookup(&self, name: &StreamName) -> Lookup {
        if let Some(stream) = self.directory.load().get(name) {
            return Lookup::Present(Arc::clone(stream));
        }
        match self.table().known.contains_key(name) {
            true => Lookup::Known,
            false => Lookup::Unknown,
        }
    }

    /// Whether a publisher with this key may write `name`; see [`Keyring::check`].
    ///
    /// # Errors
    /// The reason of the refusal.
    pub fn authorise(
        &self,
        key: Option<&str>,
        name: &StreamName,
        client: IpAddr,
        direct: bool,
    ) -> Result<KeyId, KeyRefusal> {
        self.keyring.check(key, name, client, direct)
    }

    /// Asks for the right to write `name`; opens the stream if it is not there.
    pub fn claim(&self, name: &StreamName, key: KeyId, shard: ShardId, now: Now) -> Claim {
        let mut table = self.table();
        let directory = self.directory.load_full();
        if let Some(stream) = directory.get(name) {
            match stream.sit(key, shard, now.mono) {
                Seat::Granted(writer, ticket) => {
                    let stream = Arc::clone(stream);
                    return Claim::Granted(Lease { stream, writer, ticket, resumed: true });
                }
                Seat::Ask(owner, ticket) => return Claim::Ask(Arc::clone(stream), owner, ticket),
                Seat::Taken | Seat::Ended => return Claim::Taken,
            }
        }
        if let Some(why) = table.refused.get(name) {
            return Claim::Refused(Arc::clone(why));
        }
        let Some(slot) = directory.by_slot.iter().position(Option::is_none) else {
            return Claim::TooMany;
        };
        let known = table.known.get(name).map(|known| known.resume);
        let resume = known.unwrap_or_default();
        // What players remember of an earlier life of the stream does not go on.
        let breaks = resume.segments.breaks + u64::from(known.is_some());
        let segments = Counts { breaks, ..resume.segments };
        let memory =
            window::Settings { bytes: self.settings.window_bytes, span: self.settings.window };
        let Ok((writer, _)) = window::open(&self.arena, &memory, resume.next, self.shards) else {
            return Claim::NoMemory;
        };
        let slot = StreamSlot(u32::try_from(slot).unwrap_or(u32::MAX));
        let stream = Arc::new(Stream::new(name.clone(), slot, writer, self.shards, segments, now));
        let Seat::Granted(writer, ticket) = stream.sit(key, shard, now.mono) else {
            return Claim::Taken;
        };
        remember(&mut table, name, resume);
        self.replace(&directory, slot, Some(&stream), name);
        Claim::Granted(Lease { stream, writer, ticket, resumed: false })
    }

    /// Opens a stream that is received from others, with records of `size`; it is held until its
    /// writer says that it is live. Its numbers begin anew: they are its own, not the source's.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub fn receive(
        &self,
        name: &StreamName,
        size: SubtreeSize,
        now: Now,
    ) -> Result<(Arc<Stream>, ChunkWriter), NotReceived> {
        let mut table = self.table();
        let directory = self.directory.load_full();
        if directory.get(name).is_some() {
            return Err(NotReceived::Taken);
        }
        let free = directory.by_slot.iter().position(Option::is_none);
        let slot = StreamSlot(free.and_then(|n| n.try_into().ok()).ok_or(NotReceived::TooMany)?);
        let known = table.known.get(name).map(|known| known.resume);
        let Resume { next, segments } = known.unwrap_or_default();
        let memory =
            window::Settings { bytes: self.settings.window_bytes, span: self.settings.window };
        let (writer, window) = window::open_received(&self.arena, &memory, size, next, self.shards)
            .map_err(|_| NotReceived::NoMemory)?;
        let breaks = segments.breaks + u64::from(known.is_some());
        let segments = Counts { breaks, ..segments };
        let stream = Stream::received(name.clone(), slot, window, self.shards, segments, now);
        let stream = Arc::new(stream);
        remember(&mut table, name, Resume { next, segments });
        self.replace(&directory, slot, Some(&stream), name);
        Ok((stream, writer))
    }

    /// Ends a received stream, whose writer is given up here. Its viewers are to be closed.
    pub fn end_received(&self, stream: &Arc<Stream>, writer: ChunkWriter) {
        let mut table = self.table();
        let next = writer.window().head();
        drop(writer);
        stream.end_received();
        remember(&mut table, &stream.name, Resume { next, segments: stream.segments.counts() });
        let directory = self.directory.load_full();
        self.replace(&directory, stream.slot, None, &stream.name);
    }

    /// Ends a stream that was parked with `ticket` and has been without a publisher for the
    /// linger time. Returns whether it is over; then its viewers are to be closed.
    pub fn end(&self, stream: &Arc<Stream>, ticket: u64, now: Mono) -> bool {
        let mut table = self.table();
        let Some(next) = stream.end(ticket, self.settings.linger, now) else { return false };
        remember(&mut table, &stream.name, Resume { next, segments: stream.segments.counts() });
        let directory = self.directory.load_full();
        self.replace(&directory, stream.slot, None, &stream.name);
        true
    }

    /// Where each stream's numbers go on: what must be kept over a restart.
    #[must_use]
    pub fn numbers(&self) -> Vec<(StreamName, Resume)> {
        let known = |(name, known): (&StreamName, &Known)| (name.clone(), known.resume);
        let mut numbers: HashMap<StreamName, Resume> =
            self.table().known.iter().map(known).collect();
        for stream in self.directory.load().iter() {
            let resume = Resume { next: stream.window.head(), segments: stream.segments.counts() };
            numbers.insert(stream.name.clone(), resume);
        }
        let mut numbers: Vec<_> = numbers.into_iter().collect();
        numbers.sort();
        numbers
    }

    /// Takes over numbers that were kept; rounds up to whole subtrees.
    pub fn restore(&self, numbers: impl IntoIterator<Item = (StreamName, Resume)>) {
        let mut table = self.table();
        for (name, resume) in numbers {
            remember(&mut table, &name, resume);
        }
    }

    /// Lets nobody publish `name` until the process starts anew: going on would use its numbers
    /// twice, or another key. Called at start, for at most as many names as there are files.
    pub fn refuse(&self, name: StreamName, why: Arc<str>) {
        self.table().refused.insert(name, why);
    }

    fn replace(
        &self,
        old: &Directory,
        slot: StreamSlot,
        stream: Option<&Arc<Stream>>,
        name: &StreamName,
    ) {
        let mut by_name = old.by_name.clone();
        let mut by_slot = old.by_slot.clone();
        match stream {
            Some(stream) => by_name.insert(name.clone(), Arc::clone(stream)),
            None => by_name.remove(name),
        };
        by_slot[slot.0 as usize] = stream.cloned();
        self.directory.store(Arc::new(Directory { by_name, by_slot }));
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remember(table: &mut Table, name: &StreamName, resume: Resume) {
    table.clock += 1;
    let resume = Resume { next: resume.next.next_multiple_of(SUBTREE as u64), ..resume };
    table.known.insert(name.clone(), Known { resume, touched: table.clock });
    if table.known.len() > KNOWN_MAX {
        let oldest = table.known.iter().min_by_key(|(_, known)| known.touched);
        if let Some(name) = oldest.map(|(name, _)| name.clone()) {
            table.known.remove(&name);
        }
    }
}
