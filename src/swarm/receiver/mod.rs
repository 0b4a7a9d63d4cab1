//! The receiving half of a link: what comes from one source becomes verified chunks in a window;
//! what goes back acknowledges, asks for what is missing, and says what is wanted.
//!
//! ```text
//! assembly  the subtrees that a viewer puts together: one for all its links
//! subtree   one of them: which hashes are proven, which chunks are there
//! part      what one link has brought of one subtree, and what it was asked for
//! take      hashes and chunks of a datagram, taken
//! store     the window that verified chunks go to
//! compose   the datagrams that go back
//! ```
//!
//! Rules of protocol.md, section 5: one ACK datagram per train, with the REQUESTs for its holes;
//! repair is the receiver's; nothing that is not proven goes anywhere. A source that has not set
//! the bits of our private messages is asked for every chunk that it announces (pull).

pub mod assembly;
pub mod compose;
mod part;
#[cfg(test)]
pub(crate) mod source;
pub mod store;
mod subtree;
mod take;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::base::limits::CHUNK;
use crate::base::time::Mono;
use crate::ring::records::SubtreeSize;
use crate::swarm::crimes::{Crime, Record};
use crate::swarm::integrity::{Freshness, SwarmId, Verifier};
use crate::swarm::opener::Opened;
use crate::swarm::receiver::assembly::{Assembly, Batch};
use crate::swarm::receiver::part::{Part, Reach};
use crate::swarm::receiver::store::Store;
use crate::swarm::receiver::take::Orphan;
use crate::swarm::row::Row;
use crate::wire::ppspp::{
    Addressing, Bye, Handshake, Malformed, Message, Messages, Private, Report, Span, Subscribe,
};

/// News of one link that were not asked about, at most.
const NEWS_MAX: usize = 256;

/// The round trip to somebody who opened the link to us, before anything is known of it.
const RTT_UNKNOWN: Duration = Duration::from_millis(100);

/// What all peers of a swarm must agree about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Whose stream it is.
    pub swarm_id: SwarmId,
    /// How chunks are named.
    pub addressing: Addressing,
    /// How many are under one signature.
    pub size: SubtreeSize,
}

/// A munro that was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The number of its subtree.
    pub number: u64,
    /// When it was signed: NTP time.
    pub ntp: u64,
}

/// Why a link has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The source closed and gave no reason.
    Closed,
    /// The source closed and said why.
    Bye(Bye),
    /// We closed because of what the source did.
    Crime(Crime),
    /// We left.
    Left,
}

/// What one link has seen. Only grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams on our channel.
    pub datagrams: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes of datagrams that carry hashes and no chunks.
    pub integrity: u64,
    /// Bytes of datagrams with neither chunks nor hashes.
    pub control: u64,
    /// Bytes of chunks that were verified and new.
    pub payload: u64,
    /// Those of them that had not been asked for.
    pub pushed: u64,
    /// Chunks that had come already.
    pub duplicates: u64,
    /// Chunks that were pushed and did not come, at a source that pushes.
    pub lost: u64,
    /// Those of them that came because they were asked for.
    pub repaired: u64,
    /// Chunks for which there was no room.
    pub dropped: u64,
    /// Chunks long behind that came and are not acknowledged: too many came in one go.
    pub late_forgotten: u64,
    /// News that were not told: nobody had asked about those before.
    pub news_forgotten: u64,
    /// Crimes, by their place in [`Crime::ALL`].
    pub crimes: [u64; Crime::ALL.len()],
}

impl Counts {
    /// Adds what another link of the same viewer has seen.
    pub fn add(&mut self, more: &Counts) {
        self.datagrams += more.datagrams;
        self.bytes += more.bytes;
        self.integrity += more.integrity;
        self.control += more.control;
        self.payload += more.payload;
        self.pushed += more.pushed;
        self.duplicates += more.duplicates;
        self.lost += more.lost;
        self.repaired += more.repaired;
        self.dropped += more.dropped;
        self.late_forgotten += more.late_forgotten;
        self.news_forgotten += more.news_forgotten;
        self.crimes.iter_mut().zip(more.crimes).for_each(|(sum, n)| *sum += n);
    }

    /// Everything that was not what it should be.
    #[must_use]
    pub fn bad(&self) -> u64 {
        self.crimes.iter().sum()
    }
}

/// What a receiver works with, lent for one call.
pub struct Tools<'a, V> {
    /// What all links of the viewer have brought.
    pub assembly: &'a mut Assembly,
    /// Where verified chunks go.
    pub store: &'a mut Store,
    /// What is too old.
    pub fresh: &'a mut Freshness,
    /// Who checks.
    pub verifier: &'a mut V,
}

/// How a link ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    /// The reason is still to be said.
    Bye(Bye),
    /// The close is still to be sent.
    Close,
}

/// What a link brought, for whoever chooses among links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// A subtree is being pushed: its hash datagram came without having been asked for, and was
    /// right; or a chunk, if that was lost.
    Hashed(u64),
    /// The other end has these chunks.
    Have(Span),
}

/// The receiving half of one link.
pub struct Receiver {
    profile: Profile,
    /// The source's channel.
    them: u32,
    /// Both sides speak our private messages.
    private: bool,
    /// And the later ones of them; and it can be asked for other peers.
    extended: bool,
    names_peers: bool,
    /// The other end is a viewer as well, not the source.
    neighbour: bool,
    /// Near what is played, as the subtrees of the assembly are.
    parts: Row<Part>,
    /// Among which of them some are to be acknowledged, and some may be under way that were
    /// asked for: most parts are neither, and all are looked through for everything that comes.
    unacked: Reach,
    asked: Reach,
    /// Chunks that are kept until their hash comes.
    orphans: Vec<Orphan>,
    /// The first subtree that was pushed: what lies before had to be asked for anyhow.
    pushed_from: Option<u64>,
    /// Chunks that came long after their turn and are to be acknowledged, with their delays.
    late: Vec<(u64, i64)>,
    /// The last answer: which chunk, and when it came.
    answered: Option<(u64, Mono)>,
    /// The oldest chunk that the source has shown: what lies before it does not exist there.
    floor: Option<u64>,
    batch: Batch,
    /// Munros that were verified since [`Receiver::take_signed`].
    signed: Vec<Signed>,
    news: Vec<News>,
    /// Stripes of which something new came since [`Receiver::take_brought`].
    brought: u8,
    /// Something came because of which a datagram may be due sooner than was thought, other than
    /// to acknowledge it in a while.
    stirred: bool,
    counts: Counts,
    record: Record,
    /// The round trip of the handshake, or a better guess.
    rtt: Duration,
    /// How long answers took in the mean, as far as they came.
    answers_in: Option<Duration>,
    /// When something last came from the source, and when we last said everything.
    heard: Mono,
    told: Mono,
    /// The first datagram to the source's channel is still to be sent.
    hello: bool,
    /// The stripes that are wanted, and how often that was said, up to twice.
    stripes: u8,
    stripes_told: u8,
    /// Shown with the first datagram.
    token: Option<Box<[u8]>>,
    /// What is reported with the next SUBSCRIBE.
    report: Option<Report>,
    /// The newest chunks that were acknowledged, and their delay.
    run: Option<(Span, i64)>,
    choked: bool,
    ended: Option<Ending>,
    farewell: Option<Farewell>,
}

impl Receiver {
    /// Begins on a channel to the source that was opened.
    #[must_use]
    pub fn new(
        profile: Profile,
        opened: &Opened,
        now: Mono,
        store: &Store,
        assembly: &mut Assembly,
    ) -> Receiver {
        let mut receiver = Receiver::on(profile, opened.channel, opened.private, now);
        receiver.rtt = opened.rtt;
        (receiver.extended, receiver.names_peers) = (opened.extended, opened.names_peers);
        receiver.batch = Batch::new(true);
        receiver.stripes = Subscribe::ALL;
        receiver.floor = opened.have().map(|span| span.first).min();
        for span in opened.have() {
            assembly.shown(now, span, store);
        }
        receiver
    }

    /// Begins on a channel to another viewer, `them` there. `rtt`: the round trip, if known.
    #[must_use]
    pub fn neighbour(
        profile: Profile,
        them: u32,
        private: bool,
        rtt: Option<Duration>,
        now: Mono,
    ) -> Receiver {
        let mut receiver = Receiver::on(profile, them, private, now);
        receiver.neighbour = true;
        receiver.rtt = rtt.unwrap_or(RTT_UNKNOWN);
        receiver
    }

    fn on(profile: Profile, them: u32, private: bool, now: Mono) -> Receiver {
        Receiver {
            profile,
            them,
            private,
            extended: false,
            names_peers: false,
            neighbour: false,
            parts: Row::default(),
            unacked: Reach::default(),
            asked: Reach::default(),
            orphans: Vec::new(),
            pushed_from: None,
            late: Vec::new(),
            answered: None,
            floor: None,
            batch: Batch::default(),
            signed: Vec::new(),
            news: Vec::new(),
            brought: 0,
            stirred: false,
            counts: Counts::default(),
            record: Record::default(),
            rtt: RTT_UNKNOWN,
            answers_in: None,
            heard: now,
            told: now,
            hello: true,
            stripes: 0,
            stripes_told: 0,
            token: None,
            report: None,
            run: None,
            choked: false,
            ended: None,
            farewell: None,
        }
    }

    /// Shows `token` in the first datagram.
    #[must_use]
    pub fn with_token(mut self, token: Option<&[u8]>) -> Receiver {
        self.token = token.map(Box::from);
        self
    }

    /// The stripes that the other end shall push; said at once if they are others than before.
    pub fn set_stripes(&mut self, stripes: u8) {
        if std::mem::replace(&mut self.stripes, stripes) != stripes {
            self.stripes_told = 0;
        }
    }

    /// The stripes that the other end was asked to push.
    #[must_use]
    pub fn stripes(&self) -> u8 {
        self.stripes
    }

    /// The other end's channel.
    #[must_use]
    pub fn them(&self) -> u32 {
        self.them
    }

    /// Whether both ends speak our private messages.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Whether the other end wants to hear who feeds us.
    #[must_use]
    pub fn is_extended(&self) -> bool {
        self.extended
    }

    /// Whether it can be asked for other peers.
    #[must_use]
    pub fn names_peers(&self) -> bool {
        self.names_peers
    }

    /// A better guess of the round trip.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    /// What it has seen.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Why it has ended, if it has. The last datagrams may still have to be polled.
    #[must_use]
    pub fn ended(&self) -> Option<Ending> {
        self.ended
    }

    /// How long nothing has come from the source.
    #[must_use]
    pub fn silence(&self, now: Mono) -> Duration {
        now.since(self.heard)
    }

    /// When something last came from the source.
    #[must_use]
    pub fn heard(&self) -> Mono {
        self.heard
    }

    /// The round trip of the handshake.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.rtt
    }

    /// The oldest chunk that the source has shown. What lies before it does not exist there and
    /// is never asked for.
    #[must_use]
    pub fn floor(&self) -> Option<u64> {
        self.floor
    }

    /// The store goes on elsewhere, and so did the assembly.
    pub fn rebase(&mut self) {
        self.parts.clear();
        (self.unacked, self.asked) = (Reach::default(), Reach::default());
        self.orphans.clear();
        self.answered = None;
        self.hello = true;
    }

    /// The stripes of which chunks that were new came since the last call, or hashes; a bit each.
    pub fn take_brought(&mut self) -> u8 {
        std::mem::take(&mut self.brought)
    }

    /// Whether a datagram may be due sooner than [`Receiver::next_deadline`] said, because of
    /// what came since the last call. Not for chunks that go on as they did before, which are to
    /// be acknowledged [`compose::ACK_MAX`] later.
    pub fn take_stirred(&mut self) -> bool {
        std::mem::take(&mut self.stirred)
    }

    /// What the link brought since the last call.
    pub fn take_news(&mut self) -> impl Iterator<Item = News> {
        self.news.drain(..)
    }

    /// Munros that were verified since the last call.
    pub fn take_signed(&mut self) -> impl Iterator<Item = Signed> {
        self.signed.drain(..)
    }

    /// What the next SUBSCRIBE reports.
    pub fn set_report(&mut self, report: Report) {
        let report = if self.extended { report } else { report.plain() };
        self.report = self.private.then_some(report);
    }

    /// Whether something that came is still to be acknowledged.
    #[must_use]
    pub fn owes(&self) -> bool {
        self.unacked.first < self.unacked.end
    }

    /// Ends the link, for the reason given.
    pub fn leave(&mut self, why: Bye) {
        self.end(Ending::Left, Some(why));
    }

    fn end(&mut self, why: Ending, say: Option<Bye>) {
        if self.ended.is_none() {
            self.stirred = true;
            self.ended = Some(why);
            self.farewell =
                say.map(|why| if self.private { Farewell::Bye(why) } else { Farewell::Close });
        }
    }

    /// Takes the messages of a datagram that came on our channel. What is not for a receiver is
    /// given to `ear`, and so is what may be for both.
    pub fn handle_datagram<V: Verifier>(
        &mut self,
        now: Mono,
        messages: &[u8],
        tools: &mut Tools<'_, V>,
        ear: &mut dyn FnMut(Message<'_>) -> Result<(), Crime>,
    ) {
        if self.ended.is_some() {
            return;
        }
        let bytes = messages.len() as u64 + 4;
        self.counts.datagrams += 1;
        self.counts.bytes += bytes;
        self.heard = now;
        let (mut data, mut hashes) = (false, false);
        for message in Messages::new(messages, self.profile.addressing, CHUNK) {
            let crime = match message {
                Ok(message) => {
                    data |= matches!(message, Message::Data { .. });
                    hashes |= matches!(message, Message::SignedIntegrity { .. });
                    let padding = hashes && matches!(message, Message::Unchoke);
                    if padding { Ok(()) } else { self.message(now, message, tools, ear) }
                }
                Err(Malformed::UnknownMessage(_)) => Err(Crime::UnknownMessage),
                Err(_) => Err(Crime::Malformed),
            };
            if let Err(crime) = crime {
                self.accuse(crime);
            }
            if self.ended.is_some() {
                return;
            }
        }
        match (data, hashes) {
            (true, _) => {}
            (false, true) => self.counts.integrity += bytes,
            (false, false) => self.counts.control += bytes,
        }
        let settled = self.settle(now, tools);
        let adopted = self.adopt(now, tools);
        if let Err(crime) = settled.and(adopted) {
            self.accuse(crime);
        }
        tools.assembly.prune(tools.store);
        self.prune(tools.assembly, tools.store);
    }

    /// Forgets what lies behind what is played, but not before all of it was acknowledged: a hole
    /// that is filled late moves what is played far ahead, and a source that never hears of it
    /// takes it for lost.
    fn prune(&mut self, assembly: &Assembly, store: &Store) {
        let old = |(number, part): (u64, &Part)| {
            (part.unacked == 0 && assembly.get(number).is_none() && number < assembly.edge())
                .then_some(number)
        };
        let first = self.parts.from(0).next().and_then(old);
        if let Some(number) = first {
            self.parts.forget_below(number + 1);
            self.asked.first = self.asked.first.max(number + 1);
        }
        let next = store.next();
        self.orphans.retain(|orphan| orphan.chunk >= next);
    }

    fn part(&mut self, number: u64, now: Mono, assembly: &Assembly) -> &mut Part {
        let since = assembly.get(number).map_or(now, |subtree| subtree.since);
        self.parts.get_or_insert_with(number, || Part::new(since))
    }

    fn tell(&mut self, news: News) {
        if self.news.len() < NEWS_MAX {
            self.news.push(news);
        } else {
            self.counts.news_forgotten += 1;
        }
    }

    /// Notes a crime; a grave one ends the link.
    fn accuse(&mut self, crime: Crime) {
        self.counts.crimes[crime as usize] += 1;
        if self.record.note(crime) {
            self.end(Ending::Crime(crime), Some(Bye::BadData));
        }
    }

    fn message<V: Verifier>(
        &mut self,
        now: Mono,
        message: Message<'_>,
        tools: &mut Tools<'_, V>,
        ear: &mut dyn FnMut(Message<'_>) -> Result<(), Crime>,
    ) -> Result<(), Crime> {
        match message {
            Message::Integrity { span, hash } => self.batch.hash(span, hash),
            Message::SignedIntegrity { span, ntp, signature } => {
                self.batch.signature(span, ntp, signature);
            }
            Message::Data { chunk, stamp, bytes } => {
                self.settle(now, tools)?;
                return self.data(now, chunk, stamp, bytes, tools);
            }
            Message::Have(span) => {
                self.settle(now, tools)?;
                self.tell(News::Have(span));
                if self.neighbour {
                    tools.assembly.heard_of(now, span, tools.store);
                    return ear(message);
                }
                self.floor.get_or_insert(span.first);
                tools.assembly.shown(now, span, tools.store);
            }
            Message::Handshake(handshake) => return self.handshake(&handshake),
            Message::Choke | Message::Unchoke => {
                self.choked = matches!(message, Message::Choke);
                return ear(message);
            }
            Message::Private(Private::Bye(why)) => self.end(Ending::Bye(why), None),
            Message::Private(_) if !self.private => return Err(Crime::PrivateUnasked),
            Message::Private(_)
            | Message::PexV4(_)
            | Message::PexV6(_)
            | Message::PexCert(_)
            | Message::PexRequest
            | Message::Ack { .. }
            | Message::Request(_)
            | Message::Cancel(_) => return ear(message),
        }
        Ok(())
    }

    fn handshake(&mut self, handshake: &Handshake<'_>) -> Result<(), Crime> {
        match handshake.channel {
            0 => self.end(Ending::Closed, None),
            // The answer to an opening that we sent again.
            channel if channel == self.them => {}
            _ => return Err(Crime::SecondHandshake),
        }
        Ok(())
    }
}
