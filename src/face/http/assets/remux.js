// From transport stream to MP4 fragments on one unbroken timeline.
//
// A publisher may restart, and the relay lets a slow viewer jump to a newer
// access point: time stamps leap, the picture must not. Every such leap begins
// a new *era*, whose first sample continues where the old era ended.

import { TsDemuxer } from "./ts.js";
import { Aac, AAC_FRAME, H264 } from "./codecs.js";
import { fragment } from "./mp4.js";

/** Ticks of transport stream time per second. */
const TICKS = 90000;
const WRAP = 2 ** 33;
/** A track that leaps further than this, forth or back, has begun a new era. */
const LEAP_FORTH = TICKS;
const LEAP_BACK = TICKS / 5;
/** Tracks of one era lie closer together than this. */
const ERA_SPREAD = 5 * TICKS;
/** Audio time stamps are rounded; deviations below this are not gaps (30 ms). */
const AUDIO_SLACK = 2700;
/** The least media time in one fragment, in seconds. */
const FRAGMENT_SECONDS = 0.1;
/** Time before the first sample, so that the other track may begin a little earlier. */
const LEAD = TICKS;

/** Maps the raw times of all tracks to one timeline that only goes forward. */
class Timeline {
  constructor() {
    this.era = 0;
    this.offset = 0;
    this.end = LEAD;
    this.ref = null; // the newest raw time of this era; null: the next sample begins one
  }

  /** A 33-bit time as the number nearest to what was seen last. */
  unwrap(raw) {
    if (this.ref === null) return raw;
    let ahead = (raw - this.ref) % WRAP;
    if (ahead < 0) ahead += WRAP;
    return this.ref + (ahead > WRAP / 2 ? ahead - WRAP : ahead);
  }

  /**
   * The place of a sample, in ticks, or null if it must be dropped.
   * `start` says whether a decoder can begin here.
   */
  place(lane, stamp, length, start) {
    let raw = this.unwrap(stamp);
    if (this.ref === null || this.leaps(lane, raw)) {
      if (!start) {
        lane.waiting = true;
        return null;
      }
      this.era += 1;
      this.offset = Math.ceil(this.end) - Math.round(raw);
    } else if (lane.era !== this.era) {
      if (Math.abs(raw - this.ref) > ERA_SPREAD) return null; // a straggler of the old era
      if (!start) return null;
      // Video cannot drop its key frame to fit in, so the era moves; audio drops frames below.
      if (lane.video) this.offset += Math.max(0, Math.ceil(lane.end - raw - this.offset));
    } else if (!lane.video && Math.abs(raw - lane.next) < AUDIO_SLACK) {
      raw = lane.next;
    }
    lane.era = this.era;
    lane.next = raw + length;
    this.ref = raw;
    const at = raw + this.offset;
    if (at < 0 || (!lane.video && at < lane.end - AUDIO_SLACK)) return null;
    lane.end = Math.max(lane.end, at + length);
    this.end = Math.max(this.end, lane.end);
    return at;
  }

  leaps(lane, raw) {
    if (lane.era !== this.era) return false;
    const ahead = raw - lane.next;
    if (ahead < -LEAP_BACK) return true;
    // A hole in one track is no leap while the others are where this one continues.
    return ahead > LEAP_FORTH && Math.abs(raw - this.ref) > 2 * TICKS;
  }
}

/** One track on its way: the samples of the fragment that is being filled. */
class Lane {
  constructor(kind) {
    this.kind = kind;
    this.video = kind === "video";
    this.era = 0;
    this.next = 0;
    this.end = 0;
    this.length = this.video ? TICKS / 25 : 0;
    this.waiting = this.video;
    this.held = null; // the newest picture, until the next one tells how long it lasts
    this.config = null;
    this.sequence = 0;
    this.samples = [];
    this.start = 0;
    this.filled = 0;
  }

  /** Adds a sample that begins at `at`, in ticks of the track. */
  add(at, sample) {
    if (!this.samples.length) this.start = at;
    this.samples.push(sample);
    this.filled += sample.duration;
  }
}

/**
 * Turns a transport stream into initialisation configs and fragments.
 *
 * `onTracks({video, audio})` tells the codec names that the stream announces (null: none).
 * `onConfig(kind, config)` comes before the first fragment, and again when parameters change.
 * `onFragment(kind, bytes)` delivers media.
 */
export class Remuxer {
  constructor({ onTracks, onConfig, onFragment }) {
    this.onTracks = onTracks;
    this.onConfig = onConfig;
    this.onFragment = onFragment;
    this.timeline = new Timeline();
    this.lanes = { video: new Lane("video"), audio: new Lane("audio") };
    this.pids = new Map();
    this.demuxer = new TsDemuxer({
      onTracks: (list) => this.select(list),
      onPes: (pes) => this.take(pes),
      onLoss: (pid) => this.lose(pid),
    });
    this.select([]);
  }

  /** Takes the next bytes of the connection. */
  push(chunk) {
    this.demuxer.push(chunk);
    for (const lane of Object.values(this.lanes)) {
      if (lane.config && lane.filled >= FRAGMENT_SECONDS * lane.config.timescale) this.flush(lane);
    }
  }

  /** The next bytes come from a new connection: what follows is a new era of the same timeline. */
  discontinuity() {
    this.demuxer.reset();
    this.timeline.ref = null;
    this.lanes.video.waiting = true;
    this.aac.reset();
  }

  /** Chooses the first track of each kind; a codec we cannot repackage is only reported. */
  select(list) {
    const video = list.find((t) => t.kind === "video");
    const audio = list.find((t) => t.kind === "audio");
    this.h264 = new H264();
    this.aac = new Aac();
    this.lanes.video.waiting = true;
    this.pids.clear();
    if (video?.codec === "h264") this.pids.set(video.pid, "video");
    if (audio?.codec === "aac") this.pids.set(audio.pid, "audio");
    if (list.length) this.onTracks({ video: video?.codec ?? null, audio: audio?.codec ?? null });
  }

  take(pes) {
    const kind = this.pids.get(pes.pid);
    if (kind === "video") this.picture(pes);
    else if (kind === "audio") this.sound(pes);
  }

  /** Packets are missing. Pictures that refer to lost ones are not shown; sound just goes on. */
  lose(pid) {
    const kind = this.pids.get(pid);
    if (kind === "video") this.lanes.video.waiting = true;
    else if (kind === "audio") this.aac.reset();
  }

  picture(pes) {
    const lane = this.lanes.video;
    const unit = this.h264.accessUnit(pes.data, pes.random);
    if (!unit || pes.dts === null || !this.h264.config || (lane.waiting && !unit.key)) return;
    const place = this.timeline.place(lane, pes.dts, lane.length, unit.key);
    if (place === null) return;
    lane.waiting = false;
    let at = Math.round(place);
    if (lane.held) {
      at = Math.max(at, lane.held.at + 1);
      const duration = at - lane.held.at;
      if (duration < TICKS / 2) lane.length = duration;
      lane.add(lane.held.at, { ...lane.held, duration });
    }
    if (lane.config !== this.h264.config) this.configure(lane, this.h264.config);
    lane.held = { at, shift: shift(pes.pts, pes.dts), key: unit.key, bytes: unit.bytes };
  }

  sound(pes) {
    const lane = this.lanes.audio;
    for (const { pts, bytes } of this.aac.frames(pes)) {
      const config = this.aac.config;
      const place = this.timeline.place(lane, pts, AAC_FRAME * TICKS / config.rate, true);
      if (place === null) continue;
      if (lane.config !== config) this.configure(lane, config);
      const at = Math.round(place * config.rate / TICKS);
      if (lane.samples.length && at !== lane.start + lane.filled) this.flush(lane);
      lane.add(at, { duration: AAC_FRAME, shift: 0, key: true, bytes });
    }
  }

  configure(lane, config) {
    this.flush(lane);
    lane.config = config;
    this.onConfig(lane.kind, config);
  }

  flush(lane) {
    if (!lane.samples.length) return;
    lane.sequence += 1;
    this.onFragment(lane.kind, fragment(lane.sequence, lane.start, lane.samples));
    lane.samples = [];
    lane.filled = 0;
  }
}

/** Presentation minus decode time, across the 33-bit wrap; 0 if the two cannot belong together. */
function shift(pts, dts) {
  let ahead = (pts - dts) % WRAP;
  if (ahead > WRAP / 2) ahead -= WRAP;
  if (ahead < -WRAP / 2) ahead += WRAP;
  return Math.abs(ahead) < 10 * TICKS ? ahead : 0;
}
