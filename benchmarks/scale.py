"""What ML-25M's size costs: reading, vectors from counts, training, ranking, each in its own process; with peak memory.

    python benchmarks/generate_release.py ml-25m FOLDER
    BERTREC_DATA=FOLDER python benchmarks/scale.py ml-25m [--parts start counts ...] [--name NAME]

results/scale-RELEASE[-NAME].json. All items are kept, those with one rating too, so that the catalogue is as large as
it can be. Where a part has a plain and a fast version they are measured in the same process, one after the other: the
vectors from the counts of all pairs of items and of the strongest; steps of training on the same batches, the loss over
a sample and over all items, and that with each batch as a whole in place of parts that fit into a processor's cache;
`two-processes` trains with a thread each. `learning` is a whole run of few epochs, and compares the model with two
baselines. `growth` trains some steps with one setting changed at a time, `compiled` by what torch.compile makes of the
network.
"""

import argparse
import datetime
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict
from functools import partial

import numpy as np
import torch
from baselines import BASELINES
from recording import CODE, path_of, read_result, write_result

from bertrec_utils.common import PROJECT, print_status
from bertrec_utils.data.dataset import load_dataset
from bertrec_utils.data.releases import find_release
from bertrec_utils.evaluation.ranking import draw_negatives, metrics, negative_weights, target_ranks
from bertrec_utils.model import modern
from bertrec_utils.settings import Settings, get_preset
from bertrec_utils.training import initial_weights
from bertrec_utils.training.batches import epoch_batches, prefetch
from bertrec_utils.training.devices import best_device, process_group, world_size
from bertrec_utils.training.trainer import Trainer, fit, new_model

PARTS = ("start", "counts", "training", "two-processes", "ranking", "learning", "growth", "compiled")
GROWTH = (
    {},
    *({"max_length": length} for length in (50, 100)),
    *({"width": width} for width in (64, 256)),
    *({"layers": layers} for layers in (1, 4)),
    *({"negatives": negatives} for negatives in (256, 4096)),
    *({"min_item_ratings": least} for least in (20, 200)),
    {"max_users": 40_000},
    *({"batch_size": users} for users in (64, 1024)),
)


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


def start(settings: Settings, _):
    """The first time reads the ratings; the second time reads what the first has cached."""
    data = settings.data
    for file in find_release(data.release).glob(f"*.sequences-{data.min_item_ratings}-{data.max_users or 'all'}.npz"):
        file.unlink()
    (dataset, first), (_, second) = (timed(load_dataset, data) for _ in range(2))
    return {
        "users": len(dataset.sequences),
        "items": len(dataset.vocabulary),
        "interactions": len(dataset.sequences.tokens),
        "seconds": first,
        "seconds, second time": second,
    } | peak()


def vectors(settings: Settings, _):
    dataset = load_dataset(settings.data)
    train, before = dataset.split.train, peak()["peak GB"]
    rows = {}
    for name, most in (("strongest pairs", initial_weights.MAX_PAIRS), ("all pairs", 10**12)):
        initial_weights.MAX_PAIRS = most
        _, seconds = timed(initial_weights.ppmi_vectors, train, len(dataset.vocabulary), settings.model.width)
        rows[name] = {"seconds": seconds} | peak()
    return rows | {"peak GB before": before}


def training(settings: Settings, steps: int):
    """The plain version last, since it takes the most memory."""
    dataset = load_dataset(settings.data)
    rows = {f"{settings.training.negatives} negatives": steps_of(dataset, settings, steps)}
    rows["all items"] = steps_of(dataset, settings.change(negatives=0), steps)
    modern.CACHED_STATES = 10**9
    return rows | {"all items, whole batches": steps_of(dataset, settings.change(negatives=0), steps)}


def preset_alone(settings: Settings, steps: int):
    """The loss over a sample only: with one setting changed, or in two processes."""
    return steps_of(load_dataset(settings.data), settings, steps)


def compiled(settings: Settings, steps: int):
    """Compiling takes the time of many steps: it is left out."""
    dataset = load_dataset(settings.data)
    return {name: steps_of(dataset, settings, steps, 30, name == "compiled") for name in ("as it is", "compiled")}


def steps_of(dataset, settings: Settings, steps: int, before=3, is_compiled=False):
    settings = settings.change(start="random")
    trainer = Trainer(new_model(dataset, settings), dataset, settings)
    trainer.model.train()
    if is_compiled:
        for block in trainer.model.blocks:
            block.compile(dynamic=True)
    item_count, random = len(dataset.vocabulary), np.random.default_rng(0)
    batches = prefetch(epoch_batches(dataset.split.train, item_count, settings, random))
    for _ in range(before):
        trainer.train_step(next(batches))  # what happens once only
    users = targets = 0

    def some():
        nonlocal users, targets
        for _, batch in zip(range(steps), batches, strict=False):
            trainer.train_step(batch)
            users += len(batch.masked.history) * world_size()
            targets += len(batch.target_index) * world_size()

    _, seconds = timed(some)
    return {
        "steps": steps,
        "users/s": users / seconds,
        "targets/s": targets / seconds,
        "minutes an epoch": len(dataset.sequences) / users * seconds / 60,
        "precision": "bfloat16" if trainer.is_bfloat16 else "float32",
        "users a batch": settings.training.batch_size,
        "items": item_count,
    } | peak()


def ranking(settings: Settings, _):
    """All users against all items, by a network that has learned nothing: it takes as long. And draws of negatives."""
    dataset = load_dataset(settings.data)
    model, test = new_model(dataset, settings.change(start="random")), dataset.split.test
    item_count = len(dataset.vocabulary)
    test.histories.counts(item_count)  # the split itself takes memory
    before = peak()["peak GB"]
    rows = {"users": len(dataset.sequences), "items": item_count, "peak GB before": before}
    _, seconds = timed(target_ranks, model, test, ["full"])
    rows["full"] = {"seconds": seconds} | peak()
    for protocol in ("uniform-100", "popularity-100"):
        weights = negative_weights(protocol, test, item_count)
        _, seconds = timed(draw_negatives, test, weights, np.random.default_rng(0))
        rows[f"drawing {protocol}"] = {"seconds": seconds} | peak()
    return rows


def learning(settings: Settings, _):
    """A whole run, but a short one: its learning rate comes down within few epochs. And two baselines."""
    dataset, training = load_dataset(settings.data), settings.training
    model, start_seconds = timed(new_model, dataset, settings)
    peaks = []
    folder = PROJECT / "runs" / f"scale-{settings.preset}"
    train = partial(fit, model, dataset, settings, folder=folder)
    history, seconds = timed(partial(train, on_epoch=lambda _: peaks.append(peak()["peak GB"])))
    found = {
        "epochs": training.epochs,
        "negatives": training.negatives,
        "start from counts, seconds": start_seconds,
        "seconds": seconds,
        "history": history.to_dict("records"),
        "peak GB of epochs": peaks,
    } | peak()
    holdout = dataset.split.validation.sample(training.validation_users, seed=0)
    scores = {}
    for name in ("popularity", "markov-chain"):
        ranks = target_ranks(BASELINES[name].build(dataset), holdout, ["full"])["full"]
        scores[name] = metrics(ranks, [10])["ndcg@10"]
    return found | {"validation users": len(holdout), "ndcg@10": scores}


MEASURES = dict(
    zip(PARTS, (start, vectors, training, preset_alone, ranking, learning, preset_alone, compiled), strict=True)
)


def measure(part: str, arguments, change: dict) -> dict:
    """What a process of its own finds of a `part`, with a setting changed."""
    options = [f"--{name}={getattr(arguments, name)}" for name in ("steps", "negatives", "epochs")]
    python, environment = [sys.executable], dict(os.environ)
    if part == "two-processes":
        python += ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
        environment["OMP_NUM_THREADS"] = "1"
    command = [*python, __file__, arguments.release, *options, "--parts", part, "--alone", json.dumps(change)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("release", choices=("ml-1m", "ml-20m", "ml-25m", "ml-32m"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--steps", type=int, default=16, help="of training (default 16)")
    parser.add_argument("--negatives", type=int, default=1024, help="of the loss over a sample (default 1024)")
    parser.add_argument("--epochs", type=int, default=2, help="of learning (default 2)")
    parser.add_argument("--name", help="of the machine, say")
    parser.add_argument("--alone", type=json.loads, help=argparse.SUPPRESS)  # one part, printed as JSON
    arguments = parser.parse_args()
    settings = get_preset(arguments.release).change(negatives=arguments.negatives, epochs=arguments.epochs)
    if settings.preset != "ml-1m":
        settings = settings.change(min_item_ratings=1)
    if arguments.alone is not None:
        with process_group(best_device()):
            found = MEASURES[arguments.parts[0]](settings.change(**arguments.alone), arguments.steps)
            print_status(json.dumps(found))
        return
    name = f"scale-{arguments.release}" + (f"-{arguments.name}" if arguments.name else "")
    before = read_result(name) if path_of(name).exists() else {"parts": {}}
    found, origins = before["parts"], before.get("origins", {})

    def record(part, result):
        found[part] = result
        origins[part] = {"date": datetime.date.today().isoformat(), "code": CODE, "steps": arguments.steps}
        device = torch.cuda.get_device_name() if best_device().type == "cuda" else "cpu"
        command = f"python benchmarks/scale.py {arguments.release}"
        write_result(name, command, settings=asdict(settings), device=device, origins=origins, parts=found)

    for part in arguments.parts:
        if part == "growth":
            rows = []
            for change in GROWTH:
                if "min_item_ratings" in change or "max_users" in change:
                    measure("start", arguments, change)  # what it keeps is there for the steps
                rows.append({"change": change} | measure(part, arguments, change))
                record(part, rows)
        elif part == "two-processes" and torch.cuda.device_count() == 1:
            print("two processes need two GPUs, or none")
            continue
        else:
            record(part, measure(part, arguments, {}))
        print(part, json.dumps(found[part], indent=1))


if __name__ == "__main__":
    main()
