//! A forwarder: chunks that come in any order go on to a neighbour.

use super::*;

/// What has come, by subtree.
pub(super) struct Larder {
    pub(super) source: Source,
    pub(super) proven: BTreeSet<u64>,
    pub(super) chunks: BTreeMap<u64, u16>,
    pub(super) tells_from: Option<Mono>,
    pub(super) shared: bool,
}

impl Stock for Larder {
    fn source(&self) -> &Source {
        &self.source
    }

    fn chunks(&self, subtree: u64) -> u16 {
        if self.proven.contains(&subtree) {
            self.chunks.get(&subtree).copied().unwrap_or(0)
        } else {
            0
        }
    }

    fn proven(&self, subtree: u64) -> bool {
        self.proven.contains(&subtree)
    }

    fn tells_from(&self) -> Option<Mono> {
        self.tells_from
    }

    fn is_shared(&self) -> bool {
        self.shared
    }
}

struct Link {
    now: Mono,
    sender: Sender,
    larder: Larder,
    sent: Vec<(Mono, Parcel)>,
    told: Vec<(Mono, [u64; 2])>,
    over: Option<Over>,
    /// Acknowledges after so long, every 50 ms.
    rtt: Option<Duration>,
    unacked: Vec<(Mono, Run)>,
    /// One-way delay in milliseconds.
    delay: i64,
}

impl Link {
    /// Subtrees 100 to 109 are there, and the neighbour subscribes to some stripes.
    fn new(stripes: u8) -> Link {
        let now = Mono::from_millis(50_000);
        let source = Source { size: SIZE, subtrees: 100..110, train: TRAIN, window: 3_808 };
        let proven: BTreeSet<_> = (100..110).collect();
        let chunks = proven.iter().map(|subtree| (*subtree, u16::MAX)).collect();
        let mut sender = Sender::forwarder(now);
        sender.subscribe(stripes, None, 0, &source);
        let larder = Larder { source, proven, chunks, tells_from: None, shared: true };
        let rtt = Some(Duration::from_millis(40));
        let (sent, told, unacked) = (Vec::new(), Vec::new(), Vec::new());
        let mut link =
            Link { now, sender, larder, sent, told, over: None, rtt, unacked, delay: 20 };
        link.look();
        link.told.clear();
        link
    }

    fn prove(&mut self, subtree: u64) {
        self.larder.proven.insert(subtree);
        let end = &mut self.larder.source.subtrees.end;
        *end = (*end).max(subtree + 1);
        self.look();
    }

    fn bring(&mut self, chunk: u64) {
        *self.larder.chunks.entry(chunk / SIZE).or_default() |= 1 << (chunk % SIZE);
        self.look();
    }

    fn look(&mut self) {
        while self.over.is_none() {
            match self.sender.next(self.now, &self.larder) {
                Next::Send(parcel) => {
                    assert!(!parcel.hash || parcel.run.is_none(), "a datagram of its own");
                    self.unacked.extend(parcel.run.map(|run| (self.now, run)));
                    self.sent.push((self.now, parcel));
                }
                Next::Have(run) => self.told.push((self.now, [run.first(), run.last()])),
                Next::Wait => break,
                Next::Close(over) => self.over = Some(over),
            }
        }
    }

    fn wait(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now = self.now + Duration::from_millis(1);
            let acks = (self.now.as_nanos() / 1_000_000).is_multiple_of(50);
            if let Some(rtt) = self.rtt.filter(|_| acks) {
                self.sender.hear(self.now);
                let (now, delay) = (self.now, self.delay * 1_000);
                let source = &self.larder.source;
                let sender = &mut self.sender;
                self.unacked.retain(|(at, run)| {
                    let due = now.since(*at) >= rtt;
                    if due {
                        sender.handle_ack(now, [run.first(), run.last()], delay, source).unwrap();
                    }
                    !due
                });
            }
            self.look();
        }
    }

    /// One subtree as it comes from a parent: the hash datagram, then a chunk every 5 ms.
    fn stream(&mut self, subtree: u64) {
        self.prove(subtree);
        for chunk in subtree * SIZE..(subtree + 1) * SIZE {
            self.wait(5);
            self.bring(chunk);
        }
    }

    fn request(&mut self, first: u64, last: u64) {
        self.sender.handle_request(self.now, [first, last], &self.larder.source).unwrap();
        self.look();
    }

    fn chunks(&self) -> Vec<u64> {
        let runs = self.sent.iter().filter_map(|(_, parcel)| parcel.run);
        runs.flat_map(|run| run.first()..=run.last()).collect()
    }

    fn hashes(&self) -> Vec<u64> {
        let hashes = self.sent.iter().filter(|(_, parcel)| parcel.hash);
        hashes.map(|(_, parcel)| parcel.subtree).collect()
    }
}

#[test]
fn chunks_go_on_as_they_come_behind_a_hash_datagram_of_its_own() {
    let mut link = Link::new(ALL_STRIPES);
    assert_eq!(link.sent, [], "it begins with the next whose hash datagram comes");
    link.bring(112 * SIZE);
    link.prove(112);
    let at = link.now;
    assert_eq!(link.hashes(), [112]);
    assert_eq!(link.chunks(), [112 * SIZE], "what came before it was proven");
    link.wait(7);
    link.bring(112 * SIZE + 5);
    assert_eq!(link.sent.last().map(|(at, _)| *at), Some(link.now));
    link.prove(111);
    link.bring(112 * SIZE + 6);
    link.bring(111 * SIZE + 15);
    assert_eq!(link.hashes(), [112, 111]);
    let wanted = [112 * SIZE, 112 * SIZE + 5, 112 * SIZE + 6, 111 * SIZE + 15];
    assert_eq!(link.chunks(), wanted, "subtrees come in any order");
    for chunk in 111 * SIZE..113 * SIZE {
        link.bring(chunk);
    }
    link.wait(500);
    let mut all = link.chunks();
    all.sort_unstable();
    assert!(all.into_iter().eq(111 * SIZE..113 * SIZE), "each once");
    assert_eq!(link.told, [], "what is pushed need not be told of");
    assert!(link.now.since(at) > Duration::from_millis(500));
    assert_eq!(link.sender.take_counts(), [32, 0]);
}

#[test]
fn the_lowest_subtree_goes_first_when_there_is_room() {
    let mut link = Link::new(ALL_STRIPES);
    link.rtt = None;
    for subtree in [112, 111, 110] {
        link.larder.chunks.insert(subtree, u16::MAX);
        link.larder.proven.insert(subtree);
    }
    link.larder.source.subtrees.end = 113;
    link.look();
    assert_eq!(link.hashes(), [110, 111], "two trains are under way");
    assert!(link.chunks().into_iter().eq(110 * SIZE..112 * SIZE));
}

#[test]
fn what_the_neighbour_has_is_not_sent() {
    let mut link = Link::new(ALL_STRIPES);
    let have = |link: &mut Link, first, last| {
        link.sender.handle_have([first, last], &link.larder.source).unwrap();
    };
    have(&mut link, 111 * SIZE, 112 * SIZE - 1);
    have(&mut link, 110 * SIZE, 110 * SIZE + 7);
    for subtree in 110..112 {
        link.stream(subtree);
    }
    assert_eq!(link.hashes(), NONE, "it has shown a chunk of either");
    assert!(link.chunks().into_iter().eq(110 * SIZE + 8..111 * SIZE));
    have(&mut link, 1 << 40, (1 << 40) + 3);
    link.stream(112);
    assert_eq!(link.chunks().len(), 24, "nonsense hurts nobody");
}

#[test]
fn stripes_that_are_not_pushed_are_told_when_they_are_whole() {
    let mut link = Link::new(0b0100_0000);
    for subtree in 110..119 {
        link.stream(subtree);
    }
    link.wait(60);
    assert_eq!(link.hashes(), [110, 118]);
    let runs = link.told.iter().map(|(_, run)| *run);
    let mut subtrees = runs.flat_map(|[first, last]| first / SIZE..=last / SIZE);
    assert!(subtrees.by_ref().eq(111..118), "{:?}", link.told);
    link.told.clear();
    // Three at once in two rows: one batch.
    link.sender.handle_have([119 * SIZE, 120 * SIZE - 1], &link.larder.source).unwrap();
    for subtree in [119, 120, 122] {
        link.larder.chunks.insert(subtree, u16::MAX);
        link.larder.proven.insert(subtree);
    }
    link.prove(122);
    link.wait(60);
    let at = link.told[0].0;
    let row = |subtree: u64| [subtree * SIZE, (subtree + 1) * SIZE - 1];
    assert_eq!(link.told, [(at, row(120)), (at, row(122))], "not what it has");
}

/// Whoever holds many links tells all of them at the same time, or with what is said anyhow.
#[test]
fn news_wait_for_those_of_other_links() {
    let mut link = Link::new(0);
    let later = link.now + Duration::from_millis(400);
    link.larder.tells_from = Some(later);
    link.stream(110);
    link.stream(112);
    link.wait(100);
    assert_eq!(link.told, []);
    assert_eq!(link.sender.deadline(link.now, &link.larder), later);
    let row = |subtree: u64| Run::new(subtree * SIZE, (subtree + 1) * SIZE - 1);
    assert!(link.sender.tells_of(113));
    let mut news = || link.sender.news(link.now, &link.larder);
    assert_eq!([news(), news(), news()], [row(110), row(112), None], "with something else");
    link.stream(113);
    link.wait(200);
    assert_eq!(link.told, [(later, [113 * SIZE, 114 * SIZE - 1])], "and what came after it");
}

/// Who has no upload would only fill his line with what nobody asks him for. Once there is some,
/// all is told that is there.
#[test]
fn who_can_send_nothing_tells_nothing() {
    let mut link = Link::new(0);
    link.larder.shared = false;
    link.stream(110);
    link.stream(111);
    link.wait(400);
    assert_eq!((link.told.len(), link.sender.news(link.now, &link.larder)), (0, None));
    assert!(link.sender.deadline(link.now, &link.larder) > link.now + Duration::from_millis(500));
    link.larder.shared = true;
    link.stream(112);
    link.wait(60);
    let told: Vec<_> =
        link.told.iter().flat_map(|(_, [first, last])| first / SIZE..=last / SIZE).collect();
    assert_eq!(told, [110, 111, 112]);
}

/// Nobody knows when there will be room for an answer: questions grow old all the same.
#[test]
fn questions_that_wait_are_looked_at_when_they_are_old() {
    let mut link = Link::new(0);
    link.rtt = None;
    let age = Duration::from_millis(300);
    let asks = |link: &mut Link| {
        let asked = [130 * SIZE, 130 * SIZE];
        link.sender.handle_request(link.now, asked, &link.larder.source).unwrap();
    };
    // What is asked now is not as old as what was asked when nobody looked.
    asks(&mut link);
    link.now = link.now + age;
    asks(&mut link);
    assert_eq!(link.sender.deadline(link.now, &link.larder), link.now + age);
    link.now = link.now + age;
    link.look();
    assert_eq!(link.sender.take_forgotten(), 0, "it was asked for again meanwhile");
    link.now = link.now + age;
    link.look();
    assert_eq!(link.sender.take_forgotten(), 1);
    assert!(link.sender.deadline(link.now, &link.larder) > link.now + age * 3, "none waits");
}

#[test]
fn who_waits_for_room_says_so() {
    let mut link = Link::new(ALL_STRIPES);
    link.rtt = None;
    (110..114).for_each(|subtree| link.stream(subtree));
    assert!(link.chunks().len() < 64 && link.sender.is_held());
    link.rtt = Some(Duration::ZERO);
    link.wait(500);
    assert!(link.chunks().len() == 64 && !link.sender.is_held(), "all of it was sent");
}

#[test]
fn a_stripe_that_is_grafted_begins_with_the_next_and_one_refused_is_told() {
    let mut link = Link::new(0);
    link.prove(110);
    link.bring(110 * SIZE);
    link.sender.subscribe(ALL_STRIPES, None, 0, &link.larder.source);
    link.stream(110);
    link.stream(111);
    link.wait(100);
    assert_eq!(link.hashes(), [111]);
    assert!(link.chunks().into_iter().eq(111 * SIZE..112 * SIZE));
    assert_eq!(link.told[0].1, [110 * SIZE, 111 * SIZE - 1]);
    link.prove(112);
    link.bring(112 * SIZE);
    link.sender.set_allowed(!1, &link.larder.source);
    link.stream(112);
    link.wait(100);
    assert_eq!(link.chunks().last(), Some(&(112 * SIZE)), "the rest is no longer pushed");
    assert_eq!(link.told.last().unwrap().1, [112 * SIZE, 113 * SIZE - 1]);
}

#[test]
fn questions_wait_for_chunks_and_nothing_is_sent_twice() {
    let mut link = Link::new(0b1000_0000);
    link.request(110 * SIZE, 112 * SIZE - 1);
    link.stream(110);
    link.stream(111);
    link.wait(100);
    assert_eq!(link.hashes(), [110, 111], "once each");
    assert!(link.chunks().into_iter().eq(110 * SIZE..112 * SIZE));
    let runs = link.sent.iter().filter(|(_, parcel)| parcel.run.is_some());
    let answers = runs.filter(|(_, parcel)| parcel.why == Why::Answer).count();
    assert_eq!(answers, 32, "pushed or not, the answers were first");
    // A hole that the neighbour found is sent again, and its hashes if it asks twice.
    link.sent.clear();
    link.request(111 * SIZE + 14, 111 * SIZE + 14);
    link.wait(20);
    assert_eq!(
        (link.hashes(), link.chunks()),
        (vec![111], vec![111 * SIZE + 14]),
        "answered before"
    );
}

#[test]
fn hashes_that_were_lost_go_again_with_the_first_question() {
    let mut link = Link::new(ALL_STRIPES);
    link.stream(110);
    link.wait(100);
    link.rtt = None;
    link.stream(111);
    link.wait(10);
    link.request(111 * SIZE + 15, 111 * SIZE + 15);
    assert_eq!(link.hashes(), [110, 111], "it cannot know yet");
    link.wait(100);
    link.request(111 * SIZE, 111 * SIZE);
    assert_eq!(link.hashes(), [110, 111, 111]);
    assert_eq!(link.chunks().last(), Some(&(111 * SIZE)));
    link.sender.handle_have([112 * SIZE, 112 * SIZE], &link.larder.source).unwrap();
    link.stream(112);
    link.wait(200);
    link.request(112 * SIZE + 1, 112 * SIZE + 1);
    assert_eq!(link.hashes(), [110, 111, 111], "shown");
}

/// Chunks that are sent singly are one train: yet each has its own age.
#[test]
fn a_chunk_that_was_lost_is_answered_while_its_subtree_is_still_being_sent() {
    let mut link = Link::new(ALL_STRIPES);
    link.stream(110);
    link.wait(100);
    link.prove(111);
    for chunk in 0..10 {
        link.bring(111 * SIZE + chunk);
        link.unacked.retain(|(_, run)| run.first() != 111 * SIZE);
        link.wait(12);
    }
    link.bring(111 * SIZE + 10);
    let sent = link.chunks().len();
    link.request(111 * SIZE + 10, 111 * SIZE + 10);
    link.wait(20);
    assert_eq!(link.chunks().len(), sent, "it was sent in this moment");
    link.request(111 * SIZE, 111 * SIZE);
    assert_eq!(link.chunks()[sent..], [111 * SIZE], "at once");
    assert_eq!(link.hashes(), [110, 111], "which it has");
    (11..16).for_each(|chunk| link.bring(111 * SIZE + chunk));
    link.wait(100);
    assert_eq!(link.chunks().len(), 16 + 16 + 1, "each once but that one");
}

#[test]
fn who_feeds_us_a_stripe_is_not_told_of_it() {
    let mut link = Link::new(0);
    link.sender.set_fed(0b0100_0000);
    (110..112).for_each(|subtree| link.stream(subtree));
    link.wait(60);
    let told: Vec<_> = link.told.iter().map(|(_, [first, _])| first / SIZE).collect();
    assert_eq!(told, [111]);
    link.sender.set_fed(0);
    link.look();
    link.wait(60);
    let told: Vec<_> = link.told.iter().map(|(_, [first, _])| first / SIZE).collect();
    assert_eq!(told, [111, 110], "as soon as it is somebody else");
}

#[test]
fn what_is_too_old_is_given_up() {
    let mut link = Link::new(ALL_STRIPES);
    link.prove(110);
    link.bring(110 * SIZE);
    for subtree in 111..140 {
        link.stream(subtree);
    }
    assert_eq!(link.chunks().len(), 1 + 29 * 16);
    (0..8).for_each(|chunk| link.bring(110 * SIZE + chunk));
    link.wait(100);
    assert_eq!(link.chunks().len(), 1 + 29 * 16, "more than two seconds behind");
    (8..16).for_each(|chunk| link.bring(110 * SIZE + chunk));
    link.wait(100);
    assert_eq!(link.told.last().unwrap().1, [110 * SIZE, 111 * SIZE - 1], "but told of");
    assert!(link.sender.cut.as_ref().unwrap().kept() < 100);
}

#[test]
fn a_neighbour_that_falls_silent_is_dead_after_three_seconds() {
    let mut link = Link::new(0b1111);
    for subtree in 110..130 {
        link.stream(subtree);
    }
    link.rtt = None;
    let begin = link.now;
    let mut subtree = 130;
    while link.over.is_none() {
        link.stream(subtree);
        subtree += 1;
    }
    let probes = link.sent.iter().filter(|(_, parcel)| parcel.why == Why::Probe);
    assert!(probes.clone().all(|(_, parcel)| parcel.run.is_some_and(|run| run.chunks() == 1)));
    assert!((8..12).contains(&probes.count()));
    assert_eq!(link.over, Some(Over::Dead));
    let after = link.now.since(begin).as_millis();
    assert!((2_900..4_000).contains(&after), "{after}");
}

#[test]
fn what_was_sent_into_a_dead_path_is_told_when_it_is_back() {
    let mut link = Link::new(ALL_STRIPES);
    link.stream(110);
    link.wait(100);
    link.rtt = None;
    link.stream(111);
    link.wait(1_500);
    link.unacked.clear();
    link.sender.hear(link.now);
    link.wait(60);
    assert_eq!(link.told.last().map(|told| told.1), Some([111 * SIZE, 112 * SIZE - 1]));
    link.rtt = Some(Duration::from_millis(40));
    link.stream(112);
    link.wait(100);
    assert_eq!(link.hashes(), [110, 111, 112]);
}

#[test]
fn a_long_queue_leaves_the_share_of_the_stripes_and_no_train() {
    let mut link = Link::new(0b1);
    link.stream(112);
    link.wait(200);
    let rtt = link.sender.rtt().unwrap();
    assert!((40..90).contains(&rtt.as_millis()), "{rtt:?}");
    link.delay = 400;
    for subtree in (113..180).filter(|subtree| subtree % 8 == 0) {
        link.stream(subtree);
        link.wait(500);
    }
    assert_eq!(link.sender.queueing(), Some(Duration::from_millis(380)));
    let most = link.sender.most_under_way(&link.larder.source);
    assert!((4..8).contains(&most), "{most}");
    link.rtt = None;
    link.sent.clear();
    link.larder.chunks.insert(184, u16::MAX);
    link.prove(184);
    assert_eq!(link.chunks().len() as u32, most, "and not a whole train");
    assert_eq!(link.over, None);
}

#[test]
fn what_is_a_second_late_is_left_to_others() {
    let mut link = Link::new(ALL_STRIPES);
    (110..124).for_each(|subtree| link.prove(subtree));
    // Fourteen of 84 ms each: the oldest is as late as that, the newest is not.
    link.bring(110 * SIZE);
    link.bring(120 * SIZE);
    assert_eq!(link.chunks(), [120 * SIZE]);
}
