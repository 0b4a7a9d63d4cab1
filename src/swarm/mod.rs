//! The swarm's state machines: what one link between two peers needs, at either end of it.
//!
//! RFC 7574 (PPSPP) in the profile of live streams: one signature per subtree. All of it is
//! sans-I/O and knows neither relay nor viewer, so that both are made of the same parts.
//!
//! ```text
//! integrity  hashes, signatures, keys, the signer's clock and the age of what it signed
//! crimes     everything that the other end can do wrong, what it costs, how it is counted
//! channel    ids for links: unpredictable, with the shard inside, not soon used again
//! halfopen   openings that were answered and not yet confirmed: bounded, whatever comes in
//! ledbat     how much may be under way: the congestion window, in trains
//! pacer      how fast questions are answered
//! requests   what was asked for and not yet answered
//! flight     trains under way: which chunks of them were not acknowledged
//! sender     one link's sending half: what is sent next, and when the link is given up
//! opener     the initiator's handshake; receiver: the half of a link that receives
//! doors      handshakes between viewers whom their relay introduced to each other
//! mesh       which neighbour feeds which stripe, and whom a viewer asks for what is missing
//! realm      who can open to whom; row: things with numbers in a row
//! stripes    what is dealt out to whom: labels on links
//! probing    how fast trains come by which a peer measures its line
//! upload     how much a viewer passes on, and to whom
//! stamp      the relay's clock as a viewer sees it; timeline: when each byte came in there
//! controller direct or hybrid, and who feeds whom
//! playout    where a viewer plays, what a stall is
//! ```
#![forbid(unsafe_code)]

pub mod channel;
pub mod controller;
pub mod crimes;
pub mod doors;
pub mod flight;
pub mod halfopen;
pub mod integrity;
pub mod ledbat;
pub mod mesh;
pub mod opener;
pub mod pacer;
pub mod playout;
pub mod probing;
pub mod realm;
pub mod receiver;
pub mod requests;
pub mod row;
pub mod sender;
pub mod settings;
pub mod stamp;
pub mod stripes;
pub mod timeline;
pub mod upload;
