//! What goes back to the source, and when.

use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::receiver::assembly::Assembly;
use crate::swarm::receiver::part::{Part, Reach};
use crate::swarm::receiver::store::Store;
use crate::swarm::receiver::subtree::{Subtree, runs};
use crate::swarm::receiver::{Farewell, Receiver};
use crate::wire::ppspp::{Message, Private, Span, Subscribe, Writer, build};

/// How often everything that is wanted is said again.
const REPEAT: Duration = Duration::from_secs(1);

/// How soon a change is said once more: the datagram may be lost.
const REPEAT_CHANGE: Duration = Duration::from_millis(150);

/// Silence after which it is said more often, and how often then.
const SILENCE: Duration = Duration::from_millis(250);
const REPEAT_IN_SILENCE: Duration = Duration::from_millis(200);

/// The least time after a train's last datagram until what has not come is missing; on a long way
/// an eighth of the round trip, by which TCP and QUIC tell late from lost (RFC 9002, 6.1.2).
const REORDER_MIN: Duration = Duration::from_millis(10);

/// When something is asked for again: the relay answers at once, and after this and six fifths of
/// the round trip the question or the answer is lost. A neighbour sends first what it feeds
/// others; what it had sent by then would come twice.
const RETRY: Duration = Duration::from_millis(40);
const RETRY_NEIGHBOUR: Duration = Duration::from_millis(400);

/// On a way to the relay this long a question that is lost costs what a viewer has in hand, so
/// each goes out twice, so long apart: longer than most bursts of losses. The relay answers the
/// first that comes: for a round trip it takes a second one for this. On a shorter way it would
/// take it for a loss.
const ECHO_FROM: Duration = Duration::from_millis(100);
const ECHO: Duration = Duration::from_millis(30);

/// Bytes of our datagrams: they fit wherever IPv6 does.
const DATAGRAM_MAX: usize = 1_200;

/// The most chunks that may be asked for at one time.
const ASKED_MAX: u32 = 4_096;

/// How long an acknowledgement of what a neighbour sends may wait for more.
pub const ACK_MAX: Duration = Duration::from_millis(50);

/// Silence of a neighbour's answer, beyond a round trip, after which it is asked again; and how
/// long its next chunk may take before the last ones of a subtree are taken for lost.
const NEIGHBOUR: Duration = Duration::from_millis(250);

/// How long a chunk may be missing on a neighbour's link although a later one came.
const SKIPPED: Duration = Duration::from_millis(20);

/// What composing a datagram looks at.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// What is there and what is not.
    pub assembly: &'a Assembly,
    /// Where it is.
    pub store: &'a Store,
    /// Whether the holes of a subtree are to be asked for on this link; `None`: of no subtree.
    pub asks: Option<&'a dyn Fn(u64) -> bool>,
}

impl Receiver {
    /// Writes the next datagram, if one is due; call until there is none. `more` adds to what is
    /// said anyhow, and says whether that alone is worth a datagram; it is told whether
    /// everything is being said again.
    pub fn poll_datagram(
        &mut self,
        now: Mono,
        view: View<'_>,
        buf: &mut [u8],
        more: &mut dyn FnMut(&mut Writer<'_>, bool),
    ) -> Option<usize> {
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
        self.acknowledge(now, view, &mut writer);
        self.request(now, hello, view, &mut writer);
        more(&mut writer, refreshes);
        // An empty datagram is a keepalive: for a source that knows no SUBSCRIBE.
        (refreshes || !writer.is_empty()).then(|| writer.len())
    }

    /// When the next datagram is due, at the earliest.
    #[must_use]
    pub fn next_deadline(&self, view: View<'_>) -> Option<Mono> {
        if self.farewell.is_some() || (self.hello && self.ended.is_none()) {
            return Some(Mono::ZERO);
        }
        if self.ended.is_some() {
            return None;
        }
        let View { assembly, store, asks } = view;
        let acks = self.parts.within(self.unacked.first, self.unacked.end);
        let acks = acks.filter(|(_, part)| part.unacked != 0);
        let acks = acks.filter_map(|(number, part)| {
            part.ack_at(self.is_over(number, view), self.ack_wait(assembly), self.ack_max())
        });
        let late = (!self.late.is_empty()).then_some(Mono::ZERO);
        let soon = acks.chain(late).chain([self.refresh_at()]).min();
        let Some(asks) = asks.filter(|_| !self.choked) else { return soon };
        if self.outstanding(assembly) >= ASKED_MAX {
            return soon;
        }
        let ahead = store.ahead();
        let open = assembly.holes(store).take_while(|(number, _)| number * assembly.n() < ahead);
        let reorder = self.reorder(assembly);
        let due = |(number, subtree): (u64, &Subtree)| {
            let holes = self.missing(number, subtree, view);
            let part = self.parts.get(number).copied().unwrap_or(Part::new(subtree.since));
            let fresh = holes & !part.asked;
            let fresh = (fresh != 0).then(|| self.fresh_at(&part, fresh, assembly));
            let again = (holes & part.asked != 0).then(|| self.again_at(number, &part, assembly));
            let passed = (holes & part.passed != 0).then(|| part.passed_at + reorder);
            let rest = (holes & part.asked & part.rest != 0).then(|| part.last + reorder);
            let echo = part.echo_at.filter(|_| holes & part.asked != 0);
            [fresh, again, passed, rest, echo]
        };
        open.filter(|(number, _)| asks(*number)).flat_map(due).flatten().chain(soon).min()
    }

    /// Whether nothing more of a subtree is expected.
    fn is_over(&self, number: u64, view: View<'_>) -> bool {
        view.assembly.get(number).is_none_or(Subtree::is_complete)
    }

    /// How long nothing more may come of a train that is not whole until what came of it is
    /// acknowledged. A neighbour sends chunks singly, when its line has room and it has them:
    /// that nothing comes for a while says nothing.
    fn ack_wait(&self, assembly: &Assembly) -> Duration {
        if self.neighbour { ACK_MAX } else { self.reorder(assembly) }
    }

    fn ack_max(&self) -> Duration {
        if self.neighbour { ACK_MAX } else { Duration::from_secs(1) }
    }

    /// When holes that nobody was asked for yet are asked for here.
    fn fresh_at(&self, part: &Part, holes: u16, assembly: &Assembly) -> Mono {
        if !self.neighbour {
            return part.last + self.patience(assembly);
        }
        if let Some(at) = part.skipped_at.filter(|_| part.lacks_hash()) {
            return at + SKIPPED;
        }
        if !part.has_begun() {
            // Somebody has waited for it already.
            return Mono::ZERO;
        }
        let end = part.last + NEIGHBOUR + self.rtt;
        let skipped = part.skipped_at.filter(|_| holes & part.below_newest() != 0);
        skipped.map_or(end, |at| end.min(at + SKIPPED))
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
        let repeat = match self.stripes_told {
            0 => return Mono::ZERO,
            1 => self.told + REPEAT_CHANGE,
            _ => self.told + REPEAT,
        };
        // Who pushes little may well have nothing to say.
        if self.stripes != Subscribe::ALL {
            return repeat;
        }
        let soon = (self.told + REPEAT_IN_SILENCE).max(self.heard + SILENCE);
        soon.min(repeat)
    }

    /// Says everything that is wanted, with an acknowledgement.
    fn refresh(&mut self, now: Mono, writer: &mut Writer<'_>) {
        (self.told, self.stripes_told) = (now, self.stripes_told.saturating_add(1).min(2));
        if let Some((span, delay)) = self.run {
            let _ = writer.push(Message::Ack { span, delay });
        }
        if self.private {
            let (start, stripes) = (Subscribe::NEXT, self.stripes);
            let _ = writer.push(Message::Private(Private::Subscribe(Subscribe {
                start,
                stripes,
                window: 0,
            })));
            if let Some(report) = self.report.take() {
                let _ = writer.push(Message::Private(Private::Report(report)));
            }
        }
    }

    /// One ACK for each run of chunks that came, of every train that is over. A run that goes on
    /// from what was acknowledged before is acknowledged as a whole: that costs no byte, and
    /// the next train makes good an acknowledgement that was lost.
    fn acknowledge(&mut self, now: Mono, view: View<'_>, writer: &mut Writer<'_>) {
        let (wait, most, n) = (self.ack_wait(view.assembly), self.ack_max(), view.assembly.n());
        while let Some((chunk, delay)) = self.late.pop() {
            if !writer.push(Message::Ack { span: Span::one(chunk), delay }) {
                self.late.push((chunk, delay));
                return;
            }
        }
        let (mut run, mut waiting) = (self.run, Reach::default());
        for (number, part) in self.parts.within_mut(self.unacked.first, self.unacked.end) {
            if part.unacked == 0 {
                continue;
            }
            let over = view.assembly.get(number).is_none_or(Subtree::is_complete);
            if part.ack_at(over, wait, most).is_none_or(|at| at > now) {
                waiting.add(number);
                continue;
            }
            let delay = part.delay.unwrap_or(0);
            for (first, last) in runs(part.unacked) {
                let span = Span { first: number * n + first, last: number * n + last };
                let span = joined(run, span, 64 * n);
                if !writer.push(Message::Ack { span, delay }) {
                    self.run = run;
                    return;
                }
                part.unacked &= !bits(first, last);
                run = Some((span, delay));
            }
            part.delay = None;
        }
        (self.run, self.unacked) = (run, waiting);
    }

    /// Asks for what is missing and due.
    fn request(&mut self, now: Mono, hello: bool, view: View<'_>, writer: &mut Writer<'_>) {
        let View { assembly, store, asks } = view;
        let Some(asks) = asks.filter(|_| !self.choked) else { return };
        let (n, ahead) = (assembly.n(), store.ahead());
        let mut asked = self.outstanding(assembly);
        let mut open: Option<Span> = None;
        for (number, subtree) in assembly.holes(store) {
            if number * n >= ahead || asked >= ASKED_MAX {
                break;
            }
            if !asks(number) {
                continue;
            }
            let part = self.parts.get(number).copied().unwrap_or(Part::new(subtree.since));
            let holes = self.missing(number, subtree, view);
            let wanted = holes & self.due(now, hello, number, &part, holes, assembly);
            if wanted == 0 {
                continue;
            }
            asked += wanted.count_ones();
            let before = match self.private {
                true => self.outstanding_below(number, assembly) + wanted.count_ones(),
                false => asked,
            };
            let again = now + self.retry(before, assembly);
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
            self.note_asked(now, number, wanted, again, assembly);
        }
        if let Some(span) = open {
            // Without room for it, it is asked for when its time has come again.
            let _ = writer.push(Message::Request(span));
        }
    }

    /// Of the holes of a subtree those whose time has come.
    fn due(
        &self,
        now: Mono,
        hello: bool,
        number: u64,
        part: &Part,
        holes: u16,
        assembly: &Assembly,
    ) -> u16 {
        let unasked = holes & !part.asked;
        let fresh = hello && !self.neighbour || now >= self.fresh_at(part, unasked, assembly);
        let fresh = match (fresh, part.skipped_at) {
            (false, _) => 0,
            // Those behind the newest that came may still be on their way.
            (true, Some(_)) if self.neighbour && part.lacks_hash() => unasked,
            (true, Some(_)) if self.neighbour && now < part.last + NEIGHBOUR + self.rtt => {
                unasked & part.below_newest()
            }
            (true, _) => unasked,
        };
        let again = if now >= self.again_at(number, part, assembly) { part.asked } else { 0 };
        let passed = now >= part.passed_at + self.reorder(assembly);
        let rest = if now >= part.last + self.reorder(assembly) { part.rest } else { 0 };
        let echo = if part.echoes(now) { part.asked } else { 0 };
        fresh | again | echo | rest & part.asked | if passed { part.passed } else { 0 }
    }

    /// How long answers take. A round trip of which an opening was lost is thought too long.
    fn answer_time(&self) -> Duration {
        self.answers_in.map_or(self.rtt, |took| took.min(self.rtt))
    }

    fn note_asked(
        &mut self,
        now: Mono,
        number: u64,
        wanted: u16,
        again: Mono,
        assembly: &Assembly,
    ) {
        let pushes = self.private && self.pushed_from.is_some_and(|from| from <= number);
        let neighbour = self.neighbour;
        let long = self.private && !neighbour && self.answer_time() >= ECHO_FROM;
        let part = self.part(number, now, assembly);
        if pushes && (!neighbour || part.has_begun()) {
            let lost = wanted & !part.lost;
            part.lost |= wanted;
            self.counts.lost += u64::from(lost.count_ones());
        }
        self.asked.add(number);
        let part = self.part(number, now, assembly);
        part.was_asked = true;
        part.asked |= wanted;
        part.passed &= !wanted;
        part.rest &= !wanted;
        let echoes = part.echoes(now);
        part.echo_at = (long && !echoes).then_some(now + ECHO);
        if !echoes || now >= part.retry_at {
            (part.asked_at, part.timed, part.retry_at) = (now, false, again);
        }
        part.skipped_at = None;
    }

    /// Chunks of a subtree to be asked for, a bit each: those that are missing; if all came and
    /// only the hash is missing, the first, because the hash precedes the answer.
    fn missing(&self, number: u64, subtree: &Subtree, view: View<'_>) -> u16 {
        let n = view.assembly.n();
        let first = view.store.next().max(self.floor.unwrap_or(0));
        let played = first.saturating_sub(number * n).min(16) as u32;
        let missing = subtree.all() & !subtree.have & u16::MAX.checked_shl(played).unwrap_or(0);
        if missing == 0 {
            return 0;
        }
        let orphaned = self.orphaned(number, n);
        if self.neighbour && orphaned != 0 {
            // Only the hash is missing, as far as is known: it goes before a chunk that is asked
            // for again.
            return 1 << orphaned.trailing_zeros();
        }
        match missing & !orphaned {
            0 => 1 << missing.trailing_zeros(),
            holes => holes,
        }
    }

    /// When to ask again for what was asked for. As long as answers to what lies below come, or to
    /// other chunks of the subtree, it waits for its turn.
    fn again_at(&self, number: u64, part: &Part, assembly: &Assembly) -> Mono {
        let below = |(chunk, _): &(u64, Mono)| self.private && *chunk / assembly.n() <= number;
        let answered = self.answered.filter(below);
        let wait = self.retry_least();
        answered.map_or(part.retry_at, |(_, came)| part.retry_at.max(came + wait))
    }

    /// Chunks that were asked for here and have not come from anywhere.
    fn outstanding(&self, assembly: &Assembly) -> u32 {
        self.outstanding_below(u64::MAX, assembly)
    }

    /// Those of them that lie below a subtree, and so are answered before it.
    fn outstanding_below(&self, number: u64, assembly: &Assembly) -> u32 {
        let below = self.parts.within(self.asked.first, self.asked.end.min(number));
        let below = below.filter(|(_, part)| part.asked != 0);
        let open = |(number, part): (u64, &Part)| {
            let have = assembly.get(number).map_or(u16::MAX, |subtree| subtree.have);
            (part.asked & !have).count_ones()
        };
        below.map(open).sum()
    }

    /// How long after a train's last datagram it is over.
    fn reorder(&self, assembly: &Assembly) -> Duration {
        REORDER_MIN.max(2 * assembly.chunk_time()).max(self.rtt / 8)
    }

    /// How long after its last datagram the holes of a subtree are asked for. A source that does
    /// not push is asked at once.
    fn patience(&self, assembly: &Assembly) -> Duration {
        if self.private { self.reorder(assembly) } else { Duration::ZERO }
    }

    /// How long an answer may take that does not wait for others.
    fn retry_least(&self) -> Duration {
        if self.neighbour { RETRY_NEIGHBOUR + 2 * self.rtt } else { RETRY + self.rtt * 6 / 5 }
    }

    /// When to ask again with `asked` chunks under way, which are sent at twice the stream's
    /// rate; some tolerance included.
    fn retry(&self, asked: u32, assembly: &Assembly) -> Duration {
        let queue = assembly.chunk_time() * asked * 3 / 4;
        self.retry_least() + queue.min(Duration::from_secs(2))
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
