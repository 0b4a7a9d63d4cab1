//! The publisher: a machine like the others, which sends a transport stream at an exact bitrate
//! to the relay by HTTP PUT, and comes back when it is thrown out.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes};

use crate::base::ids::ConnId;
use crate::base::limits::TS_PACKET;
use crate::base::payload::Payload;
use crate::base::time::{Mono, Now};
use crate::io::machine::{Input, Machine, Outbox, Output};
use crate::shard::mail::Mail;
use crate::sim::dice::Dice;
use crate::wire::mpegts::PID_PAT;
use crate::wire::mpegts::Pid;
use crate::wire::mpegts::build::{
    PacketSpec, StreamSpec, packet, packets, pat_section, pmt_section, pointed,
};
use crate::wire::mpegts::pes::write_header;

/// The time between two writes.
const STEP: Duration = Duration::from_millis(20);

/// How long it waits before it connects again.
const AGAIN: Duration = Duration::from_millis(500);

/// Bytes that wait while the relay is away; an encoder drops the oldest.
const WAITING_MAX: usize = 1 << 20;

const PID_PMT: Pid = 0x1000;
const PID_VIDEO: Pid = 0x100;

/// `stream_type` of H.264.
const KIND_VIDEO: u8 = 0x1B;

/// `stream_id` of video (13818-1, 2.4.3.7).
const STREAM_VIDEO: u8 = 0xE0;

/// Frames per second.
const FRAMES: u64 = 25;

const PACKET_BITS: u64 = TS_PACKET as u64 * 8;

/// Makes the stream, packet by packet; when one is due follows from its number.
#[derive(Debug)]
pub struct Generator {
    bitrate: u64,
    /// Frames from one key frame to the next.
    gop: u64,
    made: u64,
    frames: u64,
    tables: [PacketSpec; 2],
    video: PacketSpec,
    dice: Dice,
}

impl Generator {
    /// A stream of `bitrate` bit/s with a key frame every `gop`.
    #[must_use]
    pub fn new(bitrate: u64, gop: Duration, dice: Dice) -> Generator {
        let spec = |pid| PacketSpec { pid, ..PacketSpec::default() };
        let tables = [spec(PID_PAT), spec(PID_PMT)];
        let gop = u64::try_from(gop.as_millis()).unwrap_or(u64::MAX) * FRAMES / 1_000;
        let (made, frames, video) = (0, 0, spec(PID_VIDEO));
        Generator { bitrate, gop: gop.max(1), made, frames, tables, video, dice }
    }

    /// Appends what is due so long after the beginning.
    pub fn next(&mut self, elapsed: Duration, out: &mut Vec<u8>) {
        let bits = elapsed.as_nanos() * u128::from(self.bitrate) / 1_000_000_000;
        let due = u64::try_from(bits).unwrap_or(u64::MAX) / PACKET_BITS;
        while self.made < due {
            let before = out.len();
            self.packets(out);
            self.made += ((out.len() - before) / TS_PACKET) as u64;
        }
    }

    /// One packet; three where a group of pictures begins.
    fn packets(&mut self, out: &mut Vec<u8>) {
        // 27 MHz ticks of the position of this packet.
        let position = u128::from(self.made) * u128::from(PACKET_BITS) * 27_000_000;
        let ticks = u64::try_from(position / u128::from(self.bitrate)).unwrap_or(0);
        let mut payload = [0; TS_PACKET - 4];
        // Every chunk is unlike every other: a byte in the wrong place is found.
        for word in payload.chunks_mut(8) {
            word.copy_from_slice(&self.dice.number().to_le_bytes()[..word.len()]);
        }
        if ticks * FRAMES / 27_000_000 < self.frames {
            out.extend_from_slice(&packet(&self.video, &payload));
            self.video.continuity = (self.video.continuity + 1) % 16;
            return;
        }
        let key = self.frames.is_multiple_of(self.gop);
        if key {
            let video = StreamSpec { kind: KIND_VIDEO, pid: PID_VIDEO, descriptors: &[] };
            let tables = [pat_section(0, &[(1, PID_PMT)]), pmt_section(1, 0, PID_VIDEO, &[video])];
            for (spec, section) in self.tables.iter_mut().zip(tables) {
                packets(spec, &pointed(&section), out);
            }
        }
        let mut spec = PacketSpec { random_access: key, pcr: Some(ticks), ..self.video };
        write_header(&mut payload, STREAM_VIDEO, Some(ticks / 300 + 9_000), None);
        packets(&mut spec, &payload[..100], out);
        self.video.continuity = spec.continuity;
        self.frames += 1;
    }
}

/// Everything that was sent, for those who check. Shared with the world.
pub type Tape = Rc<RefCell<Vec<u8>>>;

/// A time in which nothing is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// When it is over, by the encoder's clock, and how long it is.
    pub until: Mono,
    pub time: Duration,
    /// Then all of it comes at once, because the encoder went on meanwhile.
    pub burst: bool,
}

/// Where the encoder is told to pause. Shared with the world.
pub type Valve = Rc<Cell<Option<Pause>>>;

/// The encoder.
pub struct Encoder {
    relay: SocketAddr,
    name: String,
    stream: Generator,
    began: Option<Mono>,
    conn: Option<ConnId>,
    /// When it connects, if it is not connected or about to be.
    connect_at: Option<Mono>,
    next: Mono,
    out: VecDeque<Bytes>,
    waiting: usize,
    /// The last send was not answered, or was answered by `Blocked`.
    held: bool,
    tape: Tape,
    valve: Valve,
}

impl Encoder {
    /// An encoder that publishes `name` at `relay` from its first moment on.
    #[must_use]
    pub fn new(
        relay: SocketAddr,
        name: &str,
        stream: Generator,
        (tape, valve): (Tape, Valve),
    ) -> Encoder {
        Encoder {
            relay,
            name: name.to_owned(),
            stream,
            began: None,
            conn: None,
            connect_at: Some(Mono::ZERO),
            next: Mono::ZERO,
            out: VecDeque::new(),
            waiting: 0,
            held: false,
            tape,
            valve,
        }
    }

    fn push(&mut self, bytes: Bytes) {
        self.waiting += bytes.len();
        self.out.push_back(bytes);
        while self.waiting > WAITING_MAX
            && let Some(oldest) = self.out.pop_front()
        {
            self.waiting -= oldest.len();
        }
    }

    /// What is due by now, as one chunk of the body.
    fn encode(&mut self, now: Mono) {
        let mut began = *self.began.get_or_insert(now);
        if now < self.next {
            return;
        }
        self.next = now + STEP;
        if let Some(pause) = self.valve.get() {
            if now < pause.until {
                return;
            }
            self.valve.set(None);
            if !pause.burst {
                began = began + pause.time;
                self.began = Some(began);
            }
        }
        let mut due = Vec::new();
        self.stream.next(now.since(began), &mut due);
        if due.is_empty() || self.conn.is_none() {
            return;
        }
        self.tape.borrow_mut().extend_from_slice(&due);
        let chunk = [format!("{:x}\r\n", due.len()).as_bytes(), &due, b"\r\n"].concat();
        self.push(Bytes::from(chunk));
    }

    fn gone(&mut self, now: Mono) {
        self.conn = None;
        self.connect_at = Some(now + AGAIN);
        self.out.clear();
        (self.waiting, self.held) = (0, false);
    }
}

impl Machine for Encoder {
    type Mail = Mail;

    fn handle(&mut self, now: Now, input: Input<'_, Mail>) {
        match input {
            Input::Connected { conn, .. } => {
                self.conn = Some(conn);
                let head = format!(
                    "PUT /live/{} HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
                    self.name, self.relay
                );
                self.push(Bytes::from(head));
            }
            Input::ConnectFailed { .. } | Input::Closed { .. } => self.gone(now.mono),
            Input::Sent { n, .. } => {
                self.held = false;
                self.waiting -= n;
                if let Some(first) = self.out.front_mut() {
                    first.advance(n.min(first.len()));
                    if first.is_empty() {
                        self.out.pop_front();
                    }
                }
            }
            Input::Writable { .. } => self.held = false,
            _ => {}
        }
    }

    fn poll(&mut self, now: Now, out: &mut Outbox<Mail>) {
        self.encode(now.mono);
        if self.connect_at.is_some_and(|at| at <= now.mono) && out.has_room() {
            self.connect_at = None;
            out.push(Output::Connect { token: 0, to: self.relay });
        }
        if let (Some(conn), false, Some(first)) = (self.conn, self.held, self.out.front())
            && out.has_room()
        {
            self.held = true;
            let parts = [Payload::from(first.clone()), Payload::Empty];
            out.push(Output::Send { conn, parts });
        }
    }

    fn next_deadline(&self) -> Option<Mono> {
        Some(self.connect_at.map_or(self.next, |at| at.min(self.next)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::reader::{FoundKind, TsReader};

    #[test]
    fn the_reader_finds_nothing_wrong_with_it() {
        let dice = Dice::new(1, "source", 0);
        let mut stream = Generator::new(2_000_000, Duration::from_secs(2), dice);
        let (mut reader, mut found, mut at) = (TsReader::new(), Vec::new(), 0);
        for step in 0..500 {
            let elapsed = STEP * step;
            let mut out = Vec::new();
            stream.next(elapsed, &mut out);
            reader.feed(Mono::ZERO + elapsed, at, &out, &mut found);
            at += out.len() as u64;
        }
        assert!((2_480_000..2_500_000).contains(&at), "{at}");
        let health = reader.health(Mono::from_millis(9_980));
        assert_eq!((health.continuity_errors, health.gop_ms), (0, 2_000), "{health:?}");
        let points = found.iter().filter(|f| matches!(f.kind, FoundKind::AccessPoint { .. }));
        assert_eq!(points.count(), 5);
    }
}
