//! Wire formats: bytes to values and back. No state, and nothing is allocated to decode.
//!
//! Every decoder takes any bytes at all and never panics; what is no valid field is `None`.
#![forbid(unsafe_code)]

pub mod mpegts;
