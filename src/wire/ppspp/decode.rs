//! Datagrams to messages: strict, without state, without allocation.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use crate::wire::ppspp::{Addressing, Handshake, Message, Options, Private, Span, kind};

/// Why the rest of a datagram cannot be read. What came before counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A message or an option is longer than what is left.
    Truncated,
    /// A message of a type that has no length, or none at all.
    UnknownMessage(u8),
    /// An option of the handshake that has no length.
    UnknownOption(u8),
    /// Options out of order, or one of them twice.
    OptionOrder,
    /// A bitmap that is too long, or a window before its width is known.
    OptionLength,
    /// A range that runs backwards, or a DATA for other than one chunk.
    Range,
    /// A private message that we know, but of another length.
    PrivateLength(u8),
    /// An opening that does not begin with a HANDSHAKE.
    NoHandshake,
    /// A message that names chunks in an opening that did not say how.
    NoAddressing,
}

/// Reads big-endian fields off the front of bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor(bytes)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn bytes(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|&[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(|bytes| u16::from_be_bytes(*bytes))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(|bytes| u32::from_be_bytes(*bytes))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(|bytes| u64::from_be_bytes(*bytes))
    }
}

/// What the UNCHOKEs of a datagram are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unchokes {
    /// None was met yet, and no SIGNED_INTEGRITY.
    Unknown,
    /// Padding: the datagram holds a SIGNED_INTEGRITY.
    Padding,
    /// Meant.
    Meant,
}

/// The messages of a datagram, in order. After an error there is nothing more.
///
/// A run of UNCHOKEs is one message; where the datagram holds a SIGNED_INTEGRITY anywhere they
/// are padding and none at all.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: Cursor<'a>,
    /// `None` until the handshake of an opening has said it.
    addressing: Option<Addressing>,
    chunk_size: usize,
    /// The next message opens a channel.
    opens: bool,
    unchokes: Unchokes,
}

impl<'a> Messages<'a> {
    /// The messages of a datagram on a channel of ours: what [`crate::wire::ppspp::split`] gave.
    #[must_use]
    pub const fn new(messages: &'a [u8], addressing: Addressing, size: usize) -> Messages<'a> {
        Messages {
            rest: Cursor::new(messages),
            addressing: Some(addressing),
            chunk_size: size,
            opens: false,
            unchokes: Unchokes::Unknown,
        }
    }

    /// The messages of a datagram on channel 0. The first must be a HANDSHAKE; what follows it
    /// is read as its options 6 and 9 say.
    #[must_use]
    pub const fn opening(messages: &'a [u8]) -> Messages<'a> {
        Messages {
            rest: Cursor::new(messages),
            addressing: None,
            chunk_size: usize::MAX,
            opens: true,
            unchokes: Unchokes::Unknown,
        }
    }

    fn read(&mut self) -> Result<Message<'a>, Malformed> {
        let kind = self.rest.u8()?;
        if std::mem::take(&mut self.opens) && kind != kind::HANDSHAKE {
            return Err(Malformed::NoHandshake);
        }
        Ok(match kind {
            kind::HANDSHAKE => Message::Handshake(self.handshake()?),
            kind::DATA => self.data()?,
            kind::ACK => Message::Ack { span: self.span()?, delay: self.rest.u64()?.cast_signed() },
            kind::HAVE => Message::Have(self.span()?),
            kind::INTEGRITY => Message::Integrity { span: self.span()?, hash: self.rest.array()? },
            kind::SIGNED_INTEGRITY => {
                self.unchokes = Unchokes::Padding;
                let (span, ntp) = (self.span()?, self.rest.u64()?);
                Message::SignedIntegrity { span, ntp, signature: self.rest.array()? }
            }
            kind::PEX_V4 => {
                let ip = Ipv4Addr::from(*self.rest.array::<4>()?);
                Message::PexV4(SocketAddrV4::new(ip, self.rest.u16()?))
            }
            kind::PEX_V6 => {
                let ip = Ipv6Addr::from(*self.rest.array::<16>()?);
                Message::PexV6(SocketAddrV6::new(ip, self.rest.u16()?, 0, 0))
            }
            kind::PEX_REQUEST => Message::PexRequest,
            kind::PEX_CERT => {
                let length = self.rest.u16()?;
                Message::PexCert(self.rest.bytes(usize::from(length))?)
            }
            kind::REQUEST => Message::Request(self.span()?),
            kind::CANCEL => Message::Cancel(self.span()?),
            kind::CHOKE => Message::Choke,
            kind::UNCHOKE => {
                let more = self.rest.0.iter().take_while(|byte| **byte == kind::UNCHOKE).count();
                self.rest.bytes(more)?;
                Message::Unchoke
            }
            kind if kind::PRIVATE.contains(&kind) => {
                let length = self.rest.u16()?;
                let body = self.rest.bytes(usize::from(length))?;
                Message::Private(Private::read(kind, body)?)
            }
            kind => return Err(Malformed::UnknownMessage(kind)),
        })
    }

    fn handshake(&mut self) -> Result<Handshake<'a>, Malformed> {
        let channel = self.rest.u32()?;
        let options = Options::read(&mut self.rest)?;
        if self.addressing.is_none() {
            self.addressing = options.addressing.and_then(Addressing::from_code);
            self.chunk_size = options.chunk_size.map_or(usize::MAX, |size| size as usize);
        }
        Ok(Handshake { channel, options })
    }

    fn data(&mut self) -> Result<Message<'a>, Malformed> {
        let span = self.span()?;
        if span.first != span.last {
            return Err(Malformed::Range);
        }
        let stamp = self.rest.u64()?;
        let bytes = self.rest.bytes(self.rest.0.len().min(self.chunk_size))?;
        Ok(Message::Data { chunk: span.first, stamp, bytes })
    }

    fn span(&mut self) -> Result<Span, Malformed> {
        let (first, last) = match self.addressing.ok_or(Malformed::NoAddressing)? {
            Addressing::Chunks32 => (u64::from(self.rest.u32()?), u64::from(self.rest.u32()?)),
            Addressing::Chunks64 => (self.rest.u64()?, self.rest.u64()?),
        };
        Span::new(first, last).ok_or(Malformed::Range)
    }

    /// Whether the UNCHOKE just read is padding. Looks ahead once in a datagram, not at every
    /// UNCHOKE: the work for a datagram stays linear in its length.
    fn is_padding(&mut self) -> bool {
        if self.unchokes == Unchokes::Unknown {
            let mut ahead = Messages { unchokes: Unchokes::Padding, ..self.clone() };
            let signed = |read| matches!(read, Ok(Message::SignedIntegrity { .. }));
            let signed = ahead.any(signed);
            self.unchokes = if signed { Unchokes::Padding } else { Unchokes::Meant };
        }
        self.unchokes == Unchokes::Padding
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let read = self.read();
            match read {
                Ok(Message::Unchoke) if self.is_padding() => {}
                Ok(_) => return Some(read),
                Err(_) => {
                    self.rest = Cursor::new(&[]);
                    return Some(read);
                }
            }
        }
        None
    }
}
