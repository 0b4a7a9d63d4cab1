//! One shard's access to one window: stream offsets in, payloads out.

use std::rc::Rc;
use std::sync::Arc;

use crate::base::limits::CHUNK;
use crate::base::payload::{Payload, Slab};
use crate::ring::pin::Pin;
use crate::ring::window::Window;

/// The bytes asked for have left the window: go on at an access point, or at the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overtaken;

struct Kept {
    pin: Rc<Pin>,
    /// Whether it served a read since the last release.
    used: bool,
}

/// A reader. All viewers of one stream on one shard share one.
///
/// It keeps the pins of the slabs in use, so that of all the viewers only the first to reach a
/// slab pays for the pin and its allocation. Pins cost the writer: a slab that left the window
/// cannot be filled again while one is on it. So call [`Reader::release`] after every round,
/// and drop the reader when its last viewer is gone.
pub struct Reader {
    window: Arc<Window>,
    /// In stream order; at most one per slab.
    kept: Vec<Kept>,
}

impl Reader {
    /// A reader without pins.
    #[must_use]
    pub fn new(window: Arc<Window>) -> Reader {
        Reader { window, kept: Vec::with_capacity(16) }
    }

    /// What it reads.
    #[must_use]
    pub fn window(&self) -> &Arc<Window> {
        &self.window
    }

    /// At most `max` published bytes from stream offset `at`, on at most two slabs; two empty
    /// payloads at the head (or beyond it). The payloads keep their slabs until dropped.
    ///
    /// # Errors
    /// [`Overtaken`] if the byte at `at` has left the window.
    pub fn read(&mut self, at: u64, max: usize) -> Result<[Payload; 2], Overtaken> {
        let head = self.window.head();
        if at < self.window.tail() {
            return Err(Overtaken);
        }
        let wanted = head.saturating_sub(at).min(max as u64);
        if wanted == 0 {
            return Ok([Payload::Empty, Payload::Empty]);
        }
        let first = self.part(at, wanted, head)?;
        let rest = wanted - first.len() as u64;
        if rest == 0 {
            return Ok([first, Payload::Empty]);
        }
        let second = self.part(at + first.len() as u64, rest, head)?;
        Ok([first, second])
    }

    /// Chunk number `chunk`; `None` if it is not there (yet), or was given up. The payload keeps
    /// its slab until dropped.
    ///
    /// # Errors
    /// [`Overtaken`] if the chunk has left the window.
    pub fn read_chunk(&mut self, chunk: u64) -> Result<Option<Payload>, Overtaken> {
        let there = self.window.has_chunk(chunk);
        let Some(at) = chunk.checked_mul(CHUNK as u64) else { return Ok(None) };
        if at < self.window.tail() {
            return Err(Overtaken);
        }
        if !there {
            return Ok(None);
        }
        let kept = self.kept(at)?;
        let start = (at - kept.pin.held().start) as u32;
        kept.pin.seen_chunk(start);
        let slab: Rc<dyn Slab> = Rc::<Pin>::clone(&kept.pin);
        Ok(Some(Payload::Slab { slab, at: start, len: CHUNK as u32 }))
    }

    /// The `count` chunks from number `first` on, which lie in one subtree and so on one slab;
    /// `None` if one of them is not there (yet), or was given up.
    ///
    /// # Errors
    /// [`Overtaken`] if the first has left the window.
    pub fn read_run(&mut self, first: u64, count: usize) -> Result<Option<Payload>, Overtaken> {
        let Some(at) = first.checked_mul(CHUNK as u64) else { return Ok(None) };
        let there =
            (first..first.saturating_add(count as u64)).all(|chunk| self.window.has_chunk(chunk));
        if at < self.window.tail() {
            return Err(Overtaken);
        }
        if !there || count == 0 {
            return Ok(None);
        }
        let kept = self.kept(at)?;
        let held = kept.pin.held();
        if held.end() < at + (count * CHUNK) as u64 {
            return Ok(None);
        }
        let start = (at - held.start) as u32;
        // Both fit 32 bits: they are inside one slab.
        (0..count as u32).for_each(|chunk| kept.pin.seen_chunk(start + chunk * CHUNK as u32));
        let slab: Rc<dyn Slab> = Rc::<Pin>::clone(&kept.pin);
        Ok(Some(Payload::Slab { slab, at: start, len: (count * CHUNK) as u32 }))
    }

    /// Drops the pins of slabs that have left the window or were not used since the last call;
    /// the newest slab stays pinned, because the next round will want it. Call it after every
    /// round of reads. Payloads still held keep their slab.
    pub fn release(&mut self) {
        let tail = self.window.tail();
        let newest = self.kept.iter().map(|kept| kept.pin.held().end()).max();
        self.kept.retain_mut(|kept| {
            let used = std::mem::take(&mut kept.used);
            let end = kept.pin.held().end();
            end > tail && (used || Some(end) == newest)
        });
    }

    /// Slabs that it pins.
    #[cfg(test)]
    pub(crate) fn pins(&self) -> usize {
        self.kept.len()
    }

    /// The bytes from `at` on to the end of their slab, at most `wanted`.
    fn part(&mut self, at: u64, wanted: u64, head: u64) -> Result<Payload, Overtaken> {
        let kept = self.kept(at)?;
        kept.pin.seen(head);
        let held = kept.pin.held();
        let slab: Rc<dyn Slab> = Rc::<Pin>::clone(&kept.pin);
        // Both fit 32 bits: they are inside one slab.
        let len = wanted.min(held.end() - at) as u32;
        Ok(Payload::Slab { slab, at: (at - held.start) as u32, len })
    }

    /// The pin of the slab in which `at` lies, an old one or a new one.
    fn kept(&mut self, at: u64) -> Result<&mut Kept, Overtaken> {
        let place = match self.find(at) {
            Some(place) => place,
            None => self.pin(at)?,
        };
        let kept = &mut self.kept[place];
        kept.used = true;
        Ok(kept)
    }

    fn find(&self, at: u64) -> Option<usize> {
        let has = |kept: &Kept| kept.pin.held().start <= at && at < kept.pin.held().end();
        // Nearly all viewers are at the newest slab.
        if self.kept.last().is_some_and(has) {
            return Some(self.kept.len() - 1);
        }
        let behind = self.kept.partition_point(|kept| kept.pin.held().start <= at);
        behind.checked_sub(1).filter(|place| has(&self.kept[*place]))
    }

    fn pin(&mut self, at: u64) -> Result<usize, Overtaken> {
        let held = self.window.locate(at).ok_or(Overtaken)?;
        let pin = Pin::new(self.window.arena(), held).ok_or(Overtaken)?;
        let place = self.kept.partition_point(|kept| kept.pin.held().start < held.start);
        self.kept.insert(place, Kept { pin: Rc::new(pin), used: false });
        Ok(place)
    }
}
