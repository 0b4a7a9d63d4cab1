//! A whole world from one seed: relay, publisher and viewers, over a network that does not exist,
//! in a time that does not pass.
//!
//! The machines are those of production, and this is their third driver beside io_uring and
//! epoll. What happens follows from the seed alone, so whatever goes wrong goes wrong again.
//!
//! ```text
//! dice, queue, digest       chance, time, and one number for all that happened
//! link, nat, flight         lines, address translators, datagrams under way
//! world, turns, udp, tcp    the driver
//! trouble                   what befalls more than one line
//! population, source        who watches, who publishes: assumptions, stated
//! house, crowd              the relay's shards, the viewers' peers
//! foe, liar, spoofer        those who mean harm
//! notary, scribe            integrity that thousands share, signatures that are the same again
//! scenario, chaos, stage    what happens; it happens
//! referee                   holds what they do against what is true
//! gauge                     whether the relay knows what it sends
//! losses, proofs, truth     what the referee knows and nobody else
//! egress, shares, report    what the relay sends for what, figures, and the verdict
//! figures, summary          the same by name, and of many worlds
//! policy, played            what is compared in a report, and what was played for it
//! plots, tables             how it is shown
//! musts                     what must be reached
//! ```
#![forbid(unsafe_code)]

mod chaos;
mod crowd;
mod describe;
mod dice;
mod digest;
pub mod egress;
pub mod figures;
mod flight;
mod foe;
mod gauge;
mod house;
mod liar;
mod link;
mod losses;
pub mod musts;
mod nat;
mod notary;
pub mod played;
pub mod plots;
pub mod policy;
mod population;
mod proofs;
mod queue;
mod referee;
mod report;
pub mod scenario;
mod scribe;
mod shares;
mod source;
mod spoofer;
mod stage;
mod summary;
pub mod tables;
mod tcp;
#[cfg(test)]
mod tests;
mod trouble;
mod truth;
mod turns;
mod udp;
mod world;

pub use report::Report;
pub use stage::Plan;
pub use summary::{Bound, Summary};
pub use world::Trace;

use stage::Stage;

/// The hosts before the viewers': relay and publisher.
const OTHERS: usize = 2;

/// The host of a name as `relay` or `peer:17`; viewers are counted from 1 on.
#[must_use]
pub fn host(name: &str) -> Option<usize> {
    match name.split_once(':') {
        None if name == "relay" => Some(world::RELAY),
        Some(("peer", number)) => Some(number.parse::<usize>().ok()?.checked_sub(1)? + OTHERS),
        _ => None,
    }
}

/// Plays a world.
///
/// # Errors
/// In words, if this machine cannot play it.
pub fn run(plan: Plan, trace: Option<Trace>) -> Result<Report, String> {
    let mut stage = Stage::new(plan, trace)?;
    stage.play();
    Ok(Report::of(&stage))
}
