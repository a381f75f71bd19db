"""Recommended lists: the best items for each user, run files (the lists of any tool, measured in the same way) and
metrics of lists beyond accuracy.

Shapes: U users, B users of a batch, V items, k places of a list.
"""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..common import replace_file
from ..data.sequences import Holdout, Sequences, Vocabulary
from .ranking import Scorer

RUN_LENGTH = 100  # items of a user in a run file
MANY_LISTS = 20  # of so many lists, one should hold its target


def best_columns(scores: np.ndarray, k: int) -> Iterator[np.ndarray]:
    """The columns of the k highest of each row of `scores` (B, V), best first, the first of equals first; fewer if
    fewer are above -inf. Much faster than sorting whole rows. ValueError if a score is NaN."""
    k = min(k, scores.shape[1])
    if not k:
        return
    lowest = np.partition(scores, -k, axis=1)[:, -k]  # NaN counts as the highest
    if np.isnan(scores).any():
        raise ValueError("a score is NaN; give numbers, or -inf to items to leave out")
    for row, limit in zip(scores, lowest, strict=True):
        columns = np.flatnonzero((row >= limit) & (row > -np.inf))
        yield columns[np.lexsort((columns, -row[columns]))][:k]


def best_lists(
    scorer: Scorer, histories: Sequences, k: int, batch_size: int = 256, *, allow_seen: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each history the tokens of the best items, best first, without those of the history unless `allow_seen`, and
    their scores: k of them, or fewer if fewer are above -inf. ValueError if a score is NaN."""
    if not len(histories):
        return
    for rows in np.array_split(np.arange(len(histories)), -(-len(histories) // batch_size)):
        batch = histories.rows(rows)
        scores = np.array(scorer.score(batch))  # a copy
        scores = scores if np.issubdtype(scores.dtype, np.floating) else scores.astype(np.float64)
        if not allow_seen:
            scores[batch.token_rows, batch.tokens - 1] = -np.inf
        for row, columns in zip(scores, best_columns(scores, k), strict=True):
            yield columns + 1, row[columns]


def top_k(
    scorer: Scorer, histories: Sequences, k: int = 10, batch_size: int = 256, *, allow_seen: bool = False
) -> np.ndarray:
    """The tokens (U, k) of `best_lists`. ValueError if a user has fewer than `k` items left, or there is none."""
    if not len(histories):
        raise ValueError("there are no histories to recommend for")
    lists = [tokens for tokens, _ in best_lists(scorer, histories, k, batch_size, allow_seen=allow_seen)]
    if min(map(len, lists)) < k:
        raise ValueError(f"a user has fewer than {k} items left to recommend")
    return np.array(lists)


def write_run(
    path: Path,
    scorer: Scorer,
    histories: Sequences,
    vocabulary: Vocabulary,
    k: int = RUN_LENGTH,
    *,
    allow_seen: bool = False,
) -> None:
    """Write the `best_lists` of each user as a TREC run (user, Q0, item, rank, score, tag, between tabs), which
    trec_eval, ir-measures, pytrec_eval and ranx read. Ids are those of the log; users come in the order of `histories`,
    their items best first, equals in the order of the vocabulary. A warning is logged if an id has a space, at which
    those tools end a value."""
    ids = map(str, (*histories.users, *vocabulary.items))
    with_space = next((name for name in ids if len(name.split()) != 1), None)
    if with_space is not None:
        problem = "%s: trec_eval cannot read ids with spaces, such as %r; give it others, such as numbers"
        logging.getLogger(__name__).warning(problem, path, with_space)

    def write(partial: Path) -> None:
        with open(partial, "w", encoding="utf-8", newline="\n") as file:
            lists = best_lists(scorer, histories, k, allow_seen=allow_seen)
            for user, (tokens, scores) in zip(histories.users.tolist(), lists, strict=True):
                texts = scores.astype(str)  # with all digits that tell one score from another
                for rank, (item, score) in enumerate(zip(vocabulary.item_ids(tokens), texts, strict=True), 1):
                    file.write(f"{user}\tQ0\t{item}\t{rank}\t{score}\tbertrec\n")

    replace_file(path, write)


def run_ranks(
    users: Iterable, items: Iterable, scores: np.ndarray, holdout: Holdout, vocabulary: Vocabulary
) -> tuple[np.ndarray, list[str]]:
    """The rank (U,) of each target, full ranking, in lists of any tool, and what should be known about them. Given are
    user, item and score of each place of a list: ids of the log, numbers or texts, in any order.

    The score decides; a tie counts half, as far as the lists show it. Items of the history are left out, unless they
    are candidates in `holdout`. A target that is not in its user's list has an infinite rank, a user without a list
    NaN; a note says if none of MANY_LISTS lists or more holds its target. ValueError if a score is NaN, a list has an
    item twice, or no list is that of a test user.
    """
    histories, count = holdout.histories, len(holdout)
    known_users = {str(user): row for row, user in enumerate(histories.users.tolist())}
    rows = np.array([known_users.get(str(user), -1) for user in users], dtype=int)
    tokens = vocabulary.tokens_as_written(items).astype(int)
    is_test = rows >= 0
    notes = {"lines of users who are not in the test (left out)": (~is_test).sum()}
    rows, tokens, scores = rows[is_test], tokens[is_test], np.asarray(scores)[is_test]
    if not tokens.any():
        example = f"user {next(iter(known_users))}, item {vocabulary.items[:1].tolist()[0]}"
        raise ValueError(f"the lists have no item for a test user; give the ids of the log, such as {example}")
    pairs = rows * (len(vocabulary) + 1) + tokens
    if np.isnan(scores).any() or (np.diff(np.sort(pairs[tokens > 0])) == 0).any():
        raise ValueError("the lists have an item twice for a user, or a score that is NaN; give each item once")
    seen = histories.token_rows * (len(vocabulary) + 1) + histories.tokens
    is_seen = np.isin(pairs, seen) & (not holdout.seen_are_candidates)
    kept, has_list = ~is_seen & (scores > -np.inf), np.bincount(rows, minlength=count) > 0
    notes["lines with an item of the user's history, or the score -inf (left out)"] = (~kept).sum()
    notes["lines with an item that is not in the data (they count as recommended)"] = (tokens == 0).sum()
    rows, tokens, scores = rows[kept], tokens[kept], scores[kept]
    is_target, target_scores = tokens == holdout.targets[rows], np.full(count, np.nan)
    target_scores[rows[is_target]] = scores[is_target]
    higher, tied = scores > target_scores[rows], (scores == target_scores[rows]) & ~is_target
    ranks = 1 + np.bincount(rows[higher], minlength=count) + np.bincount(rows[tied], minlength=count) / 2
    ranks[np.isnan(target_scores)] = np.inf
    is_short = has_list & np.isinf(ranks) & (np.bincount(rows, minlength=count) < 10)
    kind = "items" if holdout.seen_are_candidates else "unseen items"
    notes[f"lists of fewer than 10 {kind}, without the target (no hit)"] = is_short.sum()
    told = [f"{what}: {number:,}" for what, number in notes.items() if number]
    if has_list.sum() >= MANY_LISTS and not is_target.any():
        reason = "they may come from histories that include it (evaluate --run makes lists that do not)"
        told.append(f"no list holds its user's test item; {reason}")
    return np.where(has_list, ranks, np.nan), told


def coverage(lists: np.ndarray, item_count: int) -> float:
    """The share of all items that are in at least one of the `lists` (U, k)."""
    return len(np.unique(lists)) / item_count


def novelty(lists: np.ndarray, counts: np.ndarray, users: int) -> float:
    """Mean self-information, in bits: - log2 of the share of `users` who have the item, by its `counts` (V,). An item
    nobody has counts as if one had it (Zhou et al., PNAS 2010)."""
    return float(-np.log2(np.maximum(counts, 1) / users)[lists - 1].mean())


def gini(lists: np.ndarray, item_count: int) -> float:
    """The Gini index of how often `lists` (U, k) hold each item: 0 if equally often, near 1 if a few fill all."""
    exposure = np.sort(np.bincount(lists.ravel(), minlength=item_count + 1)[1:])
    ranks = np.arange(1, item_count + 1)
    return float((2 * ranks - item_count - 1) @ exposure / (item_count * exposure.sum()))


def intra_list_diversity(lists: np.ndarray, features: np.ndarray) -> float:
    """1 less the Jaccard similarity of two items' `features` (V, G) bool, the mean over all pairs of a list, then over
    lists (Ziegler et al., WWW 2005). Two items without any feature are alike. ValueError for lists of one item."""
    if lists.shape[1] < 2:
        raise ValueError("the diversity of a list needs two items or more")
    of_lists = features[lists - 1].astype(np.float32)  # (U, k, G)
    both = of_lists @ of_lists.transpose(0, 2, 1)
    sizes = of_lists.sum(-1)
    either = sizes[:, :, None] + sizes[:, None, :] - both
    similarity = np.where(either > 0, both / np.maximum(either, 1), 1)
    first, second = np.triu_indices(lists.shape[1], k=1)
    return float(1 - similarity[:, first, second].mean())


def beyond_accuracy(lists: np.ndarray, holdout: Holdout, features: np.ndarray) -> dict[str, float]:
    """All four metrics above of `lists` (U, k) for `holdout`, whose histories give popularity; `features` (V, G)."""
    item_count, counts = len(features), holdout.histories.user_counts(len(features))
    return {
        "coverage": coverage(lists, item_count),
        "novelty (bits)": novelty(lists, counts, len(holdout.histories)),
        "Gini": gini(lists, item_count),
        "diversity of genres": intra_list_diversity(lists, features),
    }
