//! What a load process does, as its one argument.

use serde::{Deserialize, Serialize};

use crate::bench::{Outcome, hls, load, swarm};

/// The work of one process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Work {
    /// Viewers of one endless response each.
    Http(load::Plan),
    /// HLS players.
    Hls(hls::load::Plan),
    /// Peers of a swarm.
    Swarm(swarm::load::Plan),
}

impl Work {
    /// Reads what [`Work::argument`] wrote.
    ///
    /// # Errors
    /// If it is something else.
    pub fn parse(text: &str) -> Result<Work, String> {
        serde_json::from_str(text).map_err(|why| why.to_string())
    }

    /// The work as one argument of `bench load`.
    ///
    /// # Errors
    /// Never for the types that are in here.
    pub fn argument(&self) -> Outcome<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// Does it until the input ends or its time is over. Blocks.
    ///
    /// # Errors
    /// If the machine does not let it; what happens to a viewer is counted.
    pub fn run(self) -> Outcome<()> {
        match self {
            Work::Http(plan) => load::run(plan),
            Work::Hls(plan) => hls::load::run(plan),
            Work::Swarm(plan) => swarm::load::run(plan),
        }
    }
}
