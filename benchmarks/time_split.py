"""Leave-one-out lets a model train on what others did after the day of the test. What if it may not?

    python benchmarks/time_split.py small --seeds 0 1 2

The ratings before the .9 quantile of the timestamps train the recipes and the baselines. The targets come after it:
`next`, each user's first item, and `successive`, every item (the mean for each user, then over users). The recipes have
their settings of the preset; those of the baselines, out of what baselines.py tries, are chosen on the validation data
of this split. Not for preset medium: its histories end when the release of each user was cut (data/README.md). Writes
results/time-split-PRESET.json, with the difference of each two models, user by user.
"""

import argparse
import itertools
import shlex
import sys

import numpy as np
import pandas as pd
from baselines import BASELINES, full_ranks, quality
from recording import require_plan, write_result
from tqdm import tqdm

from bertrec_utils.data.dataset import Dataset, load_dataset
from bertrec_utils.data.sequences import Split
from bertrec_utils.data.splits import split_in_time
from bertrec_utils.evaluation.baselines import RecentPopularity
from bertrec_utils.evaluation.mixture import fit_mixture
from bertrec_utils.evaluation.ranking import Scorer, bootstrap_interval, per_user_metrics
from bertrec_utils.settings import PRESETS, get_preset
from bertrec_utils.training.trainer import fit, new_model

QUANTILE = 0.9
RECIPES = ("modern-both", "modern-next", "bert4rec")


def of_users(scorer: Scorer, split: Split) -> dict[str, np.ndarray]:
    """hit@10 and ndcg@10 of each user (U,), as "next hit@10" and so on."""
    table = {}
    for target, holdout in (("next", split.test), ("successive", split.successive)):
        found = per_user_metrics(full_ranks(scorer, holdout), [10])
        for metric in ("hit@10", "ndcg@10"):
            table[f"{target} {metric}"] = pd.Series(found[metric]).groupby(holdout.histories.users).mean().to_numpy()
    return table


def summary(by_seed: list[dict[str, np.ndarray]]) -> dict[str, dict]:
    return {
        name: bootstrap_interval(np.mean([each[name] for each in by_seed], axis=0))._asdict()
        | {"seeds": [each[name].mean() for each in by_seed]}
        for name in by_seed[0]
    }


def differences_of(models: dict[str, list[dict[str, np.ndarray]]]) -> dict[str, dict[str, dict]]:
    """Of the ndcg@10, each side averaged over its seeds."""
    found = {}
    for one, other in itertools.combinations(models, 2):
        found[f"{one} - {other}"] = {}
        for name in ("next ndcg@10", "successive ndcg@10"):
            left, right = (np.mean([seed[name] for seed in models[each]], axis=0) for each in (one, other))
            found[f"{one} - {other}"][name] = bootstrap_interval(left - right)._asdict()
    return found


def baselines_of(dataset: Dataset) -> dict[str, tuple[Scorer, dict]]:
    """Each at its best settings, and these."""
    found = {}
    for name, baseline in tqdm(BASELINES.items(), desc="baselines"):
        quality_of = {
            position: quality(baseline.build(dataset, **settings), dataset.split.validation)
            for position, settings in enumerate(baseline.tried)
        }
        best = baseline.tried[max(quality_of, key=quality_of.__getitem__)]
        found[name] = baseline.build(dataset, **best), best
    ratings, (_, days) = dataset.log.ratings, found["recent-popularity"]
    early = ratings[ratings.timestamp < ratings.timestamp.quantile(QUANTILE)]  # the validation items, too
    return found | {"recent-popularity": (RecentPopularity(early, dataset.vocabulary, **days), days)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    require_plan(arguments.preset)
    log = load_dataset(get_preset(arguments.preset).data).log
    vocabulary, split = split_in_time(log.ratings, QUANTILE)
    dataset = Dataset(vocabulary, split.train, log, other_split=split)
    baselines = baselines_of(dataset)
    models = {name: [of_users(model, split)] for name, (model, _) in baselines.items()}
    linear, _ = baselines["linear"]
    for recipe in RECIPES:
        settings = get_preset(arguments.preset, recipe)
        alone, mixed = [], []
        for seed in arguments.seeds:
            model = new_model(dataset, settings, seed)
            fit(model, dataset, settings, seed=seed)
            alone.append(of_users(model, split))
            mixed.append(of_users(fit_mixture(model, linear, split.validation), split))
        models[recipe], models[f"{recipe}-with-linear"] = alone, mixed
        print(recipe, {name: round(row["mean"], 4) for name, row in summary(alone).items()}, flush=True)
    sizes = {"train users": len(split.train), "test users": len(split.test)}
    write_result(
        f"time-split-{arguments.preset}",
        f"python benchmarks/time_split.py {shlex.join(sys.argv[1:])}",
        quantile=QUANTILE,
        data=sizes | {"targets after the cut": len(split.successive), "items": len(vocabulary)},
        models={name: summary(by_seed) for name, by_seed in models.items()},
        settings={name: settings for name, (_, settings) in baselines.items()},
        differences=differences_of(models),
    )


if __name__ == "__main__":
    main()
