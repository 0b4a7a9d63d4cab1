//! How large a world of real processes is, for how long it is watched, and how much is asked of
//! it: what a build with debug assertions reaches beside nothing else on two cores, or what is
//! promised.
//!
//! | variable | |
//! |---|---|
//! | `HEADWATER_WORLD_STRICT=1` | asks for what is promised; wants a release build as `RELAY_BINARY` and the machine for itself |
//! | `HEADWATER_WORLD_SECONDS` | how long the crowd is watched, once its first ten seconds are over |
//! | `HEADWATER_WORLD_PEERS` | how many they are |
//! | `HEADWATER_WORLD_MODE` | another `swarm.mode`, to see what happens; nothing of sharing is asked for then |
//! | `HEADWATER_WORLD_KEEP` | a directory for what everybody said |

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
        let number = |name: &str| variable(name).map(|text| text.parse().expect("a number"));
        let strict = variable("STRICT").is_some_and(|text| text != "0");
        Scale {
            peers: number("PEERS").unwrap_or(60) as usize,
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

    /// What is promised, or less where two cores do the work of sixty.
    pub fn bound<T>(&self, promised: T, else_at_least: T) -> T {
        if self.strict { promised } else { else_at_least }
    }
}

/// Where a run leaves what was said, if that is wanted.
pub fn keep_dir() -> Option<PathBuf> {
    std::env::var_os("HEADWATER_WORLD_KEEP").map(PathBuf::from)
}
