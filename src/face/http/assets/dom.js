// What all parts of a page need: elements, words for numbers, polling.

const POLL_MS_MAX = 15000;

export const byId = (id) => document.getElementById(id);

/** A new element with attributes, and text or children. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Sets text only when it differs, so that selections and screen readers are left alone. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Words for numbers. Anything that is missing reads as a dash.

export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
export const shown = (value, words) => (isNumber(value) ? words(value) : "–");
export const count = (value) => shown(value, (v) => v.toLocaleString("en"));
export const seconds = (ms) => shown(ms, (v) => (v < 1000 ? `${Math.round(v)} ms` : `${(v / 1000).toFixed(1)} s`));
// The space does not break.
export const percent = (ratio) => shown(ratio, (v) => `${Math.round(v * 100)}\u00a0%`);
export const fine = (ms) => (ms < 10 ? ms.toFixed(1) : String(Math.round(ms)));

export function bitrate(bps) {
  return shown(bps, (v) => {
    if (v < 999500) return `${Math.round(v / 1000)} kbit/s`;
    return `${(v / 1e6).toFixed(v < 1e7 ? 2 : 1)} Mbit/s`;
  });
}

export function bytes(value) {
  return shown(value, (v) => {
    const power = Math.min(4, Math.max(0, Math.floor(Math.log10(Math.max(1, v)) / 3)));
    return `${(v / 1000 ** power).toFixed(power ? 1 : 0)} ${["B", "kB", "MB", "GB", "TB"][power]}`;
  });
}

/** Fills a definition list and keeps its elements from poll to poll. */
export function writeNumbers(list, rows) {
  if (list.children.length !== rows.length) {
    list.replaceChildren(...rows.map(([label]) => make("div", {}, make("dt", {}, label), make("dd"))));
  }
  rows.forEach(([, value], i) => write(list.children[i].lastChild, value));
}

// Polling

/**
 * Calls `use(json, status)` again and again, `every` so many milliseconds; slower while it fails,
 * not at all while the page is hidden or `wanted` says no. Returns what asks at once.
 */
export function poll(url, use, { every = () => 2000, wanted = () => true } = {}) {
  let wait = 0;
  let timer = 0;
  let busy = false;
  async function once() {
    clearTimeout(timer);
    if (document.hidden || busy || !wanted()) return;
    busy = true;
    try {
      const answer = await fetch(url, { cache: "no-store", signal: timeout(8000) });
      const known = answer.ok || answer.status === 404 || answer.status === 503;
      if (!known) throw new Error(`the relay answered ${answer.status}`);
      const json = answer.ok ? await answer.json() : null;
      wait = every();
      server("", false);
      use(json, answer.status);
    } catch {
      wait = Math.min(Math.max(wait, every()) * 2, POLL_MS_MAX);
      server("Relay not reachable, trying again", true);
    }
    busy = false;
    timer = setTimeout(once, wait);
  }
  document.addEventListener("visibilitychange", once);
  once();
  return once;
}

function timeout(ms) {
  return AbortSignal.timeout ? AbortSignal.timeout(ms) : undefined;
}

function server(text, bad) {
  const note = byId("server");
  write(note, text || location.host);
  note.classList.toggle("bad", bad);
}
