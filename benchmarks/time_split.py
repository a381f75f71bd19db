"""Leave-one-out lets a model train on what others did after the day of the test. What if it may not?

    python benchmarks/time_split.py small --seeds 0 1 2

The ratings before the .9 quantile of the timestamps train the recipes and the baseline models; asked is what came after
it: `next`, each user's first film, and `successive`, every film (the mean for each user, then over users). Settings are
those of leave-one-out; the days of recent popularity are chosen on the validation of this split. Writes
results/time-split-PRESET.json.
"""

import argparse

import numpy as np
import pandas as pd
from record_run import write_result

from bertrec_utils.evaluation.baselines import (
    LinearNextItem,
    MarkovChain,
    Popularity,
    RecentPopularity,
    SmoothedMarkovChain,
)
from bertrec_utils.data.dataset import Dataset
from bertrec_utils.evaluation.ranking import evaluate, bootstrap_interval, per_user_metrics, target_ranks
from bertrec_utils.evaluation.mixture import fit_mixture
from bertrec_utils.settings import PRESETS, get_preset
from bertrec_utils.data.releases import load_movielens
from bertrec_utils.data.sequences import Split, split_in_time
from bertrec_utils.training.trainer import fit, new_model

QUANTILE = 0.9
DAYS = (7, 30, 90, 365)
RECIPES = ("ours", "sasrec-warm")


def of_users(scorer, split: Split) -> dict[str, np.ndarray]:
    """hit@10 and ndcg@10 of each user (U,), as "next hit@10" and so on."""
    table = {}
    for target, holdout in (("next", split.test), ("following", split.following)):
        found = per_user_metrics(target_ranks(scorer, holdout, ["full"], progress=False)["full"], [10])
        for metric in ("hit@10", "ndcg@10"):
            table[f"{target} {metric}"] = pd.Series(found[metric]).groupby(holdout.histories.users).mean().to_numpy()
    return table


def summary(by_seed: list[dict[str, np.ndarray]]) -> dict:
    return {
        name: bootstrap_interval(np.mean([each[name] for each in by_seed], axis=0))._asdict()
        | {"seeds": [each[name].mean() for each in by_seed]}
        for name in by_seed[0]
    }


def counting_models(ratings, vocabulary, split):
    def quality(model):
        return evaluate(model, split.validation, ["full"], progress=False)["full"]["ndcg@10"]

    early = ratings[ratings.timestamp < ratings.timestamp.quantile(QUANTILE)]
    last = pd.MultiIndex.from_arrays([split.train.users, vocabulary.item_ids(split.validation.targets)])
    is_last = pd.MultiIndex.from_frame(early[["user", "item"]]).isin(last)
    best = max(DAYS, key=lambda days: quality(RecentPopularity(early[~is_last], vocabulary, days)))
    kinds = {"popularity": Popularity, "markov-chain": MarkovChain, "smoothed-chain": SmoothedMarkovChain}
    models = {
        name: kind(split.train, len(vocabulary)) for name, kind in (kinds | {"linear-next": LinearNextItem}).items()
    }
    return models | {f"recent-popularity ({best} days)": RecentPopularity(early, vocabulary, best)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    ratings = load_movielens(get_preset(arguments.preset).release).ratings
    vocabulary, split = split_in_time(ratings, QUANTILE)
    dataset = Dataset(vocabulary, split.train, other_split=split)
    baseline = counting_models(ratings, vocabulary, split)
    models = {name: summary([of_users(model, split)]) for name, model in baseline.items()}
    for recipe in RECIPES:
        alone, mixed = [], []
        for seed in arguments.seeds:
            model = new_model(dataset, get_preset(arguments.preset, recipe), seed)
            fit(model, dataset, seed=seed)
            alone.append(of_users(model, split))
            mixed.append(of_users(fit_mixture(model, baseline["linear-next"], split.validation), split))
        models[recipe], models[f"{recipe}-with-linear"] = summary(alone), summary(mixed)
        print(recipe, {name: round(row["mean"], 4) for name, row in models[recipe].items()}, flush=True)
    seeds = " ".join(map(str, arguments.seeds))
    sizes = {"train users": len(split.train), "test users": len(split.test.targets)}
    write_result(
        f"time-split-{arguments.preset}",
        f"python benchmarks/time_split.py {arguments.preset} --seeds {seeds}",
        quantile=QUANTILE,
        data=sizes | {"questions after the cut": len(split.following.targets), "items": len(vocabulary)},
        models=models,
    )


if __name__ == "__main__":
    main()
