//! Requests and their answers.

use super::*;

fn long(n: usize) -> String {
    "a".repeat(n)
}

const HOST: &str = "Host: h\r\n\r\n";

fn simple(line: &str) -> String {
    format!("{line} HTTP/1.1\r\n{HOST}")
}

fn with(line: &str, fields: &str) -> String {
    format!("{line} HTTP/1.1\r\n{fields}{HOST}")
}

/// Request, status, whether the connection stays open, something the answer says.
type Row = (String, u16, bool, &'static str);

fn table() -> Vec<Row> {
    [routes(), grammar(), framing()].concat()
}

fn routes() -> Vec<Row> {
    vec![
        (simple("GET /"), 200, true, "Content-Type: text/html"),
        (simple("GET /"), 200, true, "frame-ancestors *\r\n"),
        (simple("GET /"), 200, true, "X-Content-Type-Options: nosniff\r\n"),
        (simple("GET /"), 200, true, "Cache-Control: no-cache\r\n"),
        (simple("GET http://other/?q"), 200, true, "text/html"),
        (simple("GET /watch/live/cam"), 200, true, "text/html"),
        (simple("GET /watch/live/.cam"), 400, true, "must not begin with a dot\n"),
        (simple("GET /watch/live/"), 400, true, "must not be empty\n"),
        (simple("GET /assets/app.js"), 200, true, "text/javascript"),
        (simple("GET /assets/style.css"), 200, true, "text/css"),
        (simple("GET /assets/../../etc/passwd"), 404, true, "nothing here"),
        (simple("GET /assets/"), 404, true, "nothing here"),
        (simple("GET /streams.json"), 200, true, "{\"streams\":[]}\n"),
        (simple("GET /live/cam/status.json"), 200, true, "{\"live\":true}\n"),
        (simple("GET /live/c%61m/status.json"), 200, true, "Cache-Control: no-store\r\n"),
        (simple("GET /live/cam/graph.json"), 200, true, "{\"nodes\":[]}\n"),
        (simple("GET /live/dog/graph.json"), 404, true, "no such stream"),
        (simple("GET /live/dog/status.json"), 404, true, "no such stream"),
        (simple("GET /live/a%20b/status.json"), 400, true, "may hold only A-Z"),
        (simple("GET /live/cam/index.m3u"), 404, true, "nothing here"),
        (simple("GET /live/cam.m3u8"), 400, true, "must not end in .ts or .m3u8\n"),
        (simple("GET /live/a%2Fb.ts"), 400, true, "percent-escape"),
        (simple("GET /live/cam.ts?start=10s"), 400, true, "start must be like -10s"),
        (simple("GET /live/cam.ts?start=-61m"), 400, true, "start must be like -10s"),
        (simple("GET /live/cam.ts?wait=1.5"), 400, true, "wait must be"),
        (simple("GET /live/cam.ts?wait=1&wait=1"), 400, true, "only once"),
        (simple("GET /live/cam"), 405, true, "Allow: PUT, POST, OPTIONS\r\n"),
        (simple("DELETE /streams.json"), 405, true, "Allow: GET, HEAD, OPTIONS\r\n"),
        (with("PUT /live/cam.ts", "Content-Length: 0\r\n"), 405, true, "without .ts\n"),
        (simple("OPTIONS *"), 204, true, "Access-Control-Max-Age: 86400\r\n"),
        (simple("OPTIONS /live/x"), 204, true, "Allow: GET, HEAD, PUT, POST, OPTIONS\r\n"),
    ]
}

fn grammar() -> Vec<Row> {
    vec![
        (simple("GET *"), 400, false, "target must be"),
        (simple("CONNECT h:80"), 400, false, "target must be"),
        (simple("GET /nothing"), 404, true, "Access-Control-Allow-Origin: *\r\n"),
        ("GET / HTTP/1.1\r\n\r\n".into(), 400, false, "exactly one valid Host"),
        (with("GET /", "Host: h\r\n"), 400, false, "exactly one valid Host"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), 400, false, "exactly one valid Host"),
        ("GET / HTTP/1.1\r\nHost: u@h\r\n\r\n".into(), 400, false, "exactly one valid Host"),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n".into(), 200, true, "text/html"),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n".into(), 200, true, "text/html"),
        ("GET / HTTP/1.0\r\n\r\n".into(), 200, false, "Connection: close\r\n"),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".into(), 200, false, "close\r\n"),
        ("GET / HTTP/2.0\r\n\r\n".into(), 505, false, "HTTP/1.1 and HTTP/1.0"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505, false, "HTTP/1.1 and"),
        ("\u{16}\u{3}\u{1}".into(), 400, false, "not an HTTP/1.1 request"),
        ("GET /\n\n".into(), 400, false, "not an HTTP/1.1 request"),
        (with("GET /", "A: b\r\n c\r\n"), 400, false, "folding"),
        (with("GET /", "Content-Length : 0\r\n"), 400, false, "not an HTTP/1.1"),
        (simple(&format!("GET /{}", long(5000))), 414, false, "4096 bytes at most"),
        (with("GET /", &format!("A: {}\r\n", long(9000))), 431, false, "head is too large"),
        (with("GET /", &"a:1\r\n".repeat(40)), 431, false, "too many header lines"),
        (with("GET /", "Connection: Close, x\r\n"), 200, false, "Connection: close\r\n"),
        (with("GET /", "Expect: a-miracle\r\n"), 417, false, "100-continue\n"),
    ]
}

fn framing() -> Vec<Row> {
    vec![
        // Bodies that nobody asked for.
        (with("GET /", "Content-Length: 70000\r\n"), 413, false, "needs no body"),
        (with("GET /", "Content-Length: 3\r\n") + "abc", 200, true, "text/html"),
        (with("GET /", "Transfer-Encoding: chunked\r\n") + "1\r\na\r\n0\r\n\r\n", 200, true, "t"),
        (with("GET /", "Content-Length: 3\r\nExpect: 100-continue\r\n"), 200, false, "close\r\n"),
        (simple("POST /nothing"), 404, false, "Connection: close\r\n"),
        // Framing that two readers could understand differently.
        (
            with("PUT /live/a", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
            400,
            false,
            "not both",
        ),
        (with("PUT /live/a", "Content-Length: 1\r\nContent-Length: 1\r\n"), 400, false, "once"),
        (with("PUT /live/a", "Content-Length: 1, 1\r\n"), 400, false, "decimal number"),
        (with("PUT /live/a", "Content-Length: +1\r\n"), 400, false, "decimal number"),
        (with("PUT /live/a", "Transfer-Encoding: gzip, chunked\r\n"), 501, false, "chunked\n"),
        (with("PUT /live/a", "Transfer-Encoding: chunked;a\r\n"), 501, false, "chunked\n"),
        (
            "PUT /live/a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            400,
            false,
            "HTTP/1.1 only",
        ),
        (
            with("PUT /live/a?key=x", "Authorization: Bearer y\r\n"),
            400,
            false,
            "two different keys",
        ),
    ]
}

#[test]
fn every_request_has_its_answer() {
    for (request, status, open, says) in table() {
        let mut probe = ask(Shard::Thinks, &request);
        let text = probe.text();
        assert_eq!(probe.statuses(), [status], "{request:?}\n{text}");
        assert!(text.contains(says), "{request:?}\n{text}");
        assert_eq!(probe.is_open(), open, "{request:?}\n{text}");
        if status >= 400 {
            let (_, body) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(body.matches('\n').count(), 1, "one line: {body:?}");
            assert!(body.ends_with('\n'), "{body:?}");
            assert!(text.contains(&format!("Content-Length: {}\r\n", body.len())), "{text}");
        }
        assert_eq!(text.contains("Connection: close\r\n"), !open, "{request:?}\n{text}");
        probe.receive(b"GET /streams.json HTTP/1.1\r\nHost: h\r\n\r\n");
        let more = if open { vec![status, 200] } else { vec![status] };
        assert_eq!(probe.statuses(), more, "a second request after {request:?}");
    }
}

#[test]
fn the_verdict_does_not_depend_on_the_cuts() {
    let put = "PUT /live/a HTTP/1.1\r\nHost: h\r\n";
    let chunked = format!("{put}Transfer-Encoding: chunked\r\n\r\n");
    let get = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    let more = [
        format!("{put}Content-Length: 5\r\n\r\nhello{get}{get}"),
        format!("{chunked}3\r\nabc\r\n0\r\n\r\nGET"),
        format!("{chunked}3\r\nabcd\r\n{get}"),
        format!("{get}\r\n{}GET / HTTP/1.0\r\n\r\n{get}", get.replace("GET", "HEAD")),
        "GET /live/a.ts HTTP/1.1\r\nHost: h\r\n\r\nnoise".to_owned(),
    ];
    let table = table().into_iter().map(|row| row.0);
    for request in table.chain(more) {
        for shard in [Shard::Admits, Shard::Refuses] {
            let whole = ask(shard, &request).outcome();
            let mut slow = Probe::new(shard);
            slow.takes = 7;
            for byte in request.as_bytes().chunks(1) {
                slow.receive(byte);
            }
            assert_eq!(slow.outcome(), whole, "one byte at a time: {request:?}");
            for cut in (1..request.len()).step_by(request.len() / 300 + 1) {
                let mut probe = Probe::new(shard);
                probe.receive(&request.as_bytes()[..cut]);
                probe.receive(&request.as_bytes()[cut..]);
                assert_eq!(probe.outcome(), whole, "cut at {cut}: {request:?}");
            }
        }
    }
}

#[test]
fn head_is_get_without_the_body() {
    for path in ["/", "/watch/live/cam", "/streams.json", "/live/cam/status.json", "/nothing"] {
        let get = ask(Shard::Admits, &format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")).text();
        let head = ask(Shard::Admits, &format!("HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n")).text();
        assert_eq!(head, get[..get.find("\r\n\r\n").unwrap() + 4], "{path}");
    }
    let probe = ask(Shard::Admits, "HEAD /live/cam.ts HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(probe.text().contains("200 OK") && probe.text().contains("video/mp2t"));
    assert!(probe.is_open());
}

#[test]
fn a_known_tag_saves_the_body() {
    let first = ask(Shard::Admits, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").text();
    let tag = first.split("ETag: ").nth(1).unwrap().split('\r').next().unwrap();
    for known in [tag, &format!("\"x\", W/{tag}"), "*"] {
        let request = format!("GET / HTTP/1.1\r\nIf-None-Match: {known}\r\nHost: h\r\n\r\n");
        let probe = ask(Shard::Admits, &request);
        assert_eq!(probe.statuses(), [304], "{known}");
        assert!(probe.text().ends_with("\r\n\r\n") && probe.text().contains(tag));
    }
    let other = "GET / HTTP/1.1\r\nIf-None-Match: \"x\"\r\nHost: h\r\n\r\n";
    assert_eq!(ask(Shard::Admits, other).statuses(), [200]);
}

#[test]
fn a_viewer_asks_for_a_place_and_gets_a_head() {
    let probe =
        ask(Shard::Admits, "GET /live/cam.ts?start=-500ms&wait=100&x HTTP/1.1\r\nHost: h\r\n\r\n");
    let asked = "PlayRequest { name: StreamName(\"cam\"), start: Some(500ms), at: None, \
                 wait: 60s, head_only: false, client: 127.0.0.1 }";
    assert_eq!(probe.events, [asked]);
    let head = probe.text();
    for line in [
        "HTTP/1.1 200 OK\r\n",
        "Content-Type: video/mp2t\r\n",
        "Cache-Control: no-store\r\n",
        "Connection: close\r\n",
        "Server: headwater\r\n",
        "X-Content-Type-Options: nosniff\r\n",
        "Access-Control-Allow-Origin: *\r\n",
    ] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    assert!(!head.contains("Content-Length"));
    assert_eq!(probe.conn.deadline(), None);
    let refused = ask(Shard::Refuses, "GET /live/cam.ts HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(refused.text().contains("Retry-After: 2\r\n") && refused.is_open());
}

#[test]
fn a_viewer_asks_for_the_very_byte_and_is_told_its_offset() {
    let get = |query: &str| {
        ask(Shard::Admits, &format!("GET /live/cam.ts?{query} HTTP/1.1\r\nHost: h\r\n\r\n"))
    };
    let probe = get("at=18800");
    assert!(probe.events[0].contains("start: None, at: Some(18800)"), "{}", probe.events[0]);
    assert!(probe.text().contains("\r\nHeadwater-Offset: 18800\r\n"), "{}", probe.text());
    assert!(!get("wait=1").text().contains("Headwater-Offset"));
    for bad in [
        "at=18801",
        "at=-188",
        "at=+188",
        "at=",
        "at=x",
        "at=99999999999999999999",
        "at=0&start=-1s",
    ] {
        assert_eq!(get(bad).statuses(), [400], "{bad}");
    }
}

#[test]
fn a_peer_is_invited_by_the_name_it_asked() {
    let get = |name: &str, host: &str| {
        let head = format!("GET /live/{name}/swarm.json HTTP/1.1\r\nHost: {host}\r\n\r\n");
        ask(Shard::Admits, &head)
    };
    let probe = get("cam", "[::1]:8080");
    assert_eq!(probe.statuses(), [200]);
    let text = probe.text();
    assert!(text.contains("Cache-Control: no-store\r\n") && text.contains("application/json"));
    assert!(text.ends_with("{\"host\":Some(\"[::1]:8080\")}\n"), "{text}");
    let early = get("other", "h");
    assert_eq!(early.statuses(), [503]);
    assert!(early.text().contains("Retry-After: 1\r\n"));
    let put = "PUT /live/cam/swarm.json HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(ask(Shard::Admits, put).statuses(), [405]);
}

#[test]
fn responses_are_counted_by_class() {
    let counts = |request: &str| ask(Shard::Refuses, request).site.counts;
    assert_eq!(counts("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), [Cell::Http2xx]);
    assert_eq!(counts("GET /x HTTP/1.1\r\nHost: h\r\n\r\n"), [Cell::Http4xx]);
    assert_eq!(counts("GET /live/a.ts HTTP/1.1\r\nHost: h\r\n\r\n"), [Cell::Http5xx]);
    assert_eq!(counts("?\n"), [Cell::HttpBad, Cell::Http4xx]);
}

#[test]
fn without_cors_no_such_header_is_sent() {
    let mut settings = Settings::clone(&settings());
    settings.cors = String::new();
    let settings = Arc::new(settings);
    for method in ["GET", "OPTIONS"] {
        let mut probe = Probe::from(Shard::Admits, "[::1]:9", &settings);
        probe.receive(format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        assert!(!probe.text().contains("Access-Control"), "{}", probe.text());
    }
}
