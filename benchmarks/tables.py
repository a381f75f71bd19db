"""The tables of docs/, made from results/, as Markdown.

python benchmarks/tables.py            # print them
python benchmarks/tables.py --write    # put each in docs/, under the line <!-- table: its title -->
"""

import argparse
import re
from typing import NamedTuple

import numpy as np
from baselines import BASELINES, MIXTURES
from recording import read_result
from table import PRESETS

from bertrec_utils.common import PROJECT
from bertrec_utils.evaluation.ranking import PROTOCOLS
from bertrec_utils.settings import RECIPES

SCALE_RUNS = ("", "-h100-2-epochs-sampled", "-h100-2-epochs-all", "-h100")


class Table(NamedTuple):
    title: str
    header: list[str]
    rows: dict[str, list[str]]  # the first cell -> the others

    def markdown(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *([name, *cells] for name, cells in self.rows.items())]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def pair(scores: dict[str, float]) -> str:
    """Hit@10 / NDCG@10."""
    return " / ".join(f"{scores[metric]:.4f}".removeprefix("0") for metric in ("hit@10", "ndcg@10"))


def models(data: str) -> Table:
    """Our models and the baselines, the best on validation data first: no row is put on top by its test."""
    rows = {}
    recorded = read_result("table")[data]["models"]
    for name, row in sorted(recorded.items(), key=lambda model: -model[1]["validation"]):
        full = row["full"]["ndcg@10"]
        rows[f"`{name}`"] = [
            *(pair({metric: value["mean"] for metric, value in row[protocol].items()}) for protocol in PROTOCOLS),
            f"{full['low']:.3f} to {full['high']:.3f}".replace("0.", "."),
            f"{row['validation']:.4f}".removeprefix("0"),
            "-" if name in (*BASELINES, *MIXTURES) else str(len(full["seeds"])),
        ]
    return Table(f"models, {data}", ["model", *PROTOCOLS, "NDCG@10 (full), 95 %", "validation", "seeds"], rows)


def mixtures() -> Table:
    """Test NDCG@10 of a closed-form baseline alone, and of counts and networks mixed with it: how far above it."""
    rows, others = {}, ("pctm", "bert4rec", "modern-both")
    for data in PRESETS:
        found = {name: row["full"]["ndcg@10"]["mean"] for name, row in read_result("table")[data]["models"].items()}
        baseline, ending = ("linear", "linear") if "linear" in found else ("smoothed-chain", "chain")
        cells = [f"`{baseline}` {found[baseline]:.4f}".replace(" 0.", " .")]
        for other in others:
            score = found.get(f"{other}-with-{ending}")
            gain = f" ({100 * (score / found[baseline] - 1):+.0f} %)" if score else ""
            cells.append(f"{score:.4f}{gain}".removeprefix("0") if score else "")
        rows[f"`{data}`"] = cells
    return Table("mixtures", ["data", "alone", *(f"mixed with `{other}`" for other in others)], rows)


def ends(interval: dict) -> str:
    return f"{interval['low']:+.4f} to {interval['high']:+.4f}"


def told() -> list[Table]:
    """The differences that the prose speaks of, with verdicts: one table for each data set."""
    found = read_result("table")["told"]
    return [
        Table(
            f"told, {data}",
            ["difference", "NDCG@10", "95 %, users", "users and seeds", "seeds", "p, Holm", "verdict", "Hit@10"],
            {
                f"`{row['pair'].replace(' - ', '` - `')}`": [
                    f"{row['mean']:+.4f}",
                    *(ends(interval) for interval in (row, row["over seeds too"])),
                    " / ".join(map(str, row["seeds"])),
                    "under .001" if (p := row["p after Holm"]) < 0.0005 else f"{p:.3f}" if p < 1 else "1",
                    row["verdict"],
                    f"{row['hit@10']['mean']:+.4f} ({ends(row['hit@10'])})",
                ]
                for row in found
                if row["data"] == data
            },
        )
        for data in PRESETS
    ]


def full_ndcg(row: dict) -> float:
    return row["scores"].get("full", {}).get("ndcg@10", 0)


def published(data: str) -> Table:
    rows = {
        row["model"]: [
            *(pair(row["scores"][name]) if name in row["scores"] else "" for name in PROTOCOLS),
            *(row["source"], row["differs"]),
        ]
        for row in sorted(read_result("published")["rows"], key=full_ndcg, reverse=True)
        if row.get("data", "ml-1m") == data
    }
    return Table(f"published, {data}", ["model", *PROTOCOLS, "source", "what differs"], rows)


def ensembles() -> Table:
    """The mean of the groups of each size."""
    groups = {}
    for group in read_result("ensemble-ml-1m")["groups"]:
        groups.setdefault(len(group["seeds"]), []).append(group)

    def mean(found, test):
        return pair({name: float(np.mean([group[test][name] for group in found])) for name in found[0][test]})

    rows = {
        str(size): [str(len(found)), mean(found, "test"), mean(found, "test-with-linear")]
        for size, found in groups.items()
    }
    return Table("several `modern-both`, averaged, ml-1m", ["networks", "groups", "alone", "with linear"], rows)


def tuning() -> Table:
    """What each change of a setting did to each recipe: the best epoch of each trial, averaged over its seeds."""
    halves = dict.fromkeys(("learning_rate 0.0005", "learning_rate 0.001"), "half the learning rate")
    doubles = dict.fromkeys(("learning_rate 0.002", "learning_rate 0.004"), "twice the learning rate")
    words = {"as it is": "none"} | halves | doubles
    found: dict[str, dict[str, list[float]]] = {}  # change -> recipe -> a value for each seed
    for recipe in RECIPES:
        for run in read_result(f"tuning/small-{recipe}")["tried"]:
            change = run["title"].partition(", ")[2]
            change = words.get(change) or f"`{change.replace(' ', '=')}`"
            best = max(epoch["ndcg@10"] for epoch in run["history"])
            found.setdefault(change, {}).setdefault(recipe, []).append(best)
    rows = {
        change: [mean_and_seeds(by_recipe.get(recipe, [])) for recipe in RECIPES] for change, by_recipe in found.items()
    }
    return Table("tuning, small", ["change", *(f"`{recipe}`" for recipe in RECIPES)], rows)


def mean_and_seeds(values: list[float]) -> str:
    if not values:
        return ""
    mean = f"{np.mean(values):.4f}".removeprefix("0")
    return mean if len(values) == 1 else f"{mean} ({len(values)} seeds)"


def scaling() -> Table:
    parts = read_result("scale-ml-25m")["parts"]
    started, vectors, trained, ranked = (parts[name] for name in ("start", "counts", "training", "ranking"))
    learned = parts["learning"]
    drawn = " and ".join(f"{ranked[f'drawing {name}']['seconds']:.0f} s" for name in ("uniform-100", "popularity-100"))

    def memory(row):
        return f"{row['peak GB']:.1f} GB"

    def seconds(row):
        return f"{row['seconds']:.0f} s, {memory(row)}"

    def speed(row):
        return f"{row['users/s']:.0f} users/s, {memory(row)}"

    rows = {
        "from the ratings file to sequences": [
            seconds(started),
            f"kept in a file beside it: {started['seconds, second time']:.2f} s from the second start on",
        ],
        "start from counts": [
            f"{seconds(vectors['all pairs'])}, from all pairs",
            f"{seconds(vectors['strongest pairs'])}, from the strongest pairs",
        ],
        "training, loss over all items": [
            speed(trained["all items, whole batches"]),
            f"{speed(trained['all items'])}, a batch in parts that fit into the cache",
        ],
        "training, loss over samples": ["", speed(trained["1024 negatives"])],
        "the same, in two processes with one thread each": ["", f"{parts['two-processes']['users/s']:.0f} users/s"],
        f"one epoch, and its {learned['validation users']:,} validation users": [
            "",
            f"{learned['history'][0]['seconds'] / 60:.0f} min",
        ],
        "ranking all items for all users": ["", f"{ranked['full']['seconds'] / 60:.1f} min, {memory(ranked['full'])}"],
        "drawing 100 negatives for each user, uniform and by popularity": ["", drawn],
    }
    return Table("scaling, ml-25m", ["", "plain", "here"], rows)


def training_speed() -> Table:
    """Sequences per second, the median of three rounds, and how many times as many our `bert4rec` has."""
    names = {"rectools": "BERT4Rec of RecTools", "recbole": "BERT4Rec of RecBole"}
    names["modern-both"] = "`modern-both`, at its own settings"
    recorded = read_result("train-speed")["models"]
    ours = recorded["bert4rec"]["sequences_per_second"]
    rows = {
        names.get(name, f"`{name}`"): [
            f"{row['sequences_per_second']:,.0f}",
            "" if name == "bert4rec" else f"{ours / row['sequences_per_second']:.1f} x",
            f"{row['peak_mb'] / 1000:.1f} GB",
            f"{row['share_of_matrix_rate']:.0%}" if "share_of_matrix_rate" in row else "",
        ]
        for name, row in recorded.items()
    }
    header = ["", "sequences/s", "`bert4rec` is faster by", "memory", "share of the matrix rate"]
    return Table("training speed, ml-1m", header, rows)


def sampled_softmax_at_scale() -> Table:
    """The best epoch of each recorded run."""
    found = {}
    for run in (read_result(f"scale-ml-25m{name}") for name in SCALE_RUNS):
        learned = run["parts"]["learning"]
        loss = f"samples of {learned['negatives']:,}" if learned["negatives"] else "all items"
        device = f"{run['machine']['cores']} CPU cores" if run["device"] == "cpu" else run["device"]
        name = f"`{run['settings']['recipe']}`, {learned['epochs']} epochs, loss over {loss}, {device}"
        found[name] = max(row["ndcg@10"] for row in learned["history"])
    rows = {name: [f"{value:.4f}"] for name, value in found.items()}
    return Table("sampled softmax, ml-25m", ["run", "validation NDCG@10"], rows)


def sampled_softmax() -> Table:
    rows = {
        row["title"]: [f"{max(epoch['ndcg@10'] for epoch in row['history']):.4f}", f"{row['test']['ndcg@10']:.4f}"]
        for row in read_result("sampled-softmax-ml-1m-h200")["rows"]
    }
    return Table("sampled softmax, ml-1m", ["loss over", "validation NDCG@10", "test NDCG@10"], rows)


def growth() -> Table:
    rows = {
        changed(row): [f"{row['targets/s']:,.0f}", f"{row['minutes an epoch']:.0f} min", f"{row['peak GB']:.1f} GB"]
        for row in read_result("scale-ml-25m")["parts"]["growth"]
    }
    return Table("what grows with what, ml-25m", ["setting", "targets/s", "an epoch", "memory"], rows)


def changed(row: dict) -> str:
    """The setting that differs from the preset's, in words."""
    if not row["change"]:
        return "the preset, all items kept"
    [(name, value)] = row["change"].items()
    if name == "min_item_ratings":
        return f"{row['items']:,} items"
    words = {
        "max_users": f"{value:,} users",
        "max_length": f"history {value}",
        "batch_size": f"batches of {value:,} users",
        "negatives": f"{value:,} negatives",
    }
    return words.get(name, f"{name} {value}")


def tables() -> list[Table]:
    return [
        *(models(data) for data in PRESETS),
        *told(),
        *(
            mixtures(),
            published("ml-1m"),
            published("beauty"),
            ensembles(),
            tuning(),
            scaling(),
            training_speed(),
            sampled_softmax_at_scale(),
            sampled_softmax(),
            growth(),
        ),
    ]


def with_tables(text: str) -> str:
    """`text` with each table under a line <!-- table: TITLE --> made anew."""
    for table in tables():
        mark = f"<!-- table: {table.title} -->\n"
        made = f"{mark}{table.markdown()}\n".replace("\\", r"\\")  # a backslash stands for itself
        text = re.sub(re.escape(mark) + r"(\|.*\n)*", made, text)
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put them into docs/")
    if parser.parse_args().write:
        for path in sorted((PROJECT / "docs").glob("*.md")):
            path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    else:
        print("\n\n".join(f"**{table.title}**\n\n{table.markdown()}" for table in tables()))


if __name__ == "__main__":
    main()
