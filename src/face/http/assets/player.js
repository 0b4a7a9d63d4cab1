// Plays an endless transport stream in a video element, close to the live edge.
//
// fetch -> remux.js (TS to MP4) -> sink.js (MediaSource). This file decides when
// to connect, where to play, how fast, and what to say about it.

import { Remuxer } from "./remux.js";
import { Sink, available, supports } from "./sink.js";

/** Seconds behind the newest byte at which playback begins; grows by a step after each stall. */
const TARGET = 0.8;
const TARGET_STEP = 0.3;
const TARGET_MAX = 2;
/** Beyond `target + CATCH_UP` playback runs faster; beyond JUMP it leaps to the live edge. */
const CATCH_UP = 1.2;
const JUMP = 5;
const FASTER = 1.05;
/** Seconds of the past that stay in the buffer, and how far it may grow beyond. */
const KEEP = 10;
const KEEP_SLACK = 5;
/** Waits between attempts to connect, in seconds. */
const BACKOFF = [1, 2, 4, 8, 10];
const TICK_MS = 250;
/** No bytes for so long: the publisher is away. */
const AWAY_MS = 2000;
/** No bytes for so long: the connection is dead, whatever it says. */
const DEAD_MS = 45000;
/** A player that nobody sees or that stands still for so long lets go of its connection. */
const IDLE_MS = 20000;
/** How long an announced track may keep the others waiting. */
const TRACK_WAIT_MS = 1500;
/** Playback that does not move for so long, with bytes at hand, is set up anew. */
const STUCK_MS = 4000;
/** More rebuilds than this within a minute: give up and say so. */
const REBUILDS_MAX = 5;

const NAMES = {
  aac: "AAC", "aac-latm": "AAC in LATM", ac3: "AC-3", eac3: "E-AC-3", mp3: "MPEG audio",
  opus: "Opus", av1: "AV1", h264: "H.264", hevc: "HEVC (H.265)", mpeg1: "MPEG-1",
  mpeg2: "MPEG-2", mpeg4: "MPEG-4 Part 2", vvc: "VVC (H.266)",
};

/** A codec's name for people. */
export function codecName(codec) {
  return NAMES[codec] ?? String(codec);
}

/**
 * One stream in one video element. `onStatus({state, text, note, audioOnly, hasAudio})` tells every change;
 * `state` is connecting, live, buffering, away, offline, paused, blocked or unplayable.
 */
export class Player {
  constructor(video, url, onStatus) {
    this.video = video;
    this.url = url;
    this.onStatus = onStatus;
    this.attempt = 0;
    this.rebuilds = [];
    this.trackWait = TRACK_WAIT_MS;
    this.said = "";
    this.note = "";
    this.stopped = false;
    this.clear();
  }

  /** Connects and keeps connected until `stop` or until the stream proves unplayable. */
  start() {
    if (!available) {
      this.giveUp("This browser has no Media Source Extensions.");
      return;
    }
    this.listeners = new AbortController();
    const on = (target, type, act) =>
      target.addEventListener(type, act, { signal: this.listeners.signal });
    on(this.video, "waiting", () => this.starve());
    on(this.video, "error", () => this.sink && this.rebuild("the decoder gave up"));
    on(this.video, "play", () => this.wake());
    on(document, "visibilitychange", () => this.wake());
    this.timer = setInterval(() => this.tick(), TICK_MS);
    this.run();
  }

  stop() {
    this.stopped = true;
    this.listeners?.abort();
    clearInterval(this.timer);
    this.abort?.abort();
    this.wake();
    this.sink?.close();
    this.sink = null;
  }

  /** A new beginning: no buffer, no timeline, nothing known about the tracks. */
  clear() {
    this.sink?.close();
    this.sink = null;
    this.configs = {};
    this.backlog = [];
    this.announced = null;
    this.firstConfig = 0;
    this.playing = false;
    this.starved = false;
    this.target = TARGET;
    this.lastStall = 0;
    this.moved = { time: -1, when: 0 };
    const mine = (act) => (...values) => this.remuxer === remuxer && act(...values);
    const remuxer = new Remuxer({
      onTracks: (tracks) => queueMicrotask(() => mine((t) => this.tracks(t))(tracks)),
      onConfig: mine((kind, config) => this.configure(kind, config)),
      onFragment: mine((kind, bytes) => this.media(kind, bytes)),
    });
    this.remuxer = remuxer;
  }

  async run() {
    while (!this.stopped) {
      if (this.idle) {
        await new Promise((resume) => { this.resume = resume; });
        continue;
      }
      const wait = await this.connection();
      if (this.stopped) return;
      if (wait > 0) await this.sleep(wait);
    }
  }

  /** One connection from beginning to end; how many seconds to wait before the next. */
  async connection() {
    this.abort = new AbortController();
    if (!this.attempt) this.say("connecting", "Connecting…");
    this.lastByte = performance.now();
    let wait = BACKOFF[Math.min(this.attempt, BACKOFF.length - 1)];
    try {
      const answer = await fetch(this.url, { cache: "no-store", signal: this.abort.signal });
      if (!answer.ok || !answer.body) {
        this.attempt += 1;
        const after = Math.min(Number(answer.headers.get("Retry-After")) || 0, 10);
        wait = Math.max(wait, after);
        this.refused(answer.status);
        return wait;
      }
      this.remuxer.discontinuity();
      this.connected = true;
      const reader = answer.body.getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        this.lastByte = performance.now();
        this.remuxer.push(value);
      }
      this.say("away", "Publisher away, waiting for it to return");
    } catch (error) {
      if (this.stopped || this.abort.signal.reason === "again") {
        return this.rebuilds.length > 2 ? 2 : 0;
      }
      if (!this.abort.signal.aborted) console.info("headwater:", error.message);
      this.say("offline", "Connection lost, trying again");
    } finally {
      this.connected = false;
    }
    this.attempt += 1;
    return wait;
  }

  refused(status) {
    if (status === 404) this.say("offline", "Offline: no such stream");
    else if (status === 503) this.say("away", "Publisher away, waiting for it to return");
    else this.say("offline", `Offline: the relay answered ${status}`);
  }

  sleep(seconds) {
    return new Promise((resume) => {
      this.resume = resume;
      setTimeout(resume, seconds * 1000);
    });
  }

  /** The stream's table of contents: something in it may be out of reach for us. */
  tracks({ video, audio }) {
    if (video && video !== "h264") {
      this.giveUp(`The video is ${codecName(video)}, which this page cannot play.`);
      return;
    }
    const silent = audio && audio !== "aac";
    if (!video && (silent || !audio)) {
      this.giveUp(audio
        ? `The audio is ${codecName(audio)}, which this page cannot play.`
        : "The stream has no video and no audio.");
      return;
    }
    this.note = silent ? `The audio is ${codecName(audio)}, which this page cannot play.` : "";
    this.announced = { video: !!video, audio: !!audio && !silent };
    if (this.sink && !this.fits()) this.reconnect();
  }

  /** Whether the buffers are those that the announced tracks need. */
  fits() {
    return ["video", "audio"].every((kind) => this.sink.has(kind) === this.announced[kind]);
  }

  configure(kind, config) {
    if (!supports(config)) {
      const name = codecName(kind === "video" ? "h264" : "aac");
      this.giveUp(`This browser does not decode this ${name} ${kind} (${config.codec}).`);
      return;
    }
    if (!this.sink) {
      this.firstConfig ||= performance.now();
      this.configs[kind] = config;
      this.backlog.push([kind, null, config]);
    } else if (this.sink.has(kind)) {
      this.sink.configure(kind, config);
    } else {
      this.trackWait *= 2; // a late track: buffers cannot be added once playback began
      this.reconnect();
    }
  }

  media(kind, bytes) {
    this.attempt = 0;
    if (this.sink) {
      if (this.sink.has(kind)) this.sink.append(kind, bytes);
      return;
    }
    this.backlog.push([kind, bytes, null]);
    this.open();
  }

  /** Opens the buffers once every announced track is known, or has been waited for long enough. */
  open() {
    if (this.sink || !this.firstConfig || !this.announced) return;
    const complete = ["video", "audio"].every((kind) => !this.announced[kind] || this.configs[kind]);
    if (!complete && performance.now() - this.firstConfig < this.trackWait) return;
    const first = new Map();
    for (const [kind, , config] of this.backlog) {
      if (config && !first.has(kind)) first.set(kind, config);
    }
    this.sink = new Sink(this.video, first.values(), (why) => this.rebuild(why));
    for (const [kind, bytes, config] of this.backlog) {
      if (!this.sink) return;
      if (bytes) this.sink.append(kind, bytes);
      else if (config !== first.get(kind)) this.sink.configure(kind, config);
    }
    this.backlog = [];
  }

  /** Something broke in the browser: from the beginning, unless that happens all the time. */
  rebuild(why) {
    const now = performance.now();
    this.rebuilds = this.rebuilds.filter((when) => now - when < 60000);
    this.rebuilds.push(now);
    console.info("headwater: setting the player up anew:", why);
    if (this.rebuilds.length > REBUILDS_MAX) this.giveUp(`Playback keeps failing: ${why}.`);
    else this.reconnect();
  }

  reconnect() {
    if (this.stopped) return;
    this.clear();
    this.abort?.abort("again");
  }

  giveUp(reason) {
    this.stop();
    this.video.removeAttribute("src");
    this.video.load();
    this.say("unplayable", reason);
  }

  /** Four times a second: place, pace, and words. */
  tick() {
    if (this.stopped) return;
    const now = performance.now();
    if (this.connected && now - this.lastByte > DEAD_MS) this.abort.abort();
    this.rest(now);
    this.open();
    const ranges = this.sink ? this.video.buffered : null;
    if (!ranges?.length) return;
    const end = ranges.end(ranges.length - 1);
    if (!this.playing) {
      this.begin(ranges, end);
      return;
    }
    if (this.video.currentTime - ranges.start(0) > KEEP + KEEP_SLACK) {
      this.sink.evict(this.video.currentTime - KEEP);
    }
    if (!this.video.paused) {
      this.steer(ranges, end);
      this.watch(now, end);
    }
    this.report(now, end);
  }

  begin(ranges, end) {
    const first = ranges.start(ranges.length - 1);
    if (end - first < Math.min(this.target, 0.5)) return;
    this.playing = true;
    this.video.currentTime = Math.max(first, end - this.target);
    this.video.play().catch((error) => {
      if (error.name === "NotAllowedError") this.say("blocked", "Press play to watch");
    });
  }

  /** Keeps playback at its distance from the live edge, and out of holes. */
  steer(ranges, end) {
    const video = this.video;
    const behind = end - video.currentTime;
    const hole = holeAt(ranges, video.currentTime);
    if (behind > JUMP || behind < -1) {
      video.currentTime = Math.max(ranges.start(ranges.length - 1), end - this.target);
    } else if (hole !== null) {
      video.currentTime = hole + 0.02;
    }
    if (this.starved && behind >= this.target) this.recover(performance.now());
    let rate = 1;
    if (this.starved) rate = 0; // collect a little before going on, or it stalls at every frame
    else if (behind > this.target + CATCH_UP) rate = FASTER;
    else if (video.playbackRate === FASTER && behind > this.target + 0.2) rate = FASTER;
    if (video.playbackRate !== rate) video.playbackRate = rate;
  }

  /** Playback ran dry. */
  starve() {
    const ranges = this.video.buffered;
    if (!this.playing || this.video.seeking || !ranges.length) return;
    if (ranges.end(ranges.length - 1) - this.video.currentTime > 0.3) return;
    if (!this.starved) this.starvedSince = performance.now();
    this.starved = true;
  }

  /** A short stall was the network's unrest: keep more distance. A long one was the publisher's. */
  recover(now) {
    this.starved = false;
    if (now - this.starvedSince > AWAY_MS) return;
    this.target = Math.min(TARGET_MAX, this.target + TARGET_STEP);
    this.lastStall = now;
  }

  /** Sets up anew what does not move although it could. */
  watch(now, end) {
    if (now - this.lastStall > 60000 && this.target > TARGET) {
      this.target = Math.max(TARGET, this.target - TARGET_STEP);
      this.lastStall = now;
    }
    const time = this.video.currentTime;
    if (time !== this.moved.time || this.starved || end - time < 1 || document.hidden) {
      this.moved = { time, when: now };
    } else if (now - this.moved.when > STUCK_MS) {
      this.rebuild("playback is stuck");
    }
  }

  /** Lets go of the connection while nobody watches. */
  rest(now) {
    const unseen = this.video.paused ? this.playing : document.hidden && this.video.muted;
    if (!unseen) this.unseenSince = now;
    if (!this.idle && now - this.unseenSince > IDLE_MS) {
      this.idle = true;
      this.abort?.abort("again");
      this.say("paused", "Paused");
    }
  }

  /** Somebody watches again, or a wait is over. */
  wake() {
    if (document.hidden && !this.stopped && this.video.paused) return;
    this.unseenSince = performance.now();
    if (this.idle) {
      this.idle = false;
      this.attempt = 0;
    }
    this.resume?.();
  }

  report(now, end) {
    const behind = Math.max(0, end - this.video.currentTime);
    if (this.video.paused) {
      if (this.state !== "blocked") this.say("paused", "Paused");
    } else if (this.idle || !this.connected) {
      return; // the connection has spoken
    } else if (now - this.lastByte > AWAY_MS && behind < 0.3) {
      this.say("away", "Publisher away, waiting for it to return");
    } else if (this.starved) {
      this.say("buffering", "Buffering…");
    } else {
      this.say("live", `Live, ${behind.toFixed(1)} s behind`);
    }
  }

  say(state, text) {
    this.state = state;
    const audioOnly = !!this.announced && !this.announced.video;
    const hasAudio = !!this.announced?.audio;
    const key = [state, text, this.note, audioOnly, hasAudio].join("\n");
    if (key === this.said) return;
    this.said = key;
    this.onStatus({ state, text, note: this.note, audioOnly, hasAudio });
  }
}

/** Where the next range begins if `time` lies in a hole or at its brink; null if all is well. */
function holeAt(ranges, time) {
  for (let i = 0; i < ranges.length; i++) {
    if (time < ranges.start(i) - 0.001) return ranges.start(i);
    if (time < ranges.end(i) - 0.08) return null;
  }
  return null;
}
