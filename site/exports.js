// `read_history` of bertrec_utils/scenarios/watch_history.py for the browser: exports of Letterboxd, IMDb, Trakt and Netflix, whole
// archives, and plain lists. A file is read where it is; nothing of it leaves the browser.

const NAMES = ["name", "title"];  // of columns, in small letters without spaces; the first that is there counts
const DATES = ["watcheddate", "watchedat", "lastwatchedat", "daterated", "ratedat", "created", "date"];
const LETTERBOXD = ["diary.csv", "watched.csv", "ratings.csv"];  // of a whole export; the first that has a film tells its day
const TRAKT_HISTORY = /^(?:watched-)?history(?:-\d+)?\.json$/;
const BULLET = /^(?:\d+[.)]|[-*•])\s+/;
const NETFLIX_EPISODE = /: (?:(?:Season|Series|Volume|Book|Chapter) \d+|Limited Series|Miniseries):/;

// { titles, watchlist, notes } of a file given by its name and an ArrayBuffer: `Name (Year)`, oldest first and each once;
// the watchlist of a whole export of Letterboxd, else none; and what should be known of it. Throws an Error that says why
// a file cannot be read.
export async function readHistory(path, buffer) {
  const notes = [];
  const read = /\.zip$/i.test(path) ? fromArchive : fromFile;
  const { films, watchlist = [] } = await read(path, buffer, notes);
  const once = new Map();
  for (const film of films) if (!once.has(film.title)) once.set(film.title, film);
  const watched = byDate([...once.values()], -Infinity);
  if (!watched.length) throw new Error(`${path} holds no titles; write one a line, oldest first`);
  const undated = watched.filter((film) => film.date === null).length;
  if (undated) {
    const some = undated === watched.length ? "it has no dates" : `${undated} of ${watched.length} titles have no date`;
    notes.push(`${path}: ${some}; these are taken in the order of the file`);
  }
  return { titles: watched.map((film) => film.title), watchlist: watchlist.map((film) => film.title), notes };
}

const byDate = (films, none = Infinity) => films.toSorted((a, b) => {
  const [first, second] = [a.date ?? none, b.date ?? none];
  return first < second ? -1 : Number(first > second);
});

async function fromArchive(path, buffer, notes) {
  const files = await unzip(path, buffer);
  for (const name of files.keys()) if (/^(deleted|orphaned)\//.test(name)) files.delete(name);
  const called = (test) => [...files.keys()].filter((name) => test(name.split("/").at(-1)));
  let trakt = called((name) => TRAKT_HISTORY.test(name));
  if (!trakt.length) trakt = called((name) => name === "watched-movies.json");
  if (trakt.length) return { films: fromTrakt(path, trakt.map((name) => decode(path, files.get(name))), notes) };
  const chosen = LETTERBOXD.flatMap((wanted) => called((name) => name === wanted));
  const tables = called((name) => name.endsWith(".csv"));
  if (!chosen.length && tables.length !== 1) {
    const wanted = `none of ${LETTERBOXD.join(", ")}, as Letterboxd's whole export has, and not one .csv alone`;
    throw new Error(`${path} holds ${wanted}; unpack it, and read the file with your history`);
  }
  const readAll = (names) => names.flatMap((name) => fromFile(`${path}/${name}`, files.get(name), notes).films);
  const watchlist = called((name) => name === "watchlist.csv" && chosen.length);
  return { films: readAll(chosen.length ? chosen : tables), watchlist: readAll(watchlist) };
}

// The .csv and .json files of an archive, by name, as ArrayBuffers
async function unzip(path, buffer) {
  try {
    const view = new DataView(buffer), files = new Map();
    let end = buffer.byteLength - 22;
    while (view.getUint32(end, true) !== 0x06054b50) end--;
    for (let i = view.getUint16(end + 10, true), at = view.getUint32(end + 16, true); i; i--) {
      if (view.getUint32(at, true) !== 0x02014b50) throw new Error("a part of its list is missing");
      const [packed, size] = [20, 24].map((offset) => view.getUint32(at + offset, true));
      const [nameLength, extra, comment] = [28, 30, 32].map((offset) => view.getUint16(at + offset, true));
      const name = new TextDecoder().decode(new Uint8Array(buffer, at + 46, nameLength));
      const head = view.getUint32(at + 42, true);
      const start = head + 30 + view.getUint16(head + 26, true) + view.getUint16(head + 28, true);
      const data = new Blob([buffer.slice(start, start + packed)]);
      if (/\.(csv|json)$/.test(name) && size < 2 ** 24) {
        const isPacked = view.getUint16(at + 10, true) === 8;
        const stream = isPacked ? data.stream().pipeThrough(new DecompressionStream("deflate-raw")) : data.stream();
        files.set(name, await new Response(stream).arrayBuffer());
      }
      at += 46 + nameLength + extra + comment;
    }
    return files;
  } catch (error) {
    throw new Error(`${path} is no whole archive (${error.message}); export it again`);
  }
}

function decode(path, buffer) {
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(buffer);
  } catch {
    text = new TextDecoder("windows-1252").decode(buffer);
  }
  if (text.includes("\0")) throw new Error(`${path} is no text; save it as CSV in UTF-8`);
  return text;
}

function fromFile(path, buffer, notes) {
  const text = decode(path, buffer);
  if (/\.json$/i.test(path)) return { films: fromTrakt(path, [text], notes) };
  if (/\.[ct]sv$/i.test(path)) return { films: fromTable(path, text, notes) };
  const lines = text.split("\n").map((line) => line.trim()).filter((line) => line && !line.startsWith("# "));
  return { films: lines.map((line) => ({ title: line.replace(BULLET, ""), date: null })) };
}

// The films of lists of {"watched_at": ..., "movie": {"title": ..., "year": ...}}; episodes have no movie
function fromTrakt(path, texts, notes) {
  let rows;
  try {
    const entries = texts.flatMap((text) => JSON.parse(text)).filter((entry) => "movie" in entry);
    rows = entries.map(({ movie, watched_at, last_watched_at, rated_at }) => {
      if (typeof movie !== "object") throw new Error("a movie is no object");
      const watchedat = watched_at || last_watched_at || rated_at || "";
      return { title: movie.title || "", year: String(movie.year || ""), watchedat };
    });
  } catch (error) {
    const advice = "ask for CSV, or write its titles into a text file, one a line, oldest first";
    throw new Error(`${path} is JSON, but no list of films as Trakt has it (${error.message}); ${advice}`);
  }
  return toFilms(path, rows, ["title", "year", "watchedat"], notes);
}

function fromTable(path, text, notes) {
  const lines = text.split("\n");
  const headers = lines.slice(0, 20).map((line) =>
    line.toLowerCase().replaceAll("\t", ";").replace(/[\s_"]/g, "").split(/[,;]/));
  // a list of Letterboxd's begins with a table about itself, which has no year
  const start = Math.max(0, headers.findIndex((header) => header.includes("year"))), columns = headers[start];
  if (!NAMES.some((name) => columns.includes(name))) {
    const needed = "no columns Name and Year (Letterboxd) or Title and Year (IMDb)";
    const advice = "or write one title or id:2707 a line into a .txt";
    throw new Error(`${path} has ${needed}; it begins with “${lines[start].trim().slice(0, 80)}”; ${advice}`);
  }
  const [, ...cells] = parseTable(path, lines.slice(start).join("\n"), /[,;\t]/.exec(lines[start])?.[0] ?? ",");
  const rows = cells.map((row) => Object.fromEntries(columns.map((name, i) => [name, row[i] ?? ""]).reverse()));
  if (cells.some((row) => row.slice(columns.length).some(Boolean))) {
    throw new Error(`${path} is no whole CSV (a row is too long); export it again`);
  }
  return toFilms(path, rows, columns, notes);
}

// The cells of a CSV file, row by row, without empty lines; a cell in quotes may hold anything, a quote twice
function parseTable(path, text, separator) {
  const rows = [[]];
  const plain = `[^${separator}\\r\\n]*`, end = `${separator}|\\r?\\n|\\r|$`;
  const cell = new RegExp(`(?:"((?:[^"]|"")*)"(${plain})|((?!")${plain}))(${end})`, "y");
  while (cell.lastIndex < text.length) {
    const found = cell.exec(text);
    if (!found) throw new Error(`${path} is no whole CSV (a quote is not closed); export it again`);
    rows.at(-1).push(found[1] === undefined ? found[3] : found[1].replaceAll('""', '"') + found[2]);
    if (found[4] !== separator) rows.push([]);
  }
  return rows.filter((row) => row.length > 1 || row[0]?.trim());
}

// Titles with their years, and dates, without episodes: oldest first if the rows are newest first
function toFilms(path, rows, columns, notes) {
  const column = (names) => names.find((name) => columns.includes(name));
  const [name, date, type] = [NAMES, DATES, ["type", "titletype"]].map(column);
  const days = toDays(path, rows.map((row) => (row[date] ?? "").trim()), notes);
  const films = rows.map((row, i) => {
    const title = row[name].trim(), year = /\d{4}/.exec(row.year ?? "")?.[0];
    const isEpisode = /episode/i.test(row[type] ?? "") || (row.year === undefined && NETFLIX_EPISODE.test(title));
    return { title: title && year ? `${title} (${year})` : title, date: days[i], isFilm: title && !isEpisode };
  }).filter((film) => film.isFilm);
  const dated = films.filter((film) => film.date !== null), undated = films.filter((film) => film.date === null);
  const steps = dated.slice(1).map((film, i) => film.date - dated[i].date);
  const isNewestFirst = steps.every((step) => step <= 0) && steps.some((step) => step < 0);
  return [...byDate(isNewestFirst ? dated.reverse() : dated), ...undated];  // for of one day the last comes first, too
}

// The days that texts of any spelling mean, in milliseconds, null for none. Whether 3/4/2020 is in March or in April is
// told by the whole column.
function toDays(path, texts, notes) {
  const open = texts.map((text) => /^(\d{1,2})[/.-](\d{1,2})[/.-](\d{2,4})/.exec(text)?.slice(1).map(Number));
  const parse = (text, numbers, dayFirst) => {
    let time;
    if (numbers) {
      const [first, second, year] = numbers, isDay = first > 12 || (dayFirst && second <= 12);
      const [day, month] = isDay ? [first, second] : [second, first];
      time = month > 12 || day > 31 ? NaN : Date.UTC(year < 100 ? 2000 + year : year, month - 1, day);
    } else {
      time = Date.parse(text);  // a day alone is one of UTC
    }
    return Number.isNaN(time) ? null : time;
  };
  const [dates, swapped] = [false, true].map((dayFirst) => texts.map((text, i) => parse(text, open[i], dayFirst)));
  const [firsts, seconds] = [0, 1].map((part) => open.some((numbers) => numbers?.[part] > 12));
  const [order, other] = [dates, swapped].map((days) => byDate(days.map((date, i) => ({ date, i }))).map(({ i }) => i));
  if (firsts === seconds && order.some((row, i) => row !== other[i])) {
    const example = texts[open.findIndex(Boolean)];
    notes.push(`${path}: nothing tells whether dates such as ${example} begin with the month or the day; the month is taken`);
  }
  return firsts && !seconds ? swapped : dates;
}
