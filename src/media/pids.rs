//! What is known per PID: its role, and whether its packets follow on each other.

use crate::base::limits::TS_PACKET;
use crate::wire::mpegts::packet::Packet;
use crate::wire::mpegts::{PID_PAT, PIDS, Pid};

/// PIDs watched at a time. What is beyond passes unwatched, unless a table names it: then it
/// takes the place of one that no table names.
pub(super) const PIDS_WATCHED: usize = 32;

const NONE: u8 = 0xFF;

/// What the packets of a PID are read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Continuity only, and no table names it.
    Unnamed,
    /// Continuity only.
    Named,
    /// The program association table.
    Pat,
    /// A program map table.
    Pmt,
    /// The stream whose PES packets are the access points.
    Lead,
}

/// How a packet follows the one before on its PID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// As it must.
    Next,
    /// The same packet again, which the standard allows once: to be ignored.
    Duplicate,
    /// Packets are missing in between.
    Broken,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    pid: Pid,
    role: Role,
    /// The PID carries the program's clock.
    clock: bool,
    /// Last continuity counter, or `NONE`.
    counter: u8,
    /// The last packet came twice already.
    doubled: bool,
    /// Last eight bytes of the last packet: tells a repeated packet from 16 lost ones.
    tail: u64,
}

/// The watched PIDs, found through one table look-up per packet.
#[derive(Debug)]
pub(super) struct Pids {
    index: Box<[u8; PIDS]>,
    watched: Vec<Watched>,
}

/// What is known of a packet's PID.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) role: Role,
    pub(super) clock: bool,
    pub(super) step: Step,
}

impl Pids {
    pub(super) fn new() -> Pids {
        let mut pids =
            Pids { index: Box::new([NONE; PIDS]), watched: Vec::with_capacity(PIDS_WATCHED) };
        pids.set(PID_PAT, Role::Pat);
        pids
    }

    /// Notes a packet, which is neither null nor damaged. `None` if its PID is not watched.
    #[inline]
    pub(super) fn see(&mut self, packet: Packet<'_>) -> Option<Seen> {
        let mut slot = self.index[usize::from(packet.pid())];
        if slot == NONE {
            slot = self.add(packet.pid(), Role::Unnamed)?;
        }
        let watched = self.watched.get_mut(usize::from(slot))?;
        let step = watched.step(packet);
        Some(Seen { role: watched.role, clock: watched.clock, step })
    }

    /// Gives a PID a role, making room for it if need be. Nothing happens if there is no room.
    pub(super) fn set(&mut self, pid: Pid, role: Role) {
        let slot = self.index[usize::from(pid) % PIDS];
        if let Some(watched) = self.watched.get_mut(usize::from(slot)) {
            watched.role = role;
        } else if self.add(pid, role).is_none() {
            let weak = self.watched.iter().position(|w| w.role == Role::Unnamed);
            if let Some(slot) = weak {
                self.index[usize::from(self.watched[slot].pid)] = NONE;
                self.watched[slot] = Watched::new(pid, role);
                self.index[usize::from(pid) % PIDS] = slot as u8;
            }
        }
    }

    /// Says which PID carries the clock.
    pub(super) fn set_clock(&mut self, pid: Pid) {
        if usize::from(pid) < PIDS - 1 && self.index[usize::from(pid)] == NONE {
            self.set(pid, Role::Named);
        }
        for watched in &mut self.watched {
            watched.clock = watched.pid == pid;
        }
    }

    /// Takes away every role for which `drop` says so, and the clock: new tables follow.
    pub(super) fn clear_roles(&mut self, drop: impl Fn(Role) -> bool) {
        for watched in &mut self.watched {
            watched.clock = false;
            if drop(watched.role) {
                watched.role = Role::Unnamed;
            }
        }
    }

    /// The role of a PID, if it is watched.
    pub(super) fn role(&self, pid: Pid) -> Option<Role> {
        let slot = self.index[usize::from(pid) % PIDS];
        self.watched.get(usize::from(slot)).map(|watched| watched.role)
    }

    /// What comes next need not follow on what was.
    pub(super) fn discontinuity(&mut self) {
        for watched in &mut self.watched {
            watched.counter = NONE;
            watched.doubled = false;
        }
    }

    fn add(&mut self, pid: Pid, role: Role) -> Option<u8> {
        if self.watched.len() == PIDS_WATCHED {
            return None;
        }
        let slot = self.watched.len() as u8;
        self.watched.push(Watched::new(pid, role));
        self.index[usize::from(pid) % PIDS] = slot;
        Some(slot)
    }
}

impl Watched {
    fn new(pid: Pid, role: Role) -> Watched {
        Watched { pid, role, clock: false, counter: NONE, doubled: false, tail: 0 }
    }

    /// 13818-1, 2.4.3.3: the counter advances with each packet that has a payload; a packet may
    /// be sent twice; with the discontinuity indicator set anything goes.
    #[inline]
    fn step(&mut self, packet: Packet<'_>) -> Step {
        let counter = packet.continuity();
        let excused = || packet.adaptation().is_some_and(|field| field.discontinuity());
        if !packet.has_payload() {
            if excused() {
                self.counter = counter;
                self.doubled = false;
            }
            return Step::Next;
        }
        let mut tail = [0; 8];
        tail.copy_from_slice(&packet.bytes()[TS_PACKET - 8..]);
        let tail = u64::from_ne_bytes(tail);
        let step = if self.counter == NONE || counter == (self.counter + 1) & 0x0F || excused() {
            Step::Next
        } else if counter == self.counter && tail == self.tail && !self.doubled {
            Step::Duplicate
        } else {
            Step::Broken
        };
        self.doubled = step == Step::Duplicate;
        self.counter = counter;
        self.tail = tail;
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mpegts::build::{PacketSpec, packet};

    fn steps(packets: &[(u8, &[u8], bool)]) -> Vec<Step> {
        let mut pids = Pids::new();
        let mut one = |&(continuity, payload, discontinuity): &(u8, &[u8], bool)| {
            let spec = PacketSpec { pid: 300, continuity, discontinuity, ..PacketSpec::default() };
            pids.see(Packet::new(&packet(&spec, payload)).unwrap()).unwrap().step
        };
        packets.iter().map(&mut one).collect()
    }

    #[test]
    fn the_rules_of_the_standard() {
        use Step::{Broken, Duplicate, Next};
        assert_eq!(steps(&[(14, b"a", false), (15, b"b", false), (0, b"c", false)]), [Next; 3]);
        assert_eq!(steps(&[(3, b"a", false), (5, b"b", false)]), [Next, Broken]);
        // Once more is allowed, twice more is not, and other bytes are no duplicate.
        let again = [(3, &b"a"[..], false); 3];
        assert_eq!(steps(&again), [Next, Duplicate, Broken]);
        assert_eq!(steps(&[(3, &[1; 184], false), (3, &[2; 184], false)]), [Next, Broken]);
        // Without payload the counter stands still.
        let none = &b""[..];
        assert_eq!(steps(&[(3, b"a", false), (3, none, false), (4, b"b", false)]), [Next; 3]);
        // Said beforehand, a jump is none.
        assert_eq!(steps(&[(3, b"a", false), (9, b"b", true), (10, b"c", false)]), [Next; 3]);
        assert_eq!(steps(&[(3, b"a", false), (9, none, true), (10, b"c", false)]), [Next; 3]);
    }

    #[test]
    fn named_pids_find_room_among_any_number_of_others() {
        let mut pids = Pids::new();
        for pid in 1000..2000 {
            let bytes = packet(&PacketSpec { pid, ..PacketSpec::default() }, b"x");
            let seen = pids.see(Packet::new(&bytes).unwrap()).is_some();
            assert_eq!(seen, pid < 1031, "the PAT has one of the 32 places");
        }
        for pid in 100..140 {
            pids.set(pid, Role::Named);
        }
        assert_eq!(pids.role(PID_PAT), Some(Role::Pat));
        let named = (100..140).filter(|&pid| pids.role(pid).is_some()).count();
        assert_eq!((named, pids.watched.len()), (31, PIDS_WATCHED));
        assert_eq!(pids.role(1000), None);
    }
}
