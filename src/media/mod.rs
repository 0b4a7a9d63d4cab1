//! Knowledge of the media in a stream: packet alignment, access points, health, the demo source.
//!
//! Everything here is a state machine over bytes. It returns what it found; the shard that owns
//! the stream writes the marks.
#![forbid(unsafe_code)]
pub mod aligner;
pub mod health;
pub mod looper;
pub mod playlist;
pub mod reader;
pub mod sample;
pub mod segmenter;

mod codec;
mod meter;
mod pids;
mod scan;
mod tables;
