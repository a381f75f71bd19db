"""How should a history be read that somebody typed, in no order? Chosen on validation data.

    python benchmarks/typed_histories.py medium

The newest 4, 8 and 16 items of 2,000 users, in their true order, shuffled once, and shuffled but taken as a set (the
mean of the log-probabilities over random orders); as a set also with popularity penalties, and mixed with a baseline,
by weight; in order also mixed with the linear one, for what the mixture loses with the order. The baselines are those
that know what goes with what: the linear one, and EASE without decay, blind to order; each also alone. The weights are
those of `load_trained`. Writes results/typed-histories-PRESET.json, with the baseline and weight that are best on
average over the three lengths: nothing is chosen on the lists of notebook 05.
"""

import argparse
from types import SimpleNamespace

import numpy as np
import pandas as pd
from recording import require_plan, write_result
from scipy.special import log_softmax

from bertrec_utils.data.sequences import Holdout, Sequences
from bertrec_utils.evaluation.baselines import EASE
from bertrec_utils.evaluation.lists import novelty, top_k
from bertrec_utils.evaluation.mixture import standardise
from bertrec_utils.evaluation.ranking import bootstrap_interval, metrics, per_user_metrics, ranks_among_all
from bertrec_utils.scenarios.recommender import Recommender
from bertrec_utils.settings import PRESETS, get_preset
from bertrec_utils.training.checkpoints import load_trained

LENGTHS = (4, 8, 16)
PENALTIES = (0.1, 0.25, 0.5, 0.75, 1.0)
WEIGHTS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5)  # of a baseline
USERS = 2000


def newest(histories: Sequences, count: int, shuffle: bool) -> Sequences:
    random = np.random.default_rng(0)
    rows = [histories[row][-count:] for row in range(len(histories))]
    rows = [random.permutation(row) for row in rows] if shuffle else rows
    return Sequences(np.concatenate(rows), np.cumsum([0, *map(len, rows)]), np.arange(len(rows)))


def mean_over_orders(recommender: Recommender, scorer, change, histories: Sequences) -> np.ndarray:
    """What `Recommender` does with a set, (U, V): the mean of `change(scores)` over its orders."""
    means = []
    for start in range(0, len(histories), 32):
        batch = histories.rows(np.arange(start, min(start + 32, len(histories))))
        orders = [recommender._orders(batch[row], as_set=True) for row in range(len(batch))]
        rows = [row for of_history in orders for row in of_history]
        offsets = np.cumsum([0, *map(len, rows)])
        scores = change(scorer.score(Sequences(np.concatenate(rows), offsets, np.arange(len(rows)))))
        starts = np.cumsum([0, *map(len, orders)])[:-1]
        means.append(np.add.reduceat(scores, starts) / [[len(of_history)] for of_history in orders])
    return np.concatenate(means).astype(np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    name = parser.parse_args().preset
    require_plan(name)
    checkpoint = load_trained(get_preset(name))
    dataset, item_count = checkpoint.load_dataset(), len(checkpoint.vocabulary)
    recommender = Recommender(checkpoint.model, checkpoint.vocabulary, dataset.items)
    everybody, train = dataset.split.validation, dataset.split.train
    rows = np.sort(np.random.default_rng(0).permutation(len(everybody))[:USERS])
    histories, targets = everybody.histories.rows(rows), everybody.targets[rows]
    counts = train.counts(item_count)
    mixture = checkpoint.with_linear(dataset)
    baselines = {"linear": mixture.baseline, "EASE": EASE(train, item_count, decay=1.0)}
    found, ndcg = [], {}
    for count in LENGTHS:
        title, as_typed = f"the newest {count} films", newest(histories, count, shuffle=True)
        in_order = newest(histories, count, shuffle=False)
        network_in_order, linear_in_order = mixture.parts(in_order)
        network = mean_over_orders(recommender, checkpoint.model, lambda scores: log_softmax(scores, axis=1), as_typed)
        alone = {
            each: mean_over_orders(recommender, scorer, standardise, as_typed) for each, scorer in baselines.items()
        }
        ways = {"in order": (network_in_order, in_order)}
        for weight in WEIGHTS:
            ways[f"in order, with {weight} linear"] = network_in_order + weight * linear_in_order, in_order
        ways |= {"shuffled": (checkpoint.model.score(as_typed), as_typed), "as a set": (network, as_typed)}
        ways |= {
            f"as a set, popularity penalty {each}": (network - each * np.log(counts + 1), as_typed)
            for each in PENALTIES
        }
        for each, scores in alone.items():
            ways |= {f"as a set, with {weight} {each}": (network + weight * scores, as_typed) for weight in WEIGHTS}
            ways[f"as a set, {each} alone"] = scores, as_typed
        for way, (scores, read) in ways.items():
            # users are numbered, by `newest`
            model = SimpleNamespace(score=lambda histories, scores=scores: scores[histories.users])
            ranks = ranks_among_all(scores, Holdout(read, targets))
            row, ndcg[title, way] = metrics(ranks, [10]), per_user_metrics(ranks, [10])["ndcg@10"]
            row["novelty (bits)"] = novelty(top_k(model, read), counts, len(everybody))
            found.append({"history": title, "read": way} | row)
            print(f"{title}, {way}: NDCG@10 {row['ndcg@10']:.4f}, novelty {row['novelty (bits)']:.2f}", flush=True)
    mixed = [f"as a set, with {weight} {each}" for each in baselines for weight in WEIGHTS]
    table = pd.DataFrame(found).groupby("read")["ndcg@10"].mean()  # over the lengths
    best = table[["as a set", *mixed]].idxmax()
    pairs = [("in order", "shuffled"), ("as a set", "shuffled"), (best, "as a set")]
    pairs += [(best, f"as a set, {each} alone") for each in baselines]
    of_the_mixture = f"as a set, with {mixture.weight} linear"  # whose weight was chosen for histories in order
    pairs += [(each.replace("as a set", "in order"), each) for each in dict.fromkeys([of_the_mixture, best])]
    differences = {
        f"the newest {count} films: {one} - {other}": bootstrap_interval(
            ndcg[f"the newest {count} films", one] - ndcg[f"the newest {count} films", other]
        )._asdict()
        for count in LENGTHS
        for one, other in pairs
        if one != other
    }
    print(f"chosen: {best}, mean NDCG@10 {table[best]:.4f}; as a set {table['as a set']:.4f}")
    command = f"python benchmarks/typed_histories.py {name}"
    results = {"users": len(rows), "seed": checkpoint.seed, "chosen": best, "read": found, "differences": differences}
    write_result(f"typed-histories-{name}", command, **results)


if __name__ == "__main__":
    main()
