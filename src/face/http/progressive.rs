//! A viewer of progressive MPEG-TS: a cursor into a window, and what to do when it falls behind.
//!
//! A slow viewer costs a cursor, not a queue. When it lags too far, or its place has left the
//! window, it finishes the packet that it is in and jumps to the newest access point, where a
//! decoder can start: the last PAT and PMT go in front. Too many jumps in a minute close it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::base::limits::{SEND_MAX, TS_PACKET};
use crate::base::payload::Payload;
use crate::base::time::Mono;
use crate::ring::marks::{Mark, MarkKind};
use crate::ring::reader::{Overtaken, Reader};

/// Bounds of the bytes that the kernel may hold unsent for one viewer.
const BACKLOG_MIN: u64 = 16 * 1024;
const BACKLOG_MAX: u64 = 256 * 1024;

/// The bitrate assumed before one was measured, in bit/s.
const BITRATE_DEFAULT: u64 = 2_000_000;

/// The rules that a viewer is held to.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How far it may fall behind before it jumps.
    pub max_lag: Duration,
    /// Jumps in one minute after which it is closed.
    pub max_jumps: u32,
}

/// Where a viewer begins: an access point and the bytes in front of it.
#[derive(Clone, Debug)]
pub struct Start {
    /// Stream offset of the access point.
    pub at: u64,
    /// PAT and PMT packets, verbatim.
    pub tables: Bytes,
    /// Whether the viewer counts on the offset of every byte: it may not jump.
    pub exact: bool,
}

impl Start {
    /// The start that an access point stands for; `None` for other marks.
    #[must_use]
    pub fn of(mark: &Mark) -> Option<Start> {
        match &mark.kind {
            MarkKind::AccessPoint { tables, .. } => {
                Some(Start { at: mark.at, tables: tables.clone(), exact: false })
            }
            MarkKind::Discontinuity | MarkKind::Tables | MarkKind::Segment(_) => None,
        }
    }

    /// The very byte at stream offset `at`, with nothing in front of it.
    #[must_use]
    pub fn exactly(at: u64) -> Start {
        Start { at, tables: Bytes::new(), exact: true }
    }
}

/// The next thing to do for a viewer.
#[derive(Debug)]
pub enum Next {
    /// Nothing: it has everything, or a send is under way.
    Wait,
    /// Send these; the answer is [`Viewer::handle_sent`] or [`Viewer::handle_blocked`].
    Send([Payload; 2]),
    /// It cannot follow: close it.
    TooSlow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Socket {
    Free,
    Sending,
    Blocked(Mono),
}

/// One viewer.
#[derive(Debug)]
pub struct Viewer {
    cursor: u64,
    prefix: Bytes,
    socket: Socket,
    /// How far behind it may be: wider until it has caught up once, because it may have asked
    /// to begin in the past.
    allowed: Duration,
    write_max: u32,
    recent_jumps: u32,
    jumps: u32,
    minute: Mono,
    live: bool,
    exact: bool,
    rest: Rest,
}

/// The end of the packet in which a short write stopped: it must be sent even if the ring has
/// moved on by then. Kept in place, so that a short write allocates nothing.
#[derive(Clone, Copy, Debug)]
struct Rest {
    bytes: [u8; TS_PACKET],
    from: u8,
}

impl Rest {
    const NONE: Rest = Rest { bytes: [0; TS_PACKET], from: TS_PACKET as u8 };

    fn as_slice(&self) -> &[u8] {
        &self.bytes[usize::from(self.from)..]
    }
}

/// The bytes that the kernel may hold unsent for a viewer: `max_lag` of the stream.
#[must_use]
pub fn backlog(bitrate_bps: u64, max_lag: Duration) -> u32 {
    let bitrate = if bitrate_bps == 0 { BITRATE_DEFAULT } else { bitrate_bps };
    let bytes = u128::from(bitrate / 8).saturating_mul(max_lag.as_millis()) / 1000;
    u64::try_from(bytes).unwrap_or(BACKLOG_MAX).clamp(BACKLOG_MIN, BACKLOG_MAX) as u32
}

impl Viewer {
    /// A viewer that begins at `start`; `head` goes in front (the response head).
    #[must_use]
    pub fn new(
        now: Mono,
        start: &Start,
        head: &[u8],
        behind: Duration,
        backlog: u32,
        rules: &Rules,
    ) -> Viewer {
        let mut prefix = BytesMut::with_capacity(head.len() + start.tables.len());
        prefix.extend_from_slice(head);
        prefix.extend_from_slice(&start.tables);
        Viewer {
            cursor: start.at,
            prefix: prefix.freeze(),
            socket: Socket::Free,
            allowed: rules.max_lag + behind,
            write_max: (backlog / 2).min(SEND_MAX as u32),
            recent_jumps: 0,
            jumps: 0,
            minute: now,
            live: false,
            exact: start.exact,
            rest: Rest::NONE,
        }
    }

    /// The next stream offset that it needs.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Jumps since it came.
    #[must_use]
    pub fn jumps(&self) -> u32 {
        self.jumps
    }

    /// Whether it has caught up with the stream once: from then on its delay is counted.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Since when its connection has taken nothing.
    #[must_use]
    pub fn blocked_since(&self) -> Option<Mono> {
        match self.socket {
            Socket::Blocked(since) => Some(since),
            Socket::Free | Socket::Sending => None,
        }
    }

    /// What to do now. Nothing at or beyond the stream offset `limit` is sent: what came in since
    /// the shard last looked at the stream is for the next round, gathered.
    pub fn poll(&mut self, now: Mono, reader: &mut Reader, limit: u64, rules: &Rules) -> Next {
        if self.socket != Socket::Free {
            return Next::Wait;
        }
        // A prefix is sent to its end first: a jump inside it would tear a packet or the head.
        if self.prefix.is_empty() && self.lags(now, reader) {
            if self.exact {
                return Next::TooSlow;
            }
            self.jump(now, reader, rules);
        }
        let mut read = self.read(reader, limit);
        if read.is_err() && !self.exact && self.prefix.is_empty() && self.jump(now, reader, rules) {
            // The window moved on between the two looks.
            read = self.read(reader, limit);
        }
        if self.recent_jumps > rules.max_jumps {
            return Next::TooSlow;
        }
        let [first, second] = match read {
            Ok(parts) => parts,
            Err(Overtaken) if !self.prefix.is_empty() => Default::default(),
            // No access point to go to: the whole window was dropped while it was away.
            Err(Overtaken) => return Next::TooSlow,
        };
        let parts = match self.prefix.is_empty() {
            true => [first, second],
            false => [Payload::Owned(self.prefix.clone()), first],
        };
        if parts.iter().all(Payload::is_empty) {
            self.live = true;
            self.allowed = rules.max_lag;
            return Next::Wait;
        }
        self.socket = Socket::Sending;
        Next::Send(parts)
    }

    /// The kernel took `n` bytes. Returns how many of them were stream bytes.
    pub fn handle_sent(&mut self, n: usize, reader: &mut Reader) -> usize {
        self.socket = Socket::Free;
        let from_prefix = n.min(self.prefix.len());
        let _ = self.prefix.split_to(from_prefix);
        if self.prefix.is_empty() {
            self.prefix = Bytes::new();
        }
        let stream = n - from_prefix;
        if stream > 0 {
            self.cursor += stream as u64;
            self.keep_rest(reader);
        }
        stream
    }

    /// The kernel took nothing.
    pub fn handle_blocked(&mut self, now: Mono) {
        self.socket = Socket::Blocked(now);
    }

    /// The connection can take bytes again.
    pub fn handle_writable(&mut self) {
        if matches!(self.socket, Socket::Blocked(_)) {
            self.socket = Socket::Free;
        }
    }

    fn read(&self, reader: &mut Reader, limit: u64) -> Result<[Payload; 2], Overtaken> {
        let room = (self.write_max as usize).saturating_sub(self.prefix.len());
        let due = limit.saturating_sub(self.cursor);
        reader.read(self.cursor, usize::try_from(due).map_or(room, |due| due.min(room)))
    }

    fn lags(&self, now: Mono, reader: &Reader) -> bool {
        let window = reader.window();
        if self.cursor < window.tail() {
            return true;
        }
        window.ingest_time(self.cursor).is_some_and(|came| now.since(came) > self.allowed)
    }

    /// Jumps to the newest access point, if that is ahead.
    fn jump(&mut self, now: Mono, reader: &Reader, rules: &Rules) -> bool {
        let start = {
            let marks = reader.window().marks();
            marks.newest_access_point().and_then(|mark| Start::of(mark))
        };
        let Some(start) = start.filter(|start| start.at > self.cursor) else { return false };
        let rest = self.rest.as_slice();
        if rest.is_empty() && !self.cursor.is_multiple_of(TS_PACKET as u64) {
            return false;
        }
        let mut prefix = BytesMut::with_capacity(rest.len() + start.tables.len());
        prefix.extend_from_slice(rest);
        prefix.extend_from_slice(&start.tables);
        self.prefix = prefix.freeze();
        self.rest = Rest::NONE;
        self.cursor = start.at;
        if now.since(self.minute) >= Duration::from_secs(60) {
            self.minute = now;
            self.recent_jumps = 0;
        }
        self.jumps += 1;
        self.recent_jumps += 1;
        self.allowed = rules.max_lag;
        true
    }

    /// If the cursor stands inside a packet, keeps the rest of it.
    fn keep_rest(&mut self, reader: &mut Reader) {
        self.rest = Rest::NONE;
        let inside = (self.cursor % TS_PACKET as u64) as usize;
        if inside == 0 {
            return;
        }
        if let Ok([first, second]) = reader.read(self.cursor, TS_PACKET - inside) {
            let (first, second) = (first.as_slice(), second.as_slice());
            if first.len() + second.len() == TS_PACKET - inside {
                self.rest.bytes[inside..inside + first.len()].copy_from_slice(first);
                self.rest.bytes[inside + first.len()..].copy_from_slice(second);
                self.rest.from = inside as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests;
