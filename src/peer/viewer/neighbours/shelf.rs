//! What a viewer can pass on: the subtrees that it verified, as trains.

use std::time::Duration;

use crate::base::limits::CHUNK;
use crate::base::payload::Payload;
use crate::base::time::Mono;
use crate::face::swarm::trains::{Style, Trains};
use crate::peer::viewer::join::CHUNK_TIME_MIN;
use crate::peer::viewer::playing::Playing;
use crate::ring::reader::Reader;
use crate::swarm::integrity::freshness::SERVED;
use crate::swarm::receiver::assembly::Assembly;
use crate::swarm::receiver::store::Store;
use crate::swarm::requests::Run;
use crate::swarm::sender::{Parcel, Source, Stock};
use crate::swarm::upload::Upload;

/// How often neighbours are told of what is new. There are a dozen subtrees in a second and more
/// neighbours than that: told one by one they would be more datagrams than chunks are. Nobody
/// waits for it: who lacks something is told in time to ask here before the relay.
const NEWS_APART: Duration = Duration::from_millis(300);

/// Of a parcel, what one train takes.
pub(super) struct Load {
    /// The hash datagram, or nothing.
    pub head: Payload,
    /// The headers of the chunks, and bytes of one.
    pub headers: Payload,
    /// Bytes of one header.
    pub header: u16,
    /// The chunks.
    pub body: Payload,
}

/// What can be sent, and what it is sent with.
pub(super) struct Shelf {
    pub(super) source: Source,
    /// When neighbours were last told of what is new.
    pub(super) told_at: Mono,
    trains: Trains,
    reader: Reader,
    /// The window's numbers are smaller by so many subtrees.
    shift: u64,
}

/// The shelf, as a sender looks at it.
pub(super) struct Sight<'a> {
    source: &'a Source,
    assembly: &'a Assembly,
    store: &'a Store,
    shift: u64,
    open: bool,
    spare: bool,
    shared: bool,
    run: u32,
    tells_from: Mono,
}

impl Shelf {
    pub(super) fn new(playing: &Playing) -> Shelf {
        let shift = shift(&playing.store);
        let profile = playing.profile;
        let size = profile.size.chunks();
        let mut shelf = Shelf {
            source: Source { size: size as u64, subtrees: 0..0, train: Duration::ZERO, window: 0 },
            told_at: Mono::ZERO,
            trains: Trains::new(profile.addressing, size, Style::CUT_THROUGH).with_shift(shift),
            reader: Reader::new(std::sync::Arc::clone(playing.store.window())),
            shift,
        };
        shelf.refresh(playing);
        shelf
    }

    /// Looks at what is there.
    pub(super) fn refresh(&mut self, playing: &Playing) {
        let (assembly, store) = (&playing.assembly, &playing.store);
        let shift = shift(store);
        if shift != self.shift {
            let profile = playing.profile;
            let trains = Trains::new(profile.addressing, profile.size.chunks(), Style::CUT_THROUGH);
            (self.trains, self.shift) = (trains.with_shift(shift), shift);
        }
        let train = assembly.chunk_time().max(CHUNK_TIME_MIN) * self.source.size as u32;
        let served = (SERVED.as_nanos() / train.as_nanos().max(1)) as u64;
        let end = assembly.proven_edge();
        let tail = store.window().tail().div_ceil(playing.profile.size.bytes()) + self.shift;
        // Before the last jump the window's chunks had other numbers.
        let floor = store.floor().div_ceil(self.source.size);
        let start = end.saturating_sub(served).max(tail).max(floor).min(end);
        self.source.subtrees = start..end;
        self.source.train = train;
        self.source.window = (served + 1) * self.source.size;
    }

    /// Looks at what is there if that is more than before: who is fed need not wait for it.
    pub(super) fn note_proven(&mut self, playing: &Playing) {
        if playing.assembly.proven_edge() != self.source.subtrees.end {
            self.refresh(playing);
        }
    }

    /// What a sender chooses from.
    pub(super) fn sight<'a>(
        &'a self,
        now: Mono,
        playing: &'a Playing,
        upload: &Upload,
    ) -> Sight<'a> {
        let Playing { assembly, store, .. } = playing;
        let (open, spare, run) = (upload.ready() <= now, upload.has_spare(now), upload.run());
        let (source, shift, shared) = (&self.source, self.shift, upload.shares());
        let tells_from = if self.told_at == now { now } else { self.tells_at() };
        Sight { source, assembly, store, shift, open, spare, shared, run, tells_from }
    }

    /// When neighbours are told of what is new the next time, if there is anything: all of them
    /// at once, for it takes longer to wake up than to write one datagram more.
    pub(super) fn tells_at(&self) -> Mono {
        self.told_at + NEWS_APART
    }

    /// What a parcel consists of; `None` if it has left the window.
    pub(super) fn load(&mut self, playing: &Playing, parcel: &Parcel) -> Option<Load> {
        let Parcel { subtree, hash, run, .. } = *parcel;
        let body = match run {
            Some(run) => self.body(run)?,
            None => Payload::Empty,
        };
        let header = self.trains.header() as u16;
        let ready = self.trains.get(playing.store.window(), subtree)?;
        let headers = run.map_or(Payload::Empty, |run| ready.headers(run, self.source.size));
        let head = if hash { ready.hash.clone() } else { Payload::Empty };
        Some(Load { head, headers, header, body })
    }

    fn body(&mut self, run: Run) -> Option<Payload> {
        let first = run.first().checked_sub(self.shift * self.source.size)?;
        let count = usize::try_from(run.chunks()).ok()?;
        let body = self.reader.read_run(first, count).ok()??;
        (body.len() == count * CHUNK).then_some(body)
    }

    /// The stream's bits per second, hashes and headers apart.
    pub(super) fn bitrate(&self) -> u64 {
        let bits = self.source.size * CHUNK as u64 * 8;
        let rate = u128::from(bits) * 1_000_000_000 / self.source.train.as_nanos().max(1);
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    /// Gives back pins; call it now and then.
    pub(super) fn release(&mut self) {
        self.reader.release();
    }
}

impl Stock for Sight<'_> {
    fn source(&self) -> &Source {
        self.source
    }

    fn chunks(&self, subtree: u64) -> u16 {
        if let Some(chunks) = self.assembly.servable(subtree) {
            return chunks;
        }
        // Played long ago: whoever joins late asks for it.
        let window = self.store.window();
        let numbered = subtree >= self.source.subtrees.start;
        let Some(local) = subtree.checked_sub(self.shift).filter(|_| numbered) else { return 0 };
        let first = local * self.source.size;
        let there = (0..self.source.size).filter(|n| window.has_chunk(first + n));
        let there = there.fold(0, |bits, n| bits | 1 << n);
        if there != 0 && window.record(local).is_err() { 0 } else { there }
    }

    fn proven(&self, subtree: u64) -> bool {
        self.assembly.is_proven(subtree)
    }

    fn is_open(&self) -> bool {
        self.open
    }

    fn run(&self) -> u32 {
        self.run
    }

    fn has_spare(&self) -> bool {
        self.spare
    }

    fn is_shared(&self) -> bool {
        self.shared
    }

    fn tells_from(&self) -> Option<Mono> {
        Some(self.tells_from)
    }
}

/// Subtrees by which numbers on the wire are larger than in the window.
fn shift(store: &Store) -> u64 {
    store.wire_offset(0) / store.size().bytes()
}

/// Bytes of the chunks of a parcel.
pub(super) fn sent_bytes(parcel: &Parcel) -> u64 {
    parcel.run.map_or(0, |run| run.chunks() * CHUNK as u64)
}
