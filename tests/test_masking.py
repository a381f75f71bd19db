from dataclasses import replace

import numpy as np
import pytest
import torch

from bertrec_utils.masking import ask, batch_count, choose, cloze_batches, question_batch
from bertrec_utils.model import visible_films
from bertrec_utils.presets import get_preset
from conftest import rows

MASK = 1000
TINY = get_preset("tiny")


def many(count=300, low=1, high=60, seed=0):
    """Sequences of random lengths; no token twice in a row, so that a token tells its place."""
    random = np.random.default_rng(seed)
    return rows(*(random.permutation(np.arange(1, MASK))[: random.integers(low, high)].tolist() for _ in range(count)))


def each_question(batch):
    """(row, place, sees, label) of the questions that are used."""
    for row, column in zip(*np.nonzero(batch.labels.numpy()), strict=True):
        yield row, *(int(part[row, column]) for part in (batch.places, batch.sees, batch.labels))


def test_labels_are_the_films_at_the_places_asked_about():
    sequences = many()
    preset = replace(TINY, history_length=60)
    wholes = {tuple(sequences[row].tolist()) for row in range(len(sequences))}
    restored = []
    for batch in cloze_batches(sequences, MASK, preset, np.random.default_rng(0)):
        whole = batch.history.numpy().copy()
        for row, place, _, label in each_question(batch):
            assert whole[row, place] in (MASK, label)
            whole[row, place] = label
        assert (whole != MASK).all()  # whatever is hidden is asked about
        assert ((batch.labels > 0).sum(1) >= 1).all()
        for history in whole:
            films = history[history > 0]
            assert (history[: len(history) - len(films)] == 0).all()  # padding on the left only
            restored.append(tuple(films.tolist()))
    assert len(restored) == len(sequences)
    assert set(restored) == wholes


def test_no_question_can_see_its_answer():
    for batch in cloze_batches(many(), MASK, TINY, np.random.default_rng(0)):
        sees = torch.cat([batch.history_sees, batch.sees], 1)
        # who can see whom, through any number of blocks
        length = batch.history.shape[1]
        direct = visible_films(batch.history, sees, MASK)[:, 0]
        reach = direct[:, :length].float()
        for _ in range(3):
            reach = ((reach + reach @ reach) > 0).float()
        through = (direct[:, length:].float() + direct[:, length:].float() @ reach) > 0
        for row, column in torch.nonzero(batch.labels).tolist():
            assert batch.labels[row, column] not in batch.history[row][through[row, column]]


def test_kinds_of_questions_see_what_they_should():
    tokens = np.array([[0, 0, 11, 12, 13, 14, 15, 16]])
    batch = ask(tokens, np.array([4]), 0.5, 1.0, MASK, np.random.default_rng(1))
    hidden = (batch.history[0] == MASK).nonzero().ravel().tolist()
    assert len(hidden) == 2 and set(hidden) <= {2, 3, 4, 5}
    assert batch.history_sees[0].tolist() == [6, 6, 6, 6, 6, 6, 7, 8]
    expected = {(place, 8, int(tokens[0, place])) for place in hidden} | {(6, 6, 15), (7, 7, 16)}
    assert {question[1:] for question in each_question(batch)} == expected


@pytest.mark.parametrize("ratio", [0.15, 0.3, 0.6])
def test_masking_rate_over_many_draws(ratio):
    tokens = np.pad(np.arange(1, 34)[None].repeat(4000, 0), ((0, 0), (7, 0)))  # 33 films after 7 PAD
    hidden = choose(tokens > 0, ratio, np.random.default_rng(0))
    assert not hidden[:, :7].any()
    # every place is chosen at the same rate: within five standard errors of a proportion
    assert np.abs(hidden[:, 7:].mean(0) - ratio).max() < 5 * np.sqrt(ratio * (1 - ratio) / 4000)
    assert abs(hidden[:, 7:].mean() - ratio) < 0.005


def test_rates_of_a_batch():
    tokens = np.arange(1, 101)[None].repeat(500, 0)
    batch = ask(tokens, np.full(500, 60), 0.3, 0.5, MASK, np.random.default_rng(0))
    assert (batch.history == MASK).sum(1).float().mean().item() == pytest.approx(18, abs=0.5)
    assert (batch.labels > 0).sum(1).float().mean().item() == pytest.approx(18 + 20, abs=0.5)


def test_a_single_film_is_always_asked_about():
    tokens = np.array([[0, 0, 5]] * 50)
    batch = ask(tokens, np.ones(50, int), 0.01, 0.01, MASK, np.random.default_rng(0))
    assert batch.labels.tolist() == [[5]] * 50 and (batch.history[:, 2] == MASK).all()


def test_masks_are_drawn_anew_each_epoch_and_repeat_with_the_seed():
    def epoch(seed):
        return [batch.history for batch in cloze_batches(many(), MASK, TINY, np.random.default_rng(seed))]

    assert all(torch.equal(left, right) for left, right in zip(epoch(1), epoch(1), strict=True))
    assert not all(
        left.shape == right.shape and torch.equal(left, right) for left, right in zip(epoch(1), epoch(2), strict=True)
    )


def test_every_sequence_once_in_batches_of_like_lengths():
    sequences = many(high=200)
    preset = replace(TINY, history_length=200)
    batches = list(cloze_batches(sequences, MASK, preset, np.random.default_rng(0)))
    assert len(batches) == batch_count(sequences, preset) == 10
    assert sum(len(batch.history) for batch in batches) == len(sequences)
    assert max(len(batch.history) for batch in batches) <= preset.batch_size
    padding = sum((batch.history == 0).sum() for batch in batches) / sum(batch.history.numel() for batch in batches)
    assert padding < 0.1


def test_question_is_appended_and_sees_the_newest_films():
    batch = question_batch(rows([1, 2, 3], [4], [5, 6, 7, 8, 9]), history_length=4)
    assert batch.history.tolist() == [[0, 1, 2, 3], [0, 0, 0, 4], [6, 7, 8, 9]]
    assert batch.places.tolist() == batch.sees.tolist() == [[4]] * 3
    assert (batch.history_sees == 4).all()
    with pytest.raises(ValueError, match="history is empty"):
        question_batch(rows([1], []), history_length=4)
