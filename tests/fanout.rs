//! Two hundred viewers at once, joining whenever they like: each gets what was sent.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use common::client::End;
use common::judge::Reference;
use common::ts::{self, Broadcast, Shape};
use common::{Driver, Publisher, Setup, Watch, both_drivers, millis, secs};

both_drivers!(every_viewer_gets_every_byte);

const VIEWERS: usize = 200;

fn every_viewer_gets_every_byte(driver: Driver) {
    let stream = Broadcast::new(200, Shape::new(1_500_000), 8.0);
    let private = stream.bytes.chunks_exact(ts::PACKET);
    assert!(private.filter(|packet| ts::pid(packet) == ts::PRIVATE_PID).count() >= 200);
    let reference = Reference::new(&[&stream.bytes]);
    let relay = Setup::new(driver).shards(2).set("streams.linger", "1s").start();
    let publisher = Publisher::start(relay.http, "crowd", &stream);
    relay.wait_live("crowd");
    let mut viewers = Vec::new();
    for n in 0..VIEWERS {
        // Joins are spread over the first five seconds, in bursts of ten.
        if n % 10 == 0 {
            common::pass(millis(240));
        }
        let earliest = publisher.frames();
        viewers.push((earliest, Watch::live(relay.http, "crowd").judged(&reference).start()));
    }
    assert!(matches!(publisher.finish().status, 200 | 201));
    let mut starts = std::collections::BTreeSet::new();
    for (n, (frames, viewer)) in viewers.into_iter().enumerate() {
        let seen = viewer.end();
        assert_eq!((seen.head.status, seen.end), (200, End::Closed), "viewer {n}");
        let verdict = seen.verdict.unwrap().unwrap_or_else(|why| panic!("viewer {n}: {why}"));
        assert!(verdict.jumps.is_empty(), "viewer {n} was made to skip: {verdict:?}");
        assert_eq!(verdict.end, reference.packets(), "viewer {n} misses the end");
        // The newest when it asked; one second of grace, for the machine may be busy.
        let sent = stream.slice(0, frames.saturating_sub(25));
        let newest = Reference::new(&[sent]).access_points().last().copied().unwrap_or(0);
        assert!(verdict.start >= newest, "viewer {n} began at {} < {newest}", verdict.start);
        starts.insert(verdict.start);
    }
    assert!(starts.len() >= 5, "joins at different times: {starts:?}");
    let skips = relay.metric("headwater_viewer_skips_total", &[]).unwrap();
    assert_eq!(skips, 0.0);
    // Both shards served viewers, whichever is the home of the stream.
    let text = relay.control("/metrics").text();
    let sends = text.lines().filter(|line| line.starts_with("headwater_sends_total{"));
    let busy = sends.filter(|line| !line.ends_with(" 0")).count();
    assert_eq!(busy, 2, "shards that sent:\n{text}");
    common::wait_for("no viewers left", secs(5), || {
        (relay.metric("headwater_viewers", &["http"]) == Some(0.0)).then_some(())
    });
}
