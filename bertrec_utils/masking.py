"""The questions a history is asked (section 3.6), as [MASK] tokens. Histories are padded on the left.

A question is a [MASK] with a place in the history. It is kept beside the history, not in it: it looks at the films, and
no film looks at it. So one pass can ask a history many questions, each seeing only what it may see.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from .presets import Preset
from .sequences import PAD, Sequences


class Questions(NamedTuple):
    """A batch of B histories of T places, each asked K questions; all int64 tensors. Places are columns of `history`.

    A row with fewer questions has label 0 (PAD) in the places left over.
    """

    history: torch.Tensor  # (B, T): tokens; a hidden film is replaced by [MASK]
    history_sees: torch.Tensor  # (B, T): each place sees the shown films at places below this
    places: torch.Tensor  # (B, K): which place is asked about
    sees: torch.Tensor  # (B, K): each question sees the shown films at places below this
    labels: torch.Tensor  # (B, K): the tokens that belong there

    def to(self, device) -> "Questions":
        return Questions(*(part.to(device) for part in self))


def pad_left(sequences: Sequences, rows: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Tokens `starts[i]:ends[i]` of each row, right-aligned in an int64 array (B, T) filled up with PAD."""
    lengths = ends - starts
    columns = np.arange(lengths.max()) - (lengths.max() - lengths)[:, None]  # (B, T), negative where padded
    places = (sequences.offsets[rows] + starts)[:, None] + columns.clip(min=0)
    return np.where(columns >= 0, sequences.tokens[places], PAD).astype(np.int64)


def choose(eligible: np.ndarray, ratio: float, random: np.random.Generator) -> np.ndarray:
    """A random share `ratio` of the eligible places of each row, (B, T) bool; the number is right on average."""
    counts = (ratio * eligible.sum(1) + random.random(len(eligible))).astype(int)
    keys = np.where(eligible, random.random(eligible.shape), 2)
    last = np.take_along_axis(np.sort(keys, 1), np.maximum(counts - 1, 0)[:, None], 1)
    return eligible & (keys <= last) & (counts[:, None] > 0)


def ask(
    tokens: np.ndarray,
    prefix: np.ndarray,
    mask_ratio: float,
    next_ratio: float,
    mask_token: int,
    random: np.random.Generator,
) -> Questions:
    """Questions about histories `tokens` (B, T), at least one a row, in two kinds:

    cloze: in the first `prefix` (B,) films a share `mask_ratio` is hidden; the question sees all films that are shown.
    next film: of the films after the prefix a share `next_ratio` is asked about; the question sees the films before it.

    For that, the films of the prefix see the whole prefix, on both sides; each later one sees the films up to itself.
    """
    is_item = tokens != PAD
    places = np.arange(tokens.shape[1])
    boundary = (~is_item).sum(1) + prefix  # (B,): the first place after the prefix
    later = places >= boundary[:, None]
    hidden = choose(is_item & ~later, mask_ratio, random)
    asked = hidden | choose(later, next_ratio, random)
    unasked = ~asked.any(1)
    asked[unasked, -1] = True
    hidden[unasked, -1] = ~later[unasked, -1]

    counts = asked.sum(1)
    question_places = np.argsort(~asked, axis=1, kind="stable")[:, : counts.max()]
    used = np.arange(counts.max()) < counts[:, None]
    is_cloze = np.take_along_axis(hidden, question_places, 1)
    return Questions(
        history=torch.from_numpy(np.where(hidden, mask_token, tokens)),
        history_sees=torch.from_numpy(np.maximum(places + 1, boundary[:, None])),
        places=torch.from_numpy(question_places),
        sees=torch.from_numpy(np.where(is_cloze | ~used, len(places), question_places)),
        labels=torch.from_numpy(np.where(used, np.take_along_axis(tokens, question_places, 1), PAD)),
    )


def cloze_batches(
    sequences: Sequences, mask_token: int, preset: Preset, random: np.random.Generator
) -> Iterator[Questions]:
    """One epoch: every sequence once, freshly masked, in batches of like lengths in random order.

    Of a sequence longer than the model reads, the newest part is taken half of the time, else any part.
    """
    lengths = sequences.lengths
    anywhere = random.integers(np.minimum(preset.history_length, lengths), lengths + 1)
    ends = np.where(random.random(len(sequences)) < 0.5, lengths, anywhere)
    starts = np.maximum(ends - preset.history_length, 0)
    by_length = np.lexsort((random.random(len(sequences)), ends - starts))
    batches = np.array_split(by_length, batch_count(sequences, preset))
    for batch in random.permutation(len(batches)):
        rows = batches[batch]
        tokens = pad_left(sequences, rows, starts[rows], ends[rows])
        prefix = draw_prefix(ends[rows] - starts[rows], random)
        yield ask(tokens, prefix, preset.mask_ratio, preset.next_ratio, mask_token, random)


def draw_prefix(lengths: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """How many films of each history are its prefix, (B,): half of the time one, so that next films are asked about
    from the start; else any number."""
    return np.where(random.random(len(lengths)) < 0.5, 1, random.integers(1, lengths + 1))


def batch_count(sequences: Sequences, preset: Preset) -> int:
    return -(-len(sequences) // preset.batch_size)


def question_batch(histories: Sequences, history_length: int) -> Questions:
    """The question of the test: one [MASK] AFTER each history (section 3.6). Every film sees both sides.

    Overwriting the newest film with [MASK] instead would throw away the best clue there is. Labels are all PAD.
    """
    ends = histories.lengths
    if not ends.all():
        raise ValueError("a history is empty; give every user at least one film")
    tokens = pad_left(histories, np.arange(len(histories)), np.maximum(ends - history_length, 0), ends)
    after = np.full((len(histories), 1), tokens.shape[1])
    everything = np.full(tokens.shape, tokens.shape[1])
    return Questions(*map(torch.from_numpy, (tokens, everything, after, after, np.full_like(after, PAD))))
