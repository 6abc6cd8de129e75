// The page: ask, see the answer stream in with its sources, judge it; what waits for the creator; runs as they go.
"use strict";

const $ = (id) => document.getElementById(id);
const conversation = crypto.randomUUID();
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };

// Text always goes in as text: what members and models write is never markup here.
function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

async function call(path, body) {
  const response = await fetch(path, { headers, ...(body && { method: "POST", body: JSON.stringify(body) }) });
  const found = await response.json();
  if (!response.ok) throw new Error(found.error?.message ?? `HTTP ${response.status}`);
  return found;
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line.slice("data: ".length));
  }
}

function show(item, scroll = true) {
  $("turns").append(item);
  if (scroll) item.scrollIntoView({ block: "end", behavior: "smooth" });
  return item;
}

function finish(item, answer) {
  item.querySelector(".text").textContent = answer.text;
  item.classList.add(answer.outcome);
  if (answer.citations.length) item.append(sources(answer.citations));
  const meta = item.appendChild(element("p", "meta"));
  if (answer.voice) meta.append(element("span", "", answer.voice));
  const total = answer.timings_ms.total ?? answer.timings_ms.recall;
  if (total) meta.append(element("span", "", `${(total / 1000).toFixed(2)} s`));
  for (const value of answer.outcome === "answered" ? ["good", "bad"] : []) meta.append(voteButton(answer.id, value, meta));
  item.scrollIntoView({ block: "end", behavior: "smooth" });
}

function sources(citations) {
  const list = element("ol", "sources");
  for (const { number, source, url, question, because } of citations) {
    const line = list.appendChild(element("li", "", `[${number}] ${question || source} `));
    line.title = because;
    if (/^https?:/.test(url)) {
      const link = line.appendChild(element("a", "", "source"));
      Object.assign(link, { href: url, rel: "noopener noreferrer", target: "_blank" });
    }
  }
  return list;
}

function voteButton(answer, value, meta) {
  const button = element("button", "", value === "good" ? "Good" : "Not good");
  button.onclick = async () => {
    await call("api/vote", { answer, value });
    for (const other of meta.querySelectorAll("button")) other.setAttribute("aria-pressed", other === button);
  };
  return button;
}

async function ask(question) {
  show(element("li", "asked", question));
  const item = show(element("li", "said"));
  const text = item.appendChild(element("p", "text", "…"));
  try {
    const body = JSON.stringify({ question, conversation, message: crypto.randomUUID() });
    const response = await fetch("api/ask", { method: "POST", headers, body });
    if (!response.ok) throw new Error((await response.json()).error.message);
    let said = "";
    for await (const event of events(response)) {
      if (event.piece) text.textContent = said += event.piece;
      if (event.answer) finish(item, event.answer);
      if (event.error) throw new Error(event.error);
    }
  } catch (error) {
    text.textContent = error.message;
    item.classList.add("abstained");
  }
  refresh();
}

function waiting({ number, question, count }) {
  const item = $("waiting").content.cloneNode(true).firstElementChild;
  item.querySelector("p").textContent = count > 1 ? `${question} (asked ${count} times)` : question;
  const form = item.querySelector("form");
  form.onsubmit = async (event) => {
    event.preventDefault();
    await call(`api/inbox/${number}/answer`, { answer: form.querySelector("input").value });
    refresh();
  };
  form.querySelector(".quiet").onclick = async () => { await call(`api/inbox/${number}/dismiss`, {}); refresh(); };
  return item;
}

function run({ kind, state, stage, progress }) {
  const words = [kind, state, state === "running" ? stage : "", state === "running" ? progress?.text : ""];
  return element("li", "", words.filter(Boolean).join(" · "));
}

async function refresh() {
  try {
    const [status, inbox, runs] = await Promise.all([call("api/status"), call("api/inbox"), call("api/runs")]);
    $("creator").textContent = `${status.creator}’s understudy`;
    document.title = $("creator").textContent;
    $("voice").textContent = status.voice;
    $("dot").className = "live";
    const index = status.index ? { "of the new index": `${status.index.done} / ${status.index.total}` } : {};
    $("memory").replaceChildren(...Object.entries({ ...status.memory, ...index }).flatMap(
      ([name, count]) => [element("dt", "", name), element("dd", "", count)]));
    // What the creator is typing into stays: the list is redrawn only while nothing in it has the focus.
    if (!$("inbox").contains(document.activeElement)) $("inbox").replaceChildren(...(inbox.length ? inbox.map(waiting) : [element("li", "", "Nothing waits.")]));
    $("runs").replaceChildren(...(runs.length ? runs.slice(0, 5).map(run) : [element("li", "", "None yet: understudy retrain")]));
  } catch (error) {
    $("voice").textContent = error.message;
    $("dot").className = "";
  }
}

$("ask").onsubmit = (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  $("question").value = "";
  if (question) ask(question);
};
$("question").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("ask").requestSubmit(); }
};
refresh();
setInterval(refresh, 3000);
