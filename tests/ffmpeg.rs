//! Real encoders in, real players out: ffmpeg on both ends, both drivers, IPv4 and IPv6.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use common::{Driver, HOSTS, Relay, Setup, have, secs, wait_for};
use serde_json::Value;

const PICTURE: &[&str] = &["-re", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25"];
const TONE: &[&str] = &["-re", "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"];
const H264: &[&str] = &["-c:v", "libx264", "-preset", "veryfast", "-g", "25", "-keyint_min", "25"];
const H265: &[&str] =
    &["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error:keyint=25"];
const AAC: &[&str] = &["-c:a", "aac", "-b:a", "96k"];
const PIXELS: &[&str] = &["-pix_fmt", "yuv420p"];

/// An ffmpeg that dies with its test. What it prints goes to a file.
struct Ffmpeg {
    child: Child,
    errors: PathBuf,
    output: PathBuf,
}

impl Ffmpeg {
    fn run(dir: &Path, name: &str, arguments: &[&str]) -> Self {
        let errors = dir.join(format!("{name}.err"));
        let output = dir.join(format!("{name}.out"));
        let child = Command::new("ffmpeg")
            .args(["-hide_banner", "-nostdin", "-v", "error"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::create(&output).unwrap())
            .stderr(File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        Ffmpeg { child, errors, output }
    }

    /// An encoder that publishes until it is killed.
    fn publish(relay: &Relay, name: &str, inputs: &[&[&str]], codecs: &[&[&str]]) -> Self {
        let url = format!("http://{}/live/{name}", relay.http);
        let mut arguments: Vec<&str> =
            inputs.iter().chain(codecs).flat_map(|a| *a).copied().collect();
        arguments.extend(["-f", "mpegts", "-method", "PUT", &url]);
        Self::run(relay.dir.path(), &format!("publish-{name}"), &arguments)
    }

    /// A player of `/live/NAME.ts`.
    fn play(relay: &Relay, name: &str, file: &str, more: &[&str]) -> Self {
        let url = format!("http://{}/live/{name}.ts", relay.http);
        let arguments = [&["-i", url.as_str()], more, &["-f", "null", "-"]].concat();
        Self::run(relay.dir.path(), file, &arguments)
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the end; nothing may have been printed.
    #[track_caller]
    fn assert_silent_end(mut self, what: &str) {
        let status = wait_for("the end of ffmpeg", secs(60), || self.ended());
        assert_eq!(self.said(), "", "{what}");
        assert!(status.success(), "{what}: {status}");
    }

    /// The newest frame number of `-progress -`.
    fn frames(&self) -> u64 {
        let text = fs::read_to_string(&self.output).unwrap_or_default();
        let newest = text.lines().rev().find_map(|line| line.strip_prefix("frame="));
        newest.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Ffmpeg {
    fn drop(&mut self) {
        // SIGKILL, as a crash would end it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- {} said:\n{}---", self.errors.display(), self.said());
        }
    }
}

fn ready_to_test() -> bool {
    have(&["ffmpeg", "ffprobe"])
}

fn encoder(name: &str) -> bool {
    let output = Command::new("ffmpeg").args(["-v", "error", "-encoders"]).output().unwrap();
    let found = String::from_utf8_lossy(&output.stdout).contains(name);
    if !found {
        common::skipped(name, "this ffmpeg has no such encoder");
    }
    found
}

/// Waits until the relay knows the tracks and the GOP.
fn status_with_tracks(relay: &Relay, name: &str, tracks: usize) -> Value {
    wait_for("codecs and GOP in the status", secs(15), || {
        relay.status(name).filter(|status| {
            let known = status["tracks"].as_array().map_or(0, Vec::len) >= tracks;
            known && (tracks == 1 || status["gop_ms"].as_f64().is_some_and(|gop| gop > 0.0))
        })
    })
}

fn codecs(status: &Value) -> Vec<&str> {
    let tracks = status["tracks"].as_array().unwrap().iter();
    tracks.filter_map(|track| track["codec"].as_str()).collect()
}

/// Runs `test` for each driver and loopback address, all at the same time.
fn everywhere(test: impl Fn(&Relay, &str) + Sync) {
    thread::scope(|scope| {
        for driver in Driver::available() {
            for host in HOSTS {
                let test = &test;
                scope.spawn(move || {
                    let relay = Setup::new(driver).host(host).start();
                    test(&relay, &format!("{} on {host}", driver.name()));
                });
            }
        }
    });
}

#[test]
fn h264_and_aac_play_without_a_word() {
    if !ready_to_test() || !encoder("libx264") {
        return;
    }
    everywhere(|relay, place| {
        let codec = [H264, PIXELS, AAC];
        let _encoder = Ffmpeg::publish(relay, "mine", &[PICTURE, TONE], &codec);
        relay.wait_live("mine");
        let first = Ffmpeg::play(relay, "mine", "first", &["-t", "5"]);
        let status = status_with_tracks(relay, "mine", 2);
        assert_eq!(codecs(&status), ["h264", "aac"], "{place}: {status}");
        // One that joins in the middle of everything.
        let second = Ffmpeg::play(relay, "mine", "second", &["-t", "3"]);
        first.assert_silent_end(place);
        second.assert_silent_end(place);
        let status = relay.status("mine").unwrap();
        let gop = status["gop_ms"].as_f64().unwrap();
        assert!((900.0..1100.0).contains(&gop), "{place}: {status}");
        assert_eq!(status["continuity_errors"], 0, "{place}: {status}");
        assert!(status["bitrate_bps"].as_f64().unwrap() > 50_000.0, "{place}: {status}");
    });
}

#[test]
fn ffprobe_sees_the_tracks_through_the_relay() {
    if !ready_to_test() || !encoder("libx264") {
        return;
    }
    everywhere(|relay, place| {
        let _encoder = Ffmpeg::publish(relay, "probe", &[PICTURE, TONE], &[H264, PIXELS, AAC]);
        relay.wait_live("probe");
        let output = Command::new("ffprobe")
            .args(["-v", "error", "-rw_timeout", "20000000"])
            .args(["-show_entries", "stream=codec_name", "-of", "csv=p=0"])
            .arg(format!("http://{}/live/probe.ts", relay.http))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("h264") && text.contains("aac"), "{place}: {text}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{place}");
    });
}

#[test]
fn a_player_stays_when_the_encoder_is_killed_and_restarted() {
    if !ready_to_test() || !encoder("libx264") {
        return;
    }
    everywhere(|relay, place| {
        let publish = || Ffmpeg::publish(relay, "reborn", &[PICTURE, TONE], &[H264, PIXELS, AAC]);
        let first = publish();
        relay.wait_live("reborn");
        let mut player = Ffmpeg::play(relay, "reborn", "player", &["-progress", "-"]);
        wait_for("the player's first second", secs(30), || (player.frames() > 25).then_some(()));
        drop(first);
        wait_for("the loss noticed", secs(4), || (relay.state("reborn") != "live").then_some(()));
        assert!(player.ended().is_none(), "{place}: the player was cut off");
        let before = player.frames();
        let _second = publish();
        relay.wait_live("reborn");
        wait_for("new pictures on the old connection", secs(30), || {
            assert!(player.ended().is_none(), "{place}: the player was cut off");
            (player.frames() > before + 50).then_some(())
        });
        assert_eq!(relay.metric("headwater_viewers", &["face=\"http\""]), Some(1.0), "{place}");
    });
}

#[test]
fn hevc_plays_without_a_word() {
    if !ready_to_test() || !encoder("libx265") {
        return;
    }
    let relay = Setup::io_driver("auto").start();
    let codec = [H265, PIXELS, AAC];
    let _encoder = Ffmpeg::publish(&relay, "hevc", &[PICTURE, TONE], &codec);
    relay.wait_live("hevc");
    let status = status_with_tracks(&relay, "hevc", 2);
    assert_eq!(codecs(&status), ["hevc", "aac"], "{status}");
    Ffmpeg::play(&relay, "hevc", "player", &["-t", "3"]).assert_silent_end("hevc");
}

#[test]
fn audio_alone_plays_without_a_word() {
    if !ready_to_test() {
        return;
    }
    let relay = Setup::io_driver("auto").start();
    let _encoder = Ffmpeg::publish(&relay, "radio", &[TONE], &[AAC]);
    relay.wait_live("radio");
    let status = status_with_tracks(&relay, "radio", 1);
    assert_eq!(codecs(&status), ["aac"], "{status}");
    Ffmpeg::play(&relay, "radio", "player", &["-t", "3"]).assert_silent_end("radio");
}
