//! Bugs that are planted on purpose, to show that the simulator finds and names them. They exist
//! only in builds with the feature `planted`, which nothing that is shipped has.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Plant {
    /// Chunks are taken whatever their hash is.
    Gullible = 1,
    /// Every hundredth chunk changes when it is kept.
    WrongByte,
    /// Every hundredth train of a viewer carries something else than what was verified.
    ForwardWrong,
    /// Openings are answered twice: more bytes than were asked with.
    AnswerTwice,
    /// Openings are never forgotten.
    KeepOpenings,
    /// The relay is not asked for what is due and has not come.
    NoRescue,
    /// Nobody is asked for what is missing of one stripe.
    ForgetStripe,
    /// A chunk that comes after later ones of its subtree is taken whatever its hash is.
    TrustRepairs,
    /// Chunks are kept and passed on first, and verified afterwards.
    ForwardFirst,
    /// What the second shard sends is not held against the egress budget.
    MissShard,
}

impl Plant {
    /// All of them, by their names on the command line.
    pub const ALL: [(&str, Plant); 10] = [
        ("gullible", Plant::Gullible),
        ("wrong-byte", Plant::WrongByte),
        ("forward-wrong", Plant::ForwardWrong),
        ("answer-twice", Plant::AnswerTwice),
        ("keep-openings", Plant::KeepOpenings),
        ("no-rescue", Plant::NoRescue),
        ("forget-stripe", Plant::ForgetStripe),
        ("trust-repairs", Plant::TrustRepairs),
        ("forward-first", Plant::ForwardFirst),
        ("miss-shard", Plant::MissShard),
    ];
}

/// Whether a bug is there.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn is(_: Plant) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use there::{is, plant};

#[cfg(feature = "planted")]
mod there {
    use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

    use super::Plant;

    static WHICH: AtomicU8 = AtomicU8::new(0);

    /// Whether a bug is there.
    #[must_use]
    pub fn is(plant: Plant) -> bool {
        WHICH.load(Relaxed) == plant as u8
    }

    /// Plants a bug, or none, in this process.
    pub fn plant(plant: Option<Plant>) {
        WHICH.store(plant.map_or(0, |plant| plant as u8), Relaxed);
    }
}
