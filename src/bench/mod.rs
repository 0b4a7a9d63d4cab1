//! Measures the relay beside what the kernel allows, so that every figure is a ratio of one run.
//!
//! ```text
//! this process          asks, reads probes, prints     any core but the relay's
//!   relay               the real binary, as a child    the first core (one per shard)
//!   load                viewers that drop every byte   another core
//!   source              the publisher                  another core
//! ```
//!
//! A measurement is a pair: first the relay, then a raw send loop ([`crate::io::ceiling`]) with
//! as many connections, the same bytes per send and the same bytes per second. Pairs alternate,
//! so that a disturbance of the machine meets both halves. Every child is killed by its pid when
//! its handle is dropped, and by the kernel when this process ends in any other way.
#![forbid(unsafe_code)]

mod asked;
pub mod ceiling;
mod child;
mod crowd;
pub mod hls;
pub mod http;
pub mod load;
pub mod machine;
mod marker;
mod playout;
mod probe;
pub mod relay;
pub mod report;
pub mod shelf;
pub mod source;
pub mod step;
pub mod storm;
pub mod streams;
pub mod swarm;
mod swing;
pub mod work;

/// The outcome of anything here; the error is one line for a human.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Says how far a measurement is, in whole lines.
pub type Progress<'a> = &'a dyn Fn(&str);
