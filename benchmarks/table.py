"""One table of all recorded runs and baselines, results/table.json: docs/results.md and notebook 04 are made from it.

    BERTREC_DATA=FOLDER python benchmarks/table.py

data set -> models -> name -> protocol -> metric -> the mean over seeds, `low` and `high` (its 95 % bootstrap interval
over the test users) and `seeds`, the value of each. Beside the protocols, `minutes` of training. And data set ->
differences -> "modern-both - modern-next" and so on: of the full NDCG@10, user by user.

What is resampled are the ranks of the test users, in results/ranks. They are made once, from the trained models in
runs/, and must give the metrics that were recorded.
"""

import argparse
import itertools
from functools import cache

import numpy as np
import recording
from baselines import BASELINES, difference
from recording import model_name, read_result, write_result
from tqdm import tqdm

from bertrec_utils.common import PROJECT, replace_file
from bertrec_utils.data.dataset import Dataset, load_dataset
from bertrec_utils.evaluation.ranking import (
    PROTOCOLS,
    Scorer,
    bootstrap_interval,
    metrics,
    per_user_metrics,
    target_ranks,
)
from bertrec_utils.settings import get_preset
from bertrec_utils.training.checkpoints import load

PRESETS = ("ml-1m", "medium", "small")
CUTOFF = 10
Models = dict[str, tuple[list[dict[str, np.ndarray]], list[float]]]  # protocol -> ranks of each seed; and minutes


@cache
def data_of(preset: str) -> Dataset:
    """Read only where ranks are not yet kept."""
    return load_dataset(get_preset(preset).data)


def keep_ranks(name: str, scorers: dict[str, Scorer], dataset: Dataset) -> None:
    """Write the ranks of the test users, whole or half numbers, as results/ranks/NAME.npz: "SCORER/PROTOCOL"."""
    doubled = {
        f"{key}/{protocol}": np.rint(2 * ranks).astype(np.uint32)
        for key, scorer in scorers.items()
        for protocol, ranks in target_ranks(scorer, dataset.split.test, progress=False).items()
    }

    def write(partial):
        with open(partial, "wb") as file:
            np.savez_compressed(file, **doubled)

    path_of_ranks(name).parent.mkdir(exist_ok=True)
    replace_file(path_of_ranks(name), write)


def path_of_ranks(name: str):
    return recording.RESULTS / "ranks" / f"{name}.npz"


def kept_ranks(name: str, recorded: dict[str, dict]) -> dict[str, dict[str, np.ndarray]]:
    """scorer -> protocol -> ranks (U,); ValueError if they do not give the `recorded` metrics of each scorer."""
    ranks = {}
    with np.load(path_of_ranks(name)) as kept:
        for key, doubled in kept.items():
            scorer, protocol = key.split("/")
            ranks.setdefault(scorer, {})[protocol] = doubled / 2
            found, expected = metrics(doubled / 2), recorded[scorer][protocol]
            if not all(abs(found[metric] - value) < 5e-5 for metric, value in expected.items()):
                raise ValueError(f"the ranks of {key} in {path_of_ranks(name)} do not give the recorded metrics")
    return ranks


def runs_of(preset: str) -> Models:
    """Every recorded run, its network alone and its mixture."""
    models = {}
    for path in tqdm(sorted(recording.RESULTS.glob(f"{preset}-*seed*.json")), desc=preset):
        recorded = read_result(path.stem)
        if not path_of_ranks(path.stem).exists():
            checkpoint, dataset = load(PROJECT / "runs" / path.stem), data_of(preset)
            checkpoint.check(dataset)
            scorers = {"test": checkpoint.model, "test-with-linear": checkpoint.with_linear(dataset)}
            keep_ranks(path.stem, scorers, dataset)
        ranks = kept_ranks(path.stem, recorded)
        for test, ending in (("test", ""), ("test-with-linear", "-with-linear")):
            seeds, minutes = models.setdefault(model_name(recorded["recipe"], recorded["start"]) + ending, ([], []))
            seeds.append(ranks[test])
            minutes.append(recorded["history"][-1]["seconds"] / 60)
    return models


def baselines_of(preset: str) -> Models:
    """The baselines, at the settings that baselines.py has chosen."""
    name = f"baselines-{preset}"
    recorded = {each: row for each, row in read_result(name)["models"].items() if each in BASELINES}
    if not path_of_ranks(name).exists():
        dataset = data_of(preset)
        scorers = {each: BASELINES[each].build(dataset, **row["settings"]) for each, row in recorded.items()}
        keep_ranks(name, scorers, dataset)
    ranks = kept_ranks(name, {each: row["test"] for each, row in recorded.items()})
    return {each: ([ranks[each]], [row["seconds"] / 60]) for each, row in recorded.items()}


def row_of(seeds: list[dict[str, np.ndarray]], minutes: list[float]) -> dict:
    row = {}
    for protocol in PROTOCOLS:
        by_seed = [per_user_metrics(ranks[protocol], [CUTOFF]) for ranks in seeds]
        row[protocol] = {
            metric: bootstrap_interval(np.mean([each[metric] for each in by_seed], axis=0))._asdict()
            | {"seeds": [each[metric].mean() for each in by_seed]}
            for metric in by_seed[0]
        }
    return row | {"minutes": float(np.mean(minutes))}


def differences_of(models: Models) -> dict[str, dict[str, float]]:
    fulls = {name: [ranks["full"] for ranks in seeds] for name, (seeds, _) in models.items()}
    return {
        f"{one} - {other}": difference(fulls[one], fulls[other])._asdict()
        for one, other in itertools.combinations(fulls, 2)
    }


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    table = {}
    for preset in PRESETS:
        models = runs_of(preset) | baselines_of(preset)
        table[preset] = {
            "models": {name: row_of(*model) for name, model in tqdm(models.items(), desc="bootstrap")},
            "differences": differences_of(models),
        }
    write_result("table", "python benchmarks/table.py", **table)


if __name__ == "__main__":
    main()
