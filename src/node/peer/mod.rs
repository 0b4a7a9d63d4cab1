//! The viewer's node: assembles `headwater peer`.
//!
//! Two threads in one process: an ordinary shard, which serves local players from a window of
//! the local registry, and the peer machine, which fills that window. Without local players
//! (headless) there are only the peer machine and windows that nobody else sees.

mod dump;
mod names;
mod picture;
mod report;
mod sharing;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::base::ids::{ListenerId, ShardId, SocketId, StreamName};
use crate::config::Config;
use crate::control::{self, House};
use crate::io::clock::Clock;
use crate::io::driver::Setup;
use crate::io::machine::Machine;
use crate::io::mailbox::Post;
use crate::io::{epoll, socket, udp, uring};
use crate::metrics::cells::Cells;
use crate::metrics::delay::DelayShelf;
use crate::node::peer::dump::Dump;
use crate::node::peer::names::Resolver;
use crate::node::peer::picture::Painter;
use crate::node::peer::report::Report;
use crate::node::ready::{Access, replace};
use crate::node::{MAIL_MAX, choose_driver, roots};
use crate::peer::client::{Url, url::Host};
use crate::peer::figures::{Board, Figures};
use crate::peer::settings::{Room, Settings};
use crate::peer::{self, Peer};
use crate::registry::settings::KeySetting;
use crate::registry::streams::Registry;
use crate::ring::arena::Arena;
use crate::ring::window;
use crate::shard::mail::Mail;
use crate::shard::{Parts, Shard};
use crate::swarm::integrity::SwarmId;
use crate::swarm::playout;
use crate::swarm::settings::Strategy;

/// How often the household looks after things, and how often it says how it goes.
const TICK: Duration = Duration::from_millis(100);
const STATUS: Duration = Duration::from_secs(1);

/// How long the parts may take to end after they were told to.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Ports that are tried when the usual one is taken.
const PORTS: u16 = 100;

/// Connections of one viewer to the relay: two, and some that are being closed.
const CONNECTIONS: usize = 8;

/// Connections of local players.
const PLAYERS: usize = 256;

/// What the user chose.
pub struct Options {
    /// The stream's URL at the relay.
    pub url: Url,
    /// The stream's name in it.
    pub name: StreamName,
    /// Everything that a shard and the drivers are told.
    pub config: Config,
    /// Whether the next free port will do where the usual one is taken.
    pub any_port: bool,
    /// How many viewers.
    pub count: usize,
    /// No local players.
    pub headless: bool,
    /// Where the report is written at the end.
    pub report: Option<PathBuf>,
    /// Where the played bytes are written.
    pub dump: Option<PathBuf>,
    /// The only swarm that is accepted.
    pub pin: Option<SwarmId>,
    /// The right to join.
    pub token: Option<String>,
    /// How long to play; `None`: until a signal.
    pub duration: Option<Duration>,
    /// How far behind live.
    pub playout: playout::Settings,
    /// The most that is sent to other viewers, in bits per second; `None`: what the line carries.
    pub upload: Option<u64>,
}

/// Something for the user's eyes.
pub enum Line {
    /// Said once.
    Fact(String),
    /// Replaces the one before.
    Status(String),
}

enum News {
    Signal,
    Ended(&'static str, io::Result<()>),
}

/// Plays until it is told to stop.
///
/// # Errors
/// One line that says what failed.
pub fn run(options: Options, say: impl Fn(Line)) -> Result<(), String> {
    Node::load(options)?.run(say)
}

/// A node with everything built and bound.
struct Node {
    options: Options,
    uring: bool,
    clock: Clock,
    post: Post<Mail>,
    house: Arc<House>,
    board: Board,
    listener: Option<TcpListener>,
    control: TcpListener,
    datagrams: Vec<(SocketId, UdpSocket)>,
    peer: Option<peer::Parts<Mail>>,
}

impl Node {
    fn load(options: Options) -> Result<Node, String> {
        let (uring, io_reason) = choose_driver(options.config.cores.io_driver)?;
        let clock = Clock::start();
        let addresses = resolve(&options.url)?;
        warn_if_plain(&options.url);
        let tls = if options.url.is_https() { Some(roots::system_tls()?) } else { None };
        let shards = if options.headless { 1 } else { 2 };
        let registry = Arc::new(registry(&options)?);
        let post = Post::new(shards, 1, MAIL_MAX);
        let post = post.map_err(|why| format!("cannot make mailboxes: {why}"))?;
        let control = listen(options.config.listen.control, true)?;
        let listener = match options.headless {
            true => None,
            false => Some(listen(options.config.listen.http, options.any_port)?),
        };
        let board = Board::default();
        let rooms = rooms(&options, &registry)?;
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| "no randomness".to_owned())?;
        let settings = Settings {
            url: options.url.clone(),
            name: options.name.clone(),
            addresses,
            pin: options.pin,
            token: options.token.as_deref().map(|token| token.as_bytes().into()),
            tls,
            playout: options.playout,
            upload: options.upload,
            strategy: Strategy::default(),
        };
        let live: fn() -> Mail = || Mail::Live;
        let peer = peer::Parts {
            settings,
            rooms,
            names: Box::new(Resolver::default()),
            board: board.clone(),
            live: (!options.headless).then_some(live),
            key,
            now: clock.mono(),
        };
        let house = Arc::new(House {
            registry,
            cells: (0..shards).map(|_| Arc::new(Cells::default())).collect(),
            shelves: (0..shards).map(|_| Arc::new(DelayShelf::default())).collect(),
            viewers: Some(board.clone()),
            io_driver: if uring { "uring" } else { "epoll" },
            io_reason,
            ready: AtomicBool::new(false),
            clock,
        });
        let datagrams = datagrams(options.count)?;
        let peer = Some(peer);
        Ok(Node { options, uring, clock, post, house, board, listener, control, datagrams, peer })
    }

    fn run(mut self, say: impl Fn(Line)) -> Result<(), String> {
        let (tell, news) = channel();
        watch_signals(&tell)?;
        self.greet(&say)?;
        let mut threads = Vec::new();
        if let Some(listener) = self.listener.take() {
            threads.push(self.spawn_shard(listener, &tell)?);
        }
        threads.push(self.spawn_peer(&tell)?);
        let (stop_control, stopped) = oneshot::channel();
        let control = self.spawn_control(stopped, &tell)?;
        self.house.ready.store(true, Relaxed);
        let dump = self
            .options
            .dump
            .clone()
            .map(|path| Dump::start(path, self.options.count, self.board.clone()));
        let outcome = self.look_after(&news, &say);
        self.post.drain();
        let deadline = Instant::now() + STOP_MAX;
        while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline {
            let _ = news.recv_timeout(TICK);
        }
        self.post.halt();
        threads.into_iter().for_each(|thread| drop(thread.join()));
        drop(stop_control);
        let _ = control.join();
        let dumped = dump.map_or(Ok(()), |dump| dump?.finish());
        let reported = self.report();
        outcome.and(dumped).and(reported)
    }

    fn greet(&self, say: &impl Fn(Line)) -> Result<(), String> {
        let name = &self.options.name;
        if let Some(listener) = &self.listener {
            let http = listener.local_addr().map_err(|why| why.to_string())?;
            say(Line::Fact(format!(
                "play http://{http}/live/{name}.ts   hls http://{http}/live/{name}/index.m3u8"
            )));
        }
        let control = self.control.local_addr().map_err(|why| why.to_string())?;
        say(Line::Fact(format!("metrics http://{control}/metrics")));
        info!(driver = self.house.io_driver, viewers = self.options.count, "playing");
        Ok(())
    }

    /// Looks after the parts until something ends the node.
    fn look_after(&self, news: &Receiver<News>, say: &impl Fn(Line)) -> Result<(), String> {
        let begun = Instant::now();
        let mut said = begun;
        let painter = Painter::default();
        let mut notes = sharing::Notes::default();
        loop {
            match news.recv_timeout(TICK) {
                Ok(News::Signal) => return Ok(()),
                Ok(News::Ended(part, ended)) => {
                    let why = ended.map_or_else(|why| why.to_string(), |()| "it ended".to_owned());
                    return Err(format!("{part}: {why}"));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err("every part ended".to_owned()),
            }
            if self.options.duration.is_some_and(|limit| begun.elapsed() >= limit) {
                return Ok(());
            }
            if said.elapsed() >= STATUS {
                said = Instant::now();
                let all = self.board.read();
                if let Some(failed) = all.first().filter(|_| all.iter().all(|f| f.failed)) {
                    return Err(failed.problem.clone());
                }
                notes.look(&all);
                if let Some(figures) = all.first().filter(|_| !self.options.headless) {
                    painter.draw(self.clock.now(), &self.house.registry, figures);
                }
                say(Line::Status(report::status(&all)));
            }
        }
    }

    fn report(&self) -> Result<(), String> {
        let Some(path) = &self.options.report else { return Ok(()) };
        let all: Vec<Figures> = self.board.read();
        let report = Report::new(&self.options.url.to_string(), &all, self.clock.mono());
        let json = serde_json::to_vec_pretty(&report).map_err(|why| why.to_string());
        let name = |why: io::Error| format!("--report {}: {why}", path.display());
        json.and_then(|json| replace(path, &json, Access::Everybody).map_err(name))
    }

    fn spawn_shard(
        &self,
        listener: TcpListener,
        tell: &Sender<News>,
    ) -> Result<JoinHandle<()>, String> {
        let parts = Parts {
            id: ShardId(0),
            settings: self.options.config.shard.clone(),
            http: Arc::new(self.options.config.http.clone()),
            ingest: Vec::new().into(),
            registry: Arc::clone(&self.house.registry),
            swarm: None,
            cells: Arc::clone(&self.house.cells[0]),
            shelf: Arc::clone(&self.house.shelves[0]),
        };
        let listeners = vec![(ListenerId(0), listener)];
        let setup = self.setup(ShardId(0), listeners, Vec::new(), PLAYERS);
        spawn("shard-0", self.uring, setup, move || Shard::new(parts), tell)
    }

    fn spawn_peer(&mut self, tell: &Sender<News>) -> Result<JoinHandle<()>, String> {
        let shard = ShardId(u16::from(!self.options.headless));
        let connections = self.options.count * CONNECTIONS;
        let sockets = std::mem::take(&mut self.datagrams);
        let setup = self.setup(shard, Vec::new(), sockets, connections);
        let parts = self.peer.take().ok_or("started twice")?;
        spawn("peer", self.uring, setup, move || Peer::new(parts), tell)
    }

    fn setup(
        &self,
        shard: ShardId,
        listeners: Vec<(ListenerId, TcpListener)>,
        sockets: Vec<(SocketId, UdpSocket)>,
        connections: usize,
    ) -> Setup<Mail> {
        Setup {
            shard,
            listeners,
            sockets,
            post: self.post.clone(),
            clock: self.clock,
            cells: Arc::clone(&self.house.cells[usize::from(shard.0)]),
            max_connections: connections,
            descriptors: connections,
            on_ready: Box::new(|| {}),
        }
    }

    fn spawn_control(
        &self,
        stopped: oneshot::Receiver<()>,
        tell: &Sender<News>,
    ) -> Result<JoinHandle<()>, String> {
        let listener = self.control.try_clone().map_err(|why| why.to_string())?;
        let (house, uring, tell) = (Arc::clone(&self.house), self.uring, tell.clone());
        let body = move || {
            let ended = control::serve(listener, house, uring, stopped);
            let _ = tell.send(News::Ended("the control listener", ended));
        };
        let thread = thread::Builder::new().name("control".to_owned()).spawn(body);
        thread.map_err(|why| format!("no thread: {why}"))
    }
}

/// Runs a machine on a thread of its own, where it is also made.
fn spawn<X: Machine<Mail = Mail>>(
    name: &'static str,
    uring: bool,
    setup: Setup<Mail>,
    make: impl FnOnce() -> X + Send + 'static,
    tell: &Sender<News>,
) -> Result<JoinHandle<()>, String> {
    let tell = tell.clone();
    let body = move || {
        let run = || {
            let mut machine = make();
            if uring { uring::run(setup, &mut machine) } else { epoll::run(setup, &mut machine) }
        };
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        let ended = ended.unwrap_or_else(|_| Err(io::Error::other("it panicked")));
        let _ = tell.send(News::Ended(name, ended));
    };
    let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
    thread.map_err(|why| format!("no thread: {why}"))
}

/// The addresses of the relay.
fn resolve(url: &Url) -> Result<Vec<SocketAddr>, String> {
    let name = match url.host() {
        Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, url.port())]),
        Host::Name(name) => name,
    };
    let found = (name.as_str(), url.port()).to_socket_addrs();
    let found: Vec<_> = found.map_err(|why| format!("cannot find {name}: {why}"))?.collect();
    if found.is_empty() { Err(format!("{name} has no address")) } else { Ok(found) }
}

/// Says once that nobody vouches for what a plain answer says.
fn warn_if_plain(url: &Url) {
    static ONCE: OnceLock<()> = OnceLock::new();
    if !url.is_https() && !url.is_loopback() {
        ONCE.get_or_init(|| {
            warn!(
                host = %url.host(),
                "plain http: whoever is on the way can replace the stream; use https, or name \
                 the stream's --swarm-id"
            );
        });
    }
}

/// The registry of local players: one stream, which nobody can publish.
fn registry(options: &Options) -> Result<Registry, String> {
    let memory = if options.headless { 0 } else { options.config.arena };
    let arena = Arena::create(memory).map_err(|why| format!("--memory: {why}"))?;
    let mut settings = options.config.registry(PLAYERS);
    settings.max_streams = 1;
    // A quarter of it is for slabs that players still hold.
    settings.window_bytes = arena.bytes() / 4 * 3;
    // Nobody knows a key of this hash.
    settings.keys = vec![KeySetting { sha256: [0; 32], streams: Vec::new() }];
    Ok(Registry::new(settings, arena, 1))
}

/// Where the viewers' bytes go.
fn rooms(options: &Options, registry: &Arc<Registry>) -> Result<Vec<Room>, String> {
    if !options.headless {
        let segment = options.config.shard.segment;
        return Ok(vec![Room::Registered { registry: Arc::clone(registry), segment }]);
    }
    let each = options.config.arena / options.count.max(1) as u64;
    let room = |_| {
        let arena = Arena::create(each).map_err(|why| format!("--memory: {why}"))?;
        let memory = window::Settings { bytes: arena.bytes(), span: Duration::from_secs(60) };
        Ok(Room::Own { arena, memory })
    };
    (0..options.count).map(room).collect()
}

/// A listener at `address`, or at one of the next ports if `any` of them will do.
fn listen(address: SocketAddr, any: bool) -> Result<TcpListener, String> {
    let mut tried = address;
    loop {
        match socket::listen(tried, 1) {
            Ok(mut listeners) => return listeners.pop().ok_or("no listener".to_owned()),
            Err(why) => {
                let last = address.port().saturating_add(PORTS);
                let taken = why.kind() == io::ErrorKind::AddrInUse;
                if !any || !taken || tried.port() == 0 || tried.port() >= last {
                    return Err(why.to_string());
                }
                tried.set_port(tried.port() + 1);
            }
        }
    }
}

/// A socket for each of `count` viewers, which is its address in the swarm.
fn datagrams(count: usize) -> Result<Vec<(SocketId, UdpSocket)>, String> {
    let one = |index| {
        let both = udp::bind_swarm((Ipv6Addr::UNSPECIFIED, 0).into(), 1);
        let bound = both.or_else(|_| udp::bind_swarm((Ipv4Addr::UNSPECIFIED, 0).into(), 1));
        let socket = bound.map_err(|why| why.to_string())?.pop();
        SocketId::of_viewer(index).zip(socket).ok_or("no socket for datagrams".to_owned())
    };
    (0..count).map(one).collect()
}

fn watch_signals(tell: &Sender<News>) -> Result<(), String> {
    let mut signals =
        Signals::new([SIGTERM, SIGINT]).map_err(|why| format!("cannot watch signals: {why}"))?;
    let tell = tell.clone();
    let body = move || {
        for _ in signals.forever() {
            if tell.send(News::Signal).is_err() {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("signals".to_owned()).spawn(body);
    thread.map(drop).map_err(|why| format!("no thread: {why}"))
}
