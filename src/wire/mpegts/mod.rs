//! MPEG transport stream (ISO/IEC 13818-1, ITU-T H.222.0): packets, tables, PES headers, clocks.
//!
//! A view borrows the bytes it was made from. What needs memory of earlier packets (whole
//! sections, continuity, access points) is in [`crate::media`].

pub mod build;
pub mod clock;
pub mod packet;
pub mod pes;
pub mod psi;

/// A packet identifier: 13 bits.
pub type Pid = u16;

/// The PID of the program association table.
pub const PID_PAT: Pid = 0;

/// The PID of null packets, which carry nothing and may be added or dropped anywhere.
pub const PID_NULL: Pid = 0x1FFF;

/// Number of PIDs there are.
pub const PIDS: usize = 0x2000;

/// First byte of every packet.
pub const SYNC: u8 = 0x47;

/// A whole null packet: what may be put between any two packets of a stream.
pub const NULL_PACKET: [u8; crate::base::limits::TS_PACKET] = {
    let mut packet = [0xFF; crate::base::limits::TS_PACKET];
    packet[0] = SYNC;
    packet[1] = 0x1F;
    packet[3] = 0x10;
    packet
};
