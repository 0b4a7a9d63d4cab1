//! The ring alone, for the tools that look into its memory: see `.ci/ring/run`.

#[path = "../../src/base/mod.rs"]
pub mod base;
#[path = "../../src/ring/mod.rs"]
pub mod ring;
