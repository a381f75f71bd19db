"""python -m bertrec_utils recommend"""

import argparse
import json
import re
import sys
from typing import Any

import pandas as pd

from ..scenarios.recommender import Recommender
from ..scenarios.titles import sum_up
from ..training.checkpoints import load
from .arguments import model_arguments, own_log, printable, scorer_name


def add_recommend(commands: "argparse._SubParsersAction") -> None:
    recommend = commands.add_parser("recommend", parents=[model_arguments()], help="what to watch after a history")
    titles = "titles, or ids as id:2707, oldest first"
    recommend.add_argument("--history", nargs="+", required=True, metavar="TITLE", help=titles)
    recommend.add_argument("-k", type=int, default=10, help="how many titles (default 10)")
    recommend.add_argument("--as-set", action="store_true", help="the order of the history does not matter")
    familiar = "0 familiar (default) to 1 distinctive"
    recommend.add_argument("--popularity-penalty", type=float, default=0.0, metavar="X", help=familiar)
    recommend.add_argument("--exclude-series", action="store_true", help="nothing of the same series as the history")
    recommend.set_defaults(run=recommend_command)


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
