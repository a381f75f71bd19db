"""The batches of a training: this process's part of each masked batch, prepared in a thread ahead of its step."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..data.sequences import PAD, Sequences
from ..model.losses import Negatives, inclusion_probabilities, sample_negatives
from ..model.masking import MaskedBatch, training_batches
from ..settings import Settings
from .devices import rank, world_size

HISTORIES_PER_SAMPLE = 4  # of a batch share a sample of items, if the loss is over samples

Item = TypeVar("Item")


class Batch(NamedTuple):
    """What one step of one process learns from."""

    masked: MaskedBatch
    target_index: Tensor  # masked.target_index()
    negatives: Negatives | None  # None: the loss is over all items
    target_count: int  # of the whole batch, that of all processes
    target_share: float  # of these targets, this process's share

    def pin_memory(self) -> "Batch":
        """A copy in pinned (page-locked) memory, from which a GPU can copy asynchronously."""
        return self._map(Tensor.pin_memory)

    def to(self, device: torch.device) -> "Batch":
        """On `device`; a copy to a CUDA device is not waited for, since `pin_memory` has prepared it. Elsewhere such a
        copy could read memory that has been freed (github.com/pytorch/pytorch/issues/189690)."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=device.type == "cuda"))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        masked, negatives = MaskedBatch(*map(change, self.masked)), self.negatives
        if negatives:
            items, log_probabilities, *groups = negatives
            negatives = Negatives(change(items), change(log_probabilities), *groups)
        return self._replace(masked=masked, target_index=change(self.target_index), negatives=negatives)


def epoch_batches(
    train: Sequences, item_count: int, settings: Settings, random: np.random.Generator
) -> Iterator[Batch]:
    """One epoch of `training_batches`, of each the rows of this process. All processes must pass an equal `random`.
    Every process masks whole batches, so that the number of processes changes nothing in what is masked."""
    sample_size = settings.training.negatives
    probabilities = inclusion_probabilities(train.counts(item_count), sample_size) if sample_size else None
    for whole in training_batches(train, item_count + 1, settings.training, settings.model.max_length, random):
        mine = slice(rank(), None, world_size())
        masked = MaskedBatch(*(part[mine] for part in whole))
        targets = (whole.labels != PAD).sum(1).numpy()  # of each history
        my_targets = np.zeros_like(targets)
        my_targets[mine] = targets[mine]
        negatives = None
        if probabilities is not None:
            groups = np.add.reduceat(my_targets, np.arange(0, len(targets), HISTORIES_PER_SAMPLE))
            negatives = sample_negatives(probabilities, groups.tolist(), random)
        yield Batch(
            masked, masked.target_index(), negatives, int(targets.sum()), float(my_targets.sum() / targets.sum())
        )


def prefetch(iterator: Iterator[Item], buffer: int = 2) -> Iterator[Item]:
    """Yield the items of `iterator`, computed in a thread up to `buffer` ahead. No item may be None."""
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, iterator, None) for _ in range(buffer))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, iterator, None))
            yield item
