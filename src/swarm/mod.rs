//! The swarm's state machines: what one link between two peers needs, at either end of it.
//!
//! RFC 7574 (PPSPP) in the profile of live streams: one signature per subtree. All of it is
//! sans-I/O and knows neither relay nor viewer, so that both are made of the same parts.
//!
//! ```text
//! integrity  hashes, signatures, keys, the signer's clock and the age of what it signed
//! crimes     everything that the other end can do wrong, what it costs, how it is counted
//! opener     the initiator's handshake; receiver: the half of a link that receives
//! stamp      the relay's clock as a viewer sees it; timeline: when each byte came in there
//! playout    where a viewer plays, what a stall is
//! ```
#![forbid(unsafe_code)]

pub mod crimes;
pub mod integrity;
pub mod opener;
pub mod playout;
pub mod receiver;
pub mod settings;
pub mod stamp;
pub mod timeline;
