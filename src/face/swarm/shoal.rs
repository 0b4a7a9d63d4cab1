//! The peers of one stream on this shard, and what can be sent to them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::ShardId;
use crate::base::limits::CHUNK;
use crate::base::payload::Payload;
use crate::base::time::Mono;
use crate::face::swarm::advice::Round;
use crate::face::swarm::hybrid;
use crate::face::swarm::trains::{Style, Trains};
use crate::registry::identity::Identity;
use crate::registry::stream::Stream;
use crate::ring::reader::Reader;
use crate::swarm::controller::Orders;
use crate::swarm::integrity::freshness::SERVED;
use crate::swarm::integrity::ntp;
use crate::swarm::requests::Run;
use crate::swarm::sender::Source;
use crate::wire::ppspp::{Bye, Span};

/// How often the bitrate is asked for.
const RATE_AGE: Duration = Duration::from_millis(250);

/// Bytes come in more often than subtrees are signed: how soon after a look in vain the bell is
/// armed again.
const LOOK: Duration = Duration::from_millis(1);

/// How old the picture of a stream without peers may be for somebody who opens: a flood of
/// openings must not cost a look at all records each.
const STALE: Duration = Duration::from_millis(50);

/// The peers of one stream.
pub(super) struct Shoal {
    pub(super) stream: Arc<Stream>,
    pub(super) identity: Arc<Identity>,
    pub(super) reader: Reader,
    pub(super) trains: Trains,
    /// Places of its sessions.
    pub(super) members: Vec<u32>,
    pub(super) source: Source,
    /// Whether pins were made since they were last given back.
    pub(super) touched: bool,
    /// What its controller last said.
    pub(super) orders: Arc<Orders>,
    /// How far these were told.
    pub(super) round: Round,
    /// Chunks that were asked for since the last count, and when that was.
    pub(super) rescued: u64,
    pub(super) counted: Mono,
    /// When it was last drawn who feeds whom.
    pub(super) drawn: Mono,
    /// Why all of them are being closed, if they are.
    pub(super) closing: Option<Bye>,
    /// Subtrees by the time at which they were seen: up to which number, exclusive. Those that
    /// are no longer served are taken off.
    seen: VecDeque<(Mono, u64)>,
    shard: ShardId,
    /// When to look at the signed head; `None`: when the bell rings.
    due: Option<Mono>,
    looked: Mono,
    rated: Mono,
}

impl Shoal {
    /// A stream without peers here.
    pub(super) fn new(
        now: Mono,
        shard: ShardId,
        stream: &Arc<Stream>,
        identity: &Arc<Identity>,
    ) -> Shoal {
        let size = identity.size.chunks();
        let mut shoal = Shoal {
            stream: Arc::clone(stream),
            identity: Arc::clone(identity),
            reader: Reader::new(Arc::clone(&stream.window)),
            trains: Trains::new(identity.addressing, size, Style::WHOLE),
            members: Vec::new(),
            source: Source { size: size as u64, subtrees: 0..0, train: Duration::ZERO, window: 0 },
            touched: false,
            orders: Arc::new(Orders::direct(now)),
            round: Round::default(),
            rescued: 0,
            counted: now,
            drawn: now,
            closing: None,
            seen: VecDeque::new(),
            shard,
            due: None,
            looked: now,
            rated: now,
        };
        shoal.rate(now);
        shoal.find(now);
        shoal
    }

    /// Bits per second.
    pub(super) fn bitrate(&self) -> u64 {
        hybrid::bitrate(&self.stream)
    }

    /// All chunks that may be sent.
    pub(super) fn span(&self) -> Option<Span> {
        self.source.newest()?;
        let (start, end) = (self.source.subtrees.start, self.source.subtrees.end);
        Span::new(start * self.source.size, end * self.source.size - 1)
    }

    /// The bytes of some chunks; `None` if they have left.
    pub(super) fn body(&mut self, run: Run) -> Option<Payload> {
        self.touched = true;
        let bytes = run.chunks() as usize * CHUNK;
        let [body, _] = self.reader.read(run.first() * CHUNK as u64, bytes).ok()?;
        // A subtree never crosses a slab.
        (body.len() == bytes).then_some(body)
    }

    /// Somebody came: from now on the shard is told when the stream grows.
    pub(super) fn attend(&mut self, now: Mono) {
        self.due.get_or_insert(now);
    }

    /// The stream has grown.
    pub(super) fn grown(&mut self, now: Mono) {
        if !self.members.is_empty() {
            let at = now.max(self.looked + LOOK);
            self.due = Some(self.due.map_or(at, |due| due.min(at)));
        }
    }

    /// When to look at the signed head, or at what has become too old, if there is anybody to
    /// send to.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let old = self.seen.front().map(|(at, _)| *at + SERVED + LOOK);
        let due = [self.due, old].into_iter().flatten().min();
        due.filter(|_| !self.members.is_empty())
    }

    /// Looks at the signed head if that is due. Returns whether there is more to send.
    pub(super) fn look_if_due(&mut self, now: Mono) -> bool {
        if self.deadline().is_none_or(|due| now < due) {
            return false;
        }
        self.looked = now;
        self.due = None;
        // Armed before the head is read: a publication from now on rings.
        self.stream.window.bell(self.shard).arm();
        self.look(now)
    }

    /// Brings what can be sent up to date for somebody who comes. With peers inside it is.
    pub(super) fn refresh(&mut self, now: Mono) {
        if self.members.is_empty() && now >= self.looked + STALE {
            self.looked = now;
            self.rate(now);
            self.find(now);
        }
    }

    /// Looks at the signed head. Returns whether there is more to send.
    fn look(&mut self, now: Mono) -> bool {
        let end = self.end();
        let grown = end > self.source.subtrees.end;
        if grown {
            self.source.subtrees.end = end;
            self.seen.push_back((now, end));
        }
        while let Some((_, end)) = self.seen.front().filter(|(at, _)| now.since(*at) > SERVED) {
            self.source.subtrees.start = self.source.subtrees.start.max(*end);
            self.seen.pop_front();
        }
        let tail = self.stream.window.tail().div_ceil(self.identity.size.bytes());
        let start = &mut self.source.subtrees.start;
        *start = (*start).max(tail).min(self.source.subtrees.end);
        if now.since(self.rated) >= RATE_AGE {
            self.rate(now);
        }
        grown
    }

    /// Number behind the newest signed subtree.
    fn end(&self) -> u64 {
        self.stream.window.signed_head().unwrap_or(0) / self.identity.size.bytes()
    }

    fn rate(&mut self, now: Mono) {
        self.rated = now;
        let rate = self.bitrate();
        let nanos = u128::from(self.identity.size.bytes()) * 8 * 1_000_000_000 / u128::from(rate);
        self.source.train = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let chunks = rate * SERVED.as_secs() / (8 * CHUNK as u64) + 1;
        self.source.window = chunks.next_multiple_of(self.source.size);
    }

    /// Finds what was signed before anybody asked, by the times in the records.
    fn find(&mut self, now: Mono) {
        self.seen.clear();
        let end = self.end();
        let (clock, window) = (self.identity.clock.ntp(now), &self.stream.window);
        let mut start = end;
        while let Some(record) = start.checked_sub(1).and_then(|n| window.record(n).ok()) {
            let age = ntp::before(clock, record.ntp).unwrap_or_default();
            if age > SERVED {
                break;
            }
            self.seen.push_front((now - age, start));
            start -= 1;
        }
        self.source.subtrees = start..end;
    }
}
