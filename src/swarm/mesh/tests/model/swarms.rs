//! Swarms of the model: that trees form, stay, and form again.

use super::*;

#[test]
fn every_stripe_finds_its_tree_and_keeps_it() {
    for seed in 0..2 {
        let mut world = World::swarm(seed, 40, 12);
        world.run(10_000);
        for who in 0..40 {
            for stripe in 0..STRIPES {
                let depth = world.depth(who, stripe);
                assert!(depth.is_some_and(|depth| depth <= 12), "{seed}: {who} {stripe} {depth:?}");
            }
        }
        let before = [world.sum(|v| v.grafts), world.sum(|v| u64::from(v.rescues))];
        let copies = world.sum(|viewer| u64::from(viewer.copies));
        world.run(40_000);
        let grafts = world.sum(|viewer| viewer.grafts) - before[0];
        assert!(grafts <= 40, "{seed}: {grafts} grafts in 20 viewer-minutes");
        assert_eq!(world.sum(|viewer| u64::from(viewer.rescues)), before[1], "{seed}");
        assert_eq!(world.missed(5_000, 38_000), 0, "{seed}");
        let copies = world.sum(|viewer| u64::from(viewer.copies)) - copies;
        assert!(copies * 100 <= 40 * 30_000 / PERIOD, "{seed}: {copies} copies");
    }
}

#[test]
fn children_of_the_dead_find_other_parents() {
    for seed in 0..2 {
        let mut world = World::swarm(seed, 40, 12);
        world.run(20_000);
        let victims = [3, 17, 29];
        let mut orphans = Vec::new();
        for child in (0..40).filter(|child| !victims.contains(child)) {
            for stripe in 0..STRIPES {
                let parent = world.parent(child, stripe);
                orphans.extend(parent.filter(|p| victims.contains(p)).map(|_| (child, stripe)));
            }
        }
        assert!(orphans.len() > 8, "{seed}");
        victims.into_iter().for_each(|victim| world.kill(victim));
        world.run(23_000);
        // One stripe period until the next subtree, the time until somebody has announced it,
        // then 100 ms and a round trip.
        let announced = 12 * (WAY + SENDING) + 45;
        let bound = 20_000 + 8 * PERIOD + announced + 100 + 2 * WAY;
        let late: Vec<_> = orphans
            .iter()
            .map(|(child, stripe)| (child, stripe, world.viewers[*child].changed[*stripe]))
            .filter(|(.., changed)| !(20_000..=bound).contains(changed))
            .collect();
        // Whose tree above is cut, too, has nobody to hear of it from.
        assert!(late.len() * 10 <= orphans.len(), "{seed}: {late:?} of {}", orphans.len());
        for (who, victim) in (0..40).flat_map(|who| victims.map(|victim| (who, victim))) {
            world.unlink(who, victim);
        }
        world.run(40_000);
        assert_eq!(world.missed(22_000, 38_000), 0, "{seed}");
        let cut = (0..40).filter(|who| world.viewers[*who].alive);
        let cut = cut.flat_map(|who| (0..STRIPES).map(move |stripe| (who, stripe)));
        let cut: Vec<_> =
            cut.filter(|(who, stripe)| world.depth(*who, *stripe).is_none()).collect();
        assert!(cut.is_empty(), "{seed}: {cut:?}");
    }
}

#[test]
fn a_push_of_the_relay_prunes_and_its_end_grafts() {
    let mut world = World::swarm(1, 40, 12);
    world.run(10_000);
    let who = (0..40).find(|who| !world.seeds.contains_key(who)).unwrap();
    let fed = |world: &World| (0..STRIPES).filter(|s| world.parent(who, *s).is_some()).count();
    assert_eq!(fed(&world), STRIPES);
    world.seeds.insert(who, 0xff);
    world.run(10_000 + 3 * 8 * PERIOD);
    assert_eq!((fed(&world), world.viewers[who].mesh.relay_stripes()), (0, 0xff));
    let copies = world.viewers[who].copies;
    assert!(copies <= 24, "{copies}");
    world.seeds.remove(&who);
    world.run(14_000);
    assert_eq!((fed(&world), world.viewers[who].mesh.relay_stripes()), (STRIPES, 0));
    assert_eq!(world.missed(9_000, 14_000 - 1_500), 0);
}

/// Three that feed each other in a circle and live from the relay's answers; then somebody comes
/// whom the relay pushes everything.
#[test]
fn loops_dissolve_as_soon_as_somebody_has_it_earlier() {
    let mut world = World::new(4);
    (0..3).for_each(|_| {
        world.join(12);
    });
    [(0, 1), (1, 2), (2, 0)].into_iter().for_each(|(a, b)| world.link(a, b));
    world.run(10_000);
    let rescued = world.sum(|viewer| u64::from(viewer.rescues));
    assert!(rescued > 80, "{rescued}");
    assert_eq!(world.missed(0, 8_000), 0);
    let seed = world.join(12);
    world.seeds.insert(seed, 0xff);
    world.link(seed, 0);
    world.run(15_000);
    for (who, stripe) in (0..3).flat_map(|who| (0..STRIPES).map(move |stripe| (who, stripe))) {
        assert!(world.depth(who, stripe).is_some(), "{who} {stripe}");
    }
    let before = world.sum(|viewer| u64::from(viewer.rescues));
    world.run(30_000);
    assert_eq!(world.sum(|viewer| u64::from(viewer.rescues)), before);
}

/// Uploads carry half of what is needed: the relay answers the rest, and grafts stay few.
#[test]
fn poor_uploads_do_not_make_viewers_restless() {
    let mut world = World::swarm(2, 40, 4);
    world.run(20_000);
    let before = world.sum(|viewer| viewer.grafts);
    world.run(50_000);
    let grafts = world.sum(|viewer| viewer.grafts) - before;
    assert!(grafts <= 20 * 40, "{grafts} grafts in 20 viewer-minutes");
    assert_eq!(world.missed(5_000, 48_000), 0);
}

/// 2 % loss, ways of different lengths, and every other second somebody is killed and somebody
/// new comes: 40 times what is usual.
#[test]
fn losses_and_churn_cost_little() {
    for (capacity, churn, rescues_max, copies_max) in [(12, true, 3, 2), (5, false, 45, 5)] {
        let mut world = World::swarm(1, 40, capacity);
        (world.loss, world.ways) = (2, 40);
        let mut before = [0; 3];
        for second in 0..30 {
            world.run(second * 1_000);
            if second == 10 {
                before = world.costs();
            }
            if churn && second % 2 == 0 {
                world.replace(capacity, second);
            }
        }
        let [rescues, copies, whole] = world.costs();
        let [rescues, copies] = [rescues - before[0], copies - before[1]];
        let whole = whole - before[2];
        assert!(rescues * 100 <= whole * rescues_max, "{capacity}: {rescues} of {whole}");
        assert!(copies * 100 <= whole * copies_max, "{capacity}: {copies} of {whole}");
        let late = |viewer: &Viewer| {
            let late = viewer.whole.iter().filter(|(n, at)| **at > world.signed[n] + 1_500);
            late.count() as u64
        };
        assert!(world.sum(late) <= 3, "{capacity}: {} late", world.sum(late));
    }
}
