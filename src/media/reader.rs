//! Reads a stream as it is published: where a decoder can start, and in what health it is.
//!
//! The bytes are passed on as they are; this only looks. Where the sender marks random access
//! points they are believed, else the video is read up to the first slice of each picture.
//! State is bounded whatever comes: 32 PIDs, two tables, one open access unit.

use std::time::Duration;

use bytes::Bytes;

use crate::base::limits::TS_PACKET;
use crate::base::time::Mono;
use crate::media::codec::{Collector, adts};
use crate::media::health::{Health, Signs, Track, TrackKind, track, warnings};
use crate::media::meter::{Gop, PcrWatch, Rate};
use crate::media::pids::{PIDS_WATCHED, Pids, Role, Seen, Step};
use crate::media::scan::{Scanner, Syntax, Verdict};
use crate::media::tables::{Change, Tables};
use crate::wire::mpegts::clock::ticks_between;
use crate::wire::mpegts::packet::Packet;
use crate::wire::mpegts::pes::PesHeader;
use crate::wire::mpegts::{PID_NULL, Pid};

/// Without video any PES start will do; this far apart at least, in 90 kHz ticks.
const AUDIO_APART_TICKS: i64 = 45_000;

/// The same by arrival, for PES packets without time stamps.
const AUDIO_APART: Duration = Duration::from_millis(500);

/// Something worth a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Stream offset of the packet it is about: of an access point the one in which the PES
    /// packet starts, of tables the first one of the table that changed. It may lie before the
    /// packets of the call: a picture is sometimes recognised a few packets after its start.
    pub at: u64,
    /// What it is.
    pub kind: FoundKind,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundKind {
    /// A decoder can start here.
    AccessPoint {
        /// Presentation time in 90 kHz ticks.
        pts: Option<u64>,
        /// Stream offset of the latest PAT that was complete when the access point began.
        pat: u64,
        /// All packets of the latest PAT and then of the latest PMT, as they came.
        tables: Bytes,
    },
    /// A PAT or PMT came that differs from the one before; also when both are first known.
    Tables,
}

/// The stream whose PES packets are the access points: the first video, else audio, else any.
#[derive(Clone, Copy, Debug)]
struct Lead {
    pid: Pid,
    kind: TrackKind,
    syntax: Option<Syntax>,
    /// When the tables named it.
    since: Mono,
}

/// A PES packet of the lead that may prove to be an access point.
#[derive(Clone, Copy, Debug)]
struct Open {
    at: u64,
    pat: u64,
    pts: Option<u64>,
    /// Bytes of the PES header that are still to come.
    skip: usize,
}

/// A unit (a picture, usually) of the leading stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Stream offset of the packet in which it starts.
    pub at: u64,
    /// Presentation time in 90 kHz ticks.
    pub pts: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    packets: u64,
    null_packets: u64,
    continuity_errors: u64,
    transport_errors: u64,
    access_points: u64,
    scrambled: bool,
}

/// The reader of one stream. About 40 KB, nearly all of it allocated by [`TsReader::new`].
#[derive(Debug)]
pub struct TsReader {
    pids: Pids,
    tables: Tables,
    tracks: Vec<Track>,
    lead: Option<Lead>,
    open: Option<Open>,
    scanner: Scanner,
    collector: Collector,
    newest: Option<Unit>,
    rate: Rate,
    pcr: PcrWatch,
    gop: Gop,
    /// Last access point of a stream without video.
    audio_last: Option<(Mono, Option<u64>)>,
    count: Counters,
    first_at: Option<Mono>,
    last_at: Mono,
    tables_at: Mono,
    /// When a packet was last found lost or damaged.
    loss_at: Option<Mono>,
}

impl Default for TsReader {
    fn default() -> TsReader {
        TsReader::new()
    }
}

impl TsReader {
    /// A reader that knows nothing yet.
    #[must_use]
    pub fn new() -> TsReader {
        TsReader {
            pids: Pids::new(),
            tables: Tables::new(),
            tracks: Vec::new(),
            lead: None,
            open: None,
            scanner: Scanner::new(),
            collector: Collector::default(),
            newest: None,
            rate: Rate::default(),
            pcr: PcrWatch::default(),
            gop: Gop::default(),
            audio_last: None,
            count: Counters::default(),
            first_at: None,
            last_at: Mono::ZERO,
            tables_at: Mono::ZERO,
            loss_at: None,
        }
    }

    /// Reads whole packets, the first of which lies at stream offset `at`, and appends what it
    /// finds in the order of recognition. What it finds does not depend on how the packets are
    /// spread over calls. Bytes behind the last whole packet are ignored.
    pub fn feed(&mut self, now: Mono, at: u64, packets: &[u8], found: &mut Vec<Found>) {
        self.first_at.get_or_insert(now);
        self.last_at = now;
        self.rate.add(now, packets.len());
        let mut offset = at;
        for bytes in packets.chunks_exact(TS_PACKET) {
            self.count.packets += 1;
            match Packet::new(bytes) {
                Some(packet) if !packet.transport_error() => {
                    self.packet(now, offset, packet, found);
                }
                _ => {
                    self.count.transport_errors += 1;
                    self.loss_at = Some(now);
                }
            }
            offset = offset.saturating_add(TS_PACKET as u64);
        }
    }

    /// What comes next does not follow on what was: another publisher, or data was dropped.
    /// Continuity, clock and open units start anew; the tables stay in force until others come.
    pub fn discontinuity(&mut self) {
        self.pids.discontinuity();
        self.tables.discontinuity();
        self.open = None;
        self.newest = None;
        self.pcr.restart();
        self.gop.restart();
        self.audio_last = None;
    }

    /// The newest unit of the stream that leads, since the last discontinuity.
    #[must_use]
    pub fn newest_unit(&self) -> Option<Unit> {
        self.newest
    }

    /// Forgets everything, the counters too.
    pub fn reset(&mut self) {
        *self = TsReader::new();
    }

    /// The health of the stream at `now`. Allocates; for people and pages, not per packet.
    #[must_use]
    pub fn health(&self, now: Mono) -> Health {
        let (has_pat, has_pmt) = self.tables.known();
        let two_seconds =
            self.first_at.is_some_and(|first| self.last_at.since(first) >= Duration::from_secs(2));
        let seconds_without = |last: Option<Mono>, since: Mono| {
            self.last_at.since(last.map_or(since, |last| last.max(since))).as_secs()
        };
        let video = self.lead.filter(|lead| lead.kind == TrackKind::Video);
        let mut health = Health {
            bitrate_bps: self.rate.bits_per_second(now),
            gop_ms: self.gop.last_ms,
            gop_max_ms: self.gop.max_ms,
            tracks: self.tracks.clone(),
            continuity_errors: self.count.continuity_errors,
            transport_errors: self.count.transport_errors,
            pcr_jitter_us: self.pcr.jitter_us(),
            pcr_missing: has_pmt && seconds_without(self.pcr.last_at(), self.tables_at) >= 1,
            packets: self.count.packets,
            null_packets: self.count.null_packets,
            access_points: self.count.access_points,
            scrambled: self.count.scrambled,
            warnings: Vec::new(),
        };
        let signs = Signs {
            no_pat: two_seconds && !has_pat,
            no_pmt: two_seconds && !has_pmt,
            no_key_frame: video
                .is_some_and(|lead| seconds_without(self.gop.last_at(), lead.since) >= 5),
            losing: self.loss_at.is_some_and(|loss| now.since(loss) < Duration::from_secs(10)),
        };
        health.warnings = warnings(&health, signs);
        health
    }

    fn packet(&mut self, now: Mono, at: u64, packet: Packet<'_>, found: &mut Vec<Found>) {
        if packet.is_null() {
            self.count.null_packets += 1;
            return;
        }
        let Some(Seen { role, clock, step }) = self.pids.see(packet) else { return };
        match step {
            Step::Next => {}
            Step::Duplicate => return,
            Step::Broken => self.broken(now, packet.pid(), role),
        }
        self.count.scrambled |= packet.scrambled();
        if clock
            && let Some(field) = packet.adaptation()
            && let Some(pcr) = field.pcr()
        {
            self.pcr.add(now, pcr, field.discontinuity());
        }
        match role {
            Role::Lead => self.lead(now, at, packet, found),
            Role::Pat => {
                let change = self.tables.feed_pat(packet, at);
                self.changed(now, change, found);
            }
            Role::Pmt => {
                let change = self.tables.feed_pmt(packet, at);
                self.changed(now, change, found);
            }
            Role::Named if packet.unit_start() => self.sound(packet),
            Role::Named | Role::Unnamed => {}
        }
    }

    fn broken(&mut self, now: Mono, pid: Pid, role: Role) {
        self.count.continuity_errors += 1;
        self.loss_at = Some(now);
        match role {
            Role::Pat | Role::Pmt => self.tables.broken(pid),
            Role::Lead => self.open = None,
            Role::Named | Role::Unnamed => {}
        }
    }

    /// A packet of the lead stream.
    fn lead(&mut self, now: Mono, at: u64, packet: Packet<'_>, found: &mut Vec<Found>) {
        if packet.unit_start() {
            self.open = None;
            self.unit_start(now, at, packet, found);
            return;
        }
        let Some(payload) = packet.payload() else { return };
        let Some(mut open) = self.open else {
            // The unit is decided; its parameter set may still be coming.
            self.collector.add(payload);
            return self.picture(false);
        };
        let skipped = open.skip.min(payload.len());
        open.skip -= skipped;
        self.open = Some(open);
        self.collector.add(&payload[skipped..]);
        self.scan(now, open, &payload[skipped..], found);
    }

    /// A PES packet of the lead stream starts.
    fn unit_start(&mut self, now: Mono, at: u64, packet: Packet<'_>, found: &mut Vec<Found>) {
        let Some(lead) = self.lead else { return };
        let payload = packet.payload().unwrap_or_default();
        // A scrambled payload has no header that could be read.
        let header = if packet.scrambled() { None } else { PesHeader::parse(payload) };
        let pts = header.and_then(|header| header.pts);
        let mut open = Open { at, pat: self.tables.pat_at(), pts, skip: 0 };
        self.newest = Some(Unit { at, pts });
        let data = header.and_then(|header| payload.get(header.payload_start..));
        if lead.kind != TrackKind::Video {
            self.sound(packet);
            if self.far_from_last(now, pts) {
                self.audio_last = Some((now, pts));
                self.access_point(open, found);
            }
            return;
        }
        self.collector.begin(data.unwrap_or_default());
        if packet.adaptation().is_some_and(|field| field.random_access()) {
            self.picture(false);
            self.gop.add(now, pts);
            self.access_point(open, found);
        } else if let (Some(header), Some(syntax)) = (header, lead.syntax) {
            self.scanner.start(syntax);
            open.skip = header.payload_start.saturating_sub(payload.len());
            self.open = Some(open);
            self.scan(now, open, data.unwrap_or_default(), found);
        }
    }

    fn scan(&mut self, now: Mono, open: Open, bytes: &[u8], found: &mut Vec<Found>) {
        match self.scanner.feed(bytes) {
            Verdict::More => {}
            Verdict::Ordinary => {
                self.open = None;
                self.collector.stop();
            }
            Verdict::Access => {
                self.open = None;
                self.picture(true);
                self.gop.add(now, open.pts);
                self.access_point(open, found);
            }
        }
    }

    /// Looks for the picture's headers in what was collected; `over`: nothing more comes.
    fn picture(&mut self, over: bool) {
        let Some(Lead { pid, syntax: Some(syntax), .. }) = self.lead else { return };
        let Some(video) = self.collector.take(syntax, over) else { return };
        if let Some(track) = self.tracks.iter_mut().find(|track| track.pid == pid) {
            track.name = Some(video.name);
            track.picture = Some(video.picture).filter(|picture| picture.width > 0);
        }
    }

    /// A PES packet starts that may begin with the header of a sound that has no name yet.
    fn sound(&mut self, packet: Packet<'_>) {
        let nameless = |track: &&mut Track| {
            track.pid == packet.pid() && track.name.is_none() && track.codec == "aac"
        };
        let Some(track) = self.tracks.iter_mut().find(nameless) else { return };
        if packet.scrambled() {
            return;
        }
        let payload = packet.payload().unwrap_or_default();
        let header = PesHeader::parse(payload);
        track.name = header.and_then(|header| adts(payload.get(header.payload_start..)?));
    }

    /// Without video: whether the last access point is half a second away, or time jumped.
    fn far_from_last(&self, now: Mono, pts: Option<u64>) -> bool {
        let Some((then, last)) = self.audio_last else { return true };
        match last.zip(pts).map(|(last, pts)| ticks_between(last, pts)) {
            Some(ticks) => !(0..AUDIO_APART_TICKS).contains(&ticks),
            None => now.since(then) >= AUDIO_APART,
        }
    }

    fn access_point(&mut self, open: Open, found: &mut Vec<Found>) {
        self.count.access_points += 1;
        let kind =
            FoundKind::AccessPoint { pts: open.pts, pat: open.pat, tables: self.tables.packets() };
        found.push(Found { at: open.at, kind });
    }

    /// The tables were read; gives the PIDs their new roles.
    fn changed(&mut self, now: Mono, change: Change, found: &mut Vec<Found>) {
        let at = match change {
            Change::None => return,
            Change::Pat => Some(self.tables.pat_at()),
            Change::Program => None,
            Change::Pmt => Some(self.tables.pmt_at()),
        };
        self.pids.clear_roles(|role| role != Role::Pat);
        for &(_, pid) in self.tables.programs() {
            self.pids.set(pid, Role::Pmt);
        }
        self.tracks.clear();
        let old = self.lead.take();
        if let Some(pmt) = self.tables.pmt() {
            for stream in pmt.streams().take(PIDS_WATCHED) {
                let taken = matches!(self.pids.role(stream.pid), Some(Role::Pat | Role::Pmt))
                    || self.tracks.iter().any(|track| track.pid == stream.pid);
                if stream.pid < 0x10 || stream.pid == PID_NULL || taken {
                    continue;
                }
                let (track, syntax) = track(&stream);
                let lead = Lead { pid: track.pid, kind: track.kind, syntax, since: now };
                if self.lead.is_none_or(|before| lead.kind < before.kind) {
                    self.lead = Some(lead);
                }
                self.tracks.push(track);
            }
            // In order of importance, since there may not be room for all.
            if let Some(lead) = self.lead {
                self.pids.set(lead.pid, Role::Lead);
            }
            self.pids.set_clock(pmt.pcr_pid);
            let lead = self.lead.map(|lead| lead.pid);
            for track in self.tracks.iter().filter(|track| Some(track.pid) != lead) {
                self.pids.set(track.pid, Role::Named);
            }
            self.tables_at = now;
        }
        self.pcr.restart();
        match (&mut self.lead, old) {
            // The same stream goes on: so does its open unit.
            (Some(lead), Some(old)) if lead.pid == old.pid && lead.syntax == old.syntax => {
                lead.since = old.since;
            }
            _ => {
                self.open = None;
                self.gop.restart();
                self.audio_last = None;
            }
        }
        if let Some(at) = at {
            found.push(Found { at, kind: FoundKind::Tables });
        }
    }
}

#[cfg(test)]
mod tests;
