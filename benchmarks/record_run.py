"""Train a preset, test it once, and write what the documents and notebooks quote.

    python benchmarks/record_run.py ml-1m --seeds 0 1 2
    python benchmarks/record_run.py ml-1m --recipe modern-next --start random --seeds 0 1 2

One file per seed, results/NAME-seedN.json, NAME as in runs/: settings, one row per epoch, and the test metrics of all
protocols, `test` of the network alone, `test-with-linear` of its mixture with the linear baseline (`test-with-chain` of
that with the smoothed chain, where there are too many items for the linear one). The trained model stays in runs/,
under the same name; an interrupted run goes on where it stopped, a finished one is only tested, and one that is
recorded with today's settings is not repeated.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from recording import mixture_name, path_of, read_result, require_plan, settings_of_today, write_result

from bertrec_utils.common import PROJECT
from bertrec_utils.data.dataset import Dataset, load_dataset
from bertrec_utils.evaluation.ranking import evaluate
from bertrec_utils.settings import DEFAULT_RECIPE, DEFAULT_STARTS, PRESETS, RECIPES, STARTS, Settings, get_preset
from bertrec_utils.training.checkpoints import MODEL, load
from bertrec_utils.training.trainer import fit, new_model
from bertrec_utils.training.unfinished import UNFINISHED


def is_finished(folder: Path, settings: Settings, seed: int, dataset: Dataset) -> bool:
    """Whether `folder` holds this very run, trained to its end."""
    if not (folder / MODEL).exists() or (folder / UNFINISHED).exists():
        return False
    checkpoint = load(folder)
    found = checkpoint.settings, len(checkpoint.history), checkpoint.seed, checkpoint.fingerprint
    return found == (settings, settings.training.epochs, seed, dataset.fingerprint)


def is_recorded(name: str, settings: Settings) -> bool:
    """Whether results/NAME.json is of these settings, and of all epochs: early stopping once cut some runs short."""
    if not path_of(name).exists():
        return False
    recorded = read_result(name)
    is_whole = len(recorded["history"]) == settings.training.epochs
    return is_whole and settings_of_today(recorded["settings"]) == asdict(settings)


def record(settings: Settings, seed: int, folder: Path) -> dict:
    dataset = load_dataset(settings.data)
    if not is_finished(folder, settings, seed, dataset):
        fit(new_model(dataset, settings, seed), dataset, settings, seed=seed, folder=folder)
    checkpoint = load(folder)
    model, mixture, sequences = checkpoint.model, checkpoint.with_linear(dataset), dataset.sequences
    mixed = mixture_name(len(dataset.vocabulary))
    return {
        "recipe": settings.recipe,
        "start": settings.start,
        "settings": asdict(settings),
        "seed": seed,
        "data": {"users": len(sequences), "items": len(dataset.vocabulary), "interactions": len(sequences.tokens)},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "history": checkpoint.history.to_dict("records"),
        "test": evaluate(model, dataset.split.test),
        "linear_weight": mixture.weight,
        f"validation-{mixed}": evaluate(mixture, dataset.split.validation, ["full"]),
        f"test-{mixed}": evaluate(mixture, dataset.split.test),
    }


def command_of(settings: Settings, seed: int) -> str:
    recipe = f" --recipe {settings.recipe}" if settings.recipe != DEFAULT_RECIPE else ""
    start = f" --start {settings.start}" if settings.start != DEFAULT_STARTS[settings.recipe] else ""
    return f"python benchmarks/record_run.py {settings.preset}{recipe}{start} --seeds {seed}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--recipe", choices=RECIPES, default=DEFAULT_RECIPE)
    parser.add_argument("--start", choices=STARTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    require_plan(arguments.preset)
    settings = get_preset(arguments.preset, arguments.recipe, arguments.start)
    for seed in arguments.seeds:
        name = f"{settings.name}-seed{seed}"
        if is_recorded(name, settings):
            print(f"{name} is recorded")
            continue
        result = record(settings, seed, PROJECT / "runs" / name)
        write_result(name, command_of(settings, seed), **result)
        print(f"{name}: {result['history'][-1]['seconds'] / 60:.1f} min")
        for test in ("test", f"test-{mixture_name(result['data']['items'])}"):
            full = result[test]["full"]
            print(f"  {test}, full: NDCG@10 {full['ndcg@10']:.4f}, Hit@10 {full['hit@10']:.4f}")


if __name__ == "__main__":
    main()
