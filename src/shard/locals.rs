//! The streams that a shard serves, and when each one's new bytes are sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::{ShardId, StreamSlot};
use crate::base::limits::SEND_MAX;
use crate::base::time::Mono;
use crate::registry::stream::Stream;
use crate::ring::reader::Reader;
use crate::shard::pace::INTERVAL_MIN;
use crate::shard::viewers::Viewers;

/// Up to this interval the bell is armed right after a round, so that the next byte is sent as
/// soon as the interval allows. With longer ones the shard looks by itself when the interval is
/// over: a stream that keeps flowing then wakes nobody.
const BELL_AT_ONCE: Duration = Duration::from_millis(2);

/// A stream with viewers on this shard.
pub(super) struct Local {
    pub(super) stream: Arc<Stream>,
    pub(super) reader: Reader,
    /// Its viewers' places.
    pub(super) viewers: Vec<u32>,
    shard: ShardId,
    touched: bool,
    /// When to look at its head; `None`: when the bell rings.
    due: Option<Mono>,
    /// When its viewers were last sent to, and the head that they were sent up to.
    flushed: Mono,
    pub(super) seen: u64,
    /// How long it takes to gather one full write at the rate of the last round.
    full_write: Duration,
}

impl Local {
    /// How long to gather: longer than a full write takes saves nothing.
    fn gather(&self, interval: Duration) -> Duration {
        interval.min(self.full_write).max(INTERVAL_MIN)
    }

    /// Looks at the head. Returns whether there is something to send.
    fn look(&mut self, now: Mono, interval: Duration) -> bool {
        let head = self.stream.window.head();
        let gather = self.gather(interval);
        let grown = head - self.seen;
        if grown > 0 && now >= self.flushed + gather {
            let rate = grown as f64 / now.since(self.flushed).as_secs_f64().max(1e-6);
            self.full_write = Duration::from_secs_f64((SEND_MAX as f64 / rate).min(10.0));
            self.flushed = now;
            self.seen = head;
            let gather = self.gather(interval);
            if gather > BELL_AT_ONCE {
                self.due = Some(now + gather);
            } else {
                self.arm(now + gather);
            }
            return true;
        }
        if grown > 0 {
            self.due = Some(self.flushed + gather);
        } else {
            // Nothing came for a whole interval: sleep until the bell rings.
            self.arm(now);
        }
        false
    }

    /// Arms the bell, before the head is read: a publication from now on rings. What was
    /// published just before is looked at `at`.
    fn arm(&mut self, at: Mono) {
        self.stream.window.bell(self.shard).arm();
        self.due = (self.stream.window.head() > self.seen).then_some(at);
    }
}

/// The streams with viewers on this shard.
#[derive(Default)]
pub(super) struct Locals {
    /// In no order; there are at most as many as streams, and a place is reused by nobody else
    /// while a viewer is in it.
    all: Vec<Option<Local>>,
    touched: Vec<u32>,
}

impl Locals {
    /// The place of `stream`; begins to serve it if need be.
    pub(super) fn attach(&mut self, shard: ShardId, stream: &Arc<Stream>) -> u32 {
        let same = |local: &Option<Local>| {
            local.as_ref().is_some_and(|local| Arc::ptr_eq(&local.stream, stream))
        };
        if let Some(place) = self.all.iter().position(same) {
            return place as u32;
        }
        let local = Local {
            stream: Arc::clone(stream),
            reader: Reader::new(Arc::clone(&stream.window)),
            viewers: Vec::new(),
            shard,
            touched: false,
            due: None,
            flushed: Mono::ZERO,
            seen: stream.window.head(),
            full_write: Duration::MAX,
        };
        stream.window.bell(shard).arm();
        match self.all.iter().position(Option::is_none) {
            Some(place) => {
                self.all[place] = Some(local);
                place as u32
            }
            None => {
                self.all.push(Some(local));
                self.all.len() as u32 - 1
            }
        }
    }

    /// The stream at a place. A viewer's place is always taken.
    pub(super) fn get(&mut self, place: u32) -> Option<&mut Local> {
        let local = self.all.get_mut(place as usize)?.as_mut()?;
        if !local.touched {
            local.touched = true;
            self.touched.push(place);
        }
        Some(local)
    }

    /// The place where `stream` is served, if it is.
    pub(super) fn find(&self, stream: &Arc<Stream>) -> Option<u32> {
        let mut places = self.all.iter();
        let here =
            places.position(|l| l.as_ref().is_some_and(|l| Arc::ptr_eq(&l.stream, stream)))?;
        u32::try_from(here).ok()
    }

    /// Stops serving a stream that has no viewers left.
    pub(super) fn detach_if_idle(&mut self, place: u32) {
        let Some(entry) = self.all.get_mut(place as usize) else { return };
        if entry.as_ref().is_some_and(|local| local.viewers.is_empty()) {
            // Its bell stays armed: peers may wait for it as well, and one ring for nobody is
            // harmless.
            *entry = None;
            self.touched.retain(|p| *p != place);
        }
    }

    /// The stream in this slot of the registry has grown. A note for a stream that is no longer
    /// served here is ignored.
    pub(super) fn grown(&mut self, slot: StreamSlot, now: Mono) {
        let here = self.all.iter_mut().flatten().filter(|local| local.stream.slot == slot);
        for local in here {
            local.due = local.due.or(Some(now));
        }
    }

    /// Looks at every stream that is due, and puts the viewers of those that have grown into the
    /// queue: each stream at most once per `interval`. Returns how many streams that were.
    pub(super) fn flush(
        &mut self,
        now: Mono,
        interval: Duration,
        viewers: &mut Viewers,
        ready: &mut VecDeque<u32>,
    ) -> u64 {
        let mut rounds = 0;
        let is_due = |local: &&mut Local| local.due.is_some_and(|due| now >= due);
        for local in self.all.iter_mut().flatten().filter(is_due) {
            if local.look(now, interval) {
                rounds += 1;
                for viewer in &local.viewers {
                    viewers.enqueue(*viewer, ready);
                }
            }
        }
        rounds
    }

    /// When the next look at a stream is due.
    pub(super) fn next_flush(&self) -> Option<Mono> {
        self.all.iter().flatten().filter_map(|local| local.due).min()
    }

    /// After a round: gives back the pins that the round needed.
    pub(super) fn release(&mut self) {
        for place in self.touched.drain(..) {
            if let Some(Some(local)) = self.all.get_mut(place as usize) {
                local.touched = false;
                local.reader.release();
            }
        }
    }
}
