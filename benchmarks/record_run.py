"""Train a preset, test it once, and write what README and the notebooks quote.

    python benchmarks/record_run.py ml-1m --seeds 0 1 2
    python benchmarks/record_run.py ml-1m --recipe sasrec-warm --seeds 0 1 2

One file per seed, results/PRESET-seedN.json, or PRESET-RECIPE-seedN.json if the recipe is not ours: settings, seed,
date, commit, machine, versions, one row per epoch, the test metrics of all protocols: `test` of the transformer alone,
`test-with-linear` of its mixture with baseline. The trained model stays in runs/, under the same name; an interrupted
run goes on where it stopped, a finished one is only tested.
"""

import argparse
import datetime
import json
import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from bertrec_utils.training.checkpoints import MODEL, best_device, load
from bertrec_utils.data.dataset import Dataset, load_dataset
from bertrec_utils.evaluation.ranking import evaluate
from bertrec_utils.common import PROJECT, replace_file
from bertrec_utils.settings import PRESETS, RECIPES, Settings, get_preset
from bertrec_utils.training.trainer import UNFINISHED, fit, new_model


def machine():
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(names) or None,
        "threads": torch.get_num_threads(),
        "device": str(best_device()),
        "system": platform.system(),
    }


def _lines(path):
    return Path(path).read_text().splitlines() if Path(path).exists() else []


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


def write_result(name: str, command: str, **contents) -> None:
    """Write results/NAME.json: the command, date, code, machine and versions, then `contents`."""
    versions = {"python": platform.python_version()} | {name: version(name) for name in ("torch", "numpy", "pandas")}
    today = datetime.date.today().isoformat()
    origin = {"command": command, "date": today, "code": CODE, "machine": machine(), "versions": versions}
    text = json.dumps(origin | contents, indent=1) + "\n"
    replace_file(PROJECT / "results" / f"{name}.json", lambda path: path.write_text(text))


def is_finished(folder: Path, preset: Settings, seed: int, dataset: Dataset) -> bool:
    """Whether `folder` holds this very run, trained to its end."""
    if not (folder / MODEL).exists() or (folder / UNFINISHED).exists():
        return False
    checkpoint = load(folder)
    found = checkpoint.model.preset, checkpoint.seed, checkpoint.fingerprint
    return found == (preset, seed, dataset.fingerprint)


def record(preset: Settings, seed: int, folder: Path) -> dict:
    dataset = load_dataset(preset)
    vocabulary, sequences = dataset.vocabulary, dataset.sequences
    if not is_finished(folder, preset, seed, dataset):
        fit(new_model(dataset, preset, seed), dataset, seed=seed, folder=folder)
    checkpoint = load(folder)
    model, mixture = checkpoint.model, checkpoint.with_linear(dataset)
    return {
        "preset": asdict(preset),
        "seed": seed,
        "data": {"users": len(sequences), "items": len(vocabulary), "interactions": len(sequences.tokens)},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "history": checkpoint.history.to_dict("records"),
        "test": evaluate(model, dataset.split.test),
        "linear_weight": mixture.weight,
        "validation-with-linear": evaluate(mixture, dataset.split.validation, ["full"]),
        "test-with-linear": evaluate(mixture, dataset.split.test),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--recipe", choices=RECIPES, default="ours")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    preset, recipe = get_preset(arguments.preset, arguments.recipe), arguments.recipe
    for seed in arguments.seeds:
        name = preset.name + (f"-{recipe}" if recipe != "ours" else "") + f"-seed{seed}"
        options = f"--recipe {recipe} --seeds {seed}" if recipe != "ours" else f"--seeds {seed}"
        result = {"recipe": recipe} | record(preset, seed, PROJECT / "runs" / name)
        write_result(name, f"python benchmarks/record_run.py {preset.name} {options}", **result)
        print(f"{name}: {result['history'][-1]['seconds'] / 60:.1f} min")
        for test in ("test", "test-with-linear"):
            full = result[test]["full"]
            print(f"  {test}, full: NDCG@10 {full['ndcg@10']:.4f}, Hit@10 {full['hit@10']:.4f}")


if __name__ == "__main__":
    main()
