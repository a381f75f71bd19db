import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from bertrec_utils.__main__ import main
from bertrec_utils.commands.compare import read_run, split_name
from bertrec_utils.common import PROJECT
from bertrec_utils.data.dataset import load_dataset
from bertrec_utils.evaluation import baselines
from bertrec_utils.evaluation.baselines import PCTM, LinearNextItem, MarkovChain, Popularity
from bertrec_utils.evaluation.ranking import bootstrap_interval, evaluate
from bertrec_utils.scenarios.recommender import Recommender
from bertrec_utils.settings import get_preset
from bertrec_utils.training.checkpoints import load
from bertrec_utils.training.trainer import fit, new_model

CASES = Path(__file__).parent / "cases"
HISTORY = ["Toy Story (1995)", "finding nemo", "Toy Story 9 (2031)", "No Such Film At All (1983)"]
PROTOCOLS = ["full", "uniform-100", "popularity-100"]
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")  # all but the end of a line


def run(*arguments, folder=None):
    command = [sys.executable, "-m", "bertrec_utils", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def error_of(*arguments):
    """What a command that fails says, in one line; its exit status is 1."""
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, arguments)])
    message = stopped.value.code
    assert isinstance(message, str) and "\n" not in message  # Python prints a text on stderr, with status 1
    return message


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
    form = r"epoch {}/3: [\d.]+ min, loss [\d.]+, validation NDCG@10 [\d.]+ \(best: epoch \d\), [\d.]+ min left"
    assert all(re.fullmatch(form.format(number), line) for number, line in enumerate(lines, 1))
    assert done.stdout.startswith("data: 206,423 rows, 2,148 users, 13,049 items; dropped: ")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--recipe", "modern-next", "--start", "random"], "tiny-modern-next-random"),
        (["--recipe", "bert4rec", "--start", "counts"], "tiny-bert4rec-counts"),
    ],
)
def test_other_recipes_train_and_answer(options, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["train", "--preset", "tiny", *options])
    folder = tmp_path / "runs" / name
    assert load(folder).settings == get_preset("tiny", options[1], options[3])
    capsys.readouterr()
    main(["evaluate", str(folder), "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert list(answer["protocols"]) == PROTOCOLS
    assert answer["scorer"] == f"{options[1]} (start: {options[3]}, seed 0), network alone"
    main(["recommend", str(folder), "--history", *HISTORY[:2], "--json", "-k", "3"])
    assert len(json.loads(capsys.readouterr().out)["recommendations"]) == 3


def test_any_setting_can_be_set(tmp_path):
    changes = ["negatives=50", "precision=float32", "min_item_ratings=8", "epochs=1", "width=16"]
    main(["train", "--preset", "tiny", "--out", str(tmp_path), "--device", "cpu", "--set", *changes])
    expected = get_preset("tiny").change(negatives=50, precision="float32", min_item_ratings=8, epochs=1, width=16)
    assert load(tmp_path).settings == expected
    assert "there is no setting 'negative'" in error_of("train", "--set", "negative=50")
    assert "write it as NAME=VALUE" in error_of("train", "--set", "negatives")


SHELF = 130  # items of the log below; sampled protocols need more than 100


@pytest.fixture(scope="module")
def trained_on_own_log(tmp_path_factory):
    """A folder with a log of 60 readers who go through a shelf of books in order, each from a place of their own, and,
    in runs/, the model of a preset trained on it."""
    home = tmp_path_factory.mktemp("shelf")
    lines = [f"{reader},{(reader * 7 + day) % SHELF + 1},{day}" for reader in range(60) for day in range(25)]
    (home / "books.csv").write_text("user,item,timestamp\n" + "\n".join(lines) + "\n")
    (home / "titles.csv").write_text("item,title\n" + "".join(f"{n},Volume {n}\n" for n in range(1, SHELF + 1)))
    done = run("train", "--preset", "tiny", "--ratings", "books.csv", "--items", "titles.csv", folder=home)
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture
def own_log(trained_on_own_log, tmp_path):
    """A copy that a test may spoil: log and model have moved together."""
    return shutil.copytree(trained_on_own_log, tmp_path / "moved")


def test_own_log_from_training_to_titles(own_log, trained_on_own_log, monkeypatch, tmp_path, capsys):
    trained_on_own_log.rename(trained_on_own_log.with_name("away"))
    try:
        monkeypatch.chdir(tmp_path)  # the checkpoint knows where the log lies, seen from its own folder
        model = own_log / "runs" / "books-tiny"
        assert [path.name for path in (own_log / "runs").iterdir()] == ["books-tiny"]
        assert str(trained_on_own_log).encode() not in (model / "model.safetensors").read_bytes()
        main(["evaluate", str(model), "--json"])
        answer = json.loads(capsys.readouterr().out)
        assert list(answer["protocols"]) == PROTOCOLS and answer["users"] == 60
        main(["recommend", str(model), "--history", "volume 3", "Volume 4", "--json", "-k", "3"])
        items = json.loads(capsys.readouterr().out)["recommendations"]
        assert len(items) == 3 and all(item["title"].startswith("Volume ") for item in items)
    finally:
        trained_on_own_log.with_name("away").rename(trained_on_own_log)


def test_changed_log_is_noticed(own_log):
    model = own_log / "runs" / "books-tiny"
    with (own_log / "books.csv").open("a") as log:
        log.write("0,130,99\n")
    for command in (["evaluate", model], ["recommend", model, "--with-linear", "--history", "Volume 3"]):
        assert "trained on other sequences than the data at hand" in error_of(*command)


def test_recommendations_need_no_log(own_log, capsys):
    model, arguments = own_log / "runs" / "books-tiny", ["--history", "Volume 3", "Volume 4", "--json"]
    main(["recommend", str(model), *arguments])
    with_log = capsys.readouterr().out
    (own_log / "books.csv").unlink()
    (own_log / "titles.csv").unlink()
    main(["recommend", str(model), *arguments])
    assert capsys.readouterr().out == with_log
    for command in (["evaluate", model], ["recommend", model, "--with-linear", "--history", "Volume 3"]):
        message = error_of(*command)
        assert message.startswith("error: there is no file ") and ("titles.csv" in message or "books.csv" in message)


def test_log_that_has_moved(own_log, tmp_path, capsys):
    model = own_log / "runs" / "books-tiny"
    (own_log / "books.csv").rename(tmp_path / "other.csv")
    assert "books.csv" in error_of("evaluate", model)
    moved = ["--ratings", str(tmp_path / "other.csv")]
    main(["evaluate", str(model), "--protocols", "full", *moved])
    assert "60 users" in capsys.readouterr().out
    main(["recommend", str(model), *moved, "--history", "Volume 3"])
    assert "Volume" in capsys.readouterr().out


def test_log_with_few_items_is_evaluated_by_the_full_ranking(tmp_path, monkeypatch, capsys):
    """tests/cases/ten-items: nobody has a hundred unseen items, and everybody's target is among the first ten."""
    shutil.copy(Path(__file__).parent / "cases" / "ten-items" / "log.csv", tmp_path)
    monkeypatch.chdir(tmp_path)
    main(["train", "--preset", "tiny", "--ratings", "log.csv", "--repeats", "first"])
    capsys.readouterr()
    main(["evaluate", "runs/log-tiny"])
    said = capsys.readouterr()
    assert said.err.endswith("the sampled protocols need 100 unseen items for each user: they are left out\n")
    main(["evaluate", "runs/log-tiny", "--protocols", "full", "full"])
    assert "left out" not in capsys.readouterr().err
    assert "\ntest: the last item of each of 116 users (leave-one-out)\n" in said.out
    assert said.out.splitlines()[-1].split()[:2] == ["full", "1.0000"]
    main(["evaluate", "runs/log-tiny", "--json"])
    assert list(json.loads(capsys.readouterr().out)["protocols"]) == ["full"]
    message = error_of("evaluate", "runs/log-tiny", "--protocols", "full", "uniform-100")
    advice = "use the full ranking alone: --protocols full, or protocols=['full']"
    assert message == f"error: a user has fewer than 100 unseen items; {advice}"


def test_a_split_in_time_trains_on_what_came_before(tmp_path, monkeypatch, capsys):
    """Twelve readers take eight of ten items on days 0 to 7. Five of them come back on day 10 for a ninth, and on day
    11 for an item that nobody has had before."""
    early = [f"{reader},{(reader + day) % 10},{day}" for reader in range(12) for day in range(8)]
    late = [f"{reader},{(reader + 8) % 10},10\n{reader},new,11" for reader in range(5)]
    (tmp_path / "log.csv").write_text("user,item,timestamp\n" + "\n".join(early + late) + "\n")
    monkeypatch.chdir(tmp_path)
    assert "it must be none, or between 0 and 1 for a log of your own" in error_of("train", "--set", "time_split=0.92")
    main(["train", "--preset", "tiny", "--ratings", "log.csv", "--set", "time_split=0.92"])
    assert "data: cut in time: 10 items, 12 users before the cut, 5 after it\n" in capsys.readouterr().out
    checkpoint = load("runs/log-tiny")
    assert checkpoint.vocabulary.items.tolist() == [str(item) for item in range(10)]
    main(["evaluate", "runs/log-tiny", "--run", "run.txt"])
    assert "test: the first item after the 0.92 quantile of time of each of 5 users\n" in capsys.readouterr().out
    listed = {(line.split()[0], line.split()[2]) for line in Path("run.txt").read_text().splitlines()}
    assert listed == {(str(reader), str((reader + left) % 10)) for reader in range(5) for left in (8, 9)}

    other = [f"{reader},{(reader + 9) % 10},{day}" for reader in range(5, 12) for day in (10, 12)]  # after the cut
    (tmp_path / "log.csv").write_text("user,item,timestamp\n" + "\n".join(early + other[:10]) + "\n")
    dataset = load_dataset(checkpoint.settings.data)
    assert dataset.fingerprint["sequences"] == checkpoint.fingerprint["sequences"]
    assert dataset.split.test.histories.users.tolist() == [5, 6, 7, 8, 9]
    assert "trained beside other held-out items than the data at hand" in error_of("evaluate", "runs/log-tiny")


READERS = 125  # more than the users that preset tiny keeps of a release


def test_logs_of_one_name_do_not_share_a_folder(tmp_path, monkeypatch):
    rows = "".join(f"{reader},{(reader + day) % 10},{day}\n" for reader in range(12) for day in range(8))
    monkeypatch.chdir(tmp_path)
    for name in ("here", "there"):
        Path(name).mkdir()
        Path(name, "log.csv").write_text("user,item,timestamp\n" + rows)
    train = ["train", "--preset", "tiny", "--set", "epochs=1", "--ratings"]
    main([*train, "here/log.csv"])
    message = error_of(*train, "there/log.csv")
    place = Path("here", "log.csv").resolve()
    assert message == f"error: runs/log-tiny holds a model of another log, {place}; choose another folder: --out DIR"
    place.unlink()
    main([*train, "there/log.csv"])  # a log may move


def test_ids_that_are_texts_from_training_to_titles(tmp_path, monkeypatch, capsys):
    """Ids such as 007 and NA; titles that would colour or clear a terminal; more readers than the preset has users."""
    titles = {f"{number:03}": f"Volume {number}" for number in range(20)}
    titles |= {"NA": "Not one", "ß,€": 'A "quote", and $5'}
    titles |= {"007": "Bond \x1b[31m in \x1b[2Jred\x07", "008": "Eight \x9b31m\x7f"}
    ids = list(titles)
    lines = [
        f'"reader {reader}","{ids[(reader * 5 + day) % 22]}",2020-01-{day + 1:02}'
        for reader in range(READERS)
        for day in range(9)
    ]
    (tmp_path / "log.csv").write_text("user,item,timestamp\n" + "\n".join(lines) + "\n", encoding="utf-8")
    rows = [f'"{item}","{title.replace(chr(34), chr(34) * 2)}",x\x1b[1m|y' for item, title in titles.items()]
    (tmp_path / "titles.csv").write_text("item,title,genres\n" + "\n".join(rows) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    main(["train", "--preset", "tiny", "--ratings", "log.csv", "--items", "titles.csv", "--out", "run"])
    vocabulary = load("run").vocabulary
    assert vocabulary.items.tolist() == sorted(ids)
    capsys.readouterr()
    main(["evaluate", "run", "--protocols", "full", "--json", "--with-linear"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["users"] == answer["data"]["kept_users"] == READERS
    assert answer["protocols"]["full"]["ndcg@10"] > 0.5  # they all go through the shelf in the same order

    asked = ["recommend", "run", "--history", "Volume 3", "volume 4", "No\x1b[2J\x9bsuch", "-k", "30"]
    (tmp_path / "log.csv").unlink()
    main(asked)
    table = capsys.readouterr()
    assert "Bond" in table.out and "Eight" in table.out and "No" in table.err
    assert not CONTROL.search(table.out + table.err)
    main([*asked, "--json"])
    found = capsys.readouterr()
    assert not CONTROL.search(found.out + found.err)
    answer = json.loads(found.out)
    assert {item["item"]: item["title"] for item in answer["recommendations"]} == {
        item: title for item, title in titles.items() if item not in ("003", "004")
    }
    assert answer["unknown"] == ["No\x1b[2J\x9bsuch"]
    assert not CONTROL.search(error_of("recommend", "run", "--history", "No\x1b[2J\x9bsuch"))


def test_a_model_remembers_the_columns_of_its_log(tmp_path, monkeypatch, capsys):
    """A packed log with semicolons, names of its own and American dates, and titles between tabs."""
    lines = [f"{(reader * 7 + day) % 40};r{reader};12/{day + 5}/2020 9:30" for reader in range(30) for day in range(20)]
    (tmp_path / "loans.csv.gz").write_bytes(gzip.compress("\n".join(["what;who has it;when", *lines]).encode()))
    (tmp_path / "books.tsv").write_text("what\tcalled\n" + "".join(f"{book}\tVolume {book}\n" for book in range(40)))
    monkeypatch.chdir(tmp_path)
    log = ["--ratings", "loans.csv.gz", "--items", "books.tsv"]
    told = ["--columns", "user=who has it", "item=what", "timestamp=when", "title=called"]
    assert "do not tell the user, the item, the timestamp" in error_of("train", *log)
    main(["train", "--preset", "tiny", *log, *told, "--set", "epochs=1"])
    said = "loans.csv.gz: user=who has it item=what timestamp=when; books.tsv: id=what title=called\n"
    assert capsys.readouterr().err.startswith(said)
    assert load("runs/loans-tiny").settings.data.columns == " ".join(told[1:])
    main(["evaluate", "runs/loans-tiny", "--protocols", "full", "--json"])
    found = capsys.readouterr()
    assert json.loads(found.out)["users"] == 30 and found.err.startswith(said)
    main(["recommend", "runs/loans-tiny", "--history", "Volume 3", "--json"])
    assert json.loads(capsys.readouterr().out)["recommendations"][0]["title"].startswith("Volume ")


@pytest.mark.parametrize(
    ("log", "users", "option"),
    [
        ("tiny-logs/one-user-50.csv", 1, "--set min_item_ratings=1"),
        ("tiny-logs/4items.csv", 30, "--start random"),
        ("tiny-logs/all-same-time.csv", 30, None),
        ("ten-items/log.csv", 126, None),  # three of four rows are repeats, and so kept
    ],
)
def test_a_tiny_log_trains_or_names_the_option_with_which_it_does(log, users, option, tmp_path, capsys):
    train = ["train", "--preset", "tiny", "--ratings", str(CASES / log), "--out", str(tmp_path), "--set", "epochs=1"]
    if option:
        assert option in error_of(*train)
        train += [*option.split(), "epochs=1"] if "--set" in option else option.split()
    main(train)
    capsys.readouterr()
    main(["evaluate", str(tmp_path), "--protocols", "full", "--json"])
    assert json.loads(capsys.readouterr().out)["users"] == users


def test_items_without_their_log_are_refused(tmp_path):
    assert "give that log with --ratings" in error_of("train", "--items", tmp_path / "titles.csv")
    assert "give that log with --ratings" in error_of("train", "--columns", "user=who")


def test_rare_items_of_an_own_log(own_log):
    log = ["--ratings", own_log / "books.csv"]
    assert "--set min_item_ratings=1" in error_of("train", "--preset", "tiny", *log, "--set", "min_item_ratings=99")


def test_evaluate_prints_all_protocols_as_json(trained, dataset):
    answer = json.loads(run("evaluate", trained, "--json").stdout)
    assert list(answer) == ["scorer", "finished", "users", "data", "protocols"]
    assert answer["scorer"] == "modern-both (start: counts, seed 3), network alone" and answer["finished"] is True
    assert answer["users"] == len(dataset.split.test) and answer["data"] == dataset.counts._asdict()
    assert list(answer["protocols"]) == PROTOCOLS
    for found in answer["protocols"].values():
        assert 0 <= found["ndcg@10"] <= found["hit@10"] <= 1


def test_the_network_alone_answers_unless_the_baseline_is_asked_for(trained, dataset, capsys):
    checkpoint = load(trained)
    mixture = checkpoint.with_linear(dataset)
    for option, scorer in ([], checkpoint.model), (["--with-linear"], mixture):
        main(["evaluate", str(trained), "--protocols", "full", "--json", *option])
        answer = json.loads(capsys.readouterr().out)
        assert answer["protocols"]["full"] == pytest.approx(evaluate(scorer, dataset.split.test, ["full"])["full"])
        assert answer["scorer"].endswith(f" + {mixture.weight} x linear baseline" if option else ", network alone")
        main(["recommend", str(trained), "--history", "Toy Story", "-k", "3", "--json", *option])
        again = json.loads(capsys.readouterr().out)
        expected = Recommender(scorer, dataset.vocabulary, dataset.items).recommend(["Toy Story"], 3).title
        assert [film["title"] for film in again["recommendations"]] == expected.tolist()
        assert again["scorer"] == answer["scorer"]


def test_evaluate_prints_a_table(trained, dataset, capsys):
    main(["evaluate", str(trained)])
    data, scorer, test, head, *rows = capsys.readouterr().out.strip().splitlines()
    assert data == f"data: {dataset.counts}"
    assert scorer == "scorer: modern-both (start: counts, seed 3), network alone"
    assert test == f"test: the last item of each of {len(dataset.split.test)} users (leave-one-out)"
    assert head.split() == ["candidates", "Hit@10", "NDCG@10", "MRR@10"]
    assert [row.split()[0] for row in rows] == PROTOCOLS


RUN_FILES = {
    "plain": "u 1 .5\nu 2 -3\n",
    "TREC": "u Q0 1 1 0.5 a,tag\nu Q0 2 2 -3 a,tag\n",
    "TREC, with tabs": "u\tQ0\t1\t1\t0.5\ta tag\nu\tQ0\t2\t2\t-3\ta tag\n",
    "RecTools, to_csv": "user_id,item_id,score,rank\nu,1,0.5,1\nu,2,-3.0,2\n",
    "RecBole's columns": "score:float\tuser_id:token\titem_id:token\n0.5\tu\t1\n-3\tu\t2\n",
    "other columns that begin so": "item_rank,userid,item_name,score_old,item,score\n1,u,a,1,1,.5\n2,u,b,2,2,-3\n",
    "commas and spaces": "u, 1, 0.5\nu, 2, -3\n",
    "commas, quotes, from Windows": '\ufeff"u","1",5e-1\r\n\r\n"u","2",-3\r\n',
}


@pytest.mark.parametrize("text", RUN_FILES.values(), ids=RUN_FILES)
def test_run_files_of_any_tool_are_read(text, tmp_path):
    (tmp_path / "run.txt").write_bytes(text.encode())
    table = read_run(tmp_path / "run.txt")
    assert [*map(tuple, table.to_numpy())] == [("u", "1", 0.5), ("u", "2", -3.0)]


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("user1 Q0 item18 1 0.85 scorer-v2", ("user1", "item18", 0.85)),
        ("u,item one two,0.85", ("u", "item one two", 0.85)),  # three words
    ],
)
def test_a_first_line_of_a_run_file_is_no_header(line, row, tmp_path):
    (tmp_path / "run.txt").write_text(f"{line}\n")
    assert [*map(tuple, read_run(tmp_path / "run.txt").to_numpy())] == [row]


def test_run_files_may_be_compressed_and_have_a_colon_in_their_name(tmp_path):
    path = tmp_path / "run:1.txt"
    path.write_bytes(gzip.compress(b"u 1 0.5\nu 2 -3\n"))
    assert read_run(path).score.tolist() == [0.5, -3]
    assert split_name(str(path)) == (path, "") and split_name("other:name") == (Path("other"), "name")


def test_ids_in_run_files_are_taken_as_they_are_written(tmp_path):
    ids = ["001", "NA", "nan", "", 'a "b', "x y", "1e5", "é, ñ"]
    (tmp_path / "run.txt").write_text("".join(f"{each}\t{each}\t1\n" for each in ids), encoding="utf-8")
    assert read_run(tmp_path / "run.txt").item.tolist() == ids
    (tmp_path / "digits.txt").write_text("1 001 1\n1 002 0.5\n")
    assert read_run(tmp_path / "digits.txt").item.tolist() == ["001", "002"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no run file; write lines of user, item and score, or name these columns in the first line"),
        ("user,item,score\n", "nothing follows the header; write lines of user, item and score, or name these"),
        ("user,item,score\n\n", "nothing follows the header; "),
        ("u 1 .5\nu 2 x\n", "a score is no number (could not convert string to float: 'x'); each line needs a user, "),
        ("u 1 .5\nu 2\n", "a score is no number ("),
        ("PAR1\n\xf0", "a parquet file is no run file; save it as .csv, or write lines of user, item and score"),
        ("user,item_a,item_b,score\n", "the columns item_a and item_b may each be the item; rename all but the right"),
        ("user,user_id,item,score\n", "the columns user and user_id may each be the user; rename all but the right"),
    ],
)
def test_what_is_no_run_file_is_explained(text, problem, trained, tmp_path):
    (tmp_path / "run.txt").write_bytes(text.encode("latin-1"))
    assert error_of("compare", tmp_path / "run.txt", trained).startswith(f"error: {tmp_path / 'run.txt'}: {problem}")


def comparison(capsys, *arguments):
    """What `compare` says: the lines before the table, and its rows, model -> (seeds, mean of NDCG@10, its interval,
    Hit@10, and of the difference the mean, low and high of NDCG@10, those of Hit@10, verdict)."""
    capsys.readouterr()
    main(["compare", *map(str, arguments)])
    lines = capsys.readouterr().out.splitlines()
    head = next(number for number, line in enumerate(lines) if "verdict" in line)
    rows = [re.sub(r"[\[\],]", " ", line).split() for line in lines[head + 1 : -1]]
    numbers = {row[0]: tuple(float(text) if text[-1].isdigit() else text for text in row[1:]) for row in rows}
    return lines[:head], numbers


def test_a_model_and_its_own_run_are_equivalent(trained, dataset, tmp_path, capsys):
    main(["evaluate", str(trained), "--protocols", "full", "--run", str(tmp_path / "run.txt")])
    said = capsys.readouterr()
    assert f"run.txt: the best 100 items of {len(dataset.split.test)} users" in said.err
    hit, ndcg, _ = map(float, said.out.splitlines()[-1].split()[1:])
    notes, rows = comparison(capsys, trained, tmp_path / "run.txt")
    users = len(dataset.split.test)
    assert notes[0] == f"{users} users; full ranking; in brackets, 95 % intervals (a paired bootstrap over users)"
    own, other = rows[str(trained)], rows[str(tmp_path / "run.txt")]
    assert own == other[:5] and (own[1], own[4]) == (ndcg, hit) and own[2] < ndcg < own[3]
    assert other[5:] == (0, 0, 0, 0, 0, 0, "equivalent")


def test_models_are_compared_user_by_user(trained, dataset, tmp_path, capsys):
    """Against NDCG@10 as numpy gives it from all scores; and then for some of the users only."""
    checkpoint = load(trained)
    test, gains = dataset.split.test, {}
    for name, scorer in (("alone", checkpoint.model), ("mixed", checkpoint.with_linear(dataset))):
        scores = scorer.score(test.histories).astype(float)
        for row in range(len(test)):
            scores[row, test.histories[row] - 1] = -np.inf
        ranks = 1 + (scores > scores[np.arange(len(test)), test.targets - 1][:, None]).sum(1)
        gains[name] = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0)
    mixed = f"{trained}:with-linear"
    _, rows = comparison(capsys, mixed, trained, "--plot", tmp_path / "plot.png")
    expected = bootstrap_interval(gains["mixed"] - gains["alone"])
    assert rows[str(trained)][5:8] == pytest.approx(expected, abs=6e-5)
    assert rows[mixed][1] == pytest.approx(gains["mixed"].mean(), abs=6e-5)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    for margin, verdict in (("1", "equivalent"), ("0", "better" if expected.low > 0 else "undecided")):
        assert comparison(capsys, mixed, trained, "--margin", margin)[1][str(trained)][-1] == verdict

    main(["evaluate", str(trained), "--protocols", "full", "--run", str(tmp_path / "run.txt"), "--with-linear"])
    some = test.histories.users[:40].tolist()
    lists = [line.split() for line in (tmp_path / "run.txt").read_text().splitlines()]
    plain = [f"{line[0]} {line[2]} {line[4]}\n" for line in lists if int(line[0]) in some]
    (tmp_path / "some.txt").write_text("".join([*plain, "nobody 1 2\n"]))
    notes, rows = comparison(capsys, tmp_path / "some.txt", trained)
    assert notes[0].endswith("some.txt: lines of users who are not in the test (left out): 1")
    assert notes[1].endswith(f": {len(test) - 40} users are left out, for whom another model has no list")
    assert notes[2].startswith("40 users; ")
    assert rows[str(trained)][5] == pytest.approx((gains["mixed"] - gains["alone"])[:40].mean(), abs=6e-5)


def test_a_model_in_the_recorded_table(capsys):
    """Its differences, from the ranks themselves."""
    results = PROJECT / "results"
    gains = {}
    for path in (results / "ranks").glob("*small*.npz"):
        for name, doubled in np.load(path).items():
            gains[path.stem, name] = np.where(doubled <= 20, 1 / np.log2(doubled / 2 + 1), 0)
    own = f"{results / 'ranks' / 'baselines-small.npz'}:ease"
    notes, rows = comparison(capsys, own, "--against", results, "--preset", "small")
    assert notes[0].startswith("2,061 users; ")
    means = [row[1] for row in rows.values()]
    assert means == sorted(means, reverse=True)
    ease = gains["baselines-small", "ease/full"]
    for key, name in (("test", "modern-both"), ("test-with-linear", "modern-both-with-linear")):
        seeds = [gain for (run, model), gain in gains.items() if run[:-1] == "small-seed" and model == f"{key}/full"]
        difference = bootstrap_interval(ease - np.mean(seeds, axis=0))
        assert rows[name][0] == len(seeds) >= 3
        assert rows[name][5:8] == pytest.approx(difference, abs=6e-5)
        assert rows[name][-3:] == (own, "is", "worse")  # said of the model that is compared, not of the row
    assert rows["ease"][5:] == (0, 0, 0, 0, 0, 0, "equivalent") and rows["ease"][:5] == rows[own]
    assert rows["popularity"][-3:] == (own, "is", "better")


def test_a_model_is_compared_with_baselines_fitted_to_its_data(trained, dataset, capsys, monkeypatch):
    test, train, count = dataset.split.test, dataset.split.train, len(dataset.vocabulary)
    expected = {"popularity": Popularity, "markov-chain": MarkovChain, "pctm": PCTM, "linear": LinearNextItem}
    _, rows = comparison(capsys, trained, "--baselines")
    assert set(rows) == {str(trained), *expected}
    for name, kind in expected.items():
        found = evaluate(kind(train, count), test, ["full"], progress=False)["full"]
        assert rows[name][1] == pytest.approx(found["ndcg@10"], abs=6e-5)
        assert rows[name][4] == pytest.approx(found["hit@10"], abs=6e-5)
    monkeypatch.setattr(baselines, "MAX_ITEMS", count - 1)
    _, rows = comparison(capsys, trained, "--baselines")
    assert set(rows) == {str(trained), "popularity", "markov-chain", "pctm", "smoothed-chain"}


def test_what_cannot_be_compared_is_explained(trained, own_log, tmp_path, monkeypatch):
    ranks, run = PROJECT / "results" / "ranks", tmp_path / "run.txt"
    same = run.with_name("same.txt")
    for path in (run, same):
        path.write_text("1 2 3\n")
    for arguments, message in (
        ([trained], "another model, --baselines, or --against results/"),
        ([ranks / "small-seed0.npz", "--baselines"], "name the data: --data PRESET, "),
        ([trained, "--baselines", "--against", PROJECT / "results"], "leave --baselines out"),
        ([trained / "no", trained], "there is no "),
        ([run, same], "name their data: --data PRESET, --data DIR of a trained model, or --ratings FILE"),
        ([ranks / "small-seed0.npz", ranks / "ml-1m-seed0.npz"], "small-seed0.npz has 2,061 test users, "),
        ([ranks / "baselines-small.npz", run], "name one of them, as in "),
        ([f"{trained}:linear", trained], ":linear; of a trained model there is DIR:with-linear"),
        ([trained, "--against", PROJECT / "results"], "name one: --preset NAME"),
        ([own_log / "runs" / "books-tiny", "--against", PROJECT / "results"], "trained on other items than the data"),
        ([trained, own_log / "runs" / "books-tiny"], "trained on other items than the data at hand"),
        ([run, trained], "fewer than two test users have a list of every model"),
        ([run, trained, run], f"{run} is named twice"),
        ([run, trained, "--margin", "-0.1"], "--margin is -0.1; it must be 0 or more, such as 0.003"),
        ([run, trained, "--margin", "nan"], "--margin is nan; it must be 0 or more"),
    ):
        assert message in error_of("compare", *arguments)
    monkeypatch.chdir(tmp_path)
    run.rename("popularity").with_name("run.txt").touch()
    assert "popularity is the name of a baseline, too" in error_of("compare", "popularity", trained, "--baselines")
    for text in ("1 2\n", "", "x 2 3\n", "1 2 x\n", "1,2,3,4\n", "1 2 3\n1 2 3 4\n", "1 2 3\n1 2\n"):
        run.write_text(text)
        assert f"{run}: " in error_of("compare", run, trained)
    monkeypatch.setitem(sys.modules, "bertrec_utils.plots", None)  # as if what it needs were not installed
    assert "pip install 'bertrec-utils[plots]'" in error_of("compare", trained, run, "--plot", tmp_path / "plot.png")


def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    refused, folder = "is not written; name a", "in a folder that is there"
    for run_file in ("no/run.txt", "file/run.txt", tmp_path):
        assert error_of("evaluate", "no-model", "--run", run_file) == f"error: --run {run_file} {refused} file {folder}"
    for plot in ("no/plot.png", "plot.foo"):
        message = error_of("compare", "no-model", "other", "--plot", plot)
        assert message == f"error: --plot {plot} {refused} .png or .svg or .pdf file {folder}"
    assert error_of("page", "no-model", "--out", "file") == "error: --out file is a file; name a folder, new or not"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_output_that_is_an_input_is_refused(own_log, trained, tmp_path, monkeypatch):
    """Also by another name, and the log that is remembered as the one that is told."""
    monkeypatch.chdir(own_log)
    model = Path("runs", "books-tiny")
    shutil.copy("books.csv", "today.csv")
    Path("link").symlink_to("books.csv")
    before = {path: path.read_bytes() for path in own_log.rglob("*") if path.is_file()}
    for file, what in (
        ("books.csv", "the log"),
        ("today.csv", "the log"),
        ("link", "the log"),
        ("titles.csv", "the file of titles"),
        (model / "model.safetensors", "a file of the model"),
        (model / "items.csv", "a file of the model"),
    ):
        message = error_of("evaluate", model, "--ratings", "today.csv", "--run", file)
        assert message == f"error: --run {file} is {what}; name another file"
    Path("plot.png").symlink_to("books.csv")
    message = error_of("compare", model, trained, "--ratings", "books.csv", "--plot", "plot.png")
    assert message == "error: --plot plot.png is the log; name another file"
    Path("plot.png").unlink()
    assert {path: path.read_bytes() for path in own_log.rglob("*") if path.is_file()} == before
    Path("run.txt").write_text("of yesterday")
    main(["evaluate", str(model), "--protocols", "full", "--run", "run.txt"])
    assert Path("run.txt").read_text() != "of yesterday"


def test_training_overwrites_no_table_of_items_that_it_has_not_written(own_log, monkeypatch):
    monkeypatch.chdir(own_log)
    shop = Path("shop")
    shop.mkdir()
    shutil.copy("titles.csv", shop / "items.csv")
    train = ["train", "--preset", "tiny", "--ratings", "books.csv", "--set", "epochs=1", "--out"]
    problem = "error: shop/items.csv is a file of your own, which training would overwrite"
    for items in ([], ["--items", "titles.csv"], ["--items", "shop/items.csv"]):
        message = error_of(*train, "shop", *items)
        assert message == f"{problem}; choose another folder (--out DIR), or rename that file"
    assert [path.name for path in shop.iterdir()] == ["items.csv"]
    assert (shop / "items.csv").read_bytes() == Path("titles.csv").read_bytes()
    main([*train, "model", "--items", "shop/items.csv"])
    shutil.copy("model/model.safetensors", shop)
    assert error_of(*train, "shop", "--items", "shop/items.csv").startswith(problem)  # whatever lies beside it
    (shop / "model.safetensors").unlink()

    shutil.copy("model/items.csv", shop)  # all that is left of a run that was killed as it began to write
    for _ in range(2):
        main([*train, "shop", "--items", "titles.csv"])
    assert sorted(path.name for path in shop.glob("[!.]*")) == ["items.csv", "model.safetensors", "previous-1"]
    (shop / "model.safetensors").unlink()
    (shop / "items.csv").write_text("of a log that has grown since")
    main([*train, "shop", "--items", "titles.csv"])  # previous-1 shows whose it is


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that not even root may write to")
@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["evaluate"], "--run"),
        (["recommend", "--all"], "--out"),
        (["compare", "other"], "--plot"),
        (["export"], "--items"),
        (["page"], "--out"),
    ],
)
def test_a_folder_that_cannot_be_written_to_is_named_before_the_work(command, option):
    file = {"--run": "run.txt", "--out": "lists.csv", "--plot": "plot.png", "--items": "items.npz"}[option]
    message = error_of(command[0], "no-model", *command[1:], option, f"/proc/{file}")
    kind = "folder" if command == ["page"] else "file in a folder"
    assert re.fullmatch(rf"error: {option} /proc/{file} cannot be written \(.+\); name a {kind} that .+", message)
    assert "partial" not in message


def test_weights_of_a_release_answer_for_a_log_of_ones_own(tmp_path, monkeypatch, capsys):
    """Here in MovieLens's ids, as of a reader who goes on to rate."""
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text("userId,movieId,rating,timestamp\nme,1,5,1\nme,6377,5,2\nme,4886,5,3\n")
    asked = ["recommend", str(PROJECT / "pretrained" / "small"), "--json"]
    main([*asked, "--history", "id:1", "id:6377", "id:4886"])
    expected = json.loads(capsys.readouterr().out)["recommendations"]
    main([*asked, "--user", "me", "--ratings", "mine.csv"])
    assert json.loads(capsys.readouterr().out)["recommendations"] == expected
    Path("titles.csv").write_text(f"movieId,title\n1,Toys\n{expected[0]['item']},My name for it\n")
    main([*asked, "--user", "me", "--ratings", "mine.csv", "--items", "titles.csv"])
    titles = [film["title"] for film in json.loads(capsys.readouterr().out)["recommendations"]]
    assert titles == ["My name for it", *(film["title"] for film in expected[1:])]


def test_recommend_as_json(trained):
    done = run("recommend", trained, "--history", *HISTORY, "-k", "5", "--json")
    found = json.loads(done.stdout)
    assert found["unknown"] == HISTORY[2:]
    assert [set(film) for film in found["recommendations"]] == [{"rank", "item", "title", "genres", "score"}] * 5
    assert [film["rank"] for film in found["recommendations"]] == [1, 2, 3, 4, 5]
    assert not {"Toy Story (1995)", "Finding Nemo (2003)"} & {film["title"] for film in found["recommendations"]}
    assert "is newer than this release" in done.stderr and "closest" in done.stderr


def test_recommend_prints_a_table_with_ids(trained, capsys):
    main(["recommend", str(trained), "--history", "Toy Story", "-k", "2"])
    head, first, second = capsys.readouterr().out.strip().splitlines()
    assert head.split() == ["rank", "item", "title", "genres", "score"]
    main(["recommend", str(trained), "--history", "id:1", "-k", "2"])  # which is Toy Story
    assert capsys.readouterr().out.strip().splitlines() == [head, first, second]
    main(["recommend", str(trained), "--history", f"id:{second.split()[1]}", "-k", "2", "--json"])
    assert json.loads(capsys.readouterr().out)["unknown"] == []


def test_many_unknown_titles_are_one_line(trained, capsys):
    main(["recommend", str(trained), "--history", "Toy Story", *(f"No Film {number}" for number in range(1038))])
    assert capsys.readouterr().err == (
        "1,038 of 1,039 titles are unknown: 'No Film 0', 'No Film 1', 'No Film 2' ... and 1,035 more\n"
    )


def test_a_list_of_nothing_is_a_sentence(own_log, capsys):
    everything = [f"Volume {number}" for number in range(1, SHELF + 1)]
    main(["recommend", str(own_log / "runs" / "books-tiny"), "--history", *everything])
    assert capsys.readouterr().out == f"nothing is left to recommend of the {SHELF} items that the model knows\n"


def test_a_model_of_an_unfinished_run_says_so(dataset, tmp_path, capsys):
    def interrupt(trainer):
        raise KeyboardInterrupt

    settings = get_preset("tiny")
    with pytest.raises(KeyboardInterrupt):
        fit(new_model(dataset, settings), dataset, settings, folder=tmp_path, on_epoch=interrupt)
    capsys.readouterr()
    main(["evaluate", str(tmp_path), "--protocols", "full"])
    scorer = "modern-both (start: counts, seed 0), UNFINISHED: after epoch 1, network alone"
    assert f"scorer: {scorer}\n" in capsys.readouterr().out
    main(["evaluate", str(tmp_path), "--protocols", "full", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert (answer["scorer"], answer["finished"]) == (scorer, False)
    main(["recommend", str(tmp_path), "--history", "Toy Story", "--json"])
    assert json.loads(capsys.readouterr().out)["scorer"] == scorer
    for command in (["evaluate", tmp_path], ["recommend", tmp_path, "--history", "Toy Story"]):
        assert "run is not finished; resume it" in error_of(*command, "--with-linear")
    done = run("recommend", tmp_path, "--history", "Toy Story")
    assert done.returncode == 0 and done.stderr.count("\n") == 1
    assert "is not finished: this is its best epoch of 1 so far" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such pipes")
def test_a_reader_who_has_seen_enough_is_no_error():
    """As `| head -1`: here it has gone before the first line."""
    reader, writer = os.pipe()
    os.close(reader)
    ranks = PROJECT / "results" / "ranks" / "baselines-small.npz"
    command = [sys.executable, "-m", "bertrec_utils", "compare", f"{ranks}:ease", f"{ranks}:linear"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_errors_are_one_line_and_status_one():
    done = run("evaluate", "no-such-folder")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: no-such-folder holds no trained model")
    assert error_of("download", "ml-2m").startswith("error: there is no release 'ml-2m'")


def test_the_cpu_can_be_chosen_everywhere(trained, tmp_path, capsys):
    main(["train", "--preset", "tiny", "--set", "epochs=1", "--out", str(tmp_path), "--device", "cpu"])
    assert "Training on cpu " in capsys.readouterr().out
    main(["evaluate", str(trained), "--device", "cpu", "--protocols", "full"])
    main(["recommend", str(trained), "--device", "cpu", "--history", "Toy Story"])
    assert load(trained, "cpu").model.device == torch.device("cpu")


@pytest.mark.parametrize("command", ["train", "evaluate", "recommend"])
def test_a_device_that_is_not_there_is_explained(command, trained):
    missing = "mps" if torch.cuda.is_available() else "cuda"
    arguments = {"train": [], "evaluate": [trained], "recommend": [trained, "--history", "Toy Story"]}[command]
    message = error_of(command, *arguments, "--device", missing)
    assert message == f"error: PyTorch finds no {missing} device here; leave --device out, or say --device cpu"


def test_history_of_unknown_titles_is_an_error(trained, capsys):
    assert "give at least one film" in error_of("recommend", trained, "--history", "No Such Film")
    assert not capsys.readouterr().out


def test_impossible_seed_is_explained():
    done = run("train", "--seed", "-1")
    assert done.returncode == 2 and "a seed is a whole number from 0" in done.stderr


def test_wrong_preset_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--preset", "huge"])
    assert stopped.value.code == 2 and "ml-25m" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "how"),
    [
        (["--as-set"], {"as_set": True}),
        (["--popularity-penalty", "0.5"], {"popularity_penalty": 0.5}),
        (["--exclude-series"], {"exclude_series": True}),
    ],
)
def test_ways_to_recommend(trained, dataset, capsys, options, how):
    recommender = Recommender(load(trained).model, dataset.vocabulary, dataset.items)
    main(["recommend", str(trained), "--history", "Toy Story", "Finding Nemo", "--json", *options])
    titles = [film["title"] for film in json.loads(capsys.readouterr().out)["recommendations"]]
    assert titles == recommender.recommend(["Toy Story", "Finding Nemo"], **how).title.tolist()


def start(*arguments, folder):
    """A process that hears Ctrl-C, as one does that a terminal has started."""
    hear = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    command = [sys.executable, "-m", "bertrec_utils", *map(str, arguments)]
    with (folder / "errors.txt").open("w") as errors:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, cwd=folder, **hear)


def stop(process, sign, folder, is_time):
    """Send a signal as soon as it is time; what the process has said on stderr."""
    try:
        while not is_time():
            assert process.poll() is None, (folder / "errors.txt").read_text()
            time.sleep(0.005)
        process.send_signal(sign)
        assert process.wait(120) == 1
    finally:
        process.kill()
        process.wait()
    return (folder / "errors.txt").read_text()


SIGNALS = pytest.mark.parametrize(
    ("sign", "message"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "error: told to stop (SIGTERM); the same")]
)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc to see which file a process reads")
@SIGNALS
def test_a_process_that_is_stopped_while_it_reads_says_one_line(sign, message, tmp_path):
    random, size = np.random.default_rng(0), 500_000
    columns = random.integers(5_000, size=size), random.integers(20_000, size=size), random.integers(10**9, size=size)
    np.savetxt(tmp_path / "big.csv", np.stack(columns, 1), "%d", ",", header="user,item,timestamp", comments="")
    process = start("train", "--ratings", "big.csv", "--set", "min_item_ratings=1", folder=tmp_path)

    def is_reading():
        files = Path(f"/proc/{process.pid}/fd")
        with contextlib.suppress(FileNotFoundError):  # it may close one meanwhile
            return any(os.readlink(file) == str(tmp_path / "big.csv") for file in files.iterdir())
        return False

    said = stop(process, sign, tmp_path, is_reading)
    assert said.startswith(message) and said.count("\n") == 1
    assert not (tmp_path / "runs").exists()


WHILE_A_BAR_IS_MADE = """
import os, sys, tqdm.std
from bertrec_utils.__main__ import main
sign = int(sys.argv.pop())
tqdm.std.tqdm.__init__ = lambda *_, **options: os.kill(os.getpid(), sign)
tqdm.std.tqdm.__del__ = lambda bar: bar.disable  # as older versions have it
main()
"""


@SIGNALS
def test_what_a_signal_finds_half_made_is_not_heard(sign, message, tmp_path):
    arguments = ["train", "--preset", "tiny", "--out", "run", str(int(sign))]
    hear = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    ended = subprocess.run(
        [sys.executable, "-c", WHILE_A_BAR_IS_MADE, *arguments], cwd=tmp_path, capture_output=True, text=True, **hear
    )
    assert ended.returncode == 1 and ended.stderr.startswith(message) and ended.stderr.count("\n") == 1


def test_a_command_that_keeps_nothing_does_not_promise_to_go_on(trained, tmp_path):
    command = [sys.executable, "-c", WHILE_A_BAR_IS_MADE, "evaluate", str(trained), str(int(signal.SIGTERM))]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (1, "error: told to stop (SIGTERM)\n")


@SIGNALS
def test_a_training_that_is_stopped_says_one_line(sign, message, tmp_path):
    options = ["--preset", "tiny", "--out", "run", "--set", "epochs=500"]
    process = start("train", *options, folder=tmp_path)
    said = stop(process, sign, tmp_path, lambda: "epoch 2/500" in (tmp_path / "errors.txt").read_text())
    *epochs, last = said.splitlines()
    assert last.startswith(message) and all(line.startswith("epoch ") for line in epochs)
    assert len(load(tmp_path / "run").history) >= 1
