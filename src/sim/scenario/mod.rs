//! What is played: who comes and goes, what breaks, and what must hold all the same.

mod all;

use std::time::Duration;

use crate::sim::dice::Ppm;
use crate::sim::link::Faults;
use crate::sim::population::Folk;
use crate::swarm::settings::{Mode, Strategy};

pub use all::ALL;

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
    /// Somebody sends datagrams under the addresses of others for this time.
    Spoof(Duration),
    /// The besiegers open links to everybody, again and again, for this time.
    Besiege(Duration),
    /// Nothing passes for this time between a third of the viewers and everybody else, the relay
    /// included; see `sim/trouble.rs`.
    RegionCut(Duration),
    /// The relay's machines do nothing for `busy` of each `period`; see `sim/trouble.rs`.
    RelaySlow {
        /// How long that goes on.
        time: Duration,
        /// Of each period.
        busy: Duration,
        /// From one time to the next.
        period: Duration,
    },
    /// The publisher sends nothing for this time.
    Pause {
        /// How long.
        time: Duration,
        /// Then all of it at once, instead of going on where it was.
        burst: bool,
    },
    /// As many come within a second as are missing.
    Refill,
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
    /// Duplicates, and control, of a hundred bytes of the stream.
    pub overhead: f64,
    /// What leaves the relay, of a hundred bytes of the egress budget, if there is one.
    pub egress: f64,
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
    /// Peers that say what they have and pass nothing on.
    pub riders: Ppm,
    /// Peers that say that they have and can send what is not so.
    pub boasters: Ppm,
    /// Peers that do both.
    pub besiegers: Ppm,
    /// Peers whose lines get narrow in a second, for up to [`SWING_MAX`], down to
    /// `population::NARROW` percent.
    pub swings: Ppm,
    /// What each host's clock gains or loses at most. That it is days ahead is so in all worlds.
    pub drift: Ppm,
    /// From one key frame to the next, instead of what the command line says.
    pub gop: Option<Duration>,
    /// What the relay may send to peers, in percent of what all of them together get.
    pub egress: Option<u64>,
    /// Most of this is drawn from the seed instead; see `sim/chaos.rs`.
    pub chaos: bool,
    /// What is done, in thousandths of the time after everybody came.
    pub acts: &'static [(u64, Act)],
    /// What must hold.
    pub limits: Limits,
}

/// Longer than any world.
pub const FOR_EVER: Duration = Duration::from_secs(30 * 86_400);

/// The longest time for which a line is narrow.
pub const SWING_MAX: Duration = Duration::from_secs(5);

impl Scenario {
    /// Whether somebody gives honest peers reason to accuse each other.
    #[must_use]
    pub fn somebody_lies(&self) -> bool {
        self.liars + self.boasters + self.besiegers > 0
    }

    /// The scenario of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Scenario> {
        ALL.iter().find(|scenario| scenario.name == name).cloned()
    }
}
