//! Publishers that come, fall silent, are replaced and leave, on one shard and on two.

use super::*;

/// One silent for `millis`, and a claimant on `shard`.
fn claimed(shard: usize, millis: u64) -> (World, Client, Source, Client) {
    let (mut world, owner, source) = live(0);
    world.pass(millis);
    let claimant = world.publisher(shard, "cam");
    (world, owner, source, claimant)
}

#[test]
fn a_silent_owner_is_replaced_on_its_own_shard_and_from_another() {
    for shard in [0, 1] {
        let (mut world, owner, _, claimant) = claimed(shard, 600);
        let viewer = world.ask(1, "GET /live/cam.ts");
        // What comes before the seat is free is kept.
        let mut source = Source::new();
        let data = source.next(500);
        world.say(claimant, &chunk(&data));
        world.settle();
        assert!(world.end(owner).closed, "shard {shard}");
        assert_eq!((world.both(Cell::Takeovers), world.both(Cell::Publishers)), (1, 1));
        feed(&mut world, claimant, &mut source, 2_000);
        world.pass(300);
        assert!(!world.end(claimant).closed && !world.end(viewer).closed);
        let got = body(&mut world, viewer);
        assert!(got.ends_with(&source.sent), "all that the second one sent, from its first byte");
        let Lookup::Present(stream) = world.registry.lookup(&"cam".parse().unwrap()) else {
            panic!("gone")
        };
        assert_eq!(stream.discontinuities.load(std::sync::atomic::Ordering::Relaxed), 1);
        world.pass(32_000);
    }
}

#[test]
fn an_owner_that_speaks_is_not_replaced_and_is_asked_again_when_silent() {
    let (mut world, owner, mut source, claimant) = claimed(1, 600);
    // It speaks while the request is under way.
    let data = source.next(100);
    world.say(owner, &chunk(&data));
    world.settle();
    world.pass(400);
    assert!(!world.end(owner).closed && world.text(claimant).is_empty());
    world.pass(500);
    assert!(world.end(owner).closed, "silent again for half a second");
    assert_eq!(world.both(Cell::Takeovers), 1);
    assert!(!world.end(claimant).closed && world.text(claimant).is_empty());
}

#[test]
fn an_owner_that_goes_on_keeps_its_seat() {
    let (mut world, owner, mut source, claimant) = claimed(1, 600);
    feed(&mut world, owner, &mut source, 2_500);
    assert!(world.text(claimant).starts_with("HTTP/1.1 409"), "{}", world.text(claimant));
    assert!(!world.end(owner).closed);
    assert_eq!(world.both(Cell::Takeovers), 0);
    assert!(world.shards[1].waiting.is_empty());
}

#[test]
fn of_two_claimants_one_gets_the_seat() {
    let (mut world, owner, _, first) = claimed(1, 600);
    let second = world.publisher(0, "cam");
    let mut source = Source::new();
    world.settle();
    let seated = |world: &World| world.both(Cell::Publishers);
    assert!(world.end(owner).closed && seated(&world) == 1);
    for _ in 0..25 {
        let data = source.next(100);
        world.say(first, &chunk(&data));
        world.say(second, &chunk(&data));
        world.pass(100);
    }
    let answers = [world.text(first), world.text(second)];
    assert_eq!(answers.iter().filter(|text| text.starts_with("HTTP/1.1 409")).count(), 1);
    assert_eq!((seated(&world), world.both(Cell::Takeovers)), (1, 1));
}

#[test]
fn few_may_wait_for_a_seat_and_with_few_bytes() {
    let (mut world, _, _, first) = claimed(1, 600);
    let more: Vec<Client> = (0..4).map(|_| world.publisher(1, "cam")).collect();
    assert!(world.text(more[2]).is_empty());
    assert!(world.text(more[3]).starts_with("HTTP/1.1 409"), "the fifth");
    let piece = chunk(&vec![0x47; 1 << 20]);
    for _ in 0..4 {
        world.say(first, &piece);
    }
    assert!(world.text(first).is_empty());
    world.say(first, &piece);
    assert!(world.text(first).starts_with("HTTP/1.1 409"), "more than it may send unasked");
    let again = world.publisher(1, "cam");
    assert!(world.text(again).is_empty(), "its place is free again");
}

/// It was answered "published" although nothing was.
#[test]
fn a_body_that_ends_before_the_seat_is_free_is_published_or_refused() {
    for owner_speaks in [true, false] {
        let (mut world, owner, mut source, claimant) = claimed(1, 600);
        let data = source.next(1_000);
        world.say(claimant, &[&chunk(&data)[..], b"0\r\n\r\n"].concat());
        assert_eq!(world.text(claimant), "", "not decided yet");
        if owner_speaks {
            let mut other = Source::new();
            feed(&mut world, owner, &mut other, 2_500);
            assert!(world.text(claimant).starts_with("HTTP/1.1 409"), "{}", world.text(claimant));
            continue;
        }
        world.settle();
        assert!(world.text(claimant).starts_with("HTTP/1.1 200"), "{}", world.text(claimant));
        let Lookup::Present(stream) = world.registry.lookup(&"cam".parse().unwrap()) else {
            panic!("gone")
        };
        assert_eq!(stream.state(), State::Held);
        let taken = stream.ingest_bytes(crate::registry::stream::Proto::Http);
        assert_eq!(taken, source.sent.len() as u64, "both runs");
    }
}

#[test]
fn a_publisher_keeps_its_connection_for_what_comes_after() {
    let (mut world, publisher, _) = live(0);
    world.say(publisher, b"0\r\n\r\n");
    assert!(world.text(publisher).starts_with("HTTP/1.1 200"));
    world.end(publisher).got.clear();
    world.say(publisher, b"GET /live/cam/status.json HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(world.text(publisher).contains("\"held\""), "{}", world.text(publisher));
    world.end(publisher).got.clear();
    // Again a publisher, and one that waits to be asked for its body.
    let head = "PUT /live/cam HTTP/1.1\r\nHost: h\r\nContent-Length: 188\r\n\
                Expect: 100-continue\r\n\r\n";
    world.say(publisher, head.as_bytes());
    assert!(world.text(publisher).starts_with("HTTP/1.1 100"));
    assert_eq!(world.both(Cell::Publishers), 1);
    world.say(publisher, &[0x47; 188]);
    assert!(world.text(publisher).contains("HTTP/1.1 200"));
    assert_eq!(world.both(Cell::Publishers), 0);
    world.settle();
    assert_eq!(world.shards[0].lingering.len(), 1, "one entry a stream, however often it comes");
}

#[test]
fn silence_is_noticed_within_three_seconds_and_linger_counts_from_there() {
    let (mut world, publisher, _) = live(0);
    world.pass(2_300);
    assert!(!world.end(publisher).closed);
    world.pass(500);
    assert!(world.end(publisher).closed);
    assert_eq!((world.both(Cell::PublishersVanished), world.both(Cell::Publishers)), (1, 0));
    world.pass(29_000);
    assert!(matches!(world.registry.lookup(&"cam".parse().unwrap()), Lookup::Present(_)));
    world.pass(1_500);
    assert!(matches!(world.registry.lookup(&"cam".parse().unwrap()), Lookup::Known));
}

/// The mail that a seat is free overtakes nothing: it may come late, or after the seat is taken.
#[test]
fn late_mail_changes_nothing() {
    let (mut world, owner, _, claimant) = claimed(1, 600);
    assert!(world.deliver_one(0), "the owner is asked");
    world.run();
    assert!(world.end(owner).closed);
    // The claimant's own look comes before the mail.
    world.now = world.now + Duration::from_millis(30);
    world.run();
    assert_eq!(world.cell(1, Cell::Publishers), 1);
    world.settle();
    assert_eq!((world.both(Cell::Publishers), world.both(Cell::Takeovers)), (1, 1));
    assert!(!world.end(claimant).closed);
    // A second request to give up the old ticket does not touch the new publisher.
    world.now = world.now + Duration::from_millis(700);
    let Lookup::Present(stream) = world.registry.lookup(&"cam".parse().unwrap()) else { panic!() };
    for shard in 0..2 {
        let stream = Arc::clone(&stream);
        world.tell(shard, Input::Mail(Mail::GiveUp { stream, ticket: 1 }));
    }
    world.settle();
    assert!(!world.end(claimant).closed);
}
