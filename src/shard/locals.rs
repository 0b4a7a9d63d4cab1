//! The streams that a shard serves, and when each one's new bytes are sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::{ShardId, StreamSlot};
use crate::base::time::Mono;
use crate::registry::stream::Stream;
use crate::ring::reader::Reader;
use crate::shard::viewers::Viewers;

/// A stream with viewers on this shard.
pub(super) struct Local {
    pub(super) stream: Arc<Stream>,
    pub(super) reader: Reader,
    /// Its viewers' places.
    pub(super) viewers: Vec<u32>,
    shard: ShardId,
    grown: bool,
    touched: bool,
    flushed: Mono,
}

/// The streams with viewers on this shard.
#[derive(Default)]
pub(super) struct Locals {
    /// In no order; there are at most as many as streams, and a place is reused by nobody else
    /// while a viewer is in it.
    all: Vec<Option<Local>>,
    grown: Vec<u32>,
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
            grown: false,
            touched: false,
            flushed: Mono::ZERO,
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
            if let Some(local) = entry.take() {
                local.stream.window.bell(local.shard).disarm();
            }
            self.grown.retain(|p| *p != place);
            self.touched.retain(|p| *p != place);
        }
    }

    /// The stream in this slot of the registry has grown. A note for a stream that is no longer
    /// served here is ignored.
    pub(super) fn grown(&mut self, slot: StreamSlot) {
        for (place, local) in self.all.iter_mut().enumerate() {
            let Some(local) = local else { continue };
            if local.stream.slot == slot && !local.grown {
                local.grown = true;
                self.grown.push(place as u32);
            }
        }
    }

    /// Puts the viewers of every grown stream into the queue, each stream at most once per
    /// `interval`. Returns how many streams that were.
    pub(super) fn flush(
        &mut self,
        now: Mono,
        interval: Duration,
        viewers: &mut Viewers,
        ready: &mut VecDeque<u32>,
    ) -> u64 {
        let mut rounds = 0;
        let all = &mut self.all;
        self.grown.retain(|place| {
            let Some(Some(local)) = all.get_mut(*place as usize) else { return false };
            if now < local.flushed + interval {
                return true;
            }
            // Armed before the head is read: a publication from now on rings again.
            local.stream.window.bell(local.shard).arm();
            local.grown = false;
            local.flushed = now;
            rounds += 1;
            for viewer in &local.viewers {
                viewers.enqueue(*viewer, ready);
            }
            false
        });
        rounds
    }

    /// When the next flush is due.
    pub(super) fn next_flush(&self, interval: Duration) -> Option<Mono> {
        let due = |place: &u32| {
            self.all.get(*place as usize)?.as_ref().map(|local| local.flushed + interval)
        };
        self.grown.iter().filter_map(due).min()
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
