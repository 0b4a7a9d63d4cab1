//! Segments of made-up streams: regular ones, odd ones, and ten minutes of playlists.

use proptest::prelude::*;

use super::*;
use crate::base::segment::Segment;
use crate::media::playlist::{Terms, listed, media};

#[path = "../../../tests/common/hls.rs"]
mod rules;

const SECOND: u64 = 90_000;
/// Bytes from unit to unit.
const STEP: u64 = 1880;

/// A stream of units, and what was cut from it.
struct Bench {
    cutter: Segmenter,
    numbers: Arc<Numbers>,
    at: u64,
    millis: u64,
    pts: u64,
    cut: Vec<Segment>,
}

impl Bench {
    fn new(target_ms: u64, counts: Counts, first: u64) -> Bench {
        let numbers = Arc::new(Numbers::new(counts));
        let target = Duration::from_millis(target_ms);
        let cutter = Segmenter::new(target, Arc::clone(&numbers), false);
        Bench { cutter, numbers, at: first, millis: 5_000, pts: 7 * SECOND, cut: Vec::new() }
    }

    fn now(&self) -> Now {
        let utc = Utc::from_unix_millis(1_700_000_000_000 + self.millis);
        Now { mono: Mono::from_millis(self.millis), utc }
    }

    /// A unit at the present place; then time goes on.
    fn unit(&mut self, key: bool, stamped: bool, millis: u64) {
        let (now, pts) = (self.now(), stamped.then_some(self.pts % TICKS_MODULUS));
        let cut = &mut self.cut;
        if key {
            let entry = Entry { at: self.at, pts, tables: Bytes::from_static(&[0x47; 376]) };
            self.cutter.access_point(now, &entry, &mut |segment| cut.push(segment));
        } else {
            self.cutter.unit(now, self.at, pts, &mut |segment| cut.push(segment));
        }
        self.at += STEP;
        self.millis += millis;
        self.pts += millis * 90;
    }

    /// Units at 25/s with a key frame at the head of each group.
    fn groups(&mut self, frames: &[u64]) {
        for group in frames {
            for frame in 0..*group {
                self.unit(frame == 0, true, 40);
            }
        }
    }

    fn break_off(&mut self) {
        let cut = &mut self.cut;
        self.cutter.break_off(self.at, &mut |segment| cut.push(segment));
    }

    fn seconds(&self) -> Vec<f64> {
        self.cut.iter().map(|segment| segment.ticks as f64 / SECOND as f64).collect()
    }

    /// What holds of any stream.
    fn check(&self) {
        let target = self.numbers.counts().target;
        for segment in &self.cut {
            assert!(segment.begin < segment.end && segment.ticks > 0, "{segment:?}");
            let rounded = (segment.ticks + SECOND / 2) / SECOND;
            assert!(rounded <= u64::from(target), "{segment:?} of {target} s");
        }
        for pair in self.cut.windows(2) {
            let [a, b] = pair else { unreachable!() };
            assert_eq!(b.sequence, a.sequence + 1);
            assert_eq!(b.breaks, a.breaks + u64::from(b.discontinuity));
            assert!(b.begin >= a.end, "{a:?} {b:?}");
            assert!(b.begin == a.end || b.discontinuity, "a gap: {a:?} {b:?}");
        }
    }
}

fn fresh(target_ms: u64) -> Bench {
    Bench::new(target_ms, Counts::default(), 0)
}

#[test]
fn cuts_are_at_the_access_points_nearest_to_the_target() {
    for (group, want) in [(25, 2.0), (12, 1.92), (24, 1.92), (36, 1.44), (50, 2.0), (75, 3.0)] {
        let mut bench = fresh(2000);
        bench.groups(&[group; 20]);
        bench.check();
        assert!(bench.seconds().len() > 3);
        assert!(bench.seconds().iter().all(|s| *s == want), "{group}: {:?}", bench.seconds());
        assert!(bench.cut.iter().all(|s| (s.begin / STEP).is_multiple_of(group)));
    }
}

#[test]
fn no_segment_is_longer_than_the_first_promised() {
    let mut bench = fresh(2000);
    bench.groups(&[25, 25, 250, 25, 25, 25, 25]);
    bench.check();
    assert_eq!(bench.numbers.counts().target, 2);
    let longest = bench.seconds().into_iter().fold(0.0, f64::max);
    assert!((2.0..2.5).contains(&longest), "{:?}", bench.seconds());
    // A long first group is promised as it is.
    let mut bench = fresh(2000);
    bench.groups(&[125, 25, 25, 125, 25]);
    bench.check();
    assert_eq!((bench.numbers.counts().target, bench.seconds()[0]), (5, 5.0));
    // One without an end is not.
    let mut bench = fresh(2000);
    bench.groups(&[1000]);
    bench.check();
    assert_eq!(bench.numbers.counts().target, FIRST_MAX_SECONDS);
}

#[test]
fn an_early_access_point_is_taken_when_the_next_may_come_too_late() {
    let mut bench = fresh(2000);
    // Promised: 2 s. Groups of up to 1.6 s: at 1.2 s it is better to cut than to go on to 2.8 s.
    bench.groups(&[25, 25, 40, 30, 40, 30, 40, 30, 40]);
    bench.check();
    let keys = [0, 25, 50, 90, 120, 160, 190, 230, 260];
    assert!(bench.cut.iter().all(|s| keys.contains(&(s.begin / STEP))), "{:?}", bench.cut);
}

#[test]
fn time_stamps_wrap() {
    let mut bench = fresh(2000);
    bench.pts = TICKS_MODULUS - 5 * SECOND;
    bench.groups(&[25; 12]);
    bench.check();
    assert_eq!(bench.seconds(), [2.0; 5]);
    assert!(bench.cut.iter().all(|segment| !segment.discontinuity));
}

#[test]
fn without_time_stamps_arrival_counts() {
    let mut bench = fresh(1000);
    for n in 0..100 {
        bench.unit(n % 5 == 0, false, 100);
    }
    bench.check();
    assert_eq!(bench.seconds(), [1.0; 9]);
    // And a change from one to the other is a break.
    bench.groups(&[25, 25, 25]);
    bench.check();
    assert_eq!(bench.cut.iter().filter(|segment| segment.discontinuity).count(), 1);
}

#[test]
fn a_jump_of_the_time_line_is_a_break_at_the_next_access_point() {
    for by in [-3_600_i64, -2, 20, 40_000] {
        let mut bench = fresh(2000);
        bench.groups(&[25, 25, 25]);
        for _ in 0..10 {
            bench.unit(false, true, 40);
        }
        bench.pts = bench.pts.wrapping_add_signed(by * SECOND as i64) % TICKS_MODULUS;
        bench.unit(false, true, 40);
        bench.groups(&[25; 5]);
        bench.check();
        let torn: Vec<_> = bench.cut.iter().filter(|s| s.discontinuity).collect();
        assert_eq!(torn.len(), 1, "{by}: {:?}", bench.cut);
        assert_eq!(torn[0].begin, 86 * STEP, "{by}");
        assert_eq!(bench.seconds()[..2], [2.0, 1.4], "{by}");
    }
}

#[test]
fn a_run_ends_with_all_of_its_bytes_and_the_next_one_follows_a_break() {
    let mut bench = fresh(2000);
    bench.groups(&[25, 25, 15]);
    bench.break_off();
    assert_eq!((bench.seconds(), bench.cut[1].end), (vec![2.0, 0.6], bench.at));
    // Bytes before the next access point belong to no segment.
    bench.unit(false, true, 40);
    let begin = bench.at;
    bench.groups(&[25, 25, 25]);
    bench.check();
    assert_eq!((bench.cut[2].begin, bench.cut[2].discontinuity), (begin, true));
    bench.break_off();
    let before = bench.cut.len();
    bench.break_off();
    assert_eq!(bench.cut.len(), before, "nothing twice");
    // Another publisher of a held stream, and numbers that a file kept.
    let counts = bench.numbers.counts();
    let mut next = Bench::new(2000, counts, bench.at);
    next.cutter = Segmenter::new(Duration::from_secs(2), Arc::clone(&next.numbers), true);
    next.groups(&[25, 25, 25]);
    let first = &next.cut[0];
    let want = (counts.next, counts.breaks + 1, true);
    assert_eq!((first.sequence, first.breaks, first.discontinuity), want);
}

/// Ten minutes at 25 pictures/s with groups of odd lengths; the publisher dies twice, the relay
/// once, and a window of 30 s forgets what is older.
#[test]
fn ten_minutes_of_playlists_keep_the_rules() {
    let mut rules = rules::Rules::default();
    let mut bench = fresh(2000);
    let (mut epoch, mut relay_restarted) = (1, false);
    let mut shown = 0;
    for group in 0..600_u64 {
        bench.groups(&[[25, 25, 24, 26, 25, 40, 10, 25, 125, 25][group as usize % 10]]);
        match group {
            150 | 300 => bench.break_off(),
            450 => {
                bench.break_off();
                let counts = bench.numbers.counts();
                let counts =
                    Counts { next: counts.next + 4096, breaks: counts.breaks + 65, ..counts };
                let (at, millis) = (bench.at, bench.millis);
                bench = Bench { millis, ..Bench::new(2000, counts, at) };
                (epoch, relay_restarted) = (2, true);
            }
            _ => {}
        }
        bench.check();
        let tail = bench.at.saturating_sub(30 * 25 * STEP);
        let list = listed(bench.cut.iter(), tail, 6);
        if list.is_empty() {
            continue;
        }
        let target = bench.numbers.counts().target;
        let playlist = rules.check(&media(&list, Terms { target, epoch }));
        let enough = bench.cut.len() >= 6;
        assert!(!enough || playlist.segments.len() == 6, "{}", playlist.segments.len());
        shown += 1;
    }
    assert!(relay_restarted && shown > 550);
    assert!(bench.millis > 600_000, "ten minutes");
    let breaks: Vec<_> = rules.said.values().filter(|said| said.discontinuity).collect();
    assert_eq!(breaks.len(), 2, "the relay's restart has no tag, but a number");
    // Media time is all there is: what players add up is what was published.
    let total: f64 = rules.said.values().map(|said| f64::from(said.duration)).sum();
    let published = bench.millis as f64 / 1000.0 - 5.0;
    assert!((published - total).abs() < 5.0, "{total} of {published} s");
}

proptest! {
    /// Any stream: numbers without a gap, stretches without a gap, durations that add up.
    #[test]
    fn segments_tile_whatever_comes(
        target in 500_u64..5000,
        start in 0..TICKS_MODULUS,
        steps in prop::collection::vec((0_u8..40, 1_u64..400, 0_u8..100), 1..600),
    ) {
        let mut bench = fresh(target);
        bench.pts = start;
        // Presentation time of each place, and the runs between breaks.
        let mut times = std::collections::HashMap::new();
        for (what, millis, odd) in steps {
            if odd == 0 {
                bench.break_off();
            } else if odd == 1 {
                bench.pts = (bench.pts + 1_000 * SECOND) % TICKS_MODULUS;
            }
            times.insert(bench.at, bench.pts);
            bench.unit(what < 4, true, millis);
        }
        bench.break_off();
        bench.check();
        // Between two begins without a break lies exactly the duration of the first.
        for pair in bench.cut.windows(2).filter(|pair| !pair[1].discontinuity) {
            let [a, b] = [0, 1].map(|n| times[&pair[n].begin] % TICKS_MODULUS);
            prop_assert_eq!(ticks_between(a, b), pair[0].ticks as i64);
        }
        prop_assert_eq!(bench.numbers.counts().next, bench.cut.len() as u64);
    }
}
