"""Recommends films: titles in, titles out."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, permutations
from typing import Any, TypedDict, Unpack

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from ..common import progress_bar
from ..data.sequences import Sequences, Vocabulary
from ..evaluation.lists import best_columns
from ..evaluation.ranking import Scorer
from .titles import AmbiguousTitle, NewerTitle, RareTitle, TitleIndex, UnknownTitle, look_alikes, series_of

ORDERS = 16  # random orders over which a history that is read as a set is averaged
USERS_PER_PART = 4_096  # users in each table that `recommend_in_parts` yields
MAX_SCORES = 4_000_000  # at most this many scores are in memory at once


class ListOptions(TypedDict, total=False):
    """How a list of recommendations is made: see `Recommender.recommend_in_parts`."""

    as_set: bool
    popularity_penalty: float
    exclude_series: bool
    only: Iterable[Any] | None
    without: Iterable[Any]
    allow_seen: bool


class Recommender:
    """What to watch next, for any history of titles: `model` scores the vocabulary's items.

    `items` names them: item, title, genres, ratings, as `Dataset.items`, `Checkpoint.load_items` and
    `Interactions.item_table` return. `noun` is what one of them is called on screen. ValueError if a column is missing
    or an item of the vocabulary.
    """

    def __init__(self, model: Scorer, vocabulary: Vocabulary, items: pd.DataFrame, noun: str = "film"):
        self.model, self.vocabulary, self.noun = model, vocabulary, noun
        if missing := [name for name in ("item", "title", "genres", "ratings") if name not in items]:
            problem = f"the table of items has no column {missing[0]}"
            raise ValueError(f"{problem}; take that of Dataset.items, Checkpoint.load_items or Interactions.item_table")
        unnamed = ~pd.Index(vocabulary.items).isin(items.item)  # hashed: np.isin takes quadratic time for texts
        if unnamed.any():
            problem = f"{unnamed.sum():,} of the model's items have no title in this data"
            raise ValueError(f"{problem}; use the data it was trained on")
        self.items = items.set_index("item")
        self.items["series"] = series_of(self.items.title)
        self.log_popularity = np.log(self.items.ratings[vocabulary.items].to_numpy(np.float32) + 1)
        self.titles = TitleIndex(items)
        # random sort keys for every item in each order: a history with and without a film has the same orders
        self.sort_keys = np.random.default_rng(0).random((ORDERS, len(vocabulary) + 1), dtype=np.float32)

    def look_up(self, history: Iterable[str]) -> tuple[list[Any], dict[str, UnknownTitle]]:
        """The items of a history (titles, or ids written `id:2707`; see `TitleIndex`), and for each title the model
        does not know the error that says why. Of items with one title, the one that the model knows is meant. TypeError
        if the history is one string, or something in it is none."""
        if isinstance(history, str):
            raise TypeError("a history is a list of titles, not one string")
        history = list(history)
        for title in history:
            if not isinstance(title, str):
                raise TypeError(f"{title!r} is no title; name an item by its id as 'id:{title}', or to recommend_items")
        found, unknown = self.look_up_all(progress_bar(history, desc="titles", delay=1, leave=False))
        several = {title: items for title, items in found.items() if len(items) > 1}
        unknown |= {title: AmbiguousTitle(title, items, self.titles.titles) for title, items in several.items()}
        return [found[title][0] for title in history if title not in unknown], unknown

    def look_up_all(
        self, titles: Iterable[str], exact: bool = False
    ) -> tuple[dict[str, list[Any]], dict[str, UnknownTitle]]:
        """For each title all items that have it and that the model knows, and for each without one the error that says
        why. With `exact`, titles are found by nothing but the title, its case aside."""
        found, unknown = dict[str, list[Any]](), dict[str, UnknownTitle]()
        for title in titles:
            try:
                items = [self.titles.find(title, self.vocabulary, exact)]
            except AmbiguousTitle as error:
                items = error.items
            except UnknownTitle as error:
                unknown[title] = error
                continue
            if known := [item for item in items if item in self.vocabulary]:
                found[title] = known
            else:
                unknown[title] = RareTitle(title)
        return found, unknown

    def suggest(self, typed: str, count: int = 8, misspelt: bool = True) -> list[Any]:
        """Up to `count` items that the model knows, those whose titles match best what has been typed."""
        known = (item for item in self.titles.suggest(typed, 20 * count, misspelt) if item in self.vocabulary)
        return list(islice(known, count))

    def recommend(self, history: Sequence[str], k: int = 10, **options: Unpack[ListOptions]) -> pd.DataFrame:
        """The k best films after `history` (titles, oldest first): rank, item, title, genres, score.

        `options` are those of `recommend_in_parts`. Titles newer than the release are left out and named in
        `.attrs["unknown"]`; any other unknown title raises UnknownTitle, and a history without a known film ValueError.
        """
        items, unknown = self.look_up(history)
        for error in unknown.values():
            if not isinstance(error, NewerTitle):
                raise error
        if not options.get("allow_seen"):
            items = list(dict.fromkeys(items))  # a film counts once, as in training
        return self.recommend_items(items, k, list(unknown), **options)

    def recommend_items(
        self, items: Sequence[Any], k: int = 10, unknown: Sequence[str] = (), **options: Unpack[ListOptions]
    ) -> pd.DataFrame:
        """`recommend` for item ids, each as often as it is given; `unknown` titles are passed on in `.attrs`, and a
        warning is logged if one of them may be a film of the list under another name. `options` are those of
        `recommend_in_parts`.

        The table is empty if nothing is left. ValueError for an empty history, KeyError for an item that the model does
        not know.
        """
        if not len(items):
            some = ", ".join(map(repr, unknown[:3])) + (f" and {len(unknown) - 3:,} more" if unknown[3:] else "")
            problem = f"none of {some} is known" if unknown else "the history is empty"
            an_id = next(
                (f"; to name an item by its id, write id:{name}" for name in unknown if name in self.titles.ids), ""
            )
            raise ValueError(f"{problem}; give at least one {self.noun} the model knows{an_id}")
        for item in items:
            if item not in self.vocabulary:
                raise KeyError(f"the model knows no item {item!r}; {self._example()}")
        history = Sequences(self.vocabulary.tokens(items), np.array([0, len(items)]), np.array([0]))
        [table] = self.recommend_in_parts(history, k, **options)
        table = table.assign(genres=self.items.genres.loc[table["item"]].array)
        table = table[["rank", "item", "title", "genres", "score"]]
        table.attrs["unknown"] = list(unknown)
        for sentence in look_alikes(unknown, table.title):
            logging.getLogger(__name__).warning(sentence)
        return table

    def recommend_all(self, histories: Sequences, k: int = 10, **options: Unpack[ListOptions]) -> pd.DataFrame:
        """The k best films after each history, best first: user, rank, item, title, score.

        The histories are those of a log over the model's vocabulary, as `Checkpoint.load_histories` and `histories_of`
        return them. `options` are those of `recommend_in_parts`, whose parts these are.
        """
        return pd.concat(self.recommend_in_parts(histories, k, **options), ignore_index=True)

    def recommend_in_parts(
        self,
        histories: Sequences,
        k: int = 10,
        *,
        as_set: bool = False,
        popularity_penalty: float = 0.0,
        exclude_series: bool = False,
        only: Iterable[Any] | None = None,
        without: Iterable[Any] = (),
        allow_seen: bool = False,
    ) -> Iterator[pd.DataFrame]:
        """`recommend_all`, the table of USERS_PER_PART users after the other: what is in memory stays small.

        The score is log p(next film), as in `log_probabilities`, less `popularity_penalty` times the log of how
        often the film was rated, plus one: at 0 the list has what is likely, at 1 what this history makes more likely
        than it is for everybody. `exclude_series` leaves out films of the same series as one of the history, `only` all
        items but these, `without` these, and items of the history are left out unless `allow_seen`. Lists are shorter
        than k, or empty, if no more is left. ValueError if a number is out of range or a history empty, KeyError if the
        model knows none of `only` or of `without`.
        """
        if k < 1:
            raise ValueError(f"k is {k}; ask for at least one recommendation")
        if not 0 <= popularity_penalty <= 1:
            rule = "it goes from 0 (familiar) to 1 (distinctive)"
            raise ValueError(f"popularity_penalty is {popularity_penalty}; {rule}")
        if not len(histories):
            raise ValueError("there are no histories")
        histories.last()  # refuses an empty one
        left_out = self._among(without) if only is None else self._among(without) | ~self._among(only)
        series = self.items.series[self.vocabulary.items] if exclude_series else self.items.series[:0]
        series_codes = pd.factorize(series.where(series != ""))[0]  # -1: of no series

        def scores_of(tokens: Sequence[np.ndarray]) -> np.ndarray:
            scores = self._log_probabilities(tokens, as_set)
            if popularity_penalty:
                scores -= np.float32(popularity_penalty) * self.log_popularity
            scores[:, left_out] = -np.inf
            for of_user, history in zip(scores, tokens, strict=True):
                if not allow_seen:
                    of_user[history - 1] = -np.inf
                if exclude_series:
                    of_user[np.isin(series_codes, np.setdiff1d(series_codes[history - 1], [-1]))] = -np.inf
            return scores

        size = max(1, min(256, MAX_SCORES // len(self.vocabulary)) // (ORDERS if as_set else 1))
        return self._parts(histories, k, scores_of, size)

    def _parts(
        self, histories: Sequences, k: int, scores_of: Callable[[Sequence[np.ndarray]], np.ndarray], size: int
    ) -> Iterator[pd.DataFrame]:
        """The tables of `recommend_in_parts`: `scores_of` the histories of `size` users at a time, and the k best."""
        with progress_bar(total=len(histories), desc="recommending", unit="user", delay=1, leave=False) as bar:
            for start in range(0, len(histories), USERS_PER_PART):
                part = histories.rows(np.arange(start, min(start + USERS_PER_PART, len(histories))))
                lists: list[Any] = [None] * len(part)  # of each user the best columns and their scores
                order = part.lengths.argsort(kind="stable")  # similar lengths together: little padding
                for rows in np.split(order, range(size, len(order), size)):
                    scores = scores_of([part[row] for row in rows])
                    for row, of_user, best in zip(rows, scores, best_columns(scores, k), strict=True):
                        lists[row] = best, of_user[best]
                    bar.update(len(rows))
                lengths = [len(best) for best, _ in lists]
                columns, best_scores = (np.concatenate(parts) for parts in zip(*lists, strict=True))
                items = self.vocabulary.item_ids(columns + 1)
                table = {
                    "user": np.repeat(part.users, lengths),
                    "rank": np.concatenate([np.arange(1, length + 1) for length in lengths]),
                    "item": items,
                    "title": self.items.title.loc[items].array,  # a join would look at every item
                    "score": best_scores,
                }
                yield pd.DataFrame(table)

    def _among(self, items: Iterable[Any]) -> np.ndarray:
        """Which of the vocabulary's items are among `items`, (V,) bool; KeyError if the model knows none of them."""
        items = list(items)
        known = [item for item in items if item in self.vocabulary]
        if items and not known:
            raise KeyError(f"the model knows none of {', '.join(map(repr, items[:3]))} ...; {self._example()}")
        among = np.zeros(len(self.vocabulary), dtype=bool)
        among[self.vocabulary.tokens(known) - 1] = True
        return among

    def _example(self) -> str:
        return f"its ids are such as {self.vocabulary.items[:1].tolist()[0]!r}"

    def log_probabilities(self, histories: Sequence[Sequence[Any]], as_set: bool = False) -> np.ndarray:
        """log p(next film) (histories, V) float32 after each history of item ids: the log-softmax of the scores. With
        `as_set` the order does not matter: the mean over up to 16 random orders of the history (not normalised again),
        all in one batch."""
        return self._log_probabilities([self.vocabulary.tokens(items) for items in histories], as_set)

    def _log_probabilities(self, histories: Sequence[np.ndarray], as_set: bool) -> np.ndarray:
        """The same for histories of tokens."""
        orders = [self._orders(tokens, as_set) for tokens in histories]
        rows = [row for of_history in orders for row in of_history]
        offsets = np.cumsum([0, *(len(row) for row in rows)])
        scores = self.model.score(Sequences(np.concatenate(rows), offsets, np.arange(len(rows))))
        if np.isnan(scores).any():
            problem = f"{type(self.model).__name__} gave a score that is NaN"
            raise ValueError(f"{problem}; train it again, or load another model")
        scores = log_softmax(scores, axis=1)
        if as_set:
            starts = np.cumsum([0, *(len(of_history) for of_history in orders)])[:-1]
            scores = np.add.reduceat(scores, starts) / [[len(of_history)] for of_history in orders]
        return scores.astype(np.float32, copy=False)

    def _orders(self, tokens: np.ndarray, as_set: bool) -> list[np.ndarray]:
        """The history as it is; or as a set: all orders of up to three items, 16 random ones of more."""
        if not as_set:
            return [tokens]
        tokens = np.unique(tokens)
        if len(tokens) <= 3:
            return [np.array(order) for order in permutations(tokens)]
        return list(tokens[self.sort_keys[:, tokens].argsort(1)])

    def explain(self, items: Sequence[Any], recommended: Sequence[Any], as_set: bool = False) -> pd.DataFrame:
        """What each film of the history (rows) contributes to each recommended one (columns), item ids both.

        That is log p(recommended | history) less the same without that film, however often the history has it: natural
        logs, so .7 doubles the probability. As a set, each is the mean over its orders, as in `log_probabilities`.
        ValueError if the history has fewer than two films: nothing is left without one.
        """
        different = list(dict.fromkeys(items))
        if len(different) < 2:
            raise ValueError(f"to see what one {self.noun} contributes, the history needs another one")
        columns = self.vocabulary.tokens(recommended) - 1
        histories = [list(items), *([other for other in items if other != item] for item in different)]
        batches = [histories[start : start + 16] for start in range(0, len(histories), 16)]
        whole, *without = np.concatenate([self.log_probabilities(batch, as_set)[:, columns] for batch in batches])
        return pd.DataFrame(whole - np.array(without), index=different, columns=list(recommended))

    def item_vectors(self) -> np.ndarray:
        """(V, width) float32: the embeddings of the items; AttributeError for a baseline, which has none."""
        vectors: Any = self.model.item_vectors  # type: ignore[attr-defined]
        return vectors.detach().cpu().numpy()

    def similar_items(self, item: Any, k: int = 10) -> pd.DataFrame:
        """The k items with the most similar `item_vectors`: item, title, genres, similarity (cosine). KeyError for an
        item that the model does not know, ValueError for k below 1."""
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1")
        token = self.vocabulary.tokens([item])[0]
        vectors = self.item_vectors()
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        similarity = unit @ unit[token - 1]
        similarity[token - 1] = -np.inf
        [best] = best_columns(similarity[None], k)
        table = pd.DataFrame({"item": self.vocabulary.item_ids(best + 1)})
        return table.join(self.items[["title", "genres"]], on="item").assign(similarity=similarity[best])
