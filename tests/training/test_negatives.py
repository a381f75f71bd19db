import numpy as np
import pytest

from bertrec_utils.training.batches import HISTORIES_PER_SAMPLE, epoch_batches
from conftest import rows, settings


def test_negatives_are_sampled_by_the_square_root_of_popularity():
    """Half of 200 items occur 24 times, half 3 times; counted once more, the roots are 5 and 2."""
    random = np.random.default_rng(0)
    occurrences = random.permutation(np.repeat(np.arange(1, 201), np.repeat([24, 3], 100))).reshape(100, 27)
    chosen = settings(negatives=20, batch_size=20)
    items, expected, groups = [], np.repeat([5, 2], 100) * 20 / (100 * 5 + 100 * 2), 0
    for _ in range(20):
        for batch in epoch_batches(rows(*occurrences), 200, chosen, random):
            sample = batch.negatives
            items.append(sample.items.numpy())
            groups += len(sample.sizes)
            np.testing.assert_allclose(sample.log_probabilities.exp(), expected[items[-1]], rtol=1e-5)
    assert groups == 20 * 100 / HISTORIES_PER_SAMPLE
    found = np.bincount(np.concatenate(items), minlength=200) / groups
    assert found[:100].mean() == pytest.approx(5 / 35, abs=0.005)
    assert found[100:].mean() == pytest.approx(2 / 35, abs=0.005)
    assert (np.abs(found - expected) < 5 * np.sqrt(expected * (1 - expected) / groups)).all()
