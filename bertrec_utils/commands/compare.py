"""python -m bertrec_utils compare"""

import argparse
import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.dataset import Dataset, load_dataset
from ..data.text import DAMAGED, open_packed
from ..evaluation import ranking
from ..evaluation.baselines import default_baselines
from ..evaluation.lists import run_ranks
from ..evaluation.ranking import MARGIN, bootstrap_interval
from ..settings import PRESETS, get_preset
from ..training.checkpoints import Checkpoint, load
from . import check_no_input, check_output, log_arguments, own_log

HOW_TO_WRITE = "write lines of user, item and score, or name these columns in the first line"
HOW_TO_NAME_DATA = "--data PRESET, --data DIR of a trained model, or --ratings FILE"


def add_compare(commands: "argparse._SubParsersAction") -> None:
    what = "models on the same test users, paired"
    comparison = commands.add_parser("compare", parents=[log_arguments()], help=what)
    kinds = "folder of a trained model (DIR:with-linear: its mixture), run file, or file of results/ranks (FILE:NAME)"
    comparison.add_argument("model", metavar="MODEL", help=kinds)
    comparison.add_argument("others", nargs="*", metavar="OTHER", help="what it is compared with")
    comparison.add_argument("--against", type=Path, metavar="DIR", help="with all that is recorded there: results/")
    baselines = "also simple baselines, fitted to the same training data at their default settings"
    comparison.add_argument("--baselines", action="store_true", help=baselines)
    data = "which data the run files and baselines are for: a preset, or the folder of a trained model"
    comparison.add_argument("--data", "--preset", metavar="NAME", help=data)
    comparison.add_argument("--margin", type=float, default=MARGIN, help=f"of equivalence, in NDCG@10: {MARGIN}")
    comparison.add_argument("--plot", type=Path, metavar="FILE", help="draw the differences: a .png, .svg or .pdf")
    comparison.set_defaults(run=compare_command)


def read_run(path: Path) -> pd.DataFrame:
    """Read a run file into a frame with columns user and item (texts) and score (float64).

    Its lines are `user item score`, or a TREC run's six columns, or a table whose first line names the columns;
    separated by tabs, spaces or commas. ValueError if it is none of these, or a score is no number."""
    with open_packed(path) as file:
        if file.read(4) == b"PAR1":
            raise ValueError(f"a parquet file is no run file; save it as .csv, or {HOW_TO_WRITE}")
    with open_packed(path, "rt", encoding="utf-8-sig") as file:
        line = file.readline().lower().strip()
    names = ["user", "item", "score"]
    for separator in ("\t", ",", r"\s+"):
        fields = [field.strip(' "') for field in re.split(separator, line)]
        layout = {3: [0, 1, 2], 6: [0, 2, 4]}.get(len(fields))
        is_header = not (layout and is_number(fields[layout[2]]))  # ids may begin as these names do
        if columns := named_columns(fields, names) if is_header else layout:
            break
    else:
        raise ValueError(f"no run file; {HOW_TO_WRITE}")
    options: dict[str, Any] = {"header": None, "skiprows": int(is_header), "usecols": columns}
    options["skipinitialspace"] = separator == ","
    options |= {"dtype": dict(zip(columns, (str, str, float), strict=True)), "keep_default_na": False}
    quoting = csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE
    try:
        with open_packed(path) as file:
            table = pd.read_csv(file, sep=separator, quoting=quoting, **options)
    except pd.errors.EmptyDataError:
        raise ValueError(f"nothing follows the header; {HOW_TO_WRITE}") from None
    except ValueError as error:
        if type(error) is not ValueError:  # no text, or a line of another length: pandas says which
            raise
        raise ValueError(f"a score is no number ({error}); each line needs a user, an item and a number") from error
    return table[columns].set_axis(names, axis="columns")


def named_columns(fields: list[str], names: list[str]) -> list[int]:
    """Where a header names each of `names`: as user, user_id or userid if one does, else by a word that begins so. []
    if it does not. ValueError if several columns are left for a name."""
    plain = [field.partition(":")[0] for field in fields]  # RecBole writes user_id:token
    found = {}
    for name in names:
        usual = {name} if name == "score" else {name, f"{name}_id", f"{name}id"}
        places = [at for at, field in enumerate(plain) if field in usual]
        found[name] = places or [at for at, field in enumerate(plain) if field.startswith(name)]
    if not all(found.values()):
        return []
    for name, places in found.items():
        if len(places) > 1:
            several = " and ".join(fields[at] for at in places)
            raise ValueError(f"the columns {several} may each be the {name}; rename all but the right one")
    return [at for at, *_ in found.values()]


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def split_name(model: str) -> tuple[Path, str]:
    """Split PATH:NAME into a path and the name of one model in it; "" if there is no name."""
    if Path(model).exists():
        return Path(model), ""
    path, _, part = model.rpartition(":")
    return (Path(path), part) if path and not re.search(r"[/\\]", part) else (Path(model), "")


def data_to_compare_on(arguments: argparse.Namespace, trained: list[Checkpoint]) -> Dataset | None:
    """What --data or --ratings names, else what the first of the trained models was trained on."""
    log = own_log(arguments)
    if arguments.data in PRESETS or (log and not trained and not arguments.data):
        settings = get_preset(arguments.data)
        return load_dataset((settings.change(max_users=None, repeats=None, **log) if log else settings).data)
    trained = [load(arguments.data, arguments.device)] if arguments.data else trained
    return trained[0].load_dataset(**log) if trained else None


def ranks_of(
    path: Path, part: str, trained: Checkpoint | None, dataset: Dataset | None
) -> tuple[np.ndarray, list[str]]:
    """The ranks (U,) float64 of the test targets, full ranking, by a trained model, a run file or a file of ranks; and
    notes to print. FileNotFoundError or ValueError if there is no such model, or its data is unknown or differs."""
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; name a folder of a trained model, a run file or a file of ranks")
    if path.suffix == ".npz":
        ranks = ranking.read_ranks(path)
        name = part if part in ranks else f"test-{part}" if part else "test"
        if name not in ranks:
            raise ValueError(f"{path} has ranks of {', '.join(ranks)}; name one of them, as in {path}:{min(ranks)}")
        return ranks[name]["full"], []
    if dataset is None:
        raise ValueError(f"what the lists of {path} should hold is not known; name their data: {HOW_TO_NAME_DATA}")
    if part and not (trained and part == "with-linear"):
        raise ValueError(f"there is no {path}:{part}; of a trained model there is DIR:with-linear")
    if trained:
        trained.check(dataset)
        scorer = trained.with_linear(dataset) if part == "with-linear" else trained.model
        return ranking.target_ranks(scorer, dataset.split.test, ["full"])["full"], []
    try:
        lists = read_run(path)
        return run_ranks(lists.user, lists.item, lists.score, dataset.split.test, dataset.vocabulary)
    except (ValueError, *DAMAGED) as error:
        raise ValueError(f"{path}: {error}") from error


def ranks_of_all(arguments: argparse.Namespace) -> dict[str, list[np.ndarray]]:
    """model -> one array of ranks (U,) per seed, for every model that is named or recorded. Prints the notes."""
    models: dict[str, list[np.ndarray]] = {}
    places = {model: split_name(model) for model in (arguments.model, *arguments.others)}
    trained = {path: load(path, arguments.device) for path, _ in places.values() if path.is_dir()}
    if arguments.against and trained and not arguments.data:
        arguments.data = next(iter(trained.values())).settings.preset
    dataset = data_to_compare_on(arguments, list(trained.values()))
    for model, (path, part) in places.items():
        ranks, notes = ranks_of(path, part, trained.get(path), dataset)
        models[model] = [ranks]
        for note in notes:
            print(f"{model}: {note}")
    if arguments.baselines:
        if dataset is None:
            raise ValueError(f"what the baselines should be fitted to is not known; name the data: {HOW_TO_NAME_DATA}")
        test = dataset.split.test
        for name, scorer in default_baselines(dataset.split.train, len(dataset.vocabulary), test.seen_are_candidates):
            if name in models:
                raise ValueError(f"{name} is the name of a baseline, too; rename what you compare with it")
            models[name] = [ranking.target_ranks(scorer, test, ["full"])["full"]]
    if arguments.against:
        models |= ranking.recorded_ranks(arguments.against, arguments.data)
    return models


def users_in_all(models: dict[str, list[np.ndarray]]) -> np.ndarray:
    """Which test users have a list from every model, (U,) bool; prints how many are left out. ValueError if the models
    have different numbers of test users, or fewer than two users are left."""
    own, *others = models
    for model in others:
        if len(models[model][0]) != len(models[own][0]):
            sizes = f"{len(models[own][0]):,} test users, {model} {len(models[model][0]):,}"
            raise ValueError(f"{own} has {sizes}; compare models of the same data")
    in_all = ~np.isnan(sum(seeds[0] for seeds in models.values()))
    if in_all.sum() < 2:
        raise ValueError("fewer than two test users have a list of every model; compare lists of the same users")
    left_out: dict[int, list[str]] = {}
    for model, seeds in models.items():
        left_out.setdefault(int((~np.isnan(seeds[0]) & ~in_all).sum()), []).append(model)
    left_out.pop(0, None)
    for count, names in left_out.items():
        print(f"{', '.join(names)}: {count:,} users are left out, for whom another model has no list")
    return in_all


def compare_command(arguments: argparse.Namespace) -> None:
    if not (arguments.others or arguments.against or arguments.baselines):
        options = "another model, --baselines, or --against results/"
        raise ValueError(f"name what {arguments.model} is compared with: {options}")
    if arguments.baselines and arguments.against:
        raise ValueError("what is recorded has the baselines, at their best settings; leave --baselines out")
    named = [arguments.model, *arguments.others]
    if twice := {name for name in named if named.count(name) > 1}:
        raise ValueError(f"{min(twice)} is named twice; name each model once")
    if not arguments.margin >= 0:
        raise ValueError(f"--margin is {arguments.margin}; it must be 0 or more, such as {MARGIN}")
    check_output("--plot", arguments.plot, ".png", ".svg", ".pdf")
    log = [("the log", arguments.ratings), ("the file of titles", arguments.items)]
    check_no_input("--plot", arguments.plot, [*log, *(("a model", split_name(name)[0]) for name in named)])
    if arguments.plot:
        try:
            from ..plots import plot_comparison
        except ImportError as error:
            raise ValueError(f"--plot needs the extra plots ({error}): pip install 'bertrec-utils[plots]'") from error
    own, models = arguments.model, ranks_of_all(arguments)
    in_all = users_in_all(models)
    ndcg, hit = (
        {model: ranking.mean_over_seeds([ranks[in_all] for ranks in seeds], metric) for model, seeds in models.items()}
        for metric in ("ndcg@10", "hit@10")
    )
    scores = {model: bootstrap_interval(values) for model, values in ndcg.items()}
    differences = {model: bootstrap_interval(ndcg[own] - values) for model, values in ndcg.items() if model != own}
    print(f"{in_all.sum():,} users; full ranking; in brackets, 95 % intervals (a paired bootstrap over users)")
    print(f"difference: {own} minus the model of the row")
    width = max(map(len, models))
    print(f"{'':{width}}  seeds  {'NDCG@10':24}  Hit@10  {'difference of NDCG@10':25}  {'of Hit@10':25}  verdict")
    for model, score in sorted(scores.items(), key=lambda row: -row[1].mean):
        row = f"{model:{width}}  {len(models[model]):5}  {score.mean:.4f} [{score.low:.4f}, {score.high:.4f}]"
        row += f"  {hit[model].mean():.4f}"
        if model != own:
            row += f"  {differences[model]}  {bootstrap_interval(hit[own] - hit[model])}"
            verdict = differences[model].verdict(arguments.margin)
            row += f"  {own} is {verdict}" if verdict in ("better", "worse") else f"  {verdict}"
        print(row)
    rule = f"equivalent if the whole interval of the difference of NDCG@10 is within +-{arguments.margin}; if not,"
    print(f"verdict: {rule} better or worse if it is on one side of 0; else undecided")
    if arguments.plot:
        plot_comparison(scores, differences, own, arguments.margin)[0].figure.savefig(arguments.plot)
