//! Very many peers as cheap as they can be: each joins, subscribes to everything, and answers
//! each train with one ACK. Nothing is verified and nothing kept. No clocks and no sockets here.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::base::limits::CHUNK;
use crate::bench::Outcome;
use crate::bench::load;
use crate::bench::swarm::facts::Facts;
use crate::bench::swarm::load::Mark;
use crate::io::heads::Head;
use crate::swarm::integrity::SwarmId;
use crate::wire::ppspp::{
    Addressing, CHANNEL, Message, Messages, Options, Private, Span, Subscribe, Writer, build,
};

/// The longest datagram that a peer sends: the opening.
pub const SAID_MAX: usize = 128;

/// Chunks that a peer says it keeps.
const WINDOW: u64 = 4_096;

/// An opening that was not answered is repeated after this time, the next after twice as long.
const REPEAT: Duration = Duration::from_millis(100);

/// The longest wait between two openings, and how many there are.
const REPEAT_MAX: Duration = Duration::from_millis(800);
const OPENINGS: u32 = 12;

/// A subscription is repeated with the first ACK after this time.
const RENEW: Duration = Duration::from_secs(1);

/// A peer that hears nothing for this long subscribes again.
const SILENCE: Duration = Duration::from_secs(1);

/// Later than this after the first peer that got a subtree, a peer got it late: what is missing
/// then can hardly be repaired before it is played.
const LATE: Duration = Duration::from_millis(500);

/// Subtrees of which it is known when the first peer got them.
const FIRSTS: usize = 4_096;

/// A moment on both clocks that are needed.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For intervals.
    pub at: Instant,
    /// For delay samples, in microseconds.
    pub micros: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its time has not come.
    Early,
    /// It has sent so many openings, and waits until then.
    Opens(u32, Instant),
    /// It is served.
    Open,
    /// It was refused, closed or never answered.
    Gone,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    stage: Stage,
    /// The channel on which the relay hears it.
    theirs: u32,
    /// The chunk that comes next; 0 before the first.
    next: u64,
    /// Chunks that came and were not acknowledged yet.
    pending: Option<(Span, i64)>,
    /// When it last subscribed, and last heard something.
    subscribed: Instant,
    heard: Instant,
    /// Bytes of chunks, when the last came, and both at the last mark.
    bytes: u64,
    last: Instant,
    at_mark: (u64, Instant),
}

/// Datagrams to send, one behind the other.
#[derive(Debug, Default)]
pub struct Said {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Said {
    /// Adds the datagram that `write` makes; nothing if it makes none.
    fn say(&mut self, write: impl FnOnce(&mut [u8]) -> Option<usize>) {
        let start = self.bytes.len();
        self.bytes.resize(start + SAID_MAX, 0);
        let len = write(&mut self.bytes[start..]).unwrap_or(0);
        self.bytes.truncate(start + len);
        if len > 0 {
            self.ends.push(self.bytes.len());
        }
    }

    /// The datagrams.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// The peers of one load process.
#[derive(Debug)]
pub struct Peers {
    peers: Vec<Peer>,
    id: SwarmId,
    addressing: Addressing,
    /// Chunks of a subtree.
    subtree: u64,
    /// Bit/s that each should get.
    bitrate: u64,
    /// When the first peer got a subtree, by its number modulo their count.
    firsts: Vec<(u64, Instant)>,
    spread: Histogram<u64>,
    mark: Mark,
    marked: Instant,
}

impl Peers {
    /// `count` peers of the swarm, of which none has begun.
    ///
    /// # Errors
    /// If it is no swarm of ours.
    pub fn new(count: usize, facts: &Facts, bitrate: u64, now: Instant) -> Outcome<Peers> {
        let peer = Peer {
            stage: Stage::Early,
            theirs: 0,
            next: 0,
            pending: None,
            subscribed: now,
            heard: now,
            bytes: 0,
            last: now,
            at_mark: (0, now),
        };
        Ok(Peers {
            peers: vec![peer; count],
            id: facts.id()?,
            addressing: facts.method()?,
            subtree: facts.subtree.max(1),
            bitrate,
            firsts: vec![(u64::MAX, now); FIRSTS],
            spread: Histogram::new_with_bounds(1, 60_000_000, 3)?,
            mark: Mark::default(),
            marked: now,
        })
    }

    /// Our channel of the peer at `index`; it follows from it, so that nothing must be looked up.
    fn channel(index: usize) -> u32 {
        u32::try_from(index + 1).unwrap_or(u32::MAX)
    }

    /// What time asks for: of the first `due` peers the openings, and subscriptions that nobody
    /// seems to have heard. A peer speaks through the socket of its number modulo their count.
    pub fn tick(&mut self, now: Instant, due: usize, said: &mut [Said]) {
        let sockets = said.len().max(1);
        for index in 0..self.peers.len().min(due) {
            match self.peers[index].stage {
                Stage::Early => {
                    self.peers[index].heard = now;
                    self.open(now, index, 0, &mut said[index % sockets]);
                }
                Stage::Opens(tries, until) if now >= until => {
                    if tries >= OPENINGS {
                        self.fail(index, "an opening was not answered");
                    } else {
                        self.open(now, index, tries, &mut said[index % sockets]);
                    }
                }
                Stage::Open => {
                    let peer = &self.peers[index];
                    let last = peer.heard.max(peer.subscribed);
                    if now.saturating_duration_since(last) >= SILENCE {
                        self.mark.silent += 1;
                        self.answer(now, index, &mut said[index % sockets]);
                    }
                }
                Stage::Opens(..) | Stage::Gone => {}
            }
        }
    }

    fn open(&mut self, now: Instant, index: usize, tries: u32, said: &mut Said) {
        let wait = REPEAT.saturating_mul(1 << tries.min(8)).min(REPEAT_MAX);
        self.peers[index].stage = Stage::Opens(tries + 1, now + wait);
        let id = self.id;
        let options = Options::opening(id.as_bytes(), self.addressing, WINDOW, CHUNK as u32);
        said.say(|buf| build::opening(buf, Peers::channel(index), options));
    }

    fn fail(&mut self, index: usize, why: &str) {
        if self.peers[index].stage != Stage::Gone {
            self.peers[index].stage = Stage::Gone;
            self.mark.failed += 1;
            self.mark.why.get_or_insert_with(|| why.to_owned());
        }
    }

    /// A message came: one datagram, or a train of which only the beginning was looked at.
    pub fn handle(&mut self, now: Moment, head: Head<'_>, said: &mut Said) {
        self.mark.wire += head.len as u64;
        let Some((channel, rest)) = crate::wire::ppspp::split(head.bytes) else { return };
        let index = (channel as usize).wrapping_sub(1);
        let Some(peer) = self.peers.get_mut(index) else {
            self.mark.stray += 1;
            return;
        };
        peer.heard = now.at;
        let first = &rest[..rest.len().min(head.segment.saturating_sub(CHANNEL))];
        let datagrams = head.len.div_ceil(head.segment) as u64;
        match Messages::new(first, self.addressing, CHUNK).next() {
            Some(Ok(Message::Handshake(handshake))) if handshake.channel == 0 => {
                self.fail(index, "the relay closed a channel");
            }
            Some(Ok(Message::Handshake(handshake))) => {
                if let Stage::Opens(..) = peer.stage {
                    (peer.stage, peer.theirs) = (Stage::Open, handshake.channel);
                    self.answer(now.at, index, said);
                }
            }
            // The hash datagram; the chunks of its subtree follow if it leads a train.
            Some(Ok(Message::Integrity { span, .. })) => {
                if let (true, Some(stamp)) = (datagrams > 1, self.second_stamp(head)) {
                    self.chunks(now, index, span.first, datagrams - 1, stamp, said);
                }
            }
            Some(Ok(Message::Data { chunk, stamp, .. })) => {
                self.chunks(now, index, chunk, datagrams, stamp, said);
            }
            Some(Ok(Message::Private(Private::Bye(reason)))) => {
                self.fail(index, &format!("the relay said goodbye: {reason:?}"));
            }
            Some(Ok(_)) | None => {}
            Some(Err(_)) => self.mark.stray += 1,
        }
    }

    /// The time stamp of the second datagram of a train.
    fn second_stamp(&self, head: Head<'_>) -> Option<u64> {
        let header = head.bytes.get(head.segment..)?.get(..self.addressing.data_header())?;
        header.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
    }

    /// Chunks came, one after the other.
    fn chunks(
        &mut self,
        now: Moment,
        index: usize,
        first: u64,
        count: u64,
        stamp: u64,
        said: &mut Said,
    ) {
        let Some(span) = Span::new(first, first.saturating_add(count.saturating_sub(1))) else {
            return;
        };
        let peer = &mut self.peers[index];
        if peer.next != 0 && first > peer.next {
            self.mark.lost += first - peer.next;
        }
        self.mark.again += u64::from(first < peer.next);
        peer.next = peer.next.max(span.last.saturating_add(1));
        peer.bytes += count * CHUNK as u64;
        peer.last = now.at;
        let delay = now.micros.wrapping_sub(stamp).cast_signed();
        // Chunks that came one by one are acknowledged together, at their subtree's end.
        let before = peer.pending.filter(|(before, _)| before.last.checked_add(1) == Some(first));
        let whole = before.map_or((span, delay), |(before, least)| {
            (Span { first: before.first, last: span.last }, least.min(delay))
        });
        let unsaid = if before.is_none() { peer.pending } else { None };
        peer.pending = Some(whole);
        if let Some((span, delay)) = unsaid {
            self.acknowledge(index, span, delay, said);
        }
        if span.last.wrapping_add(1).is_multiple_of(self.subtree) {
            self.mark.trains += 1;
            self.arrived(now.at, span.last / self.subtree);
            self.answer(now.at, index, said);
        }
    }

    /// A subtree is there as a whole.
    fn arrived(&mut self, now: Instant, subtree: u64) {
        let first = &mut self.firsts[subtree as usize % FIRSTS];
        if first.0 != subtree {
            *first = (subtree, now);
        }
        let after = now.saturating_duration_since(first.1);
        self.spread.saturating_record(u64::try_from(after.as_micros()).unwrap_or(u64::MAX).max(1));
        self.mark.late += u64::from(after > LATE);
    }

    fn acknowledge(&mut self, index: usize, span: Span, delay: i64, said: &mut Said) {
        let (theirs, addressing) = (self.peers[index].theirs, self.addressing);
        self.mark.acks += 1;
        said.say(|buf| build::acknowledge(buf, theirs, addressing, ([span], delay), []));
    }

    /// What is pending, and the subscription if it is time.
    fn answer(&mut self, now: Instant, index: usize, said: &mut Said) {
        let peer = &mut self.peers[index];
        let pending = peer.pending.take();
        let renew = peer.theirs != 0
            && (pending.is_none() || now.saturating_duration_since(peer.subscribed) >= RENEW);
        if renew {
            peer.subscribed = now;
        }
        self.mark.acks += u64::from(pending.is_some());
        let (theirs, addressing) = (peer.theirs, self.addressing);
        said.say(|buf| {
            let mut writer = Writer::new(buf, theirs, addressing);
            let mut whole = true;
            if let Some((span, delay)) = pending {
                whole &= writer.push(Message::Ack { span, delay });
            }
            if renew {
                let all = Subscribe { start: Subscribe::NEXT, stripes: Subscribe::ALL, window: 0 };
                whole &= writer.push(Message::Private(Private::Subscribe(all)));
            }
            whole.then_some(writer.len())
        });
    }

    /// Says goodbye for everybody who is there, so that the relay need not find out.
    pub fn close(&mut self, said: &mut [Said]) {
        let sockets = said.len().max(1);
        for (index, peer) in self.peers.iter_mut().enumerate() {
            if peer.stage == Stage::Open {
                peer.stage = Stage::Gone;
                let close = build::close(peer.theirs);
                said[index % sockets].say(|buf| {
                    buf.get_mut(..close.len())?.copy_from_slice(&close);
                    Some(close.len())
                });
            }
        }
    }

    /// What happened since the mark before.
    pub fn mark(&mut self, now: Instant) -> Mark {
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.marked, now));
        let (failed, why) = (self.mark.failed, self.mark.why.clone());
        let mut mark = std::mem::replace(&mut self.mark, Mark { failed, why, ..Mark::default() });
        mark.seconds = passed.as_secs_f64();
        for peer in &mut self.peers {
            let (before, since) = std::mem::replace(&mut peer.at_mark, (peer.bytes, peer.last));
            let got = peer.bytes - before;
            let time = load::watched(since, peer.last, now);
            mark.bytes += got;
            mark.open += u64::from(peer.stage == Stage::Open && peer.bytes > 0);
            mark.slow += u64::from(got < load::enough(self.bitrate, time));
        }
        let spread = &mut self.spread;
        let quantiles = [spread.value_at_quantile(0.5), spread.value_at_quantile(0.99)];
        mark.spread_ms = [quantiles[0], quantiles[1], spread.max()].map(|us| us as f64 / 1e3);
        spread.reset();
        mark
    }
}

#[cfg(test)]
mod tests;
