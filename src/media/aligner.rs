//! Finds packets in a byte stream: at its start, and again wherever bytes were lost.

use crate::base::limits::TS_PACKET;
use crate::wire::mpegts::SYNC;

/// Packet starts in a row that must hold a sync byte before a position counts as aligned. Of
/// random positions one in 2^24 passes, and a stream needs 377 bytes to come through.
const CONFIRM: usize = 3;

/// Bytes that are looked at to judge one position.
const SPAN: usize = (CONFIRM - 1) * TS_PACKET + 1;

/// Bytes kept while searching. More than a span, so that every refill settles many positions.
const HOLD: usize = 4 * TS_PACKET;

const _: () = assert!(HOLD > 2 * SPAN - TS_PACKET, "a full buffer always settles a position");

/// Cuts bytes that come in any pieces into whole packets.
///
/// What comes out depends on the bytes alone and not on how they were cut. It keeps at most
/// one partial packet, or four packets while it searches.
#[derive(Debug)]
pub struct Aligner {
    held: [u8; HOLD],
    /// Bytes in `held`. Aligned: the start of one packet, less than 188 bytes.
    len: usize,
    aligned: bool,
    lost: u64,
    resyncs: u64,
}

impl Default for Aligner {
    fn default() -> Aligner {
        Aligner::new()
    }
}

impl Aligner {
    /// An aligner that searches.
    #[must_use]
    pub fn new() -> Aligner {
        Aligner { held: [0; HOLD], len: 0, aligned: false, lost: 0, resyncs: 0 }
    }

    /// Calls `run` with whole packets, as many at a time as lie together. They are borrowed from
    /// `data`, except a packet that began in an earlier call and those found while searching
    /// across calls. Every packet begins with the sync byte.
    pub fn push(&mut self, mut data: &[u8], run: &mut dyn FnMut(&[u8])) {
        while !data.is_empty() {
            data = if self.aligned { self.take(data, run) } else { self.search(data, run) };
        }
    }

    /// Bytes that were in no packet: in front of the first, and where alignment was lost.
    #[must_use]
    pub fn lost_bytes(&self) -> u64 {
        self.lost
    }

    /// How often alignment was lost after it had been found.
    #[must_use]
    pub fn resyncs(&self) -> u64 {
        self.resyncs
    }

    /// Forgets the held bytes, which count as lost, and searches anew: the next bytes come from
    /// somewhere else. The counters go on.
    pub fn reset(&mut self) {
        self.lost += self.len as u64;
        self.len = 0;
        self.aligned = false;
    }

    /// Aligned: completes the held packet, then hands out all whole packets of `data`. Returns
    /// what is left to do.
    fn take<'a>(&mut self, data: &'a [u8], run: &mut dyn FnMut(&[u8])) -> &'a [u8] {
        if self.len > 0 {
            let missing = (TS_PACKET - self.len).min(data.len());
            self.hold(&data[..missing]);
            if self.len == TS_PACKET {
                run(&self.held[..TS_PACKET]);
                self.len = 0;
            }
            return &data[missing..];
        }
        let good = data.chunks(TS_PACKET).take_while(|packet| packet[0] == SYNC).count();
        let whole = good.min(data.len() / TS_PACKET) * TS_PACKET;
        if whole > 0 {
            run(&data[..whole]);
        }
        let rest = &data[whole..];
        if rest.first().is_some_and(|&byte| byte != SYNC) {
            self.aligned = false;
            self.resyncs += 1;
            return rest;
        }
        self.hold(rest);
        &[]
    }

    /// Searching: drops bytes up to the first position that is confirmed. A position that more
    /// bytes may still confirm is held with all that follows.
    fn search<'a>(&mut self, data: &'a [u8], run: &mut dyn FnMut(&[u8])) -> &'a [u8] {
        if self.len == 0 {
            let at = candidate(data);
            self.lost += at as u64;
            let rest = &data[at..];
            if rest.len() >= SPAN {
                self.aligned = true;
                return rest;
            }
            self.hold(rest);
            return &[];
        }
        let more = (HOLD - self.len).min(data.len());
        self.hold(&data[..more]);
        while !self.aligned && self.len > 0 {
            let at = candidate(&self.held[..self.len]);
            self.lost += at as u64;
            self.drop_front(at);
            if self.len < SPAN {
                break;
            }
            self.aligned = true;
            self.give_held(run);
        }
        &data[more..]
    }

    /// Just aligned: hands out the packets held, as far as they begin with the sync byte.
    fn give_held(&mut self, run: &mut dyn FnMut(&[u8])) {
        let starts = self.held[..self.len].chunks_exact(TS_PACKET);
        let good = starts.take_while(|packet| packet[0] == SYNC).count() * TS_PACKET;
        run(&self.held[..good]);
        self.drop_front(good);
        if self.len > 0 && self.held[0] != SYNC {
            self.aligned = false;
            self.resyncs += 1;
        }
    }

    fn hold(&mut self, bytes: &[u8]) {
        self.held[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn drop_front(&mut self, count: usize) {
        self.held.copy_within(count..self.len, 0);
        self.len -= count;
    }
}

/// The first position at which every packet start within `bytes`, up to the third, holds a sync
/// byte; the length if there is none.
fn candidate(bytes: &[u8]) -> usize {
    let possible =
        |at: usize| bytes[at..].iter().step_by(TS_PACKET).take(CONFIRM).all(|&byte| byte == SYNC);
    (0..bytes.len()).find(|&at| possible(at)).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mpegts::build::{PacketSpec, packet};
    use proptest::prelude::*;

    fn stream(packets: u8) -> Vec<u8> {
        let one = |n: u8| packet(&PacketSpec { pid: 300, ..PacketSpec::default() }, &[n; 184]);
        (0..packets).flat_map(one).collect()
    }

    /// Pushes `bytes` in pieces that end at `cuts`; returns what came out.
    fn align(aligner: &mut Aligner, bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut from = 0;
        for &cut in cuts.iter().chain([&bytes.len()]) {
            let cut = cut.clamp(from, bytes.len());
            aligner.push(&bytes[from..cut], &mut |run| {
                assert!(!run.is_empty() && run.len() % TS_PACKET == 0);
                assert!(run.chunks(TS_PACKET).all(|p| p[0] == SYNC));
                out.extend_from_slice(run);
            });
            from = cut;
        }
        out
    }

    #[test]
    fn aligned_input_is_borrowed_whole() {
        let bytes = stream(20);
        let mut aligner = Aligner::new();
        let mut runs = Vec::new();
        aligner.push(&bytes, &mut |run| runs.push(run.as_ptr_range()));
        assert_eq!(runs, [bytes.as_ptr_range()]);
        assert_eq!((aligner.lost_bytes(), aligner.resyncs()), (0, 0));
    }

    #[test]
    fn garbage_in_front_and_between_is_counted_and_skipped() {
        let good = stream(10);
        // Sync bytes in the garbage must not fool it, not even two at the right distance.
        let mut garbage: Vec<u8> = (0..500).map(|i| if i % 91 == 0 { 0x47 } else { 1 }).collect();
        garbage[100] = 0x47;
        garbage[288] = 0x47;
        let bytes = [&garbage[..], &good, &garbage[1..], &good].concat();
        let mut aligner = Aligner::new();
        let out = align(&mut aligner, &bytes, &[]);
        assert_eq!(out, [&good[..], &good].concat());
        assert_eq!((aligner.lost_bytes(), aligner.resyncs()), (999, 1));
    }

    #[test]
    fn one_damaged_sync_byte_costs_one_packet() {
        let mut bytes = stream(9);
        bytes[4 * TS_PACKET] = 0x46;
        let mut aligner = Aligner::new();
        let out = align(&mut aligner, &bytes, &[]);
        assert_eq!(out.len(), 8 * TS_PACKET);
        assert_eq!((aligner.lost_bytes(), aligner.resyncs()), (188, 1));
    }

    #[test]
    fn reset_forgets_the_partial_packet() {
        let bytes = stream(4);
        let mut aligner = Aligner::new();
        let first = align(&mut aligner, &bytes[..3 * TS_PACKET + 50], &[]);
        assert_eq!(first.len(), 3 * TS_PACKET);
        aligner.reset();
        assert_eq!(align(&mut aligner, &bytes, &[]), bytes);
        assert_eq!((aligner.lost_bytes(), aligner.resyncs()), (50, 0));
    }

    proptest! {
        #[test]
        fn cuts_never_matter(
            parts in prop::collection::vec(
                prop_oneof![
                    (0u8..12).prop_map(stream),
                    prop::collection::vec(prop_oneof![Just(SYNC), any::<u8>()], 0..700),
                ],
                0..6,
            ),
            mut cuts in prop::collection::vec(0usize..6000, 0..40),
        ) {
            let bytes = parts.concat();
            let mut whole = Aligner::new();
            let expected = align(&mut whole, &bytes, &[]);
            cuts.sort_unstable();
            let mut cut = Aligner::new();
            let out = align(&mut cut, &bytes, &cuts);
            prop_assert_eq!(&out, &expected);
            let counters = |a: &Aligner| (a.lost_bytes(), a.resyncs(), a.len);
            prop_assert_eq!(counters(&cut), counters(&whole));
            // Every byte came out, was lost, or is held.
            let accounted = out.len() as u64 + cut.lost_bytes() + cut.len as u64;
            prop_assert_eq!(accounted, bytes.len() as u64);
            let every: Vec<usize> = (0..bytes.len()).collect();
            prop_assert_eq!(align(&mut Aligner::new(), &bytes, &every), expected);
        }
    }
}
