"""Titles: finds a film however people write it, and knows aliases, series and scenarios."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping
from functools import cache, cached_property
from importlib import resources
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
NUMBERS = ("one two three four five six seven eight nine ten", "i ii iii iv v vi vii viii ix x")
FIGURES = {word: str(number) for words in NUMBERS for number, word in enumerate(words.split(), 1)}
NUMERAL = re.compile(rf"(?<=\w )(?:{'|'.join(FIGURES)})\b")  # not the first word of a name
SUBTITLE = re.compile(r": | [-–] ")
NUMBER = re.compile(rf"[: ]+(?:(?:part|chapter|episode) )?(?:\d+|[ivx]+)(?:{SUBTITLE.pattern})", re.IGNORECASE)
WHOSE = re.compile(r"(?:\S+ ){0,3}\S*(?:'s|s') ")  # `Monty Python's Life of Brian`
LONGEST = 500  # letters of a title that are looked at
# ø, ł and the like are letters of their own, which Unicode does not take apart
PLAIN = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "&": " and ", "+": " and ", "'": ""})


class UnknownTitle(LookupError):
    """No film has this title; `.closest` lists the titles most like it, looked for when first asked for."""

    def __init__(self, title: str, reason: str = "is not a title here", find_closest: Callable | None = None):
        super().__init__(title, reason)
        self.title, self.reason, self.find_closest = title, reason, find_closest

    @cached_property
    def closest(self) -> list[str]:
        return self.find_closest(self.title) if self.find_closest else []

    def __str__(self) -> str:
        return f"{self.title!r} {self.reason}" + (f"; closest: {' | '.join(self.closest)}" if self.closest else "")


class NewerTitle(UnknownTitle):
    """The title's year lies after the last film of the release."""


class BareId(UnknownTitle):
    """The text is no title, but the id of an item, without `id:` before it."""

    def __init__(self, title: str, find_closest: Callable | None = None):
        super().__init__(title, f"is not a title here, but an id; for that item, write id:{title}", find_closest)


class RareTitle(UnknownTitle):
    """An item has this title, but the model does not know it."""

    def __init__(self, title: str):
        super().__init__(title, "has too few ratings in the model's data to be known")


class AmbiguousTitle(UnknownTitle):
    """Several films have this title; `.items` lists their ids."""

    def __init__(self, title: str, items: list[Any], titles: Mapping[Any, str]):
        named = " | ".join(f"id:{item} {titles[item]}" for item in items[:5])
        super().__init__(title, f"is the title of {len(items):,} items; name one by its id: {named}")
        self.items = items


def sum_up(unknown: Mapping[str, UnknownTitle], count: int, most: int = 5) -> list[str]:
    """Messages about the `unknown` among `count` titles: one line each, or a single line for more than `most`."""
    if len(unknown) <= most:
        return [str(error) for error in unknown.values()]
    some = ", ".join(map(repr, list(unknown)[:3]))
    ids = [title for title, error in unknown.items() if isinstance(error, BareId)]
    hint = f"; {len(ids):,} of them are ids: write id:{ids[0]} and so on" if ids else ""
    return [f"{len(unknown):,} of {count:,} titles are unknown: {some} ... and {len(unknown) - 3:,} more{hint}"]


def look_alikes(unknown: Iterable[str], titles: Iterable[str]) -> list[str]:
    """A sentence for each unknown title that may be one of `titles` under another name: the names are alike, or one is
    part of the other, word for word; and the years, if both have one, differ by one at most."""
    names = [(f" {_bare(name)} ", split_year(title)[1], title) for title in titles for name in names_of(title)]
    sentences = []
    for title in unknown:
        wanted, year = f" {_bare(title)} ", split_year(title)[1]
        for name, its_year, known in names if wanted.strip() else []:
            is_alike = wanted in name or name in wanted or fuzz.ratio(wanted, name) >= 85
            if name.strip() and is_alike and abs((year or its_year or 0) - (its_year or year or 0)) <= 1:
                sentences.append(f"{title!r} is unknown; did you mean {known!r}, which is in this list?")
                break
    return sentences


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
    letters = name.casefold().translate(PLAIN)
    if not letters.isascii():
        letters = unicodedata.normalize("NFKD", letters)
        letters = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return " ".join(re.findall(r"[^\W_]+", letters)) or name


def spellings(name: str) -> tuple[str, str, str, str]:
    """Four forms of a name to look up, from strict to tolerant. The name in small letters, its article in front
    (`Avengers, The` is `the avengers`); that normalised; without the article; without spaces and with numbers in
    figures too."""
    name = " ".join(name.casefold().replace("’", "'").split())
    bare = ARTICLE_BEFORE.sub("", name)
    if behind := ARTICLE_BEHIND.fullmatch(name):
        bare, article = behind.groups()
        name = article + bare if article == "l'" else f"{article} {bare}"
    words = normalise(bare)
    squeezed = NUMERAL.sub(lambda number: FIGURES[number[0]], words).replace(" ", "")
    return name, words if bare == name else normalise(name), words, squeezed


def short_names(name: str) -> list[str]:
    """What people shorten a name to: without the number before its subtitle (`Star Wars: The Empire Strikes Back`),
    without the subtitle, and, if that leaves two words, the subtitle alone and the name without its owner."""
    subtitles, owner = list(SUBTITLE.finditer(name)), WHOSE.match(name)
    shorter = [short for found in subtitles[:1] for short in (NUMBER.sub(": ", name), name[: found.start()])]
    return shorter + [name[found.end() :] for found in [*subtitles, owner] if found and " " in name[found.end() :]]


class TitleIndex:
    """Finds films by title, whatever the article, year, alias, accents or case.

    `id:2707` is the item of that id. Then the exact title wins; two items that have it are an error. Else several films
    may fit: one of the very year asked for comes first (one year off is forgiven), then the strictest spelling, then
    the main name before an alias (in parentheses at the title's end, or in the package's aliases.csv). Films that fit
    alike are an error if a year was asked for, else the one with more ratings is meant. A title with a year that fits
    none may also be the one film of that year whose name people shorten so (`short_names`). An item without a title,
    named by its id, is found by that alone. `items` has the columns item and title, and ratings if they are known.
    """

    def __init__(self, items: pd.DataFrame):
        self.titles = dict(zip(items.item.tolist(), items.title.tolist(), strict=True))
        self.ids = {str(item): item for item in self.titles}
        self.same_title: dict[str, list[Any]] = defaultdict(list)
        for item, title in self.titles.items():
            self.same_title[title.strip()].append(item)
        popularity = dict(zip(items.item.tolist(), items.ratings.tolist(), strict=True)) if "ratings" in items else {}
        self.years = {item: split_year(title)[1] for item, title in self.titles.items()}
        self.last_year = max((year for year in self.years.values() if year), default=None)
        # for each of the four spellings: the spelling -> (whether it is an alias, minus the popularity, item)
        self.films: list[dict[str, list[tuple[bool, int, Any]]]] = [{}, {}, {}, {}]
        self.shortened: dict[str, set[Any]] = defaultdict(set)  # the last spelling of a name made short: its items
        for item, title in self.titles.items():
            names = names_of(title)
            own = len(names[:2])  # the whole and the main name; the others are aliases
            for alias in known_aliases().get(f"{names[:2][-1]} ({self.years[item]})", []) if names else []:
                names.append(alias)
                if split_year(alias)[1]:
                    self.same_title[alias].append(item)
            for number, name in enumerate(names):
                film = (number >= own, -int(popularity.get(item, 0)), item)
                for films, spelling in zip(self.films, spellings(name), strict=True):
                    films.setdefault(spelling, []).append(film)
                for short in short_names(name):
                    self.shortened[spellings(short)[-1]].add(item)

    def titled(self, title: str) -> list[Any]:
        """The items that have this very title, blanks around it aside; if there are none, its case, too."""
        title = title.strip()
        found = [item for item in self.same_title.get(title, []) if self.titles[item].strip() == title]  # no aliases
        return found or self._folded_titles.get(title.casefold(), [])

    @cached_property
    def _folded_titles(self) -> dict[str, list[Any]]:
        folded = defaultdict(list)
        for item, title in self.titles.items():
            if title != str(item):  # ids may differ in case alone
                folded[title.strip().casefold()].append(item)
        return dict(folded)

    def find(self, title: str, known: Container[Any] = (), exact: bool = False) -> Any:
        """The item of a title, with `exact` of this very title (`titled`); of several, that which is `known`. Raises
        AmbiguousTitle if several are left, UnknownTitle if there is none, and its kinds BareId if it is an id without
        `id:`, NewerTitle if the title's year lies after the release's last, unless it had to be `exact`."""
        if title.startswith("id:") and (named := title.removeprefix("id:").strip()) in self.ids:
            return self.ids[named]
        title = title.strip()
        found = self.titled(title) if exact else self.same_title.get(title) or self._fitting(title)
        found = [item for item in found if item in known] or found
        if len(found) > 1:
            raise AmbiguousTitle(title, found, self.titles)
        if found:
            return found[0]
        year = None if exact else split_year(title)[1]
        if year and self.last_year and year > self.last_year:
            raise NewerTitle(title, f"is newer than this release, whose last film is of {self.last_year}")
        raise (BareId if title in self.ids else UnknownTitle)(title, find_closest=self.closest)

    def _fitting(self, title: str) -> list[Any]:
        """The items that fit a title best, alike."""
        year, names = split_year(title)[1], names_of(title)
        for name in names:  # an alias counts only if the names before it are unknown
            candidates = [
                (self._years_off(film[-1], year), tolerance, film)
                for tolerance, (films, spelling) in enumerate(zip(self.films, spellings(name), strict=True))
                for film in films.get(spelling, [])
                if self.titles[film[-1]] != str(film[-1])
            ]
            if candidates and min(candidates)[0] <= 1:
                off, tolerance, best = min(candidates)
                alike = [film[-1] for *how, film in candidates if [*how, film[0]] == [off, tolerance, best[0]]]
                return list(dict.fromkeys(alike)) if year else [best[-1]]
        for name in names[:2] if year else []:
            spelling = spellings(NUMBER.sub(": ", name))[-1]
            items = {film[-1] for film in self.films[-1].get(spelling, [])} | self.shortened.get(spelling, set())
            if len(items) == 1 and [self.years[item] for item in items] == [year]:
                return list(items)
        return []

    def _years_off(self, item: Any, year: int | None) -> int:
        """How many years the film is off the year asked for: 0 if none was asked for, 1 if the film has no year."""
        its_year = self.years[item]
        return 0 if year is None else 1 if its_year is None else abs(its_year - year)

    def closest(self, title: str, count: int = 3) -> list[str]:
        """Up to `count` titles for an error message: names that contain this one, then similar ones."""
        wanted = _bare(title)
        similar = process.extract(wanted, self.films[2].keys(), scorer=fuzz.ratio, limit=count, score_cutoff=60)
        names = [*self._containing(wanted), *(name for name, _, _ in similar)] if wanted else []
        return [self.titles[item] for item in dict.fromkeys(min(self.films[2][name])[-1] for name in names)][:count]

    def suggest(self, typed: str, count: int = 8, misspelt: bool = True) -> list[Any]:
        """Up to `count` items while a title is being typed: names that begin so or contain it, then `misspelt` ones. A
        year at the end, with or without parentheses, puts the films of that year first."""
        if typed.startswith("id:"):
            return [self.ids[typed[3:].strip()]] if typed[3:].strip() in self.ids else []
        year = TYPED_YEAR.search(typed)
        if year and "(" not in year[0] and self._containing(_bare(typed)):
            year = None  # the number is part of a name, as in Blade Runner 2049
        wanted = _bare(typed[: year.start()] if year else typed)
        if not wanted:
            return []
        films = self.films[2]
        longer = [name for name in films if len(name) >= len(wanted) - 2] if misspelt else []
        similar = process.extract(wanted, longer, scorer=fuzz.partial_ratio, limit=None, score_cutoff=80)
        similar.sort(key=lambda match: (-match[1], min(films[match[0]])[1]))
        names = [*self._containing(wanted), *(name for name, _, _ in similar)]
        items = list(dict.fromkeys(item for name in names for _, _, item in sorted(films[name])))
        if year:
            items.sort(key=lambda item: self.years[item] != int(year[1]))  # stable
        return items[:count]

    def _containing(self, wanted: str) -> list[str]:
        """Names that contain `wanted`: itself, then those that begin with its words, then the most rated first."""
        films = self.films[2]  # whole words, so that `E.T.` is not the start of `Eternal`
        letters = wanted.replace(" ", "")

        found = [name for name in films if letters in name.replace(" ", "")]
        found.sort(key=lambda name: (not name.startswith(wanted), min(films[name])[1]))
        return sorted(found, key=lambda name: (name != wanted, not f"{name} ".startswith(f"{wanted} ")))  # stable


def _bare(title: str) -> str:
    """The words of a title without year, aliases and article; "" if there are none."""
    words = next((spellings(name)[2] for name in reversed(names_of(title)[:2])), "")
    return words if words.replace(" ", "").isalnum() else ""


def _table(name: str) -> pd.DataFrame:
    with (resources.files(__package__) / name).open(encoding="utf-8") as file:
        return pd.read_csv(file, keep_default_na=False)


@cache
def known_aliases() -> dict[str, list[str]]:
    """By title (the main name and the year): other names; one with a year of its own counts as an exact title, too."""
    return _table("aliases.csv").groupby("title").alias.agg(list).to_dict()


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
