//! HTTP as viewers, players, proxies and browsers meet it: statuses, limits, semantics.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::thread;
use std::time::Instant;

use common::client::{End, Framing};
use common::http::{self, LIMIT};
use common::judge::{Judge, Reference};
use common::relay::on_each_host;
use common::ts::{Broadcast, PACKET, Shape};
use common::{Driver, Idle, PutStream, Relay, Setup, Watch, both_drivers, millis, secs, wait_for};

both_drivers!(
    a_viewer_begins_at_the_newest_access_point,
    the_first_byte_comes_at_once,
    a_viewer_may_begin_earlier,
    every_framing_of_a_body_is_taken,
    statuses_have_one_line,
    head_has_no_body,
    limits_of_a_request_head,
    a_slow_request_is_timed_out,
    connections_are_kept_and_pipelined,
    cross_origin_players_are_welcome,
    one_address_has_a_limit,
    a_trusted_proxy_tells_who_asks,
    viewers_have_a_limit,
    waiting_for_a_stream,
    pages_and_status,
    the_control_listener,
);

/// Publishes two seconds of a stream at once and leaves the publisher connected.
fn publish(relay: &Relay, name: &str) -> (Idle, Broadcast) {
    let stream = Broadcast::new(1, Shape::new(1_000_000), 2.0);
    let mut put = PutStream::begin(relay.http, name);
    put.push(&stream.bytes);
    let idle = Idle::begin(put);
    relay.wait_live(name);
    relay.wait_ingested(name, stream.bytes.len());
    (idle, stream)
}

fn a_viewer_begins_at_the_newest_access_point(driver: Driver) {
    on_each_host(
        || Setup::new(driver).set("streams.linger", "1s"),
        |relay| {
            let (idle, stream) = publish(relay, "edge");
            let viewer = Watch::live(relay.http, "edge").start();
            viewer.wait_bytes(3 * PACKET, secs(5));
            let more = Broadcast::new(2, Shape::new(1_000_000), 1.0);
            let mut put = idle.resume();
            put.push(&more.bytes);
            assert!(matches!(put.finish().status, 200 | 201));
            let seen = viewer.end();
            assert_eq!((seen.head.status, seen.end), (200, End::Closed));
            assert_eq!(seen.head.header("content-type"), Some("video/mp2t"));
            let connection = seen.head.header("connection").map(str::to_ascii_lowercase);
            assert_eq!(connection.as_deref(), Some("close"));
            assert_eq!(seen.head.header("content-length"), None);
            let all = [&*stream.bytes, &*more.bytes].concat();
            let first = Reference::new(&[&stream.bytes]);
            let reference = Reference::new(&[&all]);
            let verdict = Judge::on(&reference, &seen.body).unwrap();
            assert_eq!(verdict.start, *first.access_points().last().unwrap(), "{verdict:?}");
            assert_eq!(verdict.end, reference.packets(), "{verdict:?}");
            assert!(verdict.jumps.is_empty(), "{verdict:?}");
        },
    );
}

/// 20 ms is the promise. A debug build on a busy machine is late now and then, but not mostly.
fn the_first_byte_comes_at_once(driver: Driver) {
    on_each_host(
        || Setup::new(driver),
        |relay| {
            let (_put, _) = publish(relay, "prompt");
            let mut times: Vec<_> = (0..20)
                .map(|_| {
                    let viewer = Watch::live(relay.http, "prompt").start();
                    viewer.wait_bytes(3 * PACKET, secs(5));
                    viewer.stop().first_byte.unwrap()
                })
                .collect();
            times.sort_unstable();
            assert!(times[9] < millis(20), "first bytes after {times:?}");
        },
    );
}

fn a_viewer_may_begin_earlier(driver: Driver) {
    let relay = Setup::new(driver).set("streams.linger", "1s").start();
    let (put, stream) = publish(&relay, "past");
    let mut watch = Watch::live(relay.http, "past");
    watch.target.push_str("?start=-10s");
    let viewer = watch.start();
    viewer.wait_bytes(3 * PACKET, secs(5));
    put.finish();
    let reference = Reference::new(&[&stream.bytes]);
    let verdict = Judge::on(&reference, &viewer.end().body).unwrap();
    assert_eq!(verdict.start, reference.access_points()[0], "all of it is younger than 10 s");
    assert_eq!(verdict.end, reference.packets());
    let answer = relay.get("/live/past.ts?start=yesterday");
    assert!(matches!(answer.status, 400 | 503), "{answer:?}");
}

fn every_framing_of_a_body_is_taken(driver: Driver) {
    on_each_host(
        || Setup::new(driver).set("streams.linger", "500ms"),
        |relay| {
            let stream = Broadcast::new(6, Shape::new(500_000), 1.0);
            let length = stream.bytes.len();
            let framings = [Framing::Chunked, Framing::Length(length), Framing::Close];
            for (n, framing) in framings.into_iter().enumerate() {
                let name = format!("framing-{n}");
                let target = format!("/live/{name}");
                let mut put = PutStream::begin_with(relay.http, &target, framing, &[]);
                let half = length / 2;
                // Pieces that respect neither packets nor chunks.
                stream.bytes[..half].chunks(1001).for_each(|piece| put.push(piece));
                relay.wait_live(&name);
                let mut watch = Watch::live(relay.http, &name);
                watch.target.push_str("?start=-10s");
                let viewer = watch.start();
                viewer.wait_bytes(PACKET, secs(5));
                stream.bytes[half..].chunks(4099).for_each(|piece| put.push(piece));
                if framing == Framing::Close {
                    // The end of the connection is the end of the body: no answer is due.
                    put.connection().finish();
                    put.connection().assert_closes(LIMIT);
                } else {
                    let answer = put.finish();
                    assert!(matches!(answer.status, 200 | 201), "{framing:?}: {answer:?}");
                    answer.assert_line(answer.status);
                }
                let reference = Reference::new(&[&stream.bytes]);
                let verdict = Judge::on(&reference, &viewer.end().body);
                assert_eq!(verdict.unwrap().end, reference.packets(), "{framing:?}");
            }
            let expect = ["Expect: 100-continue"];
            let target = "/live/continue";
            let mut put = PutStream::begin_with(relay.http, target, Framing::Chunked, &expect);
            assert_eq!(put.connection().response_head(LIMIT).status, 100);
            put.push(&stream.bytes);
            assert!(matches!(put.finish().status, 200 | 201));
        },
    );
}

fn statuses_have_one_line(driver: Driver) {
    on_each_host(
        || Setup::new(driver),
        |relay| {
            let ask = |method, target| http::request(relay.http, method, target, &[]);
            ask("GET", "/live/nobody.ts").assert_line(404);
            ask("GET", "/live/nobody/status.json").assert_line(404);
            ask("GET", "/no/such/page").assert_line(404);
            for (method, target) in
                [("DELETE", "/live/nobody.ts"), ("PUT", "/"), ("BREW", "/streams.json")]
            {
                let answer = ask(method, target);
                answer.assert_line(405);
                assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")));
            }
            let (put, _) = publish(relay, "over");
            put.finish();
            wait_for("a stream that is not live", secs(5), || {
                (relay.state("over") != "live").then_some(())
            });
            let answer = ask("GET", "/live/over.ts");
            answer.assert_line(503);
            let retry = answer.header("retry-after").and_then(|s| s.parse::<u32>().ok());
            assert!(retry.is_some_and(|s| s > 0), "{answer:?}");
            for garbage in ["\r\n\r\n\r\nwhat\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"] {
                let mut connection = http::connect(relay.http);
                connection.send(garbage.as_bytes());
                let answer = connection.response(false, LIMIT);
                assert!(matches!(answer.status, 400 | 505), "{garbage:?}: {answer:?}");
                connection.assert_closes(LIMIT);
            }
        },
    );
}

fn head_has_no_body(driver: Driver) {
    let relay = Setup::new(driver).start();
    let (_put, _) = publish(&relay, "head");
    for target in ["/", "/streams.json", "/live/head/status.json", "/live/nobody.ts"] {
        let get = relay.get(target);
        let mut connection = http::connect(relay.http);
        connection.send(&http::head(relay.http, "HEAD", target, &[]));
        let head = connection.response(true, LIMIT);
        assert_eq!(head.status, get.status, "{target}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{target}");
        connection.assert_closes(LIMIT);
        assert!(connection.pending().is_empty(), "{target}: HEAD brought a body");
    }
    let mut connection = http::connect(relay.http);
    connection.send(&http::head(relay.http, "HEAD", "/live/head.ts", &[]));
    let head = connection.response(true, LIMIT);
    assert_eq!((head.status, head.header("content-type")), (200, Some("video/mp2t")));
    connection.assert_closes(LIMIT);
    assert!(connection.pending().is_empty(), "HEAD of a stream brought a body");
}

fn limits_of_a_request_head(driver: Driver) {
    let setup = Setup::new(driver).set("limits.head_bytes", 4096).set("limits.header_lines", 16);
    let relay = setup.start();
    let ask = |extra: &[&str]| http::request(relay.http, "GET", "/streams.json", extra);
    let few: Vec<String> = (0..10).map(|n| format!("X-{n}: y")).collect();
    let many: Vec<String> = (0..40).map(|n| format!("X-{n}: y")).collect();
    let lines = |v: &[String]| v.iter().map(String::as_str).collect::<Vec<_>>().join("\r\n");
    assert_eq!(ask(&[&lines(&few)]).status, 200);
    ask(&[&lines(&many)]).assert_line(431);
    ask(&[&format!("X-Long: {}", "y".repeat(6000))]).assert_line(431);
    let target = format!("/live/{}", "n".repeat(6000));
    let answer = http::request(relay.http, "GET", &target, &[]);
    assert!(matches!(answer.status, 414 | 431), "{answer:?}");
    let body = ["Content-Length: 100000000"];
    let answer = http::request(relay.http, "POST", "/streams.json", &body);
    assert!(matches!(answer.status, 405 | 413), "{answer:?}");
}

fn a_slow_request_is_timed_out(driver: Driver) {
    on_each_host(
        || Setup::new(driver).set("limits.request_timeout", "1s"),
        |relay| {
            // One byte now and then does not renew the limit: it holds for the whole head.
            let mut slow = http::connect(relay.http);
            let start = Instant::now();
            let (answer, waited) = thread::scope(|scope| {
                let mut dribble = slow.stream().try_clone().unwrap();
                scope.spawn(move || {
                    use std::io::Write;
                    for byte in b"GET /streams.json HTTP/1.1\r\nHost: dribble" {
                        if dribble.write_all(&[*byte]).is_err() {
                            break;
                        }
                        common::pass(millis(60));
                    }
                });
                (slow.response(false, secs(5)), start.elapsed())
            });
            answer.assert_line(408);
            assert!((millis(900)..millis(2500)).contains(&waited), "408 after {waited:?}");
            // Nothing sent at all: closed, with or without a word.
            http::connect(relay.http).assert_closes(secs(4));
            let rounds = (0..20).map(|_| relay.get("/streams.json").status);
            assert!(rounds.into_iter().all(|status| status == 200), "others are served");
        },
    );
}

fn connections_are_kept_and_pipelined(driver: Driver) {
    let relay = Setup::new(driver).start();
    let mut connection = http::connect(relay.http);
    let keep = ["Connection: keep-alive"];
    let targets = ["/streams.json", "/live/nobody.ts", "/", "/assets/app.js", "/streams.json"];
    let mut all = Vec::new();
    for target in targets {
        all.extend_from_slice(&http::head(relay.http, "GET", target, &keep));
    }
    for round in 0..20 {
        // Whole, and cut in every kind of place.
        match round {
            0 => connection.send(&all),
            _ => all.chunks(13 * round).for_each(|piece| connection.send(piece)),
        }
        for (n, target) in targets.iter().enumerate() {
            let answer = connection.response(false, LIMIT);
            assert_eq!(answer.status, if n == 1 { 404 } else { 200 }, "{target}: {answer:?}");
            let json = answer.header("content-type").is_some_and(|t| t.contains("json"));
            assert_eq!(json, n == 0 || n == 4, "answers are in order: {target}");
        }
        assert!(connection.pending().is_empty(), "nothing beyond the answers");
    }
    connection.send(&http::head(relay.http, "GET", "/", &[]));
    assert_eq!(connection.response(false, LIMIT).status, 200);
    connection.assert_closes(LIMIT);
}

fn cross_origin_players_are_welcome(driver: Driver) {
    let relay = Setup::new(driver).start();
    let (_put, _) = publish(&relay, "cors");
    let origin = "access-control-allow-origin";
    for target in ["/streams.json", "/live/cors/status.json", "/live/nobody.ts"] {
        let answer = http::request(relay.http, "GET", target, &["Origin: http://player.example"]);
        assert_eq!(answer.header(origin), Some("*"), "{target}: {answer:?}");
    }
    let (_, mut connection) = Watch::live(relay.http, "cors").ask();
    assert_eq!(connection.response_head(LIMIT).header(origin), Some("*"));
    let asks = ["Origin: http://player.example", "Access-Control-Request-Method: GET"];
    let answer = http::request(relay.http, "OPTIONS", "/live/cors.ts", &asks);
    assert_eq!(answer.status, 204, "{answer:?}");
    assert_eq!(answer.header(origin), Some("*"));
    let methods = answer.header("access-control-allow-methods").unwrap_or_default();
    assert!(methods.contains("GET"), "{answer:?}");
}

fn one_address_has_a_limit(driver: Driver) {
    let none = toml::Value::Array(Vec::new());
    on_each_host(
        || Setup::new(driver).set("limits.per_address", 10).set("limits.exempt", none.clone()),
        |relay| {
            let (put, _) = publish(relay, "narrow");
            let watch = Watch::live(relay.http, "narrow");
            let viewers: Vec<_> = (0..7).map(|_| watch.clone().start()).collect();
            viewers.iter().for_each(|viewer| viewer.wait_bytes(1, secs(5)));
            // Seven viewers and the publisher: two more fit, at most.
            let mut inside = Vec::new();
            let ask = http::head(relay.http, "GET", "/streams.json", &["Connection: keep-alive"]);
            let refusal = (0..10).find_map(|_| {
                let mut next = http::connect(relay.http);
                // The refusal may come before the request is read.
                let _ = next.try_send(&ask);
                let answer = next.response(false, LIMIT);
                inside.push(next);
                (answer.status != 200).then_some(answer)
            });
            refusal.expect("a refusal").assert_line(429);
            assert!(inside.len() <= 3, "{} were let in", inside.len() - 1);
            drop(inside);
            let refused = relay.metric("headwater_admission_rejected_total", &["address"]);
            assert!(refused.is_some_and(|n| n >= 1.0), "{refused:?}");
            viewers.into_iter().for_each(|viewer| drop(viewer.stop()));
            wait_for("room for the address", secs(5), || {
                let mut next = http::connect(relay.http);
                let _ = next.try_send(&http::head(relay.http, "GET", "/streams.json", &[]));
                (next.response(false, LIMIT).status == 200).then_some(())
            });
            assert!(matches!(put.finish().status, 200 | 201), "those inside are not touched");
        },
    );
}

fn a_trusted_proxy_tells_who_asks(driver: Driver) {
    let trusted: toml::Value = vec!["127.0.0.1/32", "::1/128"].into();
    let limited = || {
        let none = toml::Value::Array(Vec::new());
        Setup::new(driver).set("limits.per_address", 3).set("limits.exempt", none)
    };
    let watch = |relay: &Relay, client: &str| {
        let mut connection = http::connect(relay.http);
        let from = format!("X-Forwarded-For: 203.0.113.99, {client}");
        let _ = connection.try_send(&http::head(relay.http, "GET", "/live/proxied.ts", &[&from]));
        (connection.response_head(LIMIT).status, connection)
    };
    on_each_host(
        || limited().set("proxy.trusted", trusted.clone()),
        |relay| {
            let key_less = ["X-Forwarded-For: 198.51.100.1"];
            let target = "/live/proxied";
            let mut other = PutStream::begin_with(relay.http, target, Framing::Chunked, &key_less);
            other.response().assert_line(403);
            let (_idle, _) = publish(relay, "proxied");
            // The last address in the list is what the proxy itself saw.
            let inside: Vec<_> = (0..3).map(|_| watch(relay, "198.51.100.1")).collect();
            assert!(inside.iter().all(|(status, _)| *status == 200), "{inside:?}");
            assert_eq!(watch(relay, "198.51.100.1").0, 429);
            // One IPv6 household is a /64.
            let homes = ["2001:db8::1", "2001:db8::2", "2001:db8::3"];
            let more: Vec<_> = homes.iter().map(|client| watch(relay, client)).collect();
            assert!(more.iter().all(|(status, _)| *status == 200), "{more:?}");
            assert_eq!(watch(relay, "2001:db8::ffff").0, 429);
            assert_eq!(watch(relay, "2001:db8:0:1::1").0, 200);
        },
    );
    // Who is not trusted is not believed: all of these come from one address.
    let relay = limited().start();
    let answers: Vec<_> = (0..6)
        .map(|n| {
            let mut connection = http::connect(relay.http);
            let from = format!("X-Forwarded-For: 198.51.100.{n}");
            let keep = [from.as_str(), "Connection: keep-alive"];
            let _ = connection.try_send(&http::head(relay.http, "GET", "/streams.json", &keep));
            (connection.response(false, LIMIT).status, connection)
        })
        .collect();
    assert!(answers.iter().any(|(status, _)| *status == 429), "{answers:?}");
}

fn viewers_have_a_limit(driver: Driver) {
    let relay = Setup::new(driver).set("limits.viewers", 5).start();
    let (_put, _) = publish(&relay, "full");
    let watch = Watch::live(relay.http, "full");
    let mut viewers: Vec<_> = (0..5).map(|_| watch.clone().start()).collect();
    viewers.iter().for_each(|viewer| viewer.wait_bytes(1, secs(5)));
    let answer = relay.get("/live/full.ts");
    answer.assert_line(503);
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert_eq!(relay.get("/streams.json").status, 200, "pages are not viewers");
    let gauge = relay.metric("headwater_viewers", &["face=\"http\""]);
    assert_eq!(gauge, Some(5.0));
    viewers.pop().unwrap().stop();
    wait_for("a free place", secs(5), || {
        let (_, mut connection) = watch.ask();
        (connection.response_head(LIMIT).status == 200).then_some(())
    });
}

fn waiting_for_a_stream(driver: Driver) {
    let relay = Setup::new(driver).start();
    let (put, _) = publish(&relay, "later");
    put.finish();
    wait_for("the end", secs(5), || (relay.state("later") != "live").then_some(()));
    let start = Instant::now();
    let answer = relay.get("/live/later.ts?wait=1");
    answer.assert_line(503);
    let waited = start.elapsed();
    assert!((millis(800)..secs(4)).contains(&waited), "{waited:?}");
    let mut watch = Watch::live(relay.http, "later");
    watch.target.push_str("?wait=10");
    let viewer = watch.start();
    // It must be held: half a second later there is no answer yet.
    common::pass(millis(500));
    assert!(!viewer.has_ended(), "answered before the stream is live");
    let (_put, stream) = publish(&relay, "later");
    viewer.wait_bytes(3 * PACKET, secs(5));
    let seen = viewer.stop();
    assert_eq!(seen.head.status, 200);
    let whole = seen.body.len() / PACKET * PACKET;
    Judge::on(&Reference::new(&[&stream.bytes]), &seen.body[..whole]).unwrap();
}

fn pages_and_status(driver: Driver) {
    on_each_host(
        || Setup::new(driver),
        |relay| {
            let (_put, _) = publish(relay, "page");
            let viewer = Watch::live(relay.http, "page").start();
            viewer.wait_bytes(1, secs(5));
            for target in ["/", "/watch/live/page"] {
                let page = relay.get(target);
                assert_eq!(page.status, 200, "{target}");
                let kind = page.header("content-type").unwrap_or_default();
                assert!(kind.starts_with("text/html"), "{target}: {kind}");
                let text = page.text();
                for external in ["src=\"http", "src=\"//", "href=\"http", "@import", "url(http"] {
                    assert!(!text.contains(external), "{target} loads from elsewhere: {external}");
                }
            }
            assert_eq!(relay.get("/assets/app.js").status, 200);
            let list: serde_json::Value =
                serde_json::from_slice(&relay.get("/streams.json").body).unwrap();
            assert!(list.to_string().contains("page"), "{list}");
            // The health of a stream is measured over a second or so.
            let status = wait_for("viewer and health in the status", secs(5), || {
                let known = |status: &serde_json::Value| {
                    status["viewers"] == 1 && status["gop_ms"].as_f64().is_some_and(|ms| ms > 0.0)
                };
                relay.status("page").filter(known)
            });
            assert_eq!(status["state"], "live", "{status}");
            assert!(status["name"].as_str().is_some_and(|n| n.ends_with("page")), "{status}");
            assert_eq!(status["continuity_errors"], 0, "{status}");
            let gop = status["gop_ms"].as_f64().unwrap();
            assert!((470.0..490.0).contains(&gop), "12 frames at 25/s: {status}");
            let codecs: Vec<_> = status["tracks"].as_array().unwrap().iter().collect();
            let has = |codec: &str| codecs.iter().any(|track| track["codec"] == codec);
            assert!(has("h264") && has("aac"), "{status}");
            assert_eq!(codecs.len(), 3, "the private track is listed too: {status}");
        },
    );
}

fn the_control_listener(driver: Driver) {
    on_each_host(
        || Setup::new(driver),
        |relay| {
            let (idle, stream) = publish(relay, "seen");
            let viewer = Watch::live(relay.http, "seen").start();
            viewer.wait_bytes(3 * PACKET, secs(5));
            // Bytes that a waiting viewer gets at once: what the fan-out histogram measures.
            let before = viewer.bytes();
            let mut put = idle.resume();
            put.push(&Broadcast::new(2, Shape::new(1_000_000), 0.5).bytes);
            viewer.wait_bytes(before + 20_000, secs(5));
            assert_eq!(relay.control("/livez").status, 200);
            assert_eq!(relay.control("/readyz").status, 200);
            assert_eq!(relay.control("/nothing").status, 404);
            assert_eq!(relay.get("/metrics").status, 404, "metrics are private");
            let list: serde_json::Value =
                serde_json::from_slice(&relay.control("/api/v1/streams").body).unwrap();
            assert!(list.to_string().contains("seen"), "{list}");
            for (of, part) in [("seen", "swarm"), ("seen/graph", "edges")] {
                let answer = relay.control(&format!("/api/v1/streams/{of}"));
                let one: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
                assert!(one.get(part).is_some(), "{of}: {one}");
            }
            assert_eq!(relay.control("/api/v1/streams/unseen/graph").status, 404);
            let face = "face=\"http\"";
            let metric = |name, labels: &[&str]| {
                let value = relay.metric(name, labels);
                value.unwrap_or_else(|| panic!("no {name} {labels:?}"))
            };
            let info = format!("driver=\"{}\"", driver.name());
            assert_eq!(metric("headwater_io_driver_info", &[&info]), 1.0);
            assert_eq!(relay.ready["io_driver"], driver.name());
            assert!(metric("headwater_build_info", &[]) >= 1.0);
            assert_eq!(metric("headwater_viewers", &[face]), 1.0);
            assert_eq!(metric("headwater_viewer_skips_total", &[face]), 0.0);
            assert!(metric("headwater_egress_bytes_total", &[face]) >= 3.0 * PACKET as f64);
            assert!(metric("headwater_ring_bytes", &[]) >= 0.0);
            let ingested = metric("headwater_ingest_bytes_total", &["proto=\"http\""]);
            assert!(ingested >= stream.bytes.len() as f64, "{ingested}");
            let fanout = "headwater_chunk_fanout_duration_seconds_count";
            wait_for("the fan-out histogram", secs(5), || {
                (metric(fanout, &[]) >= 1.0).then_some(())
            });
        },
    );
}
