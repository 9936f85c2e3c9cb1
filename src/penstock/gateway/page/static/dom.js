// Elements, and how numbers read.

/** An element: `h("p.dim", {title: "…"}, "text", child)`. Text is always text, never markup. */
export function h(spec, ...rest) {
  const [tag, ...classes] = spec.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const part of rest.flat(Infinity)) {
    if (part === null || part === undefined || part === false) continue;
    if (part instanceof Node || typeof part !== "object") element.append(part);
    else for (const [name, value] of Object.entries(part)) set(element, name, value);
  }
  return element;
}

function set(element, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (name === "style") Object.assign(element.style, value);
  else element.setAttribute(name, value === true ? "" : value);
}

export const $ = (id) => document.getElementById(id);
export const currentModel = () => $("model").value || "penstock-mini";

const PATHS = {
  sun: "M12 4V2m0 20v-2m8-8h2M2 12h2m13.700-5.700 1.400-1.400M4.900 19.100l1.400-1.400m0-11.400L4.900 4.900m14.200 14.200-1.400-1.400M16 12a4 4 0 1 1-8 0 4 4 0 0 1 8 0Z",
  moon: "M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500Z",
  auto: "M12 3a9 9 0 1 0 0 18Zm0 0a9 9 0 0 1 0 18",
  out: "M10 4H5v16h5m5-4 4-4-4-4m4 4H9",
  close: "M6 6l12 12M18 6 6 18",
};

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", width: 17, height: 17, fill: "none", stroke: "currentColor", "stroke-width": 1.8, "stroke-linecap": "round", "stroke-linejoin": "round", "aria-hidden": "true" })) svg.setAttribute(key, value);
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** Three significant digits, thousands apart. */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value >= 1e6) return `${trim(value / 1e6)}M`;
  if (value >= 1000) return Math.round(value).toLocaleString("en");
  return trim(value);
}

function trim(value) {
  if (value === 0) return "0";
  return String(Number(value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toPrecision(value < 1 ? 2 : 3)));
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.001) return `${trim(Math.max(0, value) * 1e6)} µs`;
  if (value < 1) return `${trim(value * 1000)} ms`;
  if (value < 120) return `${trim(value)} s`;
  return `${trim(value / 60)} min`;
}

/** Dollars given as exact text or as a number; null is unknown, which is not zero. */
export function dollars(value) {
  if (value === null || value === undefined) return "unknown";
  const amount = Number(value);
  if (amount === 0) return "$0";
  if (amount >= 1) return `$${amount.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
  const digits = Math.min(12, 1 - Math.floor(Math.log10(amount)));
  return `$${amount.toFixed(digits).replace(/(\.\d*?[1-9])0+$/, "$1")}`;
}

export const percent = (share) => (share === null || share === undefined ? "–" : share > 0 && share < 0.001 ? "<0.1 %" : `${share && share < 0.1 ? (share * 100).toFixed(1) : Math.round(share * 100)} %`);
/** Tokens per second. An answer from the cache has no speed of its own. */
export const rate = (tpot, cache) => (tpot && cache !== "hit" ? number(1 / tpot) : "–");
export const clock = (at) => new Date(at * 1000).toLocaleTimeString("en-GB");

export async function getJSON(path, options) {
  const answer = await fetch(path, options);
  if (answer.status === 401) location.reload(); // the session is over: the login comes instead
  if (!answer.ok) throw await failure(answer);
  return answer.json();
}

/** What a refusal says, in whichever shape. */
export async function failure(answer) {
  const body = await answer.json().catch(() => ({}));
  const error = body.error ?? {};
  return Object.assign(new Error(error.message ?? `The server answered ${answer.status}.`), { status: answer.status, code: error.code, hint: error.hint });
}

export function copyable(text, label = "Copy") {
  const button = h("button.link", { type: "button", onclick: copy }, label);
  async function copy() {
    try { await navigator.clipboard.writeText(text()); button.textContent = "Copied"; } catch { button.textContent = "Press Ctrl+C"; }
    setTimeout(() => { button.textContent = label; }, 1500);
  }
  return button;
}

/** Buttons of which one is pressed. */
export function segments(parent, choices, chosen, onchoose) {
  const buttons = choices.map(([value, label]) => h("button", { type: "button", "aria-pressed": String(value === chosen), onclick: () => choose(value) }, label));
  function choose(value) {
    choices.forEach(([each], index) => buttons[index].setAttribute("aria-pressed", String(each === value)));
    onchoose(value);
  }
  parent.replaceChildren(...buttons);
}

/** A first request in three tongues. */
export function firstRequest(model) {
  const base = location.origin;
  const ask = "What is 17 + 25?";
  const snippets = {
    curl: `curl ${base}/v1/chat/completions -H 'content-type: application/json' \\\n  -d '{"model": "${model}",\n       "messages": [{"role": "user", "content": "${ask}"}]}'`,
    OpenAI: `from openai import OpenAI\n\nclient = OpenAI(base_url="${base}/v1", api_key="none")\nanswer = client.chat.completions.create(\n    model="${model}",\n    messages=[{"role": "user", "content": "${ask}"}],\n)\nprint(answer.choices[0].message.content)`,
    Anthropic: `from anthropic import Anthropic\n\nclient = Anthropic(base_url="${base}", api_key="none")\nanswer = client.messages.create(\n    model="${model}",\n    max_tokens=100,\n    messages=[{"role": "user", "content": "${ask}"}],\n)\nprint(answer.content[0].text)`,
  };
  const code = h("pre", h("code", snippets.curl));
  let shown = "curl";
  const head = h("header");
  const tabs = h("span");
  segments(tabs, Object.keys(snippets).map((name) => [name, name]), shown, (name) => { shown = name; code.firstChild.textContent = snippets[name]; });
  head.append(tabs, h("span.spring"), copyable(() => snippets[shown]));
  return h("div.code", head, code);
}
