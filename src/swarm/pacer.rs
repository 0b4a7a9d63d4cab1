//! How fast one peer's questions are answered: at twice the stream's bitrate, two trains at once.
//!
//! A peer that has lost much asks for much. Answered at once it would fill the queue in front of
//! its bottleneck, and lose the next train as well.

use std::time::Duration;

use crate::base::time::Mono;

/// Answers go out at this multiple of the stream's bitrate.
const SPEED: u32 = 2;

/// Trains that may go out at once.
const BURST: u32 = 2;

/// When what was sent will have passed at the allowed speed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pacer {
    passed: Mono,
}

impl Pacer {
    /// When the next answer may be sent: now, if that is not later. `train`: how long one train
    /// takes at the stream's bitrate.
    #[must_use]
    pub fn ready(&self, train: Duration) -> Mono {
        self.passed - train / SPEED * (BURST - 1)
    }

    /// An answer was sent: `chunks` of the `of` chunks of a train.
    pub fn sent(&mut self, now: Mono, train: Duration, chunks: u32, of: u32) {
        self.passed = self.passed.max(now) + train / SPEED * chunks / of.max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAIN: Duration = Duration::from_millis(84);

    #[test]
    fn two_trains_at_once_then_twice_the_bitrate() {
        let mut pacer = Pacer::default();
        let begin = Mono::from_millis(1_000);
        let mut sent = Vec::new();
        for millis in 0..1_000 {
            let now = begin + Duration::from_millis(millis);
            while pacer.ready(TRAIN) <= now {
                pacer.sent(now, TRAIN, 16, 16);
                sent.push(millis);
            }
        }
        assert_eq!(sent[..4], [0, 0, 42, 84]);
        // 1,000 ms are 23.8 half train times.
        assert_eq!(sent.len(), 25);
    }

    #[test]
    fn single_chunks_cost_their_part_and_idle_time_is_not_saved() {
        let mut pacer = Pacer::default();
        let now = Mono::from_millis(60_000);
        let count = (0..).take_while(|_| {
            let ready = pacer.ready(TRAIN) <= now;
            if ready {
                pacer.sent(now, TRAIN, 1, 16);
            }
            ready
        });
        assert_eq!(count.count(), 17, "one train, and the last one begins the second");
    }
}
