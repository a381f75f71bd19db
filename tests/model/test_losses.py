import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bertrec_utils.model.losses import (
    CACHED_ROWS,
    ChunkedCrossEntropy,
    Negatives,
    cross_entropy,
    inclusion_probabilities,
    logit_chunk_rows,
    sample_negatives,
)


def example(count=40, items=50, width=6, size=1.0):
    torch.manual_seed(0)
    inputs = [torch.randn(shape, dtype=torch.float64) * size for shape in ((count, width), (items, width), (items,))]
    return inputs, torch.randint(0, items, (count,))


def loss_and_gradients(loss_of, inputs):
    leaves = [value.clone().requires_grad_() for value in inputs]
    loss = loss_of(*leaves)
    (3 * loss).backward()  # a factor, as in any larger graph
    return [loss.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("count", [1, CACHED_ROWS, 2 * CACHED_ROWS + 5])
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_equals_pytorchs_cross_entropy_and_its_gradients(count, size):
    inputs, labels = example(count, size=size)
    found = loss_and_gradients(lambda *parts: cross_entropy(*parts, labels), inputs)
    expected = loss_and_gradients(
        lambda states, weight, bias: F.cross_entropy(F.linear(states, weight, bias), labels), inputs
    )
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right)


def test_autocast_changes_cross_entropy_by_rounding_only():
    torch.manual_seed(0)
    states, weight, bias = (torch.randn(shape, requires_grad=True) for shape in ((300, 8), (50, 8), (50,)))
    labels = torch.randint(0, 50, (300,))
    exact = torch.autograd.grad(F.cross_entropy(F.linear(states, weight, bias), labels), (states, weight, bias))
    with torch.autocast("cpu", torch.bfloat16):
        loss = ChunkedCrossEntropy.apply(states.bfloat16(), weight, bias, labels)
    assert loss.dtype == torch.float32
    for found, expected in zip(torch.autograd.grad(loss, (states, weight, bias)), exact, strict=True):
        assert (found - expected).norm() < 0.02 * expected.norm()
    assert torch.get_float32_matmul_precision() == "highest"  # as it was


def test_a_sample_of_all_items_is_the_full_softmax():
    inputs, labels = example()
    every = Negatives(torch.arange(50).repeat(3), torch.zeros(150), [50] * 3, [25, 0, 15])
    found = loss_and_gradients(lambda *parts: cross_entropy(*parts, labels, every), [part.float() for part in inputs])
    expected = loss_and_gradients(lambda *parts: cross_entropy(*parts, labels), [part.float() for part in inputs])
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right)


def test_the_sum_over_all_items_is_estimated_without_bias():
    """exp(loss) is that sum over exp(target's score): over many samples its mean is that of all items."""
    (states, weight, bias), labels = example(count=1, items=30, size=0.7)
    states, weight, bias = states.float(), weight.float(), bias.float()
    random, probabilities = np.random.default_rng(0), inclusion_probabilities(np.arange(30) ** 2, 8)
    ratios = torch.stack(
        [
            cross_entropy(states, weight, bias, labels, sample_negatives(probabilities, [1], random)).exp()
            for _ in range(4000)
        ]
    )
    exact = cross_entropy(states, weight, bias, labels).exp()
    assert abs(ratios.mean() - exact) < 4 * ratios.std() / 4000**0.5
    assert ratios.std() < exact  # else that would say little


def test_the_loss_of_a_sample_stays_float32_under_autocast():
    (states, weight, bias), labels = example()
    sample = sample_negatives(inclusion_probabilities(np.zeros(50), 20), [30, 10], np.random.default_rng(0))
    exact = cross_entropy(states.bfloat16().float(), weight.float(), bias.float(), labels, sample)
    with torch.autocast("cpu", torch.bfloat16):
        found = cross_entropy(states.bfloat16(), weight.float(), bias.float(), labels, sample)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact)


def test_inclusion_probabilities_by_hand():
    # roots 1, 2, 3, 4 of a popularity of 1, 4, 9, 16; of 2 expected, 4 / 10 x 2 is still below 1
    np.testing.assert_allclose(inclusion_probabilities(np.array([0, 3, 8, 15]), 2), [0.2, 0.4, 0.6, 0.8])
    # of 3, the last two are certain, and 1 is left for the others
    np.testing.assert_allclose(inclusion_probabilities(np.array([0, 3, 8, 15]), 3), [1 / 3, 2 / 3, 1, 1])
    assert inclusion_probabilities(np.array([0, 3, 8, 15]), 4).tolist() == [1, 1, 1, 1]
    assert inclusion_probabilities(np.array([0, 3]), 1000).tolist() == [1, 1]


def test_items_are_in_the_sample_as_often_as_their_probabilities_say():
    random, counts = np.random.default_rng(0), np.random.default_rng(1).integers(0, 1000, 200)
    probabilities = inclusion_probabilities(counts, 60)
    assert probabilities.sum() == pytest.approx(60) and probabilities.max() <= 1
    samples = [sample_negatives(probabilities, [1], random) for _ in range(3000)]
    found = np.bincount(np.concatenate([sample.items for sample in samples]), minlength=200) / 3000
    assert (np.abs(found - probabilities) <= 5 * np.sqrt(probabilities * (1 - probabilities) / 3000)).all()
    first = samples[0]
    np.testing.assert_allclose(first.log_probabilities.exp(), probabilities[first.items], rtol=1e-6)


def test_each_item_is_in_as_many_groups_as_expected_give_or_take_one():
    probabilities = np.array([0.25, 0.5, 0.3, 1.0])
    for seed in range(20):
        groups = np.bincount(sample_negatives(probabilities, [5] * 8, np.random.default_rng(seed)).items, minlength=4)
        assert groups[[0, 1, 3]].tolist() == [2, 4, 8] and groups[2] in (2, 3)
    samples = [sample_negatives(probabilities, [5] * 8, np.random.default_rng(seed)) for seed in range(400)]
    found = np.bincount(np.concatenate([each.items[: each.sizes[0]] for each in samples]), minlength=4) / 400
    assert (np.abs(found - probabilities) < 0.12).all()  # each group alone has an item with its probability


def test_nothing_is_sampled_for_no_target():
    probabilities = inclusion_probabilities(np.arange(50), 10)
    with_gap, without = (
        sample_negatives(probabilities, targets, np.random.default_rng(0)) for targets in ([5, 0, 7], [5, 1, 7])
    )
    first, second, third = without.items.split(without.sizes)
    assert len(second) and with_gap.sizes == [len(first), 0, len(third)]
    assert torch.equal(with_gap.items, torch.cat([first, third]))


def test_each_group_has_its_own_sample():
    (states, weight, bias), labels = example()
    states, weight, bias = states.float(), weight.float(), bias.float()
    samples = sample_negatives(inclusion_probabilities(np.zeros(50), 10), [30, 10], np.random.default_rng(0))
    found = cross_entropy(states, weight, bias, labels, samples)
    alone = []
    items, log_probabilities = (part.split(samples.sizes) for part in samples[:2])
    for group, rows in enumerate((slice(0, 30), slice(30, 40))):
        sample = Negatives(items[group], log_probabilities[group], [len(items[group])], [rows.stop - rows.start])
        alone.append(cross_entropy(states[rows], weight, bias, labels[rows], sample))
    torch.testing.assert_close(found, (30 * alone[0] + 10 * alone[1]) / 40)


def test_a_gpu_takes_more_logit_chunk_rows():
    assert logit_chunk_rows(torch.device("cpu"), 3416) == CACHED_ROWS
    assert logit_chunk_rows(torch.device("cuda"), 60_000) > 10 * CACHED_ROWS
