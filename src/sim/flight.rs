//! Datagrams under way: a train is one thing that flies, with a bit for each datagram that is
//! still on board. The bytes are put together where it lands.

use std::net::SocketAddrV4;
use std::rc::Rc;

use crate::base::limits::CHUNK;
use crate::base::payload::Payload;
use crate::io::machine::Train;

/// Bytes of a datagram that go into the world's digest: channel, type, the first chunk's id.
const SEEN: usize = 13;

/// `DATA` in the wire's numbers.
const DATA: u8 = 1;
/// What is in front of a chunk: channel, type, span, time.
const DATA_HEADER: usize = 29;
/// `INTEGRITY`.
const INTEGRITY: u8 = 4;

/// What flies.
#[derive(Clone, Debug)]
pub enum Cargo {
    /// One datagram, as it is.
    Datagram(Payload),
    /// Several, of which the headers are still to be patched.
    Train(Rc<Train>),
}

/// What is in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A chunk, by its id.
    Chunk(u64),
    /// Hashes.
    Integrity,
    /// Anything else.
    Control,
}

/// Datagrams of one sender to one receiver.
#[derive(Clone, Debug)]
pub struct Flight {
    /// The sender as the receiver sees it.
    pub from: SocketAddrV4,
    /// The receiver.
    pub to: SocketAddrV4,
    cargo: Cargo,
    /// When it was submitted, in microseconds of the sender's monotonic clock.
    stamp: u64,
    /// A bit for each datagram on board.
    pub aboard: u32,
    /// A bit for each datagram that was once on board, before some were lost.
    part: u32,
    shape: Shape,
}

/// What is asked of a flight at each station: the cargo itself is elsewhere in the memory, and
/// nobody has looked at it for long.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Datagrams in front of those with chunks, and in all.
    heads: u8,
    datagrams: u8,
    /// Bytes of the first datagram, or of the train's head; of a header, of a chunk, of all
    /// chunks.
    first: u32,
    header: u16,
    chunk: u16,
    body: u32,
    /// The beginning of one datagram, mostly the first on board.
    seen: [u8; SEEN],
    seen_len: u8,
    seen_of: u8,
}

impl Shape {
    fn of(cargo: &Cargo) -> Shape {
        let none = Shape {
            heads: 0,
            datagrams: 1,
            first: 0,
            header: 1,
            chunk: 0,
            body: 0,
            seen: [0; SEEN],
            seen_len: 0,
            seen_of: u8::MAX,
        };
        match cargo {
            Cargo::Datagram(data) => Shape { first: data.len() as u32, ..none },
            Cargo::Train(train) => {
                let heads = u8::from(!train.head.is_empty());
                let header = train.header.max(1);
                let chunks = (train.headers.len() / usize::from(header)) as u8;
                Shape {
                    heads,
                    datagrams: heads + chunks,
                    first: train.head.len() as u32,
                    header,
                    chunk: train.chunk,
                    body: train.body.len() as u32,
                    ..none
                }
            }
        }
    }
}

impl Flight {
    /// A flight with everything aboard.
    #[must_use]
    pub fn new(from: SocketAddrV4, to: SocketAddrV4, cargo: Cargo, stamp: u64) -> Flight {
        let shape = Shape::of(&cargo);
        let aboard = ((1_u64 << shape.datagrams.min(32)) - 1) as u32;
        let mut flight = Flight { from, to, cargo, stamp, aboard, part: aboard, shape };
        flight.see();
        flight
    }

    /// Keeps the beginning of the first datagram on board.
    fn see(&mut self) {
        let first = self.aboard.trailing_zeros();
        if first < 32 && self.shape.seen_of != first as u8 {
            let (seen, len) = self.look(first as usize);
            let (seen_len, seen_of) = (len as u8, first as u8);
            self.shape = Shape { seen, seen_len, seen_of, ..self.shape };
        }
    }

    fn heads(&self) -> usize {
        self.shape.heads.into()
    }

    /// The numbers of the datagrams on board.
    pub fn numbers(&self) -> impl Iterator<Item = usize> + use<> {
        numbers(self.aboard)
    }

    /// Throws datagram `n` off.
    pub fn lose(&mut self, n: usize) {
        self.aboard &= !(1 << n);
    }

    /// The same flight with the datagrams of `part` alone, as far as they are on board.
    #[must_use]
    pub fn only(&self, part: u32) -> Flight {
        let mut flight = Flight { aboard: self.aboard & part, part, ..self.clone() };
        flight.see();
        flight
    }

    /// The flight in parts, as [`Flight::only`] makes them: mostly one, and nothing is copied.
    pub fn split<T>(
        self: Box<Self>,
        parts: Vec<(u32, T)>,
    ) -> impl Iterator<Item = (Box<Flight>, T)> {
        let (mut whole, last) = (Some(self), parts.len().saturating_sub(1));
        parts.into_iter().enumerate().filter_map(move |(n, (part, at))| {
            if n < last {
                return Some((Box::new(whole.as_ref()?.only(part)), at));
            }
            let mut flight = whole.take()?;
            (flight.aboard, flight.part) = (flight.aboard & part, part);
            flight.see();
            Some((flight, at))
        })
    }

    /// Those datagrams of this part of the flight that were lost.
    pub fn missing(&self) -> impl Iterator<Item = usize> + use<> {
        numbers(self.part & !self.aboard)
    }

    /// How many datagrams this part of the flight began with.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.part.count_ones() as usize
    }

    /// Bytes of datagram `n`.
    #[must_use]
    pub fn len(&self, n: usize) -> usize {
        let Shape { first, header, chunk, body, .. } = self.shape;
        if n < self.heads() || matches!(self.cargo, Cargo::Datagram(_)) {
            return first as usize;
        }
        let at = (n - self.heads()) * usize::from(chunk);
        usize::from(header) + (body as usize).saturating_sub(at).min(chunk.into())
    }

    /// Bytes of all datagrams on board.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.numbers().map(|n| self.len(n)).sum()
    }

    /// Appends datagram `n` as it comes out of the wire.
    pub fn write(&self, n: usize, out: &mut Vec<u8>) {
        let start = out.len();
        match &self.cargo {
            Cargo::Datagram(data) => return out.extend_from_slice(data.as_slice()),
            Cargo::Train(train) if n < self.heads() => out.extend_from_slice(train.head.as_slice()),
            Cargo::Train(train) => {
                let (k, header) = (n - self.heads(), header(train));
                out.extend_from_slice(&train.headers.as_slice()[k * header..][..header]);
                out[start + header - 8..].copy_from_slice(&self.stamp.to_be_bytes());
                let at = k * usize::from(train.chunk);
                let chunk = train.body.as_slice().get(at..).unwrap_or_default();
                out.extend_from_slice(&chunk[..chunk.len().min(train.chunk.into())]);
            }
        }
        if let Cargo::Train(train) = &self.cargo
            && let Some(channel) = out.get_mut(start..start + 4)
        {
            channel.copy_from_slice(&train.channel.to_be_bytes());
        }
    }

    /// The first bytes of datagram `n`, up to thirteen, and how many.
    #[must_use]
    pub fn beginning(&self, n: usize) -> ([u8; SEEN], usize) {
        let Shape { seen, seen_len, seen_of, .. } = self.shape;
        if n == usize::from(seen_of) { (seen, seen_len.into()) } else { self.look(n) }
    }

    fn look(&self, n: usize) -> ([u8; SEEN], usize) {
        let bytes = match &self.cargo {
            Cargo::Datagram(data) => data.as_slice(),
            Cargo::Train(train) if n < self.heads() => train.head.as_slice(),
            Cargo::Train(train) => &train.headers.as_slice()[(n - self.heads()) * header(train)..],
        };
        let mut seen = [0; SEEN];
        let len = bytes.len().min(SEEN);
        match bytes.first_chunk() {
            Some(whole) => seen = *whole,
            None => seen[..len].copy_from_slice(bytes),
        }
        if let Cargo::Train(train) = &self.cargo
            && len >= 4
        {
            seen[..4].copy_from_slice(&train.channel.to_be_bytes());
        }
        (seen, len)
    }

    /// The bytes of datagram `n`, which carries no chunk, behind its [`beginning`].
    ///
    /// [`beginning`]: Flight::beginning
    #[must_use]
    pub fn rest(&self, n: usize) -> &[u8] {
        let bytes = match &self.cargo {
            Cargo::Datagram(data) => data.as_slice(),
            Cargo::Train(train) if n < self.heads() => train.head.as_slice(),
            Cargo::Train(_) => &[],
        };
        bytes.get(SEEN..).unwrap_or_default()
    }

    /// The bytes of the chunk in datagram `n`, which carries one.
    #[must_use]
    pub fn chunk_bytes(&self, n: usize) -> &[u8] {
        let bytes = match &self.cargo {
            Cargo::Datagram(data) => data.as_slice().get(DATA_HEADER..),
            Cargo::Train(train) => {
                let at = n.saturating_sub(self.heads()) * usize::from(train.chunk);
                train.body.as_slice().get(at..)
            }
        };
        let bytes = bytes.unwrap_or_default();
        &bytes[..bytes.len().min(CHUNK)]
    }

    /// What is in datagram `n`, by its first message.
    #[must_use]
    pub fn kind(&self, n: usize) -> Kind {
        let (seen, len) = self.beginning(n);
        match (self.chunk(n), seen[4]) {
            (Some(chunk), _) => Kind::Chunk(chunk),
            (None, INTEGRITY) if len > 4 => Kind::Integrity,
            (None, _) => Kind::Control,
        }
    }

    /// The chunk that datagram `n` carries, if it is one; ids of 64 bits.
    #[must_use]
    pub fn chunk(&self, n: usize) -> Option<u64> {
        let (seen, len) = self.beginning(n);
        let id = seen.get(5..SEEN).filter(|_| len == SEEN && seen[4] == DATA)?;
        id.try_into().ok().map(u64::from_be_bytes)
    }
}

/// The places of the bits of a mask.
pub fn numbers(mut mask: u32) -> impl Iterator<Item = usize> + use<> {
    std::iter::from_fn(move || {
        let next = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (next < 32).then_some(next as usize)
    })
}

fn header(train: &Train) -> usize {
    usize::from(train.header.max(1))
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::base::ids::SocketId;

    fn payload(bytes: &[u8]) -> Payload {
        Payload::from(Bytes::copy_from_slice(bytes))
    }

    pub(in crate::sim) fn train(to: SocketAddrV4) -> Train {
        let header = |chunk: u64| [&[0; 4][..], &[1], &chunk.to_be_bytes(), &[0; 16]].concat();
        Train {
            socket: SocketId::SWARM,
            to: to.into(),
            from: None,
            channel: 0x8000_0001,
            head: payload(&[5; 39]),
            headers: payload(&[header(7), header(8)].concat()),
            header: 29,
            body: payload(&[[1; 10], [2; 10]].concat()),
            chunk: 10,
        }
    }

    #[test]
    fn a_flight_goes_on_in_parts_and_the_last_of_them_is_the_flight_itself() {
        let at = SocketAddrV4::new([192, 0, 2, 1].into(), 9);
        let new = || Box::new(Flight::new(at, at, Cargo::Train(Rc::new(train(at))), 0));
        let mut flight = new();
        flight.lose(1);
        let place = std::ptr::from_ref(&*flight);
        let seen = |flight: &Flight| (flight.aboard, flight.begun(), flight.beginning(2));
        let expected = seen(&flight.only(0b110));
        let parts: Vec<_> = flight.split(vec![(0b001, 'a'), (0b110, 'b')]).collect();
        let all: Vec<_> = parts.iter().map(|(part, name)| (part.aboard, *name)).collect();
        assert_eq!(all, [(0b001, 'a'), (0b100, 'b')]);
        assert_eq!(seen(&parts[1].0), expected);
        assert!(std::ptr::eq(place, &*parts[1].0), "not copied");
        assert_eq!(new().split(Vec::<(u32, ())>::new()).count(), 0);
    }

    #[test]
    fn a_train_lands_patched_and_without_what_was_lost() {
        let at = SocketAddrV4::new([192, 0, 2, 1].into(), 9);
        let cargo = Cargo::Train(Rc::new(train(at)));
        let mut flight = Flight::new(at, at, cargo, 0x0102_0304_0506_0708);
        assert_eq!((flight.aboard, flight.bytes()), (0b111, 3 * 39));
        assert_eq!([flight.chunk(0), flight.chunk(1), flight.chunk(2)], [None, Some(7), Some(8)]);
        flight.lose(1);
        assert!(flight.numbers().eq([0, 2]) && flight.only(0b110).numbers().eq([2]));
        assert!(flight.only(0b110).missing().eq([1]) && flight.only(0b110).begun() == 2);
        let mut out = Vec::new();
        flight.numbers().for_each(|n| flight.write(n, &mut out));
        let (head, data) = out.split_at(39);
        assert_eq!(head, [&[0x80, 0, 0, 1][..], &[5; 35]].concat());
        assert_eq!(data[..5], [0x80, 0, 0, 1, 1]);
        assert_eq!(data[21..29], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(data[29..], [2; 10]);
        assert_eq!(flight.beginning(2).0[..5], [0x80, 0, 0, 1, 1]);
        assert_eq!((flight.rest(0), flight.rest(1)), (&[5; 26][..], &[][..]));
    }

    #[test]
    fn a_datagram_lands_as_it_is() {
        let at = SocketAddrV4::new([192, 0, 2, 1].into(), 9);
        let flight = Flight::new(at, at, Cargo::Datagram(payload(b"hello")), 0);
        let mut out = Vec::new();
        flight.write(0, &mut out);
        assert_eq!((&out[..], flight.beginning(0).1, flight.chunk(0)), (&b"hello"[..], 5, None));
        assert!(flight.rest(0).is_empty());
        let flight = Flight::new(at, at, Cargo::Datagram(payload(b"a longer datagram")), 0);
        assert_eq!(flight.rest(0), b"gram");
    }
}
