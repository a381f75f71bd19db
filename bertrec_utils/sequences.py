"""From a rating log to sequences of tokens, and the leave-one-out split.

Token 0 is PAD, tokens 1..V are the items, token V + 1 is [MASK].
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

PAD = 0


@dataclass(frozen=True)
class Vocabulary:
    """The V items a model knows, sorted by id: `items[token - 1]` is the item of a token."""

    items: np.ndarray  # (V,)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def mask_token(self) -> int:
        return len(self.items) + 1

    def __contains__(self, item) -> bool:
        return bool(np.isin(item, self.items))

    def tokens(self, items) -> np.ndarray:
        """Tokens (int32, same shape) of item ids; KeyError names the first id that is not in the vocabulary."""
        items = np.asarray(items)
        places = np.searchsorted(self.items, items).clip(max=len(self.items) - 1)
        unknown = self.items[places] != items
        if unknown.any():
            raise KeyError(f"item {items[unknown][0]} is not in the vocabulary of {len(self)} items")
        return (places + 1).astype(np.int32)

    def item_ids(self, tokens) -> np.ndarray:
        """Item ids of tokens 1..V; IndexError for PAD, [MASK] or anything else that is no item."""
        tokens = np.asarray(tokens)
        if tokens.size and (tokens.min() < 1 or tokens.max() > len(self)):
            raise IndexError(f"tokens of items are 1..{len(self)}; 0 is PAD and {self.mask_token} is [MASK]")
        return self.items[tokens - 1]


@dataclass(frozen=True)
class Sequences:
    """One sequence of tokens per user, in compressed rows: row r is `tokens[offsets[r]:offsets[r + 1]]`."""

    tokens: np.ndarray  # int32, all rows one after the other
    offsets: np.ndarray  # int64, one more than there are rows
    users: np.ndarray  # the user id of each row

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, row: int) -> np.ndarray:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} sequences")
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def counts(self, item_count: int) -> np.ndarray:
        """How often each of tokens 1..V occurs, (V,) int64: its popularity."""
        return np.bincount(self.tokens, minlength=item_count + 1)[1:]

    def rows(self, rows) -> "Sequences":
        """The given rows, in the given order."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], lengths.cumsum()])
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return Sequences(self.tokens[places], offsets, self.users[rows])

    def without_last(self, count: int) -> "Sequences":
        """Every row without its last `count` tokens; no row may be shorter than that."""
        keep = np.arange(len(self.tokens)) < np.repeat(self.offsets[1:] - count, self.lengths)
        return Sequences(self.tokens[keep], self.offsets - count * np.arange(len(self.offsets)), self.users)

    def pairs(self, distance: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of all pairs that stand `distance` places apart in a row: the earlier ones, the later ones."""
        rows = np.repeat(np.arange(len(self)), self.lengths)
        together = rows[:-distance] == rows[distance:]
        return self.tokens[:-distance][together], self.tokens[distance:][together]

    def last(self) -> np.ndarray:
        """The last token of every row."""
        return self.tokens[self.offsets[1:] - 1]


@dataclass(frozen=True)
class Holdout:
    """What is asked at evaluation: after `histories`, which item came next? `targets` (one token per row) did."""

    histories: Sequences
    targets: np.ndarray


@dataclass(frozen=True)
class LeaveOneOut:
    """Last item of each user for the test, the one before for validation, the rest for training (section 4.1)."""

    train: Sequences
    validation: Holdout
    test: Holdout  # its histories include the validation item


def build_sequences(
    ratings: pd.DataFrame, min_item_ratings: int = 5, max_users: int | None = None, *, tie_seed: int | None = 0
) -> tuple[Vocabulary, Sequences]:
    """Sequences in time order, of items with at least `min_item_ratings` ratings.

    Equal timestamps stay in file order, except where the file lists every user's ratings by item, as GroupLens's CSV
    releases do: that order says nothing about time, and a model would be graded on the ids, so `tie_seed` shuffles the
    ties instead (None: always file order).
    An item that a user meets again counts once, at its first time: a ranking without the history has no place for it.
    Rare items are dropped in a single pass, as the published splits have it, and then users left with fewer than three
    items, who cannot be split: an item may end with fewer ratings than asked. `max_users` keeps the first users only.
    Raises ValueError if nothing is left.
    """
    user_codes, users = pd.factorize(ratings.user, sort=True)
    item_codes, items = pd.factorize(ratings.item, sort=True)
    keys = [ratings.timestamp.to_numpy(), user_codes]
    if tie_seed is not None and _sorted_by_item(user_codes, item_codes):
        # drawn for every row of the file, so that the other arguments do not change a user's order
        keys.insert(0, np.random.default_rng(tie_seed).permutation(len(ratings)))
    order = np.lexsort(keys)  # the last key counts first; stable: ties stay in file order
    if max_users is not None:
        order = order[user_codes[order] < max_users]
    pairs = pd.Series(user_codes[order].astype(np.int64) * len(items) + item_codes[order])
    order = order[~pairs.duplicated().to_numpy()]
    order = order[np.bincount(item_codes[order], minlength=len(items))[item_codes[order]] >= min_item_ratings]
    order = order[np.bincount(user_codes[order], minlength=len(users))[user_codes[order]] >= 3]
    if not len(order):
        rule = f"three items with {min_item_ratings} ratings or more"
        raise ValueError(f"no user has {rule}; lower min_item_ratings (--min-item-ratings)")
    vocabulary = Vocabulary(np.asarray(items[np.unique(item_codes[order])]))
    rows, lengths = np.unique(user_codes[order], return_counts=True)
    tokens = vocabulary.tokens(ratings.item.to_numpy()[order])
    return vocabulary, Sequences(tokens, np.concatenate([[0], lengths.cumsum()]), np.asarray(users[rows]))


def _sorted_by_item(user_codes, item_codes):
    """Whether items never decrease, in file order, within any user."""
    by_user = np.argsort(user_codes, kind="stable")
    same_user = np.diff(user_codes[by_user]) == 0
    return bool((np.diff(item_codes[by_user])[same_user] >= 0).all())


def leave_one_out(sequences: Sequences) -> LeaveOneOut:
    """Split off each user's last item (test) and second-last item (validation). ValueError below three items."""
    if sequences.lengths.min() < 3:
        raise ValueError("leave-one-out needs at least three items in every sequence")
    known = sequences.without_last(1)
    train = sequences.without_last(2)
    return LeaveOneOut(train, Holdout(train, known.last()), Holdout(known, sequences.last()))
