//! Small worlds: the same seed is the same world, and nothing goes wrong in a good one.

mod scenarios;

use std::time::Duration;

use super::*;
use crate::sim::egress::Class;
use crate::sim::scenario::Scenario;
use crate::swarm::settings::Mode;

fn plan(seed: u64, scenario: &str, peers: usize, seconds: u64) -> Plan {
    Plan {
        seed,
        peers,
        bitrate: 2_000_000,
        gop: Duration::from_secs(2),
        time: Duration::from_secs(seconds),
        scenario: Scenario::named(scenario).unwrap(),
        remember: true,
    }
}

#[test]
fn a_seed_is_a_world() {
    let digest = |seed| run(plan(seed, "lossy", 3, 4), None).unwrap().digest;
    let first = digest(1);
    assert_eq!(digest(1), first);
    assert_ne!(digest(2), first);
}

#[test]
fn remembered_integrity_changes_nothing() {
    let world = |remember| {
        let mut plan = Plan { remember, ..plan(3, "corrupt", 50, 7) };
        plan.scenario.mode = Mode::Hybrid;
        // Enough of them among few.
        plan.scenario.liars *= 6;
        run(plan, None).unwrap()
    };
    let (fast, real) = (world(true), world(false));
    assert_eq!((&fast.digest, fast.events), (&real.digest, real.events));
    // They fed each other, and what was changed on the way was found out: by work for real.
    assert!(fast.whole.from_peers > 10_000_000, "{fast}");
    assert!(fast.crimes > 3 && fast.crimes == real.crimes, "{} {}", fast.crimes, real.crimes);
    assert!(real.real_work > 20 * fast.real_work, "{} {}", real.real_work, fast.real_work);
    // Each byte that the relay sent is of one class, and all are seen where there is all of it.
    let egress = fast.whole.egress;
    assert_eq!(egress.iter().sum::<u64>(), fast.whole.relay_sent);
    assert!(egress.iter().all(|bytes| *bytes > 1_000), "{egress:?}");
    let copies: f64 = Class::ALL.into_iter().map(|class| fast.copies(class)).sum();
    let stream = 2_000_000.0 / 8.0 * 7.0;
    assert!((copies - fast.whole.relay_sent as f64 / stream).abs() < 1e-9, "{copies}");
}

#[test]
fn twenty_viewers_see_every_byte_in_time() {
    let mut plan = plan(42, "direct", 20, 10);
    plan.scenario.faults.loss = 0;
    // One of twenty is far away and came late between two key frames.
    plan.scenario.limits.delay_p99 = Duration::from_millis(3_100);
    let report = run(plan, None).unwrap();
    assert_eq!(report.failures(), Vec::<String>::new(), "{report}");
    assert_eq!((report.stalls, report.played), (0, report.viewers), "{report}");
    assert!(report.compared > 20 * 1_000_000, "{report}");
}

#[test]
fn names_of_hosts_are_understood() {
    assert_eq!([host("relay"), host("peer:1"), host("peer:17")], [Some(0), Some(2), Some(18)]);
    assert_eq!([host("peer:0"), host("peer"), host("x:1"), host("")], [None; 4]);
}
