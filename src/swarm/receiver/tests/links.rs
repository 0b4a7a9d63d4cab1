//! Beside each other: a link to the relay and links to neighbours, and who is asked when.

use super::*;

/// The chunks that a neighbour's link asks for, first to last.
fn questions(world: &World, link: &mut Receiver, now: Mono) -> Vec<[u64; 2]> {
    let World { assembly, store, source, .. } = world;
    let mut buf = [0; 1_500];
    let mut asked = Vec::new();
    let view = View { assembly, store, asks: Some(&|_| true) };
    while let Some(n) = link.poll_datagram(now, view, &mut buf, &mut |_, _| {}) {
        for message in Messages::new(&buf[4..n], source.profile.addressing, CHUNK) {
            if let Message::Request(span) = message.unwrap() {
                asked.push([span.first, span.last]);
            }
        }
    }
    asked
}

/// Those of them for chunk `first` and what follows it.
fn questions_from(world: &World, link: &mut Receiver, now: Mono, first: u64) -> Vec<[u64; 2]> {
    questions(world, link, now).into_iter().filter(|asked| asked[0] >= first).collect()
}

/// A world in which a link to a neighbour begins, the train that is signed then, and its first
/// chunk.
fn beside() -> (World, Receiver, Vec<Vec<u8>>, u64) {
    let mut world = World::new(Source::new(16, Addressing::Chunks64, 160), Weather::default(), 80);
    world.run(500);
    world.wire.clear();
    let (profile, now) = (world.source.profile, world.now);
    let other = Receiver::neighbour(profile, 7, true, Some(Duration::from_millis(40)), now);
    let train = world.source.sign(now);
    let first = world.source.end() - 16;
    (world, other, train, first)
}

/// A datagram comes on another link than the source's.
fn hear(world: &mut World, receiver: &mut Receiver, at: Mono, datagram: &[u8]) {
    let World { assembly, store, fresh, verifier, .. } = world;
    let mut tools = Tools { assembly, store, fresh, verifier };
    receiver.handle_datagram(at, &datagram[4..], &mut tools, &mut |_| Ok(()));
}

/// On a neighbour's link a hash that was lost is asked for with one chunk, not with all that
/// waited for it: the hash goes before the answer.
#[test]
fn a_hash_that_was_lost_on_the_way_from_a_neighbour_is_asked_for_soon() {
    let (mut world, mut other, train, first) = beside();
    let now = world.now;
    for (n, chunk) in [3, 4, 6].into_iter().enumerate() {
        hear(&mut world, &mut other, now + Duration::from_millis(n as u64), &train[chunk]);
    }
    let news: Vec<_> = other.take_news().collect();
    assert_eq!(news, [News::Hashed(first / 16)], "it is being pushed");
    let at = |millis| now + Duration::from_millis(millis);
    let early = questions_from(&world, &mut other, at(19), first);
    assert!(early.is_empty(), "{early:?}: it may only have been overtaken");
    let asked = questions_from(&world, &mut other, at(20), first);
    assert_eq!(asked, [[first + 2; 2]]);
    let hashes = world.source.hashes(first);
    hear(&mut world, &mut other, at(60), &hashes);
    for n in [2, 3, 5] {
        assert!(world.store.has(first + n), "{n} was kept");
    }
    assert!(!other.take_news().any(|news| news == News::Hashed(first / 16)), "that was said");
    assert_eq!(other.counts().bad(), 0);
    hear(&mut world, &mut other, at(61), &train[3]);
    assert_eq!(other.counts().duplicates, 1, "the price");
    // What was overtaken is asked for soon, the rest may still be on its way.
    hear(&mut world, &mut other, at(62), &train[7]);
    let asked = questions_from(&world, &mut other, at(82), first);
    assert_eq!(asked, [[first, first + 1], [first + 4; 2]]);
}

/// Chunks of a neighbour come singly. What comes in fifty milliseconds, gaps or not, is
/// acknowledged in one go; and at once what makes a subtree whole.
#[test]
fn what_a_neighbour_sends_singly_is_acknowledged_every_fifty_milliseconds() {
    let (mut world, mut other, train, first) = beside();
    let now = world.now;
    let acked = |world: &World, link: &mut Receiver, millis: u64| -> Vec<[u64; 2]> {
        let World { assembly, store, source, .. } = world;
        let (view, at) =
            (View { assembly, store, asks: None }, now + Duration::from_millis(millis));
        let mut buf = [0; 1_500];
        let mut spans = Vec::new();
        let due = link.next_deadline(view).is_some_and(|due| due <= at);
        while let Some(n) = link.poll_datagram(at, view, &mut buf, &mut |_, _| {}) {
            assert!(due, "only when it was said to be");
            for message in Messages::new(&buf[4..n], source.profile.addressing, CHUNK) {
                if let Message::Ack { span, .. } = message.unwrap() {
                    spans.push([span.first, span.last]);
                }
            }
        }
        spans
    };
    acked(&world, &mut other, 0);
    world.receive(&train[0][4..]);
    for (millis, chunk) in [(1, 0), (4, 1), (40, 2)] {
        let at = now + Duration::from_millis(millis);
        hear(&mut world, &mut other, at, &train[1 + chunk]);
        assert!(other.owes());
    }
    assert_eq!(acked(&world, &mut other, 50), Vec::<[u64; 2]>::new());
    assert_eq!(acked(&world, &mut other, 51), [[first, first + 2]]);
    assert!(!other.owes());
    for datagram in &train[4..] {
        hear(&mut world, &mut other, now + Duration::from_millis(60), datagram);
    }
    assert_eq!(acked(&world, &mut other, 60), [[first, first + 15]], "whole");
}

/// Whoever waits for a link need not ask it again after what goes on as before.
#[test]
fn what_comes_stirs_a_link_when_something_is_due_sooner() {
    let (mut world, mut other, _, _) = beside();
    let mut rng = fastrand::Rng::with_seed(5);
    let mut comes = Vec::new();
    for train in 1..40 {
        let signed = world.source.sign(world.now + Duration::from_millis(train * 80));
        for (n, datagram) in (0..).zip(signed) {
            if rng.u8(..10) == 0 {
                continue;
            }
            let late = if rng.u8(..20) == 0 { rng.u64(..400) } else { rng.u64(..7) };
            comes.push((train * 80 + n * 5 + late, datagram.clone()));
            if rng.u8(..20) == 0 {
                comes.push((train * 80 + n * 5 + rng.u64(..500), datagram));
            }
        }
    }
    comes.sort();
    let (begin, mut due, mut quiet) = (world.now, Mono::ZERO, 0);
    for (millis, datagram) in comes {
        let now = begin + Duration::from_millis(millis);
        if due <= now {
            questions(&world, &mut other, now);
            due = deadline(&world, &other);
        }
        if rng.u8(..4) == 0 {
            // Another link's: who holds both knows.
            world.now = now;
            world.receive(&datagram[4..]);
            due = due.min(deadline(&world, &other));
            continue;
        }
        hear(&mut world, &mut other, now, &datagram);
        if other.take_stirred() {
            due = Mono::ZERO;
            continue;
        }
        quiet += 1;
        due = if other.owes() { due.min(now + compose::ACK_MAX) } else { due };
        assert!(due <= deadline(&world, &other), "at {millis} ms");
        world.store.writer().publish(now);
    }
    assert!(quiet > 150, "{quiet}");
}

fn deadline(world: &World, link: &Receiver) -> Mono {
    let World { assembly, store, .. } = world;
    let view = View { assembly, store, asks: Some(&|_| true) };
    link.next_deadline(view).unwrap_or(Mono::from_millis(u64::MAX / 1_000_000))
}

/// An answer comes in several trains. What has not come of it is not asked for again with the
/// first of them, though its time is over, but when no more of it comes.
#[test]
fn the_rest_of_an_answer_is_waited_for() {
    let (mut world, mut other, train, first) = beside();
    let now = world.now;
    world.receive(&train[0][4..]);
    let at = |millis| now + Duration::from_millis(millis);
    let asked = |world: &World, link: &mut Receiver, millis| -> Vec<[u64; 2]> {
        questions_from(world, link, at(millis), first)
    };
    assert_eq!(asked(&world, &mut other, 0), [[first, first + 15]]);
    for datagram in &train[1..8] {
        hear(&mut world, &mut other, at(600), datagram);
    }
    assert_eq!(asked(&world, &mut other, 600), Vec::<[u64; 2]>::new(), "the rest comes behind it");
    assert_eq!(asked(&world, &mut other, 1_079), Vec::<[u64; 2]>::new());
    assert_eq!(asked(&world, &mut other, 1_080), [[first + 7, first + 15]]);
}

#[test]
fn a_relay_is_asked_again_soon_and_a_neighbour_later() {
    for (neighbour, least) in [(false, 40 + 40 * 6 / 5), (true, 400 + 2 * 40)] {
        let (mut world, mut other, train, first) = beside();
        other.neighbour = neighbour;
        world.receive(&train[0][4..]);
        let now = world.now;
        let asked = |other: &mut Receiver, at: Mono| -> Vec<[u64; 2]> {
            questions_from(&world, other, at, first)
        };
        assert_eq!(asked(&mut other, now), [[first, first + 15]]);
        // At twice the stream's rate sixteen take eight times a chunk's; half as much again.
        let again = now + Duration::from_millis(least) + world.assembly.chunk_time() * 12;
        assert!(asked(&mut other, again - Duration::from_millis(1)).is_empty(), "{neighbour}");
        assert_eq!(asked(&mut other, again), [[first, first + 15]], "{neighbour}");
    }
}

#[test]
fn what_is_not_kept_is_counted() {
    let (mut world, mut other, _, first) = beside();
    let now = world.now;
    for n in 0..300 {
        let mut buf = [0; 40];
        let mut writer = Writer::new(&mut buf, 7, world.source.profile.addressing);
        assert!(writer.push(Message::Have(Span { first: first - n, last: first - n })));
        let datagram = writer.written().to_vec();
        hear(&mut world, &mut other, now, &datagram);
    }
    assert_eq!((other.counts().news_forgotten, other.take_news().count()), (300 - 256, 256));
    // Far behind what is played: three trains come at once.
    let old: Vec<Vec<u8>> = (0..3).flat_map(|_| world.source.sign(now)).collect();
    world.run(30_000);
    let before = world.receiver.counts().duplicates;
    old.iter().for_each(|datagram| world.receive(&datagram[4..]));
    let counts = world.receiver.counts();
    assert_eq!((counts.duplicates - before, counts.late_forgotten), (48, 48 - 40));
}

/// Chunks of an answer come in one train: what comes sooner than a round trip after the question
/// was only late, and says nothing of the rest; after that, the rest is lost when a pause follows.
#[test]
fn an_answer_takes_a_round_trip_and_its_train_has_no_pause() {
    for (rtt, came, pause) in [(40, 29, None), (40, 30, Some(10)), (400, 300, Some(50))] {
        let (mut world, mut other, train, first) = beside();
        other.neighbour = false;
        other.set_rtt(Duration::from_millis(rtt));
        world.receive(&train[0][4..]);
        let begun = world.now;
        let asked = |world: &World, link: &mut Receiver, millis| -> Vec<[u64; 2]> {
            let at = begun + Duration::from_millis(millis);
            questions_from(world, link, at, first)
        };
        assert_eq!(asked(&world, &mut other, 0), [[first, first + 15]]);
        // Once more on a long way.
        asked(&world, &mut other, came.min(30));
        hear(&mut world, &mut other, begun + Duration::from_millis(came), &train[3]);
        let rest = [[first, first + 1], [first + 3, first + 15]];
        let Some(pause) = pause else {
            assert_eq!(asked(&world, &mut other, came + 11), Vec::<[u64; 2]>::new(), "late");
            continue;
        };
        assert_eq!(asked(&world, &mut other, came + pause - 1), Vec::<[u64; 2]>::new(), "{rtt}");
        assert_eq!(asked(&world, &mut other, came + pause), rest, "{rtt}");
    }
}

/// On a long way to the relay a question that is lost is not missed before it is too late: it is
/// sent twice, and what is asked again for want of an answer is asked no later.
#[test]
fn on_a_long_way_a_question_goes_out_twice() {
    for (rtt, neighbour, twice) in [(99, false, false), (100, false, true), (300, true, false)] {
        let (mut world, mut other, train, first) = beside();
        other.neighbour = neighbour;
        other.set_rtt(Duration::from_millis(rtt));
        world.receive(&train[0][4..]);
        let begun = world.now;
        let asked = |other: &mut Receiver, at: Mono| -> usize {
            let asked = questions_from(&world, other, at, first);
            assert!(asked.iter().all(|asked| *asked == [first, first + 15]), "{asked:?}");
            asked.len()
        };
        assert_eq!(asked(&mut other, begun), 1);
        let second = begun + Duration::from_millis(30);
        assert_eq!(deadline(&world, &other) == second, twice, "{rtt}, {neighbour}");
        assert_eq!(asked(&mut other, second), usize::from(twice), "{rtt}, {neighbour}");
        let least = if neighbour { 400_000 + 2_000 * rtt } else { 40_000 + 1_200 * rtt };
        let again = Duration::from_micros(least) + world.assembly.chunk_time() * 12;
        let before = again - Duration::from_millis(31);
        assert_eq!(asked(&mut other, second + before), 0, "not a third time");
        assert_eq!(asked(&mut other, begun + again), 1);
        let second = begun + again + Duration::from_millis(30);
        assert_eq!(asked(&mut other, second), usize::from(twice), "each of them");
    }
}

/// Of a handshake that was lost and said again the round trip is too long. On the way as it is,
/// the relay has answered when the question comes again, and would take it for a loss.
#[test]
fn whose_answers_come_sooner_asks_once() {
    let (mut world, mut other, train, first) = beside();
    (other.neighbour, other.rtt) = (false, Duration::from_millis(160));
    world.receive(&train[0][4..]);
    let begun = world.now;
    let at = |millis| begun + Duration::from_millis(millis);
    let asked = |world: &World, other: &mut Receiver, millis| -> bool {
        !questions_from(world, other, at(millis), first).is_empty()
    };
    assert!(asked(&world, &mut other, 0) && asked(&world, &mut other, 30));
    hear(&mut world, &mut other, at(40), &train[1]);
    let again = 40 + 192 + world.assembly.chunk_time().as_millis() as u64 * 12 + 40;
    assert!(asked(&world, &mut other, again));
    assert!(!asked(&world, &mut other, again + 30), "answers come in 40 ms");
}
