//! Loom models of the lock-free parts: every interleaving, not a sample of them.
//!
//! Run by hand: `.ci/ring/run loom`.
//!
//! Know the boundary before trusting a pass. Loom checks `Word`, `Log`, `Directory`, `Bell`,
//! `Presence` and the slots of `Records` as they ship, with a cell in place of a slab. It does
//! not check: the copy into the mapping and the slices out of it (loom cells stand for them; the
//! tests with threads and the sanitizers do), the pool behind its lock, `ArcSwap`, the `OnceBox`
//! through which a window begins to have records (what it shows is whole: that is its contract),
//! the mirror of simulators (tests with threads, which the sanitizer watches),
//! more than three threads, or more than three generations. Loom knows no load buffering, and
//! takes SeqCst accesses (of which the ring has none) for AcqRel; SeqCst fences, which the bell
//! stands on, it models. Nor does it look for an earlier load by another thread when a thread
//! stores what it has itself just loaded, as the writer does: so the writer is always the first
//! thread and the reader, whose loads may return anything older, the second. Break a model's
//! code and see it fail before you trust it.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::base::limits::SLAB_SMALL;
use crate::ring::bell::Bell;
use crate::ring::directory::{Directory, Held};
use crate::ring::log::Log;
use crate::ring::pool::{Class, SlabRef};
use crate::ring::presence::Presence;
use crate::ring::records::Slots;
use crate::ring::word::Word;

const SLAB: u64 = SLAB_SMALL as u64;

/// A slab: its word, and cells for its first and second half.
struct Slab {
    word: Word,
    halves: [UnsafeCell<u64>; 2],
}

impl Slab {
    fn new() -> Slab {
        Slab { word: Word::new(), halves: [UnsafeCell::new(0), UnsafeCell::new(0)] }
    }

    fn write(&self, half: usize, value: u64) {
        // SAFETY: loom reports it if anybody else has access at the same time: the very claim
        // that these models check.
        self.halves[half].with_mut(|cell| unsafe { *cell = value });
    }

    fn read(&self, half: usize) -> u64 {
        // SAFETY: as in `write`.
        self.halves[half].with(|cell| unsafe { *cell })
    }
}

fn held(start: u64, generation: u32) -> Held {
    Held { start, slab: SlabRef { unit: 0, generation, class: Class::Small } }
}

/// A slab that a reader has pinned is not written by its next owner.
#[test]
fn pin_against_recycle() {
    loom::model(|| {
        let slab = Arc::new(Slab::new());
        let generation = slab.word.claim().unwrap();
        slab.write(0, 7);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let slab = Arc::clone(&slab);
                thread::spawn(move || {
                    if slab.word.pin(generation) {
                        assert_eq!(slab.read(0), 7);
                        slab.word.unpin();
                    }
                })
            })
            .collect();
        slab.word.unpin();
        if slab.word.claim().is_some() {
            slab.write(0, 8);
        }
        for reader in readers {
            reader.join().unwrap();
        }
        assert!(!slab.word.pin(generation), "the window has given it up");
    });
}

/// What is below the head can be read; what is not is not touched.
#[test]
fn publish_against_read() {
    loom::model(|| {
        let slab = Arc::new(Slab::new());
        let directory = Arc::new(Directory::new(0, 1));
        let reader = {
            let (slab, directory) = (Arc::clone(&slab), Arc::clone(&directory));
            thread::spawn(move || {
                let head = directory.head();
                for half in 0..head / (SLAB / 2) {
                    let held = directory.locate(half * (SLAB / 2)).expect("published");
                    assert!(slab.word.pin(held.slab.generation), "nothing was retired");
                    assert_eq!(slab.read(half as usize), half + 1);
                    slab.word.unpin();
                }
            })
        };
        directory.add(held(0, slab.word.claim().unwrap()));
        for half in 0..2 {
            slab.write(half as usize, half + 1);
            directory.publish((half + 1) * (SLAB / 2));
        }
        reader.join().unwrap();
    });
}

/// The one slab of a window is retired and filled again twice while a reader wants its first
/// bytes: it gets those bytes, or finds itself below the tail.
#[test]
fn overtaken_or_right() {
    loom::model(|| {
        let slab = Arc::new(Slab::new());
        let directory = Arc::new(Directory::new(0, 1));
        slab.write(0, 0);
        directory.add(held(0, slab.word.claim().unwrap()));
        directory.publish(SLAB);
        let reader = {
            let (slab, directory) = (Arc::clone(&slab), Arc::clone(&directory));
            thread::spawn(move || {
                let found = directory.locate(0);
                let Some(held) = found.filter(|held| slab.word.pin(held.slab.generation)) else {
                    assert!(directory.tail() > 0, "overtaken, but by whom");
                    return;
                };
                assert_eq!(slab.read(0), held.start);
                slab.word.unpin();
            })
        };
        for turn in 1..3 {
            assert!(directory.drop_oldest().is_some());
            slab.word.unpin();
            let Some(generation) = slab.word.claim() else { break };
            slab.write(0, turn * SLAB);
            directory.add(held(turn * SLAB, generation));
            directory.publish((turn + 1) * SLAB);
        }
        reader.join().unwrap();
    });
}

/// An entry of a log is whole or not there, also while its slot is overwritten.
#[test]
fn log_entries_are_whole() {
    loom::model(|| {
        let log = Arc::new(Log::new(1));
        let reader = {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                for n in 0..2 {
                    if let Some(entry) = log.get(n) {
                        assert_eq!(entry, (10 * (n + 1), n + 1));
                    }
                }
                if let Some((key, value)) = log.find(25) {
                    assert!(key <= 25 && key == 10 * value, "{key} {value}");
                }
            })
        };
        (1..4).for_each(|n| log.push(10 * n, n));
        reader.join().unwrap();
        assert_eq!(log.find(u64::MAX), Some((30, 3)));
    });
}

/// The writer changes hands over a desk, as in the registry: the second hand goes on where the
/// first one stopped, and a reader cannot tell the two apart.
#[test]
fn writer_hand_over() {
    /// What moves: the writer's own notes, which no atomic has.
    struct Hand {
        slab: Arc<Slab>,
        directory: Arc<Directory>,
        next: u64,
    }
    impl Hand {
        fn write(&mut self) {
            self.slab.write(self.next as usize, self.next + 1);
            self.next += 1;
            self.directory.publish(self.next * (SLAB / 2));
        }
    }
    loom::model(|| {
        let (slab, directory) = (Arc::new(Slab::new()), Arc::new(Directory::new(0, 2)));
        let hand = Hand { slab: Arc::clone(&slab), directory: Arc::clone(&directory), next: 0 };
        let desk = Arc::new(Mutex::new(None));
        let reader = {
            let (slab, directory) = (Arc::clone(&slab), Arc::clone(&directory));
            thread::spawn(move || {
                for half in 0..directory.head().min(SLAB) / (SLAB / 2) {
                    let Some(held) = directory.locate(half * (SLAB / 2)) else {
                        assert!(directory.tail() > 0, "neither there nor dropped");
                        return;
                    };
                    if slab.word.pin(held.slab.generation) {
                        assert_eq!(slab.read(half as usize), half + 1);
                        slab.word.unpin();
                    } else {
                        assert!(directory.tail() > 0, "overtaken, but by whom");
                    }
                }
            })
        };
        let second = {
            let desk = Arc::clone(&desk);
            thread::spawn(move || {
                let taken: Option<Hand> = desk.lock().unwrap().take();
                let Some(mut hand) = taken else { return false };
                hand.write();
                // Its notes agree with what everybody sees, whoever wrote that.
                assert_eq!(hand.directory.head(), SLAB);
                let dropped = hand.directory.drop_oldest().expect("the first hand's slab");
                assert_eq!(dropped.start, 0);
                hand.slab.word.unpin();
                true
            })
        };
        let mut hand = hand;
        hand.directory.add(held(0, hand.slab.word.claim().unwrap()));
        hand.write();
        *desk.lock().unwrap() = Some(hand);
        reader.join().unwrap();
        let moved = second.join().unwrap();
        assert_eq!(desk.lock().unwrap().is_none(), moved);
    });
}

/// A record is whole or not there, also while its slot is overwritten; and who finds it gone
/// sees that the subtree has left.
#[test]
fn records_are_whole() {
    loom::model(|| {
        let slots = Arc::new(Slots::new(1, 2));
        let tail = Arc::new(AtomicU64::new(0));
        assert!(slots.put(0, &[10, 11]));
        let reader = {
            let (slots, tail) = (Arc::clone(&slots), Arc::clone(&tail));
            thread::spawn(move || {
                let mut words = [0; 2];
                if slots.get(0, &mut words) {
                    assert_eq!(words, [10, 11]);
                } else {
                    assert_eq!(tail.load(Ordering::Acquire), 1, "overtaken, but by whom");
                }
                if slots.get(1, &mut words) {
                    assert_eq!(words, [20, 21]);
                }
            })
        };
        tail.store(1, Ordering::Release);
        assert!(slots.put(1, &[20, 21]));
        reader.join().unwrap();
    });
}

/// A chunk that is there can be read, in whatever order chunks come; one whose word was taken
/// over has left.
#[test]
fn presence_against_read() {
    loom::model(|| {
        let slab = Arc::new(Slab::new());
        let presence = Arc::new(Presence::new(0));
        let tail = Arc::new(AtomicU64::new(0));
        let reader = {
            let (slab, presence, tail) =
                (Arc::clone(&slab), Arc::clone(&presence), Arc::clone(&tail));
            thread::spawn(move || {
                let seen = presence.has(1);
                if seen {
                    assert_eq!(slab.read(1), 7);
                }
                if presence.has(0) {
                    assert_eq!((slab.read(0), slab.read(1)), (8, 7));
                } else if seen && !presence.has(1) {
                    assert_eq!(tail.load(Ordering::Acquire), 1, "gone, but not overtaken");
                }
            })
        };
        slab.write(1, 7);
        presence.set(1);
        slab.write(0, 8);
        presence.set(0);
        tail.store(1, Ordering::Release);
        presence.set(16);
        reader.join().unwrap();
        assert!(presence.has(16) && !presence.has(0) && !presence.has(1));
    });
}

/// A reader that sleeps after looking at the head is woken by what comes later: otherwise loom
/// finds both threads at rest and reports a deadlock.
#[test]
fn no_wake_up_is_lost() {
    loom::model(|| {
        let head = Arc::new(AtomicU64::new(0));
        let bell = Arc::new(Bell::default());
        let reader = {
            let (head, bell) = (Arc::clone(&head), Arc::clone(&bell));
            thread::spawn(move || {
                let mut seen = 0;
                while seen < 2 {
                    bell.arm();
                    let now = head.load(Ordering::Acquire);
                    if now == seen {
                        thread::park();
                    } else {
                        bell.disarm();
                        seen = now;
                    }
                }
            })
        };
        for n in 1..3 {
            head.store(n, Ordering::Release);
            if bell.take() {
                reader.thread().unpark();
            }
        }
        reader.join().unwrap();
    });
}
