//! The part of a response that is read from a window: a segment on its way to a player.

use crate::base::payload::Payload;
use crate::base::segment::Segment;
use crate::face::http::exchange::Conditions;
use crate::face::http::respond::SegmentPart;
use crate::ring::reader::{Overtaken, Reader};
use crate::wire::http::range::{Wanted, range};

/// A stretch of a stream that is still to be sent. Like a viewer it is a cursor and no buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Download {
    cursor: u64,
    end: u64,
}

impl Download {
    /// The bytes of the stream that belong to a part of a segment: what lies behind its tables.
    /// None if there are none.
    pub fn of(segment: &Segment, first: u64, end: u64) -> Option<Download> {
        let tables = segment.tables.len() as u64;
        let place = |at: u64| segment.begin + at.saturating_sub(tables);
        let download = Download { cursor: place(first), end: place(end) };
        (download.cursor < download.end).then_some(download)
    }

    /// At most `room` of the bytes.
    ///
    /// # Errors
    /// [`Overtaken`] if they have left the window.
    pub fn read(&self, reader: &mut Reader, room: usize) -> Result<[Payload; 2], Overtaken> {
        let left = usize::try_from(self.end - self.cursor).unwrap_or(usize::MAX);
        let parts = reader.read(self.cursor, left.min(room))?;
        // A segment is published before it is known: nothing to send means that it is gone.
        if room > 0 && parts.iter().all(Payload::is_empty) { Err(Overtaken) } else { Ok(parts) }
    }

    /// `n` of the bytes were sent; what is left.
    pub fn sent(self, n: u64) -> Option<Download> {
        let cursor = self.cursor + n;
        (cursor < self.end).then_some(Download { cursor, ..self })
    }
}

/// How much of a segment of `length` bytes a client wants.
pub fn part(conditions: &Conditions, length: u64, tag: &str) -> SegmentPart {
    if conditions.has(tag) {
        return SegmentPart::Known;
    }
    match conditions.range_of(tag).map_or(Wanted::Whole, |value| range(value, length)) {
        Wanted::Whole => SegmentPart::Whole,
        Wanted::Part(range) => SegmentPart::Part(range),
        Wanted::Unsatisfiable => SegmentPart::Unsatisfiable,
    }
}
