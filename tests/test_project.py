"""The project as a reader finds it: notebooks, README, requirements."""

import ast
import json
import re
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
import table
import tables
from recording import settings_of_today

from bertrec_utils.evaluation.ranking import PROTOCOLS, metrics
from bertrec_utils.settings import get_preset

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("*/*.md")), *sorted((ROOT / "pretrained").glob("*/*.md"))]


def test_there_are_seven_notebooks_and_solutions():
    names = ["01_data", "02_model", "03_train", "04_evaluate", "04b_results", "05_scenarios", "06_your_own_log"]
    assert [path.stem for path in NOTEBOOKS] == [*names, "solutions"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_clean(path):
    assert path.stat().st_size < 600_000
    notebook = json.loads(path.read_text())
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert "widgets" not in notebook["metadata"]
    cells = notebook["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(cells) <= 60
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(len("".join(cell["source"]).splitlines()) <= 30 for cell in code)
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert not re.search(r"(/[\w.-]+){2,}/(runs|data|notebooks)\b", json.dumps(outputs))  # a path of somebody's machine
    assert "application/vnd.jupyter.widget-view+json" not in path.read_text()
    assert path.stem == "solutions" or {"## Summary", "## Exercises"} <= set(
        re.findall(r"^## \w+", markdown(cells), re.MULTILINE)
    )


def markdown(cells):
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


@pytest.mark.parametrize("path", [*NOTEBOOKS, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = markdown(json.loads(path.read_text())["cells"]) if path.suffix == ".ipynb" else path.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_ci_runs_the_test_command_of_the_readme():
    readme = (ROOT / "README.md").read_text()
    (command,) = re.findall(r"^python3 -m venv .*-m pytest$", readme, re.MULTILINE)
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_conda_installs_the_same_requirements():
    assert "- -r requirements.txt" in (ROOT / "environment.yml").read_text()
    assert "python=3.11" in (ROOT / "environment.yml").read_text()


def dependencies():
    """The names of extras -> ranges; "" are those that every installation has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"": project["dependencies"]} | project["optional-dependencies"]


def test_dependencies_are_what_the_package_imports():
    extras = dependencies()
    assert set(extras) == {"", "plots", "widgets", "parquet", "onnx", "notebooks", "tests"}
    names = {
        extra: {re.match(r"[\w-]+", line)[0].replace("scikit-learn", "sklearn") for line in extras[extra]}
        for extra in ("", "plots", "widgets", "parquet", "onnx")
    }
    imported = {}
    for path in (ROOT / "bertrec_utils").rglob("*.py"):
        extra = {"plots": "plots", "panel": "widgets", "export": "onnx"}.get(path.stem, "")
        nodes = list(ast.walk(ast.parse(path.read_text())))
        found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
        imported[extra] = imported.get(extra, set()) | {name.split(".")[0] for name in found} - set(
            sys.stdlib_module_names
        )
    assert imported[""] - names["parquet"] == names[""]  # a server needs no figures and no widgets
    assert imported["plots"] <= names[""] | names["plots"] and names["plots"] <= imported["plots"]
    assert imported["widgets"] <= names[""] | names["widgets"] and names["widgets"] <= imported["widgets"]
    assert imported["onnx"] <= names[""] | names["onnx"] and names["onnx"] <= imported["onnx"]


def versions(path, sign):
    return dict(re.findall(rf"^([\w-]+){sign}([\w.]+)", path.read_text(), re.MULTILINE))


def test_lowest_versions_are_those_of_the_ranges_and_the_newest_are_locked():
    extras = dependencies()
    with_range = [line for extra in ("", "plots", "widgets", "parquet", "onnx") for line in extras[extra]]
    with_range += [line for line in extras["tests"] if line.startswith(("onnxruntime", "polars"))]
    ranges = dict(line.split(">=") for line in with_range)
    lowest, locked = versions(ROOT / ".ci" / "lowest.txt", "=="), versions(ROOT / "requirements.txt", "==")
    assert set(lowest) == set(ranges) <= set(locked)
    for name, least in ranges.items():  # the oldest PyTorch has no CPU build to download for CI
        assert name == "torch" or re.fullmatch(rf"{re.escape(least)}(\.0)*", lowest[name]), name
    assert (ROOT / "requirements.txt").read_text().splitlines()[-1] == "-e .[notebooks,tests]"


def results(name):
    return json.loads((ROOT / "results" / f"{name}.json").read_text())


def test_the_tables_of_docs_are_made_from_the_results():
    pages = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}
    for made in tables.tables():
        assert sum(f"<!-- table: {made.title} -->\n" in text for text in pages.values()) == 1, made.title
    for name, text in pages.items():
        assert tables.with_tables(text) == text, f"{name}: run benchmarks/tables.py --write"


@pytest.mark.parametrize("preset", table.PRESETS)
def test_the_table_is_made_from_the_recorded_runs(preset):
    recorded = results("table")[preset]["models"]
    models = table.models_of(preset)  # compares ranks with recorded metrics, too
    assert set(recorded) == set(models)
    for name, (seeds, validation, _) in models.items():
        assert recorded[name]["validation"] == pytest.approx(sum(validation) / len(seeds))
        for protocol in PROTOCOLS:
            row = recorded[name][protocol]["ndcg@10"]
            assert row["seeds"] == pytest.approx([metrics(ranks[protocol])["ndcg@10"] for ranks in seeds])
            assert (
                row["mean"] == pytest.approx(sum(row["seeds"]) / len(seeds)) and row["low"] < row["mean"] < row["high"]
            )
    differences, shown = table.differences_of(models), results("table")[preset]["differences"]
    assert set(differences) == set(shown)
    for name, found in differences.items():
        for ours, theirs in ((found, shown[name]), (found["hit@10"], shown[name]["hit@10"])):
            assert [ours[key] for key in ("mean", "low", "high")] == pytest.approx(
                [theirs[key] for key in ("mean", "low", "high")]
            )
        assert found["over seeds too"] == pytest.approx(shown[name]["over seeds too"])
        assert found["p"] == pytest.approx(shown[name]["p"])
        assert (found["verdict"], found["seeds"]) == (shown[name]["verdict"], shown[name]["seeds"])


def test_intervals_in_the_prose_are_of_the_table():
    """Each `+.0016 [-.0022, +.0054]`, of whichever pair, over users and seeds or over users, by NDCG@10 or Hit@10."""
    content, known = results("table"), set()
    for preset in table.PRESETS:
        for found in content[preset]["differences"].values():
            ranges = ((found["mean"], each) for each in (found, found["over seeds too"]))
            for mean, each in (*ranges, (found["hit@10"]["mean"], found["hit@10"])):
                known.add((mean, each["low"], each["high"]))
                known.add((-mean, -each["high"], -each["low"]))
    known = {tuple(f"{value:+.4f}".replace("0.", ".") for value in interval) for interval in known}
    texts = [path.read_text() for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        texts += ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]
    number = r"([+-]\.\d{4})"
    quoted = {each for text in texts for each in re.findall(rf"{number}\s*\[{number}, {number}\]", text)}
    assert len(quoted) > 10 and quoted - known == set()


def numbers_in(content):
    if isinstance(content, float):
        return [content]
    content = content.values() if isinstance(content, dict) else content if isinstance(content, list) else []
    return [number for part in content for number in numbers_in(part)]


BEFORE = {".1752", ".1278", ".1498", ".0674", ".0722"}  # a trial, and baselines with fewer settings, as the prose says
SPREADS = {".0040", ".0075"}  # a deviation over seeds, half an interval


@pytest.mark.parametrize("page", ["results.md", "bert4rec.md"])
def test_scores_in_the_prose_are_recorded(page):
    """Each score with four digits is that of a model, of a told difference, or of a study of the same page."""
    content, known = results("table"), []
    for preset in table.PRESETS:
        for row in content[preset]["models"].values():
            found = [row[protocol][metric] for protocol in PROTOCOLS for metric in ("hit@10", "ndcg@10")]
            known += [row["validation"], *(each["mean"] for each in found), *found[1]["seeds"]]
    known += [number for row in content["told"] for number in (row["mean"], row["hit@10"]["mean"])]
    known += numbers_in([row["scores"] for row in results("published")["rows"]])
    known += numbers_in([results("ties-small")["models"], results("mixture-weights-beauty")["rows"]])
    tried = pd.DataFrame(results("tuning/small-bert4rec")["tried"])
    tried["best"] = [max(row["ndcg@10"] for row in history) for history in tried.history]
    known += [*tried.groupby("title").best.mean()]
    known += [row["ndcg@10"] for row in results("ml-1m-bert4rec-seed0")["history"]]
    known = {f"{abs(number):.4f}".removeprefix("0") for number in known}
    assert len(known) < 2000  # of ten thousand
    prose = "\n".join(line for line in (ROOT / "docs" / page).read_text().splitlines() if not line.startswith("|"))
    prose = re.sub(r"[+-]\.\d{4}\s*\[[^]]*\]", "", prose)  # intervals have a test of their own
    quoted = set(re.findall(r"(?<![\d.])\.\d{4}(?!\d)", prose))
    assert len(quoted) > 5 and quoted - known - BEFORE - SPREADS == set()


def test_what_is_told_is_of_the_table():
    """Each pair as its data set has it, and its p value never smaller for Holm's correction."""
    content = results("table")
    assert len(content["told"]) >= 20
    assert table.told({preset: content[preset] for preset in table.PRESETS}) == content["told"]
    for row in content["told"]:
        one, other = row["pair"].split(" - ")
        means = [content[row["data"]]["models"][name]["full"]["ndcg@10"]["mean"] for name in (one, other)]
        assert row["mean"] == pytest.approx(means[0] - means[1]) and row["low"] < row["mean"] < row["high"]
        assert row["p after Holm"] >= row["p"]


def test_the_notebooks_show_the_recorded_run_of_the_bundled_data():
    """By the shipped weights, which are of half precision."""
    run = results("medium-seed0")
    assert settings_of_today(run["settings"]) == asdict(get_preset("medium"))
    evaluated = json.loads((ROOT / "notebooks" / "04_evaluate.ipynb").read_text())["cells"]
    outputs = json.dumps([cell["outputs"] for cell in evaluated if cell["cell_type"] == "code"])
    shown = [[float(value) for value in row.split()] for row in re.findall(r"(?: +0\.\d{4}){6}", outputs)]
    for test in ("test", "test-with-linear"):
        row = [run[test][protocol][metric] for protocol in run[test] for metric in ("hit@10", "ndcg@10")]
        assert any(each == pytest.approx(row, abs=1e-3) for each in shown)


def test_recorded_runs_are_those_of_the_preset():
    for preset, at_least in (("ml-1m", 5), ("small", 5), ("medium", 3), ("movietweetings", 3), ("beauty", 1)):
        runs = [results(path.stem) for path in (ROOT / "results").glob(f"{preset}-seed*.json")]
        assert sorted(run["seed"] for run in runs) == list(range(len(runs))) and len(runs) >= at_least
        assert all(settings_of_today(run["settings"]) == asdict(get_preset(preset)) for run in runs)


def test_the_readme_says_what_mixtures_gain():
    readme, table = (ROOT / "README.md").read_text(), json.loads((ROOT / "results" / "table.json").read_text())

    def gain(data, model, baseline="linear", ending="linear"):
        test = {name: row["full"]["ndcg@10"]["mean"] for name, row in table[data]["models"].items()}
        return f"{100 * (test[f'{model}-with-{ending}'] / test[baseline] - 1):.0f}"

    data = ("ml-1m", "medium", "movietweetings")
    of_network, of_counts = ([gain(each, model) for each in data] for model in ("modern-both", "pctm"))
    on_beauty, of_counts_there = (gain("beauty", model, "smoothed-chain", "chain") for model in ("modern-both", "pctm"))
    assert "{} % on ML-1M, {} % on all bundled MovieLens ratings, {} % on MovieTweetings".format(*of_network) in readme
    assert f"{on_beauty} % above our best chain alone" in readme
    assert "({}, {}, {} and {} %)".format(*of_counts, of_counts_there) in readme


def test_the_example_of_compare_is_of_the_table():
    number = r"(0\.\d{4})"
    row = re.compile(rf"^([\w-]+) +(\d+)  {number} \[{number}, {number}\]  {number} ", re.MULTILINE)
    rows = row.findall((ROOT / "docs" / "compare.md").read_text())
    assert len(rows) >= 4
    for name, seeds, *shown in rows:
        found = results("table")["ml-1m"]["models"][name]["full"]
        ndcg, hit = found["ndcg@10"], found["hit@10"]
        expected = [f"{value:.4f}" for value in (ndcg["mean"], ndcg["low"], ndcg["high"], hit["mean"])]
        assert (shown, int(seeds)) == (expected, len(ndcg["seeds"]))


def test_the_short_table_of_the_readme_is_a_part_of_the_long_one():
    made = tables.models("ml-1m").rows
    row = re.compile(
        r"^\| `([\w-]+)`[^|]*\| (\d|-) \| (\.\d{4}) \| ([^|]+ / [^|]+) \| ([^|]+ to [^|]+) \|$", re.MULTILINE
    )
    rows = row.findall((ROOT / "README.md").read_text())
    assert len(rows) == 5
    for name, seeds, validation, full, interval in rows:
        cells = made[f"`{name}`"]
        assert [full, interval, validation, seeds] == [cells[0], *cells[3:6]]
