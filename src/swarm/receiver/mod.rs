//! The receiving half of a link: what comes from one source becomes verified chunks in a window;
//! what goes back acknowledges, asks for what is missing, and says what is wanted.
//!
//! Rules of protocol.md, section 5: one ACK datagram per train, with the REQUESTs for its holes;
//! repair is the receiver's; nothing that is not proven goes anywhere. A source that has not set
//! the bits of our private messages is asked for every chunk that it announces (pull).

mod assembly;
mod compose;
#[cfg(test)]
pub(crate) mod source;
pub mod store;
mod subtree;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::base::limits::CHUNK;
use crate::base::time::Mono;
use crate::ring::records::SubtreeSize;
use crate::swarm::crimes::{Crime, Record};
use crate::swarm::integrity::{Freshness, SwarmId, Verifier};
use crate::swarm::opener::Opened;
use crate::swarm::receiver::assembly::{Assembly, Batch, Outcome};
use crate::swarm::receiver::store::Store;
use crate::wire::ppspp::{
    Addressing, Bye, Handshake, Malformed, Message, Messages, Private, Report, Span,
};

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
    /// Bytes of chunks that were verified and new.
    pub payload: u64,
    /// Chunks that had come already.
    pub duplicates: u64,
    /// Chunks that were pushed and did not come, at a source that pushes.
    pub lost: u64,
    /// Those of them that came because they were asked for.
    pub repaired: u64,
    /// Chunks for which there was no room.
    pub dropped: u64,
    /// Crimes, by their place in [`Crime::ALL`].
    pub crimes: [u64; Crime::ALL.len()],
}

impl Counts {
    /// Adds what another link of the same viewer has seen.
    pub fn add(&mut self, more: &Counts) {
        self.datagrams += more.datagrams;
        self.bytes += more.bytes;
        self.payload += more.payload;
        self.duplicates += more.duplicates;
        self.lost += more.lost;
        self.repaired += more.repaired;
        self.dropped += more.dropped;
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

/// The receiving half of one link.
pub struct Receiver {
    profile: Profile,
    /// The source's channel.
    them: u32,
    /// Both sides speak our private messages.
    private: bool,
    assembly: Assembly,
    batch: Batch,
    /// Munros that were verified since [`Receiver::take_signed`].
    signed: Vec<Signed>,
    counts: Counts,
    record: Record,
    /// The round trip of the handshake.
    rtt: Duration,
    /// When something last came from the source, and when we last said everything.
    heard: Mono,
    told: Mono,
    /// The first datagram to the source's channel is still to be sent.
    hello: bool,
    /// Shown with the first datagram.
    token: Option<Box<[u8]>>,
    /// What is reported with the next SUBSCRIBE.
    report: Option<Report>,
    /// The newest chunks that were acknowledged, and their delay.
    run: Option<(Span, i64)>,
    /// Holes are asked for.
    repairs: bool,
    choked: bool,
    ended: Option<Ending>,
    farewell: Option<Farewell>,
}

impl Receiver {
    /// Begins on a channel that was opened. Chunks from `store.next()` on are wanted.
    #[must_use]
    pub fn new(profile: Profile, opened: &Opened, now: Mono, store: &Store) -> Receiver {
        let mut assembly = Assembly::new(profile, store.next());
        (assembly.rtt, assembly.lowest_first) = (opened.rtt, opened.private);
        assembly.floor = opened.have().map(|span| span.first).min();
        for span in opened.have() {
            assembly.shown(now, span, store);
        }
        Receiver {
            profile,
            them: opened.channel,
            private: opened.private,
            assembly,
            batch: Batch::default(),
            signed: Vec::new(),
            counts: Counts::default(),
            record: Record::default(),
            rtt: opened.rtt,
            heard: now,
            told: now,
            hello: true,
            token: None,
            report: None,
            run: None,
            repairs: true,
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

    /// A chunk takes so long at the stream's rate; it finds out the rest by itself.
    #[must_use]
    pub fn with_chunk_time(mut self, each: Option<Duration>) -> Receiver {
        self.assembly.chunk_time = each.unwrap_or(self.assembly.chunk_time);
        self
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

    /// The chunk behind the newest that is known to exist.
    #[must_use]
    pub fn edge(&self) -> u64 {
        self.assembly.edge()
    }

    /// The oldest chunk that the source has shown. What lies before it does not exist there and
    /// is never asked for.
    #[must_use]
    pub fn floor(&self) -> Option<u64> {
        self.assembly.floor
    }

    /// The store goes on elsewhere: begins again from its next chunk on.
    pub fn rebase(&mut self, now: Mono, store: &Store) {
        self.assembly.rebase(now, store);
        self.hello = true;
    }

    /// Munros that were verified since the last call.
    pub fn take_signed(&mut self) -> impl Iterator<Item = Signed> {
        self.signed.drain(..)
    }

    /// What the next SUBSCRIBE reports.
    pub fn set_report(&mut self, report: Report) {
        self.report = self.private.then_some(report);
    }

    /// Whether holes are asked for. Not while somebody else fills them.
    pub fn set_repairs(&mut self, on: bool) {
        self.repairs = on;
    }

    /// Ends the link, for the reason given.
    pub fn leave(&mut self, why: Bye) {
        self.end(Ending::Left, Some(why));
    }

    fn end(&mut self, why: Ending, say: Option<Bye>) {
        if self.ended.is_none() {
            self.ended = Some(why);
            self.farewell =
                say.map(|why| if self.private { Farewell::Bye(why) } else { Farewell::Close });
        }
    }

    /// Takes the messages of a datagram that came on our channel.
    pub fn handle_datagram<V: Verifier>(
        &mut self,
        now: Mono,
        messages: &[u8],
        tools: &mut Tools<'_, V>,
    ) {
        if self.ended.is_some() {
            return;
        }
        self.counts.datagrams += 1;
        self.counts.bytes += messages.len() as u64 + 4;
        self.heard = now;
        for message in Messages::new(messages, self.profile.addressing, CHUNK) {
            let crime = match message {
                Ok(message) => self.message(now, message, tools),
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
        if let Err(crime) = self.settle(now, tools) {
            self.accuse(crime);
        }
        self.assembly.prune(tools.store);
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
                self.assembly.shown(now, span, tools.store);
            }
            Message::Handshake(handshake) => return self.handshake(&handshake),
            Message::Choke => self.choked = true,
            Message::Unchoke => self.choked = false,
            Message::Private(Private::Bye(why)) => self.end(Ending::Bye(why), None),
            Message::Private(_) if !self.private => return Err(Crime::PrivateUnasked),
            Message::PexV4(_) | Message::PexV6(_) | Message::PexCert(_) => {
                return Err(Crime::PexFromPeer);
            }
            // What a peer that only receives has no answer to.
            Message::Private(_)
            | Message::Ack { .. }
            | Message::PexRequest
            | Message::Request(_)
            | Message::Cancel(_) => {}
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

    /// Takes the hashes that came so far.
    fn settle<V: Verifier>(&mut self, now: Mono, tools: &mut Tools<'_, V>) -> Result<(), Crime> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let Tools { store, fresh, verifier } = tools;
        let Receiver { assembly, batch, signed, .. } = self;
        assembly.hashes(now, batch, store, fresh, *verifier, signed)?;
        let mut outcomes = Vec::new();
        assembly.adopt(now, store, *verifier, &mut |outcome| outcomes.push(outcome));
        outcomes.into_iter().try_for_each(|outcome| self.note(outcome))
    }

    fn data<V: Verifier>(
        &mut self,
        now: Mono,
        chunk: u64,
        stamp: u64,
        bytes: &[u8],
        tools: &mut Tools<'_, V>,
    ) -> Result<(), Crime> {
        if bytes.is_empty() {
            // Deployed sources answer so to what they do not have.
            return Ok(());
        }
        let Ok(bytes) = <&[u8; CHUNK]>::try_from(bytes) else { return Err(Crime::WrongLength) };
        // The two clocks have different origins: the difference wraps.
        let delay = micros(now).wrapping_sub(stamp).cast_signed();
        let Tools { store, verifier, .. } = tools;
        let outcome = self.assembly.chunk(now, chunk, bytes, delay, store, *verifier);
        self.note(outcome)
    }

    fn note(&mut self, outcome: Outcome) -> Result<(), Crime> {
        match outcome {
            Outcome::Written { repaired } => {
                self.counts.payload += CHUNK as u64;
                self.counts.repaired += u64::from(repaired);
            }
            Outcome::Duplicate => self.counts.duplicates += 1,
            Outcome::Kept => {}
            Outcome::Dropped => self.counts.dropped += 1,
            Outcome::Wrong(crime) => return Err(crime),
        }
        Ok(())
    }
}

/// The clock of delay samples: microseconds of monotonic time.
fn micros(now: Mono) -> u64 {
    now.as_nanos() / 1_000
}
