"""Unattended runs: python -m bertrec_utils train | evaluate | recommend | download."""

import argparse
import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from .common import print_status
from .data.dataset import load_dataset
from .data.releases import RELEASES, download
from .evaluation.ranking import PROTOCOLS, evaluate
from .scenarios.recommender import Recommender
from .settings import DEFAULT_RECIPE, PRESETS, RECIPES, STARTS, get_preset, parse_changes
from .training.checkpoints import Checkpoint, load
from .training.devices import DEVICES, find_device, main_process_first, process_group
from .training.trainer import fit, new_model

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # characters that would move the cursor or colour the terminal


def own_log(arguments: argparse.Namespace) -> dict[str, str]:
    """The settings that say where a log of the user's own is; none if the arguments name none."""
    if arguments.items and not arguments.ratings:
        raise ValueError("--items names the items of a log of your own; give that log with --ratings FILE")
    files = {"ratings_file": arguments.ratings, "items_file": arguments.items}
    return {name: str(path.resolve()) for name, path in files.items() if path}


def train_command(arguments: argparse.Namespace) -> None:
    device, log = find_device(arguments.device), own_log(arguments)
    settings = get_preset(arguments.preset, arguments.recipe, arguments.start)
    if log:
        settings = settings.change(max_users=None, **log)
    settings = settings.change(**parse_changes(arguments.set))
    # a log of your own never shares a folder with a preset
    name = f"{arguments.ratings.stem}-{settings.name}" if log else settings.name
    folder = arguments.out or Path("runs") / name
    with process_group(device):
        with main_process_first():  # the others find its cache
            dataset = load_dataset(settings.data)
        print_status(f"data: {dataset.counts}")
        model = new_model(dataset, settings, arguments.seed, device=device)
        try:
            history = fit(model, dataset, settings, seed=arguments.seed, folder=folder)
        except KeyboardInterrupt:
            sys.exit(f"interrupted; the same command resumes after the last whole epoch in {folder}")
        best = history.loc[history["ndcg@10"].idxmax()]
        epoch = f"best epoch {best.epoch:.0f} of {len(history)}"
        print_status(f"{folder}: {epoch}, validation NDCG@10 {best['ndcg@10']:.4f}")


def scorer_name(checkpoint: Checkpoint, with_linear: bool) -> str:
    mixed = f" + {checkpoint.linear_weight} x linear baseline" if with_linear else ", network alone"
    return checkpoint.describe() + mixed


def evaluate_command(arguments: argparse.Namespace) -> None:
    checkpoint = load(arguments.folder, arguments.device)
    dataset = checkpoint.load_dataset(**own_log(arguments))
    model = checkpoint.with_linear(dataset) if arguments.with_linear else checkpoint.model
    test = dataset.split.test
    table = evaluate(model, test, arguments.protocols)
    scorer = scorer_name(checkpoint, arguments.with_linear)
    if arguments.json:
        counts = dataset.counts._asdict() if dataset.counts else None
        answer = {"scorer": scorer, "finished": checkpoint.is_finished, "users": len(test), "data": counts}
        print(json.dumps(answer | {"protocols": table}, indent=2))
        return
    print(f"data: {dataset.counts}\nscorer: {scorer}")
    print(f"test: the last item of each of {len(test):,} users (leave-one-out)")
    print(f"{'candidates':16}{'Hit@10':>10}{'NDCG@10':>10}{'MRR@10':>10}")
    for protocol, row in table.items():
        print(f"{protocol:16}{row['hit@10']:10.4f}{row['ndcg@10']:10.4f}{row['mrr@10']:10.4f}")


def recommend_command(arguments: argparse.Namespace) -> None:
    checkpoint = load(arguments.folder, arguments.device)
    log = own_log(arguments)
    model: Any = checkpoint.model
    if arguments.with_linear:
        dataset = checkpoint.load_dataset(**log)
        model, items = checkpoint.with_linear(dataset), dataset.items
    else:
        items = checkpoint.load_items(**log)
    noun = "item" if checkpoint.settings.data.ratings_file else "film"
    recommender = Recommender(model, checkpoint.vocabulary, items, noun)
    history, unknown = recommender.look_up(arguments.history)
    for error in unknown.values():
        print(printable(str(error)), file=sys.stderr)
    options = {name: getattr(arguments, name) for name in ("as_set", "popularity_penalty", "exclude_series")}
    table = recommender.recommend_items(history, arguments.k, list(unknown), **options)
    if arguments.json:
        answer = {"scorer": scorer_name(checkpoint, arguments.with_linear), "unknown": list(unknown)}
        answer["recommendations"] = json.loads(table.to_json(orient="records"))
        text = json.dumps(answer, indent=2, ensure_ascii=False)
        print(re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text))  # JSON itself escapes those below
        return
    table = table.assign(title=table.title.map(printable), genres=table.genres.map(printable))
    with pd.option_context("display.max_colwidth", None):
        print(table[["rank", "title", "genres", "score"]].to_string(index=False, float_format="%.2f"))


def printable(text: str) -> str:
    """A text from a file as a terminal may print it."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def seed_number(text: str) -> int:
    """A whole number that numpy, torch and scikit-learn all take as a seed."""
    if not text.isdigit() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"a seed is a whole number from 0 to {2**32 - 1}, not {text!r}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    log = argparse.ArgumentParser(add_help=False)
    log.add_argument("--ratings", type=Path, metavar="FILE", help="a log of your own: CSV with user, item, timestamp")
    log.add_argument("--items", type=Path, metavar="FILE", help="its titles: CSV with item, title")
    log.add_argument("--device", choices=DEVICES, help="default: cuda, then mps, then cpu, the first there is")

    trained = argparse.ArgumentParser(add_help=False, parents=[log])
    trained.add_argument("folder", type=Path, metavar="DIR")
    trained.add_argument("--with-linear", action="store_true", help="mix in the linear baseline; takes some seconds")
    trained.add_argument("--json", action="store_true")

    main = argparse.ArgumentParser(prog="python -m bertrec_utils", description=__doc__)
    commands = main.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", parents=[log], help="train a preset; an interrupted run resumes")
    train.add_argument("--preset", choices=PRESETS, help="default: BERTREC_PRESET, else small")
    train.add_argument("--recipe", choices=RECIPES, default=DEFAULT_RECIPE, help=f"default: {DEFAULT_RECIPE}")
    train.add_argument("--start", choices=STARTS, help="of the item embeddings; default: random for bert4rec")
    train.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="other settings: width=64 epochs=3")
    train.add_argument("--seed", type=seed_number, default=0)
    train.add_argument("--out", type=Path, metavar="DIR", help="default: runs/PRESET[-RECIPE], LOG-PRESET for a log")
    train.set_defaults(run=train_command)

    evaluation = commands.add_parser("evaluate", parents=[trained], help="test metrics of a trained model")
    evaluation.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=PROTOCOLS, metavar="NAME")
    evaluation.set_defaults(run=evaluate_command)

    recommend = commands.add_parser("recommend", parents=[trained], help="what to watch after a history")
    recommend.add_argument("--history", nargs="+", required=True, metavar="TITLE", help="titles, oldest first")
    recommend.add_argument("-k", type=int, default=10, help="how many titles (default 10)")
    recommend.add_argument("--as-set", action="store_true", help="the order of the history does not matter")
    familiar = "0 familiar (default) to 1 distinctive"
    recommend.add_argument("--popularity-penalty", type=float, default=0.0, metavar="X", help=familiar)
    recommend.add_argument("--exclude-series", action="store_true", help="nothing of the same series as the history")
    recommend.set_defaults(run=recommend_command)

    fetch = commands.add_parser("download", help="fetch, verify and unpack a MovieLens release")
    fetch.add_argument("name", metavar="NAME", help=", ".join(RELEASES))
    fetch.set_defaults(run=lambda arguments: print(download(arguments.name)))
    return main


def main(arguments: list[str] | None = None) -> None:
    """Run a command; an error a user can mend is one line on stderr and exit status 1."""
    chosen = parser().parse_args(arguments)
    if arguments is None:
        signal.signal(signal.SIGTERM, _stop)
    try:
        chosen.run(chosen)
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except (ValueError, LookupError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {printable(str(error))}")


def _stop(*_: object) -> None:
    sys.exit("error: told to stop (SIGTERM); the same command goes on from what it has kept")


if __name__ == "__main__":
    main()
