"""Reads the films somebody watched: exports of Letterboxd and IMDb, or a plain list of titles."""

import csv
import io
from pathlib import Path

DATES = ("Watched Date", "Date Rated", "Date")  # the first that a file has tells the order
NAMES = ("Name", "Title")  # Letterboxd's column, IMDb's


def read_history(path: str | Path) -> list[str]:
    """Titles with their years, `Name (Year)`, oldest first and each once: what `Recommender.look_up` takes.

    A .csv is an export: of Letterboxd (diary.csv, watched.csv or ratings.csv: columns Name, Year, Date or Watched Date)
    or of IMDb (ratings: Title, Year, Date Rated), in UTF-8. Any other file is a text with one title a line, in its
    order. FileNotFoundError, or ValueError if the columns are others or no title is there.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8; export it again, or save it as UTF-8") from error
    titles = _exported(text, path) if path.suffix.lower() == ".csv" else [line.strip() for line in text.split("\n")]
    titles = [title for title in dict.fromkeys(titles) if title]
    if not titles:
        raise ValueError(f"{path} holds no titles")
    return titles


def _exported(text: str, path: Path) -> list[str]:
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise ValueError(f"{path} is no whole CSV ({error}); export it again") from error
    columns = list(rows[0]) if rows else text.split("\n")[0].split(",")
    name = next((column for column in NAMES if column in columns), None)
    if name is None or "Year" not in columns:
        raise ValueError(
            f"{path} has no columns Name and Year (Letterboxd) or Title and Year (IMDb), separated by commas; it has "
            + ", ".join(map(str, columns))
        )
    date = next((column for column in DATES if column in columns), None)
    found = sorted(rows, key=lambda row: row[date] or "") if date else rows  # ISO dates; stable
    return [f"{row[name]} ({row['Year']})" if row["Year"] else row[name] for row in found if row[name]]
