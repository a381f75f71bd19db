"""Watched films in a file: exports of Letterboxd, IMDb, Trakt and Netflix, or a list of titles."""

import io
import json
import logging
import re
import warnings
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import pandas as pd

from .titles import TitleIndex

# Columns of exports, in small letters without spaces; the first that is there counts
NAMES = ("name", "title")
DATES = ("watcheddate", "watchedat", "lastwatchedat", "daterated", "ratedat", "created", "date")
LETTERBOXD = ("diary.csv", "watched.csv", "ratings.csv")  # of a whole export; the first that has a film tells its day
TRAKT_HISTORY = re.compile(r"(?:watched-)?history(?:-\d+)?\.json")
BULLET = re.compile(r"^(?:\d+[.)]|[-*•])\s+")
NETFLIX_EPISODE = re.compile(r": (?:(?:Season|Series|Volume|Book|Chapter) \d+|Limited Series|Miniseries):")


def read_history(path: str | Path) -> list[str]:
    """Titles with their years, `Name (Year)`, oldest first and each once: what `Recommender.look_up` takes.

    Read are .csv and .tsv with a column Name or Title, and Year and a date if they are there (commas, semicolons or
    tabs): exports of Letterboxd (diary, watched, ratings, a list, the layout of its importer), of IMDb (ratings, old
    and new), of Trakt (watched_at, title, year) and Netflix's viewing history, both without episodes of series; Trakt's
    .json of films; a .zip that is Letterboxd's whole export: the films of its diary, watched and ratings, each on the
    first day that the diary has for it, else the others'; or Trakt's: the films of its history, else those watched; or
    that holds one .csv. Any other file is a list with one title a line; numbers and dashes before it and lines that
    begin with `# ` are dropped. Text is UTF-8 or Windows-1252.

    Whether 3/4/2020 is in March or in April is told by the whole column. A warning is logged if nothing tells it, or if
    titles have no date: they come first, in the file's order. FileNotFoundError, or ValueError if the file is damaged,
    other JSON, or has other columns or no titles.
    """
    path = Path(path)
    watched = _read(path.read_bytes(), path)
    watched = _oldest_first(watched[~watched.is_episode])
    if watched.empty:
        raise ValueError(f"{path} holds no titles; write one a line, oldest first")
    if undated := int(watched.date.isna().sum()):
        some = "it has no dates" if undated == len(watched) else f"{undated:,} of {len(watched):,} titles have no date"
        logging.getLogger(__name__).warning("%s: %s; these are taken in the order of the file", path, some)
    return watched.title.tolist()


def read_titles(path: str | Path, index: TitleIndex, only_films: bool = True) -> list[str]:
    """The titles of a list without order, in the files that `read_history` reads; [] for an empty file.

    A line that is a title of the `index` is taken whole. With `only_films`, episodes of series are left out, and a
    warning with their number is logged; else nothing is taken for an episode, and a title that the `index` has without
    its year comes without. Raises as `read_history` does.
    """
    path = Path(path)
    data = path.read_bytes()
    if not data.strip(b"\xef\xbb\xbf \t\r\n"):
        return []
    listed = _read(data, path, index)
    if not only_films:
        is_title, is_bare = (listed[column].map(index.titled).astype(bool) for column in ("title", "name"))
        listed = listed.assign(title=listed.title.where(is_title | ~is_bare, listed.name))
    elif episodes := int(listed.is_episode.sum()):
        problem = "%s: titles that are taken for episodes of series (left out): %s"
        logging.getLogger(__name__).warning(problem, path, f"{episodes:,}")
        listed = listed[~listed.is_episode]
    return _oldest_first(listed).title.tolist()


def _read(data: bytes, path: Path, index: TitleIndex | None = None) -> pd.DataFrame:
    return _from_archive(data, path) if path.suffix.lower() == ".zip" else _from_file(data, path, index)


def _oldest_first(watched: pd.DataFrame) -> pd.DataFrame:
    return watched.drop_duplicates("title").sort_values("date", kind="stable", na_position="first")


def _from_archive(data: bytes, path: Path) -> pd.DataFrame:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            small = [file for file in archive.infolist() if file.file_size < 2**24]
            small = [file for file in small if file.filename.endswith((".csv", ".json"))]
            files = {PurePosixPath(file.filename): archive.read(file) for file in small}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:  # zipfile's, of damaged ones
        raise ValueError(f"{path} is no whole archive ({error}); export it again") from error
    files = {name: file for name, file in files.items() if name.parts[0] not in ("deleted", "orphaned")}
    history = [name for name in files if TRAKT_HISTORY.fullmatch(name.name)]
    if trakt := history or [name for name in files if name.name == "watched-movies.json"]:
        return _from_trakt([files[name] for name in trakt], path)
    files = {name: content for name, content in files.items() if name.suffix == ".csv"}
    chosen = [name for wanted in LETTERBOXD for name in files if name.name == wanted]
    if not chosen and len(files) != 1:
        wanted = f"none of {', '.join(LETTERBOXD)}, as Letterboxd's whole export has, and not one .csv alone"
        raise ValueError(f"{path} holds {wanted}; unpack it, and read the file with your history")
    return pd.concat([_from_file(files[name], path / name) for name in chosen or files])


def _from_trakt(files: list[bytes], path: Path) -> pd.DataFrame:
    """The films of lists of `{"watched_at": ..., "movie": {"title": ..., "year": ...}}`; episodes have no movie."""
    try:
        entries = [entry for data in files for entry in json.loads(data) if "movie" in entry]
        dates = [entry.get("watched_at") or entry.get("last_watched_at") or entry.get("rated_at") for entry in entries]
        films = [(entry["movie"].get("title") or "", entry["movie"].get("year") or "") for entry in entries]
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        advice = "ask for CSV, or write its titles into a text file, one a line, oldest first"
        raise ValueError(f"{path} is JSON, but no list of films as Trakt has it ({error}); {advice}") from error
    table = pd.DataFrame(films, columns=["title", "year"]).assign(watchedat=dates).fillna("").astype(str)
    return _films(table, path)


def _from_file(data: bytes, path: Path, index: TitleIndex | None = None) -> pd.DataFrame:
    """The titles of a file, those of a table by date as in `_films`, whose columns it has. A line of a text that is a
    title of the `index` is taken whole."""
    if path.suffix.lower() == ".json":
        return _from_trakt([data], path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    if "\0" in text:
        raise ValueError(f"{path} is no text; save it as CSV in UTF-8")
    if path.suffix.lower() in (".csv", ".tsv"):
        return _from_table(text, path)
    lines = [line.strip() for line in text.split("\n")]
    whole = {line for line in lines if index and index.titled(line)}
    told = [line for line in lines if line in whole or (line and not line.startswith("# "))]
    titles = [line if line in whole else BULLET.sub("", line, count=1) for line in told]
    dates = pd.to_datetime([""] * len(titles), utc=True)
    return pd.DataFrame({"title": titles, "name": titles, "date": dates, "is_episode": False})


def _from_table(text: str, path: Path) -> pd.DataFrame:
    lines = text.split("\n")
    headers = [re.split("[,;\t]", re.sub(r'[\s_"]', "", line.lower().replace("\t", ";"))) for line in lines[:20]]
    # a list of Letterboxd's begins with a table about itself, which has no year
    start = next((number for number, header in enumerate(headers) if "year" in header), 0)
    separator = next((letter for letter in lines[start] if letter in ",;\t"), ",")
    if not set(NAMES) & set(headers[start]):
        needed = "no columns Name and Year (Letterboxd) or Title and Year (IMDb)"
        advice = "or write one title or id:2707 a line into a .txt"
        raise ValueError(f"{path} has {needed}; it begins with {lines[start].strip()[:80]!r}; {advice}")
    body = io.StringIO("\n".join(lines[start:]))
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):  # of rows that are too long
            table = pd.read_csv(body, sep=separator, dtype=str, keep_default_na=False, index_col=False).fillna("")
        table = table.set_axis(headers[start], axis=1).loc[:, lambda table: ~table.columns.duplicated()]
    except (ValueError, pd.errors.ParserWarning) as error:
        raise ValueError(f"{path} is no whole CSV ({error}); export it again") from error
    return _films(table, path)


def _films(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Of a table of texts: title (with its year), name (without), date (NaT for none) and is_episode. By date, of one
    day the first viewing first; then undated ones; episodes last."""
    empty = pd.Series("", table.index, dtype=str)
    found = (next((table[name] for name in usual if name in table), empty) for usual in (NAMES, DATES))
    names, dates = (column.str.strip() for column in found)
    years = table.get("year", empty).str.extract(r"(\d{4})")[0]
    is_episode = table.get("type", table.get("titletype", empty)).str.contains("episode", case=False)
    if "year" not in table:
        is_episode |= names.str.contains(NETFLIX_EPISODE)
    titles = names.where(years.isna(), names + " (" + years + ")")
    columns = {"title": titles, "name": names, "date": _days(dates, path), "is_episode": is_episode}
    watched = pd.DataFrame(columns)[names != ""]
    watched, episodes = watched[~watched.is_episode], watched[watched.is_episode]
    dated = watched[watched.date.notna()]
    newest_first = dated.date.is_monotonic_decreasing and not dated.date.is_monotonic_increasing
    dated = dated[::-1] if newest_first else dated  # reversed, for of one day the last comes first, too
    return pd.concat([dated.sort_values("date", kind="stable"), watched[watched.date.isna()], episodes])


def _days(texts: pd.Series, path: Path) -> pd.Series:
    """The days that texts of any spelling mean, NaT for none."""
    numbers = texts.str.extract(r"^\s*(\d{1,2})[/.-](\d{1,2})[/.-]").astype("float")
    is_open, (firsts, seconds) = numbers[0].notna(), (numbers > 12).any()
    with warnings.catch_warnings(action="ignore"):  # of a day above 12 where pandas expects a month
        dates, swapped = (
            pd.to_datetime(texts, format="mixed", dayfirst=day_first, errors="coerce", utc=True)
            for day_first in (False, True)
        )
    swapped = swapped.where(is_open, dates)
    orders = [days.sort_values(kind="stable").index for days in (dates, swapped)]
    if firsts == seconds and not orders[0].equals(orders[1]):
        problem = "%s: nothing tells whether dates such as %s begin with the month or the day; the month is taken"
        logging.getLogger(__name__).warning(problem, path, texts[is_open].iloc[0])
    return swapped if firsts and not seconds else dates
