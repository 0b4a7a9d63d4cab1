//! The intake of one publisher: aligns packets, reads them for access points, writes them.
//!
//! Every packet that came in is written, byte for byte and in order. Only when the pool of
//! slabs is empty is incoming data dropped, up to the next access point, because a writer never
//! waits; that is counted and marked as a discontinuity. A stream with an identity in the swarm
//! is sealed as it is published.

use std::sync::Arc;

use crate::base::limits::TS_PACKET;
use crate::base::time::{Mono, Now};
use crate::ingest::scribe::Scribe;
use crate::ingest::sealer::{Sealed, Sealer};
use crate::media::aligner::Aligner;
use crate::media::health::Health;
use crate::media::reader::{Found, FoundKind};
use crate::media::segmenter::Segmenter;
use crate::registry::identity::Identity;
use crate::ring::marks::{Mark, MarkKind};
use crate::ring::writer::Writer;

/// What one call of [`Intake::push`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes written to the window.
    pub written: u64,
    /// Bytes dropped because no slab was free.
    pub dropped: u64,
    /// Whether dropping began in this call.
    pub starved: bool,
    /// Whether a discontinuity was marked.
    pub discontinuity: bool,
    /// Segments cut.
    pub segments: u64,
    /// What was sealed.
    pub sealed: Sealed,
}

impl Taken {
    /// Adds what another call did.
    pub fn add(&mut self, more: Taken) {
        self.written += more.written;
        self.dropped += more.dropped;
        self.starved |= more.starved;
        self.discontinuity |= more.discontinuity;
        self.segments += more.segments;
        self.sealed.signed += more.sealed.signed;
        self.sealed.padding += more.sealed.padding;
        self.sealed.too_slow |= more.sealed.too_slow;
    }
}

/// A publisher's way into a window.
pub struct Intake {
    aligner: Aligner,
    desk: Desk,
}

/// Everything behind the aligner, which lends its bytes to it.
///
/// The reader counts every byte that came; a window's offsets count only what was written. The
/// two differ by what was dropped: `shift`.
struct Desk {
    /// What it found is in offsets of the window.
    scribe: Scribe,
    writer: Writer,
    dropping: bool,
    shift: u64,
    /// Where writing began again after the last drop, in the reader's count.
    floor: u64,
    /// Only of a stream that has an identity.
    sealer: Option<Sealer>,
    taken: Taken,
}

impl Intake {
    /// An intake for `writer`, which cuts by `segmenter`. `resumed`: there was a publisher
    /// before, so the numbers go on after a break, which is marked.
    #[must_use]
    pub fn new(mut writer: Writer, segmenter: Segmenter, resumed: bool, now: Now) -> Intake {
        if resumed {
            let mark = Mark {
                at: writer.next(),
                ingest: now.mono,
                utc: now.utc,
                kind: MarkKind::Discontinuity,
            };
            writer.mark(mark);
        }
        let desk = Desk {
            scribe: Scribe::new(segmenter),
            writer,
            dropping: false,
            shift: 0,
            floor: 0,
            sealer: None,
            taken: Taken::default(),
        };
        Intake { aligner: Aligner::default(), desk }
    }

    /// Takes what the publisher sent, publishes it and marks what was found in it.
    pub fn push(&mut self, now: Now, data: &[u8]) -> Taken {
        let Intake { aligner, desk } = self;
        desk.taken = Taken::default();
        aligner.push(data, &mut |run| desk.run(now, run));
        desk.publish(now);
        if let Some(sealer) = &mut desk.sealer {
            desk.taken.sealed = sealer.seal(now.mono, &mut desk.writer);
        }
        desk.taken
    }

    /// Whether the stream is sealed.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.desk.sealer.is_some()
    }

    /// The stream has an identity now: what is published is sealed from here on.
    pub fn seal(&mut self, identity: &Arc<Identity>) {
        let Desk { sealer, writer, .. } = &mut self.desk;
        if sealer.is_none() {
            *sealer = Some(Sealer::new(Arc::clone(identity), writer));
        }
    }

    /// When [`Intake::handle_timer`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        self.desk.sealer.as_ref().and_then(Sealer::deadline)
    }

    /// Completes and seals what has been open for too long.
    pub fn handle_timer(&mut self, now: Now) -> Taken {
        let Desk { sealer, writer, .. } = &mut self.desk;
        let sealed = sealer.as_mut().map(|sealer| sealer.handle_timer(now.mono, writer));
        Taken { sealed: sealed.unwrap_or_default(), ..Taken::default() }
    }

    /// The publisher's health.
    #[must_use]
    pub fn health(&self, now: Now) -> Health {
        self.desk.scribe.health(now.mono)
    }

    /// Times that packet alignment was lost.
    #[must_use]
    pub fn resyncs(&self) -> u64 {
        self.aligner.resyncs()
    }

    /// Ends this run and begins another one behind a discontinuity: what comes now continues
    /// nothing that was there before, although the publisher is the same.
    #[must_use]
    pub fn restart(mut self, now: Now) -> (Intake, Taken) {
        let taken = self.desk.end_run(now);
        let Desk { writer, scribe, sealer, .. } = self.desk;
        let mut next = Intake::new(writer, scribe.into_segmenter(), true, now);
        if let Some(sealer) = sealer {
            next.seal(sealer.identity());
        }
        (next, taken)
    }

    /// Ends this publisher's run and its last segment: the open subtree is completed with null
    /// packets and sealed, so that the next run begins on a subtree of its own.
    #[must_use]
    pub fn finish(mut self, now: Now) -> (Writer, Taken) {
        let taken = self.desk.end_run(now);
        (self.desk.writer, taken)
    }
}

impl Desk {
    fn run(&mut self, now: Now, run: &[u8]) {
        let begin = self.writer.next() + self.shift;
        let first = self.scribe.found.len();
        self.scribe.read(now.mono, begin, run);
        if self.dropping {
            return self.resume(now, begin, first, run);
        }
        self.renumber(first);
        self.write(now, run);
    }

    /// Writes what fits; begins to drop with what does not.
    fn write(&mut self, now: Now, packets: &[u8]) {
        let written = self.writer.append(now.mono, packets);
        self.taken.written += written as u64;
        if written < packets.len() {
            let end = self.writer.next();
            self.scribe.found.retain(|found| found.at < end);
            self.publish(now);
            self.break_off(now);
            self.scribe.discontinuity();
            self.dropping = true;
            self.taken.starved = true;
            self.drop_bytes(packets.len() - written);
        }
    }

    /// While dropping: goes on at the first access point that begins in this run, if there is
    /// room again. One that was recognised only now but began in a dropped run ends the drop as
    /// well, unmarked: else a stream that comes in small pieces might never go on.
    fn resume(&mut self, now: Now, begin: u64, first: usize, run: &[u8]) {
        let is_start = |found: &&Found| matches!(found.kind, FoundKind::AccessPoint { .. });
        let starts = || self.scribe.found[first..].iter().filter(is_start).map(|found| found.at);
        let here = starts().filter(|at| *at >= begin).min();
        let skip = here.or_else(|| starts().next().map(|_| begin)).map(|at| at - begin);
        let skip = skip.and_then(|skip| usize::try_from(skip).ok());
        let packets = skip.and_then(|skip| run.get(skip..)).unwrap_or_default();
        let room = packets.get(..TS_PACKET).map_or(0, |one| self.writer.append(now.mono, one));
        if room == 0 {
            self.scribe.found.truncate(first);
            return self.drop_bytes(run.len());
        }
        self.drop_bytes(run.len() - packets.len());
        self.dropping = false;
        self.floor = begin + (run.len() - packets.len()) as u64;
        self.renumber(first);
        self.taken.written += room as u64;
        self.taken.discontinuity = true;
        // The break is marked before what was found behind it.
        let at = self.floor - self.shift;
        let behind = self.scribe.found.split_off(first);
        self.publish(now);
        let kind = MarkKind::Discontinuity;
        self.writer.mark(Mark { at, ingest: now.mono, utc: now.utc, kind });
        self.scribe.found = behind;
        self.write(now, &packets[room..]);
    }

    /// From the reader's count to the window's, for what was found last. What began before the
    /// floor was dropped.
    fn renumber(&mut self, first: usize) {
        let (shift, floor) = (self.shift, self.floor);
        let mut index = 0;
        self.scribe.found.retain_mut(|found| {
            index += 1;
            if index <= first {
                return true;
            }
            let kept = found.at >= floor;
            found.at = found.at.saturating_sub(shift);
            if let FoundKind::AccessPoint { pat, .. } = &mut found.kind {
                *pat = (*pat).max(floor).saturating_sub(shift);
            }
            kept
        });
    }

    fn drop_bytes(&mut self, bytes: usize) {
        debug_assert!(bytes.is_multiple_of(TS_PACKET), "only whole packets are dropped");
        self.taken.dropped += bytes as u64;
        self.shift += bytes as u64;
    }

    fn publish(&mut self, now: Now) {
        if self.taken.written > 0 {
            self.writer.publish(now.mono);
        }
        let Desk { scribe, writer, taken, shift, floor, .. } = self;
        let next = writer.next();
        let place = |at: u64| {
            let here = at.checked_sub(*shift).filter(|_| at >= *floor);
            here.filter(|here| *here < next)
        };
        taken.segments += scribe.mark(now, place, &mut |mark| writer.mark(mark));
    }

    /// What has been published is not continued by what follows.
    fn end_run(&mut self, now: Now) -> Taken {
        self.taken = Taken::default();
        self.break_off(now);
        self.taken.sealed.padding = self.writer.pad(now.mono);
        if let Some(sealer) = &mut self.sealer {
            self.taken.sealed.signed = sealer.finish(now.mono, &mut self.writer);
        }
        self.taken
    }

    fn break_off(&mut self, now: Now) {
        let Desk { scribe, writer, taken, .. } = self;
        let end = writer.window().head();
        taken.segments += scribe.break_off(now, end, &mut |mark| writer.mark(mark));
    }
}

#[cfg(test)]
mod tests;
