"""Unattended runs: python -m bertrec_utils train | evaluate | compare | recommend | download."""

import argparse
import csv
import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .common import print_status
from .data.dataset import Dataset, load_dataset
from .data.logs import log_name
from .data.releases import RELEASES, download
from .evaluation import ranking
from .evaluation.ranking import MARGIN, PROTOCOLS, RUN_LENGTH, bootstrap_interval
from .scenarios.recommender import Recommender
from .scenarios.titles import sum_up
from .settings import DEFAULT_RECIPE, PRESETS, RECIPES, STARTS, get_preset, parse_changes
from .training.checkpoints import Checkpoint, load
from .training.devices import DEVICES, find_device, main_process_first, process_group
from .training.trainer import fit, new_model

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # characters that would move the cursor or colour the terminal


def own_log(arguments: argparse.Namespace) -> dict[str, str]:
    """The settings that say where a log of the user's own is, and what its columns are; none if the arguments name
    none."""
    if (arguments.items or arguments.columns) and not arguments.ratings:
        raise ValueError("--items and --columns are of a log of your own; give that log with --ratings FILE")
    files = {"ratings_file": arguments.ratings, "items_file": arguments.items}
    columns = {"columns": " ".join(arguments.columns)} if arguments.columns else {}
    return {name: str(path.expanduser().resolve()) for name, path in files.items() if path} | columns


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


def scorer_name(checkpoint: Checkpoint, with_linear: bool) -> str:
    mixed = f" + {checkpoint.linear_weight} x linear baseline" if with_linear else ", network alone"
    return checkpoint.describe() + mixed


def evaluate_command(arguments: argparse.Namespace) -> None:
    checkpoint = load(arguments.folder, arguments.device)
    dataset = checkpoint.load_dataset(**own_log(arguments))
    model = checkpoint.with_linear(dataset) if arguments.with_linear else checkpoint.model
    test = dataset.split.test
    table = ranking.evaluate(model, test, arguments.protocols)
    if "full" in table and len(table) < len(arguments.protocols or PROTOCOLS):
        print("the sampled protocols need 100 unseen items for each user: they are left out", file=sys.stderr)
    if arguments.run_file:
        ranking.write_run(arguments.run_file, model, test.histories, dataset.vocabulary)
        print(f"{arguments.run_file}: the best {RUN_LENGTH} items of {len(test):,} users", file=sys.stderr)
    scorer = scorer_name(checkpoint, arguments.with_linear)
    if arguments.json:
        counts = dataset.counts._asdict() if dataset.counts else None
        answer = {"scorer": scorer, "finished": checkpoint.is_finished, "users": len(test), "data": counts}
        print(json.dumps(answer | {"protocols": table}, indent=2))
        return
    print(f"data: {dataset.summary}\nscorer: {scorer}")
    split = checkpoint.settings.data.time_split
    kind = f"the first item after the {split} quantile of time" if split else "the last item"
    print(f"test: {kind} of each of {len(test):,} users{'' if split else ' (leave-one-out)'}")
    print(f"{'candidates':16}{'Hit@10':>10}{'NDCG@10':>10}{'MRR@10':>10}")
    for protocol, row in table.items():
        print(f"{protocol:16}{row['hit@10']:10.4f}{row['ndcg@10']:10.4f}{row['mrr@10']:10.4f}")


def read_run(path: Path) -> pd.DataFrame:
    """user, item, score of a run file: lines `user item score`, or a TREC run's six columns, or a first line that names
    the columns; between tabs, spaces or commas."""
    with open(path, encoding="utf-8-sig") as file:
        line = file.readline().lower()
    separator = "\t" if "\t" in line else r"\s+" if len(line.split()) in (3, 6) else ","
    fields, names = re.split(separator, line.strip()), ["user", "item", "score"]
    named = [next((at for at, field in enumerate(fields) if field.strip('"').startswith(name)), -1) for name in names]
    columns = named if min(named) >= 0 else {3: [0, 1, 2], 6: [0, 2, 4]}.get(len(fields))
    if not columns:
        raise ValueError("no run file; write lines of user, item and score, or name these columns in the first line")
    options: dict[str, Any] = {"header": None, "skiprows": int(columns is named), "usecols": columns}
    options |= {"dtype": dict(zip(columns, ("category", "category", float), strict=True)), "keep_default_na": False}
    quoting = csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE
    return pd.read_csv(path, sep=separator, quoting=quoting, **options)[columns].set_axis(names, axis="columns")


def split_name(model: str) -> tuple[Path, str]:
    """Where a model is, and which of those there, as PATH:NAME says."""
    path, _, part = model.rpartition(":")
    return (Path(path), part) if path and not re.search(r"[/\\]", part) else (Path(model), "")


def data_to_compare_on(arguments: argparse.Namespace, trained: list[Checkpoint]) -> Dataset | None:
    """What --data or --ratings names, else what the first of the trained models was trained on."""
    log = own_log(arguments)
    if arguments.data in PRESETS or (log and not trained and not arguments.data):
        settings = get_preset(arguments.data)
        return load_dataset((settings.change(max_users=None, **log) if log else settings).data)
    trained = [load(arguments.data, arguments.device)] if arguments.data else trained
    return trained[0].load_dataset(**log) if trained else None


def ranks_of(
    path: Path, part: str, trained: Checkpoint | None, dataset: Dataset | None
) -> tuple[np.ndarray, list[str]]:
    """The ranks (U,) of the test targets, full ranking, by a trained model, a run file or a file of ranks, and what
    should be known about them."""
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; name a folder of a trained model, a run file or a file of ranks")
    if path.suffix == ".npz":
        ranks = ranking.read_ranks(path)
        name = part if part in ranks else f"test-{part}" if part else "test"
        if name not in ranks:
            raise ValueError(f"{path} has ranks of {', '.join(ranks)}; name one of them, as in {path}:{min(ranks)}")
        return ranks[name], []
    if dataset is None:
        options = "--data PRESET, --data DIR of a trained model, or --ratings FILE"
        raise ValueError(f"what the lists of {path} should hold is not known; name their data: {options}")
    if part and not (trained and part == "with-linear"):
        raise ValueError(f"there is no {path}:{part}; of a trained model there is DIR:with-linear")
    if trained:
        trained.check(dataset)
        scorer = trained.with_linear(dataset) if part == "with-linear" else trained.model
        return ranking.target_ranks(scorer, dataset.split.test, ["full"])["full"], []
    try:
        lists = read_run(path)
        return ranking.run_ranks(lists.user, lists.item, lists.score, dataset.split.test, dataset.vocabulary)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def compare_command(arguments: argparse.Namespace) -> None:
    if not arguments.others and not arguments.against:
        raise ValueError(f"name what {arguments.model} is compared with: another model, or --against results/")
    if arguments.plot:
        try:
            from .plots import plot_comparison
        except ImportError as error:
            raise ValueError(f"--plot needs the extra plots ({error}): pip install 'bertrec-utils[plots]'") from error
    own, models = arguments.model, {}
    places = {model: split_name(model) for model in (own, *arguments.others)}
    trained = {path: load(path, arguments.device) for path, _ in places.values() if path.is_dir()}
    if arguments.against and trained and not arguments.data:
        arguments.data = next(iter(trained.values())).settings.preset
    dataset = data_to_compare_on(arguments, list(trained.values()))
    for model, (path, part) in places.items():
        ranks, notes = ranks_of(path, part, trained.get(path), dataset)
        models[model] = [ranks]
        for note in notes:
            print(f"{model}: {note}")
    if arguments.against:
        models |= ranking.recorded_ranks(arguments.against, arguments.data)
    for model, seeds in models.items():
        if len(seeds[0]) != len(models[own][0]):
            sizes = f"{len(models[own][0]):,} test users, {model} {len(seeds[0]):,}"
            raise ValueError(f"{own} has {sizes}; compare models of the same data")
    in_all = ~np.isnan(sum(seeds[0] for seeds in models.values()))
    if in_all.sum() < 2:
        raise ValueError("fewer than two test users have a list of every model; compare lists of the same users")
    for model, seeds in models.items():
        if left_out := (~np.isnan(seeds[0]) & ~in_all).sum():
            print(f"{model}: {left_out:,} users are left out, for whom another model has no list")
    ndcg, hit = (
        {model: ranking.mean_over_seeds([ranks[in_all] for ranks in seeds], metric) for model, seeds in models.items()}
        for metric in ("ndcg@10", "hit@10")
    )
    scores = {model: bootstrap_interval(values) for model, values in ndcg.items()}
    differences = {model: bootstrap_interval(ndcg[own] - values) for model, values in ndcg.items() if model != own}
    print(f"{in_all.sum():,} users; full ranking; in brackets, 95 % intervals (a paired bootstrap over users)")
    print(f"difference: {own} less the model of the row")
    width = max(map(len, models))
    print(f"{'':{width}}  seeds  {'NDCG@10':24}  Hit@10  {'difference of NDCG@10':25}  {'of Hit@10':25}  verdict")
    for model, score in sorted(scores.items(), key=lambda row: -row[1].mean):
        row = f"{model:{width}}  {len(models[model]):5}  {score.mean:.4f} [{score.low:.4f}, {score.high:.4f}]"
        row += f"  {hit[model].mean():.4f}"
        if model != own:
            row += f"  {differences[model]}  {bootstrap_interval(hit[own] - hit[model])}"
            row += f"  {differences[model].verdict(arguments.margin)}"
        print(row)
    rule = f"equivalent if the whole interval of the difference of NDCG@10 is within +-{arguments.margin}; if not,"
    print(f"verdict: {rule} better or worse if it is on one side of 0; else undecided")
    if arguments.plot:
        plot_comparison(scores, differences, own, arguments.margin)[0].figure.savefig(arguments.plot)


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
    for line in sum_up(unknown, len(arguments.history)):
        print(printable(line), file=sys.stderr)
    options = {name: getattr(arguments, name) for name in ("as_set", "popularity_penalty", "exclude_series")}
    table = recommender.recommend_items(history, arguments.k, list(unknown), **options)
    if arguments.json:
        answer = {"scorer": scorer_name(checkpoint, arguments.with_linear), "unknown": list(unknown)}
        answer["recommendations"] = json.loads(table.to_json(orient="records"))
        text = json.dumps(answer, indent=2, ensure_ascii=False)
        print(re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text))  # JSON itself escapes those below
        return
    if table.empty:
        print(f"nothing is left to recommend of the {len(checkpoint.vocabulary):,} {noun}s that the model knows")
        return
    table = table.assign(**{name: table[name].astype(str).map(printable) for name in ("item", "title", "genres")})
    with pd.option_context("display.max_colwidth", None):
        columns = ["rank", "item", "title", "genres", "score"]
        print(table[columns].to_string(index=False, float_format="%.2f"))


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
    log.add_argument("--ratings", type=Path, metavar="FILE", help="a log of your own: user, item, timestamp")
    log.add_argument("--items", type=Path, metavar="FILE", help="its titles: item, title")
    told = "what their columns are, if they have no usual names: user=who item=what timestamp=when"
    log.add_argument("--columns", nargs="+", default=[], metavar="WHAT=NAME", help=told)
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
    others = "other settings: width=64 epochs=3; time_split=0.9 tests on what comes after that quantile of time"
    train.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help=others)
    train.add_argument("--seed", type=seed_number, default=0)
    train.add_argument("--out", type=Path, metavar="DIR", help="default: runs/PRESET[-RECIPE], LOG-PRESET for a log")
    train.set_defaults(run=train_command)

    evaluation = commands.add_parser("evaluate", parents=[trained], help="test metrics of a trained model")
    evaluation.add_argument("--protocols", nargs="+", choices=PROTOCOLS, metavar="NAME", help=", ".join(PROTOCOLS))
    best = f"write the best {RUN_LENGTH} items of each test user, as a TREC run"
    evaluation.add_argument("--run", dest="run_file", type=Path, metavar="FILE", help=best)
    evaluation.set_defaults(run=evaluate_command)

    comparison = commands.add_parser("compare", parents=[log], help="models on the same test users, paired")
    kinds = "folder of a trained model (DIR:with-linear: its mixture), run file, or file of results/ranks (FILE:NAME)"
    comparison.add_argument("model", metavar="MODEL", help=kinds)
    comparison.add_argument("others", nargs="*", metavar="OTHER", help="what it is compared with")
    comparison.add_argument("--against", type=Path, metavar="DIR", help="with all that is recorded there: results/")
    data = "which data the lists of a run file are for: a preset, or the folder of a trained model"
    comparison.add_argument("--data", "--preset", metavar="NAME", help=data)
    comparison.add_argument("--margin", type=float, default=MARGIN, help=f"of equivalence, in NDCG@10: {MARGIN}")
    comparison.add_argument("--plot", type=Path, metavar="FILE", help="draw the differences: a .png, .svg or .pdf")
    comparison.set_defaults(run=compare_command)

    recommend = commands.add_parser("recommend", parents=[trained], help="what to watch after a history")
    titles = "titles, or ids as id:2707, oldest first"
    recommend.add_argument("--history", nargs="+", required=True, metavar="TITLE", help=titles)
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
