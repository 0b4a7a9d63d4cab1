// MPEG-TS reading: bytes in, whole PES packets out (ISO/IEC 13818-1).
//
// The relay passes a stream through untouched, so everything a broadcaster can
// send arrives here: lost sync, lost packets, tables that change, publishers
// that restart. This file copes with all of that and knows no codec.

const PACKET = 188;
const SYNC = 0x47;
/** A PES larger than this is taken for damage and dropped. */
const PES_BYTES_MAX = 8 << 20;

/** Stream types of a PMT that have a name people know. */
const CODECS = new Map([
  [0x01, ["video", "mpeg1"]], [0x02, ["video", "mpeg2"]],
  [0x03, ["audio", "mp3"]], [0x04, ["audio", "mp3"]],
  [0x0f, ["audio", "aac"]], [0x11, ["audio", "aac-latm"]],
  [0x10, ["video", "mpeg4"]], [0x1b, ["video", "h264"]],
  [0x24, ["video", "hevc"]], [0x33, ["video", "vvc"]],
  [0x81, ["audio", "ac3"]], [0x87, ["audio", "eac3"]],
]);

/**
 * Splits a transport stream into PES packets of the tracks of its first program.
 *
 * `onTracks([{pid, kind, codec}])` is called when a PMT differs from the last one.
 * `onPes({pid, pts, dts, random, data})` is called per whole PES; times are the raw 33 bits.
 * `onLoss(pid)` is called when packets of a track are missing.
 */
export class TsDemuxer {
  constructor({ onTracks, onPes, onLoss }) {
    this.onTracks = onTracks;
    this.onPes = onPes;
    this.onLoss = onLoss;
    this.reset();
  }

  /** Forgets everything, as before the first byte of a new connection. */
  reset() {
    this.rest = new Uint8Array(0);
    this.pmtPid = -1;
    this.signature = "";
    this.sections = new Map();
    this.tracks = new Map();
  }

  /** Takes the next bytes of the stream, in pieces of any size. */
  push(chunk) {
    let data = chunk;
    if (this.rest.length) {
      data = new Uint8Array(this.rest.length + chunk.length);
      data.set(this.rest);
      data.set(chunk, this.rest.length);
    }
    let at = 0;
    while (at + PACKET <= data.length) {
      if (data[at] !== SYNC) {
        at = this.resync(data, at);
        continue;
      }
      this.packet(data.subarray(at, at + PACKET));
      at += PACKET;
    }
    this.rest = data.slice(at);
  }

  /** The next place that begins a packet: a sync byte with another one 188 bytes later. */
  resync(data, from) {
    for (let at = from + 1; at < data.length; at++) {
      if (data[at] !== SYNC) continue;
      if (at + PACKET >= data.length || data[at + PACKET] === SYNC) return at;
    }
    return data.length;
  }

  packet(p) {
    if (p[1] & 0x80) return; // transport_error_indicator: the content is known to be wrong
    const pid = ((p[1] & 0x1f) << 8) | p[2];
    const start = (p[1] & 0x40) !== 0;
    const control = (p[3] >> 4) & 3;
    const counter = p[3] & 15;
    let at = 4;
    let random = false;
    let announced = false;
    if (control & 2) {
      at += 1 + p[4];
      if (p[4] > 0) {
        announced = (p[5] & 0x80) !== 0;
        random = (p[5] & 0x40) !== 0;
      }
    }
    if (!(control & 1) || at >= PACKET) return;
    const payload = p.subarray(at);
    if (pid === 0 || pid === this.pmtPid) {
      this.section(pid, start, payload);
      return;
    }
    const track = this.tracks.get(pid);
    if (track) this.media(track, { start, counter, announced, random, payload });
  }

  media(track, { start, counter, announced, random, payload }) {
    const last = track.counter;
    track.counter = counter;
    if (last >= 0) {
      if (counter === last && !start && !announced) return; // a packet may be sent twice
      if (counter !== ((last + 1) & 15)) {
        track.parts = null;
        this.onLoss(track.pid);
      }
    }
    if (start) {
      this.finish(track);
      track.parts = [];
      track.size = 0;
      track.random = random;
      const length = (payload[4] << 8) | payload[5];
      track.expected = length ? length + 6 : 0;
    }
    if (!track.parts) return;
    track.parts.push(payload);
    track.size += payload.length;
    if (track.size > PES_BYTES_MAX) {
      track.parts = null;
      this.onLoss(track.pid);
    } else if (track.expected && track.size >= track.expected) {
      this.finish(track); // the length is known: no need to wait for the next start
    }
  }

  finish(track) {
    const parts = track.parts;
    track.parts = null;
    if (!parts) return;
    const pes = join(parts, track.size);
    if (track.expected && pes.length < track.expected) {
      this.onLoss(track.pid);
      return;
    }
    if (pes.length < 9 || pes[0] !== 0 || pes[1] !== 0 || pes[2] !== 1) return;
    const flags = pes[7] >> 6;
    const body = 9 + pes[8];
    if (body > pes.length) return;
    const pts = flags & 2 && body >= 14 ? stamp(pes, 9) : null;
    const dts = flags === 3 && body >= 19 ? stamp(pes, 14) : pts;
    const data = pes.subarray(body, track.expected || pes.length);
    this.onPes({ pid: track.pid, pts, dts, random: track.random, data });
  }

  /** Collects a PSI section that may span packets; sections that fail their CRC are ignored. */
  section(pid, start, payload) {
    let bytes = payload;
    if (start) {
      const pointer = payload[0];
      bytes = payload.subarray(1 + pointer);
    } else {
      const begun = this.sections.get(pid);
      if (!begun) return;
      bytes = join([begun, payload], begun.length + payload.length);
    }
    if (bytes.length < 3) return;
    const size = 3 + (((bytes[1] & 0x0f) << 8) | bytes[2]);
    if (bytes.length < size) {
      this.sections.set(pid, bytes.slice());
      return;
    }
    this.sections.delete(pid);
    const table = bytes.subarray(0, size);
    if (size < 12 || crc32(table) !== 0 || !(table[5] & 1)) return;
    if (pid === 0 && table[0] === 0x00) this.pat(table);
    else if (pid === this.pmtPid && table[0] === 0x02) this.pmt(table);
  }

  pat(table) {
    for (let at = 8; at + 4 <= table.length - 4; at += 4) {
      if (((table[at] << 8) | table[at + 1]) === 0) continue; // the network table
      const pid = ((table[at + 2] & 0x1f) << 8) | table[at + 3];
      if (pid !== this.pmtPid) this.sections.delete(this.pmtPid);
      this.pmtPid = pid;
      return;
    }
  }

  pmt(table) {
    const list = [];
    let at = 12 + (((table[10] & 0x0f) << 8) | table[11]);
    while (at + 5 <= table.length - 4) {
      const pid = ((table[at + 1] & 0x1f) << 8) | table[at + 2];
      const length = ((table[at + 3] & 0x0f) << 8) | table[at + 4];
      const known = CODECS.get(table[at]) ||
        (table[at] === 0x06 ? privateCodec(table.subarray(at + 5, at + 5 + length)) : null);
      if (known) list.push({ pid, kind: known[0], codec: known[1] });
      at += 5 + length;
    }
    const signature = list.map((t) => `${t.pid}:${t.codec}`).join();
    if (signature === this.signature) return;
    this.signature = signature;
    this.tracks.clear();
    for (const t of list) {
      this.tracks.set(t.pid, { pid: t.pid, counter: -1, parts: null, size: 0, expected: 0 });
    }
    this.onTracks(list);
  }
}

/** The codec that the descriptors of a private stream name, if it is one people know. */
function privateCodec(descriptors) {
  for (let at = 0; at + 2 <= descriptors.length; at += 2 + descriptors[at + 1]) {
    const tag = descriptors[at];
    if (tag === 0x6a) return ["audio", "ac3"];
    if (tag === 0x7a) return ["audio", "eac3"];
    if (tag === 0x05) {
      const id = String.fromCharCode(...descriptors.subarray(at + 2, at + 6));
      if (id === "Opus") return ["audio", "opus"];
      if (id === "AC-3") return ["audio", "ac3"];
      if (id === "AV01") return ["video", "av1"];
      if (id === "HEVC") return ["video", "hevc"];
    }
  }
  return null;
}

/** A 33-bit time stamp. Multiplied, because 33 bits do not fit a shift. */
function stamp(b, at) {
  return ((b[at] >> 1) & 7) * 0x40000000 +
    ((b[at + 1] << 22) | ((b[at + 2] >> 1) << 15) | (b[at + 3] << 7) | (b[at + 4] >> 1));
}

/** One array out of many. */
export function join(parts, size) {
  if (parts.length === 1) return parts[0];
  const all = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** CRC-32/MPEG-2; 0 over a section that carries its own. */
function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte << 24;
    for (let bit = 0; bit < 8; bit++) crc = crc & 0x80000000 ? (crc << 1) ^ 0x04c11db7 : crc << 1;
  }
  return crc >>> 0;
}
