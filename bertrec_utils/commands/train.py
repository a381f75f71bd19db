"""python -m bertrec_utils train"""

import argparse
import sys
from pathlib import Path

from ..common import print_status
from ..data.dataset import load_dataset
from ..data.logs import log_name
from ..settings import DEFAULT_RECIPE, PRESETS, RECIPES, STARTS, get_preset, parse_changes
from ..training.devices import find_device, main_process_first, process_group
from ..training.trainer import fit, new_model
from .arguments import log_arguments, own_log


def add_train(commands: "argparse._SubParsersAction") -> None:
    train = commands.add_parser("train", parents=[log_arguments()], help="train a preset; an interrupted run resumes")
    train.add_argument("--preset", choices=PRESETS, help="default: BERTREC_PRESET, else small")
    train.add_argument("--recipe", choices=RECIPES, default=DEFAULT_RECIPE, help=f"default: {DEFAULT_RECIPE}")
    train.add_argument("--start", choices=STARTS, help="of the item embeddings; default: random for bert4rec")
    others = "other settings: width=64 epochs=3; time_split=0.9 tests on what comes after that quantile of time"
    train.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help=others)
    train.add_argument("--seed", type=seed_number, default=0)
    train.add_argument("--out", type=Path, metavar="DIR", help="default: runs/PRESET[-RECIPE], LOG-PRESET for a log")
    train.set_defaults(run=train_command)


def train_command(arguments: argparse.Namespace) -> None:
    device, log = find_device(arguments.device), own_log(arguments)
    settings = get_preset(arguments.preset, arguments.recipe, arguments.start)
    if log:
        settings = settings.change(max_users=None, **log)
    settings = settings.change(**parse_changes(arguments.set))
    # a log of your own never shares a folder with a preset
    name = f"{log_name(arguments.ratings)}-{settings.name}" if log else settings.name
    folder = arguments.out or Path("runs") / name
    with process_group(device):
        with main_process_first():  # the others find its cache
            dataset = load_dataset(settings.data)
        print_status(f"data: {dataset.summary}")
        model = new_model(dataset, settings, arguments.seed, device=device)
        try:
            history = fit(model, dataset, settings, seed=arguments.seed, folder=folder)
        except KeyboardInterrupt:
            sys.exit(f"interrupted; the same command resumes after the last whole epoch in {folder}")
        best = history.loc[history["ndcg@10"].idxmax()]
        epoch = f"best epoch {best.epoch:.0f} of {len(history)}"
        print_status(f"{folder}: {epoch}, validation NDCG@10 {best['ndcg@10']:.4f}")


def seed_number(text: str) -> int:
    """A whole number that numpy, torch and scikit-learn all take as a seed."""
    if not text.isdigit() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"a seed is a whole number from 0 to {2**32 - 1}, not {text!r}")
    return int(text)
