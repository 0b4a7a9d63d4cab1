//! A link with two ends under virtual time: the sender, a path, and a plain receiver.

mod chain;
mod forwarder;
mod stripes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use super::*;

/// 2 Mbit/s: 16 chunks in 84 ms.
const TRAIN: Duration = Duration::from_millis(84);
const SIZE: u64 = 16;
const NONE: [u64; 0] = [];

/// What is on its way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Letter {
    Hash(u64),
    Data {
        chunk: u64,
        sent: Mono,
    },
    Have(u64, u64),
    Ack {
        run: [u64; 2],
        delay: i64,
    },
    Request([u64; 2]),
    Subscribe,
    /// Something small that says nothing.
    Keepalive,
}

/// How the path treats datagrams.
struct Path {
    delay: Duration,
    /// Out of a hundred.
    loss: u32,
    /// Full datagrams get lost.
    narrow: bool,
    /// Nothing comes back.
    mute: bool,
    /// Time that each full datagram takes in the bottleneck, and when that is free.
    per_datagram: Duration,
    free: Mono,
}

/// How the other end behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// One ACK per train, questions for holes, SUBSCRIBE every second.
    Ours,
    /// One ACK per chunk.
    Foreign,
}

struct World {
    now: Mono,
    sender: Sender,
    source: Source,
    live: bool,
    path: Path,
    manner: Manner,
    /// What it subscribes to, if it is one of ours.
    stripes: u8,
    random: fastrand::Rng,
    /// By time and order.
    letters: BTreeMap<(Mono, u64), (bool, Letter)>,
    count: u64,
    /// The receiver's chunks, and how often each came.
    got: HashMap<u64, u32>,
    hashed: BTreeSet<u64>,
    /// When a train's ACK is due although chunks are missing.
    due: BTreeMap<u64, Mono>,
    sent: Vec<(Mono, Parcel)>,
    haves: Vec<(Mono, [u64; 2])>,
    over: Option<(Mono, Over)>,
    most_under_way: u32,
    /// When the receiver last heard anything.
    heard: Mono,
}

impl World {
    fn new(manner: Manner, delay_ms: u64, loss: u32) -> World {
        let now = Mono::from_millis(50_000);
        let delay = Duration::from_millis(delay_ms);
        World {
            now,
            sender: Sender::new(now, manner == Manner::Ours),
            source: Source { size: SIZE, subtrees: 100..200, train: TRAIN, window: 3_808 },
            live: true,
            path: Path {
                delay,
                loss,
                narrow: false,
                mute: false,
                per_datagram: Duration::ZERO,
                free: now,
            },
            manner,
            stripes: ALL_STRIPES,
            random: fastrand::Rng::with_seed(delay_ms * 100 + u64::from(loss)),
            letters: BTreeMap::new(),
            count: 0,
            got: HashMap::new(),
            hashed: BTreeSet::new(),
            due: BTreeMap::new(),
            sent: Vec::new(),
            haves: Vec::new(),
            over: None,
            most_under_way: 0,
            heard: now,
        }
    }

    fn post(&mut self, to_sender: bool, letter: Letter) {
        let full = matches!(letter, Letter::Data { .. });
        let lost = self.random.u32(0..100) < self.path.loss
            || full && self.path.narrow
            || to_sender && self.path.mute;
        if lost {
            return;
        }
        let mut at = self.now;
        if full && !self.path.per_datagram.is_zero() {
            if self.path.free.since(self.now) > Duration::from_millis(400) {
                return; // The bottleneck's queue is full.
            }
            self.path.free = self.path.free.max(self.now) + self.path.per_datagram;
            at = self.path.free;
        }
        self.count += 1;
        self.letters.insert((at + self.path.delay, self.count), (to_sender, letter));
    }

    fn look(&mut self) {
        while self.over.is_none() {
            match self.sender.next(self.now, &self.source) {
                Next::Send(parcel) => {
                    if parcel.hash {
                        self.post(false, Letter::Hash(parcel.subtree));
                    }
                    for chunk in parcel.run.map_or(0..0, |run| run.first()..run.last() + 1) {
                        self.post(false, Letter::Data { chunk, sent: self.now });
                    }
                    self.sent.push((self.now, parcel));
                }
                Next::Have(run) => {
                    self.haves.push((self.now, [run.first(), run.last()]));
                    self.post(false, Letter::Have(run.first(), run.last()));
                }
                Next::Wait => break,
                Next::Close(over) => self.over = Some((self.now, over)),
            }
        }
        self.most_under_way = self.most_under_way.max(self.sender.flight.chunks());
    }

    /// One millisecond.
    fn tick(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        let millis = self.now.as_nanos() / 1_000_000;
        if self.live && millis.is_multiple_of(84) {
            self.source.subtrees.end += 1;
            let end = self.source.subtrees.end;
            self.source.subtrees.start = end.saturating_sub(238).max(self.source.subtrees.start);
        }
        if self.manner == Manner::Ours && millis.is_multiple_of(1_000) {
            self.post(true, Letter::Subscribe);
        }
        while let Some((&key, _)) = self.letters.iter().next().filter(|(key, _)| key.0 <= self.now)
        {
            let Some((to_sender, letter)) = self.letters.remove(&key) else { break };
            if to_sender { self.reach_sender(&letter) } else { self.reach_receiver(&letter) }
        }
        let silent = self.now.since(self.heard).as_millis();
        if self.manner == Manner::Ours && silent >= 250 && (silent - 250).is_multiple_of(200) {
            self.repeat();
        }
        let due: Vec<_> = self.due.iter().filter(|(_, at)| **at <= self.now).collect();
        for subtree in due.into_iter().map(|(subtree, _)| *subtree).collect::<Vec<_>>() {
            self.due.remove(&subtree);
            self.acknowledge(subtree);
        }
        self.look();
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until && self.over.is_none() {
            self.tick();
        }
    }

    fn reach_sender(&mut self, letter: &Letter) {
        self.sender.hear(self.now);
        let (now, source) = (self.now, &self.source);
        match letter {
            Letter::Ack { run, delay } => {
                self.sender.handle_ack(now, *run, *delay, source).unwrap()
            }
            Letter::Request(run) => drop(self.sender.handle_request(now, *run, source)),
            Letter::Subscribe => self.sender.subscribe(self.stripes, None, 0, source),
            _ => {}
        }
    }

    fn reach_receiver(&mut self, letter: &Letter) {
        self.heard = self.now;
        match *letter {
            Letter::Hash(subtree) if self.manner == Manner::Ours => {
                self.hashed.insert(subtree);
                self.due.insert(subtree, self.now + Duration::from_millis(11));
            }
            Letter::Data { chunk, sent } => {
                *self.got.entry(chunk).or_default() += 1;
                if self.manner == Manner::Foreign {
                    let delay = self.delay(sent);
                    return self.post(true, Letter::Ack { run: [chunk, chunk], delay });
                }
                let subtree = chunk / SIZE;
                let all = subtree * SIZE..(subtree + 1) * SIZE;
                if all.clone().all(|chunk| self.got.contains_key(&chunk)) {
                    self.due.remove(&subtree);
                    let delay = self.delay(sent);
                    self.post(true, Letter::Ack { run: [all.start, all.end - 1], delay });
                } else {
                    self.due.insert(subtree, self.now + Duration::from_millis(11));
                }
            }
            _ => {}
        }
    }

    /// The other end's clock is 77 s behind.
    fn delay(&self, sent: Mono) -> i64 {
        self.now.since(sent).as_micros() as i64 - 77_000_000
    }

    /// What there is of a subtree, and questions for the rest of it and for those before it.
    fn acknowledge(&mut self, subtree: u64) {
        let before = subtree.saturating_sub(6).max(self.hashed.first().copied().unwrap_or(0));
        for subtree in before..=subtree {
            let mut asked = false;
            for chunk in subtree * SIZE..(subtree + 1) * SIZE {
                let run = [chunk, chunk];
                match self.got.contains_key(&chunk) {
                    true => self.post(true, Letter::Ack { run, delay: 20_000 - 77_000_000 }),
                    false => {
                        asked = true;
                        self.post(true, Letter::Request(run));
                    }
                }
            }
            if asked {
                self.due.insert(subtree, self.now + 2 * self.path.delay + REORDERING);
            }
        }
    }

    /// Nothing came for a while: says again what there is.
    fn repeat(&mut self) {
        self.post(true, Letter::Subscribe);
        for subtree in self.hashed.iter().copied().rev().take(12).collect::<Vec<_>>() {
            for chunk in subtree * SIZE..(subtree + 1) * SIZE {
                if self.got.contains_key(&chunk) {
                    self.post(
                        true,
                        Letter::Ack { run: [chunk, chunk], delay: 20_000 - 77_000_000 },
                    );
                }
            }
        }
    }

    /// Chunks of subtrees that never came.
    fn missing(&self, subtrees: Range<u64>) -> Vec<u64> {
        let chunks = subtrees.start * SIZE..subtrees.end * SIZE;
        chunks.filter(|chunk| !self.got.contains_key(chunk)).collect()
    }

    fn by(&self, why: Why) -> Vec<Parcel> {
        let parcels = self.sent.iter().map(|(_, parcel)| *parcel);
        parcels.filter(|parcel| parcel.why == why).collect()
    }
}

fn subscribed(delay_ms: u64, loss: u32) -> World {
    let mut world = World::new(Manner::Ours, delay_ms, loss);
    world.reach_sender(&Letter::Subscribe);
    world
}

#[test]
fn a_good_path_gets_each_subtree_once() {
    for delay in [0, 5, 40, 150] {
        let mut world = subscribed(delay, 0);
        world.run(Duration::from_secs(20));
        assert_eq!(world.over, None);
        let end = world.source.subtrees.end;
        assert_eq!(world.missing(200..end - 6), NONE, "delay {delay}");
        assert!(world.got.values().all(|times| *times == 1), "delay {delay}");
        let pushed = world.by(Why::Push);
        let numbers = pushed.iter().map(|parcel| parcel.subtree);
        assert!(numbers.eq(200..200 + pushed.len() as u64), "from the next one on, in order");
        assert!(pushed.iter().all(|parcel| parcel.hash && parcel.run.is_some()));
        assert!(pushed.len() as u64 + 1 >= end - 200, "delay {delay}: {} late", end - 200);
        assert!(world.haves.is_empty(), "the hash datagrams tell");
    }
}

#[test]
fn losses_are_repaired_by_questions_and_cost_little() {
    for delay in [5, 40, 120] {
        let mut world = subscribed(delay, 2);
        world.run(Duration::from_secs(60));
        assert_eq!(world.over, None, "delay {delay}");
        let end = world.source.subtrees.end;
        assert_eq!(world.missing(201..end - 12), NONE, "delay {delay}");
        let twice = world.got.values().filter(|times| **times > 1).count();
        assert!(twice < world.got.len() / 25, "delay {delay}: {twice} of {}", world.got.len());
        let answers = world.by(Why::Answer);
        let with_hash = answers.iter().filter(|answer| answer.hash).count();
        assert!(with_hash * 4 < answers.len(), "{with_hash} of {}", answers.len());
        assert!(world.most_under_way <= 12 * 16, "one second: {}", world.most_under_way);
    }
}

#[test]
fn a_path_that_loses_a_fifth_is_given_up_after_five_seconds() {
    let mut world = subscribed(20, 20);
    world.run(Duration::from_secs(20));
    let (at, over) = world.over.unwrap();
    let after = at.since(Mono::from_millis(50_000));
    assert_eq!(over, Over::Downlink);
    assert!(after > Duration::from_secs(5) && after < Duration::from_secs(10), "{after:?}");
}

#[test]
fn a_path_of_half_the_bitrate_is_given_up() {
    let mut world = subscribed(20, 0);
    world.path.per_datagram = Duration::from_micros(10_500);
    world.run(Duration::from_secs(30));
    assert_eq!(world.over.map(|(_, over)| over), Some(Over::Downlink));
}

#[test]
fn a_path_a_fifth_above_the_bitrate_is_enough() {
    let mut world = subscribed(20, 0);
    world.path.per_datagram = Duration::from_micros(4_400);
    world.run(Duration::from_secs(30));
    assert_eq!(world.over, None);
    let end = world.source.subtrees.end;
    assert_eq!(world.missing(200..end - 8), NONE);
}

#[test]
fn a_peer_that_falls_silent_is_probed_and_then_dead() {
    let mut world = subscribed(20, 0);
    world.run(Duration::from_secs(3));
    world.path.mute = true;
    world.run(Duration::from_secs(1));
    let begin = world.sent.len();
    world.run(Duration::from_secs(4));
    let probes = &world.sent[begin..];
    assert!(probes.iter().filter(|(_, parcel)| parcel.why == Why::Push).count() <= 1);
    let probes: Vec<_> = probes.iter().filter(|(_, p)| p.why == Why::Probe).collect();
    assert!((18..=20).contains(&probes.len()), "every 200 ms: {}", probes.len());
    assert!(probes.windows(2).all(|w| w[0].1.subtree < w[1].1.subtree), "the newest each");
    world.run(Duration::from_secs(20));
    let (at, over) = world.over.unwrap();
    assert_eq!(over, Over::Dead);
    let after = at.since(Mono::from_millis(53_000));
    assert!(after > Duration::from_secs(9) && after < Duration::from_secs(12), "{after:?}");
}

#[test]
fn anything_that_is_heard_ends_the_probing() {
    let mut world = subscribed(20, 0);
    world.run(Duration::from_secs(3));
    world.path.mute = true;
    world.run(Duration::from_secs(4));
    world.path.mute = false;
    world.post(true, Letter::Keepalive);
    world.run(Duration::from_millis(500));
    let begin = world.source.subtrees.end;
    world.run(Duration::from_secs(5));
    let end = world.source.subtrees.end;
    assert_eq!(world.missing(begin..end - 4), NONE);
    assert_eq!(world.over, None);
}

#[test]
fn full_datagrams_that_do_not_pass_are_noticed() {
    let mut world = subscribed(20, 0);
    world.path.narrow = true;
    world.run(Duration::from_secs(10));
    let (at, over) = world.over.unwrap();
    assert_eq!(over, Over::Mtu);
    assert!(at.since(Mono::from_millis(50_000)) < Duration::from_secs(4));
    assert!(world.sent.len() < 30, "{}", world.sent.len());
}

#[test]
fn a_foreign_peer_is_pushed_to_once_it_asks_at_the_live_edge() {
    let mut world = World::new(Manner::Foreign, 20, 0);
    world.run(Duration::from_millis(300));
    let newest = world.by(Why::Newest);
    assert_eq!((newest.len(), newest[0].subtree, newest[0].run), (1, 199, None), "once");
    world.reach_sender(&Letter::Request([190 * SIZE, 192 * SIZE - 1]));
    world.run(Duration::from_secs(1));
    assert_eq!(world.missing(190..192), NONE);
    assert!(!world.sender.pushes(), "not at the live edge");
    assert_eq!(world.by(Why::Answer).iter().filter(|answer| answer.hash).count(), 2);
    let end = world.source.subtrees.end;
    world.reach_sender(&Letter::Request([(end - 2) * SIZE, (end + 4) * SIZE]));
    assert!(world.sender.pushes());
    world.run(Duration::from_secs(5));
    assert_eq!(world.missing(end - 2..world.source.subtrees.end - 2), NONE);
    assert!(world.got.values().all(|times| *times == 1), "the future came by the push alone");
    world.sender.handle_choke();
    let (sent, haves) = (world.sent.len(), world.haves.len());
    world.run(Duration::from_secs(2));
    assert_eq!(world.sent.len(), sent);
    let told = &world.haves[haves..];
    assert!((20..=24).contains(&told.len()), "told of each subtree: {}", told.len());
    assert!(told.windows(2).all(|w| w[0].1[1] + 1 == w[1].1[0]), "and of each once");
    world.sender.handle_unchoke(&world.source);
    let end = world.source.subtrees.end;
    world.run(Duration::from_secs(1));
    assert_eq!(world.sent[sent].1.subtree, end);
}

#[test]
fn hashes_go_first_until_a_chunk_was_shown_and_again_when_asked_again() {
    let mut world = World::new(Manner::Ours, 20, 0);
    world.live = false;
    world.run(Duration::from_millis(100));
    let ask = |world: &mut World, first: u64, last: u64| {
        world.sent.clear();
        world.reach_sender(&Letter::Request([first, last]));
        world.now = world.now + Duration::from_millis(50);
        world.look();
        world.now = world.now + Duration::from_millis(120);
        world.sent.iter().map(|(_, parcel)| parcel.hash).collect::<Vec<_>>()
    };
    let first = 150 * SIZE;
    assert_eq!(ask(&mut world, first, first + 3), [true], "nothing shown");
    world.reach_sender(&Letter::Ack { run: [first, first + 3], delay: 5 });
    assert_eq!(ask(&mut world, first + 4, first + 5), [false], "shown");
    assert_eq!(ask(&mut world, first + 5, first + 5), [true], "asked again");
    assert_eq!(ask(&mut world, first + 15, first + 17), [false, true], "two subtrees");
    world.sender.handle_have([first + 32, first + 40], &world.source).unwrap();
    assert_eq!(ask(&mut world, first + 41, first + 41), [false], "a HAVE shows as well");
}

#[test]
fn answers_are_paced_and_bounded_and_can_be_taken_back() {
    let mut world = World::new(Manner::Foreign, 5, 0);
    world.live = false;
    let begin = world.now;
    world.reach_sender(&Letter::Request([110 * SIZE, 160 * SIZE - 1]));
    world.sender.handle_cancel([130 * SIZE, 140 * SIZE - 1]);
    world.sender.handle_have([140 * SIZE, 150 * SIZE - 1], &world.source).unwrap();
    world.run(Duration::from_secs(10));
    let answers: Vec<_> = world.sent.iter().filter(|(_, p)| p.why == Why::Answer).collect();
    let numbers = answers.iter().map(|(_, parcel)| parcel.subtree);
    assert!(numbers.eq((110..130).chain(150..160)), "in order, without what was taken back");
    let times: Vec<_> = answers.iter().map(|(at, _)| at.since(begin).as_millis()).collect();
    assert!(times[1] < 15 && times[2] >= 42, "{times:?}");
    assert!((1_176..1_400).contains(times.last().unwrap()), "28 half train times: {times:?}");
    world.sender = Sender::new(world.now, true);
    let flood = world.sender.handle_request(world.now, [110 * SIZE, 1 << 47], &world.source);
    assert_eq!(flood, Err(Crime::RequestFlood));
    assert!(world.sender.requests.chunks() <= world.source.window);
    let never = world.sender.handle_ack(world.now, [0, 200 * SIZE], 0, &world.source);
    assert_eq!(never, Err(Crime::AckOfNothing));
    let never = world.sender.handle_have([200 * SIZE, 200 * SIZE], &world.source);
    assert_eq!(never, Err(Crime::HaveOfNothing));
}

#[test]
fn a_subscription_is_state_and_names_stripes_credit_and_start() {
    let mut world = World::new(Manner::Foreign, 5, 0);
    world.sender = Sender::new(world.now, true);
    world.sender.subscribe(0b11, Some(210 * SIZE), 0, &world.source);
    world.run(Duration::from_secs(5));
    world.sender.subscribe(0b11, Some(210 * SIZE), 0, &world.source);
    world.run(Duration::from_secs(1));
    let pushed: Vec<_> = world.by(Why::Push).iter().map(|parcel| parcel.subtree).collect();
    let end = world.source.subtrees.end;
    let wanted: Vec<_> = (210..end).filter(|subtree| subtree % 8 < 2).collect();
    assert_eq!(pushed, wanted);
    assert!(world.by(Why::Newest).is_empty(), "the push shows the right-most munro");
    world.sender.subscribe(0, None, 0, &world.source);
    world.run(Duration::from_secs(1));
    assert_eq!(world.by(Why::Push).len(), pushed.len(), "pruned");
    world.sender.subscribe(ALL_STRIPES, None, 16, &world.source);
    world.path.delay = Duration::from_millis(200);
    world.most_under_way = 0;
    world.run(Duration::from_secs(3));
    assert_eq!(world.most_under_way, 16, "credit");
}

#[test]
fn what_is_old_is_not_sent_and_nobody_dies_of_a_pause() {
    let mut world = subscribed(20, 0);
    world.run(Duration::from_secs(2));
    world.live = false;
    world.run(Duration::from_secs(1));
    world.source.subtrees.start = world.source.subtrees.end;
    let sent = world.sent.len();
    world.reach_sender(&Letter::Request([150 * SIZE, 151 * SIZE]));
    world.run(Duration::from_secs(60));
    assert_eq!((world.sent.len(), world.over), (sent, None));
    assert!(!world.sender.is_asked(), "forgotten");
    world.live = true;
    let begin = world.source.subtrees.end;
    world.run(Duration::from_secs(2));
    assert_eq!(world.missing(begin..world.source.subtrees.end - 2), NONE);
    let mut world = World::new(Manner::Foreign, 20, 0);
    world.run(Duration::from_secs(200));
    assert_eq!(world.over.map(|(_, over)| over), Some(Over::Dead), "HAVEs, and no echo");
}

#[test]
fn one_half_takes_its_share_of_what_a_peer_may_take() {
    let heap = crate::swarm::flight::TRAINS_MAX * 8 + crate::swarm::requests::RUNS_MAX * 8;
    let all = size_of::<Sender>() + heap;
    assert!(all <= 1_144, "{} + {heap}", size_of::<Sender>());
}

#[test]
fn on_a_long_way_the_first_window_is_what_the_way_holds() {
    let world = World::new(Manner::Ours, 240, 0);
    let trains = |sender: Sender| sender.most_under_way(&world.source) / SIZE as u32;
    let new = || Sender::new(world.now, true);
    assert_eq!(trains(new()), 2, "nobody knows");
    assert_eq!(trains(new().with_rtt(Duration::from_millis(480))), 9, "564 ms and a quarter");
    let long = trains(new().with_rtt(HANDSHAKE_RTT_MAX));
    assert_eq!(trains(new().with_rtt(Duration::from_secs(3))), long, "an answer was lost");
}

/// A question that was sent before the train came that it is about: answered, it would come twice,
/// and count as a loss that there was not.
#[test]
fn a_question_that_crosses_the_push_is_no_loss() {
    for (after, lost) in [(470, 0), (481, SIZE)] {
        let mut world = World::new(Manner::Ours, 240, 0);
        world.sender = Sender::new(world.now, true).with_rtt(Duration::from_millis(480));
        world.path.mute = true;
        world.reach_sender(&Letter::Subscribe);
        world.run(Duration::from_millis(100));
        let (sent, parcel) = world.sent[0];
        let run = [parcel.subtree * SIZE, parcel.subtree * SIZE + SIZE - 1];
        world.run((sent + Duration::from_millis(after)).since(world.now));
        world.reach_sender(&Letter::Request(run));
        assert_eq!(world.sender.requests.chunks(), lost, "{after}");
        assert_eq!(world.sender.losses.high(), lost > 0, "{after}: sixteen are many");
    }
}

/// On a long way questions go out twice. Only who has waited for a round trip misses the answer.
#[test]
fn a_question_that_comes_twice_is_answered_once() {
    for (after, answers) in [(30, 1), (199, 1), (201, 2)] {
        let mut world = World::new(Manner::Ours, 100, 0);
        world.sender = Sender::new(world.now, true).with_rtt(Duration::from_millis(200));
        (world.live, world.path.mute) = (false, true);
        world.run(Duration::from_millis(100));
        let run = [150 * SIZE + 3, 150 * SIZE + 5];
        world.reach_sender(&Letter::Request(run));
        world.look();
        world.run(Duration::from_millis(after));
        world.reach_sender(&Letter::Request(run));
        world.run(Duration::from_millis(300));
        assert_eq!(world.got.get(&run[0]), Some(&answers), "{after}");
    }
}
