import numpy as np
import pytest
import torch

from bertrec_utils.model.modern import ModernTransformer
from bertrec_utils.training.initial_weights import (
    STANDARD_DEVIATION,
    cooccurrence,
    positive_pmi,
    ppmi_vectors,
    start_from_counts,
    strongest,
)
from conftest import model_settings, rows


def test_cooccurrence_by_hand():
    # 1-2 and 2-3 are neighbours, 1-3 two apart; the next user adds 1-4, and no pair spans two users
    counts = cooccurrence(rows([1, 2, 3], [1, 4]), 4, window=2).toarray()
    expected = np.array([[0, 1, 0.5, 1], [1, 0, 1, 0], [0.5, 1, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_allclose(counts, expected)


def test_window_limits_the_distance():
    assert cooccurrence(rows([1, 2, 3]), 3, window=1).toarray()[0, 2] == 0


def test_positive_pmi_against_the_dense_formula():
    counts = cooccurrence(rows([1, 2, 3, 1, 4], [2, 4, 4, 1], [3, 1]), 4, window=3)
    dense = counts.toarray().astype(float)
    joint = dense / dense.sum()
    item = joint.sum(1)
    context = item**0.75 / (item**0.75).sum()
    with np.errstate(divide="ignore"):
        expected = np.log(joint / np.outer(item, context)).clip(min=0)
    np.testing.assert_allclose(positive_pmi(counts).toarray(), expected, rtol=1e-5, atol=1e-6)


def test_the_strongest_pairs_stay_and_those_level_with_the_last_of_them():
    counts = cooccurrence(rows([1, 2, 3], [1, 2, 4], [1, 2], [3, 4]), 4, window=2)
    # 1-2: 3; 2-3, 2-4 and 3-4: 1; 1-3 and 1-4: .5; each counted twice
    assert (counts.toarray()[0] == [0, 3, 0.5, 0.5]).all()
    assert strongest(counts, 2).toarray().tolist() == [[0, 3, 0, 0], [3, 0, 0, 0], [0] * 4, [0] * 4]
    assert strongest(counts, 3).nnz == 8 and strongest(counts, 12) is counts


def test_without_weak_pairs_the_others_keep_their_pmi(monkeypatch):
    counts = cooccurrence(rows([1, 2, 3, 1, 4], [2, 4, 4, 1], [3, 1], [1, 2]), 4, window=3)
    whole, part = positive_pmi(counts).toarray(), strongest(counts, 6)
    assert 0 < part.nnz < counts.nnz
    found = positive_pmi(part, totals=np.asarray(counts.sum(1)).ravel()).toarray()
    np.testing.assert_allclose(found, np.where(part.toarray() > 0, whole, 0), rtol=1e-6)


def test_vectors_by_a_whole_decomposition():
    """Pairs up to ten positions apart, each counting 1 / distance; then U sqrt(S) of the positive PMI, by numpy."""
    random = np.random.default_rng(0)
    histories = [(random.permutation(14) + 1).tolist() for _ in range(3)]
    counts = np.zeros((14, 14))
    for history in histories:
        for left in range(14):
            for right in range(14):
                if 0 < abs(left - right) <= 10:
                    counts[history[left] - 1, history[right] - 1] += 1 / abs(left - right)
    totals = counts.sum(1)
    context = totals**0.75 / (totals**0.75).sum()
    with np.errstate(divide="ignore"):
        pmi = np.log(counts / np.outer(totals, context)).clip(min=0)
    left, strength, _ = np.linalg.svd(pmi)
    vectors = ppmi_vectors(rows(*histories), 14, width=14)
    expected = left * strength @ left.T  # the product of U sqrt(S) with itself, whatever the signs of its columns
    found = (vectors @ vectors.T).astype(float)
    np.testing.assert_allclose(found / found.trace(), expected / expected.trace(), atol=1e-5)


def test_vectors_put_items_of_the_same_taste_together():
    random = np.random.default_rng(0)
    histories = [(random.permutation(10) + 1 + 10 * (user % 2)).tolist() for user in range(60)]
    vectors = ppmi_vectors(rows(*histories), 20, width=8)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = unit @ unit.T
    assert likeness[:10, :10].min() > likeness[:10, 10:].max()
    assert abs(vectors.std() - STANDARD_DEVIATION) < 1e-6


def test_nothing_to_count_is_an_error():
    with pytest.raises(ValueError, match="train with --start random"):
        ppmi_vectors(rows([1], [2], [3]), 3, width=2)


def test_a_start_from_counts_sets_items_and_bias_only():
    torch.manual_seed(0)
    model = ModernTransformer(4, model_settings(width=4, heads=1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start_from_counts(model, rows([1, 2, 3], [1, 2], [1, 4]))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"item_embedding.weight", "item_bias"}
    weight = model.item_embedding.weight
    assert torch.equal(weight[0], before["item_embedding.weight"][0])
    assert torch.equal(weight[5], before["item_embedding.weight"][5])


def test_the_bias_is_the_log_of_the_popularity_less_its_mean():
    model = ModernTransformer(4, model_settings(width=4, heads=1))
    start_from_counts(model, rows([1, 2, 3], [1, 2], [1, 4]))
    logs = np.log([4, 3, 2, 2])  # 3, 2, 1 and 1 times in the data, each counted once more
    np.testing.assert_allclose(model.item_bias.detach(), logs - logs.mean(), rtol=1e-5)
