//! The keeper of what outlives the process: each stream's numbers, key and way of signing.
//!
//! Players and peers know a place in a stream by its number, and a stream by its key. So a
//! number is never used twice and a key never replaced by itself:
//!
//! - While a stream is live its file lies ahead of what was used, by about a minute. A crash
//!   loses those numbers and reuses none. An orderly end writes the exact end.
//! - What a stream uses before its file was written for the first time is covered by counting
//!   the starts of the process: after each that did not end in order, numbers jump by more than
//!   could be used so quickly.
//! - Nothing is signed at or beyond what the file says ([`Identity::set_mark`]).
//! - A file that cannot be understood refuses its stream, by path, until somebody mends it.

mod page;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use crate::base::ids::StreamName;
use crate::base::limits::SUBTREE;
use crate::base::time::{Mono, Now, Utc};
use crate::media::segmenter::Counts;
pub use crate::node::keeper::page::swarms;
use crate::node::keeper::page::{Folder, Kept, Secret};
use crate::registry::identity::Identity;
use crate::registry::stream::Stream;
use crate::registry::streams::{Registry, Resume};
use crate::ring::records::SubtreeSize;
use crate::swarm::integrity::{KeyPair, Signer, SignerClock};
use crate::swarm::settings::Settings;

/// How far ahead of a live stream its file lies, in time at its bitrate...
const AHEAD: Duration = Duration::from_secs(60);

/// ... and in bytes at least.
const AHEAD_MIN: u64 = 32 << 20;

/// How many segments ahead: half an hour of the shortest.
const SEGMENTS_AHEAD: u64 = 4096;

/// How many breaks ahead.
const BREAKS_AHEAD: u64 = 64;

/// By how many bytes numbers jump for each start that did not end in order: more than comes in
/// before a stream's file is written for the first time.
const JUMP: u64 = 1 << 30;

/// How often a live stream's file is moved ahead, and how soon a failed write is tried again.
const PERIOD: Duration = Duration::from_secs(10);

/// How long a bitrate is looked at before it decides how many chunks are signed together.
const MEASURED: Duration = Duration::from_secs(2);

/// The longest that the chunks under one signature may take to come in.
const SIGNED_EVERY: Duration = Duration::from_millis(150);

/// The most streams looked after that are over; their files stay.
const STREAMS_MAX: usize = 4096;

/// What is known of one stream.
struct Entry {
    /// What its file says, or will say.
    kept: Kept,
    /// The clock of its signatures: one for the whole process, also over its lives.
    clock: SignerClock,
    /// When bytes of it were first seen.
    seen: Option<Mono>,
    /// When its file was written by this process.
    written: Option<Mono>,
    /// Before this time nothing is tried again.
    again: Mono,
    /// It has neither file nor key, and why was said.
    broken: bool,
}

/// The keeper.
pub(super) struct Keeper {
    folder: Option<Folder>,
    /// `None`: there is no swarm, and no keys are made.
    swarm: Option<Settings>,
    /// Which start of the process this is.
    start: u64,
    entries: HashMap<StreamName, Entry>,
}

impl Keeper {
    /// Reads the state directory into the registry. Without one, keys live as long as the
    /// process.
    ///
    /// # Errors
    /// If the directory cannot be used, or its own file is there and cannot be understood.
    pub(super) fn open(
        dir: Option<&Path>,
        swarm: &Settings,
        registry: &Registry,
        now: Now,
    ) -> Result<Keeper, String> {
        let swarm = swarm.listen.is_some().then(|| swarm.clone());
        let mut keeper = Keeper { folder: None, swarm, start: 0, entries: HashMap::new() };
        match dir {
            Some(dir) => keeper.read(Folder::open(dir)?, registry, now)?,
            None if keeper.swarm.is_some() => {
                info!("no state.dir: streams have other keys and numbers after a restart");
            }
            None => {}
        }
        Ok(keeper)
    }

    fn read(&mut self, folder: Folder, registry: &Registry, now: Now) -> Result<(), String> {
        let last = folder.last_start()?;
        let all = folder.read()?;
        let newest = all.iter().flat_map(|(_, kept)| kept).map(|kept| kept.start).max();
        self.start = match (last, newest) {
            (Some(last), newest) if newest.is_none_or(|newest| newest <= last.start) => {
                last.start + u64::from(!last.clean)
            }
            // The process's own file is gone, or older than the others.
            (_, newest) => newest.unwrap_or(0) + 1,
        };
        folder.write_start(self.start, false)?;
        for (name, kept) in all {
            let kept = match kept {
                Ok(kept) => kept,
                Err(why) => {
                    error!(stream = %name, %why, "the stream is refused");
                    registry.refuse(name, why.into());
                    continue;
                }
            };
            let resume = jump(kept.resume, self.start - kept.start);
            registry.restore([(name.clone(), resume)]);
            let signed = kept.secret.as_ref().map_or(Utc::default(), |secret| secret.signed);
            let kept = self.configured(&name, Kept { resume, ..kept });
            let entry = Entry::new(kept, SignerClock::new(now, signed));
            self.entries.insert(name, entry);
        }
        self.folder = Some(folder);
        Ok(())
    }

    /// What the operator fixed wins over what was measured once; how chunks are named stays.
    fn configured(&self, name: &StreamName, mut kept: Kept) -> Kept {
        let (Some(swarm), Some(secret)) = (&self.swarm, &mut kept.secret) else { return kept };
        if let Some(size) = swarm.size
            && secret.size != Some(size)
        {
            info!(stream = %name, chunks = size.chunks(), "another number of chunks per signature");
            secret.size = Some(size);
        }
        if swarm.addressing != secret.addressing {
            let code = secret.addressing.code();
            warn!(
                stream = %name, chunk_addressing = code,
                "swarm.chunk_addressing is for new streams; this one keeps its own with its key"
            );
        }
        kept
    }

    /// Called a few times a second: gives new streams their identity, and moves files ahead.
    pub(super) fn tick(&mut self, registry: &Registry, now: Now) {
        for stream in registry.directory().iter() {
            self.look(stream, now);
        }
        if self.entries.len() > STREAMS_MAX {
            let known = registry.numbers();
            self.entries.retain(|name, _| known.binary_search_by_key(&name, |(n, _)| n).is_ok());
        }
    }

    /// Writes the exact end of every stream that was live.
    pub(super) fn close(&mut self, registry: &Registry, now: Now) {
        let Some(folder) = &self.folder else { return };
        let mut exact = Ok(());
        for (name, resume) in registry.numbers() {
            let entry = self.entries.get_mut(&name);
            let Some(entry) = entry.filter(|entry| entry.written.is_some()) else { continue };
            entry.kept.resume = resume;
            exact = exact.and(entry.write(folder, &name, now));
        }
        if let Err(why) = exact.and_then(|()| folder.write_start(self.start, true)) {
            error!(%why, "cannot keep the exact ends of streams: their numbers will jump");
        }
    }

    fn look(&mut self, stream: &Stream, now: Now) {
        if !self.entries.contains_key(&stream.name) {
            let entry = self.begin(stream, now);
            self.entries.insert(stream.name.clone(), entry);
        }
        let Some(entry) = self.entries.get_mut(&stream.name) else { return };
        if entry.broken || now.mono < entry.again {
            return;
        }
        let before = entry.kept.secret.as_ref().and_then(|secret| secret.size);
        if let Some(swarm) = &self.swarm {
            entry.prepare(stream, swarm, now);
        }
        let news = entry.kept.secret.as_ref().and_then(|secret| secret.size) != before;
        let used = Resume { next: stream.window.head(), segments: stream.segments.counts() };
        let rate = stream.health().bitrate_bps / 8;
        let ahead = rate.saturating_mul(AHEAD.as_secs()).max(AHEAD_MIN);
        match &self.folder {
            None => entry.kept.resume.next = u64::MAX,
            Some(folder) if entry.is_due(used, ahead, now.mono) || news => {
                entry.kept.start = self.start;
                entry.kept.resume = lies_ahead(used, ahead);
                if let Err(why) = entry.write(folder, &stream.name, now) {
                    error!(stream = %stream.name, %why, "cannot keep the stream's state");
                    entry.again = now.mono + PERIOD;
                    return;
                }
            }
            Some(_) => {}
        }
        entry.show(stream);
    }

    /// A stream that nobody knew.
    fn begin(&self, stream: &Stream, now: Now) -> Entry {
        let resume = Resume::default();
        let kept = Kept { start: self.start, resume, secret: None };
        let mut entry = Entry::new(kept, SignerClock::new(now, Utc::default()));
        let file = self.folder.as_ref().map(|folder| folder.of(&stream.name));
        if let Some(file) = file.filter(|file| file.exists()) {
            error!(
                stream = %stream.name, file = %file.display(),
                "the file came after the start, or is of a stream long forgotten: restart the \
                 relay to use it; until then the stream is not in the swarm"
            );
            entry.broken = true;
        }
        entry
    }
}

impl Entry {
    fn new(kept: Kept, clock: SignerClock) -> Entry {
        Entry { kept, clock, seen: None, written: None, again: Mono::ZERO, broken: false }
    }

    /// Makes the key, and decides how many chunks are signed together once that can be told.
    fn prepare(&mut self, stream: &Stream, swarm: &Settings, now: Now) {
        if self.kept.secret.is_none() {
            let Ok(key) = KeyPair::generate() else {
                error!(stream = %stream.name, "cannot make a key: no random bytes");
                self.broken = true;
                return;
            };
            info!(stream = %stream.name, swarm_id = %key.swarm_id(), "a new key");
            let (key, addressing) = (Arc::new(key), swarm.addressing);
            let signed = self.clock.utc(now.mono);
            self.kept.secret = Some(Secret { key, addressing, size: swarm.size, signed });
        }
        let Some(secret) = &mut self.kept.secret else { return };
        if secret.size.is_none() {
            let came = stream.window.last_ingest() > Mono::ZERO;
            self.seen = self.seen.or(came.then_some(now.mono));
            let measured = self.seen.is_some_and(|seen| now.mono.since(seen) >= MEASURED);
            let bitrate = stream.health().bitrate_bps;
            if measured && bitrate > 0 {
                let size = size_for(bitrate);
                let chunks = size.chunks();
                info!(stream = %stream.name, bitrate, chunks, "chunks per signature");
                secret.size = Some(size);
            }
        }
    }

    fn is_due(&self, used: Resume, ahead: u64, now: Mono) -> bool {
        let kept = &self.kept.resume;
        let Some(written) = self.written else { return true };
        let short = kept.next.saturating_sub(used.next) < ahead / 2
            || kept.segments.next.saturating_sub(used.segments.next) < SEGMENTS_AHEAD / 2
            || kept.segments.breaks.saturating_sub(used.segments.breaks) < BREAKS_AHEAD / 2;
        // A stream that is held uses nothing.
        let moved = kept.next != lies_ahead(used, ahead).next;
        short || (moved && now.since(written) >= PERIOD)
    }

    fn write(&mut self, folder: &Folder, name: &StreamName, now: Now) -> Result<(), String> {
        if let Some(secret) = &mut self.kept.secret {
            secret.signed = self.clock.utc(now.mono);
        }
        folder.write(name, &self.kept)?;
        self.written = Some(now.mono);
        Ok(())
    }

    /// Gives the stream its identity, or moves its mark.
    fn show(&self, stream: &Stream) {
        let mark = self.kept.resume.next;
        if let Some(identity) = stream.identity() {
            let last = Identity::last(identity.addressing);
            if mark > last && identity.limit() < last {
                warn!(
                    stream = %stream.name,
                    "names of chunks run out: the swarm ends at chunk 4294967295; move the \
                     stream's file away and set swarm.chunk_addressing = 4"
                );
            }
            return identity.set_mark(mark);
        }
        let Some(Secret { key, addressing, size: Some(size), .. }) = &self.kept.secret else {
            return;
        };
        let signer: Box<dyn Signer> = Box::new(Arc::clone(key));
        let identity = Identity::new(signer, *addressing, *size, self.clock, mark);
        stream.identify(Arc::new(identity));
    }
}

/// The numbers as they may become until the file is written again.
fn lies_ahead(used: Resume, ahead: u64) -> Resume {
    let Counts { next, breaks, target } = used.segments;
    let (next, breaks) = (next.saturating_add(SEGMENTS_AHEAD), breaks.saturating_add(BREAKS_AHEAD));
    let offset = used.next.saturating_add(ahead) / SUBTREE as u64 * SUBTREE as u64;
    Resume { next: offset, segments: Counts { next, breaks, target } }
}

/// The numbers after `starts` starts of which nothing is known.
fn jump(kept: Resume, starts: u64) -> Resume {
    let plus = |number: u64, step: u64| number.saturating_add(step.saturating_mul(starts));
    let Counts { next, breaks, target } = kept.segments;
    let (next, breaks) = (plus(next, SEGMENTS_AHEAD), plus(breaks, BREAKS_AHEAD));
    Resume { next: plus(kept.next, JUMP), segments: Counts { next, breaks, target } }
}

/// The largest subtree that takes no longer than [`SIGNED_EVERY`] at this many bits per second;
/// the smallest if none does.
fn size_for(bitrate: u64) -> SubtreeSize {
    let fits = |size: &SubtreeSize| {
        size.bytes() * 8 * 1000 <= bitrate.saturating_mul(SIGNED_EVERY.as_millis() as u64)
    };
    let mut sizes = [16, 8, 4].into_iter().filter_map(SubtreeSize::new);
    sizes.find(fits).unwrap_or(SubtreeSize::SMALLEST)
}

const _: () = assert!(JUMP > AHEAD_MIN, "a jump is longer than any step");
