"""Copy recorded runs of seed 0 from runs/ into pretrained/, each with a model card.

    python benchmarks/publish_weights.py

The cards are made from results/NAME.json and the ranks in results/ranks (`benchmarks/table.py`).
"""

import argparse
import json

from table import kept_ranks

from bertrec_utils.training.checkpoints import MODEL, load
from bertrec_utils.evaluation.ranking import PROTOCOLS, bootstrap_interval, per_user_metrics
from bertrec_utils.common import PROJECT, replace_file

RUNS = {  # folder in pretrained/ -> the run and its recipe
    "ml-latest-2k": ("small-seed0", "ours"),
    "ml-latest-2k-bert4rec-paper": ("small-bert4rec-paper-seed0", "bert4rec-paper"),
    "ml-1m": ("ml-1m-seed0", "ours"),
}
LICENCE = {
    "ml-latest-2k": "GroupLens's conditions for *ml-latest* (data/README.md): research, no commercial use without "
    "permission, name the source.",
    "ml-1m": "Trained on MovieLens 1M, which GroupLens does not allow to be passed on: these are weights and film ids, "
    "and hold none of its rows. Research, no commercial use without permission from GroupLens. Titles come from your "
    "own copy, `python -m bertrec_utils download ml-1m`.",
}
CARD = """# {folder}

The weights of one run, as notebooks 04 and 05 use them if you have no run of your own.

- **Data:** {release}, {users:,} users, {items:,} films with at least {least} ratings, {interactions:,} interactions.
- **Recipe:** `{recipe}` (notebook 02, section 10), width {width}, {layers} layers, {heads} heads, the newest
  {length} films of a history; {parameters:,} parameters, seed {seed}, best of {epochs} epochs by validation NDCG@10.
- **Made by** `{command}` on {date}, commit {commit}; results/{name}.json has every setting.
- **In the file:** weights, vocabulary (film ids), settings, the curve of the run, SHA-256 of the data.

Test set, leave-one-out, with 95 % intervals over users (a bootstrap; one seed):

| protocol | Hit@10 | NDCG@10 |
|---|---|---|
{rows}

**Limits.** It knows only films of its data, by who rated them after what, and nothing about their contents. It is
surest about popular films, mirrors what MovieLens showed its users, and answers a history of several tastes with one
list (notebook 05, section 8, tries two).

**Licence.** {licence}
"""


def metric_rows(name: str) -> str:
    ranks, rows = kept_ranks(name), []
    for protocol in PROTOCOLS:
        found = per_user_metrics(ranks[f"test/{protocol}"], [10])
        cells = [bootstrap_interval(found[metric]) for metric in ("hit@10", "ndcg@10")]
        shown = [f"{cell.mean:.4f} [{cell.low:.4f}, {cell.high:.4f}]" for cell in cells]
        rows.append(f"| {protocol} | {shown[0]} | {shown[1]} |")
    return "\n".join(rows)


def publish(folder: str, name: str, recipe: str) -> None:
    run = json.loads((PROJECT / "results" / f"{name}.json").read_text())
    preset, data = run["preset"], run["data"]
    load(PROJECT / "runs" / name)  # an error if it is damaged
    weights = (PROJECT / "runs" / name / MODEL).read_bytes()
    card = CARD.format(
        folder=folder, name=name, recipe=recipe, licence=LICENCE[preset["release"]], rows=metric_rows(name),
        users=data["users"], items=data["items"], interactions=data["interactions"],
        release=preset["release"], least=preset["min_item_ratings"], width=preset["width"], layers=preset["layers"],
        heads=preset["heads"], length=preset["max_length"], epochs=len(run["history"]), seed=run["seed"],
        parameters=run["parameters"], command=run["command"], date=run["date"],
        commit=(run["code"]["commit"] or "?")[:10],
    )  # fmt: skip
    home = PROJECT / "pretrained" / folder
    home.mkdir(parents=True, exist_ok=True)
    replace_file(home / MODEL, lambda path: path.write_bytes(weights))
    replace_file(home / "README.md", lambda path: path.write_text(card))


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    for folder, (name, recipe) in RUNS.items():
        publish(folder, name, recipe)
        print(f"pretrained/{folder}")


if __name__ == "__main__":
    main()
