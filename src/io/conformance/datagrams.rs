//! Datagrams, on both drivers: order, sizes, senders, bursts.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::io::conformance::rig::{Driver, Event, Options, Rig, client, pattern};
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
    each_datagram_is_told_with_its_sender,
    a_run_of_datagrams_keeps_its_segments,
    the_order_of_a_sender_is_kept_through_a_long_burst,
    datagrams_do_not_starve_connections,
    what_the_kernel_dropped_is_counted,
);

fn start(driver: Driver, address: &'static str) -> Rig {
    Rig::start(driver, &Options { udp: Some(address), ..Options::default() })
}

fn sender(ip: &str, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.connect(to).unwrap();
    socket
}

/// The datagrams of one event.
fn next(rig: &Rig) -> (SocketAddr, Option<IpAddr>, Vec<Vec<u8>>) {
    let Event::Datagrams { from, to, segment, data } = rig.event() else { panic!("no datagram") };
    (from, to, data.chunks(segment).map(<[u8]>::to_vec).collect())
}

fn each_datagram_is_told_with_its_sender(driver: Driver) {
    for (bind, host) in [
        ("127.0.0.1:0", "127.0.0.1"),
        ("[::1]:0", "::1"),
        ("[::]:0", "127.0.0.1"),
        ("[::]:0", "::1"),
    ] {
        let rig = start(driver, bind);
        let to = SocketAddr::new(host.parse().unwrap(), rig.udp[0].port());
        let (one, two) = (sender(host, to), sender(host, to));
        for size in [1, 188, 1316, 1472, 9000, 65_000] {
            for socket in [&one, &two] {
                let data = pattern(size, size as u64);
                socket.send(&data).unwrap();
                let (from, at, datagrams) = next(&rig);
                assert_eq!(from, socket.local_addr().unwrap(), "{bind}");
                assert_eq!(at, Some(to.ip()), "{bind}");
                assert!(datagrams == [data], "{size} bytes to {bind}");
            }
        }
        // An empty one is a datagram that says nothing.
        one.send(&[]).unwrap();
        two.send(b"after").unwrap();
        assert_eq!(next(&rig).2, [b"after"]);
    }
}

fn a_run_of_datagrams_keeps_its_segments(driver: Driver) {
    let rig = start(driver, "127.0.0.1:0");
    let socket = sender("127.0.0.1", rig.udp[0]);
    if let Err(why) = set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, 1316) {
        return println!("SKIPPED: this kernel cuts no datagrams: {why}");
    }
    for (round, len) in [1316 * 40, 1316 * 10 + 500, 1316, 7].into_iter().enumerate() {
        let data = pattern(len, round as u64);
        socket.send(&data).unwrap();
        let mut got = Vec::new();
        while got.iter().map(Vec::len).sum::<usize>() < len {
            got.extend(next(&rig).2);
        }
        let want: Vec<Vec<u8>> = data.chunks(1316).map(<[u8]>::to_vec).collect();
        assert!(got == want, "{len} bytes came as {:?}", got.iter().map(Vec::len));
    }
}

/// More than all buffers hold: receiving goes on where it had run out.
fn the_order_of_a_sender_is_kept_through_a_long_burst(driver: Driver) {
    const COUNT: u32 = 20_000;
    let rig = start(driver, "127.0.0.1:0");
    let socket = sender("127.0.0.1", rig.udp[0]);
    let mut last = None;
    let mut seen = 0;
    for burst in 0..COUNT / 100 {
        for n in 0..100 {
            let mut data = [0; 200];
            data[..4].copy_from_slice(&(burst * 100 + n).to_be_bytes());
            socket.send(&data).unwrap();
        }
        // 100 datagrams fit the socket's buffer, however slow the driver is just now.
        while seen < (burst + 1) * 100 {
            for datagram in next(&rig).2 {
                let number = datagram.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
                assert!(number > last, "{number:?} after {last:?}");
                assert_eq!(datagram.len(), 200);
                (last, seen) = (number, seen + 1);
            }
        }
    }
    assert_eq!(
        (rig.count(Cell::DatagramsTruncated), rig.count(Cell::DatagramsKernelDropped)),
        (0, 0)
    );
}

fn datagrams_do_not_starve_connections(driver: Driver) {
    let rig = start(driver, "127.0.0.1:0");
    let socket = sender("127.0.0.1", rig.udp[0]);
    for _ in 0..2000 {
        let _ = socket.send(&[7; 1316]);
    }
    let _client = client(rig.addrs[0]);
    rig.wait_for(|event| matches!(event, Event::Accepted { .. }).then_some(()));
}

fn what_the_kernel_dropped_is_counted(driver: Driver) {
    let rig = start(driver, "127.0.0.1:0");
    let socket = sender("127.0.0.1", rig.udp[0]);
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let (busy, is_busy) = std::sync::mpsc::channel();
    rig.order(0, move |_| {
        busy.send(()).unwrap();
        let _ = stopped.recv_timeout(Duration::from_secs(20));
    });
    is_busy.recv().unwrap();
    // A kernel may hold a few megabytes: this is more.
    for _ in 0..20_000 {
        socket.send(&[7; 1316]).unwrap();
    }
    stop.send(()).unwrap();
    let mut told = 0;
    while rig.count(Cell::DatagramsKernelDropped) == 0 || !rig.silent_for(Duration::ZERO) {
        told += next(&rig).2.len() as u64;
        // What was dropped is said with the next datagram that is not.
        socket.send(b"next").unwrap();
        if rig.count(Cell::DatagramsKernelDropped) > 0 {
            break;
        }
    }
    let dropped = rig.count(Cell::DatagramsKernelDropped);
    assert!(dropped > 100 && dropped < 20_000, "{dropped} dropped, {told} told");
}
