//! Peers against datagrams that a relay would send.

use super::*;
use crate::wire::ppspp::{Handshake, split};

const CAM: Addressing = Addressing::Chunks64;
const THEIRS: u32 = 0x8000_0100;

fn facts() -> Facts {
    Facts {
        udp: "127.0.0.1:9".parse().unwrap(),
        swarm_id: "0d".to_owned() + &"00".repeat(64),
        addressing: 4,
        subtree: 4,
    }
}

struct Scene {
    peers: Peers,
    said: Vec<Said>,
    start: Instant,
    now: Moment,
}

impl Scene {
    fn new(count: usize) -> Scene {
        let start = Instant::now();
        let peers = Peers::new(count, &facts(), 0, start).unwrap();
        let said = (0..2).map(|_| Said::default()).collect();
        Scene { peers, said, start, now: Moment { at: start, micros: 5_000 } }
    }

    fn pass(&mut self, ms: u64) {
        self.now.at += Duration::from_millis(ms);
        self.now.micros += ms * 1_000;
    }

    fn tick(&mut self, due: usize) {
        self.peers.tick(self.now.at, due, &mut self.said);
    }

    fn take(&mut self, socket: usize) -> Vec<Vec<u8>> {
        let said = self.said[socket].datagrams().map(<[u8]>::to_vec).collect();
        self.said[socket].clear();
        said
    }

    fn comes(&mut self, bytes: &[u8], segment: usize) {
        // What the kernel copies of it.
        let head = Head { bytes: &bytes[..bytes.len().min(1_408)], len: bytes.len(), segment };
        self.peers.handle(self.now, head, &mut self.said[0]);
    }

    /// The first peer joins.
    fn joined() -> Scene {
        let mut scene = Scene::new(1);
        scene.tick(1);
        scene.take(0);
        let mut buf = [0; 200];
        let options = Options::reply(CAM, 99, CHUNK as u32);
        let len = build::reply(&mut buf, 1, THEIRS, options, [Span::one(3)]).unwrap();
        scene.comes(&buf[..len], len);
        let said = scene.take(0);
        let (channel, rest) = split(&said[0]).unwrap();
        let messages: Vec<_> = Messages::new(rest, CAM, CHUNK).collect();
        assert_eq!((channel, said.len(), messages.len()), (THEIRS, 1, 1));
        let all =
            |m: &_| matches!(m, Ok(Message::Private(Private::Subscribe(s))) if s.stripes == 255);
        assert!(all(&messages[0]), "{messages:?}");
        scene
    }
}

/// A whole train of the chunks from `first` on, sent at `stamp`.
fn train(first: u64, count: usize, stamp: u64) -> Vec<u8> {
    let leaves = vec![[7; 32]; 4];
    let subtree = build::SignedSubtree {
        first,
        leaves: &leaves,
        munro: &[8; 32],
        ntp: 1,
        signature: &[9; 64],
    };
    let size = CAM.data_header() + CHUNK;
    let mut bytes = vec![0; size * (count + 1)];
    build::hash_datagram(&mut bytes, 1, CAM, &subtree, true, Some(size)).unwrap();
    for (n, datagram) in bytes.chunks_exact_mut(size).skip(1).enumerate() {
        let mut writer = Writer::new(datagram, 1, CAM);
        let chunk = first + n as u64;
        assert!(writer.push(Message::Data { chunk, stamp, bytes: &[0; CHUNK] }));
    }
    bytes
}

fn acks(datagram: &[u8]) -> Vec<(u64, u64, i64)> {
    let (channel, rest) = split(datagram).unwrap();
    assert_eq!(channel, THEIRS);
    let ack = |message| match message {
        Ok(Message::Ack { span, delay }) => Some((span.first, span.last, delay)),
        _ => None,
    };
    Messages::new(rest, CAM, CHUNK).filter_map(ack).collect()
}

#[test]
fn openings_are_repeated_and_given_up() {
    let mut scene = Scene::new(3);
    scene.tick(2);
    let (near, far) = (scene.take(0), scene.take(1));
    assert_eq!((near.len(), far.len()), (1, 1), "the third is not due");
    let (channel, rest) = split(&far[0]).unwrap();
    let first = Messages::opening(rest).next().unwrap().unwrap();
    assert_eq!(channel, 0);
    let Message::Handshake(Handshake { channel, options }) = first else { panic!("{first:?}") };
    assert_eq!((channel, options.judge_opening(CAM, CHUNK as u32)), (2, Ok(())));
    let mut openings = 1;
    while scene.now.at < scene.start + Duration::from_secs(20) {
        scene.pass(50);
        scene.tick(2);
        openings += scene.take(0).len();
    }
    let mark = scene.peers.mark(scene.now.at);
    assert_eq!((openings, mark.failed, mark.open), (OPENINGS as usize, 2, 0));
    assert!(mark.why.unwrap().contains("not answered"));
}

#[test]
fn each_train_is_answered_with_one_ack() {
    let mut scene = Scene::joined();
    let bytes = train(8, 4, 2_000);
    scene.pass(1);
    scene.comes(&bytes, CAM.data_header() + CHUNK);
    let said = scene.take(0);
    assert_eq!((said.len(), acks(&said[0])), (1, vec![(8, 11, 4_000)]));
    assert_eq!(said[0].len(), 4 + 25, "it has just subscribed");
    scene.pass(1_500);
    scene.comes(&train(16, 4, 2_000), CAM.data_header() + CHUNK);
    let said = scene.take(0);
    assert!(said[0].len() > 4 + 25, "with a subscription after a second");
    let mark = scene.peers.mark(scene.now.at);
    assert_eq!((mark.trains, mark.acks, mark.open), (2, 2, 1));
    assert_eq!((mark.lost, mark.bytes), (4, 8 * CHUNK as u64), "12 to 15 never came");
}

#[test]
fn chunks_that_come_one_by_one_are_acknowledged_together() {
    let mut scene = Scene::joined();
    let size = CAM.data_header() + CHUNK;
    let datagrams = train(8, 4, 2_000);
    for datagram in datagrams.chunks_exact(size) {
        assert!(scene.take(0).is_empty());
        scene.comes(datagram, size);
    }
    assert_eq!(acks(&scene.take(0)[0]), [(8, 11, 3_000)]);
    // A hole: what came before it is acknowledged when it shows.
    let datagrams: Vec<&[u8]> = datagrams.chunks_exact(size).collect();
    let again = train(12, 4, 2_000);
    let later: Vec<&[u8]> = again.chunks_exact(size).collect();
    scene.comes(later[1], size);
    scene.comes(later[4], size);
    let said = scene.take(0);
    assert_eq!(said.iter().flat_map(|d| acks(d)).count(), 2);
    scene.comes(datagrams[1], size);
    let mark = scene.peers.mark(scene.now.at);
    assert_eq!((mark.lost, mark.again), (2, 1));
}

#[test]
fn silence_and_goodbyes_are_noticed() {
    let mut scene = Scene::joined();
    scene.pass(1_100);
    scene.tick(1);
    assert_eq!(scene.take(0).len(), 1, "it subscribes again");
    scene.pass(100);
    scene.tick(1);
    assert!(scene.take(0).is_empty());
    scene.comes(&build::close(1), build::CLOSE);
    let mark = scene.peers.mark(scene.now.at);
    assert_eq!((mark.failed, mark.silent, mark.stray), (1, 1, 0));
    scene.comes(&[0, 0, 0, 9, 1], 5);
    assert_eq!(scene.peers.mark(scene.now.at).stray, 1, "nobody's channel");
}

#[test]
fn who_is_far_behind_the_first_is_late() {
    let mut scene = Scene::joined();
    scene.peers.arrived(scene.now.at, 5);
    scene.pass(501);
    scene.peers.arrived(scene.now.at, 5);
    scene.peers.arrived(scene.now.at, 5 + FIRSTS as u64);
    let mark = scene.peers.mark(scene.now.at);
    assert_eq!(mark.late, 1);
    assert!(mark.spread_ms[2] >= 500.0 && mark.spread_ms[0] < 1.0);
}
