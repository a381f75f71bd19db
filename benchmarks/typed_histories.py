"""How should a history be read that somebody typed, in no order? Measured on validation data.

    python benchmarks/typed_histories.py small

The newest 8 items of 1,000 users, and their whole histories, in their true order, shuffled once, and shuffled but taken
as a set (the mean of the log-probabilities over random orders); then with some popularity penalties. The weights are
those of `load_trained`. Writes results/typed-histories-PRESET.json.
"""

import argparse

import numpy as np
from recording import write_result

from bertrec_utils.data.sequences import Holdout, Sequences
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
PENALTIES = (0.25, 0.5, 0.75, 1.0)
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
    recommender = Recommender(checkpoint.model, checkpoint.vocabulary, dataset.items)
    everybody = dataset.split.validation
    rows = np.sort(np.random.default_rng(0).permutation(len(everybody))[:USERS])
    histories, targets = everybody.histories.rows(rows), everybody.targets[rows]
    counts = dataset.split.train.counts(len(checkpoint.vocabulary))
    found, differences = [], {}
    for title, count in NEWEST.items():
        ways = {"in order": (False, False, 0.0), "shuffled": (True, False, 0.0), "as a set": (True, True, 0.0)}
        if count == 8:
            ways |= {f"as a set, popularity penalty {penalty}": (True, True, penalty) for penalty in PENALTIES}
        of_users = {}
        for way, (shuffle, as_set, penalty) in ways.items():
            holdout = Holdout(newest(histories, count, shuffle), targets)
            model = Typed(recommender, counts, as_set, penalty)
            ranks = target_ranks(model, holdout, ["full"], progress=False)["full"]
            row, of_users[way] = metrics(ranks, [10]), per_user_metrics(ranks, [10])["ndcg@10"]
            row["novelty (bits)"] = novelty(top_k(model, holdout.histories), counts, len(everybody))
            found.append({"history": title, "read": way} | row)
            print(f"{title}, {way}: NDCG@10 {row['ndcg@10']:.4f}, novelty {row['novelty (bits)']:.2f}", flush=True)
        for one, other in (("in order", "shuffled"), ("as a set", "shuffled")):
            differences[f"{title}: {one} - {other}"] = bootstrap_interval(of_users[one] - of_users[other])._asdict()
    command = f"python benchmarks/typed_histories.py {name}"
    results = {"users": len(rows), "seed": checkpoint.seed, "read": found, "differences": differences}
    write_result(f"typed-histories-{name}", command, **results)


if __name__ == "__main__":
    main()
