//! The referee: looks at relay and viewers now and then, and holds what they do against what is
//! true.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::time::Duration;

use crate::base::spread::Mix;
use crate::metrics::table::Cell;
use crate::sim::link::HEADERS;
use crate::sim::stage::Stage;
use crate::sim::trouble::is_in_region;
use crate::sim::world::RELAY;
use crate::swarm::halfopen;
use crate::swarm::playout;

/// A viewer is looked at in each of so many ticks.
const EVERY: usize = 4;

/// How long before a stall its cause may lie: as long as a chunk lives.
const LATELY: Duration = Duration::from_secs(6);

/// Who shows nothing for so long stalls, although nobody has counted it yet.
const STUCK: Duration = Duration::from_secs(3);

/// Who comes has so long to begin, and as much longer as key frames are further apart than how far
/// behind live anybody plays: then who comes between two of them waits for the next.
const BEGIN: Duration = Duration::from_secs(8);

impl Stage {
    /// The relay, and a part of the viewers: all of them for a while after something was done.
    pub(super) fn look(&mut self) {
        let now = self.world.clock(RELAY);
        if let Some(house) = &mut self.house {
            house.tend(now);
            if let Some(stream) = house.stream() {
                self.truth.follow(&stream);
            }
            let half_open = house.cell(Cell::SwarmHalfOpen);
            if half_open > 2 * halfopen::OPENINGS_MAX as u64 {
                self.foul("tables", format!("{half_open} half-open peers"));
            }
        }
        self.check_passed();
        self.check_egress();
        self.ticks += 1;
        let (now, crowd) = (self.world.now(), &self.crowd);
        // Nobody can bring what nobody has, nor bring it where no way leads.
        let nothing = self.house.is_none() || self.paused.is_some_and(|until| now < until);
        let parted = self.world.is_parted();
        if nothing || parted {
            let hosts = crowd.present().into_iter().map(|index| crowd.viewers[index].host);
            let hosts = hosts.filter(|host| nothing || is_in_region(*host));
            hosts.for_each(|host| self.world.losses.fault(now, host));
        }
        let all = self.fault.is_some_and(|fault| now.since(fault) < 2 * LATELY);
        for index in self.crowd.present() {
            if all || index % EVERY == self.ticks % EVERY {
                self.look_at(index);
            }
        }
    }

    /// What the relay holds against its egress budget is what it sends.
    fn check_egress(&mut self) {
        let Some(house) = &self.house else { return };
        let measured = house.registry.admission.egress().measured();
        let traffic = self.world.hosts[RELAY].traffic;
        let bytes = traffic.sent_bytes + traffic.sent * HEADERS as u64;
        if let Some(sent) = self.gauge.read(bytes, measured) {
            let [sent, measured] = [sent, measured].map(|bits| bits as f64 / 1e6);
            self.foul("egress", format!("{measured:.1} Mbit/s are measured of {sent:.1}"));
        }
    }

    /// What viewers pass on is what was published.
    fn check_passed(&mut self) {
        let now = self.world.now();
        let (mut wrong, truth) = (Vec::new(), &self.truth);
        // Hundreds pass on the same chunk.
        let mut sums: HashMap<u64, Option<u64>, BuildHasherDefault<Mix>> = HashMap::default();
        self.world.passed.retain(|passed| {
            let known = *sums.entry(passed.chunk).or_insert_with(|| truth.sum(passed.chunk));
            let never = known.is_none() && now.since(passed.at) > LATELY;
            if never || known.is_some_and(|sum| sum != passed.sum) {
                wrong.push(*passed);
            }
            known.is_none() && !never
        });
        for passed in wrong {
            let who = self.world.hosts[passed.host].ip;
            self.foul("forwarded", format!("{who} passed on a wrong chunk {}", passed.chunk));
        }
    }

    /// A last look at everybody.
    pub(super) fn look_at_all(&mut self) {
        self.crowd.present().into_iter().for_each(|index| self.look_at(index));
        self.check_source();
    }

    pub(super) fn look_at(&mut self, index: usize) {
        let begin = BEGIN + self.gop().saturating_sub(playout::MAX);
        let viewer = &mut self.crowd.viewers[index];
        viewer.refresh();
        let now = self.world.now();
        let stay = viewer.stay(now);
        let Some(figures) = &viewer.figures else { return };
        let (number, host) = (viewer.number, viewer.host);
        let wrong = viewer.shown.look(now, figures, &self.truth).err();
        let new = figures.tally.stalls.saturating_sub(viewer.judged);
        let stalled = figures.tally.stall_time;
        let begun = figures.startup.is_some();
        viewer.judged += new;
        let head = figures.window.as_ref().map_or(0, |(window, _)| window.head());
        if viewer.moved.0 != head || !begun || self.house.is_none() {
            viewer.moved = (head, now);
        }
        let overfull = figures.sharing.overfull;
        let stuck = begun && now.since(viewer.moved.1) >= STUCK;
        if stuck {
            viewer.moved.1 = now;
        }
        let honest = viewer.is_honest();
        let excuse = self.world.losses.excuse(now, host, LATELY);
        viewer.excused += if excuse { new } else { 0 };
        if let Some(wrong) = wrong {
            self.foul("played", format!("peer:{number}: {wrong}"));
        }
        if let Some(table) = overfull {
            self.foul("tables", format!("peer:{number} holds more {table} than it may"));
        }
        if stuck && !excuse && honest {
            self.foul("deadline", format!("peer:{number} shows nothing for {STUCK:?}"));
        }
        let late = !begun && stay >= begin && stay < begin + Duration::from_secs(1);
        if late && honest && !self.world.losses.excuse(now, host, stay) {
            self.foul("startup", format!("peer:{number} shows nothing after {begin:?}"));
        }
        if new > 0 {
            // Who came after the fault has stalls of its own.
            let old = self.fault.is_some_and(|fault| now.since(fault) <= stay);
            if self.fault.is_some_and(|fault| now > fault) && old && honest {
                self.last_stall = Some(now);
            }
            let why = if excuse { "the network explains it" } else { "nothing explains it" };
            let text = format!("-- stalled, {stalled:?} in all; {why}");
            self.world.note(host, || text);
        }
    }

    /// How long after the last thing that was done to the world somebody still stalled.
    #[must_use]
    pub fn recovery(&self) -> Option<Duration> {
        let fault = self.fault?;
        Some(self.last_stall.map_or(Duration::ZERO, |at| at.since(fault)))
    }

    /// What the relay published is what the encoder sent, but for null packets.
    fn check_source(&mut self) {
        let source = self.source.borrow();
        let mut wrong = Vec::new();
        for run in self.truth.runs() {
            let mut packets = run.chunks_exact(188).filter(|packet| !is_null(packet)).peekable();
            let Some(first) = packets.peek() else { continue };
            let Some(start) = source.chunks_exact(188).position(|packet| packet == *first) else {
                wrong.push("a run begins with a packet that nobody sent".to_owned());
                continue;
            };
            let sent = source.chunks_exact(188).skip(start);
            if let Some(at) = packets.zip(sent).position(|(run, sent)| run != sent) {
                wrong.push(format!("packet {at} of a run is not what was sent"));
            }
        }
        drop(source);
        wrong.into_iter().for_each(|wrong| self.foul("source", wrong));
    }
}

fn is_null(packet: &[u8]) -> bool {
    packet[1] & 0x1F == 0x1F && packet[2] == 0xFF
}
