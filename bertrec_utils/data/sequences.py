"""Users' histories as tokens in flat arrays, and the targets that are held out. Token 0 is PAD, tokens 1..V are the
items, token V + 1 is [MASK]."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

PAD = 0


@dataclass(frozen=True)
class Vocabulary:
    """The V items a model knows, sorted by id: `items[token - 1]` is the item of a token."""

    items: np.ndarray  # (V,) int64, or object for ids that are texts

    def __len__(self) -> int:
        return len(self.items)

    @property
    def mask_token(self) -> int:
        return len(self.items) + 1

    @cached_property
    def _tokens(self) -> dict[Any, int]:
        return {item: token for token, item in enumerate(self.items.tolist(), start=1)}

    def __contains__(self, item: Any) -> bool:
        return item in self._tokens

    def tokens(self, items: Iterable[Any]) -> np.ndarray:
        """Tokens (int32) of item ids, in the shape of an array or the length of any other iterable. KeyError names the
        first id that is not in the vocabulary."""
        array = np.asarray(items) if hasattr(items, "__array__") else np.array(list(items), dtype=object)
        try:
            tokens = [self._tokens[item] for item in array.ravel().tolist()]
        except KeyError as error:
            item, known = error.args[0], self.items[:1].tolist()[0]
            problem = f"item {item!r} is not in the vocabulary of {len(self)} items, such as {known!r}"
            raise KeyError(problem) from None
        return np.array(tokens, dtype=np.int32).reshape(array.shape)

    def tokens_as_written(self, items: Iterable[Any]) -> np.ndarray:
        """Tokens (N,) int32 of ids that may be numbers or texts, compared as they are written; 0 for one that is not in
        the vocabulary."""
        written = {str(item): token for item, token in self._tokens.items()}
        return np.fromiter((written.get(str(item), 0) for item in items), np.int32)

    def item_ids(self, tokens: Any) -> np.ndarray:
        """Item ids of tokens 1..V; IndexError for PAD, [MASK] or anything else that is no item."""
        tokens = np.asarray(tokens)
        if ((tokens < 1) | (tokens > len(self))).any():
            raise IndexError(f"tokens of items are 1..{len(self)}; 0 is PAD and {self.mask_token} is [MASK]")
        return self.items[tokens - 1]


@dataclass(frozen=True, eq=False)
class Sequences:
    """One sequence of tokens for each of U users, in compressed rows: row r is `tokens[offsets[r]:offsets[r + 1]]`."""

    tokens: np.ndarray  # (N,) int32, all rows one after the other
    offsets: np.ndarray  # (U + 1,) int64, from 0 to N
    users: np.ndarray  # (U,) the user id of each row, int64 or texts

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, row: int) -> np.ndarray:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} sequences")
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """(U,) int64."""
        return np.diff(self.offsets)

    @property
    def token_rows(self) -> np.ndarray:
        """The row of each token, (N,) int64."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def counts(self, item_count: int) -> np.ndarray:
        """How often each of tokens 1..V occurs, (V,) int64, for V = `item_count`: the popularity of the items."""
        return np.bincount(self.tokens, minlength=item_count + 1)[1:]

    def user_counts(self, item_count: int) -> np.ndarray:
        """How many rows have each of tokens 1..V, (V,) int64, however often."""
        pairs = np.unique(self.token_rows * (item_count + 1) + self.tokens)
        return np.bincount(pairs % (item_count + 1), minlength=item_count + 1)[1:]

    def rows(self, rows: np.ndarray) -> "Sequences":
        """The sequences at row numbers `rows` (R,) int, in that order; a row may be given more than once."""
        return self.prefixes(rows, self.lengths[rows])

    def prefixes(self, rows: np.ndarray, lengths: np.ndarray) -> "Sequences":
        """For each i, the first `lengths[i]` tokens of row `rows[i]`; both (R,) int. ValueError if a row is shorter."""
        if ((lengths < 0) | (lengths > self.lengths[rows])).any():
            raise ValueError("a sequence is shorter than the prefix that is asked for")
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        positions = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return Sequences(self.tokens[positions], offsets, self.users[rows])

    def without_last(self, count: int) -> "Sequences":
        """Every row without its last `count` tokens. ValueError if a row is shorter than that."""
        return self.prefixes(np.arange(len(self)), self.lengths - count)

    def pairs(self, distance: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of all pairs `distance` >= 1 positions apart in a row: the earlier and the later, (P,) each."""
        rows = self.token_rows
        same_row = rows[:-distance] == rows[distance:]
        return self.tokens[:-distance][same_row], self.tokens[distance:][same_row]

    def last(self) -> np.ndarray:
        """The last token of every row, (U,) int32; ValueError if a row is empty."""
        if not self.lengths.all():
            raise ValueError("a history is empty; give every user at least one item")
        return self.tokens[self.offsets[1:] - 1]


@dataclass(frozen=True, eq=False)
class Holdout:
    """What is predicted at evaluation: the item that came next after each of the U `histories`, `targets` (U,) int32.
    With `seen_are_candidates`, for data with repeats, items of the history are ranked too, and may be the target."""

    histories: Sequences
    targets: np.ndarray
    seen_are_candidates: bool = False

    def __len__(self) -> int:
        return len(self.targets)

    def rows(self, rows: np.ndarray) -> "Holdout":
        """The histories and targets at row numbers `rows` (R,) int, in that order."""
        return replace(self, histories=self.histories.rows(rows), targets=self.targets[rows])

    def sample(self, most: int, seed: int) -> "Holdout":
        """All rows, or a random sample of `most` if there are more, in their order."""
        if len(self) <= most:
            return self
        return self.rows(np.sort(np.random.default_rng(seed).choice(len(self), most, replace=False)))


@dataclass(frozen=True, eq=False)
class Split:
    """Training sequences, the validation targets that choose the best epoch, and the test targets that are reported."""

    train: Sequences
    validation: Holdout
    test: Holdout  # its histories include the validation item
    successive: Holdout | None = None  # of a split in time: every item after the cut, after all that came before it
