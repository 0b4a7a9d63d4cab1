//! Whether what a viewer received is what was sent: from an access point on, byte for byte,
//! null packets aside, and after every gap with PAT, PMT and a key frame in front.
//!
//! A PAT may be the next packet of the stream or the first of a jump; the judge follows every
//! reading that is still possible and fails when none is left.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::ts::{NULL_PID, PACKET, PMT_PID, is_access_point, pid};

/// What was sent, in one or several runs of a publisher, without null packets.
pub struct Reference {
    bytes: Vec<u8>,
    access_points: HashMap<Vec<u8>, usize>,
    tables: HashSet<Vec<u8>>,
    runs: Vec<usize>,
}

/// What a viewer got, counted in packets of the reference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The access point where it began.
    pub start: usize,
    /// One past the last packet.
    pub end: usize,
    /// Gaps: what was missed first, and the access point where it went on.
    pub jumps: Vec<(usize, usize)>,
    /// Times that it went over to the first packet of a later run.
    pub resumes: usize,
}

/// One reading of the bytes so far.
#[derive(Clone, Debug)]
struct Reading {
    place: Place,
    so_far: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The next packet is a PAT.
    Pat,
    /// The next packet is a PMT.
    Pmt { from: usize },
    /// The next packet is an access point at `from` or later.
    Access { from: usize },
    /// The next packet is this one.
    At(usize),
}

/// Takes a viewer's bytes as they come.
pub struct Judge {
    reference: Arc<Reference>,
    readings: Vec<Reading>,
    partial: Vec<u8>,
    packets: usize,
}

impl Reference {
    /// Joins the runs of a stream.
    pub fn new(runs: &[&[u8]]) -> Arc<Self> {
        let mut reference = Reference {
            bytes: Vec::new(),
            access_points: HashMap::new(),
            tables: HashSet::new(),
            runs: Vec::new(),
        };
        for run in runs {
            reference.runs.push(reference.packets());
            for packet in run.chunks_exact(PACKET).filter(|packet| pid(packet) != NULL_PID) {
                if is_access_point(packet) {
                    reference.access_points.insert(packet.to_vec(), reference.packets());
                } else if matches!(pid(packet), 0 | PMT_PID) {
                    reference.tables.insert(packet.to_vec());
                }
                reference.bytes.extend_from_slice(packet);
            }
        }
        Arc::new(reference)
    }

    /// Packets in it.
    pub fn packets(&self) -> usize {
        self.bytes.len() / PACKET
    }

    /// The places of all access points, in order.
    pub fn access_points(&self) -> Vec<usize> {
        let mut places: Vec<usize> = self.access_points.values().copied().collect();
        places.sort_unstable();
        places
    }

    fn packet(&self, index: usize) -> Option<&[u8]> {
        self.bytes.get(index * PACKET..(index + 1) * PACKET)
    }
}

impl Judge {
    /// A judge for one viewer.
    pub fn new(reference: &Arc<Reference>) -> Self {
        Judge {
            reference: Arc::clone(reference),
            readings: vec![Reading { place: Place::Pat, so_far: Verdict::default() }],
            partial: Vec::new(),
            packets: 0,
        }
    }

    /// The verdict on a whole body.
    pub fn on(reference: &Arc<Reference>, body: &[u8]) -> Result<Verdict, String> {
        let mut judge = Judge::new(reference);
        judge.feed(body)?;
        judge.verdict()
    }

    /// Takes more bytes; the error says which packet of the body is wrong.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        if !self.partial.is_empty() {
            let n = (PACKET - self.partial.len()).min(bytes.len());
            self.partial.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if self.partial.len() < PACKET {
                return Ok(());
            }
            let packet = std::mem::take(&mut self.partial);
            self.packet(&packet)?;
        }
        let packets = bytes.chunks_exact(PACKET);
        self.partial = packets.remainder().to_vec();
        packets.into_iter().try_for_each(|packet| self.packet(packet))
    }

    /// What came out so far, for a body that was cut anywhere by its reader.
    pub fn so_far(mut self) -> Result<Verdict, String> {
        self.partial.clear();
        for reading in &mut self.readings {
            if let Place::Pmt { from } | Place::Access { from } = reading.place
                && from > 0
            {
                reading.place = Place::At(from);
            }
        }
        self.verdict()
    }

    /// What came out, at the end of the body.
    pub fn verdict(self) -> Result<Verdict, String> {
        if !self.partial.is_empty() {
            let n = self.partial.len();
            return Err(format!("ends with {n} bytes of a packet, after {} packets", self.packets));
        }
        let ended = self.readings.into_iter().filter_map(|reading| match reading.place {
            Place::At(end) => Some(Verdict { end, ..reading.so_far }),
            _ => None,
        });
        ended
            .min_by_key(|verdict| verdict.jumps.len())
            .ok_or_else(|| format!("ends inside an opening, after {} packets", self.packets))
    }

    fn packet(&mut self, packet: &[u8]) -> Result<(), String> {
        let index = self.packets;
        self.packets += 1;
        if packet[0] != 0x47 {
            return Err(format!("packet {index}: no sync byte: {:02x?}", &packet[..8]));
        }
        if pid(packet) == NULL_PID {
            return Ok(());
        }
        // Nearly always: one reading, which goes on.
        if let [Reading { place: Place::At(next), .. }] = self.readings.as_mut_slice()
            && pid(packet) != 0
            && self.reference.packet(*next) == Some(packet)
        {
            *next += 1;
            return Ok(());
        }
        let before = std::mem::take(&mut self.readings);
        for reading in &before {
            self.follow(reading, packet);
        }
        self.readings.sort_by_key(|reading| reading.so_far.jumps.len());
        let mut seen = Vec::new();
        self.readings.retain(|r| {
            !seen.contains(&r.place) && {
                seen.push(r.place);
                true
            }
        });
        if self.readings.is_empty() {
            let head = &packet[..12];
            return Err(format!("packet {index}: {head:02x?} does not follow {before:?}"));
        }
        Ok(())
    }

    /// Adds every way in which `packet` can follow `reading`.
    fn follow(&mut self, reading: &Reading, packet: &[u8]) {
        let mut add = |place, so_far: &Verdict| {
            self.readings.push(Reading { place, so_far: so_far.clone() });
        };
        let known_table =
            |wanted: u16| pid(packet) == wanted && self.reference.tables.contains(packet);
        match reading.place {
            Place::Pat if known_table(0) => add(Place::Pmt { from: 0 }, &reading.so_far),
            Place::Pmt { from } if known_table(PMT_PID) => {
                add(Place::Access { from }, &reading.so_far);
            }
            Place::Access { from } => {
                let found = self.reference.access_points.get(packet).copied();
                if let Some(index) = found.filter(|index| *index >= from) {
                    let mut verdict = reading.so_far.clone();
                    match from {
                        0 => verdict.start = index,
                        _ => verdict.jumps.push((from, index)),
                    }
                    add(Place::At(index + 1), &verdict);
                }
            }
            Place::At(next) => {
                if self.reference.packet(next) == Some(packet) {
                    add(Place::At(next + 1), &reading.so_far);
                }
                if known_table(0) {
                    add(Place::Pmt { from: next }, &reading.so_far);
                }
                for run in self.reference.runs.iter().filter(|run| **run >= next) {
                    if self.reference.packet(*run) == Some(packet) {
                        let mut verdict = reading.so_far.clone();
                        verdict.resumes += 1;
                        add(Place::At(run + 1), &verdict);
                    }
                }
            }
            _ => {}
        }
    }
}
