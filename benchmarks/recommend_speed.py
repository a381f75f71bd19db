"""How long a recommendation takes: a new history among 87,000 items, a click in the panel, a cold start.

    OMP_NUM_THREADS=1 python benchmarks/recommend_speed.py

    python benchmarks/recommend_speed.py --everybody ml-1m ml-25m

The large model is untrained; a trained one is as fast. Writes results/recommend-speed.json, seconds. With --everybody
it is, instead, how long the lists of all users take, of generated histories of ML-1M's and of ML-25M's size, and how
much memory: results/recommend-everybody.json.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import torch
from recording import write_result

from bertrec_utils.common import PROJECT
from bertrec_utils.data.sequences import Sequences, Vocabulary
from bertrec_utils.model.modern import build_network
from bertrec_utils.scenarios.panel import Panel
from bertrec_utils.scenarios.recommender import Recommender
from bertrec_utils.settings import get_preset
from bertrec_utils.training.checkpoints import load

ITEMS, FILMS, SHIPPED = 87_000, 20, "pretrained/small"
EVERYBODY = {"ml-1m": (6_040, None), "ml-25m": (162_541, 57_000)}  # users, and items of a model that is not shipped
SHORTEST, MEAN = 20, 153  # ratings of a user of ML-25M


def median_seconds(act, repeats: int = 15) -> float:
    act()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def film_table(items: np.ndarray) -> pd.DataFrame:
    titles = [f"Film {item} (1999)" for item in items]
    return pd.DataFrame({"item": items, "title": titles, "genres": "Drama", "ratings": 1})


def large_recommender(item_count: int = ITEMS, preset: str = "ml-32m") -> Recommender:
    torch.manual_seed(0)
    items = np.arange(1, item_count + 1)
    return Recommender(build_network(item_count, get_preset(preset).model).eval(), Vocabulary(items), film_table(items))


def shipped_recommender(preset: str) -> Recommender:
    checkpoint = load(PROJECT / "pretrained" / preset)
    return Recommender(checkpoint.model, checkpoint.vocabulary, film_table(checkpoint.vocabulary.items))


def everybody(preset: str) -> dict[str, float]:
    users, item_count = EVERYBODY[preset]
    recommender = large_recommender(item_count, preset) if item_count else shipped_recommender(preset)
    random = np.random.default_rng(0)
    lengths = SHORTEST + random.exponential(MEAN - SHORTEST, users).astype(int)
    tokens = random.integers(1, len(recommender.vocabulary) + 1, lengths.sum(), dtype=np.int32)
    histories = Sequences(tokens, np.concatenate([[0], lengths.cumsum()]), np.arange(users))
    started, processor = time.perf_counter(), time.process_time()
    rows = len(recommender.recommend_all(histories))
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "users": users,
        "items": len(recommender.vocabulary),
        "rows": rows,
        "seconds": seconds,
        "seconds of processor time": processor,
        "peak GB": peak,  # of the process so far: give the smaller preset first
    }


def panel_clicks() -> dict[str, float]:
    checkpoint = load(PROJECT / SHIPPED)
    recommender = Recommender(checkpoint.model, checkpoint.vocabulary, checkpoint.load_items())
    eight = recommender.vocabulary.items[(-recommender.log_popularity).argsort()[:8]]
    panel = Panel(recommender, recommender.items.title[eight])

    def type_a_letter():
        panel.search.value = "the lo"
        panel.search.value = ""

    return {
        "panel, a click with 8 films": median_seconds(panel.answer),
        "panel, a letter": median_seconds(type_a_letter),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--everybody", nargs="*", metavar="PRESET", help=", ".join(EVERYBODY))
    arguments = parser.parse_args()
    if arguments.everybody is not None:
        presets = arguments.everybody or list(EVERYBODY)
        found = {preset: everybody(preset) for preset in presets}
        for row in found.values():
            print(", ".join(f"{name} {value:,.4g}" for name, value in row.items()))
        command = f"python benchmarks/recommend_speed.py --everybody {' '.join(presets)}"
        write_result("recommend-everybody", command, presets=found)
        return
    large = large_recommender()
    history = large.vocabulary.items[:FILMS]
    command = [sys.executable, "-m", "bertrec_utils", "recommend", SHIPPED, "--history", "Alien", "Amelie", "--as-set"]
    seconds = {
        f"{ITEMS:,} items, one order": median_seconds(lambda: large.recommend_items(history)),
        f"{ITEMS:,} items, 16 orders": median_seconds(lambda: large.recommend_items(history, as_set=True)),
        **panel_clicks(),
        "command line, cold start": median_seconds(
            lambda: subprocess.run(command, cwd=PROJECT, check=True, capture_output=True), repeats=3
        ),
    }
    for name, value in seconds.items():
        print(f"{name}: {value:.3f} s")
    write_result("recommend-speed", "OMP_NUM_THREADS=1 python benchmarks/recommend_speed.py", seconds=seconds)


if __name__ == "__main__":
    main()
