//! Two shards as machines, driven by a script: no sockets, no clock, no luck.

use std::time::Duration;

use super::connections::{Connections, Talk};
use super::*;
use crate::base::limits::TS_PACKET;
use crate::registry::stream::State;
use crate::registry::streams::Lookup;
use crate::shard::tests::world::{Client, Source, World, chunk};

mod peers;
mod publishers;
mod world;

/// A publisher on `shard` whose first two seconds came in.
fn live(shard: usize) -> (World, Client, Source) {
    let mut world = World::new();
    let publisher = world.publisher(shard, "cam");
    let mut source = Source::new();
    feed(&mut world, publisher, &mut source, 2_000);
    (world, publisher, source)
}

/// Sends `millis` of the stream as time passes.
fn feed(world: &mut World, publisher: Client, source: &mut Source, millis: u64) {
    for _ in 0..millis / 100 {
        let data = source.next(100);
        world.say(publisher, &chunk(&data));
        world.pass(100);
    }
}

fn body(world: &mut World, client: Client) -> Vec<u8> {
    let got = &world.end(client).got;
    let end = got.windows(4).position(|w| w == b"\r\n\r\n").map_or(got.len(), |at| at + 4);
    got[end..].to_vec()
}

/// Whether everything behind the tables that a viewer begins with ends `sent`.
fn follows(world: &mut World, client: Client, sent: &[u8]) -> bool {
    let body = body(world, client);
    (2..6).any(|n| body.get(n * TS_PACKET..).is_some_and(|b| b.len() > 9 && sent.ends_with(b)))
}

#[test]
fn viewers_of_both_shards_get_what_one_publisher_sends() {
    let (mut world, publisher, mut source) = live(0);
    let viewers = [world.ask(0, "GET /live/cam.ts"), world.ask(1, "GET /live/cam.ts")];
    assert!(world.text(viewers[0]).starts_with("HTTP/1.1 200"));
    feed(&mut world, publisher, &mut source, 3_000);
    world.pass(500);
    for viewer in viewers {
        assert!(follows(&mut world, viewer, &source.sent), "{viewer:?}");
    }
    let Lookup::Present(stream) = world.registry.lookup(&"cam".parse().unwrap()) else { panic!() };
    assert_eq!((stream.viewers(), world.registry.admission.viewers()), (2, 2));
    world.hang_up(viewers[0], Closed::Eof);
    world.hang_up(viewers[1], Closed::Reset);
    assert_eq!((stream.viewers(), world.registry.admission.viewers()), (0, 0));
    assert_eq!((world.both(Cell::ClosedEof), world.both(Cell::ClosedReset)), (1, 1));
    assert_eq!((world.both(Cell::HttpViewers), world.both(Cell::HttpConnections)), (0, 1));
}

#[test]
fn who_waits_is_seated_at_the_first_access_point_and_nobody_waits_for_ever() {
    let mut world = World::new();
    let patient = world.ask(1, "GET /live/cam.ts?wait=10");
    let hasty = world.ask(1, "GET /live/cam.ts?wait=1");
    let other = world.ask(1, "GET /live/cam.ts");
    assert!(world.text(other).starts_with("HTTP/1.1 404"));
    world.pass(1_200);
    assert!(world.text(hasty).starts_with("HTTP/1.1 404"));
    assert_eq!(world.text(patient), "");
    let late = world.ask(1, "GET /live/cam.ts?wait=1");
    let publisher = world.publisher(0, "cam");
    world.settle();
    world.pass(1_200);
    assert_eq!(world.text(late), "", "its time is over, but the stream is about to begin");
    // Live, and no access point yet: also who does not want to wait is held for that.
    let early = world.ask(1, "GET /live/cam.ts");
    assert_eq!(world.text(early), "");
    let mut source = Source::new();
    feed(&mut world, publisher, &mut source, 1_000);
    for viewer in [patient, early, late] {
        assert!(world.text(viewer).starts_with("HTTP/1.1 200"));
        assert!(follows(&mut world, viewer, &source.sent));
    }
    assert!(world.shards[1].waiting.is_empty() && !world.shards[1].haste);
}

#[test]
fn a_head_request_is_answered_like_its_get_and_leaves_no_viewer() {
    let (mut world, publisher, _) = live(0);
    let head = world.ask(1, "HEAD /live/cam.ts");
    assert!(world.text(head).starts_with("HTTP/1.1 200") && body(&mut world, head).is_empty());
    world.hang_up(publisher, Closed::Reset);
    world.settle();
    let held = world.ask(1, "HEAD /live/cam.ts");
    assert!(world.text(held).starts_with("HTTP/1.1 503"), "{}", world.text(held));
    assert!(world.text(held).contains("Retry-After"));
    assert_eq!(world.both(Cell::HttpViewers), 0);
}

#[test]
fn the_end_of_the_linger_time_closes_viewers_everywhere_once() {
    let (mut world, publisher, _) = live(0);
    let viewers: Vec<Client> = (0..20).map(|n| world.ask(n % 2, "GET /live/cam.ts")).collect();
    world.hang_up(publisher, Closed::Eof);
    world.pass(29_900);
    assert!(viewers.iter().all(|viewer| !world.end(*viewer).closed), "held");
    world.pass(400);
    assert!(viewers.iter().all(|viewer| world.end(*viewer).closed));
    assert_eq!(world.both(Cell::ClosedStreamEnded), 20);
    assert_eq!((world.both(Cell::ClosedEof), world.both(Cell::HttpViewers)), (0, 0));
    assert!(matches!(world.registry.lookup(&"cam".parse().unwrap()), Lookup::Known));
    assert_eq!(world.registry.arena().reserved(), 0, "the window is gone with its last user");
    let late = world.ask(0, "GET /live/cam.ts");
    assert!(world.text(late).starts_with("HTTP/1.1 503"), "known, but not live");
}

#[test]
fn heads_of_a_stream_that_is_over_mean_nothing_to_the_one_in_its_place() {
    let (mut world, publisher, _) = live(0);
    let viewer = world.ask(1, "GET /live/cam.ts");
    world.hang_up(publisher, Closed::Eof);
    world.pass(31_000);
    assert!(world.end(viewer).closed);
    let Lookup::Known = world.registry.lookup(&"cam".parse().unwrap()) else { panic!() };
    for slot in [0, 3, 4, 1 << 20] {
        world.tell(1, Input::Head { stream: crate::base::ids::StreamSlot(slot) });
    }
    let publisher = world.publisher(0, "next");
    let mut source = Source::new();
    feed(&mut world, publisher, &mut source, 1_000);
    let viewer = world.ask(1, "GET /live/next.ts");
    world.tell(1, Input::Head { stream: crate::base::ids::StreamSlot(0) });
    feed(&mut world, publisher, &mut source, 1_000);
    world.pass(300);
    assert!(follows(&mut world, viewer, &source.sent));
}

#[test]
fn viewers_may_leave_in_any_order() {
    let (mut world, publisher, mut source) = live(0);
    let mut random = fastrand::Rng::with_seed(4);
    let mut viewers: Vec<Client> = (0..40).map(|_| world.ask(0, "GET /live/cam.ts")).collect();
    random.shuffle(&mut viewers);
    while let Some(viewer) = viewers.pop() {
        world.hang_up(viewer, Closed::Eof);
        if random.u8(..4) == 0 {
            viewers.insert(0, world.ask(0, "GET /live/cam.ts"));
        }
        feed(&mut world, publisher, &mut source, 100);
    }
    let Lookup::Present(stream) = world.registry.lookup(&"cam".parse().unwrap()) else { panic!() };
    assert_eq!((stream.viewers(), world.both(Cell::HttpViewers)), (0, 0));
    assert!(world.shards[0].locals.find(&stream).is_none(), "and nobody is served any more");
}

/// A shard with more work than time must not keep its pins: the writer would run dry.
#[test]
fn a_shard_that_is_never_idle_gives_its_pins_back() {
    let (mut world, publisher, mut source) = live(1);
    let viewer = world.ask(0, "GET /live/cam.ts");
    let mut out = Outbox::new(1);
    // About 4 MB: twice what an arena holds that one viewer pins.
    for _ in 0..1_500 {
        let data = source.next(200);
        world.now = world.now + Duration::from_millis(200);
        world.tell(1, Input::Received { conn: publisher.1, data: &chunk(&data) });
        let now = Now { mono: world.now, ..Now::default() };
        world.tell(0, Input::Head { stream: crate::base::ids::StreamSlot(0) });
        // One poll a round, always with something in it.
        out.drain();
        world.shards[0].poll(now, &mut out);
        if let Some(Output::Send { parts, .. }) = out.as_slice().first() {
            let n = parts.iter().map(crate::base::payload::Payload::len).sum();
            world.tell(0, Input::Sent { conn: viewer.1, n });
        }
    }
    let kept = world.shards[0].locals.get(0).map(|local| local.reader.pins());
    assert!(kept.is_some_and(|kept| kept <= 3), "{kept:?} pins");
    assert_eq!(world.both(Cell::RingStarved), 0);
}

#[test]
fn a_viewer_that_takes_nothing_is_closed_as_stalled_and_one_far_behind_jumps() {
    let (mut world, publisher, mut source) = live(0);
    let (dead, slow) = (world.ask(1, "GET /live/cam.ts"), world.ask(1, "GET /live/cam.ts"));
    world.end(dead).room = 0;
    world.end(slow).room = 0;
    feed(&mut world, publisher, &mut source, 8_000);
    world.unblock(slow);
    assert_eq!(world.cell(1, Cell::HttpSkips), 1);
    assert_eq!(world.cell(1, Cell::Overtaken), 0, "the window still had its place");
    feed(&mut world, publisher, &mut source, 24_000);
    assert!(world.end(dead).closed && !world.end(slow).closed);
    assert_eq!(world.cell(1, Cell::ClosedStalled), 1);
}

#[test]
fn a_drain_parks_publishers_and_closes_everybody_with_its_reason() {
    let (mut world, publisher, _) = live(0);
    let viewer = world.ask(1, "GET /live/cam.ts");
    let idle = world.connect(1);
    for shard in 0..2 {
        world.tell(shard, Input::Drain);
    }
    world.settle();
    for client in [publisher, viewer, idle] {
        assert!(world.end(client).closed);
    }
    let Lookup::Present(stream) = world.registry.lookup(&"cam".parse().unwrap()) else { panic!() };
    assert_eq!(stream.state(), State::Held, "its numbers are final");
    assert_eq!((world.both(Cell::ClosedDrain), world.both(Cell::ClosedEof)), (1, 0));
    assert_eq!((world.both(Cell::Publishers), world.both(Cell::HttpConnections)), (0, 0));
    let late = world.connect(0);
    assert!(world.end(late).closed, "nobody comes in any more");
    assert_eq!(world.registry.admission.connections(), 0);
}

/// What is declared at the start is computed from it. Vectors may be twice as large as what
/// they hold.
#[test]
fn a_connection_fits_what_is_declared() {
    let tables = 2 * (Connections::ENTRY_BYTES + Viewers::ENTRY_BYTES) + 8 * size_of::<ConnId>();
    let talk = size_of::<Talk>();
    let household = 2 * (size_of::<(u128, usize)>() + 8);
    // A viewer's head and tables, until they are sent.
    let prefix = 512;
    let all = (tables + talk.max(prefix) + household) as u64;
    assert!(all <= CONNECTION_BYTES, "{all} bytes");
    // Of a viewer: all but the tables' growth and the kernel's share.
    const { assert!(Viewers::ENTRY_BYTES <= 384) };
}
