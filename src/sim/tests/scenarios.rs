//! Each scenario does to its world what it says: small ones, in which nothing else is asked.

use std::time::Duration;

use super::plan;
use crate::metrics::table::Cell;
use crate::sim::Plan;
use crate::sim::crowd::Viewer;
use crate::sim::foe::Nature;
use crate::sim::link::Link;
use crate::sim::nat::NatKind;
use crate::sim::report::Report;
use crate::sim::scenario::{ALL, Scenario};
use crate::sim::stage::Stage;
use crate::sim::trouble::is_in_region;
use crate::sim::world::RELAY;
use crate::swarm::settings::Mode;

fn play(plan: Plan) -> Stage {
    let mut stage = Stage::new(plan, None).unwrap();
    stage.play();
    stage
}

/// A world in which viewers feed each other, however few they are.
fn shared(seed: u64, scenario: &str, peers: usize, seconds: u64) -> Plan {
    let mut plan = plan(seed, scenario, peers, seconds);
    plan.scenario.mode = Mode::Hybrid;
    plan
}

fn links(stage: &Stage) -> Vec<&Link> {
    stage.crowd.viewers.iter().map(|viewer| &stage.world.hosts[viewer.host].link).collect()
}

fn of_kind(stage: &Stage, nature: Nature) -> Vec<&Viewer> {
    stage.crowd.viewers.iter().filter(|viewer| viewer.nature == nature).collect()
}

/// Bytes of datagrams with chunks that a viewer sent.
fn passed_on(stage: &Stage, viewer: &Viewer) -> u64 {
    let traffic = stage.world.hosts[viewer.host].traffic;
    traffic.sent_bytes - traffic.integrity_sent - traffic.control_sent
}

/// How long it is since a viewer last showed something.
fn silence(stage: &Stage, viewer: &Viewer) -> Duration {
    stage.world.now().since(viewer.moved.1)
}

#[test]
fn names_are_known_once() {
    for scenario in &ALL {
        assert_eq!(Scenario::named(scenario.name).as_ref(), Some(scenario));
    }
}

#[test]
fn people_come_and_go() {
    let stage = play(plan(1, "churn", 30, 6));
    let left = stage.crowd.viewers.iter().filter(|viewer| viewer.left.is_some()).count();
    assert!((1..8).contains(&left), "{left}");
    assert_eq!(stage.crowd.present().len(), 30);

    let stage = play(plan(1, "crowd", 12, 11));
    let came = stage.crowd.viewers.iter().map(|viewer| viewer.came.as_nanos() / 1_000_000_000 - 4);
    let mut seconds: Vec<u64> = came.collect();
    seconds.sort_unstable();
    seconds.dedup();
    assert!((5..=10).contains(&seconds.len()) && seconds[0] < 3, "{seconds:?}");
}

#[test]
fn their_lines_are_what_is_said() {
    let stage = play(plan(2, "asymmetric", 24, 2));
    let none = links(&stage).into_iter().filter(|link| link.up == 200_000).count();
    assert!((8..=16).contains(&none), "{none}");
    let strict = |stage: &Stage| {
        links(stage).into_iter().filter(|link| link.nat == NatKind::Symmetric).count()
    };
    let stage = play(plan(2, "nats", 24, 2));
    assert!((16..=23).contains(&strict(&stage)), "{}", strict(&stage));

    let stage = play(plan(3, "mobile", 24, 5));
    let hosts = stage.crowd.viewers.iter().map(|viewer| &stage.world.hosts[viewer.host]);
    let narrow = hosts.filter(|host| host.down.rate() < host.link.down).count();
    assert!((1..12).contains(&narrow), "{narrow}");
    assert!(links(&stage).into_iter().all(|link| link.faults.burst > 0));
}

#[test]
fn a_region_is_cut_off_and_healed() {
    let region = |stage: &Stage, inside: bool| -> Vec<Duration> {
        let there = stage.crowd.present().into_iter().map(|index| &stage.crowd.viewers[index]);
        let those = there.filter(|viewer| is_in_region(viewer.host) == inside);
        those.map(|viewer| silence(stage, viewer)).collect()
    };
    // Until almost four seconds after the cut.
    let mut early = shared(4, "region", 15, 9);
    early.time += Duration::from_millis(600);
    let stage = play(early);
    let (inside, outside) = (region(&stage, true), region(&stage, false));
    assert_eq!((inside.len(), outside.len()), (5, 10));
    let long = Duration::from_millis(900);
    assert!(inside.iter().all(|silence| *silence > long), "{inside:?}");
    assert!(outside.iter().all(|silence| *silence < long), "{outside:?}");
    assert!(stage.world.is_parted());

    let stage = play(shared(4, "region", 15, 16));
    let inside = region(&stage, true);
    assert!(inside.iter().all(|silence| *silence < long), "{inside:?}");
    assert_eq!(stage.fouls, []);
}

#[test]
fn the_relay_has_little_to_give_or_little_time() {
    let stage = play(plan(5, "egress", 20, 10));
    let house = stage.house.as_ref().unwrap();
    assert_eq!(house.registry.admission.egress().most(), Some(14_000_000));
    assert!(house.cell(Cell::RejectedEgress) > 0);
    // Whoever is not let in watches all the same.
    let report = Report::of(&stage);
    assert_eq!(report.played, report.viewers, "{report}");

    let stage = play(plan(5, "overload", 10, 8));
    assert!(stage.world.trouble.held > 200, "{}", stage.world.trouble.held);
    assert_eq!(play(plan(5, "steady", 3, 3)).world.trouble.held, 0);
}

#[test]
fn some_take_and_do_not_give() {
    for (name, nature) in [("riders", Nature::Rider), ("eclipse", Nature::Besieger)] {
        let stage = play(shared(6, name, 20, 6));
        let foes = of_kind(&stage, nature);
        assert!((1..=5).contains(&foes.len()), "{name}: {}", foes.len());
        for foe in foes {
            assert_eq!(passed_on(&stage, foe), 0, "{name}");
            assert!(stage.world.hosts[foe.host].traffic.chunks_relay > 100_000, "{name}");
        }
        let honest = of_kind(&stage, Nature::Honest);
        assert!(honest.iter().any(|viewer| passed_on(&stage, viewer) > 200_000), "{name}");
        assert_eq!(stage.spoofer.openings > 30, name == "eclipse");
    }
}

#[test]
fn some_say_what_is_not_so_or_nothing_any_more() {
    let stage = play(shared(6, "boasters", 20, 5));
    let foes = of_kind(&stage, Nature::Boaster);
    assert!((1..=5).contains(&foes.len()), "{}", foes.len());
    assert!(foes.iter().any(|foe| passed_on(&stage, foe) > 50_000));

    let stage = play(shared(7, "corrupt10", 20, 3));
    let foes = of_kind(&stage, Nature::Liar);
    assert!((1..=5).contains(&foes.len()), "{}", foes.len());

    let stage = play(shared(7, "frozen10", 20, 4));
    let frozen = stage.crowd.viewers.iter().filter(|viewer| !stage.world.lives(viewer.seat));
    let frozen = frozen.count();
    assert!((1..=5).contains(&frozen), "{frozen}");
}

#[test]
fn the_publisher_pauses_or_has_few_key_frames() {
    // How much of the stream is on the tape: the warming up took four seconds.
    let taped = |name: &str, time| {
        let stage = play(plan(8, name, 3, time));
        assert_eq!(stage.fouls, [], "{name}");
        let bytes = stage.source.borrow().len();
        bytes as f64 / 250_000.0
    };
    let (paused, after) = (taped("hiccup", 5), taped("hiccup", 8));
    assert!((7.4..7.6).contains(&paused) && (11.8..12.1).contains(&after), "{paused} {after}");
    let after = taped("standstill", 8);
    assert!((9.8..10.1).contains(&after), "{after}");

    let stage = play(plan(8, "longgop", 3, 7));
    let source = stage.source.borrow();
    let tables = source.chunks_exact(188).filter(|packet| packet[1] & 0x1F == 0 && packet[2] == 0);
    assert_eq!(tables.count(), 2, "one group of pictures, and the next");
}

#[test]
fn clocks_do_not_agree_on_a_second() {
    // The p95 of ten is the slowest of them: of a thousand it has to be less.
    let mut skew = plan(9, "skew", 10, 6);
    skew.scenario.limits.startup_p95 = Duration::from_millis(2_500);
    let stage = play(skew);
    let hosts = &stage.world.hosts;
    assert!(hosts.iter().any(|host| host.drift > 50) && hosts.iter().any(|host| host.drift < -50));
    assert_ne!(hosts[RELAY].drift, 0);
    let report = Report::of(&stage);
    assert_eq!(report.failures(), Vec::<String>::new(), "{report}");
}

#[test]
fn chaos_breaks_no_rule() {
    for seed in [1, 2] {
        let stage = play(plan(seed, "chaos", 6, 16));
        assert_eq!(stage.fouls, []);
        assert!(stage.fault.is_some(), "something was done");
        let base = Scenario::named("chaos").unwrap();
        assert_ne!(stage.plan.scenario, base);
    }
}
