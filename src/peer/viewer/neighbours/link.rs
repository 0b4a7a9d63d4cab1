//! One link to another viewer: both halves of it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::crimes::Crime;
use crate::swarm::mesh::Key;
use crate::swarm::receiver::Receiver;
use crate::swarm::receiver::compose::ACK_MAX;
use crate::swarm::sender::{Sender, Source};
use crate::wire::ppspp::{Message, Private, Span, State, Subscribe};

/// How often a neighbour is told what we can send, at most.
pub(super) const STATE_APART: Duration = Duration::from_millis(500);

/// A link to another viewer.
pub(super) struct Link {
    pub key: Key,
    pub to: SocketAddr,
    /// The relay has named this very address.
    pub named: bool,
    /// Our channel.
    pub channel: u32,
    pub receiver: Receiver,
    pub sender: Sender,
    /// Whether it may be that holes are asked for here.
    pub asked: bool,
    /// The stripes that the other end asks for.
    pub wanted: u8,
    /// What it said that it can send, since we last looked.
    pub state: Option<State>,
    /// Bytes of chunks that were sent to it.
    pub out_bytes: u64,
    /// What it was told, and when.
    told: Option<State>,
    told_at: Mono,
    /// When somebody was last fed over it, or was to be.
    used_at: Mono,
}

/// For what a sending half waits, beside its own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// For nothing: it has nothing to send, or cannot whatever the line carries.
    Nothing,
    /// For the line to take something.
    Line,
    /// For the line to have room beside what is promised.
    Spare,
}

/// What is looked at of every link whatever happens. It lies apart: a link is a kilobyte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beat {
    /// Our channel.
    pub channel: u32,
    /// Stripes of which the sending half sends what comes, all of them if it is asked for
    /// something.
    pub stripes: u8,
    /// The sending half is asked as soon as this opens...
    pub gate: Gate,
    /// ...and at this time, open or not.
    pub sends_at: Mono,
    /// When the receiving half wants to be asked.
    pub receives_at: Mono,
}

impl Beat {
    /// Of a new link: at once.
    pub(super) fn new(channel: u32) -> Beat {
        let (sends_at, receives_at) = (Mono::ZERO, Mono::ZERO);
        Beat { channel, stripes: 0, gate: Gate::Nothing, sends_at, receives_at }
    }

    /// A datagram came over its link, and has `stirred` the sending half or has not.
    pub(super) fn hear(&mut self, now: Mono, link: &mut Link, stirred: bool) {
        if link.receiver.take_stirred() {
            self.receives_at = Mono::ZERO;
        } else if link.receiver.owes() {
            self.receives_at = self.receives_at.min(now + ACK_MAX);
        }
        if stirred && link.sender.is_busy() {
            self.sends_at = Mono::ZERO;
        }
    }
}

/// When the line takes something, and when it has room beside what is promised.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub ready: Mono,
    pub spare: Mono,
}

impl Line {
    /// When the sending half of a link is to be asked.
    pub(super) fn due(&self, beat: &Beat) -> Mono {
        match beat.gate {
            Gate::Nothing => beat.sends_at,
            Gate::Line => beat.sends_at.min(self.ready),
            Gate::Spare => beat.sends_at.min(self.spare),
        }
    }
}

impl Link {
    pub(super) fn new(
        key: Key,
        to: SocketAddr,
        channel: u32,
        receiver: Receiver,
        now: Mono,
    ) -> Link {
        Link {
            key,
            to,
            named: false,
            channel,
            receiver,
            sender: Sender::forwarder(now),
            asked: false,
            wanted: 0,
            state: None,
            out_bytes: 0,
            told: None,
            told_at: Mono::ZERO,
            used_at: now,
        }
    }

    /// How long nobody has been fed over it. Either end may be the one that feeds.
    pub(super) fn idle(&mut self, now: Mono) -> Duration {
        let fed = self.receiver.stripes() | self.sender.pushed_stripes() | self.wanted;
        if fed != 0 {
            self.used_at = now;
        }
        now.since(self.used_at)
    }

    /// Whether it may be told what we can send, were that news to it.
    pub(super) fn may_be_told(&self, now: Mono) -> bool {
        self.receiver.is_private() && now.since(self.told_at) >= STATE_APART
    }

    /// Whether it is to be told `state` now.
    pub(super) fn wants_state(&self, now: Mono, state: &State) -> bool {
        self.may_be_told(now) && self.told.is_none_or(|told| differs(&told, state))
    }

    pub(super) fn note_told(&mut self, now: Mono, state: State) {
        (self.told, self.told_at) = (Some(state), now);
    }
}

/// Whether the other end would choose otherwise if it knew: not for every chunk that is played.
pub(super) fn differs(told: &State, state: &State) -> bool {
    told.upload_kbit != state.upload_kbit || told.room_kbit != state.room_kbit
}

/// What the sending half of a link hears.
pub(super) struct Ear<'a> {
    pub now: Mono,
    pub sender: &'a mut Sender,
    pub source: &'a Source,
    pub wanted: &'a mut u8,
    pub state: &'a mut Option<State>,
    /// Whether the sending half may have something to send because of what was heard.
    pub stirred: bool,
}

impl Ear<'_> {
    pub(super) fn hear(&mut self, message: &Message<'_>) -> Result<(), Crime> {
        let Ear { now, sender, source, .. } = self;
        let ends = |span: &Span| [span.first, span.last];
        self.stirred |= match message {
            // It makes room, and shows what hashes have come.
            Message::Ack { .. } | Message::Have(_) => sender.is_held(),
            _ => true,
        };
        match message {
            Message::Ack { span, delay } => {
                return sender.handle_ack(*now, ends(span), *delay, source);
            }
            Message::Request(span) => return sender.handle_request(*now, ends(span), source),
            Message::Have(span) => return sender.handle_have(ends(span), source),
            Message::Cancel(span) => sender.handle_cancel(ends(span)),
            Message::Choke => sender.handle_choke(),
            Message::Unchoke => sender.handle_unchoke(source),
            // Introductions are the relay's.
            Message::PexV4(_) | Message::PexV6(_) | Message::PexCert(_) => {
                return Err(Crime::PexFromPeer);
            }
            Message::Private(Private::Subscribe(Subscribe { start, stripes, window })) => {
                let start = Some(*start).filter(|start| *start != Subscribe::NEXT);
                sender.subscribe(*stripes, start, *window, source);
                *self.wanted = *stripes;
            }
            Message::Private(Private::State(state)) => *self.state = Some(*state),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sending_half_is_asked_at_its_time_or_when_what_it_waits_for_opens() {
        let at = Mono::from_millis;
        let line = Line { ready: at(40), spare: at(80) };
        let beat = Beat { sends_at: at(100), ..Beat::new(1) };
        let gates = [Gate::Nothing, Gate::Line, Gate::Spare];
        let due = |beat: Beat| gates.map(|gate| line.due(&Beat { gate, ..beat }));
        assert_eq!(due(beat), [at(100), at(40), at(80)]);
        assert_eq!(due(Beat { sends_at: at(60), ..beat }), [at(60), at(40), at(60)]);
    }
}
