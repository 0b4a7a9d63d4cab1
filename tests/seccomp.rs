//! Where io_uring is forbidden (containers, hardened kernels) epoll serves, where there is no IPv6
//! IPv4 does, and each says why.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::thread;

use common::relay::StartFailure;
use common::ts::{Broadcast, PACKET, Shape};
use common::{PutStream, Relay, Setup, Watch, secs};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Starts a relay to which the kernel answers `errno` when `call` is made, in all cases or those
/// that `rules` say. A filter belongs to a thread and its children: a thread that lives as long as
/// the start is all it takes.
fn start_without(
    (call, rules): (i64, Vec<SeccompRule>),
    errno: i32,
    setup: Setup,
    check: fn(i32),
) -> Result<Relay, StartFailure> {
    let starter = thread::spawn(move || {
        let filter = SeccompFilter::new(
            [(call, rules)].into(),
            SeccompAction::Allow,
            SeccompAction::Errno(errno as u32),
            std::env::consts::ARCH.try_into().unwrap(),
        );
        let program: BpfProgram = filter.unwrap().try_into().unwrap();
        seccompiler::apply_filter(&program).unwrap();
        check(errno);
        setup.try_start()
    });
    starter.join().expect("the starter")
}

fn start_without_uring(setup: Setup, errno: i32) -> Result<Relay, StartFailure> {
    start_without((libc::SYS_io_uring_setup, Vec::new()), errno, setup, |errno| {
        let refused = io_uring::IoUring::new(8).err().expect("the filter works");
        assert_eq!(refused.raw_os_error(), Some(errno));
    })
}

fn lines_about_uring(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("io_uring")).collect()
}

#[test]
fn auto_serves_with_epoll_and_says_why() {
    // EPERM: a seccomp profile, or kernel.io_uring_disabled. ENOSYS: an old kernel, gVisor.
    for (errno, words) in
        [(libc::EPERM, ["EPERM", "not permitted"]), (libc::ENOSYS, ["ENOSYS", "not implemented"])]
    {
        let relay = match start_without_uring(Setup::io_driver("auto"), errno) {
            Ok(relay) => relay,
            Err(failure) => panic!("no epoll in place of io_uring:\n{}", failure.log),
        };
        assert_eq!(relay.ready["io_driver"], "epoll");
        let stream = Broadcast::new(1, Shape::new(500_000), 2.0);
        let mut put = PutStream::begin(relay.http, "plain");
        put.push(&stream.bytes);
        relay.wait_live("plain");
        let viewer = Watch::live(relay.http, "plain").start();
        viewer.wait_bytes(3 * PACKET, secs(5));
        assert_eq!(relay.metric("headwater_io_driver_info", &["driver=\"epoll\""]), Some(1.0));
        assert!(relay.metric("headwater_io_driver_info", &["driver=\"uring\""]) != Some(1.0));
        let text = relay.control("/metrics").text();
        let gauge = text.lines().find(|line| line.starts_with("headwater_io_driver_info{"));
        let reason = gauge.and_then(|line| line.split_once("reason=\"")).unwrap().1;
        assert!(!reason.starts_with('"'), "the gauge says why: {gauge:?}");
        let log = relay.log();
        let lines = lines_about_uring(&log);
        assert_eq!(lines.len(), 1, "one line, not more:\n{log}");
        let says_why =
            words.iter().any(|word| lines[0].to_lowercase().contains(&word.to_lowercase()));
        assert!(says_why, "it says why: {}", lines[0]);
        assert!(lines[0].contains("epoll"), "it says what runs instead: {}", lines[0]);
    }
}

#[test]
fn uring_that_was_asked_for_is_not_replaced() {
    let result = start_without_uring(Setup::io_driver("uring"), libc::EPERM);
    let failure = result.err().expect("must not start");
    let code = failure.status.and_then(|status| status.code());
    assert_eq!(code, Some(1), "{}", failure.log);
    let lines = lines_about_uring(&failure.log);
    assert!(!lines.is_empty(), "a clear message:\n{}", failure.log);
    assert!(!failure.log.contains("panicked"), "{}", failure.log);
}

#[test]
fn a_host_without_ipv6_is_served_over_ipv4() {
    let family = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Eq,
        u64::from(libc::AF_INET6.cast_unsigned()),
    );
    let rule = SeccompRule::new(vec![family.unwrap()]).unwrap();
    let setup = || Setup::io_driver("auto").http("[::]:0");
    let no_ipv6 = (libc::SYS_socket, vec![rule]);
    let start = |setup| {
        start_without(no_ipv6.clone(), libc::EAFNOSUPPORT, setup, |errno| {
            let refused = std::net::TcpListener::bind("[::]:0").expect_err("the filter works");
            assert_eq!(refused.raw_os_error(), Some(errno));
        })
    };
    let relay = start(setup()).unwrap_or_else(|failure| panic!("{}", failure.log));
    let http = relay.http;
    assert!(http.is_ipv4() && http.ip().is_unspecified(), "{http}");
    assert_eq!(common::http::get(([127, 0, 0, 1], http.port()).into(), "/").status, 200);
    assert!(relay.log().contains("this host has no IPv6"), "{}", relay.log());
    // Who asked for one address of IPv6 gets no other.
    let failure = start(Setup::io_driver("auto").http("[::1]:0")).err().expect("must not start");
    assert!(failure.log.contains("[::1]:0"), "{}", failure.log);
}
