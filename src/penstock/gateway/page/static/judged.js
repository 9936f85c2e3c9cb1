// What guards, cache and router decided about a request, in words.
import { h, number, seconds } from "./dom.js";

/** What became of a request, by what the server calls it: a few words, the colour of the part that did it, and what it means. */
export const BECAME = {
  cached: ["from the cache", "--s4", "answered with an earlier answer, without computing"],
  kept: ["kept by the smaller model", "--s3", "the smaller model's answer was trusted"],
  escalated: ["escalated", "--s1", "the smaller model's answer was not trusted, so the larger one was asked"],
  redacted: ["redacted", "--s2", "a guard took something out of the prompt or the answer"],
  refused: ["refused", "--bad", "a guard let it go no further"],
  shadow: ["in shadow", "--s6", "something was decided that changed nothing"],
};

const ROOMS = { guard: "--s2", cache: "--s4", router: "--s3" };
const SAID = {
  "cache exact hit": "Same as an earlier request",
  "cache semantic hit": "Same meaning as an earlier question",
  "cache semantic explore": "A model answers, to learn whether an earlier answer would have done",
  "cache miss": "No earlier answer fits",
  "cache bypass": "Not looked up",
  "router cascade kept": "The smaller model's answer was kept",
  "router cascade escalated": "The larger model was asked",
  "guard redact": "Redacted",
  "guard refuse": "Refused",
  "guard allow": "Let pass",
};
const SCORES = { cache: "similarity", router: "confidence", guard: "score" };

/** A decision in a few words. */
export function phrase(said) {
  const words = plain(said);
  return said.shadow ? `Would have been: ${words[0].toLowerCase()}${words.slice(1)}` : words;
}

function plain({ room, rule, action }) {
  const known = SAID[`${room} ${rule} ${action}`] ?? SAID[`${room} ${action}`];
  if (known) return room === "guard" ? `${known} by ${rule}` : known;
  if (room === "cache") return `${action} (${rule})`;
  return rule === "vote" ? `Vote: ${action}` : `${action}, by ${rule}`;
}

/** All decisions about a request, in the order made, or nothing. */
export function decisions(judgements) {
  if (!judgements.length) return null;
  return h("section.judged", h("h3", "Decisions"), h("div.lines", judgements.map(line)));
}

function line(said) {
  const { room, why, score, shadow, took_s: took } = said;
  const colour = said.action === "refuse" && !shadow ? "--bad" : ROOMS[room];
  const scored = score !== null && score !== undefined && h("span.dim", `${SCORES[room]} ${number(score)}`);
  return h("div", { title: took ? `took ${seconds(took)}` : null },
    h("i.mark", { style: { background: `var(${colour})` } }),
    h("span.grow", h("span", phrase(said)), why && h("span.dim", `: ${why}`)),
    scored, shadow && h("span.tag", { title: "decided and written down; it changed nothing" }, "shadow"), h("span.tag", room));
}

/** What became of a request, as tags. */
export const tags = (became) => (became ?? []).filter((word) => BECAME[word] && word !== "cached")
  .map((word) => h("span.tag.became", { title: BECAME[word][2], style: { color: `var(${BECAME[word][1]})` } }, word));
