//! The reader against small made-up streams, cut in any way, and against noise.

use proptest::prelude::*;

use super::*;
use crate::media::aligner::Aligner;
use crate::media::sample::DEMO;
use crate::wire::mpegts::build::{
    PacketSpec, StreamSpec, packet, packets, pat_section, pmt_section, pointed,
};
use crate::wire::mpegts::clock::TICKS_MODULUS;
use crate::wire::mpegts::pes::write_header;
use crate::wire::mpegts::{NULL_PACKET, PID_PAT};

const PMT: Pid = 0x1000;
const VIDEO: Pid = 256;
const AUDIO: Pid = 257;
const AT: u64 = 1_000_000;

const IDR: &[u8] = &[0, 0, 0, 1, 0x67, 0x42, 0, 0, 1, 0x68, 1, 0, 0, 1, 0x65, 0x88];
const INTER: &[u8] = &[0, 0, 0, 1, 9, 0xF0, 0, 0, 1, 0x41, 0x9A];

/// Writes a stream packet by packet and keeps count of continuity.
#[derive(Default)]
struct Mux {
    out: Vec<u8>,
    counters: std::collections::HashMap<Pid, u8>,
}

impl Mux {
    fn new(streams: &[(u8, Pid)]) -> Mux {
        let mut mux = Mux::default();
        mux.tables(0, streams);
        mux
    }

    fn unit(&mut self, spec: PacketSpec, unit: &[u8]) -> u64 {
        let at = AT + self.out.len() as u64;
        let counter = self.counters.entry(spec.pid).or_default();
        let mut spec = PacketSpec { continuity: *counter, ..spec };
        packets(&mut spec, unit, &mut self.out);
        *counter = spec.continuity;
        at
    }

    fn section(&mut self, pid: Pid, section: &[u8]) -> u64 {
        self.unit(PacketSpec { pid, ..PacketSpec::default() }, &pointed(section))
    }

    fn tables(&mut self, version: u8, streams: &[(u8, Pid)]) {
        let spec = |&(kind, pid): &(u8, Pid)| StreamSpec { kind, pid, descriptors: &[] };
        let streams: Vec<_> = streams.iter().map(spec).collect();
        self.section(PID_PAT, &pat_section(0, &[(1, PMT)]));
        self.section(PMT, &pmt_section(1, version, VIDEO, &streams));
    }

    /// A PES packet; returns its offset.
    fn pes(&mut self, pid: Pid, pts: u64, random_access: bool, data: &[u8]) -> u64 {
        let mut unit = vec![0; 19];
        let len = write_header(&mut unit, 0xE0, Some(pts % TICKS_MODULUS), None);
        unit.truncate(len);
        unit.extend_from_slice(data);
        self.unit(PacketSpec { pid, random_access, ..PacketSpec::default() }, &unit)
    }
}

fn read(reader: &mut TsReader, bytes: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    reader.feed(Mono::from_millis(5), AT, bytes, &mut found);
    found
}

/// Offsets and time stamps of the access points.
fn points(found: &[Found]) -> Vec<(u64, Option<u64>)> {
    let point = |f: &Found| match f.kind {
        FoundKind::AccessPoint { pts, .. } => Some((f.at, pts)),
        FoundKind::Tables => None,
    };
    found.iter().filter_map(point).collect()
}

#[test]
fn marked_access_points_come_with_their_tables() {
    let mut mux = Mux::new(&[(0x1B, VIDEO), (0x0F, AUDIO)]);
    let tables = mux.out.clone();
    mux.pes(VIDEO, 100, false, INTER);
    mux.pes(AUDIO, 100, true, b"sound is always random access");
    let at = mux.pes(VIDEO, 3700, true, INTER);
    let found = read(&mut TsReader::new(), &mux.out);
    let kind = FoundKind::AccessPoint { pts: Some(3700), pat: AT, tables: tables.into() };
    let change = Found { at: AT + 188, kind: FoundKind::Tables };
    assert_eq!(found, [change, Found { at, kind }]);
}

#[test]
fn nothing_is_an_access_point_before_both_tables() {
    let mut mux = Mux::default();
    mux.pes(VIDEO, 1, true, IDR);
    mux.section(PID_PAT, &pat_section(0, &[(1, PMT)]));
    mux.pes(VIDEO, 2, true, IDR);
    let stream = StreamSpec { kind: 0x1B, pid: VIDEO, descriptors: &[] };
    mux.section(PMT, &pmt_section(1, 0, VIDEO, &[stream]));
    let at = mux.pes(VIDEO, 3, true, IDR);
    assert_eq!(points(&read(&mut TsReader::new(), &mux.out)), [(at, Some(3))]);
}

#[test]
fn unmarked_h264_is_read_wherever_the_packet_border_falls() {
    // The picture is pushed byte by byte over the border of the first packet.
    for padding in 0..400 {
        let sei = [&[0, 0, 1, 6, 5, 0xFF, 0xFF][..], &vec![7; padding], &[0x80]].concat();
        let mut mux = Mux::new(&[(0x1B, VIDEO)]);
        mux.pes(VIDEO, 0, false, INTER);
        let at = mux.pes(VIDEO, 3600, false, &[&sei[..], IDR, &[9; 500]].concat());
        mux.pes(VIDEO, 7200, false, &[&sei[..], INTER, &[9; 500]].concat());
        let mut reader = TsReader::new();
        assert_eq!(points(&read(&mut reader, &mux.out)), [(at, Some(3600))], "{padding}");
        assert_eq!(reader.health(Mono::ZERO).continuity_errors, 0);
    }
}

#[test]
fn a_picture_with_a_gap_in_front_of_its_slice_is_no_access_point() {
    let mut mux = Mux::new(&[(0x1B, VIDEO)]);
    let sei = [&[0, 0, 1, 6, 5, 0xFF, 0xFF][..], &[7; 400], &[0x80]].concat();
    mux.pes(VIDEO, 0, false, &[&sei[..], IDR].concat());
    mux.out.drain(3 * 188..4 * 188);
    let mut reader = TsReader::new();
    assert_eq!(points(&read(&mut reader, &mux.out)), []);
    let health = reader.health(Mono::ZERO);
    assert_eq!(health.continuity_errors, 1);
    assert!(health.warnings.iter().any(|w| w.contains("lost")), "{:?}", health.warnings);
}

#[test]
fn hevc_and_mpeg2_video() {
    let mut mux = Mux::new(&[(0x24, VIDEO)]);
    mux.pes(VIDEO, 1, false, &[0, 0, 1, 0x46, 1, 0x50, 0, 0, 1, 2, 1, 9]);
    let at = mux.pes(VIDEO, 2, false, &[0, 0, 1, 0x40, 1, 7, 0, 0, 1, 0x26, 1, 9]);
    let mut reader = TsReader::new();
    assert_eq!(points(&read(&mut reader, &mux.out)), [(at, Some(2))]);
    assert_eq!(reader.health(Mono::ZERO).tracks[0].codec, "hevc");

    let mut mux = Mux::new(&[(0x02, VIDEO)]);
    mux.pes(VIDEO, 1, false, &[0, 0, 1, 0, 0x10]);
    let at = mux.pes(VIDEO, 2, false, &[0, 0, 1, 0xB3, 0x10]);
    assert_eq!(points(&read(&mut TsReader::new(), &mux.out)), [(at, Some(2))]);
}

#[test]
fn without_video_sound_is_entered_every_half_second() {
    let mut mux = Mux::new(&[(0x0F, AUDIO)]);
    // 24 ms each, over the wrap of the time stamps.
    let pts = |n: u64| (TICKS_MODULUS - 90_000 + n * 2160) % TICKS_MODULUS;
    let at: Vec<u64> = (0..100).map(|n| mux.pes(AUDIO, pts(n), false, &[1; 300])).collect();
    let expected: Vec<_> = (0..100).step_by(21).map(|n| (at[n], Some(pts(n as u64)))).collect();
    let mut reader = TsReader::new();
    assert_eq!(points(&read(&mut reader, &mux.out)), expected);
    let health = reader.health(Mono::ZERO);
    assert_eq!((health.gop_ms, health.tracks.len()), (0, 1));
}

#[test]
fn tables_over_many_packets_are_kept_whole() {
    let descriptors = [&[0x80, 200][..], &[3; 200]].concat();
    let stream = |n: u16| StreamSpec { kind: 0x06, pid: 300 + n, descriptors: &descriptors };
    let mut streams: Vec<_> = (0..4).map(stream).collect();
    streams.push(StreamSpec { kind: 0x1B, pid: VIDEO, descriptors: &[] });
    let section = pmt_section(1, 0, VIDEO, &streams);
    assert!(section.len() > 4 * 184);
    let mut mux = Mux::default();
    // A PMT whose end was lost, then a whole one with a foreign packet in its middle.
    mux.section(PID_PAT, &pat_section(0, &[(1, PMT)]));
    mux.section(PMT, &section);
    mux.out.truncate(4 * 188);
    let start = mux.out.len();
    mux.counters.insert(PMT, 0);
    mux.section(PMT, &section);
    let verbatim = [&mux.out[..188], &mux.out[start..]].concat();
    mux.out.splice(start + 376..start + 376, NULL_PACKET);
    let at = mux.pes(VIDEO, 5, true, IDR);
    let mut reader = TsReader::new();
    let found = read(&mut reader, &mux.out);
    assert_eq!(found[0], Found { at: AT + start as u64, kind: FoundKind::Tables });
    let kind = FoundKind::AccessPoint { pts: Some(5), pat: AT, tables: verbatim.into() };
    assert_eq!(found[1], Found { at, kind });
    assert_eq!(reader.health(Mono::ZERO).tracks.len(), 5);
}

#[test]
fn a_table_in_tiny_pieces_is_given_up_after_32_packets() {
    let stream = StreamSpec { kind: 0x1B, pid: VIDEO, descriptors: &[] };
    let section = pmt_section(1, 0, VIDEO, &[stream; 20]);
    let slowly = |step: usize| {
        let mut mux = Mux::default();
        mux.section(PID_PAT, &pat_section(0, &[(1, PMT)]));
        for (n, part) in pointed(&section).chunks(step).enumerate() {
            let spec = PacketSpec {
                pid: PMT,
                unit_start: n == 0,
                continuity: n as u8 & 15,
                ..PacketSpec::default()
            };
            mux.out.extend_from_slice(&packet(&spec, part));
        }
        let mut reader = TsReader::new();
        read(&mut reader, &mux.out);
        reader.health(Mono::ZERO).tracks.len()
    };
    assert_eq!((pointed(&section).len(), slowly(4), slowly(3)), (117, 1, 0));
}

#[test]
fn changed_tables_are_reported_once() {
    let mut mux = Mux::new(&[(0x1B, VIDEO)]);
    mux.tables(0, &[(0x1B, VIDEO)]);
    let changed = mux.out.len() as u64 + 188;
    mux.tables(1, &[(0x24, 300)]);
    mux.tables(1, &[(0x24, 300)]);
    mux.pes(VIDEO, 1, true, IDR);
    let at = mux.pes(300, 2, true, IDR);
    let mut reader = TsReader::new();
    let found = read(&mut reader, &mux.out);
    let kinds: Vec<_> = found.iter().map(|f| (f.at, f.kind == FoundKind::Tables)).collect();
    assert_eq!(kinds, [(AT + 188, true), (AT + changed, true), (at, false)]);
}

#[test]
fn of_several_programs_one_that_exists_is_followed() {
    let mut mux = Mux::default();
    mux.section(PID_PAT, &pat_section(0, &[(1, 0x30), (2, 0x31), (3, 0x32)]));
    let stream = |pid| [StreamSpec { kind: 0x1B, pid, descriptors: &[] }];
    mux.section(0x31, &pmt_section(2, 0, VIDEO, &stream(VIDEO)));
    mux.section(0x32, &pmt_section(3, 0, 400, &stream(400)));
    mux.pes(400, 1, true, IDR);
    let at = mux.pes(VIDEO, 2, true, IDR);
    assert_eq!(points(&read(&mut TsReader::new(), &mux.out)), [(at, Some(2))]);
}

#[test]
fn a_stream_goes_on_after_garbage() {
    let mut mux = Mux::new(&[(0x1B, VIDEO)]);
    mux.pes(VIDEO, 0, true, IDR);
    let damage = mux.out.len();
    for n in 1..10 {
        mux.pes(VIDEO, n * 3600, false, INTER);
    }
    mux.pes(VIDEO, 36_000, true, IDR);
    mux.out.splice(damage + 10..damage + 250, [0x47; 17]);
    let (mut aligner, mut reader) = (Aligner::new(), TsReader::new());
    let (mut found, mut at) = (Vec::new(), 0);
    aligner.push(&mux.out, &mut |run| {
        reader.feed(Mono::ZERO, at, run, &mut found);
        at += run.len() as u64;
    });
    let times: Vec<_> = points(&found).iter().map(|point| point.1).collect();
    assert_eq!(times, [Some(0), Some(36_000)]);
    assert_eq!(aligner.resyncs(), 1);
    assert!(reader.health(Mono::ZERO).continuity_errors > 0);
}

#[test]
fn a_discontinuity_keeps_the_tables_and_reset_does_not() {
    let mut mux = Mux::new(&[(0x1B, VIDEO)]);
    mux.pes(VIDEO, 0, true, IDR);
    let mut reader = TsReader::new();
    read(&mut reader, &mux.out);
    let mut other = Mux::default();
    other.counters.insert(VIDEO, 9);
    other.pes(VIDEO, 77, true, IDR);
    reader.discontinuity();
    assert_eq!(points(&read(&mut reader, &other.out)), [(AT, Some(77))]);
    let health = reader.health(Mono::ZERO);
    assert_eq!((health.continuity_errors, health.gop_ms, health.access_points), (0, 0, 2));
    reader.reset();
    assert_eq!(read(&mut reader, &other.out), []);
    assert_eq!(reader.health(Mono::ZERO).packets, 1);
}

#[test]
fn health_says_what_is_missing() {
    let now = |n: u64| Mono::from_millis(n * 100);
    let mut warned = Vec::new();
    let mut mux = Mux::new(&[(0x1B, VIDEO)]);
    let tables = std::mem::take(&mut mux.out);
    let mut reader = TsReader::new();
    let mut found = Vec::new();
    for n in 0..100 {
        if n == 30 {
            reader.feed(now(n), 0, &tables, &mut found);
        }
        mux.out.clear();
        mux.pes(VIDEO, n * 9000, false, INTER);
        reader.feed(now(n), 0, &mux.out, &mut found);
        reader.feed(now(n), 0, &NULL_PACKET, &mut found);
        warned.push(reader.health(now(n)).warnings.join("\n"));
    }
    assert_eq!(warned[10], "");
    assert!(warned[29].contains("no PAT"));
    assert_eq!(warned[35], "");
    assert!(warned[50].contains("no program clock") && !warned[50].contains("key frame"));
    assert!(warned[85].contains("no video key frame"), "{}", warned[85]);
    let health = reader.health(now(99));
    assert_eq!((health.null_packets, health.packets), (100, 202));
    assert!(health.pcr_missing && health.bitrate_bps > 25_000);
}

/// A scrambled payload cannot be read, the mark in front of it can.
#[test]
fn scrambled_streams_are_entered_where_they_are_marked() {
    let mut mux = Mux::new(&[(0x1B, VIDEO)]);
    let clear = mux.out.len();
    mux.pes(VIDEO, 0, false, IDR);
    let at = mux.pes(VIDEO, 0, true, IDR);
    mux.out[clear..].chunks_mut(188).for_each(|p| p[3] |= 0x80);
    let mut reader = TsReader::new();
    assert_eq!(points(&read(&mut reader, &mux.out)), [(at, None)]);
    assert!(reader.health(Mono::ZERO).scrambled);
}

/// The demo without its marks, so that every picture is read.
fn unmarked() -> Vec<u8> {
    let mut bytes = DEMO[..900 * 188].to_vec();
    for packet in bytes.chunks_mut(188).filter(|p| p[3] & 0x20 != 0 && p[4] > 0) {
        packet[5] &= !0x40;
    }
    bytes
}

#[test]
fn marks_and_pictures_of_x264_agree() {
    let marked = points(&read(&mut TsReader::new(), &DEMO[..900 * 188]));
    assert!(marked.len() >= 11);
    assert_eq!(points(&read(&mut TsReader::new(), &unmarked())), marked);
}

proptest! {
    #[test]
    fn cuts_never_matter(
        seed in 0usize..880,
        noise in prop::collection::vec((0usize..900 * 188, any::<u8>()), 0..40),
        mut cuts in prop::collection::vec(0usize..900, 0..30),
    ) {
        let mut bytes = unmarked();
        for (at, byte) in noise {
            bytes[at] = byte;
        }
        let bytes = &bytes[seed * 188..];
        let mut whole = TsReader::new();
        let expected = read(&mut whole, bytes);
        let (mut cut, mut found, mut from) = (TsReader::new(), Vec::new(), 0);
        cuts.push(900);
        cuts.sort_unstable();
        for to in cuts {
            let to = (to * 188).clamp(from, bytes.len());
            cut.feed(Mono::from_millis(5), AT + from as u64, &bytes[from..to], &mut found);
            from = to;
        }
        prop_assert_eq!(found, expected);
        let json = |r: &TsReader| serde_json::to_string(&r.health(Mono::from_millis(5))).unwrap();
        prop_assert_eq!(json(&cut), json(&whole));
    }

    /// Random packets on few PIDs, so that tables, roles and units meet in every way.
    #[test]
    fn any_packets_are_read_in_bounded_memory(
        parts in prop::collection::vec(
            (0u8..4, prop::collection::vec(any::<u8>(), 188), 0u16..12, any::<u8>()), 1..80,
        ),
    ) {
        let mut reader = TsReader::new();
        let mut found = Vec::new();
        let mut now = 0u64;
        for (what, mut bytes, pid, kind) in parts {
            let pid = pid + 0x20;
            let stream = |n: u16| StreamSpec { kind, pid: pid + n, descriptors: &[] };
            let spec = PacketSpec { pid, continuity: kind & 15, ..PacketSpec::default() };
            let section = match what {
                0 => pat_section(kind, &[(1, pid), (2, pid + 1), (3, 0)]),
                1 => pmt_section(u16::from(kind) % 3, kind, pid, &[0, 1, 2, 3].map(stream)),
                _ => Vec::new(),
            };
            if !section.is_empty() {
                let pid = if what == 0 { 0 } else { pid };
                let spec = PacketSpec { pid, unit_start: true, ..spec };
                bytes = packet(&spec, &pointed(&section)).to_vec();
            } else if what == 2 {
                bytes[..7].copy_from_slice(&[0x47, 0x40, pid as u8, 0x10 | kind & 0x2F, 0, 0, 1]);
            } else {
                bytes[0] = 0x47;
            }
            now = now.wrapping_mul(31).wrapping_add(u64::from(kind));
            reader.feed(Mono::from_nanos(now), now, &bytes, &mut found);
            let health = reader.health(Mono::from_nanos(now / 2));
            prop_assert!(health.tracks.len() <= PIDS_WATCHED && health.warnings.len() < 8);
            for one in found.drain(..) {
                if let FoundKind::AccessPoint { tables, .. } = one.kind {
                    prop_assert!(!tables.is_empty() && tables.len() <= 64 * 188);
                }
            }
        }
    }
}
