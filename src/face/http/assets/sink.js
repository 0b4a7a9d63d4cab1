// One MediaSource and its SourceBuffers: the place where fragments become playback.
// Appends and removals wait in line, because a SourceBuffer does one thing at a time.

import { initSegment } from "./mp4.js";

const Source = globalThis.MediaSource ?? globalThis.ManagedMediaSource;
/** More than this waiting in line means that the browser has stopped to take anything. */
const WAITING_BYTES_MAX = 16 << 20;

/** Whether this browser can play media that a script feeds. */
export const available = typeof Source === "function";

/** Whether this browser decodes a track. */
export function supports(config) {
  return Source.isTypeSupported(mime(config));
}

function mime(config) {
  return `${config.kind}/mp4; codecs="${config.codec}"`;
}

/** Feeds a video element. `onFail(reason)` is called once when nothing more can be fed. */
export class Sink {
  constructor(video, configs, onFail) {
    this.video = video;
    this.onFail = onFail;
    this.lines = new Map();
    this.source = new Source();
    this.url = URL.createObjectURL(this.source);
    for (const config of configs) {
      this.lines.set(config.kind, { config, buffer: null, jobs: [], bytes: 0 });
      this.configure(config.kind, config);
    }
    this.source.addEventListener("sourceopen", () => this.open(), { once: true });
    // An iPhone offers ManagedMediaSource only to elements that stay on the phone.
    if (!globalThis.MediaSource) video.disableRemotePlayback = true;
    video.src = this.url;
  }

  has(kind) {
    return this.lines.has(kind);
  }

  /** Begins a track, or changes its parameters from the next fragment on. */
  configure(kind, config) {
    const line = this.lines.get(kind);
    if (line.config.codec !== config.codec) this.queue(line, { mime: mime(config) });
    line.config = config;
    this.queue(line, { bytes: initSegment(config) });
  }

  append(kind, bytes) {
    this.queue(this.lines.get(kind), { bytes });
  }

  /** Forgets what lies before `time`, in seconds. */
  evict(time) {
    for (const line of this.lines.values()) {
      const ranges = line.buffer?.buffered;
      if (ranges?.length && ranges.start(0) < time - 1) this.queue(line, { until: time });
    }
  }

  close() {
    this.closed = true;
    this.lines.clear();
    URL.revokeObjectURL(this.url);
  }

  open() {
    if (this.closed) return;
    try {
      for (const line of this.lines.values()) {
        line.buffer = this.source.addSourceBuffer(mime(line.config));
        line.buffer.addEventListener("updateend", () => this.next(line));
        line.buffer.addEventListener("error", () => this.fail("the browser rejected the stream"));
      }
    } catch (error) {
      this.fail(error.message);
      return;
    }
    for (const line of this.lines.values()) this.next(line);
  }

  queue(line, job) {
    line.jobs.push(job);
    line.bytes += job.bytes?.length ?? 0;
    if (line.bytes > WAITING_BYTES_MAX) this.fail("the browser takes no more data");
    else this.next(line);
  }

  next(line) {
    const { buffer, jobs } = line;
    if (this.closed || !buffer || buffer.updating || this.source.readyState !== "open") return;
    while (jobs.length && !buffer.updating) {
      const job = jobs.shift();
      line.bytes -= job.bytes?.length ?? 0;
      try {
        if (job.bytes) buffer.appendBuffer(job.bytes);
        else if (job.mime) buffer.changeType?.(job.mime);
        else buffer.remove(0, job.until);
      } catch (error) {
        this.refused(line, job, error);
        return;
      }
    }
  }

  /** A full buffer gives up its past and tries again; anything else is the end. */
  refused(line, job, error) {
    const until = this.video.currentTime - 2;
    const ranges = line.buffer.buffered;
    if (error.name === "QuotaExceededError" && ranges.length && ranges.start(0) < until) {
      line.jobs.unshift({ until }, job);
      line.bytes += job.bytes?.length ?? 0;
      this.next(line);
    } else {
      this.fail(error.message);
    }
  }

  fail(reason) {
    if (this.closed) return;
    this.close();
    this.onFail(reason);
  }
}
