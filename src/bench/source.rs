//! The publisher: a transport stream at an exact bitrate, with a key frame every second and time
//! markers between the pictures.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::base::limits::TS_PACKET;
use crate::bench::Outcome;
use crate::bench::marker::{self, Marker};
use crate::wire::mpegts::build::{
    PacketSpec, StreamSpec, packet, packets, pat_section, pmt_section, pointed,
};
use crate::wire::mpegts::{PID_PAT, Pid};

/// The stream's name.
pub const NAME: &str = "bench";

/// The least time between two writes: an encoder's network buffer is about as fine.
const STEP: Duration = Duration::from_millis(5);

/// The least packets of a write, of which one is the marker.
const STEP_PACKETS: u64 = 4;

const PID_PMT: Pid = 0x1000;
const PID_VIDEO: Pid = 0x100;

/// `stream_type` of H.264.
const KIND_VIDEO: u8 = 0x1B;

/// Key frames are this far apart, in frames.
const GOP: u64 = 25;

/// Frames per second.
const FRAMES: u64 = 25;

/// Bits of one packet.
const PACKET_BITS: u64 = TS_PACKET as u64 * 8;

/// The least bitrate: room for the tables, a packet per frame and the markers.
pub const BITRATE_MIN: u64 = 60_000;

/// Makes the stream packet by packet. The position in time of a packet follows from its number.
#[derive(Debug)]
pub struct Generator {
    bitrate: u64,
    /// Packets made.
    made: u64,
    /// Frames begun.
    frames: u64,
    markers: u64,
    tables: [PacketSpec; 2],
    video: PacketSpec,
}

impl Generator {
    /// A stream of `bitrate` bit/s, markers and tables included.
    #[must_use]
    pub fn new(bitrate: u64) -> Generator {
        let spec = |pid| PacketSpec { pid, ..PacketSpec::default() };
        let tables = [spec(PID_PAT), spec(PID_PMT)];
        let bitrate = bitrate.max(BITRATE_MIN);
        Generator { bitrate, made: 0, frames: 0, markers: 0, tables, video: spec(PID_VIDEO) }
    }

    /// The time from one write to the next.
    #[must_use]
    pub fn step(&self) -> Duration {
        let packets =
            Duration::from_nanos(STEP_PACKETS * PACKET_BITS * 1_000_000_000 / self.bitrate);
        STEP.max(packets)
    }

    /// Appends what is due `at` this long after the beginning, with a marker of the time `now` at
    /// its end. Adds nothing if less than a marker is due.
    pub fn next(&mut self, at: Duration, now: u64, out: &mut Vec<u8>) {
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        // Seconds and the rest apart: no overflow for days at any bitrate.
        let bits = nanos / 1_000_000_000 * self.bitrate
            + nanos % 1_000_000_000 * self.bitrate / 1_000_000_000;
        let due = bits / PACKET_BITS;
        if self.made >= due {
            return;
        }
        while self.made + 1 < due {
            self.picture(out);
        }
        out.extend_from_slice(&Marker { number: self.markers, sent: now }.packet());
        self.markers += 1;
        self.made += 1;
    }

    /// One packet of the pictures; three where a group of pictures begins.
    fn picture(&mut self, out: &mut Vec<u8>) {
        // 27 MHz ticks of the position of this packet: exact, the product fits for centuries.
        let position = u128::from(self.made) * u128::from(PACKET_BITS) * 27_000_000;
        let ticks = u64::try_from(position / u128::from(self.bitrate)).unwrap_or(0);
        if ticks * FRAMES / 27_000_000 < self.frames {
            let payload = [0xFF; TS_PACKET - 4];
            out.extend_from_slice(&packet(&self.video, &payload));
            self.video.continuity = (self.video.continuity + 1) % 16;
            self.made += 1;
            return;
        }
        let key = self.frames.is_multiple_of(GOP);
        let before = out.len();
        if key {
            let video = StreamSpec { kind: KIND_VIDEO, pid: PID_VIDEO, descriptors: &[] };
            let tables = [pat_section(0, &[(1, PID_PMT)]), pmt_section(1, 0, PID_VIDEO, &[video])];
            for (spec, section) in self.tables.iter_mut().zip(tables) {
                packets(spec, &pointed(&section), out);
            }
        }
        let mut spec = PacketSpec { random_access: key, pcr: Some(ticks), ..self.video };
        packets(&mut spec, &picture_start(ticks / 300 + 9_000), out);
        self.video.continuity = spec.continuity;
        self.frames += 1;
        self.made += ((out.len() - before) / TS_PACKET) as u64;
    }
}

/// A PES header of unbounded length with a time stamp (13818-1, 2.4.3.6), and filler.
fn picture_start(pts: u64) -> [u8; 100] {
    let mut unit = [0xFF; 100];
    let bits = |shift: u32| (pts >> shift) as u8;
    unit[..14].copy_from_slice(&[
        0,
        0,
        1,
        0xE0,
        0,
        0,
        0x80,
        0x80,
        5,
        0x21 | bits(29) & 0x0E,
        bits(22),
        1 | bits(14) & 0xFE,
        bits(7),
        1 | bits(0) << 1,
    ]);
    unit
}

/// Publishes streams with these names to the relay at `to` for at most `life`, each of
/// `bitrate`, then ends. Blocks.
///
/// # Errors
/// If the relay refuses one, or its connection breaks.
pub fn run(to: SocketAddr, names: &[String], bitrate: u64, life: Duration) -> Outcome<()> {
    let mut encoders =
        names.iter().map(|name| Encoder::new(to, name, bitrate)).collect::<Outcome<Vec<_>>>()?;
    let (start, step) = (Instant::now(), Generator::new(bitrate).step());
    // Encoders do not beat in time: each has its own place in the step.
    let apart = step / u32::try_from(encoders.len().max(1)).unwrap_or(u32::MAX);
    let mut round = Duration::ZERO;
    while round < life {
        let mut due = round;
        for encoder in &mut encoders {
            thread::sleep(due.saturating_sub(start.elapsed()));
            encoder.go_on(start.elapsed())?;
            due += apart;
        }
        round += step;
    }
    Ok(())
}

/// One stream on its way to the relay.
struct Encoder {
    stream: Generator,
    relay: TcpStream,
    body: Vec<u8>,
    chunk: Vec<u8>,
}

impl Encoder {
    fn new(to: SocketAddr, name: &str, bitrate: u64) -> Outcome<Encoder> {
        let mut relay = TcpStream::connect(to)?;
        relay.set_nodelay(true)?;
        let head = format!("PUT /live/{name} HTTP/1.1\r\nHost: {to}\r\n");
        relay.write_all((head + "Transfer-Encoding: chunked\r\n\r\n").as_bytes())?;
        let (body, chunk) = (Vec::new(), Vec::new());
        Ok(Encoder { stream: Generator::new(bitrate), relay, body, chunk })
    }

    /// Sends what is due `at` this long after the beginning.
    fn go_on(&mut self, at: Duration) -> Outcome<()> {
        self.body.clear();
        self.stream.next(at, marker::now(), &mut self.body);
        if self.body.is_empty() {
            return Ok(());
        }
        self.chunk.clear();
        write!(self.chunk, "{:x}\r\n", self.body.len())?;
        self.chunk.extend_from_slice(&self.body);
        self.chunk.extend_from_slice(b"\r\n");
        let sent = self.relay.write_all(&self.chunk);
        sent.map_err(|why| refusal(&mut self.relay).unwrap_or_else(|| why.to_string()).into())
    }
}

/// What the relay said before it closed.
fn refusal(relay: &mut TcpStream) -> Option<String> {
    let mut text = [0; 512];
    relay.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    let n = relay.read(&mut text).ok().filter(|n| *n > 0)?;
    Some(format!("the relay refused the stream: {}", String::from_utf8_lossy(&text[..n])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mpegts::packet::Packet;

    /// Ten seconds of a stream, cut into its packets.
    fn ten_seconds(bitrate: u64) -> Vec<[u8; TS_PACKET]> {
        let mut stream = Generator::new(bitrate);
        let mut out = Vec::new();
        let mut at = Duration::ZERO;
        while at < Duration::from_secs(10) {
            at += stream.step();
            stream.next(at, u64::try_from(at.as_nanos()).unwrap(), &mut out);
        }
        out.as_chunks().0.to_vec()
    }

    #[test]
    fn the_bitrate_is_that_of_the_plan() {
        for bitrate in [BITRATE_MIN, 64_000, 2_000_000, 20_000_000] {
            let packets = ten_seconds(bitrate).len() as u64;
            let wanted = bitrate * 10 / PACKET_BITS;
            let off = packets.abs_diff(wanted);
            assert!(off <= STEP_PACKETS + 2, "{bitrate}: {packets} packets, not {wanted}");
        }
    }

    #[test]
    fn every_second_begins_with_tables_and_a_key_frame() {
        for bitrate in [64_000, 2_000_000] {
            let packets = ten_seconds(bitrate);
            let packets: Vec<_> = packets.iter().map(|p| Packet::new(p).unwrap()).collect();
            let keys = packets
                .iter()
                .enumerate()
                .filter(|(_, p)| p.adaptation().is_some_and(|field| field.random_access()));
            let keys: Vec<usize> = keys.map(|(index, _)| index).collect();
            assert!((9..=11).contains(&keys.len()), "{bitrate}: {}", keys.len());
            for key in keys {
                let pids = [packets[key - 2].pid(), packets[key - 1].pid(), packets[key].pid()];
                assert_eq!(pids, [PID_PAT, PID_PMT, PID_VIDEO]);
                assert!(packets[key].adaptation().unwrap().pcr().is_some());
            }
            let mut counter = None;
            for packet in packets.iter().filter(|packet| packet.pid() == PID_VIDEO) {
                assert!(counter.is_none_or(|c| (c + 1) % 16 == packet.continuity()));
                counter = Some(packet.continuity());
            }
        }
    }

    #[test]
    fn every_write_ends_with_a_marker() {
        let mut stream = Generator::new(2_000_000);
        for n in 1..100 {
            let mut out = Vec::new();
            stream.next(stream.step() * n, 1_000 + u64::from(n), &mut out);
            let (_, last) = out.split_last_chunk::<TS_PACKET>().unwrap();
            let marker = Marker { number: u64::from(n) - 1, sent: 1_000 + u64::from(n) };
            assert_eq!(Marker::read(last), Some(marker));
            let len = out.len();
            stream.next(stream.step() * n, 0, &mut out);
            assert_eq!(out.len(), len, "nothing is due");
        }
    }
}
