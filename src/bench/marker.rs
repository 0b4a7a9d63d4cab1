//! Time markers: packets of a private PID that say when they were sent.

use crate::base::limits::TS_PACKET;
use crate::wire::mpegts::Pid;
use crate::wire::mpegts::build::{PacketSpec, packet};
use crate::wire::mpegts::packet::Packet;

/// The markers' PID. No table names it: players pass over it, a relay must not.
const PID: Pid = 0x1FF0;

/// What the payload of a marker begins with.
const MAGIC: &[u8; 8] = b"HWMARKER";

/// One marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Counts the markers of one source.
    pub number: u64,
    /// When it was handed to the relay: [`now`].
    pub sent: u64,
}

impl Marker {
    /// The packet that carries it.
    #[must_use]
    pub fn packet(&self) -> [u8; TS_PACKET] {
        let mut payload = [0xFF; TS_PACKET - 4];
        payload[..8].copy_from_slice(MAGIC);
        payload[8..16].copy_from_slice(&self.number.to_be_bytes());
        payload[16..24].copy_from_slice(&self.sent.to_be_bytes());
        let continuity = (self.number % 16) as u8;
        packet(&PacketSpec { pid: PID, continuity, ..PacketSpec::default() }, &payload)
    }

    /// The marker in a packet, if it is one.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Marker> {
        let packet = Packet::new(bytes).filter(|packet| packet.pid() == PID)?;
        let (magic, rest) = packet.payload()?.split_first_chunk::<8>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (sent, _) = rest.split_first_chunk::<8>()?;
        let marker =
            Marker { number: u64::from_be_bytes(*number), sent: u64::from_be_bytes(*sent) };
        (magic == MAGIC).then_some(marker)
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`, which all processes of a machine share.
#[must_use]
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_come_back_as_sent() {
        for number in [0, 1, 15, 16, u64::MAX] {
            let marker = Marker { number, sent: number ^ 0x0123_4567_89AB_CDEF };
            let bytes = marker.packet();
            assert_eq!(Marker::read(&bytes), Some(marker));
            assert_eq!(
                usize::from(Packet::new(&bytes).unwrap().continuity()),
                number as usize % 16
            );
        }
    }

    #[test]
    fn other_packets_are_no_markers() {
        let good = Marker { number: 7, sent: 9 }.packet();
        for at in 0..12 {
            let mut bytes = good;
            bytes[at] ^= 0x18;
            let same = Marker::read(&bytes) == Marker::read(&good);
            // The fourth byte holds the continuity counter and whether there is a payload.
            assert!(!same, "byte {at}");
        }
        assert_eq!(Marker::read(&good[..187]), None);
    }

    #[test]
    fn the_clock_goes_on() {
        let (a, b) = (now(), now());
        assert!(a > 0 && a <= b);
    }
}
