// What must be known of H.264 and AAC to put them into MP4: where units begin,
// which pictures can start a decoder, and what the parameters say.

/** The NAL units of an Annex B byte stream, without start codes. */
export function nalUnits(data) {
  const units = [];
  let begin = -1;
  let at = 0;
  while (at + 2 < data.length) {
    if (data[at + 2] > 1) {
      at += 3;
    } else if (data[at] === 0 && data[at + 1] === 0 && data[at + 2] === 1) {
      if (begin >= 0) addUnit(units, data, begin, at);
      begin = at + 3;
      at += 3;
    } else {
      at += 1;
    }
  }
  if (begin >= 0) addUnit(units, data, begin, data.length);
  return units;
}

function addUnit(units, data, begin, end) {
  while (end > begin && data[end - 1] === 0) end--; // trailing_zero_8bits, or a longer start code
  if (end > begin) units.push(data.subarray(begin, end));
}

/** Collects the parameter sets of an H.264 track and turns its pictures into MP4 samples. */
export class H264 {
  constructor() {
    this.sps = new Map();
    this.pps = new Map();
    this.active = null;
    this.config = null;
    this.changed = false;
  }

  /**
   * One access unit as `{key, bytes}`, its NAL units with 4-byte lengths; null if it has no picture.
   * `random` is the transport stream's own word for "a decoder can start here".
   */
  accessUnit(data, random) {
    const keep = [];
    let size = 0;
    let key = false;
    let picture = false;
    let intra = false;
    for (const nal of nalUnits(data)) {
      const type = nal[0] & 31;
      if (type === 7 && this.store(this.sps, spsId(nal), nal)) this.active = this.sps.get(spsId(nal));
      else if (type === 8) this.store(this.pps, new Bits(nal.subarray(1)).ue(), nal);
      if (type >= 7) continue; // sets go to the header; delimiters and fillers nowhere
      if (type === 5) key = true;
      if (type === 6 && nal[1] === 6) intra = true; // SEI: recovery point
      if (type === 1 || type === 5) picture = true;
      keep.push(nal);
      size += 4 + nal.length;
    }
    if (!picture) return null;
    key = key || intra || random;
    if (key && this.changed) this.configure();
    const bytes = new Uint8Array(size);
    const view = new DataView(bytes.buffer);
    let at = 0;
    for (const nal of keep) {
      view.setUint32(at, nal.length);
      bytes.set(nal, at + 4);
      at += 4 + nal.length;
    }
    return { key, bytes };
  }

  /** Keeps a parameter set; false if it is the one we have, or its number is absurd. */
  store(sets, id, nal) {
    if (id > 30 && sets === this.sps || id > 255 || same(sets.get(id), nal)) return false;
    sets.set(id, nal.slice());
    this.changed = true;
    return true;
  }

  /** Builds the decoder configuration record (avcC) from the sets seen so far. */
  configure() {
    const all = [...this.sps.values()];
    const pps = [...this.pps.values()].slice(-255);
    const sps = this.active;
    if (!sps || !pps.length) return;
    const picture = readSps(sps);
    const record = [1, sps[1], sps[2], sps[3], 0xff, 0xe0 | all.length];
    for (const set of all) record.push(set.length >> 8, set.length & 255, ...set);
    record.push(pps.length);
    for (const set of pps) record.push(set.length >> 8, set.length & 255, ...set);
    if (HIGH.has(sps[1])) {
      record.push(0xfc | picture.chroma, 0xf8 | picture.luma8, 0xf8 | picture.chroma8, 0);
    }
    const hex = [sps[1], sps[2], sps[3]].map((b) => b.toString(16).padStart(2, "0")).join("");
    this.config = {
      kind: "video", codec: `avc1.${hex}`, timescale: 90000,
      record: Uint8Array.from(record), ...picture,
    };
    this.changed = false;
  }
}

/** Profiles whose parameter sets and avcC carry chroma format and bit depths. */
const HIGH = new Set([100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135]);

function spsId(nal) {
  return new Bits(nal.subarray(4)).ue();
}

/** Picture size in pixels after cropping, pixel aspect ratio, and what avcC repeats. */
function readSps(nal) {
  const b = new Bits(nal.subarray(4));
  b.ue();
  let chroma = 1, luma8 = 0, chroma8 = 0;
  if (HIGH.has(nal[1])) {
    chroma = b.ue();
    if (chroma === 3) b.u(1);
    luma8 = b.ue();
    chroma8 = b.ue();
    b.u(1);
    if (b.u(1)) {
      for (let list = 0; list < (chroma === 3 ? 12 : 8); list++) {
        if (b.u(1)) skipScaling(b, list < 6 ? 16 : 64);
      }
    }
  }
  b.ue();
  const order = b.ue();
  if (order === 0) {
    b.ue();
  } else if (order === 1) {
    b.u(1); b.ue(); b.ue();
    for (let n = Math.min(b.ue(), 255); n > 0; n--) b.ue();
  }
  b.ue();
  b.u(1);
  const across = b.ue() + 1;
  const down = b.ue() + 1;
  const frames = b.u(1);
  if (!frames) b.u(1);
  b.u(1);
  let width = across * 16;
  let height = down * 16 * (2 - frames);
  if (b.u(1)) {
    const x = chroma === 1 || chroma === 2 ? 2 : 1;
    const y = (chroma === 1 ? 2 : 1) * (2 - frames);
    width -= x * (b.ue() + b.ue());
    height -= y * (b.ue() + b.ue());
  }
  let aspect = [1, 1];
  if (b.u(1) && b.u(1)) {
    const index = b.u(8);
    aspect = index === 255 ? [b.u(16), b.u(16)] : ASPECTS[index] || aspect;
    if (!aspect[0] || !aspect[1]) aspect = [1, 1];
  }
  return { width, height, aspect, chroma, luma8: luma8 & 7, chroma8: chroma8 & 7 };
}

/** aspect_ratio_idc, ITU-T H.264 table E-1. */
const ASPECTS = [
  null, [1, 1], [12, 11], [10, 11], [16, 11], [40, 33], [24, 11], [20, 11], [32, 11],
  [80, 33], [18, 11], [15, 11], [64, 33], [160, 99], [4, 3], [3, 2], [2, 1],
];

function skipScaling(b, count) {
  let last = 8, next = 8;
  for (let i = 0; i < count; i++) {
    if (next) next = (last + b.se() + 256) & 255;
    if (next) last = next;
  }
}

/** Reads bits of a NAL unit, past the emulation prevention bytes (00 00 03). Zeros after the end. */
class Bits {
  constructor(nal) {
    const plain = [];
    for (let i = 0; i < nal.length && plain.length < 512; i++) {
      if (i > 1 && nal[i] === 3 && nal[i - 1] === 0 && nal[i - 2] === 0) continue;
      plain.push(nal[i]);
    }
    this.bytes = plain;
    this.at = 0;
  }

  u(count) {
    let value = 0;
    for (; count > 0; count--, this.at++) {
      value = value * 2 + (((this.bytes[this.at >> 3] || 0) >> (7 - (this.at & 7))) & 1);
    }
    return value;
  }

  ue() {
    let zeros = 0;
    while (zeros < 32 && !this.u(1)) zeros++;
    return 2 ** zeros - 1 + this.u(zeros);
  }

  se() {
    const code = this.ue();
    return code & 1 ? (code + 1) / 2 : -code / 2;
  }
}

const RATES = [96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350];
/** Samples in one AAC frame. */
export const AAC_FRAME = 1024;

/** Cuts ADTS into raw AAC frames; a frame may begin in one PES and end in the next. */
export class Aac {
  constructor() {
    this.rest = new Uint8Array(0);
    this.config = null;
    this.next = null;
  }

  /** Forgets a frame that was begun. */
  reset() {
    this.rest = new Uint8Array(0);
    this.next = null;
  }

  /** The frames of one PES as `[{pts, bytes}]`; `pts` in 90 kHz ticks, not rounded. */
  frames(pes) {
    const begun = this.rest.length;
    let data = pes.data;
    if (begun) {
      data = new Uint8Array(begun + pes.data.length);
      data.set(this.rest);
      data.set(pes.data, begun);
    }
    const frames = [];
    let stamped = pes.pts === null;
    let at = 0;
    while (at + 7 <= data.length) {
      if (data[at] !== 0xff || (data[at + 1] & 0xf6) !== 0xf0) {
        at++;
        continue;
      }
      const size = ((data[at + 3] & 3) << 11) | (data[at + 4] << 3) | (data[at + 5] >> 5);
      const header = data[at + 1] & 1 ? 7 : 9;
      if (size <= header || !this.configure(data, at)) {
        at++;
        continue;
      }
      if (at + size > data.length) break;
      if (!stamped && at >= begun) {
        this.next = pes.pts; // a time stamp belongs to the first frame that begins in its PES
        stamped = true;
      }
      if (this.next !== null) {
        frames.push({ pts: this.next, bytes: data.subarray(at + header, at + size) });
        this.next += AAC_FRAME * 90000 / this.config.rate;
      }
      at += size;
    }
    // A frame whose beginning stays over carries this PES's stamp if no frame before it did.
    if (!stamped && at >= begun && at < data.length) this.next = pes.pts;
    this.rest = data.slice(at);
    return frames;
  }

  /** Reads the header; false if it is none. */
  configure(data, at) {
    const object = (data[at + 2] >> 6) + 1;
    const index = (data[at + 2] >> 2) & 15;
    const channels = ((data[at + 2] & 1) << 2) | (data[at + 3] >> 6);
    if (index >= RATES.length || !channels) return false;
    const now = this.config;
    if (now && now.object === object && now.index === index && now.channels === channels) return true;
    const rate = RATES[index];
    // ADTS cannot tell HE-AAC: at half rates it is the rule, and decoders take plain AAC so marked.
    const high = rate <= 24000 && object === 2;
    const outer = high ? 5 : object;
    const record = [(outer << 3) | (index >> 1), ((index & 1) << 7) | (channels << 3)];
    if (high) {
      const doubled = index - 3;
      record[1] |= doubled >> 1;
      record.push(((doubled & 1) << 7) | (object << 2), 0);
    }
    this.config = {
      kind: "audio", codec: `mp4a.40.${outer}`, timescale: rate, rate, channels, object, index,
      record: Uint8Array.from(record),
    };
    return true;
  }
}

/** Whether two byte arrays are equal; false when one is missing. */
export function same(a, b) {
  return !!a && !!b && a.length === b.length && a.every((byte, i) => byte === b[i]);
}
