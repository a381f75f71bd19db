// The page: what is chosen, what is shown. Text of films and files is set as text, never as HTML.

import { FilmMap } from "./map.js";
import { displayName, splitYear } from "./titles.js";

const SHOWN_CHIPS = 40, LONGEST_THOUGHT = 20;
const find = (selector, within = document) => within.querySelector(selector);
const make = (tag, properties, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

// The worker's answer to a question, as a promise; each question has a channel of its own
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const ask = (...question) => new Promise((resolve, reject) => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = ({ data: { value, error } }) => {
    port1.close();
    if (error === undefined) resolve(value);
    else reject(new Error(error));
  };
  worker.postMessage(question, [port2]);
});

let films, settings;  // data/films.json and data/settings.json, which are loaded below
const tokensOf = (rows) => rows.map((row) => films.token[row]);
const nameOf = (row) => displayName(films.title[row]);
const yearOf = (row) => splitYear(films.title[row])[1] ?? "";
const genresOf = (row) => films.genre_names[films.genres[row]].split("|").filter((genre) => genre !== "IMAX").join(", ");

// Everything that has been chosen; the films of each person by their rows in `films`, oldest first
const state = { lists: [[], []], ordered: false, penalty: 0, series: false, byRank: false, watchlist: null, k: 10 };

// A box to type films into, and the films chosen
class Picker {
  constructor(root, person) {
    this.person = person;
    root.prepend(find("#picker").content.cloneNode(true));
    const parts = ["input", "[role=listbox]", ".chips", ".notes"].map((part) => find(part, root));
    [this.input, this.list, this.chips, this.notes] = parts;
    find(".label", root).textContent = root.ariaLabel;
    this.list.id = `suggestions-${person}`;
    this.input.setAttribute("aria-controls", this.list.id);
    Object.assign(this.input, { oninput: () => this.suggest(), onblur: () => this.close() });
    this.input.onkeydown = (event) => this.key(event);
    const file = find("[type=file]", root);
    file.onchange = () => this.read(file.files[0]).then(() => { file.value = ""; });
    root.ondrop = (event) => {
      event.preventDefault();
      event.stopPropagation();
      if (event.dataTransfer.files.length) this.read(event.dataTransfer.files[0]);
    };
    this.close();
  }

  get rows() { return state.lists[this.person]; }

  async suggest() {
    const typed = this.input.value, rows = await ask("suggest", typed, 6);
    if (films && typed === this.input.value) this.offer(rows);  // else it is too early, or more has been typed since
  }

  close() { this.offer([]); }

  offer(rows) {
    Object.assign(this, { suggested: rows, active: -1 });
    this.list.replaceChildren(...rows.map((row, place) => make("li", {
      role: "option", id: `${this.list.id}-${place}`, onclick: () => this.add(row),
      onpointerdown: (event) => event.preventDefault(),  // the box keeps the focus
    }, make("span", {}, nameOf(row)), make("small", {}, yearOf(row)))));
    this.list.hidden = !rows.length;
    this.input.ariaExpanded = String(rows.length > 0);
    this.input.removeAttribute("aria-activedescendant");
  }

  key(event) {
    const count = this.suggested.length, step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && count) {
      this.active = (Math.max(this.active, step < 0 ? 0 : -1) + step + count) % count;
      [...this.list.children].forEach((option, place) => { option.ariaSelected = String(place === this.active); });
      this.input.setAttribute("aria-activedescendant", `${this.list.id}-${this.active}`);
    } else if (event.key === "Enter") this.enter(this.input.value);
    else if (event.key === "Escape") this.close();
    else if (event.key === "Backspace" && !this.input.value && this.rows.length) change(() => this.rows.pop());
    else return;
    event.preventDefault();
  }

  async enter(typed) {
    let row = this.suggested[Math.max(0, this.active)];
    if (!films) return;  // too early
    this.input.value = "";
    if (row === undefined && typed) [row] = await ask("suggest", typed, 1);
    if (row !== undefined) this.add(row);
    else if (typed) this.say([`Nothing is called anything like “${typed.slice(0, 100)}”.`]);
  }

  add(row) {
    if (this.suggested.length) this.input.value = "";
    this.close();
    change(() => { if (!this.rows.includes(row)) this.rows.push(row); });
  }

  // A file of films that this person has watched, or, by its name, of those to be watched
  async read(file) {
    try {
      const { titles, watchlist, notes } = await ask("readHistory", file.name, await file.arrayBuffer());
      const [found, listed] = [await ask("find", titles), await ask("find", watchlist)];
      const known = (found) => [...new Set(found.flatMap(({ row }) => row ?? []))], rows = known(found);
      const unknown = found.flatMap(({ problem }) => (problem ? [`Left out: ${problem}`] : []));
      const rest = unknown.length > 5 ? [`… and ${unknown.length - 5} more`] : [];
      const read = `Read here, in your browser: ${rows.length} ${settings.noun}s of ${file.name}.`;
      this.say([read, ...notes, ...unknown.slice(0, 5), ...rest]);
      change(() => {
        find("#watchlist").checked = /watch.?list/i.test(file.name);
        if (find("#watchlist").checked) state.watchlist = rows;
        else state.lists[this.person] = rows;
        if (listed.length) state.watchlist = known(listed);
      });
    } catch (error) {
      this.say([error.message]);
    }
  }

  say(lines) { this.notes.replaceChildren(...lines.map((line) => make("p", {}, line))); }

  show() {
    const { rows } = this, hidden = Math.max(0, rows.length - SHOWN_CHIPS);
    const button = (sign, ariaLabel, act) => make("button", { ariaLabel, onclick: ({ detail }) => {
      change(act);
      if (!detail) this.input.focus();  // by the keyboard; a phone's would cover the list
    } }, sign);
    this.chips.replaceChildren(...rows.slice(hidden).map((row, i) => {
      const place = i + hidden, name = nameOf(row);
      const earlier = () => { [rows[place - 1], rows[place]] = [row, rows[place - 1]]; };
      return make("li", {}, ...(state.ordered && place ? [button("◂", `Earlier: ${name}`, earlier)] : []),
        make("span", {}, name), make("small", {}, yearOf(row)), button("×", `Remove ${name}`, () => rows.splice(place, 1)));
    }));
    if (hidden) this.chips.prepend(make("li", {}, `${hidden} earlier ${settings.noun}s `));
  }
}

const pickers = [new Picker(find("#you"), 0), new Picker(find("#them"), 1)];
const load = async (name) => (await fetch(`data/${name}`)).json();
[films, settings] = await Promise.all([load("films.json"), load("settings.json")]).catch((error) => {
  find(".status").textContent = `The folder data is missing; make it with python -m bertrec_utils page (${error.message})`;
  throw error;
});
// The page as it is written is about films; for items, other words on all of it, for no title of an item is there yet
const WORDS = [["What to watch next", "What comes next"], ["Watching with", "Choosing with"], ["film", "item"], ["Film", "Item"],
  ["Drop your Letterboxd or IMDb export", "Drop a list, a title or id:2707 a line"]];
const written = document.evaluate("//text() | //@aria-label", document, null, XPathResult.ORDERED_NODE_SNAPSHOT_TYPE);
for (let i = 0; settings.noun !== "film" && i < written.snapshotLength; i++) {
  for (const [film, item] of WORDS) written.snapshotItem(i).nodeValue = written.snapshotItem(i).nodeValue.replaceAll(film, item);
}
const rowOfToken = [], rowOfId = new Map();  // of films that the network knows
films.token.forEach((token, row) => {
  if (!token) return;
  rowOfToken[token] = row;
  rowOfId.set(String(films.item[row]), row);
});
const [answer, two, think] = ["#answer", "#two", "#think"].map((part) => find(part));
const say = (section, text, isShown = true) => {  // what is not shown is there for screen readers
  Object.assign(find(".status", section), { textContent: text, className: isShown ? "status" : "status spoken" });
};
const add = (row) => change(() => { if (!state.lists[0].includes(row)) state.lists[0].push(row); });

// A list of recommendations; the bar is the probability, as a share of the best one's
function list(section, found, { best = found[0]?.score, isMore = false } = {}) {
  find(".films", section).replaceChildren(...found.map(({ token, score, ranks }) => {
    const row = rowOfToken[token], name = nameOf(row), bar = make("i", { className: "bar" });
    bar.style.width = `${100 * Math.exp(score - best)}%`;
    const because = ranks ? `number ${ranks[0]} for you, ${ranks[1]} for the other person` : "";
    const facts = [make("b", {}, name), make("small", {}, yearOf(row)), bar, make("small", {}, genresOf(row))];
    return make("li", {}, make("div", {}, ...facts, make("small", { className: "because" }, because)),
      make("button", { title: "Add to my list", ariaLabel: `Add ${name} to my list`, onclick: () => add(row) }, "+"));
  }));
  if (section === answer) find(".more").hidden = !isMore;
}

const withYear = ({ name, row }) => (yearOf(row) ? `${name} (${yearOf(row)})` : name);
const map = new FilmMap(find("#map canvas"), rowOfToken.filter((row) => films.x[row] !== null).map((row) => {
  const name = nameOf(row), size = 0.6 + Math.log10(films.ratings[row] + 1) / 2.2;
  const text = `${name} ${films.title[row]} ${films.series_names[films.series[row]]}`.toLowerCase();
  return { row, x: films.x[row], y: 1000 - films.y[row], name, size, text, genre: genresOf(row).split(",")[0] };
}), {
  hover(film, x, y) {
    const tip = find(".tip");
    tip.hidden = !film;
    tip.textContent = film ? withYear(film) : "";
    tip.style.translate = `${Math.max(0, Math.min(x + 12, map.width - tip.offsetWidth))}px ${y + 12}px`;
  },
  pick(film) {
    const count = film && films.ratings[film.row].toLocaleString("en");
    const known = settings.noun === "film" ? `rated by ${count} people ` : `${count} rows of the log `;
    find(".picked").replaceChildren(...(film ? [
      [withYear(film), genresOf(film.row), known].filter(Boolean).join(" · "),
      make("button", { onclick: () => add(film.row) }, "Add to my list")] : []));
  },
});
find(".legend").replaceChildren(...map.groups.filter((group) => group.films.length && group.genre).map(({ genre, color }) => {
  const dot = make("i");
  dot.style.background = color;
  return make("li", {}, dot, genre);
}));

// Change the state, then show it
function change(act = () => {}) {
  act();
  const { ordered, series, penalty, rank, watchlist } = Object.fromEntries(
    ["ordered", "series", "penalty", "rank", "watchlist"].map((id) => [id, document.getElementById(id)]));
  Object.assign(state, { ordered: ordered.checked, series: series.checked, byRank: rank.checked });
  state.penalty = Number(penalty.value);
  watchlist.parentElement.hidden = !state.watchlist;
  find("output").textContent = state.watchlist ? `(${state.watchlist.length})` : "";
  for (const picker of pickers) picker.show();
  const [you, them] = state.lists.map((rows) => rows.map((row) => encodeURIComponent(films.item[row])).join(","));
  const parts = { you, them, ordered: Number(state.ordered), series: Number(state.series), penalty: state.penalty };
  const told = Object.entries(parts).filter(([, value]) => value).map((part) => part.join("="));
  history.replaceState(null, "", `#${told.join("&")}`);
  show().catch((error) => say(answer, error.message));
}

let turn = 0;
async function show() {
  const mine = ++turn, [you, them] = state.lists.map(tokensOf), isStale = () => mine !== turn;
  const only = find("#watchlist").checked && state.watchlist ? tokensOf(state.watchlist) : null;
  const options = { asSet: !state.ordered, penalty: state.penalty, excludeSeries: state.series, only };
  if (think.open) await showThoughts(isStale);  // first, for a film may be being dragged
  const found = you.length ? await ask("recommend", you, state.k, options) : [];
  if (isStale()) return;
  list(answer, found, { isMore: found.length === state.k && state.k < 30 });
  map.show(state.lists[0], found.slice(0, 10).map(({ token }) => rowOfToken[token]));
  const empty = `Type a title${find(".examples").hidden ? "" : ", or try an example"}: ten recommendations will appear here.`;
  if (found.length) say(answer, `${found.length} ${settings.noun}s, ${nameOf(rowOfToken[found[0].token])} first`, false);
  else say(answer, you.length ? `Nothing is left to recommend; allow more ${settings.noun}s.` : empty);
  if (two.open) {
    const both = you.length && them.length
      ? await ask("recommendForTwo", [you, them], 10, { ...options, byRank: state.byRank }) : [];
    if (isStale()) return;
    list(two, both, { best: Math.max(...both.map(({ score }) => score)) });
    if (both.length) say(two, `For both ${nameOf(rowOfToken[both[0].token])} first`, false);
    else say(two, "Add a title to each list, and recommendations for both will appear here.");
  }
  const reasons = isStale() ? null : await ask("reasons", you, found.map(({ token }) => token), options.asSet);
  if (!reasons || isStale()) return;
  answer.querySelectorAll(".because").forEach((line, i) => {
    line.textContent = `because of ${nameOf(state.lists[0][reasons[i]])}`;
  });
}

// What the network looks at, a line for each film, a cell for each head of each layer
async function showThoughts(isStale) {
  const rows = state.lists[0].slice(-LONGEST_THOUGHT), { layers, gains } = rows.length > 2
    ? await ask("think", tokensOf(rows)) : { layers: [], gains: [] };
  if (isStale()) return;
  const heads = layers.flatMap(({ heads }, layer) => heads.map((weights, head) => ({ weights, layer, head })));
  const most = Math.max(...gains.map(Math.abs)), focused = document.activeElement?.dataset.row;
  const lines = rows.slice(0, gains.length).map((row, i) => {
    const cells = heads.map(({ weights, layer, head }) => {
      const title = `layer ${layer + 1}, head ${head + 1}: ${percent(weights[i])}`;
      const cell = make("i", { className: head ? "" : "first", title });
      cell.style.setProperty("--share", `${100 * Math.sqrt(weights[i])}%`);
      return cell;
    });
    const bar = make("i", { className: gains[i] < 0 ? "bar less" : "bar", title: `contributes ${gains[i].toFixed(2)}` });
    bar.style.width = `${100 * Math.abs(gains[i]) / most}%`;
    const ariaLabel = `Move ${nameOf(row)}: arrow up or down`;
    const handle = make("button", { ariaLabel, onpointerdown: startDrag, onkeydown: keyDrag }, "⠿");
    handle.dataset.row = row;
    return make("div", { className: "thought" }, handle, make("span", {}, nameOf(row)),
      make("span", { className: "cells" }, ...cells), make("span", { className: "gain" }, bar));
  });
  const shares = layers.filter(({ conv }) => conv !== null).map(({ conv }, layer) => make("p", {},
    `Layer ${layer + 1}: ${percent(conv)} of what is added comes from the convolution over the newest ${settings.noun}s, `
    + "the rest from attention."));
  find(".thoughts").replaceChildren(...lines, ...shares);
  find(`.thought [data-row="${focused}"]`)?.focus();
  const few = `Choose three or more ${settings.noun}s to see what the network looks at.`;
  say(think, lines.length ? misleading(rows, heads, gains) : few);
}

const percent = (share) => `${Math.round(100 * share)} %`;

// One sentence: where the film that is looked at most contributes least, over all heads or in one of them
function misleading(rows, heads, gains) {
  const highest = (values) => values.indexOf(Math.max(...values)), name = (i) => `“${nameOf(rows[i])}”`;
  const mean = rows.map((_, i) => heads.reduce((sum, { weights }) => sum + weights[i], 0) / heads.length);
  const looked = highest(mean), least = gains.indexOf(Math.min(...gains)), best = name(highest(gains));
  const one = looked === least ? null : heads.find(({ weights }) => highest(weights) === least);
  if (looked !== least && !one) {
    return `Attention does not mislead here: the network looks most at ${name(looked)} (${percent(mean[looked])}), and no head looks `
      + `most at ${name(least)}, which contributes least.`;
  }
  const who = one ? `head ${one.head + 1} of layer ${one.layer + 1} looks` : "the network looks";
  return `Attention misleads here: ${who} most at ${name(least)} (${percent((one?.weights ?? mean)[least])}), which `
    + `contributes least; ${best} contributes most.`;
}

function moveTo(row, place) {
  const rows = state.lists[0], from = rows.indexOf(row);
  if (from < 0 || from === place || !(place in rows)) return;
  change(() => rows.splice(place, 0, ...rows.splice(from, 1)));
}

function keyDrag(event) {
  const step = { ArrowUp: -1, ArrowDown: 1 }[event.key], row = Number(event.target.dataset.row);
  if (!step) return;
  event.preventDefault();
  moveTo(row, state.lists[0].indexOf(row) + step);
}

function startDrag(event) {
  const row = Number(event.target.dataset.row), first = Math.max(0, state.lists[0].length - LONGEST_THOUGHT);
  const drag = new AbortController(), { signal } = drag;
  event.preventDefault();
  event.target.focus();
  event.target.releasePointerCapture(event.pointerId);  // its element is drawn anew while it moves
  addEventListener("pointermove", ({ clientY }) => {
    const places = [...document.querySelectorAll(".thought")].map((line) => line.getBoundingClientRect());
    const over = places.findIndex(({ top, bottom }) => clientY >= top && clientY < bottom);
    if (over >= 0) moveTo(row, first + over);
  }, { signal });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => drag.abort(), { signal });
}

function readAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const rowsOf = (person) => (parts.get(person) ?? "").split(",").flatMap((id) => rowOfId.get(id) ?? []);
  state.lists = ["you", "them"].map((person) => [...new Set(rowsOf(person))]);
  for (const box of ["ordered", "series"]) document.getElementById(box).checked = parts.get(box) === "1";
  find("#penalty").value = parts.get("penalty") ?? 0;
  if (state.lists[1].length) two.open = true;
  change();
}

for (const box of document.querySelectorAll(".options input")) box.oninput = () => change();
for (const section of [two, think]) section.ontoggle = () => { if (section.open) change(); };
for (const button of document.querySelectorAll("[data-example]")) {
  const ids = button.dataset.example.split(",");
  button.onclick = () => change(() => { state.lists[0] = ids.map((id) => rowOfId.get(id)); });
  button.hidden = !settings.movielens || !ids.every((id) => rowOfId.has(id));  // they are ids of MovieLens
}
find(".examples").hidden = !find("[data-example]:not([hidden])");
[find("#movielens").hidden, find("#series").parentElement.hidden] = [!settings.movielens, !films.series_names.some(Boolean)];
for (const button of document.querySelectorAll("[data-zoom]")) button.onclick = () => map.zoom(Number(button.dataset.zoom));
find("#map [type=search]").oninput = ({ target }) => map.search(target.value);
find(".more").onclick = () => change(() => { state.k += 10; });
find("#share").onclick = async ({ target }) => {
  await navigator.clipboard.writeText(location.href);
  target.textContent = "Copied";
};
addEventListener("hashchange", readAddress);
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", find("#you").ondrop);
const count = rowOfId.size.toLocaleString("en");
find("#about").textContent = `The network is ${settings.name} (${settings.recipe}); it knows ${count} ${settings.noun}s.`;
readAddress();
for (const picker of pickers) if (picker.input.value) picker.suggest();  // typed before the films were there
