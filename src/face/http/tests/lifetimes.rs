//! Keep-alive, pipelining, timers, writes that do not fit, memory.

use super::*;

const GET: &[u8] = b"GET /streams.json HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn pipelined_requests_are_answered_in_order_one_at_a_time() {
    let mut probe = Probe::new(Shard::Refuses);
    let put = b"PUT /live/a HTTP/1.1\r\nHost: h\r\n\r\n";
    let play = b"GET /live/a.ts HTTP/1.1\r\nHost: h\r\n\r\n";
    let missing = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n";
    probe.receive(&[GET, missing, play, GET, put, GET].concat());
    assert_eq!(probe.statuses(), [200, 404, 503, 200, 503]);
    assert!(!probe.is_open());
}

#[test]
fn the_next_request_waits_for_the_response_before_it() {
    let mut probe = Probe::new(Shard::Thinks);
    probe.conn.handle_received(probe.now, &[GET, GET].concat(), &mut |_| {});
    assert!(!probe.poll());
    let [head, body] = probe.conn.next_send().unwrap();
    let all = head.len() + body.len();
    probe.conn.handle_sent(probe.now, all - 1);
    assert!(!probe.poll());
    assert_eq!(probe.site.counts, [Cell::Http2xx], "one response so far");
    let [_, body] = probe.conn.next_send().unwrap();
    assert_eq!(body.as_slice(), b"\n");
    probe.conn.handle_sent(probe.now, 1);
    assert!(!probe.poll());
    assert_eq!(probe.site.counts, [Cell::Http2xx; 2]);
}

#[test]
fn a_full_socket_is_waited_for() {
    let mut probe = Probe::new(Shard::Admits);
    probe.conn.handle_received(probe.now, GET, &mut |_| {});
    assert!(!probe.poll());
    assert!(probe.conn.next_send().is_some());
    probe.conn.handle_blocked();
    assert!(probe.conn.next_send().is_none());
    probe.conn.handle_writable();
    probe.pump();
    assert_eq!(probe.statuses(), [200]);
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    let mut probe = Probe::new(Shard::Admits);
    let idle = size_of::<Connection>();
    assert!(idle <= 512, "{idle} bytes each");
    assert_eq!(probe.conn.memory(), idle);
    probe.receive(b"GET / HT");
    assert!(probe.conn.memory() > idle);
    probe.receive(b"TP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(probe.statuses(), [200]);
    assert_eq!(probe.conn.memory(), idle);
}

#[test]
fn a_slow_request_is_told_an_idle_connection_is_not() {
    let mut slow = Probe::new(Shard::Admits);
    slow.receive(b"G").pass(Duration::from_millis(9_999)).receive(b"E");
    assert!(slow.wire.is_empty());
    slow.pass(Duration::from_millis(1));
    assert_eq!(slow.statuses(), [408], "one byte now and then does not help");
    assert_eq!(slow.wishes, [SocketWish::Shutdown]);
    assert!(slow.site.counts.contains(&Cell::HttpBad));

    let mut idle = Probe::new(Shard::Admits);
    idle.pass(Duration::from_secs(9)).receive(GET);
    idle.pass(Duration::from_millis(9_999));
    assert!(idle.is_open(), "the wait begins anew after a response");
    idle.pass(Duration::from_millis(1));
    assert_eq!(idle.statuses(), [200]);
    assert_eq!(idle.wishes, [SocketWish::Close]);
}

#[test]
fn a_client_that_does_not_read_is_closed() {
    let mut probe = Probe::new(Shard::Admits);
    probe.conn.handle_received(probe.now, GET, &mut |_| {});
    probe.poll();
    assert!(probe.conn.next_send().is_some());
    probe.conn.handle_sent(probe.now + Duration::from_secs(8), 1);
    assert!(probe.conn.next_send().is_some());
    probe.conn.handle_blocked();
    probe.pass(Duration::from_millis(17_999));
    assert!(probe.is_open(), "progress counts");
    probe.pass(Duration::from_millis(1));
    assert_eq!(probe.wishes, [SocketWish::Close]);
}

#[test]
fn the_shard_may_think_as_long_as_it_likes() {
    let mut probe = ask(Shard::Thinks, "GET /live/a.ts?wait=60 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(probe.conn.deadline(), None);
    probe.pass(Duration::from_secs(60));
    assert!(probe.is_open());
    probe.conn.refuse(probe.now, &Refusal::new(404, "no such stream"));
    probe.pump();
    assert_eq!(probe.statuses(), [404]);
    assert!(probe.is_open());
}

#[test]
fn input_beyond_the_bound_closes_after_the_response() {
    let mut probe = ask(Shard::Thinks, "GET /live/a.ts HTTP/1.1\r\nHost: h\r\n\r\n");
    for _ in 0..20 {
        probe.receive(&[b'a'; 1000]);
        assert!(probe.conn.memory() <= size_of::<Connection>() + HEAD_BYTES);
    }
    probe.conn.refuse(probe.now, &Refusal::new(404, "no such stream"));
    probe.pump();
    assert_eq!(probe.statuses(), [404]);
    assert_eq!(probe.wishes, [SocketWish::Shutdown]);
}

#[test]
fn an_unwanted_body_is_read_past_but_not_for_ever() {
    let chunked = b"GET /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut small = Probe::new(Shard::Admits);
    small.receive(chunked).receive(b"3\r\nabc\r\n0\r\n\r\n").receive(GET);
    assert_eq!(small.statuses(), [404, 200]);

    let mut large = Probe::new(Shard::Admits);
    large.receive(chunked).receive(b"fffff\r\n");
    for _ in 0..64 {
        large.receive(&[b'x'; 1024]);
        assert!(large.conn.memory() < 2048);
    }
    assert_eq!(large.wishes, [SocketWish::Close]);

    let mut absent = Probe::new(Shard::Admits);
    absent.receive(b"GET /x HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n");
    absent.pass(Duration::from_secs(10));
    assert_eq!(absent.statuses(), [404]);
    assert_eq!(absent.wishes, [SocketWish::Close]);
}

#[test]
fn an_unwanted_body_is_read_past_while_the_shard_thinks() {
    let mut probe = Probe::new(Shard::Thinks);
    let head = b"GET /live/a.ts HTTP/1.1\r\nHost: h\r\nContent-Length: 30\r\n\r\n";
    probe.receive(head).receive(b"GET /evil HTTP/1.1\r\n").receive(b"a:b\r\n\r\nxxx");
    probe.receive(GET);
    probe.conn.refuse(probe.now, &Refusal::new(404, "no such stream"));
    probe.pump();
    assert_eq!(probe.statuses(), [404, 200], "the body is no request");
}

#[test]
fn a_broken_unwanted_body_closes_before_or_after_the_response() {
    let head = "GET /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut before = Probe::new(Shard::Admits);
    before.receive(format!("{head}zz\r\n").as_bytes()).receive(GET);
    assert_eq!(before.statuses(), [404]);
    assert!(before.text().contains("Connection: close\r\n"));
    assert_eq!(before.wishes, [SocketWish::Shutdown]);

    let mut after = Probe::new(Shard::Admits);
    after.receive(head.as_bytes()).receive(b"zz\r\n").receive(GET);
    assert_eq!(after.statuses(), [404]);
    assert_eq!(after.wishes, [SocketWish::Close]);
}

#[test]
fn nothing_is_held_once_the_last_response_is_queued() {
    for request in ["GET /live/a.ts HTTP/1.0\r\n\r\n", "GET /x HTTP/1.0\r\n\r\n"] {
        let mut probe = Probe::new(Shard::Thinks);
        let mut data = request.as_bytes().to_vec();
        data.extend_from_slice(&[b'a'; 4000]);
        // Nothing is sent yet.
        probe.conn.handle_received(probe.now, &data, &mut |_| {});
        probe.poll();
        probe.conn.refuse(probe.now, &Refusal::new(404, "no such stream"));
        probe.conn.handle_received(probe.now, &data, &mut |_| {});
        assert!(probe.conn.memory() < size_of::<Connection>() + 400, "{request:?}");
        probe.pump();
        assert_eq!(probe.statuses(), [404]);
    }
    let mut waiting = Probe::new(Shard::Thinks);
    waiting.receive(b"GET /live/a.ts HTTP/1.0\r\n\r\n").receive(&[b'a'; 4000]);
    assert_eq!(waiting.conn.memory(), size_of::<Connection>());
}
