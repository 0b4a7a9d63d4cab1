//! The household: builds every part from a configuration, drives them, ends them.
//!
//! This is the only place that knows all parts. [`Relay::load`] binds every socket and reserves
//! all memory, so that what can fail fails before anybody is told that the relay is ready.
#![forbid(unsafe_code)]

mod declare;
mod doors;
pub mod keeper;
pub mod logging;
mod notify;
pub mod peer;
mod ready;
pub mod roots;
mod watch;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, atomic::AtomicBool};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::base::ids::{ListenerId, ShardId, StreamName};
use crate::config::Config;
use crate::config::resolved::IoDriver;
use crate::control::{self, House};
use crate::face::http::invitation::Door;
use crate::ingest::settings::Way;
use crate::io::clock::Clock;
use crate::io::driver::Setup;
use crate::io::mailbox::Post;
use crate::io::{epoll, probe, socket, uring};
use crate::metrics::cells::Cells;
use crate::metrics::delay::DelayShelf;
use crate::node::declare::Seats;
use crate::node::doors::Doors;
use crate::node::keeper::Keeper;
use crate::node::watch::Watch;
use crate::registry::pulse::Pulse;
use crate::registry::streams::Registry;
use crate::ring::arena::Arena;
use crate::shard::mail::Mail;
use crate::shard::swarm::Swarming;
use crate::shard::{Parts, Shard};

/// Mail that may wait for one shard. Mail is rare: publishers coming and going.
const MAIL_MAX: usize = 1024;

/// How often the household looks after things.
const TICK: Duration = Duration::from_millis(250);

/// How long shards may take to end after they were told to.
const STOP_MAX: Duration = Duration::from_secs(5);

/// How long a relay may take to get ready.
const START_MAX: Duration = Duration::from_secs(30);

/// Where a relay can be reached.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Viewers and publishers.
    pub http: SocketAddr,
    /// Metrics and the API.
    pub control: SocketAddr,
    /// Peers. `None`: there is no swarm.
    pub swarm: Option<SocketAddr>,
    /// Streams that come in otherwise than over HTTP, in the order of the configuration.
    pub ingest: Vec<(StreamName, Way)>,
}

/// A relay with everything built and bound, not yet running.
pub struct Relay {
    config: Config,
    addresses: Addresses,
    post: Post<Mail>,
    house: Arc<House>,
    uring: bool,
    seats: Seats,
    listeners: Vec<TcpListener>,
    doors: Doors,
    control: TcpListener,
    swarming: Option<Swarming>,
    keeper: Keeper,
}

/// What the household hears.
enum News {
    Signal(i32),
    ShardReady,
    ShardEnded(ShardId, io::Result<()>),
    ControlEnded(io::Result<()>),
}

/// Builds a relay and runs it until it is told to stop.
///
/// # Errors
/// One line that says what failed and where.
pub fn run(config: Config) -> Result<(), String> {
    Relay::load(config)?.run(|_| {})
}

impl Relay {
    /// Builds every part and binds every socket.
    ///
    /// # Errors
    /// One line that says what failed and where.
    pub fn load(mut config: Config) -> Result<Relay, String> {
        let (uring, io_reason) = choose_driver(config.cores.io_driver)?;
        let shards = config.cores.shards.fixed_or(declare::cores);
        let seats = declare::connections(&config, shards, uring)?;
        let listeners = listen(config.listen.http, shards)?;
        let control = listen(config.listen.control, 1)?.remove(0);
        let doors = Doors::open(&config.ingest, config.swarm.listen, shards)?;
        let addresses = Addresses {
            swarm: doors.swarm(),
            ingest: doors.ways(&config.ingest),
            http: listeners[0].local_addr().map_err(|why| why.to_string())?,
            control: control.local_addr().map_err(|why| why.to_string())?,
        };
        let advertise = config.swarm.advertise.clone();
        config.http.swarm = addresses.swarm.map(|address| Door { address, advertise });
        let arena = Arena::create(config.arena)
            .map_err(|why| format!("memory.arena: cannot map {} bytes: {why}", config.arena))?;
        let settings = config.registry(seats.connections);
        let post = Post::new(shards, settings.max_streams, MAIL_MAX)
            .map_err(|why| format!("cannot make mailboxes: {why}"))?;
        declare::log_memory(&config, &settings, arena.bytes(), shards);
        let registry = Arc::new(Registry::new(settings, arena, shards));
        let clock = Clock::start();
        let (dir, now) = (config.state_dir.as_deref(), clock.now());
        let keeper = Keeper::open(dir, &config.swarm, &registry, now)?;
        let house = Arc::new(House {
            registry,
            cells: (0..shards).map(|_| Arc::new(Cells::default())).collect(),
            shelves: (0..shards).map(|_| Arc::new(DelayShelf::default())).collect(),
            viewers: None,
            io_driver: if uring { "uring" } else { "epoll" },
            io_reason,
            ready: AtomicBool::new(false),
            clock,
        });
        let swarming = swarming(&config)?;
        Ok(Relay {
            config,
            swarming,
            addresses,
            post,
            house,
            uring,
            seats,
            listeners,
            doors,
            control,
            keeper,
        })
    }

    /// Its streams.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.house.registry)
    }

    /// Runs until a signal ends it. `ready` is called once every shard runs.
    ///
    /// # Errors
    /// If a part failed: the process should be started again.
    pub fn run(mut self, ready: impl FnOnce(&Addresses)) -> Result<(), String> {
        // A crash leaves the file behind; every socket is ours now, so it is nobody else's.
        ready::remove(self.config.ready_file.as_deref());
        let (tell, news) = channel();
        watch_signals(&tell)?;
        let mut shards = Vec::new();
        for (index, listener) in std::mem::take(&mut self.listeners).into_iter().enumerate() {
            shards.push(self.spawn_shard(index, listener, &tell)?);
        }
        let (stop_control, stopped) = oneshot::channel();
        let control = self.spawn_control(stopped, &tell)?;
        let outcome = match wait_ready(&news, shards.len()) {
            Ok(true) => self.announce().and_then(|()| {
                ready(&self.addresses);
                self.look_after(&news)
            }),
            Ok(false) => Ok(()),
            Err(why) => Err(why),
        };
        self.stop(&news, shards);
        drop(stop_control);
        let _ = control.join();
        self.keeper.close(&self.house.registry, self.house.clock.now());
        outcome
    }

    fn spawn_shard(
        &mut self,
        index: usize,
        listener: TcpListener,
        tell: &Sender<News>,
    ) -> Result<JoinHandle<()>, String> {
        let id = ShardId(u16::try_from(index).unwrap_or(u16::MAX));
        let parts = Parts {
            id,
            settings: self.config.shard.clone(),
            http: Arc::new(self.config.http.clone()),
            ingest: self.config.ingest.clone().into(),
            registry: Arc::clone(&self.house.registry),
            swarm: self.swarming.clone(),
            cells: Arc::clone(&self.house.cells[index]),
            shelf: Arc::clone(&self.house.shelves[index]),
        };
        let (mut listeners, sockets) = self.doors.of_shard(index, self.house.cells.len());
        listeners.insert(0, (ListenerId(0), listener));
        let on_ready = tell.clone();
        let setup = Setup {
            shard: id,
            listeners,
            sockets,
            post: self.post.clone(),
            clock: self.house.clock,
            cells: Arc::clone(&self.house.cells[index]),
            max_connections: self.seats.per_shard,
            descriptors: self.seats.descriptors,
            on_ready: Box::new(move || {
                let _ = on_ready.send(News::ShardReady);
            }),
        };
        let (uring, pin, tell) = (self.uring, self.config.cores.pin, tell.clone());
        let body = move || {
            if pin {
                declare::pin(index);
            }
            let mut shard = Shard::new(parts);
            let run = || match uring {
                true => uring::run(setup, &mut shard),
                false => epoll::run(setup, &mut shard),
            };
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
            let ended = ended.unwrap_or_else(|_| Err(io::Error::other("it panicked")));
            let _ = tell.send(News::ShardEnded(id, ended));
        };
        let name = format!("shard-{index}");
        thread::Builder::new().name(name).spawn(body).map_err(|why| format!("no thread: {why}"))
    }

    fn spawn_control(
        &self,
        stopped: oneshot::Receiver<()>,
        tell: &Sender<News>,
    ) -> Result<JoinHandle<()>, String> {
        let listener =
            self.control.try_clone().map_err(|why| format!("control listener: {why}"))?;
        let (house, uring, tell) = (Arc::clone(&self.house), self.uring, tell.clone());
        let body = move || {
            let ended = control::serve(listener, house, uring, stopped);
            let _ = tell.send(News::ControlEnded(ended));
        };
        thread::Builder::new()
            .name("control".to_owned())
            .spawn(body)
            .map_err(|why| format!("no thread: {why}"))
    }

    fn announce(&self) -> Result<(), String> {
        self.house.ready.store(true, Relaxed);
        let Addresses { http, control, ref ingest, swarm } = self.addresses;
        let shards = self.house.cells.len();
        if let Some(address) = swarm {
            info!(%address, "peers are served");
        }
        info!(%http, %control, io_driver = self.house.io_driver, shards, "ready");
        for (stream, way) in ingest {
            let (way, address) = (ready::word(way), way.address());
            info!(%stream, way, %address, "configured ingest");
        }
        if let Some(path) = &self.config.ready_file {
            ready::write(path, &self.addresses, self.house.io_driver, shards)
                .map_err(|why| format!("--ready-file {}: {why}", path.display()))?;
        }
        notify::ready(&format!("serving on {http}, {} ({shards} shards)", self.house.io_driver));
        Ok(())
    }

    /// The household's own loop, until something ends the relay.
    fn look_after(&mut self, news: &Receiver<News>) -> Result<(), String> {
        let mut watch = Watch::new();
        loop {
            match news.recv_timeout(TICK) {
                Ok(News::Signal(signal)) => {
                    info!(signal, "stopping; a second signal stops at once");
                    return Ok(());
                }
                Ok(News::ShardReady) => {}
                Ok(other) => return Err(describe(other)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err("every part ended".to_owned()),
            }
            watch.tick(&self.house);
            self.keeper.tick(&self.house.registry, self.house.clock.now());
        }
    }

    fn stop(&self, news: &Receiver<News>, shards: Vec<JoinHandle<()>>) {
        notify::stopping();
        ready::remove(self.config.ready_file.as_deref());
        let pulse = Pulse { draining: true, ..*self.house.registry.pulse.load_full() };
        self.house.registry.pulse.store(Arc::new(pulse));
        self.post.drain();
        let deadline = Instant::now() + STOP_MAX;
        while shards.iter().any(|shard| !shard.is_finished()) {
            let left = deadline.saturating_duration_since(Instant::now()).min(TICK);
            match news.recv_timeout(left) {
                Ok(News::Signal(_)) => {
                    warn!("stopping at once");
                    break;
                }
                Ok(News::ShardEnded(id, Err(why))) => error!(shard = id.0, %why, "shard failed"),
                Ok(_) | Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                _ => break,
            }
        }
        self.post.halt();
        for shard in shards {
            let _ = shard.join();
        }
    }
}

/// Waits until every shard runs. `false`: a signal came first, which is a stop like any other.
fn wait_ready(news: &Receiver<News>, shards: usize) -> Result<bool, String> {
    let deadline = Instant::now() + START_MAX;
    let mut ready = 0;
    while ready < shards {
        let left = deadline.saturating_duration_since(Instant::now());
        match news.recv_timeout(left) {
            Ok(News::ShardReady) => ready += 1,
            Ok(News::Signal(signal)) => {
                info!(signal, "stopped while starting");
                return Ok(false);
            }
            Ok(other) => return Err(describe(other)),
            Err(_) => return Err(format!("only {ready} of {shards} shards got ready")),
        }
    }
    Ok(true)
}

fn describe(news: News) -> String {
    match news {
        News::ShardEnded(id, Err(why)) => format!("shard {} failed: {why}", id.0),
        News::ShardEnded(id, Ok(())) => format!("shard {} ended by itself", id.0),
        News::ControlEnded(Err(why)) => format!("the control listener failed: {why}"),
        News::ControlEnded(Ok(())) => "the control listener ended by itself".to_owned(),
        News::Signal(signal) => format!("signal {signal}"),
        News::ShardReady => "a shard is ready".to_owned(),
    }
}

/// Which driver runs, and why. One log line says so.
fn choose_driver(wish: IoDriver) -> Result<(bool, String), String> {
    let chosen = match wish {
        IoDriver::Epoll => (false, "chosen by cores.io_driver".to_owned()),
        IoDriver::Auto => match probe::uring() {
            Ok(()) => (true, "io_uring works".to_owned()),
            Err(why) => (false, format!("io_uring does not work here: {why}")),
        },
        IoDriver::Uring => match probe::uring() {
            Ok(()) => (true, "chosen by cores.io_driver".to_owned()),
            Err(why) => {
                return Err(format!(
                    "cores.io_driver = \"uring\", but io_uring does not work here: {why}; \
                     use \"auto\" or \"epoll\""
                ));
            }
        },
    };
    let (uring, why) = &chosen;
    info!(driver = if *uring { "uring" } else { "epoll" }, %why, "I/O driver");
    Ok(chosen)
}

/// What shards need to have peers, with a new secret behind the ids of channels.
fn swarming(config: &Config) -> Result<Option<Swarming>, String> {
    if config.swarm.listen.is_none() {
        return Ok(None);
    }
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| "no randomness for the swarm".to_owned())?;
    Ok(Some(Swarming { settings: Arc::new(config.swarm.clone()), key }))
}

fn listen(address: SocketAddr, shards: usize) -> Result<Vec<TcpListener>, String> {
    // The error names the address.
    doors::or_ipv4(address, |address| socket::listen(address, shards))
        .map_err(|why| why.to_string())
}

fn watch_signals(tell: &Sender<News>) -> Result<(), String> {
    let mut signals =
        Signals::new([SIGTERM, SIGINT]).map_err(|why| format!("cannot watch signals: {why}"))?;
    let tell = tell.clone();
    let body = move || {
        for signal in signals.forever() {
            if tell.send(News::Signal(signal)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(body)
        .map_err(|why| format!("no thread: {why}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_while_starting_is_a_clean_stop_and_a_failure_is_not() {
        let (tell, news) = channel();
        let say = |one| tell.send(one).unwrap();
        [News::ShardReady, News::Signal(SIGTERM)].into_iter().for_each(say);
        assert_eq!(wait_ready(&news, 2), Ok(false));
        [News::ShardReady, News::ShardReady].into_iter().for_each(say);
        assert_eq!(wait_ready(&news, 2), Ok(true));
        say(News::ShardEnded(ShardId(1), Err(io::Error::other("no ring"))));
        assert_eq!(wait_ready(&news, 2), Err("shard 1 failed: no ring".to_owned()));
    }
}
