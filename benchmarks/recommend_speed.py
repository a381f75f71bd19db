"""How long a recommendation takes: a new history among 87,000 items, a click in the panel, a cold start.

    OMP_NUM_THREADS=1 python benchmarks/recommend_speed.py

The large model is untrained; a trained one is as fast. Writes results/recommend-speed.json, seconds.
"""

import argparse
import statistics
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import torch
from recording import write_result

from bertrec_utils.common import PROJECT
from bertrec_utils.data.sequences import Vocabulary
from bertrec_utils.model.modern import build_network
from bertrec_utils.scenarios.panel import Panel
from bertrec_utils.scenarios.recommender import Recommender
from bertrec_utils.settings import get_preset
from bertrec_utils.training.checkpoints import load

ITEMS, FILMS, SHIPPED = 87_000, 20, "pretrained/small"


def median_seconds(act, repeats: int = 15) -> float:
    act()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def large_recommender() -> Recommender:
    torch.manual_seed(0)
    items = np.arange(1, ITEMS + 1)
    titles = [f"Film {item} (1999)" for item in items]
    table = pd.DataFrame({"item": items, "title": titles, "genres": "Drama", "ratings": 1})
    return Recommender(build_network(ITEMS, get_preset("ml-32m").model).eval(), Vocabulary(items), table)


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
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
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
