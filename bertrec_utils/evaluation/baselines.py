"""Baselines in closed form, for a network to beat or to be mixed with (mixture.py); no gradient and no seed.

Shapes: U users, V items, a batch of B histories.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg
from scipy import sparse

from ..data.sequences import Sequences, Vocabulary

if TYPE_CHECKING:
    import pandas as pd

    from .ranking import Scorer

MAX_ITEMS = 10_000  # an items x items matrix, and what solving for it takes, is 4 GB here


class Popularity:
    """Scores an item by how often it occurs in the training sequences, whatever the history."""

    def __init__(self, train: Sequences, item_count: int):
        self.counts = train.counts(item_count).astype(np.float32)

    def score(self, histories: Sequences) -> np.ndarray:
        return np.tile(self.counts, (len(histories), 1))


class MostRepeated:
    """How often the history has the item: what a user has come back to most comes next; popularity breaks ties, and
    orders all items that are new to the user."""

    def __init__(self, train: Sequences, item_count: int):
        self.tie_break = popularity_tie_break(train, item_count)

    def score(self, histories: Sequences) -> np.ndarray:
        return decayed_history(histories, len(self.tie_break), decay=1.0).toarray() + self.tie_break


class RecentPopularity(Popularity):
    """Scores an item by how many of `ratings` it has in the last `days`, whatever the history. `ratings` is a log's
    frame, with timestamps in seconds, without what is held out."""

    def __init__(self, ratings: "pd.DataFrame", vocabulary: Vocabulary, days: float):
        recent = ratings.item[ratings.timestamp > ratings.timestamp.max() - days * 24 * 60 * 60]
        found = recent[recent.isin(vocabulary.items)].value_counts()
        self.counts = np.zeros(len(vocabulary), np.float32)
        self.counts[vocabulary.tokens(found.index) - 1] = found


class MarkovChain:
    """First-order Markov chain: how often the item directly followed the history's last one; popularity breaks ties."""

    def __init__(self, train: Sequences, item_count: int):
        self.followers = pair_counts(train, item_count, distance=1)
        self.tie_break = popularity_tie_break(train, item_count)  # below 1, one observed step

    def score(self, histories: Sequences) -> np.ndarray:
        return self.followers[histories.last() - 1].toarray() + self.tie_break


class SmoothedMarkovChain:
    """A chain over the last few items: the weighted mean of P(next | item n positions back), smoothed by popularity.

    `pseudo_counts` distributed as popularity are added to the counts of an item's followers: an item that was rarely
    followed says little, one that was never followed says nothing. In a history shorter than `weights`, the weights
    that are left go to popularity. Scores are logs of probabilities.
    """

    def __init__(
        self,
        train: Sequences,
        item_count: int,
        weights: tuple[float, ...] = (0.6, 0.25, 0.15),  # of the last item, the one before it, ...
        pseudo_counts: float = 20.0,
    ):
        self.weights = weights
        counts = train.counts(item_count) + 1
        self.popularity = (counts / counts.sum()).astype(np.float32)  # (V,), each item counted once more
        shares = []
        for distance, weight in enumerate(weights, 1):
            followers = pair_counts(train, item_count, distance)
            factors = weight / (followers.sum(1) + pseudo_counts)
            shares.append(sparse.diags_array(factors.astype(np.float32)) @ followers)
        self.followers = sparse.vstack(shares, format="csr")  # (K V, V): what is not from popularity
        self.observed = self.followers.sum(1)  # (K V,)

    def score(self, histories: Sequences) -> np.ndarray:
        item_count = len(self.popularity)
        rows, ages = rows_and_ages(histories)
        kept = ages < len(self.weights)
        entries = rows[kept], ages[kept] * item_count + histories.tokens[kept] - 1
        shape = len(histories), len(self.weights) * item_count
        newest = sparse.coo_array((np.ones(kept.sum(), dtype=np.float32), entries), shape).tocsr()
        scores = (newest @ self.followers).toarray()
        scores += (sum(self.weights) - newest @ self.observed)[:, None] * self.popularity
        return np.log(scores, out=scores)


class PCTM:
    """Counts of what follows what, multiplied over the history (Petrov et al., "Do Sequential Recommendation Benchmarks
    Really Require Higher-Order Sequence Modelling?", RecSys 2026). A chain adds probabilities, so that one item of the
    history can bring in another; here most items of the history have to agree.

    A pair `distance` positions apart counts distance ** -`power`, up to `window`; P(next | item) is the share of such
    counts, with `pseudo_counts` spread evenly over all items. A score is, but for a constant of the history, the
    weighted sum of log P over the newest `max_length` items and `popularity` times the log of the item's share of the
    training data. The newest `head` items have weight `recent` together, each `decay` times the one after it; the rest
    of 1 is shared evenly by those before.
    """

    def __init__(
        self,
        train: Sequences,
        item_count: int,
        window: int = 20,
        power: float = 1.0,
        pseudo_counts: float = 150.0,
        head: int = 7,
        recent: float = 0.8,
        decay: float = 0.6,
        popularity: float = -0.4,
        max_length: int = 200,
    ):
        self.head, self.recent, self.decay, self.max_length = head, recent, decay, max_length
        counts = sum(distance**-power * pair_counts(train, item_count, distance) for distance in range(1, window + 1))
        counts.data = np.log1p(counts.data * item_count / pseudo_counts)  # all of log P that depends on the next item
        self.evidence = counts.astype(np.float32)
        shares = train.counts(item_count) + 1
        self.background = (popularity * np.log(shares / shares.sum())).astype(np.float32)

    def score(self, histories: Sequences) -> np.ndarray:
        rows, ages = rows_and_ages(histories)
        kept = ages < self.max_length
        lengths = histories.lengths.clip(max=self.max_length)
        weights = np.concatenate([self.history_weights(length)[::-1] for length in lengths])
        shape = len(histories), len(self.background)
        history = sparse.coo_array((weights, (rows[kept], histories.tokens[kept] - 1)), shape).tocsr()
        return (history @ self.evidence).toarray() + self.background

    def history_weights(self, length: int) -> np.ndarray:
        """(length,) float32: of the items of a history, the newest first; they add up to 1."""
        newest = self.decay ** np.arange(min(length, self.head))
        older = max(length - self.head, 0)
        share = (self.recent if older else 1) if self.head else 0
        return np.append(newest * share / newest.sum(), np.full(older, (1 - share) / max(older, 1))).astype(np.float32)


class EASE:
    """The linear autoencoder that predicts a user's items from the others (Steck, WWW 2019), blind to order. An item
    that may come back has its score from the others alone, too.

    Only in scoring are the history's items weighted: one that is `age` items old weighs decay ** age.
    ValueError if there are more than MAX_ITEMS items.
    """

    def __init__(self, train: Sequences, item_count: int, ridge: float = 500.0, decay: float = 0.9):
        self.decay = decay
        inverse = np.linalg.inv(shared_users(train, item_count) + ridge * np.eye(item_count, dtype=np.float32))
        self.weights = -inverse / np.diag(inverse)
        np.fill_diagonal(self.weights, 0)

    def score(self, histories: Sequences) -> np.ndarray:
        return decayed_history(histories, len(self.weights), self.decay) @ self.weights


class ItemKNN:
    """Nearest neighbours among items (Sarwar et al., WWW 2001), blind to order until the history is weighted.

    The similarity of two items is the cosine of their columns of users, less where both are rare (`shrinkage` is added
    to its denominator). Each item of the history votes for its most similar ones with weight `decay` ** age.
    ValueError if there are more than MAX_ITEMS items.
    """

    def __init__(
        self, train: Sequences, item_count: int, neighbours: int = 100, shrinkage: float = 20.0, decay: float = 0.9
    ):
        self.decay = decay
        shared = shared_users(train, item_count)
        norms = np.sqrt(np.diag(shared).clip(min=1))  # an item that nobody has is like no other
        similarities = shared / (np.outer(norms, norms) + shrinkage)
        np.fill_diagonal(similarities, 0)
        if neighbours < item_count:
            weakest = -np.partition(-similarities, neighbours - 1, axis=1)[:, [neighbours - 1]]
            similarities[similarities < weakest] = 0
        self.similarities = similarities

    def score(self, histories: Sequences) -> np.ndarray:
        return decayed_history(histories, len(self.similarities), self.decay) @ self.similarities


class LinearNextItem:
    """The linear model of the next item: ridge regression from a decayed history, in closed form.

    An item that is `age` items old has weight decay ** age; a history is two such rows side by side, one that decays
    fast and one that decays slowly, (2 V). Over every position of the training sequences, W (2 V, V) minimises
    |history W - next item|^2 + ridge |W|^2, the next item being a row with a single 1. With one decay this is close
    to SLIT (Choi et al., WWW 2021). Scores estimate probabilities, but may be negative.
    ValueError if there are more than MAX_ITEMS items, or a decay is not between 0 and 1.
    """

    def __init__(self, train: Sequences, item_count: int, decays: tuple[float, ...] = (0.5, 0.9), ridge: float = 200.0):
        require_dense(item_count)
        if not all(0 < decay < 1 for decay in decays):
            raise ValueError(f"decays are {decays}; each must be above 0 and below 1")
        self.decays, self.item_count = decays, item_count
        histories, next_items = normal_equations(train, item_count, decays)
        histories[np.diag_indices_from(histories)] += ridge
        self.weights = scipy.linalg.solve(histories, next_items, assume_a="pos", overwrite_a=True, overwrite_b=True)

    def score(self, histories: Sequences) -> np.ndarray:
        rows = [decayed_history(histories, self.item_count, decay) for decay in self.decays]
        return sparse.hstack(rows, format="csr") @ self.weights


def default_baselines(train: Sequences, item_count: int, allow_seen: bool) -> Iterator[tuple[str, "Scorer"]]:
    """Name and scorer of the baselines that are worth a look before any network, one after the other, each at its
    default settings: popularity, a Markov chain, PCTM, the linear model (the smoothed chain if there are more than
    MAX_ITEMS items), and, if seen items may be recommended, what a user has had most often."""
    yield "popularity", Popularity(train, item_count)
    if allow_seen:
        yield "most-repeated", MostRepeated(train, item_count)
    yield "markov-chain", MarkovChain(train, item_count)
    yield "pctm", PCTM(train, item_count)
    linear = linear_baseline(train, item_count)
    yield "linear" if isinstance(linear, LinearNextItem) else "smoothed-chain", linear


def linear_baseline(train: Sequences, item_count: int) -> LinearNextItem | SmoothedMarkovChain:
    """The baseline to mix with a network: `LinearNextItem` up to MAX_ITEMS items, else `SmoothedMarkovChain`."""
    if item_count <= MAX_ITEMS:
        return LinearNextItem(train, item_count)
    return SmoothedMarkovChain(train, item_count)


def popularity_tie_break(train: Sequences, item_count: int) -> np.ndarray:
    """(V,) float64 in [0, 1): grows with how often an item occurs; added to whole counts, it only breaks ties."""
    counts = train.counts(item_count)
    return counts / (counts.max() + 1)


def require_dense(item_count: int) -> None:
    """ValueError if a matrix of all pairs of items would not fit."""
    if item_count > MAX_ITEMS:
        problem = f"{item_count:,} items are too many for a matrix of all pairs; at most {MAX_ITEMS:,}"
        raise ValueError(f"{problem}. SmoothedMarkovChain and PCTM need none")


def shared_users(train: Sequences, item_count: int) -> np.ndarray:
    """(V, V) float32: how many users have both items. ValueError as `require_dense` raises."""
    require_dense(item_count)
    seen = decayed_history(train, item_count, decay=1.0)
    seen.data[:] = 1  # an item may have come back
    return (seen.T @ seen).toarray()


def pair_counts(train: Sequences, item_count: int, distance: int) -> sparse.csr_array:
    """(V, V) float32: how often the column's item is `distance` positions after the row's."""
    earlier, later = train.pairs(distance)
    ones = np.ones(len(earlier), dtype=np.float32)
    return sparse.coo_array((ones, (earlier - 1, later - 1)), shape=(item_count, item_count)).tocsr()


def max_age(decay: float) -> int:
    """The age at and above which decay ** age is below 0.1 %, so that the item is left out. 0 < `decay` < 1."""
    return int(np.log(0.001) / np.log(decay)) + 1


def rows_and_ages(histories: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """For each token, the row of its history and its age there (0 for the newest item); two int64 arrays."""
    rows = histories.token_rows
    return rows, histories.offsets[1:][rows] - 1 - np.arange(len(histories.tokens))


def decayed_history(histories: Sequences, item_count: int, decay: float) -> sparse.csr_array:
    """(B, V) float32: decay ** age for each item of a history, the last item's age being 0, up to `max_age`. ValueError
    unless 0 < `decay` <= 1."""
    if not 0 < decay <= 1:
        raise ValueError(f"the decay is {decay}; it must be above 0 and at most 1")
    rows, ages = rows_and_ages(histories)
    kept = ages < max_age(decay) if decay < 1 else slice(None)
    weights = (decay ** ages[kept]).astype(np.float32)
    return sparse.coo_array((weights, (rows[kept], histories.tokens[kept] - 1)), (len(histories), item_count)).tocsr()


def normal_equations(train: Sequences, item_count: int, decays: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Both sides of the ridge regression: H'H (K V, K V) and H'Y (K V, V) float32 for K decays; a row of H is a
    history, a row of Y its next item.

    H itself is never built. H'Y sums decay ** (distance - 1) over all pairs of a sequence's items, the one `distance`
    positions after the other. For H'H, an item's weight in history after history is a geometric series, and so is the
    product of two. These series run on after the end of a sequence, where no next item is known; what the last history
    would add is subtracted.
    """
    following = decayed_pair_counts(train, item_count, decays)
    last = [decayed_history(train, item_count, decay) for decay in decays]
    counts = np.diag(train.counts(item_count).astype(np.float32))
    histories = np.empty((len(decays) * item_count, len(decays) * item_count), dtype=np.float32)
    for row, slow in enumerate(decays):
        for column, fast in enumerate(decays):
            block = counts + fast * following[column].T + slow * following[row] - (last[row].T @ last[column]).toarray()
            part = np.s_[row * item_count : (row + 1) * item_count, column * item_count : (column + 1) * item_count]
            histories[part] = block / (1 - slow * fast)
    return histories, np.concatenate(following)


def decayed_pair_counts(train: Sequences, item_count: int, decays: tuple[float, ...]) -> list[np.ndarray]:
    """For each decay a matrix (V, V) float32: over all pairs of a sequence, the sum of decay ** (distance - 1)."""
    tables = [np.zeros((item_count, item_count), dtype=np.float32) for _ in decays]
    for distance in range(1, max(map(max_age, decays)) + 1):
        earlier, later = train.pairs(distance)
        entries = (earlier.astype(np.int64) - 1) * item_count + later - 1
        for table, decay in zip(tables, decays, strict=True):
            if distance <= max_age(decay):
                np.add.at(table.reshape(-1), entries, np.float32(decay ** (distance - 1)))
    return tables
