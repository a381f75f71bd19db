"""What ML-25M's size costs: starting, counting, training, ranking, each in a process of its own, with its peak memory.

    python benchmarks/generate_release.py ml-25m FOLDER
    BERTREC_DATA=FOLDER python benchmarks/scale.py ml-25m [--parts start warm-start ...] [--name NAME]

results/scale-RELEASE[-NAME].json. All films are kept, those with one rating too, so that the catalogue is as large as
it can be. Where a part has a plain and a fast version they are measured in the same process, one after the other: the
warm start from all pairs of films and from the strongest; steps of training on the same batches, the loss over all
films and over a sample. `epoch` trains one whole epoch and compares it with models that count.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, replace

import numpy as np
import torch
from record_run import write_result

from bertrec_utils import warm_start
from bertrec_utils.baselines import MarkovChain, Popularity
from bertrec_utils.batches import ahead, batches_of_epoch
from bertrec_utils.checkpoints import best_device
from bertrec_utils.dataset import load_dataset
from bertrec_utils.evaluation import metrics, target_ranks
from bertrec_utils.files import PROJECT
from bertrec_utils.presets import get_preset
from bertrec_utils.training import Run, new_model

PARTS = ("start", "warm-start", "training", "ranking", "epoch")


def peak():
    """GB of this process so far, its GPU's apart."""
    found = {"peak GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}
    if torch.cuda.is_available():
        found["peak GPU GB"] = torch.cuda.max_memory_allocated() / 1e9
    return found


def timed(function, *arguments):
    started = time.perf_counter()
    result = function(*arguments)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - started


def start(preset, _):
    """The first time reads the ratings, unless an earlier start has left a cache; the second time reads the cache."""
    first, second = (timed(load_dataset, preset) for _ in range(2))
    data = first[0]
    return {
        "users": len(data.sequences),
        "items": len(data.vocabulary),
        "interactions": len(data.sequences.tokens),
        "seconds": first[1],
        "seconds, second time": second[1],
    } | peak()


def counting(preset, _):
    data = load_dataset(preset)
    before = peak()["peak GB"]
    rows = {}
    for name, most in (("strongest pairs", warm_start.MOST_PAIRS), ("all pairs", 10**12)):
        warm_start.MOST_PAIRS = most
        _, seconds = timed(warm_start.item_vectors, data.split.train, len(data.vocabulary), preset.width)
        rows[name] = {"seconds": seconds} | peak()
    return rows | {"peak GB before": before}


def training(preset, steps):
    data = load_dataset(preset)
    rows = {}
    for negatives in sorted({preset.negatives, 0}, reverse=True):  # the full loss last: it takes the most memory
        chosen = replace(preset, negatives=negatives, warm_start=False)
        run = Run(new_model(data, chosen), data, seed=0)
        run.model.train()
        batches = ahead(batches_of_epoch(data.split.train, len(data.vocabulary), chosen, np.random.default_rng(0)))
        run.take_step(next(batches))  # what happens once only
        users = questions = 0

        def some(run=run, batches=batches):
            nonlocal users, questions
            for _, batch in zip(range(steps), batches, strict=False):
                run.take_step(batch)
                users, questions = users + len(batch.questions.history), questions + len(batch.used)

        _, seconds = timed(some)
        rows[f"{negatives} negatives" if negatives else "all items"] = {
            "steps": steps,
            "users/s": users / seconds,
            "questions/s": questions / seconds,
            "minutes an epoch": len(data.sequences) / users * seconds / 60,
            "precision": "bfloat16" if run.is_bfloat16 else "float32",
        } | peak()
    return rows


def ranking(preset, _):
    """All users, all items, and two samples of 100, with a network that has learned nothing: it takes as long."""
    data = load_dataset(preset)
    model = new_model(data, replace(preset, warm_start=False))
    before = peak()["peak GB"]
    rows = {"users": len(data.sequences), "items": len(data.vocabulary), "peak GB before": before}
    for protocol in ("full", "uniform-100", "popularity-100"):
        _, seconds = timed(target_ranks, model, data.split.test, [protocol])
        rows[protocol] = {"seconds": seconds} | peak()
    return rows


def epoch(preset, _):
    data = load_dataset(preset)
    model, counted = timed(new_model, data, preset)
    run = Run(model, data, seed=0)
    loss, seconds = timed(run.train_epoch)
    run.history.append({"loss": loss})
    ranks, checked = timed(run.validation_ranks)
    counts = {"Popularity": Popularity, "Markov chain": MarkovChain}
    others = {
        name: metrics(target_ranks(kind(data.split.train, len(data.vocabulary)), run.holdout, ["full"])["full"], [10])
        for name, kind in counts.items()
    }
    return {
        "warm start, seconds": counted,
        "epoch, minutes": seconds / 60,
        "validation, seconds": checked,
        "validation users": len(ranks),
        "loss": loss,
        "ndcg@10": {"after one epoch": metrics(ranks, [10])["ndcg@10"]}
        | {name: other["ndcg@10"] for name, other in others.items()},
    } | peak()


MEASURES = dict(zip(PARTS, (start, counting, training, ranking, epoch), strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("release", choices=("ml-20m", "ml-25m", "ml-32m"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--steps", type=int, default=16, help="of training (default 16)")
    parser.add_argument("--name", help="of the machine, say")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)  # one part, printed as JSON
    arguments = parser.parse_args()
    preset = replace(get_preset(arguments.release), min_item_ratings=1)
    if arguments.alone:
        print(json.dumps(MEASURES[arguments.parts[0]](preset, arguments.steps)))
        return
    name = f"scale-{arguments.release}" + (f"-{arguments.name}" if arguments.name else "")
    path = PROJECT / "results" / f"{name}.json"
    found = json.loads(path.read_text())["parts"] if path.exists() else {}
    for part in arguments.parts:
        command = [sys.executable, __file__, arguments.release, "--alone", "--steps", str(arguments.steps), "--parts"]
        done = subprocess.run([*command, part], stdout=subprocess.PIPE, text=True, check=True)
        found[part] = json.loads(done.stdout.splitlines()[-1])
        print(part, json.dumps(found[part], indent=1))
        device = torch.cuda.get_device_name() if best_device().type == "cuda" else "cpu"
        command = f"python benchmarks/scale.py {arguments.release}"
        write_result(name, command, preset=asdict(preset), device=device, parts=found)


if __name__ == "__main__":
    main()
