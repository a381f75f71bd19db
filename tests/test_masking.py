from dataclasses import replace

import numpy as np
import pytest
import torch

from bertrec_utils.masking import batch_count, cloze_batches, mask_items, question_batch
from bertrec_utils.presets import get_preset
from conftest import rows

MASK = 1000
TINY = get_preset("tiny")


def many(count=400, low=1, high=60, seed=0):
    """Sequences of random lengths; no token twice in a row, so that a token tells its place."""
    random = np.random.default_rng(seed)
    return rows(*(random.permutation(np.arange(1, MASK))[: random.integers(low, high)].tolist() for _ in range(count)))


def masked_rows(batch):
    for tokens, masked, labels in zip(batch.tokens.numpy(), batch.masked.numpy(), batch.labels.numpy(), strict=True):
        yield tokens, masked[labels > 0], labels[labels > 0]


def test_labels_are_what_the_masks_hide():
    sequences = many()
    preset = replace(TINY, history_length=60, last_item_share=0.0)
    wholes = {tuple(sequences[row].tolist()) for row in range(len(sequences))}
    restored = []
    for batch in cloze_batches(sequences, MASK, preset, np.random.default_rng(0)):
        for tokens, masked, labels in masked_rows(batch):
            assert len(set(masked.tolist())) == len(masked) >= 1
            assert (tokens[masked] == MASK).all() and (tokens == MASK).sum() == len(masked)
            whole = tokens.copy()
            whole[masked] = labels
            assert (whole[: (whole == 0).sum()] == 0).all()  # padding on the left only
            restored.append(tuple(whole[whole > 0].tolist()))
    assert len(restored) == len(sequences) and set(restored) == wholes


@pytest.mark.parametrize("ratio", [0.15, 0.3, 0.6])
def test_masking_rate_over_many_draws(ratio):
    random = np.random.default_rng(0)
    tokens = np.pad(np.arange(1, 34)[None].repeat(4000, 0), ((0, 0), (7, 0)))  # 33 items after 7 PAD
    batch = mask_items(tokens, MASK, np.full(4000, ratio), np.zeros(4000, bool), random)
    hidden = batch.tokens.numpy() == MASK
    assert not hidden[:, :7].any()
    # every position is masked at the same rate: within five standard errors of a proportion
    assert np.abs(hidden[:, 7:].mean(0) - ratio).max() < 5 * np.sqrt(ratio * (1 - ratio) / 4000)
    assert abs(hidden[:, 7:].mean() - ratio) < 0.005


def test_a_single_item_is_always_masked():
    tokens = np.array([[0, 0, 5]] * 50)
    batch = mask_items(tokens, MASK, np.full(50, 0.01), np.zeros(50, bool), np.random.default_rng(0))
    assert (batch.labels == 5).sum() == 50


def test_last_item_is_masked_where_asked():
    tokens = np.array([[0, 1, 2, 3], [4, 5, 6, 7]] * 50)
    mask_last = np.array([True, False] * 50)
    batch = mask_items(tokens, MASK, np.full(100, 0.3), mask_last, np.random.default_rng(0))
    hidden_last = batch.tokens[:, -1].numpy() == MASK
    assert hidden_last[mask_last].all() and not hidden_last[~mask_last].all()


def test_masks_are_drawn_anew_each_epoch_and_repeat_with_the_seed():
    def epoch(seed):
        return [batch.tokens for batch in cloze_batches(many(), MASK, TINY, np.random.default_rng(seed))]

    assert all(torch.equal(left, right) for left, right in zip(epoch(1), epoch(1), strict=True))
    assert not all(
        left.shape == right.shape and torch.equal(left, right) for left, right in zip(epoch(1), epoch(2), strict=True)
    )


def test_every_sequence_once_in_batches_of_like_lengths():
    sequences = many(high=200)
    preset = replace(TINY, history_length=200, last_item_share=0.0)
    batches = list(cloze_batches(sequences, MASK, preset, np.random.default_rng(0)))
    assert len(batches) == batch_count(sequences, preset) == 13
    assert sum(len(batch.tokens) for batch in batches) == len(sequences)
    assert max(len(batch.tokens) for batch in batches) <= preset.batch_size
    padding = sum((batch.tokens == 0).sum().item() for batch in batches) / sum(
        batch.tokens.numel() for batch in batches
    )
    assert padding < 0.1


def test_last_item_samples_end_before_the_end_and_stay_inside_the_sequence():
    sequence = list(range(1, 101))
    preset = replace(TINY, history_length=40, last_item_share=1.0, last_item_mask_ratio=0.0, mean_cut=0.2)
    ends = []
    for seed in range(300):
        (batch,) = cloze_batches(rows(sequence), MASK, preset, np.random.default_rng(seed))
        assert batch.labels.shape == (1, 1) and batch.masked.item() == batch.tokens.shape[1] - 1
        end = batch.labels.item()
        shown = batch.tokens[0, :-1].tolist()
        assert shown == sequence[max(0, end - 40) : end - 1]
        ends.append(end)
    assert max(ends) == 100 and min(ends) >= 2
    assert abs(np.mean(100 - np.array(ends)) - 20 * (1 - np.exp(-98 / 20))) < 4  # mean cut of about 20 of 100


def test_question_appends_the_mask_and_keeps_the_newest():
    batch = question_batch(rows([1, 2, 3], [4], [5, 6, 7, 8, 9]), MASK, history_length=5)
    assert batch.tolist() == [[0, 1, 2, 3, MASK], [0, 0, 0, 4, MASK], [6, 7, 8, 9, MASK]]


def test_question_of_an_empty_history_is_a_lone_mask():
    assert question_batch(rows([]), MASK, 5).tolist() == [[MASK]]
