//! What goes back to the source, and when.

use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::receiver::store::Store;
use crate::swarm::receiver::subtree::{Subtree, runs};
use crate::swarm::receiver::{Farewell, Receiver};
use crate::wire::ppspp::{Message, Private, Span, Subscribe, Writer, build};

/// How often everything that is wanted is said again.
const REPEAT: Duration = Duration::from_secs(1);

/// Silence after which it is said more often, and how often then.
const SILENCE: Duration = Duration::from_millis(250);
const REPEAT_IN_SILENCE: Duration = Duration::from_millis(200);

/// The least time after a train's last datagram until what has not come is missing.
const REORDER_MIN: Duration = Duration::from_millis(10);

/// The least time until something is asked for again, beyond two round trips.
const RETRY: Duration = Duration::from_millis(100);

/// Bytes of our datagrams: they fit wherever IPv6 does.
const DATAGRAM_MAX: usize = 1_200;

/// The most chunks that may be asked for at one time.
const ASKED_MAX: u32 = 4_096;

impl Receiver {
    /// Writes the next datagram, if one is due; call until there is none.
    pub fn poll_datagram(&mut self, now: Mono, store: &Store, buf: &mut [u8]) -> Option<usize> {
        if let Some(farewell) = self.farewell.take() {
            return self.say_farewell(farewell, buf);
        }
        if self.ended.is_some() {
            return None;
        }
        let room = buf.len().min(DATAGRAM_MAX);
        let mut writer = Writer::new(&mut buf[..room], self.them, self.profile.addressing);
        let hello = std::mem::take(&mut self.hello);
        if let Some(token) = self.token.take().filter(|_| hello && self.private) {
            // A token that is too long for a datagram is none.
            let _ = writer.push(Message::Private(Private::Token(&token)));
        }
        let refreshes = hello || now >= self.refresh_at();
        if refreshes {
            self.refresh(now, &mut writer);
        }
        self.acknowledge(now, &mut writer);
        self.request(now, hello, store, &mut writer);
        // An empty datagram is a keepalive: for a source that knows no SUBSCRIBE.
        (refreshes || !writer.is_empty()).then(|| writer.len())
    }

    /// When the next datagram is due, at the earliest.
    #[must_use]
    pub fn next_deadline(&self, store: &Store) -> Option<Mono> {
        if self.farewell.is_some() || (self.hello && self.ended.is_none()) {
            return Some(Mono::ZERO);
        }
        if self.ended.is_some() {
            return None;
        }
        let wait = self.reorder();
        let first = store.next();
        let asks = self.repairs && !self.choked && self.outstanding() < ASKED_MAX;
        let due = |(number, subtree): (&u64, &Subtree)| {
            let holes = if asks && number * self.assembly.n() < store.ahead() {
                self.missing(*number, first)
            } else {
                0
            };
            let fresh = (holes & !subtree.asked != 0).then(|| subtree.last + self.patience());
            let again = (holes & subtree.asked != 0).then(|| self.again_at(*number, subtree));
            let passed = (holes & subtree.passed != 0).then(|| subtree.passed_at + self.reorder());
            [subtree.ack_at(wait), fresh, again, passed]
        };
        let subtrees = self.assembly.subtrees.iter().flat_map(due).flatten();
        let late = (!self.assembly.late.is_empty()).then_some(Mono::ZERO);
        subtrees.chain(late).chain([self.refresh_at()]).min()
    }

    fn say_farewell(&mut self, farewell: Farewell, buf: &mut [u8]) -> Option<usize> {
        match farewell {
            Farewell::Bye(why) => {
                self.farewell = Some(Farewell::Close);
                let mut writer = Writer::new(buf, self.them, self.profile.addressing);
                let said = writer.push(Message::Private(Private::Bye(why)));
                said.then(|| writer.len())
            }
            Farewell::Close => {
                let close = build::close(self.them);
                buf.get_mut(..close.len())?.copy_from_slice(&close);
                Some(close.len())
            }
        }
    }

    fn refresh_at(&self) -> Mono {
        let soon = (self.told + REPEAT_IN_SILENCE).max(self.heard + SILENCE);
        soon.min(self.told + REPEAT)
    }

    /// Says everything that is wanted, with an acknowledgement.
    fn refresh(&mut self, now: Mono, writer: &mut Writer<'_>) {
        self.told = now;
        if let Some((span, delay)) = self.run {
            let _ = writer.push(Message::Ack { span, delay });
        }
        if self.private {
            let all = Subscribe { start: Subscribe::NEXT, stripes: Subscribe::ALL, window: 0 };
            let _ = writer.push(Message::Private(Private::Subscribe(all)));
            if let Some(report) = self.report.take() {
                let _ = writer.push(Message::Private(Private::Report(report)));
            }
        }
    }

    /// One ACK for each run of chunks that came, of every train that is over. A run that goes on
    /// from what was acknowledged before is acknowledged as a whole: that costs no byte, and
    /// the next train makes good an acknowledgement that was lost.
    fn acknowledge(&mut self, now: Mono, writer: &mut Writer<'_>) {
        let (wait, n) = (self.reorder(), self.assembly.n());
        while let Some((chunk, delay)) = self.assembly.late.pop() {
            if !writer.push(Message::Ack { span: Span::one(chunk), delay }) {
                self.assembly.late.push((chunk, delay));
                return;
            }
        }
        for (number, subtree) in &mut self.assembly.subtrees {
            if subtree.ack_at(wait).is_none_or(|at| at > now) {
                continue;
            }
            let delay = subtree.delay.unwrap_or(0);
            for (first, last) in runs(subtree.unacked) {
                let span = Span { first: number * n + first, last: number * n + last };
                let span = joined(self.run, span, 64 * n);
                if !writer.push(Message::Ack { span, delay }) {
                    return;
                }
                subtree.unacked &= !bits(first, last);
                self.run = Some((span, delay));
            }
            subtree.delay = None;
        }
    }

    /// Asks for what is missing and due.
    fn request(&mut self, now: Mono, hello: bool, store: &Store, writer: &mut Writer<'_>) {
        if !self.repairs || self.choked {
            return;
        }
        let (n, first, ahead) = (self.assembly.n(), store.next(), store.ahead());
        let patience = if hello { Duration::ZERO } else { self.patience() };
        let mut asked = self.outstanding();
        let mut open: Option<Span> = None;
        let due: Vec<(u64, u16)> = self
            .assembly
            .subtrees
            .iter()
            .take_while(|(number, _)| **number * n < ahead)
            .map(|(number, subtree)| {
                let fresh = if now >= subtree.last + patience { !subtree.asked } else { 0 };
                let again = now >= self.again_at(*number, subtree);
                let again = if again { subtree.asked } else { 0 };
                let passed = now >= subtree.passed_at + self.reorder();
                let passed = if passed { subtree.passed } else { 0 };
                (*number, fresh | again | passed)
            })
            .filter(|(_, due)| *due != 0)
            .collect();
        for (number, due) in due {
            let wanted = self.missing(number, first) & due;
            if wanted == 0 || asked >= ASKED_MAX {
                continue;
            }
            asked += wanted.count_ones();
            let ahead = match self.private {
                true => self.outstanding_below(number) + wanted.count_ones(),
                false => asked,
            };
            let again = now + self.retry(ahead);
            for (from, to) in runs(wanted) {
                let span = Span { first: number * n + from, last: number * n + to };
                open = match open {
                    Some(before) if before.last + 1 == span.first => {
                        Some(Span { first: before.first, last: span.last })
                    }
                    Some(before) if !writer.push(Message::Request(before)) => return,
                    _ => Some(span),
                };
            }
            let Some(subtree) = self.assembly.subtrees.get_mut(&number) else { continue };
            if self.private && self.assembly.pushed_from.is_some_and(|from| from <= number) {
                self.counts.lost += u64::from((wanted & !subtree.lost).count_ones());
                subtree.lost |= wanted;
            }
            subtree.was_asked = true;
            subtree.asked_at = now;
            subtree.asked |= wanted;
            subtree.passed &= !wanted;
            subtree.retry_at = again;
        }
        if let Some(span) = open {
            // Without room for it, it is asked for when its time has come again.
            let _ = writer.push(Message::Request(span));
        }
    }

    /// Chunks of a subtree to be asked for, a bit each: those that are missing; if all came and
    /// only the hash is missing, the first, because the hash precedes the answer.
    fn missing(&self, number: u64, first: u64) -> u16 {
        let Some(subtree) = self.assembly.subtrees.get(&number) else { return 0 };
        let first = first.max(self.assembly.floor.unwrap_or(0));
        let played = first.saturating_sub(number * self.assembly.n()).min(16) as u32;
        let missing = subtree.all() & !subtree.have & u16::MAX.checked_shl(played).unwrap_or(0);
        if missing == 0 {
            return 0;
        }
        match missing & !self.assembly.orphaned(number) {
            0 => 1 << missing.trailing_zeros(),
            holes => holes,
        }
    }

    /// When to ask again for what was asked for. As long as answers to what lies below come, it
    /// waits for its turn.
    fn again_at(&self, number: u64, subtree: &Subtree) -> Mono {
        let answered = self
            .assembly
            .answered
            .filter(|(chunk, _)| self.private && *chunk / self.assembly.n() < number);
        let wait = RETRY + 2 * self.rtt;
        answered.map_or(subtree.retry_at, |(_, came)| subtree.retry_at.max(came + wait))
    }

    /// Chunks that were asked for and have not come.
    fn outstanding(&self) -> u32 {
        self.assembly.subtrees.values().map(|subtree| subtree.asked.count_ones()).sum()
    }

    /// Those of them that lie below a subtree, and so are answered before it.
    fn outstanding_below(&self, number: u64) -> u32 {
        let below = self.assembly.subtrees.range(..number);
        below.map(|(_, subtree)| subtree.asked.count_ones()).sum()
    }

    /// How long after a train's last datagram it is over.
    fn reorder(&self) -> Duration {
        REORDER_MIN.max(2 * self.assembly.chunk_time())
    }

    /// How long after its last datagram the holes of a subtree are asked for. A source that does
    /// not push is asked at once.
    fn patience(&self) -> Duration {
        if self.private { self.reorder() } else { Duration::ZERO }
    }

    /// When to ask again with `asked` chunks under way, which are sent at twice the stream's
    /// rate; some tolerance included.
    fn retry(&self, asked: u32) -> Duration {
        let queue = self.assembly.chunk_time() * asked * 3 / 4;
        RETRY + 2 * self.rtt + queue.min(Duration::from_secs(2))
    }
}

/// The bits `first` to `last`.
fn bits(first: u64, last: u64) -> u16 {
    let (first, last) = (first.min(15) as u32, last.min(15) as u32);
    (u16::MAX << first) & (u16::MAX >> (15 - last))
}

/// The run that `span` continues, at most `most` chunks of it; else `span` alone.
fn joined(run: Option<(Span, i64)>, span: Span, most: u64) -> Span {
    match run {
        Some((run, _)) if run.first <= span.first && span.first <= run.last.saturating_add(1) => {
            let last = run.last.max(span.last);
            Span { first: run.first.max(last.saturating_sub(most)), last }
        }
        _ => span,
    }
}
