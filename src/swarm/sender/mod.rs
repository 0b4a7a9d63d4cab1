//! One link's sending half: what to send next, and when to give the link up.
//!
//! It sends nothing itself. Whoever holds the link tells it what the peer said (`handle_*`) and
//! asks [`Sender::next`] until that has nothing, after every input, when a subtree was signed,
//! and at [`Sender::deadline`]; at least once a second.
//!
//! - *Push*, in two ways. A relay sends every subtree as one train, the hash datagram first. A
//!   forwarder cuts through: the hash datagram as soon as it was verified, then chunks as they
//!   come, some from this parent and some from that. Only with consent: a subscription, or from a
//!   peer without our extensions the first question that reaches the live edge; and only stripes
//!   that are allowed as well. A choke stops it. Who subscribes to nothing gets it all from its
//!   neighbours, and is a subscriber all the same.
//! - *News* of subtrees that are not pushed, some at once.
//! - *Answers* to questions come before it: who asks has a deadline. They are paced.
//! - LEDBAT bounds what is under way, of both together; one second of the stream is the most.
//! - After one second without an acknowledgement only probes are sent, until anything is heard.

mod cut;
mod over;
mod push;
mod shown;
mod stock;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::crimes::Crime;
use crate::swarm::flight::{Age, Flight};
use crate::swarm::ledbat::{Floor, Ledbat, Losses};
use crate::swarm::pacer::Pacer;
use crate::swarm::requests::{Requests, Run};
use crate::swarm::sender::cut::Cut;
use crate::swarm::sender::shown::Shown;
use crate::swarm::stripes::{ALL_STRIPES, bit_of};

pub use crate::swarm::sender::stock::{Source, Stock};
pub use over::Over;

/// The most of a stream that may be under way.
const UNDER_WAY_MAX: Duration = Duration::from_secs(1);

/// Without an acknowledgement for so long only probes are sent.
const ACK_MAX: Duration = Duration::from_secs(1);

/// How often.
const PROBE: Duration = Duration::from_millis(200);

/// How often a peer hears of new subtrees that are not pushed to it.
const HAVE: Duration = Duration::from_millis(50);

/// How often a subscriber hears of those that a relay leaves to the peer's neighbours: it asks
/// the relay for them only when a deadline is near.
const HAVE_WITHHELD: Duration = Duration::from_millis(250);

/// How far the push may fall behind before it goes on at the live edge.
const LAG_MAX: Duration = Duration::from_secs(2);

/// How long after a train was sent a later one must have been acknowledged for the first to be
/// lost, on top of the round trip: what is sent later may arrive earlier, and a receiver waits
/// for what is missing.
const REORDERING: Duration = Duration::from_millis(150);

/// How long a plain peer may take to ask for what it was told of.
const HEARSAY: Duration = Duration::from_millis(100);

/// The longest round trip of a handshake that is believed: its first answer was lost, perhaps.
const HANDSHAKE_RTT_MAX: Duration = Duration::from_millis(600);

/// The trains that show whether full datagrams pass, and how long they have.
const FIRST_TRAINS: u8 = 3;
const FIRST_TRAINS_WAIT: Duration = Duration::from_secs(1);

/// A second answer for a subtree this soon does without the hash datagram: it was just sent.
const HASHED: Duration = Duration::from_millis(20);

/// Why something is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The peer gets every subtree.
    Push,
    /// The peer has been silent.
    Probe,
    /// It asked.
    Answer,
    /// The right-most munro, once (RFC 7574, 6.1.2.4).
    Newest,
}

/// What to send: of one subtree the hash datagram, some chunks, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// The subtree.
    pub subtree: u64,
    /// Whether the hash datagram goes first.
    pub hash: bool,
    /// The chunks.
    pub run: Option<Run>,
    /// Why.
    pub why: Why,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this.
    Send(Parcel),
    /// Tell of subtrees: the chunks of the run.
    Have(Run),
    /// Nothing before [`Sender::deadline`], or before something happens.
    Wait,
    /// Close the link.
    Close(Over),
}

/// The sending half of one link. See the module's page for the order of calls.
#[derive(Debug)]
pub struct Sender {
    flight: Flight,
    requests: Requests,
    ledbat: Ledbat,
    losses: Losses,
    pacer: Pacer,
    shown: Shown,
    /// The last answers: who asks for the same again lacks the hashes, perhaps.
    answered: [Option<Run>; 4],
    /// The last subtree whose hashes went with an answer, and when.
    hashed: (u64, Mono),
    /// What the peer has, by its own account: not pushed.
    had: Option<Run>,
    /// The next subtree to push: of those below it the peer was told, by a push or by news, or
    /// will be.
    next: u64,
    /// The first below `next` that was not pushed, and of which there were no news; `next` if
    /// there is none.
    untold: u64,
    have_at: Mono,
    heard: Mono,
    /// When something was last acknowledged, or when the wait for it began.
    acked: Mono,
    /// When only probes began to be sent, if `probing`.
    probing_since: Mono,
    probe_at: Mono,
    /// When the last of the first trains was sent.
    first_trains: Mono,
    /// Chunks that the peer allows under way; 0: no limit of its own.
    credit: u32,
    /// What only a forwarder keeps.
    cut: Option<Box<Cut>>,
    /// Which stripes the peer subscribes to.
    stripes: u8,
    /// Which of them it may have.
    allowed: u8,
    /// Which of them were added while the push was behind: not before it has caught up.
    fresh: u8,
    /// Trains sent, up to [`FIRST_TRAINS`].
    trains: u8,
    /// Datagrams sent since the peer was last heard, up to 3.
    unheard: u8,
    ever_acked: bool,
    probing: bool,
    /// Whether the peer speaks our extensions.
    ours: bool,
    /// Whether it has ever subscribed, be it to nothing.
    member: bool,
    choked: bool,
    greeted: bool,
    /// Whether a question waits that could be answered, but for its pace.
    asked: bool,
    /// Whether there is something to send, for which an acknowledgement has to make room.
    held: bool,
}

impl Sender {
    /// The half of a link that was confirmed just now. `ours`: the peer asks for a push in words
    /// of our extensions, so that a question is only a question.
    #[must_use]
    pub fn new(now: Mono, ours: bool) -> Sender {
        Sender {
            flight: Flight::default(),
            requests: Requests::default(),
            ledbat: Ledbat::default(),
            losses: Losses::default(),
            pacer: Pacer::default(),
            shown: Shown::default(),
            answered: [None; 4],
            hashed: (u64::MAX, Mono::ZERO),
            had: None,
            next: 0,
            untold: 0,
            have_at: now,
            heard: now,
            acked: now,
            probing_since: now,
            probe_at: now,
            first_trains: now,
            credit: 0,
            cut: None,
            stripes: 0,
            allowed: ALL_STRIPES,
            fresh: 0,
            trains: 0,
            unheard: 0,
            ever_acked: false,
            probing: false,
            ours,
            member: false,
            choked: false,
            greeted: false,
            asked: false,
            held: false,
        }
    }

    /// Begins with a round trip that was seen, of the handshake: without one, two trains are the
    /// window for the first round trip, and on a long way the stream begins late.
    #[must_use]
    pub fn with_rtt(mut self, rtt: Duration) -> Sender {
        self.ledbat.on_round_trip(rtt.min(HANDSHAKE_RTT_MAX));
        self
    }

    /// The half of a link from which chunks go on as they come: to a neighbour, who speaks our
    /// extensions. The link was confirmed just now.
    #[must_use]
    pub fn forwarder(now: Mono) -> Sender {
        let (cut, ledbat) = (Some(Box::default()), Ledbat::single());
        // A neighbour knows of the stream already.
        Sender { cut, ledbat, greeted: true, ..Sender::new(now, true) }
    }

    /// A datagram came from the peer, whatever was in it: ends probing. Returns whether it did.
    pub fn hear(&mut self, now: Mono) -> bool {
        self.heard = now;
        self.unheard = 0;
        let probing = std::mem::take(&mut self.probing);
        if probing {
            self.acked = now;
            // The last probe may be acknowledged in this very datagram.
            if now.since(self.probe_at - PROBE) > self.ledbat.rtt().unwrap_or(PROBE) + REORDERING {
                let lost = self.flight.clear();
                self.lose(now, lost);
            }
            if let Some(cut) = &mut self.cut {
                cut.doubt();
            }
        }
        probing
    }

    /// The peer subscribes to `stripes`, from chunk `start` on if it says so. Full state: the
    /// same again changes nothing. None: its neighbours bring all of them.
    pub fn subscribe(&mut self, stripes: u8, start: Option<u64>, credit: u32, source: &Source) {
        self.member = true;
        self.change(source, |sender| (sender.stripes, sender.credit) = (stripes, credit));
        if let Some(start) = start.map(|start| start.div_ceil(source.size))
            && start > self.next
        {
            self.untold = if self.untold == self.next { start } else { self.untold };
            self.next = start;
        }
    }

    /// Which stripes the peer may have pushed, if it subscribes to them; at first all. Those that
    /// are added begin with the next subtree.
    pub fn set_allowed(&mut self, stripes: u8, source: &Source) {
        self.change(source, |sender| sender.allowed = stripes);
    }

    /// Changes what is pushed. What is added begins with the next subtree to be signed; at a
    /// forwarder with the next whose hash datagram is verified.
    fn change(&mut self, source: &Source, change: impl FnOnce(&mut Sender)) {
        let before = self.pushed_stripes();
        self.pass(source);
        change(self);
        let new = self.pushed_stripes() & !before;
        if before == 0 && new != 0 && !self.ever_acked {
            // Trains of long ago, that nobody waited for, say nothing of the path.
            self.trains = 0;
        }
        if let Some(cut) = &mut self.cut {
            cut.fresh |= new;
        } else if before == 0 && new != 0 {
            // What came since `pass` was not pushed; there is nothing.
            self.fresh = 0;
        } else if self.next < source.subtrees.end {
            self.fresh |= new;
        }
    }

    /// The peer has these chunks, and acknowledges them.
    ///
    /// # Errors
    /// If they do not exist yet.
    pub fn handle_ack(
        &mut self,
        now: Mono,
        [first, last]: [u64; 2],
        delay: i64,
        source: &Source,
    ) -> Result<(), Crime> {
        let run = self.existing(first, last, source).ok_or(Crime::AckOfNothing)?;
        self.show(run, source);
        self.ever_acked = true;
        let before = self.flight.chunks();
        let acked = self.flight.ack(now, run, source.size);
        if acked.chunks == 0 {
            return Ok(());
        }
        self.acked = now;
        if acked.sampled {
            self.ledbat.on_delay(now, delay);
        }
        if let Some(cut) = &mut self.cut {
            cut.acked += u64::from(acked.chunks);
        }
        // Who gets chunks singly acknowledges at once only at a subtree's end.
        let prompt = self.cut.is_none() || (run.last() + 1).is_multiple_of(source.size);
        if let Some(rtt) = acked.round_trip.filter(|_| prompt || self.ledbat.rtt().is_none()) {
            self.ledbat.on_round_trip(rtt);
        }
        let trains = |chunks: u32| chunks as f32 / source.size as f32;
        self.ledbat.on_acked(trains(acked.chunks), trains(before));
        self.settle(now);
        Ok(())
    }

    /// The peer has these chunks: takes them off its questions, and pushes them no more.
    ///
    /// # Errors
    /// If they do not exist yet.
    pub fn handle_have(&mut self, [first, last]: [u64; 2], source: &Source) -> Result<(), Crime> {
        let run = self.existing(first, last, source).ok_or(Crime::HaveOfNothing)?;
        self.requests.remove(run);
        self.show(run, source);
        self.had = Some(run);
        Ok(())
    }

    /// The peer asks for chunks. Those that do not exist yet wait, within the window.
    ///
    /// # Errors
    /// If that is more than may wait: the rest was dropped.
    pub fn handle_request(
        &mut self,
        now: Mono,
        [first, last]: [u64; 2],
        source: &Source,
    ) -> Result<(), Crime> {
        self.age_questions(now);
        let size = source.size;
        let asked = Run::new(first, last).ok_or(Crime::RequestFlood)?;
        let end = source.chunks().end;
        if !self.ours && self.stripes == 0 && asked.last() + 1 >= end.saturating_sub(size) {
            self.change(source, |sender| sender.stripes = ALL_STRIPES);
        }
        let rtt = self.ledbat.rtt().unwrap_or_default();
        let touched = rtt * 3 / 4;
        // A train of which nothing was acknowledged was under way when the question was sent, or
        // all of it is lost, and then the question comes a round trip after it at the earliest. A
        // plain peer may ask for all that it hears of, also for what is being pushed.
        let untouched = if self.ours { rtt } else { rtt + HEARSAY };
        let age = Age { touched, untouched };
        let lost = self.flight.report(now, asked, size, age);
        if lost > 0 {
            self.lose(now, lost);
            self.ledbat.on_loss(now);
        }
        // Of some stripes only, what the push will bring waits all the same: see `question`.
        let pushed =
            if self.cut.is_none() && self.pushes_all() { self.next * size } else { u64::MAX };
        let most = pushed.min(end + source.window);
        let Some(run) = most.checked_sub(1).and_then(|m| Run::new(first, asked.last().min(m)))
        else {
            return if pushed < u64::MAX { Ok(()) } else { Err(Crime::RequestFlood) };
        };
        let dropped = self.requests.add(run, source.window);
        // Single chunks here and there are many runs, and no crime: they are asked for again.
        let flood = dropped > 0 && self.requests.chunks() + dropped > source.window;
        // What is on its way since the question was sent is no answer to wait for; should it get
        // lost, the peer asks again.
        let (requests, mut any) = (&mut self.requests, false);
        let mut found = |fresh| {
            requests.remove(fresh);
            any = true;
        };
        match &self.cut {
            None => self.flight.fresh(now, run, size, age, &mut found),
            Some(cut) => cut.fresh(now, run, size, touched, &mut found),
        }
        if let Some(cut) = self.cut.as_mut().filter(|_| !any) {
            cut.doubt_hash(asked, size);
        }
        if flood && self.cut.is_none() { Err(Crime::RequestFlood) } else { Ok(()) }
    }

    /// The peer no longer wants chunks that it asked for.
    pub fn handle_cancel(&mut self, [first, last]: [u64; 2]) {
        if let Some(run) = Run::new(first, last) {
            self.requests.remove(run);
        }
    }

    /// The peer wants nothing pushed; it is still told of new subtrees.
    pub fn handle_choke(&mut self) {
        self.choked = true;
    }

    /// The peer wants the push again: with the next subtree.
    pub fn handle_unchoke(&mut self, source: &Source) {
        self.change(source, |sender| sender.choked = false);
    }

    /// Whether subtrees are pushed.
    #[must_use]
    pub fn pushes(&self) -> bool {
        self.pushed_stripes() != 0
    }

    /// The stripes that are pushed: one bit each.
    #[must_use]
    pub fn pushed_stripes(&self) -> u8 {
        if self.choked { 0 } else { self.stripes & self.allowed }
    }

    /// The stripes that the peer subscribes to.
    #[must_use]
    pub fn subscribed(&self) -> u8 {
        self.stripes
    }

    /// What waits in queues on the path, once that is known.
    #[must_use]
    pub fn queueing(&self) -> Option<Duration> {
        self.ledbat.queueing()
    }

    /// The smoothed round trip, once there is one.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.ledbat.rtt()
    }

    /// Whether questions wait.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.requests.chunks() > 0
    }

    /// Whether what the other end says may let it send something.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.pushes() || self.is_asked() || self.probing || !self.flight.is_empty()
    }

    /// Whether what is acknowledged may let it send something.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// What to do now. What it says to send counts as sent.
    pub fn next(&mut self, now: Mono, stock: &impl Stock) -> Next {
        self.held = false;
        self.losses.note(now, 0, 0);
        if let Some(over) = self.over(now) {
            return Next::Close(over);
        }
        self.settle(now);
        if !self.probing && !self.flight.is_empty() && now.since(self.acked) >= ACK_MAX {
            let lost = self.flight.clear();
            self.lose(now, lost);
            self.ledbat.on_silence();
            self.probing = true;
            (self.probing_since, self.probe_at) = (now, now);
        }
        if let Some(cut) = &mut self.cut {
            cut.go_on(stock);
        }
        self.age_questions(now);
        let question = self.question(stock, ALL_STRIPES);
        self.asked = question.is_some();
        let parcel = match self.probing {
            _ if !stock.is_open() => None,
            true => self.probe(now, question, stock),
            false if self.cut.is_some() => self.pass_on(now, stock),
            false => self
                .greet(stock.source())
                .or_else(|| self.answer(now, question, stock.source()))
                .or_else(|| self.push(now, stock)),
        };
        if let Some(parcel) = parcel {
            self.unheard = self.unheard.saturating_add(1);
            return Next::Send(parcel);
        }
        self.asked &= !self.waits_for_line(stock);
        match self.have(now, stock) {
            Some(run) => Next::Have(run),
            None => Next::Wait,
        }
    }

    /// When [`Sender::next`], which has nothing now, may have something although nothing happened.
    #[must_use]
    pub fn deadline(&self, now: Mono, stock: &impl Stock) -> Mono {
        let source = stock.source();
        let mut at = now + ACK_MAX;
        if self.probing {
            at = at.min(self.probe_at);
        } else if !self.flight.is_empty() {
            at = at.min(self.acked + ACK_MAX);
        }
        if self.asked && self.has_room(1, source) {
            at = at.min(self.pacer.ready(source.train).max(now + Duration::from_millis(1)));
        }
        if self.has_news() {
            at = at.min(self.tells_from(stock));
        }
        if let Some(ages) = self.questions_age_at() {
            at = at.min(ages);
        }
        self.stuck_at().map_or(at, |stuck| at.min(stuck))
    }

    /// Gives up trains that later ones have overtaken.
    fn settle(&mut self, now: Mono) {
        // Hashes that were lost are asked for, and only then is the train acknowledged.
        let grace = self.ledbat.rtt().unwrap_or(REORDERING) * 2 + REORDERING;
        let lost = self.flight.expire(now, grace);
        if lost == 0 {
            return;
        }
        if !self.ours {
            self.lose(now, lost);
            self.ledbat.on_loss(now);
        } else if let Some(cut) = &mut self.cut {
            // Our own peers ask for what they miss, and soon: if one has not, only an
            // acknowledgement was lost. Counting trains for those would take the floor away from
            // who loses 2 %. But a neighbour may have asked somebody else.
            cut.lost += u64::from(lost);
        }
    }

    /// Chunks are known to be lost.
    fn lose(&mut self, now: Mono, lost: u32) {
        self.losses.note(now, 0, lost);
        if let Some(cut) = &mut self.cut {
            cut.lost += u64::from(lost);
        }
    }

    /// Chunks that a peer may speak of: to a relay of what exists, to a forwarder of anything,
    /// because others may have been faster.
    fn existing(&self, first: u64, last: u64, source: &Source) -> Option<Run> {
        let exists = |run: &Run| self.cut.is_some() || run.last() < source.chunks().end;
        Run::new(first, last).filter(exists)
    }

    fn show(&mut self, run: Run, source: &Source) {
        if let Some(cut) = &mut self.cut {
            return cut.show(run, source);
        }
        let last = run.last() / source.size;
        let first = (run.first() / source.size).max(last.saturating_sub(63));
        (first..=last).for_each(|subtree| self.shown.set(subtree));
    }

    /// Whether the peer has shown a chunk of a subtree.
    fn has_shown(&self, subtree: u64) -> bool {
        match &self.cut {
            Some(cut) => cut.has_shown(subtree),
            None => self.shown.has(subtree),
        }
    }

    fn pushes_all(&self) -> bool {
        self.pushed_stripes() == ALL_STRIPES
    }

    /// Whether `chunks` more may be under way.
    fn has_room(&self, chunks: u32, source: &Source) -> bool {
        let under_way = self.flight.chunks();
        if !self.flight.has_room() || self.credit > 0 && under_way + chunks > self.credit {
            return under_way == 0;
        }
        // Not whether all of them fit: one lost chunk must not stop a window of one train.
        under_way < self.most_under_way(source)
    }

    /// How many chunks may be under way; at least one.
    fn most_under_way(&self, source: &Source) -> u32 {
        let second = UNDER_WAY_MAX.as_secs_f32() / source.train.as_secs_f32().max(0.001);
        let floor = match (self.losses.high(), self.asked) {
            (true, _) => Floor::None,
            (false, asked) if self.cut.is_some() => {
                Floor::Part { stripes: self.pushed_stripes().count_ones(), asked }
            }
            (false, true) => Floor::Asked,
            (false, false) => Floor::Live,
        };
        let trains = self.ledbat.window(source.train, floor).min(second.max(2.0));
        let most = match self.cut {
            None => trains as u32 * source.size as u32,
            Some(_) => (trains * source.size as f32) as u32,
        };
        most.max(1)
    }

    /// Notes that chunks are sent now.
    fn send(&mut self, now: Mono, run: Run, source: &Source) {
        if self.flight.is_empty() && !self.probing {
            self.acked = now;
        }
        match &mut self.cut {
            None => self.flight.send(now, run, source.size),
            Some(cut) => {
                cut.sent(now, run, source.size);
                self.flight.join(now, run, source.size);
            }
        }
        self.losses.note(now, run.chunks() as u32, 0);
        if self.trains < FIRST_TRAINS {
            self.trains += 1;
            self.first_trains = now;
        }
    }

    /// The right-most munro, for a peer that nothing is pushed to; not for a subscriber, whose
    /// neighbours bring it.
    fn greet(&mut self, source: &Source) -> Option<Parcel> {
        let greeted = std::mem::replace(&mut self.greeted, true);
        if greeted || self.pushes() || self.is_member() {
            return None;
        }
        let subtree = source.newest()?;
        Some(Parcel { subtree, hash: true, run: None, why: Why::Newest })
    }

    /// The first question in some stripes that can be answered. Not of what a relay is about to
    /// push; but a forwarder's answer goes before the push, which then leaves it out.
    fn question(&mut self, stock: &impl Stock, stripes: u8) -> Option<Run> {
        if self.requests.chunks() == 0 {
            return None;
        }
        let source = stock.source();
        let mut requests = std::mem::take(&mut self.requests);
        let can = |subtree: u64| {
            let named = stripes & bit_of(subtree) != 0;
            let to_come = self.cut.is_none() && self.is_to_come(subtree, source.size);
            if named && !to_come { stock.chunks(subtree) } else { 0 }
        };
        let question = requests.next(source.chunks(), source.size, can);
        self.requests = requests;
        question
    }

    /// Answers a question if that may be now.
    fn answer(&mut self, now: Mono, question: Option<Run>, source: &Source) -> Option<Parcel> {
        let run = question?;
        let chunks = run.chunks() as u32;
        if self.pacer.ready(source.train) > now || !self.has_room(chunks, source) {
            self.held = true;
            return None;
        }
        let subtree = run.first() / source.size;
        let again = self.answered.iter().flatten().any(|before| before.meets(run));
        let just = self.hashed.0 == subtree && now.since(self.hashed.1) < HASHED;
        let hash = again || !self.has_shown(subtree) && !just;
        if let Some(cut) = &mut self.cut
            && hash
            && !just
            && (again || !cut.has_hashed(subtree))
        {
            // A datagram of its own; the chunks follow.
            cut.hashed(subtree);
            self.hashed = (subtree, now);
            return Some(Parcel { subtree, hash, run: None, why: Why::Answer });
        }
        let hash = hash && self.cut.is_none();
        self.requests.remove(run);
        self.pacer.sent(now, source.train, chunks, source.size as u32);
        if hash {
            self.hashed = (subtree, now);
        }
        self.answered.rotate_right(1);
        self.answered[0] = Some(run);
        self.send(now, run, source);
        Some(Parcel { subtree, hash, run: Some(run), why: Why::Answer })
    }
}

/// All chunks of a subtree.
fn whole(subtree: u64, size: u64) -> Option<Run> {
    let first = subtree.checked_mul(size)?;
    Run::new(first, first + size - 1)
}
