"""Turns histories into masked batches: which positions are targets, and what each position may see.

A target is a [MASK] with a position in the history. It is kept beside the history, not in it: it sees the items, and no
item sees it. So one pass can predict many targets of a history, each from only what it may see.

A history is split into a prefix and the rest. In the prefix some items are masked: the cloze of BERT, with items on
both sides (section 3.6 of Sun et al., CIKM 2019). After it, the target is the next item, from what came before: the
causal objective of SASRec and GPT. Items see each other as in a prefix language model: the prefix in both directions,
every later item only itself and what came before it.

Shapes: B users, T positions, M targets per user.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.sequences import PAD, Sequences
from ..settings import TrainingSettings


class MaskedBatch(NamedTuple):
    """B histories of T positions, padded on the left, with M targets each; all int64 tensors. Positions are columns of
    `history`. A row with fewer targets has label 0 (PAD) in the columns left over."""

    history: Tensor  # (B, T): tokens; a masked item is replaced by [MASK]
    history_visible_until: Tensor  # (B, T): each position sees the items at positions below this
    target_positions: Tensor  # (B, M)
    visible_until: Tensor  # (B, M): each target sees the items at positions below this
    labels: Tensor  # (B, M): the tokens that belong there

    def to(self, device: torch.device) -> "MaskedBatch":
        return MaskedBatch(*(part.to(device) for part in self))

    def target_index(self) -> Tensor:
        """(N,) int64: which of the B x M entries of `labels`, counted row by row, hold a target."""
        return self.labels.flatten().nonzero()[:, 0]

    def is_item(self, mask_token: int) -> Tensor:
        """(B, T) bool: where the history shows an item, neither PAD nor [MASK]."""
        return (self.history != PAD) & (self.history != mask_token)

    def attention_mask(self, mask_token: int) -> Tensor:
        """Which items are seen, (B, 1, T + M, T) bool: first by each position of the history, then by each target. PAD
        and [MASK] are never seen. A row that sees no item, as in a training history of one, attends to position 0: a
        softmax over nothing would be NaN. It holds PAD there or, in the longest history of the batch, [MASK]."""
        positions = torch.arange(self.history.shape[1], device=self.history.device)
        until = torch.cat([self.history_visible_until, self.visible_until], 1)
        visible = self.is_item(mask_token)[:, None, :] & (positions < until[:, :, None])
        visible[:, :, 0] |= ~visible.any(-1)
        return visible[:, None]


def training_batches(
    sequences: Sequences, mask_token: int, settings: TrainingSettings, max_length: int, random: np.random.Generator
) -> Iterator[MaskedBatch]:
    """One epoch: every sequence once, masked anew, in batches of similar lengths in random order, or of users drawn at
    random, then the shortest history first."""
    starts, ends = sample_windows(sequences.lengths, max_length, random)
    lengths = ends - starts
    order = np.lexsort((random.random(len(sequences)), lengths))
    if not settings.bucket_by_length:
        order = random.permutation(len(sequences))
    batches = np.array_split(order, batch_count(sequences, settings.batch_size))
    for batch in random.permutation(len(batches)):
        rows = batches[batch][np.argsort(lengths[batches[batch]], kind="stable")]
        tokens = pad_left(sequences, rows, starts[rows], ends[rows])
        prefix = sample_prefixes(lengths[rows], settings.p_causal, settings.p_cloze, random)
        cloze, next_item = sample_targets(tokens, prefix, settings.mask_ratio, settings.next_ratio, random)
        if settings.p_mask_last:
            newest_only = random.random(len(rows)) < settings.p_mask_last  # and it is masked
            cloze[newest_only] = next_item[newest_only] = False
            cloze[newest_only, -1] = True
        yield build_batch(tokens, prefix, cloze, next_item, mask_token)


def batch_count(sequences: Sequences, batch_size: int) -> int:
    """How many batches of at most `batch_size` users an epoch has."""
    return -(-len(sequences) // batch_size)


def sample_windows(lengths: np.ndarray, max_length: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Where the part of each sequence that is trained on starts and ends, two (U,) arrays. Of a sequence longer than
    `max_length`, the newest part is taken half of the time, else any part."""
    anywhere = random.integers(np.minimum(max_length, lengths), lengths + 1)
    ends = np.where(random.random(len(lengths)) < 0.5, lengths, anywhere)
    return np.maximum(ends - max_length, 0), ends


def sample_prefixes(lengths: np.ndarray, p_causal: float, p_cloze: float, random: np.random.Generator) -> np.ndarray:
    """How many items of each history are its bidirectional prefix, (B,). One item with probability `p_causal`, all with
    probability `p_cloze`, else any number."""
    kind = random.random(len(lengths))
    anywhere = random.integers(1, lengths + 1)
    return np.select([kind < p_causal, kind >= 1 - p_cloze], [1, lengths], anywhere)


def sample_targets(
    tokens: np.ndarray, prefix: np.ndarray, mask_ratio: float, next_ratio: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Which positions of histories `tokens` (B, T) are targets: `cloze` and `next_item`, both (B, T) bool. cloze: a
    share `mask_ratio` of the first `prefix` (B,) items, none if that is a single one. next item: a share `next_ratio`
    of the positions after them. In a history without either, the newest item is the target."""
    after_prefix = np.arange(tokens.shape[1]) >= prefix_end(tokens, prefix)[:, None]
    cloze = sample_mask((tokens != PAD) & ~after_prefix & (prefix > 1)[:, None], mask_ratio, random)
    next_item = sample_mask(after_prefix, next_ratio, random)
    without = ~(cloze | next_item).any(1)
    cloze[without, -1] = ~after_prefix[without, -1]
    next_item[without, -1] = after_prefix[without, -1]
    return cloze, next_item


def sample_mask(eligible: np.ndarray, ratio: float, random: np.random.Generator) -> np.ndarray:
    """A random share `ratio` of the eligible positions of each row, (B, T) bool. A share that is no whole number is
    rounded up or down at random, so that its mean is right."""
    counts = (ratio * eligible.sum(1) + random.random(len(eligible))).astype(int)
    keys = np.where(eligible, random.random(eligible.shape), 2)
    last = np.take_along_axis(np.sort(keys, 1), np.maximum(counts - 1, 0)[:, None], 1)
    return eligible & (keys <= last) & (counts[:, None] > 0)


def build_batch(
    tokens: np.ndarray, prefix: np.ndarray, cloze: np.ndarray, next_item: np.ndarray, mask_token: int
) -> MaskedBatch:
    """The batch whose targets are the positions `cloze` and `next_item` (B, T) bool of histories `tokens` (B, T). A
    cloze target sees every item that is not masked, a next-item target those before its position. The items of the
    prefix see the whole prefix, each later one the items up to itself."""
    length = tokens.shape[1]
    is_target = cloze | next_item
    counts = is_target.sum(1)
    positions = np.argsort(~is_target, axis=1, kind="stable")[:, : counts.max()]  # the targets come first
    is_valid = np.arange(counts.max()) < counts[:, None]
    is_next = np.take_along_axis(next_item, positions, 1)
    until = np.maximum(np.arange(length) + 1, prefix_end(tokens, prefix)[:, None])
    return MaskedBatch(
        history=torch.from_numpy(np.where(cloze, mask_token, tokens)),
        history_visible_until=torch.from_numpy(until),
        target_positions=torch.from_numpy(positions),
        visible_until=torch.from_numpy(np.where(is_next, positions, length)),
        labels=torch.from_numpy(np.where(is_valid, np.take_along_axis(tokens, positions, 1), PAD)),
    )


def prefix_end(tokens: np.ndarray, prefix: np.ndarray) -> np.ndarray:
    """The first position after the prefix of each history, (B,): padding stands on the left."""
    return (tokens == PAD).sum(1) + prefix


def append_mask(histories: Sequences, max_length: int, causal: bool = False) -> MaskedBatch:
    """The batch of the test: one [MASK] AFTER each history (section 3.6). Every item sees both sides or, if
    `causal`, only the items up to itself. Overwriting the newest item with [MASK] instead would throw away the best
    clue there is. Labels are all PAD. ValueError if a history is empty, or there is none."""
    ends = histories.lengths
    if not len(ends):
        raise ValueError("there are no histories")
    if not ends.all():
        raise ValueError("a history is empty; give every user at least one item")
    tokens = pad_left(histories, np.arange(len(histories)), np.maximum(ends - max_length, 0), ends)
    after = np.full((len(tokens), 1), tokens.shape[1])
    until = np.arange(tokens.shape[1]) + 1 if causal else np.full(tokens.shape[1], tokens.shape[1])
    history_until = np.tile(until, (len(tokens), 1))
    return MaskedBatch(*map(torch.from_numpy, (tokens, history_until, after, after, np.full_like(after, PAD))))


def pad_left(sequences: Sequences, rows: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Tokens `starts[i]:ends[i]` of each row, right-aligned in an int64 array (B, T) filled up with PAD."""
    lengths = ends - starts
    columns = np.arange(lengths.max()) - (lengths.max() - lengths)[:, None]  # (B, T), negative where padded
    positions = (sequences.offsets[rows] + starts)[:, None] + columns.clip(min=0)
    return np.where(columns >= 0, sequences.tokens[positions], PAD).astype(np.int64)
