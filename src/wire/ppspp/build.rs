//! Whole datagrams that the protocol asks for, ready to send.
//!
//! All of them go into a buffer of the caller and give the datagram's length; `None` if the
//! buffer is too short or a chunk id too large for the addressing.

use crate::wire::ppspp::{
    Addressing, CHANNEL, Handshake, Hash, Message, Options, Signature, Span, Writer, kind,
};

/// Bytes of a close.
pub const CLOSE: usize = 10;

/// What proves the chunks of one subtree.
#[derive(Clone, Copy, Debug)]
pub struct SignedSubtree<'a> {
    /// Its first chunk.
    pub first: u64,
    /// The hashes of its chunks, in order: 2, 4, 8 or 16.
    pub leaves: &'a [Hash],
    /// The hash over them.
    pub munro: &'a Hash,
    /// When it was signed: NTP time.
    pub ntp: u64,
    /// The signature over range, time and munro.
    pub signature: &'a Signature,
}

impl SignedSubtree<'_> {
    /// Its chunks; `None` if it has none, or ids that do not exist.
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        let more = (self.leaves.len() as u64).checked_sub(1)?;
        Some(Span { first: self.first, last: self.first.checked_add(more)? })
    }
}

/// The hash datagram of a subtree: munro, signature, every leaf, and HAVE if `have`, which only
/// who holds the whole subtree may say. Then UNCHOKEs up to `pad_to` bytes: see [`train_head`].
///
/// All leaves and not the uncles of one: with less than all of them nothing could be verified
/// before the last chunk has come.
#[must_use]
pub fn hash_datagram(
    buf: &mut [u8],
    channel: u32,
    addressing: Addressing,
    subtree: &SignedSubtree<'_>,
    have: bool,
    pad_to: Option<usize>,
) -> Option<usize> {
    let span = subtree.span()?;
    let mut writer = Writer::new(buf, channel, addressing);
    let signed = Message::SignedIntegrity { span, ntp: subtree.ntp, signature: subtree.signature };
    let mut whole = writer.push(Message::Integrity { span, hash: subtree.munro });
    whole &= writer.push(signed);
    for (chunk, hash) in (subtree.first..).zip(subtree.leaves) {
        whole &= writer.push(Message::Integrity { span: Span::one(chunk), hash });
    }
    whole &= !have || writer.push(Message::Have(span));
    whole &= pad_to.is_none_or(|length| writer.pad_to(length));
    whole.then_some(writer.len())
}

/// Bytes of a hash datagram of `leaves` chunks that is not padded.
#[must_use]
pub const fn hash_datagram_len(addressing: Addressing, leaves: usize, have: bool) -> usize {
    let message = 1 + addressing.spec_bytes();
    let have = if have { message } else { 0 };
    CHANNEL + (1 + leaves) * (message + 32) + message + 8 + 64 + have
}

/// To how many bytes the hash datagram (with HAVE) of `leaves` chunks is padded, so that it is
/// the first segment of a train: all segments of one send but the last are of one length. `None`
/// if that would waste more than a third of a datagram; then it is a send of its own.
#[must_use]
pub const fn train_head(addressing: Addressing, leaves: usize, chunk_size: usize) -> Option<usize> {
    let data = addressing.data_header() + chunk_size;
    match data.checked_sub(hash_datagram_len(addressing, leaves, true)) {
        Some(pad) if pad * 3 <= data => Some(data),
        _ => None,
    }
}

/// The headers of `chunks` datagrams of one DATA each, one behind the other, each
/// [`Addressing::data_header`] bytes. Channel and time stamp are zero: they are written where
/// the datagrams are sent.
#[must_use]
pub fn data_headers(
    buf: &mut [u8],
    addressing: Addressing,
    first: u64,
    chunks: usize,
) -> Option<usize> {
    let length = addressing.data_header() * chunks;
    let headers = buf.get_mut(..length)?.chunks_exact_mut(addressing.data_header());
    for (n, header) in headers.enumerate() {
        let chunk = first.checked_add(n as u64)?;
        let mut writer = Writer::new(header, 0, addressing);
        if !writer.push(Message::Data { chunk, stamp: 0, bytes: &[] }) {
            return None;
        }
    }
    Some(length)
}

/// The first datagram of an exchange: `channel` is where the answer shall go to.
#[must_use]
pub fn opening(buf: &mut [u8], channel: u32, options: Options<'_>) -> Option<usize> {
    let mut writer = Writer::new(buf, 0, Addressing::default());
    let whole = writer.push(Message::Handshake(Handshake { channel, options }));
    whole.then_some(writer.len())
}

/// The answer to an opening: to `to`, from our `channel`, with what we have, newest first.
#[must_use]
pub fn reply(
    buf: &mut [u8],
    to: u32,
    channel: u32,
    options: Options<'_>,
    have: impl IntoIterator<Item = Span>,
) -> Option<usize> {
    let addressing = options.addressing.and_then(Addressing::from_code)?;
    let mut writer = Writer::new(buf, to, addressing);
    let mut whole = writer.push(Message::Handshake(Handshake { channel, options }));
    for span in have {
        whole &= writer.push(Message::Have(span));
    }
    whole.then_some(writer.len())
}

/// Closes the channel `to`.
#[must_use]
pub fn close(to: u32) -> [u8; CLOSE] {
    let mut datagram = [kind::HANDSHAKE; CLOSE];
    datagram[..CHANNEL].copy_from_slice(&to.to_be_bytes());
    // Type and source channel are zero already; then the end of no options.
    datagram[CLOSE - 1] = 0xff;
    datagram
}

/// Acknowledges `runs` of chunks, with one delay sample for all of them, and asks for `holes`.
#[must_use]
pub fn acknowledge(
    buf: &mut [u8],
    channel: u32,
    addressing: Addressing,
    (runs, delay): (impl IntoIterator<Item = Span>, i64),
    holes: impl IntoIterator<Item = Span>,
) -> Option<usize> {
    let mut writer = Writer::new(buf, channel, addressing);
    let mut whole = true;
    for span in runs {
        whole &= writer.push(Message::Ack { span, delay });
    }
    for span in holes {
        whole &= writer.push(Message::Request(span));
    }
    whole.then_some(writer.len())
}

/// Asks for `spans`.
#[must_use]
pub fn request(
    buf: &mut [u8],
    channel: u32,
    addressing: Addressing,
    spans: impl IntoIterator<Item = Span>,
) -> Option<usize> {
    acknowledge(buf, channel, addressing, ([], 0), spans)
}
