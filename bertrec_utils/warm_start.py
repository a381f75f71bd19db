"""Start from what plain counting knows: item embeddings from co-occurrence, the output bias from popularity."""

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from .model import BERT4Rec
from .sequences import Sequences

WINDOW = 10
STANDARD_DEVIATION = 0.05


def cooccurrence(sequences: Sequences, item_count: int, window: int = WINDOW) -> sparse.csr_array:
    """Symmetric (V, V) counts of items at most `window` places apart in a sequence, each pair weighing 1 / distance."""
    counts = sparse.csr_array((item_count, item_count), dtype=np.float32)
    for distance in range(1, window + 1):
        left, right = sequences.pairs(distance)
        weights = np.full(len(left), 1 / distance, dtype=np.float32)
        counts += sparse.coo_array((weights, (left - 1, right - 1)), shape=counts.shape).tocsr()
    return counts + counts.T


def positive_pmi(counts: sparse.csr_array, smoothing: float = 0.75) -> sparse.csr_array:
    """max(0, log p(i, j) / (p(i) p(j)^smoothing)), sparse; the power keeps rare contexts from dominating
    (Levy, Goldberg & Dagan, TACL 2015, equations 3 and 6)."""
    pairs = counts.tocoo()
    totals = np.asarray(counts.sum(1)).ravel()
    context = totals**smoothing / (totals**smoothing).sum()
    row, column = pairs.coords
    pmi = np.log(pairs.data / (totals[row] * context[column]))
    positive = pmi > 0
    return sparse.coo_array((pmi[positive], (row[positive], column[positive])), shape=counts.shape).tocsr()


def item_vectors(sequences: Sequences, item_count: int, width: int, seed: int = 0) -> np.ndarray:
    """(V, width) float32 rows of a truncated SVD, U sqrt(S), of the positive PMI, scaled to a small deviation.

    ValueError if no two items stand near each other.
    """
    counts = cooccurrence(sequences, item_count)
    pmi = positive_pmi(counts) if counts.nnz else counts
    if not pmi.nnz:
        raise ValueError("no two items occur near each other more often than by chance; start with warm_start=False")
    left, strength, _ = randomized_svd(pmi, n_components=min(width, item_count), random_state=seed)
    vectors = np.zeros((item_count, width), dtype=np.float32)
    vectors[:, : left.shape[1]] = left * np.sqrt(strength)
    return vectors * (STANDARD_DEVIATION / vectors.std())


@torch.no_grad()
def warm_start(model: BERT4Rec, sequences: Sequences, seed: int = 0) -> None:
    """Set `model`'s item embeddings and output bias, in place, from the training `sequences`."""
    item_count, width = model.item_count, model.preset.width
    model.item_embedding.weight[1:-1] = torch.from_numpy(item_vectors(sequences, item_count, width, seed))
    popularity = np.log(sequences.counts(item_count) + 1)
    model.item_bias.copy_(torch.from_numpy(popularity - popularity.mean()))
