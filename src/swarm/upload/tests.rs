//! A home's line, the relay that measures it, and the neighbours that are fed over it.

use std::collections::VecDeque;

use super::*;
use crate::swarm::probing::{Heard, Probing};
use crate::wire::ppspp;

fn child(key: u16, queue: u64, acked: u64, lost: u64) -> Child {
    let queueing = Some(Duration::from_millis(queue));
    Child { key: Key(key), queueing, acked, lost }
}

fn at(millis: u64) -> Mono {
    Mono::from_millis(10_000 + millis)
}

fn told(upload: &Upload) -> u32 {
    upload.state(0, Duration::ZERO).upload_kbit
}

/// One whose line was measured at `kbit`.
fn measured(kbit: u32) -> Upload {
    let mut upload = Upload::new(None, 2_000_000);
    upload.linked(at(0), true);
    for now in [at(1_000), at(2_200)] {
        if let Some(probe) = upload.probe(now) {
            upload.probed(now, probe);
            upload.measured(now + Duration::from_millis(50), probe.run, kbit);
        }
    }
    upload
}

#[test]
fn a_guess_of_the_bitrate_is_put_right() {
    // A limit of 500 kbit/s carries one stripe of 2 Mbit/s, and all of 113 kbit/s four times.
    let mut upload = Upload::new(Some(500_000), 2_000_000);
    assert_eq!(told(&upload), 270);
    assert_eq!(upload.grant(Key(1), 0xff).count_ones(), 2, "and one for who plans otherwise");
    upload.set_bitrate(113_000);
    assert!((480..=500).contains(&told(&upload)), "{}", told(&upload));
    assert_eq!(upload.grant(Key(1), 0xff), 0xff);
    let before = told(&upload);
    upload.set_bitrate(125_000);
    assert_eq!(told(&upload), before, "little is no change");
    upload.set_bitrate(2_000_000);
    assert_eq!(upload.grant(Key(1), 0xff).count_ones(), 2, "what does not fit is taken back");
    // A line carries as many bits as before.
    let mut upload = measured(4_000);
    assert_eq!(told(&upload), 12 * 270);
    upload.set_bitrate(1_000_000);
    assert_eq!(told(&upload), 25 * 135);
}

#[test]
fn a_poor_line_is_not_taken_for_a_better_one_by_its_first_bytes() {
    let mut upload = measured(197);
    assert_eq!(upload.line.bits(), Some(197_000.0));
    // Alone in the line now, all of a small train is let through at once.
    let small = upload.probe(at(62_000)).unwrap();
    upload.probed(at(62_000), small);
    assert_eq!(upload.measured(at(62_050), small.run, 9_000), None);
    assert_eq!(upload.line.bits(), Some(197_000.0));
    let large = upload.probe(at(63_200)).unwrap();
    assert!(large.bits() > 2.0 * small.bits() && large.bits() < 0.7 * 197_000.0, "{large:?}");
    upload.probed(at(63_200), large);
    upload.measured(at(63_900), large.run, 196);
    assert_eq!(upload.line.bits(), Some(196_000.0));
    // Where it is better by now, the larger one says so, too.
    let small = upload.probe(at(124_000)).unwrap();
    upload.probed(at(124_000), small);
    upload.measured(at(124_050), small.run, 4_000);
    let large = upload.probe(at(125_200)).unwrap();
    upload.probed(at(125_200), large);
    upload.measured(at(125_300), large.run, 3_900);
    assert_eq!(upload.line.bits(), Some(392_000.0), "half of what is told at most");
}

#[test]
fn a_limit_is_kept_in_promises_and_in_pace() {
    let mut upload = Upload::new(Some(1_080_000), 2_000_000);
    upload.linked(at(0), true);
    assert_eq!(upload.probe(at(60_000)), None, "who says how much is believed");
    assert_eq!(upload.grant(Key(1), 0b111), 0b111);
    assert_eq!(upload.grant(Key(2), 0b111), 0b11, "four stripes fit, and one for a moment");
    assert_eq!(upload.state(0, Duration::ZERO).room_kbit, 0);
    assert_eq!(upload.grant(Key(1), 0b1), 0b1);
    assert_eq!(upload.grant(Key(2), 0b111), 0b111);
    upload.remove(Key(2));
    assert_eq!(upload.state(7, Duration::ZERO).room_kbit, 810);
    (0..20).for_each(|_| upload.sent(at(0), 13_500));
    let ready = upload.ready().since(at(0)).as_millis();
    assert!((1_958..=1_961).contains(&ready), "{ready}");
    let mut none = Upload::new(Some(0), 2_000_000);
    assert_eq!((none.grant(Key(1), 0xff), told(&none)), (0, 0));
    assert!(none.ready() > at(1 << 40) && !none.has_spare(at(1 << 40)));
}

#[test]
fn nothing_is_promised_before_the_line_is_known_and_not_much_if_nobody_says() {
    let mut upload = Upload::new(None, 2_000_000);
    upload.linked(at(0), true);
    assert_eq!((upload.grant(Key(1), 0xff), told(&upload)), (0, 0));
    assert!(!upload.has_spare(at(9_000)) && upload.probe(at(299)).is_none());
    let mut sent = Vec::new();
    for now in (0..81_000).step_by(20) {
        if let Some(probe) = upload.probe(at(now)) {
            upload.probed(at(now), probe);
            let Probe { run, of, bytes } = probe;
            assert_eq!((of, bytes), (12, 400));
            assert_eq!(upload.measured(at(now + 9), run - 1, 9_000), None, "to another one");
            assert_eq!(upload.measured(at(now + 9), run, 0), None, "of which nothing follows");
            sent.push(now);
        }
    }
    assert_eq!(sent, [300, 5_300, 10_300, 15_300, 80_300]);
    assert_eq!((upload.grant(Key(1), 0xff).count_ones(), told(&upload)), (2, 270));
    // A relay that does not measure.
    let mut upload = Upload::new(None, 2_000_000);
    upload.linked(at(0), false);
    assert_eq!((upload.probe(at(90_000)), told(&upload)), (None, 270));
    for step in 0..80 {
        upload.sent(at(step * 250), 240 * 1_373);
        upload.observe(at(step * 250), &[child(1, 10, 120, 0), child(2, 10, 120, 1)]);
    }
    assert!((8 * 270..=21 * 270).contains(&told(&upload)), "{}", told(&upload));
    // And one that begins to.
    upload.linked(at(30_000), true);
    let probe = upload.probe(at(30_400)).unwrap();
    upload.probed(at(30_400), probe);
    assert_eq!(upload.measured(at(30_900), probe.run, 450), Some(450));
    assert_eq!(told(&upload), 270);
}

#[test]
fn losses_of_all_are_our_own_even_without_a_queue() {
    let mut upload = measured(5_000);
    let looks = |upload: &mut Upload, from: u64, lost| {
        for step in from..from + 10 {
            for key in 1..=3 {
                upload.grant(Key(key), 0x1f);
            }
            let children = [child(1, 10, 46, lost), child(2, 10, 46, lost), child(3, 10, 50, 1)];
            upload.sent(at(5_000 + step * 250), (143 + 2 * lost) * 1_373);
            upload.observe(at(5_000 + step * 250), &children);
        }
        (1..=3).map(|key| upload.grant(Key(key), 0x1f).count_ones()).sum::<u32>()
    };
    assert_eq!(looks(&mut upload, 0, 0), 15);
    assert_eq!(looks(&mut upload, 10, 10), 15, "neither");
    assert!(looks(&mut upload, 20, 60) <= 13);
}

#[test]
fn who_is_not_fed_and_who_is_slow_hold_nothing_up() {
    let mut upload = measured(7_000);
    for step in 0..20 {
        for key in 1..=5 {
            upload.grant(Key(key), 0b1111);
        }
        let mut children: Vec<_> = (1..=5).map(|key| child(key, 10, 50, 1)).collect();
        children[0] = child(1, 700, 30, 20);
        children[1] = child(2, 700, 0, 0);
        upload.sent(at(5_000 + step * 250), 203 * 1_373);
        upload.observe(at(5_000 + step * 250), &children);
    }
    let granted: u32 = (1..=5).map(|key| upload.grant(Key(key), 0b1111).count_ones()).sum();
    assert_eq!((granted, told(&upload)), (20, 22 * 270));
}

/// Milliseconds to the relay or a neighbour and back.
const TRIP: f64 = 40.0;

/// A home's line with the neighbours that it feeds, as a relay plans that counts with what it was
/// told.
struct Home {
    upload: Upload,
    /// In milliseconds.
    now: u64,
    /// Bits per second, bits that pass at once after a rest, milliseconds that wait at most.
    line: f64,
    burst: f64,
    limit: f64,
    /// When all that was sent will have left, in milliseconds.
    free: f64,
    probing: Option<Probing>,
    /// Datagrams of trains on their way, and answers.
    trains: VecDeque<(f64, ppspp::Probe<'static>)>,
    answers: VecDeque<(u64, u8, u32)>,
    /// When the last train was sent, and how many were.
    train_at: u64,
    trains_sent: u32,
    /// Of each neighbour what it gets, and bits that are to be sent to it.
    granted: Vec<u8>,
    owed: Vec<f64>,
    /// Chunks on their way: when something is heard of them, of whom, how long they waited.
    flying: VecDeque<(f64, usize, Option<f64>)>,
    counts: Vec<[u64; 2]>,
    queues: Vec<Option<f64>>,
    /// The longest queue since [`Home::run`], without those of trains, and bits that left.
    worst: f64,
    carried: f64,
}

impl Home {
    fn new(line: f64, burst: f64, neighbours: usize) -> Home {
        let mut upload = Upload::new(None, 2_000_000);
        upload.linked(at(0), true);
        Home {
            upload,
            now: 0,
            line,
            burst,
            limit: (16_000.0 * 8_000.0 / line).max(1_000.0),
            free: 0.0,
            probing: None,
            trains: VecDeque::new(),
            answers: VecDeque::new(),
            train_at: 0,
            trains_sent: 0,
            granted: vec![0; neighbours],
            owed: vec![0.0; neighbours],
            flying: VecDeque::new(),
            counts: vec![[0; 2]; neighbours],
            queues: vec![None; neighbours],
            worst: 0.0,
            carried: 0.0,
        }
    }

    /// When a datagram has left, if there is room for it.
    fn send(&mut self, bytes: f64) -> Option<f64> {
        let now = self.now as f64;
        let rested = now - self.burst * 1_000.0 / self.line;
        let free = self.free.max(rested) + bytes * 8_000.0 / self.line;
        if free - now > self.limit {
            return None;
        }
        self.free = free;
        self.carried += bytes * 8.0;
        Some(free.max(now))
    }

    fn tick(&mut self) {
        self.now += 1;
        let now = self.now as f64;
        if self.now.is_multiple_of(20) {
            self.measure();
        }
        while self.trains.front().is_some_and(|(when, ..)| *when <= now) {
            let Some((when, probe)) = self.trains.pop_front() else { break };
            let bytes = probe.padding.len() + 10;
            let came = Mono::from_nanos(((10_000.0 + when) * 1e6) as u64);
            let heard = match &mut self.probing {
                Some(train) if !train.makes_room(came, &probe) => train.hear(came, &probe, bytes),
                _ => {
                    let (heard, train) = Probing::begin(came, &probe, bytes);
                    self.probing = train;
                    heard
                }
            };
            if let Heard::Over(run, kbit) = heard {
                self.answers.push_back((self.now + TRIP as u64 / 2, run, kbit));
            }
        }
        if self.now.is_multiple_of(250) {
            if let Some((run, kbit)) = self.probing.as_mut().and_then(|t| t.give_up(at(self.now))) {
                self.answers.push_back((self.now + TRIP as u64 / 2, run, kbit));
            }
            self.look();
        }
        while self.answers.front().is_some_and(|(when, ..)| *when <= self.now) {
            let Some((_, run, kbit)) = self.answers.pop_front() else { break };
            self.upload.measured(at(self.now), run, kbit);
        }
        self.feed();
        self.flying.make_contiguous().sort_by(|a, b| a.0.total_cmp(&b.0));
        while self.flying.front().is_some_and(|(when, ..)| *when <= now) {
            let Some((_, child, wait)) = self.flying.pop_front() else { break };
            self.counts[child][usize::from(wait.is_none())] += 1;
            self.queues[child] = wait.or(self.queues[child]);
        }
        if self.now - self.train_at > 2_500 {
            self.worst = self.worst.max(self.free - now);
        }
    }

    fn measure(&mut self) {
        let Some(probe) = self.upload.probe(at(self.now)) else { return };
        let Probe { run, of, bytes } = probe;
        for index in 0..of {
            if let Some(left) = self.send(f64::from(bytes + 28)) {
                let message = ppspp::Probe::filling(bytes.into(), run, index, of);
                self.trains.push_back((left + TRIP / 2.0, message));
            }
        }
        self.upload.probed(at(self.now), probe);
        (self.train_at, self.trains_sent) = (self.now, self.trains_sent + 1);
    }

    /// What is granted is sent as the pace allows; what the line does not carry is missing.
    fn feed(&mut self) {
        for child in 0..self.granted.len() {
            let rate = f64::from(self.granted[child].count_ones()) * 270_000.0;
            self.owed[child] = (self.owed[child] + rate / 1_000.0).min(rate);
            while self.owed[child] >= 10_984.0 && self.upload.ready() <= at(self.now) {
                self.owed[child] -= 10_984.0;
                self.upload.sent(at(self.now), 1_345);
                let now = self.now as f64;
                let heard = match self.send(1_373.0) {
                    Some(left) => (left + TRIP, child, Some(left - now)),
                    None => (self.free.max(now) + 3.0 * TRIP, child, None),
                };
                self.flying.push_back(heard);
            }
        }
    }

    fn look(&mut self) {
        let counts: Vec<_> = self.counts.iter_mut().map(std::mem::take).collect();
        let children: Vec<_> = counts
            .iter()
            .zip(&self.queues)
            .zip(1..)
            .map(|(([acked, lost], queue), key)| Child {
                key: Key(key),
                queueing: queue.map(|wait| Duration::from_millis(wait as u64)),
                acked: *acked,
                lost: *lost,
            })
            .collect();
        self.upload.observe(at(self.now), &children);
        let mut slots = told(&self.upload) / 270;
        for child in 0..self.granted.len() {
            let planned = slots.min(8);
            slots -= planned;
            let wanted = ((1u32 << planned) - 1) as u8;
            self.granted[child] = self.upload.grant(Key(child as u16 + 1), wanted);
        }
    }

    fn run(&mut self, seconds: u64) {
        (self.worst, self.carried) = (0.0, 0.0);
        (0..seconds * 1_000).for_each(|_| self.tick());
    }

    fn believes(&self) -> f64 {
        self.upload.line.bits().map_or(0.0, f64::from)
    }
}

#[test]
fn lines_are_measured_as_they_are() {
    for burst in [0.0, 16_000.0 * 8.0] {
        for line in [200_000.0, 600_000.0, 1_500_000.0, 5_000_000.0, 12_000_000.0, 40_000_000.0] {
            let mut home = Home::new(line, burst, 12);
            home.run(5);
            let off = home.believes() / line;
            assert!((0.85..1.15).contains(&off), "{line} {burst}: {off}");
            let slots = (home.believes() * 0.85 / 270_000.0).min(96.0) as u32;
            assert_eq!(told(&home.upload), slots * 270, "{line}");
            home.run(25);
            assert_eq!(told(&home.upload), slots * 270, "{line}: nothing was too much");
            let carried = home.carried / 25.0 / f64::from(slots.max(1) * 270_000);
            assert!(slots == 0 || (0.95..1.05).contains(&carried), "{line}: {carried}");
            assert!(home.worst < 100.0, "{line}: {} ms", home.worst);
            assert!(home.trains_sent <= 2, "{line}: {}", home.trains_sent);
        }
    }
}

#[test]
fn a_line_that_changes_is_followed() {
    for line in [1_500_000.0, 5_000_000.0, 12_000_000.0] {
        let mut home = Home::new(line, 0.0, 6);
        home.run(20);
        home.line = line / 2.0;
        home.run(10);
        let off = home.believes() / home.line;
        assert!((0.7..1.15).contains(&off), "{line}: {off}");
        assert!(home.worst < 1_000.0, "{line}: {} ms", home.worst);
        home.run(60);
        let off = home.believes() / home.line;
        assert!((0.7..1.15).contains(&off) && home.worst < 400.0, "{line}: {off} {}", home.worst);
        home.line = line;
        home.run(90);
        let off = home.believes() / home.line;
        assert!((0.85..1.15).contains(&off) && home.worst < 400.0, "{line}: {off} {}", home.worst);
        // It does not go on for ever.
        let trains = home.trains_sent;
        home.run(120);
        assert!(home.trains_sent - trains <= 2, "{line}: {}", home.trains_sent - trains);
    }
}
