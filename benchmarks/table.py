"""One table of all recorded runs and baseline models, results/table.json: README and notebook 04 are made from it.

    BERTREC_DATA=FOLDER python benchmarks/table.py

data set -> models -> name -> protocol -> metric -> the mean over seeds, `low` and `high` (its bootstrap 95 % bootstrap_interval
over the test users) and `seeds`, the value of each. Beside the protocols, `minutes` of training. And data set ->
differences -> "ours - sasrec-warm" and so on: of the full NDCG@10, user by user.

What is resampled are the ranks of the test users, in results/ranks. They are made once, from the trained models in
runs/, and must give the metrics that were recorded.
"""

import argparse
import itertools
import json
from functools import cache

import numpy as np
from baseline import MODELS, difference
from record_run import write_result
from tqdm import tqdm

from bertrec_utils.training.checkpoints import load
from bertrec_utils.data.dataset import Dataset, load_dataset
from bertrec_utils.evaluation.ranking import PROTOCOLS, bootstrap_interval, metrics, per_user_metrics, target_ranks
from bertrec_utils.common import PROJECT, replace_file
from bertrec_utils.settings import get_preset

PRESETS = ("ml-1m", "small")
RESULTS, RANKS = PROJECT / "results", PROJECT / "results" / "ranks"
CUTOFF = 10
CLOSED_FORM = {name.lower().replace(" ", "-") for name in MODELS}


@cache
def data_of(preset: str) -> Dataset:
    """Read only where ranks are not yet kept."""
    return load_dataset(get_preset(preset))


def keep_ranks(name: str, ranks: dict[str, np.ndarray]) -> None:
    """Write ranks, whole or half numbers, as results/ranks/NAME.npz."""
    RANKS.mkdir(exist_ok=True)
    doubled = {key: np.rint(2 * value).astype(np.uint32) for key, value in ranks.items()}

    def write(partial):
        with open(partial, "wb") as file:
            np.savez_compressed(file, **doubled)

    replace_file(RANKS / f"{name}.npz", write)


def kept_ranks(name: str) -> dict[str, np.ndarray]:
    with np.load(RANKS / f"{name}.npz") as kept:
        return {key: value / 2 for key, value in kept.items()}


def agree(ranks: np.ndarray, recorded: dict[str, float]) -> bool:
    found = metrics(ranks)
    return all(abs(found[name] - value) < 5e-5 for name, value in recorded.items())


def ranks_of_run(name: str, recorded: dict, preset: str) -> dict[str, np.ndarray]:
    """ "test/PROTOCOL" and "test-with-linear/PROTOCOL" -> ranks (U,) of a recorded run."""
    if not (RANKS / f"{name}.npz").exists():
        checkpoint, dataset = load(PROJECT / "runs" / name), data_of(preset)
        checkpoint.check(dataset)
        scorers = {"test": checkpoint.model, "test-with-linear": checkpoint.with_linear(dataset)}
        keep_ranks(name, every_rank(scorers, dataset))
    ranks = kept_ranks(name)
    for key, each in ranks.items():
        test, protocol = key.split("/")
        if not agree(each, recorded[test][protocol]):
            raise ValueError(f"the ranks of {name} ({key}) do not give the metrics that were recorded")
    return ranks


def every_rank(scorers: dict, dataset) -> dict[str, np.ndarray]:
    return {
        f"{name}/{protocol}": ranks
        for name, scorer in scorers.items()
        for protocol, ranks in target_ranks(scorer, dataset.split.test, progress=False).items()
    }


def runs_of(preset: str) -> dict[str, tuple[list, list[float]]]:
    """Name of a model -> one dict protocol -> ranks for each of its seeds, and the minutes of each training."""
    models = {}
    for path in tqdm(sorted(RESULTS.glob(f"{preset}-*seed*.json")), desc=preset):
        recorded = json.loads(path.read_text())
        ranks = ranks_of_run(path.stem, recorded, preset)
        for test, ending in (("test", ""), ("test-with-linear", "-with-linear")):
            seeds, minutes = models.setdefault(recorded.get("recipe", "ours") + ending, ([], []))
            seeds.append({protocol: ranks[f"{test}/{protocol}"] for protocol in PROTOCOLS})
            minutes.append(recorded["history"][-1]["seconds"] / 60)
    return models


def counting_of(preset: str) -> dict[str, tuple[list, list[float]]]:
    """The same of the models that only count, at the settings that baseline.py has chosen."""
    recorded, name = json.loads((RESULTS / f"counting-{preset}.json").read_text())["models"], f"counting-{preset}"
    chosen = {each: row for each, row in recorded.items() if each in MODELS}
    if not (RANKS / f"{name}.npz").exists():
        dataset = data_of(preset)
        scorers = {each: MODELS[each][0](dataset, **row["settings"]) for each, row in chosen.items()}
        keep_ranks(name, every_rank(scorers, dataset))
    ranks = kept_ranks(name)
    models = {}
    for each, row in chosen.items():
        by_protocol = {protocol: ranks[f"{each}/{protocol}"] for protocol in PROTOCOLS}
        if not all(agree(by_protocol[protocol], row["test"][protocol]) for protocol in PROTOCOLS):
            raise ValueError(
                f"the ranks of {each} do not give the metrics in {name}.json; delete results/ranks/{name}.npz"
            )
        models[each.lower().replace(" ", "-")] = [by_protocol], [row["seconds"] / 60]
    return models


def row_of(seeds: list, minutes: list[float]) -> dict:
    row = {}
    for protocol in PROTOCOLS:
        by_seed = [per_user_metrics(ranks[protocol], [CUTOFF]) for ranks in seeds]
        row[protocol] = {
            metric: bootstrap_interval(np.mean([each[metric] for each in by_seed], axis=0))._asdict()
            | {"seeds": [each[metric].mean() for each in by_seed]}
            for metric in by_seed[0]
        }
    return row | {"minutes": float(np.mean(minutes))}


def fulls(seeds: list[dict]) -> list[np.ndarray]:
    return [ranks["full"] for ranks in seeds]


def pair(scores: dict[str, float]) -> str:
    return " / ".join(f"{scores[f'{metric}@{CUTOFF}']:.4f}".removeprefix("0") for metric in ("hit", "ndcg"))


def readme_rows(models: dict) -> list[str]:
    """The lines of README's table of our models, the best first."""

    def line(name, row):
        means = {protocol: {metric: value["mean"] for metric, value in row[protocol].items()} for protocol in PROTOCOLS}
        full = row["full"][f"ndcg@{CUTOFF}"]
        between = f"{full['low']:.3f} to {full['high']:.3f}".replace("0.", ".")
        seeds = len(full["seeds"]) if name not in CLOSED_FORM else "-"
        minutes = f"{row['minutes']:.0f}" if row["minutes"] >= 1 else "under 1"
        return " | ".join(
            [f"| `{name}`", *(pair(means[protocol]) for protocol in PROTOCOLS), between, f"{seeds} | {minutes} |"]
        )

    best_first = sorted(models.items(), key=lambda model: -model[1]["full"][f"ndcg@{CUTOFF}"]["mean"])
    return [line(name, row) for name, row in best_first]


def published_rows() -> list[str]:
    """The lines of README's table of published models, as they stand in results/published.json."""
    return [
        " | ".join(
            [f"| {row['model']}"]
            + [pair(row["scores"][protocol]) if protocol in row["scores"] else "" for protocol in PROTOCOLS]
            + [row["source"], row["differs"]]
        )
        + " |"
        for row in json.loads((RESULTS / "published.json").read_text())["rows"]
    ]


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    table = {}
    for preset in PRESETS:
        models = runs_of(preset) | counting_of(preset)
        pairs = itertools.combinations(models, 2)
        table[get_preset(preset).release] = {
            "models": {name: row_of(*model) for name, model in tqdm(models.items(), desc="bootstrap")},
            "differences": {
                f"{one} - {other}": difference(*(fulls(models[name][0]) for name in (one, other)))._asdict()
                for one, other in pairs
            },
        }
        print(get_preset(preset).release, *readme_rows(table[get_preset(preset).release]["models"]), sep="\n")
    print(*published_rows(), sep="\n")
    write_result("table", "python benchmarks/table.py", **table)


if __name__ == "__main__":
    main()
