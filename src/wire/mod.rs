//! Wire formats: bytes <-> values. No state beyond one message, no I/O, no clock.
#![forbid(unsafe_code)]

pub mod http;
