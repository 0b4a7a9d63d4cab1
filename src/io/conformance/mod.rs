//! One test suite of the loop, run for every driver: the contract of [`crate::io::machine`],
//! against real loopback sockets driven from another thread.

mod connecting;
mod datagrams;
mod rig;
mod trains;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use bytes::Bytes;
use socket2::SockRef;

use crate::base::ids::{ConnId, ListenerId, ShardId, StreamSlot};
use crate::base::payload::Payload;
use crate::io::machine::{Closed, Output};
use crate::metrics::table::Cell;
use rig::{Driver, Event, Mail, Options, Rig, client, pattern};

macro_rules! for_every_driver {
    ($($test:ident),* $(,)?) => {
        mod epoll {
            $(#[test] fn $test() { super::$test(super::Driver::Epoll); })*
        }
        mod uring {
            $(#[test] fn $test() {
                match crate::io::probe::uring() {
                    Ok(()) => super::$test(super::Driver::Uring),
                    Err(why) => println!("SKIPPED: {why}"),
                }
            })*
        }
        mod uring_table {
            $(#[test] fn $test() {
                match crate::io::probe::uring_table() {
                    Ok(()) => super::$test(super::Driver::UringTable),
                    Err(why) => println!("SKIPPED: {why}"),
                }
            })*
        }
    };
}

for_every_driver!(
    connections_are_told_in_order,
    everything_comes_back,
    ipv6_is_equal,
    many_clients_at_once,
    a_reader_that_does_not_read_blocks_and_resumes,
    the_backlog_is_respected,
    shutdown_lets_the_other_end_read_the_rest,
    close_is_told_once_and_stale_outputs_are_ignored,
    the_other_end_leaves,
    mail_keeps_its_order_through_full_mailboxes,
    heads_wake_and_fuse,
    a_deadline_is_honoured,
    a_deadline_is_not_rounded,
    a_drain_ends_with_the_last_connection_of_all_shards,
    a_drain_ends_after_the_grace_period,
    accepting_pauses_at_the_limit_and_resumes,
    a_halt_closes_what_is_open,
    a_flood_does_not_starve_the_others,
    a_panic_takes_no_other_shard_along,
    some_connections_have_no_descriptor,
    a_rally_loses_no_wake_up,
    the_figures_move,
);

fn connections_are_told_in_order(driver: Driver) {
    let rig = Rig::start(driver, &Options::default());
    let clients: Vec<_> = (0..20).map(|_| client(rig.addrs[0])).collect();
    let mut ids: Vec<ConnId> = Vec::new();
    for client in &clients {
        let Event::Accepted { conn, listener, peer } = rig.event() else { panic!("no accept") };
        assert_eq!((listener, peer), (ListenerId(7), client.local_addr().unwrap()));
        assert!(!ids.contains(&conn));
        ids.push(conn);
    }
}

/// Sends `data` and reads as much back, at the same time.
fn exchange(client: &mut std::net::TcpStream, data: &[u8]) {
    let mut back = vec![0; data.len()];
    std::thread::scope(|scope| {
        let mut sender = client.try_clone().unwrap();
        scope.spawn(move || sender.write_all(data).unwrap());
        client.read_exact(&mut back).unwrap();
    });
    assert!(back == data, "what came back is not what was sent");
}

fn everything_comes_back(driver: Driver) {
    let rig = Rig::start(driver, &Options { echo: true, ..Options::default() });
    let (mut client, _) = rig.connect();
    for size in [1, 2, 188, 70_000, 3_000_000] {
        exchange(&mut client, &pattern(size, size as u64));
    }
    for round in 0..500 {
        exchange(&mut client, &pattern(10, round));
    }
}

fn ipv6_is_equal(driver: Driver) {
    let rig = Rig::start(driver, &Options { echo: true, listen: "[::1]:0", ..Options::default() });
    let (mut client, _) = rig.connect();
    assert!(client.peer_addr().unwrap().is_ipv6());
    exchange(&mut client, &pattern(100_000, 6));
}

fn many_clients_at_once(driver: Driver) {
    let rig = Rig::start(driver, &Options { echo: true, ..Options::default() });
    let mut clients: Vec<_> = (0..300).map(|_| client(rig.addrs[0])).collect();
    let data = pattern(20_000, 3);
    for client in &mut clients {
        client.write_all(&data).unwrap();
    }
    for client in &mut clients {
        let mut back = vec![0; data.len()];
        client.read_exact(&mut back).unwrap();
        assert!(back == data);
    }
    assert!(rig.count(Cell::IoEvents) >= 300 && rig.count(Cell::IoEnters) > 0);
}

fn a_reader_that_does_not_read_blocks_and_resumes(driver: Driver) {
    let rig = Rig::start(driver, &Options::default());
    let (mut client, conn) = rig.connect();
    let data = Bytes::from(pattern(30_000_000, 4));
    let copy = data.clone();
    rig.order(0, move |machine| machine.write(conn, copy, true));
    rig.wait_for(|event| (event == Event::Blocked(conn)).then_some(()));
    assert!(rig.silent_for(Duration::from_millis(100)), "blocked means blocked");
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert!(got == data);
    rig.wait_for(|event| (event == Event::Writable(conn)).then_some(()));
}

/// How much the kernel takes for a client that reads nothing.
fn taken(rig: &Rig, backlog: Option<u32>) -> usize {
    let (_client, conn) = rig.connect();
    let data = Bytes::from(vec![1; 30_000_000]);
    rig.order(0, move |machine| {
        if let Some(bytes) = backlog {
            machine.todo.push_back(Output::Backlog { conn, bytes });
        }
        machine.write(conn, data, false);
    });
    let mut sum = 0;
    rig.wait_for(|event| match event {
        Event::Sent(_, n) => {
            sum += n;
            None
        }
        Event::Blocked(_) => Some(sum),
        _ => None,
    })
}

fn the_backlog_is_respected(driver: Driver) {
    let rig = Rig::start(driver, &Options::default());
    let (without, with) = (taken(&rig, None), taken(&rig, Some(16 * 1024)));
    assert!(with * 2 < without, "{with} bytes with a limit, {without} without");
}

fn shutdown_lets_the_other_end_read_the_rest(driver: Driver) {
    let rig = Rig::start(driver, &Options::default());
    let (mut client, conn) = rig.connect();
    // In one batch: what was sent goes first.
    rig.order(0, move |machine| {
        let parts = [Bytes::from_static(b"last words").into(), Payload::Empty];
        machine.mark_sending(conn, 10);
        machine.todo.push_back(Output::Send { conn, parts });
        machine.todo.push_back(Output::Shutdown { conn });
    });
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"last words");
    client.write_all(b"thanks").unwrap();
    rig.wait_for(|event| (event == Event::Received(conn, b"thanks".to_vec())).then_some(()));
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rig.event(), Event::Closed(conn, Closed::Eof));
}

fn close_is_told_once_and_stale_outputs_are_ignored(driver: Driver) {
    let rig = Rig::start(driver, &Options::default());
    let (mut client, conn) = rig.connect();
    let stale = move || {
        let parts = [Bytes::from_static(b"stale").into(), Payload::Empty];
        [
            Output::Send { conn, parts },
            Output::Backlog { conn, bytes: 1 },
            Output::Shutdown { conn },
            Output::Close { conn },
        ]
    };
    rig.order(0, move |machine| {
        machine.mark_sending(conn, 3);
        let parts = [Bytes::from_static(b"b").into(), Bytes::from_static(b"ye").into()];
        machine.todo.push_back(Output::Send { conn, parts });
        machine.todo.push_back(Output::Close { conn });
        machine.todo.extend(stale());
    });
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"bye");
    rig.wait_for(|event| (event == Event::Closed(conn, Closed::Local)).then_some(()));
    // The place is used again under another id, which the old one does not touch.
    let (mut client, next) = loop {
        let (client, next) = rig.connect();
        if next.index == conn.index {
            break (client, next);
        }
    };
    assert_ne!(next.generation, conn.generation);
    rig.order(0, move |machine| {
        machine.todo.extend(stale());
        machine.write(next, Bytes::from_static(b"fresh"), true);
    });
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"fresh");
    drop(client);
    rig.wait_for(|event| (event == Event::Closed(next, Closed::Eof)).then_some(()));
}

fn the_other_end_leaves(driver: Driver) {
    let rig = Rig::start(driver, &Options::default());
    let (mut client, conn) = rig.connect();
    client.write_all(b"so long").unwrap();
    drop(client);
    assert_eq!(rig.event(), Event::Received(conn, b"so long".to_vec()));
    assert_eq!(rig.event(), Event::Closed(conn, Closed::Eof));
    let (client, conn) = rig.connect();
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(rig.event(), Event::Closed(conn, Closed::Reset));
    // While a send is blocked, too.
    let (client, conn) = rig.connect();
    rig.order(0, move |machine| machine.write(conn, vec![0; 30_000_000].into(), false));
    rig.wait_for(|event| (event == Event::Blocked(conn)).then_some(()));
    drop(client); // Unread data: the kernel answers with a reset.
    let why = rig.wait_for(|event| match event {
        Event::Closed(_, why) => Some(why),
        _ => None,
    });
    assert_eq!(why, Closed::Reset);
    assert!(rig.silent_for(Duration::from_millis(50)), "nothing after Closed");
}

fn mail_keeps_its_order_through_full_mailboxes(driver: Driver) {
    const COUNT: u32 = 10_000;
    let rig = Rig::start(driver, &Options { shards: 2, mailbox: 2, ..Options::default() });
    for from in 0..2u16 {
        rig.order(from, move |machine| {
            for number in 0..COUNT {
                // Every third one to itself: no shard is a special case.
                let shard = if number % 3 == 0 { ShardId(from) } else { ShardId(1 - from) };
                let mail = Mail::Number(number * 2 + u32::from(from));
                machine.todo.push_back(Output::Mail { shard, mail });
            }
        });
    }
    let mut got = [const { Vec::new() }; 2];
    for _ in 0..2 * COUNT {
        if let (shard, Event::Number(number)) = rig.next() {
            got[usize::from(shard.0)].push(number);
        }
    }
    for (shard, got) in (0u32..).zip(got) {
        for from in 0..2 {
            let wanted: Vec<u32> = (0..COUNT)
                .filter(|n| (n % 3 == 0) == (from == shard))
                .map(|n| n * 2 + from)
                .collect();
            let came: Vec<u32> = got.iter().copied().filter(|n| n % 2 == from).collect();
            assert!(came == wanted, "from {from} to {shard}");
        }
    }
    assert!(rig.count(Cell::MailRetries) > 0);
}

fn heads_wake_and_fuse(driver: Driver) {
    let rig = Rig::start(driver, &Options { shards: 2, ..Options::default() });
    let start = Instant::now();
    for _ in 0..30 {
        rig.order(0, |machine| {
            for _ in 0..500 {
                for stream in [StreamSlot(3), StreamSlot(9_000)] {
                    machine.todo.push_back(Output::Head { shard: ShardId(1), stream });
                }
            }
        });
        let mut heads = [0, 0];
        let mut asked = false;
        let ask = |from, number| {
            rig.order(from, move |machine| {
                let (shard, mail) = (ShardId(1), Mail::Number(number));
                machine.todo.push_back(Output::Mail { shard, mail });
            });
        };
        loop {
            match rig.next() {
                (ShardId(1), Event::Head(3)) => heads[0] += 1,
                (ShardId(1), Event::Head(9_000)) => heads[1] += 1,
                // Mail is taken before heads; mail to itself comes a turn later, after them.
                (ShardId(1), Event::Number(1)) => ask(1, 2),
                (ShardId(1), Event::Number(2)) => break,
                other => panic!("{other:?}"),
            }
            // Only when the heads alone have woken it: mail behind them.
            if heads.iter().all(|&n| n > 0) && !std::mem::replace(&mut asked, true) {
                ask(0, 1);
            }
        }
        assert!(heads.iter().all(|&n| (1..=500).contains(&n)), "{heads:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(8), "without a wake-up it takes a second each");
    assert!(rig.cells[1].get(Cell::Wakeups) > 0);
    // To itself nothing can come between: all of one outbox are one.
    let before = rig.cells[0].get(Cell::Wakeups);
    let (tell, told) = std::sync::mpsc::channel();
    rig.order(0, move |machine| {
        let head = || Output::Head { shard: ShardId(0), stream: StreamSlot(5) };
        machine.todo.extend(std::iter::repeat_with(head).take(100));
        machine.deadline = Some(machine.now.mono + Duration::from_millis(50));
        tell.send(()).unwrap();
    });
    told.recv_timeout(rig::PATIENCE).unwrap();
    assert_eq!(rig.event(), Event::Head(5));
    assert!(matches!(rig.event(), Event::Deadline(_)), "told once");
    assert!(rig.cells[0].get(Cell::Wakeups) <= before + 1, "woken by the order only");
}

/// How late the machine is asked that wants to be asked in a while.
fn lateness(rig: &Rig, wait: Duration) -> Duration {
    let (tell, told) = std::sync::mpsc::channel();
    rig.order(0, move |machine| {
        let deadline = machine.now.mono + wait;
        machine.deadline = Some(deadline);
        tell.send(deadline).unwrap();
    });
    let wanted = told.recv_timeout(rig::PATIENCE).unwrap();
    let Event::Deadline(came) = rig.event() else { panic!("no deadline") };
    assert!(came >= wanted, "early");
    came.since(wanted)
}

fn a_deadline_is_honoured(driver: Driver) {
    let rig = Rig::start(driver, &Options::default());
    for millis in [0, 1, 30, 120] {
        let late = lateness(&rig, Duration::from_millis(millis));
        assert!(late < Duration::from_millis(500), "{late:?} late");
    }
    let rounds = rig.count(Cell::LoopRounds);
    assert!(rounds < 200, "{rounds} rounds for four deadlines: a busy loop");
}

/// Flush intervals are a few milliseconds: half of one lost to rounding would be seen.
fn a_deadline_is_not_rounded(driver: Driver) {
    let rig = Rig::start(driver, &Options::default());
    let each = (0..30).map(|_| lateness(&rig, Duration::from_micros(1300)));
    // The best of many: what is late every time is not the fault of a busy machine.
    let best = each.min().unwrap();
    assert!(best < Duration::from_micros(400), "late by {best:?} at best");
}

fn a_drain_ends_with_the_last_connection_of_all_shards(driver: Driver) {
    let rig = Rig::start(driver, &Options { shards: 2, ..Options::default() });
    let (client, conn) = rig.connect();
    let start = Instant::now();
    rig.post.drain();
    rig.post.drain();
    for _ in 0..2 {
        assert_eq!(rig.event(), Event::Drain);
    }
    // The shard without connections still serves the other one.
    rig.order(0, |machine| {
        let (shard, mail) = (ShardId(1), Mail::Number(5));
        machine.todo.push_back(Output::Mail { shard, mail });
    });
    assert_eq!(rig.next(), (ShardId(1), Event::Number(5)));
    for addr in &rig.addrs {
        assert!(std::net::TcpStream::connect(addr).is_err(), "nobody comes in any more");
    }
    drop(client);
    assert_eq!(rig.join(), [(ShardId(0), Event::Closed(conn, Closed::Eof))]);
    assert!(start.elapsed() < Duration::from_millis(1900), "ended only by the grace period");
}

fn a_drain_ends_after_the_grace_period(driver: Driver) {
    let rig = Rig::start(driver, &Options::default());
    let (_client, conn) = rig.connect();
    let start = Instant::now();
    rig.post.drain();
    assert_eq!(rig.event(), Event::Drain);
    assert_eq!(rig.join(), [(ShardId(0), Event::Closed(conn, Closed::Local))]);
    let took = start.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(6)).contains(&took), "{took:?}");
}

fn accepting_pauses_at_the_limit_and_resumes(driver: Driver) {
    let rig = Rig::start(driver, &Options { max_connections: 2, ..Options::default() });
    let (first, conn) = rig.connect();
    let (_second, _) = rig.connect();
    let mut third = client(rig.addrs[0]);
    third.write_all(b"patient").unwrap();
    let before = rig.count(Cell::LoopRounds);
    assert!(rig.silent_for(Duration::from_millis(350)), "one too many was let in");
    let rounds = rig.count(Cell::LoopRounds) - before;
    assert!(rounds < 20, "{rounds} rounds while paused: a busy loop");
    assert!(rig.count(Cell::AcceptErrorsExhausted) > 0);
    drop(first);
    assert_eq!(rig.event(), Event::Closed(conn, Closed::Eof));
    let Event::Accepted { conn: next, peer, .. } = rig.event() else { panic!("no accept") };
    assert_eq!(peer, third.local_addr().unwrap());
    assert_eq!(rig.event(), Event::Received(next, b"patient".to_vec()));
}

fn a_halt_closes_what_is_open(driver: Driver) {
    let rig = Rig::start(driver, &Options::default());
    let (mut client, conn) = rig.connect();
    rig.post.halt();
    assert_eq!(rig.join(), [(ShardId(0), Event::Closed(conn, Closed::Local))]);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
}

fn a_flood_does_not_starve_the_others(driver: Driver) {
    let rig = Rig::start(driver, &Options { echo: true, ..Options::default() });
    let (mut flood, conn) = rig.connect();
    let (mut other, _) = rig.connect();
    rig.order(0, move |machine| machine.sink = Some(conn));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                flood.write_all(&[7; 64 * 1024]).unwrap();
            }
        });
        for round in 0..50 {
            let start = Instant::now();
            exchange(&mut other, &pattern(100, round));
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

fn a_panic_takes_no_other_shard_along(driver: Driver) {
    let mut rig = Rig::start(driver, &Options { shards: 2, mailbox: 1, ..Options::default() });
    let (mut client, _) = rig.connect();
    rig.order(0, |machine| {
        // With operations of every kind in flight, whose memory goes with the stack.
        machine.todo.clear();
        std::panic::resume_unwind(Box::new("as the test wants it"));
    });
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "the sockets are closed");
    assert!(rig.ended_by_panic(0));
    rig.order(1, |machine| {
        for _ in 0..10 {
            let mail = Mail::Number(0);
            machine.todo.push_back(Output::Mail { shard: ShardId(0), mail });
        }
        let (shard, mail) = (ShardId(1), Mail::Number(1));
        machine.todo.push_back(Output::Mail { shard, mail });
    });
    assert_eq!(rig.next(), (ShardId(1), Event::Number(1)), "it does not wait for the dead");
    rig.post.drain();
    rig.wait_for(|event| (event == Event::Drain).then_some(()));
    rig.join();
}

fn some_connections_have_no_descriptor(driver: Driver) {
    const DESCRIPTORS: usize = 10;
    let options = Options { echo: true, descriptors: DESCRIPTORS, ..Options::default() };
    let rig = Rig::start(driver, &options);
    let settled = |wanted: u64| {
        let start = Instant::now();
        while rig.count(Cell::UringTableSockets) != wanted {
            assert!(start.elapsed() < rig::PATIENCE, "not {wanted} sockets in the table");
            std::thread::yield_now();
        }
    };
    for round in 0..3 {
        let mut clients: Vec<_> = (0..50).map(|_| rig.connect().0).collect();
        let moved = if driver == Driver::UringTable { clients.len() - DESCRIPTORS } else { 0 };
        settled(moved as u64);
        for (client, n) in clients.iter_mut().zip(0..) {
            exchange(client, &pattern(30_000, round * 50 + n));
        }
        drop(clients);
        settled(0);
    }
}

/// Two shards hit a ball to and fro, each asleep or about to be while the other one has it.
fn a_rally_loses_no_wake_up(driver: Driver) {
    const HITS: u32 = 200_000;
    /// A driver that missed a wake-up sleeps a second and finds the ball then.
    const LOST: Duration = Duration::from_millis(950);
    let rig = Rig::start(driver, &Options { shards: 2, ..Options::default() });
    for shard in 0..2 {
        rig.order(shard, |machine| machine.rally = Some(HITS / 2));
    }
    rig.order(0, |machine| {
        let (shard, stream) = (ShardId(1), StreamSlot(17));
        machine.todo.push_back(Output::Head { shard, stream });
    });
    let start = Instant::now();
    let mut slept = Vec::new();
    for _ in 0..2 {
        let event = rig.events_within(Duration::from_secs(120));
        let Event::Rally(longest) = event else { panic!("{event:?}") };
        slept.push(longest);
    }
    println!("{HITS} hits in {:?}, longest pauses {slept:?}", start.elapsed());
    assert!(slept.iter().all(|&longest| longest < LOST), "a wake-up was lost: {slept:?}");
    let woken = rig.count(Cell::Wakeups);
    assert!(woken > 100, "only {woken} wake-ups: nobody ever slept");
    assert!(woken <= u64::from(HITS) + 10, "{woken} wake-ups for {HITS} hits");
}

/// Every figure of the driver counts what its help says.
fn the_figures_move(driver: Driver) {
    const CLIENTS: usize = 40;
    const EACH: usize = 150_000;
    let options = Options { receive_buffer: Some(2 * EACH), echo: true, ..Options::default() };
    let rig = Rig::start(driver, &options);
    let enters = rig.count(Cell::IoEnters);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| rig.connect().0).collect();
    let accepted = rig.count(Cell::IoEvents);
    let (release, held) = std::sync::mpsc::channel::<()>();
    rig.order(0, move |_| {
        let _ = held.recv_timeout(rig::PATIENCE);
    });
    // All of them while the shard is busy: it takes them up in one round.
    let data = pattern(EACH, 5);
    for client in &mut clients {
        client.write_all(&data).unwrap();
    }
    release.send(()).unwrap();
    for client in &mut clients {
        let mut back = vec![0; EACH];
        client.read_exact(&mut back).unwrap();
        assert!(back == data);
    }
    assert!(rig.count(Cell::IoEnters) > enters);
    assert!(rig.count(Cell::IoEvents) >= accepted + CLIENTS as u64);
    let uring = driver != Driver::Epoll;
    // Accept, the bell, a receive operation per connection; more when they are armed again.
    assert_eq!(rig.count(Cell::UringSubmissions) >= CLIENTS as u64 + 2, uring);
    // There are fewer buffers than what came at once would fill.
    assert_eq!(rig.count(Cell::UringEnobufs) > 0, uring);
    assert!(rig.count(Cell::UringRearms) >= rig.count(Cell::UringEnobufs));
    assert_eq!(rig.count(Cell::UringRearms) > 0, uring);
}
