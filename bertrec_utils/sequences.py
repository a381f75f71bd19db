"""From a rating log to sequences of tokens, and what of them is held out: the last items, or all after a day.

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
        return self.prefixes(rows, self.lengths[rows])

    def prefixes(self, rows, lengths) -> "Sequences":
        """For each i, the first `lengths[i]` tokens of row `rows[i]`."""
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return Sequences(self.tokens[places], offsets, self.users[rows])

    def without_last(self, count: int) -> "Sequences":
        """Every row without its last `count` tokens; no row may be shorter than that."""
        return self.prefixes(np.arange(len(self)), self.lengths - count)

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
class Split:
    """What is trained on, what is chosen by, and what is reported."""

    train: Sequences
    validation: Holdout
    test: Holdout  # its histories include the validation item
    following: Holdout | None = None  # of a split in time: every item after the cut, after all that came before it


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
    order = _in_time_order(user_codes, item_codes, ratings.timestamp.to_numpy(), tie_seed)
    if max_users is not None:
        order = order[user_codes[order] < max_users]
    if _has_duplicates(user_codes * len(items) + item_codes):
        pairs = pd.Series(user_codes[order] * len(items) + item_codes[order])
        order = order[~pairs.duplicated().to_numpy()]
    order = order[np.bincount(item_codes[order], minlength=len(items))[item_codes[order]] >= min_item_ratings]
    order = order[np.bincount(user_codes[order], minlength=len(users))[user_codes[order]] >= 3]
    if not len(order):
        rule = f"three items with {min_item_ratings} ratings or more"
        raise ValueError(f"no user has {rule}; lower min_item_ratings (--min-item-ratings)")
    is_known = np.bincount(item_codes[order], minlength=len(items)) > 0
    tokens = np.cumsum(is_known, dtype=np.int32)[item_codes[order]]
    lengths = np.bincount(user_codes[order], minlength=len(users))
    rows = np.flatnonzero(lengths)
    offsets = np.concatenate([[0], lengths[rows].cumsum()])
    return Vocabulary(np.asarray(items[is_known])), Sequences(tokens, offsets, np.asarray(users[rows]))


def _in_time_order(user_codes, item_codes, timestamps, tie_seed):
    """The rows of a log by user, then time; equal times as `build_sequences` says."""
    order = np.lexsort([timestamps, user_codes])  # the last key counts first; stable: ties stay in file order
    if tie_seed is None or not _sorted_by_item(user_codes, item_codes):
        return order
    # drawn for every row of the file, so that what is left out later does not change a user's order
    shuffled = np.random.default_rng(tie_seed).permutation(len(order))
    is_new = (np.diff(user_codes[order], prepend=0) != 0) | (np.diff(timestamps[order], prepend=0) != 0)
    # ties have a number in common; a stable sort is fast on what is nearly sorted
    return order[np.argsort(np.cumsum(is_new) * len(order) + shuffled[order], kind="stable")]


def _has_duplicates(numbers):
    """Whether any two are equal; fast if they are nearly sorted, as in GroupLens's files."""
    return bool((np.diff(np.sort(numbers, kind="stable")) == 0).any())


def _sorted_by_item(user_codes, item_codes):
    """Whether items never decrease, in file order, within any user."""
    by_user = np.argsort(user_codes, kind="stable")
    same_user = np.diff(user_codes[by_user]) == 0
    return bool((np.diff(item_codes[by_user])[same_user] >= 0).all())


def leave_one_out(sequences: Sequences) -> Split:
    """Last item of each user for the test, the one before for validation, the rest for training (section 4.2).

    ValueError below three items.
    """
    if sequences.lengths.min() < 3:
        raise ValueError("leave-one-out needs at least three items in every sequence")
    known = sequences.without_last(1)
    train = sequences.without_last(2)
    return Split(train, Holdout(train, known.last()), Holdout(known, sequences.last()))


def split_in_time(
    ratings: pd.DataFrame, quantile: float = 0.9, min_item_ratings: int = 5, *, tie_seed: int | None = 0
) -> tuple[Vocabulary, Split]:
    """Train before the `quantile` of the timestamps, test after it ("Time to Split", Gusak et al., RecSys 2025).

    Nothing that came after the cut is known in training: the vocabulary and all counts are from before it, and items
    that are not in it are passed over. `following` asks for every item after the cut, after all that the user had by
    then, and `test` for the first of them, whether the user is known from before or new. A new user's very first item
    is not asked for. Validation asks for each user's last item before the cut. Order, repeated items and rare ones are
    treated as in `build_sequences`. ValueError if nobody can be trained on or tested.
    """
    codes = [pd.factorize(ratings[column], sort=True)[0] for column in ("user", "item")]
    log = ratings.iloc[_in_time_order(*codes, ratings.timestamp.to_numpy(), tie_seed)]
    log = log.drop_duplicates(["user", "item"])
    cut = ratings.timestamp.quantile(quantile)
    counts = log.item[log.timestamp < cut].value_counts()
    log = log[log.item.isin(counts.index[counts >= min_item_ratings])]
    is_early = (log.timestamp < cut).to_numpy()
    users, lengths = np.unique(log.user, return_counts=True)
    vocabulary = Vocabulary(np.unique(log.item[is_early]))
    whole = Sequences(vocabulary.tokens(log.item), np.concatenate([[0], lengths.cumsum()]), users)
    user_rows = np.repeat(np.arange(len(users)), lengths)
    known = np.bincount(user_rows[is_early], minlength=len(users))  # how many items of each user are before the cut
    first = np.maximum(known, 1)  # the place of the first item that is asked for after it
    trained, tested = np.flatnonzero(known >= 2), np.flatnonzero(first < lengths)
    if not len(trained) or not len(tested):
        raise ValueError(f"there must be users with two items before the {quantile} quantile of time, and items after")
    places = np.arange(len(user_rows)) - whole.offsets[user_rows]
    later = places >= first[user_rows]

    def held_out(rows, places):
        return Holdout(whole.prefixes(rows, places), whole.tokens[whole.offsets[rows] + places])

    validation = held_out(trained, known[trained] - 1)
    return vocabulary, Split(
        train=validation.histories,
        validation=validation,
        test=held_out(tested, first[tested]),
        following=held_out(user_rows[later], places[later]),
    )
