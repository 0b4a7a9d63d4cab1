//! The marks of a window that is received from others, chunk by chunk and in any order.
//!
//! Whoever fills it publishes what is contiguous; this reads what was added, as the intake of a
//! publisher does, so that players find access points and segments here as they do at a relay.

use std::sync::Arc;

use crate::base::limits::SEND_MAX;
use crate::base::payload::Payload;
use crate::base::time::{Mono, Now};
use crate::ingest::scribe::Scribe;
use crate::media::health::Health;
use crate::media::segmenter::Segmenter;
use crate::ring::chunks::ChunkWriter;
use crate::ring::marks::{Mark, MarkKind};
use crate::ring::reader::{Overtaken, Reader};

/// Whole packets of one look: a read touches two slabs at most.
const STEP: usize = SEND_MAX - SEND_MAX % crate::base::limits::TS_PACKET;

/// Reads a received window and marks it.
pub struct Follower {
    scribe: Scribe,
    reader: Reader,
    /// Stream offset of the next byte to be read, the beginning of a packet.
    next: u64,
}

impl Follower {
    /// Follows the window of `writer` from what is contiguous now.
    #[must_use]
    pub fn new(writer: &ChunkWriter, segmenter: Segmenter) -> Follower {
        let window = Arc::clone(writer.window());
        let next = window.head();
        let reader = Reader::new(window);
        Follower { scribe: Scribe::new(segmenter), reader, next }
    }

    /// Publishes what is contiguous, reads what is new in it and marks that. Returns the number
    /// of segments that were cut. Then ask the bells.
    pub fn follow(&mut self, now: Now, writer: &mut ChunkWriter) -> u64 {
        self.follow_below(now, writer, u64::MAX)
    }

    /// As [`Follower::follow`], but nothing at or beyond stream offset `until`, which is to be
    /// played later.
    pub fn follow_below(&mut self, now: Now, writer: &mut ChunkWriter, until: u64) -> u64 {
        writer.publish_below(now.mono, until);
        let head = writer.window().head();
        while self.next < head {
            match self.reader.read(self.next, STEP) {
                Ok(parts) => self.take(now.mono, &parts),
                Err(Overtaken) => {
                    // So much came at once that it has left again: a new beginning. Nobody else
                    // writes, so the tail is still there.
                    self.next = writer.window().tail();
                    self.scribe.discontinuity();
                }
            }
        }
        self.reader.release();
        let place = |at: u64| Some(at).filter(|at| *at < head);
        self.scribe.mark(now, place, &mut |mark| writer.mark(mark))
    }

    /// What follows does not continue what is there: chunks were given up, or the source began
    /// anew. Everything before must have been followed. Returns the number of segments cut.
    pub fn break_off(&mut self, now: Now, writer: &mut ChunkWriter) -> u64 {
        let at = writer.window().head();
        let segments = self.scribe.break_off(now, at, &mut |mark| writer.mark(mark));
        self.scribe.discontinuity();
        let kind = MarkKind::Discontinuity;
        writer.mark(Mark { at, ingest: now.mono, utc: now.utc, kind });
        segments
    }

    /// The stream's health.
    #[must_use]
    pub fn health(&self, now: Mono) -> Health {
        self.scribe.health(now)
    }

    /// Slabs begin and end between packets, so each part holds whole ones.
    fn take(&mut self, now: Mono, parts: &[Payload; 2]) {
        for part in parts {
            self.scribe.read(now, self.next, part.as_slice());
            self.next += part.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::limits::{CHUNK, SLAB_LARGE};
    use crate::base::time::Utc;
    use crate::ingest::intake::Intake;
    use crate::media::looper::Looper;
    use crate::media::sample::DEMO;
    use crate::ring::arena::Arena;
    use crate::ring::records::SubtreeSize;
    use crate::ring::window::{Settings, Window, open, open_received};

    const SETTINGS: Settings = Settings { bytes: 8 << 20, span: Duration::from_secs(600) };

    fn now(millis: u64) -> Now {
        Now { mono: Mono::from_millis(millis), utc: Utc::from_unix_millis(millis) }
    }

    fn segmenter() -> Segmenter {
        Segmenter::new(Duration::from_secs(2), Arc::default(), false)
    }

    fn kinds(window: &Window) -> Vec<(u64, MarkKind)> {
        window.marks().iter().map(|mark| (mark.at, mark.kind.clone())).collect()
    }

    /// Ten seconds of the demo, as a publisher sends them.
    fn published() -> (Vec<u8>, Arc<Window>) {
        let arena = Arena::create(16 * SLAB_LARGE as u64).unwrap();
        let (writer, window) = open(&arena, &SETTINGS, 0, 1).unwrap();
        let mut intake = Intake::new(writer, segmenter(), false, now(1));
        let mut looper = Looper::new(DEMO).unwrap();
        let mut all = Vec::new();
        for step in 1..=50 {
            let mut due = Vec::new();
            looper.next(Duration::from_millis(step * 200), &mut due);
            all.extend_from_slice(&due);
            intake.push(now(step * 200), &due);
        }
        (all, window)
    }

    /// Whatever the order of the chunks: the marks are those that the publisher's relay made,
    /// as far as the whole chunks go.
    #[test]
    fn marks_are_those_of_the_publisher() {
        let (bytes, source) = published();
        for seed in 0..5 {
            let mut random = fastrand::Rng::with_seed(seed);
            let arena = Arena::create(16 * SLAB_LARGE as u64).unwrap();
            let size = SubtreeSize::new(16).unwrap();
            let (mut writer, window) = open_received(&arena, &SETTINGS, size, 0, 1).unwrap();
            let mut follower = Follower::new(&writer, segmenter());
            let mut chunks: Vec<(u64, &[u8])> = (0..).zip(bytes.chunks_exact(CHUNK)).collect();
            let whole = (chunks.len() * CHUNK) as u64;
            chunks.chunks_mut(40).for_each(|some| random.shuffle(some));
            for (n, (chunk, bytes)) in (0..).zip(chunks) {
                let now = now(1 + n);
                writer.write_chunk(now.mono, chunk, bytes.try_into().unwrap()).unwrap();
                follower.follow(now, &mut writer);
            }
            assert_eq!(window.head(), whole);
            // The publisher's relay read a little further: what a unit proves comes late.
            let (wanted, got) = (kinds(&source), kinds(&window));
            assert!(got.len() >= 10 && wanted.len() - got.len() <= 2, "{} marks", got.len());
            let same = |a: &(u64, MarkKind), b: &(u64, MarkKind)| match (&a.1, &b.1) {
                (MarkKind::Segment(a), MarkKind::Segment(b)) => {
                    (a.begin, a.end, a.ticks) == (b.begin, b.end, b.ticks)
                }
                _ => a == b,
            };
            assert!(wanted.iter().zip(&got).all(|(a, b)| same(a, b)), "seed {seed}");
        }
    }

    #[test]
    fn what_was_given_up_is_a_break() {
        let (bytes, _) = published();
        let arena = Arena::create(16 * SLAB_LARGE as u64).unwrap();
        let size = SubtreeSize::new(16).unwrap();
        let (mut writer, window) = open_received(&arena, &SETTINGS, size, 0, 1).unwrap();
        let mut follower = Follower::new(&writer, segmenter());
        let chunks = bytes.chunks_exact(CHUNK).map(|c| <&[u8; CHUNK]>::try_from(c).unwrap());
        let half = bytes.len() as u64 / CHUNK as u64 / 2;
        for (n, chunk) in (0..).zip(chunks).filter(|(n, _)| !(half..half + 7).contains(n)) {
            writer.write_chunk(now(n).mono, n, chunk).unwrap();
        }
        follower.follow(now(9_000), &mut writer);
        assert_eq!(window.head(), half * CHUNK as u64);
        let before = kinds(&window).len();
        assert_eq!(writer.give_up(now(9_001).mono, half + 7), 7);
        follower.break_off(now(9_001), &mut writer);
        follower.follow(now(9_002), &mut writer);
        let marks = kinds(&window);
        let broken = marks.iter().position(|(_, kind)| *kind == MarkKind::Discontinuity).unwrap();
        assert!(broken >= before && broken + 3 < marks.len(), "marks before and behind");
        assert_eq!(marks[broken].0, half * CHUNK as u64);
        assert!(window.marks().segments().any(|s| s.discontinuity && s.begin >= marks[broken].0));
    }
}
