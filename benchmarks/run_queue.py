"""Every run that the tables quote, as one list, worked through two at a time, a thread each.

    BERTREC_DATA=FOLDER python benchmarks/run_queue.py            # all that is not yet recorded, in this order
    python benchmarks/run_queue.py --only "medium" --dry-run      # which those are

What is recorded with today's settings is skipped, and a training goes on where it was interrupted: after Ctrl-C, or the
next day, the same command does the rest. What a command prints is in runs/queue/. (It cannot be called queue.py: Python
would take it for its own module of that name.)
"""

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from recording import SEALED

from bertrec_utils.common import PROJECT
from bertrec_utils.settings import RECIPES

BENCHMARKS = Path(__file__).parent


def trainings(preset: str, recipe: str, *seeds: int, start: str = "") -> list[str]:
    start = f" --start {start}" if start else ""
    return [f"record_run.py {preset} --recipe {recipe}{start} --seeds {seed}" for seed in seeds]


QUEUE = [
    *trainings("medium", "bert4rec", 0, 1, 2),
    *trainings("medium", "modern-both", 0, 1, 2, 3, 4),
    "baselines.py medium",
    "baselines.py small",
    "baselines.py ml-1m",
    *trainings("medium", "modern-cloze", 0, 1, 2),
    *trainings("medium", "modern-next", 0, 1, 2),
    *trainings("ml-1m", "bert4rec", 0, 1, 2),
    *trainings("ml-1m", "modern-cloze", 0, 1, 2),
    *trainings("ml-1m", "modern-next", 0, 1, 2),
    *trainings("ml-1m", "modern-next", 0, start="random"),
    *trainings("ml-1m", "modern-both", 0, 1, 2, 3, 4),
    *trainings("small", "bert4rec", 0, 1, 2),
    *(run for preset in ("small", "medium", "ml-1m") for run in trainings(preset, "bert4rec", 0, start="counts")),
    *trainings("small", "modern-cloze", 0, 1, 2),
    *trainings("small", "modern-next", 0, 1, 2, 3, 4),
    *trainings("small", "modern-next", 0, start="random"),
    *trainings("small", "modern-both", 0, 1, 2, 3, 4),
    "variants.py cloze-to-next small",
    "variants.py cloze-to-next ml-1m",
    "variants.py mistakes small --seeds 0 1",
    "variants.py mistakes ml-1m --only none",
    *(f"variants.py tuning small --only {recipe}" for recipe in RECIPES),
    "variants.py grid small --seeds 0 1",
    "variants.py starting-notebook ml-1m",
    "variants.py test-curve ml-1m",
    # as results/sealed.md has them; until it is there these fail
    *(f"baselines.py {preset}" for preset in SEALED),
    *(
        run
        for preset in SEALED
        for recipe in RECIPES
        for run in trainings(preset, recipe, *((0,) if recipe == "bert4rec" else (0, 1, 2)))
    ),
    *(run for preset in SEALED for run in trainings(preset, "bert4rec", 0, start="counts")),
    "ties.py small",
    "ties.py medium",
    "time_split.py small",
    "mixture_weights.py beauty",
    "peers.py small --only rectools-sasrec rectools-bert4rec",
    "peers.py movietweetings --only rectools-sasrec rectools-bert4rec",
]


def work(job: str, logs: Path) -> bool:
    started = time.monotonic()
    script, *options = job.split()
    with open(logs / f"{job.replace(' --', '-').replace(' ', '-')}.log", "w") as log:
        command = [sys.executable, str(BENCHMARKS / script), *options]
        threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, cwd=PROJECT, env=os.environ | threads)
    ending = f"{(time.monotonic() - started) / 60:.0f} min" if done.returncode == 0 else f"FAILED, see {log.name}"
    print(f"{job}: {ending}", flush=True)
    return done.returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="the runs whose command has this text")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dry-run", action="store_true", help="print the list")
    arguments = parser.parse_args()
    jobs = [job for job in QUEUE if arguments.only in job]
    if arguments.dry_run:
        print(*jobs, sep="\n")
        return
    logs = PROJECT / "runs" / "queue"
    logs.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(arguments.workers) as pool:
        sys.exit(not all(pool.map(lambda job: work(job, logs), jobs)))


if __name__ == "__main__":
    main()
