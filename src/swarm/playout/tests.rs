//! Playing by hand: bytes come, time passes, the position goes on.

use super::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A target that is easy to reckon with.
fn settings() -> Settings {
    Settings { target: ms(1_500), max: ms(5_000) }
}

fn at(n: u64) -> Stamp {
    Stamp::from_micros(1_000_000_000).plus(ms(n))
}

/// One byte per millisecond from 0 on, up to `end`.
fn line(end: u64) -> Timeline {
    let mut line = Timeline::default();
    line.note_head(0, at(0));
    for n in (0..end).step_by(100) {
        line.note_run(n, n + 100, at(n + 100));
    }
    line
}

fn tuned(ages: &[u64]) -> Option<u64> {
    tuned_from(ages, ms(0))
}

fn tuned_from(ages: &[u64], trip: Duration) -> Option<u64> {
    let points: Vec<_> = ages.iter().map(|age| (20_000 - age, ms(*age))).collect();
    let tuned = tune_in(&points, &Settings::default(), ready(trip));
    tuned.map(|(_, age)| age.as_millis() as u64)
}

#[test]
fn the_first_access_point_follows_the_join_rule() {
    assert_eq!(tuned(&[]), None);
    assert_eq!(tuned(&[4_100, 2_100]), Some(2_100), "g >= D: at once");
    assert_eq!(tuned(&[1_900, 900]), Some(900), "D - g <= 1.5 s: soon");
    let later = Settings { target: ms(2_500), ..settings() };
    let points = [(1_300, ms(1_300)), (300, ms(300))];
    let chosen = tune_in(&points, &later, Duration::ZERO).map(|(offset, _)| offset);
    assert_eq!(chosen, Some(1_300), "else the one before");
    assert_eq!(tuned(&[10_200, 200]), Some(200), "which is too old here");
    assert_eq!(tuned(&[7_000]), None, "the newest is too old: the next one");
    assert_eq!(tuned_from(&[4_900], ms(300)), Some(4_900), "6.4 s behind at first");
    assert_eq!(tuned_from(&[4_900], ms(500)), None, "7.4 s, and nothing to fall back to");
    assert_eq!(tuned_from(&[2_200, 200], ms(50)), Some(2_200), "375 ms: 2.6 s behind live");
    assert_eq!(tuned_from(&[2_200, 200], ms(250)), Some(200), "1.1 s: better 1.1 s later");
    assert_eq!(tuned_from(&[4_400, 400], ms(0)), Some(400), "and not for ever 4.6 s behind");
}

#[test]
fn a_viewer_that_is_far_away_plays_later_up_to_a_limit() {
    let over = |target, max, trip| {
        Settings { target: ms(target), max: ms(max) }.over(ms(trip)).target.as_millis()
    };
    assert_eq!(Settings::default().over(ms(200)), Settings::default(), "near enough");
    assert_eq!([over(2_000, 5_000, 400), over(1_500, 5_000, 250)], [2_350, 1_750]);
    assert_eq!([over(2_000, 5_000, 600), over(2_000, 5_000, 9_000)], [2_800; 2]);
    assert_eq!(over(1_000, 2_000, 900), 2_000, "never above the limit");
    assert_eq!(over(4_000, 5_000, 900), 4_000, "asked for");
}

#[test]
fn who_began_far_behind_comes_back_and_who_needed_it_does_not() {
    let line = line(60_000);
    let mut far = Playout::new(settings(), 1_000);
    far.advance(at(4_000), 3_900, &line);
    assert_eq!(far.delay(), ms(3_000));
    // 20 ms at a time, with 1.4 s in hand.
    let run = |far: &mut Playout, from: u64, until: u64, ahead: u64| {
        for now in (from..until).step_by(20) {
            far.advance(at(now), now - ahead, &line);
        }
    };
    run(&mut far, 4_020, 14_020, 500);
    assert!((2_480..=2_520).contains(&far.delay().as_millis()), "{:?}", far.delay());
    run(&mut far, 14_020, 60_000, 500);
    assert_eq!(far.delay(), ms(1_500));
    assert_eq!(far.tally(), Tally::default());
    // With little in hand it stays where it is.
    let mut near = Playout::new(settings(), 1_000);
    near.advance(at(4_000), 3_900, &line);
    run(&mut near, 4_020, 24_000, 2_500);
    assert_eq!(near.delay(), ms(3_000));
}

#[test]
fn plays_at_the_target_or_at_the_age_of_the_access_point() {
    let line = line(10_000);
    let mut young = Playout::new(settings(), 1_000);
    assert_eq!(young.advance(at(2_300), 2_000, &line), 1_000, "its turn is at 2,500");
    assert!(!young.has_begun());
    assert_eq!(young.advance(at(2_600), 2_500, &line), 1_100);
    assert_eq!((young.delay(), young.tally()), (ms(1_500), Tally::default()));
    let mut old = Playout::new(settings(), 1_000);
    assert_eq!(old.advance(at(3_000), 1_000, &line), 1_000, "nothing is there");
    assert_eq!(old.advance(at(3_200), 1_400, &line), 1_000);
    assert_eq!(old.delay(), ms(2_200));
    assert_eq!(old.advance(at(3_300), 2_000, &line), 1_100);
    assert_eq!(old.tally(), Tally::default(), "starting is no stall");
}

/// Sixty viewers with 2 % loss: with 150 ms in hand every fifth stalled right at its start.
#[test]
fn playing_does_not_begin_with_nothing_in_hand() {
    let line = line(10_000);
    let mut old = Playout::new(settings(), 1_000);
    assert_eq!(old.advance(at(3_000), 1_300, &line), 1_000, "more is on its way");
    assert_eq!((old.advance(at(3_200), 1_300, &line), old.has_begun()), (1_000, false));
    assert_eq!(old.advance(at(3_500), 1_300, &line), 1_000, "not for ever");
    assert_eq!((old.has_begun(), old.delay()), (true, ms(2_500)));
    // Also where its turn was waited for.
    let mut young = Playout::new(settings(), 1_000);
    young.advance(at(2_400), 1_200, &line);
    assert_eq!(young.advance(at(2_600), 1_300, &line), 1_000);
    assert!(!young.has_begun());
    assert_eq!(young.advance(at(2_700), 1_500, &line), 1_000);
    assert_eq!((young.has_begun(), young.delay()), (true, ms(1_700)));
    assert_eq!(young.advance(at(2_800), 1_500, &line), 1_100);
    assert_eq!(young.tally(), Tally::default(), "starting is no stall");
}

#[test]
fn bytes_that_come_too_late_are_a_stall_and_the_delay_grows() {
    let line = line(20_000);
    let mut playout = Playout::new(settings(), 0);
    playout.advance(at(1_500), 1_000, &line);
    assert_eq!(playout.advance(at(2_500), 1_000, &line), 1_000);
    assert_eq!(playout.advance(at(2_530), 2_000, &line), 1_030);
    assert_eq!((playout.tally(), playout.delay()), (Tally::default(), ms(1_500)), "30 ms");
    assert_eq!(playout.advance(at(3_500), 2_000, &line), 2_000);
    assert_eq!(playout.advance(at(3_800), 3_000, &line), 2_000, "goes on where it was");
    let tally = playout.tally();
    assert_eq!((tally.stalls, tally.stall_time), (1, ms(260)));
    assert_eq!(playout.delay(), ms(1_800));
    assert_eq!(playout.advance(at(3_900), 3_000, &line), 2_100);
    playout.advance(at(4_800), 3_000, &line);
    playout.advance(at(14_800), 13_000, &line);
    assert_eq!(playout.delay(), settings().max, "never above the limit");
    assert_eq!(playout.tally().stalls, 2);
}

#[test]
fn a_late_look_at_bytes_that_were_there_is_no_stall() {
    let line = line(10_000);
    let mut playout = Playout::new(settings(), 0);
    playout.advance(at(1_500), 2_000, &line);
    assert_eq!(playout.advance(at(2_500), 3_000, &line), 1_000);
    assert_eq!((playout.tally(), playout.delay()), (Tally::default(), ms(1_500)));
}

/// Chunks that come 100 ms too late for their turn, with 300 ms of stream before them.
#[test]
fn with_little_in_hand_it_plays_slower_and_comes_back() {
    let line = line(30_000);
    let mut playout = Playout::new(settings(), 0);
    assert_eq!(playout.advance(at(1_500), 1_000, &line), 0);
    for now in (1_500..2_600).step_by(20) {
        playout.advance(at(now), 1_000, &line);
    }
    let slower = playout.delay() - ms(1_500);
    assert_eq!((playout.position(), slower), (965, ms(115)), "a quarter of 460 ms");
    for now in (2_600..8_600).step_by(20) {
        playout.advance(at(now), now - 1_600 + 1_000, &line);
    }
    assert_eq!(playout.delay(), ms(1_500), "a twentieth of two seconds and a bit");
    assert_eq!(playout.tally(), Tally { stretched: slower, ..Tally::default() });
}

#[test]
fn on_a_long_way_it_plays_slower_sooner_and_never_beyond_the_limit() {
    let line = line(30_000);
    let mut far = Playout::new(settings(), 0).with_trip(ms(300));
    far.advance(at(1_500), 1_000, &line);
    far.advance(at(1_600), 800, &line);
    assert_eq!(far.delay(), ms(1_500), "700 ms are enough");
    far.advance(at(1_700), 800, &line);
    far.advance(at(1_800), 800, &line);
    assert_eq!(far.delay(), ms(1_525));
    let tight = Settings { max: ms(1_510), ..settings() };
    let mut tight = Playout::new(tight, 0);
    for now in [1_500, 1_600, 1_700, 1_800] {
        tight.advance(at(now), 500, &line);
    }
    assert_eq!(tight.delay(), ms(1_510));
}

#[test]
fn who_began_beyond_the_limit_is_given_more_until_it_has_come_back() {
    let line = line(60_000);
    let mut far = Playout::new(settings(), 1_000).with_age(ms(5_600));
    assert_eq!(far.limit, ms(6_500));
    assert!(!far.gives_up(at(7_400), &line), "what it was told to begin with still comes");
    far.advance(at(6_700), 3_000, &line);
    assert_eq!((far.has_begun(), far.delay(), far.limit), (true, ms(5_700), ms(6_200)));
    far.advance(at(8_720), 3_000, &line);
    assert!(!far.gives_up(at(9_100), &line));
    far.advance(at(9_300), 5_000, &line);
    assert_eq!(far.delay(), far.limit);
    assert_eq!(far.tally().skips, 0);
    for now in (9_300..55_000).step_by(20) {
        far.advance(at(now), now - 500, &line);
    }
    assert_eq!((far.limit, far.delay() < ms(5_000)), (ms(5_000), true));
    let near = Playout::new(settings(), 1_000).with_age(ms(2_000));
    assert_eq!(near.limit, settings().max);
    let late = Playout::new(settings(), 1_000).with_age(ms(9_000));
    assert_eq!(late.limit, settings().max + BEYOND);
}

#[test]
fn behind_a_great_hole_it_goes_on_nearer_to_live() {
    let line = line(10_000);
    let mut playout = Playout::new(settings(), 0);
    playout.advance(at(4_000), 1_000, &line);
    playout.advance(at(5_000), 1_000, &line);
    assert_eq!(playout.delay(), ms(4_000));
    playout.skip(at(5_500), 4_500, &line);
    assert_eq!((playout.position(), playout.delay()), (4_500, ms(1_500)));
    assert_eq!(playout.advance(at(6_300), 6_000, &line), 4_800, "instead of 3 s later");
    let mut cut = Playout::new(settings(), 0);
    cut.advance(at(1_500), 1_000, &line);
    cut.advance(at(2_500), 1_000, &line);
    cut.advance(at(6_200), 1_100, &line);
    assert_eq!((cut.delay(), cut.least), (ms(5_000), ms(5_000)), "nothing came until then");
    cut.skip(at(6_300), 4_500, &line);
    assert_eq!((cut.delay(), cut.least), (ms(2_200), ms(2_200)), "but it does now");
    let mut small = Playout::new(settings(), 0);
    small.advance(at(4_000), 1_000, &line);
    small.advance(at(5_000), 1_000, &line);
    small.skip(at(5_500), 1_900, &line);
    assert_eq!(small.delay(), ms(4_000), "400 ms are soon over");
    let mut broken = Playout::new(settings(), 0);
    broken.advance(at(4_000), 1_000, &line);
    broken.add_break(1_000, 4_500);
    broken.advance(at(5_500), 1_000, &line);
    broken.advance(at(6_300), 6_000, &line);
    assert_eq!((broken.position(), broken.delay()), (4_500, ms(2_200)), "nor behind a break");
    assert_eq!(broken.advance(at(7_000), 6_000, &line), 4_810);
}

#[test]
fn a_pause_of_the_publisher_is_no_stall() {
    let mut line = line(1_000);
    let mut playout = Playout::new(settings(), 0);
    playout.advance(at(1_500), 1_000, &line);
    assert_eq!(playout.advance(at(9_000), 1_000, &line), 1_000);
    line.note_run(1_000, 1_100, at(9_100));
    assert_eq!(playout.advance(at(9_150), 1_100, &line), 1_000);
    assert_eq!((playout.tally(), playout.delay()), (Tally::default(), ms(1_500)));
    assert_eq!(playout.advance(at(10_600), 1_100, &line), 1_100);
}

#[test]
fn what_never_comes_is_skipped_and_its_media_time_counts() {
    let line = line(10_000);
    let mut playout = Playout::new(settings(), 0);
    playout.advance(at(1_500), 1_000, &line);
    playout.advance(at(2_500), 1_000, &line);
    assert!(!playout.gives_up(at(2_900), &line));
    assert!(playout.gives_up(at(3_000), &line));
    playout.skip(at(3_000), 1_200, &line);
    let tally = playout.tally();
    assert_eq!((tally.skips, tally.skipped), (1, ms(200)));
    assert_eq!((tally.stalls, tally.stall_time), (1, ms(460 + 200)));
    assert_eq!(playout.delay(), ms(1_800), "what was skipped need not be waited for");
    assert_eq!(playout.advance(at(3_100), 2_000, &line), 1_300);
    assert_eq!(playout.tally().stalls, 1);
}

#[test]
fn a_fifth_break_takes_the_place_of_the_oldest_and_says_so() {
    let mut playout = Playout::new(settings(), 0);
    (1..=4).for_each(|n| playout.add_break(n * 1_000, n * 1_000 + 40));
    assert_eq!(playout.breaks_forgotten(), 0);
    playout.add_break(5_000, 5_040);
    assert_eq!((playout.breaks_forgotten(), playout.breaks.len()), (1, BREAKS_MAX));
    assert_eq!(playout.breaks[0], (2_000, 2_040));
}

#[test]
fn between_two_runs_there_is_nothing_to_wait_for() {
    let mut line = line(1_000);
    let mut playout = Playout::new(settings(), 0);
    playout.advance(at(1_500), 1_000, &line);
    playout.add_break(1_000, 1_040);
    line.note_run(1_040, 1_140, at(7_100));
    assert_eq!(playout.advance(at(2_400), 1_140, &line), 900);
    assert_eq!(playout.advance(at(2_600), 1_140, &line), 1_000, "first what was before");
    assert_eq!(playout.advance(at(7_200), 1_140, &line), 1_040);
    assert_eq!(playout.advance(at(8_600), 1_140, &line), 1_140);
    assert_eq!((playout.tally(), playout.delay()), (Tally::default(), ms(1_500)));
}
