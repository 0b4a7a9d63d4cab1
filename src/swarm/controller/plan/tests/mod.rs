//! What plans look like, and what becomes of them among peers that can do less than they say.

mod world;

use super::*;
use world::World;

fn settled(peers: usize, seed: u64) -> World {
    let mut world = World::new();
    (0..seed).for_each(|_| _ = world.below(2));
    (0..peers).for_each(|_| _ = world.come_at_random());
    world.pass(2);
    (0..(peers / 100).max(2) * 8).for_each(|_| world.turn());
    world
}

#[test]
fn all_stripes_of_all_peers_have_parents() {
    for (peers, copies) in [(60, 3), (1_000, 13)] {
        for seed in 0..4 {
            let world = settled(peers, seed);
            let capacity: u32 = world
                .peers
                .values()
                .map(|peer| (peer.said * 95 / 100 / world::STRIPE).min(96))
                .sum();
            let left = world.left();
            let depth = world.check();
            eprintln!(
                "{peers} peers, seed {seed}: capacity {capacity} of {}, left {left:?}, depth {depth}, bits {}",
                peers * 8,
                world.relayed()
            );
            let lacking = (peers * STRIPES).saturating_sub(capacity as usize).div_ceil(STRIPES);
            let most = copies.max(lacking) + peers / 50;
            assert!(left.iter().all(|left| *left <= most), "{left:?}");
            assert!(depth <= 6, "{depth}");
        }
    }
}

#[test]
fn churn_changes_little() {
    for peers in [60, 300] {
        let mut world = settled(peers, 1);
        world.pass(10);
        world.changes = 0;
        let (mut relayed, mut turns, mut deepest) = (0.0, 0.0, 0);
        for _ in 0..600 {
            for _ in 0..4 {
                world.churn(2_000);
                world.turn();
                relayed += world.relayed();
                turns += 1.0;
            }
            deepest = deepest.max(world.check());
        }
        let changes = world.changes as f64 / peers as f64 / 10.0;
        let capacity: u32 =
            world.peers.values().map(|peer| (peer.said * 95 / 100 / world::STRIPE).min(96)).sum();
        eprintln!(
            "{peers}: relayed {:.3}, changes {changes:.2}, depth {deepest}, capacity {capacity} of {}",
            relayed / turns,
            peers * 8
        );
    }
}
