import numpy as np
import pytest

from bertrec_utils.data.sequences import Holdout
from bertrec_utils.evaluation import baselines, mixture
from bertrec_utils.evaluation.baselines import LinearNextItem, SmoothedMarkovChain, linear_baseline
from bertrec_utils.evaluation.mixture import Mixture, fit_mixture, standardise
from bertrec_utils.evaluation.ranking import metrics, target_ranks
from bertrec_utils.model.modern import ModernTransformer
from bertrec_utils.training.trainer import new_model
from conftest import model_settings, rows, settings


def test_standardised_by_hand():
    scores = standardise(np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]], dtype=np.float32))
    np.testing.assert_allclose(scores, [[-np.sqrt(1.5), 0, np.sqrt(1.5)], [0, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(standardise(np.full((1, 5000), 0.1, dtype=np.float32)), 0, atol=1e-6)


def test_a_mixture_takes_finite_scores_only():
    with pytest.raises(ValueError, match="a score that is not finite; every item needs one"):
        Mixture(Fixed([0, 1, 2]), Fixed([1, -np.inf, 2]), 0.5).score(rows([1]))


class Fixed:
    """Scores that do not depend on the history."""

    def __init__(self, scores):
        self.scores, self.item_count = np.array(scores, dtype=np.float32), len(scores)
        self.users_scored = 0

    def score(self, histories):
        self.users_scored += len(histories)
        return np.tile(self.scores, (len(histories), 1))


def test_mixture_by_hand():
    scores = Mixture(Fixed(np.log([0.5, 0.25, 0.25])), Fixed([1.0, 2.0, 3.0]), 0.5).score(rows([1], [2]))
    expected = np.log([0.5, 0.25, 0.25]) + 0.5 * np.array([-np.sqrt(1.5), 0, np.sqrt(1.5)])
    np.testing.assert_allclose(scores, [expected, expected], rtol=1e-6)


def test_a_mixture_takes_the_networks_scores_as_log_probabilities():
    """Whatever constant a network adds to the scores of a history."""
    network, baseline = Fixed(np.log([0.5, 0.25, 0.25]) + 7), Fixed([1.0, 2.0, 3.0])
    log_probabilities, _ = Mixture(network, baseline, 0.5).parts(rows([1], [2]))
    np.testing.assert_allclose(np.exp(log_probabilities), [[0.5, 0.25, 0.25]] * 2, rtol=1e-6)
    scores = Mixture(network, baseline, 0.5).score(rows([1]))
    np.testing.assert_allclose(scores, Mixture(Fixed(np.log([0.5, 0.25, 0.25])), baseline, 0.5).score(rows([1])))


@pytest.fixture
def holdout():
    """Forty users who have seen item 1 and then take one of items 2 to 20."""
    return Holdout(rows(*([1] for _ in range(40))), np.random.default_rng(0).integers(2, 21, 40))


def test_what_knows_nothing_gets_no_weight(holdout):
    useful, useless = np.bincount(holdout.targets - 1, minlength=20), -np.bincount(holdout.targets - 1, minlength=20)
    assert fit_mixture(Fixed(useful), Fixed(useless), holdout).weight == 0
    assert fit_mixture(Fixed(np.zeros(20)), Fixed(useful), holdout).weight > 0


def test_the_weight_is_the_best_of_those_tried(dataset):
    network = new_model(dataset, settings(width=16))
    baseline = linear_baseline(dataset.split.train, network.item_count)
    qualities = [
        metrics(target_ranks(Mixture(network, baseline, weight), dataset.split.validation, ["full"])["full"])
        for weight in mixture.WEIGHTS
    ]
    best = max(quality["ndcg@10"] for quality in qualities)
    chosen = fit_mixture(network, baseline, dataset.split.validation).weight
    assert qualities[mixture.WEIGHTS.index(chosen)]["ndcg@10"] == best > qualities[0]["ndcg@10"]


def test_few_users_are_enough_where_many_do_not_fit(monkeypatch):
    """The baseline knows what the first ten users take; all others take what the network says, by a hair. A log may be
    in any order: those who stand for all must not be the first ones."""
    targets = np.array([2] * 10 + [3] * 90)
    holdout = Holdout(rows(*([1] for _ in targets)), targets)
    network, baseline = np.zeros(20), np.zeros(20)
    network[2], baseline[1], baseline[2] = 0.01, 1, -1
    assert fit_mixture(Fixed(network), Fixed(baseline), holdout.rows(np.arange(10))).weight > 0
    assert fit_mixture(Fixed(network), Fixed(baseline), holdout).weight == 0
    monkeypatch.setattr(mixture, "MAX_SCORES", 20 * 10)
    few = Fixed(network)
    assert fit_mixture(few, Fixed(baseline), holdout).weight == 0
    assert few.users_scored == 10


def test_the_baseline_of_a_large_catalogue_is_the_markov_chain(monkeypatch):
    train = rows([1, 2, 3], [3, 2, 1])
    assert isinstance(linear_baseline(train, 3), LinearNextItem)
    monkeypatch.setattr(baselines, "MAX_ITEMS", 2)
    baseline = linear_baseline(train, 3)
    assert isinstance(baseline, SmoothedMarkovChain)
    assert np.isfinite(
        Mixture(ModernTransformer(3, model_settings(width=8)), baseline, 0.3).score(rows([1], [2, 3]))
    ).all()
