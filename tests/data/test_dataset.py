import hashlib
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertrec_utils.data.dataset import DataCounts, Dataset, build_sequences
from bertrec_utils.data.releases import load_movielens
from bertrec_utils.data.splits import leave_one_out, split_in_time
from bertrec_utils.settings import parse_changes
from conftest import rows


def log(*ratings):
    return pd.DataFrame(ratings, columns=["user", "item", "timestamp"])


def test_order_is_time_then_file_order():
    # user 5 rates 30 and 10 in the same second, 30 first in the file, and 20 before both
    ratings = log((5, 30, 100), (5, 10, 100), (2, 10, 7), (5, 20, 50), (2, 30, 8), (2, 20, 9))
    vocabulary, sequences, _ = build_sequences(ratings, min_item_ratings=1)
    assert [vocabulary.item_ids(sequences[row]).tolist() for row in range(2)] == [[10, 30, 20], [20, 30, 10]]
    assert sequences.users.tolist() == [2, 5]


def test_file_order_breaks_ties_among_many():
    items = np.random.default_rng(0).permutation(1000)
    ratings = log(*((1, item, 42) for item in items))
    vocabulary, sequences, _ = build_sequences(ratings, min_item_ratings=1)
    assert vocabulary.item_ids(sequences[0]).tolist() == items.tolist()


def item_sorted(user_count=50, item_count=20):
    """A log in the manner of GroupLens's CSV releases: by user, then item; rated in two sittings of half the items."""
    return log(*((user, item, 100 + item % 2) for user in range(user_count) for item in range(item_count)))


def test_ties_of_an_item_sorted_file_are_shuffled():
    ratings = item_sorted()
    vocabulary, sequences, _ = build_sequences(ratings, min_item_ratings=1)
    items = vocabulary.item_ids(sequences.tokens).reshape(50, 2, 10)
    assert (items[:, 0] % 2 == 0).all() and (items[:, 1] % 2 == 1).all()  # time comes first
    assert 0.4 < (np.diff(items) > 0).mean() < 0.6
    assert (build_sequences(ratings, 1)[1].tokens == sequences.tokens).all()
    assert (build_sequences(ratings, 1, tie_seed=1)[1].tokens != sequences.tokens).any()
    in_file_order = build_sequences(ratings, 1, tie_seed=None)[1].tokens.reshape(50, 2, 10)
    assert (np.diff(in_file_order) > 0).all()


def test_ties_come_in_the_order_of_one_draw_for_the_whole_file():
    ratings = item_sorted()
    draw = np.random.default_rng(0).permutation(len(ratings))
    vocabulary, sequences, _ = build_sequences(ratings, min_item_ratings=1)
    in_order = ratings.item.to_numpy()[np.lexsort([draw, ratings.timestamp, ratings.user])]
    assert (vocabulary.item_ids(sequences.tokens) == in_order).all()


def test_ties_do_not_depend_on_who_and_what_is_left_out():
    ratings = pd.concat([item_sorted(), log((50, 20, 100), (50, 21, 100), (50, 22, 100))])
    everything = build_sequences(ratings, 1)[1]
    fewer_users, fewer_items = build_sequences(ratings, 1, max_users=7)[1], build_sequences(ratings, 2)[1]
    assert [fewer_users[row].tolist() for row in range(7)] == [everything[row].tolist() for row in range(7)]
    assert [fewer_items[row].tolist() for row in range(50)] == [everything[row].tolist() for row in range(50)]


def test_one_user_out_of_item_order_keeps_the_whole_file_in_order():
    ratings = pd.concat([item_sorted(), log(*((50, item, 100) for item in (3, 2, 4)))])
    with_seed, without = (build_sequences(ratings, 1, tie_seed=seed)[1] for seed in (0, None))
    assert (with_seed.tokens == without.tokens).all()


def test_users_need_not_stand_together_to_be_sorted_by_item():
    ratings = item_sorted().sort_values("item", kind="stable")
    tokens = [build_sequences(ratings, 1, tie_seed=seed)[1].tokens for seed in (0, None)]
    assert (tokens[0] != tokens[1]).any()


def baskets(descending=False):
    """Of each of 80 users three baskets of five random items, ORDER BY user, timestamp, item."""
    random = np.random.default_rng(0)
    drawn = np.array([random.permutation(100)[:15].reshape(3, 5) for _ in range(80)])
    drawn = np.sort(drawn)[..., ::-1] if descending else np.sort(drawn)
    return log(*((user, item, time) for (user, time, _), item in np.ndenumerate(drawn)))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("ids", [int, str, "{:03}".format])
def test_no_order_of_ids_is_left_in_baskets_sorted_by_item(ids, descending):
    """Else the item to be found would be the largest, or smallest, of its basket."""
    ratings = baskets(descending)
    vocabulary, sequences, _ = build_sequences(ratings.assign(item=ratings.item.map(ids)), 1, own=True)
    items = np.array([*map(int, vocabulary.item_ids(sequences.tokens))]).reshape(80, 3, 5)
    assert (np.sort(items) == np.sort(ratings.item.to_numpy().reshape(80, 3, 5))).all()  # time comes first
    assert 0.4 < (np.diff(items) > 0).mean() < 0.6
    assert 0.05 < (items[:, 2].argmax(1) == 4).mean() < 0.35


def test_baskets_in_another_order_keep_it():
    ratings = baskets().sample(frac=1, random_state=0).sort_values(["user", "timestamp"], kind="stable")
    vocabulary, sequences, _ = build_sequences(ratings, 1, own=True)
    assert (vocabulary.item_ids(sequences.tokens) == ratings.item).all()
    few = baskets().head(15)  # too few to tell
    vocabulary, sequences, _ = build_sequences(few, 1, own=True)
    assert (vocabulary.item_ids(sequences.tokens) == few.item).all()


def test_a_later_row_does_not_change_the_order_of_baskets_before_it():
    ratings = baskets()
    more = pd.concat([ratings, log((0, ratings.item[0], 9))])
    before, after = (build_sequences(each, 1, repeats="keep", own=True)[1] for each in (ratings, more))
    assert after[0].tolist()[:-1] == before[0].tolist() and after[1].tolist() == before[1].tolist()


def test_a_later_row_does_not_change_the_order_of_rows_as_they_came():
    """By chance the first rows of some users are by item, and the later row is not."""
    random = np.random.default_rng(0)
    drawn = np.array([random.permutation(100)[:4] for _ in range(500)])
    first = log(*((user, item, 0) for user, items in enumerate(drawn) for item in items[:3]))
    later = pd.concat([first, log(*((user, items[3], 1) for user, items in enumerate(drawn)))])
    vocabulary, sequences, _ = build_sequences(later, 1, own=True)
    assert vocabulary.item_ids(sequences.tokens).reshape(500, 4).tolist() == drawn.tolist()
    vocabulary, sequences, _ = build_sequences(first, 1, own=True)
    assert vocabulary.item_ids(sequences.tokens).reshape(500, 3).tolist() == drawn[:, :3].tolist()


def test_rare_items_are_dropped_in_a_single_pass():
    # items 10 to 30 have two ratings each; user 2, left with two items, goes and takes the second of 10 and 20 along
    ratings = log((1, 10, 1), (1, 20, 2), (1, 30, 3), (2, 10, 1), (2, 20, 2), (2, 99, 3), (3, 30, 1))
    vocabulary, sequences, _ = build_sequences(ratings, min_item_ratings=2)
    assert vocabulary.items.tolist() == [10, 20, 30]
    assert sequences.counts(3).tolist() == [1, 1, 1]


def test_rare_items_and_short_users_are_dropped():
    popular = [(user, item, item) for user in (1, 2) for item in (10, 20, 30)]
    ratings = log(*popular, (1, 99, 0), (3, 10, 1), (3, 20, 2))
    vocabulary, sequences, _ = build_sequences(ratings, min_item_ratings=2)
    assert vocabulary.items.tolist() == [10, 20, 30]
    assert sequences.users.tolist() == [1, 2]


def test_a_repeated_item_counts_once_at_its_first_time():
    ratings = log(
        (1, 10, 1), (1, 20, 2), (1, 10, 3), (1, 30, 4), (1, 20, 5), (2, 30, 1), (2, 30, 2), (2, 10, 3), (2, 20, 4)
    )
    vocabulary, sequences, _ = build_sequences(ratings, min_item_ratings=2)
    assert [vocabulary.item_ids(sequences[row]).tolist() for row in range(2)] == [[10, 20, 30], [30, 10, 20]]


def test_rare_items_only_is_an_error_that_says_what_to_lower():
    ratings = log(*((user, 10 * user + item, item) for user in range(50) for item in range(3)))
    with pytest.raises(ValueError) as raised:
        build_sequences(ratings, min_item_ratings=2)
    message = "no user has 3 items with 2 ratings or more; lower min_item_ratings (--set min_item_ratings=1)"
    assert str(raised.value) == message
    assert len(build_sequences(ratings, **parse_changes(["min_item_ratings=1"]))[1]) == 50


@pytest.mark.parametrize("rows_of_a_user", [[5, 6], [5, 6, 5, 5, 6]])
def test_users_with_two_items_are_not_told_to_lower_what_would_not_help(rows_of_a_user):
    ratings = log(*((user, item, time) for user in range(1000) for time, item in enumerate(rows_of_a_user)))
    for min_item_ratings in (1, 5, 5000):
        with pytest.raises(ValueError) as raised:
            build_sequences(ratings, min_item_ratings)
        assert str(raised.value) == "no user has 3 different items, which leave-one-out needs: one for each part"


def test_max_users_keeps_the_first():
    ratings = log(*((user, item, item) for user in (9, 4, 7) for item in range(3)))
    assert build_sequences(ratings, 1, max_users=2)[1].users.tolist() == [4, 7]


@pytest.fixture
def hand_worked():
    return log(
        (0, 20, 1),  # a user with a single item
        *((1, 10, 1), (1, 20, 2), (1, 10, 3), (1, 30, 4), (1, 99, 5)),  # 10 again
        *((2, 10, 1), (2, 20, 2), (2, 30, 3), (2, 20, 4), (2, 30, 5)),  # 20 and 30 again
        *((3, 10, 1), (3, 20, 2), (3, 98, 3)),  # without the rare 98 a user with two items
        *((4, 10, 1), (4, 97, 2), (4, 99, 3), (4, 30, 4)),  # the fifth user: with this one 99 would have two ratings
    )


def test_what_was_dropped_is_counted_by_hand(hand_worked):
    counts = build_sequences(hand_worked, min_item_ratings=2, max_users=4)[2]
    assert counts == DataCounts(
        rows=18, users=5, items=6, rows_of_later_users=4, repeats=3,
        min_item_ratings=2, rare_items=2, rows_of_rare_items=2, short_users=2, rows_of_short_users=3,
        kept_rows=6, kept_users=2, kept_items=3,
    )  # fmt: skip
    assert str(counts) == (
        "18 rows, 5 users, 6 items; dropped: 4 rows of users beyond max_users, 3 repeats of an item by a user, 2 items "
        "with fewer than 2 ratings (2 rows), 2 users with fewer than 3 items left (3 rows); kept: 6 rows, 2 users, 3 "
        "items"
    )


def test_only_what_was_dropped_is_said(hand_worked):
    counts = build_sequences(hand_worked[hand_worked.user == 1], min_item_ratings=1)[2]
    assert str(counts) == (
        "5 rows, 1 users, 4 items; dropped: 1 repeats of an item by a user; kept: 4 rows, 1 users, 4 items"
    )
    many = log(*((user, item, item) for user in range(500) for item in range(3)))
    assert str(build_sequences(many)[2]) == (
        "1,500 rows, 500 users, 3 items; dropped: nothing; kept: 1,500 rows, 500 users, 3 items"
    )


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 9)), min_size=20, max_size=60),
    st.integers(1, 3),
    st.none() | st.integers(1, 8),
    st.sampled_from(["first", "keep"]),
)
def test_sequences_and_counts_are_those_of_a_loop_over_the_rows(ratings, min_item_ratings, max_users, repeats):
    """User by user and rule by rule, in plain Python."""
    first_users = sorted({user for user, _, _ in ratings})[:max_users]
    of_user = {user: sorted((row for row in ratings if row[0] == user), key=lambda row: row[2]) for user in first_users}
    different = {user: list(dict.fromkeys(item for _, item, _ in of_user[user])) for user in first_users}
    all_rows = {user: [item for _, item, _ in of_user[user]] for user in first_users}
    histories = different if repeats == "first" else all_rows
    popularity = Counter(item for history in histories.values() for item in history)
    common = {
        user: [item for item in history if popularity[item] >= min_item_ratings] for user, history in histories.items()
    }
    kept = {user: history for user, history in common.items() if len(history) >= 3}
    try:
        vocabulary, sequences, counts = build_sequences(
            log(*ratings), min_item_ratings, max_users, repeats, tie_seed=None
        )
    except ValueError:
        assert not kept
        return
    assert {
        user: vocabulary.item_ids(sequence).tolist()
        for user, sequence in zip(sequences.users.tolist(), sequences, strict=True)
    } == kept

    def size(histories):
        return sum(map(len, histories.values()))

    assert counts == DataCounts(
        rows=len(ratings),
        users=len({user for user, _, _ in ratings}),
        items=len({item for _, item, _ in ratings}),
        rows_of_later_users=len(ratings) - size(of_user),
        repeats=size(all_rows) - size(histories),
        min_item_ratings=min_item_ratings,
        rare_items=sum(count < min_item_ratings for count in popularity.values()),
        rows_of_rare_items=size(histories) - size(common),
        short_users=len(common) - len(kept),
        rows_of_short_users=size(common) - size(kept),
        kept_rows=size(kept),
        kept_users=len(kept),
        kept_items=len({item for history in kept.values() for item in history}),
        kept_repeats=size(histories) - size(different),
    )


def test_items_need_a_log_that_names_them(dataset):
    assert dataset.items.equals(dataset.log.item_table())
    with pytest.raises(ValueError, match="this dataset has no log that names its items"):
        _ = Dataset(dataset.vocabulary, dataset.sequences).items


def test_leave_one_out_by_hand():
    split = leave_one_out(rows([1, 2, 3], [4, 5, 6, 7, 8]))
    assert [split.train[row].tolist() for row in range(2)] == [[1], [4, 5, 6]]
    assert split.validation.targets.tolist() == [2, 7]
    assert [split.validation.histories[row].tolist() for row in range(2)] == [[1], [4, 5, 6]]
    assert split.test.targets.tolist() == [3, 8]
    assert [split.test.histories[row].tolist() for row in range(2)] == [[1, 2], [4, 5, 6, 7]]


def test_leave_one_out_needs_three_items():
    with pytest.raises(ValueError, match="three items"):
        leave_one_out(rows([1, 2, 3], [1, 2]))
    with pytest.raises(ValueError, match="there is no sequence to split"):
        leave_one_out(rows())


def test_no_target_is_in_its_history(dataset):
    split = dataset.split
    for holdout in (split.validation, split.test):
        for row, target in enumerate(holdout.targets):
            assert target not in holdout.histories[row]
            assert target not in split.train[row]


def order_in_a_dict_of_python_2(keys):
    """`keys` (texts) as a Python 2 of 64 bits went through a dict of them: by their places in its table."""

    def hashed(key):
        value = ord(key[0]) << 7
        for letter in key:
            value = (1_000_003 * value ^ ord(letter)) % 2**64
        return value ^ len(key)

    def put(key):
        place = perturbation = hashed(key)
        while table[place % len(table)] is not None:
            place, perturbation = 5 * place + perturbation + 1, perturbation >> 5
        table[place % len(table)] = key

    table = [None] * 8
    for count, key in enumerate(keys, 1):
        put(key)
        if 3 * count >= 2 * len(table):  # full: the next power of two above four times as many
            kept = [other for other in table if other is not None]
            table = [None] * 2 ** (4 * count).bit_length()
            for other in kept:
                put(other)
    return [key for key in table if key is not None]


def test_ml_1m_is_the_published_benchmark_to_the_last_byte(ml_1m_folder, monkeypatch):
    """The file is `ml-1m.txt` of the papers on SASRec and BERT4Rec: users in the order of a dict of Python 2, films
    numbered as they first occur. The checksum is that of its copies, such as the git-lfs pointer in
    github.com/WhiteGiveFive/SASRecAE."""
    monkeypatch.setenv("BERTREC_DATA", str(ml_1m_folder))
    vocabulary, sequences, _ = build_sequences(load_movielens("ml-1m").ratings, min_item_ratings=5)
    assert (len(sequences), len(vocabulary), len(sequences.tokens)) == (6_040, 3_416, 999_611)
    row_of = {str(user): row for row, user in enumerate(sequences.users)}
    numbers, lines = {}, []
    for user, name in enumerate(order_in_a_dict_of_python_2(row_of), 1):
        lines += [f"{user} {numbers.setdefault(item, len(numbers) + 1)}\n" for item in sequences[row_of[name]].tolist()]
    checksum = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert checksum == "b725f3acb3986fe3130bffd1e77a74d182a1f51799567a236dbd60270f95b0a2"


def test_split_in_time_by_hand():
    log = {
        1: [(5, 11), (6, 12), (7, 13), (10, 11), (11, 15), (12, 14), (13, 12)],  # 11 and 12 again; 15 is new to all
        2: [(1, 14), (2, 13), (3, 11)],  # nothing after day 10
        3: [(4, 12), (20, 13), (21, 14)],  # one item before it
        4: [(15, 15), (16, 14), (17, 11)],  # a new user
        5: [(18, 13)],  # a new user of whom nothing can be asked
    }
    rows = [(user, item, 5.0, day) for user, items in log.items() for day, item in items]
    ratings = pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"])
    vocabulary, split = split_in_time(ratings, quantile=7 / 16, min_item_ratings=1)  # the eighth of 17 days, the 10th
    assert vocabulary.items.tolist() == [11, 12, 13, 14]
    assert split.train.users.tolist() == [1, 2]
    assert [split.train[row].tolist() for row in range(2)] == [[1, 2], [4, 3]]
    assert split.validation.targets.tolist() == [3, 1]
    asked = [
        [(user, history.tolist(), target) for user, history, target in zip(*each, strict=True)]
        for each in ((part.histories.users, part.histories, part.targets) for part in (split.test, split.successive))
    ]
    assert asked[0] == [(1, [1, 2, 3], 4), (3, [2], 3), (4, [4], 1)]
    assert asked[1] == [(1, [1, 2, 3], 4), (3, [2], 3), (3, [2, 3], 4), (4, [4], 1)]


def test_split_in_time_knows_nothing_of_the_time_after_the_cut(bundled):
    vocabulary, split = split_in_time(bundled.ratings)
    successive, log = split.successive, bundled.ratings.drop_duplicates(["user", "item"])
    times = log[log.item.isin(vocabulary.items)].set_index(["user", "item"]).timestamp
    cut = bundled.ratings.timestamp.quantile(0.9)
    before = log[log.timestamp < cut]
    assert set(vocabulary.items) == set(before.item.value_counts().loc[lambda counts: counts >= 5].index)
    for row, user in enumerate(split.train.users):
        films = vocabulary.item_ids(np.append(split.train[row], split.validation.targets[row]))
        assert set(films) == set(before.item[before.user == user]) & set(vocabulary.items)
    for row in np.random.default_rng(0).integers(0, len(successive.targets), 200):
        user, history = successive.histories.users[row], vocabulary.item_ids(successive.histories[row])
        target = vocabulary.item_ids(successive.targets[row])
        assert target not in history and times[user, target] >= cut
        assert max(times[user, film] for film in history) <= times[user, target]
    assert len(split.test.targets) == len(set(successive.histories.users)) > 100


@pytest.mark.parametrize("quantile", [0, 1, 1.5])
def test_a_cut_outside_of_the_log_is_refused(bundled, quantile):
    with pytest.raises(ValueError, match=f"the quantile is {quantile}; it must be above 0 and below 1"):
        split_in_time(bundled.ratings, quantile)


def test_split_in_time_needs_somebody_after_the_cut():
    ratings = pd.DataFrame({"user": [1, 1, 2], "item": [5, 6, 5], "rating": 4.0, "timestamp": [1, 2, 3]})
    with pytest.raises(ValueError, match=r"two items before the 0\.9 quantile of time, and items after"):
        split_in_time(ratings, min_item_ratings=1)
