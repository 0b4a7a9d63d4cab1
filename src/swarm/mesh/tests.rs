//! One viewer's mesh, fact by fact; what many of them do together is in `model`.

use super::*;

mod model;

const A: Key = Key(1);
const B: Key = Key(2);
const C: Key = Key(3);

fn at(n: u64) -> Mono {
    Mono::from_millis(n)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn missing(subtree: u64, since: u64) -> Missing {
    Missing { subtree, since: at(since), deadline: Some(at(since + 1_500)) }
}

fn state(room_kbit: u32) -> State {
    State { upload_kbit: 3_000, room_kbit, play_chunk: 0, buffer_ms: 1_000 }
}

/// A mesh of neighbours that have room, 20 ms away.
fn mesh(keys: &[Key]) -> Mesh {
    let mut mesh = Mesh::new(7);
    mesh.set_bitrate(2_000_000);
    mesh.set_relay_rtt(ms(40));
    for key in keys {
        assert!(mesh.add(at(0), *key, ms(20)));
        mesh.note_state(*key, &state(2_000));
    }
    mesh
}

/// Stripe 0 is fed by A.
fn fed_by_a(others: &[Key]) -> Mesh {
    let mut mesh = mesh(&[A]);
    mesh.note_have(at(0), A, 0);
    mesh.turn(at(0), &[missing(0, 0)]);
    mesh.note_whole(at(30), 0);
    assert_eq!((mesh.stripes(A), mesh.source(0)), (1, Source::Neighbour(A)));
    for key in others {
        mesh.add(at(30), *key, ms(20));
        mesh.note_state(*key, &state(2_000));
    }
    mesh
}

#[test]
fn without_neighbours_everything_comes_from_the_relay() {
    let mut mesh = Mesh::new(1);
    mesh.backlog_until(5);
    mesh.turn(at(10), &[missing(3, 0), missing(9, 0)]);
    assert_eq!((mesh.source(3), mesh.source(9), mesh.source(99)), [Source::Relay; 3].into());
    assert_eq!((mesh.next_deadline(), mesh.stripes(A)), (None, 0));
    mesh.add(at(10), A, ms(20));
    mesh.turn(at(10), &[missing(9, 0)]);
    assert_eq!(mesh.source(9), Source::Wait);
    mesh.remove(at(11), A);
    assert_eq!(mesh.source(9), Source::Relay);
}

#[test]
fn a_newcomer_grafts_who_announces_and_asks_for_what_it_announced() {
    let mut mesh = mesh(&[A, B]);
    mesh.turn(at(0), &[]);
    mesh.note_have(at(100), B, 3);
    assert_eq!(mesh.next_deadline(), Some(at(100)));
    mesh.turn(at(100), &[missing(3, 90), missing(4, 95)]);
    assert_eq!((mesh.stripes(A), mesh.stripes(B)), (0, 1 << 3));
    assert_eq!((mesh.source(3), mesh.source(4)), (Source::Neighbour(B), Source::Wait));
    assert_eq!(mesh.take_events(), Events { grafts: 1, prunes: 0 });
    assert_eq!(mesh.take_events(), Events::default());
}

#[test]
fn what_the_relay_pushes_has_no_parent() {
    let mut mesh = fed_by_a(&[]);
    mesh.note_hash(at(700), Pusher::Relay, 8);
    assert_eq!((mesh.stripes(A), mesh.source(8)), (1, Source::Relay));
    mesh.note_hash(at(1_400), Pusher::Neighbour(A), 16);
    mesh.note_hash(at(2_100), Pusher::Relay, 24);
    assert_eq!((mesh.stripes(A), mesh.relay_stripes()), (1, 0), "not twice in a row");
    mesh.note_hash(at(2_800), Pusher::Relay, 32);
    assert_eq!((mesh.stripes(A), mesh.relay_stripes()), (0, 1));
    assert_eq!(mesh.take_events(), Events { grafts: 1, prunes: 1 });
    // It is not grafted again before something is missed; then at once.
    mesh.note_have(at(3_300), A, 40);
    mesh.turn(at(3_300), &[missing(40, 3_250)]);
    assert_eq!((mesh.stripes(A), mesh.source(40)), (0, Source::Relay));
    assert_eq!(mesh.next_deadline(), Some(at(3_400)), "the next look");
    mesh.turn(at(3_420), &[missing(40, 3_250)]);
    assert_eq!((mesh.stripes(A), mesh.source(40)), (1, Source::Neighbour(A)));
}

#[test]
fn a_relay_that_stops_pushing_is_noticed_although_it_answers() {
    for announces in [true, false] {
        let mut mesh = mesh(&[A]);
        [0, 8].into_iter().for_each(|n| mesh.note_hash(at(n * 80), Pusher::Relay, n));
        assert_eq!(mesh.relay_stripes(), 1);
        for n in [16, 24] {
            mesh.turn(at(n * 80), &[missing(n, n * 80)]);
            if announces {
                mesh.note_relay_have(at(n * 80 + 10), n);
                assert_eq!(mesh.next_deadline(), Some(at(n * 80 + 10)));
                break;
            }
            assert_eq!((mesh.source(n), mesh.relay_stripes()), (Source::Relay, 1));
            mesh.note_whole(at(n * 80 + 60), n);
        }
        assert_eq!((mesh.relay_stripes(), mesh.source(40)), (0, Source::Wait));
    }
}

#[test]
fn a_relay_that_pushes_later_than_the_parent_is_noticed_too() {
    let mut mesh = fed_by_a(&[]);
    for n in 1..=4 {
        mesh.note_hash(at(n * 700), Pusher::Neighbour(A), n * 8);
        mesh.note_hash(at(n * 700 + 30), Pusher::Relay, n * 8);
        assert_eq!(mesh.stripes(A), u8::from(n < 4), "{n}");
        mesh.note_whole(at(n * 700 + 50), n * 8);
    }
    mesh.turn(at(3_000), &[]);
    assert_eq!(mesh.stripes(A), 0);
}

#[test]
fn answers_of_the_relay_are_no_pushes() {
    let mut mesh = fed_by_a(&[]);
    for n in 1..=4 {
        mesh.turn(at(n * 700 + 1_100), &[missing(n * 8, n * 700)]);
        assert_eq!(mesh.source(n * 8), Source::Relay, "its deadline is near");
        mesh.note_hash(at(n * 700 + 1_140), Pusher::Relay, n * 8);
        mesh.note_whole(at(n * 700 + 1_150), n * 8);
    }
    assert_eq!((mesh.relay_stripes(), mesh.stripes(A)), (0, 1));
}

#[test]
fn what_others_announce_and_the_parent_does_not_bring_grafts_one_of_them() {
    let mut mesh = fed_by_a(&[B]);
    mesh.note_have(at(700), B, 8);
    mesh.turn(at(700), &[missing(8, 690)]);
    assert_eq!((mesh.source(8), mesh.stripes(A)), (Source::Wait, 1), "it may be on its way");
    mesh.turn(at(819), &[missing(8, 690)]);
    assert_eq!((mesh.source(8), mesh.next_deadline()), (Source::Wait, Some(at(820))));
    mesh.turn(at(820), &[missing(8, 690)]);
    assert_eq!((mesh.source(8), mesh.stripes(A), mesh.stripes(B)), (Source::Neighbour(B), 0, 1));
    // A is not chosen again for two seconds.
    mesh.note_have(at(1_400), A, 16);
    mesh.turn(at(1_600), &[missing(16, 1_400)]);
    assert_eq!((mesh.stripes(A), mesh.stripes(B)), (0, 1));
    assert_eq!(mesh.source(16), Source::Neighbour(A), "but asked");
    mesh.note_whole(at(1_700), 16);
    mesh.note_have(at(2_900), A, 24);
    mesh.turn(at(3_100), &[missing(24, 2_900)]);
    assert_eq!((mesh.stripes(A), mesh.stripes(B)), (1, 0));
}

#[test]
fn who_has_no_room_is_neither_grafted_nor_asked() {
    let mut mesh = fed_by_a(&[B, C]);
    mesh.note_state(B, &state(249));
    mesh.note_have(at(700), B, 8);
    mesh.turn(at(900), &[missing(8, 690)]);
    assert_eq!((mesh.source(8), mesh.stripes(A)), (Source::Wait, 1));
    mesh.note_have(at(750), C, 8);
    mesh.turn(at(900), &[missing(8, 690)]);
    assert_eq!((mesh.source(8), mesh.stripes(C)), (Source::Neighbour(C), 0), "judged once");
    mesh.turn(at(1_690), &[missing(8, 690)]);
    assert_eq!(mesh.source(8), Source::Relay, "500 ms before its deadline");
}

#[test]
fn who_refuses_is_left_alone_longer_each_time() {
    let mut mesh = mesh(&[A]);
    let (mut grafts, mut fed) = (0, Vec::new());
    for n in 0..100 {
        let now = n * 672;
        mesh.note_have(at(now), A, n * 8);
        for turn in (0..600).step_by(20) {
            mesh.turn(at(now + turn), &[missing(n * 8, now)]);
        }
        mesh.note_whole(at(now + 600), n * 8);
        let events = mesh.take_events();
        if events.grafts > 0 {
            fed.push(now);
        }
        grafts += events.grafts;
    }
    assert!((4..=7).contains(&grafts), "{grafts} in 67 s: {fed:?}");
}

#[test]
fn a_parent_that_is_late_is_helped_and_then_replaced() {
    let mut mesh = fed_by_a(&[B]);
    for n in 1..=3 {
        let now = n * 2_000;
        mesh.note_hash(at(now), Pusher::Neighbour(A), n * 8);
        mesh.turn(at(now + 10), &[missing(n * 8, now)]);
        assert_eq!(mesh.source(n * 8), Source::Neighbour(A), "its own holes");
        mesh.note_have(at(now + 100), B, n * 8);
        mesh.turn(at(now + 419), &[missing(n * 8, now)]);
        assert_eq!(mesh.source(n * 8), Source::Neighbour(A));
        mesh.turn(at(now + 420), &[missing(n * 8, now)]);
        assert_eq!(mesh.source(n * 8), Source::Neighbour(B));
        assert_eq!(mesh.stripes(A), u8::from(n < 3));
        // B does not answer: nobody is left but A.
        mesh.turn(at(now + 840), &[missing(n * 8, now)]);
        assert_eq!(mesh.source(n * 8), Source::Neighbour(A));
        mesh.note_whole(at(now + 900), n * 8);
    }
    assert_eq!(mesh.stripes(B), 1);
}

/// Three that feed each other in a circle get what one of them rescued.
#[test]
fn a_parent_that_brings_only_what_we_rescued_is_pruned() {
    let mut mesh = fed_by_a(&[]);
    for n in 1..=3 {
        assert_eq!(mesh.stripes(A), 1);
        mesh.turn(at(n * 2_000 + 1_100), &[missing(n * 8, n * 2_000)]);
        assert_eq!(mesh.source(n * 8), Source::Relay);
        mesh.note_whole(at(n * 2_000 + 1_150), n * 8);
        mesh.note_duplicates(at(n * 2_000 + 1_200), A, n * 8, 16);
        mesh.note_duplicates(at(n * 2_000 + 1_210), A, n * 8, 1);
    }
    mesh.turn(at(7_300), &[]);
    assert_eq!(mesh.stripes(A), 0);
}

#[test]
fn a_neighbour_that_has_it_long_before_is_a_better_parent() {
    let mut mesh = fed_by_a(&[B]);
    let mut step = |n: u64, early: u64| {
        let now = n * 1_000;
        mesh.note_hash(at(now), Pusher::Neighbour(A), n * 8);
        mesh.note_have(at(now + 10), B, n * 8);
        mesh.note_whole(at(now + 10 + early), n * 8);
        mesh.turn(at(now + 300), &[]);
        (mesh.stripes(A), mesh.stripes(B))
    };
    assert_eq!([1, 2, 3].map(|n| step(n, 151)), [(1, 0); 3]);
    assert_eq!(step(4, 150), (1, 0), "only so much");
    assert_eq!([5, 6, 7].map(|n| step(n, 151)), [(1, 0); 3]);
    assert_eq!(step(8, 151), (0, 1));
    // And not back and forth: A seems as good now.
    let mut swaps = 0;
    for n in 9..69 {
        let (parent, other) = if mesh.stripes(A) == 1 { (A, B) } else { (B, A) };
        mesh.note_hash(at(n * 1_000), Pusher::Neighbour(parent), n * 8);
        mesh.note_have(at(n * 1_000 + 10), other, n * 8);
        mesh.note_whole(at(n * 1_000 + 200), n * 8);
        mesh.turn(at(n * 1_000 + 300), &[]);
        swaps += mesh.take_events().grafts;
    }
    assert!(swaps <= 5, "{swaps} in a minute");
}

#[test]
fn a_parent_that_leaves_is_replaced_at_once() {
    let mut mesh = fed_by_a(&[B]);
    mesh.note_have(at(60), B, 0);
    mesh.turn(at(60), &[]);
    mesh.remove(at(100), A);
    assert_eq!(mesh.next_deadline(), Some(at(100)));
    mesh.turn(at(100), &[]);
    assert_eq!((mesh.stripes(B), mesh.take_events()), (1, Events { grafts: 2, prunes: 0 }));
}

#[test]
fn the_backlog_is_asked_for_at_once_and_from_several() {
    let mut mesh = mesh(&[A, B, C]);
    mesh.backlog_until(60);
    for n in 40..60 {
        [A, B, C].into_iter().for_each(|key| mesh.note_have(at(0), key, n));
    }
    let all: Vec<_> = (30..60).map(|n| Missing { deadline: None, ..missing(n, 0) }).collect();
    mesh.turn(at(0), &all);
    assert!((30..40).all(|n| mesh.source(n) == Source::Relay));
    for key in [A, B, C] {
        let asked = (40..60).filter(|n| mesh.source(*n) == Source::Neighbour(key)).count();
        assert!((5..=9).contains(&asked), "{key:?}: {asked}");
    }
    // Three did not answer.
    [500, 1_000, 1_500].into_iter().for_each(|now| mesh.turn(at(now), &all));
    assert_eq!(mesh.source(45), Source::Relay);
}

#[test]
fn one_neighbour_does_not_feed_everything_while_others_have_room() {
    let mut mesh = mesh(&[A, B]);
    mesh.note_rtt(B, ms(200));
    for n in 0..8 {
        mesh.note_have(at(0), A, n);
        mesh.note_have(at(0), B, n);
    }
    mesh.turn(at(0), &[]);
    assert_eq!((mesh.stripes(A).count_ones(), mesh.stripes(B).count_ones()), (4, 4));
    mesh.remove(at(10), B);
    mesh.turn(at(10), &[]);
    assert_eq!(mesh.stripes(A), 0xff, "better than nobody");
}

#[test]
fn room_that_was_just_taken_is_not_there_any_more() {
    let mut mesh = mesh(&[A]);
    mesh.note_state(A, &state(600));
    (0..8).for_each(|n| mesh.note_have(at(0), A, n));
    mesh.turn(at(0), &[]);
    assert_eq!(mesh.stripes(A).count_ones(), 2);
    // Nobody feeds those whom we feed.
    let mut mesh = self::mesh(&[A]);
    mesh.note_children(A, 0b11);
    (0..8).for_each(|n| mesh.note_have(at(0), A, n));
    mesh.turn(at(0), &[]);
    assert_eq!(mesh.stripes(A), 0xfc);
}

#[test]
fn memory_is_bounded_whatever_neighbours_say() {
    let mut mesh = mesh(&[]);
    let added = (0..100).filter(|key| mesh.add(at(0), Key(*key), ms(1))).count();
    assert_eq!(added, NEIGHBOURS_MAX);
    mesh.note_hash(at(0), Pusher::Relay, 1_000);
    mesh.note_have(at(1), Key(3), u64::MAX);
    assert!(!mesh.tracks.contains_key(&u64::MAX), "far ahead of all that was seen");
    for n in 0..3_000 {
        mesh.note_have(at(n), Key((n % 32) as u16), n);
        mesh.note_hash(at(n), Pusher::Neighbour(Key(4)), n);
    }
    assert_eq!(mesh.tracks.len(), TRACKS_MAX);
    mesh.turn(at(3_000), &[missing(2_990, 2_900)]);
    assert!(mesh.tracks.len() as u64 <= BEHIND + 10);
    (0..100).for_each(|key| mesh.remove(at(3_001), Key(key)));
    assert!(mesh.is_alone() && mesh.stripes.iter().all(Stripe::is_free));
}
