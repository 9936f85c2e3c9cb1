// The frame: views, keyboard, theme, the state of the server.
import { $, getJSON, h, icon, number } from "./dom.js";
import { feed } from "./feed.js";
import { escapeChat, startChat } from "./chat.js";
import { recolour, showLive, startLive, toggleHold } from "./live.js";
import { choose, escapeRequests, move, showRequests, startRequests } from "./requests.js";

const VIEWS = ["chat", "live", "requests"];
const THEMES = ["auto", "light", "dark"];
const KEYS = [["1 2 3", "chat, live, requests"], ["/", "write, or filter"], ["Enter", "send; Shift+Enter begins a line"], ["Esc", "stop an answer, close what is open"], ["J K", "next and previous request"], ["P", "pause the charts"], ["T", "light, dark, or as the system"], ["?", "these keys"]];

let view = null;

function route() {
  const [name, rest] = location.hash.slice(1).split("/");
  const next = VIEWS.includes(name) ? name : "chat";
  const chosen = next === "requests" && /^\d+$/.test(rest ?? "") ? Number(rest) : null;
  const changed = next !== view;
  view = next;
  for (const each of VIEWS) $(each).hidden = each !== view;
  for (const link of document.querySelectorAll("nav a")) link.dataset.view === view ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  document.title = `${view[0].toUpperCase()}${view.slice(1)} · Penstock`;
  showLive(view === "live");
  if (changed) showRequests(view === "requests", chosen);
  if (view === "requests" && !changed) choose(chosen);
  if (view === "requests" && changed && chosen === null) choose(null);
  if (changed && view === "chat" && matchMedia("(min-width: 981px)").matches) $("prompt").focus();
}

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("penstock.theme", theme); } catch { /* not kept */ }
  showTheme();
  recolour();
}

const theme = () => document.documentElement.dataset.theme ?? "auto";

function showTheme() {
  $("theme").replaceChildren(icon({ auto: "auto", light: "sun", dark: "moon" }[theme()]));
  $("theme").title = $("theme").ariaLabel = `Theme: ${theme()}`;
}

const nextTheme = () => setTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);

function showDialog(...content) {
  $("dialog").replaceChildren(...content, h("form", { method: "dialog" }, h("button.quiet", "Close")));
  $("dialog").showModal();
}

const showKeys = () => showDialog(h("h2", "Keyboard"), h("dl", KEYS.map(([keys, what]) => [h("dt", keys.split(" ").map((key) => [h("kbd", key), " "])), h("dd", what)])));

async function showHealth() {
  const { data } = await getJSON("/admin/engines").catch(() => ({ data: [] }));
  const { hello, last } = feed;
  showDialog(h("h2", hello ? `Penstock ${hello.version}` : "Penstock"),
    h("dl", data.map((row) => [h("dt", h(row.health.state === "ready" ? "i.dot.good" : "i.dot.bad"), row.name), h("dd", row.health.state, h("span.dim", ` ${row.own ? "engine" : "upstream"}, serves ${row.models.join(", ") || "nothing"}`), row.health.why && h("div.dim", row.health.why))]),
      hello && [h("dt", "since"), h("dd", new Date(hello.started_at * 1000).toLocaleString("en-GB"))],
      last && [h("dt", "requests"), h("dd", `${number(last.total)} ended, ${number(last.open)} under way`)]));
}

function hear({ type, data }) {
  const show = (kind, text) => { $("health").firstElementChild.className = `dot ${kind}`; $("health").lastElementChild.textContent = text; };
  if (type === "lost") show("bad", "no connection");
  if (type === "hello") $("logout").hidden = !data.key;
  if (type === "hello" && data.key) $("logout").title = $("logout").ariaLabel = `Log out ${data.key}`;
  if (type !== "tick") return;
  const { health } = data;
  $("health").title = health.why || health.state;
  if (health.state === "ready") show("good", data.open ? `${number(data.open)} open` : "ready");
  else show(health.state === "starting" || health.state === "restarting" ? "warn" : "bad", health.state);
}

async function logOut() {
  await fetch("/logout", { method: "POST" });
  location.reload();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("dialog").open) return;
  if (event.key === "Escape") {
    view === "chat" ? escapeChat() : escapeRequests();
    document.activeElement?.matches?.("#filter") && document.activeElement.blur();
    return;
  }
  if (event.target.matches("input, textarea, select")) return;
  const does = {
    1: () => { location.hash = "chat"; }, 2: () => { location.hash = "live"; }, 3: () => { location.hash = "requests"; },
    "/": () => (view === "requests" ? $("filter") : $("prompt")).focus(),
    j: () => view === "requests" && move(1), k: () => view === "requests" && move(-1),
    p: () => view === "live" && toggleHold(), t: nextTheme, "?": showKeys,
  }[event.key.toLowerCase()];
  if (!does) return;
  event.preventDefault();
  if (event.key === "/" && view === "live") location.hash = "chat";
  does();
}

showTheme();
$("logout").append(icon("out"));
$("theme").addEventListener("click", nextTheme);
$("keys").addEventListener("click", showKeys);
$("health").addEventListener("click", showHealth);
$("logout").addEventListener("click", logOut);
document.addEventListener("keydown", onKey);
addEventListener("hashchange", route);
feed.listen(hear);
startLive();
startRequests();
startChat();
feed.start();
route();
