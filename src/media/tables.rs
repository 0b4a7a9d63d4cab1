//! The PAT and PMT in force, and the packets they came in, word for word.
//!
//! Whoever starts in the middle of a stream is given these packets first. Of several programs
//! the one whose PMT arrives first is followed.

use bytes::{Bytes, BytesMut};

use crate::base::limits::TS_PACKET;
use crate::wire::mpegts::packet::Packet;
use crate::wire::mpegts::psi::{
    Pmt, SECTION_MAX, Section, TABLE_PAT, TABLE_PMT, pat_programs, section_length,
};
use crate::wire::mpegts::{PID_NULL, Pid};

/// Packets one table may take. A section needs six; the rest is for muxers that put a few
/// bytes into each.
const TABLE_PACKETS_MAX: usize = 32;

/// Programs of a PAT that are considered.
pub(super) const PROGRAMS_MAX: usize = 8;

/// Bytes of stream after which an unfinished PMT of one program gives way to another's.
const STUCK: u64 = 1 << 20;

/// What a table packet changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing, or the table came again as it was.
    None,
    /// A new PAT, which still has the program followed.
    Pat,
    /// A new PAT; the PMT is unknown now.
    Program,
    /// A new PMT.
    Pmt,
}

/// A table in force; no bytes while it is unknown.
#[derive(Debug)]
struct Table {
    section: Vec<u8>,
    packets: Vec<u8>,
    /// Offset of the first packet, when it came last.
    at: u64,
}

/// Both tables, and what is being read of their next editions.
#[derive(Debug)]
pub(super) struct Tables {
    pat: Table,
    pmt: Table,
    pat_reader: SectionReader,
    pmt_reader: SectionReader,
    /// The PID `pmt_reader` reads.
    pmt_pid: Pid,
    programs: Vec<(u16, Pid)>,
    /// The program followed.
    program: Option<(u16, Pid)>,
    /// What [`Tables::packets`] made last, until a table comes again.
    packets: Option<Bytes>,
}

impl Tables {
    pub(super) fn new() -> Tables {
        Tables {
            pat: Table::new(),
            pmt: Table::new(),
            pat_reader: SectionReader::new(),
            pmt_reader: SectionReader::new(),
            pmt_pid: PID_NULL,
            programs: Vec::with_capacity(PROGRAMS_MAX),
            program: None,
            packets: None,
        }
    }

    /// A packet of the PAT at stream offset `at`.
    pub(super) fn feed_pat(&mut self, packet: Packet<'_>, at: u64) -> Change {
        let wanted = |s: Section<'_>| s.table_id() == TABLE_PAT && s.current() && s.number() == 0;
        let Some(section) = self.pat_reader.feed(packet, at, wanted) else { return Change::None };
        let same = section.bytes() == self.pat.section;
        if !same {
            self.programs.clear();
            let usable = pat_programs(section).filter(|&(_, pid)| pid >= 0x10 && pid != PID_NULL);
            self.programs.extend(usable.take(PROGRAMS_MAX));
        }
        self.pat.adopt(&mut self.pat_reader);
        self.packets = None;
        if same {
            return Change::None;
        }
        if self.program.is_some_and(|program| self.programs.contains(&program)) {
            return Change::Pat;
        }
        self.program = None;
        self.pmt.section.clear();
        self.pmt.packets.clear();
        self.pmt_reader.abort();
        Change::Program
    }

    /// A packet of a PMT at stream offset `at`.
    pub(super) fn feed_pmt(&mut self, packet: Packet<'_>, at: u64) -> Change {
        let pid = packet.pid();
        match self.program {
            Some((_, followed)) if followed != pid => return Change::None,
            Some(_) => self.pmt_pid = pid,
            None if self.pmt_pid != pid => {
                let stuck = at.saturating_sub(self.pmt_reader.at) > STUCK;
                if !packet.unit_start() || self.pmt_reader.active && !stuck {
                    return Change::None;
                }
                self.pmt_reader.abort();
                self.pmt_pid = pid;
            }
            None => {}
        }
        let (programs, program) = (&self.programs, self.program);
        let wanted = |s: Section<'_>| {
            let named = (s.extension(), pid);
            s.table_id() == TABLE_PMT
                && s.current()
                && programs.contains(&named)
                && program.is_none_or(|program| program == named)
                && Pmt::parse(s).is_some()
        };
        let Some(section) = self.pmt_reader.feed(packet, at, wanted) else { return Change::None };
        let same = section.bytes() == self.pmt.section;
        self.program = Some((section.extension(), pid));
        self.pmt.adopt(&mut self.pmt_reader);
        self.packets = None;
        if same { Change::None } else { Change::Pmt }
    }

    /// Packets of `pid` were lost: what was begun there cannot be finished.
    pub(super) fn broken(&mut self, pid: Pid) {
        if pid == crate::wire::mpegts::PID_PAT {
            self.pat_reader.abort();
        } else if pid == self.pmt_pid {
            self.pmt_reader.abort();
        }
    }

    /// What was begun is not continued by what follows.
    pub(super) fn discontinuity(&mut self) {
        self.pat_reader.abort();
        self.pmt_reader.abort();
    }

    /// PMT PIDs of the programs considered.
    pub(super) fn programs(&self) -> &[(u16, Pid)] {
        &self.programs
    }

    /// The PMT in force.
    pub(super) fn pmt(&self) -> Option<Pmt<'_>> {
        Section::parse(&self.pmt.section).and_then(Pmt::parse)
    }

    /// Whether a PAT is known, and a PMT.
    pub(super) fn known(&self) -> (bool, bool) {
        (!self.pat.section.is_empty(), !self.pmt.section.is_empty())
    }

    /// Offset of the latest PAT.
    pub(super) fn pat_at(&self) -> u64 {
        self.pat.at
    }

    /// Offset of the latest PMT.
    pub(super) fn pmt_at(&self) -> u64 {
        self.pmt.at
    }

    /// The packets of the latest PAT and PMT. Allocates once after each edition of them.
    pub(super) fn packets(&mut self) -> Bytes {
        let (pat, pmt) = (&self.pat.packets, &self.pmt.packets);
        let join = || {
            let mut both = BytesMut::with_capacity(pat.len() + pmt.len());
            both.extend_from_slice(pat);
            both.extend_from_slice(pmt);
            both.freeze()
        };
        self.packets.get_or_insert_with(join).clone()
    }
}

impl Table {
    fn new() -> Table {
        Table {
            section: Vec::with_capacity(SECTION_MAX),
            packets: Vec::with_capacity(TABLE_PACKETS_MAX * TS_PACKET),
            at: 0,
        }
    }

    /// Takes over what `reader` has just completed.
    fn adopt(&mut self, reader: &mut SectionReader) {
        self.section.clear();
        self.section.extend_from_slice(&reader.section[..reader.len]);
        std::mem::swap(&mut self.packets, &mut reader.packets);
        self.at = reader.at;
        reader.abort();
    }
}

/// Puts the sections of one PID together, and keeps the packets of the one at hand.
#[derive(Debug)]
struct SectionReader {
    section: Box<[u8; SECTION_MAX]>,
    len: usize,
    /// A section has begun and not ended.
    active: bool,
    packets: Vec<u8>,
    /// Offset of the packet in which the section began.
    at: u64,
}

impl SectionReader {
    fn new() -> SectionReader {
        SectionReader {
            section: Box::new([0; SECTION_MAX]),
            len: 0,
            active: false,
            packets: Vec::with_capacity(TABLE_PACKETS_MAX * TS_PACKET),
            at: 0,
        }
    }

    fn abort(&mut self) {
        self.active = false;
        self.len = 0;
        self.packets.clear();
    }

    /// The first whole section that is `wanted` and ends in this packet. What follows it in the
    /// packet is left out; it will come again.
    fn feed(
        &mut self,
        packet: Packet<'_>,
        at: u64,
        wanted: impl Fn(Section<'_>) -> bool,
    ) -> Option<Section<'_>> {
        let payload = packet.payload()?;
        if self.active {
            if self.packets.len() < TABLE_PACKETS_MAX * TS_PACKET {
                self.packets.extend_from_slice(packet.bytes());
            } else {
                self.abort();
            }
        }
        let mut done = false;
        if packet.unit_start() {
            let (&pointer, rest) = payload.split_first()?;
            let Some((end, start)) = rest.split_at_checked(usize::from(pointer)) else {
                self.abort();
                return None;
            };
            if self.active {
                done = self.consume(end, packet, at, &wanted);
            }
            if !done {
                self.begin(packet, at);
                done = self.consume(start, packet, at, &wanted);
            }
        } else if self.active {
            done = self.consume(payload, packet, at, &wanted);
        }
        if done { Section::parse(&self.section[..self.len]) } else { None }
    }

    fn begin(&mut self, packet: Packet<'_>, at: u64) {
        self.active = true;
        self.len = 0;
        self.at = at;
        self.packets.clear();
        self.packets.extend_from_slice(packet.bytes());
    }

    fn consume(
        &mut self,
        mut bytes: &[u8],
        packet: Packet<'_>,
        at: u64,
        wanted: &impl Fn(Section<'_>) -> bool,
    ) -> bool {
        while let Some(&first) = bytes.first() {
            // Stuffing to the end of the packet.
            if self.len == 0 && first == 0xFF {
                break;
            }
            let [id, high, low, ..] = *self.section;
            let target = if self.len < 3 { 3 } else { section_length([id, high, low]) };
            if target > SECTION_MAX {
                self.abort();
                return false;
            }
            let take = (target - self.len).min(bytes.len());
            let (now, rest) = bytes.split_at(take);
            self.section[self.len..self.len + take].copy_from_slice(now);
            self.len += take;
            bytes = rest;
            let [id, high, low, ..] = *self.section;
            if self.len >= 3 && self.len == section_length([id, high, low]) {
                if Section::parse(&self.section[..self.len]).is_some_and(wanted) {
                    return true;
                }
                self.begin(packet, at);
            }
        }
        if self.len == 0 {
            self.active = false;
        }
        false
    }
}
