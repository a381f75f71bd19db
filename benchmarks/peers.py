"""Train SASRec and BERT4Rec of RecTools and RecBole to their own end, and test them as our models are tested.

    python benchmarks/peers.py small
    python benchmarks/peers.py tiny --only recbole-bert4rec --epochs 2

Each library has an environment of its own in benchmarks/environments, which is made first, and learns from our training
sequences. Our evaluator ranks by its scores of all items: after each epoch on validation data (full ranking), and once,
by the weights of the best NDCG@10, on the test.

Settings are the library's defaults, and the loss of all four is cross-entropy over all items. RecBole (width 64, the
last 50 items, batches of 2,048 prefixes): at most 300 epochs, until eleven in a row are no better (`epochs` and
`stopping_step` in its properties/overall.yaml). RecTools (width 256, the last 100 items, batches of 128 users) stops
after three epochs unless told otherwise; here, as in its authors' benchmark, at most 200, until 50 in a row are no
better (README and recommenders/rectools/transformers.py of github.com/blondered/bert4rec_repro). Not as there: RecBole
chooses by MRR@10, that benchmark by Recall@10 of 2,048 users, and it trains on the last items of the rest.

Each model is added to results/peers-PRESET.json when it is done, and its ranks to results/ranks; one that is recorded
with the same library and settings is skipped.
"""

import argparse
import os
import pickle
import shlex
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from recording import add_run, path_of, read_result, require_plan

from bertrec_utils.common import PROJECT
from bertrec_utils.data.dataset import Dataset, load_dataset
from bertrec_utils.evaluation.ranking import metrics
from bertrec_utils.settings import PRESETS, get_preset

REQUIREMENTS = {
    "rectools": ["torch==2.13.0", "rectools[torch]==0.19.0"],
    "recbole": ["torch==2.13.0", "recbole==1.2.1", "numpy<2", "pandas<2.2", "scipy<1.13"],  # it needs the older ones
}
TO_THE_END = {"rectools": {"epochs": 200, "patience": 50}, "recbole": {"epochs": 300, "patience": 11}}
PEERS = {f"{library}-{model.lower()}": (library, model) for library in REQUIREMENTS for model in ("SASRec", "BERT4Rec")}


def python_of(library: str) -> Path:
    """The interpreter of the library's environment, which is made if it is not there."""
    folder = PROJECT / "benchmarks" / "environments" / library
    if not (folder / "complete").exists():
        print(f"Installing {library} into {folder} ...", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([folder / "bin/python", "-m", "pip", "install", "-q", *REQUIREMENTS[library]], check=True)
        (folder / "complete").touch()
    return folder / "bin/python"


def run(library: str, model: str, dataset: Dataset, settings: dict, **job) -> dict:
    """What the library's process finds: with `seconds` the speed, with `epochs` and `patience` how good it becomes."""
    job |= {"library": library, "model": model, "settings": settings, "items": len(dataset.vocabulary)}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "job").write_bytes(pickle.dumps((job, dataset.split)))
        python = python_of(library) if library in REQUIREMENTS else sys.executable
        command = [python, PROJECT / "benchmarks" / "peer_worker.py", folder]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": str(PROJECT)}, check=True)
        return pickle.loads(Path(folder, "found").read_bytes())


def recorded(file: str) -> list[dict]:
    return read_result(file)["models"] if path_of(file).exists() else []


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS), metavar="MODEL", help=", ".join(PEERS))
    parser.add_argument("--epochs", type=int, help="at most, to try it out")
    arguments = parser.parse_args()
    require_plan(arguments.preset)
    dataset, file = load_dataset(get_preset(arguments.preset).data), f"peers-{arguments.preset}"
    for name in arguments.only:
        library, model = PEERS[name]
        limits = TO_THE_END[library] | ({"epochs": arguments.epochs} if arguments.epochs else {})
        wanted = {"model": name, "requirements": REQUIREMENTS[library], "settings": limits}
        if any(wanted.items() <= row.items() for row in recorded(file)):
            print(f"{name} is recorded")
            continue
        found = run(library, model, dataset, {}, **limits)
        ranks = found.pop("ranks")
        found = wanted | found | {"test": {protocol: metrics(of_users) for protocol, of_users in ranks.items()}}
        add_run(file, "models", found, f"python benchmarks/peers.py {shlex.join(sys.argv[1:])}", {name: ranks})
        print(f"{name}: test NDCG@10 {found['test']['full']['ndcg@10']:.4f}", flush=True)


if __name__ == "__main__":
    main()
