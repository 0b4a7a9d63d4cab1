//! The harness of namespaces itself: addresses, losses, cuts, counters, and that nothing stays.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use common::homes::Nat;
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

#[test]
fn one_byte_of_large_datagrams_is_changed() {
    let Some(world) = World::new(2) else { return };
    let [a, b] = [world.host(0), world.host(1)];
    let (from, to) = (socket(a, a.v4().into()), socket(b, b.v4().into()));
    a.mangle_udp(500);
    let (mut changed, mut buffer) = (0, [0; 1500]);
    for length in [1345, 1000] {
        for _ in 0..100 {
            from.send_to(&vec![7; length], to.local_addr().unwrap()).unwrap();
            assert_eq!(to.recv(&mut buffer).unwrap(), length);
            let others: Vec<_> = (0..length).filter(|at| buffer[*at] != 7).collect();
            assert!(others.is_empty() || (others == [129] && length == 1345), "{others:?}");
            changed += others.len() as u64;
        }
    }
    assert!((20..=80).contains(&changed), "{changed} of 100");
    assert_eq!(a.traffic().mangled.packets, changed);
}

#[test]
fn lines_carry_what_they_are_made_for() {
    let Some(world) = World::new(2) else { return };
    let [a, b] = [world.host(0), world.host(1)];
    a.shape(2_000_000);
    b.lose_udp_to(100);
    let (from, to) = (socket(a, a.v4().into()), socket(b, b.v4().into()));
    to.set_nonblocking(true).unwrap();
    let began = Instant::now();
    while began.elapsed() < secs(2) {
        let _ = from.send_to(&[0; PAYLOAD], to.local_addr().unwrap());
        common::pass(millis(1));
    }
    let traffic = b.traffic();
    let bits = traffic.received.bytes * 8;
    assert!((3_600_000..4_600_000).contains(&bits), "{bits} in 2 s");
    let lost = traffic.lost.packets * 100 / traffic.received.packets;
    assert!((5..15).contains(&lost), "{lost} % lost");
    assert_eq!(a.traffic().lost.packets, 0, "on the way to the other");
    assert!(send(&to, &from, 200).len() == 200, "no loss the other way");
}

/// What `to` gets of a datagram: whether it came, and from where.
fn arrives(from: &UdpSocket, address: SocketAddr, to: &UdpSocket) -> Option<SocketAddr> {
    from.send_to(b"?", address).unwrap();
    to.recv_from(&mut [0; 9]).ok().map(|(_, from)| from)
}

#[test]
fn routers_let_answers_in_and_nothing_else() {
    let Some(mut world) = World::new(4) else { return };
    world.put_behind_router(1, Nat::Keeps);
    world.put_behind_router(2, Nat::Keeps);
    world.put_behind_router(3, Nat::Scatters);
    let any = "0.0.0.0".parse().unwrap();
    let sockets: Vec<_> = world.hosts().iter().map(|host| socket(host, any)).collect();
    let port = sockets[0].local_addr().unwrap().port();
    let server = SocketAddr::new(world.host(0).v4().into(), port);
    // What the server would tell the others.
    let seen: Vec<_> =
        (1..4).map(|k| arrives(&sockets[k], server, &sockets[0]).expect("out goes all")).collect();
    for (k, address) in (1..4).zip(&seen) {
        assert_eq!(address.ip(), IpAddr::from(world.host(k).v4()), "translated");
        assert_eq!(arrives(&sockets[0], *address, &sockets[k]), Some(server), "an answer");
    }
    assert_eq!(arrives(&sockets[2], seen[0], &sockets[1]), None, "nobody asked");
    // The first datagram opens the way for what comes from there, as the one before did.
    assert_eq!(arrives(&sockets[1], seen[1], &sockets[2]), Some(seen[0]), "both sent");
    assert_eq!(arrives(&sockets[2], seen[0], &sockets[1]), Some(seen[1]));
    // Behind the other kind each of them has another address for every other.
    assert_eq!(arrives(&sockets[3], seen[0], &sockets[1]), None, "from an unknown port");
    assert_eq!(arrives(&sockets[1], seen[2], &sockets[3]), None, "to an unknown port");
    assert_eq!(arrives(&sockets[3], seen[0], &sockets[1]), None);
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
        let before = a.traffic().sent_tcp;
        let answer = b.enter(|| relay.get("/streams.json"));
        let sent = a.traffic().sent_tcp - before;
        let body = answer.body.len() as u64;
        assert_eq!(answer.status, 200);
        assert!((body..body + 1_500).contains(&sent.tcp_payload()), "{sent:?} for {body}");
        assert!(TcpStream::connect_timeout(&relay.http, millis(200)).is_err(), "not from here");
    }
}
