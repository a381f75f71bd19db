"""Unattended runs: python -m bertrec_utils train | evaluate | recommend | download."""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from . import processes
from .checkpoints import best_device, load
from .dataset import load_dataset
from .evaluation import PROTOCOLS, evaluate
from .presets import PRECISIONS, PRESETS, RECIPES, get_preset
from .progress import say
from .recommend import Recommender
from .releases import RELEASES, download
from .training import fit, new_model

DEVICES = ("cpu", "cuda", "mps")


def own_log(arguments):
    """The settings that say where a log of the user's own lies; none if the arguments name none."""
    if arguments.items and not arguments.ratings:
        raise ValueError("--items names the items of a log of your own; give that log with --ratings FILE")
    files = {"ratings_file": arguments.ratings, "items_file": arguments.items}
    return {name: str(path.resolve()) for name, path in files.items() if path}


def train_command(arguments):
    preset = replace(get_preset(arguments.preset, arguments.recipe), **own_log(arguments))
    name = preset.name
    if arguments.ratings:
        preset, name = replace(preset, max_users=None), arguments.ratings.stem
    if arguments.recipe != "ours":
        name += f"-{arguments.recipe}"
    if arguments.device and arguments.device != "cpu" and not getattr(torch, arguments.device).is_available():
        raise ValueError(f"PyTorch finds no {arguments.device} device here; leave --device out, or say --device cpu")
    chosen = {name: getattr(arguments, name) for name in ("precision", "negatives", "min_item_ratings")}
    preset = replace(preset, **{name: value for name, value in chosen.items() if value is not None})
    folder = arguments.out or Path("runs") / name
    device = torch.device(arguments.device) if arguments.device else best_device()
    with processes.joined(device):
        with processes.first_goes_first():  # the others find its cache
            dataset = load_dataset(preset)
        model = new_model(dataset, preset, arguments.seed, device=device)
        try:
            history = fit(model, dataset, seed=arguments.seed, folder=folder)
        except KeyboardInterrupt:
            sys.exit(f"interrupted; the same command goes on from the last whole epoch in {folder}")
        best = history.loc[history["ndcg@10"].idxmax()]
        say(f"{folder}: best epoch {best.epoch:.0f} of {len(history)}, validation NDCG@10 {best['ndcg@10']:.4f}")


def evaluate_command(arguments):
    checkpoint = load(arguments.folder)
    dataset = checkpoint.load_dataset(**own_log(arguments))
    alone = arguments.transformer_only or checkpoint.counting_weight is None
    model = checkpoint.model if alone else checkpoint.with_counting(dataset)
    table = evaluate(model, dataset.split.test, arguments.protocols)
    if arguments.json:
        print(json.dumps(table, indent=2))
        return
    print(f"{'':16}{'Hit@10':>10}{'NDCG@10':>10}{'MRR@10':>10}")
    for protocol, row in table.items():
        print(f"{protocol:16}{row['hit@10']:10.4f}{row['ndcg@10']:10.4f}{row['mrr@10']:10.4f}")


def recommend_command(arguments):
    checkpoint = load(arguments.folder)
    dataset = checkpoint.load_dataset(**own_log(arguments))
    model = checkpoint.with_counting(dataset) if arguments.with_counting else checkpoint.model
    recommender = Recommender(model, checkpoint.vocabulary, dataset.log)
    items, unknown = recommender.look_up(arguments.history)
    for error in unknown.values():
        print(error, file=sys.stderr)
    how = {name: getattr(arguments, name) for name in ("as_set", "lift", "other_series")}
    table = recommender.recommend_items(items, arguments.k, list(unknown), **how)
    if arguments.json:
        answer = {"recommendations": json.loads(table.to_json(orient="records")), "unknown": list(unknown)}
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        print(table[["rank", "title", "genres", "score"]].to_string(index=False, float_format="%.2f"))


def seed_number(text):
    """A whole number that numpy, torch and scikit-learn all take as a seed."""
    if not text.isdigit() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"a seed is a whole number from 0 to {2**32 - 1}, not {text!r}")
    return int(text)


def parser():
    log = argparse.ArgumentParser(add_help=False)
    log.add_argument("--ratings", type=Path, metavar="FILE", help="a log of your own: CSV with user, item, timestamp")
    log.add_argument("--items", type=Path, metavar="FILE", help="its titles: CSV with item, title")

    trained = argparse.ArgumentParser(add_help=False, parents=[log])
    trained.add_argument("folder", type=Path, metavar="DIR")
    trained.add_argument("--json", action="store_true")

    main = argparse.ArgumentParser(prog="python -m bertrec_utils", description=__doc__)
    commands = main.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", parents=[log], help="train a preset; an interrupted run goes on")
    train.add_argument("--preset", choices=PRESETS, help="default: BERTREC_PRESET, else small")
    train.add_argument("--recipe", choices=RECIPES, default="ours", help="how to train (default: ours)")
    train.add_argument("--seed", type=seed_number, default=0)
    train.add_argument(
        "--out", type=Path, metavar="DIR", help="default: runs/PRESET[-RECIPE], or by the name of the CSV"
    )
    train.add_argument("--device", choices=DEVICES, help="default: cuda, then mps, then cpu, the first there is")
    train.add_argument("--negatives", type=int, metavar="N", help="items that stand for all in the loss; 0: all do")
    train.add_argument("--precision", choices=PRECISIONS, help="of matrix products (default: that of the preset, auto)")
    train.add_argument("--min-item-ratings", type=int, metavar="N", help="drop items with fewer ratings")
    train.set_defaults(run=train_command)

    evaluation = commands.add_parser("evaluate", parents=[trained], help="test metrics of a trained model")
    evaluation.add_argument("--transformer-only", action="store_true", help="without what counting adds")
    evaluation.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=PROTOCOLS, metavar="NAME")
    evaluation.set_defaults(run=evaluate_command)

    recommend = commands.add_parser("recommend", parents=[trained], help="what to watch after a history")
    recommend.add_argument("--history", nargs="+", required=True, metavar="TITLE", help="titles, oldest first")
    recommend.add_argument("-k", type=int, default=10, help="how many titles (default 10)")
    recommend.add_argument("--as-set", action="store_true", help="the order of the history does not count")
    recommend.add_argument("--lift", type=float, default=0.0, metavar="X", help="0 familiar (default) to 1 distinctive")
    recommend.add_argument("--other-series", action="store_true", help="nothing of the same series as the history")
    counting = recommend.add_mutually_exclusive_group()
    counting.add_argument("--with-counting", action="store_true", help="add what counting knows; takes some seconds")
    counting.add_argument("--transformer-only", action="store_true", help="the default")
    recommend.set_defaults(run=recommend_command)

    fetch = commands.add_parser("download", help="fetch, verify and unpack a MovieLens release")
    fetch.add_argument("name", metavar="NAME", help=", ".join(RELEASES))
    fetch.set_defaults(run=lambda arguments: print(download(arguments.name)))
    return main


def main(arguments=None):
    """Run a command; an error a user can mend is one line on stderr and exit status 1."""
    chosen = parser().parse_args(arguments)
    try:
        chosen.run(chosen)
    except (ValueError, LookupError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
