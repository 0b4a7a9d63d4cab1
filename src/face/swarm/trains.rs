//! What is the same for all peers of a stream, made once: hash datagrams and DATA headers.
//!
//! A relay makes them for its shoals, a viewer's node for its neighbours. Subtrees and chunks
//! have their numbers of the wire throughout; only the window may count from elsewhere.

use bytes::Bytes;

use crate::base::limits::{CHUNK, SUBTREE_CHUNKS_MAX};
use crate::base::payload::Payload;
use crate::ring::window::Window;
use crate::swarm::requests::Run;
use crate::wire::ppspp::build::{data_headers, hash_datagram, train_head};
use crate::wire::ppspp::{Addressing, Message, SignedSubtree, Span, Writer};

/// Subtrees that are kept: the newest ones, which everybody gets. Questions for older ones are
/// few, and make them anew.
const KEPT: usize = 32;

/// The largest hash datagram: 16 leaves, padded to the size of a DATA datagram.
const HEAD_MAX: usize = 29 + CHUNK;

/// How hash datagrams are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether they say HAVE: only who holds whole subtrees may.
    pub have: bool,
    /// Whether they are padded, where that is cheap, to travel in front of the chunks in one
    /// train.
    pub pad: bool,
}

impl Style {
    /// A relay's: it holds every subtree, and sends them whole.
    pub const WHOLE: Style = Style { have: true, pad: true };

    /// A forwarder's: the chunks follow as they come.
    pub const CUT_THROUGH: Style = Style { have: false, pad: false };
}

/// One subtree, ready to send.
#[derive(Clone, Debug)]
pub struct Ready {
    subtree: u64,
    /// The hash datagram.
    pub hash: Payload,
    /// Whether it is as long as a DATA datagram, and so travels in front of them in one train.
    pub joined: bool,
    headers: Bytes,
    header: usize,
}

impl Ready {
    /// The headers of some of its chunks.
    #[must_use]
    pub fn headers(&self, run: Run, size: u64) -> Payload {
        let first = (run.first() % size) as usize;
        let range = first * self.header..(first + run.chunks() as usize) * self.header;
        self.headers.get(range.clone()).map_or(Payload::Empty, |_| self.headers.slice(range).into())
    }
}

/// The newest subtrees of one stream.
#[derive(Debug)]
pub struct Trains {
    addressing: Addressing,
    size: usize,
    style: Style,
    /// By how many subtrees the numbers of the wire are ahead of the window's.
    shift: u64,
    kept: [Option<Ready>; KEPT],
    /// The last HAVE, for all who are told of the same.
    have: Option<(Run, Payload)>,
}

impl Trains {
    /// Nothing is ready. `size`: chunks of a subtree.
    #[must_use]
    pub fn new(addressing: Addressing, size: usize, style: Style) -> Trains {
        let kept = [const { None }; KEPT];
        Trains { addressing, size, style, shift: 0, kept, have: None }
    }

    /// For a window that counts from another chunk than the wire: a subtree's number there and
    /// `subtrees` are its number on the wire.
    #[must_use]
    pub fn with_shift(mut self, subtrees: u64) -> Trains {
        self.shift = subtrees;
        self
    }

    /// Bytes of one DATA header.
    #[must_use]
    pub fn header(&self) -> usize {
        self.addressing.data_header()
    }

    /// A subtree, made if need be; `None` if its record is not there (any more).
    pub fn get(&mut self, window: &Window, subtree: u64) -> Option<&Ready> {
        let slot = (subtree % KEPT as u64) as usize;
        if self.kept[slot].as_ref().is_none_or(|ready| ready.subtree != subtree) {
            self.kept[slot] = Some(self.make(window, subtree)?);
        }
        self.kept[slot].as_ref()
    }

    /// A datagram that tells of chunks.
    pub fn have(&mut self, run: Run) -> Option<Payload> {
        match &self.have {
            Some((last, datagram)) if *last == run => Some(datagram.clone()),
            _ => {
                let mut buf = [0; 21];
                let mut writer = Writer::new(&mut buf, 0, self.addressing);
                let span = Span::new(run.first(), run.last())?;
                let datagram = writer.push(Message::Have(span)).then(|| writer.written())?;
                let datagram: Payload = Bytes::copy_from_slice(datagram).into();
                self.have = Some((run, datagram.clone()));
                Some(datagram)
            }
        }
    }

    fn make(&self, window: &Window, subtree: u64) -> Option<Ready> {
        let record = window.record(subtree.checked_sub(self.shift)?).ok()?;
        let first = subtree.checked_mul(self.size as u64)?;
        let signed = SignedSubtree {
            first,
            leaves: record.leaves.get(..self.size)?,
            munro: &record.munro,
            ntp: record.ntp,
            signature: &record.signature,
        };
        let pad = self.style.pad.then(|| train_head(self.addressing, self.size, CHUNK)).flatten();
        // One allocation for both: this happens for every subtree on every shard.
        let mut buf = [0; HEAD_MAX + 29 * SUBTREE_CHUNKS_MAX];
        let have = self.style.have;
        let hash = hash_datagram(&mut buf, 0, self.addressing, &signed, have, pad)?;
        let headers = data_headers(&mut buf[hash..], self.addressing, first, self.size)?;
        let both = Bytes::copy_from_slice(&buf[..hash + headers]);
        let headers = both.slice(hash..);
        let hash = both.slice(..hash).into();
        Some(Ready { subtree, hash, joined: pad.is_some(), headers, header: self.header() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Mono;
    use crate::ring::arena::Arena;
    use crate::ring::records::{Record, SubtreeSize};
    use crate::ring::window::{Settings, open_received};
    use crate::wire::ppspp::build::hash_datagram_len;
    use crate::wire::ppspp::{CHANNEL, Messages};

    const SIZE: usize = 16;

    #[test]
    fn a_forwarder_says_no_have_pads_nothing_and_counts_as_the_wire_does() {
        let arena = Arena::create(4 << 20).unwrap();
        let settings = Settings { bytes: 2 << 20, span: std::time::Duration::from_secs(60) };
        let size = SubtreeSize::new(SIZE).unwrap();
        let (mut writer, window) = open_received(&arena, &settings, size, 0, 1).unwrap();
        let record = Record { leaves: [[7; 32]; SIZE], munro: [8; 32], ntp: 5, signature: [9; 64] };
        writer.sign(3, &record).unwrap();
        writer.publish(Mono::from_millis(1));
        let addressing = Addressing::default();
        let trains = Trains::new(addressing, SIZE, Style::CUT_THROUGH);
        let mut trains = trains.with_shift(1_000);
        assert!(trains.get(&window, 3).is_none(), "the wire's numbers");
        let ready = trains.get(&window, 1_003).unwrap().clone();
        let bytes = ready.hash.as_slice();
        assert_eq!(bytes.len(), hash_datagram_len(addressing, SIZE, false));
        assert!(!ready.joined);
        let messages = Messages::new(&bytes[CHANNEL..], addressing, CHUNK);
        let spans: Vec<_> = messages
            .map(|message| match message.unwrap() {
                Message::Integrity { span, .. } | Message::SignedIntegrity { span, .. } => span,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(spans.len(), SIZE + 2);
        assert_eq!(spans[0], Span::new(1_003 * 16, 1_003 * 16 + 15).unwrap());
        let header = trains.header();
        let part = ready.headers(Run::new(1_003 * 16 + 4, 1_003 * 16 + 6).unwrap(), 16);
        assert_eq!(part.len(), 3 * header);
        let mut datagram = part.as_slice()[..header].to_vec();
        datagram.extend([0; CHUNK]);
        let data = Messages::new(&datagram[CHANNEL..], addressing, CHUNK).next();
        assert!(matches!(data, Some(Ok(Message::Data { chunk: 16_052, .. }))));
        let relays = Trains::new(addressing, SIZE, Style::WHOLE).get(&window, 3).unwrap().clone();
        assert_eq!(relays.hash.len(), header + CHUNK, "padded");
        assert!(relays.joined);
    }
}
