//! Two viewers in front of each other's doors.

use super::*;
use crate::ring::records::SubtreeSize;
use crate::swarm::integrity::{KeyPair, Signer};
use crate::wire::ppspp::{Addressing, MessageSet, channel, split};

fn ms(n: u64) -> Mono {
    Mono::from_millis(n)
}

fn profile() -> Profile {
    let swarm_id = KeyPair::generate().unwrap().swarm_id();
    Profile { swarm_id, addressing: Addressing::Chunks64, size: SubtreeSize::new(16).unwrap() }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

const A: &str = "192.0.2.1:1000";
const B: &str = "192.0.2.2:2000";

/// A viewer and its doors.
struct Side {
    doors: Doors,
    addr: SocketAddr,
    /// Given to the doors to answer with.
    next: u32,
    entered: Vec<Entered>,
    answers: usize,
}

impl Side {
    fn new(profile: Profile, at: &str, next: u32) -> Side {
        Side { doors: Doors::new(profile), addr: addr(at), next, entered: vec![], answers: 0 }
    }

    fn openings(&mut self, now: Mono) -> Vec<(SocketAddr, Vec<u8>)> {
        let (mut buf, mut all) = ([0; 200], Vec::new());
        while let Some((to, n)) = self.doors.poll_datagram(now, 4_096, &mut buf) {
            all.push((to, buf[..n].to_vec()));
        }
        all
    }

    /// A datagram comes; what is sent back.
    fn handle(&mut self, now: Mono, from: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
        let (channel, messages) = split(datagram).unwrap();
        if channel != 0 {
            self.entered.extend(self.doors.handle_datagram(now, channel, from, messages));
            return None;
        }
        let have = [Span { first: 32, last: 47 }].into_iter();
        let (mut buf, ours) = ([0; 200], self.next);
        let length = datagram.len();
        let written =
            self.doors.handle_opening(now, from, length, messages, ours, 4_096, have, &mut buf)?;
        self.next += 1;
        self.answers += 1;
        assert!(written <= length);
        Some(buf[..written].to_vec())
    }

    fn dropped(&mut self) -> Vec<u32> {
        std::iter::from_fn(|| self.doors.take_dropped()).collect()
    }

    fn expire(&mut self, now: Mono) -> Vec<(u32, SocketAddr, bool)> {
        let mut all = Vec::new();
        self.doors.expire(now, &mut |ours, to, unreachable| all.push((ours, to, unreachable)));
        all
    }
}

/// The first datagram on a link: a keepalive.
fn hello(theirs: u32) -> Vec<u8> {
    theirs.to_be_bytes().to_vec()
}

fn opening(profile: Profile, change: impl FnOnce(&mut Options<'_>), source: u32) -> Vec<u8> {
    let id = profile.swarm_id;
    let mut options = Options::opening(id.as_bytes(), profile.addressing, 4_096, CHUNK as u32);
    change(&mut options);
    let mut buf = [0; 200];
    let n = build::opening(&mut buf, source, options).unwrap();
    buf[..n].to_vec()
}

#[test]
fn openings_that_cross_become_one_link() {
    for (of_a, of_b) in [(5, 9), (9, 5)] {
        let profile = profile();
        let (mut a, mut b) = (Side::new(profile, A, 100), Side::new(profile, B, 200));
        assert!(a.doors.introduce(ms(10), b.addr, of_a));
        assert!(b.doors.introduce(ms(10), a.addr, of_b));
        assert!(!a.doors.introduce(ms(11), b.addr, 77), "it is under way");
        let (from_a, from_b) = (a.openings(ms(10)), b.openings(ms(10)));
        assert_eq!((from_a[0].0, from_b[0].0), (b.addr, a.addr));
        let to_a = b.handle(ms(30), a.addr, &from_a[0].1);
        let to_b = a.handle(ms(30), b.addr, &from_b[0].1);
        assert_eq!((to_a.is_some(), to_b.is_some()), (of_a < of_b, of_a > of_b));
        let (winner, loser, answer) = match to_a.or(to_b).unwrap() {
            answer if of_a < of_b => (&mut a, &mut b, answer),
            answer => (&mut b, &mut a, answer),
        };
        assert_eq!(loser.dropped(), [9]);
        assert_eq!((winner.dropped(), channel(&answer)), (vec![], Some(5)));
        assert!(!loser.doors.holds(9) && winner.doors.holds(5));
        winner.handle(ms(50), loser.addr, &answer);
        let won = winner.entered[0];
        assert_eq!((won.ours, won.to, won.private, won.rest), (5, loser.addr, true, false));
        assert_eq!(won.rtt, Some(Duration::from_millis(40)));
        assert_eq!(won.opened().have().count(), 1);
        loser.handle(ms(70), winner.addr, &hello(won.theirs));
        let lost = loser.entered[0];
        assert_eq!((lost.ours, lost.theirs, lost.to), (won.theirs, 5, winner.addr));
        assert!(lost.rest && lost.private && lost.opened.is_none());
        assert_eq!(lost.opened().rtt, Duration::from_millis(40));
        assert!(!winner.doors.holds(5) && !loser.doors.holds(lost.ours));
        // The opening that lost, once more.
        let late = opening(profile, |_| {}, 9);
        assert_eq!(winner.handle(ms(80), loser.addr, &late), None);
        // Nothing is left under way, and nobody is opened to twice.
        assert_eq!((winner.expire(ms(9_000)), loser.expire(ms(9_000))), (vec![], vec![]));
        assert!(!winner.doors.introduce(ms(9_000), loser.addr, 78));
        winner.doors.close(5);
        assert!(winner.doors.introduce(ms(9_000), loser.addr, 78));
    }
}

/// Whatever is lost: at most one link, and both ends mean the same one.
#[test]
fn losses_leave_one_link_or_none() {
    let profile = profile();
    let mut linked = 0;
    for seed in 0..300_u64 {
        let mut state = seed;
        let mut lost = |ppm: u64| {
            state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
            (state >> 33) % 100 < ppm
        };
        let (mut a, mut b) = (Side::new(profile, A, 1_000), Side::new(profile, B, 2_000));
        let (of_a, of_b) = if seed % 2 == 0 { (5, 9) } else { (9, 5) };
        let mut wire: Vec<(Mono, bool, Vec<u8>)> = Vec::new();
        for step in 0..400 {
            let now = ms(step * 10);
            if step == 0 {
                a.doors.introduce(now, b.addr, of_a);
            }
            if step == seed % 40 {
                b.doors.introduce(now, a.addr, of_b);
            }
            wire.sort_by_key(|(at, ..)| *at);
            while wire.first().is_some_and(|(at, ..)| *at <= now) {
                let (_, to_b, datagram) = wire.remove(0);
                let (to, from) = if to_b { (&mut b, a.addr) } else { (&mut a, b.addr) };
                let answer = to.handle(now, from, &datagram).filter(|_| !lost(40));
                wire.extend(answer.map(|bytes| (now + Duration::from_millis(30), !to_b, bytes)));
            }
            for (side, to_b) in [(&mut a, true), (&mut b, false)] {
                let mut sent: Vec<_> = side.openings(now).into_iter().map(|(_, d)| d).collect();
                // A link that is open says so now and then.
                sent.extend(
                    side.entered.iter().filter(|_| step % 20 == 0).map(|at| hello(at.theirs)),
                );
                side.expire(now);
                let flight = Duration::from_millis(20 + step % 3 * 10);
                let sent = sent.into_iter().filter(|_| !lost(40));
                wire.extend(sent.map(|datagram| (now + flight, to_b, datagram)));
            }
        }
        assert!(a.entered.len() <= 1 && b.entered.len() <= 1, "{seed}");
        if let (Some(a), Some(b)) = (a.entered.first(), b.entered.first()) {
            assert_eq!((a.ours, a.theirs), (b.theirs, b.ours), "{seed}");
            linked += 1;
        }
    }
    // Four openings and their answers, each of which is lost two times in five.
    assert!(linked > 220, "{linked} of 300");
}

#[test]
fn nobody_is_answered_who_was_not_introduced() {
    let profile = profile();
    let mut door = Side::new(profile, A, 100);
    let right = opening(profile, |_| {}, 9);
    assert_eq!(door.handle(ms(0), addr(B), &right), None);
    door.doors.introduce(ms(0), addr("192.0.2.2:7"), 1);
    assert!(door.handle(ms(59_999), addr(B), &right).is_some(), "another port");
    let again = opening(profile, |_| {}, 10);
    assert_eq!(door.handle(ms(60_000), addr(B), &again), None, "too long ago");
    assert_eq!(door.handle(ms(1), addr("192.0.2.3:7"), &again), None, "another IP");
    // An address of IPv4 that is written as one of IPv6 is the same.
    door.doors.introduce(ms(60_000), addr("[::ffff:192.0.2.3]:7"), 20);
    assert!(door.handle(ms(60_001), addr("192.0.2.3:7"), &right).is_some());
}

#[test]
fn an_opening_must_be_right_in_everything() {
    let profile = profile();
    let mut door = Side::new(profile, A, 100);
    door.doors.introduce(ms(0), addr(B), 1);
    door.doors.openings.clear();
    let other = self::profile().swarm_id;
    let foreign = opening(Profile { swarm_id: other, ..profile }, |_| {}, 9);
    let wrong = [
        opening(profile, |options| options.chunk_size = Some(1_024), 9),
        opening(profile, |options| options.addressing = Some(2), 9),
        opening(profile, |options| options.min_version = None, 9),
        opening(profile, |options| options.integrity = Some(1), 9),
        opening(profile, |options| options.swarm_id = None, 9),
        opening(profile, |_| {}, 0),
        foreign,
        vec![0; 4],
        vec![0, 0, 0, 0, 7, 7],
    ];
    for datagram in wrong {
        assert_eq!(door.handle(ms(1), addr(B), &datagram), None, "{datagram:?}");
    }
    let plain = opening(profile, |options| options.messages = Some(MessageSet::RFC_ALL), 9);
    let answer = door.handle(ms(1), addr(B), &plain).unwrap();
    assert!(answer.len() <= plain.len());
    door.handle(ms(2), addr(B), &hello(100));
    assert!(!door.entered[0].private);
}

#[test]
fn an_opening_that_is_repeated_is_answered_as_before() {
    let profile = profile();
    let mut door = Side::new(profile, A, 100);
    door.doors.introduce(ms(0), addr("192.0.2.2:7"), 1);
    let right = opening(profile, |_| {}, 9);
    let answer = door.handle(ms(1), addr(B), &right).unwrap();
    assert!(door.doors.holds(100));
    assert_eq!(door.handle(ms(2), addr(B), &right).as_ref(), Some(&answer));
    assert!(!door.doors.holds(101), "was not needed");
    assert_eq!(door.doors.handle_datagram(ms(3), 100, addr("192.0.2.9:2000"), &[]), None);
    door.handle(ms(3), addr(B), &hello(100));
    assert_eq!(door.entered.len(), 1);
    assert_eq!(door.handle(ms(4), addr(B), &right), Some(answer), "also when it is open");
    // Another channel is another link.
    let second = opening(profile, |_| {}, 10);
    assert!(door.handle(ms(5), addr(B), &second).is_some());
    // Closed before it began.
    door.handle(ms(6), addr(B), &build::close(door.next - 1));
    assert_eq!((door.entered.len(), door.dropped()), (1, vec![door.next - 1]));
}

#[test]
fn what_is_not_answered_is_told() {
    let profile = profile();
    let mut door = Side::new(profile, A, 100);
    door.doors.introduce(ms(0), addr(B), 5);
    let mut sent = 0;
    let mut now = ms(0);
    while door.expire(now).is_empty() {
        sent += door.openings(now).len();
        let next = door.doors.next_deadline(now).unwrap();
        assert!(next > now);
        now = next;
    }
    assert_eq!((sent, now), (5, ms(3_000)));
    assert_eq!(door.doors.next_deadline(now), None);
    // For a while it is let in, and not opened to again.
    assert!(!door.doors.introduce(now, addr(B), 6));
    assert!(door.openings(now).is_empty());
    assert!(door.handle(ms(3_100), addr(B), &opening(profile, |_| {}, 9)).is_some());
    assert_eq!(door.expire(ms(6_100)), [(100, addr(B), false)], "that led nowhere");
    assert!(!door.doors.introduce(ms(66_099), addr(B), 7), "a minute from then on");
    assert!(door.doors.introduce(ms(66_100), addr(B), 8));
    assert_eq!(door.expire(ms(69_100)), [(8, addr(B), true)]);
}

/// What an answer says is sent to an address of which nothing has come but an opening, which
/// anybody can write; with openings of our own it would be more than a minute's measure.
#[test]
fn who_is_answered_and_does_not_confirm_is_not_opened_to() {
    let profile = profile();
    let mut door = Side::new(profile, A, 100);
    door.doors.introduce(ms(0), addr(B), 50);
    assert_eq!(door.openings(ms(0)).len(), 1);
    assert!(door.handle(ms(10), addr(B), &opening(profile, |_| {}, 9)).is_some());
    assert_eq!(door.dropped(), [50], "theirs counts");
    assert_eq!(door.expire(ms(3_010)), [(100, addr(B), false)]);
    assert!(!door.doors.introduce(ms(5_000), addr(B), 51));
    assert!(door.openings(ms(5_000)).is_empty());
    // It may still come by itself.
    assert!(door.handle(ms(5_000), addr(B), &opening(profile, |_| {}, 10)).is_some());
}

/// The relay has seen another port than we do.
#[test]
fn a_symmetric_nat_gets_through_in_one_direction() {
    let profile = profile();
    let mut door = Side::new(profile, A, 100);
    door.doors.introduce(ms(0), addr(B), 5);
    let stray = addr("192.0.2.2:3333");
    assert!(door.handle(ms(20), stray, &opening(profile, |_| {}, 9)).is_some(), "no crossing");
    door.handle(ms(60), stray, &hello(100));
    assert_eq!(door.entered[0].to, stray);
    assert_eq!(door.expire(ms(3_000)), [(5, addr(B), false)], "there is a path");
    // An answer from another port: that is where the link leads.
    door.doors.introduce(ms(4_000), addr("192.0.2.7:1"), 6);
    let mut buf = [0; 200];
    let options = Options::reply(profile.addressing, 4_096, CHUNK as u32);
    let n = build::reply(&mut buf, 6, 44, options, []).unwrap();
    door.handle(ms(4_050), addr("192.0.2.8:2"), &buf[..n]);
    assert_eq!(door.entered.len(), 1, "another IP");
    door.handle(ms(4_050), addr("192.0.2.7:2"), &buf[..n]);
    assert_eq!((door.entered[1].to, door.entered[1].theirs), (addr("192.0.2.7:2"), 44));
}

#[test]
fn floods_push_the_oldest_out_and_memory_stays() {
    let profile = profile();
    let mut door = Side::new(profile, A, 1_000);
    let viewer = |n: u32| SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 1));
    let taken = (0..200).filter(|n| door.doors.introduce(ms(1), viewer(*n), n + 1)).count();
    assert_eq!((taken, door.doors.introduced.len()), (OPENINGS_MAX, INTRODUCTIONS_MAX));
    let mut forgotten = (200 - INTRODUCTIONS_MAX + 200 - OPENINGS_MAX) as u64;
    assert_eq!(door.doors.forgotten(), forgotten);
    assert_eq!(door.handle(ms(2), viewer(100), &opening(profile, |_| {}, 9)), None);
    for source in 1..=ANSWERS_MAX as u32 + 3 {
        assert!(door.handle(ms(2), viewer(199), &opening(profile, |_| {}, source)).is_some());
    }
    assert_eq!(door.dropped(), [1_000, 1_001, 1_002]);
    forgotten += 3;
    assert_eq!(door.doors.forgotten(), forgotten);
    for source in 1_000..2_000 {
        door.handle(ms(2), viewer(198), &opening(profile, |_| {}, source));
    }
    assert_eq!(door.doors.answers.len(), ANSWERS_MAX);
    assert!(door.dropped().len() <= DROPPED_MAX, "nobody takes them: nobody is answered");
    let gone = door.expire(ms(4_000));
    assert_eq!(gone.len(), OPENINGS_MAX + ANSWERS_MAX);
    assert!(gone.iter().filter(|(.., unreachable)| *unreachable).count() == OPENINGS_MAX);
    // Those who did not answer are remembered up to a number as well.
    let forgotten = door.doors.forgotten();
    for round in 0..5 {
        for n in 0..OPENINGS_MAX as u32 {
            let number = 1_000 + round * OPENINGS_MAX as u32 + n;
            door.doors.introduce(ms(5_000), viewer(number), number);
        }
        door.expire(ms(9_000));
    }
    assert_eq!(door.doors.vain.len(), VAIN_MAX);
    let introduced = 5 * OPENINGS_MAX;
    // The one who was answered and confirmed nothing among them.
    let vain = 5 * OPENINGS_MAX + OPENINGS_MAX + 1 - VAIN_MAX;
    assert_eq!(door.doors.forgotten(), forgotten + (introduced + vain) as u64);
}

/// Sixteen openings of a crowd in one go keep a thin line busy for a hundred milliseconds, and
/// what the viewer asks the relay for waits behind them.
#[test]
fn openings_go_out_one_by_one() {
    let mut side = Side::new(profile(), A, 100);
    for n in 0..4 {
        assert!(side.doors.introduce(ms(10), addr(&format!("192.0.2.9:{}", 9_000 + n)), 50 + n));
    }
    let mut sent = Vec::new();
    let mut now = ms(10);
    for _ in 0..4 {
        sent.extend(side.openings(now).into_iter().map(|(to, _)| (now, to.port())));
        now = side.doors.next_deadline(now).unwrap();
    }
    assert_eq!(sent, [(ms(10), 9_000), (ms(30), 9_001), (ms(50), 9_002), (ms(70), 9_003)]);
}
