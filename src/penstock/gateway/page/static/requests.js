// The last requests, the newest first, and the way of each.
import { $, clock, currentModel, dollars, firstRequest, getJSON, h, icon, number, rate, seconds, segments } from "./dom.js";
import { feed } from "./feed.js";
import { tags } from "./judged.js";
import { smallWay, story } from "./story.js";

const OUTCOMES = [["", "All"], ["ok", "OK"], ["failed", "Failed"], ["left", "Left"]];
const MOST = 300; // rows in the list

let rows = new Map(); // by number
let open = [];
let drawn = new Map(); // number → {row, element, longest}
let outcome = "";
let chosen = null;
let visible = false;
let more = false;
let pointed = false; // at a row: it holds still

export function startRequests() {
  segments($("outcome"), OUTCOMES, outcome, (value) => { outcome = value; draw(); });
  $("filter").addEventListener("input", draw);
  $("older").addEventListener("click", older);
  $("rows").addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); event.target.closest("tr")?.click(); } });
  $("rows").addEventListener("pointerenter", (event) => { pointed = event.pointerType === "mouse"; });
  $("rows").addEventListener("pointerleave", () => { pointed = false; draw(); });
  feed.listen(hear);
}

export async function showRequests(shown, number = null) {
  visible = shown;
  if (!shown) return;
  const { data } = await getJSON("/admin/requests?limit=100").catch(() => ({ data: [] }));
  more = data.length === 100;
  take(data);
  draw();
  if (number !== null) choose(number);
}

/** Show the request of this id, which the client may have chosen and an id of ours may contain. */
export async function findRequest(id) {
  const { data } = await getJSON("/admin/requests?limit=500");
  const row = data.find((each) => each.id.includes(id));
  location.hash = row ? `requests/${row.number}` : "requests";
}

/** `by` rows up or down, from the keyboard. */
export function move(by) {
  const numbers = shownRows().map((row) => row.number);
  if (!numbers.length) return;
  const at = numbers.indexOf(chosen);
  const next = numbers[at < 0 ? 0 : Math.max(0, Math.min(numbers.length - 1, at + by))];
  location.hash = `requests/${next}`;
}

export function escapeRequests() {
  if (chosen !== null) location.hash = "requests";
}

export async function choose(number) {
  chosen = number;
  mark();
  const side = $("detail");
  side.hidden = number === null;
  if (number === null) return;
  const close = h("button.icon", { type: "button", "aria-label": "Close", onclick: escapeRequests }, icon("close"));
  const head = (text) => h("header", h("h2", text), close);
  try {
    const told = await getJSON(`/admin/requests/${number}`);
    if (chosen !== number) return;
    const { row } = told;
    side.replaceChildren(head(`${clock(row.arrived_at)} · ${row.model}`), story(told.penstock, told),
      told.prompt === null && h("p.hint", h("br"), "Prompts and answers are not kept. ", h("code", "page.keep_text = true"), " would."));
  } catch (error) {
    side.replaceChildren(head("Request"), h("p.hint", error.status === 404 ? "This request is no longer remembered." : error.message));
  }
  drawn.get(number)?.element.scrollIntoView({ block: "nearest" });
}

function hear({ type, data }) {
  if (type !== "tick") return;
  take(data.rows);
  open = data.open_rows;
  if (visible && !pointed) draw();
}

function take(some) {
  for (const row of some) rows.set(row.number, row);
  if (rows.size > 2 * MOST) rows = new Map([...rows].sort(([a], [b]) => b - a).slice(0, MOST));
}

async function older() {
  const { data } = await getJSON(`/admin/requests?limit=100&before=${Math.min(...rows.keys())}`);
  more = data.length === 100;
  for (const row of data) rows.set(row.number, row);
  draw();
}

function shownRows() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (row) => (!outcome || row.outcome === outcome) && words.every((word) => [row.id, row.model, row.route, row.key, row.code, row.cache, ...(row.became ?? [])].some((text) => text?.toLowerCase().includes(word)));
  return [...rows.values()].filter(fits).sort((a, b) => b.number - a.number).slice(0, Math.max(MOST, 100));
}

function draw() {
  const shown = shownRows();
  const longest = quantile(shown.map((row) => row.e2e_s ?? 0), 0.95) || 1e-6;
  const elements = outcome || $("filter").value ? [] : open.map((row) => rowView(row, longest));
  const next = new Map();
  for (const row of shown) {
    let known = drawn.get(row.number);
    if (!known || Math.abs(known.longest - longest) > longest * 0.2) known = { element: rowView(row, longest), longest };
    next.set(row.number, known);
    elements.push(known.element);
  }
  const focused = document.activeElement?.closest?.("#rows tr");
  $("rows").replaceChildren(...elements);
  if (focused && focused.isConnected) focused.focus({ preventScroll: true });
  drawn = next;
  mark();
  document.querySelector(".list table").classList.toggle("nokeys", !shown.some((row) => row.key));
  $("older").hidden = !more || !shown.length;
  const total = feed.last?.total ?? shown.length;
  $("count").textContent = total ? `${number(total)} since the start${feed.hello ? `, ${number(Math.min(total, feed.hello.history))} remembered` : ""}` : "";
  none(shown.length + open.length, total);
}

let taught = "";
function none(count, total) {
  const lesson = count ? "" : total ? "filter" : "first";
  if (lesson === taught) return;
  taught = lesson;
  const said = {
    "": [],
    filter: [h("div.lesson", h("h2", "None of them."), h("p", "No remembered request fits the filter."))],
    first: [h("div.lesson", h("h2", "No request yet."), h("p", "Each one will stand here with its route, its speed, its price and, on a click, the way it went."), firstRequest(currentModel()),
      h("ul", h("li", h("b", "Way"), "the bar of a request: until its first token, then generating"), h("li", h("b", "Cache"), "hit: given again without computing"), h("li", h("b", "Keyboard"), "J and K move, Escape closes")))],
  };
  $("none").replaceChildren(...said[lesson]);
  document.querySelector(".list table").hidden = lesson === "first";
}

function mark() {
  for (const [number, { element }] of drawn) element.setAttribute("aria-selected", String(number === chosen));
}

function rowView(row, longest) {
  const cell = (kind, ...content) => h(`td${kind && `.${kind}`}`, ...content);
  const under = row.outcome === "open";
  const age = feed.last ? Math.max(0, feed.last.now - row.arrived_at) : null;
  return h(`tr.${row.outcome}`, { tabindex: under ? null : "0", onclick: () => { if (!under) location.hash = row.number === chosen ? "requests" : `requests/${row.number}`; } },
    cell("", clock(row.arrived_at)), cell("", { title: row.id }, row.model), cell("c-route", { title: row.route }, row.route ?? "–"), cell("c-key", row.key || "–"),
    cell("result", result(row), tags(row.became)), cell("c-cache", row.cache === "hit" ? h("span.tag.hit", "hit") : row.cache && row.cache !== "off" ? row.cache : "–"),
    cell("n.c-in", under ? "" : number(row.prompt_tokens ?? 0)), cell("n.c-out", number(row.output_tokens ?? 0)), cell("n.c-ttft", seconds(row.ttft_s)), cell("n.c-rate", rate(row.tpot_s, row.cache)),
    cell("n", seconds(under ? age : row.e2e_s)), cell("way.c-way", smallWay(row, Math.max(longest, row.e2e_s ?? 0))), cell("n", under ? "" : row.cost_usd === undefined ? h("span.dim", "unknown") : dollars(row.cost_usd)));
}

function result(row) {
  const text = { ok: "ok", open: "open", left: "left", failed: row.code ?? "failed" }[row.outcome];
  const kind = { ok: "good", failed: "bad", open: "warn", left: "" }[row.outcome];
  return [h(kind ? `i.dot.${kind}` : "i.dot"), text];
}

function quantile(values, share) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) * share)] ?? 0;
}
