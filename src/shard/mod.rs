//! One core: the machine that serves connections from rings.
#![forbid(unsafe_code)]

pub mod settings;
