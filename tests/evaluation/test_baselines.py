from functools import partial

import numpy as np
import pandas as pd
import pytest

from bertrec_utils.data.sequences import Vocabulary
from bertrec_utils.evaluation import baselines
from bertrec_utils.evaluation.baselines import (
    EASE,
    MAX_ITEMS,
    PCTM,
    ItemKNN,
    LinearNextItem,
    MarkovChain,
    Popularity,
    RecentPopularity,
    SmoothedMarkovChain,
)
from conftest import rows

ITEMS = 6


def random_sequences(users, longest, seed=0):
    random = np.random.default_rng(seed)
    return rows(*(random.integers(1, ITEMS + 1, random.integers(1, longest + 1)).tolist() for _ in range(users)))


def test_popularity_by_hand():
    scores = Popularity(rows([1, 2], [2, 3], [2]), 4).score(rows([1], [3]))
    assert scores.tolist() == [[1, 3, 1, 0]] * 2


def test_markov_chain_by_hand():
    train = rows([1, 2, 3], [1, 2], [1, 4], [3, 3])
    scores = MarkovChain(train, 4).score(rows([9, 1], [4]))
    counts = np.array([3, 2, 3, 1])  # of items 1..4
    np.testing.assert_allclose(scores[0], [0, 2, 0, 1] + counts / 4)  # after 1 came 2 twice and 4 once
    np.testing.assert_allclose(scores[1], counts / 4)  # nothing came after 4, least of all the next user's first item


def test_recent_popularity_counts_the_last_days():
    day = 24 * 60 * 60
    ratings = pd.DataFrame({"item": [7, 5, 5, 7, 9, 5], "timestamp": np.array([0, 10, 11, 11.5, 12, 12]) * day})
    model = RecentPopularity(ratings, Vocabulary(np.array([5, 6, 7])), days=1.5)  # 9 is not in the vocabulary
    assert model.score(rows([1], [2, 3])).tolist() == [[2, 0, 1]] * 2


def test_smoothed_chain_by_hand():
    train = rows([1, 2, 3], [1, 2], [1, 3])  # popularity, each once more: 4, 3, 3 of 10
    chain = SmoothedMarkovChain(train, 3, weights=(0.75, 0.25), pseudo_counts=2)
    last = (np.array([0, 2, 1]) + 2 * np.array([0.4, 0.3, 0.3])) / 5  # item 1 was followed by 2, 2 and 3
    before = (np.array([0, 0, 0]) + 2 * np.array([0.4, 0.3, 0.3])) / 2  # nothing came two positions after item 3
    scores = chain.score(rows([3, 1], [1]))
    np.testing.assert_allclose(np.exp(scores[0]), 0.75 * last + 0.25 * before, rtol=1e-6)
    np.testing.assert_allclose(np.exp(scores[1]), 0.75 * last + 0.25 * np.array([0.4, 0.3, 0.3]), rtol=1e-6)
    np.testing.assert_allclose(np.exp(scores).sum(1), 1, rtol=1e-6)


def test_pctm_by_hand():
    train = rows([1, 2, 3], [1, 3])  # popularity, each once more: 3, 2, 3 of 8
    settings = {"window": 2, "power": 1.0, "pseudo_counts": 3.0, "head": 2, "recent": 0.8, "decay": 0.5}
    model = PCTM(train, 3, **settings, popularity=-0.5)
    after_1 = (np.array([0, 1, 1 + 1 / 2]) + 1) / (2.5 + 3)  # 3 once directly, and once two positions later
    after_2 = (np.array([0, 0, 1]) + 1) / (1 + 3)
    after_3 = np.full(3, 1 / 3)
    shares = np.array([3, 2, 3]) / 8
    # the newest two items share .8, two to one; the oldest has .2
    expected = 0.8 * (2 * np.log(after_1) + np.log(after_3)) / 3 + 0.2 * np.log(after_2) - 0.5 * np.log(shares)
    [scores, short] = model.score(rows([2, 3, 1], [1]))
    np.testing.assert_allclose(scores - scores[0], expected - expected[0], rtol=1e-5)
    expected = np.log(after_1) - 0.5 * np.log(shares)  # a single item has all the weight
    np.testing.assert_allclose(short - short[0], expected - expected[0], rtol=1e-5)
    newest = PCTM(train, 3, **settings, max_length=2).score(rows([2, 3, 1], [3, 1]))
    np.testing.assert_allclose(*newest, rtol=1e-6)  # what is older is not read
    expected = (np.log(after_1) + np.log(after_2) + np.log(after_3)) / 3 - 0.5 * np.log(shares)  # no newest ones
    [scores] = PCTM(train, 3, **settings | {"head": 0}, popularity=-0.5).score(rows([2, 3, 1]))
    np.testing.assert_allclose(scores - scores[0], expected - expected[0], rtol=1e-5)


def test_ease_predicts_each_item_from_the_others():
    """Every column is a ridge regression of its own, with the item itself left out."""
    train = random_sequences(40, 5)
    model = EASE(train, ITEMS, ridge=3.0)
    seen = np.array([np.isin(np.arange(1, ITEMS + 1), train[row]) for row in range(len(train))], dtype=float)
    for item in range(ITEMS):
        others = np.arange(ITEMS) != item
        left = seen[:, others].T @ seen[:, others] + 3.0 * np.eye(ITEMS - 1)
        np.testing.assert_allclose(
            model.weights[others, item], np.linalg.solve(left, seen[:, others].T @ seen[:, item]), atol=1e-4
        )
        assert model.weights[item, item] == 0


def test_ease_scores_a_decayed_history():
    model = EASE(rows([1, 2], [2, 3]), 3, decay=0.5)
    np.testing.assert_allclose(model.score(rows([1, 3]))[0], 0.5 * model.weights[0] + model.weights[2], rtol=1e-6)


def test_item_knn_by_hand():
    train = rows([1, 2, 1], [1, 2, 3], [1, 4], [4])  # users of the items: 1: 3, 2: 2, 3: 1, 4: 2
    model = ItemKNN(train, 4, neighbours=2, shrinkage=1.0, decay=0.5)
    with_two, with_three, with_four = 2 / (6**0.5 + 1), 1 / (3**0.5 + 1), 1 / (6**0.5 + 1)
    np.testing.assert_allclose(model.similarities[0], [0, with_two, with_three, 0], rtol=1e-6)  # 4 is the third
    assert with_three > with_four
    scores = model.score(rows([1, 3]))[0]
    np.testing.assert_allclose(scores, 0.5 * model.similarities[0] + model.similarities[2], rtol=1e-6)


@pytest.mark.parametrize(
    "baseline",
    [Popularity, MarkovChain, SmoothedMarkovChain, PCTM, EASE, LinearNextItem, partial(ItemKNN, shrinkage=0.0)],
)
def test_an_item_that_nobody_has_in_training_has_a_score_all_the_same(baseline):
    """All who have it may have it last, where it is held out; then others may meet it in a history."""
    scores = baseline(rows([1, 2, 3], [2, 1], [3, 2]), 4).score(rows([1, 4], [4]))
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("longest", [1, 9, 60])
@pytest.mark.parametrize("decays", [(0.5,), (0.3, 0.8)])
def test_linear_next_item_is_the_ridge_regression_written_out(longest, decays):
    """One row of weights per position, each item found at its age: what the closed form never writes down."""
    train = random_sequences(30, longest)
    ages, next_items = [], []
    for row in range(len(train)):
        for position in range(1, len(train[row])):
            history = np.zeros((len(decays), ITEMS))
            for age, token in enumerate(train[row][:position][::-1]):
                history[:, token - 1] += np.power(decays, age)
            ages.append(history.ravel())
            next_items.append(np.eye(ITEMS)[train[row][position] - 1])
    histories = np.array(ages).reshape(len(ages), len(decays) * ITEMS)
    left = histories.T @ histories + 2.0 * np.eye(len(decays) * ITEMS)
    expected = np.linalg.solve(left, histories.T @ np.array(next_items).reshape(len(ages), ITEMS))
    model = LinearNextItem(train, ITEMS, decays, ridge=2.0)
    np.testing.assert_allclose(model.weights, expected, atol=2e-3)
    history = np.zeros((len(decays), ITEMS))
    history[:, 1] += np.power(decays, 1)
    history[:, 3] += 1
    np.testing.assert_allclose(model.score(rows([2, 4]))[0], history.ravel() @ expected, atol=5e-3)


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_the_regression_refuses_a_decay_whose_series_has_no_sum(decay):
    with pytest.raises(ValueError, match="each must be above 0 and below 1"):
        LinearNextItem(rows([1, 2, 3]), 3, decays=(0.5, decay))


@pytest.mark.parametrize("decay", [0, -1, 1.5, np.nan])
@pytest.mark.parametrize("baseline", [EASE, ItemKNN])
def test_a_decay_that_is_none_is_refused(baseline, decay):
    train = rows([1, 2, 3], [2, 3, 1])
    with pytest.raises(ValueError, match="it must be above 0 and at most 1"):
        baseline(train, 3, decay=decay).score(train)


def test_popularity_breaks_a_tie_of_large_counts():
    """500 steps from 1 to each of 2 and 3, and 3 is once more in the data, of which item 4 has very many."""
    train = rows(*[[1, 2]] * 500, *[[1, 3]] * 500, [3], [4] * 100_000)
    [scores] = MarkovChain(train, 4).score(rows([1]))
    assert scores[2] > scores[1]


@pytest.mark.parametrize("baseline", [EASE, ItemKNN, LinearNextItem])
def test_a_matrix_of_all_pairs_has_a_limit(baseline):
    """At once, before any memory is taken."""
    with pytest.raises(ValueError, match=r"^10,001 items are too many for a matrix of all pairs; at most 10,000. "):
        baseline(rows([1, 2, 3]), MAX_ITEMS + 1)


@pytest.mark.parametrize("baseline", [EASE, ItemKNN, LinearNextItem])
def test_as_many_items_as_the_limit_are_not_too_many(baseline, monkeypatch):
    monkeypatch.setattr(baselines, "MAX_ITEMS", ITEMS)
    assert baseline(random_sequences(5, 5), ITEMS).score(rows([1, 2])).shape == (1, ITEMS)
