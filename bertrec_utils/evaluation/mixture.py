"""A network mixed with a linear baseline: each captures something that the other misses."""

import numpy as np
from scipy.special import log_softmax

from ..data.sequences import Holdout, Sequences
from .ranking import Scorer, metrics, ranks_among_all

WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)  # tried on validation data
MAX_SCORES = 200_000_000  # of each part, for which they are tried: 3,667 users of 54,542 items, in seconds
BATCH_USERS = 64  # whose scores of many items are in memory while they are tried


class Mixture:
    """Scores are log p(item | network) + `weight` x the baseline's scores, standardised for each history."""

    def __init__(self, network: Scorer, baseline: Scorer, weight: float):
        self.network, self.baseline, self.weight = network, baseline, weight

    def score(self, histories: Sequences) -> np.ndarray:
        """(B, V) float32."""
        log_probabilities, standardised = self.parts(histories)
        return log_probabilities + self.weight * standardised

    def parts(self, histories: Sequences) -> tuple[np.ndarray, np.ndarray]:
        """Both terms, (B, V) float32 each, the second not yet weighted."""
        scores, others = np.asarray(self.network.score(histories)), np.asarray(self.baseline.score(histories))
        return log_softmax(scores, axis=1), standardise(others).astype(np.float32)


def standardise(scores: np.ndarray) -> np.ndarray:
    """`scores` (B, V) less their mean, over their standard deviation, row by row; 0 where all are equal. ValueError if
    one is not finite."""
    if not np.isfinite(scores).all():
        raise ValueError(
            "a baseline of a mixture gave a score that is not finite; every item needs one, even an item to be left out"
        )
    deviations = np.where(np.ptp(scores, axis=1, keepdims=True) > 0, scores.std(1, keepdims=True), 1)
    return (scores - scores.mean(1, keepdims=True)) / deviations


def fit_mixture(network: Scorer, baseline: Scorer, holdout: Holdout) -> Mixture:
    """The mixture whose weight, one of WEIGHTS, has the best NDCG@10 (full ranking) on `holdout`, new to both parts."""
    qualities = ndcg_by_weight(network, baseline, holdout)
    return Mixture(network, baseline, max(qualities, key=qualities.__getitem__))


def ndcg_by_weight(network: Scorer, baseline: Scorer, holdout: Holdout) -> dict[float, float]:
    """weight -> NDCG@10 (full ranking) of the mixture, for each of WEIGHTS. Uses MAX_SCORES // V random users of
    `holdout` if there are more: enough to choose a single number by."""
    mixture = Mixture(network, baseline, 0.0)
    item_count = baseline.score(holdout.histories.rows(np.arange(1))).shape[1]
    holdout = holdout.sample(max(1, MAX_SCORES // item_count), seed=0)
    ranks: dict[float, list[np.ndarray]] = {weight: [] for weight in WEIGHTS}
    for batch in np.array_split(np.arange(len(holdout)), -(-len(holdout) // BATCH_USERS)):
        part = holdout.rows(batch)
        log_probabilities, standardised = mixture.parts(part.histories)
        for weight in WEIGHTS:
            ranks[weight].append(ranks_among_all(log_probabilities + np.float32(weight) * standardised, part))
    return {weight: metrics(np.concatenate(parts), [10])["ndcg@10"] for weight, parts in ranks.items()}
