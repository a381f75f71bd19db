// The page: what is chosen, what is shown. All text of films and files is set as text, never as HTML.

import { FilmMap } from "./map.js";
import { displayName, splitYear } from "./titles.js";

const SHOWN_CHIPS = 40, LONGEST_THOUGHT = 20;
const find = (selector, within = document) => within.querySelector(selector);
const make = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

// The worker's answers to questions, as promises
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const questions = new Map();
worker.onmessage = ({ data: { id, value, error } }) => {
  const { resolve, reject } = questions.get(id);
  questions.delete(id);
  if (error === undefined) resolve(value);
  else reject(new Error(error));
};
let asked = 0;
const ask = (action, ...given) => new Promise((resolve, reject) => {
  questions.set(++asked, { resolve, reject });
  worker.postMessage({ id: asked, action, given });
});

let films, settings;  // data/films.json and data/settings.json, which are loaded below
const tokensOf = (rows) => rows.map((row) => films.token[row]);
const nameOf = (row) => displayName(films.title[row]);
const yearOf = (row) => splitYear(films.title[row])[1] ?? "";
const genresOf = (row) => films.genre_names[films.genres[row]].split("|").filter((genre) => genre !== "IMAX").join(", ");
const people = (count) => `${count.toLocaleString("en")} ${count === 1 ? "person" : "people"}`;

// Everything that has been chosen; the films of each person by their rows in `films`, oldest first
const state = { lists: [[], []], ordered: false, penalty: 0, series: false, watchlist: null, byRank: false, k: 10 };

// A box to type films into, and the films chosen
class Picker {
  constructor(root, person, label, placeholder) {
    this.person = person;
    root.prepend(find("#picker").content.cloneNode(true));
    [this.input, this.list, this.chips, this.notes] = ["input", "[role=listbox]", ".chips", ".notes"].map((part) => find(part, root));
    find(".label", root).textContent = label;
    this.list.id = `suggestions-${person}`;
    this.list.ariaLabel = "Films that match";
    this.input.setAttribute("aria-controls", this.list.id);
    Object.assign(this.input, { placeholder, oninput: () => this.suggest(), onblur: () => this.close() });
    this.input.onkeydown = (event) => this.key(event);
    find("[type=file]", root).onchange = ({ target }) => this.read(target.files[0]).then(() => { target.value = ""; });
    root.ondrop = (event) => {
      if (event.dataTransfer.files.length) this.read(event.dataTransfer.files[0]);
      event.preventDefault();
      event.stopPropagation();
    };
    this.close();
  }

  get rows() { return state.lists[this.person]; }

  async suggest() {
    const typed = this.input.value, rows = await ask("suggest", typed, 6);
    if (!films || typed !== this.input.value) return;  // too early, or more has been typed since
    this.suggested = rows;
    this.active = -1;
    this.list.replaceChildren(...rows.map((row, place) => make("li", {
      role: "option", id: `${this.list.id}-${place}`, onclick: () => this.add(row),
      onpointerdown: (event) => event.preventDefault(),  // the box keeps the focus
    }, make("span", { textContent: nameOf(row) }), make("small", { textContent: yearOf(row) }))));
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
    } else if (event.key === "Enter") {
      if (count) this.add(this.suggested[Math.max(0, this.active)]);
      else if (this.input.value) this.addTyped();
    } else if (event.key === "Escape") this.close();
    else if (event.key === "Backspace" && !this.input.value && this.rows.length) change(() => this.rows.pop());
    else return;
    event.preventDefault();
  }

  // Enter, before there are suggestions
  async addTyped() {
    const typed = this.input.value;
    this.input.value = "";
    const [row] = await ask("suggest", typed, 1);
    if (row === undefined) this.say([`No film is called anything like “${typed.slice(0, 100)}”.`]);
    else change(() => { if (!this.rows.includes(row)) this.rows.push(row); });
  }

  close() {
    Object.assign(this, { suggested: [], active: -1 });
    this.list.hidden = true;
    this.input.ariaExpanded = "false";
    this.input.removeAttribute("aria-activedescendant");
  }

  add(row) {
    this.input.value = "";
    this.close();
    this.input.focus();
    change(() => { if (!this.rows.includes(row)) this.rows.push(row); });
  }

  // A file of films that this person has watched, or, by its name, of those to be watched
  async read(file) {
    try {
      const { titles, watchlist, notes } = await ask("readHistory", file.name, await file.arrayBuffer());
      const lookUp = async (titles) => {
        const found = await ask("find", titles);
        const unknown = found.filter(({ problem }) => problem).map(({ problem }) => problem);
        const some = unknown.length > 5 ? [`${unknown.length} of ${titles.length} titles are unknown`, ...unknown.slice(0, 3), "…"] : unknown;
        return { rows: [...new Set(found.filter(({ row }) => row !== undefined).map(({ row }) => row))], some };
      };
      const { rows, some } = await lookUp(titles), isWatchlist = /watch.?list/i.test(file.name);
      this.say([`Read here, in your browser: ${rows.length} films of ${file.name}.`, ...notes, ...some.map((line) => `Left out: ${line}`)]);
      const listed = isWatchlist ? rows : (await lookUp(watchlist)).rows;
      change(() => {
        if (!isWatchlist) state.lists[this.person] = rows;
        if (listed.length) state.watchlist = listed;
        if (isWatchlist) find("#watchlist").checked = true;
      });
    } catch (error) {
      this.say([error.message]);
    }
  }

  say(lines) { this.notes.replaceChildren(...lines.map((line) => make("p", { textContent: line }))); }

  show() {
    const hidden = Math.max(0, this.rows.length - SHOWN_CHIPS), button = (textContent, ariaLabel, act) =>
      make("button", { textContent, ariaLabel, onclick: () => { change(act); this.input.focus({ preventScroll: true }); } });
    this.chips.replaceChildren(...(hidden ? [make("li", { textContent: `${hidden} earlier films` })] : []),
      ...this.rows.slice(hidden).map((row, i) => {
        const place = i + hidden, swap = () => { [this.rows[place - 1], this.rows[place]] = [row, this.rows[place - 1]]; };
        const earlier = state.ordered && place ? [button("◂", `Earlier: ${nameOf(row)}`, swap)] : [];
        return make("li", {}, ...earlier, make("span", { textContent: nameOf(row) }), make("small", { textContent: yearOf(row) }),
          button("×", `Remove ${nameOf(row)}`, () => this.rows.splice(place, 1)));
      }));
  }
}

const pickers = [
  new Picker(find("#you"), 0, "Films you like", "Type a film you like"),
  new Picker(find("#them"), 1, "Films the other one likes", "Type a film the other one likes"),
];

const load = async (name) => (await fetch(`data/${name}`)).json();
[films, settings] = await Promise.all([load("films.json"), load("settings.json")]);
const rowOfToken = [], rowOfId = new Map();  // of films that the network knows
films.token.forEach((token, row) => { if (token) { rowOfToken[token] = row; rowOfId.set(String(films.item[row]), row); } });
const [answer, two, think] = ["#answer", "#two", "#think"].map((part) => find(part));
const say = (section, text) => { find(".status", section).textContent = text; };

// A list of recommendations; the bar is the probability, as a share of the best one's
function list(section, found, more) {
  find(".films", section).replaceChildren(...found.map(({ token, score, ranks }) => {
    const row = rowOfToken[token], bar = make("i", { className: "bar", ariaHidden: "true" });
    bar.style.width = `${100 * Math.exp(score - found[0].score)}%`;
    const because = ranks ? `${place(ranks[0])} for you, ${place(ranks[1])} for the other` : "";
    return make("li", {}, make("div", {}, make("b", { textContent: nameOf(row) }), make("small", { textContent: yearOf(row) }), bar,
      make("small", { textContent: genresOf(row) }), make("small", { className: "because", textContent: because })),
    make("button", { textContent: "+", title: "Add to my films", ariaLabel: `Add ${nameOf(row)} to my films`, onclick: () => add(row) }));
  }));
  const button = find(".more", section);
  if (button) button.hidden = !more;
}

const place = (rank) => `${rank}${rank % 100 > 10 && rank % 100 < 14 ? "th" : { 1: "st", 2: "nd", 3: "rd" }[rank % 10] ?? "th"}`;
const add = (row) => change(() => { if (!state.lists[0].includes(row)) state.lists[0].push(row); });

const map = new FilmMap(find("#map canvas"), rowOfToken.filter((row) => films.x[row] !== null).map((row) => {
  const name = nameOf(row), size = 0.6 + Math.log10(films.ratings[row] + 1) / 2.2;
  const text = `${name} ${films.title[row]} ${films.series_names[films.series[row]]}`.toLowerCase();
  return { row, x: films.x[row], y: 1000 - films.y[row], name, size, text, genre: genresOf(row).split(",")[0] };
}), {
  hover(film, x, y) {
    const tip = find(".tip");
    tip.hidden = !film;
    if (film) Object.assign(tip, { textContent: `${film.name} (${yearOf(film.row)})` }).style.translate = `${x + 12}px ${y + 12}px`;
  },
  pick(film) {
    const facts = film && `${film.name} (${yearOf(film.row)}) · ${genresOf(film.row)} · rated by ${people(films.ratings[film.row])} `;
    find(".picked").replaceChildren(...(film ? [facts, make("button", { textContent: "Add to my films", onclick: () => add(film.row) })] : []));
  },
});
find(".legend").replaceChildren(...map.groups.filter((group) => group.films.length).map(({ genre, color }) => {
  const dot = make("i");
  dot.style.background = color;
  return make("li", {}, dot, genre);
}));

// Change the state, then show it
function change(act = () => {}) {
  act();
  const { lists: [mine, theirs] } = state;
  Object.assign(state, { ordered: find("#ordered").checked, series: find("#series").checked, penalty: Number(find("#penalty").value),
    byRank: find("[value=rank]").checked });
  const watchlist = find("#watchlist").parentElement;
  watchlist.hidden = !state.watchlist;
  if (state.watchlist) find("output", watchlist).textContent = `(${state.watchlist.length})`;
  for (const picker of pickers) picker.show();
  const ids = (rows) => rows.map((row) => encodeURIComponent(films.item[row])).join(",");
  const parts = { you: ids(mine), them: ids(theirs), ordered: Number(state.ordered), series: Number(state.series), penalty: state.penalty };
  history.replaceState(null, "", `#${Object.entries(parts).filter(([, value]) => value && value !== "0").map((part) => part.join("=")).join("&")}`);
  show().catch((error) => say(answer, error.message));
}

let turn = 0;
async function show() {
  const mine = ++turn, [you, them] = state.lists.map(tokensOf), isStale = () => mine !== turn;
  const only = find("#watchlist").checked && state.watchlist ? tokensOf(state.watchlist) : null;
  const options = { asSet: !state.ordered, penalty: state.penalty, excludeSeries: state.series, only };
  let found = [];
  if (!you.length) {
    say(answer, "Type a film, or try an example: ten to watch next appear here.");
    list(answer, []);
    map.show([], []);
  } else {
    found = await ask("recommend", you, state.k, options);
    if (isStale()) return;
    say(answer, found.length ? "" : "Nothing is left to recommend; allow more films.");
    list(answer, found, found.length === state.k && state.k < 30);
    map.show(state.lists[0], found.slice(0, 10).map(({ token }) => rowOfToken[token]));
  }
  if (two.open) await showTwo(you, them, options, isStale);
  if (think.open && !isStale()) await showThoughts();
  const reasons = await ask("reasons", you, found.map(({ token }) => token), options.asSet);
  if (!reasons || isStale()) return;
  answer.querySelectorAll(".because").forEach((line, i) => { line.textContent = `because of ${nameOf(state.lists[0][reasons[i]])}`; });
}

async function showTwo(you, them, options, isStale) {
  const found = you.length && them.length ? await ask("recommendForTwo", [you, them], 10, { ...options, byRank: state.byRank }) : [];
  if (isStale()) return;
  say(two, found.length ? "" : "When both lists have a film, films for both appear here.");
  list(two, found);
}

let thought = null;  // the last one: { rows, layers, gains }
async function showThoughts() {
  const rows = state.lists[0].slice(-LONGEST_THOUGHT);
  if (rows.length < 3) {
    find(".thoughts").replaceChildren();
    say(think, "Choose three films or more, and see what the network looks at.");
    return;
  }
  thought = { rows, ...await ask("think", tokensOf(rows)) };
  drawThoughts(rows);
}

function drawThoughts(order) {
  const { rows, layers, gains } = thought, most = Math.max(...gains.map(Math.abs)), hadFocus = document.activeElement?.dataset.row;
  const heads = layers.flatMap(({ heads }, layer) => heads.map((weights, head) => ({ weights, layer, head })));
  find(".thoughts").replaceChildren(...order.map((row) => {
    const i = rows.indexOf(row), bar = make("i", { className: gains[i] < 0 ? "bar less" : "bar" });
    bar.style.width = `${100 * Math.abs(gains[i]) / most}%`;
    const cells = heads.map(({ weights, layer, head }) => {
      const cell = make("i", { title: `layer ${layer + 1}, head ${head + 1}: ${Math.round(100 * weights[i])} %`, className: head ? "" : "first" });
      cell.style.setProperty("--share", `${Math.round(100 * Math.sqrt(weights[i]))}%`);
      return cell;
    });
    const handle = make("button", { textContent: "⠿", ariaLabel: `Move ${nameOf(row)}: arrow up or down`, onpointerdown: startDrag, onkeydown: keyDrag });
    handle.dataset.row = row;
    return make("div", { className: "thought" }, handle, make("span", { textContent: nameOf(row) }), make("span", { className: "cells" }, ...cells),
      make("span", { className: "gain", title: `contributes ${gains[i].toFixed(2)}` }, bar));
  }), ...layers.filter(({ conv }) => conv !== null).map(({ conv }, layer) => make("p", {
    textContent: `Layer ${layer + 1}: ${Math.round(100 * conv)} % of what is added comes from the convolution over the newest films, the rest from attention.` })));
  if (hadFocus) find(`[data-row="${hadFocus}"]`)?.focus();
  say(think, misleading(rows, heads, gains));
}

// One sentence: where the film that is looked at most contributes least, over all heads or in one of them
function misleading(rows, heads, gains) {
  const highest = (values) => values.indexOf(Math.max(...values)), least = gains.indexOf(Math.min(...gains));
  const mean = rows.map((_, i) => heads.reduce((sum, { weights }) => sum + weights[i], 0) / heads.length);
  const [looked, best] = [highest(mean), highest(gains)], percent = (share) => `${Math.round(100 * share)} %`;
  const name = (i) => `“${nameOf(rows[i])}”`;
  if (looked === least) return `Attention misleads here: ${name(least)} is looked at most, ${percent(mean[least])}, and contributes least; ${name(best)} contributes most.`;
  const head = heads.find(({ weights }) => highest(weights) === least);
  if (head) return `Attention misleads here: head ${head.head + 1} of layer ${head.layer + 1} looks most at ${name(least)}, ${percent(head.weights[least])}, which contributes least of all; ${name(best)} contributes most.`;
  return `Here attention does not mislead: ${name(looked)} is looked at most, ${percent(mean[looked])}, and ${name(least)}, which contributes least, is looked at most by no head.`;
}

function moveTo(row, to) {
  const films = state.lists[0], from = films.indexOf(row), place = Math.min(films.length - 1, Math.max(0, to));
  if (from < 0 || from === place) return;
  films.splice(place, 0, ...films.splice(from, 1));
  drawThoughts(films.slice(-LONGEST_THOUGHT));  // at once with the old numbers; the new ones follow
  change();
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

// What the address says
function fromAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  state.lists = ["you", "them"].map((person) => [...new Set((parts.get(person) ?? "").split(",").map((id) => rowOfId.get(id)))].filter((row) => row !== undefined));
  find("#ordered").checked = parts.get("ordered") === "1";
  find("#series").checked = parts.get("series") === "1";
  find("#penalty").value = parts.get("penalty") ?? 0;
  if (state.lists[1].length) two.open = true;
  change();
}

for (const box of document.querySelectorAll(".options input")) box.oninput = () => change();
for (const section of [two, think]) section.ontoggle = () => { if (section.open) change(); };
for (const button of document.querySelectorAll("[data-example]")) {
  button.onclick = () => change(() => { state.lists[0] = button.dataset.example.split(",").flatMap((id) => rowOfId.get(id) ?? []); });
}
for (const button of document.querySelectorAll("[data-zoom]")) button.onclick = () => map.zoom(Number(button.dataset.zoom) || 1e-9);
find("#map [type=search]").oninput = ({ target }) => map.search(target.value);
find(".more").onclick = () => change(() => { state.k += 10; });
find("#share").onclick = async ({ target }) => {
  await navigator.clipboard.writeText(location.href);
  target.textContent = "Copied";
};
addEventListener("hashchange", fromAddress);
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => find("#you").ondrop(event));
const count = rowOfToken.filter(() => true).length.toLocaleString("en");
find("#about").textContent = `The network is ${settings.name} (${settings.recipe}), with ${count} films that five people or more have rated.`;
fromAddress();
