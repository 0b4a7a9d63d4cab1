//! Streams that come in by UDP, RTP and raw TCP, from sockets of our own and from real encoders.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};

use common::client::{End, Framing};
use common::judge::{Judge, Reference};
use common::ts::{Broadcast, PACKET, Shape};
use common::{
    Driver, HOSTS, PutStream, Relay, Setup, Watch, both_drivers, have, millis, secs, skipped,
    wait_for,
};

both_drivers!(
    plain_datagrams_come_out_byte_for_byte,
    rtp_is_put_in_order_and_its_loss_is_counted,
    a_multicast_group_is_heard,
    the_first_source_keeps_the_stream_until_it_is_silent,
    who_is_not_allowed_is_not_heard,
    raw_tcp_is_one_connection_at_a_time,
    http_and_a_configured_ingest_exclude_each_other,
    a_sender_that_vanished_resumes_behind_a_break,
);

const RATE: u64 = 500_000;

fn run(seed: u64, seconds: f64) -> Broadcast {
    Broadcast::new(seed, Shape::new(RATE), seconds)
}

fn udp(host: IpAddr) -> UdpSocket {
    UdpSocket::bind((host, 0)).unwrap()
}

/// Datagrams as encoders make them: seven packets.
fn datagrams(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.chunks(7 * PACKET)
}

/// Sends frames at twice the speed of life, so that no buffer overflows.
fn send(socket: &UdpSocket, to: SocketAddr, stream: &Broadcast) {
    for frame in 0..stream.frames() {
        for datagram in datagrams(stream.slice(frame, frame + 1)) {
            socket.send_to(datagram, to).unwrap();
        }
        common::pass(millis(20));
    }
}

fn count(relay: &Relay, outcome: &str) -> f64 {
    let label = format!("outcome=\"{outcome}\"");
    relay.metric("headwater_ingest_datagrams_total", &[&label]).unwrap()
}

fn proto(relay: &Relay, stream: &str) -> String {
    relay.status(stream).unwrap()["proto"].as_str().unwrap().to_owned()
}

fn rtp(sequence: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 33];
    packet.extend(sequence.to_be_bytes());
    packet.extend(u32::from(sequence).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

fn plain_datagrams_come_out_byte_for_byte(driver: Driver) {
    for host in HOSTS {
        let address = SocketAddr::new(host, 0);
        let relay = Setup::new(driver)
            .host(host)
            .set("streams.linger", "1s")
            .ingest(&format!("stream = \"first\"\nudp = \"{address}\""))
            .ingest(&format!("stream = \"cam\"\nudp = \"{address}\""))
            .start();
        let (to, stream) = (relay.ingest("cam"), run(1, 3.0));
        let socket = udp(host);
        let (head, rest) = stream.bytes.split_at(stream.ends[24]);
        for datagram in datagrams(head) {
            socket.send_to(datagram, to).unwrap();
        }
        relay.wait_live("cam");
        let viewer = Watch::live(relay.http, "cam").start();
        viewer.wait_bytes(PACKET, secs(10));
        for datagram in datagrams(rest) {
            socket.send_to(datagram, to).unwrap();
            common::pass(millis(2));
        }
        relay.wait_ingested("cam", stream.bytes.len());
        assert_eq!(proto(&relay, "cam"), "udp");
        let seen = viewer.end();
        assert_eq!(seen.end, End::Closed, "the linger ends the viewer");
        let reference = Reference::new(&[&stream.bytes]);
        let verdict = Judge::on(&reference, &seen.body).unwrap();
        assert_eq!(verdict.end, reference.packets(), "{verdict:?}");
        assert!(verdict.jumps.is_empty() && verdict.resumes == 0, "{verdict:?}");
        let bytes = relay.metric("headwater_ingest_bytes_total", &["proto=\"http\""]);
        assert_eq!(bytes, None, "nothing came over HTTP");
        assert!(count(&relay, "taken") > 0.0);
    }
}

fn rtp_is_put_in_order_and_its_loss_is_counted(driver: Driver) {
    let relay = Setup::new(driver)
        .set("streams.linger", "1s")
        .ingest("stream = \"cam\"\nudp = \"127.0.0.1:0\"")
        .start();
    let (to, socket) = (relay.ingest("cam"), udp(HOSTS[0]));
    let stream = run(2, 3.0);
    let chunks: Vec<&[u8]> = datagrams(&stream.bytes).collect();
    let mut order: Vec<usize> = (0..chunks.len()).collect();
    // From a place where a viewer has joined: swaps, and a packet four places late.
    let late = chunks.len() / 2;
    (late..late + 12).step_by(3).for_each(|n| order.swap(n, n + 1));
    order[late + 20..late + 25].rotate_left(1);
    let send = |n: usize| {
        let packet = rtp(65_500_u16.wrapping_add(n as u16), 77, chunks[n]);
        socket.send_to(&packet, to).unwrap();
        common::pass(millis(2));
    };
    order[..late].iter().for_each(|n| send(*n));
    relay.wait_live("cam");
    let viewer = Watch::live(relay.http, "cam").start();
    viewer.wait_bytes(PACKET, secs(10));
    order[late..].iter().for_each(|n| send(*n));
    relay.wait_ingested("cam", stream.bytes.len());
    assert_eq!(proto(&relay, "cam"), "rtp");
    let reordered = relay.metric("headwater_ingest_rtp_reordered_total", &[]);
    assert_eq!(reordered, Some(5.0));
    assert_eq!(relay.metric("headwater_ingest_rtp_lost_total", &[]), Some(0.0));
    let end = 65_500_u16.wrapping_add(chunks.len() as u16);
    // Two that never come, in front of one that does; one that came already; one that is none.
    let null = [&[0x47, 0x1f, 0xff, 0x10][..], &[0xff; PACKET - 4]].concat();
    socket.send_to(&rtp(end.wrapping_add(2), 77, &null), to).unwrap();
    socket.send_to(&rtp(end.wrapping_sub(1), 77, chunks[0]), to).unwrap();
    socket.send_to(&rtp(0, 77, b"no packets"), to).unwrap();
    wait_for("the loss counted", secs(2), || {
        let lost = relay.metric("headwater_ingest_rtp_lost_total", &[]);
        (lost == Some(2.0)).then_some(())
    });
    assert_eq!((count(&relay, "late"), count(&relay, "bad_rtp")), (1.0, 1.0));
    let reference = Reference::new(&[&stream.bytes]);
    let verdict = Judge::on(&reference, &viewer.end().body).unwrap();
    assert_eq!(verdict.end, reference.packets(), "{verdict:?}");
    assert!(verdict.jumps.is_empty() && verdict.resumes == 0, "{verdict:?}");
}

fn a_multicast_group_is_heard(driver: Driver) {
    let socket = udp(HOSTS[0]);
    let group = Ipv4Addr::new(239, 255, 77, 1);
    let table = format!(
        "stream = \"cam\"\nudp = \"{group}:0\"\ninterface = \"127.0.0.1\"\n\
         allow = [\"127.0.0.0/8\"]"
    );
    let relay = match Setup::new(driver).ingest(&table).try_start() {
        Ok(relay) => relay,
        Err(failed) if failed.log.contains("cannot join the group") => {
            return skipped("multicast", &failed.log);
        }
        Err(failed) => panic!("{}", failed.log),
    };
    let lo = socket2::SockRef::from(&socket);
    lo.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
    lo.set_multicast_loop_v4(true).unwrap();
    let stream = run(3, 1.0);
    if let Err(why) = socket.send_to(&stream.bytes[..7 * PACKET], relay.ingest("cam")) {
        return skipped("multicast", &format!("loopback takes none: {why}"));
    }
    send(&socket, relay.ingest("cam"), &stream);
    relay.wait_live("cam");
    relay.wait_ingested("cam", stream.bytes.len());
}

fn the_first_source_keeps_the_stream_until_it_is_silent(driver: Driver) {
    let relay = Setup::new(driver)
        .set("streams.linger", "5s")
        .ingest("stream = \"cam\"\nudp = \"127.0.0.1:0\"")
        .start();
    let to = relay.ingest("cam");
    let (one, two) = (udp(HOSTS[0]), udp(HOSTS[0]));
    let (first, second) = (run(4, 1.0), run(5, 1.0));
    send(&one, to, &first);
    let silent = std::time::Instant::now();
    relay.wait_live("cam");
    let viewer = Watch::live(relay.http, "cam").start();
    send(&two, to, &second);
    let refused = datagrams(&second.bytes).count();
    wait_for("the other source counted", secs(2), || {
        (count(&relay, "foreign") >= refused as f64).then_some(())
    });
    while silent.elapsed() < millis(2900) {
        let before = relay.metric("headwater_ingest_bytes_total", &["stream=\"cam\""]);
        two.send_to(&second.bytes[..7 * PACKET], to).unwrap();
        common::pass(millis(50));
        let after = relay.metric("headwater_ingest_bytes_total", &["stream=\"cam\""]);
        assert!(silent.elapsed() > secs(3) || before == after, "{:?}", silent.elapsed());
    }
    common::pass(millis(200));
    send(&two, to, &second);
    relay.wait_live("cam");
    relay.wait_ingested("cam", first.bytes.len() + second.bytes.len());
    let before = count(&relay, "foreign");
    one.send_to(&first.bytes[..7 * PACKET], to).unwrap();
    wait_for("the first source is the other one now", secs(2), || {
        (count(&relay, "foreign") > before).then_some(())
    });
    drop(viewer.stop());
}

fn who_is_not_allowed_is_not_heard(driver: Driver) {
    let relay = Setup::new(driver)
        .ingest("stream = \"cam\"\nudp = \"127.0.0.1:0\"\nallow = [\"127.0.0.2/32\"]")
        .ingest("stream = \"wire\"\ntcp = \"127.0.0.1:0\"\nallow = [\"127.0.0.2\"]")
        .start();
    let (to, stream) = (relay.ingest("cam"), run(6, 0.5));
    send(&udp(HOSTS[0]), to, &stream);
    wait_for("the stranger counted", secs(2), || {
        let sent = datagrams_of(&stream);
        (count(&relay, "refused") >= sent as f64).then_some(())
    });
    assert_eq!(relay.state("cam"), "");
    let mut tcp = TcpStream::connect(relay.ingest("wire")).unwrap();
    tcp.set_read_timeout(Some(secs(5))).unwrap();
    assert!(matches!(tcp.read(&mut [0; 9]), Ok(0) | Err(_)), "closed");
    let refused = relay.metric("headwater_ingest_connections_refused_total", &["address"]);
    assert_eq!(refused, Some(1.0));
    let friend = UdpSocket::bind("127.0.0.2:0").unwrap();
    friend.send_to(b"noise", to).unwrap();
    send(&friend, to, &stream);
    relay.wait_live("cam");
    assert_eq!(count(&relay, "malformed"), 1.0);
}

fn datagrams_of(stream: &Broadcast) -> usize {
    (0..stream.frames()).map(|n| datagrams(stream.slice(n, n + 1)).count()).sum()
}

fn raw_tcp_is_one_connection_at_a_time(driver: Driver) {
    for host in HOSTS {
        let address = SocketAddr::new(host, 0);
        let relay = Setup::new(driver)
            .set("streams.linger", "1s")
            .ingest(&format!("stream = \"cam\"\ntcp = \"{address}\""))
            .start();
        let (to, first, second) = (relay.ingest("cam"), run(7, 2.0), run(8, 1.0));
        let mut one = TcpStream::connect(to).unwrap();
        let (head, rest) = first.bytes.split_at(first.ends[24]);
        one.write_all(head).unwrap();
        relay.wait_live("cam");
        let viewer = Watch::live(relay.http, "cam").start();
        viewer.wait_bytes(PACKET, secs(10));
        let mut two = TcpStream::connect(to).unwrap();
        two.set_read_timeout(Some(secs(5))).unwrap();
        assert!(matches!(two.read(&mut [0; 9]), Ok(0) | Err(_)), "the second one is closed");
        one.write_all(rest).unwrap();
        relay.wait_ingested("cam", first.bytes.len());
        assert_eq!(proto(&relay, "cam"), "tcp");
        drop(one);
        wait_for("the end noticed", secs(2), || (relay.state("cam") == "held").then_some(()));
        let mut three = TcpStream::connect(to).unwrap();
        three.write_all(&second.bytes).unwrap();
        relay.wait_ingested("cam", first.bytes.len() + second.bytes.len());
        drop(three);
        let reference = Reference::new(&[&first.bytes, &second.bytes]);
        let verdict = Judge::on(&reference, &viewer.end().body).unwrap();
        assert_eq!(verdict.end, reference.packets(), "{verdict:?}");
        let refused = relay.metric("headwater_ingest_connections_refused_total", &["foreign"]);
        assert_eq!(refused, Some(1.0));
        assert_eq!(relay.status("cam").map(|s| s["discontinuities"].clone()), None, "it is over");
    }
}

fn http_and_a_configured_ingest_exclude_each_other(driver: Driver) {
    let relay = Setup::new(driver)
        .ingest("stream = \"cam\"\nudp = \"127.0.0.1:0\"")
        .ingest("stream = \"wire\"\ntcp = \"127.0.0.1:0\"")
        .start();
    let stream = run(9, 1.0);
    send(&udp(HOSTS[0]), relay.ingest("cam"), &stream);
    relay.wait_live("cam");
    let mut put = PutStream::begin_with(relay.http, "/live/cam", Framing::Chunked, &[]);
    put.response().assert_line(409);
    let mut put = PutStream::begin(relay.http, "wire");
    put.push(&stream.bytes);
    relay.wait_live("wire");
    let mut tcp = TcpStream::connect(relay.ingest("wire")).unwrap();
    tcp.set_read_timeout(Some(secs(5))).unwrap();
    tcp.write_all(&stream.bytes[..7 * PACKET]).unwrap();
    assert!(matches!(tcp.read(&mut [0; 9]), Ok(0) | Err(_)), "closed");
    let refused = relay.metric("headwater_ingest_connections_refused_total", &["no_seat"]);
    assert_eq!(refused, Some(1.0));
    assert!(matches!(put.finish().status, 200 | 201), "the first is not disturbed");
}

fn a_sender_that_vanished_resumes_behind_a_break(driver: Driver) {
    let relay = Setup::new(driver)
        .set("streams.linger", "2s")
        .ingest("stream = \"cam\"\nudp = \"127.0.0.1:0\"")
        .start();
    let (to, socket) = (relay.ingest("cam"), udp(HOSTS[0]));
    let (first, second) = (run(10, 1.0), run(11, 1.0));
    send(&socket, to, &first);
    relay.wait_live("cam");
    let viewer = Watch::live(relay.http, "cam").start();
    wait_for("the silence noticed", secs(4), || (relay.state("cam") == "held").then_some(()));
    assert!(!viewer.has_ended(), "viewers are held");
    send(&socket, to, &second);
    relay.wait_live("cam");
    assert_eq!(relay.status("cam").unwrap()["discontinuities"], 1);
    let vanished = relay.metric("headwater_publishers_vanished_total", &[]);
    assert_eq!(vanished, Some(1.0));
    let reference = Reference::new(&[&first.bytes, &second.bytes]);
    let verdict = Judge::on(&reference, &viewer.end().body).unwrap();
    assert_eq!(verdict.end, reference.packets(), "{verdict:?}");
}

/// A program that dies with its test.
struct Tool(Child);

impl Tool {
    fn run(relay: &Relay, program: &str, arguments: &[&str]) -> Tool {
        let errors = File::create(relay.dir.path().join(format!("{program}.err"))).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn();
        Tool(child.unwrap())
    }

    /// An encoder that sends a picture and a tone to `url` until it is killed.
    fn encode(relay: &Relay, format: &str, url: &str) -> Tool {
        let picture = ["-re", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25"];
        let tone = ["-re", "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"];
        let codec = ["-c:v", "mpeg2video", "-g", "25", "-c:a", "mp2", "-f", format, url];
        let quiet = ["-hide_banner", "-nostdin", "-v", "error"];
        Tool::run(relay, "ffmpeg", &[&quiet[..], &picture, &tone, &codec].concat())
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the relay knows both tracks and no packet was lost.
#[track_caller]
fn wait_whole(relay: &Relay, name: &str, way: &str) {
    wait_for("both tracks of the encoder", secs(30), || {
        let status = relay.status(name)?;
        (status["tracks"].as_array()?.len() == 2).then_some(())
    });
    let status = relay.status(name).unwrap();
    assert_eq!((&status["continuity_errors"], status["proto"].as_str()), (&0.into(), Some(way)));
}

#[test]
fn ffmpeg_sends_udp_rtp_and_tcp() {
    if !have(&["ffmpeg"]) {
        return;
    }
    for driver in Driver::available() {
        let relay = Setup::new(driver)
            .ingest("stream = \"udp\"\nudp = \"127.0.0.1:0\"")
            .ingest("stream = \"rtp\"\nudp = \"127.0.0.1:0\"")
            .ingest("stream = \"tcp\"\ntcp = \"127.0.0.1:0\"")
            .start();
        let url = format!("udp://{}?pkt_size=1316", relay.ingest("udp"));
        let _udp = Tool::encode(&relay, "mpegts", &url);
        let _rtp = Tool::encode(&relay, "rtp_mpegts", &format!("rtp://{}", relay.ingest("rtp")));
        let _tcp = Tool::encode(&relay, "mpegts", &format!("tcp://{}", relay.ingest("tcp")));
        for way in ["udp", "rtp", "tcp"] {
            wait_whole(&relay, way, way);
        }
    }
}

/// README's line for SRT, with other ports.
#[test]
fn srt_comes_in_through_srt_live_transmit() {
    let readme = include_str!("../README.md");
    let line = readme.lines().find(|line| line.starts_with("srt-live-transmit "));
    let words: Vec<&str> = line.expect("README has the line").split_whitespace().collect();
    let [program, from, to] = words[..] else { panic!("{words:?}") };
    if !have(&["ffmpeg"]) {
        return;
    }
    // It has no option that ends well: only whether it can be started counts.
    let mut there = Command::new(program);
    there.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(why) = there.status() {
        return skipped(program, &why.to_string());
    }
    let protocols = Command::new("ffmpeg").args(["-v", "error", "-protocols"]).output().unwrap();
    if !String::from_utf8_lossy(&protocols.stdout).lines().any(|line| line.trim() == "srt") {
        return skipped("srt", "this ffmpeg does not speak it");
    }
    for driver in Driver::available() {
        let relay = Setup::new(driver).ingest("stream = \"cam1\"\nudp = \"127.0.0.1:0\"").start();
        // A port that is free now: the kernel chose it for a socket that is closed again.
        let port = udp(HOSTS[0]).local_addr().unwrap().port();
        let from = from.trim_matches('\'').replace("9000", &port.to_string());
        let to = to.trim_matches('\'').replace("127.0.0.1:5000", &relay.ingest("cam1").to_string());
        let _transmit = Tool::run(&relay, program, &[&from, &to]);
        wait_for("the listener of srt-live-transmit", secs(10), || {
            UdpSocket::bind(("0.0.0.0", port)).is_err().then_some(())
        });
        let _encoder =
            Tool::encode(&relay, "mpegts", &format!("srt://127.0.0.1:{port}?pkt_size=1316"));
        wait_whole(&relay, "cam1", "udp");
    }
}
