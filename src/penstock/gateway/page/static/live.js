// The charts. Points come by second from the feed; each chart draws some of their fields.
import { $, currentModel, dollars, firstRequest, getJSON, h, number, percent, seconds, segments } from "./dom.js";
import { feed } from "./feed.js";
import { BECAME } from "./judged.js";

const RANGES = [[60, "1 min", 1], [300, "5 min", 2], [900, "15 min", 5]];
const COLOURS = ["--s1", "--s2", "--s3", "--s4", "--s5", "--s6"];
const perSecond = (field) => (point) => point[field] / point.span_s;
const perHour = (field) => (point) => (point[field] / point.span_s) * 3600;
const quantile = (field, index) => (point) => (point[field] ? point[field][index] : null);

let range = 60;
let held = false;
let points = new Map(); // by their time
let charts = [];
let visible = false;
let drawnAt = 0;

/** Each: a title, how its numbers read, and its lines, which may depend on what there is. `mean`: seconds that the large number averages;
 * `smooth`: seconds that each point sums, where single seconds would only flicker. */
const CARDS = [
  { title: "Requests", unit: "/s", read: number, lines: () => [["ended", perSecond("ended")], ["failed", perSecond("failed"), "--bad"]], mean: 5, nothing: "No request in this time." },
  { title: "Time to first token", read: seconds, lines: () => ["p50", "p95", "p99"].map((name, index) => [name, quantile("ttft_s", index)]), nothing: "No first token in this time." },
  { title: "Time per output token", read: seconds, lines: () => ["p50", "p95", "p99"].map((name, index) => [name, quantile("tpot_s", index)]), nothing: "No answer longer than a token in this time." },
  { title: "Tokens", unit: "/s", read: number, lines: () => [["out", perSecond("output_tokens")], ["in", perSecond("prompt_tokens")]], mean: 5, nothing: "No token in this time." },
  { title: "Cost", unit: "/h", read: dollars, smooth: 5, lines: () => [["cost", perHour("cost_usd")], ["saved by the cache", perHour("saved_usd"), "--s4"]], mean: 10, nothing: costHint },
  { title: "Cache hits", read: percent, top: 1, smooth: 5, lines: () => [["answers", (point) => (point.lookups ? point.hits / point.lookups : null)], ["prompt tokens (prefix)", (point) => (point.prompt_tokens ? point.cached_tokens / point.prompt_tokens : null), "--s3"]], nothing: "Nothing was looked up in this time." },
  { title: "Decisions", unit: "/s", read: number, smooth: 5, lines: decisionLines, mean: 10, nothing: "Neither guards nor cache nor a cascade decided anything in this time." },
  { title: "Routes", read: percent, top: 1, stacked: true, smooth: 5, lines: routeLines, nothing: "No request was routed in this time." },
  { title: "Requests under way", read: number, lines: queueLines, nothing: "" },
  { title: "Engines", read: percent, top: 1, lines: engineLines, nothing: "No engine of this server has worked yet: other servers keep theirs to themselves." },
];

export function startLive() {
  segments($("range"), RANGES.map(([value, label]) => [value, label]), range, (value) => {
    range = value;
    feed.setStep(RANGES.find(([each]) => each === value)[2]);
    draw();
  });
  $("hold").addEventListener("click", () => hold(!held));
  feed.listen(hear);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
}

export function hold(value) {
  held = value;
  $("hold").setAttribute("aria-pressed", String(held));
  $("hold").textContent = held ? "Resume" : "Pause";
  draw();
}

export const toggleHold = () => hold(!held);

export function showLive(shown) {
  visible = shown;
  if (!shown) return;
  if (!charts.length) build();
  listUpstreams();
  draw(true);
}

export function recolour() {
  for (const chart of charts) chart.rebuild();
  draw(true);
}

function hear({ type, data }) {
  if (type === "reset") points = new Map();
  if (type !== "tick") return;
  for (const point of data.points) points.set(point.at, point);
  for (const at of points.keys()) { if (at >= data.now - 905) break; points.delete(at); }
  draw();
}

async function listUpstreams() {
  const { data } = await getJSON("/admin/engines").catch(() => ({ data: [] }));
  $("upstreams").replaceChildren(...data.map((row) => h("span.chip", { title: row.health.why || `serves ${row.models.join(", ")}` },
    h(row.health.state === "ready" ? "i.dot.good" : "i.dot.bad"), row.name, row.health.state !== "ready" && ` ${row.health.state}`)));
}

function build() {
  charts = CARDS.map((card) => new Chart(card));
  $("charts").replaceChildren(...charts.map((chart) => chart.element));
}

function draw(force = false) {
  if (!visible || !charts.length || !feed.last || (held && !force)) return;
  const now = Math.floor(feed.last.now);
  const shown = [...points.values()].filter((point) => point.at >= now - range).sort((a, b) => a.at - b.at);
  if (!held) drawnAt = now;
  teach(shown);
  for (const chart of charts) chart.draw(shown, drawnAt);
}

/** Until the first request there is nothing to see, but something to learn. */
let taught = null;
function teach(shown) {
  const none = feed.last.total === 0 && feed.last.open === 0;
  const unpriced = shown.some((point) => point.unpriced) && !shown.some((point) => point.cost_usd > 0);
  const lesson = none ? "first" : unpriced ? "price" : "";
  if (lesson === taught) return;
  taught = lesson;
  if (lesson === "first") $("lesson").replaceChildren(h("div.lesson",
    h("h2", "Nothing has come in yet."),
    h("p", "Send the first request and watch it pass here, second by second."),
    firstRequest(currentModel()),
    h("p", "Or ", h("a", { href: "#chat" }, "ask in the chat"), ". The charts go back 15 minutes; Prometheus keeps what it reads from ", h("a", { href: "/metrics" }, "/metrics"), ".")));
  else if (lesson === "price") $("lesson").replaceChildren(h("p.banner", "What these requests cost is unknown. Say what the machine costs, ", h("code", "prices.machine_usd_per_hour = 1.20"), ", or give the model a price in a ", h("code", "prices.file"), "."));
  else $("lesson").replaceChildren();
  $("charts").hidden = lesson === "first";
}

function costHint(shown) {
  return shown.some((point) => point.unpriced) ? "The price of these requests is unknown." : "Nothing was paid in this time.";
}

function routeLines(shown) {
  const totals = new Map();
  for (const point of shown) for (const [name, count] of Object.entries(point.routes)) totals.set(name, (totals.get(name) ?? 0) + count);
  const names = [...totals.keys()].sort((a, b) => totals.get(b) - totals.get(a)).slice(0, COLOURS.length);
  const share = (name) => (point) => {
    const all = Object.values(point.routes).reduce((sum, count) => sum + count, 0);
    return all ? (point.routes[name] ?? 0) / all : null;
  };
  return names.map((name) => [name, share(name)]);
}

/** What guards, cache and cascade made of requests: a line for each that they did. */
function decisionLines(shown) {
  const seen = Object.keys(BECAME).filter((word) => shown.some((point) => point.became[word]));
  return (seen.length ? seen : ["cached"]).map((word) => [BECAME[word][0], (point) => (point.became[word] ?? 0) / point.span_s, BECAME[word][1]]);
}

function queueLines(shown) {
  const sum = (field) => (point) => Object.values(point.engines).reduce((total, engine) => total + engine[field], 0);
  const own = shown.some((point) => Object.keys(point.engines).length);
  return [["open", (point) => point.open], ...(own ? [["running in engines", sum("running"), "--s4"], ["waiting for an engine", sum("waiting"), "--s2"]] : [])];
}

function engineLines(shown) {
  const names = [...new Set(shown.flatMap((point) => Object.keys(point.engines)))].slice(0, 3);
  const field = (name, which) => (point) => point.engines[name]?.[which] ?? null;
  const called = (name, what) => (names.length > 1 ? `${name} ${what}` : what);
  return names.flatMap((name) => [[called(name, "busy"), field(name, "busy")], [called(name, "KV cache used"), field(name, "kv_usage")]]);
}

/** Each point with those of the `span` seconds up to it added. */
function rolling(shown, span) {
  const fields = ["span_s", "cost_usd", "saved_usd", "hits", "lookups", "prompt_tokens", "cached_tokens"];
  return shown.map((point, at) => {
    let from = at;
    while (from > 0 && point.at - shown[from - 1].at < span) from -= 1;
    const some = shown.slice(from, at + 1);
    const sum = { ...point, routes: {}, became: {} };
    for (const field of fields) sum[field] = some.reduce((total, each) => total + each[field], 0);
    for (const field of ["routes", "became"]) for (const each of some) for (const [name, count] of Object.entries(each[field])) sum[field][name] = (sum[field][name] ?? 0) + count;
    return sum;
  });
}

/** A custom property may hold light-dark(): an element resolves it. */
function colour(name) {
  const probe = document.body.appendChild(h("i", { style: { color: `var(${name})`, display: "none" } }));
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

/** The colour over the panel, opaque: what is drawn below does not shine through. */
function blend(name, share) {
  const [over, under] = [colour(name), colour("--panel")].map((value) => value.match(/\d+/g).map(Number));
  return `rgb(${over.slice(0, 3).map((part, index) => Math.round(part * share + under[index] * (1 - share))).join(", ")})`;
}

const faint = (value, alpha) => value.replace(/^rgb\((.*)\)$/, `rgba($1, ${alpha})`);

class Chart {
  constructor(card) {
    this.card = card;
    this.now = h("div.now", "–");
    this.keys = h("div.keys");
    this.nothing = h("div.nothing");
    this.plot = h("div.plot");
    this.element = h("article.card", { "aria-label": card.title }, h("header", h("h2", card.title), h("span.spring"), this.now), this.keys, this.plot);
    this.names = null;
    this.at = null; // the place of the cursor
    this.watch = new ResizeObserver(() => this.view?.setSize(this.size()));
    this.watch.observe(this.plot);
  }

  size() { return { width: Math.max(80, this.plot.clientWidth), height: Math.max(80, this.plot.clientHeight) }; }

  rebuild() { this.names = null; }

  draw(seen, now) {
    const shown = this.card.smooth ? rolling(seen, this.card.smooth) : seen;
    this.lines = this.card.lines(shown).map(([name, read, own], index) => ({ name, read, colour: own ?? COLOURS[index % COLOURS.length] }));
    this.values = this.lines.map((line) => shown.map(line.read));
    this.limits = [now - range, now];
    const names = this.lines.map((line) => line.name).join("\n");
    if (names !== this.names) { this.names = names; this.make(); }
    const times = shown.map((point) => point.at);
    this.view.setData([times, ...(this.card.stacked ? stack(this.values) : this.values)]);
    const empty = !this.values.some((line) => line.some((value) => value !== null && value > 0)) && !(this.card.title === "Requests under way");
    const { nothing } = this.card;
    this.nothing.textContent = empty ? (typeof nothing === "function" ? nothing(shown) : nothing) : "";
    this.span = seen.at(-1)?.span_s ?? 1;
    this.label();
  }

  make() {
    this.view?.destroy();
    const { card } = this;
    const axis = { stroke: colour("--faint"), font: "11px Inter, system-ui, sans-serif", grid: { stroke: colour("--line-soft"), width: 1 }, ticks: { show: false } };
    const series = this.lines.map((line) => {
      const stroke = colour(line.colour);
      if (card.stacked) return { stroke: colour("--panel"), width: 1, fill: blend(line.colour, 0.72), points: { show: false } };
      return { stroke, width: 1.5, fill: this.lines[0] === line ? faint(stroke, 0.1) : undefined, points: { show: true, size: 4, fill: stroke, filter: alone } };
    });
    this.view = new uPlot({
      ...this.size(),
      legend: { show: false },
      padding: [6, 6, 0, 0],
      cursor: { sync: { key: "live" }, y: false, points: { show: !card.stacked, size: 6 }, drag: { x: false, y: false } },
      scales: { x: { time: true, range: () => this.limits }, y: { range: (_, low, high) => [0, card.top ?? (high > 0 ? high * 1.15 : 1)] } },
      axes: [
        { ...axis, size: 22, space: 70, values: (_, ticks) => ticks.map((at) => new Date(at * 1000).toLocaleTimeString("en-GB").slice(0, range > 60 ? 5 : 8)) },
        { ...axis, size: 58, space: 28, splits: card.top ? () => [0, 0.5, 1] : undefined, values: (_, ticks) => ticks.map((value) => (card.read === number && value % 1 ? String(Number(value.toFixed(2))) : value === 0 ? "0" : card.read(value))) },
      ],
      series: [{}, ...series],
      hooks: { setCursor: [(view) => { this.at = view.cursor.idx ?? null; this.label(); }] },
    }, [[], ...this.lines.map(() => [])], this.plot);
    this.plot.append(this.nothing);
  }

  /** What the cursor points at, or the present. */
  label() {
    if (!this.lines) return;
    const value = (line) => (this.at === null ? this.present(line) : line[this.at] ?? null);
    const read = (line) => { const known = value(line); return known === null ? "–" : this.card.read(known); };
    const first = this.values[0];
    this.now.replaceChildren(first ? read(first) : "–", this.card.unit && first ? h("small", this.card.unit) : "");
    this.keys.replaceChildren(...this.lines.map((line, index) => h("span", h("i", { style: { background: `var(${line.colour})` } }), line.name, index || this.card.stacked ? h("b", read(this.values[index])) : "")));
    if (this.card.stacked) this.now.textContent = this.lines.length > 1 ? `${this.lines.length} routes` : this.lines.length ? "1 route" : "–";
  }

  /** The mean of the last seconds for rates, else the last value that there is. */
  present(line) {
    if (this.card.mean) {
      const some = line.slice(-Math.max(1, Math.ceil(this.card.mean / this.span))).filter((value) => value !== null);
      return some.length ? some.reduce((sum, value) => sum + value, 0) / some.length : null;
    }
    return line.findLast((value) => value !== null) ?? null;
  }
}

/** Each line on those after it, so that the first is on top and all of them together are 1. */
function stack(values) {
  const stacked = values.map((line) => [...line]);
  for (let row = stacked.length - 2; row >= 0; row--) stacked[row] = stacked[row].map((value, at) => (value === null ? null : value + (stacked[row + 1][at] ?? 0)));
  return stacked;
}

/** A value between two gaps has no line: it gets a dot. */
function alone(view, index) {
  const line = view.data[index];
  const found = [];
  for (let at = 0; at < line.length; at++) if (line[at] !== null && (line[at - 1] ?? null) === null && (line[at + 1] ?? null) === null) found.push(at);
  return found;
}
