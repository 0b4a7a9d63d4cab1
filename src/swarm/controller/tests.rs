//! A stream whose peers upload and ask as they are told: what the controller makes of it.

use super::quota::least;
use super::*;

const BITRATE: u64 = 4_000_000;
const STRIPE_KBIT: u64 = 500;

/// A stream whose peers upload and ask as they are told to, on two shards.
struct World {
    now: Mono,
    controller: Controller,
    situation: Situation,
    /// Channel, upload in kbit/s, when it came.
    peers: Vec<(u32, u32, Mono)>,
    /// Rescues in parts of what all need.
    rescue: f64,
}

impl World {
    fn new(mode: Mode) -> World {
        let now = Mono::from_millis(1_000_000);
        let chunks = BITRATE as f64 / 8.0 / 1_316.0;
        World {
            now,
            controller: Controller::new(now, mode),
            situation: Situation { bitrate: BITRATE, chunks, egress: None, sent: 0, played: 0 },
            peers: Vec::new(),
            rescue: 0.0,
        }
    }

    fn come(&mut self, many: u32, upload_kbit: u32) {
        for _ in 0..many {
            let n = self.peers.len() as u32 + 1;
            let channel = 1 << 31 | (mix(n.into()) as u32 & 0x7f_ffff) << 8 | (n & 1);
            self.peers.push((channel, upload_kbit, self.now));
        }
    }

    fn census(&self, shard: u32) -> Census {
        let mut census = Census { span: INTERVAL, ..Census::default() };
        for (channel, upload_kbit, came) in &self.peers {
            if channel & 1 != shard {
                continue;
            }
            let age = self.now.since(*came);
            census.peers += 1;
            if age >= PROVEN {
                census.proven += 1;
                census.upload_kbit += u64::from(*upload_kbit);
            }
            let candidate = Candidate {
                channel: *channel,
                id: *channel,
                address: ([10, 0, 0, 1], channel.to_be_bytes()[1].into()).into(),
                upload_kbit: *upload_kbit,
                room_kbit: *upload_kbit,
                links: 0,
                age,
            };
            if census.best.len() < BEST_MAX {
                census.best.push(candidate);
            }
        }
        let needed = f64::from(census.peers) * self.situation.chunks * INTERVAL.as_secs_f64();
        census.rescued = (needed * self.rescue) as u64;
        census
    }

    /// Lets so much time pass; returns the last orders.
    fn pass(&mut self, millis: u64) -> Orders {
        let mut orders = None;
        for _ in 0..(millis / 250).max(1) {
            self.now = self.now + INTERVAL;
            for shard in 0..2 {
                let census = self.census(shard);
                self.controller.handle_census(self.now, ShardId(shard as u16), census);
            }
            assert!(self.controller.is_due(self.now));
            orders = Some(self.controller.step(self.now, &self.situation));
        }
        orders.unwrap()
    }

    /// How many peers are pushed each stripe.
    fn pushed(&self, orders: &Orders) -> [u32; STRIPES] {
        let mut counts = [0; STRIPES];
        for (channel, ..) in &self.peers {
            let stripes = orders.stripes(*channel);
            let bits = counts.iter_mut().enumerate();
            bits.for_each(|(stripe, count)| *count += u32::from(stripes >> stripe & 1));
        }
        counts
    }
}

#[test]
fn auto_waits_for_enough_peers_with_enough_upload() {
    let mut world = World::new(Mode::Auto);
    world.come(7, 8_000);
    assert!(!world.pass(10_000).hybrid, "seven are few");
    world.come(1, 8_000);
    assert!(!world.pass(750).hybrid, "not at once");
    assert!(world.pass(2_500).hybrid);
    assert_eq!(world.controller.switches(), 1);
    let mut poor = World::new(Mode::Auto);
    poor.come(50, 900);
    assert!(!poor.pass(20_000).hybrid, "less than a quarter");
    poor.come(50, 1_200);
    assert!(poor.pass(3_500).hybrid);
    let mut new = World::new(Mode::Auto);
    new.come(50, 8_000);
    assert!(!new.pass(2_500).hybrid, "what newcomers say is not believed yet");
    assert!(new.pass(750).hybrid);
}

#[test]
fn auto_gives_up_within_two_seconds_and_does_not_come_back_for_a_minute() {
    let mut world = World::new(Mode::Auto);
    world.come(20, 4_000);
    assert!(world.pass(5_000).hybrid);
    let all: Vec<u32> = world.peers.iter().map(|peer| peer.1).collect();
    world.peers.iter_mut().for_each(|peer| peer.1 = 300);
    assert!(world.pass(1_000).hybrid);
    let orders = world.pass(1_000);
    assert!(!orders.hybrid && orders.stripes(77) == 0xff && orders.candidates.is_empty());
    world.peers.iter_mut().zip(all).for_each(|(peer, upload)| peer.1 = upload);
    assert!(!world.pass(58_000).hybrid);
    assert!(world.pass(3_000).hybrid);
    // Promises that nobody keeps.
    world.rescue = 0.6;
    assert!(world.pass(1_500).hybrid);
    assert!(!world.pass(500).hybrid);
    // Few peers are no hurry: that may wait for its minute.
    world.rescue = 0.0;
    assert!(world.pass(62_000).hybrid);
    world.peers.truncate(5);
    assert!(world.pass(50_000).hybrid);
    assert!(!world.pass(12_000).hybrid);
}

#[test]
fn a_dip_changes_nothing() {
    let mut world = World::new(Mode::Auto);
    world.come(20, 4_000);
    assert!(world.pass(5_000).hybrid);
    for _ in 0..20 {
        world.rescue = 0.9;
        assert!(world.pass(1_500).hybrid);
        world.rescue = 0.2;
        assert!(world.pass(250).hybrid);
    }
    assert_eq!(world.controller.switches(), 1);
}

#[test]
fn what_the_operator_chose_is_kept() {
    let mut hybrid = World::new(Mode::Hybrid);
    hybrid.come(1, 0);
    let orders = hybrid.pass(30_000);
    assert!(orders.hybrid && orders.stripes(hybrid.peers[0].0) == 0xff, "the only one");
    let mut direct = World::new(Mode::Direct);
    direct.come(100, 50_000);
    assert!(!direct.pass(30_000).hybrid);
}

#[test]
fn copies_follow_what_peers_can_upload() {
    // Uploads in parts of the bitrate, and the copies of each stripe for 100 peers.
    for (part, copies) in [(1.5, 4..=4), (0.6, 55..=66), (0.0, 100..=100)] {
        let mut world = World::new(Mode::Hybrid);
        world.come(100, (4_000.0 * part) as u32);
        // Neither too many nor too few rescues: nothing to put right.
        world.rescue = 0.01;
        let orders = world.pass(40_000);
        let pushed = world.pushed(&orders);
        let all: u32 = pushed.iter().sum();
        let mean = (all as f64 / 8.0).round() as u32;
        assert!(copies.contains(&mean), "{part}: {pushed:?}");
        assert!(*copies.start() == 55 || pushed.iter().all(|n| copies.contains(n)), "{pushed:?}");
    }
    assert_eq!([0, 1, 50, 250, 10_000].map(least), [0, 1, 3, 5, 103]);
}

#[test]
fn rescues_raise_copies_and_calm_lowers_them() {
    let mut world = World::new(Mode::Hybrid);
    world.come(200, 6_000);
    world.rescue = 0.01;
    world.pass(30_000);
    assert_eq!(world.controller.copies(), 5);
    world.rescue = 0.1;
    world.pass(10_000);
    let more = world.controller.copies();
    assert!((8..=14).contains(&more), "{more}");
    world.rescue = 0.9;
    world.pass(60_000);
    assert!(world.controller.copies() > 40);
    world.rescue = 0.001;
    world.pass(400_000);
    assert_eq!(world.controller.copies(), 5);
}

#[test]
fn copies_never_exceed_the_budget() {
    let mut world = World::new(Mode::Hybrid);
    world.come(100, 400);
    world.situation.egress = Some(BITRATE * 50);
    world.rescue = 0.4;
    world.pass(60_000);
    let copies = world.controller.copies();
    assert!((35..=36).contains(&copies), "{copies}");
}

#[test]
fn seeds_are_spread_over_the_best_and_stay() {
    let mut world = World::new(Mode::Hybrid);
    world.come(100, 5_000);
    world.come(20, 20_000);
    world.come(20, 100);
    world.rescue = 0.01;
    let first = world.pass(30_000);
    // Four of each stripe: 32 places, of which the 20 best take most.
    assert_eq!(world.pushed(&first), [4; 8]);
    let best: Vec<_> = first
        .seeds
        .iter()
        .filter(|(channel, _)| {
            world.peers.iter().any(|peer| peer.0 == *channel && peer.1 == 20_000)
        })
        .collect();
    assert!(best.len() >= 16, "{}", best.len());
    assert!(best.iter().all(|(_, stripes)| stripes.count_ones() <= 2));
    // Hundreds of better ones come; nobody who is there is replaced.
    world.come(300, 30_000);
    let later = world.pass(30_000);
    assert!(first.seeds.iter().all(|(channel, stripes)| {
        later.seeds.iter().any(|(same, more)| same == channel && more & stripes == *stripes)
    }));
    // One leaves: only its stripes are given to others.
    let (gone, _) = later.seeds[0];
    world.peers.retain(|peer| peer.0 != gone);
    let after = world.pass(250);
    assert_eq!(world.pushed(&after), [7; 8]);
    let kept = later.seeds.iter().filter(|seed| after.seeds.contains(seed)).count();
    assert!(kept + 3 >= later.seeds.len(), "{kept} of {}", later.seeds.len());
}

#[test]
fn newcomers_are_no_seeds_and_who_lost_its_upload_is_none_any_more() {
    let mut world = World::new(Mode::Hybrid);
    world.come(30, 8_000);
    world.rescue = 0.01;
    assert_eq!(world.pass(4_500).seeds, []);
    let orders = world.pass(30_000);
    assert_eq!(world.pushed(&orders), [3; 8]);
    let (poor, _) = orders.seeds[0];
    world.peers.iter_mut().filter(|peer| peer.0 == poor).for_each(|peer| peer.1 = 0);
    let orders = world.pass(250);
    assert!(orders.stripes(poor) == 0 && orders.seeds.iter().all(|seed| seed.0 != poor));
    assert_eq!(world.pushed(&orders), [3; 8]);
    assert_eq!(STRIPE_KBIT * 16, 8_000);
}

#[test]
fn newcomers_are_charged_what_those_inside_cost() {
    let mut world = World::new(Mode::Hybrid);
    world.come(30, 8_000);
    assert_eq!(world.pass(1_000).charge, 100);
    let mut charge = 0;
    for _ in 0..80 {
        world.situation.sent += 30_000;
        world.situation.played += 100_000;
        charge = world.pass(250).charge;
    }
    assert_eq!(charge, 30);
    for _ in 0..80 {
        world.situation.played += 100_000;
        charge = world.pass(250).charge;
    }
    assert_eq!(charge, 10, "never for nothing");
}

#[test]
fn the_same_counts_give_the_same_orders() {
    let run = || {
        let mut world = World::new(Mode::Hybrid);
        world.come(80, 3_000);
        world.come(80, 9_000);
        world.rescue = 0.02;
        world.pass(30_000)
    };
    assert_eq!(run(), run());
}

#[test]
fn a_shard_without_peers_is_forgotten() {
    let mut world = World::new(Mode::Hybrid);
    world.come(4, 3_000);
    world.pass(1_000);
    assert_eq!(world.controller.shards().count(), 2);
    world.now = world.now + CENSUS_OVER;
    world.controller.handle_census(world.now, ShardId(1), Census::default());
    world.controller.step(world.now, &world.situation);
    assert_eq!(world.controller.shards().collect::<Vec<_>>(), [ShardId(1)]);
}
