//! The swarm: PPSPP's state machines (RFC 7574). They read no clock, no file and no socket.
//!
//! `wire::ppspp` turns datagrams into values; what those values mean is decided here, for the
//! relay and for peers alike.
#![forbid(unsafe_code)]

pub mod integrity;
