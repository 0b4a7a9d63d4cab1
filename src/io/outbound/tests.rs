//! What the kernel's answers lead to, with a kernel that gives them as the test wants.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::base::ids::ShardId;
use crate::base::payload::Payload;
use crate::base::time::Now;
use crate::io::clock::Clock;
use crate::io::driver::Setup;
use crate::io::machine::{Outbox, Train};
use crate::io::mailbox::Post;
use crate::metrics::cells::Cells;

/// Notes what it is told of its socket.
#[derive(Default)]
struct Listener(Vec<bool>);

impl Machine for Listener {
    type Mail = ();
    fn handle(&mut self, _: Now, input: Input<'_, ()>) {
        match input {
            Input::SocketFull { .. } => self.0.push(true),
            Input::SocketReady { .. } => self.0.push(false),
            _ => {}
        }
    }
    fn poll(&mut self, _: Now, _: &mut Outbox<()>) {}
    fn next_deadline(&self) -> Option<Mono> {
        None
    }
}

/// A kernel that gives the answers it is told to, and then what the real one says.
#[derive(Default)]
struct Told {
    answers: VecDeque<Errno>,
    asked: usize,
    watched: Vec<bool>,
}

impl Backend for Told {
    fn new<X: Machine>(_: &Hub<'_, X>) -> std::io::Result<Told> {
        Ok(Told::default())
    }
    fn accept<X: Machine>(&mut self, _: &mut Hub<'_, X>, _: bool) {}
    fn open<X: Machine>(&mut self, _: &mut Hub<'_, X>, _: u32) -> std::io::Result<()> {
        Ok(())
    }
    fn send<X: Machine>(&mut self, _: &mut Hub<'_, X>, _: u32, _: [Payload; 2]) {}
    fn settle<X: Machine>(&mut self, _: &mut Hub<'_, X>, _: u32) {}
    fn ship<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: usize, parcel: Parcel) {
        self.asked += 1;
        match self.answers.pop_front() {
            Some(errno) => conclude(hub, self, index, parcel, Err(errno)),
            None => super::send(hub, self, index, parcel),
        }
    }
    fn watch_room<X: Machine>(
        &mut self,
        _: &mut Hub<'_, X>,
        _: usize,
        on: bool,
    ) -> std::io::Result<()> {
        self.watched.push(on);
        Ok(())
    }
    fn watch_connect<X: Machine>(&mut self, _: &mut Hub<'_, X>, _: u32) -> std::io::Result<()> {
        Ok(())
    }
    fn release<X: Machine>(&mut self, _: &mut Hub<'_, X>, _: u32) {}
    fn flush<X: Machine>(&mut self, _: &mut Hub<'_, X>) {}
    fn dispatch<X: Machine>(&mut self, _: &mut Hub<'_, X>) {}
    fn pending(&mut self) -> bool {
        false
    }
    fn wait(&mut self, _: &Cells, _: Duration) -> std::io::Result<()> {
        Ok(())
    }
}

/// Three datagrams whose bodies begin with `number`.
fn train(to: SocketAddr, number: u8) -> Content {
    let payload = |bytes: Vec<u8>| Payload::from(Bytes::from(bytes));
    Content::Train(Train {
        socket: SocketId::SWARM,
        to,
        from: None,
        channel: 1,
        head: Payload::Empty,
        headers: payload(vec![0; 3 * 12]),
        header: 12,
        body: payload([number, 0, number, 1, number, 2].into()),
        chunk: 2,
    })
}

/// Runs a test with a socket of the swarm and one to send to.
fn with(test: impl FnOnce(&mut Hub<'_, Listener>, &mut Told, &UdpSocket, SocketAddr)) {
    let socket = udp::bind_swarm("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let setup = Setup {
        shard: ShardId(0),
        listeners: Vec::new(),
        sockets: vec![(SocketId::SWARM, socket)],
        post: Post::new(1, 1, 1).unwrap(),
        clock: Clock::start(),
        cells: Arc::new(Cells::default()),
        max_connections: 1,
        descriptors: 1,
        on_ready: Box::new(|| {}),
    };
    let mut machine = Listener::default();
    let mut hub = Hub::new(setup, &mut machine, Now::default());
    let to = receiver.local_addr().unwrap();
    test(&mut hub, &mut Told::default(), &receiver, to);
}

/// The bodies of the next `count` trains arrive in this order.
fn arrive(receiver: &UdpSocket, numbers: &[u8]) {
    for &number in numbers {
        for index in 0..3 {
            let mut got = [0; 20];
            assert_eq!(receiver.recv(&mut got).unwrap(), 14);
            assert_eq!(got[12..14], [number, index]);
        }
    }
}

#[test]
fn a_device_that_cannot_cut_is_remembered_and_a_narrow_way_is_not() {
    with(|hub, told, receiver, to| {
        let cut_here = |hub: &Hub<'_, Listener>| hub.cells.get(Cell::DatagramsCutHere);
        for errno in [Errno::MSGSIZE, Errno::INVAL, Errno::IO] {
            told.answers.push_back(errno);
        }
        for number in 0..3 {
            ship(hub, told, SocketId::SWARM, train(to, number));
        }
        arrive(receiver, &[0, 1, 2]);
        assert_eq!((told.asked, cut_here(hub)), (3, 9));
        ship(hub, told, SocketId::SWARM, train(to, 3));
        arrive(receiver, &[3]);
        assert_eq!((told.asked, cut_here(hub)), (3, 12), "not asked again so soon");
        hub.now.mono = hub.now.mono + DOUBT;
        ship(hub, told, SocketId::SWARM, train(to, 4));
        arrive(receiver, &[4]);
        assert_eq!((told.asked, cut_here(hub)), (4, 12), "it may be another device by now");
        assert_eq!(hub.cells.get(Cell::UdpSentDatagrams), 15);
        assert!(hub.machine().0.is_empty() && told.watched.is_empty());
    });
}

#[test]
fn what_is_not_taken_waits_in_order_and_is_told_once() {
    with(|hub, told, receiver, to| {
        told.answers.push_back(Errno::AGAIN);
        for number in 0..3 {
            ship(hub, told, SocketId::SWARM, train(to, number));
        }
        assert_eq!((told.asked, &told.watched[..]), (1, &[true][..]));
        assert_eq!(hub.machine().0, [true]);
        assert_eq!(hub.next_deadline(), None);
        room(hub, told, 0);
        arrive(receiver, &[0, 1, 2]);
        assert_eq!(
            (&hub.machine().0[..], &told.watched[..]),
            (&[true, false][..], &[true, false][..])
        );
        room(hub, told, 0);
        assert_eq!(hub.machine().0.len(), 2, "told once");

        // Without memory nothing tells when to go on: a moment later.
        told.answers.push_back(Errno::NOBUFS);
        ship(hub, told, SocketId::SWARM, train(to, 3));
        ship(hub, told, SocketId::SWARM, train(to, 4));
        assert_eq!(hub.next_deadline(), Some(hub.now.mono + BREATH));
        retry(hub, told);
        assert_eq!(hub.machine().0, [true, false, true], "not yet");
        hub.now.mono = hub.now.mono + BREATH;
        retry(hub, told);
        arrive(receiver, &[3, 4]);
        assert_eq!((hub.machine().0.len(), hub.next_deadline()), (4, None));
        assert_eq!(hub.cells.get(Cell::UdpSocketFull), 2);
        assert_eq!(hub.cells.get(Cell::DatagramSendErrors), 0);
    });
}

#[test]
fn other_errors_are_losses() {
    with(|hub, told, receiver, to| {
        told.answers.extend([Errno::PERM, Errno::INTR, Errno::NETUNREACH]);
        for number in 0..4 {
            ship(hub, told, SocketId::SWARM, train(to, number));
        }
        arrive(receiver, &[1, 3]);
        assert_eq!(hub.cells.get(Cell::DatagramSendErrors), 6);
        assert!(hub.machine().0.is_empty());
    });
}
