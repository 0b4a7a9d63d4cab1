//! Publishers: who they are, and their bodies.

use super::*;

const CHUNKED: &str = "PUT /live/cam HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn a_body_flows_and_the_connection_lives_on() {
    let mut probe = ask(Shard::Admits, CHUNKED);
    assert_eq!(probe.conn.deadline(), None, "a publisher's silence is the shard's business");
    probe.receive(b"5\r\nhel").receive(b"lo\r\n3;x\r\nabc\r\n");
    assert_eq!(probe.body, b"helloabc");
    assert_eq!(probe.conn.memory(), size_of::<Connection>(), "a body is never held");
    assert!(probe.wire.is_empty());
    probe.receive(b"0\r\nA: b\r\n\r\nGET /streams.json HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(probe.events.last().unwrap(), "PublishEnded");
    assert_eq!(probe.statuses(), [200, 200]);
    assert!(probe.text().contains("\r\n\r\npublished\nHTTP/1.1 200"));
    assert!(probe.is_open());
}

#[test]
fn an_endless_body_has_no_end() {
    for version in ["1.0", "1.1"] {
        let mut probe =
            ask(Shard::Admits, &format!("POST /live/cam HTTP/{version}\r\nHost: h\r\n\r\nabc"));
        probe.receive(b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(probe.body, b"abcGET / HTTP/1.1\r\n\r\n");
        assert!(probe.is_open() && probe.wire.is_empty());
    }
}

#[test]
fn an_empty_body_is_a_whole_one() {
    let head = "PUT /live/cam HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
    let probe = ask(Shard::Admits, head);
    assert_eq!(probe.events.last().unwrap(), "PublishEnded");
    assert_eq!(probe.statuses(), [200]);
}

#[test]
fn the_client_is_asked_to_continue_only_when_it_waits() {
    let head = "PUT /live/cam HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\n\
                Content-Length: 2\r\n\r\n";
    let mut probe = ask(Shard::Admits, head);
    assert_eq!(probe.text(), "HTTP/1.1 100 Continue\r\n\r\n");
    probe.receive(b"ab");
    assert_eq!(probe.statuses(), [100, 200]);
    assert_eq!(ask(Shard::Refuses, head).statuses(), [503]);
    assert_eq!(ask(Shard::Admits, &format!("{head}ab")).statuses(), [200], "it did not wait");
    let old = head.replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(ask(Shard::Admits, &old).statuses(), [0u16; 0], "HTTP/1.0 knows no 100");
}

#[test]
fn the_final_answer_follows_an_unsent_interim_one() {
    let mut probe = Probe::new(Shard::Admits);
    let head = b"PUT /live/cam HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\
                 Content-Length: 2\r\n\r\n";
    probe.conn.handle_received(probe.now, head, &mut |_| {});
    probe.poll();
    let [first, _] = probe.conn.next_send().unwrap();
    assert_eq!(first.len(), 25);
    probe.conn.handle_received(probe.now, b"ab", &mut |_| {});
    probe.poll();
    probe.conn.handle_sent(probe.now, 5);
    probe.wire.extend_from_slice(&first.as_slice()[..5]);
    probe.pump();
    assert!(probe.text().starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"));
    assert!(probe.text().ends_with("\r\n\r\npublished\n"));
}

#[test]
fn a_broken_coding_ends_the_connection() {
    let mut probe = ask(Shard::Admits, CHUNKED);
    probe.receive(b"2\r\nabc\r\n");
    assert_eq!(probe.body, b"ab");
    assert_eq!(probe.events.last().unwrap(), "PublishBroken");
    assert_eq!(probe.statuses(), [400]);
    assert_eq!(probe.wishes, [SocketWish::Shutdown]);
    assert!(probe.site.counts.contains(&Cell::HttpBad));
}

#[test]
fn a_refused_publisher_can_read_why() {
    let mut probe = ask(Shard::Refuses, &format!("{CHUNKED}5\r\nhello\r\n"));
    assert_eq!(probe.statuses(), [503]);
    assert!(probe.text().contains("Connection: close\r\n"));
    assert_eq!(probe.wishes, [SocketWish::Shutdown]);
    probe.receive(&[b'x'; 100_000]);
    assert!(probe.body.is_empty());
    assert_eq!(probe.conn.memory(), size_of::<Connection>());
    probe.pass(Duration::from_millis(1999));
    assert_eq!(probe.wishes, [SocketWish::Shutdown]);
    probe.pass(Duration::from_millis(1));
    assert_eq!(probe.wishes, [SocketWish::Shutdown, SocketWish::Close]);
}

#[test]
fn an_open_publisher_can_be_ended() {
    let mut probe = ask(Shard::Admits, &format!("{CHUNKED}5\r\nhe"));
    probe.conn.refuse(probe.now, &Refusal::new(409, "taken over"));
    probe.pump();
    assert_eq!(probe.statuses(), [409]);
    assert_eq!(probe.wishes, [SocketWish::Shutdown]);
}

#[test]
fn what_came_before_the_decision_is_delivered_in_order() {
    let mut probe = Probe::new(Shard::Thinks);
    // Head and 100 KiB in one segment, more before the answer.
    let early = vec![b'a'; 100 * 1024];
    let head = "PUT /live/cam HTTP/1.1\r\nHost: h\r\nContent-Length: 153603\r\n\r\n";
    probe.receive(&[head.as_bytes(), &early].concat());
    probe.receive(&[b'b'; 50 * 1024]);
    probe.conn.publish(probe.now);
    // Bytes may come before the shard drains.
    probe.receive(b"cc").receive(b"cGET /nothing HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(probe.body.len(), 153_603);
    assert!(probe.body.ends_with(b"bccc"));
    assert_eq!(probe.statuses(), [200, 404]);
    assert_eq!(probe.conn.memory(), size_of::<Connection>());
}

#[test]
fn too_much_before_the_decision_is_refused_not_lost() {
    let mut probe = ask(Shard::Thinks, CHUNKED);
    for _ in 0..40 {
        probe.receive(&[b'0'; 10 * 1024]);
        assert!(probe.conn.memory() < 300 * 1024);
    }
    probe.publish();
    probe.pump();
    assert!(probe.body.is_empty());
    assert_eq!(probe.events.last().unwrap(), "PublishBroken");
    assert_eq!(probe.statuses(), [503]);
}

#[test]
fn who_publishes() {
    let cases = [
        // (peer, header lines, query, expected)
        ("127.0.0.1:1", "", "", (None, "127.0.0.1", true)),
        ("[::1]:1", "", "?key=a%2Bb+c", (Some("a+b+c"), "::1", true)),
        (
            "[::ffff:127.0.0.1]:1",
            "Authorization: bearer  k\r\n",
            "",
            (Some("k"), "127.0.0.1", true),
        ),
        ("1.2.3.4:1", "Authorization: Bearer k\r\n", "?key=k", (Some("k"), "1.2.3.4", true)),
        ("1.2.3.4:1", "Authorization: Basic eA==\r\n", "", (None, "1.2.3.4", true)),
        ("127.0.0.1:1", "Via: 1.1 x\r\n", "", (None, "127.0.0.1", false)),
        ("127.0.0.1:1", "FORWARDED: for=1.1.1.1\r\n", "", (None, "127.0.0.1", false)),
        ("127.0.0.1:1", "X-Forwarded-For: 9.9.9.9\r\n", "", (None, "127.0.0.1", false)),
        ("10.0.0.9:1", "X-Forwarded-For: 9.9.9.9\r\n", "", (None, "9.9.9.9", false)),
        ("10.0.0.9:1", "X-Forwarded-For: 127.0.0.1\r\n", "", (None, "127.0.0.1", false)),
        ("127.0.0.1:1", "X-Forwarded-Proto: https\r\n", "", (None, "127.0.0.1", false)),
        ("127.0.0.1:1", "Origin: http://elsewhere\r\n", "", (None, "127.0.0.1", false)),
    ];
    for (peer, fields, query, (key, client, direct)) in cases {
        let mut probe = Probe::from(Shard::Thinks, peer, &settings());
        let head = format!("PUT /live/cam{query} HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        probe.conn.handle_received(probe.now, head.as_bytes(), &mut |_| {});
        let Event::Publish(request) = probe.conn.poll(probe.now, &mut probe.site) else {
            panic!("no publisher: {head:?}");
        };
        let got = (request.key.as_deref(), request.client, request.direct);
        assert_eq!(got, (key, client.parse().unwrap(), direct), "{peer} {head:?}");
        assert!(key.is_none_or(|key| !format!("{request:?}").contains(&format!("{key:?}"))));
    }
}
