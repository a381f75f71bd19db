"""The transformer mixed with a model that counts: each knows something that the other does not."""

from dataclasses import replace

import numpy as np
import torch

from .baselines import MOST_ITEMS, LinearNext, SmoothedChain
from .evaluation import metrics, target_ranks
from .model import BERT4Rec
from .sequences import Holdout, Sequences

WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0)  # that are tried for the counting part
MOST_SCORES = 50_000_000  # of each part, for which they are tried
USERS_AT_ONCE = 64  # whose scores of many items are in memory while they are tried


def counting_model(train: Sequences, item_count: int) -> LinearNext | SmoothedChain:
    """What is mixed with the transformer: the linear model where a table of all pairs fits, else the chain."""
    if item_count <= MOST_ITEMS:
        return LinearNext(train, item_count)
    return SmoothedChain(train, item_count)


class Mixture:
    """Scores are log p(item | transformer) + `weight` x the counting model's scores, standardised for each history."""

    def __init__(self, transformer: BERT4Rec, counting: LinearNext | SmoothedChain, weight: float):
        self.transformer, self.counting, self.weight = transformer, counting, weight

    def score(self, histories: Sequences) -> np.ndarray:
        """(B, V) float32."""
        log_probabilities, counted = self.parts(histories)
        return log_probabilities + self.weight * counted

    def parts(self, histories: Sequences) -> tuple[np.ndarray, np.ndarray]:
        """Both terms, (B, V) float32 each, the second not yet weighted."""
        log_probabilities = torch.from_numpy(self.transformer.score(histories)).log_softmax(1).numpy()
        return log_probabilities, standardised(self.counting.score(histories))


def standardised(scores: np.ndarray) -> np.ndarray:
    """`scores` (B, V) less their mean, over their standard deviation, row by row; 0 where all are equal."""
    deviations = scores.std(1, keepdims=True)
    return (scores - scores.mean(1, keepdims=True)) / np.where(deviations > 0, deviations, 1)


def learn_mixture(transformer: BERT4Rec, counting: LinearNext | SmoothedChain, holdout: Holdout) -> Mixture:
    """The mixture whose weight, one of WEIGHTS, has the best NDCG@10 (full ranking) on `holdout`, new to both parts."""
    qualities = try_weights(transformer, counting, holdout)
    return Mixture(transformer, counting, max(qualities, key=qualities.get))


def try_weights(transformer: BERT4Rec, counting: LinearNext | SmoothedChain, holdout: Holdout) -> dict[float, float]:
    """The NDCG@10 (full ranking) of the mixture for each of WEIGHTS.

    A single number needs no more users than MOST_SCORES allows; of more, the first are taken.
    """
    users = np.arange(min(len(holdout.targets), max(1, MOST_SCORES // transformer.item_count)))
    mixture = Mixture(transformer, counting, 0.0)
    ranks = {weight: [] for weight in WEIGHTS}
    for some in np.array_split(users, -(-len(users) // USERS_AT_ONCE)):
        histories = replace(holdout.histories.rows(some), users=np.arange(len(some)))
        log_probabilities, counted = mixture.parts(histories)
        part = Holdout(histories, holdout.targets[some])
        for weight in WEIGHTS:
            remembered = Remembered(log_probabilities + np.float32(weight) * counted)
            ranks[weight].append(target_ranks(remembered, part, ["full"], progress=False)["full"])
    return {weight: metrics(np.concatenate(of_weight), [10])["ndcg@10"] for weight, of_weight in ranks.items()}


class Remembered:
    """Scores (U, V) that are known already, for histories whose users are numbered 0..U - 1."""

    def __init__(self, scores: np.ndarray):
        self.scores = scores

    def score(self, histories: Sequences) -> np.ndarray:
        return self.scores[histories.users]
