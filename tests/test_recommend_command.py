"""`recommend` for the users of a log, as it is today: lists for everybody, logs that have grown, filters."""

import csv
import json
import os
import re
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_main import error_of

from bertrec_utils.__main__ import main
from bertrec_utils.commands.recommend import look_up_filter, write_lists
from bertrec_utils.common import PROJECT
from bertrec_utils.data.dataset import build_dataset
from bertrec_utils.data.logs import from_frame
from bertrec_utils.scenarios.recommender import Recommender
from bertrec_utils.settings import get_preset
from bertrec_utils.training.checkpoints import load
from bertrec_utils.training.trainer import fit, new_model

CASE = Path(__file__).parent / "cases" / "log-grows" / "log.csv"
USERS = 81  # of that log
NEW_ROWS = ["u12,p28,1700000000", "u12,p27,1700000010", "u12,brand-new,1700000020", "visitor,p3,1700000030"]
NEW_ROWS += ["stranger,brand-new,1700000040"]


@pytest.fixture(scope="module")
def trained_on_log(tmp_path_factory):
    home = tmp_path_factory.mktemp("grows")
    shutil.copy(CASE, home)
    main(["train", "--preset", "tiny", "--ratings", str(home / "log.csv"), "--out", str(home / "model")])
    return home


@pytest.fixture
def home(trained_on_log, tmp_path, monkeypatch, capsys):
    """A folder with a log that has not grown yet, and the model that was trained on it."""
    monkeypatch.chdir(shutil.copytree(trained_on_log, tmp_path / "home"))
    capsys.readouterr()
    return Path.cwd()


def grow(log="log.csv", rows=NEW_ROWS):
    with open(log, "a") as file:
        file.write("".join(f"{row}\n" for row in rows))


def histories_by_hand(known):
    """user -> the items of the file that are `known`, each once, in order of time, equal times as they come."""
    rows = list(csv.DictReader(Path("log.csv").read_text().splitlines()))
    found = defaultdict(dict)
    for row in sorted(rows, key=lambda row: int(row["timestamp"])):
        if row["item"] in known:
            found[row["user"]].setdefault(row["item"])
    return {user: list(items) for user, items in found.items()}


def answer(capsys, *arguments):
    """What `recommend` says as JSON, and on stderr."""
    capsys.readouterr()
    main(["recommend", "model", "--json", *arguments])
    said = capsys.readouterr()
    return json.loads(said.out)["recommendations"], said.err


def lists_of(table):
    return {str(user): rows.item.tolist() for user, rows in table.groupby("user", sort=False)}


def read_lists(path):
    """A .csv or .parquet of lists, with all ids as texts."""
    if path.endswith(".csv"):
        types = {"user": str, "item": str, "title": str, "score": "float32"}
        return pd.read_csv(path, dtype=types, keep_default_na=False)
    return pd.read_parquet(path).astype({"user": str, "item": str})


def test_a_user_of_a_log_that_has_grown(home, capsys):
    before, said = answer(capsys, "--user", "u12")
    assert not said
    grow()
    after, said = answer(capsys, "--user", "u12")
    assert said.splitlines() == [
        "rows of the log: 712; when the model was trained: 707",
        "rows with an item that the model does not know (skipped; items: 1): 2",
        "users without an item that the model knows (left out): 1",
    ]
    by_hand = histories_by_hand(load("model").vocabulary)["u12"]
    assert len(by_hand) == 8 and by_hand[-2:] == ["p28", "p27"]
    typed, said = answer(capsys, "--history", *by_hand)
    assert not said  # a history needs no log
    assert after == typed and [row["item"] for row in after] != [row["item"] for row in before]
    main(["recommend", "model", "--user", "u12", "-k", "1"])
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["1", after[0]["item"]]


@pytest.mark.parametrize(
    "options", [{}, {"as_set": True}, {"popularity_penalty": 0.5}, {"allow_seen": True}], ids=lambda each: "".join(each)
)
def test_lists_for_everybody(home, capsys, options):
    """As recommending to one after the other, from histories that were put together by hand."""
    grow()
    flags = [f"--{name.replace('_', '-')}" for name in options] + [
        str(value) for value in options.values() if value < 1
    ]
    main(["recommend", "model", "--all", "--out", "lists.csv", "-k", "5", *flags])
    assert capsys.readouterr().out == f"lists.csv: {5 * (USERS + 1)} rows, the lists of {USERS + 1} users\n"
    table, checkpoint = read_lists("lists.csv"), load("model")
    assert list(table) == ["user", "rank", "item", "title", "score"]
    recommender = Recommender(checkpoint.model, checkpoint.vocabulary, checkpoint.load_items())
    by_hand = histories_by_hand(checkpoint.vocabulary)
    assert by_hand["visitor"] == ["p3"] and set(table.user) == set(by_hand)
    for user in ("u12", "visitor", "newuser", "u3", "u77"):
        rows, expected = table[table.user == user], recommender.recommend_items(by_hand[user], 5, **options)
        assert rows.item.tolist() == expected.item.tolist() and rows["rank"].tolist() == [1, 2, 3, 4, 5]
        np.testing.assert_allclose(rows.score, expected.score, rtol=1e-4, atol=1e-5)


def test_lists_for_everybody_are_no_test(home, capsys):
    """They come from whole histories, the test item among them, so none of them holds it; those of the test may."""
    main(["recommend", "model", "--all", "--out", "lists.csv"])
    main(["evaluate", "model", "--run", "run.txt"])
    capsys.readouterr()
    problem = "no list holds its user's test item; they may come from histories that include it"
    main(["compare", "lists.csv", "model"])
    assert f"lists.csv: {problem} (evaluate --run makes lists that do not)\n" in capsys.readouterr().out
    main(["compare", "run.txt", "model"])
    assert problem not in capsys.readouterr().out


def test_parquet_and_csv_hold_the_same(home):
    pytest.importorskip("pyarrow")
    for name in ("lists.csv", "lists.parquet"):
        main(["recommend", "model", "--all", "--out", name])
    found = read_lists("lists.csv")
    pd.testing.assert_frame_equal(read_lists("lists.parquet"), found, check_dtype=False)
    assert len(found) == 10 * USERS


def test_some_users_in_the_order_of_their_file(home, capsys):
    Path("users.txt").write_bytes("\ufeffu5\r\nnobody\r\n\r\n u3 \r\nu5\r\n".encode())
    main(["recommend", "model", "--users", "users.txt", "--out", "some.csv"])
    said = capsys.readouterr().err
    assert said == ("1 of 3 users are not in the log, or without an item that the model knows (left out): 'nobody'\n")
    assert read_lists("some.csv").user.tolist() == ["u5"] * 10 + ["u3"] * 10
    expected = answer(capsys, "--user", "u3")[0]
    assert lists_of(read_lists("some.csv"))["u3"] == [row["item"] for row in expected]
    Path("users.txt").write_text("nobody\n\n")
    for whose in (["--users", "users.txt", "--out", "none.csv"], ["--user", "nobody"]):
        message = error_of("recommend", "model", *whose)
        assert "1 of 1 users are not in the log" in message and "give ids of the log, such as 'newuser'" in message
    assert not Path("none.csv").exists()


def test_items_without_genres_have_no_column_for_them(home, capsys):
    main(["recommend", "model", "--history", "p3"])
    assert capsys.readouterr().out.splitlines()[0].split() == ["rank", "item", "title", "score"]


def test_what_was_trained_on_can_be_asked_for(home):
    """By --strict; and a linear baseline of other rows would be another one."""
    main(["recommend", "model", "--user", "u12", "--strict", "--with-linear"])
    grow()
    for options in (
        ["--strict", "--user", "u12"],
        ["--with-linear", "--all", "--out", "x.csv"],
        ["--strict", "--history", "p3"],
    ):
        message = error_of("recommend", "model", *options)
        assert message.startswith("error: the model was trained on other ")
        assert message.endswith("or train again on this (--continue)")
    assert "or train again on this" in error_of("evaluate", "model")
    assert not Path("x.csv").exists()


def test_the_linear_baseline_in_lists_for_everybody(home):
    main(["recommend", "model", "--all", "--out", "lists.csv", "--with-linear"])
    checkpoint = load("model")
    dataset = checkpoint.load_dataset()
    recommender = Recommender(checkpoint.with_linear(dataset), checkpoint.vocabulary, dataset.items)
    expected = recommender.recommend_items(histories_by_hand(checkpoint.vocabulary)["u7"])
    assert lists_of(read_lists("lists.csv"))["u7"] == expected.item.tolist()


def test_a_log_elsewhere_with_ids_that_have_become_texts(tmp_path, monkeypatch, capsys):
    """The ids of the log were numbers; then came an item and a user whose ids are none. And there are titles now."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{reader},{(reader + day) % 12},{day}" for reader in range(20) for day in range(6)]
    Path("log.csv").write_text("user,item,timestamp\n" + "\n".join(rows) + "\n")
    main(["train", "--preset", "tiny", "--ratings", "log.csv", "--out", "model", "--set", "epochs=1"])
    assert load("model").vocabulary.items.dtype == "int64"
    before, _ = answer(capsys, "--user", "3")
    Path("log.csv").rename("today.csv")
    grow("today.csv", ["X7,A1,9", "X7,4,10"])
    Path("titles.csv").write_text("item,title\n" + "".join(f"{number},Volume {number}\n" for number in range(12)))
    assert answer(capsys, "--history", "id:3")[0]  # needs no log
    assert "there is no file" in error_of("recommend", "model", "--user", "3")
    log = ["--ratings", "today.csv", "--items", "titles.csv"]
    after, said = answer(capsys, "--user", "3", *log)
    assert [(row["item"], row["score"]) for row in after] == [(row["item"], row["score"]) for row in before]
    assert [row["title"] for row in after] == [f"Volume {row['item']}" for row in after]
    assert "rows of the log: 122; when the model was trained: 120" in said
    assert answer(capsys, "--user", "X7", *log)[0] == answer(capsys, "--history", "Volume 4", *log)[0]


def test_filters(home, capsys, caplog):
    Path("stock.txt").write_text("p3\nid:p4\n- p20\nno such item\n")
    listed, said = answer(capsys, "--user", "u12", "--only", "stock.txt")
    has = histories_by_hand(load("model").vocabulary)["u12"]
    assert {row["item"] for row in listed} == {"p3", "p4", "p20"} - set(has)
    assert said == "'no such item' is not a title here\n"
    assert not caplog.messages  # such as that the file has no dates
    whole, _ = answer(capsys, "--user", "u12", "-k", "99")
    rest, _ = answer(capsys, "--user", "u12", "-k", "99", "--without", "stock.txt")
    scores = {row["item"]: row["score"] for row in whole}
    assert {row["item"]: row["score"] for row in listed + rest} == scores and not set(scores) & set(has)
    assert len(listed) + len(rest) == len(scores)
    seen, _ = answer(capsys, "--user", "u12", "-k", "99", "--allow-seen")
    assert {row["item"] for row in seen} - set(scores) == set(has)

    main(["recommend", "model", "--all", "--out", "lists.csv", "--only", "stock.txt"])
    table = read_lists("lists.csv")
    assert set(table.item) == {"p3", "p4", "p20"} and table.groupby("user").size().max() <= 3
    Path("stock.txt").write_text("\n".join(has))
    capsys.readouterr()
    main(["recommend", "model", "--user", "u12", "--only", "stock.txt"])
    known = len(load("model").vocabulary)
    assert capsys.readouterr().out == (
        f"nothing is left to recommend of the {known} items that the model knows; "
        "see --only, --without and --exclude-series\n"
    )
    Path("users.txt").write_text("u12\nu3\n")
    main(["recommend", "model", "--users", "users.txt", "--out", "lists.csv", "--only", "stock.txt"])
    said = capsys.readouterr().out
    assert said.endswith(" rows, the lists of 1 users of 2; nothing is left to recommend to the others\n")
    assert set(read_lists("lists.csv").user) == {"u3"}


@pytest.mark.parametrize("name", ["none.csv", "none.parquet"])
def test_lists_of_nothing_have_their_columns(home, name, capsys):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    Path("stock.txt").write_text("p3\n")
    main(["recommend", "model", "--all", "--out", name, "--only", "stock.txt", "--without", "stock.txt"])
    assert capsys.readouterr().out.startswith(f"{name}: 0 rows, the lists of 0 users of {USERS}; nothing is left")
    table = pd.read_csv(name) if name.endswith("csv") else pd.read_parquet(name)
    assert table.empty and list(table) == ["user", "rank", "item", "title", "score"]


@pytest.mark.parametrize("name", ["lists.csv", "lists.parquet"])
def test_lists_are_written_wholly_or_not_at_all(tmp_path, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    part = pd.DataFrame({"user": [1], "rank": [1], "item": ["a"], "title": ["A"], "score": np.float32([0.5])})

    def failing():
        yield part
        assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        write_lists(tmp_path / name, failing(), 2)
    assert not list(tmp_path.iterdir())
    write_lists(tmp_path / name, iter([part, part.assign(user=2)]), 2)
    assert read_lists(str(tmp_path / name)).user.tolist() == ["1", "2"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_lists_go_through_a_pipe(tmp_path):
    part = pd.DataFrame({"user": [1], "rank": [1], "item": ["a"]})
    os.mkfifo(pipe := tmp_path / "lists.csv")
    reader = os.open(pipe, os.O_RDWR)
    write_lists(pipe, iter([part, part.assign(user=2)]), 2)
    assert pipe.is_fifo() and os.read(reader, 100) == b"user,rank,item\n1,1,a\n2,1,a\n"
    os.close(reader)


def test_what_cannot_be_written_is_said_before_the_work(home, monkeypatch, capsys):
    everybody = ["recommend", "no-model", "--all"]
    for options in ([], ["--out", "lists.txt"], ["--out", "lists.csv", "--json"]):
        assert "--all and --users write a file, --out FILE.csv or FILE.parquet" in error_of(*everybody, *options)
    for out in ("no-folder/lists.csv", "model.csv"):
        Path("model.csv").mkdir(exist_ok=True)
        assert f"--out {out} is not written; name a file in a folder that is there" in error_of(
            *everybody, "--out", out
        )
    assert "a single list is printed" in error_of("recommend", "model", "--user", "u12", "--out", "x.csv")
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    assert "pip install 'bertrec-utils[parquet]', or write a .csv" in error_of(*everybody, "--out", "lists.parquet")
    for whose in ([], ["--all", "--user", "u12"], ["--history", "p3", "--all"]):
        with pytest.raises(SystemExit) as stopped:
            main(["recommend", "model", *whose])
        assert stopped.value.code == 2
    assert "one of the arguments --history --user --users --all is required" in capsys.readouterr().err


def test_lists_do_not_overwrite_what_they_are_made_from(home):
    Path("users.csv").write_text("u12\n")
    Path("stock.csv").write_text("p3\n")
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    filters = ["--users", "users.csv", "--only", "stock.csv"]
    for out, what in (
        ("log.csv", "the log"),
        ("model/../log.csv", "the log"),
        ("model/items.csv", "a file of the model"),
        ("users.csv", "the file of --users"),
        ("stock.csv", "the file of --only"),
    ):
        message = error_of("recommend", "model", *filters, "--out", out)
        assert message == f"error: --out {out} is {what}; name another file"
    message = error_of("recommend", "model", "--all", "--without", "stock.csv", "--out", "stock.csv")
    assert message == "error: --out stock.csv is the file of --without; name another file"
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


def test_the_code_of_the_documentation_makes_lists_for_everybody(home):
    text = (PROJECT / "docs" / "every_day.md").read_text(encoding="utf-8").replace("runs/log-small", "model")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    names: dict = {"frame": pd.read_csv("log.csv")}
    exec(code, names)
    lists = names["table"]
    assert lists.user.nunique() == len(names["histories"]) > 10 and lists["rank"].max() == 10
    main(["recommend", "model", "--all", "--out", "lists.csv"])
    assert pd.read_csv("lists.csv")[["user", "item"]].equals(lists[["user", "item"]])


def test_a_model_of_a_frame_needs_a_log(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [(reader, (reader + day) % 12, day) for reader in range(20) for day in range(6)]
    frame = pd.DataFrame(rows, columns=["user", "item", "timestamp"])
    dataset, settings = build_dataset(from_frame(frame)), get_preset("tiny").change(max_users=None, epochs=1)
    fit(new_model(dataset, settings), dataset, settings, folder="model", verbose=False)
    message = error_of("recommend", "model", "--all", "--out", "lists.csv")
    assert "trained on a data frame, which is not kept; give its rows with --ratings FILE" in message
    assert not Path("lists.csv").exists()
    frame.to_csv("log.csv", index=False)
    main(["recommend", "model", "--all", "--ratings", "log.csv", "--out", "lists.csv"])
    assert len(read_lists("lists.csv")) == 20 * 6


def test_lists_for_the_users_of_a_release(dataset, tmp_path, monkeypatch, capsys):
    """Those that the preset keeps, with the histories of the training: ties in time are in the same order."""
    monkeypatch.chdir(tmp_path)
    main(["train", "--preset", "tiny", "--out", "model", "--set", "epochs=1"])
    histories, notes = load("model").load_histories()
    is_long = np.isin(histories.users, dataset.sequences.users)
    assert (histories.lengths[~is_long] < 3).all() and (histories.lengths > 0).all() and (~is_long).sum() == 6
    trained_on = histories.rows(np.flatnonzero(is_long))
    np.testing.assert_array_equal(trained_on.users, dataset.sequences.users)
    np.testing.assert_array_equal(trained_on.tokens, dataset.sequences.tokens)
    np.testing.assert_array_equal(trained_on.offsets, dataset.sequences.offsets)
    assert notes[-1] == "users without an item that the model knows (left out): 2"  # of the preset's 120
    main(["recommend", "model", "--all", "--out", "lists.csv", "-k", "3"])
    table = read_lists("lists.csv")
    assert list(lists_of(table)) == [str(user) for user in histories.users] and len(table) == 3 * 118


def test_lists_after_a_split_in_time(tmp_path, monkeypatch):
    """What came after the cut is in the histories, too: reader 0's ninth item, for instance, and all of reader 12's."""
    monkeypatch.chdir(tmp_path)
    early = [f"{reader},{(reader + day) % 10},{day}" for reader in range(12) for day in range(8)]
    late = [f"{reader},{(reader + 8) % 10},10" for reader in (0, 1, 2)] + ["12,5,10", "12,new,11", "12,6,12"]
    Path("log.csv").write_text("user,item,timestamp\n" + "\n".join(early + late) + "\n")
    main(
        ["train", "--preset", "tiny", "--ratings", "log.csv", "--out", "model", "--set", "time_split=0.92", "epochs=1"]
    )
    histories, notes = load("model").load_histories()
    items = load("model").vocabulary.item_ids(histories.tokens)
    items = dict(zip(histories.users.tolist(), map(list, np.split(items, histories.offsets[1:-1])), strict=True))
    assert items[0] == [str(number) for number in range(9)] and items[12] == ["5", "6"]
    assert notes == ["rows with an item that the model does not know (skipped; items: 1): 1"]
    main(["recommend", "model", "--all", "--out", "lists.csv"])
    assert lists_of(read_lists("lists.csv"))["0"] == ["9"]


def test_a_model_that_keeps_repeats_reads_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"{reader},{(reader + day % 4) % 12},{day}" for reader in range(24) for day in range(8)]
    Path("log.csv").write_text("user,item,timestamp\n" + "\n".join(rows) + "\n")
    lengths = {}
    for repeats in ("first", "keep"):
        options = ["--out", repeats, "--repeats", repeats, "--set", "epochs=1"]
        main(["train", "--preset", "tiny", "--ratings", "log.csv", *options])
        lengths[repeats] = load(repeats).load_histories()[0].lengths.tolist()
    assert lengths == {"first": [4] * 24, "keep": [8] * 24}


@pytest.fixture(scope="module")
def trained_on_numbers(tmp_path_factory):
    """A shop's model: its ids are numbers, its items have titles, and 1041 is too rare to be known."""
    home = tmp_path_factory.mktemp("numbers")
    rows = [f"{user},{1000 + (7 * user + 3 * day) % 40},{day}" for user in range(60) for day in range(10)]
    titles = [f"{1000 + number},Thing number {chr(65 + number // 26)}{chr(65 + number % 26)}" for number in range(42)]
    (home / "log.csv").write_text("user,item,timestamp\n" + "\n".join([*rows, "0,1041,20"]) + "\n")
    (home / "titles.csv").write_text("item,title\n" + "\n".join(titles) + "\n")
    log = ["--ratings", str(home / "log.csv"), "--items", str(home / "titles.csv")]
    main(["train", "--preset", "tiny", *log, "--out", str(home / "model"), "--set", "epochs=1"])
    return home


@pytest.fixture
def shop(trained_on_numbers, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(shutil.copytree(trained_on_numbers, tmp_path / "shop"))
    capsys.readouterr()
    return Path.cwd()


@pytest.mark.parametrize("option", ["--only", "--without"])
def test_a_filter_of_which_nothing_is_found_keeps_the_lists_of_yesterday(shop, option, capsys):
    Path("lists.csv").write_text("of yesterday")
    Path("ids.txt").write_text("".join(f"{item}\n" for item in range(1000, 1030)))
    everybody = ["recommend", "model", "--all", "--out", "lists.csv"]
    message = error_of(*everybody, option, "ids.txt")
    assert message == (
        "error: ids.txt: the model knows none of '1000', '1001', '1002' ...; "
        "name items by title, or as id:1000, one a line"
    )
    assert "30 of them are ids: write id:1000 and so on" in capsys.readouterr().err
    assert Path("lists.csv").read_text() == "of yesterday"
    Path("ids.txt").write_text("".join(f"id:{item}\n" for item in range(1000, 1030)))
    main([*everybody, option, "ids.txt"])
    listed = set(read_lists("lists.csv").item.astype(int))
    assert listed and listed <= set(range(1000, 1030) if option == "--only" else range(1030, 1040))


def test_nothing_may_be_sold_out_but_not_all(shop, capsys):
    everything, _ = answer(capsys, "--user", "0", "-k", "99")
    # the last two are too rare to be recommended, and newer than the model
    for sold_out in ("", "# sold out today:\n", "Thing number BP\n", "id:2001\n"):
        Path("list.txt").write_text(sold_out)
        assert answer(capsys, "--user", "0", "-k", "99", "--without", "list.txt")[0] == everything
    Path("list.txt").write_text("")
    assert "list.txt names nothing: no item is left out\n" in answer(capsys, "--user", "0", "--without", "list.txt")[1]
    assert error_of("recommend", "model", "--user", "0", "--only", "list.txt") == (
        "error: list.txt holds no titles; write a title or id:2707 a line"
    )
    for unknown in ("Thing number BP", "id:2001"):
        Path("list.txt").write_text(unknown)
        message = error_of("recommend", "model", "--user", "0", "--only", "list.txt")
        assert f"the model knows none of {unknown!r}" in message


LOG_WITH_TITLES = ["--ratings", "log.csv", "--items", "shelf.csv"]


def only_and_without(capsys, text, name="list.txt", titles=()):
    """The items that --only keeps and --without leaves out, which are the same, and what both say. The first of the
    shop's things have these `titles`."""
    titles = [*titles, *(f"Other {number}" for number in range(len(titles), 42))]
    rows = [f'{1000 + number},"{title}"\n' for number, title in enumerate(titles)]
    Path("shelf.csv").write_text("item,title\n" + "".join(rows))
    Path(name).write_text(text)
    everything = ("--history", "id:1000", "-k", "99", "--allow-seen", *LOG_WITH_TITLES)
    kept, said = answer(capsys, *everything, "--only", name)
    rest, also_said = answer(capsys, *everything, "--without", name)
    kept, rest = ({row["item"] for row in table} for table in (kept, rest))
    assert kept | rest == set(range(1000, 1040)) and not kept & rest
    assert said == also_said
    return kept, said.splitlines()


def test_a_filter_of_an_own_log_names_items_by_their_very_titles(shop, capsys):
    titles = ["Shirt 3 (red)", "Screw (1000)", "The Cup", "Paranormal Activity (2009)"]
    text = "Shirt 99 (red)\nScrew (1001)\nCup\nScrew (9999)\n  shirt 3 (RED) \nid:1001\n"
    kept, notes = only_and_without(capsys, text, titles=titles)
    assert kept == {1000, 1001}
    assert [note.split(" is ")[0] for note in notes] == [
        "'Shirt 99 (red)'",
        "'Screw (1001)'",
        "'Cup'",
        "'Screw (9999)'",
    ]
    assert notes[1] == "'Screw (1001)' is not a title here; closest: Screw (1000)"
    text = "Paranormal Activity (2007)\nThe Cup\n"  # a film's other name
    assert only_and_without(capsys, text, titles=titles)[0] == {1002}


def test_a_filter_takes_all_items_of_a_title(shop, capsys):
    titles = ["Mug", "MUG", "Mug", "Cup", "Cup"]
    kept, notes = only_and_without(capsys, "Mug\ncup\n", titles=titles)
    assert kept == {1000, 1002, 1003, 1004}
    assert notes == [f"{title!r} is the title of 2 items: all are taken" for title in ("Mug", "cup")]
    kept, notes = only_and_without(
        capsys, "".join(f"Cup {n // 2}\n" for n in range(12)), titles=[f"Cup {n // 2}" for n in range(12)]
    )
    assert kept == set(range(1000, 1012)) and len(notes) == 1
    assert notes[0].startswith("6 titles are of several items each, all taken: 'Cup 0' is the title of 2 items")


def test_a_title_of_items_that_are_all_too_rare_may_be_sold_out(shop):
    checkpoint = load("model")
    rare = pd.DataFrame({"item": [2001, 2002], "title": "Mug", "genres": "", "ratings": 1})
    items = pd.concat([checkpoint.load_items(), rare], ignore_index=True)
    recommender = Recommender(checkpoint.model, checkpoint.vocabulary, items, "item")
    Path("list.txt").write_text("Mug\n")
    assert look_up_filter(recommender, Path("list.txt"), leaves_out=True, exact=True) == []
    with pytest.raises(LookupError, match="knows none of 'Mug'"):
        look_up_filter(recommender, Path("list.txt"), leaves_out=False, exact=True)


def test_a_line_of_a_filter_that_is_a_title_is_taken_whole(shop, capsys):
    titles = ["Sinn", "7. Sinn", "# 1 Dad mug", "- Dash", "Cup"]
    assert only_and_without(capsys, "7. sinn\n# 1 Dad mug\n- Dash\n# cups:\n- Cup\n", titles=titles) == (
        {1001, 1002, 1003, 1004},
        [],
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("title\nNaruto: Volume 2: Fox\nDune\n", {1000, 1001}),
        ("title,year\nDune,1965\nEmma,1815\n", {1001, 1003}),  # a title need not have its year
        ("title,type\nDune,Episode\n", {1001}),
    ],
)
def test_a_table_as_filter_of_an_own_log_has_no_episodes(shop, capsys, caplog, text, expected):
    titles = ["Naruto: Volume 2: Fox", "Dune", "Emma", "Emma (1815)"]
    assert only_and_without(capsys, text, "list.csv", titles) == (expected, []) and not caplog.messages


def test_a_history_of_an_own_log_says_what_is_taken_for_what(shop, capsys):
    Path("shelf.csv").write_text("item,title\n1000,Shirt 3 (red)\n1001,Cup\n")
    _, said = answer(capsys, *LOG_WITH_TITLES, "--history", "shirt 99 (red)", "cup ", "id:1001", "1002")
    taken = [line for line in said.splitlines() if "taken" in line]
    assert taken == ["'shirt 99 (red)' taken for 'Shirt 3 (red)' (id:1000)"]


def test_a_filter_of_films_forgives_and_says_so(tmp_path, capsys, caplog):
    asked = ["recommend", str(PROJECT / "pretrained" / "small"), "--json", "--history", "Toy Story (1995)"]
    path = tmp_path / "list.txt"

    def said_of(text):
        path.write_text(text)
        main([*asked, "--only", str(path)])
        said = capsys.readouterr()
        return {row["title"] for row in json.loads(said.out)["recommendations"]}, said.err.splitlines()

    kept, said = said_of("The Matrix (1998)\nAlien (1979)\nheat (1995)\nid:1\n")
    assert kept == {"Matrix, The (1999)", "Alien (1979)", "Heat (1995)"}
    assert said == ["'The Matrix (1998)' taken for 'Matrix, The (1999)' (id:2571)"]
    kept, said = said_of("Alien\nHeat\nThe Matrix\nInception\nUp\nFargo\n")
    assert len(kept) == 6 and len(said) == 1
    assert said[0].startswith("6 titles are not as written: 'Alien' taken for 'Alien (1979)' (id:1214), 'Heat' taken")
    path = tmp_path / "netflix.csv"
    kept, said = said_of('Title,Date\nHeat (1995),1/3/20\n"Lost: Season 1: Pilot",1/2/20\n')
    assert kept == {"Heat (1995)"} and not said
    assert caplog.messages == [f"{path}: titles that are taken for episodes of series (left out): 1"]


def test_an_item_named_twice_counts_once_unless_people_come_back(shop, capsys):
    once, _ = answer(capsys, "--history", "id:1001", "id:1002")
    twice, _ = answer(capsys, "--history", "id:1001", "id:1002", "id: 1001")
    assert twice == once


def test_a_history_of_ids_is_told_how_to_write_them(shop):
    message = error_of("recommend", "model", "--history", "1001", "1002")
    assert message.endswith("give at least one item the model knows; to name an item by its id, write id:1001")


def test_a_file_without_users_is_named(home):
    (home / "users.txt").write_text("\n \n")
    message = error_of("recommend", home / "model", "--users", home / "users.txt", "--out", home / "lists.csv")
    assert message == f"error: {home / 'users.txt'} names no user; write one id a line"
