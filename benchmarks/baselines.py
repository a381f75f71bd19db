"""How far do baselines go, each at its best settings, and how soon? Nothing is trained here.

    python benchmarks/baselines.py small --runs runs/small-seed0 runs/small-seed1

Every baseline is tried with a few settings on validation data; the best one is tested once, and so is the best weighted
sum of three of them (scores standardised for each history). `seconds` goes from before the ratings are read to the
metrics of the test, for that one setting. With `--runs`, trained models and their mixtures are compared with that sum
on the same test users. Writes results/baselines-PRESET.json.
"""

import argparse
import itertools
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from recording import write_result
from tqdm import tqdm

from bertrec_utils.data.dataset import Dataset, load_dataset
from bertrec_utils.data.sequences import Holdout
from bertrec_utils.evaluation.baselines import (
    EASE,
    ItemKNN,
    LinearNextItem,
    MarkovChain,
    Popularity,
    RecentPopularity,
    SmoothedMarkovChain,
)
from bertrec_utils.evaluation.mixture import PrecomputedScores, standardise
from bertrec_utils.evaluation.ranking import (
    Interval,
    Scorer,
    bootstrap_interval,
    evaluate,
    metrics,
    per_user_metrics,
    target_ranks,
)
from bertrec_utils.settings import PRESETS, Settings, get_preset
from bertrec_utils.training.checkpoints import load


class Baseline(NamedTuple):
    kind: Callable[..., Scorer]
    tried: list[dict[str, Any]]  # settings

    def build(self, dataset: Dataset, **settings: Any) -> Scorer:
        if self.kind is RecentPopularity:
            return RecentPopularity(ratings_of_training(dataset), dataset.vocabulary, **settings)
        return self.kind(dataset.split.train, len(dataset.vocabulary), **settings)


def grid(**settings: list) -> list[dict[str, Any]]:
    return [dict(zip(settings, values, strict=True)) for values in itertools.product(*settings.values())]


def geometric(steps: int, decay: float = 0.8) -> tuple[float, ...]:
    return tuple(round(decay**step, 4) for step in range(steps))


BASELINES = {
    "popularity": Baseline(Popularity, [{}]),
    "recent-popularity": Baseline(RecentPopularity, grid(days=[7, 30, 90, 365])),
    "markov-chain": Baseline(MarkovChain, [{}]),
    "smoothed-chain": Baseline(
        SmoothedMarkovChain,
        grid(
            weights=[(0.6, 0.25, 0.15), (0.4, 0.3, 0.2, 0.1), *(geometric(steps) for steps in (8, 12, 20))],
            pseudo_counts=[5.0, 20.0, 80.0, 160.0],
        ),
    ),
    "item-knn": Baseline(
        ItemKNN, grid(neighbours=[200, 1000, 5000], shrinkage=[0.0, 5.0, 20.0], decay=[0.3, 0.5, 0.7, 0.9])
    ),
    "ease": Baseline(EASE, grid(ridge=[100.0, 200.0, 500.0, 1000.0], decay=[0.6, 0.7, 0.8, 0.9])),
    "linear": Baseline(LinearNextItem, grid(decays=[(0.8,), (0.5, 0.9)], ridge=[100.0, 200.0, 400.0])),
}
SUMMED = ("linear", "smoothed-chain", "ease")
SHARES = (0.0, 0.25, 0.5, 1.0)  # of the second and the third, beside 1 of the first


def ratings_of_training(dataset: Dataset) -> pd.DataFrame:
    """The rows of the log that are in the training sequences."""
    train, ratings = dataset.split.train, dataset.log.ratings
    trained = pd.MultiIndex.from_arrays(
        [np.repeat(train.users, train.lengths), dataset.vocabulary.item_ids(train.tokens)]
    )
    return ratings[pd.MultiIndex.from_frame(ratings[["user", "item"]]).isin(trained)]


def full_ranks(scorer: Scorer, holdout: Holdout) -> np.ndarray:
    return target_ranks(scorer, holdout, ["full"], progress=False)["full"]


def quality(scorer: Scorer, holdout: Holdout) -> float:
    return metrics(full_ranks(scorer, holdout), [10])["ndcg@10"]


def all_scores(scorer: Scorer, holdout: Holdout) -> np.ndarray:
    """(U, V): what would be asked for again and again."""
    batches = np.array_split(np.arange(len(holdout)), -(-len(holdout) // 256))
    return np.concatenate([scorer.score(holdout.histories.rows(batch)) for batch in batches])


def numbered(holdout: Holdout) -> Holdout:
    """The same, as `PrecomputedScores` needs it."""
    return replace(holdout, histories=replace(holdout.histories, users=np.arange(len(holdout))))


def seconds_to_test(preset: Settings, baseline: Baseline, settings: dict[str, Any]) -> float:
    started = time.perf_counter()
    dataset = load_dataset(preset.data)
    quality(baseline.build(dataset, **settings), dataset.split.test)
    return time.perf_counter() - started


def difference(one: list[np.ndarray], other: list[np.ndarray]) -> Interval:
    """Of NDCG@10, user by user, each side averaged over its seeds."""
    sides = [np.mean([per_user_metrics(ranks, [10])["ndcg@10"] for ranks in seeds], axis=0) for seeds in (one, other)]
    return bootstrap_interval(sides[0] - sides[1])


def weighted_sum(scores: dict[str, np.ndarray], weights: dict[str, float]) -> Scorer:
    return PrecomputedScores(sum(weight * scores[name] for name, weight in weights.items()))


def best_sum(models: dict[str, Scorer], dataset: Dataset) -> tuple[dict[str, float], Scorer, Scorer]:
    """The weights of the best sum on validation data, and its scores of validation and test."""
    holdouts = [numbered(holdout) for holdout in (dataset.split.validation, dataset.split.test)]
    scores = [{name: standardise(all_scores(models[name], holdout)) for name in SUMMED} for holdout in holdouts]
    tried = [
        {name: weight for name, weight in zip(SUMMED, (1.0, *shares), strict=True) if weight}
        for shares in itertools.product(SHARES, SHARES)
    ]
    weights = max(tried, key=lambda weights: quality(weighted_sum(scores[0], weights), holdouts[0]))
    return weights, *(weighted_sum(of_holdout, weights) for of_holdout in scores)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="folders of trained models")
    arguments = parser.parse_args()
    preset = get_preset(arguments.preset)
    dataset = load_dataset(preset.data)
    split, table, models = dataset.split, {}, {}
    for name, baseline in tqdm(BASELINES.items(), desc="baselines"):
        tried = [(quality(baseline.build(dataset, **each), split.validation), each) for each in baseline.tried]
        _, best = max(tried, key=lambda pair: pair[0])
        models[name] = baseline.build(dataset, **best)
        table[name] = {"tried": tried, "settings": best, "seconds": seconds_to_test(preset, baseline, best)}
        table[name] |= {
            "validation": evaluate(models[name], split.validation, ["full"], progress=False)["full"],
            "test": evaluate(models[name], split.test, progress=False),
        }
    weights, validation, together = best_sum(models, dataset)
    table["together"] = {
        "settings": weights,
        "validation": evaluate(validation, numbered(split.validation), ["full"], progress=False)["full"],
        "test": evaluate(together, numbered(split.test), progress=False),
    }
    for name, row in table.items():
        print(f"{name:18} {row['settings']}: test NDCG@10 {row['test']['full']['ndcg@10']:.4f}", end="")
        print(f", {row['seconds']:.1f} s" if "seconds" in row else "")
    comparison = {}
    if arguments.runs:
        ranks = full_ranks(together, numbered(split.test))
        checkpoints = [load(folder) for folder in arguments.runs]
        for checkpoint in checkpoints:
            checkpoint.check(dataset)
        recipe = checkpoints[0].settings.recipe
        scorers = {
            recipe: [checkpoint.model for checkpoint in checkpoints],
            f"{recipe}-with-linear": [checkpoint.with_linear(dataset) for checkpoint in checkpoints],
        }
        for name, each in scorers.items():
            found = difference([full_ranks(scorer, split.test) for scorer in each], [ranks])
            comparison[name] = found._asdict()
            print(f"{name} - baselines together: {found}")
    command = f"python benchmarks/baselines.py {shlex.join(sys.argv[1:])}"
    write_result(f"baselines-{arguments.preset}", command, models=table, difference_to_together=comparison)


if __name__ == "__main__":
    main()
