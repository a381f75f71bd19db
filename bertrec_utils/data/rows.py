"""Which rows of a log count, and in which order."""

from typing import Any

import numpy as np
import pandas as pd

from ..settings import REPEATS

MIN_HISTORY = 3  # fewest items of a user: one each for training, validation and test
MIN_REPEAT_SHARE = 0.1  # share of the rows of a log from which repeats are kept: people come back to its items


def keeps_repeats(repeats: str | None, count: int, rows: int) -> bool:
    """Whether the repeats of a log, `count` of its `rows`, are kept."""
    if repeats not in (*REPEATS, None):
        raise ValueError(f"repeats is {repeats!r}; it must be one of {', '.join(REPEATS)}, or None")
    return repeats == "keep" or (repeats is None and count >= MIN_REPEAT_SHARE * rows)


def in_time_order(ratings: pd.DataFrame, tie_seed: int | None, own: bool) -> tuple[Any, Any, np.ndarray]:
    """(codes, ids) of the users, (codes, ids) of the items, and the order (rows,) int64 of the rows by user, then time,
    with ties as `build_sequences` describes."""
    users, user_ids = pd.factorize(ratings.user, sort=True)
    items, item_ids = pd.factorize(ratings.item, sort=True)
    keys = [ratings.timestamp.to_numpy(), users]  # the last counts first; the sort is stable: ties stay in file order
    if own and tie_seed is not None:
        in_time = np.lexsort(keys)
        user_texts, item_texts = (np.array([*map(str, ids)], object) for ids in (user_ids, item_ids))
        # 9 before 10, or 10 before 9: one row may make texts of all ids
        orders = np.argsort(item_texts), np.lexsort([item_texts, np.array([*map(len, item_texts)])])
        if any(_are_ties_by_item(in_time, keys[0], users, order.argsort()[items]) for order in orders):
            hashes = pd.util.hash_array(user_texts)[users] ^ pd.util.hash_array(item_texts)[items]
            keys = [pd.util.hash_array(hashes), *keys]
    order = np.lexsort(keys)
    if not own and tie_seed is not None and _are_sorted_by_item(users, items):
        times, users_in_order = ratings.timestamp.to_numpy()[order], users[order]
        # drawn for every row of the file, so that what is left out later does not change a user's order
        shuffled = np.random.default_rng(tie_seed).permutation(len(order))
        is_new = (np.diff(users_in_order, prepend=0) != 0) | (np.diff(times, prepend=0) != 0)
        # ties have a number in common; a stable sort is fast on what is nearly sorted
        order = order[np.argsort(np.cumsum(is_new) * len(order) + shuffled[order], kind="stable")]
    return (users, user_ids), (items, item_ids), order


def _are_sorted_by_item(users: np.ndarray, items: np.ndarray) -> bool:
    """Whether the item codes of no user ever decrease in file order."""
    by_user = np.argsort(users, kind="stable")
    return not ((np.diff(users[by_user]) == 0) & (np.diff(items[by_user]) < 0)).any()


def _are_ties_by_item(order: np.ndarray, times: np.ndarray, users: np.ndarray, items: np.ndarray) -> bool:
    """Whether more than three fifths of the neighbours among ties, in `order` (rows,), go up by item, or down, and more
    than chance explains (four standard deviations)."""
    is_tie = (np.diff(users[order]) == 0) & (np.diff(times[order]) == 0)
    steps = np.sign(np.diff(items[order])[is_tie])
    count = np.count_nonzero(steps)
    return abs(steps.sum()) > max(0.2 * count, 4 * np.sqrt(count))
