"""Train SASRec and BERT4Rec of RecTools and RecBole to their own end, and test them as our models are tested.

    python benchmarks/peers.py small
    python benchmarks/peers.py tiny --only recbole-bert4rec --epochs 2
    BERTREC_DATA=FOLDER python benchmarks/peers.py ml-1m --speed 30

Each library runs in an environment of its own under benchmarks/environments, which the first run makes. It is given our
training sequences, no target; it answers with scores of all items, and our evaluator ranks them: after each epoch on
validation data (full ranking), and once, with the weights of the best NDCG@10, on the test.

Settings are the libraries' defaults; both losses are cross-entropy over all items. RecBole: at most 300 epochs, until
eleven in a row are no better (epochs and stopping_step in its properties/overall.yaml). RecTools trains three epochs
unless told otherwise; here, as in its authors' benchmark, at most 200, until 50 in a row are no better (README and
recommenders/rectools/transformers.py of github.com/blondered/bert4rec_repro). What is not as there: RecBole chooses its
epoch by MRR@10, that benchmark by Recall@10 of 2,048 users, the last items of the others being trained on.

Writes results/peers-PRESET.json after each model, and its ranks into results/ranks; what is recorded with the same
library and settings is skipped. --speed SECONDS records nothing: it times training steps, all at the settings EQUAL.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from recording import path_of, read_result, write_result
from table import keep_ranks

from bertrec_utils.common import PROJECT, is_interactive, progress_bar
from bertrec_utils.data.dataset import Dataset, load_dataset
from bertrec_utils.data.sequences import Sequences
from bertrec_utils.evaluation.ranking import evaluate
from bertrec_utils.settings import PRESETS, get_preset

ENVIRONMENTS, WORKER = PROJECT / "benchmarks" / "environments", PROJECT / "benchmarks" / "peer_worker.py"
REQUIREMENTS = {
    "rectools": ["torch==2.13.0", "rectools[torch]==0.19.0"],
    "recbole": ["torch==2.13.0", "recbole==1.2.1", "numpy<2", "pandas<2.2", "scipy<1.13"],  # it needs the older ones
}
COMMON = {"layers": 2, "learning_rate": 1e-3, "seed": 0}
EQUAL = {"width": 64, "layers": 2, "heads": 2, "max_length": 200, "batch_size": 128, "dropout": 0.2, "mask_ratio": 0.2}
RECTOOLS = COMMON | {"width": 256, "heads": 4, "max_length": 100, "batch_size": 128, "dropout": 0.2}
RECTOOLS |= {"epochs": 200, "patience": 50}
RECBOLE = COMMON | {"width": 64, "heads": 2, "max_length": 50, "batch_size": 2048, "epochs": 300, "patience": 11}


class Peer(NamedTuple):
    library: str
    model: str
    settings: dict[str, Any]


PEERS = {
    "rectools-sasrec": Peer("rectools", "SASRec", RECTOOLS),
    "rectools-bert4rec": Peer("rectools", "BERT4Rec", RECTOOLS | {"mask_ratio": 0.15}),
    "recbole-sasrec": Peer("recbole", "SASRec", RECBOLE | {"dropout": 0.5}),
    "recbole-bert4rec": Peer("recbole", "BERT4Rec", RECBOLE | {"dropout": 0.2, "mask_ratio": 0.2}),
}


class WrittenScores:
    """The scores that a process has written, a row for each of `users`."""

    def __init__(self, path: Path, users: np.ndarray):
        self.scores, self.rows = np.load(path, mmap_mode="r"), {user: row for row, user in enumerate(users.tolist())}

    def score(self, histories: Sequences) -> np.ndarray:
        return self.scores[[self.rows[user] for user in histories.users.tolist()]]


def python_of(library: str) -> str:
    """The interpreter of the library's environment, which is made if it is not there."""
    folder = ENVIRONMENTS / library
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print(f"Installing {library} into {folder} ...", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *REQUIREMENTS[library]], check=True)
        (folder / "complete").touch()
    return str(python)


def start(peer: Peer, dataset: Dataset, folder: Path, seconds: float | None = None) -> subprocess.Popen:
    """A process that trains, as peer_worker.py says."""
    train, test = dataset.split.train, dataset.split.test.histories
    sequences = {"train": train.tokens, "train_offsets": train.offsets}
    np.savez(folder / "sequences.npz", **sequences, test=test.tokens, test_offsets=test.offsets)
    job = peer._asdict() | {"item_count": len(dataset.vocabulary), "seconds": seconds}
    (folder / "job.json").write_text(json.dumps(job))
    command = [python_of(peer.library), str(WORKER), str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def require_success(process: subprocess.Popen, name: str) -> None:
    if process.wait():
        raise ChildProcessError(f"the process of {name} has failed; what it said is above")


def speed(name: str, dataset: Dataset, seconds: float) -> dict[str, Any]:
    """What `peer_worker.speed` measures, at the settings EQUAL."""
    library, model, settings = PEERS[name]
    peer = Peer(library, model, settings | {key: EQUAL[key] for key in EQUAL.keys() & settings})
    with tempfile.TemporaryDirectory() as folder, start(peer, dataset, Path(folder), seconds) as process:
        found = process.stdout.read()
        require_success(process, name)
    return {"settings": peer.settings} | json.loads(found)


def train(name: str, peer: Peer, dataset: Dataset, preset: str) -> dict[str, Any]:
    """What is recorded of one model: a row for each epoch, and the test of the best one."""
    validation, settings, history = dataset.split.validation, peer.settings, []
    bar = progress_bar(total=settings["epochs"], desc=name, unit="epoch")
    with tempfile.TemporaryDirectory() as folder, start(peer, dataset, Path(folder)) as process, bar:
        for line in process.stdout:
            scorer, told = WrittenScores(Path(folder, "scores.npy"), dataset.split.train.users), json.loads(line)
            if "parameters" in told:
                keep_ranks(f"peers-{preset}-{name}", {"test": scorer}, dataset)
                told |= {"history": history, "test": evaluate(scorer, dataset.split.test)}
                break
            found = evaluate(scorer, validation, ["full"], progress=False)["full"]
            row = {"epoch": len(history) + 1} | told | {metric: found[metric] for metric in ("hit@10", "ndcg@10")}
            history.append(row)
            best = max(history, key=lambda row: row["ndcg@10"])["epoch"]
            is_last = row["epoch"] >= settings["epochs"] or row["epoch"] - best >= settings["patience"]
            print(json.dumps({"is_best": row is history[best - 1], "is_last": is_last}), file=process.stdin, flush=True)
            bar.set_postfix(ndcg=f"{row['ndcg@10']:.4f}")
            bar.update()
            if not is_interactive():
                shown = f"{row['seconds'] / 60:.1f} min, validation NDCG@10 {row['ndcg@10']:.4f} (best: epoch {best})"
                print(f"{name}, epoch {row['epoch']}: {shown}", file=sys.stderr, flush=True)
        require_success(process, name)
    return told


def recorded(file: str) -> list[dict[str, Any]]:
    return read_result(file)["models"] if path_of(file).exists() else []


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--epochs", type=int, help="at most, to try it out")
    parser.add_argument("--speed", type=float, metavar="SECONDS")
    arguments = parser.parse_args()
    dataset, file = load_dataset(get_preset(arguments.preset).data), f"peers-{arguments.preset}"
    for name in arguments.only:
        if arguments.speed:
            found = speed(name, dataset, arguments.speed)
            print(f"{name:18} {found['sequences_per_second']:7.1f} sequences/s, {found['peak_mb']:6.0f} MB")
            continue
        peer = PEERS[name]
        if arguments.epochs:
            peer = peer._replace(settings=peer.settings | {"epochs": arguments.epochs})
        wanted = {"model": name, "requirements": REQUIREMENTS[peer.library], "settings": peer.settings}
        if any(wanted.items() <= row.items() for row in recorded(file)):
            print(f"{name} is recorded")
            continue
        found = wanted | train(name, peer, dataset, arguments.preset)
        command = f"python benchmarks/peers.py {shlex.join(sys.argv[1:])}"
        write_result(file, command, models=[*recorded(file), found])
        print(
            f"{name}: test NDCG@10 {found['test']['full']['ndcg@10']:.4f}, {len(found['history'])} epochs", flush=True
        )


if __name__ == "__main__":
    main()
