//! What plans look like, and what becomes of them among peers that do less than they say.

mod chance;
mod faults;
mod shapes;
mod world;

use super::*;
use world::World;

/// Peers with lines as in the simulator, who have come together and have all been planned.
fn settled(peers: usize, seed: u64) -> World {
    let mut world = World::new();
    (0..seed).for_each(|_| _ = world.below(2));
    (0..peers).for_each(|_| _ = world.come_at_random());
    // Newcomers are left to the relay for some time, the longer the longer their way is.
    world.pass(4);
    (0..(peers / 100).max(4) * STRIPES).for_each(|_| world.turn());
    world
}
