import json
import subprocess
import sys

import pytest

from bertrec_utils.__main__ import main

HISTORY = ["Toy Story (1995)", "finding nemo", "Toy Story 4 (2019)", "No Such Film At All (1983)"]


def run(*arguments):
    command = [sys.executable, "-m", "bertrec_utils", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    done = run("train", "--preset", "tiny", "--seed", "3", "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_evaluate_prints_all_protocols_as_json(trained):
    table = json.loads(run("evaluate", trained, "--json").stdout)
    assert list(table) == ["full", "uniform-100", "popularity-100"]
    for found in table.values():
        assert 0 <= found["ndcg@10"] <= found["hit@10"] <= 1


def test_evaluate_prints_a_table(trained, capsys):
    main(["evaluate", str(trained)])
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].split() == ["Hit@10", "NDCG@10", "MRR@10"] and len(lines) == 4


def test_recommend_as_json(trained):
    done = run("recommend", trained, "--history", *HISTORY, "-k", "5", "--json")
    found = json.loads(done.stdout)
    assert found["unknown"] == HISTORY[2:]
    assert [set(film) for film in found["recommendations"]] == [{"rank", "item", "title", "genres", "score"}] * 5
    assert [film["rank"] for film in found["recommendations"]] == [1, 2, 3, 4, 5]
    assert not {"Toy Story (1995)", "Finding Nemo (2003)"} & {film["title"] for film in found["recommendations"]}
    assert "is newer than this release" in done.stderr and "closest" in done.stderr


def test_recommend_prints_a_table(trained, capsys):
    main(["recommend", str(trained), "--history", "Toy Story", "-k", "2"])
    assert len(capsys.readouterr().out.strip().splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "no-such-folder"], "error: no-such-folder holds no trained model"),
        (["download", "ml-2m"], "error: there is no release 'ml-2m'"),
    ],
)
def test_errors_are_one_line_and_status_one(arguments, message):
    done = run(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1


def test_history_of_unknown_titles_is_an_error(trained):
    done = run("recommend", trained, "--history", "No Such Film")
    assert done.returncode == 1 and "give at least one film" in done.stderr and not done.stdout


def test_impossible_seed_is_explained():
    done = run("train", "--seed", "-1")
    assert done.returncode == 2 and "a seed is a whole number from 0" in done.stderr


def test_wrong_preset_lists_the_known_ones():
    done = run("train", "--preset", "huge")
    assert done.returncode == 2 and "ml-25m" in done.stderr
