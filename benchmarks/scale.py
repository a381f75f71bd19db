"""What ML-25M's size costs: starting, baseline, training, ranking, each in a process of its own, with its peak memory.

    python benchmarks/generate_release.py ml-25m FOLDER
    BERTREC_DATA=FOLDER python benchmarks/scale.py ml-25m [--parts start warm-start ...] [--name NAME]

results/scale-RELEASE[-NAME].json. All films are kept, those with one rating too, so that the catalogue is as large as
it can be. Where a part has a plain and a fast version they are measured in the same process, one after the other: the
warm start from all pairs of films and from the strongest; steps of training on the same batches, the loss over a sample
and over all films, and that with each batch as a whole in place of parts that fit into a processor's cache;
`two-processes` trains with a thread each. `learning` is a whole run of few epochs, and compares the model with others
that count. `growth` trains some steps with one setting changed at a time, `compiled` by what torch.compile makes of the
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
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import torch
from record_run import CODE, write_result

from bertrec_utils import cpu, warm_start
from bertrec_utils.evaluation.baselines import MarkovChain, Popularity
from bertrec_utils.training.batches import ahead, epoch_batches
from bertrec_utils.training.checkpoints import best_device
from bertrec_utils.data.dataset import load_dataset
from bertrec_utils.evaluation.ranking import draw_negatives, metrics, target_ranks, negative_weights
from bertrec_utils.common import PROJECT
from bertrec_utils.settings import get_preset
from bertrec_utils.training.devices import count, process_group
from bertrec_utils.common import say
from bertrec_utils.data.releases import find_release
from bertrec_utils.training.trainer import Trainer, sample_holdout
from bertrec_utils.training.trainer import fit, new_model

PARTS = ("start", "warm-start", "training", "two-processes", "ranking", "learning", "growth", "compiled")
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


def start(preset, _):
    """The first time reads the ratings; the second time reads what the first has kept."""
    kept = f"*.sequences-{preset.min_item_ratings}-{preset.max_users or 'all'}.npz"
    for file in find_release(preset.release).glob(kept):
        file.unlink()
    first, second = (timed(load_dataset, preset) for _ in range(2))
    data = first[0]
    return {
        "users": len(data.sequences),
        "items": len(data.vocabulary),
        "interactions": len(data.sequences.tokens),
        "seconds": first[1],
        "seconds, second time": second[1],
    } | peak()


def baseline(preset, _):
    data = load_dataset(preset)
    train, before = data.split.train, peak()["peak GB"]
    rows = {}
    for name, most in (("strongest pairs", warm_start.MOST_PAIRS), ("all pairs", 10**12)):
        warm_start.MOST_PAIRS = most
        _, seconds = timed(warm_start.item_vectors, train, len(data.vocabulary), preset.width)
        rows[name] = {"seconds": seconds} | peak()
    return rows | {"peak GB before": before}


def training(preset, steps):
    """The plain version last, since it takes the most memory."""
    data = load_dataset(preset)
    rows = {f"{preset.negatives} negatives": steps_of(data, preset, steps)}
    rows["all items"] = steps_of(data, replace(preset, negatives=0), steps)
    cpu.CACHED_STATES = 10**9
    return rows | {"all items, whole batches": steps_of(data, replace(preset, negatives=0), steps)}


def preset_alone(preset, steps):
    """The loss over a sample only: with one setting changed, or in two processes."""
    return steps_of(load_dataset(preset), preset, steps)


def compiled(preset, steps):
    """Compiling takes the time of many steps: it is left out."""
    data = load_dataset(preset)
    return {name: steps_of(data, preset, steps, 30, name == "compiled") for name in ("as it is", "compiled")}


def steps_of(data, preset, steps, before=3, is_compiled=False):
    run = Trainer(new_model(data, replace(preset, warm_start=False)), data, seed=0)
    run.model.train()
    if is_compiled:
        for block in run.model.blocks:
            block.compile(dynamic=True)
    batches = ahead(epoch_batches(data.split.train, len(data.vocabulary), preset, np.random.default_rng(0)))
    for _ in range(before):
        run.train_step(next(batches))  # what happens once only
    users = questions = 0

    def some():
        nonlocal users, questions
        for _, batch in zip(range(steps), batches, strict=False):
            run.train_step(batch)
            users += len(batch.questions.history) * count()
            questions += len(batch.used) * count()

    _, seconds = timed(some)
    return {
        "steps": steps,
        "users/s": users / seconds,
        "questions/s": questions / seconds,
        "minutes an epoch": len(data.sequences) / users * seconds / 60,
        "precision": "bfloat16" if run.is_bfloat16 else "float32",
        "users a batch": preset.batch_size,
        "items": len(data.vocabulary),
    } | peak()


def ranking(preset, _):
    """All users against all items, by a network that has learned nothing: it takes as long. And draws of negatives."""
    data = load_dataset(preset)
    model = new_model(data, replace(preset, warm_start=False))
    data.split.test.histories.counts(len(data.vocabulary))  # the split itself takes memory
    before = peak()["peak GB"]
    rows = {"users": len(data.sequences), "items": len(data.vocabulary), "peak GB before": before}
    _, seconds = timed(target_ranks, model, data.split.test, ["full"])
    rows["full"] = {"seconds": seconds} | peak()
    for protocol in ("uniform-100", "popularity-100"):
        weights = negative_weights(protocol, data.split.test, len(data.vocabulary))
        _, seconds = timed(draw_negatives, data.split.test, weights, np.random.default_rng(0))
        rows[f"drawing {protocol}"] = {"seconds": seconds} | peak()
    return rows


def learning(preset, _):
    """A whole run, but a short one: its learning rate comes down within few epochs. And models that count."""
    data = load_dataset(preset)
    model, counted = timed(new_model, data, preset)
    peaks = []
    folder = PROJECT / "runs" / f"scale-{preset.name}"
    history, seconds = timed(
        partial(fit, model, data, folder=folder, on_epoch=lambda _: peaks.append(peak()["peak GB"]))
    )
    found = {
        "epochs": preset.epochs,
        "negatives": preset.negatives,
        "warm start, seconds": counted,
        "seconds": seconds,
        "history": history.to_dict("records"),
        "peak GB of epochs": peaks,
    } | peak()
    holdout = sample_holdout(data.split.validation, preset.validation_users, seed=0)
    others = {"Popularity": Popularity, "Markov chain": MarkovChain}
    scores = {
        name: metrics(target_ranks(kind(data.split.train, model.item_count), holdout, ["full"])["full"], [10])
        for name, kind in others.items()
    }
    return found | {
        "users asked": len(holdout.targets),
        "ndcg@10": {name: row["ndcg@10"] for name, row in scores.items()},
    }


MEASURES = dict(
    zip(PARTS, (start, baseline, training, preset_alone, ranking, learning, preset_alone, compiled), strict=True)
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


def readme_rows(parts: dict) -> list[str]:
    """The lines of README's table: what, the plain version, this one."""
    started, counted, trained = parts["start"], parts["warm-start"], parts["training"]
    plain, full, sample = (trained[name] for name in ("all items, whole batches", "all items", "1024 negatives"))
    two = parts["two-processes"]
    ranked, learned = parts["ranking"], parts["learning"]
    epoch_minutes = learned["history"][0]["seconds"] / 60
    drawn = " and ".join(f"{ranked[f'drawing {name}']['seconds']:.0f} s" for name in ("uniform-100", "popularity-100"))

    def memory(row):
        return f"{row['peak GB']:.1f} GB"

    def counting_row(row):
        return f"{row['seconds']:.0f} s, {memory(row)}"

    def speed(row):
        return f"{row['users/s']:.0f} users/s, {memory(row)}"

    return [
        f"| from the ratings file to sequences | {started['seconds']:.0f} s, {memory(started)} | "
        f"the second time {started['seconds, second time']:.2f} s |",
        f"| warm start | from all pairs {counting_row(counted['all pairs'])} | "
        f"from the strongest pairs {counting_row(counted['strongest pairs'])} |",
        f"| training, loss over all films | {speed(plain)} | parts of a batch that fit into the cache {speed(full)} |",
        f"| training, loss over samples | | {speed(sample)} |",
        f"| the same in two processes of a thread each | | {two['users/s']:.0f} users/s |",
        f"| one epoch, and its {learned['users asked']:,} validation users | | {epoch_minutes:.0f} min |",
        f"| all users against all films | | {ranked['full']['seconds'] / 60:.1f} min, {memory(ranked['full'])} |",
        f"| 100 negatives for each user, evenly and by popularity | | {drawn} |",
    ]


def readme_comparison(runs: list[dict]) -> list[str]:
    """The lines of README's table of what was learned: models that count, then the best epoch of each of the `runs`."""
    rows = {name: runs[0]["parts"]["learning"]["ndcg@10"][name] for name in ("Popularity", "Markov chain")}
    for run in runs:
        learned = run["parts"]["learning"]
        loss = f"samples of {learned['negatives']:,}" if learned["negatives"] else "all films"
        device = f"{run['machine']['cores']} CPU cores" if run["device"] == "cpu" else run["device"]
        name = f"ModernTransformer, {learned['epochs']} epochs, loss over {loss}, {device}"
        rows[name] = max(row["ndcg@10"] for row in learned["history"])
    return [f"| {name} | {value:.4f} |" for name, value in rows.items()]


def readme_growth(parts: dict) -> list[str]:
    """The lines of README's table of what grows with what."""
    return [
        f"| {change_in_words(row)} | {row['questions/s']:,.0f} | {row['minutes an epoch']:.0f} min | "
        f"{row['peak GB']:.1f} GB |"
        for row in parts["growth"]
    ]


def change_in_words(row: dict) -> str:
    if "min_item_ratings" in row["change"]:
        return f"{row['items']:,} films"
    names = {
        "max_users": "{:,} users",
        "max_length": "history {}",
        "batch_size": "batches of {:,} users",
        "negatives": "{:,} negatives",
    }
    changes = [names.get(name, name + " {}").format(value) for name, value in row["change"].items()]
    return changes[0] if changes else "the preset, all films kept"


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
    preset = replace(get_preset(arguments.release), negatives=arguments.negatives, epochs=arguments.epochs)
    if preset.name != "ml-1m":
        preset = replace(preset, min_item_ratings=1)
    if arguments.alone is not None:
        with process_group(best_device()):
            found = MEASURES[arguments.parts[0]](replace(preset, **arguments.alone), arguments.steps)
            say(json.dumps(found))
        return
    name = f"scale-{arguments.release}" + (f"-{arguments.name}" if arguments.name else "")
    path = PROJECT / "results" / f"{name}.json"
    before = json.loads(path.read_text()) if path.exists() else {"parts": {}}
    found, origins = before["parts"], before.get("origins", {})

    def record(part, result):
        found[part] = result
        origins[part] = {"date": datetime.date.today().isoformat(), "code": CODE, "steps": arguments.steps}
        device = torch.cuda.get_device_name() if best_device().type == "cuda" else "cpu"
        command = f"python benchmarks/scale.py {arguments.release}"
        write_result(name, command, preset=asdict(preset), device=device, origins=origins, parts=found)

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
