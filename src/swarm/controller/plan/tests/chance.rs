//! Parents by chance, and none at all.

use super::*;

fn planned_by(strategy: Strategy, peers: usize, links: u32) -> World {
    let mut world = World::new();
    world.planner = Planner::new(strategy);
    (0..peers).for_each(|_| _ = world.come(links));
    world.pass(4 + peers as u64 / 10);
    world
}

#[test]
fn chance_gives_all_but_few_a_parent_with_room() {
    let world = planned_by(Strategy::Random, 200, 9);
    assert_eq!(world.left(), [11; STRIPES], "as few as the trees leave to the relay");
    world.check_links();
    let with_children = world.peers.keys().filter(|peer| world.children(**peer).0 > 0).count();
    assert!(with_children > 150, "{with_children}: it does not look for the best");
    let parents = |world: &World| -> Vec<_> {
        world.plan.rows().iter().flat_map(|row| row.parents).collect()
    };
    assert_eq!(parents(&world), parents(&planned_by(Strategy::Random, 200, 9)), "no other chance");
    assert_ne!(parents(&world), parents(&planned_by(Strategy::Trees, 200, 9)));
    // With less room than that more are left to it.
    let poor = planned_by(Strategy::Random, 100, 4);
    poor.check_links();
    assert!(poor.left().iter().sum::<usize>() >= 100 * (STRIPES - 4), "{:?}", poor.left());
}

#[test]
fn without_plan_all_are_there_and_nobody_is_named() {
    let mut world = planned_by(Strategy::Pull, 30, 9);
    assert_eq!((world.plan.rows().len(), world.left()), (30, [30; STRIPES]));
    world.planner.forget();
    world.pass(10);
    assert_eq!(world.left(), [30; STRIPES], "a strategy is for good");
}
