// Text as the two platforms show it: Discord's Markdown and Telegram's entities, always built from text nodes.
"use strict";

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function link(url, label) {
  if (!/^https?:\/\//.test(url)) return document.createTextNode(label);
  return Object.assign(element("a", "", label), { href: url, rel: "noopener noreferrer", target: "_blank" });
}

function wrapped(tag, className, children) {
  const made = element(tag, className);
  made.append(...children);
  return made;
}

// Each rule: what it looks like, and what to make of the match. Rules that contain words read those again.
const RULES = [
  [/\\([!-/:-@[-`{-~])/, (m) => [m[1]]],
  [/```(?:[\w+-]*\n)?([\s\S]+?)```/, (m) => [element("span", "pre", m[1].replace(/\n$/, ""))]],
  [/``(.+?)``|`([^`\n]+)`/, (m) => [element("code", "", m[1] ?? m[2])]],
  [/\[([^\]\n]+)\]\(<?(https?:\/\/[^\s<>)]+)>?\)/, (m) => [link(m[2], m[1])]],
  [/<(https?:\/\/[^\s<>]+)>|(https?:\/\/[^\s<>)\]]+[^\s<>)\].,:;!?'"])/, (m) => [link(m[1] ?? m[2], m[1] ?? m[2])]],
  [/<@([^<>\n]+)>/, (m) => [element("span", "mention", `@${m[1]}`)]],
  [/\*\*(?=\S)([\s\S]+?)\*\*/, (m) => [wrapped("b", "", inline(m[1]))]],
  [/__(?=\S)([\s\S]+?)__/, (m) => [wrapped("u", "", inline(m[1]))]],
  [/\*(?=[^\s*])([^*]+?)\*|(?<!\w)_(?=[^\s_])([^_]+?)_(?!\w)/, (m) => [wrapped("i", "", inline(m[1] ?? m[2]))]],
  [/~~(?=\S)([\s\S]+?)~~/, (m) => [wrapped("s", "", inline(m[1]))]],
  [/\|\|(?=\S)([\s\S]+?)\|\|/, (m) => [wrapped("span", "spoiler", inline(m[1]))]],
];
const LINES = [[/^#{1,3} (.+)/, "b", "heading"], [/^-# (.+)/, "small", ""], [/^> ?(.*)/, "span", "quote"]];

function inline(text) {
  let first = null;
  for (const [pattern, make] of RULES) {
    const match = pattern.exec(text);
    if (match && (!first || match.index < first.match.index)) first = { match, make };
  }
  if (!first) return text ? [text] : [];
  const { match, make } = first;
  const rest = text.slice(match.index + match[0].length);
  return [...(match.index ? [text.slice(0, match.index)] : []), ...make(match), ...inline(rest)];
}

function markdown(text) {
  const parts = text.split(/(```[\s\S]+?```)/).map((part) => (part.startsWith("```") ? inline(part) : lines(part)));
  return parts.flat();
}

// Lines that begin with a mark are drawn as a whole; those between them are read together, as bold may span lines.
function lines(text) {
  const made = [];
  let plain = [];
  const flush = () => { made.push(...inline(plain.join("\n"))); plain = []; };
  for (const line of text.split("\n")) {
    const rule = LINES.find(([pattern]) => pattern.test(line));
    if (!rule) { plain.push(line); continue; }
    if (plain.length) flush();
    made.push(wrapped(rule[1], `block ${rule[2]}`, inline(rule[0].exec(line)[1])));
  }
  flush();
  return made;
}

const TAGS = { bold: "b", italic: "i", underline: "u", strikethrough: "s", code: "code" };
const CLASSES = { pre: "pre", blockquote: "quote", expandable_blockquote: "quote", spoiler: "spoiler", mention: "mention", bot_command: "mention", hashtag: "mention" };

// Offsets are UTF-16 units, as those of JavaScript's strings are.
function entities(text, marks) {
  const known = [...marks].sort((a, b) => a.offset - b.offset || b.length - a.length);
  const cuts = [...new Set([0, text.length, ...known.flatMap((m) => [m.offset, m.offset + m.length])])].sort((a, b) => a - b);
  return cuts.slice(1).map((end, index) => {
    const start = cuts[index];
    const over = known.filter((m) => m.offset <= start && m.offset + m.length >= end);
    return over.reduceRight((inside, mark) => styled(mark, inside, text.slice(start, end)), document.createTextNode(text.slice(start, end)));
  });
}

function styled(mark, inside, words) {
  if (mark.type === "text_link" || mark.type === "url") return link(mark.url ?? words, words);
  if (TAGS[mark.type]) return wrapped(TAGS[mark.type], "", [inside]);
  return wrapped("span", CLASSES[mark.type] ?? "", [inside]);
}
