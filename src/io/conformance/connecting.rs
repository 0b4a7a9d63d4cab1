//! Connections that the machine asks for, on both drivers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use bytes::Bytes;
use socket2::{Domain, SockRef, Socket, Type};

use crate::base::ids::{ConnId, ShardId};
use crate::io::conformance::rig::{Driver, Event, Options, PATIENCE, Rig, pattern};
use crate::io::machine::{Closed, ConnectError, Output};

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
    a_connection_that_was_opened_is_as_any_other,
    nobody_listens_and_no_way_leads_there,
    the_other_end_closes_at_once,
    the_table_is_the_limit,
    silence_is_given_up,
    the_end_answers_what_is_open,
);

/// Asks for a connection: the machine's word for it.
fn ask(rig: &Rig, token: u64, to: SocketAddr) {
    rig.order(0, move |machine| machine.connect(token, to));
}

fn connected(rig: &Rig, token: u64) -> ConnId {
    rig.wait_for(|event| match event {
        Event::Connected(told, conn) if told == token => Some(conn),
        Event::ConnectFailed(..) => panic!("{event:?}"),
        _ => None,
    })
}

/// An address that takes a first packet and answers nothing: a listener whose queue is full.
struct Silent {
    _listener: Socket,
    _queue: Vec<Socket>,
    address: SocketAddr,
}

impl Silent {
    fn new() -> Silent {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let queue = (0..4).map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            socket
        });
        Silent { _queue: queue.collect(), _listener: listener, address }
    }
}

fn a_connection_that_was_opened_is_as_any_other(driver: Driver) {
    let rig = Rig::start(driver, &Options { echo: true, ..Options::default() });
    for host in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(host).unwrap();
        for token in [7, u64::MAX] {
            ask(&rig, token, listener.local_addr().unwrap());
            let conn = connected(&rig, token);
            let (mut other, _) = listener.accept().unwrap();
            other.set_read_timeout(Some(PATIENCE)).unwrap();
            let hello = pattern(300_000, token);
            let copy = Bytes::from(hello.clone());
            rig.order(0, move |machine| machine.write(conn, copy, false));
            let mut got = vec![0; hello.len()];
            other.read_exact(&mut got).unwrap();
            assert!(got == hello);
            other.write_all(&hello[..1000]).unwrap();
            other.read_exact(&mut got[..1000]).unwrap();
            assert!(got[..1000] == hello[..1000]);
            rig.order(0, move |machine| machine.todo.push_back(Output::Close { conn }));
            assert_eq!(other.read(&mut got).unwrap(), 0);
            rig.wait_for(|event| (event == Event::Closed(conn, Closed::Local)).then_some(()));
        }
    }
    // Many at once, on top of those that come in.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let _clients: Vec<_> = (0..20).map(|_| rig.connect()).collect();
    rig.order(0, move |machine| (0..100).for_each(|token| machine.connect(token, to)));
    let mut ends: Vec<_> = (0..100).map(|_| listener.accept().unwrap().0).collect();
    let mut ids: Vec<ConnId> = (0..100)
        .map(|_| {
            rig.wait_for(|event| match event {
                Event::Connected(_, conn) => Some(conn),
                _ => None,
            })
        })
        .collect();
    ids.sort_by_key(|conn| conn.index);
    ids.dedup();
    assert_eq!(ids.len(), 100);
    for end in &mut ends {
        end.write_all(b"ping").unwrap();
        let mut back = [0; 4];
        end.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"ping");
    }
}

fn nobody_listens_and_no_way_leads_there(driver: Driver) {
    let rig = Rig::start(driver, &Options::default());
    for host in ["127.0.0.1:0", "[::1]:0"] {
        let nobody = TcpListener::bind(host).unwrap().local_addr().unwrap();
        ask(&rig, 1, nobody);
        assert_eq!(rig.event(), Event::ConnectFailed(1, ConnectError::Refused));
    }
    // Addresses for documentation that no interface has a way to, or none without a gateway.
    ask(&rig, 2, "255.255.255.255:9".parse().unwrap());
    let Event::ConnectFailed(2, why) = rig.event() else { panic!("no answer") };
    assert!(matches!(why, ConnectError::Unreachable | ConnectError::Other), "{why:?}");
    // The places are free again.
    let (_client, _) = rig.connect();
}

fn the_other_end_closes_at_once(driver: Driver) {
    let rig = Rig::start(driver, &Options::default());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for token in 0..20 {
        ask(&rig, token, listener.local_addr().unwrap());
        let (mut other, _) = listener.accept().unwrap();
        let reset = token % 2 == 1;
        if reset {
            SockRef::from(&other).set_linger(Some(Duration::ZERO)).unwrap();
        } else {
            other.write_all(b"bye").unwrap();
        }
        drop(other);
        // It was open, and perhaps reset before the machine could be told.
        match rig.event() {
            Event::Connected(told, conn) => {
                assert_eq!(told, token);
                if !reset {
                    assert_eq!(rig.event(), Event::Received(conn, b"bye".to_vec()));
                }
                let why = if reset { Closed::Reset } else { Closed::Eof };
                assert_eq!(rig.event(), Event::Closed(conn, why));
            }
            Event::ConnectFailed(told, _) => assert!(reset && told == token),
            other => panic!("{other:?}"),
        }
    }
}

fn the_table_is_the_limit(driver: Driver) {
    let rig = Rig::start(driver, &Options { max_connections: 2, ..Options::default() });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let (client, conn) = rig.connect();
    ask(&rig, 1, to);
    let first = connected(&rig, 1);
    ask(&rig, 2, to);
    assert_eq!(rig.event(), Event::ConnectFailed(2, ConnectError::NoRoom));
    // One that comes in waits as it does when the table is full of others.
    let _third = crate::io::conformance::rig::client(rig.addrs[0]);
    assert!(rig.silent_for(Duration::from_millis(250)));
    drop(client);
    assert_eq!(rig.event(), Event::Closed(conn, Closed::Eof));
    let Event::Accepted { .. } = rig.event() else { panic!("no accept") };
    rig.order(0, move |machine| machine.todo.push_back(Output::Close { conn: first }));
    assert_eq!(rig.event(), Event::Closed(first, Closed::Local));
    // The place is free as soon as the kernel has let go of it.
    let failed = Event::ConnectFailed(3, ConnectError::NoRoom);
    let start = Instant::now();
    loop {
        ask(&rig, 3, to);
        let event = rig.event();
        if event != failed {
            assert!(matches!(event, Event::Connected(3, _)), "{event:?}");
            break;
        }
        assert!(start.elapsed() < PATIENCE, "the place stays taken");
    }
}

fn silence_is_given_up(driver: Driver) {
    let rig = Rig::start(driver, &Options { max_connections: 2, ..Options::default() });
    let silent = Silent::new();
    let start = Instant::now();
    ask(&rig, 9, silent.address);
    assert!(rig.silent_for(Duration::from_millis(4500)), "given up too early");
    assert_eq!(rig.event(), Event::ConnectFailed(9, ConnectError::TimedOut));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    // Both places are free.
    let (_a, _) = rig.connect();
    let (_b, _) = rig.connect();
}

fn the_end_answers_what_is_open(driver: Driver) {
    let silent = Silent::new();
    let rig = Rig::start(driver, &Options::default());
    ask(&rig, 5, silent.address);
    assert!(rig.silent_for(Duration::from_millis(100)));
    rig.post.halt();
    let failed = Event::ConnectFailed(5, ConnectError::Other);
    assert_eq!(rig.join(), [(ShardId(0), failed)]);
    // A drain opens nothing more.
    let rig = Rig::start(driver, &Options::default());
    let (_client, _) = rig.connect();
    rig.post.drain();
    assert_eq!(rig.event(), Event::Drain);
    ask(&rig, 6, silent.address);
    assert_eq!(rig.event(), Event::ConnectFailed(6, ConnectError::Other));
}
