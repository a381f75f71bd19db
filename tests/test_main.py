import json
import re
import subprocess
import sys

import pytest

from bertrec_utils.__main__ import main
from bertrec_utils.training.checkpoints import load
from bertrec_utils.evaluation.ranking import evaluate
from bertrec_utils.settings import get_preset
from bertrec_utils.scenarios.recommender import Recommender

HISTORY = ["Toy Story (1995)", "finding nemo", "Toy Story 9 (2031)", "No Such Film At All (1983)"]


def run(*arguments, folder=None):
    command = [sys.executable, "-m", "bertrec_utils", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    done = run("train", "--preset", "tiny", "--seed", "3", "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_unattended_training_writes_a_line_an_epoch(tmp_path):
    done = run("train", "--preset", "tiny", "--out", tmp_path / "run")
    lines = done.stderr.splitlines()
    assert "\r" not in done.stderr and len(lines) == 3
    form = r"epoch {}/3: [\d.]+ min, loss [\d.]+, validation NDCG@10 [\d.]+ \(best: epoch \d\), at most [\d.]+ min left"
    assert all(re.fullmatch(form.format(number), line) for number, line in enumerate(lines, 1))


@pytest.mark.parametrize("recipe", ["sasrec", "bert4rec-paper-warm"])
def test_other_recipes_train_and_answer(recipe, tmp_path):
    done = run("train", "--preset", "tiny", "--recipe", recipe, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / f"tiny-{recipe}"
    assert load(folder).model.preset == get_preset("tiny", recipe)
    table = json.loads(run("evaluate", folder, "--json").stdout)
    assert set(table) == {"full", "uniform-100", "popularity-100"}
    done = run("recommend", folder, "--history", *HISTORY[:2], "--json", "-k", "3")
    assert len(json.loads(done.stdout)["recommendations"]) == 3


SHELF = 130  # items of the log below; sampled protocols need more than 100


@pytest.fixture
def own_log(tmp_path):
    """A log of 60 readers who go through a shelf of books in order, each from a place of their own."""
    lines = [f"{reader},{(reader * 7 + day) % SHELF + 1},{day}" for reader in range(60) for day in range(25)]
    (tmp_path / "books.csv").write_text("user,item,timestamp\n" + "\n".join(lines) + "\n")
    (tmp_path / "titles.csv").write_text("item,title\n" + "".join(f"{n},Volume {n}\n" for n in range(1, SHELF + 1)))
    return tmp_path


def test_own_log_from_training_to_titles(own_log, tmp_path_factory):
    done = run("train", "--preset", "tiny", "--ratings", "books.csv", "--items", "titles.csv", folder=own_log)
    assert done.returncode == 0, done.stderr
    model = own_log / "runs" / "books"
    elsewhere = tmp_path_factory.mktemp("elsewhere")  # the checkpoint knows where the log lies
    table = json.loads(run("evaluate", model, "--json", folder=elsewhere).stdout)
    assert set(table) == {"full", "uniform-100", "popularity-100"}
    titles = run("recommend", model, "--history", "volume 3", "Volume 4", "--json", "-k", "3", folder=elsewhere)
    films = json.loads(titles.stdout)["recommendations"]
    assert len(films) == 3 and all(film["title"].startswith("Volume ") for film in films)


def test_changed_or_missing_log_is_noticed(own_log):
    run(
        "train", "--preset", "tiny", "--ratings", "books.csv", "--items", "titles.csv", "--out", "model", folder=own_log
    )
    with (own_log / "books.csv").open("a") as log:
        log.write("0,130,99\n")
    for command in (["evaluate", "model"], ["recommend", "model", "--history", "Volume 3"]):
        done = run(*command, folder=own_log)
        assert done.returncode == 1 and not done.stdout
        assert "trained on other sequences than the data at hand" in done.stderr and done.stderr.count("\n") == 1


def test_log_that_has_moved(own_log, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    run(
        "train", "--preset", "tiny", "--ratings", "books.csv", "--items", "titles.csv", "--out", "model", folder=own_log
    )
    (own_log / "books.csv").rename(elsewhere / "moved.csv")
    done = run("recommend", "model", "--history", "Volume 3", folder=own_log)
    assert done.returncode == 1 and "books.csv" in done.stderr and done.stderr.count("\n") == 1
    done = run("recommend", "model", "--ratings", elsewhere / "moved.csv", "--history", "Volume 3", folder=own_log)
    assert done.returncode == 0 and "Volume" in done.stdout


def test_log_with_few_items_is_evaluated_by_the_full_ranking(tmp_path):
    lines = [f"{reader},{(reader * 7 + day) % 40},{day}" for reader in range(30) for day in range(20)]
    (tmp_path / "few.csv").write_text("user,item,timestamp\n" + "\n".join(lines) + "\n")
    run("train", "--preset", "tiny", "--ratings", "few.csv", folder=tmp_path)
    done = run("evaluate", "runs/few", folder=tmp_path)
    assert done.returncode == 1 and "--protocols full" in done.stderr
    table = json.loads(run("evaluate", "runs/few", "--protocols", "full", "--json", folder=tmp_path).stdout)
    assert list(table) == ["full"]


def test_items_without_their_log_are_refused(own_log):
    done = run("train", "--items", "titles.csv", folder=own_log)
    assert done.returncode == 1 and "give that log with --ratings" in done.stderr


def test_rare_items_of_an_own_log(own_log):
    done = run("train", "--preset", "tiny", "--ratings", "books.csv", "--min-item-ratings", "99", folder=own_log)
    assert done.returncode == 1 and "--min-item-ratings" in done.stderr


def test_evaluate_prints_all_protocols_as_json(trained):
    table = json.loads(run("evaluate", trained, "--json").stdout)
    assert list(table) == ["full", "uniform-100", "popularity-100"]
    for found in table.values():
        assert 0 <= found["ndcg@10"] <= found["hit@10"] <= 1


def test_counting_is_mixed_in_unless_it_is_left_out(trained, dataset, capsys):
    checkpoint = load(trained)
    mixture = checkpoint.with_linear(dataset)
    for option, scorer in ([], mixture), (["--transformer-only"], checkpoint.model):
        main(["evaluate", str(trained), "--protocols", "full", "--json", *option])
        expected = evaluate(scorer, dataset.split.test, ["full"])["full"]
        assert json.loads(capsys.readouterr().out)["full"] == pytest.approx(expected)
    alone, together = checkpoint.model, mixture
    for option, scorer in ([], alone), (["--transformer-only"], alone), (["--with-linear"], together):
        main(["recommend", str(trained), "--history", "Toy Story", "-k", "3", "--json", *option])
        titles = [film["title"] for film in json.loads(capsys.readouterr().out)["recommendations"]]
        expected = Recommender(scorer, dataset.vocabulary, dataset.log).recommend(["Toy Story"], 3).title
        assert titles == expected.tolist()


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


def test_a_history_as_a_set_and_its_lift(trained, dataset, capsys):
    model = load(trained).model
    recommender = Recommender(model, dataset.vocabulary, dataset.log)
    for options, how in (["--as-set"], {"as_set": True}), (["--lift", "0.5"], {"lift": 0.5}):
        main(["recommend", str(trained), "--history", "Toy Story", "Finding Nemo", "--json", *options])
        titles = [film["title"] for film in json.loads(capsys.readouterr().out)["recommendations"]]
        assert titles == recommender.recommend(["Toy Story", "Finding Nemo"], **how).title.tolist()
