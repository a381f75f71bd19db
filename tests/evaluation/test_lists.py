import numpy as np
import pytest

from bertrec_utils.evaluation.ranking import top_k, beyond_accuracy, coverage, gini, novelty, intra_list_diversity
from conftest import rows


class FixedScores:
    def score(self, histories):
        return np.tile(np.array([9, 8, 7, 7, 5], dtype=np.float32), (len(histories), 1))


def test_best_items_leave_out_the_history():
    assert top_k(FixedScores(), rows([1], [2, 3], [5]), 2, batch_size=2).tolist() == [[2, 3], [1, 4], [1, 2]]


def test_coverage_and_novelty_by_hand():
    lists = np.array([[1, 2], [1, 3]])
    assert coverage(lists, 6) == 1 / 2
    # of 8 users 8 have item 1, 4 have item 2, nobody has item 3: 0, 1 and 3 bits
    assert novelty(lists, np.array([8, 4, 0, 1, 1, 1]), users=8) == pytest.approx((0 + 1 + 0 + 3) / 4)


def test_gini_of_equal_and_of_single_shows():
    assert gini(np.array([[1, 2], [3, 4]]), 4) == 0
    assert gini(np.array([[1], [1], [1]]), 4) == pytest.approx(3 / 4)  # one of four has all: 1 - 1/n
    shown = np.array([0, 1, 3, 4])
    by_pairs = np.abs(shown[:, None] - shown).sum() / (2 * 4 * shown.sum())  # its definition: mean difference
    assert gini(np.repeat([2, 3, 4], [1, 3, 4])[:, None], 4) == pytest.approx(by_pairs)


def test_variety_by_hand():
    traits = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]], dtype=bool)
    assert intra_list_diversity(np.array([[1, 2, 3]]), traits) == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert intra_list_diversity(np.array([[1, 1]]), traits) == intra_list_diversity(np.array([[4, 5]]), traits) == 0
    assert intra_list_diversity(np.array([[1, 4]]), traits) == 1


def test_everybody_gets_the_same_list_from_popularity(dataset):
    test = dataset.split.test
    lists = np.tile(np.arange(1, 11), (len(test.targets), 1))
    table = beyond_accuracy(lists, test, np.eye(len(dataset.vocabulary), dtype=bool))
    assert table["coverage"] == 10 / len(dataset.vocabulary)
    assert table["intra_list_diversity of genres"] == 1  # every film has a genre of its own here
    assert table["Gini"] > 0.98
