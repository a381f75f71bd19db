"""How should a history be read that somebody typed, in no order? Measured on validation data.

    python benchmarks/typed_histories.py small

The newest 8 items of 1,000 users, and their whole histories, in their true order, shuffled once, and shuffled but taken
as a set (the mean of the log-probabilities over random orders); then with some popularity penalties, and mixed with the
linear baseline or with EASE, which is blind to order. The weights are those of `load_trained`. Writes
results/typed-histories-PRESET.json.
"""

import argparse

import numpy as np
from recording import write_result

from bertrec_utils.data.sequences import Holdout, Sequences
from bertrec_utils.evaluation.baselines import EASE
from bertrec_utils.evaluation.mixture import Mixture, linear_baseline
from bertrec_utils.evaluation.ranking import (
    bootstrap_interval,
    metrics,
    novelty,
    per_user_metrics,
    target_ranks,
    top_k,
)
from bertrec_utils.scenarios.recommender import Recommender
from bertrec_utils.settings import PRESETS, get_preset
from bertrec_utils.training.checkpoints import load_trained

NEWEST = {"the newest 8 films": 8, "the whole history": 10_000}
PENALTIES = (0.1, 0.25, 0.5, 0.75, 1.0)
WEIGHTS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)  # of a baseline
USERS = 1000


def newest(histories: Sequences, count: int, shuffle: bool) -> Sequences:
    random = np.random.default_rng(0)
    rows = [histories[row][-count:] for row in range(len(histories))]
    rows = [random.permutation(row) for row in rows] if shuffle else rows
    return Sequences(np.concatenate(rows), np.cumsum([0, *map(len, rows)]), histories.users)


class Typed:
    """What `Recommender` makes of a history."""

    def __init__(self, recommender: Recommender, counts: np.ndarray, as_set: bool, penalty: float = 0.0):
        self.recommender, self.as_set, self.penalty = recommender, as_set, penalty
        self.log_popularity = np.log(counts + 1)  # of the training data, for this is a measurement

    def score(self, histories: Sequences) -> np.ndarray:
        items = [self.recommender.vocabulary.item_ids(histories[row]) for row in range(len(histories))]
        batches = [items[start : start + 32] for start in range(0, len(items), 32)]
        scores = np.concatenate([self.recommender.log_probabilities(batch, self.as_set) for batch in batches])
        return scores - self.penalty * self.log_popularity


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    name = parser.parse_args().preset
    checkpoint = load_trained(get_preset(name))
    dataset = checkpoint.load_dataset()
    names = checkpoint.vocabulary, dataset.items
    recommender = Recommender(checkpoint.model, *names)
    everybody = dataset.split.validation
    rows = np.sort(np.random.default_rng(0).permutation(len(everybody))[:USERS])
    histories, targets = everybody.histories.rows(rows), everybody.targets[rows]
    counts = dataset.split.train.counts(len(checkpoint.vocabulary))
    baselines = {"linear": linear_baseline, "EASE": EASE}
    mixed = {}
    for name_of, build in baselines.items():
        baseline = build(dataset.split.train, len(checkpoint.vocabulary))
        mixed |= {
            f", with {weight} {name_of}": Recommender(Mixture(checkpoint.model, baseline, weight), *names)
            for weight in WEIGHTS
        }
    found, differences = [], {}
    for title, count in NEWEST.items():
        alone = recommender, 0.0
        ways = {"in order": (False, False, *alone), "shuffled": (True, False, *alone), "as a set": (True, True, *alone)}
        if count == 8:
            ways |= {f"as a set, popularity penalty {each}": (True, True, recommender, each) for each in PENALTIES}
            ways |= {f"as a set{way}": (True, True, mixture, 0.0) for way, mixture in mixed.items()}
        of_users = {}
        for way, (shuffle, as_set, scorer, penalty) in ways.items():
            holdout = Holdout(newest(histories, count, shuffle), targets)
            model = Typed(scorer, counts, as_set, penalty)
            ranks = target_ranks(model, holdout, ["full"], progress=False)["full"]
            row, of_users[way] = metrics(ranks, [10]), per_user_metrics(ranks, [10])["ndcg@10"]
            row["novelty (bits)"] = novelty(top_k(model, holdout.histories), counts, len(everybody))
            found.append({"history": title, "read": way} | row)
            print(f"{title}, {way}: NDCG@10 {row['ndcg@10']:.4f}, novelty {row['novelty (bits)']:.2f}", flush=True)
        pairs = [("in order", "shuffled"), ("as a set", "shuffled")]
        if count == 8:
            best = max((way for way in ways if "with" in way), key=lambda way: of_users[way].mean())
            pairs.append((best, "as a set"))
        for one, other in pairs:
            differences[f"{title}: {one} - {other}"] = bootstrap_interval(of_users[one] - of_users[other])._asdict()
    command = f"python benchmarks/typed_histories.py {name}"
    results = {"users": len(rows), "seed": checkpoint.seed, "read": found, "differences": differences}
    write_result(f"typed-histories-{name}", command, **results)


if __name__ == "__main__":
    main()
