//! What is the same for all peers of a stream, made once: hash datagrams and DATA headers.

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
    /// With HAVE of the subtree: all of it is there.
    have: bool,
    /// Padded to the size of a DATA datagram where that is worth it, to travel in one train.
    pad: bool,
}

impl Style {
    /// Of whoever has whole subtrees.
    pub const SOURCE: Style = Style { have: true, pad: true };
    /// Of whoever passes on what it has not got all of yet (protocol.md, "Hash datagram").
    pub const FORWARD: Style = Style { have: false, pad: false };
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
    kept: [Option<Ready>; KEPT],
    style: Style,
    /// Subtrees by which numbers on the wire are larger than in the window.
    shift: u64,
    /// The last HAVE, for all who are told of the same.
    have: Option<(Run, Payload)>,
}

impl Trains {
    /// Nothing is ready.
    #[must_use]
    pub fn new(addressing: Addressing, size: usize, style: Style) -> Trains {
        Trains { addressing, size, kept: [const { None }; KEPT], style, shift: 0, have: None }
    }

    /// Numbers on the wire are larger than those of the window by `subtrees`.
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
        let Style { have, pad } = self.style;
        let pad = if pad { train_head(self.addressing, self.size, CHUNK) } else { None };
        // One allocation for both: this happens for every subtree on every shard.
        let mut buf = [0; HEAD_MAX + 29 * SUBTREE_CHUNKS_MAX];
        let hash = hash_datagram(&mut buf, 0, self.addressing, &signed, have, pad)?;
        let headers = data_headers(&mut buf[hash..], self.addressing, first, self.size)?;
        let both = Bytes::copy_from_slice(&buf[..hash + headers]);
        let headers = both.slice(hash..);
        let hash = both.slice(..hash).into();
        Some(Ready { subtree, hash, joined: pad.is_some(), headers, header: self.header() })
    }
}
