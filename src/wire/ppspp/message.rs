//! The messages of RFC 7574, section 8, as values borrowed from a datagram.

use std::net::{SocketAddrV4, SocketAddrV6};

use crate::wire::ppspp::{Handshake, Hash, Private, Signature, Span};

/// The first byte of each message.
#[allow(missing_docs, reason = "the names are those of the messages")]
pub mod kind {
    pub const HANDSHAKE: u8 = 0x00;
    pub const DATA: u8 = 0x01;
    pub const ACK: u8 = 0x02;
    pub const HAVE: u8 = 0x03;
    pub const INTEGRITY: u8 = 0x04;
    pub const PEX_V4: u8 = 0x05;
    pub const PEX_REQUEST: u8 = 0x06;
    pub const SIGNED_INTEGRITY: u8 = 0x07;
    pub const REQUEST: u8 = 0x08;
    pub const CANCEL: u8 = 0x09;
    pub const CHOKE: u8 = 0x0a;
    pub const UNCHOKE: u8 = 0x0b;
    pub const PEX_V6: u8 = 0x0c;
    pub const PEX_CERT: u8 = 0x0d;
    pub const SUBSCRIBE: u8 = 0x30;
    pub const STATE: u8 = 0x31;
    pub const TOKEN: u8 = 0x33;
    pub const REPORT: u8 = 0x34;
    pub const BYE: u8 = 0x35;
    pub const LINKS: u8 = 0x36;
    pub const PROBE: u8 = 0x37;
    /// The block of our private messages: each has a length, so that one that is not known can
    /// be skipped.
    pub const PRIVATE: std::ops::RangeInclusive<u8> = 0x30..=0x3f;
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Opens a channel, answers, or closes.
    Handshake(Handshake<'a>),
    /// A chunk's bytes: as many as a chunk has, or what is left of the datagram. It has no
    /// length, so a single one must be last in its datagram (8.6).
    Data {
        /// Which chunk.
        chunk: u64,
        /// Microseconds of the sender's clock when it was sent.
        stamp: u64,
        /// Its bytes. Deployed peers send none at times.
        bytes: &'a [u8],
    },
    /// Chunks that arrived and were whole.
    Ack {
        /// Which chunks.
        span: Span,
        /// The receiver's clock less the sender's stamp, in microseconds: the two clocks have
        /// different origins, so only differences of delays mean something.
        delay: i64,
    },
    /// Chunks that the sender has and has verified.
    Have(Span),
    /// The hash over chunks.
    Integrity {
        /// Which chunks: one for a leaf, a subtree for a munro.
        span: Span,
        /// Their hash.
        hash: &'a Hash,
    },
    /// The signature of a munro.
    SignedIntegrity {
        /// The chunks of the subtree.
        span: Span,
        /// When it was signed: NTP time.
        ntp: u64,
        /// ECDSA P-256, r and s.
        signature: &'a Signature,
    },
    /// Asks for addresses of other peers.
    PexRequest,
    /// The address of another peer.
    PexV4(SocketAddrV4),
    /// The address of another peer.
    PexV6(SocketAddrV6),
    /// The address of another peer in a certificate, which this profile does not read.
    PexCert(&'a [u8]),
    /// Asks for chunks.
    Request(Span),
    /// Takes back what was asked for.
    Cancel(Span),
    /// The sender will not answer requests.
    Choke,
    /// The sender answers requests again. Never padding: [`crate::wire::ppspp::Messages`] leaves
    /// that out.
    Unchoke,
    /// One of our own.
    Private(Private<'a>),
}

impl Message<'_> {
    /// The message's first byte.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Message::Handshake(_) => kind::HANDSHAKE,
            Message::Data { .. } => kind::DATA,
            Message::Ack { .. } => kind::ACK,
            Message::Have(_) => kind::HAVE,
            Message::Integrity { .. } => kind::INTEGRITY,
            Message::SignedIntegrity { .. } => kind::SIGNED_INTEGRITY,
            Message::PexRequest => kind::PEX_REQUEST,
            Message::PexV4(_) => kind::PEX_V4,
            Message::PexV6(_) => kind::PEX_V6,
            Message::PexCert(_) => kind::PEX_CERT,
            Message::Request(_) => kind::REQUEST,
            Message::Cancel(_) => kind::CANCEL,
            Message::Choke => kind::CHOKE,
            Message::Unchoke => kind::UNCHOKE,
            Message::Private(private) => private.kind(),
        }
    }
}
