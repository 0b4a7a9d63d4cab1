//! Where a stream comes in: from a publisher's bytes to a window with marks.
#![forbid(unsafe_code)]

pub mod follow;
pub mod intake;
pub mod reorder;
mod scribe;
pub mod sealer;
pub mod settings;
pub mod tcp;
pub mod udp;
