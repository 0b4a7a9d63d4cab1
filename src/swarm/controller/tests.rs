//! A stream whose peers upload and ask as they are told: what the controller makes of it.

use super::*;

const BITRATE: u64 = 4_000_000;

/// A stream whose peers upload and ask as they are told to, on two shards.
struct World {
    now: Mono,
    controller: Controller,
    situation: Situation,
    /// Channel, upload in kbit/s, when it came.
    peers: Vec<(u32, u32, Mono)>,
    /// Rescues in parts of what all need.
    rescue: f64,
    /// What they are reckoned at.
    promised: u64,
}

impl World {
    fn new(mode: Mode) -> World {
        let now = Mono::from_millis(1_000_000);
        let chunks = BITRATE as f64 / 8.0 / 1_316.0;
        World {
            now,
            controller: Controller::new(now, mode),
            situation: Situation {
                bitrate: BITRATE,
                chunks,
                sent: 0,
                played: 0,
                whole: BITRATE / 100 * 111,
                promised: 0,
                budget: None,
            },
            peers: Vec::new(),
            rescue: 0.0,
            promised: 0,
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
        let promised = self.promised / 2;
        let mut census = Census { span: INTERVAL, promised, ..Census::default() };
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
            census.members.push(Member {
                channel: *channel,
                address: ([10, 0, 0, 1], (channel >> 8) as u16 | 1).into(),
                upload_kbit: *upload_kbit,
                rtt: Duration::from_millis(30),
                relayed: u8::MAX,
                age,
            });
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
    assert!(!orders.hybrid && orders.plan.rows().is_empty());
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

/// Four fit, so that eight never come together.
#[test]
fn auto_passes_on_among_few_if_the_budget_has_no_room_for_more() {
    let whole = BITRATE / 100 * 111;
    let mut world = World::new(Mode::Auto);
    world.come(4, 8_000);
    (world.promised, world.situation.promised) = (4 * whole, 4 * whole);
    world.situation.budget = Some(5 * whole);
    assert!(!world.pass(10_000).hybrid, "there is room for a fifth");
    world.situation.budget = Some(5 * whole - 1);
    assert!(world.pass(2_000).hybrid);
    // Few are no reason to give up as long as there were no room for them.
    (world.promised, world.situation.promised) = (whole, whole);
    assert!(world.pass(120_000).hybrid);
    world.situation.budget = Some(5 * whole);
    assert!(!world.pass(2_000).hybrid);
    // Other streams take the room as well.
    world.situation.promised += 1;
    assert!(world.pass(62_000).hybrid);
    // Nobody can pass on: the budget changes nothing.
    world.peers.iter_mut().for_each(|peer| peer.1 = 100);
    assert!(!world.pass(2_000).hybrid);
    let mut one = World::new(Mode::Auto);
    one.come(1, 8_000);
    one.situation.budget = Some(1);
    assert!(!one.pass(10_000).hybrid, "nobody is there to pass on to");
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
    let row = orders.plan.get(hybrid.peers[0].0).unwrap();
    assert!(orders.hybrid && row.parents == [0; 8], "the only one");
    let mut direct = World::new(Mode::Direct);
    direct.come(100, 50_000);
    let orders = direct.pass(30_000);
    assert!(!orders.hybrid && orders.plan == Plan::default());
    assert_eq!(direct.controller.copies(), 0);
}

#[test]
fn peers_of_all_shards_are_planned_together() {
    let mut world = World::new(Mode::Hybrid);
    world.come(40, 8_000);
    let orders = world.pass(2_750);
    let across =
        |row: &Row| row.parents.iter().any(|parent| *parent != 0 && parent ^ row.channel & 1 != 0);
    assert_eq!(orders.plan.rows().len(), 40);
    assert!(orders.plan.rows().iter().any(across));
    assert_eq!(world.controller.copies(), 4);
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
