// bertrec_utils/scenarios/titles.py for the browser: finds a film however people write its title.

const ARTICLES = "the|a|an|le|la|les|un|une|il|lo|gli|una|uno|el|los|las|der|das|det|ett|het";
const ALSO_WORDS = "i|o|os|as|die|den|en|de";  // articles only behind a name: `Vitelloni, I`, but `I Spy`
const ARTICLE_BEFORE = new RegExp(`^(?:(?:${ARTICLES}) |l')(?=\\S)`);
const ARTICLE_BEHIND = new RegExp(`^(.+), ?(${ARTICLES}|${ALSO_WORDS}|l')$`);
const YEAR = /\s*\((\d{4})(?:\s*[-–]\s*(?:\d{4})?)?\)\s*$/;
const TYPED_YEAR = /\s+\(?(\d{4})\)?\s*$/;
const LAST_PARENTHESES = /(?<=\S)\s+\(((?:[^()]|\([^()]*\))*)\)\s*$/;
const ALSO_KNOWN_AS = /^\s*a\.?k\.?a\.?\s+/i;
const NUMBERS = ["one two three four five six seven eight nine ten", "i ii iii iv v vi vii viii ix x"];
const FIGURES = new Map(NUMBERS.flatMap((words) => words.split(" ").map((word, i) => [word, String(i + 1)])));
const NUMERAL = new RegExp(`(?<=[\\p{L}\\p{N}_] )(?:${[...FIGURES.keys()].join("|")})(?![\\p{L}\\p{N}_])`, "gu");
const SUBTITLE = /: | [-–] /g;
const NUMBER = /[: ]+(?:(?:part|chapter|episode) )?(?:\d+|[ivx]+)(?:: | [-–] )/gi;
const WHOSE = /^(?:\S+ ){0,3}\S*(?:'s|s') /;  // `Monty Python's Life of Brian`
const LONGEST = 500;  // letters of a title that are looked at
const PLAIN = { ø: "o", ł: "l", đ: "d", æ: "ae", œ: "oe", "&": " and ", "+": " and ", "'": "" };

const caseFold = (text) => text.toLowerCase().replaceAll("ß", "ss").replaceAll("ς", "σ");

// A title without its `(Year)`, and the year if it has one; the first of several years, as in `(2006-2010)`
export function splitYear(title) {
  const start = title.slice(0, LONGEST), year = YEAR.exec(start);
  return year ? [start.slice(0, year.index), Number(year[1])] : [start, null];
}

// The names in a title: the whole without the year, the main name, then the aliases in parentheses at the end
export function namesOf(title) {
  const whole = splitYear(title)[0].trim(), aliases = [];
  let main = whole;
  for (let last; (last = LAST_PARENTHESES.exec(main)); main = main.slice(0, last.index)) {
    aliases.unshift(last[1].replace(ALSO_KNOWN_AS, "").trim());
  }
  return [...new Set([whole, main, ...aliases])].filter(Boolean);
}

// A title as people say it: the main name, its article in front
export function displayName(title) {
  const name = namesOf(title).slice(0, 2).at(-1) ?? title;
  return name.replace(new RegExp(`^(.+), (${ARTICLES}|${ALSO_WORDS})$`, "i"), "$2 $1").replace(/^(.+), (l')$/i, "$2$1");
}

// The words of a name, one space between them: no accents, case or punctuation
function normalise(name) {
  const letters = caseFold(name).replace(/[øłđæœ&+']/g, (letter) => PLAIN[letter]);
  const words = /[^\0-\x7f]/.test(letters)
    ? letters.normalize("NFKD").replace(/\p{M}/gu, "").match(/[\p{L}\p{N}]+/gu) : letters.match(/[a-z0-9]+/g);
  return words ? words.join(" ") : name;
}

// Four forms of a name to look up, from strict to tolerant: in small letters, its article in front; that normalised;
// without the article; without spaces and with numbers in figures too
export function spellings(given) {
  let name = caseFold(given).replaceAll("’", "'").trim().replace(/\s+/g, " ");
  let bare = name.replace(ARTICLE_BEFORE, "");
  const behind = ARTICLE_BEHIND.exec(name);
  if (behind) {
    bare = behind[1];
    name = behind[2] === "l'" ? behind[2] + bare : `${behind[2]} ${bare}`;
  }
  const words = normalise(bare);
  const squeezed = words.replace(NUMERAL, (number) => FIGURES.get(number)).replaceAll(" ", "");
  return [name, bare === name ? words : normalise(name), words, squeezed];
}

// What people shorten a name to: without the number before its subtitle, without the subtitle, and, if that leaves two
// words, the subtitle alone and the name without its owner
function shortNames(name) {
  const [subtitle] = name.matchAll(SUBTITLE), whose = WHOSE.exec(name);
  const shorter = subtitle ? [name.replace(NUMBER, ": "), name.slice(0, subtitle.index)] : [];
  const found = [...name.matchAll(SUBTITLE), ...(whose ? [whose] : [])];
  const rests = found.map(({ index, 0: part }) => name.slice(index + part.length));
  return [...shorter, ...rests.filter((rest) => rest.includes(" "))];
}

// The words of a title without year, aliases and article; "" if there are none
function bareWords(title) {
  const name = namesOf(title).slice(0, 2).at(-1);
  const words = name ? spellings(name)[2] : "";
  return /^[\p{L}\p{N} ]+$/u.test(words) ? words : "";
}

// A part of a title is as alike to a needle as their longest common subsequence is long: rapidfuzz's `partial_ratio`
class Needle {
  constructor(needle) {
    this.needle = needle;
    this.letters = Array.from({ length: needle.length }, (_, i) => needle.charCodeAt(i));
    this.isIn = new Set(this.letters);
    this.row = new Uint16Array(needle.length + 1);
  }

  // The length of the longest subsequence that the needle and a part of a text have in common
  common(text, from, to) {
    const { letters, row } = this, size = letters.length;
    row.fill(0);  // row[i]: of the first i letters of the needle and the text so far
    for (let j = from; j < to; j++) {
      const letter = text.charCodeAt(j);
      for (let i = 0, before = 0; i < size; i++) {
        const above = row[i + 1];
        if (letters[i] === letter) row[i + 1] = before + 1;
        else if (row[i] > above) row[i + 1] = row[i];
        before = above;
      }
    }
    return row[size];
  }

  // The best ratio, if it is 80 or more, of the needle and a part of a text that is not shorter: twice what is common, as
  // a share of both lengths, from 0 to 100. Parts are as long as the needle, or shorter at the text's ends, and end (or,
  // at its end, begin) with one of its letters.
  bestPart(text) {
    const size = this.letters.length, last = text.length - size;
    let best = 0;
    if (3 * this.common(text, 0, text.length) < 2 * size) return best;  // then no part has enough in common
    const look = (from, to, end) => {
      const alike = this.isIn.has(text.charCodeAt(end)) ? this.common(text, from, to) : 0;
      best = Math.max(best, 200 * alike / (size + to - from));
    };
    for (let to = 1; to < size; to++) look(0, to, to - 1);
    for (let from = 0; from < last; from++) look(from, from + size, from + size - 1);
    for (let from = last; from < text.length; from++) look(from, text.length, from);
    return best;
  }
}

function partialRatio(needle, text) {
  const size = needle.letters.length, swapped = () => new Needle(text).bestPart(needle.needle);
  return size > text.length ? swapped() : Math.max(needle.bestPart(text), size === text.length ? swapped() : 0);
}

// Which letters a text has, a bit for each (some share one)
const letterMask = (text) => {
  let mask = 0;
  for (let i = 0; i < text.length; i++) mask |= 1 << (text.charCodeAt(i) & 31);
  return mask;
};

const byFilm = (a, b) => a.alias - b.alias || a.popularity - b.popularity || a.row - b.row;

// Finds films by title, whatever the article, year, alias, accents or case: see `TitleIndex` in Python, whose rules
// these are. A film is its row in `films` (data/films.json).
export class TitleIndex {
  constructor({ item, title, token, ratings, aliases }) {
    Object.assign(this, { items: item, titles: title, tokens: token });
    this.ids = new Map(item.map((id, row) => [String(id), row]));
    this.years = title.map((name) => splitYear(name)[1]);
    this.lastYear = this.years.reduce((last, year) => Math.max(last, year ?? 0), 0);
    this.sameTitle = new Map();
    this.films = [new Map(), new Map(), new Map(), new Map()];  // for each spelling: the films that have it
    this.shortened = new Map();
    const push = (map, key, value) => { map.get(key)?.push(value) ?? map.set(key, [value]); };
    title.forEach((name, row) => push(this.sameTitle, name, row));
    title.forEach((full, row) => {
      const names = namesOf(full), own = Math.min(names.length, 2);
      for (const alias of (names.length && aliases[`${names[own - 1]} (${this.years[row]})`]) || []) {
        names.push(alias);
        if (splitYear(alias)[1]) push(this.sameTitle, alias, row);
      }
      names.forEach((name, number) => {
        const film = { alias: Number(number >= own), popularity: -ratings[row], row };
        spellings(name).forEach((spelling, i) => push(this.films[i], spelling, film));
        for (const short of shortNames(name)) push(this.shortened, spellings(short)[3], row);
      });
    });
    this.names = [...this.films[2].keys()];
    this.letters = this.names.map((name) => name.replaceAll(" ", ""));
    for (const films of this.films[2].values()) films.sort(byFilm);
    this.popularity = new Map(this.names.map((name) => [name, this.films[2].get(name)[0].popularity]));
    this.masks = this.names.map(letterMask);
  }

  // { row } of a title, or { problem } in words. Of several films, the one that the network knows is meant.
  find(title) {
    if (title.startsWith("id:") && this.ids.has(title.slice(3).trim())) return { row: this.ids.get(title.slice(3).trim()) };
    let found = this.sameTitle.get(title) ?? this.fitting(title);
    const known = found.filter((row) => this.tokens[row]);
    if (known.length) found = known;
    const ids = found.slice(0, 5).map((row) => `id:${this.items[row]}`).join(", ");
    if (found.length > 1) return { problem: `“${title}” is the title of ${found.length} items; name one by its id: ${ids}` };
    if (found.length && !known.length) return { problem: `“${title}” has too few ratings for the network to know it` };
    if (found.length) return { row: found[0] };
    const year = splitYear(title)[1];
    if (year && this.lastYear && year > this.lastYear) {
      return { problem: `“${title}” is newer than this data, whose last film is of ${this.lastYear}` };
    }
    return { problem: `“${title}” is not a title here${this.ids.has(title) ? `, but an id; write id:${title}` : ""}` };
  }

  // The rows that fit a title best, alike
  fitting(title) {
    const year = splitYear(title)[1], names = namesOf(title);
    for (const name of names) {  // an alias counts only if the names before it are unknown
      const candidates = spellings(name).flatMap((spelling, tolerance) => (this.films[tolerance].get(spelling) ?? [])
        .filter((film) => this.titles[film.row] !== String(this.items[film.row]))
        .map((film) => ({ ...film, tolerance, off: this.yearsOff(film.row, year) })));
      candidates.sort((a, b) => a.off - b.off || a.tolerance - b.tolerance || byFilm(a, b));
      const [best] = candidates;
      if (best?.off > 1 || !best) continue;
      const isAlike = (film) => film.off === best.off && film.tolerance === best.tolerance && film.alias === best.alias;
      return year ? [...new Set(candidates.filter(isAlike).map((film) => film.row))] : [best.row];
    }
    for (const name of year ? names.slice(0, 2) : []) {
      const spelling = spellings(name.replace(NUMBER, ": "))[3];
      const rows = new Set((this.films[3].get(spelling) ?? []).map((film) => film.row));
      for (const row of this.shortened.get(spelling) ?? []) rows.add(row);
      if (rows.size === 1 && this.years[[...rows][0]] === year) return [...rows];
    }
    return [];
  }

  // How many years a film is from the year asked for: 0 if none was asked for, 1 if the film has none
  yearsOff(row, year) {
    return year === null ? 0 : this.years[row] === null ? 1 : Math.abs(this.years[row] - year);
  }

  // Up to `count` films that the network knows while a title is being typed: names that begin so or contain it, then
  // misspelt ones. A year at the end puts the films of that year first.
  suggest(typed, count = 8) {
    const isKnown = (row) => this.tokens[row];
    if (typed.startsWith("id:")) return [this.ids.get(typed.slice(3).trim()) ?? []].flat().filter(isKnown);
    const start = typed.slice(0, LONGEST);
    let year = TYPED_YEAR.exec(start);
    if (year && !year[0].includes("(") && this.containing(bareWords(start)).length) year = null;  // as in Blade Runner 2049
    const wanted = bareWords(year ? start.slice(0, year.index) : start);
    if (!wanted) return [];
    const needle = new Needle(wanted), films = this.films[2], places = Array.from(wanted, letterMask), similar = [];
    this.names.forEach((name, i) => {
      let missing = 0;  // with so many letters that are nowhere in the name, no part of it can be like what is wanted
      for (const place of places) missing += (place & this.masks[i]) !== place;
      if (name.length < wanted.length - 2 || (3 * missing > wanted.length && name.length >= wanted.length)) return;
      const score = partialRatio(needle, name);
      if (score >= 80) similar.push({ name, score });
    });
    similar.sort((a, b) => b.score - a.score || this.popularity.get(a.name) - this.popularity.get(b.name));
    const names = [...this.containing(wanted), ...similar.map(({ name }) => name)];
    const rows = [...new Set(names.flatMap((name) => films.get(name).map((film) => film.row)))];
    if (year) rows.sort((a, b) => (this.years[a] !== Number(year[1])) - (this.years[b] !== Number(year[1])));
    return rows.slice(0, 20 * count).filter(isKnown).slice(0, count);
  }

  // Names that contain `wanted`: itself, then those that begin with its words, then the most rated first
  containing(wanted) {
    const letters = wanted.replaceAll(" ", "");  // and begin with whole words, so that `E.T.` is no start of `Eternal`
    const order = (name) =>
      name === wanted ? 0 : `${name} `.startsWith(`${wanted} `) ? 1 : name.startsWith(wanted) ? 2 : 3;
    const found = this.names.filter((_, i) => this.letters[i].includes(letters))
      .map((name) => ({ name, order: order(name), popularity: this.popularity.get(name) }));
    return found.sort((a, b) => a.order - b.order || a.popularity - b.popularity).map(({ name }) => name);
  }
}
