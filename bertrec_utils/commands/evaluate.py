"""python -m bertrec_utils evaluate"""

import argparse
import json
import sys
from pathlib import Path

from ..evaluation.baselines import MostRepeated
from ..evaluation.lists import RUN_LENGTH, write_run
from ..evaluation.ranking import PROTOCOLS, evaluate
from ..training.checkpoints import load
from . import check_no_input, check_output, files_of, model_arguments, own_log, scorer_name


def add_evaluate(commands: "argparse._SubParsersAction") -> None:
    evaluation = commands.add_parser("evaluate", parents=[model_arguments()], help="test metrics of a trained model")
    evaluation.add_argument("--protocols", nargs="+", choices=PROTOCOLS, metavar="NAME", help=", ".join(PROTOCOLS))
    best = f"write the best {RUN_LENGTH} items of each test user, as a TREC run"
    evaluation.add_argument("--run", dest="run_file", type=Path, metavar="FILE", help=best)
    evaluation.set_defaults(run=evaluate_command)


def evaluate_command(arguments: argparse.Namespace) -> None:
    check_output("--run", arguments.run_file)
    checkpoint, log = load(arguments.folder, arguments.device), own_log(arguments)
    check_no_input("--run", arguments.run_file, files_of(checkpoint, log))
    dataset = checkpoint.load_dataset(**log)
    model = checkpoint.with_linear(dataset) if arguments.with_linear else checkpoint.model
    test = dataset.split.test
    table = evaluate(model, test, arguments.protocols)
    tables = {"protocols": table}
    if "full" in table and set(arguments.protocols or PROTOCOLS) - set(table):
        which = "other" if test.seen_are_candidates else "unseen"
        print(f"the sampled protocols need 100 {which} items for each user: they are left out", file=sys.stderr)
    if arguments.run_file:
        write_run(arguments.run_file, model, test.histories, dataset.vocabulary, allow_seen=test.seen_are_candidates)
        print(f"{arguments.run_file}: the best {RUN_LENGTH} items of {len(test):,} users", file=sys.stderr)
    if test.seen_are_candidates:
        tables["most-repeated"] = evaluate(MostRepeated(dataset.split.train, len(dataset.vocabulary)), test, table)
    scorer = scorer_name(checkpoint, arguments.with_linear)
    if arguments.json:
        counts = dataset.counts._asdict() if dataset.counts else None
        answer = {"scorer": scorer, "finished": checkpoint.is_finished, "users": len(test), "data": counts}
        print(json.dumps(answer | tables, indent=2))
        return
    print(f"data: {dataset.summary}\nscorer: {scorer}")
    split = checkpoint.settings.data.time_split
    kind = f"the first item after the {split} quantile of time" if split else "the last item"
    print(f"test: {kind} of each of {len(test):,} users{'' if split else ' (leave-one-out)'}")
    print(f"{'candidates':16}{'Hit@10':>10}{'NDCG@10':>10}{'MRR@10':>10}")
    for name, rows in tables.items():
        if name == "most-repeated":
            print("for comparison, the items that each user has had most often:")
        for protocol, row in rows.items():
            print(f"{protocol:16}{row['hit@10']:10.4f}{row['ndcg@10']:10.4f}{row['mrr@10']:10.4f}")
