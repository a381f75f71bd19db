"""Initial weights that are not random: from counts (item embeddings from co-occurrence, the output bias from
popularity), or from a model that was trained on an earlier log."""

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from ..data.sequences import Sequences
from ..model.layers import Network

WINDOW = 10
STANDARD_DEVIATION = 0.05
MAX_PAIRS = 20_000_000  # of items that are factorised: all pairs of 4,000 items, the strongest of a larger catalogue


def cooccurrence(sequences: Sequences, item_count: int, window: int = WINDOW) -> sparse.csr_array:
    """Symmetric (V, V) counts of items up to `window` positions apart in a sequence; a pair counts 1 / distance."""
    half = unordered_pairs(sequences, item_count, window)
    return half + half.T


def unordered_pairs(sequences: Sequences, item_count: int, window: int = WINDOW) -> sparse.csr_array:
    """The half of `cooccurrence` above the diagonal: the row's item has the lower token. An item beside itself, a
    repeat, is left out: it says nothing about how items relate."""
    counts = sparse.csr_array((item_count, item_count), dtype=np.float32)
    for distance in range(1, window + 1):
        first, second = sequences.pairs(distance)
        differ = first != second
        first, second = first[differ], second[differ]
        weights = np.full(len(first), 1 / distance, dtype=np.float32)
        entries = np.minimum(first, second) - 1, np.maximum(first, second) - 1
        counts += sparse.coo_array((weights, entries), shape=counts.shape).tocsr()
    return counts


def strongest(counts: sparse.csr_array, most: int) -> sparse.csr_array:
    """`counts` with only its `most` highest entries and those tied with the last: low counts are mostly chance."""
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


def ppmi_vectors(sequences: Sequences, item_count: int, width: int, seed: int = 0) -> np.ndarray:
    """(V, width) float32 rows of a truncated SVD, U sqrt(S), of the positive PMI, scaled to a small deviation.
    ValueError if no two items occur near each other."""
    half = unordered_pairs(sequences, item_count)
    totals = half.sum(0) + half.sum(1)
    half = strongest(half, MAX_PAIRS // 2)
    pmi = positive_pmi(half + half.T, totals) if half.nnz else half
    if not pmi.nnz:
        raise ValueError("no two items occur near each other more often than by chance; train with --start random")
    left, strength, _ = randomized_svd(pmi, n_components=min(width, item_count), random_state=seed)
    vectors = np.zeros((item_count, width), dtype=np.float32)
    vectors[:, : left.shape[1]] = left * np.sqrt(strength)
    return vectors * (STANDARD_DEVIATION / vectors.std())


@torch.no_grad()
def start_from_counts(model: Network, sequences: Sequences, seed: int = 0) -> None:
    """Set `model`'s item embeddings and output bias, in place, from the training `sequences`."""
    item_count, width = model.item_count, model.settings.width
    model.item_vectors[:] = torch.from_numpy(ppmi_vectors(sequences, item_count, width, seed))
    popularity = np.log(sequences.counts(item_count) + 1)
    model.item_bias.copy_(torch.from_numpy(popularity - popularity.mean()))


@torch.no_grad()
def carry_over(model: Network, trained: Network, tokens: np.ndarray, sequences: Sequences) -> None:
    """Give `model`, in place, the weights of `trained`, in which its items have the `tokens` (V,), 0 for a new one.

    A new item gets the mean of the trained vectors of the items near it in the training `sequences`, weighted by
    `cooccurrence` and as long as the median of them; without such neighbours it keeps its random vector, as long. Its
    bias is what a line through those of the known items, by the log of their counts, says for its own.
    """
    state, is_known = {name: value.cpu() for name, value in trained.state_dict().items()}, tokens > 0
    vectors, bias = state.pop("item_embedding.weight").numpy(), state.pop("item_bias").numpy()
    model.load_state_dict(state, strict=False)
    known = vectors[tokens[is_known]]
    near = cooccurrence(sequences, model.item_count)[~is_known][:, is_known] @ known
    new = np.where(near.any(1, keepdims=True), near, model.item_vectors.numpy()[~is_known])
    new *= np.median(np.linalg.norm(known, axis=1)) / np.linalg.norm(new, axis=1, keepdims=True)
    counts = np.stack([np.log(sequences.counts(model.item_count) + 1), np.ones(model.item_count)], 1)
    line = np.linalg.lstsq(counts[is_known], bias[tokens[is_known] - 1], rcond=None)[0]
    weights, biases = vectors[np.r_[0, tokens, -1]], np.where(is_known, bias[tokens - 1], counts @ line)
    weights[1:-1][~is_known] = new
    model.item_embedding.weight.copy_(torch.from_numpy(weights))
    model.item_bias.copy_(torch.from_numpy(biases))
