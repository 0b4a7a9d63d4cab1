//! Replays a short transport stream for ever, as if it had never ended.
//!
//! The clocks go on across the seam: every PCR, PTS and DTS of round n is n durations later than
//! in the sample, modulo their range, and continuity counters just count on.

use std::fmt;
use std::time::Duration;

use crate::base::limits::TS_PACKET;
use crate::wire::mpegts::Pid;
use crate::wire::mpegts::clock::{
    PCR_MODULUS, PCR_PER_SECOND, PCR_PER_TICK, TICKS_MODULUS, pcr_add, pcr_between, ticks_between,
};
use crate::wire::mpegts::packet::{Packet, set_continuity, set_pcr};
use crate::wire::mpegts::pes::{PesHeader, shift_stamps};

/// The most PIDs a sample may have.
const PIDS_MAX: usize = 16;

/// Why a sample cannot be replayed without a seam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopError {
    /// It is not a whole number of packets, each with its sync byte, or there is none.
    Packets,
    /// It has more than 16 PIDs.
    TooManyPids,
    /// The header of a PES packet goes on in the next packet.
    SplitHeader,
    /// There is no PCR, or it is on several PIDs, or runs backwards or beyond the duration.
    Clock,
    /// The PES packets on the PID of the clock are not evenly spaced, so there is no telling
    /// how long the last one lasts.
    Uneven,
}

impl fmt::Display for LoopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LoopError::Packets => "the sample is not whole MPEG-TS packets",
            LoopError::TooManyPids => "the sample has more than 16 PIDs",
            LoopError::SplitHeader => "a PES header of the sample spans two packets",
            LoopError::Clock => "the sample has no usable program clock",
            LoopError::Uneven => "the frames of the sample are not evenly spaced",
        })
    }
}

impl std::error::Error for LoopError {}

/// What is to be done with one packet of the sample.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// When it is due within a round, in 27 MHz ticks.
    due: u64,
    /// Place of its PID in `counters`.
    counter: u8,
    /// Whether a PES header begins at this place of the packet; 0 if none does.
    pes: u8,
}

/// An endless source made of a sample. The packets of a round are due as the PCR says, evenly
/// spread between two PCRs.
#[derive(Debug)]
pub struct Looper {
    sample: &'static [u8],
    plan: Vec<Plan>,
    /// Length of a round in 90 kHz ticks.
    ticks: u64,
    counters: [u8; PIDS_MAX],
    /// Where the replay began, in 27 MHz ticks since the start of round 0.
    origin: u128,
    round: u64,
    next: usize,
}

impl Looper {
    /// A replay of `sample` from its start.
    ///
    /// A round lasts as long as the frames of the stream that carries the PCR: their number
    /// times their spacing.
    ///
    /// # Errors
    /// Why `sample` cannot be replayed without a seam.
    pub fn new(sample: &'static [u8]) -> Result<Looper, LoopError> {
        let mut plan = Vec::with_capacity(sample.len() / TS_PACKET);
        let mut pids: Vec<Pid> = Vec::with_capacity(PIDS_MAX);
        let mut clock = Clock::default();
        if sample.is_empty() || !sample.len().is_multiple_of(TS_PACKET) {
            return Err(LoopError::Packets);
        }
        for (index, bytes) in sample.chunks_exact(TS_PACKET).enumerate() {
            let packet = Packet::new(bytes).ok_or(LoopError::Packets)?;
            let known = pids.iter().position(|&pid| pid == packet.pid());
            let counter = known.unwrap_or(pids.len());
            if known.is_none() {
                if pids.len() == PIDS_MAX {
                    return Err(LoopError::TooManyPids);
                }
                pids.push(packet.pid());
            }
            if let Some(pcr) = packet.adaptation().and_then(|field| field.pcr()) {
                clock.add(packet.pid(), index, pcr)?;
            }
            plan.push(Plan { due: 0, counter: counter as u8, pes: pes_start(packet)? });
        }
        let ticks = duration(sample, clock.pid)?;
        clock.spread(&mut plan, ticks * PCR_PER_TICK)?;
        Ok(Looper { sample, plan, ticks, counters: [0; PIDS_MAX], origin: 0, round: 0, next: 0 })
    }

    /// Length of a round.
    #[must_use]
    pub fn duration(&self) -> Duration {
        // 100,000 / 9 ns is a tick; `ticks` has 32 bits.
        Duration::from_nanos(self.ticks * 100_000 / 9)
    }

    /// Begins anew at `phase` after the start of the sample; beyond its length, in a later round.
    pub fn start_at(&mut self, phase: Duration) {
        self.origin = to_pcr(phase);
        let round = u128::from(self.ticks * PCR_PER_TICK);
        self.round = u64::try_from(self.origin / round).unwrap_or(u64::MAX);
        let within = (self.origin % round) as u64;
        self.next = self.plan.partition_point(|plan| plan.due < within);
        self.wrap();
    }

    /// Appends the packets that are due `elapsed` after the start, and not given out before:
    /// at most one round, so call again if more than that has passed.
    pub fn next(&mut self, elapsed: Duration, out: &mut Vec<u8>) {
        let now = self.origin.saturating_add(to_pcr(elapsed));
        for _ in 0..self.plan.len() {
            if self.due() > now {
                return;
            }
            self.emit(out);
        }
    }

    /// When the next packet is due, counted from the start: for a timer.
    #[must_use]
    pub fn next_due(&self) -> Duration {
        let ticks = self.due().saturating_sub(self.origin);
        // Rounded up, so that the packet is due indeed when the timer fires.
        let nanos = (ticks * NANOS).div_ceil(u128::from(PCR_PER_SECOND));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn due(&self) -> u128 {
        let within = self.plan.get(self.next).map_or(0, |plan| plan.due);
        u128::from(self.round) * u128::from(self.ticks * PCR_PER_TICK) + u128::from(within)
    }

    fn emit(&mut self, out: &mut Vec<u8>) {
        let from = self.next * TS_PACKET;
        let (Some(plan), Some(bytes)) =
            (self.plan.get(self.next), self.sample.get(from..from + TS_PACKET))
        else {
            return;
        };
        let start = out.len();
        out.extend_from_slice(bytes);
        let copy = &mut out[start..];
        // Reduced before it is multiplied: the round counts for ever.
        let shift = u128::from(self.round) * u128::from(self.ticks) % u128::from(TICKS_MODULUS);
        let shift = shift as u64;
        if let Some(packet) = Packet::new(bytes) {
            if let Some(pcr) = packet.adaptation().and_then(|field| field.pcr()) {
                set_pcr(copy, pcr_add(pcr, shift * PCR_PER_TICK));
            }
            let counter = &mut self.counters[usize::from(plan.counter)];
            set_continuity(copy, *counter);
            if packet.has_payload() {
                // The counter holds what comes next; a packet without payload repeats the last.
                *counter = (*counter + 1) & 0x0F;
            } else {
                set_continuity(copy, counter.wrapping_sub(1));
            }
        }
        if plan.pes > 0 {
            shift_stamps(&mut copy[usize::from(plan.pes)..], shift);
        }
        self.next += 1;
        self.wrap();
    }

    fn wrap(&mut self) {
        if self.next >= self.plan.len() {
            self.next = 0;
            self.round = self.round.saturating_add(1);
        }
    }
}

const NANOS: u128 = 1_000_000_000;

fn to_pcr(time: Duration) -> u128 {
    time.as_nanos() * u128::from(PCR_PER_SECOND) / NANOS
}

/// Where in the packet a PES header begins, which must end in it; 0 if none does.
fn pes_start(packet: Packet<'_>) -> Result<u8, LoopError> {
    let Some(start) = packet.payload_start().filter(|_| packet.unit_start()) else { return Ok(0) };
    match &packet.bytes()[start..] {
        bytes @ [0, 0, 1, ..] => match PesHeader::parse(bytes) {
            Some(header) if header.payload_start <= bytes.len() => Ok(start as u8),
            _ => Err(LoopError::SplitHeader),
        },
        _ => Ok(0),
    }
}

/// Number of PES packets on `pid` times their spacing, in 90 kHz ticks.
fn duration(sample: &[u8], pid: Option<Pid>) -> Result<u64, LoopError> {
    let mut times = sample
        .chunks_exact(TS_PACKET)
        .filter_map(Packet::new)
        .filter(|packet| Some(packet.pid()) == pid && packet.unit_start())
        .filter_map(|packet| PesHeader::parse(packet.payload()?)?.decode_time());
    let (Some(first), Some(second)) = (times.next(), times.next()) else {
        return Err(LoopError::Uneven);
    };
    let step = ticks_between(first, second);
    let mut count = 2;
    let mut last = second;
    for time in times {
        if ticks_between(last, time) != step {
            return Err(LoopError::Uneven);
        }
        last = time;
        count += 1;
    }
    match u64::try_from(step) {
        Ok(step) if step > 0 && step * count < TICKS_MODULUS / 2 => Ok(step * count),
        _ => Err(LoopError::Uneven),
    }
}

/// The PCRs of a sample: packet number, and time since the first in 27 MHz ticks.
#[derive(Default)]
struct Clock {
    pid: Option<Pid>,
    first: u64,
    points: Vec<(usize, u64)>,
}

impl Clock {
    fn add(&mut self, pid: Pid, index: usize, pcr: u64) -> Result<(), LoopError> {
        if *self.pid.get_or_insert(pid) != pid {
            return Err(LoopError::Clock);
        }
        let Some(&(_, last)) = self.points.last() else {
            self.first = pcr;
            self.points.push((index, 0));
            return Ok(());
        };
        let step = pcr_between((self.first + last) % PCR_MODULUS, pcr);
        let step = u64::try_from(step).map_err(|_| LoopError::Clock)?;
        self.points.push((index, last + step));
        Ok(())
    }

    /// Gives each packet its time: that of a PCR if it has one, else in even steps up to the
    /// next, the last ones up to the end of the round. What is in front of the first PCR is due
    /// with it.
    fn spread(&self, plan: &mut [Plan], round: u64) -> Result<(), LoopError> {
        let end = (plan.len(), round);
        let next = self.points.iter().skip(1).chain([&end]);
        for (&(from, start), &(to, stop)) in self.points.iter().zip(next) {
            let span = stop.checked_sub(start).ok_or(LoopError::Clock)?;
            for (step, plan) in plan[from..to].iter_mut().enumerate() {
                let passed = u128::from(span) * step as u128 / (to - from) as u128;
                plan.due = start + passed as u64;
            }
        }
        if self.points.is_empty() { Err(LoopError::Clock) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Mono;
    use crate::media::reader::{FoundKind, TsReader};
    use crate::media::sample::DEMO;

    const MINUTE: Duration = Duration::from_secs(60);
    const VIDEO: Pid = 256;
    const AUDIO: Pid = 257;

    /// The replay from `phase` on for `seconds`, in steps of 20 ms, with a look at each step.
    fn replay(phase: Duration, seconds: u64, mut look: impl FnMut(Duration, &[u8])) -> Vec<u8> {
        let mut looper = Looper::new(DEMO).unwrap();
        looper.start_at(phase);
        let mut all = Vec::new();
        for ms in (0..seconds * 1000).step_by(20) {
            let from = all.len();
            looper.next(Duration::from_millis(ms), &mut all);
            look(Duration::from_millis(ms), &all[from..]);
        }
        all
    }

    fn packets(bytes: &[u8]) -> impl Iterator<Item = Packet<'_>> {
        bytes.chunks_exact(TS_PACKET).filter_map(Packet::new)
    }

    fn stamps(bytes: &[u8], pid: Pid) -> Vec<u64> {
        packets(bytes)
            .filter(|p| p.pid() == pid && p.unit_start())
            .filter_map(|p| PesHeader::parse(p.payload()?)?.pts)
            .collect()
    }

    /// AAC frames in each PES packet, by the lengths in their ADTS headers.
    fn aac_frames(bytes: &[u8]) -> Vec<u64> {
        let mut units: Vec<Vec<u8>> = Vec::new();
        for p in packets(bytes).filter(|p| p.pid() == AUDIO) {
            let payload = p.payload().unwrap_or_default();
            if p.unit_start() {
                let start = PesHeader::parse(payload).unwrap().payload_start;
                units.push(payload[start..].to_vec());
            } else if let Some(unit) = units.last_mut() {
                unit.extend_from_slice(payload);
            }
        }
        let count = |unit: &Vec<u8>| {
            let (mut at, mut frames) = (0, 0);
            while let Some(h) = unit.get(at..at + 7) {
                assert_eq!((h[0], h[1] & 0xF6), (0xFF, 0xF0), "an ADTS header");
                at += usize::from(h[3] & 3) << 11 | usize::from(h[4]) << 3 | usize::from(h[5] >> 5);
                frames += 1;
            }
            assert_eq!(at, unit.len(), "whole frames");
            frames
        };
        units.iter().map(count).collect()
    }

    #[test]
    fn the_sample_is_one_minute_to_the_tick() {
        assert!(DEMO.len() < 1_000_000);
        assert_eq!(Looper::new(DEMO).unwrap().duration(), MINUTE);
        assert_eq!(stamps(DEMO, VIDEO).len(), 1500);
        assert_eq!(aac_frames(DEMO).iter().sum::<u64>(), 1875);
        assert_eq!(stamps(DEMO, VIDEO)[0], stamps(DEMO, AUDIO)[0]);
    }

    #[test]
    fn time_stamps_are_even_across_the_seam_and_the_wrap() {
        // Round 1,590 is the one in which 33 bits overflow.
        for phase in [Duration::from_millis(37_410), MINUTE * 1590 + Duration::from_secs(11)] {
            let out = replay(phase, 130, |_, _| {});
            let video = stamps(&out, VIDEO);
            assert!(video.len() > 3240, "{}", video.len());
            assert!(video.windows(2).all(|w| ticks_between(w[0], w[1]) == 3600));
            // An audio PES lasts as long as its frames: 1,024 samples at 32 kHz are 2,880 ticks.
            let (audio, frames) = (stamps(&out, AUDIO), aac_frames_from_start(&out));
            assert_eq!(audio.len(), frames.len());
            for (w, count) in audio.windows(2).zip(&frames) {
                assert_eq!(ticks_between(w[0], w[1]), *count as i64 * 2880);
            }
            let pcrs: Vec<u64> = packets(&out).filter_map(|p| p.adaptation()?.pcr()).collect();
            let steps = pcrs.windows(2).map(|w| pcr_between(w[0], w[1]));
            let (least, most) = steps.fold((i64::MAX, 0), |(l, m), s| (l.min(s), m.max(s)));
            assert!(least > 0 && most <= 2_700_000, "PCR steps {least} to {most}");
        }
    }

    /// Like [`aac_frames`], of output that may begin in the middle of a PES packet and end so.
    fn aac_frames_from_start(out: &[u8]) -> Vec<u64> {
        let starts: Vec<usize> = out
            .chunks_exact(TS_PACKET)
            .enumerate()
            .filter(|(_, b)| Packet::new(b).is_some_and(|p| p.pid() == AUDIO && p.unit_start()))
            .map(|(index, _)| index * TS_PACKET)
            .collect();
        let last = *starts.last().unwrap();
        let mut frames = aac_frames(&out[starts[0]..last]);
        frames.push(0);
        frames
    }

    #[test]
    fn the_reader_finds_nothing_wrong_with_it() {
        let mut reader = TsReader::new();
        let mut found = Vec::new();
        let mut at = 0;
        let start = Mono::from_millis(1000);
        let out = replay(Duration::from_millis(12_345), 130, |elapsed, bytes| {
            reader.feed(start + elapsed, at, bytes, &mut found);
            at += bytes.len() as u64;
        });
        let health = reader.health(start + Duration::from_secs(130));
        assert_eq!((health.continuity_errors, health.transport_errors), (0, 0));
        assert_eq!((health.gop_ms, health.gop_max_ms), (1000, 1000));
        assert_eq!(health.warnings, Vec::<String>::new());
        let codecs: Vec<_> = health.tracks.iter().map(|t| &t.codec[..]).collect();
        assert_eq!(codecs, ["h264", "aac"]);
        assert!(health.pcr_jitter_us <= 20_000, "the step of this test: {}", health.pcr_jitter_us);
        assert!((80_000..160_000).contains(&health.bitrate_bps), "{}", health.bitrate_bps);
        let points: Vec<_> = found
            .iter()
            .filter_map(|f| match &f.kind {
                FoundKind::AccessPoint { pts, pat, tables } => Some((f.at, *pts, *pat, tables)),
                FoundKind::Tables => None,
            })
            .collect();
        assert_eq!((points.len(), found.len()), (130, 131));
        for (at, _, pat, tables) in &points {
            assert_eq!(at - pat, 2 * TS_PACKET as u64, "PAT and PMT right in front");
            assert_eq!(tables[..], out[*pat as usize..*at as usize], "the latest, word for word");
        }
        let pts = |n: usize| points[n].1.unwrap();
        assert!((1..points.len()).all(|n| ticks_between(pts(n - 1), pts(n)) == 90_000));
    }

    #[test]
    fn it_is_paced_by_the_clock_and_begins_at_the_phase() {
        let mut looper = Looper::new(DEMO).unwrap();
        let first_pcr = packets(DEMO).find_map(|p| p.adaptation()?.pcr()).unwrap();
        looper.start_at(Duration::from_secs(59));
        let mut lag = Vec::new();
        let mut out = Vec::new();
        for _ in 0..20_000 {
            let due = looper.next_due();
            out.clear();
            looper.next(due.saturating_sub(Duration::from_nanos(50)), &mut out);
            assert!(out.is_empty() || due.is_zero(), "nothing before it is due");
            looper.next(due, &mut out);
            assert!(!out.is_empty());
            let pcr = packets(&out).find_map(|p| p.adaptation()?.pcr());
            lag.extend(pcr.map(|pcr| {
                let time = (Duration::from_secs(59) + due).as_nanos() as i64;
                time - pcr_between(first_pcr, pcr) * 1000 / 27
            }));
        }
        assert!(lag.len() > 1000 && lag.iter().all(|lag| lag.abs() < 1000), "{lag:?}");
    }

    #[test]
    fn a_long_sleep_gives_one_round_at_a_time() {
        let mut looper = Looper::new(DEMO).unwrap();
        let mut out = Vec::new();
        looper.next(Duration::MAX, &mut out);
        assert_eq!(out.len(), DEMO.len());
        looper.start_at(Duration::MAX);
        looper.next(Duration::MAX, &mut out);
        assert!(out.len() <= 2 * DEMO.len());
    }

    #[test]
    fn what_cannot_be_replayed_is_refused() {
        let why = |bytes: &[u8]| Looper::new(bytes.to_vec().leak()).map(|_| ()).unwrap_err();
        assert_eq!(why(&[]), LoopError::Packets);
        assert_eq!(why(&DEMO[..187]), LoopError::Packets);
        assert_eq!(why(&DEMO[1..189]), LoopError::Packets);
        assert_eq!(why(&DEMO[..188]), LoopError::Uneven);
        let null = crate::wire::mpegts::NULL_PACKET;
        assert_eq!(why(&null), LoopError::Uneven);
        let mut bytes = DEMO[..200 * TS_PACKET].to_vec();
        let frame = 100 * TS_PACKET..130 * TS_PACKET;
        bytes.drain(frame);
        assert_eq!(why(&bytes), LoopError::Uneven);
    }

    /// Writes 150 s for a look with other programs:
    /// `LOOP_FILE=/tmp/loop.ts cargo test --lib looper -- --ignored`, then
    /// `ffmpeg -v error -i /tmp/loop.ts -f null -` must print nothing.
    #[test]
    #[ignore = "writes a file for ffmpeg and ffprobe"]
    fn write_a_file() {
        let path = std::env::var("LOOP_FILE").unwrap();
        let out = replay(Duration::from_millis(36_996), 150, |_, _| {});
        std::fs::write(path, out).unwrap();
    }
}
