"""A rating log of your own: ids, titles and times from the columns of a file or a frame."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from ..common import print_status
from .tables import ITEMS, LOG, USUAL_NAMES, Table, parse_columns, read_table, table_of
from .text import abbreviate

MISSING = ("", "NULL", "null", "\\N", "NaN", "nan", "<NA>")  # what databases, Spark and pandas write for a missing id


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


def load_interactions(
    ratings_file: str | Path, items_file: str | Path | None = None, noun: str = "item", columns: str | None = None
) -> Interactions:
    """Read a log of your own: text in UTF-8 with a header (CSV, tabs, semicolons, RecBole's .inter), GroupLens's own
    files, lines of whole numbers that are a user and items in order of time, JSON, or parquet; also packed (.gz,
    .xz, .zip).

    A row has a user, an item, a timestamp, and perhaps a rating (1.0 without such a column, NaN where it is blank; no
    model reads it). Columns are known by their names (tables.USUAL_NAMES), or told: "user=who item=what timestamp=4",
    by number if there is no header; with "timestamp=none" the rows are in order of time. `items_file` has an item, a
    title and perhaps genres (told as id, title, genres); an item without a title is named by its id. What was taken
    for what is printed, unless it is called so. `noun` is what an item is called on screen.

    Ids are whole numbers (int64; 55.0 throughout, or beside a 55, is one, too) or texts as they are written, without
    blanks around them. The log decides which: if its items are numbers, titles with another id are dropped. A title is
    also found for an id that is the same number in another form: 0055 for 55. Timestamps are numbers, kept as they are,
    or dates, which become seconds since 1970, in UTC unless they have an offset; the first row decides which. Rows
    equal in user, item and timestamp count once; how many are dropped is printed. Of rows with equal times the first is
    the earlier or, in a log that goes from new to old, the last.

    Raises FileNotFoundError, or ValueError that names file and line: a value is missing, nested, no number or no date;
    a line has too many values; no column may be the user, or two; the columns are in another order than GroupLens's; a
    header was told by number; a file is a folder; the items of the log are not those of `items_file`.
    """
    told = parse_columns(columns)
    log = read_table(ratings_file, LOG, told)
    titles = read_table(items_file, ITEMS, told) if items_file else None
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
    log = table_of(frame, "frame", LOG, columns)
    return _interactions("frame", log, None if titles is None else table_of(titles, "titles", ITEMS, columns), noun)


def _interactions(name: str, log: Table, titles: Table | None, noun: str) -> Interactions:
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
    if _is_newest_first(user_codes, ratings.timestamp.to_numpy()):
        said.append("the rows go from new to old: they are read from the last to the first")
        ratings = ratings[::-1].reset_index(drop=True)
    is_copy = ratings.duplicated(["user", "item", "timestamp"])  # delivered or joined twice: nobody came back
    if is_copy.any():
        said.append(f"{is_copy.sum():,} rows are exact copies of others (user, item and time): dropped")
        ratings = ratings[~is_copy].reset_index(drop=True)
    if said:
        print_status("; ".join(said), file=sys.stderr)
    return Interactions(name, ratings, items.sort_values("item", ignore_index=True), noun, own=True)


def _ids(table: Table, role: str) -> tuple[np.ndarray, pd.Series]:
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


def _titles(table: Table, ids: pd.Series, log: str) -> tuple[pd.DataFrame, list[str]]:
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


def _are_whole(texts: pd.Series) -> pd.Series:
    """Whether each is a whole number of 64 bits, written plainly (not 001)."""
    return texts.str.fullmatch("0|-?[1-9][0-9]{0,17}").astype(bool)


def _times(log: Table) -> pd.Series:
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
        sizes = numbers.astype("float64").abs()
        seconds, thousandths = sizes.between(1e8, 1e10), sizes.between(1e11, 1e13)  # of the years since 1973
        if seconds[0]:
            log.refuse("timestamp", thousandths, "is in milliseconds, it seems, and the first row's is in seconds")
        if thousandths[0]:
            log.refuse("timestamp", seconds, "is in seconds, it seems, and the first row's is in milliseconds")
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


def _is_newest_first(users: np.ndarray, times: np.ndarray) -> bool:
    """Whether the times (rows,) of each of `users` (rows,) never rise from row to row, and fall so often that it cannot
    be chance."""
    order = np.argsort(users, kind="stable")
    steps = np.diff(times[order])[np.diff(users[order]) == 0]
    return bool((steps <= 0).all() and np.count_nonzero(steps) >= 20)


def _as_iso(texts: pd.Series, log: Table) -> pd.Series:
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
