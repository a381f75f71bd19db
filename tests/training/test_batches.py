import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from bertrec_utils import batches
from bertrec_utils.training.batches import HISTORIES_A_SAMPLE, ahead, epoch_batches
from bertrec_utils.settings import get_preset
from bertrec_utils.model.masking import training_batches
from bertrec_utils.data.sequences import PAD

TINY = replace(get_preset("tiny"), negatives=100)


def of_process(number, count, monkeypatch, dataset, preset=TINY):
    monkeypatch.setattr(batches, "number", lambda: number)
    monkeypatch.setattr(batches, "count", lambda: count)
    return list(epoch_batches(dataset.split.train, len(dataset.vocabulary), preset, np.random.default_rng(0)))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_all_processes_together_have_every_question_once(count, dataset, monkeypatch):
    preset = replace(TINY, negatives=0)
    parts = [of_process(number, count, monkeypatch, dataset, preset) for number in range(count)]
    whole = training_batches(dataset.split.train, len(dataset.vocabulary) + 1, preset, np.random.default_rng(0))
    for expected, *mine in zip(whole, *parts, strict=True):
        assert sum(batch.share for batch in mine) == pytest.approx(1)
        asked = int((expected.labels != PAD).sum())
        for batch in mine:
            assert batch.negatives is None
            assert batch.share == pytest.approx(len(batch.used) / asked)
            assert (batch.questions.labels.flatten()[batch.used] != PAD).all()
        for place, tensor in enumerate(expected):
            rows = [row for batch in mine for row in batch.questions[place].tolist()]
            assert sorted(rows) == sorted(tensor.tolist())


def test_a_history_meets_the_same_sample_whatever_the_number_of_processes(dataset, monkeypatch):
    alone = of_process(0, 1, monkeypatch, dataset)
    pair = [of_process(number, 2, monkeypatch, dataset) for number in (0, 1)]
    for one, *two in zip(alone, *pair, strict=True):
        users = len(one.questions.history)
        assert len(one.negatives.sizes) == -(-users // HISTORIES_A_SAMPLE)
        asked = (one.questions.labels != PAD).sum(1)
        groups = [int(part.sum()) for part in asked.split(HISTORIES_A_SAMPLE)]
        assert one.negatives.questions == groups
        assert all(torch.equal(one.negatives.items, batch.negatives.items) for batch in two)
        assert np.add(two[0].negatives.questions, two[1].negatives.questions).tolist() == groups


def test_things_come_in_order_and_are_made_in_a_thread_before_they_are_asked_for():
    made, third = [], threading.Event()

    def make():
        for number in range(5):
            made.append((number, threading.current_thread() is threading.main_thread()))
            if number == 2:
                third.set()
            yield number

    found = ahead(make(), most=2)
    assert next(found) == 0 and third.wait(10)  # nobody has asked for it
    assert list(found) == [1, 2, 3, 4]
    assert made == [(number, False) for number in range(5)]


def test_an_error_where_things_are_made_is_raised_where_they_are_used():
    def make():
        yield 1
        raise KeyError("broken")

    found = ahead(make())
    assert next(found) == 1
    with pytest.raises(KeyError, match="broken"):
        next(found)
