//! The only data-path code that touches the operating system.
#![warn(clippy::undocumented_unsafe_blocks)]

pub mod machine;
