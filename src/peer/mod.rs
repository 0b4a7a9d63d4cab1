//! The viewer's node, without I/O: it joins a stream over UDP or HTTP and plays it locally.
//!
//! ```text
//! client       one GET: URLs, HTTP, TLS
//! invitation   what swarm.json says
//! viewer       one viewer: join, receive over UDP or HTTP, play a little behind live
//! figures      what all of them tell about themselves
//! ```
#![forbid(unsafe_code)]

mod call;
pub mod client;
mod desk;
pub mod figures;
pub mod invitation;
pub mod settings;
#[cfg(test)]
mod tests;
mod viewer;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;

use crate::base::ids::{ConnId, ShardId, SocketId};
use crate::base::limits::CHUNK;
use crate::base::payload::Payload;
use crate::base::planted::{Plant, is};
use crate::base::time::{Mono, Now};
use crate::io::machine::{Closed, Input, Machine, Outbox, Output, Train};
use crate::peer::desk::{Desk, Ids, Which, Wish};
use crate::peer::figures::Board;
use crate::peer::settings::{Names, Room, Settings};
use crate::peer::viewer::{Happening, Viewer};
use crate::swarm::integrity::{Real, Verifier};
use crate::wire::ppspp::split;

/// Wishes that may wait for the driver; beyond it datagrams are dropped, oldest first: what they
/// ask for is asked for again.
const WISHES_MAX: usize = 4_096;

/// What a node is made of.
pub struct Parts<M> {
    /// What the user chose.
    pub settings: Settings,
    /// One viewer for each.
    pub rooms: Vec<Room>,
    /// Finds names.
    pub names: Box<dyn Names + Send>,
    /// Where figures go.
    pub board: Board,
    /// The mail by which the shard that serves players learns that a stream is there; `None`
    /// without such a shard.
    pub live: Option<fn() -> M>,
    /// Random bytes, for channel ids.
    pub key: [u8; 32],
    /// The clock's reading at the start.
    pub now: Mono,
}

/// The machine of all viewers of a node. Each sends and receives datagrams through a socket of its
/// own: [`SocketId::of_viewer`].
pub struct Peer<M> {
    settings: Settings,
    viewers: Vec<Viewer>,
    names: Box<dyn Names + Send>,
    verifier: Box<dyn Verifier + Send>,
    board: Board,
    ids: Ids,
    /// Connects that were not answered, and connections: whose they are.
    tokens: HashMap<u64, (usize, Which)>,
    conns: HashMap<ConnId, (usize, Which)>,
    wishes: VecDeque<Wish>,
    /// Whose sockets take no datagrams now.
    full: Vec<bool>,
    live: Option<fn() -> M>,
    /// When each viewer wants to be driven.
    due: Vec<Option<Mono>>,
}

impl<M> Peer<M> {
    /// A node that has not begun.
    #[must_use]
    pub fn new(parts: Parts<M>) -> Peer<M> {
        let Parts { settings, rooms, names, board, live, key, now } = parts;
        let due = vec![Some(now); rooms.len()];
        let viewers = rooms.into_iter().enumerate();
        Peer {
            settings,
            viewers: viewers.map(|(index, room)| Viewer::new(index, room, now)).collect(),
            names,
            verifier: Box::new(Real::default()),
            board,
            ids: Ids::new(&key),
            tokens: HashMap::new(),
            conns: HashMap::new(),
            wishes: VecDeque::new(),
            full: vec![false; due.len()],
            live,
            due,
        }
    }

    /// Lets somebody else check what others sent: a simulator, whose peers share one.
    #[must_use]
    pub fn with_verifier(mut self, verifier: Box<dyn Verifier + Send>) -> Peer<M> {
        self.verifier = verifier;
        self
    }

    /// Lends one viewer and everything it needs; it is driven soon after.
    fn with(&mut self, index: usize, act: impl FnOnce(&mut Viewer, &mut Desk<'_>)) {
        let Some(viewer) = self.viewers.get_mut(index) else { return };
        let mut desk = Desk {
            viewer: index,
            full: self.full.get(index).copied().unwrap_or(false),
            settings: &self.settings,
            names: &mut *self.names,
            verifier: &mut self.verifier,
            board: &self.board,
            ids: &mut self.ids,
            wishes: &mut self.wishes,
        };
        act(viewer, &mut desk);
        self.due[index] = Some(Mono::ZERO);
    }

    /// Drives the viewers that are due.
    fn drive(&mut self, now: Now) {
        for index in 0..self.viewers.len() {
            if self.due[index].is_some_and(|due| due <= now.mono) {
                self.with(index, |viewer, desk| viewer.drive(now, desk));
                self.due[index] = self.viewers[index].next_deadline(now.mono);
            }
        }
    }

    /// What came to the socket of viewer `index`.
    fn datagrams(
        &mut self,
        now: Now,
        index: usize,
        from: SocketAddr,
        (segment, data): (usize, &[u8]),
    ) {
        let before = self.due.get(index).copied().flatten();
        for datagram in data.chunks(segment.max(1)) {
            let Some((channel, messages)) = split(datagram) else { continue };
            // Nobody reaches one viewer by another's address. Channel 0 is of openings.
            if channel != 0 && self.ids.of_channel.get(&channel) != Some(&index) {
                continue;
            }
            self.with(index, |viewer, desk| {
                viewer.handle_datagram(now, channel, from, messages, desk);
            });
        }
        // Most of what comes is heard and no more: then nothing is due.
        if let (Some(viewer), Some(due)) = (self.viewers.get(index), self.due.get_mut(index)) {
            *due = [before, viewer.next_deadline(now.mono)].into_iter().flatten().min();
        }
    }

    fn set_full(&mut self, socket: SocketId, full: bool) {
        if let Some(place) = self.full.get_mut(socket.viewer()) {
            *place = full;
        }
    }

    fn call(&mut self, now: Now, conn: ConnId, happening: Happening<'_>) {
        let closed = matches!(happening, Happening::Closed { .. });
        let whose = if closed { self.conns.remove(&conn) } else { self.conns.get(&conn).copied() };
        if let Some((index, which)) = whose {
            self.with(index, |viewer, desk| viewer.handle_call(now, which, happening, desk));
        }
    }

    fn connected(&mut self, now: Now, token: u64, conn: ConnId) {
        match self.tokens.remove(&token) {
            Some((index, which)) => {
                self.conns.insert(conn, (index, which));
                self.call(now, conn, Happening::Connected(conn));
            }
            // Nobody wants it any more.
            None => self.wishes.push_back(Wish::Close { conn }),
        }
    }

    /// A wish as an output; `None` if there is nothing to be done.
    fn output(&mut self, wish: Wish) -> Option<Output<M>> {
        Some(match wish {
            Wish::Connect { token, to, viewer, which } => {
                self.tokens.insert(token, (viewer, which));
                Output::Connect { token, to }
            }
            Wish::Forget { token } => {
                self.tokens.remove(&token);
                return None;
            }
            // A connection that its viewer has let go is not written to.
            Wish::Send { conn, .. } if !self.conns.contains_key(&conn) => return None,
            Wish::Send { conn, data } => Output::Send { conn, parts: [data, Payload::Empty] },
            Wish::Close { conn } => {
                self.conns.remove(&conn);
                Output::Close { conn }
            }
            Wish::Datagram { viewer, to, data } => {
                let socket = SocketId::of_viewer(viewer)?;
                Output::Datagram { socket, to, from: None, data: data.into() }
            }
            Wish::Train { viewer, to, channel, head, headers, header, body } => {
                let (socket, chunk) = (SocketId::of_viewer(viewer)?, CHUNK as u16);
                let from = None;
                let wrong = is(Plant::ForwardWrong) && headers.as_slice().get(12) == Some(&128);
                let body = if wrong { Bytes::from(vec![7; body.len()]).into() } else { body };
                Output::Train(Train {
                    socket,
                    to,
                    from,
                    channel,
                    head,
                    headers,
                    header,
                    body,
                    chunk,
                })
            }
            Wish::Head { shard, stream } => Output::Head { shard, stream },
            Wish::Live => Output::Mail { shard: ShardId(0), mail: self.live?() },
        })
    }
}

impl<M: Send + 'static> Machine for Peer<M> {
    type Mail = M;

    fn handle(&mut self, now: Now, input: Input<'_, M>) {
        match input {
            Input::Datagrams { socket, from, segment, data, .. } => {
                self.datagrams(now, socket.viewer(), from, (segment, data));
            }
            Input::Connected { token, conn } => self.connected(now, token, conn),
            Input::ConnectFailed { token, .. } => {
                if let Some((index, which)) = self.tokens.remove(&token) {
                    self.with(index, |viewer, desk| {
                        viewer.handle_call(now, which, Happening::Failed, desk);
                    });
                }
            }
            Input::Received { conn, data } => self.call(now, conn, Happening::Received(data)),
            Input::Sent { conn, n } => self.call(now, conn, Happening::Sent(n)),
            Input::Blocked { conn } => self.call(now, conn, Happening::Blocked),
            Input::Writable { conn } => self.call(now, conn, Happening::Writable),
            Input::Closed { conn, why } => {
                let clean = matches!(why, Closed::Eof);
                self.call(now, conn, Happening::Closed { clean });
            }
            Input::SocketFull { socket } => self.set_full(socket, true),
            Input::SocketReady { socket } => self.set_full(socket, false),
            Input::Drain => {
                for index in 0..self.viewers.len() {
                    self.with(index, |viewer, desk| viewer.leave(now, desk));
                }
            }
            // A node listens to nobody and gets no mail.
            Input::Accepted { conn, .. } => self.wishes.push_back(Wish::Close { conn }),
            Input::Mail(_) | Input::Head { .. } => {}
        }
    }

    fn poll(&mut self, now: Now, out: &mut Outbox<M>) {
        self.drive(now);
        if self.wishes.len() > WISHES_MAX {
            let mut excess = self.wishes.len() - WISHES_MAX;
            self.wishes.retain(|wish| {
                let drop = excess > 0 && wish.socket().is_some();
                excess -= usize::from(drop);
                !drop
            });
        }
        // What is for a socket that takes nothing waits: it is what the others are told to be fed.
        let any_full = self.full.contains(&true);
        while out.has_room() {
            let waits = |wish: &Wish| wish.socket().is_some_and(|viewer| self.full[viewer]);
            let next = match any_full {
                true => self.wishes.iter().position(|wish| !waits(wish)),
                false => Some(0),
            };
            let Some(wish) = next.and_then(|next| self.wishes.remove(next)) else { break };
            if let Some(output) = self.output(wish) {
                out.push(output);
            }
        }
    }

    fn next_deadline(&self) -> Option<Mono> {
        self.due.iter().flatten().min().copied()
    }
}
