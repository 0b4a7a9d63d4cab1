//! One link's sending half: what to send next, and when to give the link up.
//!
//! It sends nothing itself. Whoever holds the link tells it what the peer said (`handle_*`) and
//! asks [`Sender::next`] until that has nothing, after every input, when a subtree was signed,
//! and at [`Sender::deadline`]; at least once a second.
//!
//! - *Push*: every subtree as one train, the hash datagram first. Only with consent: a
//!   subscription, or from a peer without our extensions the first question that reaches the
//!   live edge. A choke stops it.
//! - *Answers* to questions come before it: who asks has a deadline. They are paced.
//! - LEDBAT bounds what is under way, of both together; one second of the stream is the most.
//! - After one second without an acknowledgement only probes are sent, until anything is heard.
//!
//! A relay has whole subtrees; a viewer passes on what it has of them as it comes (`cut`).

mod cut;
mod news;
mod stock;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::crimes::Crime;
use crate::swarm::flight::{Age, Flight};
use crate::swarm::ledbat::{Floor, Ledbat, Losses};
use crate::swarm::pacer::Pacer;
use crate::swarm::requests::{Requests, Run};
use crate::swarm::sender::cut::Cut;
use crate::swarm::sender::news::Shown;
use crate::swarm::sender::stock::all;

pub use stock::{Source, Stock};

/// The most of a stream that may be under way.
const UNDER_WAY_MAX: Duration = Duration::from_secs(1);

/// Without an acknowledgement for so long only probes are sent.
const ACK_MAX: Duration = Duration::from_secs(1);

/// How often.
const PROBE: Duration = Duration::from_millis(200);

/// After so long in vain the peer is dead.
const PROBING_MAX: Duration = Duration::from_secs(10);

/// A subscriber repeats itself every second: silence for so long means that it is gone.
const SILENCE_SUBSCRIBED: Duration = Duration::from_secs(10);

/// Silence of other peers after which they are gone, if three datagrams were sent meanwhile
/// (RFC 7574, 3.12).
const SILENCE: Duration = Duration::from_secs(180);

/// How far the push may fall behind before it goes on at the live edge.
const LAG_MAX: Duration = Duration::from_secs(2);

/// How long after a train was sent a later one must have been acknowledged for the first to be
/// lost, on top of the round trip: what is sent later may arrive earlier, and a receiver waits
/// for what is missing.
const REORDERING: Duration = Duration::from_millis(150);

/// How long a plain peer may take to ask for what it was told of.
const HEARSAY: Duration = Duration::from_millis(100);

/// The trains that show whether full datagrams pass, and how long they have.
const FIRST_TRAINS: u8 = 3;
const FIRST_TRAINS_WAIT: Duration = Duration::from_secs(1);

/// A second answer for a subtree this soon does without the hash datagram: it was just sent.
const HASHED: Duration = Duration::from_millis(20);

/// All stripes: every subtree.
pub const ALL_STRIPES: u8 = 0xff;

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

/// Why a link is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Nothing is heard any more.
    Dead,
    /// The path loses too much: it is too small for the stream.
    Downlink,
    /// Full datagrams do not pass.
    Mtu,
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
    /// The next subtree to push.
    next: u64,
    /// Below this subtree the peer was told of all.
    announced: u64,
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
    /// Which stripes the peer asks for, and which may be pushed to it.
    stripes: u8,
    allowed: u8,
    /// What is sent as it comes; only of a viewer that passes on.
    cut: Option<Box<Cut>>,
    /// Trains sent, up to [`FIRST_TRAINS`].
    trains: u8,
    /// Datagrams sent since the peer was last heard, up to 3.
    unheard: u8,
    ever_acked: bool,
    probing: bool,
    /// Whether the peer speaks our extensions.
    ours: bool,
    choked: bool,
    greeted: bool,
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
            announced: 0,
            have_at: now,
            heard: now,
            acked: now,
            probing_since: now,
            probe_at: now,
            first_trains: now,
            credit: 0,
            stripes: 0,
            allowed: ALL_STRIPES,
            cut: None,
            trains: 0,
            unheard: 0,
            ever_acked: false,
            probing: false,
            ours,
            choked: false,
            greeted: false,
        }
    }

    /// A datagram came from the peer, whatever was in it: ends probing.
    pub fn hear(&mut self, now: Mono) {
        self.heard = now;
        self.unheard = 0;
        if std::mem::take(&mut self.probing) {
            self.acked = now;
            // The last probe may be acknowledged in this very datagram.
            if now.since(self.probe_at - PROBE) > self.ledbat.rtt().unwrap_or(PROBE) + REORDERING {
                let lost = self.flight.clear();
                self.losses.note(now, 0, lost);
            }
        }
    }

    /// The peer subscribes to `stripes`, from chunk `start` on if it says so. Full state: the
    /// same again changes nothing.
    pub fn subscribe(&mut self, stripes: u8, start: Option<u64>, credit: u32, source: &Source) {
        let before = self.pushed_stripes();
        (self.stripes, self.credit) = (stripes, credit);
        self.begin_push(before, source);
        if let Some(start) = start {
            self.next = self.next.max(start.div_ceil(source.size));
        }
    }

    /// Which stripes may be pushed, of those that the peer asks for: all, if nobody says
    /// otherwise.
    pub fn set_allowed(&mut self, stripes: u8, source: &Source) {
        let before = self.pushed_stripes();
        self.allowed = stripes;
        self.begin_push(before, source);
    }

    /// A push begins with the next subtree.
    fn begin_push(&mut self, before: u8, source: &Source) {
        if before == 0 && self.pushed_stripes() != 0 {
            self.next = source.subtrees.end;
        }
    }

    /// The stripes that are pushed.
    #[must_use]
    pub fn pushed_stripes(&self) -> u8 {
        if self.choked { 0 } else { self.stripes & self.allowed }
    }

    /// The round trip, once there is one.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.ledbat.rtt()
    }

    /// How long what is sent waits in queues on its way, once that is known.
    #[must_use]
    pub fn queueing(&self) -> Option<Duration> {
        self.ledbat.rtt().map(|_| self.ledbat.queueing_delay())
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
        let run = self.real(Run::new(first, last), source).ok_or(Crime::AckOfNothing)?;
        self.show(run, source.size);
        self.ever_acked = true;
        let before = self.flight.chunks();
        let acked = self.flight.ack(now, run, source.size);
        if acked.chunks == 0 {
            return Ok(());
        }
        self.count(acked.chunks, 0);
        self.acked = now;
        if acked.sampled {
            self.ledbat.on_delay(now, delay);
        }
        if let Some(rtt) = acked.round_trip {
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
        let run = self.real(Run::new(first, last), source).ok_or(Crime::HaveOfNothing)?;
        self.requests.remove(run);
        self.show(run, source.size);
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
        let size = source.size;
        let asked = Run::new(first, last).ok_or(Crime::RequestFlood)?;
        let end = source.chunks().end;
        if !self.ours && self.stripes == 0 && asked.last() + 1 >= end.saturating_sub(size) {
            self.stripes = ALL_STRIPES;
            self.next = source.subtrees.end;
        }
        let rtt = self.ledbat.rtt().unwrap_or_default();
        let touched = rtt * 3 / 4;
        // A plain peer may ask for all that it hears of, also for what is being pushed.
        let untouched = if self.ours { touched } else { rtt + HEARSAY };
        let age = Age { touched, untouched };
        let lost = self.flight.report(now, asked, size, age);
        if lost > 0 {
            self.losses.note(now, 0, lost);
            self.ledbat.on_loss(now);
        }
        let pushed = if self.pushes_all() { self.next * size } else { u64::MAX };
        let most = pushed.min(end + source.window);
        let Some(run) = most.checked_sub(1).and_then(|m| Run::new(first, asked.last().min(m)))
        else {
            return if self.pushes_all() { Ok(()) } else { Err(Crime::RequestFlood) };
        };
        let dropped = self.requests.add(run, source.window);
        // What is on its way since the question was sent is no answer to wait for; should it get
        // lost, the peer asks again.
        let requests = &mut self.requests;
        self.flight.fresh(now, run, size, age, &mut |fresh| requests.remove(fresh));
        if dropped > 0 { Err(Crime::RequestFlood) } else { Ok(()) }
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
        if std::mem::take(&mut self.choked) {
            self.next = source.subtrees.end;
        }
    }

    /// Whether subtrees are pushed.
    #[must_use]
    pub fn pushes(&self) -> bool {
        self.pushed_stripes() != 0
    }

    /// What exists of a run that a peer names. Who only passes on may know of less than the peer.
    fn real(&self, run: Option<Run>, source: &Source) -> Option<Run> {
        run.filter(|run| self.cut.is_some() || run.last() < source.chunks().end)
    }

    /// Whether questions wait.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.requests.chunks() > 0
    }

    /// What to do now. What it says to send counts as sent.
    pub fn next(&mut self, now: Mono, stock: &impl Stock) -> Next {
        let source = stock.source();
        self.losses.note(now, 0, 0);
        if let Some(over) = self.over(now) {
            return Next::Close(over);
        }
        self.settle(now);
        if !self.probing && !self.flight.is_empty() && now.since(self.acked) >= ACK_MAX {
            let lost = self.flight.clear();
            self.losses.note(now, 0, lost);
            self.ledbat.on_silence();
            self.probing = true;
            (self.probing_since, self.probe_at) = (now, now);
        }
        let parcel = match self.probing {
            true => self.probe(now, source),
            false => self
                .greet(source)
                .or_else(|| self.answer(now, stock))
                .or_else(|| self.push(now, stock)),
        };
        if let Some(parcel) = parcel {
            self.unheard = self.unheard.saturating_add(1);
            return Next::Send(parcel);
        }
        match self.have(now, stock) {
            Some(run) => Next::Have(run),
            None => Next::Wait,
        }
    }

    /// When [`Sender::next`] may have something although nothing happened.
    #[must_use]
    pub fn deadline(&self, now: Mono, source: &Source) -> Mono {
        let mut at = now + ACK_MAX;
        if self.probing {
            at = at.min(self.probe_at);
        } else if !self.flight.is_empty() {
            at = at.min(self.acked + ACK_MAX);
        }
        if self.requests.any_below(source.chunks().end) && self.has_room(1, source) {
            at = at.min(self.pacer.ready(source.train).max(now + Duration::from_millis(1)));
        }
        if self.has_news(source) {
            at = at.min(self.have_at + self.have_apart());
        }
        if self.trains >= FIRST_TRAINS && !self.ever_acked {
            at = at.min(self.first_trains + FIRST_TRAINS_WAIT);
        }
        at
    }

    /// Why the link is over, if it is.
    fn over(&self, now: Mono) -> Option<Over> {
        let most = if self.cut.is_some() { cut::PROBING_MAX } else { PROBING_MAX };
        let in_vain = self.probing && now.since(self.probing_since) >= most;
        let silence = now.since(self.heard);
        let gone = match self.ours && self.stripes != 0 {
            true => silence >= SILENCE_SUBSCRIBED,
            false => silence >= SILENCE && self.unheard >= 3,
        };
        let stuck = self.trains >= FIRST_TRAINS && !self.ever_acked;
        if in_vain || gone {
            Some(Over::Dead)
        } else if !self.probing && self.losses.endured(now) {
            Some(Over::Downlink)
        } else if stuck && now.since(self.first_trains) >= FIRST_TRAINS_WAIT {
            Some(Over::Mtu)
        } else {
            None
        }
    }

    /// Gives up trains that later ones have overtaken.
    fn settle(&mut self, now: Mono) {
        // Hashes that were lost are asked for, and only then is the train acknowledged.
        let grace = self.ledbat.rtt().unwrap_or(REORDERING) * 2 + REORDERING;
        let lost = self.flight.expire(now, grace);
        // Our own peers ask for what they miss, and soon: if one has not, only an acknowledgement
        // was lost. Counting trains for those would take the floor away from who loses 2 %.
        if lost > 0 && !self.ours {
            self.count(0, lost);
            self.losses.note(now, 0, lost);
            self.ledbat.on_loss(now);
        }
    }

    fn show(&mut self, run: Run, size: u64) {
        let last = run.last() / size;
        let first = (run.first() / size).max(last.saturating_sub(63));
        (first..=last).for_each(|subtree| self.shown.set(subtree));
        if let Some(cut) = &mut self.cut {
            cut.note_theirs(run, size);
        }
    }

    fn pushes_all(&self) -> bool {
        self.pushed_stripes() == ALL_STRIPES && self.cut.is_none()
    }

    /// Whether `chunks` more may be under way.
    fn has_room(&self, chunks: u32, source: &Source) -> bool {
        let under_way = self.flight.chunks();
        if !self.flight.has_room() || self.credit > 0 && under_way + chunks > self.credit {
            return under_way == 0;
        }
        if self.cut.is_some() {
            return self.has_room_to_forward(chunks, source);
        }
        let second = UNDER_WAY_MAX.as_secs_f32() / source.train.as_secs_f32().max(0.001);
        let floor = match (self.losses.high(), self.requests.any_below(source.chunks().end)) {
            (true, _) => Floor::None,
            (false, true) => Floor::Asked,
            (false, false) => Floor::Live,
        };
        let window = self.ledbat.window(source.train, floor);
        let most = window.min(second.max(2.0)) as u32 * source.size as u32;
        // Not whether all of them fit: one lost chunk must not stop a window of one train.
        under_way < most.max(1)
    }

    /// Notes that chunks are sent now.
    fn send(&mut self, now: Mono, run: Run, source: &Source) {
        if self.flight.is_empty() && !self.probing {
            self.acked = now;
        }
        match &mut self.cut {
            Some(cut) => {
                cut.note_theirs(run, source.size);
                self.flight.join(now, run, source.size);
            }
            None => self.flight.send(now, run, source.size),
        }
        self.losses.note(now, run.chunks() as u32, 0);
        if self.trains < FIRST_TRAINS {
            self.trains += 1;
            self.first_trains = now;
        }
    }

    /// The right-most munro, for a peer that nothing is pushed to.
    fn greet(&mut self, source: &Source) -> Option<Parcel> {
        if std::mem::replace(&mut self.greeted, true) || self.pushes() {
            return None;
        }
        let subtree = source.newest()?;
        Some(Parcel { subtree, hash: true, run: None, why: Why::Newest })
    }

    /// The first question that can be answered and may be now.
    fn answer(&mut self, now: Mono, stock: &impl Stock) -> Option<Parcel> {
        let source = stock.source();
        let run = match self.cut {
            Some(_) => self.requests.next_there(source.chunks(), source.size, &|s| stock.chunks(s)),
            None => self.requests.next(source.chunks(), source.size),
        }?;
        // What is about to be pushed is not answered as well.
        let number = run.first() / source.size;
        if self.cut.is_none() && number >= self.next && self.wants(number, source.size) {
            return None;
        }
        let chunks = run.chunks() as u32;
        if self.pacer.ready(source.train) > now || !self.has_room(chunks, source) {
            return None;
        }
        self.requests.remove(run);
        self.pacer.sent(now, source.train, chunks, source.size as u32);
        let subtree = run.first() / source.size;
        let again = self.answered.iter().flatten().any(|before| before.meets(run));
        let just = self.hashed.0 == subtree && now.since(self.hashed.1) < HASHED;
        let just = just || self.cut.as_ref().is_some_and(|cut| cut.has_hashed(subtree));
        let hash = again || !self.shown.has(subtree) && !just;
        if hash {
            self.hashed = (subtree, now);
        }
        self.answered.rotate_right(1);
        self.answered[0] = Some(run);
        self.send(now, run, source);
        Some(Parcel { subtree, hash, run: Some(run), why: Why::Answer })
    }

    /// The next subtree of a push.
    fn push(&mut self, now: Mono, stock: &impl Stock) -> Option<Parcel> {
        if self.cut.is_some() {
            return self.forward(now, stock);
        }
        let source = stock.source();
        if !self.pushes() {
            return None;
        }
        self.keep_up(now, source);
        while self.next < source.subtrees.end && !self.wants(self.next, source.size) {
            self.next += 1;
        }
        let run = whole(self.next, source.size)?;
        // Questions are about what is played sooner: as long as some wait for their pace, the
        // push leaves them room, or it would keep them waiting for round trips.
        let asked = self.requests.any_below(source.chunks().end);
        let room = if asked { 2 * source.size } else { source.size };
        if self.next >= source.subtrees.end || !self.has_room(room as u32, source) {
            return None;
        }
        Some(self.push_one(now, run, Why::Push, source))
    }

    /// Goes on at the live edge if the push is too far behind for any player: what was skipped
    /// counts as lost.
    fn keep_up(&mut self, now: Mono, source: &Source) {
        let Range { start, end } = source.subtrees;
        let behind = u128::from(end.saturating_sub(self.next));
        let most = LAG_MAX.as_nanos() / source.train.as_nanos().max(1);
        if self.next >= start && behind <= most.max(2) {
            return;
        }
        let Some(newest) = source.newest() else { return };
        let skipped = newest.saturating_sub(self.next).saturating_mul(source.size);
        let skipped = u32::try_from(skipped).unwrap_or(u32::MAX);
        self.losses.note(now, skipped, skipped);
        self.next = newest;
    }

    fn push_one(&mut self, now: Mono, run: Run, why: Why, source: &Source) -> Parcel {
        let subtree = run.first() / source.size;
        self.next = self.next.max(subtree + 1);
        if self.pushes_all() {
            self.announced = self.announced.max(self.next);
        }
        self.requests.remove(run);
        self.send(now, run, source);
        Parcel { subtree, hash: true, run: Some(run), why }
    }

    /// Whether a subtree is to be pushed.
    fn wants(&self, subtree: u64, size: u64) -> bool {
        let had = whole(subtree, size).zip(self.had).is_some_and(|(run, had)| had.holds(run));
        self.pushed_stripes() & 1 << (subtree % 8) != 0 && !had
    }

    /// One train to a peer that is silent: the next of a push, or the next answer.
    fn probe(&mut self, now: Mono, source: &Source) -> Option<Parcel> {
        if now < self.probe_at {
            return None;
        }
        self.flight.clear();
        if self.cut.is_some() {
            // A neighbour says something every second.
            self.probe_at = now + PROBE;
            return None;
        }
        if self.pushes()
            && let Some(newest) = source.newest()
        {
            self.probe_at = now + PROBE;
            self.keep_up(now, source);
            let run = whole(self.next.min(newest), source.size)?;
            return Some(self.push_one(now, run, Why::Probe, source));
        }
        let Some(run) = self.requests.next(source.chunks(), source.size) else {
            self.probing = false;
            return None;
        };
        self.probe_at = now + PROBE;
        self.send(now, run, source);
        let subtree = run.first() / source.size;
        Some(Parcel { subtree, hash: true, run: Some(run), why: Why::Probe })
    }
}

/// All chunks of a subtree.
fn whole(subtree: u64, size: u64) -> Option<Run> {
    let first = subtree.checked_mul(size)?;
    Run::new(first, first + size - 1)
}
