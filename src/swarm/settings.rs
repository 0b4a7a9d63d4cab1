//! What an operator can choose about the swarm.

use std::net::SocketAddr;

pub use crate::ring::records::SubtreeSize;
pub use crate::wire::ppspp::Addressing;

/// Settings of the swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where peers come in. `None`: there is no swarm.
    pub listen: Option<SocketAddr>,
    /// The addresses that peers are told, `HOST:PORT`. Empty: the name by which they asked, and
    /// the port of the swarm.
    pub advertise: Vec<String>,
    /// How chunks are named in streams that begin now.
    pub addressing: Addressing,
    /// How many chunks are under one signature. `None`: by the stream's bitrate.
    pub size: Option<SubtreeSize>,
    /// Who may join.
    pub join: Join,
    /// Peers of the whole process.
    pub peers: usize,
    /// What may go out to peers, in bits per second: nobody is let in beyond it, and nobody inside
    /// is sent less for it. `None`: no limit is known.
    pub egress: Option<u64>,
    /// Whether peers pass on what they get.
    pub mode: Mode,
    /// How it is planned who feeds whom.
    pub strategy: Strategy,
}

/// Who sends what to peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// As what peers can upload allows, stream by stream.
    #[default]
    Auto,
    /// The relay sends everything to everybody, and peers do not hear of each other.
    Direct,
    /// The relay sends to some, and these to others.
    Hybrid,
}

impl Mode {
    /// Its word in a configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Mode::Auto => "auto",
            Mode::Direct => "direct",
            Mode::Hybrid => "hybrid",
        }
    }
}

/// How it is planned who feeds whom. No operator can choose it: what is not the default is there
/// to be compared with, in the simulator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// By trees that are made as good as is known.
    #[default]
    Trees,
    /// Each peer is fed each stripe by another one with room, by chance.
    Random,
    /// Nobody is to feed anybody: peers ask each other for what they lack.
    Pull,
}

/// Who may join a swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Join {
    /// Anybody.
    Open,
    /// Who shows one of these tokens, of which only the SHA-256 is known here.
    Token(Vec<[u8; 32]>),
}
