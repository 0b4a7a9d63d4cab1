//! A media segment: a stretch of a stream that a player fetches on its own.

use bytes::Bytes;

use crate::base::time::Utc;

/// Ticks of a segment's duration per second, as in time stamps of a transport stream.
pub const SEGMENT_TICKS: u64 = 90_000;

/// One segment, as it was cut: a place in the stream and what a playlist says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its media sequence number; no other segment of the stream's name ever has it.
    pub sequence: u64,
    /// Its discontinuity sequence number: breaks before it, its own included.
    pub breaks: u64,
    /// It does not continue the segment before it.
    pub discontinuity: bool,
    /// Stream offset of its first packet.
    pub begin: u64,
    /// Stream offset behind its last packet.
    pub end: u64,
    /// Duration in units of 1/90,000 s.
    pub ticks: u64,
    /// When its first packet came in.
    pub utc: Utc,
    /// The PAT and PMT packets in force at its beginning, verbatim.
    pub tables: Bytes,
}

impl Segment {
    /// Bytes that a player fetches: the tables and the stretch of the stream.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tables.len() as u64 + (self.end - self.begin)
    }
}
