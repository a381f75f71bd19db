import numpy as np
import pytest
import torch

from bertrec_utils.model.masking import (
    append_mask,
    batch_count,
    build_batch,
    sample_mask,
    sample_prefixes,
    sample_targets,
    sample_windows,
    training_batches,
)
from conftest import rows, settings

MASK = 1000


def many(count=300, low=1, high=60, seed=0):
    """Sequences of random lengths; no token twice in a row, so that a token tells its position."""
    random = np.random.default_rng(seed)
    return rows(*(random.permutation(np.arange(1, MASK))[: random.integers(low, high)].tolist() for _ in range(count)))


def epoch(sequences, seed=0, **changes):
    """The batches of one epoch with preset tiny's settings, but for the changes."""
    chosen = settings(**changes)
    return list(
        training_batches(sequences, MASK, chosen.training, chosen.model.max_length, np.random.default_rng(seed))
    )


def each_target(batch):
    """(row, position, visible_until, label) of the valid targets."""
    for row, column in zip(*np.nonzero(batch.labels.numpy()), strict=True):
        yield row, *(int(part[row, column]) for part in (batch.target_positions, batch.visible_until, batch.labels))


def test_labels_are_the_items_at_the_target_positions():
    sequences = many()
    wholes = {tuple(sequences[row].tolist()) for row in range(len(sequences))}
    restored = []
    for batch in epoch(sequences, max_length=60):
        whole = batch.history.numpy().copy()
        for row, position, _, label in each_target(batch):
            assert whole[row, position] in (MASK, label)
            whole[row, position] = label
        assert (whole != MASK).all()  # whatever is masked is a target
        assert ((batch.labels > 0).sum(1) >= 1).all()
        for history in whole:
            items = history[history > 0]
            assert (history[: len(history) - len(items)] == 0).all()  # padding on the left only
            restored.append(tuple(items.tolist()))
    assert len(restored) == len(sequences)
    assert set(restored) == wholes


@pytest.mark.parametrize("shares", [(0.5, 0.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_no_target_can_see_its_own_item(shares):
    for batch in epoch(many(), p_causal=shares[0], p_cloze=shares[1]):
        # who can see whom, through any number of blocks
        length = batch.history.shape[1]
        direct = batch.attention_mask(MASK)[:, 0]
        reach = direct[:, :length].float()
        for _ in range(3):
            reach = ((reach + reach @ reach) > 0).float()
        through = (direct[:, length:].float() + direct[:, length:].float() @ reach) > 0
        for row, column in torch.nonzero(batch.labels).tolist():
            assert batch.labels[row, column] not in batch.history[row][through[row, column]]


def test_each_kind_of_target_sees_what_it_should():
    tokens = np.array([[0, 0, 11, 12, 13, 14, 15, 16]])
    cloze, next_item = np.zeros((2, 1, 8), dtype=bool)
    cloze[0, [3, 4]] = next_item[0, [6, 7]] = True
    batch = build_batch(tokens, np.array([4]), cloze, next_item, MASK)
    assert batch.history.tolist() == [[0, 0, 11, MASK, MASK, 14, 15, 16]]
    assert batch.history_visible_until[0].tolist() == [6, 6, 6, 6, 6, 6, 7, 8]
    assert list(each_target(batch)) == [(0, 3, 8, 12), (0, 4, 8, 13), (0, 6, 6, 15), (0, 7, 7, 16)]


def test_attention_mask_by_hand():
    tokens = np.array([[0, 11, 12, 13, 14]])
    cloze, next_item = np.zeros((2, 1, 5), dtype=bool)
    cloze[0, 2] = next_item[0, 4] = True
    mask = build_batch(tokens, np.array([3]), cloze, next_item, MASK).attention_mask(MASK)[0, 0].int()
    assert mask.tolist() == [
        [0, 1, 0, 1, 0],  # PAD: its state is never used
        [0, 1, 0, 1, 0],  # the prefix sees its items on both sides
        [0, 1, 0, 1, 0],
        [0, 1, 0, 1, 0],
        [0, 1, 0, 1, 1],  # a later item sees what came before, and itself
        [0, 1, 0, 1, 1],  # the cloze target sees every item that is not masked
        [0, 1, 0, 1, 0],  # the next-item target sees what came before its position
    ]


def test_who_sees_nothing_attends_to_what_is_no_item():
    tokens = np.array([[5, 6, 7], [0, 0, 8]])
    cloze = np.array([[1, 1, 1], [0, 0, 1]], dtype=bool)
    batch = build_batch(tokens, np.array([3, 1]), cloze, np.zeros_like(cloze), MASK)
    mask = batch.attention_mask(MASK)
    assert mask.any(-1).all()
    for row, _, _, position in mask.nonzero().tolist():
        assert batch.history[row, position] in (0, MASK)


@pytest.mark.parametrize("ratio", [0.15, 0.3, 0.6])
def test_masking_rate_over_many_draws(ratio):
    tokens = np.pad(np.arange(1, 34)[None].repeat(4000, 0), ((0, 0), (7, 0)))  # 33 items after 7 PAD
    masked = sample_mask(tokens > 0, ratio, np.random.default_rng(0))
    assert not masked[:, :7].any()
    # every position is chosen at the same rate: within five standard errors of a proportion
    assert np.abs(masked[:, 7:].mean(0) - ratio).max() < 5 * np.sqrt(ratio * (1 - ratio) / 4000)
    assert abs(masked[:, 7:].mean() - ratio) < 0.005


def test_targets_are_sampled_on_their_side_of_the_prefix_at_their_rates():
    tokens = np.pad(np.arange(1, 101)[None].repeat(500, 0), ((0, 0), (3, 0)))
    cloze, next_item = sample_targets(tokens, np.full(500, 60), 0.3, 0.5, np.random.default_rng(0))
    assert not cloze[:, :3].any() and not cloze[:, 63:].any() and not next_item[:, :63].any()
    assert cloze.sum(1).mean() == pytest.approx(18, abs=0.5)
    assert next_item.sum(1).mean() == pytest.approx(20, abs=0.5)


def test_a_single_item_is_always_masked():
    tokens = np.array([[0, 0, 5]] * 50)
    cloze, next_item = sample_targets(tokens, np.ones(50, int), 0.01, 0.01, np.random.default_rng(0))
    assert cloze.tolist() == [[False, False, True]] * 50 and not next_item.any()


def test_a_history_without_a_target_gets_its_newest_item():
    tokens = np.arange(1, 7)[None].repeat(2, 0)
    cloze, next_item = sample_targets(tokens, np.array([6, 3]), 0.0, 0.0, np.random.default_rng(0))
    assert np.argwhere(cloze).tolist() == [[0, 5]] and np.argwhere(next_item).tolist() == [[1, 5]]


def test_shares_of_histories_by_their_objective():
    lengths = np.full(20_000, 50)
    prefix = sample_prefixes(lengths, 0.25, 0.35, np.random.default_rng(0))
    both = 0.4 / 50  # the rest is spread evenly over 1..50
    assert (prefix == 1).mean() == pytest.approx(0.25 + both, abs=0.015)
    assert (prefix == 50).mean() == pytest.approx(0.35 + both, abs=0.015)
    counts = np.bincount(prefix, minlength=51)[2:50] / len(prefix)
    assert np.abs(counts - both).max() < 5 * np.sqrt(both / len(prefix))


def test_the_targets_of_the_cloze_are_the_masked_items():
    for batch in epoch(many(), p_causal=0.0, p_cloze=1.0):
        assert (batch.labels > 0).sum() == (batch.history == MASK).sum()


def test_next_item_targets_only_are_causal():
    """Nothing is masked, every item after the first is a target, and each position sees the past only: SASRec."""
    for batch in epoch(many(low=2), p_causal=1.0, next_ratio=1.0):
        assert not (batch.history == MASK).any()
        assert torch.equal((batch.labels > 0).sum(1), (batch.history > 0).sum(1) - 1)
        positions = torch.arange(batch.history.shape[1])
        first = (batch.history == 0).sum(1, keepdim=True)
        assert torch.equal(batch.history_visible_until, torch.maximum(positions + 1, first + 1))
        assert torch.equal(batch.visible_until[batch.labels > 0], batch.target_positions[batch.labels > 0])


def test_all_parts_of_a_long_history_are_trained_on_the_newest_most():
    lengths = np.full(4000, 100)
    starts, ends = sample_windows(lengths, 30, np.random.default_rng(0))
    assert (ends - starts == 30).all() and starts.min() == 0 and ends.max() == 100
    assert (ends == 100).mean() == pytest.approx(0.5 + 0.5 / 71, abs=0.04)
    others = starts[ends < 100]
    assert np.abs(np.bincount(others, minlength=70) / len(others) - 1 / 70).max() < 0.02
    starts, ends = sample_windows(np.array([3, 30]), 30, np.random.default_rng(0))
    assert starts.tolist() == [0, 0] and ends.tolist() == [3, 30]  # a short history is taken whole


def test_the_newest_window_is_taken_half_of_the_time_else_any_of_them():
    """Of 33 items there are four windows of 30: each has its share, and none reaches beyond the sequence."""
    starts, ends = sample_windows(np.full(20_000, 33), 30, np.random.default_rng(0))
    assert (ends - starts == 30).all()
    shares = np.bincount(ends, minlength=34)[30:] / 20_000
    expected = np.array([0.125, 0.125, 0.125, 0.625])
    assert (np.abs(shares - expected) < 5 * np.sqrt(expected * (1 - expected) / 20_000)).all()
    # one item alone, one less than a window, as many as a window, one more
    starts, ends = sample_windows(np.repeat([1, 29, 30, 31], 500), 30, np.random.default_rng(0))
    windows = {(length, *window) for length, *window in zip(np.repeat([1, 29, 30, 31], 500), starts, ends, strict=True)}
    assert windows == {(1, 0, 1), (29, 0, 29), (30, 0, 30), (31, 0, 30), (31, 1, 31)}


def test_old_items_are_targets_too_in_some_epochs():
    history = np.arange(1, 200).tolist()
    batches = [batch for seed in range(40) for batch in epoch(rows(history), seed, max_length=20, batch_size=10)]
    targets = {token for batch in batches for token in batch.labels[0].tolist()} - {0}
    assert min(targets) < 60 and max(targets) == 199


def test_targets_are_sampled_anew_each_epoch_and_repeat_with_the_seed():
    first, again, other = (epoch(many(), seed=seed) for seed in (1, 1, 2))
    assert all(map(torch.equal, (batch.labels for batch in first), (batch.labels for batch in again)))
    assert [batch.labels.tolist() for batch in first] != [batch.labels.tolist() for batch in other]


def test_every_sequence_once_in_batches_of_like_lengths():
    sequences = many(high=200)
    batches = epoch(sequences, max_length=200, batch_size=32)
    assert len(batches) == batch_count(sequences, 32) == 10
    assert sum(len(batch.history) for batch in batches) == len(sequences)
    assert max(len(batch.history) for batch in batches) <= 32
    padding = sum((batch.history == 0).sum() for batch in batches) / sum(batch.history.numel() for batch in batches)
    assert padding < 0.1


def test_batches_come_in_random_order_and_mix_users_of_equal_length():
    by_epoch = [[batch.history.shape[1] for batch in epoch(many(high=200), seed, max_length=200)] for seed in range(8)]
    assert all(lengths not in (sorted(lengths), sorted(lengths)[::-1]) for lengths in by_epoch)
    assert (
        len({lengths.index(max(lengths)) for lengths in by_epoch}) > 2
    )  # the longest do not always come at the same time
    equal = rows(*([number, number + 1] for number in range(1, 65)))
    # nothing is masked
    partners = [
        {frozenset(batch.history[:, 0].tolist()) for batch in epoch(equal, seed, p_causal=1.0)} for seed in range(2)
    ]
    assert partners[0] != partners[1]


def test_batches_of_users_drawn_at_random_have_the_shortest_history_first():
    sequences = many(high=200)
    batches = epoch(sequences, max_length=200, batch_size=32, bucket_by_length=False, p_causal=1.0)  # nothing is masked
    assert len(batches) == 10 and sum(len(batch.history) for batch in batches) == len(sequences)
    lengths = [(batch.history > 0).sum(1).tolist() for batch in batches]
    assert sorted(length for each in lengths for length in each) == sorted(sequences.lengths.tolist())
    assert all(each == sorted(each) for each in lengths)
    assert all(min(each) < 60 and max(each) > 140 for each in lengths)  # of 30 drawn at random from 1 to 199


def test_mask_is_appended_and_sees_the_newest_items():
    batch = append_mask(rows([1, 2, 3], [4], [5, 6, 7, 8, 9]), max_length=4)
    assert batch.history.tolist() == [[0, 1, 2, 3], [0, 0, 0, 4], [6, 7, 8, 9]]
    assert batch.target_positions.tolist() == batch.visible_until.tolist() == [[4]] * 3
    assert (batch.history_visible_until == 4).all()
    with pytest.raises(ValueError, match="history is empty"):
        append_mask(rows([1], []), max_length=4)
    with pytest.raises(ValueError, match="there are no histories"):
        append_mask(rows(), max_length=4)


def test_some_histories_have_their_newest_item_masked_and_no_other():
    sequences = rows(*[list(range(1, 21))] * 2000)
    (batch,) = epoch(sequences, p_causal=0.0, p_cloze=1.0, mask_ratio=0.2, p_mask_last=0.3, batch_size=2000)
    counts = (batch.labels != 0).sum(1).numpy()
    last = (counts == 1) & (batch.history[:, -1] == MASK).numpy()
    assert last.mean() == pytest.approx(0.3, abs=0.04)
    assert set(counts[~last]) == {4}
    assert (batch.history == MASK).sum() == counts.sum()


def test_a_causal_history_sees_what_came_before():
    test = append_mask(rows([5, 6, 7], [8]), 10, causal=True)
    assert test.history_visible_until.tolist() == [[1, 2, 3]] * 2 and test.visible_until.tolist() == [[3], [3]]
    assert append_mask(rows([5, 6, 7], [8]), 10).history_visible_until.tolist() == [[3, 3, 3]] * 2
