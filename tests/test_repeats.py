"""Logs in which people come back to items."""

import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bertrec_utils.__main__ import main
from bertrec_utils.data import dataset as module
from bertrec_utils.data.dataset import build_dataset, build_sequences, load_dataset
from bertrec_utils.data.logs import from_frame
from bertrec_utils.data.splits import split_in_time
from bertrec_utils.evaluation.baselines import MarkovChain, MostRepeated, Popularity, default_baselines
from bertrec_utils.evaluation.lists import beyond_accuracy, run_ranks, top_k, write_run
from bertrec_utils.evaluation.mixture import ndcg_by_weight
from bertrec_utils.evaluation.ranking import TooFewItems, metrics, target_ranks
from bertrec_utils.settings import DataSettings, get_preset
from bertrec_utils.training.checkpoints import load
from bertrec_utils.training.initial_weights import cooccurrence
from bertrec_utils.training.trainer import fit, new_model
from conftest import rows

WIKI = Path(__file__).parent / "cases" / "repeats" / "wiki-head.csv"
FIVE_USERS = {  # in order of time; the last is the test's, the one before validation's
    1: [10, 10, 20, 10, 20, 10],
    2: [20, 30, 30, 40, 30],
    3: [30, 30, 10],
    4: [40, 20, 40, 50, 40],
    5: [50, 10, 10, 20],
}


def log_of(histories):
    table = [(user, item, time) for user, items in histories.items() for time, item in enumerate(items)]
    return pd.DataFrame(table, columns=["user", "item", "timestamp"])


@pytest.fixture
def five():
    return build_dataset(from_frame(log_of(FIVE_USERS)), min_item_ratings=1, repeats="keep")


def test_five_users_by_hand(five):
    assert five.vocabulary.items.tolist() == [10, 20, 30, 40, 50]
    assert [five.split.train[row].tolist() for row in range(5)] == [[1, 1, 2, 1], [2, 3, 3], [3], [4, 2, 4], [5, 1]]
    assert five.split.validation.targets.tolist() == [2, 4, 3, 5, 1]
    assert five.split.test.targets.tolist() == [1, 3, 1, 4, 2]
    assert five.split.test.histories[1].tolist() == [2, 3, 3, 4]
    assert str(five.counts) == (
        "23 rows, 5 users, 5 items; repeats: 10 rows kept; dropped: nothing; kept: 23 rows, 5 users, 5 items"
    )
    # in training the items occur 4, 3, 3, 2 and 1 times; all of them are candidates
    popularity = target_ranks(Popularity(five.split.train, 5), five.split.test, ["full"])["full"]
    assert popularity.tolist() == [1, 2.5, 1, 4, 2.5]  # the second and third item are level
    # user 3 has had 30 twice, then comes 10, the most popular; user 5 has had 10 and 50, then come 20 and 30, level
    most_repeated = target_ranks(MostRepeated(five.split.train, 5), five.split.test, ["full"])["full"]
    assert most_repeated.tolist() == [1, 1, 2, 1, 3.5]
    found = metrics(most_repeated)
    assert (found["hit@1"], found["mrr@5"]) == (pytest.approx(3 / 5), pytest.approx((3 + 1 / 2 + 1 / 3.5) / 5))
    assert found["ndcg@10"] == pytest.approx((3 + 1 / np.log2(3) + 1 / np.log2(4.5)) / 5)


def test_what_was_had_most_often_is_a_baseline_where_items_come_back(five):
    baselines = dict(default_baselines(five.split.train, 5, allow_seen=True))
    assert set(baselines) == {"popularity", "most-repeated", "markov-chain", "pctm", "linear"}
    ranks = target_ranks(baselines["most-repeated"], five.split.test, ["full"])["full"]
    assert ranks.tolist() == [1, 1, 2, 1, 3.5]
    assert "most-repeated" not in dict(default_baselines(five.split.train, 5, allow_seen=False))


def test_the_first_alone_leaves_two_users_too_short():
    dataset = build_dataset(from_frame(log_of(FIVE_USERS)), min_item_ratings=1, repeats="first")
    assert dataset.sequences.users.tolist() == [2, 4, 5] and dataset.repeats == "first"
    assert not dataset.split.test.seen_are_candidates and not dataset.split.validation.seen_are_candidates


def test_a_part_of_the_users_and_a_mixture_have_the_same_candidates(five):
    scorer, test = MostRepeated(five.split.train, 5), five.split.test
    assert target_ranks(scorer, test.rows(np.array([4, 0])), ["full"])["full"].tolist() == [3.5, 1]
    alone = ndcg_by_weight(Popularity(five.split.train, 5), scorer, test)[0.0]
    assert alone == pytest.approx((2 + 2 / np.log2(3.5) + 1 / np.log2(5)) / 5)


@pytest.mark.parametrize("protocol", ["uniform-100", "popularity-100"])
def test_negatives_may_be_items_seen_but_never_the_target(protocol, five):
    """Four negatives of five items are all but the target."""
    scorer, test = MostRepeated(five.split.train, 5), five.split.test
    assert target_ranks(scorer, test, [protocol], negatives=4)[protocol].tolist() == [1, 1, 2, 1, 3.5]
    with pytest.raises(TooFewItems, match="fewer than 5 other items"):
        target_ranks(scorer, test, [protocol], negatives=5)


def test_lists_with_seen_items_rank_as_the_scores_do(five, tmp_path):
    """Item 30 is level with 20, as far as a list shows it, and the lists of all five items show it."""
    scorer, test = MostRepeated(five.split.train, 5), five.split.test
    write_run(tmp_path / "run.txt", scorer, test.histories, five.vocabulary, allow_seen=True)
    lists = pd.read_csv(tmp_path / "run.txt", sep="\t", names=["user", "q", "item", "rank", "score", "tag"])
    ranks, notes = run_ranks(lists.user, lists.item, lists.score.to_numpy(), test, five.vocabulary)
    assert ranks.tolist() == [1, 1, 2, 1, 3.5] and notes == []
    assert top_k(scorer, test.histories, 2, allow_seen=True).tolist() == [[1, 2], [3, 2], [3, 1], [4, 2], [1, 5]]
    assert top_k(scorer, test.histories.rows(np.array([0])), 3).tolist() == [[3, 4, 5]]
    short = lists[(lists["rank"] == 5)]
    _, notes = run_ranks(short.user, short.item, short.score.to_numpy(), test, five.vocabulary)
    assert notes == ["lists of fewer than 10 items, without the target (no hit): 5"]


def test_a_chain_may_stay_where_it_is(five):
    """Item 30 was followed by itself and by nothing else."""
    scores = MarkovChain(five.split.train, 5).score(rows([3]))[0]
    np.testing.assert_allclose(scores, [4 / 5, 3 / 5, 1 + 3 / 5, 2 / 5, 1 / 5], rtol=1e-6)


def test_who_has_an_item_counts_once_in_its_novelty(five):
    """Before the test, items 10 to 50 were with two, three, two, two and two of the five users."""
    everything = np.tile(np.arange(1, 6), (5, 1))
    table = beyond_accuracy(everything, five.split.test, np.eye(5, dtype=bool))
    assert table["novelty (bits)"] == pytest.approx(-np.log2(np.array([2, 3, 2, 2, 2]) / 5).mean())


def test_an_item_tells_nothing_of_itself():
    counts = cooccurrence(rows([1, 1, 2], [3, 3, 3, 3]), 3).toarray()
    np.testing.assert_allclose(counts, [[0, 1.5, 0], [1.5, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize(("repeats", "expected"), [(2, "keep"), (1, "first")])
def test_a_tenth_of_the_rows_decides(repeats, expected):
    """19 or 18 different rows, and the repeats: two of twenty are a tenth, one of twenty is less."""
    items = {user: [*range(10)] for user in (1, 2)}
    items[1] = [*items[1][: 10 - repeats], *[0] * repeats]
    dataset = build_dataset(from_frame(log_of(items)), 1, repeats=None)
    assert dataset.repeats == expected and dataset.counts.are_many_repeats == (expected == "keep")
    assert len(dataset.sequences.tokens) == (20 if expected == "keep" else 19)
    assert (dataset.counts.repeats, dataset.counts.kept_repeats) == ((0, 2) if expected == "keep" else (1, 0))


def test_rows_delivered_twice_are_no_repeats(tmp_path, capsys):
    log = log_of({user: range(user, user + 10) for user in range(20)})
    twice = pd.concat([log, log[::2]])
    expected, dataset = (build_dataset(from_frame(each), 1, repeats=None) for each in (log, twice))
    assert "100 rows are exact copies of others (user, item and time): dropped" in capsys.readouterr().err
    assert dataset.repeats == "first" and dataset.fingerprint == expected.fingerprint
    twice.to_csv(tmp_path / "log.csv", index=False)
    data = DataSettings(ratings_file=str(tmp_path / "log.csv"), min_item_ratings=1, repeats=None)
    assert load_dataset(data).fingerprint == expected.fingerprint
    untimed = from_frame(twice.drop(columns="timestamp"), timestamp="none")  # their order is all that is known
    assert build_dataset(untimed, 1, repeats=None).counts.kept_repeats == 100
    twice["timestamp"] += np.arange(300)  # people did come back
    assert build_dataset(from_frame(twice), 1, repeats=None).counts.kept_repeats == 100


@pytest.mark.parametrize("build", [build_sequences, lambda log, **rule: split_in_time(log, 0.5, 1, **rule)])
@pytest.mark.parametrize("histories", [FIVE_USERS, {1: [10, 20, 30], 2: [10, 20, 30]}])
def test_an_unknown_rule_for_repeats_is_refused(build, histories):
    with pytest.raises(ValueError, match="repeats is 'frist'; it must be one of first, keep, or None"):
        build(log_of(histories), repeats="frist")


def test_repeats_count_among_the_ratings_of_an_item_and_the_items_of_a_user():
    log = log_of({1: [10, 10, 10], 2: [20, 20], 3: [20, 30, 10]})
    vocabulary, sequences, counts = build_sequences(log, min_item_ratings=3, repeats="keep")
    assert vocabulary.items.tolist() == [10] and sequences.users.tolist() == [1]
    assert (counts.rare_items, counts.rows_of_rare_items, counts.short_users) == (1, 1, 2)
    with pytest.raises(ValueError, match="no user has 3 items, which leave-one-out needs"):
        build_sequences(log_of({1: [10, 10]}), 1, repeats="keep")


def test_a_cut_in_time_with_repeats_by_hand():
    histories = {1: [(5, 11), (6, 12), (7, 11), (10, 11), (11, 12)], 2: [(1, 12), (2, 12), (20, 11), (30, 12)]}
    table = [(user, item, day) for user, items in histories.items() for day, item in items]
    log = pd.DataFrame(table, columns=["user", "item", "timestamp"])
    for repeats in ("keep", None):
        vocabulary, split = split_in_time(log, 0.5, 1, repeats)  # the fifth of nine days, the 7th: not before it
        assert vocabulary.items.tolist() == [11, 12]
        assert [history.tolist() for history in split.train] == [[1], [2]]
        assert split.validation.targets.tolist() == [2, 2]
        assert [history.tolist() for history in split.test.histories] == [[1, 2], [2, 2]]
        assert split.test.targets.tolist() == [1, 1]
        assert [history.tolist() for history in split.successive.histories][:3] == [[1, 2], [1, 2, 1], [1, 2, 1, 1]]
        assert all(part.seen_are_candidates for part in (split.validation, split.test, split.successive))


def test_repeats_after_a_cut_in_time_do_not_decide_about_those_before_it():
    before = [(user, item, day) for user in (1, 2) for day, item in enumerate((11, 12, 13))] + [(3, 14, 0), (3, 11, 1)]
    later = [(user, 11, day) for user in (1, 2) for day in (3, 4, 5, 6)] + [(1, 14, 7)]
    log = pd.DataFrame(before + later, columns=["user", "item", "timestamp"])
    _, split = split_in_time(log, 0.47, 1, None)  # before the third day
    assert [history.tolist() for history in split.test.histories] == [[1, 2, 3]] and split.test.targets.tolist() == [4]
    assert not split.test.seen_are_candidates


def test_both_kinds_of_sequences_are_cached(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MIN_CACHED_BYTES", 1)
    log_of(FIVE_USERS).to_csv(tmp_path / "log.csv", index=False)
    for repeats, expected in ((None, "keep"), ("first", "first"), (None, "keep"), ("keep", "keep"), ("first", "first")):
        data = DataSettings(ratings_file=str(tmp_path / "log.csv"), min_item_ratings=1, repeats=repeats)
        dataset = load_dataset(data)
        assert dataset.repeats == expected and len(dataset.sequences) == (5 if expected == "keep" else 3)
        assert dataset.split.test.seen_are_candidates == (expected == "keep")
    assert callable(dataset.source)  # it was not read again
    names = {path.name for path in tmp_path.glob("*.npz")}
    assert names == {"log.csv.sequences-1-all.npz", "log.csv.sequences-1-all-keep.npz"}


def test_settings_and_data_must_agree(five):
    settings = get_preset("tiny").change(epochs=1)
    with pytest.raises(ValueError, match=r"settings\.change\(repeats='keep'\) makes them agree"):
        fit(new_model(five, settings), five, settings, verbose=False)
    settings = settings.change(repeats="keep")
    with pytest.raises(ValueError, match=r"settings\.change\(min_item_ratings=1\) makes them agree"):
        fit(new_model(five, settings), five, settings, verbose=False)
    settings = settings.change(min_item_ratings=1)
    model = new_model(five, settings)
    history = fit(model, five, settings, verbose=False)
    seen_too = metrics(target_ranks(model, five.split.validation, ["full"])["full"])
    assert history["ndcg@10"][0] == pytest.approx(seen_too["ndcg@10"])


def test_a_release_has_no_repeats_to_keep():
    for options in (["--repeats", "keep"], ["--set", "repeats=keep"]):
        with pytest.raises(SystemExit, match="give a log of your own with --ratings FILE"):
            main(["train", "--preset", "tiny", *options])


@pytest.fixture
def trained(tmp_path, monkeypatch, capsys):
    """In tmp_path, where we are, the model of a log in which nine of ten rows are repeats."""
    shutil.copy(WIKI, tmp_path / "wiki.csv")
    monkeypatch.chdir(tmp_path)
    main(["train", "--preset", "tiny", "--ratings", "wiki.csv", "--set", "epochs=1"])
    said = capsys.readouterr().out
    assert "; repeats: 3,654 rows kept; " in said
    assert "\nrepeats are a tenth of the rows or more: they are kept (--repeats first drops them)\n" in said
    return Path("runs/wiki-tiny")


def test_a_log_of_repeats_from_training_to_lists(trained, capsys):
    """The baseline, in plain Python: of 22 users, 21 have their last page among the ten they had edited most."""
    histories, target = defaultdict(list), {}
    table = pd.read_csv("wiki.csv").sort_values("timestamp", kind="stable")
    counts = Counter(table.item)
    for user, item in zip(table.user.tolist(), table.item.tolist(), strict=True):
        if counts[item] >= 5:
            histories[user].append(item)
    histories = {user: history for user, history in histories.items() if len(history) >= 3}
    popularity = Counter(item for history in histories.values() for item in history[:-2])
    items, hits = {item for history in histories.values() for item in history}, []
    for user, (*history, target[user]) in histories.items():
        of_user = Counter(history)
        scores = {item: (of_user[item], popularity[item]) for item in items}
        hits.append(sum(score > scores[target[user]] for score in scores.values()) < 10)
    assert (len(hits), sum(hits)) == (22, 21)

    main(["evaluate", str(trained), "--run", "run.txt", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["users"] == 22 and answer["data"]["kept_repeats"] == 3654
    assert list(answer["most-repeated"]) == ["full"] and answer["most-repeated"]["full"]["hit@10"] == 21 / 22
    lists = [line.split("\t") for line in Path("run.txt").read_text().splitlines()]
    first_ten = {user: [line[2] for line in lists if line[0] == str(user)][:10] for user in histories}
    assert (
        np.mean([str(target[user]) in first_ten[user] for user in histories]) == answer["protocols"]["full"]["hit@10"]
    )
    assert any(str(item) in first_ten[user] for user, history in histories.items() for item in history)
    shutil.copy("run.txt", "same.txt")
    main(["compare", "run.txt", "same.txt", "--ratings", "wiki.csv"])  # the log decides there, too
    said = capsys.readouterr().out
    assert said.startswith("22 users; full ranking; ") and "+0.0000 [+0.0000, +0.0000]" in said
    user = max(histories, key=lambda user: len(set(histories[user])))
    main(["recommend", str(trained), "--user", str(user), "-k", "82", "--json"])
    listed = [row["item"] for row in json.loads(capsys.readouterr().out)["recommendations"]]
    assert sorted(listed) == sorted(items)  # all items, those of the history among them
    main(["evaluate", str(trained)])
    *_, head, row = capsys.readouterr().out.splitlines()
    assert head == "for comparison, the items that each user has had most often:"
    assert row.split()[:2] == ["full", f"{21 / 22:.4f}"]


def test_more_rows_do_not_change_what_is_done_with_repeats(trained):
    with open("wiki.csv", "a") as log:
        log.writelines(f"{user},{item},{10**9}\n" for user in range(100, 500) for item in range(1000, 1100))
    data = load(trained).settings.data
    assert data.repeats == "keep" and load_dataset(data).repeats == "keep"
    assert load_dataset(DataSettings(ratings_file="wiki.csv", repeats=None)).repeats == "first"
