//! Some stripes pushed, the others told of and asked for.

use super::*;

impl World {
    /// The peer subscribes to these stripes from now on.
    fn want(&mut self, stripes: u8) {
        self.stripes = stripes;
        self.reach_sender(&Letter::Subscribe);
    }
}

/// What is pushed, by number.
fn pushed(world: &World) -> Vec<u64> {
    world.by(Why::Push).iter().map(|parcel| parcel.subtree).collect()
}

fn told(world: &World, subtree: u64) -> usize {
    let runs = world.haves.iter().map(|(_, run)| run);
    runs.filter(|[first, last]| (*first..=*last).contains(&(subtree * SIZE))).count()
}

#[test]
fn what_is_withheld_is_told_of_four_times_a_second() {
    let mut world = World::new(Manner::Ours, 20, 0);
    world.want(0b101);
    world.run(Duration::from_secs(10));
    let end = world.source.subtrees.end;
    let wanted: Vec<_> = (200..end).filter(|subtree| [0, 2].contains(&(subtree % 8))).collect();
    assert_eq!(pushed(&world), wanted);
    for subtree in (200..end - 4).filter(|subtree| ![0, 2].contains(&(subtree % 8))) {
        assert_eq!(told(&world, subtree), 1, "{subtree}");
    }
    let times = &world.haves;
    assert!((36..=41).contains(&times.len()), "{}", times.len());
    assert!(times.windows(2).all(|w| w[1].0.since(w[0].0) >= HAVE_WITHHELD));
    for (at, [_, last]) in times {
        let count = world.sent.iter().filter(|(sent, _)| sent <= at).count() as u64;
        assert!(last / SIZE < 200 + count * 4 + 8, "not before the push");
    }
}

#[test]
fn nothing_pushed_is_still_told_and_answered() {
    let mut world = World::new(Manner::Ours, 20, 0);
    world.want(0);
    world.run(Duration::from_secs(2));
    assert_eq!((pushed(&world), world.by(Why::Newest).len()), (vec![], 0));
    let end = world.source.subtrees.end;
    world.reach_sender(&Letter::Request([(end + 2) * SIZE, (end + 4) * SIZE - 1]));
    assert!(world.sender.is_asked());
    let deadline = world.sender.deadline(world.now, &world.source);
    assert!(deadline > world.now + Duration::from_millis(1), "waits without being polled");
    world.run(Duration::from_secs(1));
    assert_eq!(world.missing(end + 2..end + 4), NONE, "as soon as it was signed");
    let answers: Vec<_> = world.by(Why::Answer).iter().map(|parcel| parcel.subtree).collect();
    assert_eq!(answers, [end + 2, end + 3]);
    let far = [(end + 2) * SIZE, (end + 900) * SIZE];
    let flood = world.sender.handle_request(world.now, far, &world.source);
    assert_eq!(flood, Err(Crime::RequestFlood));
}

#[test]
fn what_the_push_will_bring_is_no_answer() {
    let mut world = World::new(Manner::Ours, 20, 0);
    world.want(0x0f);
    let end = world.source.subtrees.end;
    world.reach_sender(&Letter::Request([end * SIZE, (end + 16) * SIZE - 1]));
    world.run(Duration::from_secs(3));
    assert_eq!(world.missing(end..end + 16), NONE);
    assert!(world.got.values().all(|times| *times == 1), "each once");
    assert!(world.by(Why::Answer).iter().all(|answer| answer.subtree % 8 >= 4));
    assert_eq!(world.by(Why::Answer).len(), 8);
}

#[test]
fn a_stripe_that_is_added_begins_with_the_next_subtree() {
    let mut world = World::new(Manner::Ours, 20, 0);
    world.want(0b1);
    world.run(Duration::from_secs(2));
    world.sent.clear();
    world.haves.clear();
    let end = world.source.subtrees.end;
    world.want(ALL_STRIPES);
    world.run(Duration::from_secs(2));
    let after = pushed(&world);
    assert!(after.iter().copied().eq(end..end + after.len() as u64), "{end}: {after:?}");
    world.want(0b10);
    let end = world.source.subtrees.end;
    world.run(Duration::from_secs(2));
    assert!(pushed(&world).iter().all(|subtree| *subtree < end || subtree % 8 == 1));
    assert!(
        (end..end + 20)
            .all(|subtree| (told(&world, subtree) > 0) == (subtree % 8 != 1) || subtree % 8 == 1)
    );
}

#[test]
fn a_stripe_that_is_added_behind_a_full_path_waits_until_that_has_caught_up() {
    let mut world = World::new(Manner::Ours, 20, 0);
    world.sender.subscribe(0b1111, None, SIZE as u32, &world.source);
    world.path.mute = true;
    let begin = world.source.subtrees.end;
    world.look();
    world.source.subtrees.end += 6;
    world.look();
    assert_eq!(world.sender.flight.chunks(), 16, "no more credit");
    world.sender.subscribe(ALL_STRIPES, None, 0, &world.source);
    world.look();
    world.source.subtrees.end += 4;
    for subtree in begin..begin + 10 {
        world.look();
        let run = [subtree * SIZE, (subtree + 1) * SIZE - 1];
        world.reach_sender(&Letter::Ack { run, delay: 0 });
    }
    let wanted = |subtree: &u64| subtree % 8 < 4 || *subtree >= begin + 6;
    let wanted: Vec<_> = (begin..begin + 10).filter(wanted).collect();
    let pushed = pushed(&world);
    assert!(pushed.iter().all(|subtree| wanted.contains(subtree)), "{pushed:?}");
    assert_eq!(pushed.last(), Some(&(begin + 9)));
    world.source.subtrees.end += 8;
    let begin = begin + 10;
    for subtree in begin..begin + 8 {
        world.look();
        let run = [subtree * SIZE, (subtree + 1) * SIZE - 1];
        world.reach_sender(&Letter::Ack { run, delay: 0 });
    }
    let all = world.by(Why::Push).iter().filter(|parcel| parcel.subtree >= begin).count();
    assert_eq!(all, 8, "caught up");
}

#[test]
fn a_pause_leaves_nothing_to_tell_and_no_work() {
    let mut world = World::new(Manner::Ours, 20, 0);
    world.want(0b1);
    world.run(Duration::from_secs(1));
    world.live = false;
    world.source.subtrees.end += 1;
    world.look();
    world.source.subtrees.start = world.source.subtrees.end;
    world.look();
    let deadline = world.sender.deadline(world.now, &world.source);
    assert!(deadline > world.now + Duration::from_millis(100), "{deadline:?}");
}

#[test]
fn who_subscribes_to_nothing_stays_a_subscriber() {
    let mut world = World::new(Manner::Ours, 20, 0);
    world.want(0);
    world.run(Duration::from_secs(30));
    assert_eq!((world.over, world.sent.len()), (None, 0), "no munro, no train, no probe");
    let times = &world.haves;
    assert!((110..=120).contains(&times.len()), "{}", times.len());
    assert!(times.windows(2).all(|w| w[1].0.since(w[0].0) >= HAVE_WITHHELD));
    let end = world.source.subtrees.end;
    assert!((201..end - 4).all(|subtree| told(&world, subtree) == 1));
    // It says so every second: silence means that it is gone.
    world.path.mute = true;
    let mute = world.now;
    world.run(Duration::from_secs(20));
    let (at, over) = world.over.unwrap();
    let after = at.since(mute);
    assert_eq!(over, Over::Dead);
    assert!(after > Duration::from_secs(9) && after < Duration::from_secs(12), "{after:?}");
}

#[test]
fn a_parent_that_fails_is_made_good_with_the_next_subtree_of_the_stripe() {
    let mut world = World::new(Manner::Ours, 20, 0);
    world.want(ALL_STRIPES);
    world.run(Duration::from_secs(3));
    world.want(0);
    world.run(Duration::from_secs(3));
    world.sent.clear();
    let end = world.source.subtrees.end;
    world.want(0b100);
    world.run(Duration::from_secs(3));
    let wanted: Vec<_> =
        (end..world.source.subtrees.end).filter(|subtree| subtree % 8 == 2).collect();
    assert_eq!(pushed(&world), wanted, "from {end} on");
    assert_eq!(world.over, None);
}

#[test]
fn trains_that_went_before_the_peer_wanted_none_say_nothing_of_the_path() {
    let mut world = subscribed(20, 0);
    world.path.narrow = true;
    world.run(Duration::from_millis(400));
    assert!(world.sent.len() >= 3 && !world.sender.ever_acked);
    // Neighbours bring what it would ask for.
    world.hashed.clear();
    world.due.clear();
    world.want(0);
    world.run(Duration::from_secs(20));
    assert_eq!(world.over, None, "its neighbours bring everything");
    assert_eq!(world.sender.stuck_at(), None, "and nothing is to be done");
    world.path.narrow = false;
    world.want(0b1);
    world.run(Duration::from_secs(5));
    assert_eq!(world.over, None);
    let mut world = World::new(Manner::Ours, 20, 0);
    world.path.narrow = true;
    world.want(0);
    world.run(Duration::from_secs(5));
    world.want(ALL_STRIPES);
    world.run(Duration::from_secs(5));
    assert_eq!(world.over.map(|(_, over)| over), Some(Over::Mtu));
}
