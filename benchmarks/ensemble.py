"""How much better are several networks than one? Runs that differ in nothing but their seed, averaged.

    BERTREC_DATA=FOLDER python benchmarks/ensemble.py ml-1m --seeds 0 1 2 3 4 --sizes 2 3 5

For each size, every group of so many neighbouring seeds (the last is followed by the first) is tested once: the mean of
its members' log-probabilities, alone, and mixed with the linear baseline by a weight chosen on validation data. It
needs the runs/PRESET-seedN that record_run.py leaves, and writes results/ensemble-PRESET.json. Groups share members, so
they spread less than independent ones would.
"""

import argparse
import shlex
import sys

import numpy as np
from recording import require_plan, write_result
from scipy.special import log_softmax

from bertrec_utils.common import PROJECT
from bertrec_utils.data.dataset import load_dataset
from bertrec_utils.data.sequences import Holdout
from bertrec_utils.evaluation.baselines import linear_baseline
from bertrec_utils.evaluation.mixture import WEIGHTS, standardise
from bertrec_utils.evaluation.ranking import Scorer, metrics, ranks_among_all
from bertrec_utils.settings import PRESETS, get_preset
from bertrec_utils.training.checkpoints import load


def all_scores(scorer: Scorer, holdout: Holdout) -> np.ndarray:
    """(U, V): what would be asked for again and again."""
    batches = np.array_split(np.arange(len(holdout)), -(-len(holdout) // 256))
    return np.concatenate([scorer.score(holdout.histories.rows(batch)) for batch in batches])


def groups(seeds: list[int], size: int) -> list[list[int]]:
    """Every `size` neighbours among the seeds, which are a ring."""
    starts = range(len(seeds) if size < len(seeds) else 1)
    return [[seeds[(first + offset) % len(seeds)] for offset in range(size)] for first in starts]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 3, 5], help="so many networks together")
    arguments = parser.parse_args()
    require_plan(arguments.preset)
    settings = get_preset(arguments.preset)
    dataset = load_dataset(settings.data)
    checkpoints = {seed: load(PROJECT / "runs" / f"{settings.name}-seed{seed}") for seed in arguments.seeds}
    for checkpoint in checkpoints.values():
        checkpoint.check(dataset)
    baseline = linear_baseline(dataset.split.train, len(dataset.vocabulary))
    holdouts = {"validation": dataset.split.validation, "test": dataset.split.test}
    linear, networks = {}, {}
    for part, holdout in holdouts.items():  # each is asked once, its scores are averaged in many ways
        linear[part] = standardise(all_scores(baseline, holdout))
        for seed, checkpoint in checkpoints.items():
            networks[part, seed] = log_softmax(all_scores(checkpoint.model, holdout), axis=1)
    rows = []
    for members in (group for size in arguments.sizes for group in groups(arguments.seeds, size)):
        mean = {part: np.mean([networks[part, seed] for seed in members], axis=0) for part in holdouts}

        def test(part, weight=0.0, mean=mean):
            return metrics(ranks_among_all(mean[part] + np.float32(weight) * linear[part], holdouts[part]))

        weight = max(WEIGHTS, key=lambda weight: test("validation", weight)["ndcg@10"])
        rows.append(
            {
                "seeds": members,
                "minutes": sum(checkpoints[seed].history.seconds.iloc[-1] / 60 for seed in members),
                "linear_weight": weight,
                "test": test("test"),
                "test-with-linear": test("test", weight),
            }
        )
        full = rows[-1]["test-with-linear"]
        print(f"seeds {members}, with linear: NDCG@10 {full['ndcg@10']:.4f}, Hit@10 {full['hit@10']:.4f}", flush=True)
    command = f"python benchmarks/ensemble.py {shlex.join(sys.argv[1:])}"
    write_result(f"ensemble-{settings.preset}", command, groups=rows)


if __name__ == "__main__":
    main()
