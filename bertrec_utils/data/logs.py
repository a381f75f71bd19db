"""Reads rating logs, GroupLens's own files or a CSV of yours, by pandas' fast parser; what that refuses is read again
line by line, to name the line."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

RATING_TYPES = {"user": "int32", "item": "int32", "rating": "float32", "timestamp": "int64"}
ML_100K_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
Lines = Iterator[tuple[int, str]]  # numbers and texts
UNREADABLE = re.compile("[\0\udc80-\udcff]")  # NUL, and what "surrogateescape" makes of bytes that are no text


@dataclass(frozen=True)
class Interactions:
    """A rating log: `.ratings` (user, item, rating, timestamp; in file order) and `.items` (item, title, genres)."""

    name: str
    ratings: pd.DataFrame
    items: pd.DataFrame
    noun: str = "film"  # what one of the items is called on screen

    def item_table(self) -> pd.DataFrame:
        """The items and how often each was rated: item, title, genres, ratings (int64)."""
        counts = self.ratings.item.value_counts()
        return self.items.assign(ratings=self.items.item.map(counts).fillna(0).astype("int64"))


def load_interactions(ratings_csv: str | Path, items_csv: str | Path | None = None, noun: str = "item") -> Interactions:
    """Read a log of your own: a CSV in UTF-8 with columns user, item, timestamp (rating optional), one row per line.

    Ids are whole numbers or texts. Timestamps are numbers, kept as they are, or ISO dates such as 2020-01-31, which
    become seconds since 1970 in UTC; the first row decides which. They are int64 if all are whole, else float64.
    Ratings are float64, 1.0 without such a column. `items_csv` (item, title, genres; genres optional) names the items;
    one without a title there is named by its id. `noun` is what one of them is called on screen. Raises
    FileNotFoundError, or ValueError that names file and line.
    """
    titles = pd.DataFrame({"item": [], "title": [], "genres": []}, dtype=str)
    if items_csv:
        titles = _read_texts(items_csv, ["item", "title"], "genres", default="")
        _refuse(items_csv, titles.item, titles.item == "", "must not be empty")
        _refuse(items_csv, titles.item, titles.item.duplicated(), "is listed before")
    ratings = _read_texts(ratings_csv, ["user", "item", "timestamp"], "rating", default="1")
    for column in ("user", "item", "timestamp"):
        _refuse(ratings_csv, ratings[column], ratings[column] == "", "must not be empty")
    values = pd.to_numeric(ratings.rating, errors="coerce").astype("float64")
    _refuse(ratings_csv, ratings.rating, ~np.isfinite(values), "is not a finite number")
    ratings = ratings.assign(rating=values, timestamp=_times(ratings.timestamp, ratings_csv))
    items = pd.concat([titles, ratings[["item"]]]).drop_duplicates("item").fillna("")
    items["title"] = items.title.where(items.title != "", items.item)
    if _are_whole(items.item):  # the same kind of id in both tables
        items["item"], ratings["item"] = items.item.astype("int64"), ratings.item.astype("int64")
    if _are_whole(ratings.user):
        ratings["user"] = ratings.user.astype("int64")
    items = items.sort_values("item", ignore_index=True)
    return Interactions(Path(ratings_csv).stem, ratings[list(RATING_TYPES)], items, noun)


def read_ratings(path: Path, separator: str) -> pd.DataFrame:
    """GroupLens's ratings, separated by "," (with a header), "::" or a tab: columns and dtypes of RATING_TYPES. Raises
    ValueError that names the file and the first malformed line."""
    lines = _lines(path, "utf-8")
    if separator == ",":
        _skip_header(lines, path, "userId,movieId,rating,timestamp")
    ratings = _parse_ratings(path, separator)
    if ratings is None:
        rows = _parse_lines(lines, path, lambda line: _rating(line, separator))
        ratings = pd.DataFrame(rows, columns=list(RATING_TYPES)).astype(RATING_TYPES)
    if ratings.empty:
        raise ValueError(f"{path} holds no ratings")
    return ratings


def read_movies(path: Path, separator: str, encoding: str) -> pd.DataFrame:
    """GroupLens's films, separated by "," (with a header), "::" or "|" (u.item): item (int32), title and genres. Raises
    ValueError as `read_ratings` does."""
    lines = _lines(path, encoding)
    if separator == ",":
        _skip_header(lines, path, "movieId,title,genres")
    seen: set[int] = set()  # items, to refuse a film that is listed twice
    films = list(_parse_lines(lines, path, lambda line: _film(line, separator, seen)))
    if not films:
        raise ValueError(f"{path} holds no films")
    return pd.DataFrame(films, columns=["item", "title", "genres"]).astype({"item": "int32"})


def _lines(path: str | Path, encoding: str) -> Lines:
    """Number, counted as an editor does, and text of every line that is not blank."""
    with open(path, encoding=encoding, errors="surrogateescape") as file:
        for number, line in enumerate(file, start=1):
            text = line.removesuffix("\n")
            text = text.removeprefix("\ufeff") if number == 1 else text  # the byte order mark that Excel writes
            if UNREADABLE.search(text):
                raise ValueError(f"{path}, line {number}: expected text saved as {encoding}, found {_abbreviate(text)}")
            if text.strip(" \t"):
                yield number, text


def _parse_lines(lines: Iterable[tuple[int, str]], path: str | Path, parse: Callable[[str], Any]) -> Iterator[Any]:
    """`parse` of each line; a ValueError of it is raised anew with the line's number and text."""
    for number, line in lines:
        try:
            yield parse(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}, found {_abbreviate(line)}") from None


def _first(lines: Lines) -> str:
    number, line = next(lines, (1, ""))
    return line if number == 1 else ""


def _skip_header(lines: Lines, path: Path, header: str) -> None:
    if (line := _first(lines)) != header:
        raise ValueError(f"{path}, line 1: expected the header {header}, found {_abbreviate(line)}")


def _abbreviate(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _parse_table(path: str | Path, **options: Any) -> pd.DataFrame | None:
    """A table by pandas' fast parser; None if it fails, or if the first row is too long (pandas makes it an index)."""
    with open(path, "rb") as file:
        if any(b"\0" in part for part in iter(lambda: file.read(2**20), b"")):  # pandas before 3 reads over it
            return None
    try:
        with np.errstate(all="ignore"):
            table = pd.read_csv(path, header=None, keep_default_na=False, compression=None, **options)
    except (ValueError, TypeError, OverflowError):
        return None
    return table if isinstance(table.index, pd.RangeIndex) else None


def _parse_ratings(path: Path, separator: str) -> pd.DataFrame | None:
    """The ratings by the fast parser, None if anything in the file is not as it should be."""
    # that parser takes one-character separators only: "::" is read as ":" with empty columns between
    columns = list(range(0, 7, 2) if separator == "::" else range(4))
    types = dict.fromkeys(range(columns[-1] + 1), "float32") | dict(zip(columns, RATING_TYPES.values(), strict=True))
    layout = {"sep": separator[0], "skiprows": 1 if separator == "," else 0, "names": list(types), "dtype": types}
    table = _parse_table(path, **layout, quoting=csv.QUOTE_NONE, na_values=[""])
    if table is None or table.drop(columns=columns).notna().any(axis=None):
        return None
    ratings = table[columns].set_axis(list(RATING_TYPES), axis=1)
    # pandas before 3 makes int64 that is too large uint64
    typed = ratings.dtypes.astype(str).to_dict() == RATING_TYPES
    sound = typed and all((ratings[column] >= 0).all() for column in ratings) and np.isfinite(ratings.rating).all()
    return ratings if sound else None


def _rating(line: str, separator: str) -> tuple[int, int, float, int]:
    fields = line.split(separator)
    if len(fields) == 4:
        user, item, rating, timestamp = fields
        plain = re.fullmatch(r"\d{1,9}(\.\d*)?", rating, re.ASCII)
        if _is_whole(user) and _is_whole(item) and plain and _is_whole(timestamp, limit=2**63):
            return int(user), int(item), float(rating), int(timestamp)
    raise ValueError(f"expected {separator.join(RATING_TYPES)}".replace("\t", "<tab>"))


def _film(line: str, separator: str, seen: set[int]) -> tuple[int, str, str]:
    fields = _csv_fields(line) if separator == "," else line.split(separator)
    if separator == "|":  # two dates and an address after the title, then one 0/1 flag a genre
        expected = "item|title|date|date|address|19 flags"
        if len(fields) == 24 and set(fields[5:]) <= {"0", "1"}:
            genres = "|".join(genre for genre, flag in zip(ML_100K_GENRES, fields[5:], strict=True) if flag == "1")
            fields = [*fields[:2], genres or "unknown"]
    else:
        expected = f"item{separator}title{separator}genres"
    if len(fields) != 3 or not all(fields) or not _is_whole(fields[0]):
        raise ValueError(f"expected {expected}")
    item = int(fields[0])
    if item in seen:
        raise ValueError("expected each film once")
    seen.add(item)
    return item, fields[1], fields[2]


def _is_whole(text: str, limit: int = 2**31) -> bool:
    return re.fullmatch("[0-9]{1,19}", text) is not None and int(text) < limit


def _csv_fields(line: str, width: int | None = None) -> list[str]:
    """The values of a line; with a `width`, so many at most, and filled up with empty ones."""
    try:
        fields = next(csv.reader([line], strict=True))
    except csv.Error as error:  # "unexpected end of data" for a quote that is not closed
        raise ValueError(f"expected values in closed quotes or none ({error})") from None
    if width is not None and len(fields) > width:
        raise ValueError(f"expected {width} values as in the header")
    return fields + [""] * ((width or 0) - len(fields))


def _read_texts(path: str | Path, needed: list[str], optional: str, default: str) -> pd.DataFrame:
    """The columns of a CSV with every value as it is written: an id may be NA, None or 001. The `optional` column is
    all `default` if the file lacks it."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}; check its name (a relative one counts from {Path.cwd()})")
    lines = _lines(path, "utf-8")
    header = _first(lines)
    names = next(_parse_lines([(1, header)], path, _csv_fields))
    wanted = [*needed, *({optional} & set(names))]
    if any(names.count(column) != 1 for column in wanted):
        expected = f"the columns {', '.join(wanted)} (each once, with commas between)"
        raise ValueError(f"{path}, line 1: expected {expected}, found {_abbreviate(header)}")
    table = _parse_table(path, skiprows=1, names=range(len(names)), dtype=str)
    # a stray quote swallows the lines up to the next one
    if table is None or any(table[column].str.contains("[\0\r\n]").any() for column in table):
        rows = list(_parse_lines(lines, path, lambda line: _csv_fields(line, len(names))))
        table = pd.DataFrame(rows, columns=range(len(names)), dtype=str)
    if table.empty:
        raise ValueError(f"{path} holds no rows below its header")
    table = table[[names.index(column) for column in wanted]].set_axis(wanted, axis=1)
    return table if optional in names else table.assign(**{optional: default})


def _refuse(path: str | Path, texts: pd.Series, bad: pd.Series, problem: str) -> None:
    """Raise the ValueError for the first row of a CSV in which `bad` is true, if there is one."""
    if bad.any():
        row = int(bad.to_numpy().argmax())
        number, _ = next(islice(_lines(path, "utf-8"), row + 1, None))  # + 1 for the header
        value = f"{texts.name} {_abbreviate(texts[row])}"
        raise ValueError(f"{path}, line {number}: {value} {problem}; correct or drop the row")


def _are_whole(texts: pd.Series) -> bool:
    """Whether each is a whole number of 64 bits, written plainly (not 001)."""
    return bool(texts.str.fullmatch("0|-?[1-9][0-9]{0,17}").all())


def _times(texts: pd.Series, path: str | Path) -> pd.Series:
    """Numbers as they are, dates as seconds since 1970."""
    numbers = pd.to_numeric(texts, errors="coerce")
    if pd.notna(numbers[0]):
        _refuse(path, texts, ~(numbers.abs() < 2.0**63), "is not a finite 64-bit number, as the first row's is")
        return numbers
    dates = pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=True)
    # the pattern shuts out what pandas takes for dates too: now, today, a bare number
    fits = texts.str.match(r"\s*\d{4}-\d") & dates.dt.year.between(1678, 2261)
    _refuse(path, texts, ~fits, "is neither a number nor an ISO date like 2020-01-31 of the years 1678 to 2261")
    nanoseconds = dates.dt.as_unit("ns").astype("int64")
    return nanoseconds // 10**9 if (nanoseconds % 10**9 == 0).all() else nanoseconds / 1e9
