//! The registry: which streams there are, who may write them, who may come in.
#![forbid(unsafe_code)]

pub mod settings;
