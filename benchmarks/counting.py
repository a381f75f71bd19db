"""How far does baseline alone go, each model at its best settings, and how soon? Nothing is trained here.

    python benchmarks/baseline.py small --runs runs/small-seed0 runs/small-seed1

Every baseline model is tried with a few settings on validation data; the best one is tested once, and so is the best
sum of all (scores standardise for each history). `seconds` goes from before the ratings are read to the metrics of the
test, for that one setting. With `--runs`, trained models and their mixtures are compared with that sum on the same test
users. Writes results/counting-PRESET.json.
"""

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import pandas as pd
from record_run import write_result
from tqdm import tqdm

from bertrec_utils.evaluation.baselines import (
    EASE,
    ItemKNN,
    LinearNextItem,
    MarkovChain,
    Popularity,
    RecentPopularity,
    SmoothedMarkovChain,
)
from bertrec_utils.training.checkpoints import load
from bertrec_utils.data.dataset import Dataset, load_dataset
from bertrec_utils.evaluation.ranking import (
    Interval,
    evaluate,
    bootstrap_interval,
    metrics,
    per_user_metrics,
    target_ranks,
)
from bertrec_utils.evaluation.mixture import standardise
from bertrec_utils.settings import PRESETS, get_preset


def grid(**settings: list) -> list[dict]:
    return [dict(zip(settings, values, strict=True)) for values in itertools.product(*settings.values())]


def counted(kind):
    """How a model of this kind is made from a data set and its settings."""
    return lambda dataset, **settings: kind(dataset.split.train, len(dataset.vocabulary), **settings)


def recent_popularity(dataset: Dataset, days: float) -> RecentPopularity:
    train, ratings = dataset.split.train, dataset.log.ratings
    trained = pd.MultiIndex.from_arrays(
        [np.repeat(train.users, train.lengths), dataset.vocabulary.item_ids(train.tokens)]
    )
    is_trained = pd.MultiIndex.from_frame(ratings[["user", "item"]]).isin(trained)
    return RecentPopularity(ratings[is_trained], dataset.vocabulary, days)


MODELS = {
    "Popularity": (counted(Popularity), [{}]),
    "recent popularity": (recent_popularity, grid(days=[30, 90, 365])),
    "Markov chain": (counted(MarkovChain), [{}]),
    "smoothed chain": (
        counted(SmoothedMarkovChain),
        grid(weights=[(1.0,), (0.6, 0.25, 0.15), (0.4, 0.3, 0.2, 0.1)], pseudo_counts=[20.0, 80.0, 160.0]),
    ),
    "item kNN": (
        counted(ItemKNN),
        grid(similar_items=[200, 1000, 5000], shrinkage=[0.0, 5.0, 20.0], decay=[0.3, 0.5, 0.7, 0.9]),
    ),
    "EASE": (counted(EASE), grid(ridge=[100.0, 200.0, 500.0], decay=[0.6, 0.7, 0.8, 0.9])),
    "linear next": (counted(LinearNextItem), grid(decays=[(0.8,), (0.5, 0.9)], ridge=[100.0, 200.0, 400.0])),
}
SHARES = (0.0, 0.25, 0.5, 1.0)  # of the smoothed chain and of EASE, beside 1 of the linear model


class Sum:
    """The weighted sum of models' standardise scores."""

    def __init__(self, models, weights):
        self.parts = [(model, weight) for model, weight in zip(models, weights, strict=True) if weight]

    def score(self, histories):
        return sum(weight * standardise(model.score(histories)) for model, weight in self.parts)


def full(model, holdout):
    return target_ranks(model, holdout, ["full"], progress=False)["full"]


def quality(model, holdout):
    return metrics(full(model, holdout), [10])["ndcg@10"]


def seconds_to_test(preset, build, settings) -> float:
    started = time.perf_counter()
    dataset = load_dataset(preset)
    quality(build(dataset, **settings), dataset.split.test)
    return time.perf_counter() - started


def difference(one: list[np.ndarray], other: list[np.ndarray]) -> Interval:
    """Of NDCG@10, user by user, each side averaged over its seeds."""
    sides = [np.mean([per_user_metrics(ranks, [10])["ndcg@10"] for ranks in seeds], axis=0) for seeds in (one, other)]
    return bootstrap_interval(sides[0] - sides[1])


def best_models(preset, dataset: Dataset) -> tuple[dict, dict]:
    """name -> what is written about it, name -> the model, for every model at its best settings and for their sum."""
    split, table, models = dataset.split, {}, {}
    for name, (build, settings) in tqdm(MODELS.items(), desc="models"):
        tried = [(quality(build(dataset, **each), split.validation), each) for each in settings]
        _, best = max(tried, key=lambda pair: pair[0])
        models[name] = build(dataset, **best)
        table[name] = {"tried": tried, "settings": best, "seconds": seconds_to_test(preset, build, best)}
    parts = [models[name] for name in ("linear next", "smoothed chain", "EASE")]
    sums = [Sum(parts, (1.0, *shares)) for shares in itertools.product(SHARES, SHARES)]
    tried = [(quality(each, split.validation), [weight for _, weight in each.parts], each) for each in tqdm(sums)]
    _, weights, models["together"] = max(tried, key=lambda triple: triple[0])
    table["together"] = {"settings": dict(zip(("linear next", "smoothed chain", "EASE"), weights, strict=False))}
    for name, model in models.items():
        table[name]["validation"] = evaluate(model, split.validation, ["full"], progress=False)["full"]
        table[name]["test"] = evaluate(model, split.test, progress=False)
    return table, models


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="folders of trained models")
    arguments = parser.parse_args()
    preset = get_preset(arguments.preset)
    dataset = load_dataset(preset)
    table, models = best_models(preset, dataset)
    for name, row in table.items():
        print(f"{name:16} {row['settings']}: test NDCG@10 {row['test']['full']['ndcg@10']:.4f}", end="")
        print(f", {row['seconds']:.1f} s" if "seconds" in row else "")
    comparison = {}
    if arguments.runs:
        together = full(models["together"], dataset.split.test)
        checkpoints = [load(folder) for folder in arguments.runs]
        for checkpoint in checkpoints:
            checkpoint.check(dataset)
        scorers = {
            "transformer alone": [checkpoint.model for checkpoint in checkpoints],
            "transformer with baseline": [checkpoint.with_linear(dataset) for checkpoint in checkpoints],
        }
        for name, each in scorers.items():
            found = difference([full(scorer, dataset.split.test) for scorer in each], [together])
            comparison[name] = found._asdict()
            print(f"{name} - baseline together: {found}")
    runs = "".join(f" runs/{folder.name}" for folder in arguments.runs)
    command = f"python benchmarks/baseline.py {arguments.preset}" + (f" --runs{runs}" if runs else "")
    write_result(f"counting-{arguments.preset}", command, models=table, difference_to_together=comparison)


if __name__ == "__main__":
    main()
