//! One viewer and what it is told: what it follows, and when it turns to the relay.

use std::collections::BTreeMap;

use super::*;

const A: Key = Key(1);
const B: Key = Key(2);
const C: Key = Key(3);

/// The round trip to each neighbour.
const RTT: Duration = Duration::from_millis(20);

/// The stripe that most of it is about, and its bit.
const ONE: u8 = 1;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A mesh, its time, and what it is to have.
struct World {
    mesh: Mesh,
    now: Mono,
    missing: BTreeMap<u64, Missing>,
}

impl World {
    /// With neighbours, of whom the first is named for the first stripe.
    fn new(keys: &[Key]) -> World {
        let now = Mono::from_millis(1_000);
        let mut world = World { mesh: Mesh::new(7), now, missing: BTreeMap::new() };
        for key in keys {
            assert!(world.mesh.add(now, *key, RTT));
        }
        world.turn();
        world
    }

    /// The first of `keys` feeds the first stripe, the relay no longer; subtree 8 was the first.
    fn fed(keys: &[Key]) -> World {
        let mut world = World::new(keys);
        world.name(keys[0]);
        world.push(keys[0], 8);
        assert_eq!(world.relay(), !ONE);
        world
    }

    /// The relay names a neighbour for the first stripe, and nobody else for anything.
    fn name(&mut self, key: Key) {
        for other in [A, B, C] {
            self.mesh.advise(other, if other == key { ONE } else { 0 });
        }
        self.mesh.set_relay_feeds(!ONE);
        self.turn();
    }

    fn turn(&mut self) {
        let missing: Vec<Missing> = self.missing.values().copied().collect();
        self.mesh.turn(self.now, &missing);
    }

    /// Time goes by, with a turn whenever one is due. Neighbours `talk`.
    fn wait(&mut self, millis: u64, talk: &[Key]) {
        for _ in 0..millis {
            self.now = self.now + ms(1);
            talk.iter().for_each(|key| self.mesh.note_heard(self.now, *key));
            if self.mesh.next_deadline().is_some_and(|at| at <= self.now) {
                self.turn();
            }
        }
    }

    /// A subtree is known to exist, and we have nothing of it.
    fn lack(&mut self, subtree: u64, deadline: Option<u64>) {
        let deadline = deadline.map(|after| self.now + ms(after));
        self.missing.insert(subtree, Missing { subtree, since: self.now, deadline });
        self.turn();
    }

    /// A neighbour begins with a subtree, and does not bring all of it.
    fn begin(&mut self, key: Key, subtree: u64) {
        self.lack(subtree, None);
        self.mesh.note_heard(self.now, key);
        self.mesh.note_hash(self.now, Pusher::Neighbour(key), subtree);
    }

    /// A neighbour brings all of a subtree.
    fn push(&mut self, key: Key, subtree: u64) {
        self.begin(key, subtree);
        self.missing.remove(&subtree);
        self.mesh.note_whole(self.now, subtree);
    }

    fn relay(&self) -> u8 {
        self.mesh.relay_stripes()
    }

    fn fed_by(&self, key: Key) -> u8 {
        self.mesh.stripes(key)
    }

    fn asked(&self, subtree: u64) -> Source {
        self.mesh.source(subtree)
    }

    fn room(&mut self, key: Key, room_kbit: u32) {
        self.mesh.note_state(key, &State { room_kbit, ..State::default() });
    }
}

#[test]
fn who_is_named_is_asked_and_the_relay_is_left_once_it_brings_something() {
    let mut world = World::new(&[A, B]);
    assert_eq!((world.relay(), world.fed_by(A)), (0xff, 0), "nobody was named");
    world.mesh.note_hash(world.now, Pusher::Relay, 8);
    world.mesh.advise(A, ONE);
    world.mesh.set_relay_feeds(!ONE);
    assert!(world.mesh.next_deadline().unwrap() <= world.now, "at once");
    world.turn();
    assert_eq!((world.fed_by(A), world.fed_by(B), world.relay()), (ONE, 0, 0xff));
    // What there was before it was asked says nothing.
    world.push(A, 8);
    assert_eq!(world.relay(), 0xff);
    // Nor what another brings, or the relay.
    world.push(B, 16);
    world.mesh.note_hash(world.now, Pusher::Relay, 24);
    assert_eq!(world.relay(), 0xff);
    // Nor another stripe.
    world.push(A, 25);
    assert_eq!(world.relay(), 0xff);
    world.push(A, 24);
    assert_eq!((world.fed_by(A), world.relay()), (ONE, !ONE), "though it was not the first");
    assert_eq!(world.mesh.take_events(), Events { grafts: 1, prunes: 0, forgotten: 0 });
    assert_eq!(world.mesh.take_events(), Events::default());
}

#[test]
fn a_parent_that_falls_silent_is_given_up_at_the_first_subtree() {
    let mut world = World::fed(&[A, B]);
    world.wait(600, &[]);
    world.lack(16, None);
    world.wait(600, &[]);
    assert_eq!((world.relay(), world.asked(16)), (!ONE, Source::Wait));
    world.wait(300, &[]);
    assert_eq!((world.relay(), world.asked(16)), (0xff, Source::Relay));
    assert_eq!(world.fed_by(A), ONE, "it may come back");
}

#[test]
fn a_parent_that_talks_is_given_up_at_the_second_subtree_that_it_misses() {
    let mut world = World::fed(&[A, B]);
    world.wait(600, &[A]);
    world.lack(16, None);
    world.wait(900, &[A]);
    assert_eq!((world.relay(), world.asked(16)), (!ONE, Source::Wait));
    world.lack(24, None);
    world.wait(900, &[A]);
    assert_eq!(world.relay(), 0xff);
    assert_eq!([world.asked(16), world.asked(24)], [Source::Relay; 2]);
    // One that it brings in between begins the count anew.
    let mut world = World::fed(&[A]);
    for subtree in [16, 32, 48] {
        world.lack(subtree, None);
        world.wait(900, &[A]);
        world.push(A, subtree + 8);
        assert_eq!(world.relay(), !ONE, "{subtree}");
    }
}

#[test]
fn a_parent_that_is_late_three_times_is_given_up() {
    let mut world = World::fed(&[A]);
    for subtree in [16, 24] {
        world.begin(A, subtree);
        world.wait(650, &[A]);
        assert_eq!((world.relay(), world.asked(subtree)), (!ONE, Source::Neighbour(A)));
    }
    world.push(A, 32);
    for subtree in [40, 48, 56] {
        assert_eq!(world.relay(), !ONE, "one was in time: {subtree}");
        world.begin(A, subtree);
        world.wait(650, &[A]);
    }
    assert_eq!(world.relay(), 0xff);
    // Late, but there: that counted once and for all.
    let mut world = World::fed(&[A]);
    world.begin(A, 16);
    world.wait(5_000, &[A]);
    assert_eq!(world.relay(), !ONE);
}

/// A world in which the parent was given up at `now`.
fn failed() -> World {
    let mut world = World::fed(&[A, B]);
    world.wait(600, &[]);
    world.lack(16, None);
    world.wait(900, &[]);
    assert_eq!(world.relay(), 0xff);
    world.missing.clear();
    world
}

#[test]
fn who_failed_must_bring_three_subtrees_to_be_trusted_again() {
    let mut world = failed();
    world.push(A, 24);
    world.push(A, 32);
    assert_eq!(world.relay(), 0xff);
    world.push(A, 40);
    assert_eq!(world.relay(), !ONE);
    // After a quarter of a minute one is enough.
    let mut world = failed();
    world.wait(14_000, &[A]);
    world.push(A, 24);
    assert_eq!(world.relay(), 0xff);
    world.wait(1_500, &[A]);
    world.push(A, 32);
    assert_eq!(world.relay(), !ONE);
    // Another one has not failed.
    let mut world = failed();
    world.name(B);
    world.push(B, 24);
    assert_eq!(world.relay(), !ONE);
}

#[test]
fn the_parent_before_goes_on_until_the_next_brings_something() {
    let mut world = World::fed(&[A, B]);
    world.name(B);
    assert_eq!((world.fed_by(A), world.fed_by(B), world.relay()), (ONE, ONE, !ONE));
    world.push(A, 16);
    assert_eq!(world.fed_by(A), ONE);
    world.push(B, 24);
    assert_eq!((world.fed_by(A), world.fed_by(B), world.relay()), (0, ONE, !ONE));
    assert_eq!(world.mesh.take_events(), Events { grafts: 2, prunes: 0, forgotten: 0 });
    // Two seconds at most.
    let mut world = World::fed(&[A, B]);
    world.name(B);
    world.wait(1_950, &[A, B]);
    assert_eq!(world.fed_by(A), ONE);
    world.wait(200, &[A, B]);
    assert_eq!((world.fed_by(A), world.fed_by(B)), (0, ONE));
    assert_eq!(world.mesh.take_events(), Events { grafts: 2, prunes: 1, forgotten: 0 });
    // Not while the relay feeds us.
    let mut world = failed();
    world.name(B);
    assert_eq!((world.fed_by(A), world.fed_by(B), world.relay()), (0, ONE, 0xff));
}

#[test]
fn when_the_relay_is_to_feed_the_stripe_itself_the_parent_goes_on_until_it_does() {
    let mut world = World::fed(&[A, B]);
    world.mesh.advise(A, 0);
    world.mesh.set_relay_feeds(0xff);
    world.turn();
    assert_eq!((world.fed_by(A), world.relay()), (ONE, 0xff));
    world.mesh.note_hash(world.now, Pusher::Relay, 17);
    assert_eq!(world.fed_by(A), ONE, "another stripe");
    world.mesh.note_hash(world.now, Pusher::Relay, 16);
    assert_eq!((world.fed_by(A), world.relay()), (0, 0xff));
}

#[test]
fn a_parent_is_kept_as_long_as_the_next_is_not_reached() {
    let mut world = World::fed(&[A]);
    // Somebody else is named, whom we do not know yet.
    world.mesh.advise(A, 0);
    world.turn();
    assert_eq!((world.fed_by(A), world.relay()), (ONE, !ONE));
    assert!(world.mesh.add(world.now, B, RTT));
    world.name(B);
    assert_eq!((world.fed_by(A), world.fed_by(B)), (ONE, ONE));
    // Without a parent it is the relay.
    let mut world = World::new(&[A]);
    world.mesh.set_relay_feeds(!ONE);
    world.turn();
    assert_eq!((world.fed_by(A), world.relay()), (0, 0xff));
}

#[test]
fn when_a_neighbour_leaves_the_relay_is_asked_at_once() {
    let mut world = World::fed(&[A, B]);
    world.mesh.remove(world.now, A);
    assert_eq!((world.relay(), world.fed_by(A)), (0xff, 0), "before any turn");
    assert!(world.mesh.next_deadline().unwrap() <= world.now);
    // Unless another still brings it.
    let mut world = World::fed(&[A, B]);
    world.name(B);
    world.mesh.remove(world.now, B);
    assert_eq!((world.relay(), world.fed_by(A)), (!ONE, ONE));
    world.mesh.remove(world.now, A);
    assert_eq!(world.relay(), 0xff);
    // Its place is another's, who has brought nothing.
    assert!(world.mesh.add(world.now, C, RTT));
    world.turn();
    assert_eq!((world.fed_by(C), world.relay()), (0, 0xff));
}

#[test]
fn whom_we_feed_a_stripe_is_not_asked_for_it() {
    let mut world = World::new(&[A]);
    world.mesh.note_children(A, ONE | 2);
    world.mesh.advise(A, ONE | 4);
    world.mesh.set_relay_feeds(!(ONE | 4));
    world.turn();
    assert_eq!((world.fed_by(A), world.relay()), (4, 0xff), "that would be a loop");
    world.mesh.note_children(A, 2);
    world.wait(100, &[A]);
    assert_eq!(world.fed_by(A), ONE | 4);
}

#[test]
fn what_was_there_before_we_joined_is_asked_of_the_relay() {
    let mut world = World::fed(&[A, B]);
    world.mesh.backlog_until(40);
    world.mesh.note_have(world.now, A, 24);
    for subtree in [24, 40] {
        world.lack(subtree, None);
    }
    assert_eq!([world.asked(24), world.asked(40)], [Source::Relay, Source::Wait]);
}

#[test]
fn holes_are_asked_of_who_announced_and_has_room_or_feeds_us() {
    let mut world = World::fed(&[A, B, C]);
    world.mesh.set_bitrate(4_000_000);
    world.room(B, 499);
    world.room(C, 499);
    for key in [B, C] {
        world.mesh.note_have(world.now, key, 16);
    }
    world.begin(A, 16);
    world.wait(630, &[A]);
    assert_eq!(world.asked(16), Source::Neighbour(A), "nobody else has room");
    world.room(C, 500);
    world.wait(100, &[A]);
    assert_eq!(world.asked(16), Source::Neighbour(C));
    // It does not answer in time: it is not asked again.
    world.wait(630, &[A]);
    assert_eq!(world.asked(16), Source::Neighbour(A));
    // Who feeds us has a place for us.
    world.mesh.advise(B, 2);
    world.wait(100, &[A]);
    assert_eq!((world.fed_by(B), world.asked(16)), (2, Source::Neighbour(B)));
    // It leaves: somebody else, or at least who has begun.
    world.mesh.remove(world.now, B);
    assert_ne!(world.asked(16), Source::Neighbour(B));
    world.wait(100, &[A]);
    assert_eq!(world.asked(16), Source::Neighbour(A));
}

#[test]
fn what_a_parent_misses_once_is_asked_of_whoever_announces_it() {
    let mut world = World::fed(&[A, B]);
    world.lack(16, None);
    world.wait(900, &[A, B]);
    assert_eq!((world.asked(16), world.relay()), (Source::Wait, !ONE));
    world.mesh.note_have(world.now, B, 16);
    assert!(world.mesh.next_deadline().unwrap() <= world.now, "that was missing");
    world.turn();
    assert_eq!(world.asked(16), Source::Neighbour(B));
}

#[test]
fn by_its_deadline_everything_is_asked_of_the_relay() {
    for (rtt, least) in [(50, 500), (300, 900)] {
        let mut world = World::fed(&[A]);
        world.mesh.set_relay_rtt(ms(rtt));
        world.lack(16, Some(2_000));
        world.begin(A, 24);
        world.lack(24, Some(2_000));
        world.mesh.note_hash(world.now, Pusher::Neighbour(A), 24);
        world.wait(2_000 - least - 101, &[A]);
        assert_ne!(world.asked(24), Source::Relay, "rtt {rtt}");
        world.wait(102, &[A]);
        assert_eq!([world.asked(16), world.asked(24)], [Source::Relay; 2], "rtt {rtt}");
    }
}

#[test]
fn while_the_relay_is_silent_whoever_has_it_is_asked_instead() {
    let mut world = World::fed(&[A, B]);
    world.mesh.set_relay_rtt(ms(50));
    world.mesh.note_relay_heard(world.now);
    // One that nobody has, one that a neighbour has begun, one that the relay began, and one of
    // its stripes.
    world.lack(16, Some(900));
    world.begin(A, 24);
    world.lack(24, Some(900));
    world.lack(17, Some(900));
    world.mesh.note_hash(world.now, Pusher::Relay, 17);
    world.lack(25, Some(5_000));
    [17, 25].into_iter().for_each(|subtree| world.mesh.note_have(world.now, B, subtree));
    world.wait(600, &[A, B]);
    assert_eq!([16, 24, 17, 25].map(|subtree| world.asked(subtree)), [Source::Relay; 4]);
    world.wait(152, &[A, B]);
    assert_eq!([16, 24].map(|subtree| world.asked(subtree)), [Source::Relay, Source::Neighbour(A)]);
    assert_eq!([17, 25].map(|subtree| world.asked(subtree)), [Source::Neighbour(B); 2]);
    assert_eq!(world.relay(), !ONE, "it is to go on when it is back");
    // It is back.
    world.mesh.note_relay_heard(world.now);
    assert!(world.mesh.next_deadline().unwrap() <= world.now, "at once");
    world.turn();
    assert_eq!([16, 24, 17, 25].map(|subtree| world.asked(subtree)), [Source::Relay; 4]);
}

#[test]
fn what_the_relay_pushes_is_repaired_by_it() {
    let mut world = World::fed(&[A]);
    world.lack(17, None);
    assert_eq!(world.asked(17), Source::Wait, "it is on its way");
    world.wait(131, &[A]);
    assert_eq!(world.asked(17), Source::Relay, "a round trip and a little");
    world.lack(25, None);
    world.mesh.note_hash(world.now, Pusher::Relay, 25);
    assert_eq!(world.asked(25), Source::Relay);
    world.lack(33, None);
    world.mesh.note_hash(world.now, Pusher::Http, 33);
    assert_eq!(world.asked(33), Source::Relay);
}

#[test]
fn without_neighbours_everything_is_the_relays() {
    let mut mesh = Mesh::new(1);
    let now = Mono::from_millis(5);
    assert_eq!((mesh.relay_stripes(), mesh.source(9)), (0xff, Source::Relay));
    mesh.set_relay_feeds(0);
    mesh.turn(now, &[Missing { subtree: 9, since: now, deadline: None }]);
    assert_eq!((mesh.relay_stripes(), mesh.source(9)), (0xff, Source::Relay));
    assert_eq!(mesh.next_deadline(), None);
    // Also when the last one has left.
    let mut world = World::fed(&[A]);
    world.mesh.remove(world.now, A);
    assert_eq!((world.relay(), world.asked(16)), (0xff, Source::Relay));
    assert_eq!(world.mesh.next_deadline(), None);
}

#[test]
fn a_relay_that_knows_nothing_of_us_is_asked_for_everything() {
    let mut world = World::fed(&[A]);
    world.mesh.begin_anew();
    assert_eq!((world.relay(), world.fed_by(A)), (0xff, ONE));
    assert!(world.mesh.next_deadline().unwrap() <= world.now);
    world.turn();
    assert_eq!(world.relay(), 0xff);
    world.push(A, 16);
    assert_eq!(world.relay(), !ONE, "until neighbours bring it");
}

#[test]
fn there_is_an_end_to_neighbours_and_to_what_is_known() {
    let mut mesh = Mesh::new(1);
    let now = Mono::from_millis(5);
    let most = NEIGHBOURS_MAX as u16;
    assert!((0..most).all(|n| mesh.add(now, Key(n), RTT)));
    assert!(!mesh.add(now, Key(most), RTT), "too many");
    assert!(mesh.add(now, Key(0), RTT), "known");
    mesh.remove(now, Key(63));
    assert!(mesh.add(now, Key(most), RTT));
    mesh.note_have(now, Key(most), 3);
    mesh.note_hash(now, Pusher::Relay, 10);
    // Who announces what cannot exist yet is not believed.
    (0..3_000).for_each(|n| mesh.note_have(now, Key(1), 11 + n));
    assert!(mesh.tracks.len() <= TRACKS_MAX);
    assert_eq!(mesh.tracks.from(0).last().map(|(last, _)| last), Some(10 + AHEAD_MAX));
    (0..2_000).for_each(|n| mesh.note_hash(now, Pusher::Relay, n));
    assert_eq!(mesh.tracks.len(), TRACKS_MAX);
    // What was played is forgotten, and announcements of it are not looked at.
    mesh.turn(now, &[Missing { subtree: 1_990, since: now, deadline: None }]);
    assert!(mesh.tracks.len() <= 64 + 10);
    mesh.note_have(now, Key(1), 1_000);
    assert!(mesh.tracks.get(1_000).is_none());
    mesh.note_have(now, Key(most + 5), 1_991);
    mesh.note_hash(now, Pusher::Neighbour(Key(most + 5)), 1_991);
    assert_eq!(mesh.stripes(Key(most + 5)), 0, "a stranger");
}

/// Something happens, anything.
fn happen(world: &mut World, random: &mut fastrand::Rng, head: &mut u64) {
    let now = world.now;
    let key = Key(random.u16(..8));
    let subtree = head.saturating_sub(random.u64(..40)) + random.u64(..4);
    let deadline = random.bool().then(|| now + ms(random.u64(..3_000)));
    let mesh = &mut world.mesh;
    match random.u8(..20) {
        0 => assert!(mesh.add(now, key, ms(random.u64(..300)))),
        1 => mesh.remove(now, key),
        2 => mesh.note_state(key, &State { room_kbit: random.u32(..900), ..State::default() }),
        3 => mesh.advise(key, random.u8(..)),
        4 => mesh.set_relay_feeds(random.u8(..)),
        5 if random.u8(..10) == 0 => mesh.begin_anew(),
        6 => mesh.note_children(key, random.u8(..)),
        7 => mesh.note_rtt(key, ms(random.u64(..300))),
        8 if random.u8(..10) == 0 => mesh.backlog_until(subtree),
        9 => mesh.set_relay_rtt(ms(random.u64(..400))),
        10 | 11 => mesh.note_have(now, key, subtree),
        12 | 13 => mesh.note_hash(now, Pusher::Neighbour(key), subtree),
        14 => mesh.note_hash(now, Pusher::Relay, subtree),
        15 => mesh.note_relay_have(now, subtree),
        16 => {
            world.missing.remove(&subtree);
            mesh.note_whole(now, subtree);
        }
        17 if random.bool() => mesh.note_relay_heard(now),
        17 => mesh.note_heard(now, key),
        _ => {
            *head += random.u64(..3);
            world.missing.insert(*head, Missing { subtree: *head, since: now, deadline });
        }
    }
}

/// Whatever happens, after a turn somebody was asked to bring each stripe, and only those who are
/// there are asked for anything.
#[test]
fn whatever_happens_every_stripe_is_asked_of_somebody() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(&[]);
        let mut head = random.u64(..1_000);
        for step in 0..1_500 {
            happen(&mut world, &mut random, &mut head);
            if random.u8(..3) == 0 {
                world.now = world.now + ms(random.u64(..120));
            }
            while world.missing.len() > 60 {
                world.missing.pop_first();
            }
            world.turn();
            let there = |key: &Key| world.mesh.slot(*key).is_some();
            let fed = (0..8).map(Key).fold(0, |fed, key| fed | world.fed_by(key));
            assert_eq!(fed | world.relay(), 0xff, "seed {seed}, step {step}");
            let asked = world.missing.keys().map(|subtree| world.asked(*subtree));
            let gone = |source| matches!(source, Source::Neighbour(key) if !there(&key));
            assert_eq!(asked.filter(|source| gone(*source)).count(), 0, "seed {seed}, step {step}");
            let due = world.mesh.next_deadline();
            assert!(world.mesh.is_alone() || due.is_some_and(|at| at <= world.now + ms(100)));
        }
        assert!(world.mesh.tracks.len() <= TRACKS_MAX, "seed {seed}");
    }
}

/// A table with a place for each number in between must not be made large by two numbers.
#[test]
fn subtrees_that_lie_too_far_apart_are_not_tracked_together() {
    let mut world = World::new(&[A]);
    let tracked = |world: &World| -> Vec<u64> {
        world.mesh.tracks.from(0).map(|(subtree, _)| subtree).collect()
    };
    for subtree in [10, 11, 10 + APART_MAX] {
        world.mesh.note_hash(world.now, Pusher::Neighbour(A), subtree);
    }
    assert_eq!(tracked(&world), [10, 11, 10 + APART_MAX]);
    assert_eq!(world.mesh.take_events().forgotten, 0);
    // What is played first goes.
    world.mesh.note_whole(world.now, 11);
    world.mesh.note_hash(world.now, Pusher::Neighbour(A), 12 + APART_MAX);
    assert_eq!(tracked(&world), [10 + APART_MAX, 12 + APART_MAX]);
    assert_eq!(world.mesh.take_events().forgotten, 1, "the other one was whole");
    // Somebody far behind comes: what is missing now counts.
    world.mesh.note_hash(world.now, Pusher::Neighbour(A), 9);
    assert_eq!(tracked(&world), [9]);
    assert_eq!(world.mesh.take_events().forgotten, 2);
}

#[test]
fn where_nobody_pushes_the_one_who_has_announced_is_asked() {
    let mut world = World::new(&[A, B]);
    world.mesh.set_pulls(true);
    assert_eq!(world.relay(), 0);
    let chance = |subtree: u64| {
        let mut world = World::new(&[A, B]);
        world.mesh.set_pulls(true);
        world.lack(subtree, None);
        world.mesh.source(subtree)
    };
    let relayed = (100..900).filter(|subtree| chance(*subtree) == Source::Relay).count();
    assert!((60..140).contains(&relayed), "{relayed}: one in eight");
    let subtree = (100..).find(|subtree| chance(*subtree) == Source::Wait).unwrap();
    world.lack(subtree, Some(2_000));
    world.wait(100, &[A, B]);
    assert_eq!(world.mesh.source(subtree), Source::Wait);
    world.mesh.note_have(world.now, B, subtree);
    world.wait(1, &[A, B]);
    assert_eq!(world.mesh.source(subtree), Source::Neighbour(B));
    world.wait(1_500, &[A, B]);
    assert_eq!(world.mesh.source(subtree), Source::Relay, "it is played soon");
    assert_eq!((world.relay(), world.mesh.take_events().grafts), (0, 0));
}
