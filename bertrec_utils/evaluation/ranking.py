"""Ranks of the held-out item under a protocol, metrics of ranks and their intervals.

Takes numpy and scipy alone, and any model with a `score` method. Shapes: U users, B users of a batch, V items.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args
from zipfile import BadZipFile

import numpy as np

from ..common import progress_bar, replace_file
from ..data.sequences import Holdout, Sequences
from ..settings import DEFAULT_RECIPE

ProtocolName = Literal["full", "uniform-100", "popularity-100"]
PROTOCOLS: tuple[ProtocolName, ...] = get_args(ProtocolName)
CUTOFFS = (1, 5, 10, 20)
NEGATIVES = 100
ROUNDS = 4  # of quick draws of negatives for a user
MARGIN = 0.003  # of NDCG@10: models whose difference is surely smaller count as equivalent


class TooFewItems(ValueError):
    """A user has not as many unseen items as negatives are to be drawn."""


class Scorer(Protocol):
    """Anything that can be evaluated: a network, a baseline, or your own model."""

    def score(self, histories: Sequences, /) -> np.ndarray:
        """Scores (B, V), floats, of every item as the next one after each history; column j is token j + 1 (a model
        with a column for padding, as SASRec and RecBole have it, must leave that out). -inf marks an item that must not
        be recommended; NaN is not allowed."""
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
    """Rank (U,) float64 of each target among its candidates, 1 for the best, under each protocol.

    full: all items but those of the history; if seen items are candidates in `holdout`, all. uniform-100,
    popularity-100: the target and 100 different others of these, drawn uniformly or in proportion to their count in
    `holdout` (targets included), the same for every model with the same `seed`. A tie counts half, so a constant score
    ranks in the middle, not first; but a target that scores -inf is not recommended: its rank is infinite. Try another
    number of `negatives`, and the mistake of candidates from the history (`rank_history`).
    ValueError if a score is NaN, that of a target +inf, if scores are no (B, V) matrix, if there are no users or a
    protocol is unknown; and as `draw_negatives` raises.
    """
    protocols = list(protocols)
    if unknown := [name for name in protocols if name not in PROTOCOLS]:
        raise ValueError(f"there is no protocol {unknown[0]!r}; give a list of {', '.join(PROTOCOLS)}")
    histories, targets = holdout.histories, holdout.targets
    if not len(targets):
        raise ValueError("there is no user to rank for; choose another split")
    order = histories.lengths.argsort(kind="stable")  # similar lengths together: little padding
    ranks = {protocol: np.empty(len(targets)) for protocol in protocols}
    drawn: dict[ProtocolName, np.ndarray] = {}
    sampling: dict[str, Any] = {"count": negatives, "rank_history": rank_history}
    for start in progress_bar(range(0, len(order), batch_size), desc="ranking", leave=False, show=progress):
        rows = order[start : start + batch_size]
        batch = holdout.rows(rows)
        scores = np.asarray(scorer.score(batch.histories))  # some give tensors
        if scores.ndim != 2 or len(scores) != len(rows):
            problem = f"gave scores of shape {scores.shape} for {len(rows)} histories"
            raise ValueError(f"{type(scorer).__name__} {problem}; give one row for each, a column for each item")
        target_scores = scores[np.arange(len(rows)), batch.targets - 1]
        if np.isnan(scores.min()) or (target_scores == np.inf).any():
            problem = "gave a score that is NaN, or a target the score inf"
            raise ValueError(f"{type(scorer).__name__} {problem}; give numbers, or -inf to items to leave out")
        for protocol in protocols:
            if protocol == "full":
                ranks[protocol][rows] = ranks_among_all(scores, batch, rank_history)
                continue
            if protocol not in drawn:  # only now is the number of items known
                weights = negative_weights(protocol, holdout, scores.shape[1])
                random = np.random.default_rng([seed, PROTOCOLS.index(protocol)])
                drawn[protocol] = draw_negatives(holdout, weights, random, **sampling)
            candidates = np.take_along_axis(scores, drawn[protocol][rows] - 1, axis=1)
            ranks[protocol][rows] = ranks_among(candidates, target_scores)
    return ranks


def ranks_among_all(scores: np.ndarray, holdout: Holdout, rank_history: bool = False) -> np.ndarray:
    """Ranks (B,) float64 of the targets of `holdout` by `scores` (B, V): the ranking *full* of `target_ranks`."""
    rows, columns = np.arange(len(holdout)), holdout.targets - 1
    target_scores, left_out = scores[rows, columns], [(rows, columns)]
    if not (rank_history or holdout.seen_are_candidates):
        left_out.append((holdout.histories.token_rows, holdout.histories.tokens - 1))
    return ranks_among(scores, target_scores, left_out)


def ranks_among(candidates: np.ndarray, target_scores: np.ndarray, left_out: Iterable[tuple] = ()) -> np.ndarray:
    """Ranks (B,) float64 of targets with scores (B,) among candidates with scores (B, C), but for those at the (rows,
    columns) that are `left_out`."""
    higher, tied = candidates > target_scores[:, None], candidates == target_scores[:, None]
    for those in left_out:
        higher[those] = tied[those] = False
    ranks = 1 + count_by_row(higher) + count_by_row(tied) / 2
    ranks[target_scores == -np.inf] = np.inf
    return ranks


def count_by_row(holds: np.ndarray) -> np.ndarray:
    """`holds.sum(1)`, (B,) int64, of (B, V) bool, several times as fast."""
    return np.fromiter(map(np.count_nonzero, holds), np.int64, len(holds))


def negative_weights(protocol: ProtocolName, holdout: Holdout, item_count: int) -> np.ndarray:
    """Unnormalised probabilities (V,) with which items are drawn as negatives."""
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
    """`count` different items for each user, tokens (U, count) int32: not the target and, unless seen items are
    candidates in `holdout` or by `rank_history`, none seen.

    A weighted draw without replacement: one after the other in proportion to `weights` (V,), skipping what the user has
    seen. Where little weight is left that would take long, so the rest are then the items with the smallest exponential
    waiting times at rates `weights`: the same distribution (Efraimidis & Spirakis, 2006).
    TooFewItems, a ValueError, if a user has fewer than `count` such items of positive weight.
    """
    negatives = np.empty((len(holdout.targets), count), dtype=np.int32)
    with_seen = rank_history or holdout.seen_are_candidates
    cumulated = np.cumsum(weights, dtype=float)
    for user, target in enumerate(holdout.targets.tolist()):
        taken = {target: None} if with_seen else dict.fromkeys([*holdout.histories[user].tolist(), target])
        excluded = len(taken)
        for _ in range(ROUNDS):
            draws = cumulated.searchsorted(cumulated[-1] * random.random(count + count // 4), side="right") + 1
            taken.update(dict.fromkeys(draws.tolist()))  # in the order of the draws, each item where it came first
            if len(taken) >= excluded + count:
                break
        else:
            rates = weights.copy()
            rates[np.fromiter(taken, int) - 1] = 0
            left = np.flatnonzero(rates)
            missing = excluded + count - len(taken)
            if len(left) < missing:
                what = f"fewer than {count} {'other' if with_seen else 'unseen'} items"
                raise TooFewItems(
                    f"a user has {what}; use the full ranking alone: --protocols full, or protocols=['full']"
                )
            waiting = random.standard_exponential(len(left)) / rates[left]
            taken.update(dict.fromkeys((left[waiting.argpartition(missing - 1)[:missing]] + 1).tolist()))
        negatives[user] = list(islice(taken, excluded, excluded + count))
    return negatives


def per_user_metrics(ranks: np.ndarray, cutoffs: Iterable[int] = CUTOFFS) -> dict[str, np.ndarray]:
    """hit@k, ndcg@k, mrr@k of each user, (U,): a rank <= k counts 1, 1 / log2(rank + 1) and 1 / rank, any other 0."""
    table = {}
    for cutoff in cutoffs:
        hit = ranks <= cutoff
        table[f"hit@{cutoff}"] = hit.astype(float)
        table[f"ndcg@{cutoff}"] = hit / np.log2(ranks + 1)
        table[f"mrr@{cutoff}"] = hit / ranks
    return table


def metrics(ranks: np.ndarray, cutoffs: Iterable[int] = CUTOFFS) -> dict[str, float]:
    """The means of `per_user_metrics`. ValueError if a rank is NaN, as `run_ranks` has it for a user without a list."""
    if np.isnan(ranks).any():
        raise ValueError("some users have no list, and so no rank; leave them out: ranks[~np.isnan(ranks)]")
    return {name: float(values.mean()) for name, values in per_user_metrics(ranks, cutoffs).items()}


def evaluate(
    scorer: Scorer, holdout: Holdout, protocols: Iterable[ProtocolName] | None = None, *, progress: bool = True
) -> dict[ProtocolName, dict[str, float]]:
    """protocol -> metric -> value: the `metrics` of `target_ranks`. Without `protocols`: of all of them, or of the full
    ranking alone where a user has not the 100 unseen items that the others need."""
    try:
        ranks = target_ranks(scorer, holdout, protocols or PROTOCOLS, progress=progress)
    except TooFewItems:
        if protocols:
            raise
        ranks = target_ranks(scorer, holdout, ["full"], progress=progress)
    return {protocol: metrics(of_protocol) for protocol, of_protocol in ranks.items()}


class Interval(NamedTuple):
    """A mean over users and its 95 % confidence interval: of many such intervals, 95 % hold the mean of all users."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"

    @property
    def is_tie(self) -> bool:
        """Of a difference: these users do not tell which of the two is better."""
        return self.low <= 0 <= self.high

    def verdict(self, margin: float = MARGIN) -> str:
        """Of a difference: "equivalent" if the whole interval lies within -margin .. margin; if not, "better" or
        "worse" where it lies on one side of 0, and else "undecided": more users might tell."""
        if max(-self.low, self.high) <= margin:
            return "equivalent"
        return "undecided" if self.is_tie else "better" if self.low > 0 else "worse"


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> Interval:
    """The mean of a metric's `values` (U,), or of the difference of two on the same users, and its bootstrap interval.
    It covers the sampling of users, not the seed of the training. Needs at least two values."""
    from scipy.stats import bootstrap  # half a second that a recommendation need not wait for

    random = np.random.default_rng(seed)
    found = bootstrap((values,), np.mean, n_resamples=2000, batch=200, method="percentile", rng=random)
    return Interval(float(values.mean()), *map(float, found.confidence_interval))


def mean_over_seeds(seeds: Sequence[np.ndarray], metric: str) -> np.ndarray:
    """The hit@10 or ndcg@10 of each user, (U,), from the ranks (U,) of each seed of a model."""
    return np.mean([per_user_metrics(ranks, [10])[metric] for ranks in seeds], axis=0)


def write_ranks(path: Path, ranks: dict[str, dict[str, np.ndarray]]) -> None:
    """Keep scorer -> protocol -> ranks (U,) in a .npz file: twice the ranks, whole numbers, since a tie counts half; 0
    stands for an infinite rank. No rank may be NaN."""
    doubled = {
        f"{scorer}/{protocol}": np.rint(2 * np.where(np.isinf(of_users), 0, of_users)).astype(np.uint32)
        for scorer, by_protocol in ranks.items()
        for protocol, of_users in by_protocol.items()
    }

    def write(partial: Path) -> None:
        with open(partial, "wb") as file:
            np.savez_compressed(file, **doubled)

    path.parent.mkdir(exist_ok=True)
    replace_file(path, write)


def read_ranks(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """scorer -> protocol -> ranks (U,) float64, from a file of `write_ranks`. ValueError if it is none."""
    ranks: dict[str, dict[str, np.ndarray]] = {}
    try:
        with open(path, "rb") as file, np.load(file) as kept:
            for name in kept:
                scorer, protocol = name.split("/")
                ranks.setdefault(scorer, {})[protocol] = np.where(kept[name] == 0, np.inf, kept[name] / 2)
    except (BadZipFile, EOFError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no file of ranks, as those in results/ranks are, or damaged") from error
    return ranks


def recorded_ranks(results: Path, preset: str | None) -> dict[str, list[np.ndarray]]:
    """model -> the ranks (U,) of each seed, full ranking: all that RESULTS/ranks holds for a preset. ValueError if that
    is nothing."""
    models: dict[str, list[np.ndarray]] = {}
    for path in sorted((results / "ranks").glob("*.npz")):
        run = re.fullmatch(rf"{re.escape(str(preset))}(?:-(.+))?-seed\d+", path.stem)
        if run or path.stem in (f"baselines-{preset}", f"peers-{preset}"):
            for scorer, by_protocol in read_ranks(path).items():
                name = scorer.replace("test", run[1] or DEFAULT_RECIPE) if run else scorer
                models.setdefault(name, []).append(by_protocol["full"])
    if not models:
        known = [path.stem.removeprefix("baselines-") for path in (results / "ranks").glob("baselines-*.npz")]
        raise ValueError(f"{results} has ranks of {', '.join(sorted(known)) or 'no preset'}; name one: --preset NAME")
    return models
