"""How much better are several transformers than one? Runs that differ in nothing but their seed, averaged.

    BERTREC_DATA=FOLDER python benchmarks/ensemble.py ml-1m --seeds 0 1 2 3 4 --sizes 2 4

For each size, every group of so many neighbouring seeds (the last is followed by the first) is tested once: the mean of
its members' log-probabilities, alone, and mixed with counting by a weight chosen on validation data. It needs the
runs/PRESET-seedN that record_run.py leaves, and writes results/ensemble-PRESET.json. Groups share members, so they
spread less than independent ones would.
"""

import argparse
from dataclasses import replace

import numpy as np
from record_run import write_result
from tqdm import tqdm

from bertrec_utils.checkpoints import load
from bertrec_utils.dataset import load_dataset
from bertrec_utils.evaluation import metrics, target_ranks
from bertrec_utils.files import PROJECT
from bertrec_utils.mixture import WEIGHTS, Mixture, Remembered, counting_model
from bertrec_utils.presets import PRESETS, get_preset
from bertrec_utils.sequences import Holdout


def scores(transformers: list, counting, holdout: Holdout) -> tuple[list[np.ndarray], np.ndarray]:
    """Log-probabilities (U, V) of each transformer, and the standardised scores (U, V) of the counting model."""
    histories = holdout.histories
    batches = np.array_split(np.arange(len(histories)), -(-len(histories) // 256))
    of_models = []
    for transformer in tqdm(transformers, desc="transformers"):
        mixture = Mixture(transformer, counting, 0.0)
        parts = [mixture.parts(histories.rows(batch)) for batch in batches]
        log_probabilities, counted = map(np.concatenate, zip(*parts, strict=True))
        of_models.append(log_probabilities)
    return of_models, counted


def quality(table: np.ndarray, holdout: Holdout) -> dict[str, float]:
    """Metrics of scores (U, V), full ranking."""
    numbered = replace(holdout.histories, users=np.arange(len(table)))
    ranks = target_ranks(Remembered(table), Holdout(numbered, holdout.targets), ["full"], progress=False)
    return metrics(ranks["full"], [10])


def best_weight(members: list[np.ndarray], counted: np.ndarray, holdout: Holdout) -> float:
    mean = np.mean(members, axis=0)
    return max(WEIGHTS, key=lambda weight: quality(mean + np.float32(weight) * counted, holdout)["ndcg@10"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 4], help="so many transformers together")
    arguments = parser.parse_args()
    preset, seeds = get_preset(arguments.preset), arguments.seeds
    dataset = load_dataset(preset)
    checkpoints = [load(PROJECT / "runs" / f"{preset.name}-seed{seed}") for seed in seeds]
    for checkpoint in checkpoints:
        checkpoint.check(dataset)
    transformers = [checkpoint.model for checkpoint in checkpoints]
    minutes = [checkpoint.history.seconds.iloc[-1] / 60 for checkpoint in checkpoints]
    split, counting = dataset.split, counting_model(dataset.split.train, len(dataset.vocabulary))
    validation, test = scores(transformers, counting, split.validation), scores(transformers, counting, split.test)
    groups = []
    for size in arguments.sizes:
        for first in range(len(seeds) if size < len(seeds) else 1):
            members = [(first + offset) % len(seeds) for offset in range(size)]
            weight = best_weight([validation[0][member] for member in members], validation[1], split.validation)
            mean = np.mean([test[0][member] for member in members], axis=0)
            groups.append(
                {
                    "seeds": [seeds[member] for member in members],
                    "minutes": sum(minutes[member] for member in members),
                    "counting_weight": weight,
                    "test": quality(mean, split.test),
                    "test-with-counting": quality(mean + np.float32(weight) * test[1], split.test),
                }
            )
            print(groups[-1], flush=True)
    listed = [" ".join(map(str, numbers)) for numbers in (seeds, arguments.sizes)]
    command = f"python benchmarks/ensemble.py {preset.name} --seeds {listed[0]} --sizes {listed[1]}"
    write_result(f"ensemble-{preset.name}", command, groups=groups)


if __name__ == "__main__":
    main()
