//! Forty viewers and a relay on a network that loses nothing: what their meshes do together.
//!
//! No codec and no bytes: a subtree is "its hashes came" and then "it is whole". Every link takes
//! 20 ms; a viewer pushes at most as many stripes as its upload carries.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::*;

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
        self.queue.push(Reverse((self.now + after, self.count, event)));
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
            if stripes != before {
                all.push(Event::Subscribe { to: *link, from: who, stripes });
            }
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
            let again = before.is_none_or(|(asked, at)| asked != source || now > at + 500);
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

#[test]
fn every_stripe_finds_its_tree_and_keeps_it() {
    for seed in 0..3 {
        let mut world = World::swarm(seed, 40, 12);
        world.run(10_000);
        for who in 0..40 {
            for stripe in 0..STRIPES {
                let depth = world.depth(who, stripe);
                assert!(depth.is_some_and(|depth| depth <= 12), "{seed}: {who} {stripe} {depth:?}");
            }
        }
        let before = [world.sum(|v| v.grafts), world.sum(|v| u64::from(v.rescues))];
        let copies = world.sum(|viewer| u64::from(viewer.copies));
        world.run(40_000);
        let grafts = world.sum(|viewer| viewer.grafts) - before[0];
        assert!(grafts <= 40, "{seed}: {grafts} grafts in 20 viewer-minutes");
        assert_eq!(world.sum(|viewer| u64::from(viewer.rescues)), before[1], "{seed}");
        assert_eq!(world.missed(5_000, 38_000), 0, "{seed}");
        let copies = world.sum(|viewer| u64::from(viewer.copies)) - copies;
        assert!(copies * 100 <= 40 * 30_000 / PERIOD, "{seed}: {copies} copies");
    }
}

#[test]
fn children_of_the_dead_find_other_parents() {
    for seed in 0..3 {
        let mut world = World::swarm(seed, 40, 12);
        world.run(20_000);
        let victims = [3, 17, 29];
        let mut orphans = Vec::new();
        for child in (0..40).filter(|child| !victims.contains(child)) {
            for stripe in 0..STRIPES {
                let parent = world.parent(child, stripe);
                orphans.extend(parent.filter(|p| victims.contains(p)).map(|_| (child, stripe)));
            }
        }
        assert!(orphans.len() > 8, "{seed}");
        victims.into_iter().for_each(|victim| world.kill(victim));
        world.run(23_000);
        // One stripe period until the next subtree, the time until somebody has announced it,
        // then 100 ms and a round trip.
        let announced = 12 * (WAY + SENDING) + 45;
        let bound = 20_000 + 8 * PERIOD + announced + 100 + 2 * WAY;
        let late: Vec<_> = orphans
            .iter()
            .map(|(child, stripe)| (child, stripe, world.viewers[*child].changed[*stripe]))
            .filter(|(.., changed)| !(20_000..=bound).contains(changed))
            .collect();
        // Whose tree above is cut, too, has nobody to hear of it from.
        assert!(late.len() * 10 <= orphans.len(), "{seed}: {late:?} of {}", orphans.len());
        for (who, victim) in (0..40).flat_map(|who| victims.map(|victim| (who, victim))) {
            world.unlink(who, victim);
        }
        world.run(40_000);
        assert_eq!(world.missed(22_000, 38_000), 0, "{seed}");
        let cut = (0..40).filter(|who| world.viewers[*who].alive);
        let cut = cut.flat_map(|who| (0..STRIPES).map(move |stripe| (who, stripe)));
        let cut: Vec<_> =
            cut.filter(|(who, stripe)| world.depth(*who, *stripe).is_none()).collect();
        assert!(cut.is_empty(), "{seed}: {cut:?}");
    }
}

#[test]
fn a_push_of_the_relay_prunes_and_its_end_grafts() {
    let mut world = World::swarm(1, 40, 12);
    world.run(10_000);
    let who = (0..40).find(|who| !world.seeds.contains_key(who)).unwrap();
    let fed = |world: &World| (0..STRIPES).filter(|s| world.parent(who, *s).is_some()).count();
    assert_eq!(fed(&world), STRIPES);
    world.seeds.insert(who, 0xff);
    world.run(10_000 + 3 * 8 * PERIOD);
    assert_eq!((fed(&world), world.viewers[who].mesh.relay_stripes()), (0, 0xff));
    let copies = world.viewers[who].copies;
    assert!(copies <= 24, "{copies}");
    world.seeds.remove(&who);
    world.run(14_000);
    assert_eq!((fed(&world), world.viewers[who].mesh.relay_stripes()), (STRIPES, 0));
    assert_eq!(world.missed(9_000, 14_000 - 1_500), 0);
}

/// Three that feed each other in a circle and live from the relay's answers; then somebody comes
/// whom the relay pushes everything.
#[test]
fn loops_dissolve_as_soon_as_somebody_has_it_earlier() {
    let mut world = World::new(4);
    (0..3).for_each(|_| {
        world.join(12);
    });
    [(0, 1), (1, 2), (2, 0)].into_iter().for_each(|(a, b)| world.link(a, b));
    world.run(10_000);
    let rescued = world.sum(|viewer| u64::from(viewer.rescues));
    assert!(rescued > 80, "{rescued}");
    assert_eq!(world.missed(0, 8_000), 0);
    let seed = world.join(12);
    world.seeds.insert(seed, 0xff);
    world.link(seed, 0);
    world.run(15_000);
    for (who, stripe) in (0..3).flat_map(|who| (0..STRIPES).map(move |stripe| (who, stripe))) {
        assert!(world.depth(who, stripe).is_some(), "{who} {stripe}");
    }
    let before = world.sum(|viewer| u64::from(viewer.rescues));
    world.run(30_000);
    assert_eq!(world.sum(|viewer| u64::from(viewer.rescues)), before);
}

/// Uploads carry half of what is needed: the relay answers the rest, and grafts stay few.
#[test]
fn poor_uploads_do_not_make_viewers_restless() {
    let mut world = World::swarm(2, 40, 4);
    world.run(20_000);
    let before = world.sum(|viewer| viewer.grafts);
    world.run(50_000);
    let grafts = world.sum(|viewer| viewer.grafts) - before;
    assert!(grafts <= 20 * 40, "{grafts} grafts in 20 viewer-minutes");
    assert_eq!(world.missed(5_000, 48_000), 0);
}
