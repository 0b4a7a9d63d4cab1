//! The side list of a window: access points, discontinuities and table changes.
//!
//! Only the writer's shard reads packets; everybody else reads marks. A list is an immutable
//! snapshot that is replaced as a whole, about once per second and stream.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::segment::Segment;
use crate::base::time::{Mono, Utc};

/// The most marks kept. When full the oldest is dropped: with it goes the chance to start or
/// jump there, not the bytes.
pub const MARKS_MAX: usize = 1_024;

/// Something about one place of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Stream offset of the packet that it is about.
    pub at: u64,
    /// When that packet came in.
    pub ingest: Mono,
    /// The same as wall-clock time.
    pub utc: Utc,
    /// What it says.
    pub kind: MarkKind,
}

/// What a mark says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarkKind {
    /// A decoder can start here.
    AccessPoint {
        /// Presentation time stamp of the key frame in units of 1/90,000 s, 33 bits.
        pts: Option<u64>,
        /// Stream offset of the PAT packet before it; may lie below the window's tail.
        pat: u64,
        /// The PAT and PMT packets in force, verbatim.
        tables: Bytes,
    },
    /// What follows does not continue what was before.
    Discontinuity,
    /// PAT or PMT changed.
    Tables,
    /// A segment ends here.
    Segment(Segment),
}

impl Mark {
    /// Whether a decoder can start here.
    #[must_use]
    pub fn is_access_point(&self) -> bool {
        matches!(self.kind, MarkKind::AccessPoint { .. })
    }
}

/// A snapshot of a window's marks in the order in which they were added.
#[derive(Debug, Default)]
pub struct Marks {
    first: u64,
    list: Vec<Arc<Mark>>,
}

impl Marks {
    /// How many marks were dropped before the first one of this list.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// How many marks were ever added up to this snapshot.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.first + self.list.len() as u64
    }

    /// The marks, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Mark>> {
        self.list.iter()
    }

    /// The access point that was added last.
    #[must_use]
    pub fn newest_access_point(&self) -> Option<&Arc<Mark>> {
        self.access_points().next_back()
    }

    /// The newest access point that came in at or before `t`, else the oldest one.
    #[must_use]
    pub fn access_point_before(&self, t: Mono) -> Option<&Arc<Mark>> {
        let before = self.access_points().rev().find(|mark| mark.ingest <= t);
        before.or_else(|| self.access_points().next())
    }

    /// The first access point at or behind the stream offset `at`.
    #[must_use]
    pub fn access_point_after(&self, at: u64) -> Option<&Arc<Mark>> {
        self.access_points().find(|mark| mark.at >= at)
    }

    /// The segments, oldest first; the oldest may reach below the tail.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.list.iter().filter_map(|mark| match &mark.kind {
            MarkKind::Segment(segment) => Some(segment),
            _ => None,
        })
    }

    /// The next snapshot: without what lies below `tail`, with `new` at the end.
    pub(super) fn next(&self, tail: u64, new: Option<Mark>) -> Marks {
        let gone = self.list.iter().take_while(|mark| mark.at < tail).count();
        let room = MARKS_MAX - usize::from(new.is_some());
        let gone = gone.max(self.list.len().saturating_sub(room));
        let kept = self.list[gone..].iter().cloned();
        Marks { first: self.first + gone as u64, list: kept.chain(new.map(Arc::new)).collect() }
    }

    /// Whether the oldest mark lies below `tail`.
    pub(super) fn reach_below(&self, tail: u64) -> bool {
        self.list.first().is_some_and(|mark| mark.at < tail)
    }

    fn access_points(&self) -> impl DoubleEndedIterator<Item = &Arc<Mark>> {
        self.list.iter().filter(|mark| mark.is_access_point())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(n: u64, kind: MarkKind) -> Mark {
        Mark { at: n * 188, ingest: Mono::from_millis(n), utc: Utc::default(), kind }
    }

    fn access(n: u64) -> Mark {
        mark(n, MarkKind::AccessPoint { pts: None, pat: 0, tables: Bytes::new() })
    }

    #[test]
    fn the_list_is_bounded_and_counts_what_it_dropped() {
        let mut marks = Marks::default();
        for n in 0..3_000 {
            marks = marks.next(0, Some(access(n)));
            assert!(marks.iter().count() <= MARKS_MAX);
            assert_eq!(marks.count(), n + 1);
        }
        assert_eq!(marks.first(), 3_000 - MARKS_MAX as u64);
        assert_eq!(marks.iter().next().unwrap().at, marks.first() * 188);
        assert!(marks.reach_below(2_990 * 188));
        let marks = marks.next(2_990 * 188, None);
        assert_eq!((marks.first(), marks.count()), (2_990, 3_000));
        assert!(!marks.reach_below(2_990 * 188));
    }

    #[test]
    fn access_points_are_found_by_time_and_by_place() {
        let mut marks = Marks::default();
        assert!(marks.newest_access_point().is_none());
        assert!(marks.access_point_before(Mono::from_millis(9)).is_none());
        for new in [
            mark(1, MarkKind::Tables),
            access(2),
            mark(5, MarkKind::Discontinuity),
            access(6),
            mark(7, MarkKind::Tables),
        ] {
            marks = marks.next(0, Some(new));
        }
        let at = |found: Option<&Arc<Mark>>| found.map(|mark| mark.at / 188);
        assert_eq!(at(marks.newest_access_point()), Some(6));
        for (millis, want) in [(0, 2), (2, 2), (5, 2), (6, 6), (99, 6)] {
            assert_eq!(at(marks.access_point_before(Mono::from_millis(millis))), Some(want));
        }
        for (n, want) in [(0, Some(2)), (2, Some(2)), (3, Some(6)), (6, Some(6)), (7, None)] {
            assert_eq!(at(marks.access_point_after(n * 188)), want);
        }
    }
}
