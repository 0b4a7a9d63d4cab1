//! What an operator can choose about the work of a shard.

use std::time::Duration;

/// Settings of a shard.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How far a viewer may fall behind before it jumps to the newest access point.
    pub max_lag: Duration,
    /// Jumps in one minute after which a viewer is closed as too slow.
    pub max_jumps: u32,
    /// How long a viewer's connection may take nothing at all before it is closed.
    pub stall_timeout: Duration,
    /// The share of a core (0 to 1) above which a shard gathers bytes longer before it sends.
    pub busy_target: f64,
    /// The longest that it gathers.
    pub max_batch_delay: Duration,
    /// How long HLS segments shall be.
    pub segment: Duration,
    /// How many segments an HLS playlist lists.
    pub playlist: usize,
}
