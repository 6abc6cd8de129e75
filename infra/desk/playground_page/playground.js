// Two panes that poll what one person sees in one place of a platform, and say, press and fill what they do there.
"use strict";

const POLL_MS = 250;
const TITLES = { discord: "Discord", telegram: "Telegram" };

async function call(path, body) {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(`/playground/${path}`, body && { method: "POST", headers, body: JSON.stringify(body) });
  if (!response.headers.get("content-type")?.includes("json")) throw new Error("The playground could not do that; reload the page.");
  const found = await response.json();
  if (!response.ok) throw new Error(found.error?.message ?? `HTTP status ${response.status}`);
  return found;
}

function hue(name) {
  return [...name].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
}

function avatar(name, bot) {
  const made = element("span", bot ? "avatar bot" : "avatar", bot ? "✦" : [...name][0]);
  made.style.setProperty("--hue", hue(name));
  made.setAttribute("aria-hidden", "true");
  return made;
}

class Pane {
  constructor(platform) {
    this.platform = platform;
    this.root = document.getElementById("pane").content.cloneNode(true).firstElementChild;
    this.root.classList.add(platform);
    this.person = this.place = "0";
    this.arriving = true;
    this.places = {};
    this.seen = {};
    this.drawn = new Map();
    this.last = "";
    this.find(".name").textContent = TITLES[platform];
    this.box = this.find("textarea");
    this.listen();
  }

  find(selector) { return this.root.querySelector(selector); }

  listen() {
    this.find(".say").onsubmit = (event) => { event.preventDefault(); this.send(); };
    this.find(".replying button").onclick = () => this.reply(null);
    this.find("dialog .quiet").onclick = () => this.find("dialog").close();
    this.box.oninput = () => { this.grow(); this.suggest(); };
    this.box.onkeydown = (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.find(".say").requestSubmit();
    };
  }

  // What there is to see

  async poll() {
    const asked = `${this.person}/${this.place}`;
    try {
      const view = await call(`${this.platform}/view?person=${this.person}&place=${this.place}`);
      if (asked === `${this.person}/${this.place}`) this.draw(view);
    } catch (error) {
      this.find(".dot").classList.remove("live");
      this.find(".state").textContent = "the playground does not answer";
      this.last = "";
    }
  }

  draw(view) {
    const text = JSON.stringify(view);
    if (text === this.last) return;
    this.last = text;
    Object.assign(this, { view, person: view.person, place: view.place });
    this.places[this.person] = this.place;
    this.find(".dot").classList.toggle("live", view.online);
    this.find(".state").textContent = view.online ? "the twin is here" : "the twin is coming …";
    this.find(".typing").textContent = view.typing && `${view.typing} is typing …`;
    this.drawMessages(view.messages);
    this.chips(".people", view.people, this.person, (id) => this.go(id, this.places[id] ?? this.place));
    this.chips(".places", view.places, this.place, (id) => this.go(this.person, id));
    if (this.arriving) this.arrive();
    this.arriving = false;
  }

  drawMessages(messages) {
    const list = this.find(".messages");
    const low = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
    const kept = new Map();
    for (const message of messages) {
      const text = this.person + JSON.stringify(message);
      const before = this.drawn.get(message.id);
      kept.set(message.id, before?.text === text ? before : { text, item: this.message(message) });
      if (message.asks && !before) this.reply(message);
    }
    this.drawn = kept;
    const items = [...kept.values()].map(({ item }) => item);
    if (items.length !== list.children.length || items.some((item, index) => item !== list.children[index])) list.replaceChildren(...items);
    if (low) list.scrollTop = list.scrollHeight;
    const written = messages.filter((message) => !message.draft);
    this.seen[`${this.person}/${this.place}`] = written.at(-1)?.id ?? "0";
  }

  message(message) {
    const item = element("li", message.by === this.person ? "mine" : "");
    item.classList.toggle("draft", Boolean(message.draft));
    item.classList.toggle("only", Boolean(message.only_you));
    item.append(avatar(message.author, message.bot));
    const body = item.appendChild(element("div", "body"));
    if (message.about) body.append(element("p", "about", message.about));
    body.append(this.who(message));
    const text = body.appendChild(element("div", "text"));
    if (message.thinking) text.append(element("i", "soft", "thinking …"));
    else text.append(...(message.entities ? entities(message.text, message.entities) : markdown(message.text)));
    body.append(...message.files.map((file) => this.file(file)));
    for (const row of message.buttons) body.append(this.row(message, row));
    if (message.reactions.length) body.append(wrapped("p", "reactions", message.reactions.map(({ emoji, count }) => element("span", "", `${emoji} ${count}`))));
    if (message.only_you) body.append(element("p", "soft", "Only you see this."));
    if (!message.draft && !message.thinking) item.append(this.actions(message));
    return item;
  }

  who({ author, bot, at, edited }) {
    const line = element("p", "who");
    line.append(element("b", "", author));
    if (bot) line.append(element("span", "badge", this.platform === "discord" ? "APP" : "bot"));
    const time = new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    line.append(element("span", "soft", edited ? `${time} · edited` : time));
    return line;
  }

  file({ name, url, picture }) {
    const made = Object.assign(element("a", "file", picture ? undefined : `↓ ${name}`), { href: `/playground/${url}`, target: "_blank" });
    if (picture) made.append(Object.assign(element("img"), { src: `/playground/${url}`, alt: name }));
    return made;
  }

  row(message, buttons) {
    return wrapped("p", "buttons", buttons.map(({ label, action, url, disabled }) => {
      if (url) return link(url, label);
      const button = Object.assign(element("button", "", label), { disabled: Boolean(disabled) });
      button.onclick = () => this.press("press", message.id, action, button);
      return button;
    }));
  }

  actions(message) {
    const reply = element("button", "", "Reply");
    reply.onclick = () => this.reply(message);
    const choices = this.view.choices.map(({ action, label }) => {
      const button = element("button", "", label);
      button.onclick = () => this.press("choose", message.id, action, button);
      return button;
    });
    return wrapped("p", "actions", [reply, ...choices]);
  }

  chips(selector, things, current, go) {
    const box = this.find(selector);
    const state = JSON.stringify([things.map((each) => [each.id, each.name, this.isNew(selector, each)]), current]);
    if (box.dataset.state === state) return;
    box.dataset.state = state;
    box.replaceChildren(...things.map((each) => {
      const chip = element("button", this.isNew(selector, each) ? "chip new" : "chip", each.name);
      if (each.note) { chip.title = each.note; chip.prepend(avatar(each.name)); }
      chip.setAttribute("aria-pressed", each.id === current);
      chip.onclick = () => go(each.id);
      return chip;
    }));
  }

  // Somebody else's chip shows what waits in their private chat; a place's chip what this person has not seen there.
  isNew(selector, { id, private: chat, last }) {
    const mine = selector === ".people";
    if (mine && id === this.person) return false;
    return BigInt(last) > BigInt(this.seen[mine ? `${id}/${chat}` : `${this.person}/${chat}`] ?? "0");
  }

  // What people do

  go(person, place) {
    Object.assign(this, { person, place, arriving: true });
    this.drawn = new Map();
    this.last = "";
    this.reply(null);
    this.poll();
  }

  arrive() {
    const { people, places, hint } = this.view;
    const [who, where] = [[people, this.person], [places, this.place]].map(([all, id]) => all.find((each) => each.id === id)?.name ?? "");
    this.box.placeholder = `Say something as ${who} in ${where}, or / for commands`;
    if (!this.box.value.trim() || this.box.value === this.hint) this.box.value = hint;
    this.hint = hint;
    this.grow();
    const list = this.find(".messages");
    list.scrollTop = list.scrollHeight;
  }

  grow() {
    this.box.style.height = "auto";
    this.box.style.height = `${Math.min(this.box.scrollHeight + 2, 160)}px`;
  }

  reply(message) {
    this.replying = message?.id ?? null;
    this.find(".replying").hidden = !message;
    if (!message) return;
    const words = message.text.replace(/<@([^<>]+)>/g, "@$1").slice(0, 60);
    this.find(".replying span").textContent = `Replying to ${message.author}: ${words}`;
    if (this.box.value === this.hint) this.box.value = "";
    this.box.focus();
  }

  async send() {
    const text = this.box.value.trim();
    if (!text) return;
    const body = { person: this.person, place: this.place, text, reply_to: this.replying };
    this.box.value = this.place === this.view.place && !text.startsWith("/") ? this.view.hint : "";
    this.reply(null);
    this.grow();
    this.suggest();
    if (!(await this.act("say", body))) this.box.value = text;
  }

  async press(verb, message, action, button) {
    button.disabled = true;
    await this.act(verb, { person: this.person, place: this.place, message, action });
    button.disabled = false;
  }

  // Whether it was done; what the platform says at once is shown either way.
  async act(verb, body) {
    try {
      const { form, notice } = await call(`${this.platform}/${verb}`, body);
      this.notice(notice ?? "");
      if (form) this.ask(form);
      return true;
    } catch (error) {
      this.notice(error.message);
      return false;
    } finally {
      this.poll();
    }
  }

  notice(text) {
    const line = this.find(".notice");
    line.textContent = text;
    line.hidden = !text;
    clearTimeout(this.fading);
    this.fading = setTimeout(() => { line.hidden = true; }, 6000);
  }

  ask(form) {
    const dialog = this.find("dialog");
    dialog.querySelector("h3").textContent = form.title;
    dialog.querySelector(".fields").replaceChildren(...form.fields.map(({ id, label, value, required, most }) => {
      const box = Object.assign(element("textarea"), { name: id, value, required, maxLength: most, rows: 4 });
      return wrapped("label", "", [label, box]);
    }));
    dialog.querySelector("form").onsubmit = () => {
      const boxes = [...dialog.querySelectorAll("textarea")];
      this.act("submit", { form: form.id, values: Object.fromEntries(boxes.map((box) => [box.name, box.value])) });
    };
    dialog.showModal();
  }

  suggest() {
    const box = this.find(".commands");
    const typed = /^\/(\S*)$/.exec(this.box.value);
    const chosen = /^\/(\S+)\s/.exec(this.box.value);
    const offered = (this.view?.commands ?? []).filter(({ name }) => (typed ? name.startsWith(typed[1]) : name === chosen?.[1]));
    const list = this.find(".messages");
    const low = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
    box.hidden = !offered.length;
    box.replaceChildren(...offered.map((command) => {
      const line = element("button", "");
      const options = command.options.map(({ name, help }) => ` ${name}: ${help}`).join("");
      line.append(element("b", "", `/${command.name}`), element("span", "soft", chosen ? options || command.help : command.help));
      line.onclick = () => { this.box.value = `/${command.name} `; this.box.focus(); this.suggest(); };
      return line;
    }));
    if (low) list.scrollTop = list.scrollHeight;
  }
}

const panes = Object.keys(TITLES).map((platform) => new Pane(platform));
document.querySelector("main").append(...panes.map((pane) => pane.root));

function show(platform) {
  document.body.dataset.shown = platform;
  for (const button of document.querySelectorAll("[data-show]")) button.setAttribute("aria-pressed", button.dataset.show === platform);
}
for (const button of document.querySelectorAll("[data-show]")) button.onclick = () => show(button.dataset.show);
show(location.hash === "#telegram" ? "telegram" : "discord");

// Each pane asks again a while after its last answer, so that a slow machine is not asked faster than it can answer.
async function follow(pane) {
  if (!document.hidden) await pane.poll();
  setTimeout(follow, POLL_MS, pane);
}
panes.forEach(follow);
