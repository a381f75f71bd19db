"""Titles in, titles out."""

import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from rapidfuzz import fuzz, process

from .evaluation import Scorer
from .releases import Interactions
from .sequences import Sequences, Vocabulary

ARTICLES = "the|a|an|le|la|les|il|lo|gli|i|el|los|las|der|die|das|un|une|una|uno|den|det|en|ett|o|os|as"
YEAR = re.compile(r"\s*\((\d{4})(?:\s*[-–]\s*(?:\d{4})?)?\)\s*$")
PARENTHESES = re.compile(r"\(([^()]*)\)")
ALSO_KNOWN_AS = re.compile(r"^\s*a\.?k\.?a\.?\s+", re.IGNORECASE)


class UnknownTitle(LookupError):
    """No film has this title; `.closest` lists the titles most like it."""

    def __init__(self, title: str, closest: list[str], reason: str = "is not a title here"):
        self.title, self.closest = title, closest
        hint = f"; closest: {' | '.join(closest)}" if closest else ""
        super().__init__(f"{title!r} {reason}{hint}")


class NewerTitle(UnknownTitle):
    """The title's year lies after the last film of the release."""


def split_year(title: str) -> tuple[str, int | None]:
    """A title without its `(Year)`, and the year if it has one."""
    found = YEAR.search(title)
    return (title[: found.start()], int(found[1])) if found else (title, None)


def normalise(name: str) -> str:
    """A name for comparing: no accents, case, punctuation or spaces, and no article before or (`Name, The`) behind."""
    # ø, ł and ß are letters of their own, which Unicode does not take apart
    name = name.casefold().translate(str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "’": "'"}))
    name = "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    name = re.sub(rf",\s*(?:{ARTICLES}|l')\s*$", "", name.strip())
    name = re.sub(rf"^(?:(?:{ARTICLES})\s+|l')(?=\w)", "", name)
    return re.sub(r"[\W_]", "", name.replace("&", "and")) or name


def names_of(title: str) -> list[str]:
    """The names in a title: the main one, then those in parentheses (aliases and original titles)."""
    bare = split_year(title)[0]
    names = [PARENTHESES.sub(" ", bare), *PARENTHESES.findall(bare), bare]
    return [ALSO_KNOWN_AS.sub("", name).strip() for name in names if name.strip()]


class TitleIndex:
    """Finds films by title, whatever the article, year, alias, accents or case.

    Several films may share a name: the year decides (one year off is forgiven), then the main name before an alias,
    then `popularity` (item -> number of ratings).
    """

    def __init__(self, movies: pd.DataFrame, popularity: Mapping[int, int] | None = None):
        popularity = {} if popularity is None else popularity
        self.titles = dict(zip(movies.item.tolist(), movies.title.tolist(), strict=True))
        self.years = {item: split_year(title)[1] for item, title in self.titles.items()}
        self.last_year = max((year for year in self.years.values() if year), default=None)
        self.by_name: dict[str, list[tuple[bool, int, int]]] = {}
        for item, title in self.titles.items():
            for place, name in enumerate(names_of(title)):
                entry = (place > 0, -int(popularity.get(item, 0)), item)
                self.by_name.setdefault(normalise(name), []).append(entry)

    def find(self, title: str) -> int:
        """The item of a title. Raises UnknownTitle, or NewerTitle if its year lies after the release's last."""
        year = split_year(title)[1]
        for name in names_of(title):  # the main name first, an alias only if that is unknown
            found = self.by_name.get(normalise(name), [])
            if year is not None:
                found = [entry for entry in found if abs((self.years[entry[2]] or year) - year) <= 1]
            if found:
                return min(found, key=lambda entry: (year is not None and self.years[entry[2]] != year, entry))[2]
        if year and self.last_year and year > self.last_year:
            raise NewerTitle(title, [], f"is newer than this release, whose last film is of {self.last_year}")
        raise UnknownTitle(title, self.closest(title))

    def closest(self, title: str, count: int = 3) -> list[str]:
        """Up to `count` titles for an error message: names that contain this one, most rated first, then like ones."""
        wanted = next((normalise(name) for name in names_of(title)), "")
        if not re.search(r"\w", wanted):
            return []
        longer = [name for name in self.by_name if wanted in name] if len(wanted) > 2 else []
        longer.sort(key=lambda name: (not name.startswith(wanted), min(self.by_name[name])[1]))
        alike = process.extract(wanted, self.by_name.keys(), scorer=fuzz.ratio, limit=count, score_cutoff=60)
        items = [min(self.by_name[name])[2] for name in [*longer[:count], *(name for name, _, _ in alike)]]
        return [self.titles[item] for item in dict.fromkeys(items)][:count]


class Recommender:
    """What to watch next, for any history of titles: `model` scores the vocabulary's items, `log` names them."""

    def __init__(self, model: Scorer, vocabulary: Vocabulary, log: Interactions):
        self.model = model
        self.vocabulary = vocabulary
        self.movies = log.movies.drop_duplicates("item").set_index("item")
        unnamed = ~np.isin(vocabulary.items, log.movies.item)
        if unnamed.any():
            raise ValueError(
                f"{log.name} does not name {unnamed.sum():,} of the model's items; use the data it was trained on"
            )
        self.titles = TitleIndex(log.movies, log.ratings.item.value_counts())

    def look_up(self, history: Sequence[str]) -> tuple[list[int], dict[str, UnknownTitle]]:
        """The items of a history, and for each title the model does not know the error that says why."""
        items, unknown = [], {}
        for title in history:
            try:
                item = self.titles.find(title)
                if item not in self.vocabulary:
                    raise UnknownTitle(title, [], "has too few ratings in this release for the model to know it")
                items.append(item)
            except UnknownTitle as error:
                unknown[title] = error
        return items, unknown

    def recommend(self, history: Sequence[str], k: int = 10) -> pd.DataFrame:
        """The k best films after `history` (titles, oldest first): rank, item, title, genres, score.

        The score is the model's output, a logit in BERT4Rec's case. Films of the history are never returned. Titles
        newer than the release are left out and named in `.attrs["unknown"]`; any other unknown title raises
        UnknownTitle, and a history without a known film ValueError.
        """
        if isinstance(history, str):
            raise TypeError("a history is a list of titles, not one string")
        items, unknown = self.look_up(history)
        for error in unknown.values():
            if not isinstance(error, NewerTitle):
                raise error
        return self.recommend_items(items, k, list(unknown))

    def recommend_items(self, items: Sequence[int], k: int = 10, unknown: Sequence[str] = ()) -> pd.DataFrame:
        """`recommend` for item ids; `unknown` titles are passed on in `.attrs`."""
        if not len(items):
            found = f"none of {', '.join(map(repr, unknown))} is known" if unknown else "the history is empty"
            raise ValueError(f"{found}; give at least one film the model knows")
        if k < 1:
            raise ValueError(f"k is {k}; ask for at least one recommendation")
        tokens = self.vocabulary.tokens(items)
        scores = self.model.score(Sequences(tokens, np.array([0, len(tokens)]), np.array([0])))[0].copy()
        scores[tokens - 1] = -np.inf
        best = (-scores).argsort(kind="stable")[: min(k, len(scores) - len(np.unique(tokens)))]
        found = self.vocabulary.item_ids(best + 1)
        table = pd.DataFrame({"rank": np.arange(1, len(best) + 1), "item": found})
        table = table.join(self.movies[["title", "genres"]], on="item").assign(score=scores[best])
        table.attrs["unknown"] = list(unknown)
        return table
