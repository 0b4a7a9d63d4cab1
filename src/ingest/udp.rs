//! Datagrams of one configured ingest: whose they are, and the packets in them.
//!
//! The attack: anybody can send a datagram, from any address. So networks must be named, the
//! first sender has the stream until it falls silent, and nothing here grows or answers.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::limits::TS_PACKET;
use crate::base::time::Mono;
use crate::ingest::reorder::{Reorder, Tally};
use crate::registry::settings::Network;
use crate::registry::stream::Proto;
use crate::wire::mpegts::SYNC;
use crate::wire::rtp::{Packet, is_rtp};

/// Silence after which another source may have the stream.
pub const LOCK: Duration = Duration::from_secs(3);

/// A step of the sequence numbers beyond this, forward or back, is a restart of the sender, not
/// loss (RFC 3550, A.1: MAX_DROPOUT).
const STEP_MAX: u16 = 3000;

/// The least time from one restart of a sender to the next: each costs a discontinuity. What
/// comes of another run earlier is dropped.
const RESTART_MIN: Duration = Duration::from_secs(1);

/// Something for the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Another source, or the same one from the beginning: nothing continues.
    Break,
    /// Bytes, and how they came.
    Bytes(Proto, &'a [u8]),
}

/// What became of datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Taken in, or held until their turn.
    pub taken: u64,
    /// From an address that may not send.
    pub refused: u64,
    /// From another source than the one that has the stream.
    pub foreign: u64,
    /// Neither TS packets nor RTP.
    pub malformed: u64,
    /// RTP without whole TS packets, or of a run that came too soon.
    pub bad_rtp: u64,
    /// What the sequence numbers tell.
    pub rtp: Tally,
}

/// The source that has the stream.
#[derive(Clone, Copy, Debug)]
struct Source {
    address: SocketAddr,
    heard: Mono,
}

/// A run of RTP packets.
#[derive(Clone, Copy, Debug)]
struct Run {
    ssrc: u32,
    began: Mono,
}

/// The receiver of one configured ingest.
#[derive(Debug)]
pub struct Receiver {
    allow: Vec<Network>,
    source: Option<Source>,
    run: Option<Run>,
    /// Made when the first RTP comes.
    window: Option<Reorder>,
}

impl Receiver {
    /// A receiver for senders of these networks.
    #[must_use]
    pub fn new(allow: Vec<Network>) -> Receiver {
        Receiver { allow, source: None, run: None, window: None }
    }

    /// The source that has the stream, and when it was last heard.
    #[must_use]
    pub fn source(&self) -> Option<(SocketAddr, Mono)> {
        self.source.map(|source| (source.address, source.heard))
    }

    /// Takes datagrams of `segment` bytes each, of which the last may be shorter.
    pub fn handle(
        &mut self,
        now: Mono,
        from: SocketAddr,
        segment: usize,
        data: &[u8],
        sink: &mut dyn FnMut(Piece<'_>),
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let count = data.len().div_ceil(segment.max(1)) as u64;
        if !self.allow.iter().any(|net| net.contains(from.ip())) {
            outcome.refused = count;
            return outcome;
        }
        if let Some(source) = self.source
            && source.address != from
            && now.since(source.heard) < LOCK
        {
            outcome.foreign = count;
            return outcome;
        }
        // Datagrams of whole packets one behind the other are one run of packets.
        if segment.is_multiple_of(TS_PACKET) && data.chunks(segment).all(is_ts) {
            self.admit(now, from, sink);
            outcome.taken = count;
            sink(Piece::Bytes(Proto::Udp, data));
            return outcome;
        }
        for datagram in data.chunks(segment.max(1)) {
            self.one(now, from, datagram, &mut outcome, sink);
        }
        outcome
    }

    /// When something has to be given up.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        self.window.as_ref()?.deadline()
    }

    /// Gives up packets that were waited for long enough.
    pub fn handle_timer(&mut self, now: Mono, sink: &mut dyn FnMut(Piece<'_>)) -> Outcome {
        let mut outcome = Outcome::default();
        if let Some(window) = &mut self.window {
            let mut sink = |bytes: &[u8]| sink(Piece::Bytes(Proto::Rtp, bytes));
            window.handle_timer(now, &mut outcome.rtp, &mut sink);
        }
        outcome
    }

    fn one(
        &mut self,
        now: Mono,
        from: SocketAddr,
        datagram: &[u8],
        outcome: &mut Outcome,
        sink: &mut dyn FnMut(Piece<'_>),
    ) {
        if is_ts(datagram) {
            self.admit(now, from, sink);
            outcome.taken += 1;
            return sink(Piece::Bytes(Proto::Udp, datagram));
        }
        if !is_rtp(datagram) {
            outcome.malformed += 1;
            return;
        }
        let Some(packet) = Packet::parse(datagram).filter(|packet| is_ts(packet.payload)) else {
            outcome.bad_rtp += 1;
            return;
        };
        self.admit(now, from, sink);
        if !self.follow(now, &packet, outcome, sink) {
            outcome.bad_rtp += 1;
            return;
        }
        let Some(window) = &mut self.window else { return };
        let late = outcome.rtp.late;
        let mut pass = |bytes: &[u8]| sink(Piece::Bytes(Proto::Rtp, bytes));
        window.push(now, packet.sequence, packet.payload, &mut outcome.rtp, &mut pass);
        outcome.taken += u64::from(outcome.rtp.late == late);
    }

    /// Notes that the source was heard. Called only for a datagram that makes sense, so that
    /// noise does not keep a stream from others.
    fn admit(&mut self, now: Mono, from: SocketAddr, sink: &mut dyn FnMut(Piece<'_>)) {
        let same = self.source.is_some_and(|source| source.address == from);
        if !same {
            if self.source.is_some() {
                sink(Piece::Break);
            }
            self.run = None;
        }
        self.source = Some(Source { address: from, heard: now });
    }

    /// Follows the runs of the source. False if another one begins too soon.
    fn follow(
        &mut self,
        now: Mono,
        packet: &Packet<'_>,
        outcome: &mut Outcome,
        sink: &mut dyn FnMut(Piece<'_>),
    ) -> bool {
        let window = self.window.get_or_insert_with(|| Reorder::new(packet.sequence));
        match self.run {
            Some(run) if run.ssrc == packet.ssrc => {
                if window.ahead(packet.sequence).unsigned_abs() <= STEP_MAX {
                    return true;
                }
                if now.since(run.began) < RESTART_MIN {
                    return false;
                }
            }
            Some(run) if now.since(run.began) < RESTART_MIN => return false,
            Some(_) | None => {}
        }
        if self.run.is_some() {
            let mut pass = |bytes: &[u8]| sink(Piece::Bytes(Proto::Rtp, bytes));
            window.finish(&mut outcome.rtp, &mut pass);
            sink(Piece::Break);
        }
        window.restart(packet.sequence);
        self.run = Some(Run { ssrc: packet.ssrc, began: now });
        true
    }
}

/// Whether these are whole TS packets, as far as the first one tells.
fn is_ts(data: &[u8]) -> bool {
    data.first() == Some(&SYNC) && data.len().is_multiple_of(TS_PACKET)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    const TS: usize = TS_PACKET;

    fn receiver() -> Receiver {
        Receiver::new(vec![Network { address: IpAddr::from([192, 0, 2, 0]), prefix: 24 }])
    }

    fn from(last: u8) -> SocketAddr {
        SocketAddr::new(IpAddr::from([192, 0, 2, last]), 5000)
    }

    /// Packets that are told apart by their last byte.
    fn packets(marks: &[u8]) -> Vec<u8> {
        let packet = |mark: &u8| {
            let mut packet = [0; TS];
            (packet[0], packet[TS - 1]) = (SYNC, *mark);
            packet
        };
        marks.iter().flat_map(packet).collect()
    }

    fn rtp(sequence: u16, ssrc: u32, marks: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x80, 33];
        bytes.extend(sequence.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(ssrc.to_be_bytes());
        bytes.extend(packets(marks));
        bytes
    }

    /// What came out: the marks of packets, `None` for a break.
    #[derive(Default)]
    struct Stream(Vec<Option<u8>>);

    impl Stream {
        fn take(&mut self, piece: Piece<'_>) {
            match piece {
                Piece::Break => self.0.push(None),
                Piece::Bytes(_, bytes) => {
                    self.0.extend(bytes.chunks(TS).map(|packet| packet.last().copied()));
                }
            }
        }
    }

    /// Sends datagrams at a time in milliseconds; the outcome of the last.
    fn send(r: &mut Receiver, out: &mut Stream, at: u64, who: u8, data: &[u8]) -> Outcome {
        r.handle(Mono::from_millis(at), from(who), data.len(), data, &mut |piece| out.take(piece))
    }

    #[test]
    fn plain_packets_pass_whole_runs_at_once() {
        let (mut r, mut out) = (receiver(), Stream::default());
        let data = packets(&[1, 2, 3, 4, 5]);
        let mut calls = 0;
        let outcome = r.handle(Mono::ZERO, from(1), 2 * TS, &data, &mut |piece| {
            calls += 1;
            out.take(piece);
        });
        assert_eq!((outcome.taken, calls), (3, 1));
        assert_eq!(out.0, [1, 2, 3, 4, 5].map(Some));
    }

    #[test]
    fn strangers_and_noise_are_counted_and_leave_no_trace() {
        let (mut r, mut out) = (receiver(), Stream::default());
        let stranger = "198.51.100.1:9".parse().unwrap();
        let good = packets(&[1]);
        let outcome = r.handle(Mono::ZERO, stranger, TS, &good, &mut |piece| out.take(piece));
        assert_eq!(outcome, Outcome { refused: 1, ..Outcome::default() });
        for noise in [&b"hello"[..], &good[..100], &[0; TS], &[good.clone(), vec![0]].concat()] {
            let outcome = send(&mut r, &mut out, 0, 1, noise);
            assert_eq!(outcome, Outcome { malformed: 1, ..Outcome::default() });
        }
        let short = &rtp(1, 1, &[1])[..50];
        for bad in [short, &rtp(1, 1, &[])[..], &[0x80][..], &[&rtp(1, 1, &[1])[..], &[0]].concat()]
        {
            let outcome = send(&mut r, &mut out, 0, 1, bad);
            assert_eq!(outcome, Outcome { bad_rtp: 1, ..Outcome::default() });
        }
        assert!(out.0.is_empty() && r.source().is_none());
        // One bad datagram of a run takes no other along.
        let mixed = [&packets(&[7])[..], &[0; TS], &packets(&[8])].concat();
        let outcome = r.handle(Mono::ZERO, from(1), TS, &mixed, &mut |piece| out.take(piece));
        assert_eq!((outcome.taken, outcome.malformed), (2, 1));
        assert_eq!(out.0, [Some(7), Some(8)]);
    }

    #[test]
    fn the_first_source_has_the_stream_until_it_is_silent() {
        let (mut r, mut out) = (receiver(), Stream::default());
        assert_eq!(send(&mut r, &mut out, 0, 1, &packets(&[1])).taken, 1);
        assert_eq!(send(&mut r, &mut out, 1000, 2, &packets(&[9])).foreign, 1);
        assert_eq!(send(&mut r, &mut out, 2000, 1, &packets(&[2])).taken, 1);
        assert_eq!(send(&mut r, &mut out, 4999, 2, &packets(&[9])).foreign, 1);
        // Noise of the first source does not keep the stream from others.
        assert_eq!(send(&mut r, &mut out, 4999, 1, b"noise").malformed, 1);
        assert_eq!(send(&mut r, &mut out, 5000, 2, &packets(&[3])).taken, 1);
        assert_eq!(send(&mut r, &mut out, 5001, 1, &packets(&[9])).foreign, 1);
        assert_eq!(out.0, [Some(1), Some(2), None, Some(3)]);
        assert_eq!(r.source(), Some((from(2), Mono::from_millis(5000))));
    }

    #[test]
    fn rtp_is_put_in_order_and_loss_is_counted() {
        let (mut r, mut out) = (receiver(), Stream::default());
        for (sequence, mark) in [(65_534u16, 1), (0, 3), (65_535, 2), (2, 5)] {
            assert_eq!(send(&mut r, &mut out, 0, 1, &rtp(sequence, 7, &[mark])).taken, 1);
        }
        assert_eq!(out.0, [1, 2, 3].map(Some));
        let deadline = r.deadline().unwrap();
        let outcome = r.handle_timer(deadline, &mut |piece| out.take(piece));
        assert_eq!((outcome.rtp.lost, r.deadline()), (1, None));
        assert_eq!(send(&mut r, &mut out, 300, 1, &rtp(1, 7, &[4])).rtp.late, 1);
        assert_eq!(out.0, [1, 2, 3, 5].map(Some));
    }

    #[test]
    fn another_run_is_a_break_but_not_more_than_one_a_second() {
        let (mut r, mut out) = (receiver(), Stream::default());
        send(&mut r, &mut out, 0, 1, &rtp(10, 7, &[1]));
        send(&mut r, &mut out, 0, 1, &rtp(12, 7, &[2]));
        assert_eq!(send(&mut r, &mut out, 999, 1, &rtp(500, 8, &[9])).bad_rtp, 1);
        let outcome = send(&mut r, &mut out, 1000, 1, &rtp(500, 8, &[3]));
        assert_eq!((outcome.taken, outcome.rtp.lost), (1, 1), "what was held comes first");
        assert_eq!(send(&mut r, &mut out, 1500, 1, &rtp(40_000, 8, &[9])).bad_rtp, 1);
        assert_eq!(send(&mut r, &mut out, 2000, 1, &rtp(40_000, 8, &[4])).taken, 1);
        assert_eq!(out.0, [Some(1), Some(2), None, Some(3), None, Some(4)]);
    }

    proptest! {
        #[test]
        fn every_datagram_has_one_outcome(
            datagrams in prop::collection::vec(
                (
                    1..4u8,
                    0..4u8,
                    any::<u16>(),
                    0..2u32,
                    0..900u64,
                    prop::collection::vec(any::<u8>(), 0..40),
                ),
                1..60,
            ),
        ) {
            let (mut r, mut out) = (receiver(), Stream::default());
            let mut now = 0;
            for (who, kind, sequence, ssrc, pause, noise) in datagrams {
                now += pause;
                let data = match kind {
                    0 => packets(&[1]),
                    1 => rtp(sequence % 200, ssrc, &[2]),
                    2 => rtp(sequence, ssrc, &[3]),
                    _ if noise.is_empty() => continue,
                    _ => noise,
                };
                let o = send(&mut r, &mut out, now, who, &data);
                let sum = o.taken + o.refused + o.foreign + o.malformed + o.bad_rtp + o.rtp.late;
                prop_assert_eq!(sum, 1);
                r.handle_timer(Mono::from_millis(now), &mut |piece| out.take(piece));
            }
        }
    }
}
