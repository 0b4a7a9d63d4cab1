//! More viewers than the process may have open files: io_uring's own tables hold them; epoll
//! says at start that it cannot.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use common::client::End;
use common::crowd::Crowd;
use common::judge::Reference;
use common::ts::{Broadcast, Shape};
use common::{Driver, Publisher, Relay, Setup, Watch, secs, skipped, wait_for, why_no_uring};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

/// The limit of open files, and what is asked for in spite of it.
const NOFILE: u32 = 256;
const CONNECTIONS: i64 = 1200;
const VIEWERS: usize = 1000;
/// A table is no larger than the limit: it takes four for a thousand viewers.
const SHARDS: usize = 4;
const TABLE: &str = "headwater_uring_table_sockets";

fn setup(driver: Driver) -> Setup {
    Setup::new(driver)
        .shards(SHARDS)
        .nofile(NOFILE)
        .set("limits.connections", CONNECTIONS)
        .set("limits.per_address", 2000)
        .set("streams.linger", "1s")
}

/// Open files of the relay.
fn open_files(relay: &Relay) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", relay.pid())).unwrap().count()
}

fn table(relay: &Relay) -> f64 {
    relay.metric(TABLE, &[]).unwrap()
}

#[test]
fn io_uring_serves_a_thousand_viewers_with_256_files() {
    if let Some(why) = why_no_uring() {
        return skipped("uring", why);
    }
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let stream = Broadcast::new(61, Shape::new(300_000), 25.0);
    let reference = Reference::new(&[&stream.bytes]);
    let mut relay = setup(Driver::Uring).start();
    let publisher = Publisher::start(relay.http, "packed", &stream);
    relay.wait_live("packed");

    let crowd = Crowd::join(relay.http, "packed", VIEWERS);
    wait_for("a thousand viewers", secs(20), || {
        (relay.metric("headwater_viewers", &[]) == Some(VIEWERS as f64)).then_some(())
    });
    assert!(open_files(&relay) < NOFILE as usize, "{} open files", open_files(&relay));
    assert!(table(&relay) >= (VIEWERS - NOFILE as usize) as f64, "{}", table(&relay));
    // Who comes now lives in a table from the beginning, and misses nothing.
    let late: Vec<_> =
        (0..10).map(|_| Watch::live(relay.http, "packed").judged(&reference).start()).collect();
    let before = crowd.least();
    assert!(matches!(publisher.finish().status, 200 | 201));
    wait_for("bytes for everybody", secs(10), || (crowd.least() > before).then_some(()));
    assert!(crowd.least() > 100_000, "somebody got {} bytes only", crowd.least());
    crowd.leave();
    for viewer in late {
        let seen = viewer.end();
        assert_eq!((seen.head.status, seen.end), (200, End::Closed));
        let verdict = seen.verdict.unwrap().unwrap();
        assert!(verdict.jumps.is_empty() && verdict.end == reference.packets(), "{verdict:?}");
    }
    wait_for("empty tables", secs(10), || (table(&relay) == 0.0).then_some(()));

    // The places are used again, and a stop closes who is in one.
    let idle: Vec<_> = (0..600).map(|_| common::http::connect(relay.http)).collect();
    wait_for("connections in the tables", secs(10), || (table(&relay) > 300.0).then_some(()));
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait_exit(secs(10)).code(), Some(0));
    for mut connection in idle {
        connection.assert_closes(secs(5));
    }
    let log = relay.log();
    let said = log.lines().filter(|line| line.contains("limit of open files")).count();
    assert_eq!(said, 1, "{log}");
}

#[test]
fn epoll_refuses_and_says_what_to_do() {
    let failure = setup(Driver::Epoll).try_start().err().expect("must not start");
    assert_eq!(failure.status.and_then(|status| status.code()), Some(1), "{}", failure.log);
    for word in ["limits.connections", "1200", "256", "LimitNOFILE", "io_uring"] {
        assert!(failure.log.contains(word), "{word}: {}", failure.log);
    }
    // Left to itself it takes what there is.
    let relay = Setup::new(Driver::Epoll).nofile(NOFILE).start();
    assert_eq!(relay.get("/").status, 200);
}
