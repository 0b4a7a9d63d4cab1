// Plays HLS in a video element that understands it by itself (Safari, iPhone): for browsers
// without Media Source Extensions. The same face towards the page as player.js.

/** Waits between attempts to load, in seconds. */
const BACKOFF = [1, 2, 4, 8, 10];
/** More than so many seconds behind the end of what can be sought to: leap there. */
const JUMP = 20;
const TICK_MS = 500;

/** Whether this browser plays HLS by itself. */
export function canPlayHls(video) {
  return video.canPlayType("application/vnd.apple.mpegurl") !== "";
}

/** One stream in one video element; see `Player` for `onStatus`. */
export class HlsPlayer {
  constructor(video, url, onStatus) {
    this.video = video;
    this.url = url;
    this.onStatus = onStatus;
    this.attempt = 0;
    this.said = "";
  }

  start() {
    this.listeners = new AbortController();
    const on = (type, act) =>
      this.video.addEventListener(type, act, { signal: this.listeners.signal });
    on("playing", () => {
      this.attempt = 0;
      this.say("live", "Live");
    });
    on("waiting", () => this.say("buffering", "Buffering…"));
    on("pause", () => this.say("paused", "Paused"));
    on("error", () => this.retry());
    this.timer = setInterval(() => this.tick(), TICK_MS);
    this.load();
  }

  stop() {
    this.listeners?.abort();
    clearInterval(this.timer);
    clearTimeout(this.again);
    this.video.removeAttribute("src");
    this.video.load();
  }

  load() {
    this.say("connecting", "Connecting…");
    this.video.src = this.url;
    this.video.play().catch((error) => {
      if (error.name === "NotAllowedError") this.say("blocked", "Press play to watch");
    });
  }

  /** The element says nothing about why: the relay may, in the status of the playlist. */
  retry() {
    const wait = BACKOFF[Math.min(this.attempt, BACKOFF.length - 1)];
    this.attempt += 1;
    this.say("offline", "Offline, trying again");
    clearTimeout(this.again);
    this.again = setTimeout(() => this.load(), wait * 1000);
  }

  /** After a pause or a long stall playback goes on at the live edge. */
  tick() {
    const { seekable } = this.video;
    if (this.video.paused || !seekable.length) return;
    const end = seekable.end(seekable.length - 1);
    if (Number.isFinite(end) && end - this.video.currentTime > JUMP) {
      this.video.currentTime = end - JUMP / 4;
    }
  }

  say(state, text) {
    const key = `${state}\n${text}`;
    if (key === this.said) return;
    this.said = key;
    this.onStatus({ state, text, note: "", audioOnly: false, hasAudio: true });
  }
}
