//! HTTP Live Streaming: what players fetch is what was published, and playlists keep the rules
//! of RFC 8216 over the deaths of publishers and relays.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use common::hls::Rules;
use common::http::{self, Connection, LIMIT, Response};
use common::ts::{Broadcast, NULL_PID, PACKET, PMT_PID, Shape, is_access_point, pid};
use common::{
    Driver, Idle, Publisher, PutStream, Relay, Setup, Watch, both_drivers, have, millis, pass,
    secs, wait_for,
};
use rustix::process::Signal;

both_drivers!(
    segments_are_what_was_sent_over_a_publisher_restart,
    numbers_go_on_over_relay_restarts,
    a_segment_is_a_file_of_http,
    a_segment_that_leaves_is_cut_off_and_never_wrong,
    playlists_wait_for_the_first_segment,
    the_variant_is_described,
    ffmpeg_plays_over_a_publisher_restart,
);

const RATE: u64 = 500_000;

/// Bytes of the PAT and PMT packets of these streams.
const TABLES: usize = 2 * PACKET;

fn setup(driver: Driver) -> Setup {
    Setup::new(driver).set("hls.segment", "500ms")
}

/// A player that looks at the playlist often and fetches every segment at once.
struct Player {
    relay: SocketAddr,
    name: String,
    rules: Rules,
    /// Every segment, by its number.
    got: BTreeMap<u64, Vec<u8>>,
}

impl Player {
    fn new(relay: &Relay, name: &str) -> Player {
        let (rules, got) = (Rules::default(), BTreeMap::new());
        Player { relay: relay.http, name: name.to_owned(), rules, got }
    }

    fn target(&self, file: &str) -> String {
        format!("/live/{}/{file}", self.name)
    }

    /// Looks once. Returns how many segments are listed.
    fn look(&mut self) -> usize {
        let answer = http::get(self.relay, &self.target("index.m3u8"));
        if answer.status == 503 {
            return 0;
        }
        assert_eq!(answer.status, 200, "{answer:?}");
        let playlist = self.rules.check(&answer.text());
        for (n, segment) in playlist.segments.iter().enumerate() {
            let sequence = playlist.media_sequence + n as u64;
            let again = self.got.contains_key(&sequence);
            // A URI always means the same bytes: the oldest is asked again before it goes.
            if again && n > 0 {
                continue;
            }
            let answer = http::get(self.relay, &self.target(&segment.uri));
            assert_eq!(answer.status, 200, "{} is listed: {answer:?}", segment.uri);
            let known = self.got.entry(sequence).or_insert_with(|| answer.body.clone());
            assert!(*known == answer.body, "{} has changed", segment.uri);
        }
        playlist.segments.len()
    }

    /// Everything fetched, tables and null packets aside.
    fn packets(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for (sequence, body) in &self.got {
            assert_eq!((pid(body), pid(&body[PACKET..])), (0, PMT_PID), "segment {sequence}");
            assert!(is_access_point(&body[TABLES..TABLES + PACKET]), "segment {sequence}");
            all.extend_from_slice(&body[TABLES..]);
        }
        without_nulls(&all)
    }
}

fn without_nulls(bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len().is_multiple_of(PACKET));
    bytes.chunks_exact(PACKET).filter(|packet| pid(packet) != NULL_PID).flatten().copied().collect()
}

/// What HLS plays of a run: all from the first access point on.
fn from_access_point(run: &[u8]) -> Vec<u8> {
    let first = run.chunks_exact(PACKET).position(is_access_point).unwrap();
    without_nulls(&run[first * PACKET..])
}

fn segments_are_what_was_sent_over_a_publisher_restart(driver: Driver) {
    let relay = setup(driver).start();
    let runs = [1, 2].map(|seed| Broadcast::new(seed, Shape::new(RATE), 6.0));
    let mut player = Player::new(&relay, "cam.1");
    for (n, run) in runs.iter().enumerate() {
        let publisher = Publisher::start(relay.http, "cam.1", run);
        relay.wait_live("cam.1");
        let mut most = 0;
        while publisher.frames() < run.frames() {
            most = most.max(player.look());
            pass(millis(100));
        }
        assert!(most >= 6, "only {most} segments were listed");
        assert!(matches!(publisher.finish().status, 200 | 201));
        let whole: Vec<u8> = runs[..=n].iter().flat_map(|r| from_access_point(&r.bytes)).collect();
        wait_for("the last segment of the run", secs(5), || {
            player.look();
            (player.packets().len() >= whole.len()).then_some(())
        });
        assert!(player.packets() == whole, "run {n}: what came is not what was sent");
    }
    let breaks: Vec<_> = player.rules.said.values().filter(|said| said.discontinuity).collect();
    assert_eq!((breaks.len(), breaks[0].breaks), (1, 1));
    // Six seconds of pictures are six seconds of segments.
    for n in 0..2 {
        let run = player.rules.said.values().filter(|said| said.breaks == n);
        let sum: f32 = run.map(|said| said.duration).sum();
        assert!((sum - 6.0).abs() < 0.001, "run {n}: {sum} s");
    }
    let cut = relay.metric("headwater_hls_segments_total", &[]).unwrap();
    assert_eq!(cut, player.got.len() as f64);
    let served = relay.metric("headwater_hls_responses_total", &["kind=\"segment\""]).unwrap();
    assert!(served >= cut);
    assert_eq!(relay.metric("headwater_hls_segments_gone_total", &[]), Some(0.0));
    let bytes: usize = player.got.values().map(|body| body.len() - TABLES).sum();
    let egress = relay.metric("headwater_egress_bytes_total", &["face=\"hls\""]).unwrap();
    assert!(egress >= bytes as f64, "{egress} of {bytes}");
}

/// Stopped in order and killed: numbers go up, whatever the file could say.
fn numbers_go_on_over_relay_restarts(driver: Driver) {
    let state = tempfile::tempdir().unwrap();
    let mut rules = Rules::default();
    let mut newest = None;
    let mut jumped = false;
    for (n, signal) in [Signal::TERM, Signal::KILL, Signal::TERM].into_iter().enumerate() {
        let mut relay = setup(driver).state(state.path()).start();
        let mut player = Player::new(&relay, "again");
        player.rules = rules;
        let run = Broadcast::new(n as u64, Shape::new(RATE), 2.4);
        let mut put = PutStream::begin(relay.http, "again");
        put.push(&run.bytes);
        let idle = Idle::begin(put);
        relay.wait_live("again");
        wait_for("four segments", secs(10), || (player.look() >= 4).then_some(()));
        // The stream's file is written once the keeper has seen the name.
        let file = state.path().join("streams/again.json");
        wait_for("the file", secs(10), || file.exists().then_some(()));
        let first = *player.got.keys().next().unwrap();
        let last = *player.got.keys().last().unwrap();
        if let Some((end, breaks)) = newest {
            let said = &player.rules.said[&first];
            assert!(first > end && said.breaks > breaks, "{first} after {end}");
            if n == 1 {
                // In order: the next number but for the rest that the stop itself cut.
                assert!(first <= end + 2 && said.breaks == breaks + 1, "{first} after {end}");
            } else {
                jumped = first > end + 100;
            }
        }
        newest = Some((last, player.rules.said[&last].breaks));
        rules = player.rules;
        relay.signal(signal);
        relay.wait_exit(secs(10));
        drop(idle);
    }
    assert!(jumped, "after a kill the numbers go on far ahead of what may have been used");
}

/// A live stream with some segments, and the address of one that stays for a while.
fn published(relay: &Relay, name: &str) -> (Idle, String, Vec<u8>) {
    let run = Broadcast::new(7, Shape::new(RATE), 5.0);
    let mut put = PutStream::begin(relay.http, name);
    put.push(&run.bytes);
    let idle = Idle::begin(put);
    relay.wait_live(name);
    let mut player = Player::new(relay, name);
    wait_for("six segments", secs(10), || (player.look() >= 6).then_some(()));
    let (sequence, said) = player.rules.said.last_key_value().unwrap();
    (idle, player.target(&said.uri), player.got[sequence].clone())
}

fn ask(
    connection: &mut Connection,
    relay: &Relay,
    method: &str,
    target: &str,
    extra: &[&str],
) -> Response {
    let extra = [&["Connection: keep-alive"], extra].concat();
    connection.send(&http::head(relay.http, method, target, &extra));
    connection.response(method == "HEAD", LIMIT)
}

fn a_segment_is_a_file_of_http(driver: Driver) {
    let relay = setup(driver).start();
    let (_idle, target, body) = published(&relay, "file");
    // One connection for everything.
    let mut connection = http::connect(relay.http);
    let mut ask = |method: &str, target: &str, extra: &[&str]| {
        ask(&mut connection, &relay, method, target, extra)
    };
    let whole = ask("GET", &target, &[]);
    assert_eq!((whole.status, whole.header("content-type")), (200, Some("video/mp2t")));
    assert!(whole.body == body);
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert_eq!(whole.header("access-control-allow-origin"), Some("*"));
    assert!(whole.header("cache-control").unwrap().contains("max-age=3600"));
    let tag = whole.header("etag").unwrap().to_owned();
    let head = ask("HEAD", &target, &["Range: bytes=0-1"]);
    let length = body.len().to_string();
    assert_eq!((head.status, head.header("content-length")), (200, Some(length.as_str())));
    let known = ask("GET", &target, &[&format!("If-None-Match: \"x\", W/{tag}")]);
    assert_eq!((known.status, known.header("etag")), (304, Some(tag.as_str())));
    for (range, first, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=100-400", 100, 401),
        ("bytes=376-", 376, body.len()),
        ("bytes=1000-20000", 1000, 20_001),
        ("bytes=-188", body.len() - 188, body.len()),
    ] {
        let part = ask("GET", &target, &[&format!("Range: {range}"), &format!("If-Range: {tag}")]);
        let says = format!("bytes {first}-{}/{}", end - 1, body.len());
        assert_eq!((part.status, part.header("content-range")), (206, Some(says.as_str())));
        assert!(part.body == body[first..end], "{range}");
    }
    for range in ["Range: bytes=0-1,5-6", "Range: lines=1-2"] {
        assert_eq!(ask("GET", &target, &[range]).status, 200, "{range}");
    }
    let other = ask("GET", &target, &["Range: bytes=0-1", "If-Range: \"other\""]);
    assert!(other.status == 200 && other.body == body);
    let beyond = ask("GET", &target, &["Range: bytes=99999999-"]);
    beyond.assert_line(416);
    assert_eq!(beyond.header("content-range"), Some(format!("bytes */{length}").as_str()));
    // Two requests at once are answered one after the other.
    let (place, number) = target.rsplit_once('-').unwrap();
    let number: u64 = number.trim_end_matches(".ts").parse().unwrap();
    ask("GET", &format!("{place}-{}.ts", number + 50), &[]).assert_line(404);
    ask("GET", "/live/file/seg/1-0.ts", &[]).assert_line(410);
    for bad in ["seg/.ts", "seg/-.ts", "seg/x-1.ts", "seg/1.ts", "seg/", "index.m3u", "seg/+1-1.ts"]
    {
        ask("GET", &format!("/live/file/{bad}"), &[]).assert_line(404);
    }
    ask("GET", "/live/nobody/index.m3u8", &[]).assert_line(404);
    ask("GET", "/live/.x/index.m3u8", &[]).assert_line(400);
    ask("PUT", "/live/file/index.m3u8", &["Content-Length: 0"]).assert_line(405);
    let playlist = ask("GET", "/live/file/index.m3u8", &[]);
    assert_eq!(playlist.header("content-type"), Some("application/vnd.apple.mpegurl"));
    assert_eq!(playlist.header("cache-control"), Some("public, max-age=1"));
    let tag = format!("If-None-Match: {}", playlist.header("etag").unwrap());
    assert_eq!(ask("GET", "/live/file/index.m3u8", &[&tag]).status, 304);
    let head = ask("HEAD", "/live/file/index.m3u8", &[]);
    assert_eq!(head.header("content-length"), playlist.header("content-length"));
    let mut pipelined = http::head(relay.http, "GET", &target, &["Connection: keep-alive"]);
    pipelined.extend(http::head(relay.http, "GET", &target, &[]));
    connection.send(&pipelined);
    for _ in 0..2 {
        assert!(connection.response(false, LIMIT).body == body);
    }
    connection.assert_closes(secs(5));
}

fn a_segment_that_leaves_is_cut_off_and_never_wrong(driver: Driver) {
    let relay = Setup::new(driver).set("hls.segment", "1s").start();
    let shape = Shape { bitrate: 8_000_000, gop: 25, video: true };
    let run = Broadcast::new(3, shape, 16.0);
    let mut put = PutStream::begin(relay.http, "fast");
    put.push(run.slice(0, 51));
    let idle = Idle::begin(put);
    relay.wait_live("fast");
    let mut player = Player::new(&relay, "fast");
    wait_for("a segment", secs(10), || (player.look() >= 1).then_some(()));
    let (sequence, said) = player.rules.said.last_key_value().unwrap();
    let (target, body) = (player.target(&said.uri), &player.got[sequence]);
    assert!(body.len() > 800_000, "larger than what the kernel holds: {}", body.len());
    let watch = Watch { target: target.clone(), ..slow(&relay) };
    let (_, mut connection) = watch.ask();
    let head = connection.response_head(LIMIT);
    assert_eq!(head.header("content-length"), Some(body.len().to_string().as_str()));
    // The rest of the stream at once: the window moves on while nobody reads.
    let mut put = idle.resume();
    put.push(run.slice(51, run.frames()));
    let _idle = Idle::begin(put);
    wait_for("the segment to be gone", secs(10), || {
        (http::get(relay.http, &target).status == 410).then_some(())
    });
    let began = Instant::now();
    let mut open = true;
    while open && began.elapsed() < secs(20) {
        open = connection.fill(secs(10)).unwrap_or(false);
    }
    let got = connection.pending();
    assert!(!open && got.len() < body.len(), "{} of {}", got.len(), body.len());
    assert!(*got == body[..got.len()], "wrong bytes");
    let gone = relay.metric("headwater_hls_segments_gone_total", &[]);
    assert_eq!(gone, Some(1.0));
}

/// A client with next to no room.
fn slow(relay: &Relay) -> Watch {
    Watch { receive_buffer: Some(4096), ..Watch::live(relay.http, "fast") }
}

fn playlists_wait_for_the_first_segment(driver: Driver) {
    let relay = setup(driver).start();
    let early = relay.get("/live/soon/index.m3u8");
    early.assert_line(404);
    let address = relay.http;
    let patient = std::thread::spawn(move || http::get(address, "/live/soon/index.m3u8?wait=10"));
    let run = Broadcast::new(5, Shape::new(RATE), 3.0);
    let mut put = PutStream::begin(relay.http, "soon");
    put.push(run.slice(0, 5));
    let idle = Idle::begin(put);
    relay.wait_live("soon");
    // Live, and no segment yet: held without being asked to.
    let other = std::thread::spawn(move || http::get(address, "/live/soon/master.m3u8"));
    pass(millis(200));
    assert!(!patient.is_finished() && !other.is_finished());
    let mut put = idle.resume();
    put.push(run.slice(5, 75));
    let idle = Idle::begin(put);
    assert_eq!(patient.join().unwrap().status, 200);
    assert_eq!(other.join().unwrap().status, 200);
    // Held: who plays goes on.
    idle.finish();
    wait_for("the stream held", secs(5), || (relay.state("soon") == "held").then_some(()));
    assert_eq!(relay.get("/live/soon/index.m3u8").status, 200);
}

fn the_variant_is_described(driver: Driver) {
    let relay = setup(driver).start();
    let (_idle, _, _) = published(&relay, "cam");
    let text = wait_for("codecs in the master playlist", secs(5), || {
        let answer = relay.get("/live/cam/master.m3u8");
        assert_eq!(answer.status, 200, "{answer:?}");
        Some(answer.text()).filter(|text| text.contains("CODECS"))
    });
    let Ok(m3u8_rs::Playlist::MasterPlaylist(master)) =
        m3u8_rs::parse_playlist_res(text.as_bytes())
    else {
        panic!("no master playlist: {text}");
    };
    let [variant] = &master.variants[..] else { panic!("{text}") };
    assert_eq!(variant.uri, "index.m3u8");
    assert_eq!(variant.codecs.as_deref(), Some("avc1.42c01e,mp4a.40.2"));
    let size = variant.resolution.unwrap();
    assert_eq!((size.width, size.height), (320, 176));
    let mean = variant.average_bandwidth.unwrap();
    assert!(mean <= variant.bandwidth && (RATE / 2..RATE * 2).contains(&mean), "{text}");
    let status = relay.status("cam").unwrap();
    assert_eq!(status["tracks"][0]["codec_string"], "avc1.42c01e");
    assert_eq!(status["tracks"][0]["width"], 320);
    assert_eq!(status["tracks"][1]["codec_string"], "mp4a.40.2");
}

/// A program that is killed with its test; what it prints goes to a file.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ffmpeg(relay: &Relay, log: &str, arguments: &[&str]) -> Program {
    let errors = File::create(relay.dir.path().join(log)).unwrap();
    let child = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostdin", "-v", "error"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn();
    Program(child.unwrap())
}

fn publish(relay: &Relay) -> Program {
    let url = format!("http://{}/live/real", relay.http);
    let picture = "testsrc2=size=320x180:rate=25";
    let arguments = [
        &["-re", "-f", "lavfi", "-i", picture][..],
        &["-re", "-f", "lavfi", "-i", "sine=frequency=440"],
        &["-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-keyint_min", "25"],
        &["-pix_fmt", "yuv420p", "-c:a", "aac", "-f", "mpegts", "-method", "PUT", &url],
    ];
    ffmpeg(relay, "publish", &arguments.concat())
}

fn ffmpeg_plays_over_a_publisher_restart(driver: Driver) {
    if !have(&["ffmpeg"]) {
        return;
    }
    let relay = Setup::new(driver).set("hls.segment", "1s").start();
    let publisher = publish(&relay);
    relay.wait_live("real");
    let mut player = Player::new(&relay, "real");
    wait_for("three segments", secs(30), || (player.look() >= 3).then_some(()));
    let url = format!("http://{}/live/real/index.m3u8", relay.http);
    let mut playing = ffmpeg(&relay, "play", &["-i", &url, "-t", "9", "-f", "null", "-"]);
    wait_for("one more", secs(30), || (player.look() >= 5).then_some(()));
    drop(publisher);
    wait_for("the loss noticed", secs(5), || (relay.state("real") == "held").then_some(()));
    let _publisher = publish(&relay);
    let status = wait_for("the player's end", secs(60), || {
        player.look();
        playing.0.try_wait().unwrap()
    });
    let said = fs::read_to_string(relay.dir.path().join("play")).unwrap();
    assert!(status.success() && said.is_empty(), "{status}: {said}");
    assert!(player.rules.said.values().any(|said| said.discontinuity), "it met the restart");
}
