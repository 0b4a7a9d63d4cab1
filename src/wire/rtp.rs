//! The RTP header (RFC 3550, section 5.1), as far as a receiver of MPEG-TS needs it.

/// A packet, its header read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Counts packets, modulo 2^16.
    pub sequence: u16,
    /// Names the source's run.
    pub ssrc: u32,
    /// What it carries, padding taken off.
    pub payload: &'a [u8],
}

/// Bytes of the fixed header.
pub const HEADER: usize = 12;

/// Whether a datagram claims to be RTP: version 2. No TS packet does; its first byte is 0x47.
#[must_use]
pub fn is_rtp(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first >> 6 == 2)
}

impl Packet<'_> {
    /// Reads a datagram. `None` if it is no RTP, or its header promises more than is there.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Option<Packet<'_>> {
        let (head, rest) = datagram.split_first_chunk::<HEADER>()?;
        if !is_rtp(datagram) {
            return None;
        }
        let (padding, extension) = (head[0] & 0x20 != 0, head[0] & 0x10 != 0);
        let sources = usize::from(head[0] & 0x0f) * 4;
        let mut payload = rest.get(sources..)?;
        if extension {
            // "a 16-bit length field that counts the number of 32-bit words in the extension,
            // excluding the four-octet extension header" (5.3.1)
            let (head, rest) = payload.split_first_chunk::<4>()?;
            payload = rest.get(usize::from(u16::from_be_bytes([head[2], head[3]])) * 4..)?;
        }
        if padding {
            // "The last octet of the padding contains a count of how many padding octets should
            // be ignored, including itself." (5.1)
            let count = usize::from(*payload.last()?);
            if count == 0 {
                return None;
            }
            payload = payload.get(..payload.len().checked_sub(count)?)?;
        }
        Some(Packet {
            sequence: u16::from_be_bytes([head[2], head[3]]),
            ssrc: u32::from_be_bytes([head[8], head[9], head[10], head[11]]),
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(first: u8, more: &[u8]) -> Vec<u8> {
        [&[first, 33, 0x12, 0x34, 0, 0, 0, 1, 0xde, 0xad, 0xbe, 0xef], more].concat()
    }

    #[test]
    fn the_payload_lies_between_sources_extension_and_padding() {
        let plain = packet(0x80, b"payload");
        let read = Packet::parse(&plain).unwrap();
        assert_eq!(
            (read.sequence, read.ssrc, read.payload),
            (0x1234, 0xdead_beef, &b"payload"[..])
        );
        let sources = packet(0x82, b"11112222payload");
        assert_eq!(Packet::parse(&sources).unwrap().payload, b"payload");
        let extended = packet(0x91, b"1111\xbe\xde\0\x02eeeeffffpayload");
        assert_eq!(Packet::parse(&extended).unwrap().payload, b"payload");
        let padded = packet(0xa0, b"payload\0\0\x03");
        assert_eq!(Packet::parse(&padded).unwrap().payload, b"payload");
    }

    #[test]
    fn what_promises_more_than_is_there_is_refused() {
        let bad: [(u8, &[u8]); 7] = [
            (0x40, b"version 1"),
            (0xc0, b"version 3"),
            (0x81, b"111"),
            (0x90, b"\0\0\0"),
            (0x90, b"\0\0\0\x01333"),
            (0xa0, b"payload\x09"),
            (0xa0, b"payload\0"),
        ];
        for (first, more) in bad {
            assert_eq!(Packet::parse(&packet(first, more)), None, "{first:x} {more:?}");
        }
        assert_eq!(Packet::parse(&packet(0x80, b"")[..11]), None);
        assert!(!is_rtp(&[0x47]) && !is_rtp(&[]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(packet) = Packet::parse(&bytes) {
                prop_assert!(packet.payload.len() + HEADER <= bytes.len());
            }
        }
    }
}
