// The pages `/` and `/watch/live/NAME`: numbers, commands, and a player.
// Names, warnings and errors come from strangers: all text goes through textContent.

import {
  bitrate, byId, bytes, count, fine, isNumber, make, percent, poll, seconds, shown, write, writeNumbers,
} from "./dom.js";
import { HlsPlayer, canPlayHls } from "./native.js";
import { Player, codecName } from "./player.js";
import { available } from "./sink.js";
import { mountSwarm } from "./swarm.js";

const HISTORY_MS = 120000;
const NAME = /^(?!\.)(?!.*\.(?:ts|m3u8)$)[A-Za-z0-9._-]{1,64}$/;

function delay(status) {
  const { delay_p50_ms: p50, delay_p99_ms: p99 } = status;
  if (!isNumber(p50)) return "–";
  return isNumber(p99) ? `${fine(p50)} / ${fine(p99)} ms` : `${fine(p50)} ms`;
}

function gop(status) {
  const { gop_ms: mean, gop_max_ms: max } = status;
  if (!isNumber(mean) || mean <= 0) return "–";
  return isNumber(max) && max > mean * 1.2 ? `${seconds(mean)}, max ${seconds(max)}` : seconds(mean);
}

function codecs(status) {
  const tracks = Array.isArray(status.tracks) ? status.tracks : [];
  return tracks.map((track) => codecName(track?.codec)).join(" + ") || "–";
}

function duration(since, now) {
  if (!isNumber(since) || !isNumber(now)) return "–";
  const s = Math.max(0, Math.round((now - since) / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

const STATES = { live: "Live", held: "Publisher away" };
const warningsOf = (status) => (Array.isArray(status.warnings) ? status.warnings.map(String) : []);

/** Shows a stream's state as a coloured word. */
function writeState(element, state) {
  write(element, STATES[state] ?? (state ? String(state) : "Offline"));
  element.className = `state ${STATES[state] ? state : ""}`;
}

/** Shows warnings, and touches the list only when they change. */
function writeWarnings(list, warnings) {
  const key = warnings.join("\n");
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...warnings.map((text) => make("li", {}, text)));
}

// Commands

/** Writes labelled commands with copy buttons. */
function writeCommands(box, commands) {
  box.replaceChildren(...commands.map(([label, text]) => {
    const code = make("code", {}, text);
    const button = make("button",
      { class: "button", type: "button", "aria-label": `Copy: ${label}` }, "Copy");
    button.addEventListener("click", () => copy(text, code, button));
    return make("div", { class: "command" },
      make("p", { class: "command-label" }, label),
      make("div", { class: "command-row" }, make("pre", { tabindex: "0" }, code), button));
  }));
}

/** Copies text. Plain http has no clipboard interface, so there the old command does it. */
async function copy(text, code, button) {
  let done = false;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch {
    getSelection().selectAllChildren(code);
    done = document.execCommand("copy");
  }
  write(button, done ? "Copied" : "Press Ctrl C");
  setTimeout(() => write(button, "Copy"), 1500);
}

function publishCommands(name) {
  const to = `-f mpegts -method PUT ${location.origin}/live/${name}`;
  return [
    ["A file, with ffmpeg", `ffmpeg -re -i in.mp4 -c copy ${to}`],
    ["A test picture, with ffmpeg",
      "ffmpeg -re -f lavfi -i testsrc2=size=1280x720:rate=25 -f lavfi -i sine=frequency=440 " +
      `-c:v libx264 -preset veryfast -tune zerolatency -g 25 -pix_fmt yuv420p -c:a aac ${to}`],
  ];
}

function playCommands(name) {
  const url = `${location.origin}/live/${name}.ts`;
  return [
    ["ffplay", `ffplay -fflags nobuffer ${url}`],
    ["mpv", `mpv --profile=low-latency ${url}`],
    ["VLC", `vlc ${url}`],
    ["HLS, for phones, Safari and televisions", `${location.origin}/live/${name}/index.m3u8`],
    ["Any other player: the address", url],
    ["Watch and share", `headwater peer ${location.origin}/live/${name}`],
  ];
}

// The player

/** Builds a player with its status line in `box`; returns what ends it. */
function mountPlayer(box, name) {
  const video = make("video", {
    controls: "", muted: "", playsinline: "", "aria-label": `Live stream ${name}`,
  });
  video.muted = true;
  const text = make("div", { class: "screen-text", role: "status", hidden: "" });
  const screen = make("div", { class: "screen" }, video, text);
  const dot = make("span", { class: "dot", "aria-hidden": "true" });
  const words = make("span");
  const unmute = make("button", { class: "button primary", type: "button", hidden: "" }, "Unmute");
  const note = make("p", { class: "player-note", hidden: "" });
  box.replaceChildren(screen, make("div", { class: "player-foot" },
    make("span", { class: "player-status" }, dot, words), unmute, note));

  let hasSound = false;
  const showMute = () => { unmute.hidden = !hasSound || !video.muted; };
  unmute.addEventListener("click", () => {
    video.muted = false;
    if (video.volume === 0) video.volume = 1;
    video.play().catch(() => {});
    showMute();
  });
  video.addEventListener("volumechange", showMute);

  const show = (status) => {
    dot.className = `dot ${status.state}`;
    write(words, status.state === "unplayable" ? "Not playable here" : status.text);
    write(note, status.note);
    note.hidden = !status.note;
    const running = status.state === "live" || status.state === "buffering";
    hasSound = running && status.hasAudio;
    showMute();
    screen.classList.toggle("sound", status.audioOnly);
    const over = status.state === "unplayable"
      ? `${status.text} Use one of the commands below in a player.`
      : status.audioOnly && running ? "Audio only"
        : running || status.state === "paused" || status.state === "blocked" ? "" : status.text;
    text.replaceChildren(...(over ? [make("p", {}, over)] : []));
    text.hidden = !over;
    video.controls = status.state !== "unplayable";
  };
  const player = !available && canPlayHls(video)
    ? new HlsPlayer(video, `/live/${name}/index.m3u8`, show)
    : new Player(video, `/live/${name}.ts`, show);
  player.start();
  return () => {
    player.stop();
    box.replaceChildren();
  };
}

// Sparklines

const SVG = "http://www.w3.org/2000/svg";

/** A small chart of the last two minutes. */
class Chart {
  constructor(label, words) {
    this.label = label;
    this.words = words;
    this.points = [];
    this.value = make("strong", {}, "–");
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("viewBox", "0 0 120 40");
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("role", "img");
    this.area = this.svg.appendChild(document.createElementNS(SVG, "polygon"));
    this.line = this.svg.appendChild(document.createElementNS(SVG, "polyline"));
    this.area.setAttribute("class", "area");
    this.line.setAttribute("class", "line");
    this.element = make("figure", { class: "chart" },
      make("figcaption", {}, make("span", {}, label), this.value), this.svg);
  }

  add(value) {
    const now = performance.now();
    write(this.value, this.words(value));
    if (isNumber(value)) this.points.push([now, value]);
    this.points = this.points.filter(([when]) => now - when < HISTORY_MS);
    const values = this.points.map(([, v]) => v);
    const top = Math.max(1, ...values) * 1.15;
    const at = this.points.map(([when, v]) =>
      [120 - ((now - when) / HISTORY_MS) * 120, 39 - (v / top) * 38].map((n) => n.toFixed(1)));
    this.line.setAttribute("points", at.join(" "));
    const area = at.length > 1 ? [[at[0][0], 40], ...at, [at[at.length - 1][0], 40]] : [];
    this.area.setAttribute("points", area.join(" "));
    this.svg.setAttribute("aria-label", values.length
      ? `${this.label}, last two minutes: ${this.words(Math.min(...values))} to ${this.words(Math.max(...values))}`
      : `${this.label}: nothing yet`);
  }
}

// The pages

function indexPage() {
  const list = byId("streams");
  const cards = new Map();
  let staged = null;
  let unmount = null;
  let named = null;

  function stage(name) {
    if (name === staged) return;
    unmount?.();
    staged = name;
    unmount = name ? mountPlayer(byId("player"), name) : null;
    byId("stage").hidden = !name;
    if (!name) return;
    write(byId("stage-title"), name);
    byId("stage-title").href = byId("stage-link").href = watchPath(name);
  }

  function commands(name) {
    if (name === named) return;
    named = name;
    writeCommands(byId("play"), playCommands(name));
  }

  function card(name) {
    const state = make("span", { class: "state" });
    const numbers = make("dl", { class: "numbers" });
    const warnings = make("ul", { class: "warnings", "aria-label": "Warnings" });
    const element = make("li", { class: "card" },
      make("div", { class: "card-head" }, make("h3", {}, make("a", { href: watchPath(name) }, name)), state),
      numbers, warnings);
    return { element, state, numbers, warnings };
  }

  writeCommands(byId("publish"), publishCommands("mine"));
  commands("mine");
  poll("/streams.json", (json) => {
    const streams = (Array.isArray(json?.streams) ? json.streams : [])
      .filter((s) => s && typeof s.name === "string" && NAME.test(s.name));
    version(json);
    byId("loading").hidden = true;
    byId("empty").hidden = streams.length > 0;
    for (const [name, { element }] of cards) {
      if (streams.some((s) => s.name === name)) continue;
      element.remove();
      cards.delete(name);
    }
    streams.forEach((status, place) => {
      if (!cards.has(status.name)) cards.set(status.name, card(status.name));
      const shownCard = cards.get(status.name);
      if (list.children[place] !== shownCard.element) {
        list.insertBefore(shownCard.element, list.children[place] ?? null);
      }
      writeState(shownCard.state, status.state);
      writeNumbers(shownCard.numbers, [
        ["Viewers", count(status.viewers)], ["Sharing", count(status.swarm?.peers)],
        ["Offload", percent(status.swarm?.offload)], ["Bitrate", bitrate(status.bitrate_bps)],
        ["Codecs", codecs(status)], ["Key frames every", gop(status)],
        ["Delay p50 / p99", delay(status)], ["On air", duration(status.since, json.now)],
      ]);
      writeWarnings(shownCard.warnings, warningsOf(status));
    });
    // The stage stays with its stream as long as that exists: nobody likes a picture that changes.
    const still = streams.some((s) => s.name === staged);
    const first = streams.find((s) => s.state === "live");
    if (!still) stage(first?.name ?? null);
    commands(staged ?? streams[0]?.name ?? "mine");
    document.title = streams.length ? `${streams.length} live · headwater` : "Live streams · headwater";
  });
}

function watchPage() {
  let name = "";
  try {
    name = decodeURIComponent(location.pathname.replace(/^\/watch\/live\//, ""));
  } catch { /* not a name, said below */ }
  if (!NAME.test(name)) {
    write(byId("title"), "Not a stream name");
    writeWarnings(byId("warnings"), ["A name has 1 to 64 letters, digits, dots, dashes and " +
      "underscores, does not begin with a dot and does not end in .ts or .m3u8."]);
    for (const id of ["play", "publish"]) byId(id).parentElement.hidden = true;
    byId("player").hidden = byId("numbers").parentElement.hidden = true;
    return;
  }
  write(byId("title"), name);
  document.title = `${name} · headwater`;
  byId("status-link").href = `/live/${name}/status.json`;
  writeCommands(byId("play"), playCommands(name));
  writeCommands(byId("publish"), publishCommands(name));
  const viewers = new Chart("Viewers", count);
  const rate = new Chart("Bitrate", bitrate);
  byId("charts").append(viewers.element, rate.element);
  const unmount = mountPlayer(byId("player"), name);
  const showSwarm = mountSwarm(name);
  addEventListener("pagehide", (event) => { if (!event.persisted) unmount(); });
  poll(`/live/${name}/status.json`, (json, code) => {
    const status = json ?? {};
    writeState(byId("state"), json ? status.state : code === 503 ? "held" : "");
    viewers.add(status.viewers);
    rate.add(status.bitrate_bps);
    showSwarm(status);
    writeNumbers(byId("numbers"), [
      ["On air", duration(status.since, Date.now())],
      ["Codecs", codecs(status)],
      ["Relay delay p50", shown(status.delay_p50_ms, (v) => `${fine(v)} ms`)],
      ["Relay delay p99", shown(status.delay_p99_ms, (v) => `${fine(v)} ms`)],
      ["Key frames every", gop(status)],
      ["Clock jitter", shown(status.pcr_jitter_us, (v) => `${fine(v / 1000)} ms`)],
      ["Continuity errors", count(status.continuity_errors)],
      ["Transport errors", count(status.transport_errors)],
      ["Discontinuities", count(status.discontinuities)],
      ["Lost sync", count(status.resyncs)],
      ["Received", bytes(status.ingest_bytes)],
      ["Sent", bytes(status.egress_bytes)],
    ]);
    writeWarnings(byId("warnings"), warningsOf(status));
  });
}

function watchPath(name) {
  return `/watch/live/${encodeURIComponent(name)}`;
}

function version(json) {
  if (json?.version) write(byId("version"), `headwater ${json.version}`);
}

if (document.body.dataset.page === "watch") watchPage();
else indexPage();
