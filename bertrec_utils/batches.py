"""Batches as training takes them: this process's part of each, made while the one before is learned from."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from .losses import Negatives, sample_items, sampling_chances
from .presets import Preset
from .processes import count, number
from .questions import Questions, training_batches
from .sequences import PAD, Sequences

HISTORIES_A_SAMPLE = 4  # of a batch share a sample of items, if the loss is over samples

Thing = TypeVar("Thing")


class Batch(NamedTuple):
    """What one step of one process learns from."""

    questions: Questions
    used: torch.Tensor  # questions.used()
    negatives: Negatives | None  # None: the loss is over all items
    share: float  # of the questions of the whole batch, that of all processes

    def pinned(self) -> "Batch":
        """In memory that a GPU copies from while it computes."""
        return self._each(torch.Tensor.pin_memory)

    def to(self, device: torch.device) -> "Batch":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change):
        negatives = self.negatives
        if negatives:
            negatives = negatives._replace(items=change(negatives.items), log_chances=change(negatives.log_chances))
        return Batch(Questions(*map(change, self.questions)), change(self.used), negatives, self.share)


def batches_of_epoch(train: Sequences, item_count: int, preset: Preset, random: np.random.Generator) -> Iterator[Batch]:
    """One epoch of `training_batches`, of each the rows of this process. All processes must pass a `random` alike.

    Every process makes the questions of all, so that their number changes nothing in what is asked.
    """
    chances = sampling_chances(train.counts(item_count), preset.negatives)
    for whole in training_batches(train, item_count + 1, preset, random):
        mine = slice(number(), None, count())
        questions = Questions(*(part[mine] for part in whole))
        asked = (whole.labels != PAD).sum(1).numpy()  # of each history
        asked_here = np.zeros_like(asked)
        asked_here[mine] = asked[mine]
        negatives = None
        if preset.negatives:
            groups = np.add.reduceat(asked_here, np.arange(0, len(asked), HISTORIES_A_SAMPLE))
            negatives = sample_items(chances, groups.tolist(), random)
        yield Batch(questions, questions.used(), negatives, asked_here.sum() / asked.sum())


def ahead(things: Iterator[Thing], most: int = 2) -> Iterator[Thing]:
    """The same things, made in a thread, up to `most` of them before they are asked for."""
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, things, None) for _ in range(most))
        while (thing := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, things, None))
            yield thing
