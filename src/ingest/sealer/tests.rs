//! A sealer in front of a window: what it signs, when it pads, when it must wait.

use super::*;
use crate::base::limits::{SLAB_LARGE, SUBTREE, TS_PACKET};
use crate::base::time::{Now, Utc};
use crate::ring::arena::Arena;
use crate::ring::records::{NoRecord, SubtreeSize};
use crate::ring::window::{Settings, open};
use crate::swarm::integrity::{KeyPair, Real, SignerClock, Verifier};
use crate::wire::ppspp::Addressing;

const MILLI: Duration = Duration::from_millis(1);

struct Stage {
    writer: Writer,
    window: Arc<Window>,
    identity: Arc<Identity>,
    sealer: Option<Sealer>,
    now: Mono,
    sum: Sealed,
}

fn identity(chunks: usize, mark: u64) -> Arc<Identity> {
    let clock = SignerClock::new(
        Now { mono: Mono::ZERO, utc: Utc::from_unix_millis(1_767_225_600_000) },
        Utc::default(),
    );
    let key = Box::new(KeyPair::generate().unwrap());
    let size = SubtreeSize::new(chunks).unwrap();
    Arc::new(Identity::new(key, Addressing::Chunks64, size, clock, mark))
}

impl Stage {
    fn new(chunks: usize, mark: u64) -> Stage {
        let arena = Arena::create(4 * SLAB_LARGE as u64).unwrap();
        let settings = Settings { bytes: arena.bytes(), span: Duration::from_secs(60) };
        let (writer, window) = open(&arena, &settings, 5 * SUBTREE as u64, 1).unwrap();
        let (now, sum) = (Mono::from_millis(1_000), Sealed::default());
        let mut stage =
            Stage { writer, window, identity: identity(chunks, mark), sealer: None, now, sum };
        stage.begin();
        stage
    }

    fn begin(&mut self) {
        self.sealer = Some(Sealer::new(Arc::clone(&self.identity), &mut self.writer));
    }

    /// As many packets as given, then `pause`, in which timers run every millisecond.
    fn step(&mut self, packets: usize, pause: Duration) {
        let bytes: Vec<u8> = (0..packets * TS_PACKET).map(|n| (n % 251) as u8).collect();
        assert_eq!(self.writer.append(self.now, &bytes), bytes.len());
        self.writer.publish(self.now);
        let sealer = self.sealer.as_mut().unwrap();
        let sealed = sealer.seal(self.now, &mut self.writer);
        self.add(sealed);
        let end = self.now + pause;
        while self.now < end {
            self.now = self.now + MILLI;
            let sealer = self.sealer.as_mut().unwrap();
            if sealer.deadline().is_some_and(|due| self.now >= due) {
                let sealed = sealer.handle_timer(self.now, &mut self.writer);
                self.add(sealed);
            }
        }
    }

    fn add(&mut self, sealed: Sealed) {
        self.sum.signed += sealed.signed;
        self.sum.padding += sealed.padding;
        assert!(!(self.sum.too_slow && sealed.too_slow), "told once");
        self.sum.too_slow |= sealed.too_slow;
    }

    /// Every subtree from `from` to the signed head has a record that proves its bytes. Returns
    /// how many there are.
    fn verify(&self, from: u64) -> u64 {
        let (size, id) = (self.identity.size, self.identity.swarm_id);
        let mut verifier = Real::default();
        let end = self.window.signed_head().unwrap() / size.bytes();
        for number in from / size.bytes()..end {
            let record = self.window.record(number).unwrap();
            let first = number * size.chunks() as u64;
            for (n, hash) in record.leaves.iter().enumerate() {
                let expected = match n < size.chunks() {
                    true => leaf(self.writer.chunk(first + n as u64).unwrap()),
                    false => [0; 32],
                };
                assert_eq!(*hash, expected, "leaf {n} of {number}");
            }
            let root = munro(&record.leaves[..size.chunks()]);
            assert_eq!(record.munro, root);
            let span = Span { first, last: first + size.chunks() as u64 - 1 };
            let text = plaintext(Addressing::Chunks64, span, record.ntp, &root);
            assert!(verifier.verify(&id, text.as_ref(), &record.signature));
        }
        end - from / size.bytes()
    }
}

const FIRST: u64 = 5 * SUBTREE as u64;

#[test]
fn every_subtree_is_signed_when_its_last_chunk_came() {
    for chunks in [2, 4, 8, 16] {
        let mut stage = Stage::new(chunks, u64::MAX);
        // Pieces that fit neither chunks nor subtrees, fast enough to need no padding.
        for _ in 0..200 {
            stage.step(13, 10 * MILLI);
            let head = stage.window.head();
            let whole = head / stage.identity.size.bytes() * stage.identity.size.bytes();
            assert_eq!(stage.window.signed_head(), Some(whole));
        }
        assert_eq!(stage.sum.padding, 0);
        assert_eq!(stage.verify(FIRST), stage.sum.signed);
    }
}

#[test]
fn a_subtree_that_stays_open_is_completed_within_the_share() {
    let mut stage = Stage::new(16, u64::MAX);
    // Ten seconds of 2 Mbit/s, then silence in the middle of a subtree.
    for _ in 0..1_000 {
        stage.step(13, 10 * MILLI);
    }
    let open = stage.window.head() as usize % SUBTREE;
    stage.step((SUBTREE - open) / TS_PACKET, MILLI);
    stage.step(8, 149 * MILLI);
    assert!(stage.window.signed_head() < Some(stage.window.head()), "still open");
    stage.step(0, 2 * MILLI);
    assert_eq!(stage.window.signed_head(), Some(stage.window.head()));
    assert!(stage.sum.padding > 0 && stage.sum.padding < SUBTREE as u64);
    assert!(stage.verify(stage.window.tail()) > 50);
    let padding = stage.sum.padding;
    stage.step(0, 3_000 * MILLI);
    assert_eq!(stage.sum.padding, padding, "nothing is open, so nothing is padded");
}

#[test]
fn a_stream_too_slow_for_its_subtrees_is_padded_by_a_tenth_and_told_of_once() {
    let mut stage = Stage::new(16, u64::MAX);
    // 100 kbit/s: a subtree takes 1.7 s.
    for _ in 0..300 {
        stage.step(7, 105 * MILLI);
    }
    assert!(stage.sum.too_slow);
    let bytes = stage.window.head() - FIRST;
    assert!(stage.sum.padding * 10 <= bytes, "{} of {bytes}", stage.sum.padding);
    assert!(stage.sum.padding * 14 > bytes, "the share is used: {}", stage.sum.padding);
    // The remedy.
    let mut stage = Stage::new(2, u64::MAX);
    for _ in 0..300 {
        stage.step(7, 74 * MILLI);
    }
    assert!(!stage.sum.too_slow);
    assert_eq!(stage.sum.padding, 0);
}

#[test]
fn nothing_is_signed_beyond_what_is_kept_on_disk() {
    let mark = FIRST + 3 * SUBTREE as u64;
    let mut stage = Stage::new(16, mark);
    for _ in 0..20 {
        stage.step(60, 20 * MILLI);
    }
    assert_eq!((stage.window.signed_head(), stage.sum.signed), (Some(mark), 3));
    stage.identity.set_mark(u64::MAX);
    stage.step(0, 60 * MILLI);
    let whole = stage.window.head() / 21_056 * 21_056;
    assert_eq!(stage.window.signed_head(), Some(whole), "it catches up by itself");
    stage.verify(FIRST);
}

#[test]
fn the_next_run_goes_on_and_an_identity_that_comes_late_seals_from_the_head() {
    let mut stage = Stage::new(4, u64::MAX);
    stage.step(100, 10 * MILLI);
    stage.writer.pad(stage.now);
    let mut sealer = stage.sealer.take().unwrap();
    sealer.finish(stage.now, &mut stage.writer);
    assert_eq!(stage.window.signed_head(), Some(stage.window.head()));
    stage.begin();
    stage.step(100, 10 * MILLI);
    stage.verify(FIRST);

    let arena = Arena::create(4 * SLAB_LARGE as u64).unwrap();
    let settings = Settings { bytes: arena.bytes(), span: Duration::from_secs(60) };
    let (mut writer, window) = open(&arena, &settings, 0, 1).unwrap();
    writer.append(Mono::ZERO, &[0x47; 50 * TS_PACKET]);
    writer.publish(Mono::ZERO);
    let mut sealer = Sealer::new(identity(2, u64::MAX), &mut writer);
    assert_eq!(window.signed_head(), Some(49 * TS_PACKET as u64 / 2_632 * 2_632));
    writer.append(Mono::ZERO, &[0x47; 50 * TS_PACKET]);
    writer.publish(Mono::ZERO);
    assert_eq!(sealer.seal(Mono::ZERO, &mut writer).signed, 4);
    assert_eq!(window.record(2), Err(NoRecord::Unsigned));
    assert!(window.record(3).is_ok());
}

#[test]
fn a_long_backlog_is_sealed_in_slices() {
    let mut stage = Stage::new(2, u64::MAX);
    let sealer = stage.sealer.take().unwrap();
    for _ in 0..20 {
        stage.writer.append(stage.now, &[0x47; 200 * TS_PACKET]);
        stage.writer.publish(stage.now);
    }
    stage.sealer = Some(sealer);
    stage.step(0, Duration::ZERO);
    assert_eq!(stage.sum.signed, AT_ONCE);
    assert_eq!(stage.sealer.as_ref().unwrap().deadline(), Some(Mono::ZERO));
    stage.step(0, 10 * MILLI);
    assert_eq!(stage.verify(FIRST), stage.sum.signed);
    assert_eq!(stage.window.signed_head(), Some(stage.window.head() / 2_632 * 2_632));
}
