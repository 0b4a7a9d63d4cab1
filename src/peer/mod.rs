//! The viewer's node, without I/O: it joins a stream over UDP or HTTP and plays it locally.
#![forbid(unsafe_code)]

pub mod client;
