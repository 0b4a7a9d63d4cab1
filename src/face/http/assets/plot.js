// Curves of the last minutes, drawn from what the relay kept of them.

import { isNumber, make, write } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [300, 100];

/** The least time that an axis shows, so that the first seconds are not stretched over all of it. */
const LEAST_MS = 60000;

export class Plot {
  /** `curves`: a class and a word for each; `words`: of a value; `top`: the least top of the axis. */
  constructor(label, curves, words, top) {
    this.label = label;
    this.curves = curves;
    this.words = words;
    this.top = top;
    this.value = make("strong", {}, "–");
    this.svg = document.createElementNS(SVG, "svg");
    for (const [key, value] of Object.entries({
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    })) this.svg.setAttribute(key, value);
    const path = (kind) => {
      const made = this.svg.appendChild(document.createElementNS(SVG, "path"));
      made.setAttribute("class", kind);
      return made;
    };
    path("grid").setAttribute("d", `M0 ${HEIGHT / 2}H${WIDTH}`);
    this.lines = curves.map(([kind]) => path(`curve ${kind}`));
    this.high = make("span", { class: "plot-high" });
    this.past = make("span");
    const keys = curves.length > 1 ? curves.map(([kind, word]) =>
      make("span", { class: `key ${kind}` }, word)) : [];
    this.element = make("figure", { class: "plot" },
      make("figcaption", {}, make("span", {}, label), this.value),
      make("div", { class: "plot-area" }, this.svg, this.high),
      make("div", { class: "plot-time", "aria-hidden": "true" }, this.past, make("span", {}, "now")),
      make("div", { class: "keys" }, ...keys));
  }

  /** Shows `columns`, oldest value first and `step` milliseconds apart, and the value of now. */
  show(columns, step, value) {
    write(this.value, this.words(value));
    const length = Math.max(0, ...columns.map((column) => column.length));
    const span = Math.max(LEAST_MS, (length - 1) * step || 0);
    const most = Math.max(this.top, ...columns.flat().filter(isNumber));
    // A round top moves seldom.
    const top = most === this.top ? most : Math.ceil(most / (this.top / 2)) * (this.top / 2);
    columns.forEach((column, i) => {
      let pen = "M";
      const points = column.map((v, place) => {
        if (!isNumber(v)) {
          pen = "M";
          return "";
        }
        const x = WIDTH - ((column.length - 1 - place) * step / span) * WIDTH;
        const y = HEIGHT - (Math.min(Math.max(v, 0), top) / top) * HEIGHT;
        const point = `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
        pen = "L";
        return point;
      });
      this.lines[i].setAttribute("d", points.join(""));
    });
    write(this.high, this.words(top));
    write(this.past, span > LEAST_MS ? `${(span / 60000).toFixed(1).replace(".0", "")} min ago` : "1 min ago");
    const main = columns[this.curves.length > 1 ? 1 : 0].filter(isNumber);
    this.svg.setAttribute("aria-label", main.length
      ? `${this.label}: from ${this.words(main[0])} to ${this.words(main[main.length - 1])}, ` +
        `between ${this.words(Math.min(...main))} and ${this.words(Math.max(...main))}`
      : `${this.label}: nothing yet`);
  }
}
