//! Playlists of HTTP Live Streaming (RFC 8216), written from segments.

use std::fmt::{self, Write};

use crate::base::segment::{SEGMENT_TICKS, Segment};
use crate::base::time::Utc;
use crate::media::health::{Health, Track, TrackKind};

/// What a media playlist says beside its segments.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The longest segment in whole seconds: constant while players know the playlist.
    pub target: u32,
    /// Names this life of the stream in the segments' addresses, so that no cache ever mixes up
    /// two segments, whatever a relay that keeps no state has forgotten.
    pub epoch: u64,
}

/// The newest `most` of `segments` (oldest first) that can be listed: those that lie wholly at
/// or behind `tail` and follow on each other without a gap in the numbers.
#[must_use]
pub fn listed<'a>(
    segments: impl DoubleEndedIterator<Item = &'a Segment>,
    tail: u64,
    most: usize,
) -> Vec<&'a Segment> {
    let mut list: Vec<&Segment> = Vec::with_capacity(most);
    for segment in segments.rev().take(most) {
        let follows = list.last().is_none_or(|later| segment.sequence + 1 == later.sequence);
        if segment.begin < tail || !follows {
            break;
        }
        list.push(segment);
    }
    list.reverse();
    list
}

/// The media playlist of these segments, oldest first.
#[must_use]
pub fn media(segments: &[&Segment], terms: Terms) -> String {
    let mut text = String::with_capacity(256 + segments.len() * 128);
    // Writing to a String cannot fail.
    let _ = write_media(&mut text, segments, terms);
    text
}

fn write_media(out: &mut String, segments: &[&Segment], terms: Terms) -> fmt::Result {
    let sequence = segments.first().map_or(0, |first| first.sequence);
    // "If the server removes the EXT-X-DISCONTINUITY tag from a Media Playlist …, it MUST
    // increment the value of the EXT-X-DISCONTINUITY-SEQUENCE tag" (RFC 8216 section 6.2.2): the
    // tag of the first segment is still there.
    let breaks = segments.first().map_or(0, |first| first.breaks - u64::from(first.discontinuity));
    write!(
        out,
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:{}\n#EXT-X-MEDIA-SEQUENCE:{sequence}\n\
         #EXT-X-DISCONTINUITY-SEQUENCE:{breaks}\n",
        terms.target,
    )?;
    for segment in segments {
        if segment.discontinuity {
            out.push_str("#EXT-X-DISCONTINUITY\n");
        }
        out.push_str("#EXT-X-PROGRAM-DATE-TIME:");
        write_date(out, segment.utc)?;
        let micros = segment.ticks * 100 / (SEGMENT_TICKS / 10_000);
        let (whole, part) = (micros / 1_000_000, micros % 1_000_000);
        let (epoch, sequence) = (terms.epoch, segment.sequence);
        write!(out, "\n#EXTINF:{whole}.{part:06},\nseg/{epoch}-{sequence}.ts\n")?;
    }
    Ok(())
}

/// The master playlist: one variant, described by `segments` and by the publisher's tracks.
#[must_use]
pub fn master(segments: &[&Segment], target: u32, health: &Health) -> String {
    let mut text = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-STREAM-INF:".to_owned();
    // Writing to a String cannot fail.
    let _ = write_variant(&mut text, segments, target, health);
    text.push_str("\nindex.m3u8\n");
    text
}

fn write_variant(
    out: &mut String,
    segments: &[&Segment],
    target: u32,
    health: &Health,
) -> fmt::Result {
    let (peak, mean) = bandwidth(segments, target);
    write!(out, "BANDWIDTH={peak},AVERAGE-BANDWIDTH={mean}")?;
    let played = || health.tracks.iter().filter(|track| track.kind != TrackKind::Data);
    let names: Option<Vec<&str>> = played().map(|track| track.name.as_deref()).collect();
    // "every media format" or none at all (RFC 8216 section 4.3.4.2).
    if let Some(names) = names.filter(|names| !names.is_empty()) {
        write!(out, ",CODECS=\"{}\"", names.join(","))?;
    }
    if let Some(picture) = played().find_map(|track: &Track| track.picture) {
        write!(out, ",RESOLUTION={}x{}", picture.width, picture.height)?;
        if let Some(rate) = picture.frame_rate {
            write!(out, ",FRAME-RATE={rate:.3}")?;
        }
    }
    Ok(())
}

/// Peak and mean bit rate, rounded up to whole kbit/s. "The peak segment bit rate of a Media
/// Playlist is the largest bit rate of any contiguous set of segments whose total duration is
/// between 0.5 and 1.5 times the target duration" (RFC 8216 section 4.3.4.2).
fn bandwidth(segments: &[&Segment], target: u32) -> (u64, u64) {
    let target = u64::from(target) * SEGMENT_TICKS;
    let mut peak = 0;
    for begin in 0..segments.len() {
        let (mut bytes, mut ticks) = (0, 0);
        for segment in &segments[begin..] {
            bytes += segment.bytes();
            ticks += segment.ticks;
            if 2 * ticks > 3 * target {
                break;
            }
            if 2 * ticks >= target {
                peak = peak.max(rate(bytes, ticks));
            }
        }
    }
    let (bytes, ticks) = (segments.iter().map(|s| s.bytes()), segments.iter().map(|s| s.ticks));
    let mean = rate(bytes.sum(), ticks.sum());
    // Nothing but short segments: their mean is all there is.
    (peak.max(mean), mean)
}

fn rate(bytes: u64, ticks: u64) -> u64 {
    let bits = u128::from(bytes) * 8 * u128::from(SEGMENT_TICKS);
    let bits = bits.div_ceil(u128::from(ticks.max(1)));
    u64::try_from(bits.div_ceil(1000) * 1000).unwrap_or(u64::MAX)
}

/// `2026-02-19T14:54:23.031Z` (ISO 8601). Years until 9999.
fn write_date(out: &mut String, utc: Utc) -> fmt::Result {
    let millis = utc.as_unix_millis();
    let (days, rest) = (millis / 86_400_000, millis % 86_400_000);
    // Days since 1 March of year 0, in which leap days come last: cycles of 400 years, then
    // years, then months of 153 days in five.
    let days = days + 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = cycle * 400 + year + next;
    let (seconds, millis) = (rest / 1000, rest % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::media::health::Picture;

    fn segment(sequence: u64, discontinuity: bool) -> Segment {
        Segment {
            sequence,
            breaks: 4 + u64::from(discontinuity),
            discontinuity,
            begin: sequence * 1880,
            end: (sequence + 1) * 1880,
            ticks: 172_800,
            utc: Utc::from_unix_millis(1_266_591_263_031),
            tables: Bytes::from_static(&[0x47; 376]),
        }
    }

    #[test]
    fn a_playlist_word_for_word() {
        let all = [segment(7, false), segment(8, true)];
        let text = media(&[&all[0], &all[1]], Terms { target: 2, epoch: 5 });
        let want = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n\
                    #EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-DISCONTINUITY-SEQUENCE:4\n\
                    #EXT-X-PROGRAM-DATE-TIME:2010-02-19T14:54:23.031Z\n\
                    #EXTINF:1.920000,\nseg/5-7.ts\n#EXT-X-DISCONTINUITY\n\
                    #EXT-X-PROGRAM-DATE-TIME:2010-02-19T14:54:23.031Z\n\
                    #EXTINF:1.920000,\nseg/5-8.ts\n";
        assert_eq!(text, want);
        // The tag is still there: not counted yet.
        let text = media(&[&all[1]], Terms { target: 2, epoch: 5 });
        assert!(text.contains("DISCONTINUITY-SEQUENCE:4\n#EXT-X-DISCONTINUITY\n"), "{text}");
    }

    #[test]
    fn only_whole_segments_in_a_row_are_listed() {
        let all: Vec<Segment> = [1, 2, 4, 5, 6, 7].map(|n| segment(n, false)).into();
        let numbers = |tail, most| -> Vec<u64> {
            listed(all.iter(), tail, most).iter().map(|s| s.sequence).collect()
        };
        assert_eq!(numbers(0, 3), [5, 6, 7]);
        assert_eq!(numbers(0, 9), [4, 5, 6, 7], "not across a gap");
        assert_eq!(numbers(6 * 1880, 9), [6, 7]);
        assert_eq!(numbers(6 * 1880 + 1, 9), [7], "a byte of it is gone");
        assert!(numbers(9 * 1880, 9).is_empty());
    }

    #[test]
    fn the_variant_is_described_or_left_undescribed() {
        let (a, b) = (segment(1, false), Segment { end: 99_999, ..segment(2, false) });
        let track = |kind, name: &str, picture| Track {
            pid: 256,
            codec: String::new(),
            kind,
            name: Some(name.to_owned()),
            picture,
        };
        let picture = Picture { width: 480, height: 270, frame_rate: Some(25.0) };
        let mut health = Health {
            tracks: vec![
                track(TrackKind::Video, "avc1.4d4015", Some(picture)),
                track(TrackKind::Audio, "mp4a.40.2", None),
            ],
            ..Health::default()
        };
        let text = master(&[&a, &b], 2, &health);
        let want = "#EXT-X-STREAM-INF:BANDWIDTH=403000,AVERAGE-BANDWIDTH=206000,\
                    CODECS=\"avc1.4d4015,mp4a.40.2\",RESOLUTION=480x270,FRAME-RATE=25.000\n\
                    index.m3u8\n";
        assert!(text.ends_with(want), "{text}");
        health.tracks[1].name = None;
        assert!(!master(&[&a, &b], 2, &health).contains("CODECS"), "all or none");
    }

    #[test]
    fn dates_of_leap_years_and_ends() {
        let date = |millis| {
            let mut text = String::new();
            write_date(&mut text, Utc::from_unix_millis(millis)).unwrap();
            text
        };
        assert_eq!(date(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(date(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(date(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(date(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
        assert_eq!(date(1_798_761_599_000), "2026-12-31T23:59:59.000Z");
    }
}
