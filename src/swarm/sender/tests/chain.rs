//! Viewers in a row, each fed by the one before: what cutting through is for.

use super::forwarder::Larder;
use super::*;

/// A viewer that takes everything from the one before it.
struct Node {
    larder: Larder,
    /// To the next one.
    sender: Sender,
    /// When the hash datagram of each subtree came, the last chunk, and the last question.
    hashed: BTreeMap<u64, Mono>,
    whole: BTreeMap<u64, Mono>,
    asked: BTreeMap<u64, Mono>,
    unacked: BTreeMap<u64, u16>,
    ack_at: Option<Mono>,
    got: BTreeMap<u64, u32>,
}

impl Node {
    fn new(now: Mono) -> Node {
        let source = Source { size: SIZE, subtrees: 100..100, train: TRAIN, window: 3_808 };
        let mut sender = Sender::forwarder(now);
        sender.subscribe(ALL_STRIPES, None, 0, &source);
        Node {
            larder: Larder {
                source,
                proven: BTreeSet::new(),
                chunks: BTreeMap::new(),
                tells_from: None,
                shared: true,
            },
            sender,
            hashed: BTreeMap::new(),
            whole: BTreeMap::new(),
            asked: BTreeMap::new(),
            unacked: BTreeMap::new(),
            ack_at: None,
            got: BTreeMap::new(),
        }
    }

    fn prove(&mut self, now: Mono, subtree: u64) {
        self.larder.proven.insert(subtree);
        self.hashed.entry(subtree).or_insert(now);
        let end = &mut self.larder.source.subtrees.end;
        *end = (*end).max(subtree + 1);
    }

    fn take(&mut self, now: Mono, chunk: u64) {
        let (subtree, bit) = (chunk / SIZE, 1 << (chunk % SIZE));
        *self.got.entry(chunk).or_default() += 1;
        *self.unacked.entry(subtree).or_default() |= bit;
        let chunks = self.larder.chunks.entry(subtree).or_default();
        *chunks |= bit;
        let whole = *chunks == u16::MAX;
        if whole {
            self.whole.entry(subtree).or_insert(now);
        }
        let at = if whole { now } else { now + Duration::from_millis(50) };
        self.ack_at = Some(self.ack_at.map_or(at, |before| before.min(at)));
    }

    /// What goes back: acknowledgements, and questions for what should have come.
    fn answer(&mut self, now: Mono, sent: i64) -> Vec<Letter> {
        let mut letters = Vec::new();
        if self.ack_at.is_some_and(|at| at <= now) {
            self.ack_at = None;
            for (subtree, mut bits) in std::mem::take(&mut self.unacked) {
                while let Some(run) = Run::lowest(bits, subtree, SIZE, 16) {
                    bits &= !run.bits(subtree, SIZE);
                    letters.push(Letter::Ack { run: [run.first(), run.last()], delay: sent });
                }
            }
        }
        let patience = Duration::from_millis(250);
        let late = self.hashed.range(self.whole.keys().next().copied().unwrap_or(0)..);
        for (subtree, since) in late.filter(|(subtree, _)| !self.whole.contains_key(subtree)) {
            let since = self.asked.get(subtree).copied().unwrap_or(*since);
            if now.since(since) < patience {
                continue;
            }
            let mut missing = !self.larder.chunks.get(subtree).copied().unwrap_or(0);
            while let Some(run) = Run::lowest(missing, *subtree, SIZE, 16) {
                missing &= !run.bits(*subtree, SIZE);
                letters.push(Letter::Request([run.first(), run.last()]));
            }
            self.asked.insert(*subtree, now);
        }
        letters
    }
}

/// The first of the nodes gets a chunk every 5 ms from elsewhere.
struct Chain {
    now: Mono,
    nodes: Vec<Node>,
    /// By time and order: to which node, and whether it goes back to it.
    letters: BTreeMap<(Mono, u64), (usize, Letter)>,
    loss: u32,
    random: fastrand::Rng,
    next: u64,
    most_under_way: u32,
}

const DELAY: Duration = Duration::from_millis(20);

impl Chain {
    fn new(nodes: usize, loss: u32) -> Chain {
        let now = Mono::from_millis(50_000);
        Chain {
            now,
            nodes: (0..nodes).map(|_| Node::new(now)).collect(),
            letters: BTreeMap::new(),
            loss,
            random: fastrand::Rng::with_seed(3),
            next: 100 * SIZE,
            most_under_way: 0,
        }
    }

    fn post(&mut self, to: usize, letter: Letter) {
        if self.random.u32(0..100) >= self.loss {
            let key = (self.now + DELAY, self.random.u64(..) >> 40 | self.next << 24);
            self.letters.insert(key, (to, letter));
        }
    }

    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now = self.now + Duration::from_millis(1);
            if (self.now.as_nanos() / 1_000_000).is_multiple_of(5) {
                if self.next.is_multiple_of(SIZE) {
                    self.nodes[0].prove(self.now, self.next / SIZE);
                }
                self.nodes[0].take(self.now, self.next);
                self.next += 1;
            }
            while let Some((&key, _)) =
                self.letters.first_key_value().filter(|(k, _)| k.0 <= self.now)
            {
                let (to, letter) = self.letters.remove(&key).unwrap();
                self.reach(to, &letter);
            }
            for node in 1..self.nodes.len() {
                let letters = self.nodes[node].answer(self.now, 20_000);
                letters.into_iter().for_each(|letter| self.post(node - 1, letter));
            }
            for node in 0..self.nodes.len() - 1 {
                self.look(node);
            }
        }
    }

    fn reach(&mut self, to: usize, letter: &Letter) {
        let now = self.now;
        let node = &mut self.nodes[to];
        match *letter {
            Letter::Hash(subtree) => node.prove(now, subtree),
            Letter::Data { chunk, .. } => node.take(now, chunk),
            Letter::Ack { run, delay } => {
                node.sender.hear(now);
                node.sender.handle_ack(now, run, delay, &node.larder.source).unwrap();
            }
            Letter::Request(run) => {
                node.sender.hear(now);
                node.sender.handle_request(now, run, &node.larder.source).unwrap();
            }
            _ => {}
        }
    }

    fn look(&mut self, at: usize) {
        loop {
            let node = &mut self.nodes[at];
            let parcel = match node.sender.next(self.now, &node.larder) {
                Next::Send(parcel) => parcel,
                Next::Have(_) => continue,
                Next::Wait => break,
                Next::Close(over) => panic!("node {at}: {over:?}"),
            };
            if parcel.hash {
                self.post(at + 1, Letter::Hash(parcel.subtree));
            }
            let sent = self.now;
            for chunk in parcel.run.map_or(0..0, |run| run.first()..run.last() + 1) {
                self.post(at + 1, Letter::Data { chunk, sent });
            }
        }
        self.most_under_way = self.most_under_way.max(self.nodes[at].sender.flight.chunks());
    }
}

#[test]
fn a_chunk_passes_each_viewer_at_once() {
    let mut chain = Chain::new(5, 0);
    chain.run(20_000);
    let first = chain.nodes[0].whole.clone();
    for (hops, node) in chain.nodes.iter().enumerate() {
        assert!(node.got.values().all(|times| *times == 1), "node {hops}");
        let whole = node.whole.len();
        assert!(whole + 3 >= first.len() && whole > 240, "{whole} of {}", first.len());
        for (subtree, at) in &node.whole {
            let took = at.since(first[subtree]);
            assert!(took <= (DELAY + Duration::from_millis(1)) * hops as u32, "{hops}: {took:?}");
        }
    }
    assert!(chain.most_under_way < 40, "{}", chain.most_under_way);
    let rtt = chain.nodes[2].sender.rtt().unwrap().as_millis();
    assert!((40..60).contains(&rtt), "{rtt}");
}

#[test]
fn holes_are_filled_by_the_one_before() {
    let mut chain = Chain::new(4, 2);
    chain.run(30_000);
    let first = chain.nodes[0].whole.clone();
    let last = &chain.nodes[3];
    let counted = last.whole.iter().filter(|(subtree, _)| (110..440).contains(*subtree));
    let took: Vec<_> = counted.map(|(subtree, at)| at.since(first[subtree])).collect();
    let lost = (110..360).filter(|subtree| !last.whole.contains_key(subtree)).count();
    // Those whose hash datagram was lost on the way are for other neighbours to tell of.
    assert!(lost < 25, "{lost}");
    let late = took.iter().filter(|took| **took > Duration::from_millis(1_000)).count();
    assert!(late < took.len() / 20, "{late} of {}", took.len());
    let twice = last.got.values().filter(|times| **times > 1).count();
    assert!(twice < last.got.len() / 50, "{twice} of {}", last.got.len());
}
