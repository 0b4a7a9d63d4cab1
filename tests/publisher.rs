//! The broadcaster's end: who may publish, who comes first, and what a death looks like to
//! viewers who should not notice.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::time::Instant;

use common::client::{End, Framing};
use common::http::{self, Response};
use common::judge::{Judge, Reference};
use common::ts::{Broadcast, PACKET, Shape};
use common::{
    Driver, HOSTS, Publisher, PutStream, Relay, Setup, Watch, both_drivers, key_hash, millis, secs,
    wait_for,
};

both_drivers!(
    viewers_stay_through_a_reset,
    viewers_stay_through_many_reconnects,
    the_first_publisher_wins,
    a_silent_publisher_is_replaced_at_once,
    another_key_takes_nothing_over,
    a_vanished_publisher_is_noticed,
    keys_decide_who_publishes,
    without_keys_only_loopback_publishes,
    what_is_no_transport_stream_is_refused,
);

const RATE: u64 = 500_000;

fn run(seed: u64, seconds: f64) -> Broadcast {
    Broadcast::new(seed, Shape::new(RATE), seconds)
}

/// A PUT that is expected to be refused; some of the body is sent as an encoder would.
fn refused(relay: &Relay, target: &str, extra: &[&str]) -> Response {
    let mut put = PutStream::begin_with(relay.http, target, Framing::Chunked, extra);
    let _ = put.try_push(&run(99, 0.2).bytes);
    put.response()
}

fn viewers_stay_through_a_reset(driver: Driver) {
    let relay = Setup::new(driver).set("streams.linger", "2s").start();
    let (first, second) = (run(1, 10.0), run(2, 2.0));
    let publisher = Publisher::start(relay.http, "phoenix", &first);
    relay.wait_live("phoenix");
    let viewers: Vec<_> = (0..10).map(|_| Watch::live(relay.http, "phoenix").start()).collect();
    viewers.iter().for_each(|viewer| viewer.wait_bytes(50 * PACKET, secs(10)));
    let mut put = publisher.silence();
    // Half a packet, then the connection breaks: the half must not come out anywhere.
    put.push(&first.bytes[..100]);
    put.reset();
    wait_for("the loss noticed", secs(3), || (relay.state("phoenix") != "live").then_some(()));
    assert!(viewers.iter().all(|viewer| !viewer.has_ended()), "viewers are held");
    let before: Vec<usize> = viewers.iter().map(|viewer| viewer.bytes()).collect();
    let publisher = Publisher::start(relay.http, "phoenix", &second);
    for (viewer, before) in viewers.iter().zip(before) {
        viewer.wait_bytes(before + 20 * PACKET, secs(5));
    }
    publisher.finish();
    let reference = Reference::new(&[&first.bytes, &second.bytes]);
    for viewer in viewers {
        let seen = viewer.end();
        assert_eq!(seen.end, End::Closed, "closed in order when the linger is over");
        let verdict = Judge::on(&reference, &seen.body).unwrap();
        assert_eq!(verdict.resumes + verdict.jumps.len(), 1, "{verdict:?}");
        assert_eq!(verdict.end, reference.packets(), "{verdict:?}");
    }
}

/// Every connect lands on a shard that the kernel chooses: with two shards, ten connects meet
/// both, and the writer goes from one to the other.
fn viewers_stay_through_many_reconnects(driver: Driver) {
    let relay = Setup::new(driver).shards(2).set("streams.linger", "2s").start();
    let runs: Vec<Broadcast> = (0..10).map(|n| run(100 + n, 0.96)).collect();
    let mut put = PutStream::begin(relay.http, "nomad");
    put.push(&runs[0].bytes);
    relay.wait_live("nomad");
    let viewer = Watch::live(relay.http, "nomad").start();
    viewer.wait_bytes(PACKET, secs(5));
    let mut sent = runs[0].bytes.len();
    put.finish();
    for (n, run) in runs.iter().enumerate().skip(1) {
        let before = viewer.bytes();
        let mut put = PutStream::begin(relay.http, "nomad");
        put.push(&run.bytes);
        sent += run.bytes.len();
        viewer.wait_bytes(before + run.bytes.len() / 2, secs(5));
        match n % 2 {
            0 => drop(put.finish()),
            _ => {
                relay.wait_ingested("nomad", sent);
                put.reset();
                wait_for("the loss noticed", secs(3), || {
                    (relay.state("nomad") != "live").then_some(())
                });
            }
        }
    }
    let seen = viewer.end();
    assert_eq!(seen.end, End::Closed);
    let all: Vec<&[u8]> = runs.iter().map(|run| &*run.bytes).collect();
    let reference = Reference::new(&all);
    let verdict = Judge::on(&reference, &seen.body).unwrap();
    assert_eq!(verdict.end, reference.packets(), "{verdict:?}");
    assert!(verdict.jumps.is_empty(), "no byte is lost, none repeated: {verdict:?}");
    assert_eq!(verdict.resumes, 0, "{verdict:?}");
}

fn the_first_publisher_wins(driver: Driver) {
    let relay = Setup::new(driver).start();
    let stream = run(1, 3.0);
    let publisher = Publisher::start(relay.http, "mine", &stream);
    relay.wait_live("mine");
    for _ in 0..3 {
        let answer = refused(&relay, "/live/mine", &[]);
        answer.assert_line(409);
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    let status = relay.status("mine").unwrap();
    assert_eq!(status["continuity_errors"], 0, "the second left no trace: {status}");
    let rejected = relay.metric("headwater_admission_rejected_total", &["publisher"]);
    assert!(rejected.is_some_and(|n| n >= 3.0), "{rejected:?}");
    let log = relay.log();
    assert!(log.contains("publisher refused") && log.contains("another publisher"), "{log}");
    assert!(matches!(publisher.finish().status, 200 | 201), "the first is not disturbed");
}

fn a_silent_publisher_is_replaced_at_once(driver: Driver) {
    let keys = toml::Value::Array(vec![key_hash("open-sesame").into()]);
    let relay = Setup::new(driver).set("publish.keys", keys).start();
    let target = "/live/relief?key=open-sesame";
    let (first, second) = (run(1, 1.0), run(2, 2.0));
    let mut old = PutStream::begin_with(relay.http, target, Framing::Chunked, &[]);
    old.push(&first.bytes);
    relay.wait_live("relief");
    let viewer = Watch::live(relay.http, "relief").start();
    viewer.wait_bytes(PACKET, secs(5));
    common::pass(millis(700));
    let begun = Instant::now();
    let new = PutStream::begin_with(relay.http, target, Framing::Chunked, &[]);
    let before = viewer.bytes();
    let publisher = Publisher::drive(new, &second);
    viewer.wait_bytes(before + 20 * PACKET, secs(5));
    let after = begun.elapsed();
    assert!(after < millis(1500), "the new publisher was heard after {after:?}");
    old.connection().assert_closes(secs(2));
    assert!(matches!(publisher.finish().status, 200 | 201));
    let takeovers = relay.metric("headwater_publisher_takeovers_total", &[]);
    assert_eq!(takeovers, Some(1.0));
    let seen = viewer.stop();
    let reference = Reference::new(&[&first.bytes, &second.bytes]);
    let whole = seen.body.len() / PACKET * PACKET;
    Judge::on(&reference, &seen.body[..whole]).unwrap();
}

fn another_key_takes_nothing_over(driver: Driver) {
    let keys = toml::Value::Array(vec![key_hash("one").into(), key_hash("two").into()]);
    let relay = Setup::new(driver).set("publish.keys", keys).start();
    let one = "/live/guarded?key=one";
    let mut old = PutStream::begin_with(relay.http, one, Framing::Chunked, &[]);
    old.push(&run(1, 1.0).bytes);
    relay.wait_live("guarded");
    common::pass(millis(700));
    refused(&relay, "/live/guarded?key=two", &[]).assert_line(409);
    old.push(&run(1, 1.0).bytes);
    assert!(matches!(old.finish().status, 200 | 201));
}

fn a_vanished_publisher_is_noticed(driver: Driver) {
    let relay = Setup::new(driver).set("streams.linger", "1500ms").start();
    let stream = run(1, 60.0);
    let publisher = Publisher::start(relay.http, "gone", &stream);
    relay.wait_live("gone");
    let viewer = Watch::live(relay.http, "gone").start();
    viewer.wait_bytes(20 * PACKET, secs(10));
    // Its machine lost power: the connection says nothing more, not even goodbye.
    let mut put = publisher.silence();
    let silent = Instant::now();
    wait_for("the silence noticed", secs(5), || (relay.state("gone") != "live").then_some(()));
    let noticed = silent.elapsed();
    assert!(noticed <= secs(3) + millis(300), "noticed after {noticed:?}");
    assert!(noticed >= millis(1500), "a short pause is no death: {noticed:?}");
    put.connection().assert_closes(secs(2));
    assert!(!viewer.has_ended(), "viewers are held");
    assert_eq!(relay.state("gone"), "held");
    let seen = viewer.end();
    let lingered = silent.elapsed().saturating_sub(noticed);
    assert_eq!(seen.end, End::Closed, "the linger ends the viewer");
    assert!((millis(1000)..secs(5)).contains(&lingered), "{lingered:?}");
    Judge::on(&Reference::new(&[&stream.bytes]), &seen.body).unwrap();
    let vanished = relay.metric("headwater_publishers_vanished_total", &[]);
    assert_eq!(vanished, Some(1.0));
}

fn keys_decide_who_publishes(driver: Driver) {
    let keys = toml::Value::Array(vec![key_hash("s3cret").into(), key_hash("other").into()]);
    for host in HOSTS {
        let relay = Setup::new(driver).host(host).set("publish.keys", keys.clone()).start();
        refused(&relay, "/live/locked", &[]).assert_line(401);
        refused(&relay, "/live/locked?key=wrong", &[]).assert_line(403);
        refused(&relay, "/live/locked", &["Authorization: Bearer wrong"]).assert_line(403);
        let empty = refused(&relay, "/live/locked?key=", &[]);
        assert!(matches!(empty.status, 401 | 403), "{empty:?}");
        assert_eq!(relay.state("locked"), "", "refusals make no stream");
        let by_query = ("/live/locked?key=s3cret", [].as_slice());
        let by_header = ("/live/locked", ["Authorization: Bearer other"].as_slice());
        let proxied = ("/live/locked?key=s3cret", ["X-Forwarded-For: 203.0.113.7"].as_slice());
        for (target, extra) in [by_query, by_header, proxied] {
            let mut put = PutStream::begin_with(relay.http, target, Framing::Chunked, extra);
            put.push(&run(1, 0.5).bytes);
            let answer = put.finish();
            assert!(matches!(answer.status, 200 | 201), "{target} {extra:?}: {answer:?}");
        }
        let log = relay.log();
        assert!(!log.contains("s3cret"), "a key must not be logged:\n{log}");
    }
}

fn without_keys_only_loopback_publishes(driver: Driver) {
    for host in HOSTS {
        let relay = Setup::new(driver).host(host).start();
        let proxies = [
            "X-Forwarded-For: 127.0.0.1",
            "x-forwarded-for: ::1",
            "Forwarded: for=127.0.0.1",
            "Via: 1.1 proxy",
        ];
        for proxy in proxies {
            refused(&relay, "/live/open", &[proxy]).assert_line(403);
        }
        let mut put = PutStream::begin(relay.http, "open");
        put.push(&run(1, 0.5).bytes);
        assert!(matches!(put.finish().status, 200 | 201));
        let mut post = http::connect(relay.http);
        let body = run(2, 0.5).bytes;
        let length = format!("Content-Length: {}", body.len());
        post.send(&http::head(relay.http, "POST", "/live/posted", &[&length]));
        post.send(&body);
        assert!(matches!(post.response(false, secs(5)).status, 200 | 201), "POST is PUT");
    }
}

/// An MP4 file, or a forgotten `-f mpegts`: the broadcaster is told, not left with a dark screen.
fn what_is_no_transport_stream_is_refused(driver: Driver) {
    let relay = Setup::new(driver).start();
    let words = "ftypisom, and some more that is no packet of anything. ".repeat(1000);
    let mut short = PutStream::begin(relay.http, "words");
    short.push(words.as_bytes());
    short.finish().assert_line(415);
    let mut endless = PutStream::begin(relay.http, "words");
    wait_for("a refusal before the end", secs(10), || {
        (0..10).any(|_| endless.try_push(words.as_bytes()).is_err()).then_some(())
    });
    assert_eq!(endless.connection().response(false, secs(5)).status, 415);
    let log = relay.log();
    assert!(log.matches("publisher refused stream=words").count() >= 2, "{log}");
    // The name is free at once, and garbage in front of a stream does no harm.
    let mut put = PutStream::begin(relay.http, "words");
    put.push(words.as_bytes());
    put.push(&run(1, 1.0).bytes);
    assert!(matches!(put.finish().status, 200 | 201));
}
