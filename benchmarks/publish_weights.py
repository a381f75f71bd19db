"""Write recorded runs of seed 0 from runs/ into pretrained/, in half precision, each with a model card.

    python benchmarks/publish_weights.py [FOLDER ...] [--cards]

The cards are made from results/NAME.json and the ranks in results/ranks (`benchmarks/table.py`). With `--cards`, the
weights that are there stay. Half precision halves the file, and changes ranks by a thousandth on average
(tests/test_pretrained.py); `load` makes it float32 again.
"""

import argparse
from dataclasses import replace

from recording import read_result
from table import kept_ranks

from bertrec_utils.common import PROJECT, replace_file
from bertrec_utils.evaluation.ranking import PROTOCOLS, bootstrap_interval, per_user_metrics
from bertrec_utils.training.checkpoints import load, save

RUNS = {  # folder in pretrained/ -> the run
    "small": "small-seed0",
    "medium": "medium-seed0",
    "medium-modern-cloze": "medium-modern-cloze-seed0",
    "medium-bert4rec": "medium-bert4rec-seed0",
    "ml-1m": "ml-1m-seed0",
}
OLD_NAMES = {"ml-latest-2k": "ml-latest-2k (now the first 2,148 users of ml-5k)"}
LICENCE = {
    "ml-latest-2k": "GroupLens's conditions for *ml-latest* (data/README.md): research, no commercial use without "
    "permission, name the source.",
    "ml-5k": "GroupLens's conditions (data/README.md): research, no commercial use without permission, name the "
    "source.",
    "ml-1m": "Trained on MovieLens 1M, which GroupLens does not allow to be passed on: these are weights and film ids, "
    "and hold none of its rows. Research, no commercial use without permission from GroupLens. Titles come from your "
    "own copy, `python -m bertrec_utils download ml-1m`.",
}
CARD = """# {folder}

The weights of one run, as notebooks 04 and 05 use them if you have no run of your own.

- **Data:** {release}, {users:,} users, {items:,} films with at least {least} ratings, {interactions:,} interactions.
- **Recipe:** `{recipe}` (notebook 02), item embeddings started from {start}; width {width}, {layers} layers, {heads}
  heads, the newest {length} films of a history; {parameters:,} parameters, seed {seed}, best of {epochs} epochs by
  validation NDCG@10.
- **Made by** the run that `{command}` repeats, on {date}, commit {commit}; results/{name}.json has every setting.
- **In the file:** weights, vocabulary (film ids), settings, the curve of the run, SHA-256 of the data.

Test set of this run, leave-one-out, with 95 % intervals over users (a bootstrap); docs/results.md has the mean over
seeds:

| protocol | Hit@10 | NDCG@10 |
|---|---|---|
{rows}

To try it: `.venv/bin/python -m bertrec_utils recommend pretrained/{folder} --history "Alien"`.

**Limits.** It knows only films of its data, by the order in which people rated them, and nothing about their contents.
It is surest about popular films, mirrors what MovieLens showed its users, and answers a history of several tastes with
one list (notebook 05 tries two).

**Licence.** {licence}
"""


def metric_rows(name: str, run: dict) -> str:
    ranks, rows = kept_ranks(name, run)["test"], []
    for protocol in PROTOCOLS:
        found = per_user_metrics(ranks[protocol], [10])
        cells = [bootstrap_interval(found[metric]) for metric in ("hit@10", "ndcg@10")]
        shown = [f"{cell.mean:.4f} [{cell.low:.4f}, {cell.high:.4f}]" for cell in cells]
        rows.append(f"| {protocol} | {shown[0]} | {shown[1]} |")
    return "\n".join(rows)


def card(folder: str, name: str) -> str:
    run = read_result(name)
    data, model, counts = run["settings"]["data"], run["settings"]["model"], run["data"]
    start = {"counts": "co-occurrence counts", "random": "random numbers"}[run["start"]]
    return CARD.format(
        folder=folder, name=name, recipe=run["recipe"], start=start, licence=LICENCE[data["release"]],
        rows=metric_rows(name, run), users=counts["users"], items=counts["items"], interactions=counts["interactions"],
        release=OLD_NAMES.get(data["release"], data["release"]), least=data["min_item_ratings"], width=model["width"],
        layers=model["layers"], heads=model["heads"], length=model["max_length"], epochs=len(run["history"]),
        seed=run["seed"], parameters=run["parameters"], command=run["command"], date=run["date"],
        commit=(run["code"]["commit"] or "?")[:10],
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help=f"of {', '.join(RUNS)}; default: all")
    parser.add_argument("--cards", action="store_true", help="write the cards alone")
    arguments = parser.parse_args()
    for folder in arguments.folders or RUNS:
        name = RUNS[folder]
        home, text = PROJECT / "pretrained" / folder, card(folder, name)
        home.mkdir(parents=True, exist_ok=True)
        if not arguments.cards:
            checkpoint = load(PROJECT / "runs" / name)
            save(home, replace(checkpoint, model=checkpoint.model.half()))
        replace_file(home / "README.md", lambda path, text=text: path.write_text(text))
        print(f"pretrained/{folder}")


if __name__ == "__main__":
    main()
