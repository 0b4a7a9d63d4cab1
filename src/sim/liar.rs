//! Somebody on a peer's line who changes some of the chunks that it passes on.

use bytes::Bytes;

use crate::base::limits::CHUNK;
use crate::base::payload::Payload;
use crate::io::machine::Output;
use crate::shard::mail::Mail;
use crate::sim::dice::{Dice, Ppm};
use crate::wire::ppspp::kind;

/// Chunks of which a bit is changed.
const CHANGED: Ppm = 20_000;

/// Decides which.
pub struct Liar(Dice);

impl Liar {
    /// With these dice.
    #[must_use]
    pub fn new(dice: Dice) -> Liar {
        Liar(dice)
    }

    /// What goes out instead.
    pub fn twist(&mut self, mut said: Output<Mail>) -> Output<Mail> {
        match &mut said {
            Output::Train(train) => {
                train.body = self.change(&train.body, train.chunk.into());
            }
            Output::Datagram { data, .. } if data.as_slice().get(4) == Some(&kind::DATA) => {
                *data = self.change(data, usize::MAX);
            }
            _ => {}
        }
        said
    }

    fn change(&mut self, bytes: &Payload, chunk: usize) -> Payload {
        let mut copy = bytes.as_slice().to_vec();
        let mut changed = false;
        for part in copy.chunks_mut(chunk.max(1)) {
            if self.0.happens(CHANGED) {
                let at = self.0.below(part.len().min(CHUNK) as u64) as usize;
                let at = part.len() - 1 - at;
                part[at] ^= 1;
                changed = true;
            }
        }
        if changed { Bytes::from(copy).into() } else { bytes.clone() }
    }
}
