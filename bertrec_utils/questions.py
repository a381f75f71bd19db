"""The questions a history is asked in training and in the test (section 3.6), as [MASK] tokens.

A question is a [MASK] with a place in the history. It is kept beside the history, not in it: it looks at the films, and
no film looks at it. So one pass can ask a history many questions, each seeing only what it may see.

A history is split into a prefix and the rest. In the prefix some films are hidden: the cloze of BERT, with films on
both sides. After it the next film is asked about, from what came before: the causal question of SASRec and GPT. Films
see each other the way a prefix language model does: the prefix both ways, every later film only what came before it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from .presets import Preset
from .sequences import PAD, Sequences


class Questions(NamedTuple):
    """A batch of B histories of T places, padded on the left, each asked K questions; all int64 tensors.

    Places are columns of `history`. A row with fewer questions has label 0 (PAD) in the places left over.
    """

    history: torch.Tensor  # (B, T): tokens; a hidden film is replaced by [MASK]
    history_sees: torch.Tensor  # (B, T): each place sees the shown films at places below this
    places: torch.Tensor  # (B, K): which place is asked about
    sees: torch.Tensor  # (B, K): each question sees the shown films at places below this
    labels: torch.Tensor  # (B, K): the tokens that belong there

    def to(self, device: torch.device) -> "Questions":
        return Questions(*(part.to(device) for part in self))

    def used(self) -> torch.Tensor:
        """(N,) int64: which of the B x K places of `labels`, counted row by row, hold a question."""
        return self.labels.flatten().nonzero()[:, 0]

    def is_shown(self, mask_token: int) -> torch.Tensor:
        """(B, T) bool: where a film of the history can be seen, being neither PAD nor [MASK]."""
        return (self.history != PAD) & (self.history != mask_token)

    def attention_mask(self, mask_token: int) -> torch.Tensor:
        """Who sees which film, (B, 1, T + K, T) bool: first each place of the history, then each question.

        PAD and [MASK] are seen by nobody. A row that sees no film looks at place 0, which holds PAD or [MASK] then:
        a softmax over nothing would be NaN.
        """
        places = torch.arange(self.history.shape[1], device=self.history.device)
        sees = torch.cat([self.history_sees, self.sees], 1)
        visible = self.is_shown(mask_token)[:, None, :] & (places < sees[:, :, None])
        visible[:, :, 0] |= ~visible.any(-1)
        return visible[:, None]


def training_batches(
    sequences: Sequences, mask_token: int, preset: Preset, random: np.random.Generator
) -> Iterator[Questions]:
    """One epoch: every sequence once, asked anew, in batches of like lengths in random order."""
    starts, ends = draw_windows(sequences.lengths, preset.history_length, random)
    by_length = np.lexsort((random.random(len(sequences)), ends - starts))
    batches = np.array_split(by_length, batch_count(sequences, preset))
    for batch in random.permutation(len(batches)):
        rows = batches[batch]
        tokens = pad_left(sequences, rows, starts[rows], ends[rows])
        prefix = draw_prefix(ends[rows] - starts[rows], preset, random)
        cloze, next_film = choose_places(tokens, prefix, preset.mask_ratio, preset.next_ratio, random)
        if preset.last_only:
            ask_last_only(cloze, next_film, random.random(len(rows)) < preset.last_only)
        yield ask(tokens, prefix, cloze, next_film, mask_token)


def batch_count(sequences: Sequences, preset: Preset) -> int:
    return -(-len(sequences) // preset.batch_size)


def draw_windows(
    lengths: np.ndarray, history_length: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Where the part of each sequence that is trained on starts and ends, two (N,) arrays.

    Of a sequence longer than `history_length`, the newest part is taken half of the time, else any part.
    """
    anywhere = random.integers(np.minimum(history_length, lengths), lengths + 1)
    ends = np.where(random.random(len(lengths)) < 0.5, lengths, anywhere)
    return np.maximum(ends - history_length, 0), ends


def draw_prefix(lengths: np.ndarray, preset: Preset, random: np.random.Generator) -> np.ndarray:
    """How many films of each history are its prefix, (B,).

    One film in a share `next_only` of the histories, all in a share `cloze_only`, any number in the rest.
    """
    kind = random.random(len(lengths))
    anywhere = random.integers(1, lengths + 1)
    return np.select([kind < preset.next_only, kind >= 1 - preset.cloze_only], [1, lengths], anywhere)


def choose_places(
    tokens: np.ndarray, prefix: np.ndarray, mask_ratio: float, next_ratio: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Which places of histories `tokens` (B, T) are asked about, as `cloze` and `next_film`, both (B, T) bool.

    cloze: a share `mask_ratio` of the first `prefix` (B,) films, none if that is a single one. next film: a share
    `next_ratio` of the films after them. A history with no place chosen is asked for its newest film.
    """
    after_prefix = np.arange(tokens.shape[1]) >= first_place_after(tokens, prefix)[:, None]
    cloze = choose((tokens != PAD) & ~after_prefix & (prefix > 1)[:, None], mask_ratio, random)
    next_film = choose(after_prefix, next_ratio, random)
    unasked = ~(cloze | next_film).any(1)
    cloze[unasked, -1] = ~after_prefix[unasked, -1]
    next_film[unasked, -1] = after_prefix[unasked, -1]
    return cloze, next_film


def ask_last_only(cloze: np.ndarray, next_film: np.ndarray, histories: np.ndarray) -> None:
    """Leave the chosen `histories`, (B,) bool, one question: the cloze of their newest film, as in the test."""
    cloze[histories] = next_film[histories] = False
    cloze[histories, -1] = True


def choose(eligible: np.ndarray, ratio: float, random: np.random.Generator) -> np.ndarray:
    """A random share `ratio` of the eligible places of each row, (B, T) bool.

    A share that is no whole number is rounded up or down by chance, so that the mean is right.
    """
    counts = (ratio * eligible.sum(1) + random.random(len(eligible))).astype(int)
    keys = np.where(eligible, random.random(eligible.shape), 2)
    last = np.take_along_axis(np.sort(keys, 1), np.maximum(counts - 1, 0)[:, None], 1)
    return eligible & (keys <= last) & (counts[:, None] > 0)


def ask(tokens: np.ndarray, prefix: np.ndarray, cloze: np.ndarray, next_film: np.ndarray, mask_token: int) -> Questions:
    """The questions about places `cloze` and `next_film` (B, T) bool of histories `tokens` (B, T).

    A cloze question sees every film that is shown, a next-film question those before its place. The films of the prefix
    see the whole prefix, each later one the films up to itself.
    """
    length = tokens.shape[1]
    asked = cloze | next_film
    counts = asked.sum(1)
    places = np.argsort(~asked, axis=1, kind="stable")[:, : counts.max()]  # the places asked about come first
    used = np.arange(counts.max()) < counts[:, None]
    is_next = np.take_along_axis(next_film, places, 1)
    return Questions(
        history=torch.from_numpy(np.where(cloze, mask_token, tokens)),
        history_sees=torch.from_numpy(np.maximum(np.arange(length) + 1, first_place_after(tokens, prefix)[:, None])),
        places=torch.from_numpy(places),
        sees=torch.from_numpy(np.where(is_next, places, length)),
        labels=torch.from_numpy(np.where(used, np.take_along_axis(tokens, places, 1), PAD)),
    )


def first_place_after(tokens: np.ndarray, prefix: np.ndarray) -> np.ndarray:
    """The first place after the prefix of each history, (B,): padding stands on the left."""
    return (tokens == PAD).sum(1) + prefix


def append_mask(histories: Sequences, history_length: int, causal: bool = False) -> Questions:
    """The question of the test: one [MASK] AFTER each history (section 3.6). Every film sees both sides, or, if
    `causal`, what came up to itself.

    Overwriting the newest film with [MASK] instead would throw away the best clue there is. Labels are all PAD.
    ValueError if a history is empty.
    """
    ends = histories.lengths
    if not ends.all():
        raise ValueError("a history is empty; give every user at least one item")
    tokens = pad_left(histories, np.arange(len(histories)), np.maximum(ends - history_length, 0), ends)
    after = np.full((len(histories), 1), tokens.shape[1])
    sees = np.arange(tokens.shape[1]) + 1 if causal else np.full(tokens.shape[1], tokens.shape[1])
    history_sees = np.tile(sees, (len(tokens), 1))
    return Questions(*map(torch.from_numpy, (tokens, history_sees, after, after, np.full_like(after, PAD))))


def pad_left(sequences: Sequences, rows: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Tokens `starts[i]:ends[i]` of each row, right-aligned in an int64 array (B, T) filled up with PAD."""
    lengths = ends - starts
    columns = np.arange(lengths.max()) - (lengths.max() - lengths)[:, None]  # (B, T), negative where padded
    places = (sequences.offsets[rows] + starts)[:, None] + columns.clip(min=0)
    return np.where(columns >= 0, sequences.tokens[places], PAD).astype(np.int64)
