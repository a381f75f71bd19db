"""A log has grown: does its model go on, or is a new one worth its time?

    OMP_NUM_THREADS=1 python benchmarks/continue_training.py small

Yesterday's log is a part of today's, by one of two cuts: `time`, all rows before the .9 quantile of the timestamps;
`users`, the first nine tenths of each user's rows. Three models answer the same question, today's leave-one-out: (a)
`as it is`, trained on yesterday's rows alone; (b) `continued` from it, as `train --continue` does; (c) `anew`, trained
on all rows. Nobody's target of today was trained on or chosen by in yesterday's: there, a user's rows are a prefix of
today's, and the last two of them are held out. Today's test is on users whose target and at least one item before it
were known yesterday; an item that is new today is a candidate for all three, which (a) never recommends. Minutes are
those of `fit`, linear baseline and all. Writes results/continue-PRESET.json.
"""

import argparse
import shlex
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from recording import require_plan, write_result

from bertrec_utils.data.dataset import Dataset, build_dataset, load_dataset
from bertrec_utils.data.logs import Interactions
from bertrec_utils.data.sequences import Sequences, Vocabulary
from bertrec_utils.evaluation.ranking import Scorer, bootstrap_interval, per_user_metrics, target_ranks
from bertrec_utils.settings import PRESETS, Settings, get_preset
from bertrec_utils.training.checkpoints import Checkpoint, load
from bertrec_utils.training.trainer import continued_model, continued_settings, fit, new_model

QUANTILE = 0.9
RATES = (0.25, 0.5, 1.0)  # of the preset's learning rate, tried on validation data
MODELS = ("as it is", "continued", "anew")


def is_of_yesterday(today: Dataset, cut: str) -> np.ndarray:
    """Which tokens of today's sequences are rows of yesterday, (N,) bool: a prefix of each user's."""
    sequences = today.sequences
    if cut == "users":
        known = np.floor(QUANTILE * sequences.lengths).astype(int)
        positions = np.arange(len(sequences.tokens)) - np.repeat(sequences.offsets[:-1], sequences.lengths)
        return positions < np.repeat(known, sequences.lengths)
    rows = today.log.ratings.drop_duplicates(["user", "item"]).set_index(["user", "item"]).timestamp
    users = np.repeat(sequences.users, sequences.lengths)
    times = rows.loc[pd.MultiIndex.from_arrays([users, today.vocabulary.item_ids(sequences.tokens)])].to_numpy()
    return times < today.log.ratings.timestamp.quantile(QUANTILE)


def part_of(today: Dataset, is_kept: np.ndarray) -> Dataset:
    """The data that a part of today's rows would have been, in the order of today's: no tie is drawn anew."""
    sequences = today.sequences
    columns = {"user": np.repeat(sequences.users, sequences.lengths)}
    columns |= {"item": today.vocabulary.item_ids(sequences.tokens), "timestamp": np.arange(len(sequences.tokens))}
    return build_dataset(Interactions("yesterday", pd.DataFrame(columns)[is_kept], today.log.items))


class Older:
    """A model of yesterday's items as a scorer of today's: it skips items it does not know, and recommends none."""

    def __init__(self, model: Scorer, known: Vocabulary, today: Vocabulary):
        self.model = model
        self.tokens = np.array([0, *(known.tokens([item])[0] if item in known else 0 for item in today.items)])

    def score(self, histories: Sequences) -> np.ndarray:
        tokens = self.tokens[histories.tokens]
        offsets = np.concatenate([[0], np.cumsum(tokens > 0)])[histories.offsets]
        found = self.model.score(Sequences(tokens[tokens > 0].astype(np.int32), offsets, histories.users))
        scores = np.full((len(histories), len(self.tokens) - 1), -np.inf, dtype=np.float32)
        scores[:, self.tokens[1:] > 0] = found[:, self.tokens[self.tokens > 0] - 1]
        return scores


def trained(dataset: Dataset, settings: Settings, before: Checkpoint | None = None) -> tuple[Checkpoint, dict]:
    """A model, new or continued, and what its training took and brought on its validation data."""
    clocks = time.perf_counter(), time.process_time()
    with TemporaryDirectory() as folder:
        model = continued_model(before, dataset) if before else new_model(dataset, settings)
        history = fit(model, dataset, settings, folder=Path(folder), continued=before is not None)
        minutes = (time.perf_counter() - clocks[0]) / 60, (time.process_time() - clocks[1]) / 60
        best = history.loc[history["ndcg@10"].idxmax()]
        row = {"learning rate": settings.training.learning_rate, "epochs": len(history), "best epoch": int(best.epoch)}
        return load(folder), row | {"validation ndcg@10": best["ndcg@10"]} | dict(
            zip(("minutes", "minutes of the processor"), minutes, strict=True)
        )


def compared(gains: dict[str, dict[str, np.ndarray]], rows: np.ndarray) -> dict:
    """Means and paired differences, with intervals, over the users `rows`."""
    table: dict = {"users": len(rows), "models": {}, "differences": {}}
    for name in MODELS:
        table["models"][name] = {m: bootstrap_interval(gains[name][m][rows])._asdict() for m in ("hit@10", "ndcg@10")}
    for one, other in (("continued", "as it is"), ("continued", "anew"), ("anew", "as it is")):
        table["differences"][f"{one} - {other}"] = {
            m: bootstrap_interval(gains[one][m][rows] - gains[other][m][rows])._asdict() for m in ("hit@10", "ndcg@10")
        }
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    arguments = parser.parse_args()
    require_plan(arguments.preset)
    settings = get_preset(arguments.preset)
    today = load_dataset(settings.data)
    test, cuts = today.split.test, {}
    anew, training_anew = trained(today, settings)
    for cut in ("time", "users"):
        is_known = is_of_yesterday(today, cut)
        yesterday = part_of(today, is_known)
        before, training_before = trained(yesterday, settings)
        trainings = {"as it is": training_before, "anew": training_anew}
        by_rate = {}
        for rate in RATES:
            further = continued_settings(settings).change(learning_rate=rate * settings.training.learning_rate)
            model, training = trained(today, further, before)
            by_rate[rate] = training
            if further == continued_settings(settings):
                continued, trainings["continued"] = model, training
        older = Older(before.model, yesterday.vocabulary, today.vocabulary)
        is_known_item = older.tokens > 0
        has_history = np.add.reduceat(is_known_item[test.histories.tokens], test.histories.offsets[:-1]) > 0
        rows = np.flatnonzero(is_known_item[test.targets] & has_history)
        scorers = dict(zip(MODELS, (older, continued.model, anew.model), strict=True))
        gains = {
            name: per_user_metrics(target_ranks(scorer, test.rows(rows), ["full"])["full"], [10])
            for name, scorer in scorers.items()
        }
        is_last_new = ~is_known[today.sequences.offsets[1:] - 1][rows]
        cuts[cut] = {
            "data": {
                "rows yesterday": int(is_known.sum()),
                "rows today": len(is_known),
                "items yesterday": len(yesterday.vocabulary),
                "items today": len(today.vocabulary),
                "users yesterday": len(yesterday.sequences),
                "users today": len(today.sequences),
                "targets unknown yesterday": int((~is_known_item[test.targets]).sum()),
            },
            "trainings": trainings,
            "continued, by share of the learning rate": by_rate,
            "all": compared(gains, np.arange(len(rows))),
            "users with new rows": compared(gains, np.flatnonzero(is_last_new)),
        }
        means = {name: round(float(of_model["ndcg@10"].mean()), 4) for name, of_model in gains.items()}
        print(cut, len(rows), means, by_rate, flush=True)
    write_result(
        f"continue-{arguments.preset}",
        f"python benchmarks/continue_training.py {shlex.join(sys.argv[1:])}",
        quantile=QUANTILE,
        cuts=cuts,
    )


if __name__ == "__main__":
    main()
