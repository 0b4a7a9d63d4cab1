//! How large a world of real processes is, for how long it is watched, and how much is asked of
//! it.
//!
//! - `RELAY_BINARY`: what is tested, a release build: there are sixty peers then. A build with
//!   debug assertions would need three cores for them, so without it there are sixteen.
//! - `HEADWATER_WORLD_STRICT=1` asks for what is promised, else for somewhat less. It wants the
//!   machine for itself.
//! - `HEADWATER_WORLD_SECONDS`: how long the crowd is watched, once its first ten are over.
//! - `HEADWATER_WORLD_PEERS`: how many they are.
//! - `HEADWATER_WORLD_MODE`: another `swarm.mode`, to see what happens; then nothing of what peers
//!   share is asked for.
//! - `HEADWATER_WORLD_KEEP`: a directory for what everybody said.

use std::path::PathBuf;

use super::Setup;

/// What a world is made for.
#[derive(Clone, Debug)]
pub struct Scale {
    pub peers: usize,
    pub seconds: u64,
    pub strict: bool,
    /// `swarm.mode` of the relay.
    pub mode: String,
}

impl Scale {
    /// As the environment wants it.
    pub fn new() -> Scale {
        let variable = |name: &str| std::env::var(format!("HEADWATER_WORLD_{name}")).ok();
        let number = |name: &str| variable(name).map(|text| text.parse::<u64>().expect("a number"));

        let strict = variable("STRICT").is_some_and(|text| text != "0");
        let peers = if std::env::var_os("RELAY_BINARY").is_some() { 60 } else { 16 };
        Scale {
            peers: number("PEERS").map_or(peers, |peers| peers as usize),
            seconds: number("SECONDS").unwrap_or(if strict { 120 } else { 20 }),
            strict,
            mode: variable("MODE").unwrap_or_else(|| "hybrid".to_owned()),
        }
    }

    /// A relay in that mode.
    pub fn of(&self, setup: Setup) -> Setup {
        setup.set("swarm.mode", self.mode.as_str())
    }

    /// Whether peers are to share: else nothing is asked of what they share.
    pub fn is_hybrid(&self) -> bool {
        self.mode == "hybrid"
    }

    /// What is promised, or less where the machine has other work.
    pub fn bound<T>(&self, promised: T, else_at_least: T) -> T {
        if self.strict { promised } else { else_at_least }
    }
}

/// Where a run leaves what was said, if that is wanted.
pub fn keep_dir() -> Option<PathBuf> {
    std::env::var_os("HEADWATER_WORLD_KEEP").map(PathBuf::from)
}
