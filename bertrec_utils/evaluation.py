"""Ranks of the held-out item under a protocol, then metrics of the ranks, and how sure they are."""

from collections.abc import Iterable
from itertools import islice
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np

from .progress import progress_bar
from .sequences import Holdout, Sequences

ProtocolName = Literal["full", "uniform-100", "popularity-100"]
PROTOCOLS: tuple[ProtocolName, ...] = get_args(ProtocolName)
CUTOFFS = (1, 5, 10, 20)
NEGATIVES = 100
ROUNDS = 4  # of quick draws of negatives for a user


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
    with the same `seed`. A tie counts half, so a constant score ranks in the middle, not first. Try another number of
    `negatives`, and the mistake of candidates from the history (`rank_history`).
    """
    protocols = list(protocols)
    histories, targets = holdout.histories, holdout.targets
    order = histories.lengths.argsort(kind="stable")  # like lengths together: little padding
    ranks = {protocol: np.empty(len(targets)) for protocol in protocols}
    for start in progress_bar(range(0, len(order), batch_size), desc="ranking", leave=False, show=progress):
        rows = order[start : start + batch_size]
        batch = histories.rows(rows)
        scores = scorer.score(batch)
        if not np.isfinite([scores.min(), scores.max()]).all():  # nothing compares as above NaN: every rank would be 1
            raise ValueError(f"{type(scorer).__name__} gave scores that are not finite; its ranks would mean nothing")
        if start == 0:  # only now is the number of items known
            drawn = {
                protocol: draw_negatives(
                    holdout,
                    weights_of(protocol, holdout, scores.shape[1]),
                    np.random.default_rng([seed, PROTOCOLS.index(protocol)]),
                    count=negatives,
                    rank_history=rank_history,
                )
                for protocol in protocols
                if protocol != "full"
            }
        target_places = np.arange(len(rows)), targets[rows] - 1
        history_places = np.repeat(np.arange(len(rows)), batch.lengths), batch.tokens - 1
        target_scores = scores[target_places][:, None]
        for protocol in protocols:
            if protocol == "full":
                above, level = scores > target_scores, scores == target_scores
                level[target_places] = False
                if not rank_history:
                    above[history_places] = level[history_places] = False
            else:
                candidates = np.take_along_axis(scores, drawn[protocol][rows] - 1, axis=1)
                above, level = candidates > target_scores, candidates == target_scores
            ranks[protocol][rows] = 1 + count_by_row(above) + count_by_row(level) / 2
    return ranks


def count_by_row(holds: np.ndarray) -> np.ndarray:
    """`holds.sum(1)`, (B,) int64, of (B, V) bool, ten times as fast."""
    return np.fromiter(map(np.count_nonzero, holds), np.int64, len(holds))


def weights_of(protocol: ProtocolName, holdout: Holdout, item_count: int) -> np.ndarray:
    """(V,): in proportion to what the protocol draws each item as a negative."""
    if protocol == "popularity-100":
        return holdout.histories.counts(item_count) + np.bincount(holdout.targets, minlength=item_count + 1)[1:]
    return np.ones(item_count)


def draw_negatives(
    holdout: Holdout,
    weights: np.ndarray,
    random: np.random.Generator,
    *,
    count: int = NEGATIVES,
    rank_history: bool = False,
) -> np.ndarray:
    """`count` different items for each user, tokens (U, count) int32: no target and, but for `rank_history`, none seen.

    Drawn one after the other in proportion to `weights` (V,), passing over what the user has met: a weighted draw
    without replacement. Where little weight is left that would take long, so the rest are then the items with the
    smallest exponential waiting times at rates `weights`: the same distribution (Efraimidis & Spirakis, 2006).
    ValueError if a user has fewer than `count` such items of positive weight.
    """
    negatives = np.empty((len(holdout.targets), count), dtype=np.int32)
    cumulated = np.cumsum(weights, dtype=float)
    for user, target in enumerate(holdout.targets.tolist()):
        met = {target: None} if rank_history else dict.fromkeys([*holdout.histories[user].tolist(), target])
        barred = len(met)
        for _ in range(ROUNDS):
            draws = cumulated.searchsorted(cumulated[-1] * random.random(count + count // 4), side="right") + 1
            met.update(dict.fromkeys(draws.tolist()))  # in the order of the draws, each item where it came first
            if len(met) >= barred + count:
                break
        else:
            rates = weights.copy()
            rates[np.fromiter(met, int) - 1] = 0
            left = np.flatnonzero(rates)
            missing = barred + count - len(met)
            if len(left) < missing:
                raise ValueError(f"a user has fewer than {count} unseen items; use the full ranking (--protocols full)")
            waits = random.standard_exponential(len(left)) / rates[left]
            met.update(dict.fromkeys((left[waits.argpartition(missing - 1)[:missing]] + 1).tolist()))
        negatives[user] = list(islice(met, barred, barred + count))
    return negatives


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
