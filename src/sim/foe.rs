//! Peers that take and do not give, that say what is not so, or both: a production machine, and
//! somebody on its line.

use bytes::Bytes;

use crate::base::limits::CHUNK;
use crate::base::payload::Payload;
use crate::base::time::{Mono, Now};
use crate::io::machine::{Input, Machine, Outbox, Output};
use crate::shard::mail::Mail;
use crate::sim::dice::Dice;
use crate::sim::liar::Liar;
use crate::sim::world::Driven;
use crate::wire::ppspp::private::{Private, Report, State};
use crate::wire::ppspp::{self, Addressing, Message, Messages, Span, Writer, kind};

/// What a viewer is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nature {
    /// As it should be.
    #[default]
    Honest,
    /// It changes some of the chunks that it passes on.
    Liar,
    /// It says what it has and passes nothing on.
    Rider,
    /// It says that it has what it has not, that it can send what it cannot, and to the relay that
    /// all its stream comes from others.
    Boaster,
    /// Both: everybody's best neighbour, who gives nothing.
    Besieger,
}

impl Nature {
    /// A viewer's machine with somebody of this kind on its line.
    #[must_use]
    pub fn around(self, honest: Driven, dice: Dice) -> Driven {
        let manner = match self {
            Nature::Honest => return honest,
            Nature::Liar => Manner::Lies(Liar::new(dice)),
            Nature::Rider => Manner::Takes { serves: false, boasts: false },
            Nature::Boaster => Manner::Takes { serves: true, boasts: true },
            Nature::Besieger => Manner::Takes { serves: false, boasts: true },
        };
        // One at a time: what it says goes through this box.
        Box::new(Foe { honest, manner, outbox: Outbox::new(1) })
    }
}

/// Chunks ahead of those it has that a boaster says to have: a third of a second at 2 Mbit/s.
const AHEAD: u64 = 64;

/// What a boaster says that it can send.
const PLENTY_KBIT: u32 = 1_000_000;

/// The longest datagram.
const LONGEST: usize = 1_500;

/// What is done on the line.
enum Manner {
    Lies(Liar),
    Takes { serves: bool, boasts: bool },
}

struct Foe {
    honest: Driven,
    manner: Manner,
    outbox: Outbox<Mail>,
}

impl Manner {
    /// What goes out instead.
    fn twist(&mut self, said: Output<Mail>) -> Option<Output<Mail>> {
        let (serves, boasts) = match self {
            Manner::Lies(liar) => return Some(liar.twist(said)),
            Manner::Takes { serves, boasts } => (*serves, *boasts),
        };
        match said {
            Output::Train(_) if !serves => None,
            Output::Datagram { data, .. }
                if !serves && data.as_slice().get(4) == Some(&kind::DATA) =>
            {
                None
            }
            Output::Datagram { socket, to, from, data } if boasts => {
                let data = boast(&data).unwrap_or(data);
                Some(Output::Datagram { socket, to, from, data })
            }
            said => Some(said),
        }
    }
}

/// A datagram that claims more; `None` if there is nothing to claim in it.
fn boast(data: &Payload) -> Option<Payload> {
    let (channel, messages) = ppspp::split(data.as_slice()).filter(|(channel, _)| *channel != 0)?;
    let mut buf = [0; LONGEST];
    let mut writer = Writer::new(&mut buf, channel, Addressing::Chunks64);
    let mut claimed = false;
    for message in Messages::new(messages, Addressing::Chunks64, CHUNK) {
        let message = message.ok()?;
        let claim = match message {
            Message::Have(span) => Message::Have(Span::new(span.first, span.last + AHEAD)?),
            Message::Private(Private::State(state)) => {
                let (upload_kbit, room_kbit) = (PLENTY_KBIT, PLENTY_KBIT);
                Message::Private(Private::State(State { upload_kbit, room_kbit, ..state }))
            }
            Message::Private(Private::Report(report)) => {
                let all = report.relay_bytes.saturating_add(report.peer_bytes);
                let (relay_bytes, peer_bytes, sent_bytes) = (0, all, all.saturating_mul(10));
                let (stalls, stall_ms, rescues, bad, duplicates) = (0, 0, 0, 0, 0);
                Message::Private(Private::Report(Report {
                    relay_bytes,
                    peer_bytes,
                    sent_bytes,
                    stalls,
                    stall_ms,
                    rescues,
                    bad,
                    duplicates,
                    ..report
                }))
            }
            other => other,
        };
        claimed |= claim != message;
        if !writer.push(claim) {
            return None;
        }
    }
    claimed.then(|| Bytes::copy_from_slice(writer.written()).into())
}

impl Machine for Foe {
    type Mail = Mail;

    fn handle(&mut self, now: Now, input: Input<'_, Mail>) {
        self.honest.handle(now, input);
    }

    fn poll(&mut self, now: Now, out: &mut Outbox<Mail>) {
        while out.has_room() {
            let mut own = std::mem::replace(&mut self.outbox, Outbox::new(0));
            self.honest.poll(now, &mut own);
            let said = own.drain().next();
            self.outbox = own;
            let Some(said) = said else { return };
            if let Some(said) = self.manner.twist(said) {
                out.push(said);
            }
        }
    }

    fn next_deadline(&self) -> Option<Mono> {
        self.honest.next_deadline()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boast_claims_more_and_leaves_the_rest_as_it_is() {
        let datagram = |messages: &[Message<'_>]| {
            let mut buf = [0; LONGEST];
            let mut writer = Writer::new(&mut buf, 0x8000_0001, Addressing::Chunks64);
            assert!(messages.iter().all(|message| writer.push(*message)));
            Payload::from(Bytes::copy_from_slice(writer.written()))
        };
        let span = |first, last| Span::new(first, last).unwrap();
        let ack = Message::Ack { span: span(3, 9), delay: 17 };
        let state = |kbit| {
            let state = State { upload_kbit: kbit, room_kbit: kbit, play_chunk: 5, buffer_ms: 6 };
            Message::Private(Private::State(state))
        };
        let told = boast(&datagram(&[ack, Message::Have(span(1, 16)), state(900)])).unwrap();
        let claims = [ack, Message::Have(span(1, 80)), state(PLENTY_KBIT)];
        assert_eq!(told.as_slice(), datagram(&claims).as_slice());
        assert!(boast(&datagram(&[ack])).is_none(), "nothing to claim");
    }
}
