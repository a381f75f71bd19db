"""Reads rating logs of your own, files or frames. Files go through pandas' fast parser first; a file that it rejects is
read again line by line, so that the error can name the line."""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from ..common import print_status
from .grouplens import read_movies, read_ratings
from .text import Lines, abbreviate, fields_of, has_doubled_quotes, numbered_lines, parse_lines, parse_table

LOG, ITEMS = ("user", "item", "timestamp", "rating"), ("id", "title", "genres")  # what their columns are
OPTIONAL = ("rating", "genres")
MISSING = ("", "NULL", "null", "\\N", "NaN", "nan", "<NA>")  # what databases, Spark and pandas write for a missing id
NESTED = (dict, list, set, np.ndarray)  # as JSON and parquet are read, or in a frame
USUAL_NAMES = {  # of columns, in small letters alone, "id" left out: user is user_id, userId, RecBole's user_id:token
    "user": "user uid visitor session customer client member reviewer reader account username",
    "item": "item iid aid movie film product asin parentasin article book isbn song track sku stockcode business game",
    "timestamp": "timestamp time ts date datetime unixreviewtime reviewtime eventtime eventdate invoicedate tdat",
    "rating": "rating score stars overall",
    "title": "title name itemname itemtitle movietitle filmtitle productname producttitle prodname booktitle",
    "genres": "genres genre category categories class",
}
USUAL_NAMES["id"] = USUAL_NAMES["item"] + " id"
SEPARATORS = ("\t", "::", "|", ";", ",", " ")
USER_AND_ITEMS = re.compile(r"\d+(?:[ \t]+\d+)+[ \t]*", re.ASCII)


@dataclass(frozen=True)
class Interactions:
    """A rating log: `.ratings` (user, item, rating, timestamp; in file order) and `.items` (item, title, genres)."""

    name: str
    ratings: pd.DataFrame
    items: pd.DataFrame
    noun: str = "film"  # what one of the items is called on screen
    own: bool = False  # a log of your own, which may grow, not a fixed release

    def item_table(self) -> pd.DataFrame:
        """The items and how often each was rated: item, title, genres, ratings (int64)."""
        counts = self.ratings.item.value_counts()
        return self.items.assign(ratings=self.items.item.map(counts).fillna(0).astype("int64"))


@dataclass(frozen=True)
class _Table:
    """A file or frame as it was read: one column per role, which column was chosen for each, and how to name a row."""

    name: str
    columns: pd.DataFrame
    taken: str
    place: Callable[[int], str]

    def refuse(self, role: str, bad: np.ndarray | pd.Series, problem: str) -> None:
        """Raise a ValueError that names the first row in which `bad` (rows,) is True; do nothing if there is none."""
        if bad.any():
            row = int(np.asarray(bad).argmax())
            value = f"{role} {abbreviate(str(self.columns[role].iloc[row]))}"
            raise ValueError(f"{self.place(row)}: {value} {problem}; correct or drop the row")

    def refuse_nested(self, role: str) -> None:
        """Raise a ValueError that names the first row with a list or an object, as JSON and parquet may have."""
        values = self.columns[role]
        nested = (row for row, value in enumerate(values) if isinstance(value, NESTED))
        if types.infer_dtype(values, skipna=True).startswith("mixed") and (row := next(nested, None)) is not None:
            found = f"{self.place(row)}: {role} {abbreviate(str(values.iloc[row]))} is a nested value"
            raise ValueError(f"{found}; give the text or number in it a column of its own")


def load_interactions(
    ratings_file: str | Path, items_file: str | Path | None = None, noun: str = "item", columns: str | None = None
) -> Interactions:
    """Read a log of your own: text in UTF-8 with a header (CSV, tabs, semicolons, RecBole's .inter), GroupLens's own
    files, lines of whole numbers that are a user and items in order of time, JSON, or parquet; also packed (.gz,
    .xz, .zip).

    A row has a user, an item, a timestamp, and perhaps a rating (1.0 without such a column, NaN where it is blank; no
    model reads it). Columns are known by USUAL_NAMES, or told: "user=who item=what timestamp=4", by number if there is
    no header; with "timestamp=none" the rows are in order of time. `items_file` has an item, a title and perhaps
    genres (told as id, title, genres); an item without a title is named by its id. What was taken for what is printed,
    unless it is called so. `noun` is what an item is called on screen.

    Ids are whole numbers (int64; 55.0 throughout, or beside a 55, is one, too) or texts as they are written, without
    blanks around them. The log decides which: if its items are numbers, titles with another id are dropped. A title is
    also found for an id that is the same number in another form: 0055 for 55. Timestamps are numbers, kept as they are,
    or dates, which become seconds since 1970, in UTC unless they have an offset; the first row decides which. Rows
    equal in user, item and timestamp count once; how many are dropped is printed.

    Raises FileNotFoundError, or ValueError that names file and line: a value is missing, nested, no number or no date;
    a line has too many values; no column may be the user, or two; the columns are in another order than GroupLens's; a
    header was told by number; a file is a folder; the items of the log are not those of `items_file`.
    """
    told = _parse_columns(columns)
    log = _read_table(ratings_file, LOG, told)
    titles = _read_table(items_file, ITEMS, told) if items_file else None
    return _interactions(log_name(ratings_file), log, titles, noun)


def log_name(path: str | Path) -> str:
    """What a log is called: log, of log.csv.gz."""
    return Path(re.sub(r"\.(gz|xz|zip)$", "", Path(path).name)).stem


def from_frame(frame: Any, titles: Any = None, noun: str = "item", **columns: str) -> Interactions:
    """A log from a data frame of pandas, polars or pyarrow, read as by `load_interactions`: from_frame(df, user="who",
    item="what", timestamp="when"), each only if it has no usual name; timestamps may be datetimes. `titles` is a frame
    with an item and a title, or a dictionary from items to titles. ValueError names the row, from 1."""
    if unknown := columns.keys() - USUAL_NAMES:
        raise TypeError(f"{', '.join(unknown)}: a column is one of {', '.join(USUAL_NAMES)}")
    if isinstance(titles, Mapping):
        titles = pd.DataFrame({"item": list(titles), "title": list(titles.values())})
    log = _table_of(frame, "frame", LOG, columns)
    return _interactions("frame", log, None if titles is None else _table_of(titles, "titles", ITEMS, columns), noun)


def _interactions(name: str, log: _Table, titles: _Table | None, noun: str) -> Interactions:
    (user_codes, users), (item_codes, ids) = _ids(log, "user"), _ids(log, "item")
    said = [f"{Path(table.name).name}: {table.taken}" for table in (log, titles) if table and table.taken]
    for role, codes, values in (("user", user_codes, users), ("item", item_codes, ids)):
        if (is_none := (values == "None").to_numpy()).any():  # it may be called so, or be what Python writes for none
            count = is_none[codes].sum()
            said.append(f"{count:,} rows have the {role} 'None', kept as an id: drop them if there was no {role}")
    items = pd.DataFrame({"item": ids, "title": "", "genres": ""})
    if titles:
        known, notes = _titles(titles, ids, log.name)
        items, said = pd.concat([known, items]).drop_duplicates("item"), said + notes
    items["title"] = items.title.where(items.title != "", items.item)
    if _are_whole(ids).all():  # then those of the titles are, too
        items["item"], ids = items.item.astype("int64"), ids.astype("int64")
    users = users.astype("int64") if _are_whole(users).all() else users
    ratings = pd.DataFrame({"user": users.to_numpy()[user_codes], "item": ids.to_numpy()[item_codes], "rating": 1.0})
    if "rating" in log.columns:
        ratings["rating"] = pd.to_numeric(log.columns.rating, errors="coerce").astype("float64")
    ratings["timestamp"] = _times(log)
    is_copy = ratings.duplicated(["user", "item", "timestamp"])  # delivered or joined twice: nobody came back
    if is_copy.any():
        said.append(f"{is_copy.sum():,} rows are exact copies of others (user, item and time): dropped")
        ratings = ratings[~is_copy].reset_index(drop=True)
    if said:
        print_status("; ".join(said), file=sys.stderr)
    return Interactions(name, ratings, items.sort_values("item", ignore_index=True), noun, own=True)


def _ids(table: _Table, role: str) -> tuple[np.ndarray, pd.Series]:
    """Factorize a column of ids: the code of each row, (rows,) int64, and the distinct ids as texts."""
    table.refuse_nested(role)
    codes, values = pd.factorize(table.columns[role])
    texts = pd.Series([str(value).strip() for value in values], dtype=str)
    table.refuse(role, (codes < 0) | np.append(texts.isin(MISSING), True)[codes], "must not be empty")
    table.refuse(role, texts.str.contains("[\0\r\n]").to_numpy()[codes], "must be on one line")
    whole = texts.str.replace(r"^(-?\d+)\.0+$", r"\1", regex=True)  # so pandas writes 55 if a number was missing
    texts = texts.mask(whole.isin(texts) | whole.str.fullmatch(r"-?\d+").all(), whole)
    codes_of_texts, texts = pd.factorize(texts)
    return codes_of_texts[codes], pd.Series(texts, dtype=str)


def _text_of(value: Any) -> str:
    """A title, or genres; those in a list get | between them, as in GroupLens's files."""
    if isinstance(value, list | tuple | np.ndarray):
        return "|".join(map(_text_of, value))
    return str(value) if isinstance(value, dict) or pd.notna(value) else ""


def _titles(table: _Table, ids: pd.Series, log: str) -> tuple[pd.DataFrame, list[str]]:
    """Item, title and genres, with the item ids spelled as in the log; and notes to print."""
    codes, texts = _ids(table, "item")
    titles = pd.DataFrame({"item": texts.to_numpy()[codes], "title": "", "genres": ""})
    for name in table.columns.columns[1:]:
        values = map(_text_of, table.columns[name])
        titles[name] = [re.sub(r"[\0\r\n]+", " ", value) for value in values]
    table.refuse("item", titles.duplicated("item") & ~titles.duplicated(), "is listed before with other values")
    titles = titles.drop_duplicates(ignore_index=True)

    def numbers(items: pd.Series, name: str) -> pd.DataFrame:
        return pd.DataFrame({name: items, "number": items.str.extract(r"^0*(\d+?)(?:\.0+)?$")[0]}).dropna()

    lost, free = ids[~ids.isin(titles.item)], titles.item[~titles.item.isin(ids)]
    pairs = numbers(lost, "ours").merge(numbers(free, "theirs"), on="number")  # the same number in another form
    if (twice := pairs[pairs.number.duplicated(keep=False)]).size:
        same = twice[twice.number == twice.number.iloc[0]]
        problem = f"items {', '.join(pd.unique(same[['ours', 'theirs']].to_numpy().ravel()))} are one number"
        raise ValueError(f"{table.name}: {problem}, here and in {log}; write each item alike in both files")
    joined = dict(zip(pairs.theirs, pairs.ours, strict=True))
    titles["item"] = [joined.get(item, item) for item in titles.item]
    untitled = len(lost) - len(pairs)
    if untitled == len(ids):
        problem = f"here items are such as {abbreviate(titles.item[0])}, and in {log} such as {abbreviate(ids[0])}"
        raise ValueError(f"{table.name}: {problem}; write them alike in both files")
    notes = [f"{untitled:,} of {len(ids):,} items have no title"] * (untitled > 0)
    if len(pairs):
        notes.append(f"{len(pairs):,} items find their title by number, {pairs.ours[0]} that of {pairs.theirs[0]}")
    is_other = ~_are_whole(titles.item)
    if is_other.any() and _are_whole(ids).all():  # the log alone decides of which kind ids are
        example = abbreviate(titles.item[is_other].iloc[0])
        dropped = f"{is_other.sum():,} titles dropped, such as that of {example}"
        notes.append(f"{dropped}: their ids are not whole numbers, and all ids of the log are")
        titles = titles[~is_other]
    return titles, notes


def _joined(lines: list[tuple[int, str]], separator: str, width: int) -> Lines:
    """The lines of a table, with those that one row takes, its values having line breaks in quotes, as one. A quote
    that is never closed, or only in a row of another width, joins nothing: its line is then refused."""
    reader, start = csv.reader((f"{line}\n" for _, line in lines), delimiter=separator, strict=True), 0
    while start < len(lines):
        try:
            is_row = len(next(reader)) == width
        except csv.Error:
            is_row = False
        end = reader.line_num if is_row else start + 1
        yield lines[start][0], "\n".join(line for _, line in lines[start:end])
        start = reader.line_num


def _parse_columns(text: str | None) -> dict[str, str]:
    """Parse "user=who item=what" into role -> column name; a name may contain spaces."""
    told = {}
    for part in re.split(r"\s+(?=\w+=)", text.strip()) if text else ():
        role, _, name = part.partition("=")
        if role not in USUAL_NAMES or not name:
            known = "user=NAME item=NAME timestamp=NAME; also rating, and id, title, genres of the items"
            raise ValueError(f"columns are told as {known}; not as {part!r}")
        told[role] = name
    return told


def _fits(name: str, role: str, told: dict[str, str]) -> bool:
    if role in told:
        return name == told[role]
    letters = re.sub("[^a-z0-9]", "", name.partition(":")[0].lower())
    usual = USUAL_NAMES[role].split()
    is_told = role == "id" and name == told.get("item") and not name.isdigit()  # called as in the log
    return is_told or letters in usual or letters.removesuffix("id") in usual


def _choose(
    names: list[str], roles: tuple[str, ...], told: dict[str, str], place: str, is_text: bool
) -> dict[str, int]:
    """The number of the column that has each role; ValueError if that is not clear. Columns of a text file may be told
    by number."""
    chosen: dict[str, int] = {}
    unclear: dict[str, list[str]] = {}
    numbers: dict[str, list[int]] = {}  # from 1, of the columns that may have each role
    for role in roles:
        if told.get(role) == "none" and role in (*OPTIONAL, "timestamp"):
            continue
        fits = [at for at, name in enumerate(names) if _fits(name, role, told)]
        plain = [at for at in fits if names[at] == ("item" if role == "id" else role)]
        fits = plain if plain and role not in told else fits  # "user" is the user, whatever else might be
        if fits:
            numbers[role] = [at + 1 for at in fits]
        if len(fits) == 1:
            chosen[role] = fits[0]
        elif role in told or role not in OPTIONAL:
            unclear[role] = [names[at] for at in fits]
    if unclear:
        what = ", ".join(f"the {role}" + f" ({' or '.join(fits)}?)" * bool(fits) for role, fits in unclear.items())
        option = " ".join(f"{role}={fits[0] if fits else 'NAME'}" for role, fits in unclear.items())
        notes = "; timestamp=none if the rows are in order of time" * (unclear.get("timestamp") == [])
        notes += "; by number, user=1, if there is no header" * (len(unclear) > 1)
        found = abbreviate(", ".join(names), 300)
        if any(len(set(fits)) < len(fits) for fits in unclear.values()):  # columns with one name
            needed = {role: numbers.get(role, ["NUMBER"])[0] for role in roles if role in chosen or role in unclear}
            needed |= {"timestamp": "none"} if told.get("timestamp") == "none" else {}
            first = " ".join(f"{role}={number}" for role, number in needed.items())
            others = "".join(f", or {role}={number}" for role in unclear for number in numbers.get(role, [])[1:])
            advice = f"tell all by number, {first} (--columns){others}" if is_text else "rename one of the two"
            raise ValueError(f"{place}: the columns {found} do not tell {what}; {advice}")
        raise ValueError(f"{place}: the columns {found} do not tell {what}; tell {option} (--columns){notes}")
    return chosen


def _table_of(
    frame: Any,
    name: str,
    roles: tuple[str, ...],
    told: dict[str, str],
    place: Callable[[int], str] | None = None,
    start: int = 1,
) -> _Table:
    """The columns of a frame that have a role. If it is a text file's, `place` names its rows and `start` is the line
    with the names of the columns."""
    if isinstance(frame, pd.DataFrame):  # whose index may hold columns, after a groupby
        levels = [level for level in frame.index.names if level is not None and level not in frame.columns]
        frame = frame.reset_index(levels) if levels else frame
    columns = getattr(frame, "column_names", getattr(frame, "columns", None))
    if columns is None:
        raise TypeError(f"{name} is a {type(frame).__name__}; give a data frame of pandas, polars or pyarrow")
    names = [str(column) for column in columns]
    chosen = _choose(names, roles, told, f"{name}, line {start}" if place else name, is_text=place is not None)
    if isinstance(frame, pd.DataFrame):
        columns = frame.iloc[:, [*chosen.values()]].reset_index(drop=True)
    else:
        columns = pd.DataFrame({at: frame[names[at]].to_numpy() for at in chosen.values()})
    columns = columns.set_axis(["item" if role == "id" else role for role in chosen], axis=1)
    if columns.empty:
        raise ValueError(f"{name} holds no rows")
    taken = [f"{role}={names[at]}" for role, at in chosen.items()]
    is_plain = [names[at] for at in chosen.values()] == list(columns)
    if "user" in columns and "timestamp" not in columns:
        columns["timestamp"], is_plain = np.arange(len(columns)), False
        taken.append("timestamp=none: the rows are in order of time")
    return _Table(name, columns, "" if is_plain else " ".join(taken), place or (lambda row: f"{name}, row {row + 1}"))


def _read_table(path: str | Path, roles: tuple[str, ...], told: dict[str, str]) -> _Table:
    """The columns of a file, every value as it is written: an id may be NA, None or 001."""
    path = Path(path).expanduser()
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name one file in it, with all rows (join Spark's parts first)")
    if not path.is_file():
        again = "the log with --ratings FILE" if roles == LOG else "log and titles with --ratings FILE --items FILE"
        advice = f"check its name (a relative one counts from {Path.cwd()}), or pass {again}"
        raise FileNotFoundError(f"there is no file {path}; {advice}")
    with path.open("rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    if is_parquet:
        try:
            frame = pd.read_parquet(path)
        except ImportError:
            raise ValueError(f"{path} is parquet, which needs pyarrow: pip install 'bertrec-utils[parquet]'") from None
        except (ValueError, OSError) as error:  # as pyarrow's own are
            raise ValueError(f"{path} is damaged ({str(error).splitlines()[0]})") from None
        return _table_of(frame, str(path), roles, told)
    start, first = next(numbered_lines(path, "utf-8"), (1, ""))
    if first.startswith(("{", "[")):
        return _table_of(_read_json(path, is_list=first.startswith("[")), str(path), roles, told)
    return _read_text(path, roles, told, start, first)


def _read_text(path: Path, roles: tuple[str, ...], told: dict[str, str], start: int, first: str) -> _Table:
    """The same of a text file, whose first line that is not blank is `first`, line `start` of the file."""
    numbered = [role for role in roles if told.get(role, "").isdigit()]
    named = {role: name for role, name in told.items() if role not in numbered}

    def fitting(separator: str) -> int:
        names = [name.strip(' "') for name in first.split(separator)]
        return sum(any(_fits(name, role, named) for role in roles) for name in names)

    separator = max((separator for separator in SEPARATORS if separator in first), key=fitting, default=",")
    has_header = fitting(separator) > bool(numbered)

    lines: list[tuple[int, str]] = []  # of each row, if that may be more than one

    def place(row: int) -> str:
        number, _ = lines[row] if lines else next(islice(numbered_lines(path, "utf-8"), row + has_header, None))
        return f"{path}, line {number}"

    if not has_header and (known := _without_header(path, roles, told, separator, start, first)):
        return _table_of(known[0], str(path), roles, known[1], place, start)
    is_quoted = separator in (",", ";") or ('"' in first and len(separator) == 1)
    if separator in ("\t", "|"):
        is_quoted = is_quoted or has_doubled_quotes(path, separator)
    names = next(parse_lines([(start, first)], path, lambda line: fields_of(line, separator, is_quoted)))
    if not first:
        raise ValueError(f"{path} holds no rows")
    if len(names) == 1:
        advice = "separate the values by tabs, ::, |, semicolons, commas or spaces"
        raise ValueError(f"{path}, line {start}: one column, {abbreviate(first)}; {advice}")
    table, width = None, len(names)
    if len(separator) == 1 and separator != " ":  # pandas takes no longer one, and a blank line for empty values
        layout: dict[str, Any] = {"sep": separator, "skiprows": start - 1 + has_header, "names": range(width)}
        table = parse_table(path, **layout, quoting=0 if is_quoted else csv.QUOTE_NONE, dtype=str)
    if table is not None and len(table) != sum(1 for _ in numbered_lines(path, "utf-8")) - has_header:
        table = None  # a quote joins lines, or lacks its other half
    if table is None:
        lines = list(islice(numbered_lines(path, "utf-8"), int(has_header), None))
        lines = list(_joined(lines, separator, width)) if is_quoted else lines
        rows = list(parse_lines(lines, path, lambda line: fields_of(line, separator, is_quoted, width)))
        table = pd.DataFrame(rows, columns=range(width), dtype=str)
    if numbered:
        names = [str(number) for number in range(1, width + 1)]
    table.columns = [name.strip() for name in names]
    read = _table_of(table, str(path), roles, told, place, start)
    if not has_header:
        _refuse_header(read, numbered, f"{path}, line {start}", fields_of(first, separator, is_quoted))
    return read


def _refuse_header(table: _Table, numbered: list[str], place: str, names: list[str]) -> None:
    """Raise a ValueError if the first row of a table whose columns were told by number is a header: names that begin
    with no digit, above ids that are all numbers."""
    roles = ["item" if role == "id" else role for role in numbered]
    values = table.columns[roles]
    ids = values[[role for role in roles if role in ("user", "item")]]
    if len(values) < 2 or ids.empty or values.iloc[0].astype(str).str.match(r"\s*$|[-+.\s]*\d").any():
        return
    if all(pd.to_numeric(ids[role][1:], errors="coerce").notna().all() for role in ids):
        found = f"{abbreviate(', '.join(names), 300)} are names, it seems, above numbers"
        raise ValueError(f"{place}: {found}; tell columns by their names, as in user=NAME (--columns)")


def _read_json(path: Path, is_list: bool) -> pd.DataFrame:
    """A table of JSON: an object on each line, or a list of objects on however many lines."""
    lines: Iterable[tuple[int, str]] = numbered_lines(path, "utf-8")
    if is_list:
        lines = [(1, "\n".join(line for _, line in lines))]
    objects = list(parse_lines(lines, path, json.loads if is_list else _object))
    objects = objects[0] if is_list else objects
    for number, value in enumerate(objects, start=1):
        if not isinstance(value, dict):
            found = f"value {number} of the list is {abbreviate(json.dumps(value))}, not an object"
            raise ValueError(f"{path}: {found}; correct or drop it")
    try:
        return pd.DataFrame(objects)
    except UnicodeEncodeError:
        raise ValueError(f"{path}: a text has half a character (a lone surrogate); save it as UTF-8") from None


def _object(line: str) -> dict:
    if not isinstance(value := json.loads(line), dict):
        raise ValueError("expected an object in braces, as on the first line")
    return value


def _without_header(
    path: Path, roles: tuple[str, ...], told: dict[str, str], separator: str, start: int, first: str
) -> tuple[pd.DataFrame, dict[str, str]] | None:
    """Read a file in a layout known to have no header (GroupLens's own files, lines of a user and items): its table,
    and which column has which role. None if it is in no such layout."""
    width, in_order = len(first.split(separator)), told.get("timestamp") == "none"
    if any(role in told and not (in_order and role == "timestamp") for role in roles):
        return None
    if roles == ITEMS:
        if (separator, width) not in (("::", 3), ("|", 24)):
            return None
        try:
            films = read_movies(path, separator, "utf-8")
        except ValueError:
            films = read_movies(path, separator, "latin-1")
        return films.set_axis([*"123"], axis=1), {"id": "1", "title": "2", "genres": "3"}
    if width == 4 and not in_order and (separator == "::" or re.fullmatch(r"[\d.\t]+", first)):
        third, fourth = pd.to_numeric(pd.Series(first.split(separator)[2:]), errors="coerce")
        if third > 1e8 and fourth < 1e6:
            problem = f"{path}, line {start}: no header, and the time is third, it seems, not fourth as in u.data"
            raise ValueError(f"{problem}; tell user=1 item=2 timestamp=3 rating=4 (--columns)")
        ratings = read_ratings(path, separator).set_axis([*"1234"], axis=1)
        return ratings, {"user": "1", "item": "2", "rating": "3", "timestamp": "4"}
    if not USER_AND_ITEMS.fullmatch(first) or (separator != " " and width > 2):
        return None

    def numbers(line: str) -> list[str]:
        if not USER_AND_ITEMS.fullmatch(line):
            raise ValueError("expected whole numbers with spaces between, a user and then items")
        return line.split()

    lines = list(parse_lines(numbered_lines(path, "utf-8"), path, numbers))
    counts = np.array([len(line) - 1 for line in lines])
    if counts[0] > 1 and (counts == counts[0]).all() and not in_order:
        problem = f"{path}, line {start}: {counts[0] + 1} numbers, as on every line, and no header; tell user=1 item=2"
        raise ValueError(f"{problem} timestamp=3 (--columns), or timestamp=none for a user and items in order of time")
    users = np.repeat(np.array([line[0] for line in lines], dtype=object), counts)
    items = [item for line in lines for item in line[1:]]
    return pd.DataFrame({"1": users, "2 and on": items}), {"user": "1", "item": "2 and on", "timestamp": "none"}


def _are_whole(texts: pd.Series) -> pd.Series:
    """Whether each is a whole number of 64 bits, written plainly (not 001)."""
    return texts.str.fullmatch("0|-?[1-9][0-9]{0,17}").astype(bool)


def _times(log: _Table) -> pd.Series:
    """Numbers as they are, dates as seconds since 1970."""
    log.refuse_nested("timestamp")
    values = log.columns.timestamp
    log.refuse("timestamp", values.isna() | (values == ""), "must not be empty")
    if types.is_datetime64_any_dtype(values):
        values = pd.to_datetime(values, utc=True).dt.tz_localize(None).astype(str)
    if pd.notna(pd.to_numeric(values[:1], errors="coerce")[0]):
        numbers = pd.to_numeric(values, errors="coerce")
        is_good = numbers.astype("float64").abs() < 2.0**63
        log.refuse("timestamp", ~is_good, "is not a finite 64-bit number, as the first row's is")
        return numbers.astype("int64" if types.is_integer_dtype(numbers) else "float64")
    texts = _as_iso(values.astype(str), log)
    dates = pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=True)
    # the pattern shuts out what pandas takes for dates too: now, today, a bare number
    fits = texts.str.match(r"\d{4}-\d", na=False) & dates.dt.year.between(1678, 2261)
    problem = "is neither a number nor a date like 2020-01-31 of the years 1678 to 2261"
    if not fits[0]:  # then it is probably all of them
        found = f"timestamp {abbreviate(values[0])} {problem}"
        raise ValueError(f"{log.place(0)}: {found}; write dates as 2020-01-31 15:45")
    log.refuse("timestamp", ~fits, problem)
    nanoseconds = dates.dt.as_unit("ns").astype("int64")
    return nanoseconds // 10**9 if (nanoseconds % 10**9 == 0).all() else nanoseconds / 1e9


def _as_iso(texts: pd.Series, log: _Table) -> pd.Series:
    """Dates as ISO 8601 has them, from "2020-01-31 12:00 UTC", "2020/01/31", and from "1/31/2020 3:45 PM" if a day
    beyond the twelfth, anywhere in the column, tells which is the month; else ValueError."""
    texts = texts.str.strip().str.removesuffix(" UTC")
    if re.match(r"\d{4}/\d", texts[0]):
        return texts.str.replace("/", "-", regex=False)
    if not re.match(r"\d{1,2}[/.]\d{1,2}[/.]\d{4}", texts[0]):
        return texts
    parts = texts.str.extract(r"^(\d{1,2})[/.](\d{1,2})[/.](\d{4})(?:[T ]+(\d.*))?$")
    day_first, month_first = ((pd.to_numeric(parts[at]) > 12).any() for at in (0, 1))
    if day_first == month_first:
        problem = f"timestamp {abbreviate(texts[0])}: the column does not tell which is the day and which the month"
        raise ValueError(f"{log.place(0)}: {problem}; write dates as 2020-01-31")
    day, month = (0, 1) if day_first else (1, 0)
    hours = parts[3].fillna("00:00")
    clock = hours.str.extract(r"(?i)^(\d+)(:\d.*?)\s*([AP])M$")  # of twelve hours
    hour = pd.to_numeric(clock[0]) % 12 + 12 * (clock[2].str.upper() == "P")
    hours = hours.mask(hour.notna(), hour.fillna(0).astype(int).astype(str) + clock[1])
    hours = hours.str.replace(r"^(\d):", r"0\1:", regex=True)
    return parts[2] + "-" + parts[month].str.zfill(2) + "-" + parts[day].str.zfill(2) + " " + hours
