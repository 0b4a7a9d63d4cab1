//! The pages in a real browser: Chromium plays the demo, on a desk and on a phone, by Media
//! Source Extensions and by HLS, and talks to nobody but the relay.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::{have, millis, secs, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The longest that anything may take here: a browser starts slowly on a busy machine.
const LIMIT: Duration = secs(60);

/// Viewers that share the demo's stream.
const VIEWERS: u64 = 20;

/// Media Source Extensions taken away: what a browser without them sees.
const NO_MSE: &str = "for (const name of ['MediaSource', 'ManagedMediaSource', \
     'WebKitMediaSource']) delete globalThis[name];";

/// What a page shows, as one JSON text.
const LOOK: &str = "(() => {
  const video = document.querySelector('video');
  const quality = video?.getVideoPlaybackQuality();
  return JSON.stringify({
    time: video?.currentTime ?? -1, frames: quality?.totalVideoFrames ?? 0,
    picture: video?.videoWidth ?? 0, src: video?.src ?? '',
    says: document.querySelector('.player-status')?.textContent ?? '',
    text: document.body?.innerText ?? '', width: document.documentElement?.scrollWidth ?? 0,
    title: document.title,
  });
})()";

/// What the picture of the swarm shows, as one JSON text.
const LOOK_AT_SWARM: &str = "(() => {
  const all = (what) => [...document.querySelectorAll(what)];
  const drawn = (what) => all(what).map((path) => path.getAttribute('d') ?? '').join('');
  const count = (text, letter) => text.split(letter).length - 1;
  return JSON.stringify({
    nodes: all('#graph g.node').length,
    relayEdges: count(drawn('#graph path.relay'), 'Z'),
    viewerEdges: count(drawn('#graph path.viewer'), 'Z'),
    offload: count(drawn('.plot path.offload'), 'L'),
    delay: count(drawn('.plot path.behind'), 'L'),
    words: document.getElementById('graph')?.getAttribute('aria-label') ?? '',
    rows: all('#swarm-table tr').length,
    text: document.getElementById('swarm')?.innerText ?? '',
    addresses: document.getElementById('swarm')?.innerHTML.includes('127.0.0.1'),
  });
})()";

/// The demo on any free ports.
struct Demo {
    child: Child,
    /// `http://ADDRESS:PORT`
    origin: String,
}

impl Demo {
    fn start() -> Demo {
        let mut child = Command::new(common::binary())
            .args(["demo", "--http", "127.0.0.1:0", "--control", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let page = lines.into_iter().find_map(|line| Some(line.split_once("page ")?.1.to_owned()));
        let origin = page.expect("where the page is").trim().trim_end_matches('/').to_owned();
        Demo { child, origin }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A headless Chromium, spoken to by the DevTools protocol over a pair of pipes.
struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: String,
    calls: u64,
    /// What the browser told unasked.
    events: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Starts one with an empty tab.
    fn start() -> Browser {
        let profile = TempDir::with_prefix("headwater-page-").unwrap();
        // The protocol is spoken on descriptors 3 and 4: the shell moves the pipes there.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null", "sh"])
            .args(["chromium", "--headless=new", "--no-sandbox", "--disable-gpu"])
            .args(["--no-first-run", "--disable-dev-shm-usage", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (tell, from) = channel();
        thread::spawn(move || {
            for message in BufReader::new(out).split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).expect("DevTools speaks JSON");
                if tell.send(message).is_err() {
                    return;
                }
            }
        });
        let (session, events) = (String::new(), Vec::new());
        let mut browser = Browser { child, to, from, session, calls: 0, events, _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Network", "Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Calls a method of the protocol and waits for its result.
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut call = json!({ "id": self.calls, "method": method, "params": params });
        if !self.session.is_empty() {
            call["sessionId"] = json!(self.session);
        }
        self.to.write_all(format!("{call}\0").as_bytes()).expect("the browser listens");
        let started = Instant::now();
        loop {
            let left = LIMIT.saturating_sub(started.elapsed());
            let answer = self.from.recv_timeout(left).unwrap_or_else(|e| panic!("{method}: {e}"));
            if answer["id"] == self.calls {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    /// Opens a page on a screen of `width` by `height`.
    fn open(&mut self, url: &str, (width, height): (u64, u64)) {
        let screen = json!({ "width": width, "height": height, "mobile": width < 500,
            "deviceScaleFactor": 1 });
        self.call("Emulation.setDeviceMetricsOverride", screen);
        // The page before goes first: what is told from now on is about this one.
        self.call("Page.navigate", json!({ "url": "about:blank" }));
        self.events.clear();
        self.call("Page.navigate", json!({ "url": url }));
    }

    /// What the page shows now.
    fn look(&mut self) -> Value {
        self.evaluate(LOOK)
    }

    /// The value of an expression that gives JSON.
    fn evaluate(&mut self, expression: &str) -> Value {
        let result = self.call("Runtime.evaluate", json!({ "expression": expression }));
        let text = result["result"]["value"].as_str().unwrap_or_else(|| panic!("{result}"));
        serde_json::from_str(text).unwrap()
    }

    /// Waits until the player says that it is live, then for three seconds of play-out.
    fn assert_plays(&mut self, what: &str) -> Value {
        let from = wait_for(&format!("{what}: live pictures"), LIMIT, || {
            let seen = self.look();
            let moves = seen["time"].as_f64() > Some(0.0) && seen["picture"].as_u64() > Some(0);
            let says = seen["says"].as_str().is_some_and(|says| says.starts_with("Live"));
            (moves && says).then_some(seen)
        });
        let started = Instant::now();
        let to = wait_for(&format!("{what}: three seconds of pictures"), LIMIT, || {
            let seen = self.look();
            let number = |seen: &Value, name: &str| seen[name].as_f64().unwrap();
            let time = number(&seen, "time") - number(&from, "time");
            let frames = number(&seen, "frames") - number(&from, "frames");
            (time >= 3.0 && frames >= 50.0).then_some(seen)
        });
        // It jumps to the live edge when it is late; it may not race through everything.
        assert!(started.elapsed() > millis(1000), "{what}: in {:?}", started.elapsed());
        to
    }

    /// Everything that was fetched came from the relay; nothing went wrong in a script.
    fn assert_well(&mut self, origin: &str, what: &str) {
        let of = |method: &str| {
            let found = self.events.iter().filter(move |event| event["method"] == method);
            found.map(|event| event["params"].clone()).collect::<Vec<_>>()
        };
        let asked = of("Network.requestWillBeSent");
        assert!(asked.len() >= 5, "{what}: the page and its parts: {asked:?}");
        for request in asked {
            let url = request["request"]["url"].as_str().unwrap();
            let own = url.starts_with(&format!("{origin}/")) || url.starts_with("blob:");
            assert!(own || url.starts_with("data:"), "{what}: an external request: {url}");
        }
        let thrown = of("Runtime.exceptionThrown");
        assert!(thrown.is_empty(), "{what}: {thrown:?}");
        let errors: Vec<_> = of("Log.entryAdded")
            .into_iter()
            .filter(|log| log["entry"]["level"] == "error")
            .collect();
        assert!(errors.is_empty(), "{what}: {errors:?}");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.to.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let started = Instant::now();
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if started.elapsed() > secs(5) {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            common::pass(millis(20));
        }
    }
}

#[test]
fn a_stream_plays_on_a_desk_and_on_a_phone() {
    if !have(&["chromium"]) {
        return;
    }
    let (demo, mut browser) = (Demo::start(), Browser::start());
    for (what, screen) in [("desk", (1280, 800)), ("phone", (390, 844))] {
        for path in ["/watch/live/demo", "/"] {
            browser.open(&format!("{}{path}", demo.origin), screen);
            let what = format!("{path} on a {what}");
            let seen = browser.assert_plays(&what);
            let src = seen["src"].as_str().unwrap();
            assert!(src.starts_with("blob:"), "{what}: by Media Source Extensions, not {src}");
            let (wide, text) = (seen["width"].as_u64().unwrap(), seen["text"].as_str().unwrap());
            assert!(wide <= screen.0, "{what}: {wide} wide, to be scrolled sideways");
            for word in ["demo", "Viewers", "Bitrate", "H.264 + AAC", "Copy", "ffmpeg", "mpv"] {
                let found = text.to_lowercase().contains(&word.to_lowercase());
                assert!(found, "{what}: no {word} in {text}");
            }
            browser.assert_well(&demo.origin, &what);
        }
    }
}

#[test]
fn the_swarm_is_drawn_and_its_minutes_are_plotted() {
    if !have(&["chromium"]) {
        return;
    }
    let (demo, mut browser) = (Demo::start(), Browser::start());
    browser.open(&format!("{}/watch/live/demo#swarm", demo.origin), (1280, 800));
    let seen = wait_for("who feeds whom, and curves", LIMIT, || {
        let seen = browser.evaluate(LOOK_AT_SWARM);
        let number = |name: &str| seen[name].as_u64().unwrap();
        let drawn = number("nodes") == VIEWERS && number("relayEdges") > 0;
        (drawn && number("viewerEdges") >= VIEWERS && number("offload") > 1 && number("delay") > 1)
            .then_some(seen)
    });
    let words = seen["words"].as_str().unwrap();
    assert!(words.contains(&format!("{VIEWERS} viewers that share")), "{words}");
    assert_eq!(seen["addresses"], false, "nobody's address is shown");
    // The same as a table, once it is opened.
    assert_eq!(seen["rows"], 0);
    browser.evaluate("document.querySelector('#swarm details summary').click(), '0'");
    let seen = wait_for("the table", LIMIT, || {
        let seen = browser.evaluate(LOOK_AT_SWARM);
        (seen["rows"].as_u64() == Some(VIEWERS)).then_some(seen)
    });
    let text = seen["text"].as_str().unwrap();
    for word in ["Who feeds whom", "Offload", "Behind live", "Stalls", "Hybrid", "relay ("] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    browser.assert_well(&demo.origin, "the swarm");
}

#[test]
fn hls_plays_where_there_are_no_media_source_extensions() {
    if !have(&["chromium"]) {
        return;
    }
    let (demo, mut browser) = (Demo::start(), Browser::start());
    browser.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": NO_MSE }));
    browser.open(&format!("{}/watch/live/demo", demo.origin), (1280, 800));
    let able = "document.createElement('video').canPlayType('application/vnd.apple.mpegurl')";
    let able = browser.call("Runtime.evaluate", json!({ "expression": able }));
    if able["result"]["value"] == "" {
        return common::skipped("HLS in the page", "this Chromium does not play HLS by itself");
    }
    let seen = browser.assert_plays("HLS");
    assert_eq!(seen["src"], format!("{}/live/demo/index.m3u8", demo.origin));
    browser.assert_well(&demo.origin, "HLS");
}
