"""python -m bertrec_utils train"""

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path

from ..common import is_main_process, print_status
from ..data.dataset import load_dataset
from ..data.logs import log_name
from ..settings import DEFAULT_RECIPE, PRESETS, RECIPES, REPEATS, STARTS, OwnLog, get_preset, parse_changes
from ..training.checkpoints import MODEL, Checkpoint, last_set_aside, load
from ..training.devices import find_device, main_process_first, process_group
from ..training.trainer import continued_model, continued_settings, fit, new_model
from ..training.unfinished import undo_continuation
from . import log_arguments, own_log

REPEATS_NOTES = {  # what is printed when `repeats` is None and the log decides
    "keep": "repeats are a tenth of the rows or more: they are kept (--repeats first drops them)",
    "first": "repeats are less than a tenth of the rows: they are dropped (--repeats keep keeps them)",
}


def add_train(commands: "argparse._SubParsersAction") -> None:
    train = commands.add_parser("train", parents=[log_arguments()], help="train a preset; an interrupted run resumes")
    train.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="with --continue: a trained model")
    go_on = "go on from it, for a quarter of the epochs of its preset, with the rows its log has by now"
    train.add_argument("--continue", dest="go_on", action="store_true", help=go_on)
    train.add_argument("--preset", choices=PRESETS, help="default: BERTREC_PRESET, else small")
    train.add_argument("--recipe", choices=RECIPES, help=f"default: {DEFAULT_RECIPE}")
    start = "of the item embeddings; default: random for bert4rec, counts for the other recipes"
    train.add_argument("--start", choices=STARTS, help=start)
    repeats = (
        "later rows of a user with the same item: keep them, or only the first; default: keep if a tenth of all rows"
    )
    train.add_argument("--repeats", choices=REPEATS, help=repeats)
    others = "other settings: width=64 epochs=3; time_split=0.9 tests on what comes after that quantile of time"
    train.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help=others)
    train.add_argument("--seed", type=seed_number, help="default: 0")
    train.add_argument(
        "--out", type=Path, metavar="DIR", help="default: runs/PRESET[-RECIPE][-START], for a log runs/LOG-PRESET..."
    )
    train.set_defaults(run=train_command)


def train_command(arguments: argparse.Namespace) -> None:
    device, log, before = find_device(arguments.device), own_log(arguments), None
    if arguments.folder or arguments.go_on:
        before = model_to_continue(arguments)
        settings, seed = continued_settings(before.settings), before.seed
    else:
        settings, seed = get_preset(arguments.preset, arguments.recipe or DEFAULT_RECIPE, arguments.start), 0
    if log:
        repeats = before.settings.data.repeats if before else arguments.repeats
        settings = settings.change(max_users=None, repeats=repeats, **log)
    wanted = parse_changes(arguments.set)
    if files := [name for name in ("ratings_file", "items_file", "columns") if name in wanted]:
        raise ValueError(f"{files[0]} cannot be set; give a log of your own with --ratings, --items and --columns")
    if "release" in wanted and wanted["release"] is None:
        raise ValueError("release=none is of models of data frames; name a release")
    settings = settings.change(**wanted)
    if before:
        kept, now = (asdict(each.model) | asdict(each.data) for each in (before.settings, settings))
        if changed := " and ".join(name for name in now.keys() - OwnLog.__annotations__ if now[name] != kept[name]):
            advice = "leave it out, or train a new one (--out DIR)"
            raise ValueError(f"{changed} cannot change when a model goes on; {advice}")
    seed = seed if arguments.seed is None else arguments.seed
    if not settings.data.is_own and (before or "keep" in (settings.data.repeats, arguments.repeats)):
        raise ValueError("a release has neither repeats nor new rows; give a log of your own with --ratings FILE")
    # a log of your own never shares a folder with a preset
    name = f"{log_name(arguments.ratings)}-{settings.name}" if log else settings.name
    folder = arguments.folder or arguments.out or Path("runs") / name
    if log and not (arguments.folder or arguments.out):
        refuse_folder_of_another_log(folder, settings.data.ratings_file)
    with process_group(device):
        with main_process_first():  # the others find its cache
            dataset = load_dataset(settings.data)
            if before and {*map(str, before.vocabulary.items)} & {*map(str, dataset.vocabulary.items)}:
                is_undone = is_main_process() and undo_continuation(folder, dataset, settings, seed)
                before = model_to_continue(arguments) if is_undone or not is_main_process() else before
        print_status(f"data: {dataset.summary}")
        if settings.data.repeats is None:
            settings = settings.change(repeats=dataset.repeats)  # for good: more rows do not change it
            print_status(REPEATS_NOTES[dataset.repeats])
        if before and before.is_finished:
            if before.fingerprint.items() <= dataset.fingerprint.items():  # older models know no held-out items
                print_status(f"nothing that is trained on has changed in the log of {folder}: its model stays as it is")
                return
            known, items = ({*map(str, each.vocabulary.items.tolist())} for each in (before, dataset))
            then, today = (
                each.set_index(each.item.astype(str)).ratings for each in (before.load_items(), dataset.items)
            )
            rows = today.sum() - then.sum()
            changes = f"{rows:+,} rows; items: {len(items - known):,} new, {len(known - items):,} gone"
            print_status(f"since the training of {before.folder}: {changes}")
            if (today.reindex(then.index, fill_value=0) < then).any():
                leak = "what is validated and tested on now may have been trained on then"
                print_status(f"rows are gone: {leak}; do not compare this model's scores, train a new one for that")
        if before:
            model = continued_model(before, dataset, seed, device)
            rate, epochs = settings.training.learning_rate, settings.training.epochs
            print_status(f"it goes on for {epochs} epochs from a learning rate of {rate:g}; --set changes them")
        else:
            model = new_model(dataset, settings, seed, device=device)
        try:
            history = fit(model, dataset, settings, seed=seed, folder=folder, continued=before is not None)
        except KeyboardInterrupt:
            sys.exit(f"interrupted; the same command resumes after the last whole epoch in {folder}")
        best = history.loc[history["ndcg@10"].idxmax()]
        epoch = f"best epoch {best.epoch:.0f} of {len(history)}"
        print_status(f"{folder}: {epoch}, validation NDCG@10 {best['ndcg@10']:.4f}")


def refuse_folder_of_another_log(folder: Path, ratings_file: str | None) -> None:
    """ValueError if the model in `folder` is of another log of the same name, which is still there."""
    if ratings_file and (folder / MODEL).exists():
        try:
            other = load(folder, "cpu").settings.data.ratings_file
        except ValueError:  # damaged; training sets it aside
            return
        if other and all(map(os.path.exists, (other, ratings_file))) and not os.path.samefile(other, ratings_file):
            raise ValueError(f"{folder} holds a model of another log, {other}; choose another folder: --out DIR")


def model_to_continue(arguments: argparse.Namespace) -> Checkpoint:
    """The model to go on from: the one in the folder or, if a run was killed just after it moved that to previous-N,
    the newest of those. ValueError if the arguments do not fit --continue."""
    folder, names = arguments.folder, ("preset", "recipe", "start", "repeats", "out")
    if not (folder and arguments.go_on):
        raise ValueError("DIR and --continue belong together: train DIR --continue; a new model goes into --out DIR")
    if given := [f"--{name}" for name in names if getattr(arguments, name)]:
        raise ValueError(f"{given[0]} is of a new model; leave it out, or --continue")
    place = folder if (folder / MODEL).exists() else last_set_aside(folder) or folder
    return load(place, "cpu")  # its weights are read only, and each process has a device of its own


def seed_number(text: str) -> int:
    """Parse a seed that numpy, torch and scikit-learn all accept: 0 to 2**32 - 1. For argparse."""
    if not text.isdigit() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"a seed is a whole number from 0 to {2**32 - 1}, not {text!r}")
    return int(text)
