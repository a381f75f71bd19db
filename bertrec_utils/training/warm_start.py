"""The start from counts: item embeddings from co-occurrence, the output bias from popularity."""

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from ..data.sequences import Sequences
from ..model.bert4rec import Network

WINDOW = 10
STANDARD_DEVIATION = 0.05
MOST_PAIRS = 20_000_000  # of items that are factorised: all pairs of 4,000 items, the strongest of a larger catalogue


def cooccurrence(sequences: Sequences, item_count: int, window: int = WINDOW) -> sparse.csr_array:
    """Symmetric (V, V) counts of items up to `window` positions apart in a sequence; a pair counts 1 / distance."""
    half = unordered_pairs(sequences, item_count, window)
    return half + half.T


def unordered_pairs(sequences: Sequences, item_count: int, window: int = WINDOW) -> sparse.csr_array:
    """The half of `cooccurrence` on and above the diagonal: of two items, the row's has the lower token."""
    counts = sparse.csr_array((item_count, item_count), dtype=np.float32)
    for distance in range(1, window + 1):
        first, second = sequences.pairs(distance)
        weights = np.full(len(first), 1 / distance, dtype=np.float32)
        entries = np.minimum(first, second) - 1, np.maximum(first, second) - 1
        counts += sparse.coo_array((weights, entries), shape=counts.shape).tocsr()
    return counts


def strongest(counts: sparse.csr_array, most: int) -> sparse.csr_array:
    """The `most` highest counts and those tied with the last of them; the lowest are chance."""
    if counts.nnz <= most:
        return counts
    counts = counts.copy()
    counts.data[counts.data < np.partition(counts.data, -most)[-most]] = 0
    counts.eliminate_zeros()
    return counts


def positive_pmi(
    counts: sparse.csr_array, totals: np.ndarray | None = None, smoothing: float = 0.75
) -> sparse.csr_array:
    """max(0, log p(i, j) / (p(i) p(j)^smoothing)), sparse; the power keeps rare contexts from dominating
    (Levy, Goldberg & Dagan, TACL 2015, equations 3 and 6). `totals` (V,) are the row sums before low counts went."""
    pairs = counts.tocoo()
    totals = np.asarray(counts.sum(1)).ravel() if totals is None else totals
    context = totals**smoothing / (totals**smoothing).sum()
    row, column = pairs.coords
    pmi = np.log(pairs.data / (totals[row] * context[column]))
    positive = pmi > 0
    return sparse.coo_array((pmi[positive], (row[positive], column[positive])), shape=counts.shape).tocsr()


def item_vectors(sequences: Sequences, item_count: int, width: int, seed: int = 0) -> np.ndarray:
    """(V, width) float32 rows of a truncated SVD, U sqrt(S), of the positive PMI, scaled to a small deviation.
    ValueError if no two items occur near each other."""
    half = unordered_pairs(sequences, item_count)
    totals = half.sum(0) + half.sum(1)
    half = strongest(half, MOST_PAIRS // 2)
    pmi = positive_pmi(half + half.T, totals) if half.nnz else half
    if not pmi.nnz:
        raise ValueError("no two items occur near each other more often than by chance; train with --start random")
    left, strength, _ = randomized_svd(pmi, n_components=min(width, item_count), random_state=seed)
    vectors = np.zeros((item_count, width), dtype=np.float32)
    vectors[:, : left.shape[1]] = left * np.sqrt(strength)
    return vectors * (STANDARD_DEVIATION / vectors.std())


@torch.no_grad()
def warm_start(model: Network, sequences: Sequences, seed: int = 0) -> None:
    """Set `model`'s item embeddings and output bias, in place, from the training `sequences`."""
    item_count, width = model.item_count, model.settings.width
    model.item_embedding.weight[1:-1] = torch.from_numpy(item_vectors(sequences, item_count, width, seed))
    popularity = np.log(sequences.counts(item_count) + 1)
    model.item_bias.copy_(torch.from_numpy(popularity - popularity.mean()))
