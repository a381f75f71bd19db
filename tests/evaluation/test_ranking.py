import itertools
import json
import math
from types import SimpleNamespace

import ir_measures
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from ir_measures import RR, Success, nDCG
from sklearn.metrics import ndcg_score, top_k_accuracy_score

from bertrec_utils.common import PROJECT
from bertrec_utils.data.sequences import Holdout, Vocabulary
from bertrec_utils.evaluation.baselines import Popularity
from bertrec_utils.evaluation.lists import (
    best_columns,
    beyond_accuracy,
    coverage,
    gini,
    intra_list_diversity,
    novelty,
    run_ranks,
    top_k,
    write_run,
)
from bertrec_utils.evaluation.mixture import fit_mixture
from bertrec_utils.evaluation.ranking import (
    NEGATIVES,
    PROTOCOLS,
    Interval,
    bootstrap_interval,
    draw_negatives,
    evaluate,
    mean_over_seeds,
    metrics,
    per_user_metrics,
    read_ranks,
    recorded_ranks,
    target_ranks,
    write_ranks,
)
from conftest import rows


class FixedScores:
    """Gives every user the same scores, or the row of a table by the user's last item."""

    def __init__(self, scores):
        self.scores = np.asarray(scores, dtype=np.float32)

    def score(self, histories):
        if self.scores.ndim == 1:
            return np.tile(self.scores, (len(histories), 1))
        return self.scores[histories.last() - 1]


class ScoresOfUser:
    """Gives each user, numbered from 0, the row of a table."""

    def __init__(self, table):
        self.table = table

    def score(self, histories):
        return self.table[histories.users]


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


@pytest.mark.parametrize("scores", [[0, 1, np.nan], [np.nan, 1, 2], [0, np.nan, 2], [0, 1, np.inf]])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_score_that_is_nan_or_a_target_that_scores_infinity_is_refused(scores, protocol):
    holdout = Holdout(rows([1]), np.array([3]))
    with pytest.raises(ValueError, match=r"^FixedScores gave a score that is NaN, or a target the score inf"):
        target_ranks(FixedScores(scores), holdout, [protocol], negatives=1, progress=False)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_target_that_must_not_be_recommended_is_no_hit(protocol):
    """Not even where few items can be recommended, or none, so that it would be among the first."""
    holdout = Holdout(rows([1], [2]), np.array([4, 3]))
    for scores in ([0, 0, 1, -np.inf], [-np.inf] * 4):
        ranks = target_ranks(FixedScores(scores), holdout, [protocol], negatives=2, progress=False)[protocol]
        assert ranks.tolist() == [np.inf, 1 if scores[2] == 1 else np.inf]
        assert metrics(ranks, [10]) == dict.fromkeys(["hit@10", "ndcg@10", "mrr@10"], np.isfinite(ranks).mean())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_items_that_must_not_be_recommended_rank_below_all_others(protocol):
    """-inf is a score as any other, the lowest: ranks are those of a low finite one."""
    random = np.random.default_rng(0)
    table = random.integers(0, 5, (40, 60)).astype(np.float32)
    barred = random.random((40, 60)) < 0.3
    targets = np.array([random.choice(np.flatnonzero(~row)) + 1 for row in barred])
    holdout = Holdout(rows(*random.integers(1, 61, (40, 5))), targets)
    found, expected = (
        target_ranks(ScoresOfUser(np.where(barred, low, table)), holdout, [protocol], negatives=20, progress=False)
        for low in (-np.inf, -1)
    )
    assert (found[protocol] == expected[protocol]).all()
    assert found[protocol].max() > 5


def test_the_best_items_are_never_those_that_must_not_be_recommended():
    scorer = FixedScores([-np.inf, 3, -np.inf, 1, 2, -np.inf])
    assert top_k(scorer, rows([1], [2]), 2).tolist() == [[2, 5], [5, 4]]
    with pytest.raises(ValueError, match="a user has fewer than 3 items left to recommend"):
        top_k(scorer, rows([1], [2]), 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("rank_history", [False, True])
def test_ranks_are_those_of_a_loop_over_candidates(rank_history, dtype):
    """Many ties; histories that hold an item twice or the target, and an empty one; whatever the batch size."""
    random = np.random.default_rng(0)
    table = random.integers(0, 8, (50, 30)).astype(dtype)
    histories = [random.integers(1, 31, length) for length in [0, *random.integers(1, 40, 49)]]
    targets = random.integers(1, 31, 50)
    assert any(target in history for target, history in zip(targets, histories, strict=True))
    holdout = Holdout(rows(*histories), targets)
    for batch_size in (7, 256):
        options = {"rank_history": rank_history, "batch_size": batch_size, "progress": False}
        found = target_ranks(ScoresOfUser(table), holdout, ["full"], **options)["full"]
        for scores, history, target, rank in zip(table, histories, targets, found, strict=True):
            barred = {target} if rank_history else {target, *history}
            others = [scores[item - 1] for item in range(1, 31) if item not in barred]
            above = sum(other > scores[target - 1] for other in others)
            level = sum(other == scores[target - 1] for other in others)
            assert rank == 1 + above + level / 2


@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_scores_may_be_tensors(batch_size):
    """As of most models; a batch may be of a single user."""
    table = np.random.default_rng(0).random((5, 30)).astype(np.float32)
    holdout, arrays = Holdout(rows([1], [2], [3], [4], [5]), np.array([6, 7, 8, 9, 10])), ScoresOfUser(table)
    tensors = SimpleNamespace(score=lambda histories: torch.from_numpy(arrays.score(histories)))
    found, expected = (
        target_ranks(scorer, holdout, ["full"], batch_size=batch_size, progress=False) for scorer in (tensors, arrays)
    )
    assert found["full"].tolist() == expected["full"].tolist()
    mixtures = (fit_mixture(network, baseline, holdout) for network, baseline in ((tensors, tensors), (arrays, arrays)))
    np.testing.assert_array_equal(*(mixture.score(holdout.histories) for mixture in mixtures))


def test_scores_without_a_row_for_each_history_are_refused():
    holdout = Holdout(rows([1], [2]), np.array([2, 1]))
    for scores in (np.zeros(3), np.zeros((1, 3)), np.zeros((2, 3, 1))):
        with pytest.raises(
            ValueError, match=r"SimpleNamespace gave scores of shape .* for 2 histories; give one row for"
        ):
            target_ranks(SimpleNamespace(score=lambda _, scores=scores: scores), holdout, ["full"], progress=False)


@pytest.mark.parametrize("protocols", ["full", ["all"]])
def test_an_unknown_protocol_is_named(protocols):
    with pytest.raises(
        ValueError, match=r"there is no protocol '(f|all)'; give a list of full, uniform-100, popularity"
    ):
        target_ranks(FixedScores([1, 2]), Holdout(rows([1]), np.array([2])), protocols)


def test_metrics_of_users_without_a_list_are_refused():
    with pytest.raises(ValueError, match=r"some users have no list.*ranks\[~np.isnan\(ranks\)\]"):
        metrics(np.array([1, np.nan]))


def test_metrics_as_fractions():
    found = metrics(np.array([1, 3, 10, 11]), cutoffs=[1, 10])
    assert found["hit@1"] == found["ndcg@1"] == found["mrr@1"] == 1 / 4
    assert found["hit@10"] == 3 / 4
    assert found["ndcg@10"] == pytest.approx((1 + 1 / 2 + 1 / math.log2(11)) / 4)  # log2(3 + 1) = 2
    assert found["mrr@10"] == pytest.approx((1 + 1 / 3 + 1 / 10) / 4)


def test_a_rank_between_two_is_a_hit_only_if_it_is_not_beyond_the_cutoff():
    """Tied with one other item, a target is at 9.5 or 10.5: the first is among the best ten, the second is not."""
    found = per_user_metrics(np.array([9.5, 10, 10.5]), [10])
    assert found["hit@10"].tolist() == [1, 1, 0]
    assert found["ndcg@10"].tolist() == pytest.approx([1 / math.log2(10.5), 1 / math.log2(11), 0])
    assert found["mrr@10"].tolist() == pytest.approx([1 / 9.5, 1 / 10, 0])
    scores = FixedScores([9] * 9 + [5] * 2 + [1] * 9)  # nine items are above two that tie
    ranks = target_ranks(scores, Holdout(rows([20], [1, 20]), np.array([10, 11])), ["full"], progress=False)["full"]
    assert ranks.tolist() == [10.5, 9.5]
    assert metrics(ranks, [10])["hit@10"] == 1 / 2


def test_interval_holds_the_true_mean_as_often_as_it_says():
    random = np.random.default_rng(0)
    found = [bootstrap_interval(random.exponential(1.0, 300), seed) for seed in range(200)]
    assert 0.90 <= np.mean([each.low <= 1 <= each.high for each in found]) <= 0.985
    assert all(each.low < each.mean < each.high for each in found)
    # nearly that of the normal approximation
    values = random.exponential(1.0, 3000)
    half = 1.96 * values.std() / np.sqrt(3000)
    assert bootstrap_interval(values)[1:] == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_a_difference_within_its_interval_is_a_tie():
    assert bootstrap_interval(np.array([1.0, -1.0] * 20)).is_tie
    assert not bootstrap_interval(np.array([1.0, 0.5] * 20)).is_tie


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.003, 0.003, "equivalent"),
        (0.001, 0.002, "equivalent"),  # surely better, and surely by less than matters
        (0.001, 0.02, "better"),
        (-0.02, -0.001, "worse"),
        (-0.001, 0.004, "undecided"),
        (-0.04, 0.05, "undecided"),
    ],
)
def test_verdicts(low, high, verdict):
    assert Interval((low + high) / 2, low, high).verdict() == verdict
    assert Interval((low + high) / 2, low, high).verdict(margin=0.05) == "equivalent"


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


def weights_of_kinds(item_count):
    """Equal weights, steep ones, and ones of which half are 0."""
    steep = 1_000_000 // np.arange(1, item_count + 1) ** 2 + 1
    return [np.ones(item_count), steep, np.arange(item_count) % 2]


@pytest.mark.parametrize("weights", weights_of_kinds(900), ids=["even", "steep", "half zero"])
@pytest.mark.parametrize("rank_history", [False, True])
def test_negatives_are_different_items_that_a_user_has_not_met(weights, rank_history):
    random = np.random.default_rng(0)
    histories = [random.integers(1, 901, length) for length in random.integers(0, 700, 60)]  # some items twice
    targets = random.integers(1, 901, 60)
    drawn = draw_negatives(Holdout(rows(*histories), targets), weights, random, rank_history=rank_history)
    assert drawn.shape == (60, NEGATIVES) and drawn.dtype == np.int32
    assert drawn.min() >= 1 and (weights[drawn - 1] > 0).all()
    assert all(len(set(row)) == NEGATIVES for row in drawn.tolist())
    assert not (drawn == targets[:, None]).any()
    met = [bool(set(row) & set(history)) for row, history in zip(drawn.tolist(), histories, strict=True)]
    assert sum(met) > 50 if rank_history else not any(met)


def test_nearly_exhausted_users_get_what_is_left():
    """Of 500 items, user i has met all but 100 + i; nearly all weight is on what they have met."""
    random = np.random.default_rng(0)
    left = [random.permutation(500)[: NEGATIVES + more] + 1 for more in range(4)]
    met = [random.permutation(np.setdiff1d(np.arange(1, 501), items)) for items in left]
    holdout = Holdout(rows(*(items[1:] for items in met)), np.array([items[0] for items in met]))
    for weights in (np.ones(500), np.where(np.isin(np.arange(1, 501), np.concatenate(left)), 1, 1_000_000)):
        drawn = draw_negatives(holdout, weights, random)
        assert sorted(drawn[0]) == sorted(left[0])
        assert all(len(set(row) & set(items)) == NEGATIVES for row, items in zip(drawn.tolist(), left, strict=True))


@pytest.mark.parametrize(
    "weights",
    [
        [1, 1, 1, 1, 1, 1, 1, 1],
        [1, 2, 3, 4, 5, 6, 7, 8],
        [9, 1, 2, 30, 3, 30, 4, 0],  # the two that have been met weigh most, one has no weight
        [40, 40, 2, 20, 2, 20, 2, 2],  # quick draws often end short, and of some sets more often than of others
    ],
)
def test_negatives_follow_the_distribution_of_successive_draws(weights):
    """Against the probability of each set of three, summed over the orders in which its items can be drawn."""
    users, met = 40_000, (4, 6)
    holdout = Holdout(rows(*[[met[0]]] * users), np.full(users, met[1]))
    drawn = draw_negatives(holdout, np.array(weights), np.random.default_rng(0), count=3)
    sets, counts = np.unique(np.sort(drawn, 1), axis=0, return_counts=True)
    found = dict(zip(map(tuple, sets.tolist()), counts, strict=True))
    open_weights = {item: weight for item, weight in enumerate(weights, 1) if weight and item not in met}
    for chosen in itertools.combinations(open_weights, 3):
        probability = 0
        for order in itertools.permutations(chosen):
            remaining, product = sum(open_weights.values()), 1
            for item in order:
                product *= open_weights[item] / remaining
                remaining -= open_weights[item]
            probability += product
        deviation = math.sqrt(users * probability * (1 - probability))
        assert abs(found.pop(chosen, 0) - users * probability) <= 5 * deviation + 1
    assert not found


def test_popular_negatives_are_drawn_in_proportion():
    # few draws from many items: then without replacement is nearly with it, and shares follow the weights
    weights = np.repeat([1.0, 3.0], 20_000)
    drawn = draw_negatives(Holdout(rows(*[[1]] * 100), np.full(100, 2)), weights, np.random.default_rng(0))
    assert abs((drawn > 20_000).mean() - 0.75) < 5 * math.sqrt(0.75 * 0.25 / 10_000)


def test_popularity_is_counted_in_histories_and_targets():
    # 120 items that others have met, 30 of them as targets only, and 300 that nobody has
    histories = [list(range(1, 91)), *[[1]] * 30]
    holdout = Holdout(rows(*histories), np.array([91, *range(91, 121)]))
    scorer = FixedScores(np.repeat([0, 1], [120, 300]))  # what nobody has met is above every target
    with pytest.raises(ValueError, match="fewer than 100 unseen items"):  # 29 are left for the first user
        target_ranks(scorer, holdout, ["popularity-100"], progress=False)
    others = Holdout(rows(*histories[1:], histories[0][:10]), np.array([*range(91, 121), 11]))
    found = target_ranks(scorer, others, ["popularity-100", "uniform-100"], negatives=30, progress=False)
    assert (found["popularity-100"] == 1 + 30 / 2).all()  # all level: none of the 300
    assert (found["uniform-100"] > 1 + 30 / 2).all()


def test_popular_negatives_are_drawn_as_often_as_they_are_popular():
    """Of 2,000 items, half occur once and half nine times: nine in ten of the negatives are of the second half.

    A model that puts the second half above the target, and the first below, gets one rank for each of them.
    """
    random = np.random.default_rng(0)
    occurrences = random.permutation(np.repeat(np.arange(1, 2001), np.repeat([1, 9], 1000))).reshape(200, 50)
    holdout = Holdout(rows(*occurrences[:, 1:]), occurrences[:, 0])
    scores = np.tile(np.repeat([0.0, 2.0], 1000), (200, 1))
    scores[np.arange(200), holdout.targets - 1] = 1
    shares = {
        protocol: (ranks.mean() - 1) / NEGATIVES
        for protocol, ranks in target_ranks(ScoresOfUser(scores), holdout, PROTOCOLS[1:], progress=False).items()
    }
    assert shares["popularity-100"] == pytest.approx(0.9, abs=0.02)
    assert shares["uniform-100"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("protocol", PROTOCOLS[1:])
def test_every_model_gets_the_same_negatives_whatever_the_batch_size(protocol):
    """A model for each item, that puts it above the rest: its ranks tell whose negative the item is."""
    random = np.random.default_rng(0)
    histories = [random.permutation(150)[:length] + 1 for length in random.integers(2, 12, 40)]
    holdout = Holdout(rows(*(history[1:] for history in histories)), np.array([history[0] for history in histories]))
    is_negative = np.zeros((40, 150), dtype=bool)
    for item in range(1, 151):
        scores = FixedScores(np.arange(1, 151) == item)
        options = {"negatives": 50, "batch_size": (1, 7, 256)[item % 3], "progress": False}
        is_negative[:, item - 1] = target_ranks(scores, holdout, [protocol], **options)[protocol] == 1 + 1 + 49 / 2
    assert (is_negative.sum(1) == 50).all()  # of models that each had other negatives, only by chance
    assert not any(is_negative[user, history - 1].any() for user, history in enumerate(histories))


def test_too_few_items_for_negatives_is_an_error():
    with pytest.raises(ValueError, match="fewer than 100 unseen items"):
        evaluate(FixedScores(np.zeros(50)), Holdout(rows([1]), np.array([2])), ["uniform-100"])
    holdout = Holdout(rows([], [1]), np.array([2, 3]))
    weights = np.append(np.ones(102), np.zeros(50))  # 101 items for the first user, 100 for the second
    assert draw_negatives(holdout, weights, np.random.default_rng(0)).shape == (2, 100)
    with pytest.raises(ValueError, match="fewer than 101 unseen items"):
        draw_negatives(holdout, weights, np.random.default_rng(0), count=101)


def test_the_full_ranking_is_left_where_negatives_cannot_be_drawn():
    holdout = Holdout(rows([1], [2]), np.array([2, 3]))
    table = evaluate(FixedScores(np.arange(50)), holdout, progress=False)
    assert table == evaluate(FixedScores(np.arange(50)), holdout, ["full"], progress=False)


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


def best_by_sorting(row, k):
    """The k best columns of a row, by a stable sort of it all."""
    return [column for column in np.argsort(-row, kind="stable") if row[column] > -np.inf][:k]


FEW_VALUES = st.sampled_from([-np.inf, -2.0, -1.0, 0.0, 1.0, np.inf])  # many ties


@settings(deadline=None, derandomize=True)
@given(arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=FEW_VALUES), st.integers(0, 14))
def test_best_columns_are_those_of_a_full_stable_sort(scores, k):
    expected = [best_by_sorting(row, k) for row in scores] if k else []
    assert [columns.tolist() for columns in best_columns(scores, k)] == expected


@settings(deadline=None, derandomize=True)
@given(
    arrays(np.float32, 8, elements=FEW_VALUES),
    st.lists(st.lists(st.integers(1, 8), max_size=6), min_size=1, max_size=5),
    st.integers(1, 8),
    st.integers(1, 3),
)
def test_best_items_are_those_of_a_full_stable_sort_without_the_history(scores, histories, k, batch_size):
    expected = []
    for history in histories:
        left = scores.copy()
        left[np.array(history, int) - 1] = -np.inf
        expected.append([column + 1 for column in best_by_sorting(left, k)])
    if min(map(len, expected)) < k:
        with pytest.raises(ValueError, match=f"fewer than {k} items left"):
            top_k(FixedScores(scores), rows(*histories), k, batch_size)
    else:
        assert top_k(FixedScores(scores), rows(*histories), k, batch_size).tolist() == expected


def test_no_list_is_made_of_scores_that_are_no_numbers():
    for scores in ([np.nan, 3, 2, 1], [1, 2, 3, np.nan]):
        with pytest.raises(ValueError, match="a score is NaN; give numbers, or -inf to items to leave out"):
            top_k(FixedScores(np.array(scores)), rows([2]), 1)


def test_choosing_the_best_leaves_the_scores_as_they_were():
    table = np.random.default_rng(0).random((3, 9), dtype=np.float32)
    before = table.copy()
    top_k(ScoresOfUser(table), rows([1], [2, 3], [5]), 2)
    assert (table == before).all()


def test_best_items_leave_out_the_history():
    assert top_k(FixedScores([9, 8, 7, 7, 5]), rows([1], [2, 3], [5]), 2, batch_size=2).tolist() == [
        [2, 3],
        [1, 4],
        [1, 2],
    ]


WORDS = Vocabulary(np.array(["a", "b, c", 'd"', "e f", "g"], dtype=object))


def ranks_in(lists, holdout, vocabulary=WORDS):
    """The ranks that user, item, score give, and the notes."""
    return run_ranks(*zip(*lists, strict=True), holdout, vocabulary)


def test_ranks_in_lists_by_hand():
    holdout = Holdout(rows([1], [2], [1, 2], [5], [5], [5]), np.array([3, 5, 4, 1, 1, 1]))
    lists = [
        (0, "a", 9),  # of the history
        (0, "e f", 3),
        (0, 'd"', 2),  # the target: behind one, and level with another
        (0, "g", 2),
        (0, "b, c", 1),
        ("1", "g", -5.5),  # the target, alone; an id may be a text
        (2, "nothing", 2),  # an item that the data do not have is one all the same
        (2, "e f", 1),
        (3, "b, c", 1),  # without the target
        (4, "b, c", 1),
        (4, "a", -np.inf),  # the target must not be recommended
        (77, "a", 1),  # nobody
    ]
    ranks, notes = ranks_in(lists, holdout)
    np.testing.assert_equal(ranks, [2.5, 1, 2, np.inf, np.inf, np.nan])  # nothing is known of the last
    assert [note.split(": ")[1] for note in notes] == ["1", "2", "1", "2"]
    np.testing.assert_equal(ranks_in(lists[::-1], holdout)[0], ranks)  # the score decides


def test_lists_of_which_none_holds_its_target_are_told_of():
    """Of 20 users; of fewer, it may be chance. One hit is enough."""

    def notes(users, hits=0):
        holdout = Holdout(rows(*[[1]] * users), np.full(users, 3))
        return ranks_in([(user, 'd"' if user < hits else "g", 1) for user in range(users)], holdout)[1]

    told = [note for note in notes(20) if note.startswith("no list holds its user's test item")]
    assert len(told) == 1 and told[0].endswith("(evaluate --run makes lists that do not)")
    for others in (notes(19), notes(20, hits=1)):
        assert not any("test item" in note for note in others)


def test_lists_that_make_no_sense_are_refused():
    holdout = Holdout(rows([1], [2]), np.array([3, 5]))
    with pytest.raises(ValueError, match="an item twice for a user"):
        ranks_in([(0, "g", 1), (1, "g", 1), (0, "g", 2)], holdout)
    with pytest.raises(ValueError, match="score that is NaN"):
        ranks_in([(0, "g", np.nan)], holdout)
    for user, item in (("u0", "g"), (0, "G")):
        with pytest.raises(ValueError, match=r"give the ids of the log, such as user 0, item a$"):
            ranks_in([(user, item, 1)], holdout)


def test_a_written_run_gives_the_same_metrics_here_and_to_an_evaluation_library(tmp_path):
    random = np.random.default_rng(3)
    table = random.standard_normal((80, 150)).astype(np.float32)
    histories = [random.permutation(150)[: random.integers(1, 20)] + 1 for _ in range(80)]
    targets = np.array([next(item for item in random.permutation(150) + 1 if item not in each) for each in histories])
    holdout, vocabulary = Holdout(rows(*histories), targets), Vocabulary(np.arange(150) * 10)
    table[np.arange(80), targets - 1] += 2
    table[:10, random.permutation(150)[:60]] = -np.inf  # fewer than a hundred are left to recommend
    write_run(tmp_path / "run.txt", ScoresOfUser(table), holdout.histories, vocabulary)
    lists = [line.split("\t") for line in (tmp_path / "run.txt").read_text().splitlines()]
    assert [int(line[3]) for line in lists[-100:]] == list(range(1, 101)) and len(lists) < 80 * 100
    full = target_ranks(ScoresOfUser(table), holdout, ["full"], progress=False)["full"]
    ranks, notes = ranks_in([(line[0], line[2], float(line[4])) for line in lists], holdout, vocabulary)
    np.testing.assert_equal(ranks, np.where(full <= 100, full, np.inf))
    assert not notes and np.isinf(ranks).any() and np.isfinite(ranks).sum() > 60
    truth = [ir_measures.Qrel(str(user), str((target - 1) * 10), 1) for user, target in enumerate(targets)]
    measures = {"hit@10": Success @ 10, "ndcg@10": nDCG @ 10, "mrr@10": RR @ 10}
    run = list(ir_measures.read_trec_run(str(tmp_path / "run.txt")))
    expected = ir_measures.calc_aggregate(measures.values(), truth, run)
    for name, measure in measures.items():
        assert metrics(ranks, [10])[name] == pytest.approx(expected[measure], abs=1e-9)


def test_equal_scores_are_written_in_the_order_of_the_vocabulary_and_the_history_not_at_all(tmp_path):
    write_run(tmp_path / "run.txt", FixedScores([1, 0.1, 1, 3, -np.inf]), rows([4], [1, 2]), WORDS, k=3)
    assert (tmp_path / "run.txt").read_text().splitlines() == [
        "0\tQ0\ta\t1\t1.0\tbertrec",
        '0\tQ0\td"\t2\t1.0\tbertrec',
        "0\tQ0\tb, c\t3\t0.1\tbertrec",
        "1\tQ0\te f\t1\t3.0\tbertrec",
        '1\tQ0\td"\t2\t1.0\tbertrec',
    ]


@pytest.mark.parametrize("preset", ["small", "ml-1m"])
def test_recorded_ranks_give_the_recorded_table(preset):
    table = json.loads((PROJECT / "results" / "table.json").read_text())[preset]["models"]
    models = recorded_ranks(PROJECT / "results", preset)
    assert models.keys() == table.keys()
    for name, seeds in models.items():
        for metric in ("hit@10", "ndcg@10"):
            recorded = table[name]["full"][metric]
            assert mean_over_seeds(seeds, metric).mean() == pytest.approx(recorded["mean"])
            assert len(seeds) == len(recorded["seeds"])


def test_ranks_are_kept_as_they_are(tmp_path):
    ranks = {"ours": {"full": np.array([1, 2.5, 70_000, np.inf]), "uniform-100": np.array([1, 1.5, 101])}}
    write_ranks(tmp_path / "new" / "ranks.npz", ranks)
    kept = read_ranks(tmp_path / "new" / "ranks.npz")
    assert {scorer: by_protocol.keys() for scorer, by_protocol in kept.items()} == {"ours": ranks["ours"].keys()}
    for protocol, expected in ranks["ours"].items():
        np.testing.assert_array_equal(kept["ours"][protocol], expected)


def test_nobody_to_rank_for_is_an_error():
    class Nothing:
        def score(self, histories):
            return np.zeros((len(histories), 3))

    with pytest.raises(ValueError, match="there is no user to rank for"):
        target_ranks(Nothing(), Holdout(rows(), np.array([], dtype=np.int32)))
    with pytest.raises(ValueError, match="no histories to recommend for"):
        top_k(Nothing(), rows())


def test_whole_numbers_are_scores_too():
    class Votes:
        def score(self, histories):
            return np.array([[3, 5, 4]] * len(histories))

    assert top_k(Votes(), rows([2], [1]), 2).tolist() == [[3, 1], [2, 3]]


def test_files_that_hold_no_ranks_are_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"results has ranks of beauty, medium, ml-1m, movietweetings, small; name one: --preset NAME"
    ):
        recorded_ranks(PROJECT / "results", "tiny")
    with pytest.raises(ValueError, match="has ranks of no preset"):
        recorded_ranks(tmp_path, "small")
    whole = (PROJECT / "results" / "ranks" / "small-seed0.npz").read_bytes()
    for content in (b"", b"text", whole[:1000], whole[:-10]):
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.npz is no file of ranks"):
            read_ranks(tmp_path / "x.npz")


def test_coverage_and_novelty_by_hand():
    lists = np.array([[1, 2], [1, 3]])
    assert coverage(lists, 6) == 1 / 2
    # of 8 users 8 have item 1, 4 have item 2, nobody has item 3: 0, 1 and 3 bits
    assert novelty(lists, np.array([8, 4, 0, 1, 1, 1]), users=8) == pytest.approx((0 + 1 + 0 + 3) / 4)


def test_gini_of_equal_and_of_single_exposure():
    assert gini(np.array([[1, 2], [3, 4]]), 4) == 0
    assert gini(np.array([[1], [1], [1]]), 4) == pytest.approx(3 / 4)  # one of four has all: 1 - 1/n
    exposure = np.array([0, 1, 3, 4])
    by_pairs = np.abs(exposure[:, None] - exposure).sum() / (2 * 4 * exposure.sum())  # its definition: mean difference
    assert gini(np.repeat([2, 3, 4], [1, 3, 4])[:, None], 4) == pytest.approx(by_pairs)


def test_intra_list_diversity_by_hand():
    features = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]], dtype=bool)
    assert intra_list_diversity(np.array([[1, 2, 3]]), features) == pytest.approx((1 / 2 + 1 + 1) / 3)
    with pytest.raises(ValueError, match="two items or more"):
        intra_list_diversity(np.array([[1], [2]]), features)
    assert intra_list_diversity(np.array([[1, 1]]), features) == intra_list_diversity(np.array([[4, 5]]), features) == 0
    assert intra_list_diversity(np.array([[1, 4]]), features) == 1


def test_everybody_gets_the_same_list_from_popularity(dataset):
    test = dataset.split.test
    lists = np.tile(np.arange(1, 11), (len(test.targets), 1))
    table = beyond_accuracy(lists, test, np.eye(len(dataset.vocabulary), dtype=bool))
    assert table["coverage"] == 10 / len(dataset.vocabulary)
    assert table["diversity of genres"] == 1  # every item has a genre of its own here
    assert table["Gini"] > 0.98
