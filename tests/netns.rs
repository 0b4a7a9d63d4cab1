//! The harness of namespaces itself: addresses, losses, cuts, counters, and that nothing stays.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use common::netns::{Count, Host, Traffic, World};
use common::{Driver, Setup, millis, secs, wait_for};

/// UDP payload of the tests, and with the headers of IPv4.
const PAYLOAD: usize = 1000;
const PACKET: u64 = 1028;

fn socket(host: &Host, address: IpAddr) -> UdpSocket {
    let socket = host.enter(|| UdpSocket::bind((address, 0)).unwrap());
    socket.set_read_timeout(Some(millis(200))).unwrap();
    socket
}

/// Sends numbered datagrams one by one and returns which of them came.
fn send(from: &UdpSocket, to: &UdpSocket, n: usize) -> BTreeSet<usize> {
    let (mut came, mut buffer) = (BTreeSet::new(), [0; PAYLOAD]);
    let address = to.local_addr().unwrap();
    let mut receive = |came: &mut BTreeSet<usize>| match to.recv(&mut buffer) {
        Ok(_) => came.insert(usize::from_be_bytes(buffer[..8].try_into().unwrap())),
        Err(why) if why.kind() == ErrorKind::Interrupted => true,
        Err(why) => {
            assert_eq!(why.kind(), ErrorKind::WouldBlock);
            false
        }
    };
    for number in 0..n {
        let mut datagram = [0; PAYLOAD];
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        from.send_to(&datagram, address).unwrap();
        if number % 64 == 63 {
            // What lies in the buffer, without waiting.
            to.set_nonblocking(true).unwrap();
            while receive(&mut came) {}
            to.set_nonblocking(false).unwrap();
        }
    }
    while receive(&mut came) {}
    came
}

#[test]
fn hosts_reach_each_other_and_are_counted() {
    let Some(world) = World::new(2) else { return };
    let [a, b] = [world.host(0), world.host(1)];
    for (one, other) in a.addresses().into_iter().zip(b.addresses()) {
        let (from, to) = (socket(a, one), socket(b, other));
        assert_eq!(send(&from, &to, 100).len(), 100, "{one} to {other}");
    }
    let all = 100 * (PACKET + PACKET + 20);
    let sum = Count { packets: 200, bytes: all };
    assert_eq!(a.traffic(), Traffic { sent: sum, ..Traffic::default() });
    assert_eq!(b.traffic(), Traffic { received: sum, ..Traffic::default() });
}

#[test]
fn losses_are_random_and_cuts_are_whole() {
    let Some(world) = World::new(2) else { return };
    let [a, b] = [world.host(0), world.host(1)];
    let (from, to) = (socket(a, a.v4().into()), socket(b, b.v4().into()));
    b.lose_udp(100);
    let came = send(&from, &to, 4000).len();
    // Five standard deviations of a binomial distribution.
    assert!((3505..=3695).contains(&came), "{came} of 4000 at 10 % loss");
    assert_eq!(b.traffic().lost.packets, 4000 - came as u64);
    a.cut_udp(true);
    assert_eq!(send(&from, &to, 50).len(), 0, "cut at the sender, who learns nothing");
    a.cut_udp(false);
    b.cut_udp(true);
    assert_eq!(send(&from, &to, 50).len(), 0, "cut at the receiver");
    assert_eq!(send(&to, &from, 50).len(), 0, "cut both ways");
    let listener = b.enter(|| TcpListener::bind((b.v4(), 0)).unwrap());
    let mut stream = a.enter(|| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    stream.write_all(b"through").unwrap();
    drop(stream);
    let mut text = String::new();
    listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
    assert_eq!(text, "through", "TCP is not cut");
    b.cut_udp(false);
    b.lose_udp(0);
    assert_eq!(send(&from, &to, 100).len(), 100);
}

/// A train that would be lost or counted as one would make every loss a burst.
#[test]
fn trains_are_taken_apart() {
    const TRAIN: &str = "import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(17, 103, 1000)
s.sendto(bytes(17 * 1000), (sys.argv[1], 9))";
    if !common::have(&["python3"]) {
        return;
    }
    let Some(world) = World::new(2) else { return };
    let [a, b] = [world.host(0), world.host(1)];
    let sent = a.command("python3").args(["-c", TRAIN, &b.v4().to_string()]).status().unwrap();
    assert!(sent.success());
    let count = Count { packets: 17, bytes: 17 * PACKET };
    assert_eq!((a.traffic().sent, b.traffic().received), (count, count));
}

#[test]
fn what_no_route_knows_goes_to_the_gateway() {
    let Some(world) = World::new(2) else { return };
    let [a, b] = [world.host(0), world.host(1)];
    a.route_the_rest_to(b);
    for (from, to) in a.addresses().into_iter().zip(["192.0.2.1:9", "[2001:db8::1]:9"]) {
        socket(a, from).send_to(&[0; PAYLOAD], to.parse::<SocketAddr>().unwrap()).unwrap();
    }
    wait_for("both to arrive", secs(5), || (b.traffic().received.packets == 2).then_some(()));
}

#[test]
fn nothing_stays() {
    let name = |kind: &str, pid| format!("headwater-{pid}-{kind}");
    // A test that was killed: its namespaces and what ran there stay behind.
    let script = "ip netns add headwater-$$-0-0 && echo $$ && \
                  (ip netns exec headwater-$$-0-0 sleep 100 >&2 &)";
    if World::new(0).is_none() {
        return;
    }
    let dead = Command::new("sh").args(["-c", script]).stderr(Stdio::null()).output().unwrap();
    let dead: u32 = String::from_utf8(dead.stdout).unwrap().trim().parse().unwrap();
    let path = |name: String| Path::new("/run/netns").join(name);
    assert!(path(name("0-0", dead)).exists());
    let began = Instant::now();
    let world = World::new(61).unwrap();
    println!("61 hosts after {:?}", began.elapsed());
    assert!(!path(name("0-0", dead)).exists(), "leftovers of the dead go");
    let last = world.host(60);
    let mut sleeper = last.command("sleep").arg("100").spawn().unwrap();
    let (from, to) = (world.host(0), last);
    assert_eq!(send(&socket(from, from.v6().into()), &socket(to, to.v6().into()), 5).len(), 5);
    drop(world);
    let end = wait_for("the end of the sleeper", secs(5), || sleeper.try_wait().unwrap());
    assert!(!end.success(), "killed with its world");
    let ours = format!("headwater-{}-", std::process::id());
    let left = std::fs::read_dir("/run/netns").unwrap().flatten().filter(|entry| {
        let name = entry.file_name().into_string().unwrap();
        name.starts_with(&ours) && name.ends_with("-60")
    });
    assert_eq!(left.count(), 0);
}

#[test]
fn a_relay_runs_on_a_host_of_its_own() {
    let Some(world) = World::new(2) else { return };
    let [a, b] = [world.host(0), world.host(1)];
    for address in a.addresses() {
        let setup = Setup::new(Driver::Epoll).host(address).within(a.words());
        let relay = a.enter(|| setup.start());
        assert_eq!(b.enter(|| relay.get("/streams.json").status), 200);
        assert!(TcpStream::connect_timeout(&relay.http, millis(200)).is_err(), "not from here");
    }
}
