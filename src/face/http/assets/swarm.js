// What the watch page shows of a stream's swarm: who feeds whom, and how the last minutes went.

import {
  bytes, byId, count, isNumber, make, percent, poll, seconds, shown, write, writeNumbers,
} from "./dom.js";
import { Graph } from "./graph.js";
import { Plot } from "./plot.js";

/** A picture with more viewers than this is asked for half as often. */
const MANY = 64;
const MODES = {
  direct: "Direct: all from the relay",
  hybrid: "Hybrid: viewers pass it on",
};

const list = (value) => (Array.isArray(value) ? value : []);

/** The picture of `graph.json` with everything in its place, whatever came. */
function picture(json) {
  const nodes = list(json?.nodes).filter((node) => node && typeof node.id === "string").slice(0, 256);
  const inside = (place) => Number.isInteger(place) && place >= 0 && place <= nodes.length;
  const edges = list(json?.edges)
    .filter((edge) => Array.isArray(edge) && inside(edge[0]) && inside(edge[1]) && edge[1] > 0)
    .map(([from, to, stripes]) => ({ from, to, stripes: ones(stripes & 255) }))
    .filter(({ from, to, stripes }) => from !== to && stripes > 0);
  return { nodes, edges };
}

function ones(bits) {
  let n = 0;
  for (let rest = bits; rest; rest &= rest - 1) n++;
  return n;
}

/** One sentence that says what the picture shows. */
function inWords({ nodes, edges }, json) {
  if (!nodes.length) return "Nobody is in the picture yet.";
  const fedBy = (relay) => new Set(edges.filter(({ from }) => (from === 0) === relay).map(({ to }) => to)).size;
  const some = json.peers > nodes.length ? `${nodes.length} of ${count(json.peers)} viewers that share` :
    nodes.length === 1 ? "1 viewer that shares" : `${nodes.length} viewers that share`;
  const offload = isNumber(json.offload) ? ` Offload of the last minute: ${percent(json.offload)}.` : "";
  return `${some}. The relay feeds ${fedBy(true)} of them, other viewers feed ${fedBy(false)}.${offload}`;
}

/** The same as a table, for those who cannot see it and those who want to know exactly. */
function writeTable(body, { nodes, edges }) {
  const name = (place) => (place === 0 ? "relay" : nodes[place - 1].id);
  const side = (own, other) => nodes.map((_, i) => edges
    .filter((edge) => edge[own] === i + 1)
    .map((edge) => `${name(edge[other])} (${edge.stripes})`)
    .join(", ") || "–");
  const [gets, gives] = [side("to", "from"), side("from", "to")];
  body.replaceChildren(...nodes.map((node, i) => make("tr", {},
    make("th", { scope: "row" }, node.id), make("td", {}, seconds(node.delay_ms)),
    make("td", {}, gets[i]), make("td", {}, gives[i]))));
}

/** Shows the section of the swarm of stream `name`; returns what takes its `status.json`. */
export function mountSwarm(name) {
  const section = byId("swarm");
  const graph = new Graph(byId("graph"));
  const offload = new Plot("Offload", [["offload", "of the last minute"]], percent, 1);
  const delay = new Plot("Delay", [
    ["worst", "behind live, worst"], ["behind", "behind live"], ["arrival", "arrival"],
  ], seconds, 2000);
  byId("plots").append(offload.element, delay.element);
  const table = byId("swarm-table");
  const details = table.closest("details");
  let seen = false;
  let known = false;
  let last = null;

  function show(json) {
    if (!json) return;
    last = picture(json);
    // The address may name the section, which was not there when the page was opened.
    if (section.hidden && (known || json.peers > 0)) {
      section.hidden = false;
      if (location.hash === "#swarm") section.scrollIntoView();
    }
    write(byId("swarm-mode"), MODES[json.mode] ?? "");
    const some = last.nodes.length > 0;
    byId("swarm-empty").hidden = some || json.peers > 0 || list(json.course?.offload).length > 0;
    byId("swarm-body").hidden = !byId("swarm-empty").hidden;
    graph.show(last);
    const words = inWords(last, json);
    byId("graph").setAttribute("aria-label", `Who feeds whom: ${words}`);
    write(byId("graph-words"), words);
    const course = json.course ?? {};
    offload.show([list(course.offload)], course.step_ms, json.offload);
    const behind = list(course.delay_p50_ms);
    delay.show([list(course.delay_p99_ms), behind, list(course.arrival_p50_ms)],
      course.step_ms, behind[behind.length - 1]);
    if (details.open) writeTable(table, last);
  }

  details.addEventListener("toggle", () => { if (last) writeTable(table, last); });
  // Without a swarm the section is not there, and is looked for now and then.
  const every = () => (section.hidden ? 3000 : last && last.nodes.length > MANY ? 2000 : 1000);
  const ask = poll(`/live/${name}/graph.json`, show, { every, wanted: () => seen || section.hidden });
  new IntersectionObserver(([entry]) => {
    seen = entry.isIntersecting;
    if (seen) ask();
  }).observe(section);

  return (status) => {
    known = Boolean(status.swarm?.id);
    // A viewer's own page knows its neighbours only.
    byId("swarm-numbers").hidden = !known;
    writeNumbers(byId("swarm-numbers"), numbers(status.swarm ?? {}));
  };
}

function numbers(swarm) {
  const shares = isNumber(swarm.peer_bytes) && swarm.peer_bytes + swarm.relay_bytes > 0;
  return [
    ["Sharing", count(swarm.peers)],
    ["Offload", percent(swarm.offload)],
    ["Behind live", seconds(swarm.delay_p50_ms)],
    ["Arrival", seconds(swarm.arrival_p50_ms)],
    ["Stalls", count(swarm.stalls)],
    ["Rescued chunks", count(swarm.rescues)],
    ["From viewers", bytes(swarm.peer_bytes)],
    ["From the relay", bytes(swarm.relay_bytes)],
    ["Relay sent", bytes(swarm.bytes)],
    ["of it rescue", bytes(swarm.rescue_bytes)],
    ["Seeds", count(swarm.seeds)],
    ["Twice", shares ? share(swarm.duplicates * 1316, swarm.peer_bytes + swarm.relay_bytes) : "–"],
    ["Bad chunks", count(swarm.bad)],
  ];
}

const share = (part, whole) => shown(part / whole, (v) => `${(v * 100).toFixed(1)} %`);
