import threading

import numpy as np
import pytest
import torch

from bertrec_utils.data.sequences import PAD
from bertrec_utils.model.masking import training_batches
from bertrec_utils.settings import get_preset
from bertrec_utils.training import batches
from bertrec_utils.training.batches import HISTORIES_PER_SAMPLE, epoch_batches, prefetch

TINY = get_preset("tiny").change(negatives=100)


def of_process(rank, world_size, monkeypatch, dataset, settings=TINY):
    monkeypatch.setattr(batches, "rank", lambda: rank)
    monkeypatch.setattr(batches, "world_size", lambda: world_size)
    return list(epoch_batches(dataset.split.train, len(dataset.vocabulary), settings, np.random.default_rng(0)))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_all_processes_together_have_every_target_once(world_size, dataset, monkeypatch):
    settings = TINY.change(negatives=0)
    parts = [of_process(rank, world_size, monkeypatch, dataset, settings) for rank in range(world_size)]
    whole = training_batches(
        dataset.split.train,
        len(dataset.vocabulary) + 1,
        settings.training,
        settings.model.max_length,
        np.random.default_rng(0),
    )
    for expected, *mine in zip(whole, *parts, strict=True):
        assert sum(batch.target_share for batch in mine) == pytest.approx(1)
        targets = int((expected.labels != PAD).sum())
        for batch in mine:
            assert batch.negatives is None and batch.target_count == targets
            assert batch.target_share == pytest.approx(len(batch.target_index) / targets)
            assert (batch.masked.labels.flatten()[batch.target_index] != PAD).all()
        for part, tensor in enumerate(expected):
            rows = [row for batch in mine for row in batch.masked[part].tolist()]
            assert sorted(rows) == sorted(tensor.tolist())


def test_a_history_has_the_same_sample_whatever_the_number_of_processes(dataset, monkeypatch):
    alone = of_process(0, 1, monkeypatch, dataset)
    pair = [of_process(rank, 2, monkeypatch, dataset) for rank in (0, 1)]
    for one, *two in zip(alone, *pair, strict=True):
        users = len(one.masked.history)
        assert len(one.negatives.sizes) == -(-users // HISTORIES_PER_SAMPLE)
        targets = (one.masked.labels != PAD).sum(1)
        groups = [int(part.sum()) for part in targets.split(HISTORIES_PER_SAMPLE)]
        assert one.negatives.targets == groups
        assert all(torch.equal(one.negatives.items, batch.negatives.items) for batch in two)
        assert np.add(two[0].negatives.targets, two[1].negatives.targets).tolist() == groups


def test_things_come_in_order_and_are_made_in_a_thread_before_they_are_asked_for():
    made, third = [], threading.Event()

    def make():
        for number in range(5):
            made.append((number, threading.current_thread() is threading.main_thread()))
            if number == 2:
                third.set()
            yield number

    found = prefetch(make(), buffer=2)
    assert next(found) == 0 and third.wait(10)  # nobody has asked for it
    assert list(found) == [1, 2, 3, 4]
    assert made == [(number, False) for number in range(5)]


def test_an_error_where_things_are_made_is_raised_where_they_are_used():
    def make():
        yield 1
        raise KeyError("broken")

    found = prefetch(make())
    assert next(found) == 1
    with pytest.raises(KeyError, match="broken"):
        next(found)
