"""What a model must beat."""

import numpy as np
from scipy import sparse

from .sequences import Sequences


class Popularity:
    """Scores an item by how often it occurs in the training sequences, whatever the history."""

    def __init__(self, train: Sequences, item_count: int):
        self.counts = train.counts(item_count).astype(np.float32)

    def score(self, histories: Sequences) -> np.ndarray:
        return np.tile(self.counts, (len(histories), 1))


class MarkovChain:
    """First-order Markov chain: how often the item directly followed the history's last one; popularity breaks ties."""

    def __init__(self, train: Sequences, item_count: int):
        inside = np.ones(len(train.tokens) - 1, dtype=bool)
        inside[train.offsets[1:-1] - 1] = False  # from one user's last item to the next user's first
        pairs = (train.tokens[:-1][inside] - 1, train.tokens[1:][inside] - 1)
        ones = np.ones(len(pairs[0]), dtype=np.float32)
        self.followers = sparse.coo_array((ones, pairs), shape=(item_count, item_count)).tocsr()
        counts = train.counts(item_count)
        self.tie_break = (counts / (counts.max() + 1)).astype(np.float32)  # below 1, one observed step

    def score(self, histories: Sequences) -> np.ndarray:
        return self.followers[histories.last() - 1].toarray() + self.tie_break
