//! Sending datagrams, for both drivers: what the kernel's answers mean, and what waits while it
//! takes no more.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::io::Errno;

use crate::base::ids::SocketId;
use crate::base::time::Mono;
use crate::io::driver::{BATCH, Backend};
use crate::io::hub::Hub;
use crate::io::machine::{Input, Machine};
use crate::io::parcel::{Content, Parcel};
use crate::io::udp;
use crate::metrics::table::Cell;

/// How long to wait before sending again when the kernel had no memory: nothing tells when it
/// has. (When the socket's own buffer is full, the socket becomes writable.)
const BREATH: Duration = Duration::from_millis(1);

/// How long trains are cut here and not by the kernel after a device could not.
const DOUBT: Duration = Duration::from_secs(10);

/// The sending half of a datagram socket.
pub(super) struct Outbound {
    /// Whether the socket is one of IPv6, so that addresses of IPv4 are mapped.
    pub v6: bool,
    /// Whether this kernel cuts trains (Linux 4.18).
    cuts: bool,
    /// Trains are sent one datagram at a time before this time.
    doubt: Mono,
    /// What the kernel did not take, in order: at most one outbox. The machine knows that the
    /// socket is full while there is any.
    held: VecDeque<Parcel>,
    /// When to try again, if the kernel does not tell.
    retry: Option<Mono>,
}

impl Outbound {
    /// Allocates nothing yet: most sockets only receive.
    pub fn new(udp: &UdpSocket) -> Outbound {
        Outbound {
            v6: udp.local_addr().is_ok_and(|address| address.is_ipv6()),
            // 0: no train by default; only whether the kernel knows the option is asked.
            cuts: udp::set_option(udp, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok(),
            doubt: Mono::ZERO,
            held: VecDeque::new(),
            retry: None,
        }
    }

    /// Whether the kernel took no more.
    pub fn is_full(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether the kernel is to be asked to cut trains.
    pub fn cuts(&self, now: Mono) -> bool {
        self.cuts && self.doubt <= now
    }

    /// When the socket is to be tried again.
    pub fn retry(&self) -> Option<Mono> {
        self.retry
    }
}

/// Why the kernel took no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The socket's buffer is full: until it is writable.
    Full,
    /// There is no memory: for a moment.
    NoMemory,
}

/// What an answer of the kernel asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Sent,
    /// Try at once.
    Again,
    Stop(Stop),
    /// The train must be cut here: this one alone (the way to this peer takes less), or also those
    /// to come (`doubt`: the device cannot).
    Cut {
        doubt: bool,
    },
    /// It is lost, as if the network had lost it.
    Lost,
}

fn verdict(result: Result<usize, Errno>, several: bool) -> Verdict {
    match result {
        Ok(_) => Verdict::Sent,
        Err(Errno::INTR) => Verdict::Again,
        Err(Errno::AGAIN) => Verdict::Stop(Stop::Full),
        Err(Errno::NOBUFS | Errno::NOMEM) => Verdict::Stop(Stop::NoMemory),
        Err(Errno::IO) if several => Verdict::Cut { doubt: true },
        Err(Errno::INVAL | Errno::MSGSIZE) if several => Verdict::Cut { doubt: false },
        Err(_) => Verdict::Lost,
    }
}

/// Takes what a machine gives: to the kernel, or behind what waits already. What breaks the rules
/// is counted and dropped.
pub(super) fn ship<X: Machine, B: Backend>(
    hub: &mut Hub<'_, X>,
    backend: &mut B,
    socket: SocketId,
    content: Content,
) {
    let index = hub.sockets.iter().position(|known| known.id == socket);
    let (Some(index), Some(parcel)) = (index, Parcel::new(content)) else {
        debug_assert!(false, "{socket:?} is not known, or a train does not fit together");
        return hub.cells.add(Cell::DatagramsUnfit, 1);
    };
    let outbound = &hub.sockets[index].outbound;
    if outbound.is_full() {
        keep(hub, index, parcel);
    } else if parcel.rest().len() > 1 && !outbound.cuts(hub.now.mono) {
        send(hub, backend, index, parcel);
    } else {
        backend.ship(hub, index, parcel);
    }
}

/// Sends a parcel by plain calls.
pub(super) fn send<X: Machine, B: Backend>(
    hub: &mut Hub<'_, X>,
    backend: &mut B,
    index: usize,
    mut parcel: Parcel,
) {
    if let Some(why) = push(hub, index, &mut parcel) {
        stop(hub, backend, index, parcel, why);
    }
}

/// Acts on the kernel's answer to a parcel that the backend has submitted as a whole.
pub(super) fn conclude<X: Machine, B: Backend>(
    hub: &mut Hub<'_, X>,
    backend: &mut B,
    index: usize,
    mut parcel: Parcel,
    result: Result<usize, Errno>,
) {
    let n = parcel.rest().len();
    match settle(hub, index, &mut parcel, n, result) {
        Some(why) => stop(hub, backend, index, parcel, why),
        None if parcel.rest().is_empty() => {}
        // Behind those of its batch that were not taken.
        None if hub.sockets[index].outbound.is_full() => keep(hub, index, parcel),
        None => send(hub, backend, index, parcel),
    }
}

/// Sends what is left of a parcel, as far as the kernel takes it.
fn push<X: Machine>(hub: &mut Hub<'_, X>, index: usize, parcel: &mut Parcel) -> Option<Stop> {
    while !parcel.rest().is_empty() {
        let socket = &hub.sockets[index];
        let rest = parcel.rest();
        let n = if parcel.cut || !socket.outbound.cuts(hub.now.mono) { 1 } else { rest.len() };
        let (range, v6, stamp) = (rest.start..rest.start + n, socket.outbound.v6, hub.stamp());
        let result = hub.frame.send(socket.udp.as_fd(), parcel, range, v6, stamp);
        if let Some(why) = settle(hub, index, parcel, n, result) {
            return Some(why);
        }
    }
    None
}

/// Notes the kernel's answer to the next `n` datagrams of a parcel. Why it took no more, if so.
fn settle<X: Machine>(
    hub: &mut Hub<'_, X>,
    index: usize,
    parcel: &mut Parcel,
    n: usize,
    result: Result<usize, Errno>,
) -> Option<Stop> {
    let cells = &hub.cells;
    match verdict(result, n > 1) {
        Verdict::Sent => {
            cells.add(Cell::UdpSentDatagrams, n as u64);
            cells.add(Cell::UdpSentBytes, result.unwrap_or(0) as u64);
            cells.add(Cell::UdpSentTrains, u64::from(n > 1));
            cells.add(Cell::DatagramsCutHere, u64::from(n < parcel.count()));
            parcel.advance(n);
        }
        Verdict::Again => {}
        Verdict::Stop(why) => return Some(why),
        Verdict::Cut { doubt } => {
            parcel.cut = true;
            if doubt {
                hub.sockets[index].outbound.doubt = hub.now.mono + DOUBT;
            }
        }
        Verdict::Lost => {
            cells.add(Cell::DatagramSendErrors, n as u64);
            parcel.advance(n);
        }
    }
    None
}

/// Keeps what was not taken. The first time the machine is told.
fn stop<X: Machine, B: Backend>(
    hub: &mut Hub<'_, X>,
    backend: &mut B,
    index: usize,
    parcel: Parcel,
    why: Stop,
) {
    let first = !hub.sockets[index].outbound.is_full();
    keep(hub, index, parcel);
    if first {
        hub.cells.add(Cell::UdpSocketFull, 1);
        wait_for_room(hub, backend, index, why);
        let socket = hub.sockets[index].id;
        hub.tell(Input::SocketFull { socket });
    }
}

fn wait_for_room<X: Machine, B: Backend>(
    hub: &mut Hub<'_, X>,
    backend: &mut B,
    index: usize,
    why: Stop,
) {
    let watched = why == Stop::Full && backend.watch_room(hub, index, true).is_ok();
    hub.sockets[index].outbound.retry = (!watched).then_some(hub.now.mono + BREATH);
}

fn keep<X: Machine>(hub: &mut Hub<'_, X>, index: usize, parcel: Parcel) {
    let held = &mut hub.sockets[index].outbound.held;
    if held.len() >= BATCH {
        debug_assert!(false, "the machine goes on although the socket is full");
        return hub.cells.add(Cell::DatagramsUnfit, parcel.rest().len() as u64);
    }
    // The only allocation, at the first time.
    held.reserve(BATCH - held.len());
    held.push_back(parcel);
}

/// The socket may take more: sends what is held, in order, and tells the machine when that is
/// all. By plain calls on both drivers, for each needs its answer before the next one is sent.
pub(super) fn room<X: Machine, B: Backend>(hub: &mut Hub<'_, X>, backend: &mut B, index: usize) {
    if !hub.sockets[index].outbound.is_full() {
        return;
    }
    while let Some(mut parcel) = hub.sockets[index].outbound.held.pop_front() {
        if let Some(why) = push(hub, index, &mut parcel) {
            hub.sockets[index].outbound.held.push_front(parcel);
            return wait_for_room(hub, backend, index, why);
        }
    }
    hub.sockets[index].outbound.retry = None;
    // If it fails, every sent datagram wakes the driver.
    let _ = backend.watch_room(hub, index, false);
    let socket = hub.sockets[index].id;
    hub.tell(Input::SocketReady { socket });
}

/// Tries the sockets again whose time has come.
pub(super) fn retry<X: Machine, B: Backend>(hub: &mut Hub<'_, X>, backend: &mut B) {
    for index in 0..hub.sockets.len() {
        if hub.sockets[index].outbound.retry.is_some_and(|retry| retry <= hub.now.mono) {
            room(hub, backend, index);
        }
    }
}

#[cfg(test)]
mod tests;
