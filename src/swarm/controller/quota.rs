//! How many peers the relay pushes each stripe to.
//!
//! A guess from what peers say that they can upload, put right by what they ask for: they may
//! overrate themselves, and lines fail.

use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::controller::census::Ballot;
use crate::swarm::controller::judge::Held;

/// The guess: so many parts of all peers when nobody uploads, and so much less with uploads of
/// what all need.
const ALONE: f64 = 1.1;
const SPARED: f64 = 0.85;

/// Copies that are always sent: against the loss of some, and to keep trees shallow.
const LEAST: u32 = 3;
const LEAST_PER: u32 = 100;

/// Rescues, in parts of what all need, above which more is pushed after a time...
const RESCUE_HIGH: f64 = 0.03;
const HIGH_FOR: Duration = Duration::from_secs(2);
const MORE: f64 = 1.2;

/// ...and below which less is.
const RESCUE_LOW: f64 = 0.005;
const LOW_FOR: Duration = Duration::from_secs(10);
const LESS: f64 = 0.9;

/// How far the correction may go.
const FACTOR_MIN: f64 = 0.2;
const FACTOR_MAX: f64 = 10.0;

/// The most by which copies are taken away in a step, in parts of all peers: each of them is
/// somebody who has to find another parent.
const FALL: f64 = 0.0125;

/// A change that is smaller, in parts of all peers, is none: each means that somebody has to look
/// for a parent, or gets everything twice for a while.
const STILL: f64 = 0.015;

/// How much of what peers say that they can upload is news in each step: their own measurements
/// go up and down.
const NEWS: f64 = 0.06;

/// Copies of one stream.
#[derive(Debug)]
pub(super) struct Quota {
    factor: f64,
    /// What peers can upload, smoothed.
    supply: Option<f64>,
    high: Held,
    low: Held,
    /// What was decided last.
    copies: Option<f64>,
}

impl Default for Quota {
    fn default() -> Quota {
        Quota {
            factor: 1.0,
            supply: None,
            high: Held::default(),
            low: Held::default(),
            copies: None,
        }
    }
}

/// The least copies for so many peers.
pub(super) fn least(peers: u32) -> u32 {
    (LEAST + peers / LEAST_PER).min(peers)
}

impl Quota {
    /// How many copies of each stripe are pushed, never more than `budget`.
    pub(super) fn look(&mut self, now: Mono, ballot: &Ballot, budget: u32) -> u32 {
        let (peers, least) = (f64::from(ballot.peers), f64::from(least(ballot.peers)));
        let most = peers.min(f64::from(budget));
        let supply = self.supply.map_or(ballot.supply(), |supply| {
            // Less is believed at once: somebody has to step in.
            (supply + NEWS * (ballot.supply() - supply)).min(ballot.supply() * 1.2)
        });
        self.supply = Some(supply);
        let guess = (peers * (ALONE - SPARED * supply)).max(least);
        let wanted = |factor: f64| (guess * factor).clamp(least.min(most), most).ceil();
        let before = wanted(self.factor);
        if self.high.for_so_long(now, ballot.rescue > RESCUE_HIGH, HIGH_FOR) {
            self.high = Held::default();
            if before < most {
                self.factor = (self.factor * MORE).min(FACTOR_MAX);
            }
        }
        if self.low.for_so_long(now, ballot.rescue < RESCUE_LOW, LOW_FOR) {
            self.low = Held::default();
            if before > least {
                self.factor = (self.factor * LESS).max(FACTOR_MIN);
            }
        }
        let wanted = wanted(self.factor);
        // Everybody was pushed everything before, and nobody knows what lines carry that nobody
        // has asked: less is pushed only as long as others bring what is not.
        let before = self.copies.unwrap_or(peers);
        let calm = ballot.rescue <= RESCUE_HIGH;
        let slowest = if calm { before - (peers * FALL).max(0.25) } else { before };
        let still = (wanted - before).abs() < (peers * STILL).max(1.0) && wanted > least;
        let copies = if still { before } else { wanted.max(slowest) }.min(most);
        self.copies = Some(copies);
        copies.ceil() as u32
    }
}
