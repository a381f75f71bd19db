import math

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from ir_measures import RR, Success, nDCG
from sklearn.metrics import ndcg_score, top_k_accuracy_score

from bertrec_utils.baselines import MarkovChain, Popularity
from bertrec_utils.evaluation import NEGATIVES, draw_negatives, evaluate, interval, metrics, target_ranks
from bertrec_utils.sequences import Holdout
from conftest import rows


class FixedScores:
    """Gives every user the same scores, or the row of a table by the user's last item."""

    def __init__(self, scores):
        self.scores = np.asarray(scores, dtype=np.float32)

    def score(self, histories):
        if self.scores.ndim == 1:
            return np.tile(self.scores, (len(histories), 1))
        return self.scores[histories.last() - 1]


def test_ranks_by_hand():
    # scores of items 1..6; user 0 has seen 1 and 2, user 1 has seen 6
    scorer = FixedScores([9, 8, 7, 6, 5, 4])
    holdout = Holdout(rows([1, 2], [6]), np.array([5, 1]))
    ranks = target_ranks(scorer, holdout, ["full"], progress=False)["full"]
    assert ranks.tolist() == [3, 1]  # items 3 and 4 are above 5; nothing is above 1


def test_ties_count_half():
    holdout = Holdout(rows([1], [2]), np.array([3, 5]))
    ranks = target_ranks(FixedScores(np.zeros(6)), holdout, ["full"], progress=False)["full"]
    assert ranks.tolist() == [3, 3]  # the middle of 5 candidates, for both: a constant is no good model
    ranks = target_ranks(FixedScores([0, 1, 1, 0, 1, 2]), holdout, ["full"], progress=False)["full"]
    assert ranks.tolist() == [3, 2.5]  # below item 6, level with 2 and 5; below 6, level with 3


def test_candidates_can_be_taken_from_the_history_and_be_many():
    holdout = Holdout(rows([1, 2], [6]), np.array([5, 1]))
    scorer = FixedScores([9, 8, 7, 6, 5, 4])
    assert target_ranks(scorer, holdout, ["full"], rank_history=True, progress=False)["full"].tolist() == [5, 1]
    ranks = target_ranks(scorer, holdout, ["uniform-100"], negatives=3, progress=False)["uniform-100"]
    assert ranks.tolist() == [3, 1]  # items 3, 4 and 6 are all there is for the first user


def test_scores_that_are_not_finite_are_refused():
    holdout = Holdout(rows([1]), np.array([3]))
    with pytest.raises(ValueError, match="not finite"):
        target_ranks(FixedScores([0, 1, np.nan]), holdout, ["full"], progress=False)


def test_order_and_size_of_batches_do_not_matter():
    random = np.random.default_rng(0)
    table = random.standard_normal((30, 30))
    histories = [random.permutation(30)[: random.integers(1, 9)] + 1 for _ in range(50)]
    targets = np.array([next(item for item in random.permutation(30) + 1 if item not in h) for h in histories])
    found = target_ranks(FixedScores(table), Holdout(rows(*histories), targets), ["full"], batch_size=7)["full"]
    for history, target, rank in zip(histories, targets, found, strict=True):
        scores = table.astype(np.float32)[history[-1] - 1]
        candidates = [item for item in range(1, 31) if item not in history]
        best_first = sorted(candidates, key=lambda item: -scores[item - 1])
        assert best_first.index(target) + 1 == rank


def test_metrics_as_fractions():
    found = metrics(np.array([1, 3, 10, 11]), cutoffs=[1, 10])
    assert found["hit@1"] == found["ndcg@1"] == found["mrr@1"] == 1 / 4
    assert found["hit@10"] == 3 / 4
    assert found["ndcg@10"] == pytest.approx((1 + 1 / 2 + 1 / math.log2(11)) / 4)  # log2(3 + 1) = 2
    assert found["mrr@10"] == pytest.approx((1 + 1 / 3 + 1 / 10) / 4)


def test_interval_holds_the_true_mean_as_often_as_it_says():
    random = np.random.default_rng(0)
    found = [interval(random.exponential(1.0, 300), seed) for seed in range(200)]
    assert 0.90 <= np.mean([each.low <= 1 <= each.high for each in found]) <= 0.985
    assert all(each.low < each.mean < each.high for each in found)
    # nearly that of the normal approximation
    values = random.exponential(1.0, 3000)
    half = 1.96 * values.std() / np.sqrt(3000)
    assert interval(values)[1:] == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_a_difference_within_its_interval_is_a_tie():
    assert interval(np.array([1.0, -1.0] * 20)).is_tie
    assert not interval(np.array([1.0, 0.5] * 20)).is_tie


def test_metrics_agree_with_scikit_learn():
    random = np.random.default_rng(1)
    scores = random.standard_normal((200, 40)).astype(np.float32)
    targets = random.integers(0, 40, 200)
    ranks = 1 + (scores > scores[np.arange(200), targets][:, None]).sum(1)
    found = metrics(ranks, cutoffs=[5, 10])
    for cutoff in (5, 10):
        assert found[f"ndcg@{cutoff}"] == pytest.approx(ndcg_score(np.eye(40)[targets], scores, k=cutoff))
        expected = top_k_accuracy_score(targets, scores, k=cutoff, labels=range(40))
        assert found[f"hit@{cutoff}"] == pytest.approx(expected)


def test_ranks_and_metrics_agree_with_an_evaluation_library():
    """Coarse random scores: many items tie, but none with a target, for which libraries have rules of their own."""
    random = np.random.default_rng(2)
    table = random.integers(0, 12, (30, 60)) * 2.0
    histories = [random.permutation(60)[: random.integers(1, 20)] + 1 for _ in range(150)]
    targets = np.array([next(item for item in random.permutation(60) + 1 if item not in h) for h in histories])

    class Scores:
        def score(self, histories):
            scores = table[histories.users % 30].astype(np.float32)
            scores[np.arange(len(histories)), targets[histories.users] - 1] += 1
            return scores

    holdout = Holdout(rows(*histories), targets)
    found = metrics(target_ranks(Scores(), holdout, ["full"], progress=False)["full"], [10])
    scores = Scores().score(holdout.histories)
    answers = [
        ir_measures.ScoredDoc(str(user), str(item), float(scores[user, item - 1]))
        for user, history in enumerate(histories)
        for item in range(1, 61)
        if item not in history
    ]
    truth = [ir_measures.Qrel(str(user), str(target), 1) for user, target in enumerate(targets)]
    measures = {"hit@10": Success @ 10, "ndcg@10": nDCG @ 10, "mrr@10": RR @ 10}
    expected = ir_measures.calc_aggregate(measures.values(), truth, answers)
    for name, measure in measures.items():
        assert found[name] == pytest.approx(expected[measure], abs=1e-9)


SCORES = arrays(np.float32, 12, elements=st.integers(-5, 5).map(float))


def rank_of(scores, history, target):
    return target_ranks(FixedScores(scores), Holdout(rows(history), np.array([target])), ["full"], progress=False)[
        "full"
    ][0]


@settings(deadline=None, derandomize=True)
@given(SCORES, st.permutations(range(12)), st.integers(-100, 100))
def test_neither_names_nor_a_constant_change_a_rank(scores, order, constant):
    renamed = np.argsort(order)  # item i is called renamed[i]
    rank = rank_of(scores, [1, 2], 3)
    assert rank_of(scores + np.float32(constant), [1, 2], 3) == rank
    assert rank_of(scores[order], renamed[:2] + 1, renamed[2] + 1) == rank


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=11, unique=True))
def test_a_constant_model_ranks_in_the_middle_of_what_is_left(history):
    target = next(item for item in range(1, 13) if item not in history)
    assert rank_of(np.ones(12), history, target) == (1 + 12 - len(history)) / 2


def test_negatives_are_never_seen_items_nor_the_target():
    random = np.random.default_rng(0)
    eligible = random.random((60, 300)) < 0.6
    for weights in (np.ones(300), random.integers(1, 1000, 300)):
        chosen = draw_negatives(eligible, weights, NEGATIVES, random)
        assert not (chosen & ~eligible).any()
        assert (chosen.sum(1) == NEGATIVES).all()


def test_items_without_a_rating_are_no_popular_negatives():
    weights = np.where(np.arange(300) < 150, 5, 0)
    chosen = draw_negatives(np.ones((20, 300), bool), weights, NEGATIVES, np.random.default_rng(0))
    assert not chosen[:, 150:].any()


def test_popular_negatives_are_drawn_in_proportion():
    # few draws from many items: then without replacement is nearly with it, and shares follow the weights
    weights = np.repeat([1.0, 3.0], 20_000)
    chosen = draw_negatives(np.ones((100, 40_000), bool), weights, NEGATIVES, np.random.default_rng(0))
    assert abs(chosen[:, 20_000:].sum() / chosen.sum() - 0.75) < 5 * math.sqrt(0.75 * 0.25 / 10_000)


def test_too_few_items_for_negatives_is_an_error():
    with pytest.raises(ValueError, match="fewer than 100 unseen items"):
        evaluate(FixedScores(np.zeros(50)), Holdout(rows([1]), np.array([2])), ["uniform-100"])


class Zeros:
    """A generator whose exponential draws are 0 now and then, as float32 ones are among very many."""

    def standard_exponential(self, shape, dtype):
        waits = np.random.default_rng(0).standard_exponential(shape, dtype)
        waits[:, ::3] = 0
        return waits


def test_a_draw_of_zero_chooses_nothing_that_is_not_eligible():
    eligible = np.random.default_rng(1).random((20, 500)) < 0.5
    chosen = draw_negatives(eligible, np.ones(500), NEGATIVES, Zeros())
    assert not (chosen & ~eligible).any() and (chosen.sum(1) == NEGATIVES).all()


def test_protocols_repeat_with_the_seed_and_agree_with_each_other(dataset):
    split = dataset.split
    scorer = Popularity(split.train, len(dataset.vocabulary))
    first, again = (target_ranks(scorer, split.test, progress=False) for _ in range(2))
    other = target_ranks(scorer, split.test, seed=1, progress=False)
    for protocol in first:
        assert np.array_equal(first[protocol], again[protocol])
    assert np.array_equal(first["full"], other["full"])
    assert not np.array_equal(first["uniform-100"], other["uniform-100"])
    assert (first["uniform-100"] <= first["full"]).all()
    assert (first["uniform-100"] <= NEGATIVES + 1).all()
    # popular negatives are harder for a model that ranks by popularity
    assert first["popularity-100"].mean() > first["uniform-100"].mean()
    table = evaluate(scorer, split.test, progress=False)
    assert list(table) == ["full", "uniform-100", "popularity-100"]
    assert set(table["full"]) == {f"{name}@{k}" for name in ("hit", "ndcg", "mrr") for k in (1, 5, 10, 20)}


def test_popularity_by_hand():
    scores = Popularity(rows([1, 2], [2, 3], [2]), 4).score(rows([1], [3]))
    assert scores.tolist() == [[1, 3, 1, 0]] * 2


def test_markov_chain_by_hand():
    train = rows([1, 2, 3], [1, 2], [1, 4], [3, 3])
    scores = MarkovChain(train, 4).score(rows([9, 1], [4]))
    counts = np.array([3, 2, 3, 1])  # of items 1..4
    np.testing.assert_allclose(scores[0], [0, 2, 0, 1] + counts / 4)  # after 1 came 2 twice and 4 once
    np.testing.assert_allclose(scores[1], counts / 4)  # nothing came after 4, least of all the next user's first item
