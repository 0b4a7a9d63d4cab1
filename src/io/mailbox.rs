//! How shards reach each other: a bounded mailbox each, flags for streams that grew, and a
//! wake-up that costs a system call only when the other one sleeps.
//!
//! Who goes to sleep says so first and looks into the mailbox after; who brings something puts
//! it there first and looks whether the other sleeps after. With a sequentially consistent
//! fence between the two steps on both sides at least one sees the other (Dekker).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, fence};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use rustix::event::{EventfdFlags, eventfd};

use crate::base::ids::{ShardId, StreamSlot};
use crate::base::limits::SHARDS_MAX;

/// What the process is doing; only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Phase {
    /// Serving.
    Running,
    /// Finishing what is open.
    Draining,
    /// Stopping at once.
    Halted,
}

/// All mailboxes of a process: one per shard. A clone is a handle on the same mailboxes.
#[derive(Debug)]
pub struct Post<M>(Arc<Shared<M>>);

#[derive(Debug)]
struct Shared<M> {
    boxes: Box<[CachePadded<Mailbox<M>>]>,
    phase: AtomicU8,
    /// Shards that have nothing left to do before the process ends.
    idle: AtomicUsize,
}

/// One shard's mailbox.
#[derive(Debug)]
struct Mailbox<M> {
    mail: ArrayQueue<M>,
    heads: Heads,
    /// The owner waits in the kernel, or is about to: bring it back by the eventfd.
    asleep: AtomicBool,
    /// The owner has ended: what comes now is for nobody.
    closed: AtomicBool,
    /// Shards that found the mailbox full, a bit each, to be woken when there is room.
    waiting: [AtomicU64; SHARDS_MAX / 64],
    bell: OwnedFd,
}

/// Streams that grew, a bit each, with one bit in `groups` for 64 of them: so a look at
/// thousands of streams of which none grew is a look at one word.
#[derive(Debug)]
struct Heads {
    groups: Box<[AtomicU64]>,
    streams: Box<[AtomicU64]>,
}

impl Heads {
    fn new(max_streams: usize) -> Heads {
        let words = max_streams.div_ceil(64);
        let zeroes = |n: usize| (0..n).map(|_| AtomicU64::new(0)).collect();
        Heads { groups: zeroes(words.div_ceil(64)), streams: zeroes(words) }
    }

    /// Sets the flag; false if it was set already, so that somebody else will wake the owner.
    fn set(&self, stream: usize) -> bool {
        let (word, bit) = (stream / 64, 1 << (stream % 64));
        if self.streams[word].fetch_or(bit, SeqCst) & bit != 0 {
            return false;
        }
        self.groups[word / 64].fetch_or(1 << (word % 64), SeqCst);
        true
    }

    fn any(&self) -> bool {
        self.groups.iter().any(|group| group.load(SeqCst) != 0)
    }

    /// Clears every flag and tells it. The group is cleared first: a flag that is set meanwhile
    /// sets the group again, which costs one look for nothing but loses nothing.
    fn take(&self, mut tell: impl FnMut(StreamSlot)) {
        for (g, group) in self.groups.iter().enumerate() {
            if group.load(Relaxed) == 0 {
                continue;
            }
            for w in bits(group.swap(0, SeqCst)) {
                let word = g * 64 + w;
                for bit in bits(self.streams[word].swap(0, SeqCst)) {
                    tell(StreamSlot(u32::try_from(word * 64 + bit).unwrap_or(u32::MAX)));
                }
            }
        }
    }
}

/// The places of the bits that are set, lowest first.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros() as usize;
        word &= word.wrapping_sub(1);
        (bit < 64).then_some(bit)
    })
}

impl<M> Clone for Post<M> {
    fn clone(&self) -> Post<M> {
        Post(Arc::clone(&self.0))
    }
}

impl<M: Send> Post<M> {
    /// Mailboxes for `shards` shards that hold `capacity` pieces of mail each, and flags for
    /// stream slots below `max_streams`. Allocates everything it will ever need.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if there are no shards, more than [`SHARDS_MAX`], or no
    /// capacity; else the error of eventfd(2).
    pub fn new(shards: usize, max_streams: usize, capacity: usize) -> io::Result<Post<M>> {
        if shards == 0 || shards > SHARDS_MAX || capacity == 0 {
            let text = format!("{shards} mailboxes of {capacity}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let one = || -> io::Result<CachePadded<Mailbox<M>>> {
            Ok(CachePadded::new(Mailbox {
                mail: ArrayQueue::new(capacity),
                heads: Heads::new(max_streams),
                asleep: AtomicBool::new(false),
                closed: AtomicBool::new(false),
                waiting: [const { AtomicU64::new(0) }; SHARDS_MAX / 64],
                bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            }))
        };
        let boxes = (0..shards).map(|_| one()).collect::<io::Result<_>>()?;
        let phase = AtomicU8::new(Phase::Running as u8);
        Ok(Post(Arc::new(Shared { boxes, phase, idle: AtomicUsize::new(0) })))
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.0.boxes.len()
    }

    /// Tells every driver to finish: no new connections, `Input::Drain` once, and an end when
    /// no shard has a connection left or after a grace period of two seconds.
    pub fn drain(&self) {
        self.enter(Phase::Draining);
    }

    /// Tells every driver to stop at once.
    pub fn halt(&self) {
        self.enter(Phase::Halted);
    }

    /// Sends mail from a thread that is no shard. Never blocks.
    ///
    /// # Errors
    /// The mail comes back if the mailbox is full or its shard has ended.
    pub fn send(&self, shard: ShardId, mail: M) -> Result<(), M> {
        if self.of(shard).closed.load(SeqCst) {
            return Err(mail);
        }
        self.of(shard).mail.push(mail)?;
        self.wake(shard);
        Ok(())
    }

    fn enter(&self, phase: Phase) {
        self.0.phase.fetch_max(phase as u8, SeqCst);
        self.wake_all();
    }

    fn wake_all(&self) {
        for shard in 0..self.shards() {
            self.wake(ShardId(u16::try_from(shard).unwrap_or(u16::MAX)));
        }
    }

    fn of(&self, shard: ShardId) -> &Mailbox<M> {
        &self.0.boxes[usize::from(shard.0)]
    }

    /// Brings a sleeping shard back. What it shall see must have been written before.
    fn wake(&self, shard: ShardId) {
        fence(SeqCst);
        let mailbox = self.of(shard);
        // Of many that find it asleep one rings.
        if mailbox.asleep.load(SeqCst) && mailbox.asleep.swap(false, SeqCst) {
            // The counter is 64 bits wide and cleared at each wake-up: it cannot be full.
            let _ = rustix::io::write(&mailbox.bell, &1u64.to_ne_bytes());
        }
    }
}

/// The side of the drivers.
impl<M: Send> Post<M> {
    /// What the process is doing.
    pub(super) fn phase(&self) -> Phase {
        match self.0.phase.load(SeqCst) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Halted,
        }
    }

    /// Readable after `shard` was woken.
    pub(super) fn bell(&self, shard: ShardId) -> BorrowedFd<'_> {
        self.of(shard).bell.as_fd()
    }

    /// Makes the bell silent again.
    pub(super) fn silence(&self, shard: ShardId) {
        // It does not block; nothing there to read is as good.
        let _ = rustix::io::read(&self.of(shard).bell, &mut [0u8; 8]);
    }

    /// Sends mail from one shard to another. To itself without a wake-up.
    pub(super) fn deliver(&self, from: ShardId, to: ShardId, mail: M) -> Result<(), M> {
        let mailbox = self.of(to);
        if mailbox.closed.load(SeqCst) {
            return Ok(()); // Its machine is gone: there is nobody to tell.
        }
        mailbox.mail.push(mail)?;
        if from != to {
            self.wake(to);
        }
        Ok(())
    }

    /// Says that `from` has mail for `to`, whose mailbox is full. `from` tries once more after
    /// this; if that fails, it will be woken when there is room.
    pub(super) fn wait_for_room(&self, from: ShardId, to: ShardId) {
        let (word, bit) = (usize::from(from.0) / 64, 1 << (from.0 % 64));
        self.of(to).waiting[word].fetch_or(bit, SeqCst);
        fence(SeqCst);
    }

    /// Tells the machine of `to` that `stream` has grown.
    pub(super) fn head(&self, from: ShardId, to: ShardId, stream: StreamSlot) {
        if self.of(to).heads.set(stream.0 as usize) && from != to {
            self.wake(to);
        }
    }

    /// Takes what has arrived, at most one full mailbox, so that a fast sender cannot hold the
    /// shard here.
    pub(super) fn receive(&self, shard: ShardId, mut tell: impl FnMut(M)) {
        let mailbox = self.of(shard);
        let mut taken = 0;
        while taken < mailbox.mail.capacity() {
            let Some(mail) = mailbox.mail.pop() else { break };
            taken += 1;
            tell(mail);
        }
        if taken == 0 {
            return;
        }
        fence(SeqCst);
        for (word, waiting) in mailbox.waiting.iter().enumerate() {
            if waiting.load(SeqCst) == 0 {
                continue;
            }
            for bit in bits(waiting.swap(0, SeqCst)) {
                self.wake(ShardId(u16::try_from(word * 64 + bit).unwrap_or(u16::MAX)));
            }
        }
    }

    /// Takes the flags of streams that grew.
    pub(super) fn receive_heads(&self, shard: ShardId, tell: impl FnMut(StreamSlot)) {
        self.of(shard).heads.take(tell);
    }

    /// Says that `shard` goes to sleep. True if it may: nothing has arrived. What else it must
    /// not miss it looks at after this call.
    pub(super) fn fall_asleep(&self, shard: ShardId, seen: Phase) -> bool {
        let mailbox = self.of(shard);
        mailbox.asleep.store(true, SeqCst);
        fence(SeqCst);
        mailbox.mail.is_empty() && !mailbox.heads.any() && self.phase() == seen
    }

    /// Says that `shard` is awake.
    pub(super) fn get_up(&self, shard: ShardId) {
        self.of(shard).asleep.store(false, SeqCst);
    }

    /// Says once per shard that it has nothing left to do before the end.
    pub(super) fn set_idle(&self) {
        self.0.idle.fetch_add(1, SeqCst);
        if self.all_idle() {
            self.wake_all();
        }
    }

    /// Whether no shard has anything left to do.
    pub(super) fn all_idle(&self) -> bool {
        self.0.idle.load(SeqCst) >= self.shards()
    }

    /// Says that the shard has ended, and wakes those who wait for room in its mailbox.
    pub(super) fn close(&self, shard: ShardId) {
        self.of(shard).closed.store(true, SeqCst);
        while self.of(shard).mail.pop().is_some() {}
        self.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ShardId = ShardId(0);
    const B: ShardId = ShardId(1);

    /// How often the bell of `shard` was rung since it was last silenced.
    fn rings(post: &Post<u32>, shard: ShardId) -> u64 {
        let mut count = [0u8; 8];
        match rustix::io::read(post.bell(shard), &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(_) => 0,
        }
    }

    #[test]
    fn only_a_sleeping_shard_is_woken_and_only_once() {
        let post: Post<u32> = Post::new(2, 10, 4).unwrap();
        post.deliver(A, B, 1).unwrap();
        post.head(A, B, StreamSlot(3));
        assert_eq!(rings(&post, B), 0, "awake");
        assert!(!post.fall_asleep(B, Phase::Running), "there is something to do");
        post.deliver(A, B, 2).unwrap();
        post.deliver(A, B, 3).unwrap();
        post.head(A, B, StreamSlot(4));
        assert_eq!(rings(&post, B), 1);
        post.fall_asleep(A, Phase::Running);
        post.deliver(A, A, 9).unwrap();
        post.head(A, A, StreamSlot(0));
        assert_eq!(rings(&post, A), 0, "to itself without a system call");
    }

    #[test]
    fn flags_fuse_and_each_is_told_once() {
        let post: Post<u32> = Post::new(1, 10_000, 1).unwrap();
        for slot in [9_999, 0, 63, 64, 4_096, 64, 0] {
            post.head(A, A, StreamSlot(slot));
        }
        assert!(!post.fall_asleep(A, Phase::Running));
        let mut told = Vec::new();
        post.receive_heads(A, |slot| told.push(slot.0));
        assert_eq!(told, [0, 63, 64, 4_096, 9_999]);
        post.receive_heads(A, |slot| panic!("{slot:?} told twice"));
        assert!(post.fall_asleep(A, Phase::Running));
    }

    #[test]
    fn who_waits_for_room_is_woken_when_there_is_some() {
        let post: Post<u32> = Post::new(2, 1, 1).unwrap();
        post.deliver(A, B, 1).unwrap();
        assert_eq!(post.deliver(A, B, 2), Err(2));
        post.wait_for_room(A, B);
        assert!(post.fall_asleep(A, Phase::Running));
        post.receive(B, |_| {});
        assert_eq!(rings(&post, A), 1);
        post.receive(B, |_| {});
        post.close(B);
        assert_eq!(post.deliver(A, B, 3), Ok(()), "nobody is there: as if delivered");
        assert_eq!(post.send(B, 3), Err(3));
    }

    #[test]
    fn phases_go_forward_only_and_wake_everybody() {
        let post: Post<u32> = Post::new(2, 1, 1).unwrap();
        assert!(post.fall_asleep(A, Phase::Running));
        post.halt();
        post.drain();
        assert_eq!(post.phase(), Phase::Halted);
        assert_eq!(rings(&post, A), 1);
        assert!(!post.fall_asleep(B, Phase::Running), "it has not seen the halt");
        assert!(Post::<u32>::new(0, 1, 1).is_err() && Post::<u32>::new(1, 1, 0).is_err());
    }
}
