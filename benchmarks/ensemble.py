"""How much better are several transformers than one? Runs that differ in nothing but their seed, averaged.

    BERTREC_DATA=FOLDER python benchmarks/ensemble.py ml-1m --seeds 0 1 2 3 4 --sizes 2 4

For each size, every group of so many neighbouring seeds (the last is followed by the first) is tested once: the mean of
its members' log-probabilities, alone, and mixed with baseline by a weight chosen on validation data. It needs the
runs/PRESET-seedN that record_run.py leaves, and writes results/ensemble-PRESET.json. Groups share members, so they
spread less than independent ones would.
"""

import argparse

import numpy as np
import torch
from record_run import write_result

from bertrec_utils.training.checkpoints import load
from bertrec_utils.data.dataset import load_dataset
from bertrec_utils.evaluation.ranking import Scorer, evaluate
from bertrec_utils.common import PROJECT
from bertrec_utils.evaluation.mixture import linear_baseline, fit_mixture
from bertrec_utils.settings import PRESETS, get_preset
from bertrec_utils.data.sequences import Sequences


class Remembering:
    """Scores each history once: its groups ask for the same ones again."""

    def __init__(self, scorer: Scorer):
        self.scorer, self.known = scorer, {}

    def score(self, histories: Sequences) -> np.ndarray:
        keys = [histories[row].tobytes() for row in range(len(histories))]
        new = np.array([row for row, key in enumerate(keys) if key not in self.known], dtype=int)
        if len(new):
            self.known |= dict(zip([keys[row] for row in new], self.scorer.score(histories.rows(new)), strict=True))
        return np.stack([self.known[key] for key in keys])


class Average:
    """Scores are the mean of the transformers' log-probabilities."""

    def __init__(self, transformers: list[Scorer], item_count: int):
        self.transformers, self.item_count = transformers, item_count

    def score(self, histories: Sequences) -> np.ndarray:
        """(B, V) float32."""
        scores = [torch.from_numpy(each.score(histories)).log_softmax(1) for each in self.transformers]
        return torch.stack(scores).mean(0).numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 4], help="so many transformers together")
    arguments = parser.parse_args()
    preset, seeds = get_preset(arguments.preset), arguments.seeds
    dataset = load_dataset(preset)
    checkpoints = {seed: load(PROJECT / "runs" / f"{preset.name}-seed{seed}") for seed in seeds}
    for checkpoint in checkpoints.values():
        checkpoint.check(dataset)
    split, item_count = dataset.split, len(dataset.vocabulary)
    baseline = Remembering(linear_baseline(split.train, item_count))
    transformers = {seed: Remembering(checkpoint.model) for seed, checkpoint in checkpoints.items()}
    groups = []
    for size in arguments.sizes:
        for first in range(len(seeds) if size < len(seeds) else 1):
            members = [seeds[(first + offset) % len(seeds)] for offset in range(size)]
            average = Average([transformers[seed] for seed in members], item_count)
            mixture = fit_mixture(average, baseline, split.validation)
            groups.append(
                {
                    "seeds": members,
                    "minutes": sum(checkpoints[seed].history.seconds.iloc[-1] / 60 for seed in members),
                    "linear_weight": mixture.weight,
                    "test": evaluate(average, split.test, ["full"])["full"],
                    "test-with-linear": evaluate(mixture, split.test, ["full"])["full"],
                }
            )
            full = groups[-1]["test-with-linear"]
            print(
                f"seeds {members} with baseline: NDCG@10 {full['ndcg@10']:.4f}, Hit@10 {full['hit@10']:.4f}", flush=True
            )
    listed = [" ".join(map(str, numbers)) for numbers in (seeds, arguments.sizes)]
    command = f"python benchmarks/ensemble.py {preset.name} --seeds {listed[0]} --sizes {listed[1]}"
    write_result(f"ensemble-{preset.name}", command, groups=groups)


if __name__ == "__main__":
    main()
