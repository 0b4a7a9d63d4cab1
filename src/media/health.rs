//! What a publisher is told about its stream, and what the words of a PMT mean.

use serde::Serialize;

use crate::media::codec::by_table;
use crate::media::scan::Syntax;
use crate::wire::mpegts::Pid;
use crate::wire::mpegts::psi::{Descriptors, Stream};

/// Distance of key frames above which viewers wait too long to start.
pub(super) const GOP_LONG_MS: u32 = 4_000;

/// Spread of the clock above which players run out of data or overflow.
pub(super) const JITTER_LARGE_US: u64 = 500_000;

/// The state of a stream as its publisher sent it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Health {
    /// Bits per second over the last two seconds, null packets included.
    pub bitrate_bps: u64,
    /// Time between the last two video access points in milliseconds; 0 before the second.
    pub gop_ms: u32,
    /// The longest such time.
    pub gop_max_ms: u32,
    /// The elementary streams, in the order of the PMT.
    pub tracks: Vec<Track>,
    /// Breaks in the continuity counters: each is one or more packets lost before they came here.
    pub continuity_errors: u64,
    /// Packets that said of themselves that they are damaged, or had no sync byte.
    pub transport_errors: u64,
    /// Spread of (arrival time less program clock) over the last one to two seconds, in
    /// microseconds: the largest less the smallest, so a constant delay is no part of it.
    pub pcr_jitter_us: u64,
    /// The tables are known, but no program clock came for a second.
    pub pcr_missing: bool,
    /// All packets, null packets included.
    pub packets: u64,
    /// Null packets.
    pub null_packets: u64,
    /// Access points found.
    pub access_points: u64,
    /// Scrambled payload was seen: key frames are then found by `random_access_indicator` only.
    pub scrambled: bool,
    /// What the publisher should mend, in whole sentences.
    pub warnings: Vec<String>,
}

/// One elementary stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Track {
    /// Its PID.
    pub pid: Pid,
    /// `h264`, `hevc`, `aac`, ...; `private`, or the stream type as `0x..`, when it is unknown.
    pub codec: String,
    /// Whether it is seen or heard.
    pub kind: TrackKind,
    /// The codec as players name it (RFC 6381), such as `avc1.64001f`; absent until it is known.
    #[serde(rename = "codec_string", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The picture, if this is video and its headers were read.
    #[serde(flatten)]
    pub picture: Option<Picture>,
}

/// A picture as the video's own headers tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Picture {
    /// Samples across that are shown; 0 when not known.
    pub width: u32,
    /// Lines that are shown; 0 when not known.
    pub height: u32,
    /// Pictures per second, if the headers tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_rate: Option<f64>,
}

/// What an elementary stream is for, in the order in which they lead a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TrackKind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
    /// Anything else: subtitles, cue messages, private data.
    Data,
}

impl TrackKind {
    /// `video`, `audio` or `data`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            TrackKind::Video => "video",
            TrackKind::Audio => "audio",
            TrackKind::Data => "data",
        }
    }
}

/// Reads one stream of a PMT: what it is, and how its access points can be found.
pub(super) fn track(stream: &Stream<'_>) -> (Track, Option<Syntax>) {
    use TrackKind::{Audio, Data, Video};
    // Stream types: 13818-1, table 2-34; above 0x80 ATSC A/52 and A/53.
    let (codec, kind, syntax) = match stream.kind {
        0x01 => ("mpeg1video", Video, Some(Syntax::Mpeg2)),
        0x02 => ("mpeg2video", Video, Some(Syntax::Mpeg2)),
        0x10 => ("mpeg4", Video, None),
        0x1B => ("h264", Video, Some(Syntax::H264)),
        0x24 => ("hevc", Video, Some(Syntax::Hevc)),
        0x33 => ("vvc", Video, None),
        0x03 | 0x04 => ("mp2", Audio, None),
        0x0F | 0x11 => ("aac", Audio, None),
        0x81 => ("ac3", Audio, None),
        0x84 | 0x87 => ("eac3", Audio, None),
        0x06 => private(stream.descriptors),
        0x05 => ("private", Data, None),
        other => {
            let codec = format!("0x{other:02x}");
            let (pid, name, picture) = (stream.pid, None, None);
            return (Track { pid, codec, kind: Data, name, picture }, None);
        }
    };
    let (pid, name) = (stream.pid, by_table(codec).map(str::to_owned));
    (Track { pid, codec: codec.to_owned(), kind, name, picture: None }, syntax)
}

/// Private PES data says by descriptors what it is: the format identifiers of SMPTE RA, and the
/// tags of ETSI EN 300 468.
fn private(descriptors: Descriptors<'_>) -> (&'static str, TrackKind, Option<Syntax>) {
    use TrackKind::{Audio, Data, Video};
    for (tag, content) in descriptors {
        match (tag, content) {
            (0x6A, _) | (0x05, b"AC-3") => return ("ac3", Audio, None),
            (0x7A, _) | (0x05, b"EAC3") => return ("eac3", Audio, None),
            (0x05, b"Opus") => return ("opus", Audio, None),
            (0x05, b"HEVC") => return ("hevc", Video, Some(Syntax::Hevc)),
            (0x05, b"AV01") => return ("av1", Video, None),
            _ => {}
        }
    }
    ("private", Data, None)
}

/// What warnings are made of, beside the figures of [`Health`] itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Signs {
    /// Packets have come for two seconds and there is still no PAT, or no PMT.
    pub(super) no_pat: bool,
    pub(super) no_pmt: bool,
    /// There is video, and no access point for five seconds.
    pub(super) no_key_frame: bool,
    /// Packets were lost or damaged within the last ten seconds.
    pub(super) losing: bool,
}

/// The warnings, most severe first.
pub(super) fn warnings(health: &Health, signs: Signs) -> Vec<String> {
    let mut out = Vec::new();
    if signs.no_pat {
        out.push("no PAT: this is no MPEG-TS that a player could start with".to_owned());
    } else if signs.no_pmt {
        out.push(
            "no PMT for any program of the PAT: players cannot tell what is inside".to_owned(),
        );
    }
    if signs.no_key_frame {
        out.push(
            "no video key frame for 5 s: nobody can start watching; set the encoder's key frame \
             interval (ffmpeg: -g, twice the frame rate; x264/x265: keyint)"
                .to_owned(),
        );
    } else if health.gop_ms > GOP_LONG_MS {
        out.push(format!(
            "key frames are {}.{} s apart, viewers wait that long to start; 2 s is better \
             (ffmpeg: -g, twice the frame rate; x264/x265: keyint)",
            health.gop_ms / 1000,
            health.gop_ms % 1000 / 100,
        ));
    }
    if signs.losing {
        out.push("packets are lost or damaged on the way to this relay".to_owned());
    }
    if health.pcr_missing {
        out.push("no program clock (PCR) for 1 s: players cannot keep time".to_owned());
    }
    if health.pcr_jitter_us > JITTER_LARGE_US {
        out.push(format!(
            "the stream arrives in bursts: {} ms between the earliest and the latest clock; \
             players need that much buffer (ffmpeg: read the input with -re, or send over UDP)",
            health.pcr_jitter_us / 1000,
        ));
    }
    if health.scrambled {
        out.push("the stream is scrambled: players need its key".to_owned());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mpegts::build::{StreamSpec, pmt_section};
    use crate::wire::mpegts::psi::{Pmt, Section};

    fn one(kind: u8, descriptors: &[u8]) -> (String, &'static str) {
        let bytes = pmt_section(1, 0, 256, &[StreamSpec { kind, pid: 256, descriptors }]);
        let pmt = Pmt::parse(Section::parse(&bytes).unwrap()).unwrap();
        let (track, _) = track(&pmt.streams().next().unwrap());
        (track.codec, track.kind.as_str())
    }

    #[test]
    fn codecs_by_stream_type_and_descriptor() {
        let expect = |codec: &str, kind| (codec.to_owned(), kind);
        assert_eq!(one(0x1B, &[]), expect("h264", "video"));
        assert_eq!(one(0x0F, &[]), expect("aac", "audio"));
        assert_eq!(one(0x06, b"\x05\x04Opus"), expect("opus", "audio"));
        assert_eq!(one(0x06, b"\x52\x01\x07\x6A\x01\x00"), expect("ac3", "audio"));
        assert_eq!(one(0x06, b"\x59\x00"), expect("private", "data"));
        assert_eq!(one(0x86, &[]), expect("0x86", "data"));
    }

    #[test]
    fn a_long_gop_names_the_encoder_option() {
        let health = Health { gop_ms: 10_400, ..Health::default() };
        let warnings = warnings(&health, Signs::default());
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("10.4 s") && warnings[0].contains("-g"), "{}", warnings[0]);
        let fine = Health { gop_ms: 4000, ..Health::default() };
        assert!(super::warnings(&fine, Signs::default()).is_empty());
    }

    #[test]
    fn the_json_has_the_words_of_the_api() {
        let (name, picture) = (Some("avc1.42c01e".into()), None);
        let track = Track { pid: 256, codec: "h264".into(), kind: TrackKind::Video, name, picture };
        let health = Health { tracks: vec![track], ..Health::default() };
        let json = serde_json::to_value(&health).unwrap();
        assert_eq!(json["tracks"][0]["kind"], "video");
        assert_eq!(json["tracks"][0]["codec_string"], "avc1.42c01e");
        assert_eq!(json["gop_max_ms"], 0);
    }
}
