//! What is played: who comes and goes, what breaks, and what must hold all the same.

use std::time::Duration;

use crate::sim::dice::Ppm;
use crate::sim::link::Faults;
use crate::sim::population::{CHURN, Folk, HOMES, LAN, LOSS, POOR};
use crate::swarm::settings::{Mode, Strategy};

/// Something that is done to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// So many thousandths of those who are there leave within a second, politely or not.
    Leave {
        /// How many.
        thousandths: u64,
        /// With a word.
        politely: bool,
    },
    /// So many thousandths of those who are there do nothing any more, and stay.
    Freeze(u64),
    /// The relay's process is killed, and started again after this time.
    RelayDies(Duration),
    /// No datagram reaches or leaves the relay for this time.
    SwarmCut(Duration),
    /// Somebody sends datagrams under the addresses of others, from now on.
    Spoof,
}

/// What must hold. Broken rules of other kinds fail every scenario.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Stalls that the network does not explain, per viewer-hour.
    pub stalls_per_hour: f64,
    /// Stalls that it does explain.
    pub excused_per_hour: f64,
    /// Stalled time of any one viewer, unless all of it is explained.
    pub stall_max: Duration,
    /// Startup, 95th percentile.
    pub startup_p95: Duration,
    /// Delay behind live, 99th percentile.
    pub delay_p99: Duration,
    /// How long after the last thing that is done to the world nobody stalls any more.
    pub recovery: Option<Duration>,
    /// What the viewers carry at least, of a hundred, where there are enough of them.
    pub offload: f64,
}

/// A scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What happens, in a line.
    pub about: &'static str,
    /// Who watches.
    pub folk: Folk,
    /// Who sends what to viewers.
    pub mode: Mode,
    /// By what rule.
    pub strategy: Strategy,
    /// What the peers' lines do.
    pub faults: Faults,
    /// Over which time the peers come.
    pub arrival: Duration,
    /// Peers that leave in a second, and as many that come.
    pub churn: Ppm,
    /// Peers through whose lines no datagram comes.
    pub blocked: Ppm,
    /// Peers that change some of the chunks that they pass on.
    pub liars: Ppm,
    /// What is done, in thousandths of the time after everybody came.
    pub acts: &'static [(u64, Act)],
    /// What must hold.
    pub limits: Limits,
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const LIMITS: Limits = Limits {
    stalls_per_hour: 0.1,
    excused_per_hour: 0.05,
    stall_max: ms(500),
    startup_p95: ms(2_000),
    delay_p99: ms(3_000),
    recovery: None,
    offload: 85.0,
};

const USUAL: Faults = Faults { loss: LOSS, burst: 0, burst_goes_on: 0, twice: 100, late: 1_000 };

/// Five in a hundred lost, and now and then dozens in a row.
const BAD: Faults =
    Faults { loss: 50_000, burst: 100, burst_goes_on: 950_000, twice: 5_000, late: 20_000 };

/// A network of one machine, which loses two datagrams in a hundred.
const LOSSY_LAN: Faults = Faults { loss: 20_000, burst: 0, burst_goes_on: 0, twice: 0, late: 0 };

/// What the others differ from.
const STEADY: Scenario = Scenario {
    name: "steady",
    about: "1 % loss, 0.2 % of the peers leave each second and as many come",
    folk: HOMES,
    mode: Mode::Auto,
    strategy: Strategy::Trees,
    faults: USUAL,
    arrival: ms(2_000),
    churn: CHURN,
    blocked: 0,
    liars: 0,
    acts: &[],
    limits: LIMITS,
};

/// All scenarios.
pub const ALL: [Scenario; 13] = [
    STEADY,
    Scenario {
        name: "poor",
        about: "uplinks of 0.6 times the bitrate in the mean: the relay carries the rest",
        folk: POOR,
        limits: Limits { stalls_per_hour: 0.2, offload: 25.0, ..LIMITS },
        ..STEADY
    },
    Scenario {
        name: "lossy",
        about: "5 % loss, bursts, duplicates and reordering on every peer's line",
        faults: BAD,
        limits: Limits { startup_p95: ms(3_000), offload: 0.0, ..ENDURED },
        ..STEADY
    },
    Scenario {
        name: "flash",
        about: "everybody comes within one second",
        arrival: ms(1_000),
        churn: 0,
        limits: Limits { startup_p95: ms(2_500), ..LIMITS },
        ..STEADY
    },
    Scenario {
        name: "leave",
        about: "80 % of the peers leave within a second, half of those without a word",
        churn: 0,
        acts: &[
            (500, Act::Leave { thousandths: 400, politely: true }),
            (500, Act::Leave { thousandths: 667, politely: false }),
        ],
        limits: Limits { recovery: Some(ms(3_000)), offload: 0.0, ..ENDURED },
        ..STEADY
    },
    Scenario {
        name: "frozen",
        about: "5 % of the peers do nothing any more, and stay",
        churn: 0,
        acts: &[(500, Act::Freeze(50))],
        limits: Limits { recovery: Some(ms(3_000)), ..LIMITS },
        ..STEADY
    },
    Scenario {
        name: "corrupt",
        about: "5 % of the peers change every fiftieth chunk that they pass on",
        liars: 50_000,
        ..STEADY
    },
    Scenario {
        name: "spoof",
        about: "somebody floods relay and peers under the addresses of others",
        acts: &[(100, Act::Spoof)],
        ..STEADY
    },
    Scenario {
        name: "restart",
        about: "the relay is killed and started again one second later",
        churn: 0,
        acts: &[(500, Act::RelayDies(ms(1_000)))],
        limits: Limits {
            excused_per_hour: 3_600.0,
            stall_max: ms(10_000),
            delay_p99: ms(5_500),
            recovery: Some(ms(2_000)),
            ..ENDURED
        },
        ..STEADY
    },
    Scenario {
        name: "cut",
        about: "no datagram passes the relay for three seconds, HTTP does",
        churn: 0,
        acts: &[(400, Act::SwarmCut(ms(3_000)))],
        limits: Limits { recovery: Some(ms(3_000)), offload: 0.0, ..LIMITS },
        ..STEADY
    },
    Scenario {
        name: "blocked",
        about: "a third of the peers cannot use UDP at all",
        churn: 0,
        blocked: 333_000,
        limits: Limits { startup_p95: ms(3_000), ..LIMITS },
        ..STEADY
    },
    Scenario {
        name: "direct",
        about: "as steady, and the relay sends everything to everybody",
        mode: Mode::Direct,
        limits: Limits { offload: 0.0, ..LIMITS },
        ..STEADY
    },
    Scenario {
        name: "namespaces",
        about: "the world of tests/swarm_hybrid.rs: one machine, 2 % loss, shaped uplinks",
        folk: LAN,
        mode: Mode::Hybrid,
        faults: LOSSY_LAN,
        arrival: ms(6_000),
        churn: 0,
        limits: Limits { offload: 80.0, ..LIMITS },
        ..STEADY
    },
];

/// Where much is done to the world, not every stall is a defect, and the recovery counts.
const ENDURED: Limits = Limits { stalls_per_hour: 60.0, stall_max: ms(3_000), ..LIMITS };

impl Scenario {
    /// The scenario of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Scenario> {
        ALL.iter().find(|scenario| scenario.name == name).cloned()
    }
}
