//! Cuts a stream into segments: at which access point one ends, and how long it was.
//!
//! It is told every access point and the newest unit of the leading stream, and answers with
//! whole segments. Segments tile the stream: each begins where the one before ended, except
//! after a break. Durations are distances of presentation times, by arrival where there are
//! none. No segment is longer than the longest that players were promised (RFC 8216 section
//! 4.3.3.1): one without an access point in time is cut in front of an ordinary picture.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;

use crate::base::segment::{SEGMENT_TICKS, Segment};
use crate::base::time::{Mono, Now, Utc};
use crate::wire::mpegts::clock::{TICKS_MODULUS, ticks_between};

/// The longest first segment in seconds: the stream's later ones are bound by its length.
pub const FIRST_MAX_SECONDS: u32 = 12;

/// Pictures come out of order: presentation times may go back by this much.
const REORDER: i64 = SEGMENT_TICKS as i64;

/// Until more is known a picture stays for 1/25 s.
const FRAME: i64 = SEGMENT_TICKS as i64 / 25;

/// Where a stream's numbers go on. Written by the stream's one publisher, kept over publishers
/// and, by the household, over processes.
#[derive(Debug, Default)]
pub struct Numbers {
    next: AtomicU64,
    breaks: AtomicU64,
    target: AtomicU32,
}

/// What [`Numbers`] hold at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counts {
    /// The media sequence number of the next segment.
    pub next: u64,
    /// The discontinuity sequence number of the newest segment.
    pub breaks: u64,
    /// The longest segment that players were promised, in seconds; 0: nothing was promised.
    pub target: u32,
}

impl Numbers {
    /// Numbers that go on at `counts`.
    #[must_use]
    pub fn new(counts: Counts) -> Numbers {
        Numbers {
            next: AtomicU64::new(counts.next),
            breaks: AtomicU64::new(counts.breaks),
            target: AtomicU32::new(counts.target),
        }
    }

    /// The numbers now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            next: self.next.load(Relaxed),
            breaks: self.breaks.load(Relaxed),
            target: self.target.load(Relaxed),
        }
    }
}

/// An access point, as far as segments are concerned.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Stream offset of its first packet.
    pub at: u64,
    /// Presentation time in units of 1/90,000 s, 33 bits.
    pub pts: Option<u64>,
    /// The PAT and PMT packets in force, verbatim.
    pub tables: Bytes,
}

/// A place on the time line of the leading stream.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: u64,
    /// Ticks since the segment began.
    ticks: i64,
    utc: Utc,
}

/// The segment that is open.
#[derive(Debug)]
struct Open {
    begin: u64,
    utc: Utc,
    tables: Bytes,
    discontinuity: bool,
    /// Time at its beginning, and whether that is a time stamp or the time of arrival.
    origin: u64,
    stamped: bool,
    /// The furthest time seen, in ticks since the beginning.
    high: i64,
    /// The last access point, in ticks since the beginning.
    access: i64,
    /// The last unit that lies within the longest segment: where to cut if nothing better comes.
    last: Place,
}

/// Cuts the run of one publisher; see the module.
#[derive(Debug)]
pub struct Segmenter {
    numbers: Arc<Numbers>,
    target: i64,
    open: Option<Open>,
    /// The next segment does not continue the one before.
    broken: bool,
    /// The time line jumped inside the open segment: it ends at the next access point.
    torn: bool,
    /// Distances of access points: the last one and the longest.
    gop: i64,
    gop_max: i64,
    /// The shortest distance of two units: how long a picture stays.
    frame: i64,
}

impl Segmenter {
    /// A segmenter that aims at segments of `target`. `resumed`: there was a publisher before
    /// since the stream went live, so the first segment follows a break.
    #[must_use]
    pub fn new(target: Duration, numbers: Arc<Numbers>, resumed: bool) -> Segmenter {
        let target = target.as_millis() as i64 * (SEGMENT_TICKS as i64 / 1000);
        let (open, broken, torn) = (None, resumed, false);
        Segmenter { numbers, target, open, broken, torn, gop: 0, gop_max: 0, frame: FRAME }
    }

    /// An access point. Whether the open segment ends there: gives it to `out` if so.
    pub fn access_point(&mut self, now: Now, entry: &Entry, out: &mut impl FnMut(Segment)) {
        self.advance(now, entry.at, entry.pts, out);
        let Some(open) = &mut self.open else { return self.begin(now, entry) };
        if entry.at <= open.begin {
            // Cut here a moment ago, in front of a picture that proved to be an access point.
            open.tables = entry.tables.clone();
            return;
        }
        if self.torn || !open.fits(now, entry.pts) {
            self.close_torn(entry.at, out);
            self.broken = true;
            return self.begin(now, entry);
        }
        let d = open.ticks(now, entry.pts);
        self.gop = d - open.access;
        self.gop_max = self.gop_max.max(self.gop);
        open.access = d;
        let near = d + self.gop / 2 >= self.target;
        // The next access point may lie beyond the longest segment: this one is good enough.
        let beyond = self.limit().is_some_and(|limit| d + self.gop_max > limit);
        if near || (beyond && d >= self.target / 2) {
            self.close(entry.at, d, out);
            self.begin(now, entry);
        }
    }

    /// The newest unit of the leading stream. Usually nothing follows from it.
    pub fn unit(&mut self, now: Now, at: u64, pts: Option<u64>, out: &mut impl FnMut(Segment)) {
        self.advance(now, at, pts, out);
    }

    /// The stream breaks off at `end`: what follows does not continue it.
    pub fn break_off(&mut self, end: u64, out: &mut impl FnMut(Segment)) {
        if self.open.as_ref().is_some_and(|open| end > open.begin) {
            self.close_torn(end, out);
        }
        self.open = None;
        self.broken = true;
        self.torn = false;
    }

    /// Moves the open segment's time on; cuts it where it would become too long.
    fn advance(&mut self, now: Now, at: u64, pts: Option<u64>, out: &mut impl FnMut(Segment)) {
        let limit = self.limit();
        let Some(open) = &mut self.open else { return };
        if self.torn || at <= open.last.at || !open.fits(now, pts) {
            return;
        }
        let ticks = open.ticks(now, pts);
        let step = ticks - open.high;
        let bound = limit.unwrap_or(longest(FIRST_MAX_SECONDS));
        if step < -REORDER || step > bound {
            self.torn = true;
            return;
        }
        let apart = (ticks - open.last.ticks).abs();
        if apart > 0 {
            self.frame = self.frame.min(apart);
        }
        if ticks > bound && open.last.at > open.begin {
            let place = open.last;
            let begin = Place { ticks: 0, ..place };
            let mut next =
                Open::new(begin, open.tables.clone(), open.time(place.ticks), open.stamped);
            next.access = open.access - place.ticks;
            next.high = open.high.max(ticks) - place.ticks;
            next.last = Place { at, ticks: ticks - place.ticks, utc: now.utc };
            self.close(place.at, place.ticks, out);
            self.open = Some(next);
            return;
        }
        open.high = open.high.max(ticks);
        open.last = Place { at, ticks, utc: now.utc };
    }

    fn begin(&mut self, now: Now, entry: &Entry) {
        let (time, stamped) = time_of(now.mono, entry.pts);
        let place = Place { at: entry.at, ticks: 0, utc: now.utc };
        let mut open = Open::new(place, entry.tables.clone(), time, stamped);
        open.discontinuity = std::mem::take(&mut self.broken);
        self.torn = false;
        self.open = Some(open);
    }

    /// Ends the open segment where nothing says when the next picture would come.
    fn close_torn(&mut self, end: u64, out: &mut impl FnMut(Segment)) {
        let bound = self.limit().unwrap_or(longest(FIRST_MAX_SECONDS));
        let ticks = self.open.as_ref().map_or(0, |open| open.high + self.frame);
        self.close(end, ticks.min(bound), out);
    }

    /// Ends the open segment at `end`, and promises its length if nothing was promised.
    fn close(&mut self, end: u64, ticks: i64, out: &mut impl FnMut(Segment)) {
        let Some(open) = self.open.take() else { return };
        let numbers = &self.numbers;
        let ticks = ticks.max(1);
        if numbers.target.load(Relaxed) == 0 {
            let longer = ticks.max(self.target);
            let seconds = (longer + TICKS / 2) / TICKS;
            numbers.target.store(u32::try_from(seconds.max(1)).unwrap_or(u32::MAX), Relaxed);
        }
        let sequence = numbers.next.fetch_add(1, Relaxed);
        let own = u64::from(open.discontinuity);
        let breaks = numbers.breaks.fetch_add(own, Relaxed) + own;
        out(Segment {
            sequence,
            breaks,
            discontinuity: open.discontinuity,
            begin: open.begin,
            end,
            ticks: ticks as u64,
            utc: open.utc,
            tables: open.tables,
        });
    }

    /// The longest segment that still rounds to what was promised, if something was.
    fn limit(&self) -> Option<i64> {
        let target = self.numbers.target.load(Relaxed);
        (target > 0).then(|| longest(target))
    }
}

const TICKS: i64 = SEGMENT_TICKS as i64;

/// The longest duration that rounds to `seconds`: "The EXTINF duration of each Media Segment in
/// the Playlist file, when rounded to the nearest integer, MUST be less than or equal to the
/// target duration" (RFC 8216 section 4.3.3.1).
const fn longest(seconds: u32) -> i64 {
    seconds as i64 * TICKS + TICKS / 2 - TICKS / 1000
}

/// The time stamp, or the time of arrival in the same units.
fn time_of(now: Mono, pts: Option<u64>) -> (u64, bool) {
    let arrival =
        || (u128::from(now.as_nanos()) * u128::from(SEGMENT_TICKS) / 1_000_000_000) as u64;
    pts.map_or_else(|| (arrival() % TICKS_MODULUS, false), |pts| (pts, true))
}

impl Open {
    fn new(place: Place, tables: Bytes, origin: u64, stamped: bool) -> Open {
        Open {
            begin: place.at,
            utc: place.utc,
            tables,
            discontinuity: false,
            origin,
            stamped,
            high: 0,
            access: 0,
            last: place,
        }
    }

    /// Whether a unit's time is of the same kind as the segment's.
    fn fits(&self, now: Now, pts: Option<u64>) -> bool {
        time_of(now.mono, pts).1 == self.stamped
    }

    /// Ticks from the beginning.
    fn ticks(&self, now: Now, pts: Option<u64>) -> i64 {
        ticks_between(self.origin, time_of(now.mono, pts).0)
    }

    /// The time that lies `ticks` behind the beginning.
    fn time(&self, ticks: i64) -> u64 {
        (self.origin as i64 + ticks).rem_euclid(TICKS_MODULUS as i64) as u64
    }
}

#[cfg(test)]
mod tests;
