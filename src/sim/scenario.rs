//! What is played: who comes and goes, what breaks, and what must hold all the same.

use std::time::Duration;

use crate::sim::dice::Ppm;
use crate::sim::link::Faults;
use crate::sim::population::{CHURN, LOSS};

/// Something that is done to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// So many thousandths of those who are there leave, politely or not.
    Leave {
        /// How many.
        thousandths: u64,
        /// With a word.
        politely: bool,
    },
    /// The relay's process is killed, and started again after this time.
    RelayDies(Duration),
    /// No datagram reaches or leaves the relay for this time.
    SwarmCut(Duration),
}

/// What must hold. Broken rules of other kinds fail every scenario.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Stalls that the network does not explain, per viewer-hour.
    pub stalls_per_hour: f64,
    /// Stalled time of any one viewer.
    pub stall_max: Duration,
    /// Startup, 95th percentile.
    pub startup_p95: Duration,
    /// Delay behind live, 99th percentile.
    pub delay_p99: Duration,
}

/// A scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What happens, in a line.
    pub about: &'static str,
    /// What the peers' lines do.
    pub faults: Faults,
    /// Over which time the peers come.
    pub arrival: Duration,
    /// Peers that leave in a second, and as many that come.
    pub churn: Ppm,
    /// Peers through whose lines no datagram comes.
    pub blocked: Ppm,
    /// What is done, in thousandths of the time after everybody came.
    pub acts: &'static [(u64, Act)],
    /// What must hold.
    pub limits: Limits,
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// With key frames two seconds apart the play-out delay of one who joins is up to 2.7 s, and the
/// time that joining takes: the rule of [`crate::swarm::playout::tune_in`].
const LIMITS: Limits = Limits {
    stalls_per_hour: 0.0,
    stall_max: Duration::ZERO,
    startup_p95: ms(2_000),
    delay_p99: ms(3_500),
};

const USUAL: Faults = Faults { loss: LOSS, burst: 0, burst_goes_on: 0, twice: 100, late: 1_000 };

/// Five in a hundred lost, and now and then dozens in a row.
const BAD: Faults =
    Faults { loss: 50_000, burst: 100, burst_goes_on: 950_000, twice: 5_000, late: 20_000 };

/// All scenarios.
pub const ALL: [Scenario; 7] = [
    Scenario {
        name: "steady",
        about: "1 % loss, 0.2 % of the peers leave each second and as many come",
        faults: USUAL,
        arrival: ms(2_000),
        churn: CHURN,
        blocked: 0,
        acts: &[],
        limits: LIMITS,
    },
    Scenario {
        name: "lossy",
        about: "5 % loss, bursts, duplicates and reordering on every peer's line",
        faults: BAD,
        arrival: ms(2_000),
        churn: CHURN,
        blocked: 0,
        acts: &[],
        limits: Limits { stall_max: ms(500), startup_p95: ms(3_000), ..LIMITS },
    },
    Scenario {
        name: "flash",
        about: "everybody comes within one second",
        faults: USUAL,
        arrival: ms(1_000),
        churn: 0,
        blocked: 0,
        acts: &[],
        limits: Limits { startup_p95: ms(2_500), ..LIMITS },
    },
    Scenario {
        name: "leave",
        about: "80 % of the peers leave at once, half of those without a word",
        faults: USUAL,
        arrival: ms(2_000),
        churn: 0,
        blocked: 0,
        acts: &[
            (500, Act::Leave { thousandths: 400, politely: true }),
            (500, Act::Leave { thousandths: 667, politely: false }),
        ],
        limits: LIMITS,
    },
    Scenario {
        name: "restart",
        about: "the relay is killed and started again one second later",
        faults: USUAL,
        arrival: ms(2_000),
        churn: 0,
        blocked: 0,
        acts: &[(500, Act::RelayDies(ms(1_000)))],
        limits: Limits {
            stalls_per_hour: 3_600.0,
            stall_max: ms(10_000),
            delay_p99: ms(5_500),
            ..LIMITS
        },
    },
    Scenario {
        name: "cut",
        about: "no datagram passes the relay for three seconds, HTTP does",
        faults: USUAL,
        arrival: ms(2_000),
        churn: 0,
        blocked: 0,
        acts: &[(400, Act::SwarmCut(ms(3_000)))],
        limits: LIMITS,
    },
    Scenario {
        name: "blocked",
        about: "a third of the peers cannot use UDP at all",
        faults: USUAL,
        arrival: ms(2_000),
        churn: 0,
        blocked: 333_000,
        acts: &[],
        limits: Limits { startup_p95: ms(3_000), ..LIMITS },
    },
];

impl Scenario {
    /// The scenario of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Scenario> {
        ALL.iter().find(|scenario| scenario.name == name).cloned()
    }
}
