//! Wire formats: bytes to values and back. No state, no allocation on decode.
#![forbid(unsafe_code)]

pub mod http;
pub mod mpegts;
pub mod ppspp;
pub mod rtp;
pub mod swarm_json;
