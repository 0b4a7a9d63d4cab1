// Fragmented MP4 writing (ISO/IEC 14496-12, -14, -15): one track per file, as a
// SourceBuffer wants it. Values in, bytes out, no state.

/**
 * The initialisation segment of a track.
 * Video: `{kind, timescale, record, width, height, aspect}`; audio: `{kind, timescale, record, rate, channels}`.
 */
export function initSegment(config) {
  const video = config.kind === "video";
  const sound = u16(video ? 0 : 0x0100);
  const [w, h] = video ? displaySize(config) : [0, 0];
  return pack(
    box("ftyp", text("iso5"), u32(1), text("iso5iso6mp41")),
    box("moov",
      box("mvhd", u32(0, 0, 0, 1000, 0, 0x10000), u16(0x0100, 0), u32(0, 0), MATRIX,
        u32(0, 0, 0, 0, 0, 0, 2)),
      box("trak",
        box("tkhd", u32(3, 0, 0, 1, 0, 0, 0, 0), u16(0, 0), sound, u16(0), MATRIX,
          u32(w * 0x10000, h * 0x10000)),
        box("mdia",
          box("mdhd", u32(0, 0, 0, config.timescale, 0), u16(0x55c4, 0)),
          box("hdlr", u32(0, 0), text(video ? "vide" : "soun"), u32(0, 0, 0), [0]),
          box("minf",
            video ? box("vmhd", u32(1, 0, 0)) : box("smhd", u32(0, 0)),
            box("dinf", box("dref", u32(0, 1), box("url ", u32(1)))),
            box("stbl",
              box("stsd", u32(0, 1), video ? avc1(config) : mp4a(config)),
              box("stts", u32(0, 0)), box("stsc", u32(0, 0)),
              box("stsz", u32(0, 0, 0)), box("stco", u32(0, 0)))))),
      box("mvex", box("trex", u32(0, 1, 1, 0, 0, 0)))));
}

/**
 * One movie fragment. `start` is the decode time of the first sample in ticks of the track;
 * samples are `{duration, shift, key, bytes}` with `shift` = presentation - decode time.
 */
export function fragment(sequence, start, samples) {
  let size = 0;
  const table = [];
  for (const s of samples) {
    table.push(s.duration, s.bytes.length, s.key ? 0x02000000 : 0x01010000, s.shift);
    size += s.bytes.length;
  }
  const moof = (offset) => box("moof",
    box("mfhd", u32(0, sequence)),
    box("traf",
      box("tfhd", u32(0x020000, 1)), // default-base-is-moof
      box("tfdt", u32(0x01000000, Math.floor(start / 0x100000000), start)),
      box("trun", u32(0x01000f01, samples.length, offset, ...table))));
  const head = moof(moof(0).length + 8);
  return pack(head, u32(size + 8), text("mdat"), ...samples.map((s) => s.bytes));
}

/** The size at which a picture with pixels that are not square is shown. */
function displaySize({ width, height, aspect }) {
  return [Math.min(65535, Math.round(width * aspect[0] / aspect[1])), height];
}

function avc1(config) {
  return box("avc1", u32(0), u16(0, 1), u32(0, 0, 0, 0), u16(config.width, config.height),
    u32(0x480000, 0x480000, 0), u16(1), new Uint8Array(32), u16(24, 0xffff),
    box("avcC", config.record), box("pasp", u32(...config.aspect)));
}

function mp4a(config) {
  const asc = config.record;
  const decoder = [0x40, 0x15, 0, 0, 0, ...u32(0, 0), 5, asc.length, ...asc];
  const es = [0, 1, 0, 4, decoder.length, ...decoder, 6, 1, 2];
  return box("mp4a", u32(0), u16(0, 1), u32(0, 0), u16(config.channels, 16), u32(0),
    u32(config.rate * 0x10000), box("esds", u32(0), [3, es.length, ...es]));
}

function box(type, ...parts) {
  const body = pack(...parts);
  return pack(u32(body.length + 8), text(type), body);
}

function pack(...parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function u32(...values) {
  const bytes = new Uint8Array(values.length * 4);
  const view = new DataView(bytes.buffer);
  values.forEach((value, i) => view.setUint32(i * 4, value));
  return bytes;
}

function u16(...values) {
  return Uint8Array.from(values.flatMap((value) => [value >> 8, value & 255]));
}

function text(value) {
  return Uint8Array.from(value, (c) => c.charCodeAt(0));
}

const MATRIX = u32(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000);
