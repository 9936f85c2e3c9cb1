// The playground: it asks the public API, with `penstock: {explain: true}`, and shows what the answer tells of itself.
import { $, copyable, currentModel, dollars, failure, firstRequest, getJSON, h, icon, rate, seconds } from "./dom.js";
import { phrase } from "./judged.js";
import { markdown } from "./markdown.js";
import { findRequest } from "./requests.js";
import { story } from "./story.js";

const TRIES = ["What is 17 + 25?", "What is the capital of France?", "Tell me a short story about a river.", "How many metres are 3 miles?"];
const KEPT = "penstock.chat";

let turns = []; // {role, content, thought, told, error, stopped}
let running = null; // AbortController
let chosen = -1; // the turn that is inspected

export async function startChat() {
  restore();
  $("composer").addEventListener("submit", (event) => { event.preventDefault(); running ? running.abort() : send(); });
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); if (!running) send(); }
  });
  for (const id of ["prompt", "system"]) $(id).addEventListener("input", () => grow($(id)));
  $("show_system").addEventListener("click", () => showSystem($("system").hidden));
  $("clear").addEventListener("click", clear);
  if (matchMedia("(max-width: 640px)").matches) { $("temperature").placeholder = "temp"; $("max_tokens").placeholder = "max"; } // no room for labels
  showAll();
  await listModels();
}

/** Escape: stop the answer, or close what is inspected. */
export function escapeChat() {
  if (running) running.abort();
  else if ($("inspector").classList.contains("open")) inspect(-1);
}

async function listModels() {
  const select = $("model");
  try {
    const [models, upstreams] = await Promise.all([getJSON("/v1/models"), getJSON("/admin/engines")]);
    const embeds = new Set(upstreams.data.flatMap((row) => row.embeds));
    const names = models.data.map((model) => model.id).filter((name) => !embeds.has(name));
    select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
    const kept = localStorage.getItem("penstock.model");
    if (names.includes(kept)) select.value = kept;
    select.addEventListener("change", () => localStorage.setItem("penstock.model", select.value));
    if (!turns.length) showAll();
  } catch (error) {
    select.replaceChildren(h("option", { value: "" }, "no model"));
    console.warn(error);
  }
}

function clear() {
  running?.abort();
  turns = [];
  inspect(-1);
  showAll();
  keep();
  $("prompt").focus();
}

function showSystem(visible) {
  $("system").hidden = !visible;
  $("show_system").setAttribute("aria-expanded", String(visible));
  if (visible) $("system").focus();
}

function grow(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight}px`;
}

async function send(text = $("prompt").value) {
  if (!text.trim() || running) return;
  $("prompt").value = "";
  grow($("prompt"));
  turns.push({ role: "user", content: text.trim() });
  await answer();
}

function body() {
  const sent = turns.filter((turn) => turn.content && !turn.error).map(({ role, content }) => ({ role, content }));
  const system = $("system").hidden ? "" : $("system").value.trim();
  const asked = { model: $("model").value || undefined, messages: system ? [{ role: "system", content: system }, ...sent] : sent, stream: true, penstock: { explain: true } };
  for (const name of ["temperature", "max_tokens"]) if ($(name).value !== "") asked[name] = Number($(name).value);
  return asked;
}

/** Ask for the next turn and write it as it comes. */
async function answer() {
  const asked = body();
  const turn = { role: "assistant", content: "", thought: "", told: null, error: null };
  turns.push(turn);
  showAll();
  running = new AbortController();
  showSending();
  const view = $("turns").lastElementChild;
  const clock = { begun: performance.now(), first: null, pieces: 0 };
  try {
    const reply = await fetch("/v1/chat/completions", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(asked), signal: running.signal });
    if (reply.status === 401) location.reload();
    if (!reply.ok) throw await failure(reply);
    for await (const chunk of events(reply.body)) {
      if (chunk.penstock) turn.told = chunk.penstock;
      if (chunk.error) throw Object.assign(new Error(chunk.error.message), chunk.error);
      const delta = chunk.choices?.[0]?.delta;
      if (!delta) continue;
      turn.content += delta.content ?? "";
      turn.thought += delta.reasoning ?? delta.reasoning_content ?? "";
      if (delta.content || delta.reasoning || delta.reasoning_content) { clock.first ??= performance.now(); clock.pieces += 1; }
      later(view, turn, clock);
    }
  } catch (error) {
    if (error.name === "AbortError") turn.stopped = true;
    else turn.error = { message: error.message, hint: error.hint, code: error.code };
  }
  running = null;
  showSending();
  const follows = atEnd();
  view.replaceWith(turnView(turn, turns.length - 1));
  if (turn.told) inspect(turns.indexOf(turn), { quietly: true });
  if (follows) toEnd();
  keep();
}

/** One paint for all that came since the last. */
let due = null;
function later(view, turn, clock) {
  due ??= requestAnimationFrame(() => {
    due = null;
    if (!running) return;
    const follows = atEnd();
    view.replaceChildren(...spoken(turn, true), liveLine(clock));
    if (follows) toEnd();
  });
}

function liveLine(clock) {
  if (clock.first === null) return null;
  const passed = (performance.now() - clock.first) / 1000;
  const speed = clock.pieces > 1 && passed > 0 ? ` · ${rate(passed / (clock.pieces - 1))} pieces/s` : "";
  return h("div.price", h("button", { type: "button", disabled: true }, `first token ${seconds((clock.first - clock.begun) / 1000)}${speed}`));
}

/** The `data:` lines of a stream of events, decoded. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
  }
}

const atEnd = () => $("turns").scrollHeight - $("turns").scrollTop - $("turns").clientHeight < 60;
const toEnd = () => { $("turns").scrollTop = $("turns").scrollHeight; };

function showSending() {
  $("send").textContent = running ? "Stop" : "Send";
  $("send").classList.toggle("stop", Boolean(running));
}

function showAll() {
  $("turns").replaceChildren(...(turns.length ? turns.map(turnView) : [lesson()]));
  if (chosen < 0) inspect(-1);
  toEnd();
}

function turnView(turn, index) {
  if (turn.role === "user") return h("div.turn.user", h("div", turn.content));
  const waits = running && index === turns.length - 1 && !turn.content;
  return h("div.turn.assistant", waits ? h("div.said.waiting") : spoken(turn, false), !waits && priceLine(turn, index));
}

function spoken(turn, writing) {
  const parts = [];
  if (turn.thought) parts.push(h("div.thought", turn.thought));
  if (turn.content || writing) parts.push(h(writing ? "div.said.writing" : "div.said", turn.content ? markdown(turn.content) : h("p")));
  if (turn.error) parts.push(h("div.oops", { role: "alert" }, h("p", turn.error.message), turn.error.hint && h("p", turn.error.hint)));
  return parts;
}

/** What the answer cost and how it came, on one line. */
function priceLine(turn, index) {
  const { told } = turn;
  const again = index === turns.length - 1 && h("button", { type: "button", onclick: retry }, "Again");
  const copy = turn.content && copyable(() => turn.content);
  if (copy) copy.className = "";
  if (!told) return h("div.price", turn.stopped && h("button", { type: "button", disabled: true }, "stopped"), copy, again);
  const dot = () => h("span.sep", " · ");
  const parts = [h("b", told.route ?? told.model), dot(), h(`span.${told.cache}`, `cache ${told.cache}`)];
  for (const said of told.judgements) if (!said.shadow && said.action !== "miss" && said.action !== "bypass") parts.push(dot(), phrase(said).toLowerCase());
  parts.push(dot(), "first token ", h("b", seconds(told.timings.ttft_s)), dot(), ...(told.cache === "hit" ? [] : [h("b", rate(told.timings.tpot_s)), " tokens/s", dot()]), h("b", dollars(told.cost_usd)), told.cost_usd === null && " cost");
  const line = h("button.how", { type: "button", "aria-pressed": String(index === chosen), title: "How this answer came about", onclick: () => inspect(index === chosen && $("inspector").classList.contains("open") ? -1 : index) }, parts);
  return h("div.price", line, copy, again);
}

function retry() {
  if (running) return;
  turns.pop();
  answer();
}

/** Show how a turn came about. `quietly`: without covering the conversation on a narrow screen. */
function inspect(index, { quietly = false } = {}) {
  chosen = index;
  const told = turns[index]?.told;
  const side = $("inspector");
  side.classList.toggle("open", Boolean(told) && !quietly);
  document.querySelectorAll(".price .how").forEach((line) => line.setAttribute("aria-pressed", "false"));
  if (!told) {
    side.replaceChildren(h("header", h("h2", "How the answer came about")), h("p.hint", "Each answer tells which model gave it, by which route and why, what the cache and the guards said, where the time went, and what it cost. Ask something, and it stands here."));
    return;
  }
  const view = $("turns").children[index]?.querySelector(".how");
  view?.setAttribute("aria-pressed", "true");
  const close = h("button.icon", { type: "button", "aria-label": "Close", onclick: () => inspect(-1) }, icon("close"));
  side.replaceChildren(h("header", h("h2", "How the answer came about"), close), story(told, { find: () => findRequest(told.request_id) }));
  side.scrollTop = 0;
}

function lesson() {
  return h("div.lesson",
    h("h2", "Ask, and see what it took."),
    h("p", "This page talks to the same API as your programs. Under each answer stand its model, its route, its speed and its price."),
    h("div.tries", TRIES.map((text) => h("button", { type: "button", onclick: () => send(text) }, text))),
    h("p", "The same from a program:"),
    firstRequest(currentModel()));
}

function keep() {
  try { sessionStorage.setItem(KEPT, JSON.stringify(turns.slice(-40))); } catch { /* full or off: the chat is forgotten on reload */ }
}

function restore() {
  try { turns = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]"); } catch { turns = []; }
}
