"""Recommends films: titles in, titles out."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .evaluation import Scorer
from .logs import Interactions
from .sequences import Sequences, Vocabulary
from .titles import NewerTitle, TitleIndex, UnknownTitle


class Recommender:
    """What to watch next, for any history of titles: `model` scores the vocabulary's items, `log` names them."""

    def __init__(self, model: Scorer, vocabulary: Vocabulary, log: Interactions):
        self.model = model
        self.vocabulary = vocabulary
        self.movies = log.movies.set_index("item")
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
                    raise UnknownTitle(title, [], "has too few ratings in the model's data to be known")
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
            problem = f"none of {', '.join(map(repr, unknown))} is known" if unknown else "the history is empty"
            raise ValueError(f"{problem}; give at least one film the model knows")
        if k < 1:
            raise ValueError(f"k is {k}; ask for at least one recommendation")
        tokens = self.vocabulary.tokens(items)
        scores = self.model.score(Sequences(tokens, np.array([0, len(tokens)]), np.array([0])))[0].copy()
        scores[tokens - 1] = -np.inf
        best = (-scores).argsort(kind="stable")[: min(k, len(scores) - len(np.unique(tokens)))]
        table = pd.DataFrame({"rank": np.arange(1, len(best) + 1), "item": self.vocabulary.item_ids(best + 1)})
        table = table.join(self.movies[["title", "genres"]], on="item").assign(score=scores[best])
        table.attrs["unknown"] = list(unknown)
        return table
