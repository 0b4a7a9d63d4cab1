//! Messages to datagrams, in a buffer of the caller.

use crate::wire::ppspp::{Addressing, Message, Span, kind};

/// Writes one datagram.
///
/// A message is written whole or not at all: [`Writer::push`] says which. It is refused if it
/// does not fit what is left of the buffer, or if it cannot be said on this wire: a chunk id of
/// more than 32 bits where ids have 32, more than 65,535 bytes behind a 16-bit length.
#[derive(Debug)]
pub struct Writer<'b> {
    buf: &'b mut [u8],
    at: usize,
    addressing: Addressing,
    /// Whether everything of the present message was written.
    whole: bool,
}

impl<'b> Writer<'b> {
    /// Begins a datagram to `channel`. In a buffer of less than four bytes nothing fits.
    #[must_use]
    pub fn new(buf: &'b mut [u8], channel: u32, addressing: Addressing) -> Writer<'b> {
        let mut writer = Writer { buf, at: 0, addressing, whole: true };
        writer.u32(channel);
        if !writer.whole {
            writer.buf = &mut [];
        }
        writer
    }

    /// Adds a message; false if it was refused, and then nothing has changed.
    #[must_use]
    pub fn push(&mut self, message: Message<'_>) -> bool {
        let start = self.at;
        self.whole = true;
        self.u8(message.kind());
        self.body(&message);
        if !self.whole {
            self.at = start;
        }
        self.whole
    }

    /// Fills up to `length` bytes with UNCHOKEs, which mean nothing where there is a
    /// SIGNED_INTEGRITY. False if the datagram is longer already, or the buffer shorter.
    #[must_use]
    pub fn pad_to(&mut self, length: usize) -> bool {
        match self.buf.get_mut(self.at..length) {
            Some(room) => {
                room.fill(kind::UNCHOKE);
                self.at = length;
                true
            }
            None => false,
        }
    }

    /// Bytes of the datagram so far, its channel included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.at
    }

    /// Whether there is nothing but the channel: a keepalive.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at <= crate::wire::ppspp::CHANNEL
    }

    /// The datagram so far.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        &self.buf[..self.at]
    }

    fn body(&mut self, message: &Message<'_>) {
        match *message {
            Message::Handshake(handshake) => {
                self.u32(handshake.channel);
                handshake.options.write(self);
            }
            Message::Data { chunk, stamp, bytes } => {
                self.span(Span::one(chunk));
                self.u64(stamp);
                self.bytes(bytes);
            }
            Message::Ack { span, delay } => {
                self.span(span);
                self.u64(delay.cast_unsigned());
            }
            Message::Have(span) | Message::Request(span) | Message::Cancel(span) => self.span(span),
            Message::Integrity { span, hash } => {
                self.span(span);
                self.bytes(hash);
            }
            Message::SignedIntegrity { span, ntp, signature } => {
                self.span(span);
                self.u64(ntp);
                self.bytes(signature);
            }
            Message::PexV4(address) => {
                self.bytes(&address.ip().octets());
                self.u16(address.port());
            }
            Message::PexV6(address) => {
                self.bytes(&address.ip().octets());
                self.u16(address.port());
            }
            Message::PexCert(certificate) => {
                self.length(certificate.len());
                self.bytes(certificate);
            }
            Message::PexRequest | Message::Choke | Message::Unchoke => {}
            Message::Private(private) => {
                if !kind::PRIVATE.contains(&private.kind()) {
                    self.refuse();
                }
                let length = self.at;
                self.u16(0);
                let start = self.at;
                private.write_body(self);
                self.length_at(length, self.at - start);
            }
        }
    }

    fn span(&mut self, span: Span) {
        match self.addressing {
            Addressing::Chunks64 => {
                self.u64(span.first);
                self.u64(span.last);
            }
            Addressing::Chunks32 => match (u32::try_from(span.first), u32::try_from(span.last)) {
                (Ok(first), Ok(last)) => {
                    self.u32(first);
                    self.u32(last);
                }
                _ => self.refuse(),
            },
        }
    }

    /// Takes the present message back.
    pub(super) fn refuse(&mut self) {
        self.whole = false;
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len();
        match self.buf.get_mut(self.at..end) {
            Some(room) if self.whole => {
                room.copy_from_slice(bytes);
                self.at = end;
            }
            _ => self.whole = false,
        }
    }

    /// A length of 16 bits.
    pub(super) fn length(&mut self, length: usize) {
        match u16::try_from(length) {
            Ok(length) => self.u16(length),
            Err(_) => self.refuse(),
        }
    }

    /// A length of 16 bits in front of what has been written since.
    fn length_at(&mut self, at: usize, length: usize) {
        if let (true, Ok(length)) = (self.whole, u16::try_from(length)) {
            self.buf[at..at + 2].copy_from_slice(&length.to_be_bytes());
        } else {
            self.refuse();
        }
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }
}
