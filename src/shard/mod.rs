//! One core: the machine that serves connections from rings.
//!
//! A shard owns its connections, its viewers and the streams whose publishers it accepted (it is
//! their home shard). It shares only windows and the registry with other shards, and mail.
#![forbid(unsafe_code)]

pub mod mail;
pub mod settings;
pub mod swarm;

mod connections;
mod feeds;
mod hls;
mod library;
mod locals;
mod pace;
mod play;
mod publish;
mod site;
mod sweep;
#[cfg(test)]
mod tests;
mod viewers;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::{ConnId, ShardId, SocketId, StreamSlot};
use crate::base::time::{Mono, Now};
use crate::face::http;
use crate::face::http::connection::{Connection, Event, SocketWish};
use crate::face::http::progressive::Rules;
use crate::face::swarm::Swarm;
use crate::ingest;
use crate::io::machine::{Closed, Input, Machine, Outbox, Output};
use crate::metrics::cells::Cells;
use crate::metrics::delay::{DelayRecorder, DelayShelf};
use crate::metrics::table::Cell;
use crate::registry::admission::Permit;
use crate::registry::stream::Stream;
use crate::registry::streams::Registry;
use crate::shard::connections::{Connections, Role, Talk};
use crate::shard::feeds::Feeds;
use crate::shard::library::Library;
use crate::shard::locals::Locals;
use crate::shard::mail::Mail;
use crate::shard::pace::Pace;
use crate::shard::play::Retry;
use crate::shard::settings::Settings;
use crate::shard::site::Desk;
use crate::shard::swarm::{Load, Swarming};
use crate::shard::viewers::Viewers;

/// The most user-space memory of one connection beyond its request buffer, in bytes: its role,
/// its place in the tables, its permit. A viewer has less. Held by a test.
pub const CONNECTION_BYTES: u64 = 2048;

/// The most user-space memory of one publisher in bytes: the reader's tables.
pub const PUBLISHER_BYTES: u64 = 1 << 20;

/// The most user-space memory of one shard for what publishers send while they wait for a seat,
/// with the growth of a vector.
pub const CLAIMANTS_BYTES: u64 = (publish::CLAIMANTS_MAX * 2 * publish::HELD_MAX) as u64;

/// How often pins are looked at while there is work; an idle shard looks with its figures.
const RELEASE: Duration = Duration::from_millis(10);

/// What a shard is made of.
pub struct Parts {
    /// Its number.
    pub id: ShardId,
    /// What the operator chose.
    pub settings: Settings,
    /// What the operator chose about HTTP.
    pub http: Arc<http::settings::Settings>,
    /// Every configured ingest; a shard serves each `shards`th, from its number on. Datagrams
    /// for the one of index `i` come through the socket `i`, connections through the listener
    /// `i + 1`.
    pub ingest: Arc<[ingest::settings::Settings]>,
    /// All streams.
    pub registry: Arc<Registry>,
    /// What it needs to have peers. `None`: there is no swarm.
    pub swarm: Option<Swarming>,
    /// Its block of metrics.
    pub cells: Arc<Cells>,
    /// Where it publishes delays.
    pub shelf: Arc<DelayShelf>,
}

/// The machine of one core.
pub struct Shard {
    id: ShardId,
    settings: Settings,
    rules: Rules,
    http: Arc<http::settings::Settings>,
    registry: Arc<Registry>,
    cells: Arc<Cells>,
    shelf: Arc<DelayShelf>,
    delays: DelayRecorder,
    pace: Pace,
    desk: Desk,
    connections: Connections,
    viewers: Viewers,
    locals: Locals,
    library: Library,
    feeds: Feeds,
    swarm: Option<Box<Swarm>>,
    /// Whether it has too much to do to let peers in.
    load: Load,
    /// Datagrams in `out` that are for other shards.
    strays: usize,
    /// Outputs that no queue of their own stands for. A connection has at most one send and
    /// three socket wishes in here, a stream one note per shard: bounded by both limits.
    out: VecDeque<Output<Mail>>,
    /// Viewers to be looked at; each at most once.
    ready: VecDeque<u32>,
    /// Connections that wait for a stream to go live, or for a publisher's seat.
    waiting: Vec<ConnId>,
    /// Whether any of them has to be looked at often.
    haste: bool,
    /// Connections of publishers, and of some that were: those whose streams are sealed here.
    publishers: Vec<ConnId>,
    /// When a stream written here has something to seal that nobody's bytes bring about.
    seals: Option<Mono>,
    /// One handle more than publishers that wait for a seat.
    places: Rc<()>,
    /// Before this time no line is logged about a refused publisher.
    next_refusal: Mono,
    /// Connections that a sweep looks at, kept for its memory.
    swept: Vec<ConnId>,
    /// Streams parked here, until their linger time is over.
    lingering: Vec<Lingering>,
    /// When pins were last given back.
    released: Mono,
    next_sweep: Mono,
    next_figures: Mono,
    draining: bool,
}

/// A stream whose publisher went away on this shard.
struct Lingering {
    stream: Arc<Stream>,
    ticket: u64,
    until: Mono,
}

impl Shard {
    /// A shard without connections.
    #[must_use]
    pub fn new(parts: Parts) -> Shard {
        let Parts { id, settings, http, ingest, registry, swarm, cells, shelf } = parts;
        let feeds = Feeds::new(&ingest, usize::from(id.0), registry.shards());
        let swarm = Shard::swarm_face(swarm, id, &registry, &cells);
        Shard {
            id,
            rules: Rules { max_lag: settings.max_lag, max_jumps: settings.max_jumps },
            desk: Desk::new(Arc::clone(&registry), Arc::clone(&cells), Arc::clone(&http)),
            pace: Pace::new(settings.busy_target, settings.max_batch_delay),
            settings,
            http,
            registry,
            cells,
            shelf,
            delays: DelayRecorder::default(),
            connections: Connections::default(),
            viewers: Viewers::default(),
            locals: Locals::default(),
            library: Library::default(),
            feeds,
            swarm,
            load: Load::default(),
            strays: 0,
            out: VecDeque::new(),
            ready: VecDeque::new(),
            waiting: Vec::new(),
            haste: false,
            publishers: Vec::new(),
            seals: None,
            places: Rc::default(),
            next_refusal: Mono::ZERO,
            swept: Vec::new(),
            lingering: Vec::new(),
            released: Mono::ZERO,
            next_sweep: Mono::ZERO,
            next_figures: Mono::ZERO,
            draining: false,
        }
    }

    fn accepted(&mut self, now: Now, conn: ConnId, peer: SocketAddr) {
        let permit = if self.draining { None } else { self.admit() };
        let Some(mut permit) = permit else {
            self.connections.insert(conn, None, Role::Closing);
            return self.out.push_back(Output::Close { conn });
        };
        let mut connection = Connection::new(now.mono, peer, &self.http);
        let trusted = self.http.trusted_proxies.iter().any(|net| net.contains(peer.ip()));
        if !trusted && permit.client(peer.ip()).is_err() {
            self.cells.add(Cell::RejectedAddress, 1);
            connection.refuse(now.mono, &play::too_many_of_address());
        }
        self.connections.insert(conn, Some(permit), Role::Http(Box::new(Talk::new(connection))));
        self.drive(now, conn);
    }

    fn admit(&self) -> Option<Permit> {
        match self.registry.admission.connection() {
            Ok(permit) => Some(permit),
            Err(_) => {
                self.cells.add(Cell::RejectedConnections, 1);
                None
            }
        }
    }

    fn received(&mut self, now: Now, conn: ConnId, data: &[u8]) {
        match self.connections.role(conn) {
            Some(Role::Http(talk)) => {
                talk.connection.handle_received(now.mono, data, &mut |_| {});
                self.drive(now, conn);
            }
            Some(Role::Publisher(_)) => {
                self.receive_body(now, conn, data);
                self.drive(now, conn);
            }
            Some(Role::Feed(index)) => {
                let index = *index;
                self.feed_received(now, conn, index, data);
            }
            // A viewer has nothing more to say; a closing connection is not listened to.
            Some(Role::Viewer(_) | Role::Closing) | None => {}
        }
    }

    fn sent(&mut self, now: Now, conn: ConnId, n: usize) {
        match self.connections.role(conn) {
            Some(Role::Http(talk)) => {
                let read = talk.connection.handle_sent(now.mono, n) as u64;
                if let Some(book) = talk.book.as_ref().filter(|_| read > 0) {
                    let share = book.stream.share(self.id);
                    share.egress_bytes.fetch_add(read, std::sync::atomic::Ordering::Relaxed);
                    self.cells.add(Cell::EgressHlsBytes, read);
                    self.cells.add(Cell::Sends, 1);
                }
                self.drive(now, conn);
            }
            Some(Role::Publisher(publisher)) => {
                publisher.connection.handle_sent(now.mono, n);
                self.drive(now, conn);
            }
            Some(Role::Viewer(viewer)) => {
                let viewer = *viewer;
                self.viewer_sent(now, viewer, n);
            }
            Some(Role::Feed(_) | Role::Closing) | None => {}
        }
    }

    fn blocked(&mut self, now: Now, conn: ConnId) {
        match self.connections.role(conn) {
            Some(Role::Http(talk)) => {
                // Of HLS downloads only: other answers are no viewing.
                if talk.book.is_some() {
                    self.cells.add(Cell::Sends, 1);
                    self.cells.add(Cell::SendsBlocked, 1);
                }
                talk.connection.handle_blocked();
            }
            Some(Role::Publisher(publisher)) => publisher.connection.handle_blocked(),
            Some(Role::Viewer(viewer)) => {
                self.cells.add(Cell::SendsBlocked, 1);
                let viewer = *viewer;
                self.viewers.blocked(viewer, now.mono);
            }
            Some(Role::Feed(_) | Role::Closing) | None => {}
        }
    }

    fn writable(&mut self, now: Now, conn: ConnId) {
        match self.connections.role(conn) {
            Some(Role::Http(talk)) => {
                talk.connection.handle_writable();
                self.drive(now, conn);
            }
            Some(Role::Publisher(publisher)) => {
                publisher.connection.handle_writable();
                self.drive(now, conn);
            }
            Some(Role::Viewer(viewer)) => {
                let viewer = *viewer;
                self.viewers.writable(viewer);
                self.viewers.enqueue(viewer, &mut self.ready);
            }
            Some(Role::Feed(_) | Role::Closing) | None => {}
        }
    }

    fn closed(&mut self, now: Now, conn: ConnId, why: Closed) {
        self.cells.sub(Cell::HttpConnections, 1);
        match self.connections.remove(conn) {
            Some(Role::Publisher(publisher)) => self.publisher_gone(now, *publisher, "left"),
            Some(Role::Viewer(viewer)) => {
                let cell = match why {
                    Closed::Reset | Closed::TimedOut | Closed::Error => Cell::ClosedReset,
                    Closed::Eof | Closed::Local => Cell::ClosedEof,
                };
                self.viewer_gone(viewer, cell);
            }
            Some(Role::Feed(index)) => self.feed_closed(now, conn, index),
            Some(Role::Http(_) | Role::Closing) | None => {}
        }
    }

    /// Lets an HTTP connection or a publisher go on, and carries out what it wants.
    fn drive(&mut self, now: Now, conn: ConnId) {
        let Some(role) = self.connections.take(conn) else { return };
        let role = match role {
            Role::Http(talk) => self.drive_http(now, conn, talk),
            Role::Publisher(publisher) => self.drive_publisher(now, conn, publisher),
            Role::Feed(_) | Role::Viewer(_) | Role::Closing => role,
        };
        self.connections.put(conn, role);
    }

    fn drive_http(&mut self, now: Now, conn: ConnId, mut talk: Box<Talk>) -> Role {
        loop {
            let role = match talk.connection.poll(now.mono, &mut self.desk.site(now)) {
                Event::None | Event::PublishEnded | Event::PublishBroken => break,
                Event::Play(request) => self.play(now, conn, &mut talk, request),
                Event::Publish(request) => self.publish(now, conn, &mut talk, &request),
                Event::Hls(request) => {
                    self.hls(now, conn, &mut talk, request);
                    None
                }
            };
            match role {
                Some(Role::Publisher(publisher)) => {
                    return self.drive_publisher(now, conn, publisher);
                }
                Some(role) => return role,
                None => {}
            }
        }
        if self.lend(conn, &mut talk).is_err() {
            self.cells.add(Cell::SegmentsGone, 1);
            self.close(conn);
            return Role::Closing;
        }
        if self.settle(now, conn, &mut talk.connection) { Role::Closing } else { Role::Http(talk) }
    }

    /// Puts a connection's wishes into the queue. Returns whether it is to be closed.
    fn settle(&mut self, now: Now, conn: ConnId, connection: &mut Connection) -> bool {
        if !connection.is_downloading()
            && let Some(parts) = connection.next_send()
        {
            self.out.push_back(Output::Send { conn, parts });
        }
        while let Some(wish) = connection.poll_socket(now.mono) {
            match wish {
                SocketWish::Shutdown => self.out.push_back(Output::Shutdown { conn }),
                SocketWish::Close => {
                    self.out.push_back(Output::Close { conn });
                    return true;
                }
            }
        }
        false
    }

    /// Closes a connection of any role now.
    fn close(&mut self, conn: ConnId) {
        self.out.push_back(Output::Close { conn });
    }

    fn mail(&mut self, now: Now, mail: Mail) {
        match mail {
            Mail::Live | Mail::Parked => self.retry_waiting(now, Retry::All),
            Mail::GiveUp { stream, ticket } => self.give_up(now, &stream, ticket),
            Mail::Ended(stream) => self.stream_ended(&stream),
            Mail::Stray(stray) => self.stray(now, &stray),
            Mail::Swarm(note) => self.swarm_note(now, *note),
        }
    }

    /// Tells every shard, this one included. Built for mail that carries at most a handle.
    fn tell_all(&mut self, mail: impl Fn() -> Mail) {
        for shard in 0..self.registry.shards() {
            let shard = ShardId(u16::try_from(shard).unwrap_or(u16::MAX));
            self.out.push_back(Output::Mail { shard, mail: mail() });
        }
    }

    /// The process ends: publishers park, everybody is closed.
    fn drain(&mut self, now: Now) {
        self.draining = true;
        for conn in self.connections.ids() {
            match self.connections.replace(conn, Role::Closing) {
                Some(Role::Publisher(publisher)) => self.publisher_gone(now, *publisher, "drain"),
                Some(Role::Viewer(viewer)) => self.viewer_gone(viewer, Cell::ClosedDrain),
                Some(Role::Http(_) | Role::Feed(_) | Role::Closing) | None => {}
            }
            self.close(conn);
        }
        self.drain_feeds(now);
        self.swarm.iter_mut().for_each(|face| face.handle_drain());
    }

    /// A stream that is served here has grown.
    fn grown(&mut self, now: Now, stream: StreamSlot) {
        self.locals.grown(stream, now.mono);
        self.swarm.iter_mut().for_each(|face| face.handle_head(now.mono, stream));
    }
}

impl Machine for Shard {
    type Mail = Mail;

    fn handle(&mut self, now: Now, input: Input<'_, Mail>) {
        match input {
            Input::Accepted { conn, listener, peer } => {
                self.cells.add(Cell::HttpConnections, 1);
                match listener.0.checked_sub(1) {
                    None => self.accepted(now, conn, peer),
                    Some(index) => self.feed_accepted(now, conn, index, peer),
                }
            }
            Input::Datagrams { socket: SocketId::SWARM, from, to, segment, data } => {
                self.swarm_datagrams(now, from, to, segment, data);
            }
            Input::Datagrams { socket, from, segment, data, .. } => {
                self.datagrams(now, socket.0, from, segment, data);
            }
            Input::Received { conn, data } => self.received(now, conn, data),
            Input::Sent { conn, n } => self.sent(now, conn, n),
            Input::Blocked { conn } => self.blocked(now, conn),
            Input::Writable { conn } => self.writable(now, conn),
            Input::Closed { conn, why } => self.closed(now, conn, why),
            // Answers to what a shard does not do.
            Input::SocketFull { socket } => self.swarm_socket(socket, true),
            Input::SocketReady { socket } => self.swarm_socket(socket, false),
            Input::Connected { .. } | Input::ConnectFailed { .. } => {}
            Input::Mail(mail) => self.mail(now, mail),
            Input::Head { stream } => self.grown(now, stream),
            Input::Drain => self.drain(now),
        }
    }

    fn poll(&mut self, now: Now, out: &mut Outbox<Mail>) {
        self.sweep(now);
        self.feed_timers(now);
        self.seal_timers(now);
        // The driver's own account of its time is what the load is measured by.
        let worked = Duration::from_nanos(self.cells.get(Cell::BusyNanos));
        if let Some(busy) = self.pace.observe(now.mono, worked) {
            let overloaded = self.load.observe(now.mono, busy);
            self.swarm.iter_mut().for_each(|face| face.set_busy(overloaded));
            let interval = u64::try_from(self.pace.interval().as_nanos()).unwrap_or(u64::MAX);
            self.cells.set(Cell::FlushInterval, interval);
        }
        let interval = self.pace.interval();
        let rounds = self.locals.flush(now.mono, interval, &mut self.viewers, &mut self.ready);
        self.cells.add(Cell::FlushRounds, rounds);
        self.swarm.iter_mut().for_each(|face| face.turn(now.mono));
        self.post_notes();
        while out.has_room() {
            if let Some(output) = self.out.pop_front() {
                out.push(output);
                continue;
            }
            self.strays = 0;
            // One of each in turn: neither face shall wait for the other's crowd.
            let viewer = self.ready.pop_front();
            viewer.into_iter().for_each(|viewer| self.serve(now, viewer, out));
            let shipped = out.has_room() && self.ship(now, out);
            if viewer.is_none() && !shipped {
                break;
            }
        }
        // A shard that is never idle must give pins back as well, or the writer runs dry. Not
        // after every batch: pins that the next round needs would be made anew each time.
        if now.mono.since(self.released) >= RELEASE {
            self.released = now.mono;
            self.locals.release();
            self.library.release();
            self.swarm.iter_mut().for_each(|face| face.release());
        }
    }

    fn next_deadline(&self) -> Option<Mono> {
        let deadlines = [
            self.locals.next_flush(),
            self.sweep_deadline(),
            self.feeds.deadline(),
            self.seals,
            self.swarm.as_ref().and_then(|face| face.deadline()),
        ];
        deadlines.into_iter().flatten().min()
    }
}
