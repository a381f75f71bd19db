"""Reads a table, a file of any layout or a frame, and finds the columns of a rating log in it, or of its titles. Files
go through pandas' fast parser first; a file that it rejects is read again line by line, so that the error can name the
line."""

import csv
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from .grouplens import read_movies, read_ratings
from .text import Lines, abbreviate, fields_of, has_doubled_quotes, numbered_lines, parse_lines, parse_table

LOG, ITEMS = ("user", "item", "timestamp", "rating"), ("id", "title", "genres")  # what their columns are
OPTIONAL = ("rating", "genres")
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
class Table:
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


def parse_columns(text: str | None) -> dict[str, str]:
    """Parse "user=who item=what" into role -> column name; a name may contain spaces."""
    told = {}
    for part in re.split(r"\s+(?=\w+=)", text.strip()) if text else ():
        role, _, name = part.partition("=")
        if role not in USUAL_NAMES or not name:
            known = "user=NAME item=NAME timestamp=NAME; also rating, and id, title, genres of the items"
            raise ValueError(f"columns are told as {known}; not as {part!r}")
        told[role] = name
    return told


def table_of(
    frame: Any,
    name: str,
    roles: tuple[str, ...],
    told: dict[str, str],
    place: Callable[[int], str] | None = None,
    start: int = 1,
) -> Table:
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
    return Table(name, columns, "" if is_plain else " ".join(taken), place or (lambda row: f"{name}, row {row + 1}"))


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


def _fits(name: str, role: str, told: dict[str, str]) -> bool:
    if role in told:
        return name == str(told[role])
    letters = re.sub("[^a-z0-9]", "", name.partition(":")[0].lower())
    usual = USUAL_NAMES[role].split()
    is_told = role == "id" and name == told.get("item") and not name.isdigit()  # called as in the log
    return is_told or letters in usual or letters.removesuffix("id") in usual


def read_table(path: str | Path, roles: tuple[str, ...], told: dict[str, str]) -> Table:
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
        return table_of(frame, str(path), roles, told)
    start, first = next(numbered_lines(path, "utf-8"), (1, ""))
    if first.startswith(("{", "[")):
        return table_of(_read_json(path, is_list=first.startswith("[")), str(path), roles, told)
    return _read_text(path, roles, told, start, first)


def _read_text(path: Path, roles: tuple[str, ...], told: dict[str, str], start: int, first: str) -> Table:
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
        return table_of(known[0], str(path), roles, known[1], place, start)
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
    read = table_of(table, str(path), roles, told, place, start)
    if not has_header:
        _refuse_header(read, numbered, f"{path}, line {start}", fields_of(first, separator, is_quoted))
    return read


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


def _refuse_header(table: Table, numbered: list[str], place: str, names: list[str]) -> None:
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
