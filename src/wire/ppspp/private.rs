//! Our private messages: type, length (2), body. Sent only to a peer that set the bit of the
//! type in option 8; ids take eight bytes under both addressing methods.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::wire::ppspp::decode::{Cursor, Malformed};
use crate::wire::ppspp::encode::Writer;
use crate::wire::ppspp::{CHANNEL, kind};

/// A private message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Private<'a> {
    /// What shall be pushed to the sender.
    Subscribe(Subscribe),
    /// What the sender can give.
    State(State),
    /// The right to join, in the joiner's first datagram to our channel.
    Token(&'a [u8]),
    /// A viewer's figures, to the relay.
    Report(Report),
    /// Why the sender closes; the close follows.
    Bye(Bye),
    /// Who feeds the sender, to the relay; who is to feed the receiver, from it.
    Links(Links<'a>),
    /// A datagram of a train by which a viewer measures its line, to the relay.
    Probe(Probe<'a>),
    /// What the relay says of a train.
    Probed {
        /// Which train.
        run: u8,
        /// Thousands of bits per second at which it came; 0: nothing follows from what came.
        kbit: u32,
    },
    /// One that we do not know.
    Unknown {
        /// Its type.
        kind: u8,
        /// What it says.
        body: &'a [u8],
    },
}

/// SUBSCRIBE: the whole of what is wanted, not a change of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// The first chunk to push, or [`Subscribe::NEXT`].
    pub start: u64,
    /// The stripes to push: stripe i is bit i. A bit that was cleared prunes.
    pub stripes: u8,
    /// Chunks of push credit; 0 is the pusher's default.
    pub window: u32,
}

impl Subscribe {
    /// As [`Subscribe::start`]: from the next subtree on.
    pub const NEXT: u64 = u64::MAX;
    /// As [`Subscribe::stripes`]: all of them.
    pub const ALL: u8 = 0xff;
}

/// STATE: what a peer can do for others, and where it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// What it can send in all.
    pub upload_kbit: u32,
    /// What of it is free.
    pub room_kbit: u32,
    /// The chunk it plays.
    pub play_chunk: u64,
    /// What it has ahead of that.
    pub buffer_ms: u16,
}

/// REPORT: cumulative for the session and saturating, but for the delays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Bytes from the relay.
    pub relay_bytes: u64,
    /// Bytes from other peers.
    pub peer_bytes: u64,
    /// Bytes sent to other peers.
    pub sent_bytes: u64,
    /// Median delay behind live over the last 10 s.
    pub delay_p50_ms: u16,
    /// The 99th percentile of it.
    pub delay_p99_ms: u16,
    /// How often it stalled.
    pub stalls: u16,
    /// For how long in all.
    pub stall_ms: u32,
    /// Chunks fetched from the relay because their deadline was near.
    pub rescues: u32,
    /// Chunks that were not what was signed.
    pub bad: u16,
    /// Median time from signing to verified over the last 10 s.
    pub arrival_p50_ms: u16,
    /// The 99th percentile of it.
    pub arrival_p99_ms: u16,
    /// Chunks that had come already.
    pub duplicates: u32,
}

impl Report {
    /// As whoever knows only the first of its kind reads it.
    #[must_use]
    pub const fn plain(self) -> Report {
        Report { arrival_p50_ms: 0, arrival_p99_ms: 0, duplicates: 0, ..self }
    }

    const fn is_extended(&self) -> bool {
        self.arrival_p50_ms != 0 || self.arrival_p99_ms != 0 || self.duplicates != 0
    }

    fn read(at: &mut Cursor<'_>) -> Result<Report, Malformed> {
        let mut report = Report {
            relay_bytes: at.u64()?,
            peer_bytes: at.u64()?,
            sent_bytes: at.u64()?,
            delay_p50_ms: at.u16()?,
            delay_p99_ms: at.u16()?,
            stalls: at.u16()?,
            stall_ms: at.u32()?,
            rescues: at.u32()?,
            bad: at.u16()?,
            ..Report::default()
        };
        // The first of its kind ended here, and is still spoken.
        if !at.is_empty() {
            report.arrival_p50_ms = at.u16()?;
            report.arrival_p99_ms = at.u16()?;
            report.duplicates = at.u32()?;
        }
        Ok(report)
    }
}

/// BYE: why a channel is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bye {
    /// The viewer leaves.
    Leaving,
    /// The receiver's downlink does not carry the stream.
    Downlink,
    /// The path does not carry the datagrams.
    Mtu,
    /// No room.
    Busy,
    /// The other side sent what was not signed.
    BadData,
    /// No valid token.
    Token,
    /// The stream has ended.
    Ended,
    /// The node is going down.
    Draining,
    /// A reason that we do not know.
    Other(u8),
}

impl Bye {
    /// How many reasons there are: their numbers are those below.
    pub const COUNT: usize = 8;

    /// The reason with this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Bye {
        match code {
            0 => Bye::Leaving,
            1 => Bye::Downlink,
            2 => Bye::Mtu,
            3 => Bye::Busy,
            4 => Bye::BadData,
            5 => Bye::Token,
            6 => Bye::Ended,
            7 => Bye::Draining,
            other => Bye::Other(other),
        }
    }

    /// The reason's number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Bye::Leaving => 0,
            Bye::Downlink => 1,
            Bye::Mtu => 2,
            Bye::Busy => 3,
            Bye::BadData => 4,
            Bye::Token => 5,
            Bye::Ended => 6,
            Bye::Draining => 7,
            Bye::Other(code) => code,
        }
    }
}

/// One neighbour of the sender of LINKS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The neighbour.
    pub address: SocketAddr,
    /// The stripes that it pushes to the sender.
    pub stripes_in: u8,
}

impl Link {
    /// Bytes on the wire: the address as one of IPv6, the port, the stripes.
    pub const BYTES: usize = 16 + 2 + 1;

    fn read(bytes: &[u8; Link::BYTES]) -> Link {
        let [ip @ .., port_high, port_low, stripes_in] = *bytes;
        let ip = IpAddr::V6(Ipv6Addr::from(ip)).to_canonical();
        let port = u16::from_be_bytes([port_high, port_low]);
        Link { address: SocketAddr::new(ip, port), stripes_in }
    }

    /// As it is in the message.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Link::BYTES] {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut bytes = [0; Link::BYTES];
        bytes[..16].copy_from_slice(&ip.octets());
        bytes[16..18].copy_from_slice(&self.address.port().to_be_bytes());
        bytes[18] = self.stripes_in;
        bytes
    }
}

/// LINKS: the neighbours of the sender, or those that the receiver is to have, as they are on the
/// wire. Full state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Links<'a>(&'a [u8]);

impl<'a> Links<'a> {
    /// The most neighbours of one message.
    pub const MAX: usize = 16;

    /// Writes up to [`Links::MAX`] neighbours into a buffer, from which the message borrows.
    #[must_use]
    pub fn fill(
        links: impl Iterator<Item = Link>,
        buf: &'a mut [u8; Links::MAX * Link::BYTES],
    ) -> Links<'a> {
        let mut count = 0;
        for (link, room) in links.zip(buf.as_chunks_mut::<{ Link::BYTES }>().0) {
            *room = link.to_bytes();
            count += 1;
        }
        Links(&buf[..count * Link::BYTES])
    }

    /// How many there are.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.len() / Link::BYTES
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The neighbours.
    pub fn iter(self) -> impl Iterator<Item = Link> + 'a {
        self.0.as_chunks::<{ Link::BYTES }>().0.iter().map(Link::read)
    }

    fn read(at: &mut Cursor<'a>) -> Result<Links<'a>, Malformed> {
        let count = usize::from(at.u8()?);
        if count > Links::MAX {
            return Err(Malformed::PrivateLength(kind::LINKS));
        }
        at.bytes(count * Link::BYTES).map(Links)
    }
}

/// PROBE: one datagram of a train that is sent in one go, so that the line spaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe<'a> {
    /// Which train: a number of the sender's.
    pub run: u8,
    /// Which datagram of it, and of how many.
    pub index: u8,
    /// How many there are.
    pub of: u8,
    /// What makes the datagram long.
    pub padding: &'a [u8],
}

impl<'a> Probe<'a> {
    /// The most of them in a train.
    pub const MOST: u8 = 64;
    /// Bytes of a datagram with one, at most.
    pub const LONGEST: usize = 1_200;
    /// Bytes of IPv4 and UDP headers.
    const AROUND: usize = 28;
    /// Without them it would be as short as the answer to it, which has the same number.
    const PADDING_MIN: usize = 3;
    /// Bytes in front of the padding: channel, type, length, and what it says.
    const HEADER: usize = CHANNEL + 3 + 3;
    const PADDING: &'static [u8] = &[0; Probe::LONGEST - Probe::HEADER];
    /// Bytes of the body of an answer.
    const ANSWER: usize = 5;

    /// Bits on the wire of a datagram of so many bytes: both ends of a train count alike.
    #[must_use]
    pub const fn bits(bytes: usize) -> u64 {
        (bytes + Probe::AROUND) as u64 * 8
    }

    /// The one that makes a datagram of `bytes`.
    #[must_use]
    pub fn filling(bytes: usize, run: u8, index: u8, of: u8) -> Probe<'static> {
        let padding = bytes.saturating_sub(Probe::HEADER).max(Probe::PADDING_MIN);
        let padding = Probe::PADDING.get(..padding).unwrap_or(Probe::PADDING);
        Probe { run, index, of, padding }
    }

    fn read(body: &'a [u8], at: &mut Cursor<'a>) -> Result<Private<'a>, Malformed> {
        let run = at.u8()?;
        if body.len() == Probe::ANSWER {
            return Ok(Private::Probed { run, kbit: at.u32()? });
        }
        let (index, of) = (at.u8()?, at.u8()?);
        let padding = at.bytes(body.len() - 3)?;
        match padding.len() {
            ..Probe::PADDING_MIN => Err(Malformed::PrivateLength(kind::PROBE)),
            _ => Ok(Private::Probe(Probe { run, index, of, padding })),
        }
    }

    fn write(&self, to: &mut Writer<'_>) {
        if self.padding.len() < Probe::PADDING_MIN {
            to.refuse();
        }
        to.bytes(&[self.run, self.index, self.of]);
        to.bytes(self.padding);
    }
}

impl<'a> Private<'a> {
    /// The message's first byte.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Private::Subscribe(_) => kind::SUBSCRIBE,
            Private::State(_) => kind::STATE,
            Private::Token(_) => kind::TOKEN,
            Private::Report(_) => kind::REPORT,
            Private::Bye(_) => kind::BYE,
            Private::Links(_) => kind::LINKS,
            Private::Probe(_) | Private::Probed { .. } => kind::PROBE,
            Private::Unknown { kind, .. } => *kind,
        }
    }

    /// Reads the message `kind` whose body is the whole of `body`.
    pub(super) fn read(kind: u8, body: &'a [u8]) -> Result<Private<'a>, Malformed> {
        let mut at = Cursor::new(body);
        let private = Self::read_body(kind, body, &mut at).ok();
        // A body of another length than ours is another message under our number.
        private.filter(|_| at.is_empty()).ok_or(Malformed::PrivateLength(kind))
    }

    fn read_body(kind: u8, body: &'a [u8], at: &mut Cursor<'a>) -> Result<Private<'a>, Malformed> {
        Ok(match kind {
            kind::SUBSCRIBE => Private::Subscribe(Subscribe {
                start: at.u64()?,
                stripes: at.u8()?,
                window: at.u32()?,
            }),
            kind::STATE => Private::State(State {
                upload_kbit: at.u32()?,
                room_kbit: at.u32()?,
                play_chunk: at.u64()?,
                buffer_ms: at.u16()?,
            }),
            kind::REPORT => Private::Report(Report::read(at)?),
            kind::BYE => Private::Bye(Bye::from_code(at.u8()?)),
            kind::LINKS => Private::Links(Links::read(at)?),
            kind::PROBE => Probe::read(body, at)?,
            kind::TOKEN => Private::Token(at.bytes(body.len())?),
            kind => Private::Unknown { kind, body: at.bytes(body.len())? },
        })
    }

    /// Writes the body, without type and length.
    pub(super) fn write_body(&self, to: &mut Writer<'_>) {
        match self {
            Private::Subscribe(subscribe) => {
                to.u64(subscribe.start);
                to.u8(subscribe.stripes);
                to.u32(subscribe.window);
            }
            Private::State(state) => {
                to.u32(state.upload_kbit);
                to.u32(state.room_kbit);
                to.u64(state.play_chunk);
                to.u16(state.buffer_ms);
            }
            Private::Report(report) => {
                to.u64(report.relay_bytes);
                to.u64(report.peer_bytes);
                to.u64(report.sent_bytes);
                to.u16(report.delay_p50_ms);
                to.u16(report.delay_p99_ms);
                to.u16(report.stalls);
                to.u32(report.stall_ms);
                to.u32(report.rescues);
                to.u16(report.bad);
                if report.is_extended() {
                    to.u16(report.arrival_p50_ms);
                    to.u16(report.arrival_p99_ms);
                    to.u32(report.duplicates);
                }
            }
            Private::Bye(reason) => to.u8(reason.code()),
            Private::Links(links) => {
                to.u8(links.len() as u8);
                to.bytes(links.0);
            }
            Private::Probe(probe) => probe.write(to),
            Private::Probed { run, kbit } => {
                to.u8(*run);
                to.u32(*kbit);
            }
            Private::Token(body) | Private::Unknown { body, .. } => to.bytes(body),
        }
    }
}
