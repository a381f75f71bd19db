"""python -m bertrec_utils recommend"""

import argparse
import json
import re
import sys
from collections.abc import Container, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..common import replace_file
from ..data.sequences import Sequences
from ..scenarios.recommender import Recommender
from ..scenarios.titles import BareId, NewerTitle, RareTitle, sum_up
from ..scenarios.watch_history import read_titles
from ..training.checkpoints import load
from . import check_no_input, check_output, files_of, model_arguments, noun_of, own_log, printable, scorer_name


def add_recommend(commands: "argparse._SubParsersAction") -> None:
    recommend = commands.add_parser("recommend", parents=[model_arguments()], help="what to watch after a history")
    whose = recommend.add_mutually_exclusive_group(required=True)
    titles = "titles, or ids as id:2707, oldest first"
    whose.add_argument("--history", nargs="+", metavar="TITLE", help=titles)
    whose.add_argument("--user", metavar="ID", help="a user of the log, as it is today")
    whose.add_argument("--users", type=Path, metavar="FILE", help="users of the log, an id a line, into --out")
    whose.add_argument("--all", action="store_true", help="every user of the log, into --out")
    recommend.add_argument("--out", type=Path, metavar="FILE", help=".csv or .parquet: user, rank, item, title, score")
    recommend.add_argument("-k", type=int, default=10, help="how many titles (default 10)")
    recommend.add_argument("--as-set", action="store_true", help="the order of the history does not matter")
    familiar = "0 familiar (default) to 1 distinctive"
    recommend.add_argument("--popularity-penalty", type=float, default=0.0, metavar="X", help=familiar)
    recommend.add_argument("--exclude-series", action="store_true", help="nothing of the same series as the history")
    recommend.add_argument("--only", type=Path, metavar="FILE", help="nothing but these: a title or id:2707 a line")
    recommend.add_argument("--without", type=Path, metavar="FILE", help="none of these")
    seen = "items of the history, too; always after a training with repeats"
    recommend.add_argument("--allow-seen", action="store_true", help=seen)
    recommend.add_argument("--strict", action="store_true", help="refuse a log that has changed since the training")
    recommend.set_defaults(run=recommend_command)


def recommend_command(arguments: argparse.Namespace) -> None:
    check_out(arguments)
    checkpoint, log = load(arguments.folder, arguments.device), own_log(arguments)
    files = [(f"the file of --{name}", getattr(arguments, name)) for name in ("users", "only", "without")]
    check_no_input("--out", arguments.out, [*files, *files_of(checkpoint, log)])
    reads_release = not (arguments.history or checkpoint.settings.change(**log).data.ratings_file)
    is_checked = arguments.with_linear or arguments.strict or reads_release  # which does not change
    dataset = checkpoint.load_dataset(**log) if is_checked else None
    model: Any = checkpoint.with_linear(dataset) if dataset and arguments.with_linear else checkpoint.model
    items = dataset.items if dataset else checkpoint.load_items(**log)
    noun = noun_of(checkpoint.settings.change(**log).data)
    is_own = noun != "film"
    recommender = Recommender(model, checkpoint.vocabulary, items, noun)
    names = ("as_set", "popularity_penalty", "exclude_series", "allow_seen")
    options = {name: getattr(arguments, name) for name in names}
    options["allow_seen"] |= checkpoint.settings.data.repeats == "keep"
    for name in ("only", "without"):
        if path := getattr(arguments, name):
            options[name] = look_up_filter(recommender, path, name == "without", exact=is_own)
    if arguments.history:
        history, errors = recommender.look_up(arguments.history)
        tell(sum_up(errors, len(arguments.history)))
        if is_own:
            tell_taken(recommender, arguments.history, history, errors)
        if checkpoint.settings.data.repeats != "keep":
            history = list(dict.fromkeys(history))  # one film under two names
        unknown = list(errors)
    else:
        histories, notes = checkpoint.load_histories(dataset, **log)
        del dataset  # with a log that may be large
        for note in notes:
            print(note, file=sys.stderr)
        if not arguments.all:
            file = arguments.users
            told = file.read_text(encoding="utf-8-sig", errors="replace").split("\n") if file else [arguments.user]
            users = list(dict.fromkeys(user.strip() for user in told if user.strip()))
            if not users:
                problem = f"{file} names no user; write one id a line" if file else "--user is empty; give an id"
                raise ValueError(problem)
            histories = of_users(histories, users)
        if arguments.out:
            parts = recommender.recommend_in_parts(histories, arguments.k, **options)
            write_lists(arguments.out, parts, len(histories))
            return
        history, unknown = checkpoint.vocabulary.item_ids(histories[0]).tolist(), []
    table = recommender.recommend_items(history, arguments.k, unknown, **options)
    if arguments.json:
        answer = {"scorer": scorer_name(checkpoint, arguments.with_linear), "unknown": unknown}
        answer["recommendations"] = json.loads(table.to_json(orient="records"))
        text = json.dumps(answer, indent=2, ensure_ascii=False)
        print(re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text))  # JSON itself escapes those below
        return
    if table.empty:
        filtered = arguments.only or arguments.without or arguments.exclude_series
        rest = "; see --only, --without and --exclude-series" if filtered else ""
        print(f"nothing is left to recommend of the {len(checkpoint.vocabulary):,} {noun}s that the model knows{rest}")
        return
    table = table.assign(**{name: table[name].astype(str).map(printable) for name in ("item", "title", "genres")})
    with pd.option_context("display.max_colwidth", None):
        columns = ["rank", "item", "title", *(["genres"] if table.genres.any() else []), "score"]
        print(table[columns].to_string(index=False, float_format="%.2f"))


def check_out(arguments: argparse.Namespace) -> None:
    """Raise ValueError for unusable --out arguments before any work is done."""
    out, is_many = arguments.out, bool(arguments.all or arguments.users)
    if is_many != bool(out) or (out and (arguments.json or out.suffix not in (".csv", ".parquet"))):
        rule = "--all and --users write a file, --out FILE.csv or FILE.parquet"
        raise ValueError(f"{rule}; a single list is printed, with --json as JSON")
    check_output("--out", out)
    if out and out.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ValueError(f"{out} needs pyarrow: pip install 'bertrec-utils[parquet]', or write a .csv") from None


def tell(notes: list[str], what: str = "notes") -> None:
    """Print `notes` on stderr: a line each, or a single line of `what` they are for more than five."""
    if len(notes) > 5:
        notes = [f"{len(notes):,} {what}: {', '.join(notes[:3])} ... and {len(notes) - 3:,} more"]
    for note in notes:
        print(printable(note), file=sys.stderr)


def tell_taken(recommender: Recommender, titles: list[str], items: list[Any], unknown: Container[str]) -> None:
    """Say on stderr which `titles` were taken for others: the `items` are of those that are not `unknown`."""
    notes = {}
    for title, item in zip((title for title in titles if title not in unknown), items, strict=True):
        its_title = recommender.titles.titles[item].strip()
        if title.strip().casefold() != its_title.casefold() and not title.startswith("id:"):
            notes[title] = f"{title!r} taken for {its_title!r} (id:{item})"
    tell(list(notes.values()), "titles are not as written")


def look_up_filter(recommender: Recommender, path: Path, leaves_out: bool, exact: bool) -> list[Any]:
    """The items that the file of --only, or of --without, which `leaves_out` what it names, names: all that share a
    title, and with `exact` by nothing but the title. LookupError if that is something but none of it is found.
    ValueError if the file of --only names nothing."""
    titles = read_titles(path, recommender.titles, only_films=not exact)
    if not titles:
        if not leaves_out:
            raise ValueError(f"{path} holds no titles; write a title or id:2707 a line")
        print(f"{path} names nothing: no item is left out", file=sys.stderr)
    found, unknown = recommender.look_up_all(titles, exact)
    tell_taken(recommender, titles, [items[0] for items in found.values()], unknown)
    shared = {title: items for title, items in found.items() if len(items) > 1}
    notes = [f"{title!r} is the title of {len(items):,} items: all are taken" for title, items in shared.items()]
    tell(notes, "titles are of several items each, all taken")
    tell(sum_up(unknown, len(titles)))
    # what is rare or newer than the model is never recommended anyway, and an id may be of something newer
    is_left_out = any(isinstance(error, RareTitle | NewerTitle) for error in unknown.values())
    is_left_out |= any(title.startswith("id:") for title in unknown)
    if titles and not found and not (leaves_out and is_left_out):
        some = ", ".join(map(repr, titles[:3])) + " ..." * (len(titles) > 3)
        ids = next((f"id:{error.title}" for error in unknown.values() if isinstance(error, BareId)), "id:2707")
        raise LookupError(f"{path}: the model knows none of {some}; name items by title, or as {ids}, one a line")
    return [item for items in found.values() for item in items]


def of_users(histories: Sequences, users: list[str]) -> Sequences:
    """The histories of these users, in this order; those without one are named on stderr. LookupError if none has."""
    row_of_user = {str(user): row for row, user in enumerate(histories.users.tolist())}
    missing = [user for user in users if user not in row_of_user]
    some = ", ".join(map(repr, missing[:3])) + " ..." * (len(missing) > 3)
    problem = f"{len(missing):,} of {len(users):,} users are not in the log, or without an item that the model knows"
    if len(missing) == len(users):
        raise LookupError(f"{problem}: {some}; give ids of the log, such as {next(iter(row_of_user))!r}")
    if missing:
        print(printable(f"{problem} (left out): {some}"), file=sys.stderr)
    return histories.rows(np.array([row_of_user[user] for user in users if user in row_of_user]))


def write_lists(out: Path, parts: Iterable[pd.DataFrame], count: int) -> None:
    """Write the `parts` of a table, lists for `count` users, to a .csv or .parquet file, atomically."""
    rows = users = 0

    def write(partial: Path) -> None:
        nonlocal rows, users
        with ExitStack() as files:
            writer: Any = None
            for part in parts:
                rows, users = rows + len(part), users + int((part["rank"] == 1).sum())
                if out.suffix == ".csv":
                    is_first = writer is None
                    writer = writer or files.enter_context(open(partial, "w", encoding="utf-8", newline=""))
                    part.to_csv(writer, header=is_first, index=False, lineterminator="\n")
                    continue
                from pyarrow import Table, float32, int64, parquet, schema, string

                types = [{"i": int64(), "f": float32()}.get(part[name].dtype.kind, string()) for name in part]
                table = Table.from_pandas(part, schema(zip(part, types, strict=True)), preserve_index=False)
                writer = writer or files.enter_context(parquet.ParquetWriter(partial, table.schema))
                writer.write_table(table)

    replace_file(out, write)
    rest = f" of {count:,}; nothing is left to recommend to the others" if users < count else ""
    print(f"{out}: {rows:,} rows, the lists of {users:,} users{rest}")
