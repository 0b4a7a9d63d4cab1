//! HTTP: one connection machine for everything that speaks it.

pub mod settings;
