//! What a machine sends by UDP, on both drivers, as plain sockets receive it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::base::ids::SocketId;
use crate::base::payload::Payload;
use crate::io::clock::Clock;
use crate::io::conformance::rig::{Driver, Event, Mail, Options, PATIENCE, Rig, client, pattern};
use crate::io::machine::{Output, Train};
use crate::io::udp::set_option;
use crate::metrics::table::Cell;

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
    };
}

for_every_driver!(
    a_train_arrives_as_it_was_meant,
    datagrams_and_trains_keep_their_order,
    the_source_is_the_address_that_was_asked,
    an_unreachable_port_harms_nobody,
    what_the_kernel_refuses_is_counted,
    a_full_socket_is_told_and_nothing_is_lost,
    what_the_kernel_cannot_cut_is_cut_here,
    a_way_that_takes_less_gets_single_datagrams,
    a_flood_of_small_datagrams_is_taken,
);

/// Bytes of a header and of a chunk.
const HEADER: usize = 29;
const CHUNK: usize = 1316;

/// The shapes of trains: whether there is a head, and how many datagrams behind it.
const SHAPES: [(bool, usize); 5] = [(true, 16), (false, 16), (true, 0), (false, 1), (true, 3)];

fn start(driver: Driver, swarm: &'static str) -> Rig {
    Rig::start(driver, &Options { swarm: Some(swarm), ..Options::default() })
}

/// A socket that waits, but not for ever.
fn receiver(host: &str) -> UdpSocket {
    let socket = UdpSocket::bind((host, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // Beyond the sysctl's limit where the kernel grants it: nothing may be lost here.
    if set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 16 << 20).is_err() {
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 16 << 20).unwrap();
    }
    socket
}

/// A train that may go from thread to thread.
#[derive(Clone)]
struct Sample {
    to: SocketAddr,
    from: Option<IpAddr>,
    channel: u32,
    head: Bytes,
    headers: Bytes,
    body: Bytes,
}

impl Sample {
    fn new(to: SocketAddr, head: bool, others: usize, seed: u64) -> Sample {
        Sample {
            to,
            from: None,
            channel: seed as u32 | 0x8000_0000,
            head: pattern(if head { HEADER + CHUNK } else { 0 }, seed + 2).into(),
            headers: pattern(others * HEADER, seed).into(),
            body: pattern(others * CHUNK, seed + 1).into(),
        }
    }

    fn output(self) -> Output<Mail> {
        Output::Train(Train {
            socket: SocketId::SWARM,
            to: self.to,
            from: self.from,
            channel: self.channel,
            head: self.head.into(),
            headers: self.headers.into(),
            header: HEADER as u16,
            body: self.body.into(),
            chunk: CHUNK as u16,
        })
    }

    /// Bytes of all its datagrams.
    fn len(&self) -> usize {
        self.head.len() + self.headers.len() + self.body.len()
    }

    /// Receives it: who it came from, and its stamps without repetitions.
    fn check(&self, socket: &UdpSocket) -> (SocketAddr, Vec<u64>) {
        let (mut source, mut stamps) = (None, Vec::new());
        let head = (!self.head.is_empty()).then(|| self.head.to_vec());
        let pairs = self.headers.chunks(HEADER).zip(self.body.chunks(CHUNK));
        let others = pairs.map(|(header, chunk)| [header, chunk].concat());
        let headed = usize::from(head.is_some());
        for (index, mut wanted) in head.into_iter().chain(others).enumerate() {
            let mut got = [0; 3000];
            let (n, from) = socket.recv_from(&mut got).unwrap();
            wanted[..4].copy_from_slice(&self.channel.to_be_bytes());
            if index >= headed {
                let place = HEADER - 8..HEADER;
                stamps.push(u64::from_be_bytes(got[place.clone()].try_into().unwrap()));
                wanted[place.clone()].copy_from_slice(&got[place]);
            }
            assert!(got[..n] == wanted, "datagram {index} of channel {:x}", self.channel);
            source = Some(from);
        }
        stamps.dedup();
        assert!(stamps.is_sorted(), "{stamps:?}");
        (source.unwrap(), stamps)
    }
}

/// One datagram from the socket of the swarm.
fn datagram(to: SocketAddr, from: Option<IpAddr>, data: impl Into<Bytes>) -> Output<Mail> {
    let data = Payload::from(data.into());
    Output::Datagram { socket: SocketId::SWARM, to, from, data }
}

fn micros() -> u64 {
    Clock::start().mono().as_nanos() / 1000
}

fn a_train_arrives_as_it_was_meant(driver: Driver) {
    for (bind, host) in [
        ("127.0.0.1:0", "127.0.0.1"),
        ("[::1]:0", "::1"),
        ("[::]:0", "127.0.0.1"),
        ("[::]:0", "::1"),
    ] {
        let rig = start(driver, bind);
        let socket = receiver(host);
        let ours = SocketAddr::new(host.parse().unwrap(), rig.swarm.unwrap().port());
        for (seed, (head, others)) in (0..).zip(SHAPES) {
            let sample = Sample::new(socket.local_addr().unwrap(), head, others, seed);
            let (copy, before) = (sample.clone(), micros());
            rig.order(0, move |machine| machine.todo.push_back(copy.output()));
            let (from, stamps) = sample.check(&socket);
            assert_eq!(from, ours, "{bind}");
            assert_eq!(stamps.len(), others.min(1), "one for all");
            assert!(stamps.iter().all(|stamp| (before..=micros()).contains(stamp)), "{stamps:?}");
        }
        assert_eq!(rig.count(Cell::DatagramSendErrors), 0);
    }
}

fn datagrams_and_trains_keep_their_order(driver: Driver) {
    let rig = start(driver, "127.0.0.1:0");
    let socket = receiver("127.0.0.1");
    let to = socket.local_addr().unwrap();
    let mut bytes = 0;
    for round in 0..20 {
        let samples = (0..10).map(|n| {
            let (head, others) = SHAPES[n % SHAPES.len()];
            Sample::new(to, head, others, round * 100 + n as u64)
        });
        let samples: Vec<_> = samples.collect();
        let copies = samples.clone();
        rig.order(0, move |machine| {
            for (n, sample) in copies.into_iter().enumerate() {
                machine.todo.push_back(sample.output());
                machine.todo.push_back(datagram(to, None, vec![n as u8; 50 + n]));
            }
        });
        for (n, sample) in samples.iter().enumerate() {
            sample.check(&socket);
            let mut got = [0; 100];
            let length = socket.recv(&mut got).unwrap();
            assert_eq!(got[..length], vec![n as u8; 50 + n]);
            bytes += sample.len() + 50 + n;
        }
    }
    // Counted when answered, which may be a moment after it has arrived.
    wait_until(|| rig.count(Cell::UdpSentBytes) >= bytes as u64);
    assert_eq!(rig.count(Cell::UdpSentBytes), bytes as u64);
    assert_eq!(rig.count(Cell::UdpSentDatagrams), 20 * (2 * (17 + 16 + 1 + 1 + 4) + 10));
    assert_eq!(rig.count(Cell::UdpSentTrains), 20 * 2 * 3);
    assert_eq!((rig.count(Cell::DatagramsCutHere), rig.count(Cell::DatagramsUnfit)), (0, 0));
}

fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() && start.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
}

fn the_source_is_the_address_that_was_asked(driver: Driver) {
    for bind in ["0.0.0.0:0", "[::]:0"] {
        let rig = start(driver, bind);
        let port = rig.swarm.unwrap().port();
        // What the kernel would choose for a way back to 127.0.0.1 is that address.
        for asked in ["127.0.0.1", "127.9.8.7", "127.0.0.2"] {
            let socket = receiver("127.0.0.1");
            socket.send_to(b"who", (asked, port)).unwrap();
            let Event::Datagrams { from, to, .. } = rig.event() else { panic!("no datagram") };
            assert_eq!((from, to), (socket.local_addr().unwrap(), asked.parse().ok()), "{bind}");
            let sample = Sample { from: to, ..Sample::new(from, true, 2, 3) };
            let copy = sample.clone();
            rig.order(0, move |machine| {
                machine.todo.extend([copy.output(), datagram(from, to, &b"me"[..])]);
            });
            let ours = SocketAddr::new(asked.parse().unwrap(), port);
            assert_eq!(sample.check(&socket).0, ours, "{bind}");
            assert_eq!(socket.recv_from(&mut [0; 9]).unwrap(), (2, ours));
        }
    }
    let rig = start(driver, "[::]:0");
    let (socket, asked) = (receiver("::1"), "::1".parse::<IpAddr>().unwrap());
    let sample = Sample::new(socket.local_addr().unwrap(), true, 16, 4);
    let sample = Sample { from: Some(asked), ..sample };
    let copy = sample.clone();
    rig.order(0, move |machine| machine.todo.push_back(copy.output()));
    assert_eq!(sample.check(&socket).0.ip(), asked);
}

fn an_unreachable_port_harms_nobody(driver: Driver) {
    for (bind, host) in [("127.0.0.1:0", "127.0.0.1"), ("[::]:0", "::1")] {
        let rig = start(driver, bind);
        let nobody = receiver(host).local_addr().unwrap();
        let socket = receiver(host);
        for round in 0..50 {
            let lost = Sample::new(nobody, true, 16, round);
            let sample = Sample::new(socket.local_addr().unwrap(), true, 16, round);
            let copy = sample.clone();
            rig.order(0, move |machine| machine.todo.extend([lost.output(), copy.output()]));
            sample.check(&socket);
        }
        let data = b"still here";
        socket.send_to(data, (host, rig.swarm.unwrap().port())).unwrap();
        let told = rig.event();
        assert!(matches!(told, Event::Datagrams { data: ref got, .. } if got == data), "{told:?}");
    }
}

fn what_the_kernel_refuses_is_counted(driver: Driver) {
    let rig = start(driver, "127.0.0.1:0");
    let socket = receiver("127.0.0.1");
    let to = socket.local_addr().unwrap();
    // An address of the other family, one that may not be sent to, and too much for a datagram.
    let elsewhere = ["[::1]:9".parse().unwrap(), "255.255.255.255:9".parse().unwrap()];
    rig.order(0, move |machine| {
        let trains = elsewhere.map(|to| Sample::new(to, true, 16, 1).output());
        machine.todo.extend(trains);
        machine.todo.push_back(datagram(to, None, vec![0; 65_530]));
        machine.todo.push_back(datagram(to, None, &b"after"[..]));
    });
    assert_eq!(socket.recv(&mut [0; 9]).unwrap(), 5);
    wait_until(|| rig.count(Cell::UdpSentDatagrams) == 1);
    assert_eq!(rig.count(Cell::DatagramSendErrors), 17 + 17 + 1);
    assert_eq!(rig.count(Cell::UdpSocketFull), 0);
}

/// Runs a test on a thread with a network of its own, set up by `commands`. False, with a reason
/// printed, where that is not possible.
fn in_a_network_of_its_own(commands: &[&str], test: impl FnOnce() + Send) -> bool {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: takes no memory; only this thread, and what it starts, changes networks.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                println!("SKIPPED: no network of our own: {}", std::io::Error::last_os_error());
                return false;
            }
            for command in ["ip link set lo up"].iter().chain(commands) {
                let mut words = command.split(' ');
                let program = words.next().unwrap();
                match Command::new(program).args(words).output() {
                    Ok(output) if output.status.success() => {}
                    other => {
                        println!("SKIPPED: {command}: {other:?}");
                        return false;
                    }
                }
            }
            test();
            true
        });
        match thread.join() {
            Ok(ran) => ran,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Behind a slow queue a small send buffer fills.
fn a_full_socket_is_told_and_nothing_is_lost(driver: Driver) {
    const TRAINS: u64 = 150;
    let slow = "tc qdisc add dev lo root tbf rate 200mbit burst 40kb limit 40mb";
    let test = |uncut| {
        let (swarm, send_buffer) = (Some("0.0.0.0:0"), Some(60_000));
        let options = Options { swarm, send_buffer, uncut, ..Options::default() };
        let rig = Rig::start(driver, &options);
        let socket = receiver("127.0.0.1");
        let to = socket.local_addr().unwrap();
        let samples: Vec<_> = (0..TRAINS).map(|seed| Sample::new(to, true, 16, seed)).collect();
        let copies = samples.clone();
        rig.order(0, move |machine| {
            machine.parcels.extend(copies.into_iter().map(Sample::output));
        });
        // Whoever reads at once may be as fast as the queue, and the socket never full.
        let mut told = vec![rig.event()];
        // Those of one batch of the ring may overtake those that were refused before them.
        let mut missing: Vec<_> = samples.iter().collect();
        while !missing.is_empty() {
            let mut first = [0; 4];
            socket.peek(&mut first).unwrap();
            let channel = u32::from_be_bytes(first);
            let place = missing.iter().position(|sample| sample.channel == channel).unwrap();
            assert!(driver == Driver::Uring || place == 0, "out of order");
            missing.remove(place).check(&socket);
        }
        while told.len() % 2 == 1 {
            told.push(rig.event());
        }
        while !rig.silent_for(Duration::from_millis(50)) {}
        assert_eq!(told[..2], [Event::Socket(true), Event::Socket(false)]);
        assert!(rig.count(Cell::UdpSocketFull) > 0);
        let lost = (rig.count(Cell::DatagramSendErrors), rig.count(Cell::DatagramsUnfit));
        assert_eq!((lost, rig.count(Cell::UdpSentDatagrams)), ((0, 0), TRAINS * 17));
        // Nothing keeps the driver awake.
        let rounds = rig.count(Cell::LoopRounds);
        assert!(rig.silent_for(Duration::from_millis(300)));
        assert!(rig.count(Cell::LoopRounds) - rounds < 10);
    };
    in_a_network_of_its_own(&[slow], || {
        // Whatever starts here stays on this core: a queue that is emptied now on one, now on
        // another puts datagrams of the loopback into two backlogs, which overtake each other.
        let core = core_affinity::get_core_ids().unwrap_or_default().into_iter().next();
        assert!(core.is_some_and(core_affinity::set_for_current), "not pinned");
        test(false);
        test(true);
    });
}

fn what_the_kernel_cannot_cut_is_cut_here(driver: Driver) {
    let options = Options { swarm: Some("127.0.0.1:0"), uncut: true, ..Options::default() };
    let rig = Rig::start(driver, &options);
    let socket = receiver("127.0.0.1");
    for (seed, (head, others)) in (0..).zip(SHAPES) {
        let sample = Sample::new(socket.local_addr().unwrap(), head, others, seed);
        let copy = sample.clone();
        rig.order(0, move |machine| machine.todo.push_back(copy.output()));
        sample.check(&socket);
    }
    wait_until(|| rig.count(Cell::UdpSentDatagrams) >= 39);
    assert_eq!(rig.count(Cell::UdpSentDatagrams), 17 + 16 + 1 + 1 + 4);
    assert_eq!(rig.count(Cell::DatagramsCutHere), 17 + 16 + 4);
    assert_eq!((rig.count(Cell::UdpSentTrains), rig.count(Cell::DatagramSendErrors)), (0, 0));
}

/// A train that the way could carry only in pieces goes out as single datagrams, those that fit.
fn a_way_that_takes_less_gets_single_datagrams(driver: Driver) {
    in_a_network_of_its_own(&["ip link set lo mtu 1300"], || {
        let rig = start(driver, "127.0.0.1:0");
        let socket = receiver("127.0.0.1");
        let to = socket.local_addr().unwrap();
        rig.order(0, move |machine| {
            machine.todo.push_back(Sample::new(to, true, 16, 1).output());
            machine.todo.push_back(datagram(to, None, &b"small"[..]));
        });
        let mut got = [0; 9];
        assert_eq!(socket.recv(&mut got).unwrap(), 5, "each of the others was too large");
        wait_until(|| rig.count(Cell::DatagramSendErrors) >= 17);
        assert_eq!(rig.count(Cell::DatagramSendErrors), 17);
    });
}

/// Acknowledgements of many peers, while the shard has other things to do: more than there are
/// buffers.
fn a_flood_of_small_datagrams_is_taken(driver: Driver) {
    const PEERS: usize = 200;
    let rig = start(driver, "[::]:0");
    let to = SocketAddr::new("127.0.0.1".parse().unwrap(), rig.swarm.unwrap().port());
    let peers: Vec<_> = (0..PEERS).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let (mut seen, mut sent) = (0, 0);
    for round in 0..50 {
        let (release, held) = std::sync::mpsc::channel::<()>();
        rig.order(0, move |_| {
            let _ = held.recv_timeout(PATIENCE);
        });
        for peer in &peers {
            peer.send_to(&[round; 37], to).unwrap();
            sent += 1;
        }
        release.send(()).unwrap();
        while seen < sent {
            let Event::Datagrams { segment, data, .. } = rig.event() else { panic!("lost") };
            assert!(segment == 37 && data.iter().all(|&byte| byte == round));
            seen += data.len() / 37;
        }
    }
    assert_eq!(rig.count(Cell::DatagramsKernelDropped), 0);
    let _client = client(rig.addrs[0]);
    rig.wait_for(|event| matches!(event, Event::Accepted { .. }).then_some(()));
}
