"""How much hangs on the order of ratings in the same second? The baselines, with ties in five random orders.

    python benchmarks/ties.py small

GroupLens's CSV files list such ratings by film id, so ties are shuffled, always alike (`tie_seed` 0). Here are four
other shuffles: another test film for some users, and other training sequences. Settings are those that baselines.py has
chosen. Writes results/ties-PRESET.json: the test's full ranking by shuffle.
"""

import argparse

import numpy as np
from baselines import BASELINES, full_ranks
from recording import read_result, require_plan, write_result
from tqdm import tqdm

from bertrec_utils.data.dataset import Dataset, build_sequences, load_dataset
from bertrec_utils.data.splits import leave_one_out
from bertrec_utils.evaluation.ranking import metrics
from bertrec_utils.settings import PRESETS, get_preset

SHUFFLES = 5


def shuffled(dataset: Dataset, settings, tie_seed: int) -> Dataset:
    """The same log with its ties in another order."""
    kept = settings.min_item_ratings, settings.max_users, settings.repeats
    vocabulary, sequences, _ = build_sequences(dataset.log.ratings, *kept, tie_seed=tie_seed)
    return Dataset(vocabulary, sequences, dataset.log, leave_one_out(sequences))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    name = parser.parse_args().preset
    require_plan(name)
    settings = get_preset(name).data
    dataset, chosen = load_dataset(settings), read_result(f"baselines-{name}")["models"]
    found = {each: [] for each in BASELINES if each in chosen}
    others = []
    for tie_seed in tqdm(range(SHUFFLES), desc="shuffles"):
        other = shuffled(dataset, settings, tie_seed)
        others.append(float((other.split.test.targets != dataset.split.test.targets).mean()))
        for each, tests in found.items():
            scorer = BASELINES[each].build(other, **chosen[each]["settings"])
            tests.append(metrics(full_ranks(scorer, other.split.test), [10]))
    write_result(f"ties-{name}", f"python benchmarks/ties.py {name}", **{"other targets": others, "models": found})
    for each, tests in found.items():
        values = [test["ndcg@10"] for test in tests]
        print(f"{each:18} test NDCG@10 {min(values):.4f} to {max(values):.4f}, deviation {np.std(values, ddof=1):.4f}")


if __name__ == "__main__":
    main()
