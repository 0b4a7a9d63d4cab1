//! Makes the marks of a window from what is found in its bytes: whoever fills it, a publisher
//! here or others from afar.

use crate::base::segment::Segment;
use crate::base::time::{Mono, Now};
use crate::media::health::Health;
use crate::media::reader::{Found, FoundKind, TsReader, Unit};
use crate::media::segmenter::{Entry, Segmenter};
use crate::ring::marks::{Mark, MarkKind};

/// Reads packets and remembers what is to be marked.
pub(super) struct Scribe {
    reader: TsReader,
    segmenter: Segmenter,
    /// What is to be marked at the next publication.
    pub(super) found: Vec<Found>,
}

impl Scribe {
    /// A scribe who knows nothing of the stream yet and cuts it by `segmenter`.
    pub(super) fn new(segmenter: Segmenter) -> Scribe {
        Scribe { reader: TsReader::new(), segmenter, found: Vec::new() }
    }

    /// The segmenter, for the next run.
    pub(super) fn into_segmenter(self) -> Segmenter {
        self.segmenter
    }

    /// The stream's health.
    pub(super) fn health(&self, now: Mono) -> Health {
        self.reader.health(now)
    }

    /// Reads whole packets, the first of which lies at `at`.
    pub(super) fn read(&mut self, now: Mono, at: u64, packets: &[u8]) {
        self.reader.feed(now, at, packets, &mut self.found);
    }

    /// What is read from now on does not continue what was.
    pub(super) fn discontinuity(&mut self) {
        self.reader.discontinuity();
    }

    /// Marks what was found, of which every byte is published, and the segments that end with
    /// it. `place` says where in the window lies what the reader knows by its own count; `None`:
    /// it was not written. Returns the number of segments.
    pub(super) fn mark(
        &mut self,
        now: Now,
        place: impl Fn(u64) -> Option<u64>,
        out: &mut impl FnMut(Mark),
    ) -> u64 {
        let newest = self.reader.newest_unit();
        let mut newest = newest.and_then(|unit| Some(Unit { at: place(unit.at)?, ..unit }));
        let mut segments = 0;
        for Found { at, kind } in self.found.drain(..) {
            let (kind, entry) = match kind {
                FoundKind::AccessPoint { pts, pat, tables } => {
                    let entry = Entry { at, pts, tables: tables.clone() };
                    (MarkKind::AccessPoint { pts, pat, tables }, Some(entry))
                }
                FoundKind::Tables => (MarkKind::Tables, None),
            };
            out(Mark { at, ingest: now.mono, utc: now.utc, kind });
            if let Some(entry) = entry {
                newest = newest.filter(|unit| unit.at > at);
                let cut = &mut |segment| out(cut(now, segment, &mut segments));
                self.segmenter.access_point(now, &entry, cut);
            }
        }
        if let Some(Unit { at, pts }) = newest {
            self.segmenter.unit(now, at, pts, &mut |s| out(cut(now, s, &mut segments)));
        }
        segments
    }

    /// What was published up to `end` is not continued: its last segment ends there. Returns the
    /// number of segments.
    pub(super) fn break_off(&mut self, now: Now, end: u64, out: &mut impl FnMut(Mark)) -> u64 {
        let mut segments = 0;
        self.segmenter.break_off(end, &mut |segment| out(cut(now, segment, &mut segments)));
        segments
    }
}

/// The mark of a segment: every byte of it is published already.
fn cut(now: Now, segment: Segment, count: &mut u64) -> Mark {
    *count += 1;
    let at = segment.end;
    Mark { at, ingest: now.mono, utc: now.utc, kind: MarkKind::Segment(segment) }
}
