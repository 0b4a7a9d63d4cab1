//! Program specific information (13818-1, 2.4.4): sections, the PAT and the PMT.

use crate::wire::mpegts::Pid;

/// The longest PAT or PMT section in bytes, its three-byte start included.
pub const SECTION_MAX: usize = 1024;

/// `table_id` of a PAT section.
pub const TABLE_PAT: u8 = 0x00;

/// `table_id` of a PMT section.
pub const TABLE_PMT: u8 = 0x02;

/// Bytes a section has in front of its table's own fields.
const HEAD: usize = 8;

/// Bytes of the checksum at the end of a section.
const CRC: usize = 4;

/// Length of the section that begins with `start`, all bytes counted.
#[must_use]
pub fn section_length(start: [u8; 3]) -> usize {
    3 + (usize::from(start[1] & 0x0F) << 8 | usize::from(start[2]))
}

/// A whole section of the long form whose checksum was right.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a>(&'a [u8]);

impl<'a> Section<'a> {
    /// A view of `bytes`, which are exactly one section; `None` for the short form, wrong
    /// lengths and wrong checksums.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Section<'a>> {
        let &[id, high, low, ..] = bytes else { return None };
        let sized = section_length([id, high, low]) == bytes.len() && bytes.len() >= HEAD + CRC;
        // A checksum over data and its own checksum is zero.
        (sized && high & 0x80 != 0 && crc32(bytes) == 0).then_some(Section(bytes))
    }

    /// Every byte of the section.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Which table this is a section of.
    #[must_use]
    pub fn table_id(self) -> u8 {
        self.0[0]
    }

    /// `transport_stream_id` of a PAT, `program_number` of a PMT.
    #[must_use]
    pub fn extension(self) -> u16 {
        u16::from_be_bytes([self.0[3], self.0[4]])
    }

    /// The version, 0 to 31.
    #[must_use]
    pub fn version(self) -> u8 {
        self.0[5] >> 1 & 0x1F
    }

    /// Whether the table is in force, and not one that is announced.
    #[must_use]
    pub fn current(self) -> bool {
        self.0[5] & 1 != 0
    }

    /// The number of this section in its table.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0[6]
    }

    /// The number of the table's last section.
    #[must_use]
    pub fn last_number(self) -> u8 {
        self.0[7]
    }

    fn body(self) -> &'a [u8] {
        &self.0[HEAD..self.0.len() - CRC]
    }
}

/// Program numbers and their PMT PIDs in a section of the PAT; the network PID is left out.
/// Empty when it is no PAT.
pub fn pat_programs(section: Section<'_>) -> impl Iterator<Item = (u16, Pid)> {
    let body = if section.table_id() == TABLE_PAT { section.body() } else { &[] };
    body.chunks_exact(4)
        .map(|e| (u16::from_be_bytes([e[0], e[1]]), u16::from_be_bytes([e[2], e[3]]) & 0x1FFF))
        .filter(|&(program, _)| program != 0)
}

/// A program map: which PIDs make up a program.
#[derive(Clone, Copy, Debug)]
pub struct Pmt<'a> {
    /// The number of the program.
    pub program: u16,
    /// The PID whose packets carry the program's clock; 0x1FFF when there is none.
    pub pcr_pid: Pid,
    /// Descriptors of the whole program.
    pub descriptors: Descriptors<'a>,
    streams: &'a [u8],
}

impl<'a> Pmt<'a> {
    /// Reads a PMT section; `None` when it is something else or its lengths do not fit.
    #[must_use]
    pub fn parse(section: Section<'a>) -> Option<Pmt<'a>> {
        if section.table_id() != TABLE_PMT {
            return None;
        }
        let (head, rest) = section.body().split_at_checked(4)?;
        let info = usize::from(u16::from_be_bytes([head[2], head[3]]) & 0x0FFF);
        let (info, streams) = rest.split_at_checked(info)?;
        Some(Pmt {
            program: section.extension(),
            pcr_pid: u16::from_be_bytes([head[0], head[1]]) & 0x1FFF,
            descriptors: Descriptors(info),
            streams,
        })
    }

    /// The elementary streams in their order. Ends early where a length does not fit.
    #[must_use]
    pub fn streams(&self) -> Streams<'a> {
        Streams(self.streams)
    }
}

/// One elementary stream of a program.
#[derive(Clone, Copy, Debug)]
pub struct Stream<'a> {
    /// `stream_type` (13818-1, table 2-34).
    pub kind: u8,
    /// Where its packets are.
    pub pid: Pid,
    /// What else is said of it.
    pub descriptors: Descriptors<'a>,
}

/// Iterates over the elementary streams of a [`Pmt`].
#[derive(Clone, Copy, Debug)]
pub struct Streams<'a>(&'a [u8]);

impl<'a> Iterator for Streams<'a> {
    type Item = Stream<'a>;
    fn next(&mut self) -> Option<Stream<'a>> {
        let (head, rest) = self.0.split_at_checked(5)?;
        let info = usize::from(u16::from_be_bytes([head[3], head[4]]) & 0x0FFF);
        let (info, rest) = rest.split_at_checked(info)?;
        self.0 = rest;
        Some(Stream {
            kind: head[0],
            pid: u16::from_be_bytes([head[1], head[2]]) & 0x1FFF,
            descriptors: Descriptors(info),
        })
    }
}

/// Iterates over descriptors: (tag, content). Ends early where a length does not fit.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors<'a>(&'a [u8]);

impl<'a> Iterator for Descriptors<'a> {
    type Item = (u8, &'a [u8]);
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (head, rest) = self.0.split_at_checked(2)?;
        let (content, rest) = rest.split_at_checked(usize::from(head[1]))?;
        self.0 = rest;
        Some((head[0], content))
    }
}

/// The checksum of sections (13818-1, annex A): polynomial 0x04C11DB7, nothing reflected.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(u32::MAX, |crc, &byte| crc << 8 ^ CRC_TABLE[usize::from((crc >> 24) as u8 ^ byte)])
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000_0000 != 0 { crc << 1 ^ 0x04C1_1DB7 } else { crc << 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mpegts::build::{StreamSpec, pat_section, pmt_section};
    use proptest::prelude::*;

    /// The PAT that ffmpeg writes for one program.
    const PAT: [u8; 16] = [
        0x00, 0xB0, 0x0D, 0x00, 0x01, 0xC1, 0x00, 0x00, 0x00, 0x01, 0xF0, 0x00, 0x2A, 0xB1, 0x04,
        0xB2,
    ];

    #[test]
    fn reads_a_known_pat() {
        let section = Section::parse(&PAT).unwrap();
        assert_eq!((section.table_id(), section.extension(), section.version()), (0, 1, 0));
        assert!(section.current() && section.number() == 0 && section.last_number() == 0);
        assert_eq!(pat_programs(section).collect::<Vec<_>>(), [(1, 0x1000)]);
    }

    #[test]
    fn one_wrong_bit_anywhere_is_refused() {
        for bit in 0..PAT.len() * 8 {
            let mut bytes = PAT;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Section::parse(&bytes).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn the_checksum_is_the_one_of_the_standard() {
        // The check value of CRC-32/MPEG-2 in the catalogue of checksums.
        assert_eq!(crc32(b"123456789"), 0x0376_E6E7);
    }

    #[test]
    fn tables_come_back_as_written() {
        let streams = [
            StreamSpec { kind: 0x1B, pid: 256, descriptors: &[] },
            StreamSpec { kind: 0x06, pid: 300, descriptors: &[5, 4, b'O', b'p', b'u', b's'] },
        ];
        let bytes = pmt_section(7, 3, 256, &streams);
        let section = Section::parse(&bytes).unwrap();
        let pmt = Pmt::parse(section).unwrap();
        assert_eq!((pmt.program, pmt.pcr_pid, section.version()), (7, 256, 3));
        assert_eq!(pmt.descriptors.count(), 0);
        let read: Vec<_> = pmt.streams().collect();
        assert_eq!((read[0].kind, read[0].pid), (0x1B, 256));
        assert_eq!((read[1].kind, read[1].pid), (0x06, 300));
        let tags: Vec<_> = read[1].descriptors.collect();
        assert_eq!(tags, [(5, &b"Opus"[..])]);
        let bytes = pat_section(1, &[(0, 16), (7, 0x100)]);
        let programs: Vec<_> = pat_programs(Section::parse(&bytes).unwrap()).collect();
        assert_eq!(programs, [(7, 0x100)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 12..200),
        ) {
            let _ = Section::parse(&bytes);
            // Make lengths and checksum right, so that the inner parts are reached as well.
            let inner = bytes.len() - 3;
            bytes[0] = TABLE_PMT;
            bytes[1] = 0xB0 | (inner >> 8) as u8;
            bytes[2] = inner as u8;
            let body = bytes.len() - 4;
            let crc = crc32(&bytes[..body]);
            bytes[body..].copy_from_slice(&crc.to_be_bytes());
            let section = Section::parse(&bytes).unwrap();
            if let Some(pmt) = Pmt::parse(section) {
                let _ = pmt.descriptors.count();
                let _ = pmt.streams().map(|s| s.descriptors.count()).sum::<usize>();
            }
            let _ = pat_programs(section).count();
        }
    }
}
