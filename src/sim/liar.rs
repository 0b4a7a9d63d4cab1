//! A peer that changes some of the chunks that it passes on: a production machine, and somebody
//! on its line.

use bytes::Bytes;

use crate::base::limits::CHUNK;
use crate::base::payload::Payload;
use crate::base::time::{Mono, Now};
use crate::io::machine::{Input, Machine, Outbox, Output};
use crate::shard::mail::Mail;
use crate::sim::dice::{Dice, Ppm};
use crate::sim::world::Driven;

/// Chunks of which a bit is changed.
const CHANGED: Ppm = 20_000;

/// `DATA` in the wire's numbers, behind the channel.
const DATA: u8 = 1;

/// The machine of such a peer.
pub struct Liar {
    honest: Driven,
    dice: Dice,
    outbox: Outbox<Mail>,
}

impl Liar {
    /// Around an honest machine.
    #[must_use]
    pub fn new(honest: Driven, dice: Dice) -> Liar {
        // One at a time: what it says goes through this box.
        Liar { honest, dice, outbox: Outbox::new(1) }
    }

    fn change(&mut self, bytes: &Payload, chunk: usize) -> Payload {
        let mut copy = bytes.as_slice().to_vec();
        let mut changed = false;
        for part in copy.chunks_mut(chunk.max(1)) {
            if self.dice.happens(CHANGED) {
                let at = self.dice.below(part.len().min(CHUNK) as u64) as usize;
                let at = part.len() - 1 - at;
                part[at] ^= 1;
                changed = true;
            }
        }
        if changed { Bytes::from(copy).into() } else { bytes.clone() }
    }
}

impl Machine for Liar {
    type Mail = Mail;

    fn handle(&mut self, now: Now, input: Input<'_, Mail>) {
        self.honest.handle(now, input);
    }

    fn poll(&mut self, now: Now, out: &mut Outbox<Mail>) {
        while out.has_room() {
            let mut own = std::mem::replace(&mut self.outbox, Outbox::new(0));
            self.honest.poll(now, &mut own);
            let said: Option<Output<Mail>> = own.drain().next();
            self.outbox = own;
            let Some(mut said) = said else { return };
            match &mut said {
                Output::Train(train) => {
                    train.body = self.change(&train.body, train.chunk.into());
                }
                Output::Datagram { data, .. } if data.as_slice().get(4) == Some(&DATA) => {
                    *data = self.change(data, usize::MAX);
                }
                _ => {}
            }
            out.push(said);
        }
    }

    fn next_deadline(&self) -> Option<Mono> {
        self.honest.next_deadline()
    }
}
