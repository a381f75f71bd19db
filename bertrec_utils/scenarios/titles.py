"""Titles: finds a film however people write it, reads lists of watched films, knows series and scenarios."""

import csv
import io
import re
import unicodedata
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
from rapidfuzz import fuzz, process

ARTICLES = "the|a|an|le|la|les|un|une|il|lo|gli|una|uno|el|los|las|der|das|det|ett|het"
# articles only behind a name (`Vitelloni, I`): before one they may be words (`I Spy`, `Die Hard`)
ALSO_WORDS = "i|o|os|as|die|den|en|de"
ARTICLE_BEFORE = re.compile(rf"^(?:(?:{ARTICLES}) |l')(?=\S)")
ARTICLE_BEHIND = re.compile(rf"(.+), ?({ARTICLES}|{ALSO_WORDS}|l')")
YEAR = re.compile(r"\s*\((\d{4})(?:\s*[-–]\s*(?:\d{4})?)?\)\s*$")
TYPED_YEAR = re.compile(r"\s+\(?(\d{4})\)?\s*$")
LAST_PARENTHESES = re.compile(r"(?<=\S)\s+\(((?:[^()]|\([^()]*\))*)\)\s*$")
ALSO_KNOWN_AS = re.compile(r"^\s*a\.?k\.?a\.?\s+", re.IGNORECASE)
# ø, ł and the like are letters of their own, which Unicode does not take apart
DATES = ("Watched Date", "Date Rated", "Date")  # the first that an export has tells the order
NAMES = ("Name", "Title")  # Letterboxd's column, IMDb's
LONGEST = 500  # letters of a title that are looked at
PLAIN = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "&": " and ", "'": ""})


class UnknownTitle(LookupError):
    """No film has this title; `.closest` lists the titles most like it."""

    def __init__(self, title: str, closest: list[str], reason: str = "is not a title here"):
        self.title, self.closest = title, closest
        hint = f"; closest: {' | '.join(closest)}" if closest else ""
        super().__init__(f"{title!r} {reason}{hint}")


class NewerTitle(UnknownTitle):
    """The title's year lies after the last film of the release."""


def split_year(title: str) -> tuple[str, int | None]:
    """A title without its `(Year)`, and the year if it has one; the first of several years, as in `(2006-2010)`."""
    title = title[:LONGEST]
    year = YEAR.search(title)
    return (title[: year.start()], int(year[1])) if year else (title, None)


def names_of(title: str) -> list[str]:
    """The names in a title: the whole without the year, the main name, then the aliases in parentheses at the end."""
    whole = main = split_year(title)[0].strip()
    aliases: list[str] = []
    while last := LAST_PARENTHESES.search(main):
        main = main[: last.start()]
        aliases.insert(0, ALSO_KNOWN_AS.sub("", last[1]).strip())
    return [name for name in dict.fromkeys([whole, main, *aliases]) if name]


def normalise(name: str) -> str:
    """The words of a name, one space between them: no accents, case or punctuation."""
    letters = unicodedata.normalize("NFKD", name.casefold().translate(PLAIN))
    letters = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return " ".join(re.findall(r"[^\W_]+", letters)) or name


def spellings(name: str) -> tuple[str, str, str, str]:
    """Four forms of a name to look up, from strict to tolerant. The name in small letters, its article in front
    (`Avengers, The` is `the avengers`); that normalised; without the article; without spaces too."""
    name = " ".join(name.casefold().replace("’", "'").split())
    bare = ARTICLE_BEFORE.sub("", name)
    if behind := ARTICLE_BEHIND.fullmatch(name):
        bare, article = behind.groups()
        name = article + bare if article == "l'" else f"{article} {bare}"
    words = normalise(bare)
    return name, normalise(name), words, words.replace(" ", "")


class TitleIndex:
    """Finds films by title, whatever the article, year, alias, accents or case.

    Several films may fit: one of the very year asked for comes first (one year off is forgiven), then the strictest
    spelling, then the main name before an alias, then the item with more ratings. `items` has the columns item and
    title, and ratings if they are known.
    """

    def __init__(self, items: pd.DataFrame):
        self.titles = dict(zip(items.item.tolist(), items.title.tolist(), strict=True))
        popularity = dict(zip(items.item.tolist(), items.ratings.tolist(), strict=True)) if "ratings" in items else {}
        self.years = {item: split_year(title)[1] for item, title in self.titles.items()}
        self.last_year = max((year for year in self.years.values() if year), default=None)
        # for each of the four spellings: the spelling -> (whether it is an alias, minus the popularity, item)
        self.films: list[dict[str, list[tuple[bool, int, Any]]]] = [{}, {}, {}, {}]
        for item, title in self.titles.items():
            for number, name in enumerate(names_of(title)):  # aliases from number 2 on
                film = (number > 1, -int(popularity.get(item, 0)), item)
                for films, spelling in zip(self.films, spellings(name), strict=True):
                    films.setdefault(spelling, []).append(film)

    def find(self, title: str) -> Any:
        """The item of a title. Raises UnknownTitle, or NewerTitle if its year lies after the release's last."""
        year = split_year(title)[1]
        for name in names_of(title):  # an alias counts only if the names before it are unknown
            candidates = [
                (self._years_off(film[-1], year), tolerance, film)
                for tolerance, (films, spelling) in enumerate(zip(self.films, spellings(name), strict=True))
                for film in films.get(spelling, [])
            ]
            if candidates and min(candidates)[0] <= 1:
                return min(candidates)[-1][-1]
        if year and self.last_year and year > self.last_year:
            raise NewerTitle(title, [], f"is newer than this release, whose last film is of {self.last_year}")
        raise UnknownTitle(title, self.closest(title))

    def _years_off(self, item: Any, year: int | None) -> int:
        """How many years a film is from the year asked for: 0 if none was asked for, 1 if the film has none."""
        its_year = self.years[item]
        return 0 if year is None else 1 if its_year is None else abs(its_year - year)

    def closest(self, title: str, count: int = 3) -> list[str]:
        """Up to `count` titles for an error message: names that contain this one, then similar ones."""
        wanted = _bare(title)
        similar = process.extract(wanted, self.films[2].keys(), scorer=fuzz.ratio, limit=count, score_cutoff=60)
        names = [*self._containing(wanted), *(name for name, _, _ in similar)] if wanted else []
        return [self.titles[item] for item in dict.fromkeys(min(self.films[2][name])[-1] for name in names)][:count]

    def suggest(self, typed: str, count: int = 8) -> list[Any]:
        """Up to `count` items while a title is being typed: names that begin so or contain it, then misspelt ones. A
        year at the end, with or without parentheses, puts the films of that year first."""
        year = TYPED_YEAR.search(typed)
        if year and "(" not in year[0] and self._containing(_bare(typed)):
            year = None  # the number is part of a name, as in Blade Runner 2049
        wanted = _bare(typed[: year.start()] if year else typed)
        if not wanted:
            return []
        films = self.films[2]
        longer = [name for name in films if len(name) >= len(wanted) - 2]
        similar = process.extract(wanted, longer, scorer=fuzz.partial_ratio, limit=None, score_cutoff=80)
        similar.sort(key=lambda match: (-match[1], min(films[match[0]])[1]))
        names = [*self._containing(wanted), *(name for name, _, _ in similar)]
        items = list(dict.fromkeys(item for name in names for _, _, item in sorted(films[name])))
        if year:
            items.sort(key=lambda item: self.years[item] != int(year[1]))  # stable
        return items[:count]

    def _containing(self, wanted: str) -> list[str]:
        """Names that contain `wanted`: those that begin with its words first, then the most rated first."""
        films = self.films[2]  # whole words, so that `E.T.` is not the start of `Eternal`
        letters = wanted.replace(" ", "")

        found = [name for name in films if letters in name.replace(" ", "")]
        found.sort(key=lambda name: (not name.startswith(wanted), min(films[name])[1]))
        return sorted(found, key=lambda name: not f"{name} ".startswith(f"{wanted} "))  # stable


def _bare(title: str) -> str:
    """The words of a title without year, aliases and article; "" if there are none."""
    words = next((spellings(name)[2] for name in reversed(names_of(title)[:2])), "")
    return words if words.replace(" ", "").isalnum() else ""


def _table(name: str) -> pd.DataFrame:
    with (resources.files(__package__) / name).open(encoding="utf-8") as file:
        return pd.read_csv(file, keep_default_na=False)


@cache
def known_series() -> pd.DataFrame:
    """By title: the `series` a film belongs to and its `universe` (Marvel, DC, other superheroes); either may be ""."""
    return _table("series.csv").set_index("title")


def series_of(titles: pd.Series) -> pd.Series:
    """The series of each film, "" where none is known."""
    return titles.map(known_series().series).fillna("")


def universe_of(titles: pd.Series) -> pd.Series:
    """Marvel, DC, other superheroes, or ""."""
    return titles.map(known_series().universe).fillna("")


def scenarios() -> pd.DataFrame:
    """Three histories, and what a blog post recommended after them: scenario, list, rank, title."""
    return _table("scenarios.csv")


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
        needed = "Name and Year (Letterboxd) or Title and Year (IMDb), separated by commas"
        raise ValueError(f"{path} has no columns {needed}; it has {', '.join(map(str, columns))}")
    date = next((column for column in DATES if column in columns), None)
    found = sorted(rows, key=lambda row: row[date] or "") if date else rows  # ISO dates; stable
    return [f"{row[name]} ({row['Year']})" if row["Year"] else row[name] for row in found if row[name]]
