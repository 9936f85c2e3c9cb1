// How an answer came about: the same for the chat and for the request list.
import { copyable, dollars, h, number, rate, seconds } from "./dom.js";
import { decisions } from "./judged.js";

const KINDS = [["step", "pipeline"], ["queue", "queue"], ["first", "to first token"], ["decode", "generating"], ["fail", "failed"]];

/** Everything that the `penstock` object of an answer tells. */
export function story(told, { failure = null, reason = null, prompt = null, answer = null, find = null } = {}) {
  const { timings, usage } = told;
  return h("div.story",
    h("p.why", h("b", told.route ?? told.model), told.why ? `Why: ${told.why}` : failure ? "It never reached a route." : ""),
    failure && h("div.oops", { role: "alert" }, h("p", failure.message), failure.hint && h("p", failure.hint)),
    h("div.big",
      big("Cost", dollars(told.cost_usd)), big("First token", seconds(timings.ttft_s)),
      big("Tokens/s", rate(timings.tpot_s, told.cache)), big("Total", seconds(timings.e2e_s))),
    h("section", h("h3", "Way"), waterfall(told)),
    h("section", h("h3", "Facts"), facts(told, reason, usage)),
    decisions(told.judgements),
    attempts(told),
    candidates(told),
    prompt !== null && h("section", h("h3", "Prompt"), h("div.kept", prompt || "(empty)")),
    answer !== null && h("section", h("h3", "Answer"), h("div.kept", answer || "(empty)")),
    find && h("p", h("button.link", { type: "button", onclick: find }, "Show it among the requests")),
    h("details.raw", h("summary", "As JSON"), h("pre", h("code", JSON.stringify(told, null, 2)))));
}

const big = (name, value) => h("div", h("span", name), h("b", value));

function facts(told, reason, usage) {
  const part = (count, name) => (count ? `, ${number(count)} ${name}` : "");
  const rows = [
    ["Model", told.model],
    ["Cache", CACHE[told.cache] ?? told.cache],
    told.saved_usd !== null && ["Saved", dollars(told.saved_usd)],
    ["Tokens in", `${number(usage.prompt_tokens)}${part(usage.cached_tokens, "from the prefix cache")}`],
    ["Tokens out", `${number(usage.completion_tokens)}${part(usage.reasoning_tokens, "reasoning")}${usage.estimated ? ", estimated" : ""}`],
    told.cache !== "hit" && ["Per token", seconds(told.timings.tpot_s)],
    reason && ["Ended", reason],
    ["Cost", told.cost_usd === null ? h("span", "unknown ", h("span.dim", "– no price for this route: see ", h("code", "prices"), " in the settings")) : `$${exact(told.cost_usd)}`],
    ["Request", h("span", h("code", told.request_id), " ", copyable(() => told.request_id))],
  ];
  return h("dl.facts", rows.filter(Boolean).map(([name, value]) => [h("dt", name), h("dd", value)]));
}

const exact = (amount) => (amount.includes(".") ? amount.replace(/\.?0+$/, "") : amount);

const CACHE = { off: "off", miss: "miss", hit: "hit: given again without computing", bypass: "bypassed: not a deterministic request" };

function attempts(told) {
  if (told.attempts.length < 2) return null;
  const line = (attempt) => h("div", h("span.grow", attempt.route, h("span.dim", ` ${attempt.purpose}`)), attempt.failure ? h("span.tag.bad", attempt.failure) : h("span.tag", attempt.reason), dollars(attempt.cost_usd));
  return h("section", h("h3", "Attempts"), h("div.lines", told.attempts.map(line)));
}

function candidates(told) {
  if (told.candidates.length < 2) return null;
  const line = (name, index) => h("div", h("span.grow", name), told.scores[index] !== undefined && h("span.dim", number(told.scores[index])), name === told.route && h("span.tag", "taken"));
  return h("section", h("h3", "Candidates"), h("div.lines", told.candidates.map(line)));
}

/** Lanes over the time of the request: the pipeline's stages, then each call of an upstream. */
export function waterfall(told) {
  const lanes = told.stages.map((stage) => ({ name: stage.name, note: stage.note, from: stage.start_s, to: stage.end_s, parts: [["step", stage.start_s, stage.end_s]] }));
  for (const attempt of told.attempts) lanes.push(attemptLane(attempt, told.model));
  const end = Math.max(told.timings.e2e_s ?? 0, ...lanes.map((lane) => lane.to), 1e-6);
  const kinds = new Set(lanes.flatMap((lane) => lane.parts.map(([kind]) => kind)));
  return h("div", { role: "img", "aria-label": `Waterfall of ${lanes.length} stages over ${seconds(end)}` },
    h("div.fall", lanes.map((lane) => laneOf(lane, end)),
      h("div.scale", h("span"), h("div", h("span", "0"), h("span", seconds(end / 2)), h("span", seconds(end))), h("span"))),
    h("div.legend", KINDS.filter(([kind]) => kinds.has(kind)).map(([kind, name]) => h("span", h(`i.seg-${kind}`), name))));
}

function attemptLane(attempt, model) {
  const { queue_s: queue, ttft_s: first, e2e_s: all } = attempt.timings;
  const from = Math.max(0, attempt.started_s);
  const to = from + (all ?? 0);
  const upstream = attempt.route.endsWith(`/${model}`) ? attempt.route.slice(0, -model.length - 1) : attempt.route;
  const name = attempt.purpose === "answer" ? upstream : attempt.purpose === "cache" ? "replay" : `${attempt.purpose} ${upstream}`;
  const note = `${attempt.purpose}: ${attempt.route}${attempt.failure ? `, ${attempt.failure}` : ""}`;
  if (attempt.failure) return { name, note, from, to, parts: [["fail", from, to]] };
  if (attempt.purpose === "cache") return { name, note, from, to, parts: [["step", from, to]] };
  const parts = [];
  const began = from + Math.min(queue ?? 0, first ?? all ?? 0);
  if (queue) parts.push(["queue", from, began]);
  if (first !== null && first !== undefined) parts.push(["first", began, from + first], ["decode", from + first, to]);
  else parts.push(["first", began, to]);
  return { name, note, from, to, parts };
}

function laneOf(lane, end) {
  const share = (value) => `${Math.min(100, (100 * value) / end)}%`;
  const bars = lane.parts.map(([kind, from, to]) => h(`i.seg-${kind}`, { style: { left: `min(${share(from)}, calc(100% - 2px))`, width: share(Math.max(0, to - from)) } }));
  return h("div.lane", { title: lane.note || lane.name }, h("span", lane.name), h("div.track", bars), h("span", seconds(lane.to - lane.from)));
}

/** One row's way, small: until the first token, then generating. */
export function smallWay(row, longest) {
  if (!row.e2e_s) return h("div.track");
  const share = (value) => `${(100 * value) / longest}%`;
  const first = row.ttft_s ?? row.e2e_s;
  const kind = row.outcome === "failed" ? "fail" : "first";
  return h("div.track",
    h(`i.seg-${kind}`, { style: { left: "0", width: share(first) } }),
    row.e2e_s > first && h("i.seg-decode", { style: { left: share(first), width: share(row.e2e_s - first) } }));
}

