//! The rules of RFC 8216 for a live playlist, held over every edition that a player sees.

use std::collections::BTreeMap;

use m3u8_rs::{MediaPlaylist, Playlist};

/// What was said of a segment once, and may not change.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// Its address.
    pub uri: String,
    /// Its duration in seconds.
    pub duration: f32,
    /// Whether a discontinuity lies before it.
    pub discontinuity: bool,
    /// Its discontinuity sequence number.
    pub breaks: u64,
    /// Its date in milliseconds.
    pub date: i64,
}

/// All editions of one playlist so far.
#[derive(Debug, Default)]
pub struct Rules {
    /// Every segment that was ever listed, by its sequence number.
    pub said: BTreeMap<u64, Said>,
    target: Option<u64>,
    sequence: u64,
    breaks: u64,
    end: u64,
}

impl Rules {
    /// Holds the next edition against the rules and against all before it.
    #[track_caller]
    pub fn check(&mut self, text: &str) -> MediaPlaylist {
        let playlist = match m3u8_rs::parse_playlist_res(text.as_bytes()) {
            Ok(Playlist::MediaPlaylist(playlist)) => playlist,
            other => panic!("no media playlist: {other:?}\n{text}"),
        };
        assert!(text.starts_with("#EXTM3U\n") && text.ends_with(".ts\n"), "{text}");
        assert_eq!(playlist.version, Some(3), "decimal durations need version 3\n{text}");
        assert!(!playlist.end_list && playlist.playlist_type.is_none(), "it is live\n{text}");
        for line in text.lines().filter_map(|line| line.strip_prefix("#EXTINF:")) {
            let decimals = line.trim_end_matches(',').split_once('.').map_or(0, |(_, d)| d.len());
            assert!(decimals >= 3, "{line}");
        }
        // 6.2.1: "the server MUST NOT change the EXT-X-TARGETDURATION tag".
        let target = *self.target.get_or_insert(playlist.target_duration);
        assert_eq!(playlist.target_duration, target, "{text}");
        // 6.2.2: numbers never go back, and what was listed stays as it was.
        assert!(playlist.media_sequence >= self.sequence, "{} back\n{text}", self.sequence);
        assert!(playlist.discontinuity_sequence >= self.breaks, "{} back\n{text}", self.breaks);
        (self.sequence, self.breaks) = (playlist.media_sequence, playlist.discontinuity_sequence);
        assert!(!playlist.segments.is_empty(), "{text}");
        let mut breaks = playlist.discontinuity_sequence;
        for (n, segment) in playlist.segments.iter().enumerate() {
            let sequence = playlist.media_sequence + n as u64;
            breaks += u64::from(segment.discontinuity);
            assert!(segment.duration.round() as u64 <= target, "{segment:?}\n{text}");
            let date = segment.program_date_time.expect("a date").timestamp_millis();
            let now = Said {
                uri: segment.uri.clone(),
                duration: segment.duration,
                discontinuity: segment.discontinuity,
                breaks,
                date,
            };
            match self.said.get(&sequence) {
                Some(before) => assert_eq!(before, &now, "segment {sequence} changed\n{text}"),
                None => {
                    let later = self.said.keys().all(|old| *old < sequence);
                    let fresh = self.said.values().all(|old| old.uri != now.uri);
                    assert!(later && fresh, "segment {sequence} came late or twice\n{text}");
                    self.said.insert(sequence, now);
                }
            }
        }
        let end = playlist.media_sequence + playlist.segments.len() as u64;
        assert!(end >= self.end, "the end went back\n{text}");
        self.end = end;
        playlist
    }
}
