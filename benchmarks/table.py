"""One table of all recorded runs, peers and baselines, results/table.json: docs/results.md and 04b are made from it.

    BERTREC_DATA=FOLDER python benchmarks/table.py

data set -> models -> name -> protocol -> metric -> the mean over seeds, `low` and `high` (its 95 % bootstrap interval
over the test users) and `seeds`, the value of each. Beside the protocols, `validation`, the full NDCG@10 there.

A network is mixed with the linear baseline (`-with-linear`) or, where there are more than MAX_ITEMS items, with the
smoothed chain (`-with-chain`).

data set -> differences -> "modern-both - modern-next" and so on: of the full NDCG@10, user by user, each side averaged
over its seeds; `low` and `high`, the bootstrap interval over users; `over seeds too`, the interval (normal) when both
users and seeds are drawn, and its p value. How much a seed changes is pooled over the networks that have several, and
over the mixtures, so that a model of a single seed has its share as well. Where no model has several, it is not known,
and not counted. The verdict is that of the wider interval. Beside it, hit@10.

told -> the pairs that the prose speaks of, with their p values before and after Holm's correction for all of them.
Where that is .05 or more, "better" and "worse" are "undecided after Holm".

What is resampled are the ranks of the test users, in results/ranks. They are made once, from the trained models in
runs/, and must give the metrics that were recorded.
"""

import argparse
import itertools
from functools import cache
from typing import NamedTuple

import numpy as np
import recording
from baselines import BASELINES, LEFT_OUT, MIXTURES, build
from recording import all_ranks, mixture_name, model_name, path_of, path_of_ranks, read_result, write_result
from scipy.stats import norm
from tqdm import tqdm

from bertrec_utils.common import PROJECT
from bertrec_utils.data.dataset import Dataset, load_dataset
from bertrec_utils.evaluation.ranking import (
    PROTOCOLS,
    Interval,
    Scorer,
    bootstrap_interval,
    mean_over_seeds,
    metrics,
    per_user_metrics,
    target_ranks,
    write_ranks,
)
from bertrec_utils.settings import get_preset
from bertrec_utils.training.checkpoints import load

PRESETS = [
    name for name in ("ml-1m", "medium", "small", "movietweetings", "beauty") if path_of(f"baselines-{name}").exists()
]
CUTOFF = 10
LEVEL = 0.05  # of a p value after Holm's correction, below which a difference is shown
RESAMPLES = 2000
TOLD = [  # in docs/results.md, README and the notebooks, wherever both were run
    ("modern-both", "bert4rec"),
    ("modern-both", "modern-cloze"),
    ("modern-next", "modern-both"),
    ("modern-next", "modern-cloze"),
    ("bert4rec", "modern-cloze"),
    ("bert4rec", "smoothed-chain"),
    ("bert4rec", "pctm"),
    ("bert4rec", "linear"),
    ("modern-cloze", "linear"),
    ("modern-both", "rectools-sasrec"),
    ("bert4rec", "rectools-bert4rec"),
    ("modern-both", "pctm"),
    ("modern-both", "linear"),
    ("modern-both-with-linear", "linear"),
    ("modern-both-with-linear", "modern-both"),
    ("modern-both-with-linear", "pctm-with-linear"),
    ("bert4rec-with-linear", "pctm-with-linear"),
    ("bert4rec-with-linear", "modern-both-with-linear"),
    ("modern-both-with-chain", "smoothed-chain"),
    ("modern-both-with-chain", "modern-both"),
    ("modern-both-with-chain", "pctm-with-chain"),
]


class Model(NamedTuple):
    """What is recorded of each seed of a model."""

    ranks: list[dict[str, np.ndarray]]  # protocol -> of the test users (U,)
    validation: list[float]  # full NDCG@10
    is_trained: bool = True  # another seed would have other ranks


Models = dict[str, Model]


@cache
def data_of(preset: str) -> Dataset:
    """Read only where ranks are not yet kept."""
    return load_dataset(get_preset(preset).data)


def keep_ranks(name: str, scorers: dict[str, Scorer], dataset: Dataset) -> None:
    """Write the ranks of the test users as results/ranks/NAME.npz, beside those that are there."""
    new = {key: target_ranks(scorer, dataset.split.test, progress=False) for key, scorer in scorers.items()}
    write_ranks(path_of_ranks(name), all_ranks(name) | new)


def kept_ranks(name: str, recorded: dict[str, dict]) -> dict[str, dict[str, np.ndarray]]:
    """scorer -> protocol -> ranks (U,) of those that are `recorded`; ValueError if they do not give its metrics."""
    ranks = {scorer: kept for scorer, kept in all_ranks(name).items() if scorer in recorded}
    for scorer, by_protocol in ranks.items():
        for protocol, of_users in by_protocol.items():
            found, expected = metrics(of_users), recorded[scorer][protocol]
            if not all(abs(found[metric] - value) < 5e-5 for metric, value in expected.items()):
                problem = f"the ranks of {scorer}/{protocol} in {path_of_ranks(name)} do not give the recorded metrics"
                raise ValueError(f"{problem}; remove the file, and they are made anew")
    return ranks


def runs_of(preset: str) -> Models:
    """Every recorded run, its network alone and its mixture."""
    models = {}
    for path in tqdm(sorted(recording.RESULTS.glob(f"{preset}-*seed*.json")), desc=preset):
        recorded = read_result(path.stem)
        mixed = mixture_name(recorded["data"]["items"])
        if not path_of_ranks(path.stem).exists():
            checkpoint, dataset = load(PROJECT / "runs" / path.stem), data_of(preset)
            checkpoint.check(dataset)
            scorers = {"test": checkpoint.model, f"test-{mixed}": checkpoint.with_linear(dataset)}
            keep_ranks(path.stem, scorers, dataset)
        ranks = kept_ranks(path.stem, recorded)
        for test, ending in (("test", ""), (f"test-{mixed}", f"-{mixed}")):
            model = models.setdefault(model_name(recorded["recipe"], recorded["start"]) + ending, Model([], []))
            model.ranks.append(ranks[test])
            best = max(row["ndcg@10"] for row in recorded["history"])
            model.validation.append(recorded[f"validation-{mixed}"]["full"]["ndcg@10"] if ending else best)
    return models


def baselines_of(preset: str) -> Models:
    """The baselines, at the settings that baselines.py has chosen."""
    name = f"baselines-{preset}"
    wanted = {*BASELINES, *MIXTURES} - set(LEFT_OUT.get(preset, []))
    recorded = {each: row for each, row in read_result(name)["models"].items() if each in wanted}
    for each in recorded.keys() - all_ranks(name).keys():
        dataset = data_of(preset)
        keep_ranks(name, {each: build(each, dataset, recorded[each]["settings"])}, dataset)
    ranks = kept_ranks(name, {each: row["test"] for each, row in recorded.items()})
    return {
        each: Model([ranks[each]], [row["validation"]["ndcg@10"]], is_trained=False) for each, row in recorded.items()
    }


def peers_of(preset: str) -> Models:
    """The networks of other libraries that were trained on our data (peers.py)."""
    name = f"peers-{preset}"
    if not path_of(name).exists():
        return {}
    recorded = {row["model"]: row for row in read_result(name)["models"]}
    ranks = kept_ranks(name, {model: row["test"] for model, row in recorded.items()})
    best = {model: max(epoch["ndcg@10"] for epoch in row["history"]) for model, row in recorded.items()}
    return {model: Model([ranks[model]], [best[model]]) for model in recorded}


def models_of(preset: str) -> Models:
    return runs_of(preset) | peers_of(preset) | baselines_of(preset)


def row_of(model: Model) -> dict:
    row = {}
    for protocol in PROTOCOLS:
        by_seed = [per_user_metrics(ranks[protocol], [CUTOFF]) for ranks in model.ranks]
        row[protocol] = {
            metric: bootstrap_interval(np.mean([each[metric] for each in by_seed], axis=0))._asdict()
            | {"seeds": [each[metric].mean() for each in by_seed]}
            for metric in by_seed[0]
        }
    return row | {"validation": float(np.mean(model.validation))}


def resampled_means(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """name -> the mean of the `values` (U,) in each bootstrap resample of the users, (R,): the same resamples for all
    models, and those of `bootstrap_interval`."""
    users = len(next(iter(values.values())))
    random = np.random.default_rng(0)
    drawn = np.array([np.bincount(random.integers(0, users, users), minlength=users) for _ in range(RESAMPLES)])
    return {name: drawn / users @ of_users for name, of_users in values.items()}


def is_mixture(name: str) -> bool:
    return "-with-" in name


def seed_variances(models: Models, metric: str) -> dict[str, float]:
    """name -> the variance of its score from one seed to another, 0 for what is not trained: pooled over the networks
    that have several seeds or, for a mixture, over the mixtures, which vary less. It is 0 where none has several."""
    found = {}
    for mixed in (False, True):
        trained = {name: model for name, model in models.items() if model.is_trained and is_mixture(name) == mixed}
        scores = [
            [per_user_metrics(ranks["full"], [CUTOFF])[metric].mean() for ranks in model.ranks]
            for model in trained.values()
        ]
        several = [of_seeds for of_seeds in scores if len(of_seeds) > 1]
        squares = sum(np.var(of_seeds) * len(of_seeds) for of_seeds in several)
        found |= dict.fromkeys(trained, squares / max(1, sum(len(of_seeds) - 1 for of_seeds in several)))
    return dict.fromkeys(models, 0.0) | found


def difference(one: np.ndarray, other: np.ndarray, variance_of_seeds: float) -> dict:
    """Of two models' values of the same users, (U,) each, and its standard error's interval and p value; with
    `variance_of_seeds`, what other seeds would add to the variance of the mean."""
    found = one - other
    mean, error = found.mean(), np.sqrt(found.var(ddof=1) / len(found) + variance_of_seeds)
    low, high = mean + norm.ppf([0.025, 0.975]) * error
    p = 2 * norm.sf(abs(mean) / error) if error else float(mean == 0)
    return {"mean": float(mean), "over seeds too": {"low": float(low), "high": float(high)}, "p": float(p)}


def differences_of(models: Models) -> dict[str, dict]:
    values = {
        metric: {
            name: mean_over_seeds([ranks["full"] for ranks in model.ranks], metric) for name, model in models.items()
        }
        for metric in ("ndcg@10", "hit@10")
    }
    of_seeds = {metric: seed_variances(models, metric) for metric in values}
    resampled, found = resampled_means(values["ndcg@10"]), {}
    for one, other in itertools.combinations(models, 2):
        ndcg, hit = (
            difference(
                of[one], of[other], sum(of_seeds[metric][name] / len(models[name].ranks) for name in (one, other))
            )
            for metric, of in values.items()
        )
        low, high = np.percentile(resampled[one] - resampled[other], [2.5, 97.5])
        found[f"{one} - {other}"] = {
            "mean": ndcg["mean"],
            "low": float(low),
            "high": float(high),
            **ndcg,
            "seeds": [len(models[name].ranks) for name in (one, other)],
            "verdict": Interval(ndcg["mean"], **ndcg["over seeds too"]).verdict(),
            "hit@10": {"mean": hit["mean"], **hit["over seeds too"]},
        }
    return found


def turned(found: dict) -> dict:
    """A difference the other way round."""
    seeds_too = turned_ends(found["over seeds too"])
    return {
        **found,
        **turned_ends(found),
        "mean": -found["mean"],
        "over seeds too": seeds_too,
        "seeds": found["seeds"][::-1],
        "verdict": Interval(-found["mean"], **seeds_too).verdict(),
        "hit@10": {"mean": -found["hit@10"]["mean"], **turned_ends(found["hit@10"])},
    }


def turned_ends(interval: dict) -> dict[str, float]:
    return {"low": -interval["high"], "high": -interval["low"]}


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjusted p values: of n, the smallest times n, the next times n - 1, ..., none below the one before it (Holm,
    1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(order))
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def told(table: dict[str, dict]) -> list[dict]:
    rows = []
    for data, (one, other) in itertools.product(table, TOLD):
        differences = table[data]["differences"]
        if f"{one} - {other}" in differences:
            rows.append({"data": data, "pair": f"{one} - {other}"} | differences[f"{one} - {other}"])
        elif f"{other} - {one}" in differences:
            rows.append({"data": data, "pair": f"{one} - {other}"} | turned(differences[f"{other} - {one}"]))
    adjusted = holm(np.array([row["p"] for row in rows]))
    return [
        row | {"p after Holm": float(p), "verdict": corrected(row["verdict"], p)}
        for row, p in zip(rows, adjusted, strict=True)
    ]


def corrected(verdict: str, p: float) -> str:
    return "undecided after Holm" if verdict in ("better", "worse") and p >= LEVEL else verdict


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    table = {}
    for preset in PRESETS:
        models = models_of(preset)
        table[preset] = {
            "models": {name: row_of(model) for name, model in tqdm(models.items(), desc="bootstrap")},
            "differences": differences_of(models),
        }
    write_result("table", "python benchmarks/table.py", **table, told=told(table))


if __name__ == "__main__":
    main()
