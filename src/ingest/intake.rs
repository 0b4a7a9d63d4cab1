//! The intake of one publisher: aligns packets, reads them for access points, writes them.
//!
//! Every packet that came in is written, byte for byte and in order. Only when the pool of
//! slabs is empty is incoming data dropped, up to the next access point, because a writer never
//! waits; that is counted and marked as a discontinuity.

use crate::base::limits::TS_PACKET;
use crate::base::time::Now;
use crate::media::aligner::Aligner;
use crate::media::health::Health;
use crate::media::reader::{Found, FoundKind, TsReader};
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
}

/// A publisher's way into a window.
pub struct Intake {
    aligner: Aligner,
    desk: Desk,
}

/// Everything behind the aligner, which lends its bytes to it.
struct Desk {
    reader: TsReader,
    writer: Writer,
    found: Vec<Found>,
    dropping: bool,
    taken: Taken,
}

impl Intake {
    /// An intake for `writer`. `resumed`: there was a publisher before, so the numbers go on
    /// after a break, which is marked.
    #[must_use]
    pub fn new(mut writer: Writer, resumed: bool, now: Now) -> Intake {
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
            reader: TsReader::new(),
            writer,
            found: Vec::new(),
            dropping: false,
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
        desk.taken
    }

    /// The publisher's health.
    #[must_use]
    pub fn health(&self, now: Now) -> Health {
        self.desk.reader.health(now.mono)
    }

    /// Times that packet alignment was lost.
    #[must_use]
    pub fn resyncs(&self) -> u64 {
        self.aligner.resyncs()
    }

    /// Ends this run and begins another one behind a discontinuity: what comes now continues
    /// nothing that was there before, although the publisher is the same.
    #[must_use]
    pub fn restart(self, now: Now) -> Intake {
        Intake::new(self.finish(now), true, now)
    }

    /// Ends this publisher's run: the open subtree is completed with null packets, so that the
    /// next run begins on a subtree of its own.
    #[must_use]
    pub fn finish(mut self, now: Now) -> Writer {
        self.desk.writer.pad(now.mono);
        self.desk.writer
    }
}

impl Desk {
    fn run(&mut self, now: Now, run: &[u8]) {
        let at = self.writer.next();
        let first = self.found.len();
        self.reader.feed(now.mono, at, run, &mut self.found);
        let skip = if self.dropping { self.resume(now, at, first, run.len()) } else { 0 };
        let Some(packets) = run.get(skip..) else {
            self.found.truncate(first);
            return self.drop_bytes(run.len());
        };
        let written = self.writer.append(now.mono, packets);
        self.taken.written += written as u64;
        if written < packets.len() {
            let end = self.writer.next();
            self.found.retain(|found| found.at < end);
            self.reader.discontinuity();
            self.dropping = true;
            self.taken.starved = true;
            self.drop_bytes(packets.len() - written);
        }
    }

    /// While dropping: looks for an access point in this run. Returns how many bytes to skip so
    /// that the run begins there; all of them and more if there is none.
    fn resume(&mut self, now: Now, at: u64, first: usize, len: usize) -> usize {
        let begin = self.found[first..].iter().find_map(|found| match &found.kind {
            FoundKind::AccessPoint { .. } => found.at.checked_sub(at),
            FoundKind::Tables => None,
        });
        let Some(skip) = begin.and_then(|skip| usize::try_from(skip).ok()).filter(|s| *s < len)
        else {
            return usize::MAX;
        };
        // What is kept begins at `at`: move what was found in front of it, drop what lies before.
        let cut = skip as u64;
        let mut index = 0;
        self.found.retain_mut(|found| {
            index += 1;
            if index <= first {
                return true;
            }
            let keep = found.at >= at + cut;
            found.at = found.at.saturating_sub(cut);
            if let FoundKind::AccessPoint { pat, .. } = &mut found.kind {
                *pat = pat.saturating_sub(cut).max(at);
            }
            keep
        });
        self.dropping = false;
        self.drop_bytes(skip);
        self.taken.discontinuity = true;
        self.writer.publish(now.mono);
        let kind = MarkKind::Discontinuity;
        self.writer.mark(Mark { at, ingest: now.mono, utc: now.utc, kind });
        skip
    }

    fn drop_bytes(&mut self, bytes: usize) {
        debug_assert!(bytes.is_multiple_of(TS_PACKET), "only whole packets are dropped");
        self.taken.dropped += bytes as u64;
    }

    fn publish(&mut self, now: Now) {
        if self.taken.written > 0 {
            self.writer.publish(now.mono);
        }
        for found in self.found.drain(..) {
            let kind = match found.kind {
                FoundKind::AccessPoint { pts, pat, tables } => {
                    MarkKind::AccessPoint { pts, pat, tables }
                }
                FoundKind::Tables => MarkKind::Tables,
            };
            self.writer.mark(Mark { at: found.at, ingest: now.mono, utc: now.utc, kind });
        }
    }
}
