"""How much better are several transformers than one? Runs that differ in nothing but their seed, averaged.

    BERTREC_DATA=FOLDER python benchmarks/ensemble.py ml-1m --seeds 0 1 2 3 4 --sizes 2 4

For each size, every group of so many neighbouring seeds (the last is followed by the first) is tested once: the mean of
its members' log-probabilities, alone, and mixed with counting by a weight chosen on validation data. It needs the
runs/PRESET-seedN that record_run.py leaves, and writes results/ensemble-PRESET.json. Groups share members, so they
spread less than independent ones would.
"""

import argparse

import numpy as np
import torch
from record_run import write_result

from bertrec_utils.checkpoints import load
from bertrec_utils.dataset import load_dataset
from bertrec_utils.evaluation import evaluate
from bertrec_utils.files import PROJECT
from bertrec_utils.mixture import counting_model, learn_mixture
from bertrec_utils.model import BERT4Rec
from bertrec_utils.presets import PRESETS, get_preset
from bertrec_utils.sequences import Sequences


class Average:
    """Scores are the mean of the transformers' log-probabilities."""

    def __init__(self, transformers: list[BERT4Rec]):
        self.transformers, self.item_count = transformers, transformers[0].item_count

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
    counting, split = counting_model(dataset.split.train, len(dataset.vocabulary)), dataset.split
    groups = []
    for size in arguments.sizes:
        for first in range(len(seeds) if size < len(seeds) else 1):
            members = [seeds[(first + offset) % len(seeds)] for offset in range(size)]
            average = Average([checkpoints[seed].model for seed in members])
            mixture = learn_mixture(average, counting, split.validation)
            groups.append(
                {
                    "seeds": members,
                    "minutes": sum(checkpoints[seed].history.seconds.iloc[-1] / 60 for seed in members),
                    "counting_weight": mixture.weight,
                    "test": evaluate(average, split.test, ["full"])["full"],
                    "test-with-counting": evaluate(mixture, split.test, ["full"])["full"],
                }
            )
            print(groups[-1], flush=True)
    listed = [" ".join(map(str, numbers)) for numbers in (seeds, arguments.sizes)]
    command = f"python benchmarks/ensemble.py {preset.name} --seeds {listed[0]} --sizes {listed[1]}"
    write_result(f"ensemble-{preset.name}", command, groups=groups)


if __name__ == "__main__":
    main()
