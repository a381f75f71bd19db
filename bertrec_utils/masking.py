"""Cloze masking (section 3.6): hide items, remember which. Histories are padded on the left."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from .presets import Preset
from .sequences import PAD, Sequences


class ClozeBatch(NamedTuple):
    """A batch of masked histories. A row with fewer than M masked items has labels 0 (PAD) in the places left over."""

    tokens: torch.Tensor  # (B, T) int64
    masked: torch.Tensor  # (B, M) int64: the positions that were masked
    labels: torch.Tensor  # (B, M) int64: the tokens that stood there

    def to(self, device) -> "ClozeBatch":
        return ClozeBatch(*(part.to(device) for part in self))


def pad_left(sequences: Sequences, rows: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Tokens `starts[i]:ends[i]` of each row, right-aligned in an int64 array (B, T) filled up with PAD."""
    lengths = ends - starts
    columns = np.arange(lengths.max()) - (lengths.max() - lengths)[:, None]  # (B, T), negative where padded
    places = (sequences.offsets[rows] + starts)[:, None] + columns.clip(min=0)
    return np.where(columns >= 0, sequences.tokens[places], PAD).astype(np.int64)


def mask_items(
    tokens: np.ndarray, mask_token: int, ratio: np.ndarray, mask_last: np.ndarray, random: np.random.Generator
) -> ClozeBatch:
    """Mask a share `ratio` (B,) of each row of `tokens` (B, T), chosen at random, and at least one item.

    Where `mask_last` (B,) is set, the last item is always among them. PAD is never masked.
    """
    is_item = tokens != PAD
    wanted = ratio * (is_item.sum(1) - mask_last) + random.random(len(tokens))  # rounds up or down, right on average
    counts = np.maximum(wanted.astype(int) + mask_last, 1)
    keys = np.where(is_item, random.random(tokens.shape), 2)
    keys[mask_last, -1] = -1
    masked = keys.argsort(1)[:, : counts.max()]
    chosen = np.arange(counts.max()) < counts[:, None]
    labels = np.where(chosen, np.take_along_axis(tokens, masked, 1), PAD)
    hidden = tokens.copy()
    rows, places = np.nonzero(chosen)
    hidden[rows, masked[rows, places]] = mask_token
    return ClozeBatch(*map(torch.from_numpy, (hidden, masked, labels)))


def cloze_batches(
    sequences: Sequences, mask_token: int, preset: Preset, random: np.random.Generator
) -> Iterator[ClozeBatch]:
    """One epoch: every sequence once, freshly masked, in batches of like lengths in random order.

    Most samples are random clozes. A share `last_item_share` asks the question of the test instead: the history is cut
    a little before its end (`mean_cut` of its length on average, exponentially distributed, so that the question
    differs from epoch to epoch) and its last item is masked, with a few others.
    """
    lengths = sequences.lengths
    ask_last = random.random(len(sequences)) < preset.last_item_share
    cuts = np.where(ask_last, random.exponential(preset.mean_cut, len(sequences)) * lengths, 0).astype(int)
    ends = np.maximum(lengths - cuts, np.minimum(lengths, 2))
    starts = np.maximum(ends - preset.history_length, 0)
    ratios = np.where(ask_last, preset.last_item_mask_ratio, preset.mask_ratio)

    by_length = np.lexsort((random.random(len(sequences)), ends - starts))
    batches = np.array_split(by_length, batch_count(sequences, preset))
    for batch in random.permutation(len(batches)):
        rows = batches[batch]
        tokens = pad_left(sequences, rows, starts[rows], ends[rows])
        yield mask_items(tokens, mask_token, ratios[rows], ask_last[rows], random)


def batch_count(sequences: Sequences, preset: Preset) -> int:
    return -(-len(sequences) // preset.batch_size)


def question_batch(histories: Sequences, mask_token: int, history_length: int) -> torch.Tensor:
    """The question of the test (section 3.6): each history with [MASK] APPENDED, (B, T) int64, T <= history_length.

    Overwriting the newest item with [MASK] instead would throw away the best clue there is.
    """
    ends = histories.lengths
    starts = np.maximum(ends - (history_length - 1), 0)
    tokens = pad_left(histories, np.arange(len(histories)), starts, ends)
    return torch.from_numpy(np.pad(tokens, ((0, 0), (0, 1)), constant_values=mask_token))
