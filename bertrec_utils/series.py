"""Film series and universes, and the names people use: two small tables in data/, made by hand."""

from functools import cache

import pandas as pd

from .files import PROJECT


@cache
def known_films() -> pd.DataFrame:
    """`data/series.csv` by title: the series a film belongs to, and its universe (Marvel, DC, other superheroes).

    Either may be "". Films are named as `familiar` names them.
    """
    return pd.read_csv(PROJECT / "data" / "series.csv", keep_default_na=False).set_index("title")


def series_of(titles: pd.Series) -> pd.Series:
    """The series of each film, "" where none is known."""
    return titles.map(known_films().series).fillna("")


def universe_of(titles: pd.Series) -> pd.Series:
    """Marvel, DC, other superheroes, or ""."""
    return titles.map(known_films().universe).fillna("")


def familiar(titles: pd.Series) -> pd.Series:
    """Titles with the name people use, where MovieLens kept a working title or has no year (`data/titles.csv`).

    The old name stays as an alias: `Avengers: Endgame (a.k.a. Avengers: Infinity War - Part II) (2019)`.
    """
    names = pd.read_csv(PROJECT / "data" / "titles.csv").set_index("title").familiar
    return titles.map(names).fillna(titles)
