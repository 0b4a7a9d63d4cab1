//! Plans among peers that leave, lie, or cannot reach each other.

use super::*;

/// What so many minutes cost: the part of the stripes that the relay is asked for, and changes
/// of parents per peer and minute.
fn minutes(world: &mut World, minutes: u32, ppm: u64) -> (f64, f64) {
    let (mut relayed, peers, turns) = (0.0, world.peers.len() as f64, minutes * 240);
    let before = world.changes;
    for turn in 0..turns {
        world.churn(ppm);
        world.turn();
        relayed += world.relayed();
        if turn % 40 == 0 {
            world.check();
        }
    }
    let changes = (world.changes - before) as f64;
    (relayed / f64::from(turns), changes / peers / f64::from(minutes))
}

#[test]
fn churn_changes_little() {
    for (peers, most) in [(60, 0.10), (300, 0.06)] {
        let mut world = settled(peers, 1);
        let (relayed, changes) = minutes(&mut world, 10, 2_000);
        let (mean, latest, depth) = world.delays();
        let say = format!(
            "{peers} peers: {relayed:.4} relayed, {changes:.2} changes per peer and minute, \
             {mean} and {latest} ms, depth {depth}"
        );
        assert!(relayed < most && changes < 6.0, "{say}");
        assert!(mean < 650 && latest < 1_500 && depth <= 9, "{say}");
    }
}

#[test]
fn liars_are_found_out() {
    for times in [2, 10] {
        let mut world = settled(60, 1);
        (0..20).for_each(|_| _ = world.come(7));
        let liars: Vec<u32> = (0..3).map(|_| world.come(7)).collect();
        for liar in &liars {
            world.peers.get_mut(liar).unwrap().said *= times;
        }
        (0..10).for_each(|_| _ = world.come(0));
        world.pass(15);
        // Links that carry nothing, of each liar, in the mean over a minute.
        let (mut idle, mut relayed) = (0.0, 0.0);
        for _ in 0..240 {
            world.turn();
            for (given, carried) in liars.iter().map(|liar| world.children(*liar)) {
                idle += (given - carried) as f64 / 3.0 / 240.0;
            }
            relayed += world.relayed() / 240.0;
        }
        assert!(idle < 1.0 && relayed < 0.2, "{times} times: {idle} {relayed}");
        let (_, changes) = minutes(&mut world, 4, 0);
        assert!(changes < 1.0, "{times} times: {changes}");
        for liar in liars {
            let (given, carried) = world.children(liar);
            assert!((4..=7).contains(&carried) && given <= 14, "{carried} of {given}");
        }
    }
}

#[test]
fn who_feeds_nobody_is_left_out() {
    let mut world = settled(60, 1);
    let deaf: Vec<u32> = (0..4).map(|_| world.come(50)).collect();
    deaf.iter().for_each(|channel| world.peers.get_mut(channel).unwrap().carries = 0);
    (0..10).for_each(|_| _ = world.come(11));
    world.pass(16);
    let given = |world: &World| deaf.iter().map(|at| world.children(*at).0).sum::<usize>();
    let mut seen = Vec::new();
    for _ in 0..40 {
        world.pass(1);
        seen.push(given(&world));
    }
    assert!(seen.iter().filter(|given| **given > 0).count() <= 1, "{seen:?}");
    assert!(world.relayed() < 0.1, "{}", world.relayed());
    // They are tried again, and found out again, for longer.
    let mut tried = 0;
    for _ in 0..600 {
        world.pass(1);
        tried += usize::from(given(&world) > 0);
    }
    assert!((1..40).contains(&tried), "{tried}");
}

#[test]
fn who_stops_is_replaced_and_nobody_else_is_blamed() {
    let mut world = settled(60, 4);
    world.pass(10);
    let (busy, children) =
        world.peers.keys().map(|at| (*at, world.children(*at).0)).max_by_key(|of| of.1).unwrap();
    let before = world.changes;
    world.peers.get_mut(&busy).unwrap().carries = 0;
    world.pass(5);
    assert!(world.children(busy).0 <= children / 8);
    // Away, and to somebody else; and some others gain by what is free then.
    assert!(world.changes - before <= 3 * children as u64 + 8);
}

#[test]
fn nobody_is_blamed_when_nothing_comes_in() {
    let mut world = settled(60, 1);
    world.pass(30);
    let plan = world.plan.clone();
    world.dry = true;
    world.pass(8);
    assert!(world.relayed() > 0.9);
    world.dry = false;
    world.pass(20);
    assert!(world.plan == plan, "nothing is changed");
    assert!(world.relayed() < 0.09, "{}", world.relayed());
}

#[test]
fn most_leave_at_once() {
    let mut world = settled(300, 1);
    world.pass(10);
    let mut stay = 0;
    world.peers.retain(|_, _| {
        stay += 1;
        stay % 5 == 0
    });
    world.pass(1);
    assert!(world.left().iter().all(|left| *left <= 7), "{:?}", world.left());
    world.pass(1);
    assert!(world.relayed() < 0.1, "{}", world.relayed());
}

#[test]
fn who_cannot_be_reached_is_fed_by_others() {
    let mut world = settled(100, 1);
    (0u32..).zip(world.peers.values_mut()).for_each(|(n, peer)| peer.strict = n % 4 == 0);
    world.pass(60);
    let (relayed, changes) = minutes(&mut world, 10, 0);
    assert!(relayed < 0.08 && changes < 2.0, "{relayed} {changes}");
}

#[test]
fn who_can_reach_nobody_is_left_alone() {
    let mut world = settled(60, 1);
    let strict = |peer: &mut world::Peer| peer.strict = true;
    world.peers.values_mut().for_each(strict);
    let alone = world.come(0);
    strict(world.peers.get_mut(&alone).unwrap());
    let mut tried = 0;
    for _ in 0..1_200 {
        let before = *world.plan.get(alone).unwrap_or(&world.plan.rows()[0]);
        world.turn();
        let after = world.plan.get(alone).unwrap();
        tried += (0..STRIPES)
            .filter(|at| after.parents[*at] != 0 && after.parents[*at] != before.parents[*at])
            .count();
    }
    assert!(tried < 60, "{tried}");
    let forgotten = world.planner.take_forgotten();
    assert!(forgotten > 0 && world.planner.take_forgotten() == 0, "{forgotten}");
}
