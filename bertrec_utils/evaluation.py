"""Ranks of the held-out item under a protocol, then metrics of the ranks, and how sure they are."""

from collections.abc import Iterable
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np

from .progress import progress_bar
from .sequences import Holdout, Sequences

ProtocolName = Literal["full", "uniform-100", "popularity-100"]
PROTOCOLS: tuple[ProtocolName, ...] = get_args(ProtocolName)
CUTOFFS = (1, 5, 10, 20)
NEGATIVES = 100


class Scorer(Protocol):
    """Anything that can be evaluated: `BERT4Rec`, the baselines, or your own model."""

    def score(self, histories: Sequences) -> np.ndarray:
        """Scores (B, V) of every item as the next one after each history; column j is token j + 1."""
        ...


def target_ranks(
    scorer: Scorer,
    holdout: Holdout,
    protocols: Iterable[ProtocolName] = PROTOCOLS,
    *,
    negatives: int = NEGATIVES,
    rank_history: bool = False,
    seed: int = 0,
    batch_size: int = 256,
    progress: bool = True,
) -> dict[ProtocolName, np.ndarray]:
    """Rank (U,) of each target among its candidates, 1 for the best, under each protocol.

    full: all items but those of the history. uniform-100, popularity-100: 100 different items that are neither the
    target nor in the history, drawn evenly or in proportion to their count in `holdout`, the same for every model
    with the same `seed` and `batch_size`. A tie counts half, so a constant score ranks in the middle, not first. Try
    another number of `negatives`, and the mistake of candidates from the history (`rank_history`).
    """
    protocols = list(protocols)
    histories, targets = holdout.histories, holdout.targets
    order = histories.lengths.argsort(kind="stable")  # like lengths together: little padding
    ranks = {protocol: np.empty(len(targets)) for protocol in protocols}
    random = {protocol: np.random.default_rng([seed, PROTOCOLS.index(protocol)]) for protocol in protocols}
    popularity = None
    for start in progress_bar(range(0, len(order), batch_size), desc="ranking", leave=False, show=progress):
        rows = order[start : start + batch_size]
        batch = histories.rows(rows)
        scores = scorer.score(batch)
        if not np.isfinite(scores).all():  # nothing compares as above NaN: every rank would be 1
            raise ValueError(f"{type(scorer).__name__} gave scores that are not finite; its ranks would mean nothing")
        if popularity is None:
            item_count = scores.shape[1]
            popularity = histories.counts(item_count) + np.bincount(targets, minlength=item_count + 1)[1:]
        eligible = np.ones(scores.shape, dtype=bool)
        if not rank_history:
            eligible[np.repeat(np.arange(len(rows)), batch.lengths), batch.tokens - 1] = False
        eligible[np.arange(len(rows)), targets[rows] - 1] = False
        target_scores = scores[np.arange(len(rows)), targets[rows] - 1][:, None]
        for protocol in protocols:
            candidates = eligible
            if protocol != "full":
                weights = popularity if protocol == "popularity-100" else np.ones(item_count)
                candidates = draw_negatives(eligible, weights, negatives, random[protocol])
            above = (candidates & (scores > target_scores)).sum(1)
            level = (candidates & (scores == target_scores)).sum(1)
            ranks[protocol][rows] = 1 + above + level / 2
    return ranks


def draw_negatives(eligible: np.ndarray, weights: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """`count` different items per row, (B, V) bool, of the `eligible` (B, V), in proportion to `weights` (V,).

    The items with the smallest exponential waiting times at rates `weights` are a weighted draw without replacement
    (Efraimidis & Spirakis, 2006). ValueError if a row has too few eligible items.
    """
    rates = np.where(eligible, weights, 0)
    if ((rates > 0).sum(1) < count).any():
        raise ValueError(f"a user has fewer than {count} unseen items; use the full ranking (--protocols full)")
    waits = random.standard_exponential(eligible.shape, dtype=np.float32)
    waits = np.divide(waits, rates, out=np.full(eligible.shape, np.inf), where=rates > 0)
    chosen = np.zeros(eligible.shape, dtype=bool)
    np.put_along_axis(chosen, waits.argpartition(count - 1, axis=1)[:, :count], True, axis=1)
    return chosen


def metrics_of_users(ranks: np.ndarray, cutoffs: Iterable[int] = CUTOFFS) -> dict[str, np.ndarray]:
    """hit@k, ndcg@k, mrr@k of each user, (U,): a rank <= k counts 1, 1 / log2(rank + 1) and 1 / rank, any other 0."""
    table = {}
    for cutoff in cutoffs:
        hit = ranks <= cutoff
        table[f"hit@{cutoff}"] = hit.astype(float)
        table[f"ndcg@{cutoff}"] = hit / np.log2(ranks + 1)
        table[f"mrr@{cutoff}"] = hit / ranks
    return table


def metrics(ranks: np.ndarray, cutoffs: Iterable[int] = CUTOFFS) -> dict[str, float]:
    """The means of `metrics_of_users`."""
    return {name: float(of_users.mean()) for name, of_users in metrics_of_users(ranks, cutoffs).items()}


class Interval(NamedTuple):
    """A mean over users and its 95 % confidence interval: of many such intervals, 95 % hold the mean of all users."""

    mean: float
    low: float
    high: float

    def __str__(self):
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"

    @property
    def is_tie(self) -> bool:
        """Of a difference: these users do not tell which of the two is better."""
        return self.low <= 0 <= self.high


def interval(of_users: np.ndarray, seed: int = 0) -> Interval:
    """The mean of a metric `of_users`, (U,), or of the difference of two on the same users, and its bootstrap interval.

    It tells how much depends on which users were asked, and nothing of how much depends on the seed of a training.
    """
    from scipy.stats import bootstrap  # half a second that a recommendation need not wait for

    found = bootstrap(
        (of_users,), np.mean, n_resamples=2000, batch=200, method="percentile", rng=np.random.default_rng(seed)
    )
    return Interval(float(of_users.mean()), *map(float, found.confidence_interval))


def evaluate(
    scorer: Scorer, holdout: Holdout, protocols: Iterable[ProtocolName] = PROTOCOLS, **settings
) -> dict[ProtocolName, dict[str, float]]:
    """protocol -> metric -> value. `settings` are those of `target_ranks`."""
    ranks = target_ranks(scorer, holdout, protocols, **settings)
    return {protocol: metrics(of_users) for protocol, of_users in ranks.items()}
