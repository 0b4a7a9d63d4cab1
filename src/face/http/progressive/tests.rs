//! A viewer at a real ring, without sockets: what it gets when writes are short, when it lags,
//! and when the window has left it behind.

use super::*;
use crate::base::limits::SLAB_LARGE;
use crate::base::time::Utc;
use crate::ring::arena::Arena;
use crate::ring::window::{Settings, open};
use crate::ring::writer::Writer;

const PACKET: u64 = TS_PACKET as u64;
const RULES: Rules = Rules { max_lag: Duration::from_secs(5), max_jumps: 3 };
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

/// The `n`th packet of the stream: no two are alike.
fn packet(n: u64) -> [u8; TS_PACKET] {
    let mut packet = [n as u8 ^ 0x5A; TS_PACKET];
    packet[0] = 0x47;
    packet[1..9].copy_from_slice(&n.to_be_bytes());
    packet
}

fn packets(range: std::ops::Range<u64>) -> Vec<u8> {
    range.flat_map(packet).collect()
}

/// The tables of the access point at packet `n`.
fn tables(n: u64) -> Bytes {
    [packet(1 << 40 | n), packet(1 << 41 | n)].concat().into()
}

/// A stream in an arena of two large slabs.
struct Stage {
    writer: Writer,
    reader: Reader,
    now: Mono,
    count: u64,
}

impl Stage {
    fn new() -> Stage {
        let arena = Arena::create(2 * SLAB_LARGE as u64).unwrap();
        let settings = Settings { bytes: arena.bytes(), span: Duration::from_secs(600) };
        let (writer, window) = open(&arena, &settings, 0, 1).unwrap();
        Stage { writer, reader: Reader::new(window), now: Mono::from_millis(1_000), count: 0 }
    }

    /// An access point and `n` packets.
    fn group(&mut self, n: u64) {
        let at = self.count;
        for _ in 0..n {
            assert_eq!(self.writer.append(self.now, &packet(self.count)), TS_PACKET);
            self.writer.publish(self.now);
            self.count += 1;
            self.reader.release();
        }
        let kind = MarkKind::AccessPoint { pts: None, pat: 0, tables: tables(at) };
        self.writer.mark(Mark { at: at * PACKET, ingest: self.now, utc: Utc::default(), kind });
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }

    fn viewer(&self, at: u64, behind: Duration) -> Viewer {
        let start = Start { at: at * PACKET, tables: tables(at), exact: false };
        Viewer::new(self.now, &start, HEAD, behind, 65_536, &RULES)
    }

    fn poll(&mut self, viewer: &mut Viewer) -> Next {
        viewer.poll(self.now, &mut self.reader, u64::MAX, &RULES)
    }

    /// One send of which the kernel takes at most `most` bytes; nothing when there is no send.
    fn send(&mut self, viewer: &mut Viewer, most: usize) -> Option<Vec<u8>> {
        let parts = match self.poll(viewer) {
            Next::Send(parts) => parts,
            Next::Wait => return None,
            Next::TooSlow => panic!("too slow"),
        };
        let mut bytes = [parts[0].as_slice(), parts[1].as_slice()].concat();
        assert!(!bytes.is_empty());
        bytes.truncate(most);
        viewer.handle_sent(bytes.len(), &mut self.reader);
        Some(bytes)
    }

    /// Everything that it is owed, in sends of at most `most` bytes.
    fn take(&mut self, viewer: &mut Viewer, most: usize) -> Vec<u8> {
        std::iter::from_fn(|| self.send(viewer, most)).flatten().collect()
    }
}

#[test]
fn short_writes_at_every_split_lose_and_repeat_nothing() {
    let mut stage = Stage::new();
    stage.group(3);
    stage.group(4);
    let want = [HEAD, &tables(3), &packets(3..7)].concat();
    for most in 1..=want.len() {
        let mut viewer = stage.viewer(3, Duration::ZERO);
        assert_eq!(stage.take(&mut viewer, most), want, "in writes of {most}");
        assert_eq!((viewer.cursor(), viewer.jumps()), (7 * PACKET, 0));
    }
}

#[test]
fn one_send_at_a_time_and_none_while_blocked() {
    let mut stage = Stage::new();
    stage.group(2);
    let mut viewer = stage.viewer(0, Duration::ZERO);
    assert!(matches!(stage.poll(&mut viewer), Next::Send(_)));
    assert!(matches!(stage.poll(&mut viewer), Next::Wait), "the first is not answered yet");
    viewer.handle_blocked(stage.now);
    assert_eq!(viewer.blocked_since(), Some(stage.now));
    assert!(matches!(stage.poll(&mut viewer), Next::Wait));
    viewer.handle_writable();
    assert_eq!(viewer.blocked_since(), None);
    assert_eq!(stage.take(&mut viewer, 99), [HEAD, &tables(0), &packets(0..2)].concat());
}

#[test]
fn a_lagging_viewer_ends_its_packet_and_jumps_to_tables_and_key_frame() {
    for cut in 0..=2 * TS_PACKET {
        let mut stage = Stage::new();
        stage.group(9);
        let mut viewer = stage.viewer(0, Duration::ZERO);
        let before = HEAD.len() + tables(0).len();
        let mut got = stage.send(&mut viewer, before + cut).unwrap();
        stage.pass(3_000);
        stage.group(5);
        stage.pass(2_500);
        // Short writes inside what is sent at the jump, too.
        got.extend(stage.take(&mut viewer, 100));
        let whole = (cut as u64).div_ceil(PACKET);
        let want = [HEAD, &tables(0), &packets(0..whole), &tables(9), &packets(9..14)].concat();
        assert_eq!(got, want, "cut at {cut}");
        assert_eq!(viewer.jumps(), 1);
    }
}

#[test]
fn the_rest_of_a_packet_survives_the_window() {
    for cut in [0, 1, 187, 188, 200] {
        let mut stage = Stage::new();
        stage.group(9);
        let mut viewer = stage.viewer(0, Duration::ZERO);
        let mut got = stage.send(&mut viewer, HEAD.len() + tables(0).len() + cut).unwrap();
        // More than the whole arena at once, by the clock of one instant.
        for _ in 0..13 {
            stage.group(1_000);
        }
        assert!(stage.reader.window().tail() > viewer.cursor(), "overtaken");
        got.extend(stage.take(&mut viewer, 10_000));
        let whole = (cut as u64).div_ceil(PACKET);
        let last = packets(12_009..13_009);
        let want = [HEAD, &tables(0), &packets(0..whole), &tables(12_009), &last].concat();
        assert!(got == want, "cut at {cut}: {} bytes for {}", got.len(), want.len());
        assert_eq!(viewer.jumps(), 1);
    }
}

#[test]
fn a_prefix_is_whole_although_its_access_point_has_left_the_window() {
    let mut stage = Stage::new();
    stage.group(9);
    let mut viewer = stage.viewer(0, Duration::ZERO);
    let mut got = stage.send(&mut viewer, 5).unwrap();
    for _ in 0..13 {
        stage.group(1_000);
    }
    got.extend(stage.take(&mut viewer, 10_000));
    let want = [HEAD, &tables(0), &tables(12_009), &packets(12_009..13_009)].concat();
    assert!(got == want);
}

#[test]
fn too_many_jumps_in_a_minute_are_too_slow() {
    let fall_behind = |stage: &mut Stage| {
        stage.group(50);
        stage.pass(6_000);
        stage.group(50);
    };
    let mut stage = Stage::new();
    stage.group(9);
    let mut viewer = stage.viewer(0, Duration::ZERO);
    stage.take(&mut viewer, usize::MAX);
    for jump in 1..=RULES.max_jumps {
        fall_behind(&mut stage);
        stage.send(&mut viewer, 100_000);
        assert_eq!(viewer.jumps(), jump);
    }
    fall_behind(&mut stage);
    assert!(matches!(stage.poll(&mut viewer), Next::TooSlow));
    // A minute later the same is forgiven.
    let mut viewer = stage.viewer(stage.count - 50, Duration::ZERO);
    stage.take(&mut viewer, usize::MAX);
    for _ in 0..3 * RULES.max_jumps {
        fall_behind(&mut stage);
        stage.take(&mut viewer, usize::MAX);
        stage.pass(30_000);
    }
    assert_eq!(viewer.jumps(), 3 * RULES.max_jumps);
}

#[test]
fn who_began_in_the_past_may_stay_there_until_it_has_caught_up() {
    let mut stage = Stage::new();
    stage.group(10);
    stage.pass(10_000);
    stage.group(10);
    let mut viewer = stage.viewer(0, Duration::from_secs(10));
    stage.send(&mut viewer, HEAD.len() + tables(0).len() + 3 * TS_PACKET);
    stage.pass(4_900);
    assert!(!viewer.is_live());
    assert_eq!(stage.take(&mut viewer, usize::MAX), packets(3..20), "14.9 s behind: allowed");
    assert!(viewer.is_live() && viewer.jumps() == 0);
    stage.group(5);
    stage.pass(5_100);
    stage.group(5);
    assert_eq!(stage.take(&mut viewer, usize::MAX), [&tables(25)[..], &packets(25..30)].concat());
    assert_eq!(viewer.jumps(), 1, "it had caught up: 5.1 s are too much");
}

#[test]
fn without_an_access_point_ahead_it_goes_on_or_ends() {
    let mut stage = Stage::new();
    stage.group(10);
    let mut viewer = stage.viewer(0, Duration::ZERO);
    stage.pass(60_000);
    assert_eq!(stage.take(&mut viewer, usize::MAX).len(), HEAD.len() + 12 * TS_PACKET);
    assert_eq!(viewer.jumps(), 0, "what it waits for is the newest there is");
    for _ in 0..13_000 {
        stage.writer.append(stage.now, &packet(0));
        stage.writer.publish(stage.now);
    }
    assert!(matches!(stage.poll(&mut viewer), Next::TooSlow));
}

#[test]
fn the_backlog_is_the_lag_within_bounds() {
    let lag = Duration::from_secs(5);
    assert_eq!(backlog(8_000, lag), 16 * 1024);
    assert_eq!(backlog(160_000, lag), 100_000);
    assert_eq!(backlog(0, lag), 256 * 1024, "2 Mbit/s until it is known");
    assert_eq!(backlog(u64::MAX, Duration::MAX), 256 * 1024);
    let mut stage = Stage::new();
    stage.group(400);
    let start = Start { at: 0, tables: tables(0), exact: false };
    let mut viewer = Viewer::new(stage.now, &start, HEAD, lag, 20_000, &RULES);
    while let Some(write) = stage.send(&mut viewer, usize::MAX) {
        assert!(write.len() <= 10_000, "half of the backlog at most");
    }
}

/// Else a busy shard sends each viewer what came in while it served the others, in small pieces,
/// and so is never done: measured with 4,000 viewers, eight sends a round of 7 kB each.
#[test]
fn what_came_in_since_the_last_look_waits_for_the_next_round() {
    let mut stage = Stage::new();
    stage.group(10);
    let mut viewer = stage.viewer(0, Duration::ZERO);
    let limit = 6 * PACKET;
    let Next::Send(parts) = viewer.poll(stage.now, &mut stage.reader, limit, &RULES) else {
        panic!("the head and six packets");
    };
    let bytes: usize = parts.iter().map(Payload::len).sum();
    viewer.handle_sent(bytes, &mut stage.reader);
    assert_eq!(viewer.cursor(), limit);
    for limit in [limit, limit - PACKET] {
        assert!(matches!(viewer.poll(stage.now, &mut stage.reader, limit, &RULES), Next::Wait));
    }
    assert_eq!(stage.send(&mut viewer, usize::MAX).unwrap(), packets(6..10));
}
