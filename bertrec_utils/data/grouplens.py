"""GroupLens's own files: ratings.csv, ratings.dat and u.data; movies.csv, movies.dat and u.item."""

import csv
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from .text import Lines, abbreviate, fields_of, first_line, numbered_lines, parse_lines, parse_table

RATING_TYPES = {"user": "int32", "item": "int32", "rating": "float32", "timestamp": "int64"}
ML_100K_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


def read_ratings(path: Path, separator: str, row_count: int | None = None) -> pd.DataFrame:
    """GroupLens's ratings, separated by "," (with a header), "::" or a tab: columns and dtypes of RATING_TYPES; the
    first `row_count` of them if that is given. Raises ValueError that names the file and the first malformed line."""
    lines = numbered_lines(path, "utf-8")
    if separator == ",":
        _skip_header(lines, path, "userId,movieId,rating,timestamp")
    ratings = _parse_ratings(path, separator, row_count)
    if ratings is None:
        rows = parse_lines(islice(lines, row_count), path, lambda line: _rating(line, separator))
        ratings = pd.DataFrame(rows, columns=list(RATING_TYPES)).astype(RATING_TYPES)
    if ratings.empty:
        raise ValueError(f"{path} holds no ratings")
    return ratings


def read_movies(path: Path, separator: str, encoding: str) -> pd.DataFrame:
    """GroupLens's films, separated by "," (with a header), "::" or "|" (u.item): item (int32), title and genres. Raises
    ValueError as `read_ratings` does."""
    lines = numbered_lines(path, encoding)
    if separator == ",":
        _skip_header(lines, path, "movieId,title,genres")
    seen: set[int] = set()  # items, to refuse a film that is listed twice
    films = list(parse_lines(lines, path, lambda line: _film(line, separator, seen)))
    if not films:
        raise ValueError(f"{path} holds no films")
    return pd.DataFrame(films, columns=["item", "title", "genres"]).astype({"item": "int32"})


def _skip_header(lines: Lines, path: Path, header: str) -> None:
    if (line := first_line(lines)) != header:
        raise ValueError(f"{path}, line 1: expected the header {header}, found {abbreviate(line)}")


def _parse_ratings(path: Path, separator: str, row_count: int | None) -> pd.DataFrame | None:
    """The ratings by the fast parser, None if anything in the file is not as it should be."""
    # that parser takes one-character separators only: "::" is read as ":" with empty columns between
    columns = list(range(0, 7, 2) if separator == "::" else range(4))
    types = dict.fromkeys(range(columns[-1] + 1), "float32") | dict(zip(columns, RATING_TYPES.values(), strict=True))
    header = 1 if separator == "," else 0
    layout = {"sep": separator[0], "skiprows": header, "names": list(types), "dtype": types}
    line_count = row_count and row_count + header
    table = parse_table(path, line_count, **layout, quoting=csv.QUOTE_NONE, na_values=[""])
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
    fields = fields_of(line, separator, separator == ",")
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
