//! The viewers of a world: production peers without a shard, each on a host of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::StreamName;
use crate::base::limits::SLAB_LARGE;
use crate::base::time::Mono;
use crate::io::machine::Input;
use crate::peer::figures::{Board, Figures};
use crate::peer::settings::{NoNames, Room, Settings};
use crate::peer::{Parts, Peer};
use crate::ring::arena::Arena;
use crate::ring::window;
use crate::sim::dice::Dice;
use crate::sim::foe::Nature;
use crate::sim::house::bytes_of;
use crate::sim::link::Link;
use crate::sim::notary::Notary;
use crate::sim::truth::Shown;
use crate::sim::world::{HTTP, World};
use crate::swarm::playout;
use crate::swarm::settings::Strategy;

/// The greatest play-out delay.
const DELAY: Duration = playout::MAX.saturating_add(playout::BEYOND);

/// How much of the stream a viewer may keep. A window takes what lies ahead of what was played up
/// to a quarter of its size: the greatest delay, and a second.
const WINDOW: Duration = DELAY.saturating_add(Duration::from_secs(1)).saturating_mul(4);

/// How much it keeps: the greatest delay, for what neighbours ask for, and the time between two
/// looks of the referee. What they hold alike is there once.
const KEPT: Duration = DELAY.saturating_add(Duration::from_secs(2));

/// So many bytes of the stream are kept once for all viewers, at most: two hours at 2 Mbit/s. The
/// referee remembers as many.
const ALIKE_MAX: u64 = 2 << 30;

/// The first address of a viewer: the range of RFC 2544 for tests.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// One viewer.
pub struct Viewer {
    /// Its number, from 1 on.
    pub number: usize,
    /// Its host and its machine.
    pub host: usize,
    pub(super) seat: usize,
    board: Board,
    /// When it came and went.
    pub came: Mono,
    /// When it went.
    pub left: Option<Mono>,
    /// Its figures, as last looked at.
    pub figures: Option<Figures>,
    /// What it has shown.
    pub shown: Shown,
    /// Stalls that were judged, and how many the network does not explain.
    pub judged: u32,
    /// Those that the network explains.
    pub excused: u32,
    /// Whether it is honest: what becomes of others is their own business.
    pub nature: Nature,
    /// The end of what it has shown at the last look, and when that last moved.
    pub(super) moved: (u64, Mono),
}

impl Viewer {
    /// Fresh figures.
    pub fn refresh(&mut self) {
        if self.left.is_none() {
            self.figures = self.board.read().pop().or_else(|| self.figures.take());
        }
    }

    /// Its memory is for those who come.
    fn forget(&mut self) {
        self.shown.close();
        self.board = Board::default();
        self.figures.iter_mut().for_each(|figures| figures.window = None);
    }

    /// Whether it is one of those for whom all this is made.
    #[must_use]
    pub fn is_honest(&self) -> bool {
        self.nature == Nature::Honest
    }

    /// How long it was there.
    #[must_use]
    pub fn stay(&self, now: Mono) -> Duration {
        self.left.unwrap_or(now).since(self.came)
    }
}

/// Who is to come, and to what.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// The most at one time.
    pub most: usize,
    /// Bits per second of the stream.
    pub bitrate: u64,
    /// How long the stream goes on.
    pub time: Duration,
    /// Where it is,
    pub relay: Ipv4Addr,
    /// and what it is called there.
    pub name: StreamName,
    /// What the relay plans by.
    pub strategy: Strategy,
}

/// What all viewers share.
pub struct Crowd {
    /// All that ever came, by number.
    pub viewers: Vec<Viewer>,
    arena: Arc<Arena>,
    memory: window::Settings,
    notary: Notary,
    relay: SocketAddr,
    name: StreamName,
    seed: u64,
    strategy: Strategy,
}

impl Crowd {
    /// Nobody yet, with memory for all that are to come.
    ///
    /// # Errors
    /// If the machine has no memory for that.
    pub fn new(plan: Plan, notary: Notary) -> std::io::Result<Crowd> {
        let Plan { seed, most, bitrate, time, relay, name, strategy } = plan;
        let bytes = bytes_of(bitrate, WINDOW) + (SLAB_LARGE / 4) as u64;
        let memory = window::Settings { bytes, span: KEPT };
        // The newest slab of each ends behind the stream's end.
        let alike = (bytes_of(bitrate, time) + 2 * SLAB_LARGE as u64).min(ALIKE_MAX);
        let arena = Arena::create_lazy(bytes * most as u64 + 2 * SLAB_LARGE as u64, alike)?;
        let relay = (relay, HTTP).into();
        Ok(Crowd { viewers: Vec::new(), arena, memory, notary, relay, name, seed, strategy })
    }

    /// One more viewer, on a host with this link.
    pub fn join(&mut self, world: &mut World, link: Link, nature: Nature) {
        let number = self.viewers.len() + 1;
        let ip = Ipv4Addr::from(u32::from(FIRST) + number as u32);
        let host = world.add_host(ip, link);
        let seat = world.add_seat(host);
        world.hosts[host].honest = nature == Nature::Honest;
        let board = Board::default();
        let mut dice = Dice::new(self.seed, "peer", number as u64);
        let mut key = [0; 32];
        key.chunks_mut(8).for_each(|part| part.copy_from_slice(&dice.number().to_le_bytes()));
        let url = format!("http://{}/live/{}", self.relay, self.name);
        let Ok(url) = url.parse() else { return };
        let settings = Settings {
            url,
            name: self.name.clone(),
            addresses: vec![self.relay],
            pin: None,
            token: None,
            tls: None,
            playout: playout::Settings::default(),
            upload: None,
            strategy: self.strategy,
        };
        let peer = Peer::new(Parts {
            settings,
            rooms: vec![Room::Own { arena: Arc::clone(&self.arena), memory: self.memory.clone() }],
            names: Box::new(NoNames),
            board: board.clone(),
            live: None,
            key,
            now: world.clock(host).mono,
        });
        let peer = peer.with_verifier(Box::new(self.notary.clone()));
        self.viewers.push(Viewer {
            number,
            host,
            seat,
            board,
            came: world.now(),
            left: None,
            figures: None,
            shown: Shown::default(),
            judged: 0,
            excused: 0,
            nature,
            moved: (0, world.now()),
        });
        let dice = Dice::new(self.seed, "liar", number as u64);
        world.seat(seat, nature.around(Box::new(peer), dice));
    }

    /// A viewer stops, and stays.
    pub fn freeze(&mut self, world: &mut World, index: usize) {
        let viewer = &mut self.viewers[index];
        viewer.refresh();
        viewer.left = Some(world.now());
        world.freeze(viewer.seat);
        viewer.forget();
    }

    /// A viewer goes: with a word, or as if its process were killed.
    pub fn leave(&mut self, world: &mut World, index: usize, politely: bool) {
        let viewer = &mut self.viewers[index];
        if viewer.left.is_some() {
            return;
        }
        if politely {
            world.tell(viewer.seat, Input::Drain);
            world.step(viewer.seat);
        }
        viewer.refresh();
        viewer.left = Some(world.now());
        world.kill(viewer.seat);
        viewer.forget();
    }

    /// Those who are there, by index.
    #[must_use]
    pub fn present(&self) -> Vec<usize> {
        let there = self.viewers.iter().enumerate().filter(|(_, viewer)| viewer.left.is_none());
        there.map(|(index, _)| index).collect()
    }
}
