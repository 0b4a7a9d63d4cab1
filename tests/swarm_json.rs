//! The invitation into a stream's swarm, and what it stands on: the signing of streams, keys
//! that outlive the relay, and the stream from any byte on over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use common::ts::{Broadcast, NULL_PID, PACKET, Shape, pid};
use common::{
    Driver, HOSTS, Idle, Publisher, PutStream, Relay, Setup, both_drivers, http, secs, wait_for,
};
use headwater::base::limits::CHUNK;
use headwater::wire::swarm_json::SwarmJson;
use rustix::process::Signal;

both_drivers!(
    peers_are_invited_once_the_bitrate_is_known,
    the_stream_is_there_from_any_byte_on,
    an_open_subtree_is_completed_and_signed,
    a_restart_keeps_the_swarm_and_goes_forward,
    a_broken_file_refuses_its_stream_by_path,
    without_a_swarm_nothing_is_signed,
);

const RATE: u64 = 2_000_000;

fn run(seed: u64, seconds: f64) -> Broadcast {
    Broadcast::new(seed, Shape::new(RATE), seconds)
}

fn invitation(relay: &Relay, name: &str) -> Option<SwarmJson> {
    let answer = relay.get(&format!("/live/{name}/swarm.json"));
    match answer.status {
        200 => {
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            Some(serde_json::from_slice(&answer.body).unwrap())
        }
        503 => {
            answer.assert_line(503);
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            None
        }
        other => panic!("{other}: {}", answer.text()),
    }
}

/// The first invitation that names a place to begin.
fn wait_invited(relay: &Relay, name: &str) -> SwarmJson {
    relay.wait_live(name);
    wait_for("an invitation with an access point", secs(15), || {
        invitation(relay, name).filter(|invited| !invited.access_points.is_empty())
    })
}

/// `len` bytes of the stream from `at` on.
fn fetch(relay: &Relay, name: &str, at: u64, len: usize) -> Vec<u8> {
    let mut connection = http::connect(relay.http);
    let target = format!("/live/{name}.ts?at={at}");
    connection.send(&http::head(relay.http, "GET", &target, &[]));
    let head = connection.response_head(secs(10));
    assert_eq!(head.status, 200, "{head:?}");
    assert_eq!(head.header("headwater-offset"), Some(&*at.to_string()));
    wait_for("bytes", secs(10), || {
        if connection.pending().len() < len {
            assert!(connection.fill(secs(10)).unwrap(), "closed");
        }
        (connection.pending().len() >= len).then_some(())
    });
    connection.pending()[..len].to_vec()
}

fn without_null(bytes: &[u8]) -> Vec<u8> {
    let packets = bytes.chunks_exact(PACKET).filter(|packet| pid(packet) != NULL_PID);
    packets.flatten().copied().collect()
}

fn peers_are_invited_once_the_bitrate_is_known(driver: Driver) {
    for host in HOSTS {
        let relay = Setup::new(driver).host(host).start();
        assert_eq!(relay.get("/live/cam/swarm.json").status, 404, "no such stream");
        let stream = run(1, 9.0);
        let publisher = Publisher::start(relay.http, "cam", &stream);
        let began = Instant::now();
        relay.wait_live("cam");
        assert_eq!(invitation(&relay, "cam"), None, "nothing is known of it yet");
        let invited = wait_invited(&relay, "cam");
        assert!(began.elapsed() >= secs(2), "the bitrate is looked at for two seconds");
        let id = &invited.swarm_id;
        assert!(id.len() == 130 && id.starts_with("0d"), "{id}");
        assert_eq!((invited.ext, invited.chunk_size, invited.chunk_addressing), (1, 1316, 4));
        assert_eq!((invited.integrity, invited.hash, invited.signature), (3, 2, 13));
        assert_eq!(invited.chunks_per_signature, 16);
        assert_eq!(invited.udp, [relay.ready["swarm"].as_str().unwrap()]);
        assert!(invited.alternates.is_empty());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        assert!(now.abs_diff(invited.live.now) < 2_000, "{} {now}", invited.live.now);
        let head = relay.status("cam").unwrap()["head"].as_u64().unwrap();
        assert!(invited.live.signed * CHUNK as u64 <= head);
        assert_eq!(invited.live.signed % 16, 0);
        let point = *invited.access_points.last().unwrap();
        assert!(point.chunk < invited.live.signed && point.age_ms < 3_000, "{point:?}");
        let at = point.chunk * CHUNK as u64 + u64::from(point.offset);
        let bytes = fetch(&relay, "cam", at, 10 * PACKET);
        assert_eq!((bytes[0], pid(&bytes)), (0x47, 0), "a PAT");
        let later = wait_for("a subtree more", secs(5), || {
            invitation(&relay, "cam").filter(|later| later.live.signed > invited.live.signed)
        });
        assert_eq!(later.swarm_id, invited.swarm_id);
        drop(publisher.silence());
    }
    let told = ["relay.example:7000"];
    let relay = Setup::new(driver)
        .set("swarm.advertise", told.map(toml::Value::from).to_vec())
        .set("swarm.chunk_addressing", 2)
        .set("swarm.chunks_per_signature", 4)
        .start();
    let publisher = Publisher::start(relay.http, "cam", &run(2, 5.0));
    let invited = wait_invited(&relay, "cam");
    assert_eq!(invited.udp, told);
    assert_eq!((invited.chunk_addressing, invited.chunks_per_signature), (2, 4));
    drop(publisher.silence());
}

fn the_stream_is_there_from_any_byte_on(driver: Driver) {
    let relay = Setup::new(driver).set("swarm.chunks_per_signature", 16).start();
    let stream = run(3, 12.0);
    let publisher = Publisher::start(relay.http, "cam", &stream);
    relay.wait_live("cam");
    relay.wait_ingested("cam", 400_000);
    let head = || relay.status("cam").unwrap()["head"].as_u64().unwrap();
    let all = fetch(&relay, "cam", 0, 400 * PACKET);
    let sent = without_null(&stream.bytes);
    let got = without_null(&all);
    assert_eq!(got, sent[..got.len()], "what was published, and null packets");
    for packet in [1, 7, 50, 333] {
        let part = fetch(&relay, "cam", (packet * PACKET) as u64, 20 * PACKET);
        assert_eq!(part, all[packet * PACKET..][..20 * PACKET], "from packet {packet} on");
    }
    // A little ahead: it waits.
    let ahead = head() + 300 * PACKET as u64;
    let began = Instant::now();
    let part = fetch(&relay, "cam", ahead, 10 * PACKET);
    assert!(began.elapsed() < secs(4));
    assert_eq!(part, fetch(&relay, "cam", ahead, 10 * PACKET));
    for (target, status) in [
        ("/live/cam.ts?at=189", 400),
        ("/live/cam.ts?at=0&start=-1s", 400),
        ("/live/nobody.ts?at=0", 404),
        ("/live/cam.ts?at=188000000000", 503),
    ] {
        assert_eq!(relay.get(target).status, status, "{target}");
    }
    drop(publisher.silence());
    // More than the window holds.
    let long = Broadcast::new(4, Shape::new(24_000_000), 5.0);
    let mut put = PutStream::begin(relay.http, "long");
    put.push(&long.bytes);
    relay.wait_ingested("long", long.bytes.len());
    relay.get("/live/long.ts?at=0").assert_line(410);
    put.finish();
}

fn an_open_subtree_is_completed_and_signed(driver: Driver) {
    let relay = Setup::new(driver).set("swarm.chunks_per_signature", 16).start();
    let stream = run(5, 2.0);
    let mut put = PutStream::begin(relay.http, "cam");
    let half = stream.bytes.len() / 2 / PACKET * PACKET;
    put.push(&stream.bytes[..half]);
    relay.wait_live("cam");
    wait_invited(&relay, "cam");
    // It goes on, and then says no more, in the middle of a subtree.
    put.push(&stream.bytes[half..]);
    let idle = put;
    let signed = wait_for("everything is signed", secs(2), || {
        let head = relay.status("cam")?["head"].as_u64()?;
        let signed = invitation(&relay, "cam")?.live.signed * CHUNK as u64;
        (signed == head && head > stream.bytes.len() as u64).then_some(signed)
    });
    assert!(signed.is_multiple_of(16 * CHUNK as u64));
    let metric = |name| relay.metric(name, &[]).unwrap_or_default();
    assert!(metric("headwater_subtrees_signed_total") >= 10.0);
    let padding = metric("headwater_padding_bytes_total");
    assert!(padding > 0.0 && padding <= 16.0 * CHUNK as f64 * 2.0, "{padding}");
    drop(idle);
}

fn a_restart_keeps_the_swarm_and_goes_forward(driver: Driver) {
    let state = tempfile::tempdir().unwrap();
    let mut before: Option<SwarmJson> = None;
    for (n, signal) in [Signal::TERM, Signal::KILL, Signal::TERM].into_iter().enumerate() {
        let mut relay = Setup::new(driver).state(state.path()).start();
        let publisher = Publisher::start(relay.http, "cam", &run(6 + n as u64, 12.0));
        let invited = wait_invited(&relay, "cam");
        if let Some(before) = &before {
            assert_eq!(invited.swarm_id, before.swarm_id, "the same swarm");
            assert!(invited.live.now >= before.live.now, "{invited:?} after {before:?}");
            let first = invited.access_points.iter().map(|point| point.chunk).min().unwrap();
            assert!(first >= before.live.signed, "{first} was used before");
        }
        before = invitation(&relay, "cam");
        relay.signal(signal);
        relay.wait_exit(secs(10));
        drop(publisher);
    }
    let output = Command::new(common::binary())
        .args(["keys", "swarm", "--state"])
        .arg(state.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, format!("cam {}\n", before.unwrap().swarm_id));
    let other = Setup::new(driver).start();
    let publisher = Publisher::start(other.http, "cam", &run(9, 12.0));
    let foreign = wait_invited(&other, "cam").swarm_id;
    assert!(!text.contains(&foreign), "another relay, another key");
    drop(publisher);
}

fn a_broken_file_refuses_its_stream_by_path(driver: Driver) {
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("streams/cam.json");
    fs::create_dir(state.path().join("streams")).unwrap();
    fs::write(&file, "{\"version\":1,").unwrap();
    let relay = Setup::new(driver).state(state.path()).start();
    assert!(relay.log().contains("streams/cam.json"), "{}", relay.log());
    let mut put = PutStream::begin(relay.http, "cam");
    let _ = put.try_push(&run(1, 0.2).bytes);
    let answer = put.response();
    answer.assert_line(503);
    assert!(answer.text().contains("streams/cam.json"), "{}", answer.text());
    let rejected = relay.metric("headwater_admission_rejected_total", &["state"]);
    assert!(rejected.is_some_and(|n| n >= 1.0));
    let mut other = PutStream::begin(relay.http, "dog");
    other.push(&run(2, 1.0).bytes);
    relay.wait_live("dog");
    assert_eq!(fs::read_to_string(&file).unwrap(), "{\"version\":1,", "left alone");
}

fn without_a_swarm_nothing_is_signed(driver: Driver) {
    let relay = Setup::new(driver).set("swarm.listen", "off").start();
    assert!(relay.ready["swarm"].is_null(), "{}", relay.ready);
    let stream = run(8, 3.0);
    let mut put = PutStream::begin(relay.http, "cam");
    put.push(&stream.bytes);
    relay.wait_live("cam");
    let idle = Idle::begin(put);
    common::pass(secs(1));
    assert_eq!(invitation(&relay, "cam"), None);
    assert_eq!(relay.metric("headwater_subtrees_signed_total", &[]), Some(0.0));
    drop(idle);
}
