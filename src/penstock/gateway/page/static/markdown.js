// The little Markdown that models write most: paragraphs, lists, headings, code, bold and italics. Made of nodes, never of markup.
import { h } from "./dom.js";

export function markdown(text) {
  const blocks = [];
  const parts = text.split(/^```(.*)$/m); // text, language, code, rest of the fence line, …
  for (let index = 0; index < parts.length; index += 4) {
    blocks.push(...plain(parts[index]));
    if (index + 2 < parts.length) blocks.push(h("pre", h("code", parts[index + 2].replace(/^\n|\n$/g, ""))));
  }
  return blocks;
}

function plain(text) {
  return text.split(/\n{2,}/).filter((block) => block.trim()).map((block) => {
    const lines = block.replace(/^\n+|\n+$/g, "").split("\n");
    if (lines.every((line) => /^\s*[-*•] /.test(line))) return h("ul", lines.map((line) => h("li", inline(line.replace(/^\s*[-*•] /, "")))));
    if (lines.every((line) => /^\s*\d+[.)] /.test(line))) return h("ol", lines.map((line) => h("li", inline(line.replace(/^\s*\d+[.)] /, "")))));
    const heading = lines.length === 1 && /^#{1,6} (.*)$/.exec(lines[0]);
    if (heading) return h("h2", inline(heading[1]));
    return h("p", lines.flatMap((line, number) => (number ? [h("br"), ...inline(line)] : inline(line))));
  });
}

function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*|\*[^*\s][^*]*\*)/).filter(Boolean).map((part) => {
    if (/^`[^`]+`$/.test(part)) return h("code", part.slice(1, -1));
    if (/^\*\*[^*]+\*\*$/.test(part)) return h("strong", part.slice(2, -2));
    if (/^\*[^*]+\*$/.test(part)) return h("em", part.slice(1, -1));
    return part;
  });
}
