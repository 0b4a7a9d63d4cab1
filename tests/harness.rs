//! The harness is tested before it judges anybody: generator, judge, clients.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;

use common::client::{End, Framing};
use common::http;
use common::judge::{Judge, Reference};
use common::ts::{self, Broadcast, PACKET, Shape};
use common::{PutStream, Watch, have, millis};

fn without_nulls(bytes: &[u8]) -> Vec<u8> {
    let packets = bytes.chunks_exact(PACKET);
    packets.filter(|packet| ts::pid(packet) != ts::NULL_PID).flatten().copied().collect()
}

/// What an ideal relay would send from the access point at packet `at` on.
fn ideal(reference: &Reference, bytes: &[u8], at: usize) -> Vec<u8> {
    assert!(reference.access_points().contains(&at));
    let mut body = bytes[..2 * PACKET].to_vec();
    body.extend_from_slice(&bytes[at * PACKET..]);
    body
}

#[test]
fn equal_seeds_make_equal_streams_with_right_counters() {
    let make = |seed| Broadcast::new(seed, Shape::new(1_000_000), 4.0);
    let stream = make(7);
    assert_eq!(stream.bytes, make(7).bytes);
    assert_ne!(stream.bytes, make(8).bytes);
    let rate = stream.bytes.len() as f64 * 8.0 / 4.0;
    assert!((0.7e6..1.3e6).contains(&rate), "{rate} bit/s");
    let mut last = std::collections::HashMap::new();
    for packet in stream.bytes.chunks_exact(PACKET) {
        assert_eq!(packet[0], 0x47);
        let counter = packet[3] & 15;
        if ts::pid(packet) != ts::NULL_PID
            && let Some(before) = last.insert(ts::pid(packet), counter)
        {
            assert_eq!(counter, (before + 1) & 15, "pid {:#x}", ts::pid(packet));
        }
    }
    assert_eq!(last.len(), 5, "PAT, PMT, video, audio, private");
    assert_eq!(Reference::new(&[&stream.bytes]).access_points().len(), 100_usize.div_ceil(12));
}

#[test]
fn the_judge_accepts_what_is_right_and_nothing_else() {
    let stream = Broadcast::new(3, Shape::new(1_000_000), 3.0);
    let bytes = without_nulls(&stream.bytes);
    let reference = Reference::new(&[&stream.bytes]);
    let points = reference.access_points();
    let whole = ideal(&reference, &bytes, points[1]);
    let verdict = Judge::on(&reference, &whole).expect("the ideal body is right");
    assert_eq!((verdict.start, verdict.end), (points[1], reference.packets()));
    assert!(verdict.jumps.is_empty());

    let mut flipped = whole.clone();
    flipped[5000] ^= 4;
    assert!(Judge::on(&reference, &flipped).is_err(), "a flipped bit");
    assert!(Judge::on(&reference, &whole[..whole.len() - 1]).is_err(), "half a packet");
    assert!(Judge::on(&reference, &whole[PACKET..]).is_err(), "no PAT");
    assert!(Judge::on(&reference, &bytes[3 * PACKET..]).is_err(), "no tables");
    let mut gap = whole.clone();
    gap.drain(100 * PACKET..101 * PACKET);
    assert!(Judge::on(&reference, &gap).is_err(), "a packet missing");
    let mut twice = whole.clone();
    twice.extend_from_within(100 * PACKET..101 * PACKET);
    assert!(Judge::on(&reference, &twice).is_err(), "a packet twice");
}

#[test]
fn the_judge_finds_jumps_and_resumes() {
    let first = Broadcast::new(3, Shape::new(1_000_000), 3.0);
    let second = Broadcast::new(4, Shape::new(1_000_000), 1.0);
    let bytes = without_nulls(&first.bytes);
    let reference = Reference::new(&[&first.bytes, &second.bytes]);
    let points = reference.access_points();
    // The worst place of a jump: right after a PAT and PMT of the stream itself.
    let cut = points[2] - 1;
    let mut body = ideal(&reference, &bytes[..cut * PACKET], points[0]);
    body.extend_from_slice(&ideal(&reference, &bytes, points[4]));
    body.extend_from_slice(&without_nulls(&second.bytes));
    let verdict = Judge::on(&reference, &body).expect("a clean jump is right");
    assert_eq!(verdict.jumps.len(), 1, "{verdict:?}");
    assert_eq!(verdict.jumps[0].1, points[4]);
    assert_eq!((verdict.resumes, verdict.end), (0, reference.packets()), "no gap: no resume");

    // The first run was cut where its publisher died.
    let mut body = ideal(&reference, &bytes[..cut * PACKET], points[0]);
    body.extend_from_slice(&without_nulls(&second.bytes));
    let verdict = Judge::on(&reference, &body).expect("a resume is right");
    assert_eq!((verdict.resumes, verdict.jumps.len()), (1, 0), "{verdict:?}");

    // A jump that repeats the tables but not at a key frame.
    let mut body = ideal(&reference, &bytes[..cut * PACKET], points[0]);
    body.extend_from_slice(&bytes[..2 * PACKET]);
    body.extend_from_slice(&bytes[(points[4] + 1) * PACKET..]);
    assert!(Judge::on(&reference, &body).is_err());
}

#[test]
fn ffprobe_takes_the_stream_for_h264_and_aac() {
    if !have(&["ffprobe"]) {
        return;
    }
    let stream = Broadcast::new(5, Shape::new(1_000_000), 3.0);
    let args = ["-v", "error", "-show_entries", "stream=codec_name,width", "-of", "csv=p=0", "-"];
    let mut probe = Command::new("ffprobe")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // ffprobe may stop reading when it knows enough.
    let _ = probe.stdin.take().unwrap().write_all(&stream.bytes);
    let output = probe.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("h264,320") && text.contains("aac"), "{text}");
}

/// A server that takes one connection per script: reads until the marker, then answers.
fn serve(scripts: Vec<(&'static [u8], Vec<u8>)>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (marker, answer) in scripts {
            let (mut stream, _) = listener.accept().unwrap();
            let mut got = Vec::new();
            let mut buffer = [0; 4096];
            while http::find(&got, marker).is_none() {
                let n = stream.read(&mut buffer).unwrap();
                assert!(n > 0, "closed before {marker:?}");
                got.extend_from_slice(&buffer[..n]);
            }
            stream.write_all(&answer).unwrap();
        }
    });
    address
}

#[test]
fn clients_speak_http() {
    let stream = Broadcast::new(9, Shape::new(500_000), 2.0);
    let bytes = without_nulls(&stream.bytes);
    let reference = Reference::new(&[&stream.bytes]);
    let mut live = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\n\r\n".to_vec();
    live.extend_from_slice(&ideal(&reference, &bytes, reference.access_points()[0]));
    let line = |status: &str| {
        let head = "Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nword\n";
        format!("HTTP/1.1 {status}\r\n{head}").into_bytes()
    };
    let address = serve(vec![
        (b"\r\n\r\n", line("404 Not Found")),
        (b"\r\n\r\n", live),
        (b"0\r\n\r\n", line("200 OK")),
        (b"the end", line("201 Created")),
    ]);
    http::get(address, "/nothing").assert_line(404);
    let seen = Watch::live(address, "x").judged(&reference).start().end();
    assert_eq!((seen.head.status, seen.end), (200, End::Closed));
    assert_eq!(seen.verdict.unwrap().unwrap().end, reference.packets());
    let mut put = PutStream::begin(address, "x");
    put.push(b"something");
    put.finish().assert_line(200);
    let mut put = PutStream::begin_with(address, "/live/x", Framing::Length(7), &[]);
    put.push(b"the end");
    put.finish().assert_line(201);
    assert!(common::key_hash("abc").starts_with("sha256:ba7816bf8f01cfea"));
    assert_eq!(Broadcast::due(25), millis(1000));
}
