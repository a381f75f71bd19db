"""How far do baselines go, each at its best settings, and how soon? Nothing is trained here.

    python benchmarks/baselines.py small

Every baseline is tried with a few settings on validation data, and tested once at the best. `seconds` goes from before
the ratings are read to the metrics of the test, for that one setting. Writes results/baselines-PRESET.json, after each
baseline; settings that are recorded there are not tried again, and `date` says when a baseline was tested.
`pctm-with-linear` is mixed as the networks are, to see whether any two models would gain as much from it.

On SEALED data (results/sealed.md) a baseline has the settings that were chosen on `small`; only the weight of
`pctm-with-linear` is chosen there, as that of a network is. Where there are more than MAX_ITEMS items, baselines that
need a matrix of all pairs are left out.
"""

import argparse
import datetime
import itertools
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from recording import SEALED, mixture_name, path_of, read_result, require_plan, write_result
from tqdm import tqdm

from bertrec_utils.data.dataset import Dataset, load_dataset
from bertrec_utils.data.sequences import Holdout
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
    linear_baseline,
)
from bertrec_utils.evaluation.mixture import Mixture, ndcg_by_weight
from bertrec_utils.evaluation.ranking import Scorer, evaluate, metrics, target_ranks
from bertrec_utils.settings import PRESETS, Settings, get_preset


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
    "pctm": Baseline(
        PCTM, grid(window=[20, 40], pseudo_counts=[50.0, 150.0, 500.0], decay=[0.6, 0.8], popularity=[-0.6, -0.4, -0.2])
    ),
    "item-knn": Baseline(
        ItemKNN, grid(neighbours=[200, 1000, 5000], shrinkage=[0.0, 5.0, 20.0], decay=[0.3, 0.5, 0.7, 0.9])
    ),
    "ease": Baseline(EASE, grid(ridge=[100.0, 200.0, 500.0, 1000.0, 2000.0], decay=[0.6, 0.7, 0.8, 0.9])),
    "linear": Baseline(LinearNextItem, grid(decays=[(0.8,), (0.5, 0.9)], ridge=[100.0, 200.0, 400.0, 800.0])),
}

MIXTURES = ("pctm-with-linear", "pctm-with-chain")
ALL_PAIRS = ("item-knn", "ease", "linear")  # they need a matrix of all pairs of items
# The copy of ML-1M that was at hand has the exact order, but placeholders for half of its times. Beauty has no times.
LEFT_OUT = {"ml-1m": ["recent-popularity"], "beauty": ["recent-popularity"]}


def build(name: str, dataset: Dataset, settings: dict[str, Any]) -> Scorer:
    """A baseline at given settings; of MIXTURES they are those of pctm, and the weight."""
    if name not in MIXTURES:
        return BASELINES[name].build(dataset, **settings)
    pctm = BASELINES["pctm"].build(dataset, **{key: value for key, value in settings.items() if key != "weight"})
    return Mixture(pctm, linear_baseline(dataset.split.train, len(dataset.vocabulary)), settings["weight"])


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


def seconds_to_test(name: str, preset: Settings, settings: dict[str, Any]) -> float:
    started = time.perf_counter()
    dataset = load_dataset(preset.data)
    quality(build(name, dataset, settings), dataset.split.test)
    return time.perf_counter() - started


def as_recorded(value: Any) -> Any:
    return json.loads(json.dumps(value))


def settings_to_try(name: str, preset: Settings) -> list[dict[str, Any]]:
    if preset.preset in SEALED:
        return [read_result("baselines-small")["models"][name]["settings"]]
    return as_recorded(BASELINES[name].tried)


def row_of(name: str, preset: Settings, dataset: Dataset, recorded: dict) -> dict:
    """What is recorded of a baseline, from what is `recorded` already, if anything."""
    settings = settings_to_try(name, preset)
    if [each for _, each in recorded.get("tried", [])] == settings:
        return recorded
    known = {json.dumps(each): found for found, each in recorded.get("tried", [])}
    validation, tried = dataset.split.validation, []
    for each in settings:
        found = known.get(json.dumps(each))
        tried.append((quality(build(name, dataset, each), validation) if found is None else found, each))
    _, best = max(tried, key=lambda pair: pair[0])
    if recorded.get("settings") == best:
        return recorded | {"tried": tried}
    return tested(name, preset, dataset, best, tried)


def mixed_row(name: str, preset: Settings, dataset: Dataset, pctm: dict, recorded: dict) -> dict:
    """What is recorded of one of MIXTURES, whose weight is chosen as that of a network is."""
    if recorded and recorded["settings"].items() >= pctm["settings"].items():
        return recorded
    mixture = build(name, dataset, pctm["settings"] | {"weight": 0.0})
    by_weight = ndcg_by_weight(mixture.network, mixture.baseline, dataset.split.validation)
    tried = [(found, pctm["settings"] | {"weight": weight}) for weight, found in by_weight.items()]
    _, best = max(tried, key=lambda pair: pair[0])
    return tested(name, preset, dataset, best, tried)


def tested(name: str, preset: Settings, dataset: Dataset, settings: dict, tried: list) -> dict:
    scorer = build(name, dataset, settings)
    return {
        "date": datetime.date.today().isoformat(),
        "tried": tried,
        "settings": settings,
        "seconds": seconds_to_test(name, preset, settings),
        "validation": evaluate(scorer, dataset.split.validation, ["full"], progress=False)["full"],
        "test": evaluate(scorer, dataset.split.test, progress=False),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    name = parser.parse_args().preset
    require_plan(name)
    file, preset = f"baselines-{name}", get_preset(name)
    dataset, table = load_dataset(preset.data), read_result(file)["models"] if path_of(file).exists() else {}
    names = [each for each in BASELINES if each not in LEFT_OUT.get(name, [])]
    names.append(f"pctm-{mixture_name(len(dataset.vocabulary))}")
    if len(dataset.vocabulary) > MAX_ITEMS:
        names = [each for each in names if each not in ALL_PAIRS]
        print(f"{len(dataset.vocabulary):,} items are too many for {', '.join(ALL_PAIRS)}")
    for each in tqdm(names, desc="baselines"):
        recorded = table.get(each, {})
        if each in MIXTURES:
            row = mixed_row(each, preset, dataset, table["pctm"], recorded)
        else:
            row = row_of(each, preset, dataset, recorded)
        if row is not table.get(each):
            table[each] = row
            write_result(file, f"python benchmarks/baselines.py {name}", models=table)
    for each, row in table.items():
        print(f"{each:18} test NDCG@10 {row['test']['full']['ndcg@10']:.4f}, {row['seconds']:.1f} s, {row['settings']}")


if __name__ == "__main__":
    main()
