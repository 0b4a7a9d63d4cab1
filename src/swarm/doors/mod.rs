//! Doors between viewers: handshakes of those whom the relay introduced to each other.
//!
//! The attack: somebody opens links to a viewer to find out who watches, to fill its tables or to
//! have answers sent to a third party. So a viewer answers only an address that its relay named
//! within the last minute, never with more bytes than were asked with, and is silent otherwise,
//! as if nobody were there. The port may differ from the one that the relay saw: a symmetric NAT
//! gives every destination another.
//!
//! Both ends are told at the same time, and both open at once: the first opening of each makes
//! way through its own NAT for the other's. Two openings that cross become one link: the one
//! with the numerically smaller source channel counts, and both sides know both.
//!
//! How to use them:
//!
//! 1. The relay named an address: [`Doors::introduce`]. A datagram on channel 0:
//!    [`Doors::handle_opening`], whose answer goes to where it came from. A datagram on a channel
//!    that [`Doors::holds`]: [`Doors::handle_datagram`].
//! 2. After each of these: give back what [`Doors::take_dropped`] gives, send what
//!    [`Doors::poll_datagram`] writes.
//! 3. At [`Doors::next_deadline`]: [`Doors::expire`], then as in 2.
//! 4. A link that has ended: [`Doors::close`].

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::limits::CHUNK;
use crate::base::time::Mono;
use crate::swarm::opener::{Opened, Opener, is_private};
use crate::swarm::receiver::Profile;
use crate::wire::ppspp::{Handshake, Message, Messages, Options, Span, build};

/// How long an address is let in after the relay named it.
const INTRODUCED: Duration = Duration::from_secs(60);

/// The most addresses that are let in; the oldest makes room.
const INTRODUCTIONS_MAX: usize = 64;

/// Addresses that did not answer: they are let in, and not opened to again for as long as an
/// introduction counts. The oldest is forgotten.
const VAIN_MAX: usize = 64;

/// The most openings of ours under way. What is beyond is not opened; the other side may still.
const OPENINGS_MAX: usize = 16;

/// Openings follow each other so far apart: they leave most of a line that takes no more than
/// 200 kbit/s to what a newcomer asks the relay for.
const APART: Duration = Duration::from_millis(20);

/// The most openings of others that were answered and not confirmed; the oldest makes room.
const ANSWERS_MAX: usize = 32;

/// How long each of them is waited for.
const ANSWER_OVER: Duration = Duration::from_secs(3);

/// The most links that are remembered; the oldest is forgotten, which only makes us open again
/// to somebody whom we know already.
const LINKS_MAX: usize = 64;

/// Channels that the caller has not taken back; as long as there are so many nobody is answered.
const DROPPED_MAX: usize = 64;

/// HAVEs in an answer.
const HAVES: usize = 4;

/// A link that is established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// Our channel.
    pub ours: u32,
    /// The other side's.
    pub theirs: u32,
    /// Where it is.
    pub to: SocketAddr,
    /// It speaks our private messages.
    pub private: bool,
    /// The round trip: from our first opening or answer to what came back.
    pub rtt: Option<Duration>,
    /// What its answer said, if we opened.
    pub opened: Option<Opened>,
    /// The datagram must also be given to the link: it is the first on it.
    pub rest: bool,
}

impl Entered {
    /// What a receiver begins with, whoever opened.
    #[must_use]
    pub fn opened(&self) -> Opened {
        let mut opened = self.opened.unwrap_or(Opened::by_other(self.theirs, self.private));
        opened.rtt = self.rtt.unwrap_or(opened.rtt);
        opened
    }
}

/// An opening of ours.
#[derive(Debug)]
struct Opening {
    opener: Opener,
    to: SocketAddr,
}

/// An opening of somebody else's that we answered.
#[derive(Clone, Copy, Debug)]
struct Answer {
    from: SocketAddr,
    /// Their channel, which names the opening.
    theirs: u32,
    ours: u32,
    private: bool,
    at: Mono,
}

/// A link that was established.
#[derive(Clone, Copy, Debug)]
struct Link {
    to: SocketAddr,
    theirs: u32,
    ours: u32,
    /// We opened.
    opened: bool,
    at: Mono,
}

/// The doors of one viewer.
#[derive(Debug)]
pub struct Doors {
    profile: Profile,
    /// Who is let in, and until when; the oldest first.
    introduced: VecDeque<(SocketAddr, Mono)>,
    openings: Vec<Opening>,
    /// When the next one may go out.
    opens_at: Mono,
    vain: VecDeque<(SocketAddr, Mono)>,
    /// The oldest first.
    answers: VecDeque<Answer>,
    links: VecDeque<Link>,
    /// Channels that are not needed any longer.
    dropped: VecDeque<u32>,
    /// Entries that made room for newer ones, and those for which there was none.
    forgotten: u64,
}

impl Doors {
    /// Doors that let nobody in.
    #[must_use]
    pub fn new(profile: Profile) -> Doors {
        Doors {
            profile,
            introduced: VecDeque::new(),
            openings: Vec::new(),
            opens_at: Mono::ZERO,
            vain: VecDeque::new(),
            answers: VecDeque::new(),
            links: VecDeque::new(),
            dropped: VecDeque::new(),
            forgotten: 0,
        }
    }

    /// The relay named `addr`: it is let in for a minute, and is opened to on `channel` unless
    /// that is under way or done. False: the channel was not needed.
    pub fn introduce(&mut self, now: Mono, addr: SocketAddr, channel: u32) -> bool {
        self.introduced.retain(|(known, until)| !same(*known, addr) && now < *until);
        self.forgotten += push_out(&mut self.introduced, INTRODUCTIONS_MAX);
        self.introduced.push_back((addr, now + INTRODUCED));
        let known = self.openings.iter().any(|opening| same(opening.to, addr))
            || self.answers.iter().any(|answer| same(answer.from, addr))
            || self.links.iter().any(|link| same(link.to, addr));
        self.vain.retain(|(_, until)| now < *until);
        let vain = self.vain.iter().any(|(to, _)| same(*to, addr));
        if known || vain {
            return false;
        }
        if self.openings.len() == OPENINGS_MAX {
            self.forgotten += 1;
            return false;
        }
        let opener = Opener::new(self.profile, channel, now);
        self.openings.push(Opening { opener, to: addr });
        true
    }

    /// Whether the relay named this very address within the last minute.
    #[must_use]
    pub fn has_introduced(&self, now: Mono, addr: SocketAddr) -> bool {
        self.introduced.iter().any(|(known, until)| same(*known, addr) && now < *until)
    }

    /// Takes an opening: a datagram of `length` bytes on channel 0. Writes the answer, or is
    /// silent. `ours` is the channel to answer with; whether it is needed [`Doors::holds`] says
    /// afterwards, for an opening that is repeated is answered as it was before.
    #[allow(clippy::too_many_arguments, reason = "a datagram, and what an answer says")]
    pub fn handle_opening(
        &mut self,
        now: Mono,
        from: SocketAddr,
        length: usize,
        messages: &[u8],
        ours: u32,
        window: u64,
        have: impl Iterator<Item = Span>,
        buf: &mut [u8],
    ) -> Option<usize> {
        let (theirs, private) = self.judge(now, from, messages)?;
        let before = self.before(from, theirs);
        if before.is_none() && !self.gives_way(now, from, theirs) {
            return None;
        }
        let channel = before.unwrap_or(ours);
        let written = self.write_answer([theirs, channel], window, have, length, buf)?;
        if before.is_none() {
            if self.answers.len() == ANSWERS_MAX {
                let oldest = self.answers.pop_front();
                self.dropped.extend(oldest.map(|answer| answer.ours));
                self.forgotten += 1;
            }
            self.answers.push_back(Answer { from, theirs, ours, private, at: now });
        }
        Some(written)
    }

    /// Whether an opening is right and from somebody who was introduced: its channel, and whether
    /// our private messages are spoken there.
    fn judge(&self, now: Mono, from: SocketAddr, messages: &[u8]) -> Option<(u32, bool)> {
        let ip = from.ip().to_canonical();
        let mut introduced = self.introduced.iter().filter(|(_, until)| now < *until);
        let known = introduced.any(|(addr, _)| addr.ip().to_canonical() == ip);
        if !known || self.dropped.len() >= DROPPED_MAX {
            return None;
        }
        let Some(Ok(Message::Handshake(Handshake { channel, options }))) =
            Messages::opening(messages).next()
        else {
            return None;
        };
        let ours = options.swarm_id? == self.profile.swarm_id.as_bytes();
        let fits = options.judge_opening(self.profile.addressing, CHUNK as u32).is_ok();
        (channel != 0 && ours && fits).then(|| (channel, is_private(&options)))
    }

    /// The channel with which this opening was answered before.
    fn before(&self, from: SocketAddr, theirs: u32) -> Option<u32> {
        let answers = self.answers.iter().map(|answer| (answer.from, answer.theirs, answer.ours));
        let links = self.links.iter().filter(|link| !link.opened);
        let links = links.map(|link| (link.to, link.theirs, link.ours));
        answers
            .chain(links)
            .find(|(addr, channel, _)| same(*addr, from) && *channel == theirs)
            .map(|(.., ours)| ours)
    }

    /// Whether an opening counts although one of ours has crossed it; ours is dropped then.
    fn gives_way(&mut self, now: Mono, from: SocketAddr, theirs: u32) -> bool {
        let crossing = self.openings.iter().position(|opening| same(opening.to, from));
        if let Some(place) = crossing {
            let ours = self.openings[place].opener.channel();
            if ours < theirs {
                return false;
            }
            self.openings.swap_remove(place);
            self.dropped.push_back(ours);
            return true;
        }
        // One that crossed ours and came only after the answer to ours.
        let late = |link: &Link| {
            link.opened && same(link.to, from) && link.ours < theirs && now < link.at + ANSWER_OVER
        };
        !self.links.iter().any(late)
    }

    /// Writes an answer that is no longer than what it answers, with as many HAVEs as fit.
    fn write_answer(
        &self,
        [theirs, ours]: [u32; 2],
        window: u64,
        have: impl Iterator<Item = Span>,
        length: usize,
        buf: &mut [u8],
    ) -> Option<usize> {
        let room = buf.len().min(length);
        let buf = &mut buf[..room];
        let options = Options::reply(self.profile.addressing, window, CHUNK as u32);
        let have: Vec<Span> = have.take(HAVES).collect();
        let tries = (0..=have.len()).rev();
        tries
            .map(|count| build::reply(buf, theirs, ours, options, have[..count].iter().copied()))
            .find_map(|written| written)
    }

    /// Takes the messages of a datagram on a channel of the doors. `Some`: a link is established.
    pub fn handle_datagram(
        &mut self,
        now: Mono,
        channel: u32,
        from: SocketAddr,
        messages: &[u8],
    ) -> Option<Entered> {
        let opening = self.openings.iter().position(|open| open.opener.channel() == channel);
        if let Some(place) = opening {
            return self.answered(now, place, from, messages);
        }
        // A known channel from a new address is ignored.
        let confirms = |answer: &Answer| answer.ours == channel && same(answer.from, from);
        let place = self.answers.iter().position(confirms)?;
        let Answer { theirs, ours, private, at, .. } = self.answers.remove(place)?;
        if is_close(self.profile, messages) {
            self.dropped.push_back(ours);
            return None;
        }
        let rtt = Some(now.since(at));
        self.remember(Link { to: from, theirs, ours, opened: false, at: now });
        Some(Entered { ours, theirs, to: from, private, rtt, opened: None, rest: true })
    }

    /// An opening of ours got a datagram. The port it came from may be another than the one that
    /// was opened to: behind a symmetric NAT the relay has seen another than we do.
    fn answered(
        &mut self,
        now: Mono,
        place: usize,
        from: SocketAddr,
        messages: &[u8],
    ) -> Option<Entered> {
        let Opening { opener, to } = &self.openings[place];
        if to.ip().to_canonical() != from.ip().to_canonical() {
            return None;
        }
        let opened = opener.handle_datagram(now, messages)?;
        let (ours, theirs) = (opener.channel(), opened.channel);
        self.openings.swap_remove(place);
        self.remember(Link { to: from, theirs, ours, opened: true, at: now });
        let Opened { private, rtt, .. } = opened;
        let (rtt, opened) = (Some(rtt), Some(opened));
        Some(Entered { ours, theirs, to: from, private, rtt, opened, rest: false })
    }

    fn remember(&mut self, link: Link) {
        self.forgotten += push_out(&mut self.links, LINKS_MAX);
        self.links.push_back(link);
    }

    /// The link on our channel `channel` has ended: its address may be opened to again.
    pub fn close(&mut self, channel: u32) {
        self.links.retain(|link| link.ours != channel);
    }

    /// Writes the next opening, if one is due and the last one was long enough ago.
    pub fn poll_datagram(
        &mut self,
        now: Mono,
        window: u64,
        buf: &mut [u8],
    ) -> Option<(SocketAddr, usize)> {
        if now < self.opens_at {
            return None;
        }
        // First those that nobody has heard of.
        let due = self.openings.iter_mut().filter_map(|one| Some((one.opener.due(now)?, one)));
        let (_, Opening { opener, to }) = due.min_by_key(|(sent, _)| *sent)?;
        self.opens_at = now + APART;
        opener.poll_datagram(now, window, buf).map(|written| (*to, written))
    }

    /// When something is to be done, at the earliest.
    #[must_use]
    pub fn next_deadline(&self, now: Mono) -> Option<Mono> {
        let openings = self.openings.iter().map(|opening| opening.opener.next_deadline(now));
        let opens = openings.min().map(|at| at.max(self.opens_at));
        opens.into_iter().chain(self.answers.front().map(|answer| answer.at + ANSWER_OVER)).min()
    }

    /// Gives up what has taken too long: tells `gone` our channel, whose opening it was or to
    /// whom it went, and whether that is to say that no direct path leads there.
    pub fn expire(&mut self, now: Mono, gone: &mut impl FnMut(u32, SocketAddr, bool)) {
        while let Some(place) = self.openings.iter().position(|open| open.opener.is_over(now)) {
            let Opening { opener, to } = self.openings.swap_remove(place);
            self.leave_alone(now, to);
            gone(opener.channel(), to, !self.has_strayed(to));
        }
        while self.answers.front().is_some_and(|answer| now >= answer.at + ANSWER_OVER) {
            if let Some(Answer { from, ours, .. }) = self.answers.pop_front() {
                // What was sent there and never confirmed was in vain as well.
                self.leave_alone(now, from);
                gone(ours, from, false);
            }
        }
        while self.introduced.front().is_some_and(|(_, until)| now >= *until) {
            self.introduced.pop_front();
        }
    }

    /// Nobody there has shown that anything arrives: for a while it is not opened to.
    fn leave_alone(&mut self, now: Mono, addr: SocketAddr) {
        self.vain.retain(|(known, _)| !same(*known, addr));
        self.forgotten += push_out(&mut self.vain, VAIN_MAX);
        self.vain.push_back((addr, now + INTRODUCED));
    }

    /// Whether somebody at the IP of `to` came in from a port that the relay has not named: a
    /// symmetric NAT, behind which `to` has come to us while we do not get there.
    fn has_strayed(&self, to: SocketAddr) -> bool {
        let answers = self.answers.iter().map(|answer| answer.from);
        let strangers = self.links.iter().map(|link| link.to).chain(answers);
        let named = |addr| self.introduced.iter().any(|(known, _)| same(*known, addr));
        let ip = |addr: SocketAddr| -> IpAddr { addr.ip().to_canonical() };
        strangers.into_iter().any(|addr| same(addr, to) || (ip(addr) == ip(to) && !named(addr)))
    }

    /// Whether an opening or an answer of ours has this channel.
    #[must_use]
    pub fn holds(&self, channel: u32) -> bool {
        self.openings.iter().any(|opening| opening.opener.channel() == channel)
            || self.answers.iter().any(|answer| answer.ours == channel)
    }

    /// What the tables had no room for: addresses let in, openings and answers under way, vain
    /// ones and links that newer ones pushed out, and openings that were not made.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// A table that holds more than it may: a defect, whoever did what.
    #[must_use]
    pub fn overfull(&self) -> Option<&'static str> {
        let tables = [
            ("introduced", self.introduced.len(), INTRODUCTIONS_MAX),
            ("openings", self.openings.len(), OPENINGS_MAX),
            ("vain", self.vain.len(), VAIN_MAX),
            ("answers", self.answers.len(), ANSWERS_MAX),
            ("doors' links", self.links.len(), LINKS_MAX),
            ("dropped", self.dropped.len(), DROPPED_MAX + 1),
        ];
        tables.into_iter().find(|(_, len, most)| len > most).map(|(name, ..)| name)
    }

    /// A channel that is not needed any longer, beside those that [`Doors::expire`] tells.
    pub fn take_dropped(&mut self) -> Option<u32> {
        self.dropped.pop_front()
    }
}

/// Makes room for one more in a table of at most `most`; how many had to go.
fn push_out<T>(table: &mut VecDeque<T>, most: usize) -> u64 {
    let full = table.len() >= most;
    u64::from(full && table.pop_front().is_some())
}

/// Whether the messages begin with a close.
fn is_close(profile: Profile, messages: &[u8]) -> bool {
    let first = Messages::new(messages, profile.addressing, CHUNK).next();
    matches!(first, Some(Ok(Message::Handshake(Handshake { channel: 0, .. }))))
}

/// Whether two addresses are the same: one of IPv4 may be written as one of IPv6.
#[must_use]
pub fn same(a: SocketAddr, b: SocketAddr) -> bool {
    // Mostly they are written alike.
    a == b || (a.ip().to_canonical(), a.port()) == (b.ip().to_canonical(), b.port())
}
