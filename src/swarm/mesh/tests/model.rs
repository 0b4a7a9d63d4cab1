//! Forty viewers and a relay on a network that loses nothing: what their meshes do together.
//!
//! No codec and no bytes: a subtree is "its hashes came" and then "it is whole". Every link takes
//! 20 ms; a viewer pushes at most as many stripes as its upload carries.

use crate::base::spread::spread;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::*;

mod swarms;

/// Between two subtrees.
const PERIOD: u64 = 84;

/// One way, in milliseconds, and how long a subtree takes to be sent.
const WAY: u64 = 20;
const SENDING: u64 = 30;

/// What a stripe takes, in kbit/s.
const STRIPE: u32 = 250;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Signed(u64),
    Hash {
        to: usize,
        from: Option<usize>,
        subtree: u64,
    },
    Whole {
        to: usize,
        from: Option<usize>,
        subtree: u64,
        pushed: bool,
    },
    Have {
        to: usize,
        from: usize,
        subtree: u64,
    },
    Subscribe {
        to: usize,
        from: usize,
        stripes: u8,
    },
    Room {
        to: usize,
        from: usize,
        kbit: u32,
    },
    Ask {
        to: Option<usize>,
        from: usize,
        subtree: u64,
    },
    /// The relay announces to a viewer what it does not push.
    Shown {
        to: usize,
        subtree: u64,
    },
    Turn {
        who: usize,
    },
}

struct Viewer {
    mesh: Mesh,
    alive: bool,
    links: Vec<usize>,
    /// What each neighbour was last asked to push.
    told: BTreeMap<usize, u8>,
    /// What each neighbour wants, and gets.
    wanted: BTreeMap<usize, u8>,
    granted: BTreeMap<usize, u8>,
    capacity: u32,
    /// Subtrees that were heard of and are not whole: since when, whether hashes came.
    open: BTreeMap<u64, (u64, bool)>,
    /// Whole ones, and when.
    whole: BTreeMap<u64, u64>,
    asked: BTreeMap<u64, (Source, u64)>,
    rescues: u32,
    grafts: u64,
    copies: u32,
    /// When each stripe's parent last changed.
    changed: [u64; STRIPES],
    turn_at: u64,
    told_at: u64,
}

pub(super) struct World {
    now: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    count: u64,
    viewers: Vec<Viewer>,
    /// Whom the relay pushes which stripes.
    seeds: BTreeMap<usize, u8>,
    signed: BTreeMap<u64, u64>,
    dice: u64,
    /// Links of the dead by when they are found to be: the dead one and the other end.
    victims: BTreeMap<u64, Vec<(usize, usize)>>,
    /// Of a hundred datagrams so many are lost, and ways differ by so many milliseconds.
    loss: u64,
    ways: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut world = World {
            now: 0,
            queue: BinaryHeap::new(),
            count: 0,
            viewers: Vec::new(),
            seeds: BTreeMap::new(),
            signed: BTreeMap::new(),
            dice: seed,
            victims: BTreeMap::new(),
            loss: 0,
            ways: 0,
        };
        world.post(0, Event::Signed(0));
        world
    }

    /// `viewers` viewers, each with about eight neighbours; three seeds of each stripe.
    fn swarm(seed: u64, viewers: usize, capacity: u32) -> World {
        let mut world = World::new(seed);
        (0..viewers).for_each(|_| {
            world.join(capacity);
        });
        for a in 0..viewers {
            world.link(a, (a + 1) % viewers);
            for _ in 0..3 {
                let b = world.below(viewers);
                world.link(a, b);
            }
        }
        for stripe in 0..3 * STRIPES {
            let seed = world.below(viewers);
            *world.seeds.entry(seed).or_default() |= 1 << (stripe % STRIPES);
        }
        world
    }

    fn below(&mut self, end: usize) -> usize {
        self.dice = self.dice.wrapping_add(0x9E37_79B9_7F4A_7C15);
        (spread(self.dice) % end as u64) as usize
    }

    fn join(&mut self, capacity: u32) -> usize {
        let mut mesh = Mesh::new(self.viewers.len() as u64);
        mesh.set_bitrate(u64::from(STRIPE) * 8_000);
        mesh.set_relay_rtt(ms(2 * WAY));
        let first = self.signed.last_key_value().map_or(0, |(subtree, _)| subtree + 1);
        mesh.backlog_until(first);
        self.viewers.push(Viewer {
            mesh,
            alive: true,
            links: Vec::new(),
            told: BTreeMap::new(),
            wanted: BTreeMap::new(),
            granted: BTreeMap::new(),
            capacity,
            open: BTreeMap::new(),
            whole: BTreeMap::new(),
            asked: BTreeMap::new(),
            rescues: 0,
            grafts: 0,
            copies: 0,
            changed: [0; STRIPES],
            turn_at: u64::MAX,
            told_at: 0,
        });
        self.viewers.len() - 1
    }

    fn link(&mut self, a: usize, b: usize) {
        if a == b || self.viewers[a].links.contains(&b) {
            return;
        }
        for (one, other) in [(a, b), (b, a)] {
            let viewer = &mut self.viewers[one];
            viewer.links.push(other);
            viewer.mesh.add(at(self.now), Key(other as u16), ms(2 * WAY));
            let kbit = viewer.room();
            self.post(WAY, Event::Room { to: other, from: one, kbit });
        }
    }

    /// A link is found to be dead.
    fn unlink(&mut self, a: usize, b: usize) {
        let viewer = &mut self.viewers[a];
        viewer.links.retain(|other| *other != b);
        viewer.mesh.remove(at(self.now), Key(b as u16));
        for map in [&mut viewer.told, &mut viewer.wanted, &mut viewer.granted] {
            map.remove(&b);
        }
    }

    fn post(&mut self, after: u64, event: Event) {
        self.count += 1;
        let (way, lossy) = match event {
            Event::Hash { to, from, .. } => (self.way(to, from), true),
            // Chunks that are lost come later; all of them are lost seldom.
            Event::Whole { to, from, .. } => {
                let repair = if self.loses(10 * self.loss) { 60 } else { 0 };
                (self.way(to, from) + repair, self.loses(10))
            }
            Event::Have { to, from, .. }
            | Event::Subscribe { to, from, .. }
            | Event::Room { to, from, .. }
            | Event::Ask { to: Some(to), from, .. } => (self.way(to, Some(from)), true),
            Event::Ask { to: None, .. } | Event::Shown { .. } => (0, true),
            Event::Signed(_) | Event::Turn { .. } => (0, false),
        };
        if lossy && self.loses(self.loss) {
            return;
        }
        let after = after + way;
        self.queue.push(Reverse((self.now + after, self.count, event)));
    }

    /// What a way takes beyond the least.
    fn way(&self, to: usize, from: Option<usize>) -> u64 {
        let from = from.unwrap_or(usize::MAX / 2) as u64;
        let (low, high) = (from.min(to as u64), from.max(to as u64));
        spread(spread(low) ^ high) % (self.ways + 1)
    }

    fn loses(&mut self, percent: u64) -> bool {
        self.loss > 0 && (self.below(100) as u64) < percent
    }

    fn run(&mut self, until: u64) {
        while self.queue.peek().is_some_and(|Reverse((time, ..))| *time <= until) {
            let Some(Reverse((time, _, event))) = self.queue.pop() else { break };
            self.now = time;
            self.handle(event);
        }
        self.now = until;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Signed(subtree) => return self.sign(subtree),
            Event::Ask { to: None, from, subtree } => {
                let event = Event::Whole { to: from, from: None, subtree, pushed: false };
                return self.post(WAY + SENDING, event);
            }
            _ => {}
        }
        let who = match event {
            Event::Hash { to, from, subtree } => self.hash(to, from, subtree),
            Event::Whole { to, from, subtree, pushed } => self.whole(to, from, subtree, pushed),
            Event::Have { to, from, subtree } => {
                let viewer = &mut self.viewers[to];
                viewer.hear(self.now, subtree);
                viewer.mesh.note_have(at(self.now), Key(from as u16), subtree);
                to
            }
            Event::Room { to, from, kbit } => {
                self.viewers[to].mesh.note_state(Key(from as u16), &state(kbit));
                to
            }
            Event::Subscribe { to, from, stripes } => self.subscribe(to, from, stripes),
            Event::Shown { to, subtree } => {
                self.viewers[to].hear(self.now, subtree);
                self.viewers[to].mesh.note_relay_have(at(self.now), subtree);
                to
            }
            Event::Ask { to: Some(to), from, subtree } => {
                if self.viewers[to].alive && self.viewers[to].whole.contains_key(&subtree) {
                    let from_me = Some(to);
                    let event = Event::Whole { to: from, from: from_me, subtree, pushed: false };
                    self.post(WAY + SENDING, event);
                }
                to
            }
            Event::Turn { who } => who,
            Event::Signed(_) | Event::Ask { to: None, .. } => return,
        };
        self.turn(who);
    }

    fn sign(&mut self, subtree: u64) {
        self.signed.insert(subtree, self.now);
        for to in 0..self.viewers.len() {
            let pushed = self.seeds.get(&to).copied().unwrap_or(0) & 1 << (subtree % 8) != 0;
            if pushed {
                self.post(WAY, Event::Hash { to, from: None, subtree });
                self.post(WAY + SENDING, Event::Whole { to, from: None, subtree, pushed });
            } else {
                let batch = 250 - self.now % 250;
                self.post(WAY + batch, Event::Shown { to, subtree });
            }
        }
        self.post(PERIOD, Event::Signed(subtree + 1));
    }

    fn hash(&mut self, to: usize, from: Option<usize>, subtree: u64) -> usize {
        let viewer = &mut self.viewers[to];
        let new = viewer.hear(self.now, subtree) && !viewer.open[&subtree].1;
        if !viewer.alive || (!new && from.is_some()) {
            return to;
        }
        let pusher = from.map_or(Pusher::Relay, |key| Pusher::Neighbour(Key(key as u16)));
        viewer.mesh.note_hash(at(self.now), pusher, subtree);
        if new {
            viewer.open.insert(subtree, (viewer.open[&subtree].0, true));
            let children = viewer.children(subtree);
            for child in children {
                self.post(WAY + 5, Event::Hash { to: child, from: Some(to), subtree });
            }
        }
        to
    }

    fn whole(&mut self, to: usize, from: Option<usize>, subtree: u64, pushed: bool) -> usize {
        let viewer = &mut self.viewers[to];
        if !viewer.alive {
            return to;
        }
        if viewer.whole.contains_key(&subtree) {
            if let Some(key) = from.filter(|_| pushed) {
                viewer.copies += 1;
                viewer.mesh.note_duplicates(at(self.now), Key(key as u16), subtree, 16);
            }
            return to;
        }
        let hashed = viewer.open.remove(&subtree).is_some_and(|(_, hashed)| hashed);
        if pushed && !hashed {
            let pusher = from.map_or(Pusher::Relay, |key| Pusher::Neighbour(Key(key as u16)));
            viewer.mesh.note_hash(at(self.now), pusher, subtree);
        }
        viewer.whole.insert(subtree, self.now);
        viewer.asked.remove(&subtree);
        viewer.mesh.note_whole(at(self.now), subtree);
        let (children, links) = (viewer.children(subtree), viewer.links.clone());
        for child in links {
            if !children.contains(&child) {
                self.post(WAY + 25, Event::Have { to: child, from: to, subtree });
                continue;
            }
            if !hashed {
                self.post(WAY + 5, Event::Hash { to: child, from: Some(to), subtree });
            }
            let (from, pushed) = (Some(to), true);
            self.post(WAY + SENDING, Event::Whole { to: child, from, subtree, pushed });
        }
        to
    }

    fn subscribe(&mut self, to: usize, from: usize, stripes: u8) -> usize {
        let viewer = &mut self.viewers[to];
        let before = viewer.wanted.insert(from, stripes).unwrap_or(0);
        let mut granted = viewer.granted.get(&from).copied().unwrap_or(0) & stripes;
        viewer.granted.insert(from, granted);
        // What was refused is refused until it is wanted anew.
        for stripe in (0..8).filter(|stripe| stripes & !before & (1 << stripe) != 0) {
            if viewer.room() >= STRIPE {
                granted |= 1 << stripe;
                viewer.granted.insert(from, granted);
            }
        }
        viewer.mesh.note_children(Key(from as u16), granted);
        let (kbit, links) = (viewer.room(), viewer.links.clone());
        for link in links {
            self.post(WAY + 100, Event::Room { to: link, from: to, kbit });
        }
        to
    }

    /// What a viewer does when it is time, or something happened.
    fn turn(&mut self, who: usize) {
        let now = self.now;
        let viewer = &mut self.viewers[who];
        if !viewer.alive {
            return;
        }
        if viewer.mesh.next_deadline().is_some_and(|due| due <= at(now)) || now >= viewer.turn_at {
            let signed = &self.signed;
            let missing = viewer.open.iter().map(|(subtree, (since, _))| Missing {
                subtree: *subtree,
                since: at(*since),
                deadline: Some(at(signed[subtree] + 1_500)),
            });
            let missing: Vec<Missing> = missing.collect();
            viewer.mesh.turn(at(now), &missing);
            viewer.turn_at = u64::MAX;
        }
        viewer.grafts += viewer.mesh.take_events().grafts;
        let due = viewer.mesh.next_deadline().map_or(now + 20, |at| at.as_nanos() / 1_000_000);
        let due = due.max(now + 1);
        let again = due < viewer.turn_at;
        viewer.turn_at = if again { due } else { viewer.turn_at };
        self.subscribe_all(who);
        self.ask_all(who);
        if again {
            self.post(due - now, Event::Turn { who });
        }
    }

    fn subscribe_all(&mut self, who: usize) {
        let viewer = &mut self.viewers[who];
        let mut all = Vec::new();
        for link in &viewer.links {
            let stripes = viewer.mesh.stripes(Key(*link as u16));
            let before = viewer.told.insert(*link, stripes).unwrap_or(0);
            for stripe in (0..8).filter(|stripe| stripes & !before & (1 << stripe) != 0) {
                viewer.changed[stripe] = self.now;
            }
            if stripes != before || self.now - viewer.told_at > 1_000 {
                all.push(Event::Subscribe { to: *link, from: who, stripes });
            }
        }
        if self.now - viewer.told_at > 1_000 {
            viewer.told_at = self.now;
        }
        all.into_iter().for_each(|event| self.post(WAY, event));
    }

    fn ask_all(&mut self, who: usize) {
        let now = self.now;
        let viewer = &mut self.viewers[who];
        let mut all = Vec::new();
        for (subtree, (_, hashed)) in &viewer.open {
            let source = viewer.mesh.source(*subtree);
            let before = viewer.asked.get(subtree).copied();
            let again = before.is_none_or(|(asked, at)| asked != source || now > at + 200);
            // Nothing is lost: what was begun comes, late or not.
            if source == Source::Wait || *hashed || !again {
                continue;
            }
            let to = match source {
                Source::Neighbour(Key(key)) => Some(usize::from(key)),
                _ => None,
            };
            viewer.rescues += u32::from(to.is_none());
            viewer.asked.insert(*subtree, (source, now));
            all.push(Event::Ask { to, from: who, subtree: *subtree });
        }
        all.into_iter().for_each(|event| self.post(WAY, event));
    }

    fn kill(&mut self, who: usize) {
        self.viewers[who].alive = false;
        self.seeds.remove(&who);
    }

    fn sum(&self, of: impl Fn(&Viewer) -> u64) -> u64 {
        self.viewers.iter().filter(|viewer| viewer.alive).map(of).sum()
    }

    /// Who feeds this stripe to a viewer: nobody's key is the relay's.
    fn parent(&self, who: usize, stripe: usize) -> Option<usize> {
        let viewer = &self.viewers[who];
        let feeds = |link: &&usize| viewer.mesh.stripes(Key(**link as u16)) & (1 << stripe) != 0;
        viewer.links.iter().find(feeds).copied()
    }

    /// How many steps it is from a viewer to the relay in a stripe; `None`: it does not lead
    /// there.
    fn depth(&self, who: usize, stripe: usize) -> Option<usize> {
        let mut at = who;
        for depth in 0..self.viewers.len() {
            if self.seeds.get(&at).is_some_and(|stripes| stripes & (1 << stripe) != 0) {
                return Some(depth);
            }
            at = self.parent(at, stripe)?;
        }
        None
    }

    /// Rescues, copies and subtrees, of all who ever were here.
    fn costs(&self) -> [u64; 3] {
        let sum = |of: &dyn Fn(&Viewer) -> u64| self.viewers.iter().map(of).sum();
        [
            sum(&|viewer| u64::from(viewer.rescues)),
            sum(&|viewer| u64::from(viewer.copies)),
            sum(&|viewer| viewer.whole.len() as u64),
        ]
    }

    /// Kills somebody, who is found to be dead three seconds later, and lets somebody new in.
    fn replace(&mut self, capacity: u32, second: u64) {
        for (victim, who) in self.victims.remove(&(second * 1_000)).into_iter().flatten() {
            self.unlink(who, victim);
        }
        let victim = self.below(self.viewers.len());
        if !self.viewers[victim].alive {
            return;
        }
        let stripes = self.seeds.get(&victim).copied().unwrap_or(0);
        self.kill(victim);
        let links = self.viewers[victim].links.clone();
        let dead = links.into_iter().map(|who| (victim, who)).collect();
        self.victims.insert(self.now + 4_000, dead);
        let new = self.join(capacity);
        for turn in 0..12 {
            let other = self.below(new);
            if self.viewers[other].alive {
                self.link(new, other);
                if turn == 0 {
                    *self.seeds.entry(other).or_default() |= stripes;
                }
            }
        }
    }

    /// What came later than it is played, of what was signed from `from` until `to`.
    fn missed(&self, from: u64, to: u64) -> u64 {
        let signed: Vec<_> =
            self.signed.iter().filter(|(_, at)| (from..to).contains(*at)).collect();
        self.sum(|viewer| {
            let late = |(subtree, at): &&(&u64, &u64)| {
                viewer.whole.get(subtree).is_none_or(|came| *came > **at + 1_500)
            };
            signed.iter().filter(late).count() as u64
        })
    }
}

impl Viewer {
    fn room(&self) -> u32 {
        let used: u32 = self.granted.values().map(|stripes| stripes.count_ones()).sum();
        (self.capacity - used) * STRIPE
    }

    fn children(&self, subtree: u64) -> Vec<usize> {
        let gets = |(_, stripes): &(&usize, &u8)| **stripes & 1 << (subtree % 8) != 0;
        self.granted.iter().filter(gets).map(|(child, _)| *child).collect()
    }

    /// A subtree is known to exist. Whether it is open.
    fn hear(&mut self, now: u64, subtree: u64) -> bool {
        if !self.whole.contains_key(&subtree) {
            self.open.entry(subtree).or_insert((now, false));
        }
        self.open.contains_key(&subtree)
    }
}
