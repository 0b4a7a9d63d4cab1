//! Segments through the connection: read from a window, cut by the socket anywhere.

use std::time::Duration;

use super::*;
use crate::base::limits::{SLAB_LARGE, SLAB_SMALL, TS_PACKET};
use crate::base::segment::Segment;
use crate::base::time::Utc;
use crate::face::http::exchange::HlsRequest;
use crate::ring::arena::Arena;
use crate::ring::reader::{Overtaken, Reader};
use crate::ring::window;
use crate::ring::writer::Writer;

const TAG: &str = "\"1-7\"";

/// A window with numbered bytes, and a segment of it that crosses a slab.
struct Shelf {
    writer: Writer,
    reader: Reader,
    bytes: Vec<u8>,
    segment: Segment,
}

fn shelf() -> Shelf {
    let arena = Arena::create(4 * SLAB_LARGE as u64).unwrap();
    let settings = window::Settings { bytes: 0, span: Duration::from_secs(60) };
    let (mut writer, window) = window::open(&arena, &settings, 0, 1).unwrap();
    let packets = 3 * SLAB_SMALL / TS_PACKET;
    let bytes: Vec<u8> = (0..packets * TS_PACKET).map(|n| (n / 7 % 251) as u8).collect();
    assert_eq!(writer.append(Mono::ZERO, &bytes), bytes.len());
    writer.publish(Mono::ZERO);
    let segment = Segment {
        sequence: 7,
        breaks: 0,
        discontinuity: false,
        begin: 10 * TS_PACKET as u64,
        end: (SLAB_SMALL + 40_000 / TS_PACKET * TS_PACKET) as u64,
        ticks: 180_000,
        utc: Utc::default(),
        tables: Bytes::from(vec![0x47; 2 * TS_PACKET]),
    };
    Shelf { writer, reader: Reader::new(window), bytes, segment }
}

impl Shelf {
    fn file(&self) -> Vec<u8> {
        let stretch = self.segment.begin as usize..self.segment.end as usize;
        [&self.segment.tables[..], &self.bytes[stretch]].concat()
    }
}

/// What a client of one connection gets for its requests, of a socket that takes `takes` at once.
fn serve(shelf: &mut Shelf, requests: &str, takes: usize) -> Result<(Probe, usize), Overtaken> {
    let mut probe = Probe::new(Shard::Thinks);
    probe.conn.handle_received(probe.now, requests.as_bytes(), &mut |_| {});
    let mut from_window = 0;
    loop {
        match probe.conn.poll(probe.now, &mut probe.site) {
            Event::Hls(request) => answer(&mut probe, shelf, &request),
            Event::None => {}
            other => panic!("{other:?}"),
        }
        let parts = match probe.conn.is_downloading() {
            true => probe.conn.next_read(&mut shelf.reader)?,
            false => probe.conn.next_send(),
        };
        let Some(parts) = parts else { return Ok((probe, from_window)) };
        let all = parts.iter().flat_map(|part| part.as_slice().to_vec());
        let before = probe.wire.len();
        probe.wire.extend(all.take(takes));
        let n = probe.wire.len() - before;
        assert!(n > 0 && n <= crate::base::limits::SEND_MAX);
        from_window += probe.conn.handle_sent(probe.now, n);
        shelf.reader.release();
    }
}

fn answer(probe: &mut Probe, shelf: &Shelf, request: &HlsRequest) {
    assert_eq!(request.name.as_str(), "cam.2");
    probe.conn.segment(probe.now, request, &shelf.segment, TAG);
}

fn get(extra: &str) -> String {
    format!("GET /live/cam.2/seg/1-7.ts HTTP/1.1\r\nHost: a\r\n{extra}\r\n")
}

/// The bodies behind the heads, by their lengths.
fn bodies(mut wire: &[u8]) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    while !wire.is_empty() {
        let end = wire.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(wire[..end].to_vec()).unwrap();
        let length = head
            .split("Content-Length: ")
            .nth(1)
            .map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
        bodies.push(wire[end..end + length].to_vec());
        wire = &wire[end + length..];
    }
    bodies
}

#[test]
fn a_segment_is_whole_however_the_socket_cuts_it() {
    let mut shelf = shelf();
    let file = shelf.file();
    for takes in [usize::MAX, 60_000, 1_000, 333] {
        // Two on one connection, a part that lies in the tables, one across, one behind.
        let asked = [
            get(""),
            get("Range: bytes=5-9\r\n"),
            get("Range: bytes=300-700\r\n"),
            get("Range: bytes=-1000\r\n"),
            get("If-None-Match: \"1-7\"\r\n"),
            get(""),
        ];
        let (probe, read) = serve(&mut shelf, &asked.concat(), takes).unwrap();
        let want = [
            file.clone(),
            file[5..10].to_vec(),
            file[300..701].to_vec(),
            file[file.len() - 1000..].to_vec(),
            Vec::new(),
            file.clone(),
        ];
        assert!(bodies(&probe.wire) == want, "takes {takes}");
        let stretch = (shelf.segment.end - shelf.segment.begin) as usize;
        assert_eq!(read, 2 * stretch + (701 - 376) + 1000);
        assert!(probe.is_open(), "kept alive");
    }
}

#[test]
fn what_has_left_the_window_is_an_error_and_no_other_bytes() {
    let mut shelf = shelf();
    let (begun, _) = serve(&mut shelf, &get(""), 1_000).unwrap();
    assert!(!begun.wire.is_empty());
    // The window moves on by more than it holds.
    let more = vec![9; SLAB_LARGE / TS_PACKET * TS_PACKET];
    for second in 1..8 {
        shelf.writer.append(Mono::from_millis(second * 1000), &more);
        shelf.writer.publish(Mono::from_millis(second * 1000));
    }
    assert!(shelf.reader.window().tail() > shelf.segment.begin);
    assert_eq!(serve(&mut shelf, &get(""), 1_000).err(), Some(Overtaken));
}

#[test]
fn a_player_that_takes_nothing_is_closed_in_time() {
    let mut shelf = shelf();
    let mut probe = Probe::new(Shard::Thinks);
    probe.conn.handle_received(probe.now, get("").as_bytes(), &mut |_| {});
    let Event::Hls(request) = probe.conn.poll(probe.now, &mut probe.site) else { panic!() };
    answer(&mut probe, &shelf, &request);
    assert!(probe.conn.next_read(&mut shelf.reader).unwrap().is_some());
    assert!(probe.conn.next_read(&mut shelf.reader).unwrap().is_none(), "one at a time");
    probe.conn.handle_blocked();
    assert!(probe.conn.next_read(&mut shelf.reader).unwrap().is_none());
    probe.pass(Duration::from_secs(11));
    assert_eq!(probe.wishes, [SocketWish::Close]);
    assert!(!probe.conn.is_downloading());
}
