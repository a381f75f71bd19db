"""What recommended lists are like, whoever likes them: how much of the catalogue they show, how known, how varied."""

import numpy as np

from .evaluation import Scorer
from .sequences import Holdout, Sequences


def best_items(scorer: Scorer, histories: Sequences, count: int = 10, batch_size: int = 256) -> np.ndarray:
    """The tokens (U, count) of the best items after each history, best first, without those of the history.

    ValueError if a user has fewer than `count` items left.
    """
    lists = []
    for rows in np.array_split(np.arange(len(histories)), -(-len(histories) // batch_size)):
        batch = histories.rows(rows)
        scores = scorer.score(batch).copy()
        scores[np.repeat(np.arange(len(rows)), batch.lengths), batch.tokens - 1] = -np.inf
        if (np.isfinite(scores).sum(1) < count).any():
            raise ValueError(f"a user has fewer than {count} items left to be offered")
        lists.append((-scores).argsort(1, kind="stable")[:, :count] + 1)
    return np.concatenate(lists)


def coverage(lists: np.ndarray, item_count: int) -> float:
    """The share of all items that stand in one list (U, count) or more."""
    return len(np.unique(lists)) / item_count


def novelty(lists: np.ndarray, counts: np.ndarray, users: int) -> float:
    """Mean self-information, in bits: - log2 of the share of `users` who have the item, by its `counts` (V,).

    An item nobody has counts as if one had it (Zhou et al., PNAS 2010).
    """
    return float(-np.log2(np.maximum(counts, 1) / users)[lists - 1].mean())


def gini(lists: np.ndarray, item_count: int) -> float:
    """How unequally the lists show the items: 0 if all are shown alike, near 1 if a few have every place."""
    shown = np.sort(np.bincount(lists.ravel(), minlength=item_count + 1)[1:])
    ranks = np.arange(1, item_count + 1)
    return float((2 * ranks - item_count - 1) @ shown / (item_count * shown.sum()))


def variety(lists: np.ndarray, traits: np.ndarray) -> float:
    """Intra-list diversity: 1 less the Jaccard similarity of two items' `traits` (V, G) bool, the mean over all pairs
    of a list, then over lists (Ziegler et al., WWW 2005). Two items without any trait are alike."""
    of_lists = traits[lists - 1].astype(np.float32)  # (U, count, G)
    both = of_lists @ of_lists.transpose(0, 2, 1)
    sizes = of_lists.sum(-1)
    either = sizes[:, :, None] + sizes[:, None, :] - both
    similarity = np.where(either > 0, both / np.maximum(either, 1), 1)
    first, second = np.triu_indices(lists.shape[1], k=1)
    return float(1 - similarity[:, first, second].mean())


def beyond_accuracy(lists: np.ndarray, holdout: Holdout, traits: np.ndarray) -> dict[str, float]:
    """All of these, for lists (U, count) made for `holdout`, whose histories tell how known an item is."""
    item_count, counts = len(traits), holdout.histories.counts(len(traits))
    return {
        "coverage": coverage(lists, item_count),
        "novelty (bits)": novelty(lists, counts, len(holdout.histories)),
        "Gini": gini(lists, item_count),
        "variety of genres": variety(lists, traits),
    }
