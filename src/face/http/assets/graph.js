// Draws who feeds whom: the relay in the middle, viewers around it. An edge is broad at the one
// who gives and ends in a point at the one who gets; the more stripes it carries, the broader.

const SVG = "http://www.w3.org/2000/svg";
const MIDDLE = 320;
const RELAY_RADIUS = 34;
const GLIDE_MS = 600;

/** Rings: those whom the relay feeds among others, the rest, and all if the relay feeds all. */
const NEAR = 160;
const FAR = 295;
const ALL = 270;

function element(tag, attributes, parent) {
  const made = parent.appendChild(document.createElementNS(SVG, tag));
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Graph {
  constructor(svg) {
    this.edges = [];
    this.nodes = new Map();
    this.radius = 13;
    this.lit = null;
    // One path for all edges of a kind: a thousand of them are sixteen elements.
    this.layer = element("g", {}, svg);
    this.paths = new Map();
    for (const kind of ["viewer", "relay"]) {
      for (let stripes = 1; stripes <= 8; stripes++) {
        const opacity = ((kind === "relay" ? 0.55 : 0.3) + stripes * 0.055).toFixed(2);
        const path = element("path", { class: kind, "fill-opacity": opacity }, this.layer);
        this.paths.set(`${kind}${stripes}`, path);
      }
    }
    this.bright = {
      viewer: element("path", { class: "viewer" }, svg),
      relay: element("path", { class: "relay" }, svg),
    };
    const relay = element("g", { class: "relay-node" }, svg);
    element("circle", { cx: MIDDLE, cy: MIDDLE, r: RELAY_RADIUS }, relay);
    element("text", { x: MIDDLE, y: MIDDLE }, relay).textContent = "relay";
    this.crowd = element("g", {}, svg);
    const light = (event) => this.light(event.target.closest?.("g.node")?.dataset.id ?? null);
    svg.addEventListener("pointerover", light);
    svg.addEventListener("click", light);
    svg.addEventListener("pointerleave", () => this.light(null));
  }

  /** Shows a picture: `nodes`, and `edges` by their places, from 1; 0 is the relay. */
  show({ nodes, edges }) {
    this.radius = nodes.length <= 32 ? 15 : nodes.length <= 96 ? 9 : 5;
    const fed = new Set(edges.filter(({ from }) => from === 0).map(({ to }) => to));
    const anyFed = new Set(edges.map(({ to }) => to));
    const gone = new Set(this.nodes.keys());
    nodes.forEach((node, i) => {
      gone.delete(node.id);
      const known = this.nodes.get(node.id) ?? this.add(node.id);
      const angle = (i / nodes.length) * 2 * Math.PI - Math.PI / 2;
      const ring = fed.size === nodes.length ? ALL : fed.has(i + 1) ? NEAR : FAR;
      known.to = { x: MIDDLE + ring * Math.cos(angle), y: MIDDLE + ring * Math.sin(angle) };
      known.from = known.at ?? known.to;
      known.group.setAttribute("class",
        `node ${fed.has(i + 1) ? "fed" : anyFed.has(i + 1) ? "" : "alone"}`);
      known.circle.setAttribute("r", this.radius);
      known.label.textContent = this.radius >= 15 ? node.id.slice(0, 3) : "";
      known.title.textContent = `viewer ${node.id}`;
    });
    for (const id of gone) {
      this.nodes.get(id).group.remove();
      this.nodes.delete(id);
    }
    const id = (place) => (place === 0 ? null : nodes[place - 1].id);
    this.edges = edges.map(({ from, to, stripes }) => ({ from: id(from), to: id(to), stripes }));
    this.began = still.matches ? -Infinity : performance.now();
    cancelAnimationFrame(this.frame);
    this.glide(performance.now());
  }

  add(id) {
    const group = element("g", { class: "node", "data-id": id }, this.crowd);
    const node = {
      group,
      title: element("title", {}, group),
      circle: element("circle", {}, group),
      label: element("text", {}, group),
      at: null,
    };
    this.nodes.set(id, node);
    return node;
  }

  /** Moves everybody on the way to where they belong. */
  glide(now) {
    const part = Math.min(1, Math.max(0, (now - this.began) / GLIDE_MS));
    const eased = part * part * (3 - 2 * part);
    let moving = false;
    for (const node of this.nodes.values()) {
      const [dx, dy] = [node.to.x - node.from.x, node.to.y - node.from.y];
      moving ||= Math.abs(dx) + Math.abs(dy) > 0.5;
      node.at = { x: node.from.x + dx * eased, y: node.from.y + dy * eased };
      node.group.setAttribute("transform", `translate(${node.at.x.toFixed(1)} ${node.at.y.toFixed(1)})`);
    }
    this.draw();
    if (moving && part < 1) this.frame = requestAnimationFrame((then) => this.glide(then));
  }

  draw() {
    const shapes = new Map();
    const bright = { viewer: "", relay: "" };
    for (const edge of this.edges) {
      const shape = this.shape(edge);
      const kind = edge.from === null ? "relay" : "viewer";
      shapes.set(kind + edge.stripes, (shapes.get(kind + edge.stripes) ?? "") + shape);
      const lit = this.lit !== null && (edge.from === this.lit || edge.to === this.lit);
      if (lit) bright[kind] += shape;
    }
    for (const [key, path] of this.paths) path.setAttribute("d", shapes.get(key) ?? "");
    for (const kind of Object.keys(bright)) this.bright[kind].setAttribute("d", bright[kind]);
  }

  shape({ from, to, stripes }) {
    const middle = { x: MIDDLE, y: MIDDLE };
    const [a, b] = [from === null ? middle : this.nodes.get(from).at, this.nodes.get(to).at];
    const [dx, dy] = [b.x - a.x, b.y - a.y];
    const length = Math.hypot(dx, dy);
    if (length < 1) return "";
    const [ux, uy] = [dx / length, dy / length];
    const start = Math.min(length / 3, from === null ? RELAY_RADIUS : this.radius);
    const end = Math.max(length - this.radius - 1, length / 2);
    // Bent to one side, so that two who feed each other are seen to.
    const bend = from === null ? 0 : length * 0.1;
    const half = (1.2 + stripes * 0.75) * (this.radius >= 15 ? 1 : this.radius / 12) * 0.6;
    const at = (along, aside) => {
      const [x, y] = [a.x + ux * along - uy * aside, a.y + uy * along + ux * aside];
      return `${x.toFixed(1)} ${y.toFixed(1)}`;
    };
    const mid = length / 2;
    return `M${at(start, half)}Q${at(mid, bend + half * 0.7)} ${at(end, 0)}` +
      `Q${at(mid, bend - half * 0.7)} ${at(start, -half)}Z`;
  }

  /** Lights up the edges of one viewer. */
  light(id) {
    if (id === this.lit) return;
    this.lit = this.nodes.has(id) ? id : null;
    this.layer.setAttribute("class", this.lit === null ? "" : "dim");
    for (const [name, { group }] of this.nodes) group.classList.toggle("lit", name === this.lit);
    this.draw();
  }
}
