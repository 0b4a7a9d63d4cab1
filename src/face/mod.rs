//! Faces: protocols towards viewers. Sans-I/O: bytes and time in, bytes and intentions out.
#![forbid(unsafe_code)]

pub mod http;
pub mod swarm;
