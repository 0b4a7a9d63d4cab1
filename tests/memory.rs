//! What was declared is kept: many streams with full windows, many HLS players, bounded memory.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use common::crowd::Crowd;
use common::http::{self, Connection, LIMIT};
use common::ts::{Broadcast, Shape};
use common::{Driver, Idle, PutStream, Relay, Setup, both_drivers, secs, wait_for};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

both_drivers!(
    hls_of_twenty_streams_takes_no_memory_of_its_own,
    an_idle_viewer_takes_less_than_a_kilobyte,
);

const STREAMS: usize = 20;
/// The arena of the relays of these tests.
const ARENA: u64 = 64 << 20;
/// What everything else may take.
const BESIDE: u64 = 64 << 20;

/// The segments that a playlist lists.
fn segments(relay: &Relay, name: &str) -> Vec<String> {
    let answer = relay.get(&format!("/live/{name}/index.m3u8"));
    let text = if answer.status == 200 { answer.text() } else { String::new() };
    let listed = text.lines().filter(|line| line.starts_with("seg/"));
    listed.map(|line| format!("/live/{name}/{line}")).collect()
}

/// A player that asks for a segment and reads no further than the head of the answer.
fn dawdler(relay: &Relay, segment: &str) -> Connection {
    let mut connection = http::connect(relay.http);
    connection.send(&http::head(relay.http, "GET", segment, &[]));
    assert_eq!(connection.response_head(LIMIT).status, 200, "{segment}");
    connection
}

fn hls_of_twenty_streams_takes_no_memory_of_its_own(driver: Driver) {
    let setup = Setup::new(driver).set("hls.segment", "500ms").set("streams.max", STREAMS as i64);
    let relay = setup.set("streams.memory", "auto").start();
    // Far more than a window holds, so that every slab is written.
    let run = Broadcast::new(9, Shape::new(1_500_000), 30.0);
    assert!(run.bytes.len() > ARENA as usize / STREAMS);
    let names: Vec<String> = (0..STREAMS).map(|n| format!("cam{n}")).collect();
    let publish = |name: &String| {
        let mut put = PutStream::begin(relay.http, name);
        put.push(&run.bytes);
        Idle::begin(put)
    };
    let publishers: Vec<Idle> = names.iter().map(publish).collect();
    let mut dawdlers = Vec::new();
    for name in &names {
        let all = wait_for("six segments", secs(20), || {
            relay.wait_ingested(name, run.bytes.len());
            Some(segments(&relay, name)).filter(|all| all.len() >= 6)
        });
        for segment in &all {
            assert_eq!(relay.get(segment).status, 200, "{segment}");
            dawdlers.extend((0..3).map(|_| dawdler(&relay, segment)));
        }
    }
    let used = relay.metric("headwater_ring_bytes", &["state=\"in_use\""]).unwrap();
    assert!(used > ARENA as f64 * 0.8, "the windows are full: {used}");
    let rss = relay.rss();
    println!("resident: {} MiB with {} players", rss >> 20, dawdlers.len());
    assert!(rss <= ARENA + BESIDE, "{rss} bytes are resident");
    drop((dawdlers, publishers));
}

fn an_idle_viewer_takes_less_than_a_kilobyte(driver: Driver) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let relay = Setup::new(driver).start();
    let mut put = PutStream::begin(relay.http, "still");
    put.push(&Broadcast::new(3, Shape::new(500_000), 2.0).bytes);
    let _idle = Idle::begin(put);
    relay.wait_live("still");
    let mut all = 0;
    let mut join = |count: usize| {
        all += count;
        let crowd = Crowd::join(relay.http, "still", count);
        wait_for("everybody a viewer, with the opening", secs(20), || {
            let viewers = relay.metric("headwater_viewers", &["face=\"http\""]);
            (viewers == Some(all as f64) && crowd.least() > 10_000).then_some(())
        });
        crowd
    };
    // The first ones pay for what all share: buffers, the first pages of tables.
    let first = join(500);
    let before = relay.rss();
    let more = join(2500);
    let each = relay.rss().saturating_sub(before) / 2500;
    println!("{each} bytes for each viewer");
    assert!(each <= 1024, "{each} bytes for each viewer");
    first.leave();
    more.leave();
}
