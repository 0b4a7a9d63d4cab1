//! A media playlist as a player reads it (RFC 8216): what it needs and no more.

use std::time::Duration;

/// A segment on offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its media sequence number.
    pub sequence: u64,
    /// How long it plays.
    pub length: Duration,
    /// Its address, relative to the playlist's.
    pub uri: String,
}

/// What is on offer, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// The longest segment.
    pub target: Duration,
    /// The segments.
    pub entries: Vec<Entry>,
}

/// Segments that a player leaves between its beginning and the newest. "A client SHOULD NOT
/// choose a segment that starts less than three target durations from the end of the playlist"
/// (RFC 8216 section 6.3.3).
const BEHIND: usize = 3;

impl List {
    /// Reads a playlist; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<List> {
        let mut list = List::default();
        let mut lines = text.lines();
        lines.next().filter(|line| *line == "#EXTM3U")?;
        let (mut sequence, mut length) = (0, None);
        for line in lines {
            if let Some(value) = line.strip_prefix("#EXT-X-TARGETDURATION:") {
                list.target = Duration::from_secs(value.parse().ok()?);
            } else if let Some(value) = line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:") {
                sequence = value.parse().ok()?;
            } else if let Some(value) = line.strip_prefix("#EXTINF:") {
                let seconds = value.split(',').next()?.parse().ok()?;
                length = Some(Duration::try_from_secs_f64(seconds).ok()?);
            } else if !line.is_empty() && !line.starts_with('#') {
                let entry = Entry { sequence, length: length.take()?, uri: line.to_owned() };
                list.entries.push(entry);
                sequence += 1;
            }
        }
        Some(list)
    }

    /// Where a player that wants `next` goes on; `None` before its first segment. The first of
    /// the entries that it will fetch, and how many that it wanted have left the list.
    #[must_use]
    pub fn place(&self, next: Option<u64>) -> (usize, u64) {
        let Some(next) = next else {
            return (self.entries.len().saturating_sub(BEHIND), 0);
        };
        let at = self.entries.partition_point(|entry| entry.sequence < next);
        let oldest = self.entries.first().map_or(next, |entry| entry.sequence);
        (at, oldest.saturating_sub(next))
    }

    /// When a player loads the list again, counted from the beginning of the last load: after
    /// the target duration, or half of it if there was nothing new (section 6.3.4).
    #[must_use]
    pub fn again(&self, new: bool) -> Duration {
        let target = self.target.max(Duration::from_secs(1));
        if new { target } else { target / 2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n\
        #EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-DISCONTINUITY-SEQUENCE:0\n\
        #EXT-X-PROGRAM-DATE-TIME:2026-02-19T14:54:23.031Z\n#EXTINF:2.000000,\nseg/1-7.ts\n\
        #EXTINF:1.960000,\nseg/1-8.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:2.000000,\nseg/1-9.ts\n\
        #EXTINF:2.000000,\nseg/1-10.ts\n";

    #[test]
    fn a_playlist_is_read() {
        let list = List::parse(TEXT).unwrap();
        assert_eq!((list.target, list.entries.len()), (Duration::from_secs(2), 4));
        let wanted = Entry {
            sequence: 8,
            length: Duration::from_millis(1_960),
            uri: "seg/1-8.ts".to_owned(),
        };
        assert_eq!(list.entries[1], wanted);
        for bad in ["", "#EXTM\n", "#EXTM3U\nseg/1.ts\n", "#EXTM3U\n#EXTINF:x,\na\n"] {
            assert_eq!(List::parse(bad), None, "{bad}");
        }
        assert!(List::parse("#EXTM3U\n").unwrap().entries.is_empty());
    }

    #[test]
    fn a_player_begins_three_from_the_end_and_goes_on_where_it_was() {
        let list = List::parse(TEXT).unwrap();
        assert_eq!(list.place(None), (1, 0));
        assert_eq!(list.place(Some(10)), (3, 0));
        assert_eq!(list.place(Some(11)), (4, 0), "nothing new");
        assert_eq!(list.place(Some(5)), (0, 2), "two are gone");
        assert_eq!(List::default().place(Some(5)), (0, 0));
        assert_eq!([list.again(true), list.again(false)].map(|t| t.as_millis()), [2_000, 1_000]);
    }
}
