//! Seals what was published: hashes every chunk once, signs every subtree.
//!
//! It looks at the window from behind the writer's head, so it never holds a byte back: players
//! over HTTP do not wait for a signature. Peers do, and their subtree is not complete before its
//! last chunk came; so one that stays open for too long is completed with null packets, which
//! are legal anywhere in a transport stream, up to a small share of the bytes.

use std::sync::Arc;
use std::time::Duration;

use crate::base::limits::SUBTREE_CHUNKS_MAX;
use crate::base::time::Mono;
use crate::registry::identity::Identity;
use crate::ring::marks::MarkKind;
use crate::ring::records::{Hash, Record};
use crate::ring::window::Window;
use crate::ring::writer::Writer;
use crate::swarm::integrity::{leaf, munro, plaintext};
use crate::wire::ppspp::Span;

/// How long a subtree may be open before it is completed with null packets.
const OPEN_MAX: Duration = Duration::from_millis(150);

/// An open subtree older than this has waited for want of null packets: worth a warning.
const OPEN_BAD: Duration = Duration::from_millis(300);

/// How often it is tried again what could not be done: padding, or signing.
const AGAIN: Duration = Duration::from_millis(50);

/// Subtrees sealed in one go: about two milliseconds of work. Only a stream that has just got
/// its identity is that far behind.
const AT_ONCE: u64 = 64;

/// Null packets are at most one in this many bytes, over [`BUCKETS`] seconds.
const SHARE: u64 = 10;

/// Seconds over which null packets are counted.
const BUCKETS: usize = 10;

/// What one call did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    /// Subtrees signed.
    pub signed: u64,
    /// Bytes of null packets added.
    pub padding: u64,
    /// Told once: the stream is too slow for its subtrees.
    pub too_slow: bool,
}

/// Seals one publisher's run.
pub struct Sealer {
    identity: Arc<Identity>,
    /// Number of the open subtree: the first that is not sealed.
    open: u64,
    /// Hashes of its chunks, as far as it has come.
    leaves: [Hash; SUBTREE_CHUNKS_MAX],
    hashed: usize,
    /// When its first byte came.
    since: Option<Mono>,
    /// What could not be done is not tried again before this time.
    again: Mono,
    /// Whether there is more to seal right now.
    behind: bool,
    /// Bytes seen up to here are counted.
    counted: u64,
    budget: Budget,
    warned: bool,
}

impl Sealer {
    /// Begins to seal the window of `writer`: behind the newest sealed subtree or, in a window
    /// that has none, where a viewer would begin now.
    #[must_use]
    pub fn new(identity: Arc<Identity>, writer: &mut Writer) -> Sealer {
        let size = identity.size;
        if writer.window().signed_head().is_none() {
            let from = entrance(writer.window());
            writer.begin_records(size, from / size.bytes() * size.bytes());
        }
        let window = writer.window();
        let head = window.signed_head().unwrap_or(window.head());
        Sealer {
            identity,
            open: head / size.bytes(),
            leaves: [[0; 32]; SUBTREE_CHUNKS_MAX],
            hashed: 0,
            since: None,
            again: Mono::ZERO,
            // What was published before is sealed as soon as possible.
            behind: true,
            counted: window.head(),
            budget: Budget::default(),
            warned: false,
        }
    }

    /// Seals what was published since the last call. Then ask the bells.
    pub fn seal(&mut self, now: Mono, writer: &mut Writer) -> Sealed {
        let head = writer.window().head();
        self.budget.add(now, head - self.counted, 0);
        self.counted = head;
        Sealed { signed: self.advance(now, writer, AT_ONCE), ..Sealed::default() }
    }

    /// Does what is due: call it when [`Sealer::deadline`] has passed.
    pub fn handle_timer(&mut self, now: Mono, writer: &mut Writer) -> Sealed {
        let mut sealed = self.seal(now, writer);
        let late = self.since.is_some_and(|since| now >= since + OPEN_MAX);
        if !late || now < self.again || self.behind || self.is_full() {
            return sealed;
        }
        let bytes = self.identity.size.bytes();
        let missing = (self.open + 1) * bytes - writer.window().head();
        if self.budget.allows(now, missing) {
            // Less than a subtree: fits.
            sealed.padding = writer.pad_to(now, bytes as usize);
            self.budget.add(now, sealed.padding, sealed.padding);
            self.counted = writer.window().head();
            sealed.signed += self.advance(now, writer, AT_ONCE);
        } else if self.since.is_some_and(|since| now >= since + OPEN_BAD) && !self.warned {
            self.warned = true;
            sealed.too_slow = true;
        }
        self.again = now + AGAIN;
        sealed
    }

    /// When [`Sealer::handle_timer`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        if self.behind {
            return Some(Mono::ZERO);
        }
        if self.is_full() {
            return Some(self.again);
        }
        self.since.map(|since| (since + OPEN_MAX).max(self.again))
    }

    /// The run has ended, and its last subtree was completed: seals everything.
    pub fn finish(&mut self, now: Mono, writer: &mut Writer) -> u64 {
        self.advance(now, writer, u64::MAX)
    }

    /// The stream's identity, for the next run.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Whether every chunk of the open subtree is hashed, but it could not be signed.
    fn is_full(&self) -> bool {
        self.hashed == self.identity.size.chunks()
    }

    /// Hashes and signs at most `most` subtrees. Returns how many it signed.
    fn advance(&mut self, now: Mono, writer: &mut Writer, most: u64) -> u64 {
        let size = self.identity.size;
        let mut signed = 0;
        self.behind = false;
        loop {
            let window = writer.window();
            if self.open * size.bytes() < window.tail() {
                // Only if signing has failed for as long as the window lasts.
                self.go_on(window.tail().div_ceil(size.bytes()));
            }
            while !self.is_full() {
                let chunk = self.open * size.chunks() as u64 + self.hashed as u64;
                let Some(bytes) = writer.chunk(chunk) else { break };
                self.leaves[self.hashed] = leaf(bytes);
                self.hashed += 1;
            }
            if !self.is_full() {
                let began = window.head() > self.open * size.bytes();
                self.since = if began { self.since.or(Some(now)) } else { None };
                return signed;
            }
            if signed == most {
                self.behind = true;
                return signed;
            }
            if !self.sign(now, writer) {
                self.again = now + AGAIN;
                return signed;
            }
            signed += 1;
            self.go_on(self.open + 1);
        }
    }

    fn go_on(&mut self, open: u64) {
        self.open = open;
        self.hashed = 0;
        self.since = None;
    }

    /// Signs the open subtree, which is full; false if that must wait.
    fn sign(&mut self, now: Mono, writer: &mut Writer) -> bool {
        let Identity { size, addressing, clock, .. } = *self.identity;
        if (self.open + 1) * size.bytes() > self.identity.limit() {
            return false;
        }
        let first = self.open * size.chunks() as u64;
        let span = Span { first, last: first + size.chunks() as u64 - 1 };
        let ntp = clock.ntp(now);
        let munro = munro(&self.leaves[..size.chunks()]);
        let text = plaintext(addressing, span, ntp, &munro);
        let Ok(signature) = self.identity.sign(text.as_ref()) else { return false };
        let mut record = Record { leaves: self.leaves, munro, ntp, signature };
        record.leaves[size.chunks()..].fill([0; 32]);
        // It is published and in the window, as `advance` saw; nobody else signs here.
        let added = writer.sign(self.open, &record);
        debug_assert!(added.is_ok(), "subtree {} of {}: {added:?}", self.open, writer.next());
        true
    }
}

/// Where a viewer would begin now: the PAT in front of the newest access point, else the head.
fn entrance(window: &Window) -> u64 {
    let marks = window.marks();
    let pat = marks.newest_access_point().and_then(|mark| match mark.kind {
        MarkKind::AccessPoint { pat, .. } => Some(pat),
        _ => None,
    });
    pat.unwrap_or(window.head())
}

/// Bytes of the last ten seconds, and how many of them were null packets of ours.
#[derive(Debug, Default)]
struct Budget {
    seconds: [(u64, u64); BUCKETS],
    newest: u64,
}

impl Budget {
    fn add(&mut self, now: Mono, bytes: u64, padding: u64) {
        self.turn(now);
        let (all, ours) = &mut self.seconds[(self.newest % BUCKETS as u64) as usize];
        *all += bytes;
        *ours += padding;
    }

    /// Whether `more` null packets are within the share.
    fn allows(&mut self, now: Mono, more: u64) -> bool {
        self.turn(now);
        let sum = |(all, ours): (u64, u64), next: &(u64, u64)| (all + next.0, ours + next.1);
        let (all, ours) = self.seconds.iter().fold((more, more), sum);
        ours * SHARE <= all
    }

    fn turn(&mut self, now: Mono) {
        let second = now.as_nanos() / 1_000_000_000;
        let passed = second.saturating_sub(self.newest).min(BUCKETS as u64);
        for back in 0..passed {
            self.seconds[((second - back) % BUCKETS as u64) as usize] = (0, 0);
        }
        self.newest = self.newest.max(second);
    }
}

#[cfg(test)]
mod tests;
