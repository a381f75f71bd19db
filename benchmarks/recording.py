"""Files in results/: how they are read, and what each says of its origin."""

import datetime
import json
import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import filelock
import numpy as np
import torch

from bertrec_utils.common import PROJECT, replace_file
from bertrec_utils.evaluation.baselines import MAX_ITEMS
from bertrec_utils.evaluation.ranking import read_ranks, write_ranks
from bertrec_utils.settings import DEFAULT_STARTS, GROUPS
from bertrec_utils.training.devices import best_device, multiplies_bfloat16
from bertrec_utils.training.formats import update_settings

RESULTS = PROJECT / "results"
SEALED = ("movietweetings", "beauty")  # data on which no settings are chosen


def machine() -> dict:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(names) or None,
        "threads": torch.get_num_threads(),
        "device": str(best_device()),
        "precision": "bfloat16" if multiplies_bfloat16(best_device()) else "float32",  # of products, unless set
        "system": platform.system(),
    }


def code_version() -> dict:
    """The commit the code is at, and the files that differ from it: none if the tree is clean."""

    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, text=True, check=True).stdout

    try:
        changed = [line[3:] for line in git("status", "--porcelain").splitlines()]
        return {"commit": git("rev-parse", "HEAD").strip(), "changed": [f for f in changed if f[:8] != "results/"]}
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return {"commit": None, "changed": None}


CODE = code_version()  # when a run starts: it takes long, and files may change meanwhile


def model_name(recipe: str, start: str) -> str:
    """What tables call a model: its recipe, and its start if that is not the recipe's own."""
    return recipe if start == DEFAULT_STARTS[recipe] else f"{recipe}-{start}"


def mixture_name(item_count: int) -> str:
    """What is added to the name of a network that is mixed: with a chain if there are too many items for `linear`."""
    return "with-linear" if item_count <= MAX_ITEMS else "with-chain"


def require_plan(preset: str) -> None:
    """ValueError if a preset is one of SEALED and nothing in results/ says beforehand what will be tested on it."""
    if preset in SEALED and not (RESULTS / "sealed.md").exists():
        raise ValueError(f"{preset} is sealed: write results/sealed.md and commit it, then test")


def path_of(name: str) -> Path:
    return RESULTS / f"{name}.json"


def read_result(name: str) -> dict:
    return json.loads(path_of(name).read_text())


def settings_of_today(recorded: dict) -> dict:
    """Recorded settings as a run would have them now: without what is no setting any more, with what was none then."""
    updated = update_settings(recorded)
    return updated | {name: asdict(kind(**updated[name])) for name, kind in GROUPS.items()}


def origin_of(command: str) -> dict:
    """The command, today's date, code, machine and versions."""
    versions = {"python": platform.python_version()} | {name: version(name) for name in ("torch", "numpy", "pandas")}
    today = datetime.date.today().isoformat()
    return {"command": command, "date": today, "code": CODE, "machine": machine(), "versions": versions}


def write_result(name: str, command: str, **contents) -> None:
    """Write results/NAME.json: its origin, then `contents`."""
    text = json.dumps(origin_of(command) | contents, indent=1) + "\n"
    path_of(name).parent.mkdir(parents=True, exist_ok=True)
    replace_file(path_of(name), lambda path: path.write_text(text))


def add_run(name: str, key: str, run: dict, command: str, ranks: dict[str, dict] | None = None) -> None:
    """Add `run`, with an origin of its own, to the list `key` of results/NAME.json, and its `ranks` (scorer -> protocol
    -> (U,)) to those in results/ranks. Several processes may do so, one after the other."""
    path_of(name).parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path_of(name).with_suffix(".lock")):
        if ranks:
            write_ranks(path_of_ranks(name), all_ranks(name) | ranks)
        before = read_result(name)[key] if path_of(name).exists() else []
        write_result(name, command, **{key: [*before, run | {"origin": origin_of(command)}]})


def path_of_ranks(name: str) -> Path:
    return RESULTS / "ranks" / f"{name}.npz"


def all_ranks(name: str) -> dict[str, dict[str, np.ndarray]]:
    """What results/ranks/NAME.npz holds, nothing if it is not there."""
    return read_ranks(path_of_ranks(name)) if path_of_ranks(name).exists() else {}
