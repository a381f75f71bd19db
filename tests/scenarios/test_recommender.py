import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bertrec_utils.data.sequences import Sequences, Vocabulary
from bertrec_utils.scenarios import recommender as module
from bertrec_utils.scenarios.recommender import Recommender
from bertrec_utils.scenarios.titles import AmbiguousTitle, UnknownTitle
from bertrec_utils.scenarios.watch_history import read_history

LETTERBOXD = Path(__file__).resolve().parents[1] / "cases" / "letterboxd"

TITLES = {
    **{item: f"Film {item} (1999)" for item in range(1, 15)},
    15: "Spider-Man (2002)",
    16: "(500) Days of Summer (2009)",
    17: "Professional, The (1981)",
    18: "Fast & Furious (2009)",
    19: "M (1931)",
    20: "Æon Flux (2005)",
}
ITEMS = pd.DataFrame({"item": list(TITLES), "title": list(TITLES.values()), "genres": "Comedy", "ratings": 1})


class CountingUp:
    """Scores item j as j: the highest id is best."""

    def score(self, histories):
        return np.tile(np.arange(20, dtype=np.float32), (len(histories), 1))


class Broken:
    def score(self, histories):
        return np.full((len(histories), 20), np.nan)


def test_scores_that_are_not_numbers_are_an_error_and_not_an_empty_list():
    with pytest.raises(ValueError, match="Broken gave a score that is NaN; train it again"):
        Recommender(Broken(), Vocabulary(np.arange(1, 21)), ITEMS).recommend_items([1])


@pytest.fixture
def recommender():
    return Recommender(CountingUp(), Vocabulary(np.arange(1, 21)), ITEMS)


def test_best_unseen_films_in_order(recommender):
    table = recommender.recommend(["Æon Flux (2005)", "Fast & Furious"], k=3)
    assert table.item.tolist() == [19, 17, 16]
    assert table["rank"].tolist() == [1, 2, 3]
    assert table.title.tolist() == [TITLES[19], TITLES[17], TITLES[16]]
    assert list(table) == ["rank", "item", "title", "genres", "score"]
    assert table.score.is_monotonic_decreasing


def test_asking_for_all_gives_all_unseen_once(recommender):
    table = recommender.recommend(["Spider-Man", "Spider-Man (2002)", "M"], k=99)
    assert sorted(table.item) == [item for item in TITLES if item not in (15, 19)]


def test_newer_films_are_named_and_the_rest_is_used(recommender):
    table = recommender.recommend(["Toy Story 4 (2019)", "Æon Flux"], k=1)
    assert table.attrs["unknown"] == ["Toy Story 4 (2019)"]
    assert table.item.tolist() == [19]


def test_errors(recommender):
    with pytest.raises(UnknownTitle, match="closest"):
        recommender.recommend(["Spidr-Man", "M"])
    with pytest.raises(ValueError, match="history is empty"):
        recommender.recommend([])
    with pytest.raises(ValueError, match=r"none of 'Toy Story 4 \(2019\)' is known"):
        recommender.recommend(["Toy Story 4 (2019)"])
    with pytest.raises(ValueError, match=r"none of 'x', '5' is known; .* the model knows; .* write id:5"):
        recommender.recommend_items([], unknown=["x", "5"])
    with pytest.raises(ValueError, match="at least one"):
        recommender.recommend(["M"], k=0)
    with pytest.raises(TypeError, match="list of titles"):
        recommender.recommend("M")
    with pytest.raises(TypeError, match="5 is no title; name an item by its id as 'id:5', or to recommend_items"):
        recommender.recommend([5])
    with pytest.raises(KeyError, match="the model knows no item '5'; its ids are such as 1"):
        recommender.recommend_items(["5"])
    with pytest.raises(ValueError, match="none of 'A', 'B', 'C' and 7 more is known"):
        recommender.recommend_items([], unknown=list("ABCDEFGHIJ"))


def test_an_item_is_named_by_its_id(recommender):
    assert recommender.look_up(["id:15", "id:3"]) == ([15, 3], {})
    assert recommender.recommend(["id:20"], k=1).item.tolist() == [19]
    with pytest.raises(UnknownTitle, match="'id:21' is not a title here"):
        recommender.recommend(["id:21"])
    assert recommender.suggest("id:15") == [15]


def test_of_two_films_with_one_title_the_one_that_the_model_knows_is_meant():
    items = ITEMS.assign(title=ITEMS.item.map(TITLES | {3: "M (1931)"}))
    assert Recommender(CountingUp(), Vocabulary(np.arange(4, 21)), items).look_up(["M (1931)"]) == ([19], {})
    found, unknown = Recommender(CountingUp(), Vocabulary(np.arange(1, 21)), items).look_up(["M (1931)", "M"])
    assert found == [3] and list(unknown) == ["M (1931)"]  # without the year: the one with more ratings, or the first
    with pytest.raises(AmbiguousTitle, match=r"id:3 M \(1931\) \| id:19 M \(1931\)"):
        raise unknown["M (1931)"]
    _, unknown = Recommender(CountingUp(), Vocabulary(np.array([4, 5, 6])), items).look_up(["M (1931)"])
    assert "too few ratings" in str(unknown["M (1931)"])  # an id would help no more than the title


def test_a_film_that_is_named_twice_counts_once(small_model):
    recommender = Recommender(small_model, Vocabulary(np.arange(1, 31)), thirty_films())
    once = recommender.recommend(["Film 1", "Film 2"], k=5)
    pd.testing.assert_frame_equal(recommender.recommend(["Film 1", "Film 2", "film 1 "], k=5), once)
    again = recommender.recommend(["Film 1", "Film 2", "Film 1"], k=5, allow_seen=True)
    assert (again.score != recommender.recommend(["Film 1", "Film 2"], k=5, allow_seen=True).score).any()


def test_an_unknown_title_like_one_in_the_list_is_named(recommender, caplog):
    items, unknown = recommender.look_up(["Aeon Fluxx (2005)", "Spider Man 9 (2002)", "M"])
    recommender.recommend_items(items, 3, list(unknown))
    assert caplog.messages == ["'Aeon Fluxx (2005)' is unknown; did you mean 'Æon Flux (2005)', which is in this list?"]
    caplog.clear()
    recommender.recommend_items([20, *items], 3, list(unknown))  # that film is not in the list
    assert not caplog.messages


def test_nothing_is_left_after_a_history_of_everything(recommender):
    assert recommender.recommend_items(range(1, 21)).empty


def test_thousands_of_titles_are_looked_up_at_once(bundled):
    items = bundled.item_table()
    recommender = Recommender(CountingUp(), Vocabulary(np.sort(items.item.to_numpy())), items)
    history = [*items.title[:1300], *(f"No Such Film {number} (1999)" for number in range(1038))]
    start = time.process_time()
    found, unknown = recommender.look_up(history)
    assert time.process_time() - start < 2
    assert len(found) > 1290 and set(history[1300:]) <= set(unknown)


@pytest.mark.parametrize("name", ["watched.csv", "watched2.csv"])
def test_no_film_of_a_letterboxd_export_is_recommended_back(bundled, name):
    items = bundled.item_table()

    class Popularity:
        def score(self, histories):
            return np.tile(items.sort_values("item").ratings.to_numpy(np.float32), (len(histories), 1))

    recommender = Recommender(Popularity(), Vocabulary(np.sort(items.item.to_numpy())), items)
    watched, unknown = recommender.look_up(read_history(LETTERBOXD / name))
    assert len(watched) == 4 and not unknown
    titles = " ".join(recommender.recommend_items(watched, 1000).title)
    for words in (
        ("New Hope", "Empire Strikes", "Return of the Jedi", "Lost Ark")
        if name == "watched.csv"
        else (*("Neighbor Totoro", "Castle in the Sky", "Holy Grail", "Life of Brian"),)
    ):
        assert words not in titles


def test_a_table_of_items_without_ratings_is_refused():
    with pytest.raises(ValueError, match="the table of items has no column ratings; take"):
        Recommender(CountingUp(), Vocabulary(np.arange(1, 21)), ITEMS.drop(columns="ratings"))


def test_items_without_those_of_the_model_are_refused(recommender):
    with pytest.raises(ValueError, match=r"15 of the model's items have no title in this data; use the data it was"):
        Recommender(recommender.model, recommender.vocabulary, ITEMS[:5])


def test_film_with_too_few_ratings_is_explained(recommender):
    few = Recommender(recommender.model, Vocabulary(np.arange(1, 20)), ITEMS)
    with pytest.raises(UnknownTitle, match="too few ratings"):
        few.recommend(["Æon Flux"])


class FavoursLast:
    """After a history whose last film is token t, film j has the logit j if j > t, else -j: the order matters."""

    def score(self, histories):
        columns = np.arange(1, 21)
        return np.where(columns > histories.last()[:, None], columns, -columns).astype(np.float32)


@pytest.fixture
def by_order():
    return Recommender(FavoursLast(), Vocabulary(np.arange(1, 21)), ITEMS)


def softmax_log(scores):
    return scores - np.log(np.exp(scores).sum())


def test_a_set_is_the_mean_over_its_orders(by_order):
    columns = np.arange(1, 21)
    after_3, after_9 = (np.where(columns > last, columns, -columns) for last in (3, 9))
    by_hand = (softmax_log(after_3) + softmax_log(after_9)) / 2
    np.testing.assert_allclose(by_order.log_probabilities([[3, 9]], as_set=True)[0], by_hand, rtol=1e-5)
    np.testing.assert_allclose(by_order.log_probabilities([[9, 3]])[0], softmax_log(after_3), rtol=1e-5)


class Listening(CountingUp):
    """Remembers the histories it was asked about."""

    def score(self, histories):
        self.heard = [tuple(histories[row].tolist()) for row in range(len(histories))]
        return super().score(histories)


@pytest.mark.parametrize(("size", "orders"), [(1, 1), (2, 2), (3, 6), (4, 16), (9, 16)])
def test_a_set_is_read_in_many_different_orders(size, orders):
    model, items = Listening(), list(range(1, size + 1))
    Recommender(model, Vocabulary(np.arange(1, 21)), ITEMS).log_probabilities([items], as_set=True)
    assert len(model.heard) == orders and {tuple(sorted(order)) for order in model.heard} == {tuple(items)}
    assert len(set(model.heard)) == orders or size == 4  # 16 of the 24 orders of four items are drawn with repeats
    assert len({order[-1] for order in model.heard}) > size / 2


@pytest.mark.parametrize("items", [[4], [4, 2], [9, 4, 2], [9, 4, 2, 7], list(range(1, 12))])
def test_the_order_of_a_set_does_not_count(by_order, items):
    expected = by_order.log_probabilities([items], as_set=True)
    np.testing.assert_array_equal(by_order.log_probabilities([items[::-1]], as_set=True), expected)
    both = by_order.log_probabilities([[1], items], as_set=True)  # whoever else is in the batch
    np.testing.assert_array_equal(both[1:], expected)


def test_a_popularity_penalty_is_a_power_of_popularity():
    items = ITEMS.assign(ratings=np.where(ITEMS.item == 20, 100, 3))
    recommender = Recommender(CountingUp(), Vocabulary(np.arange(1, 21)), items)
    plain, penalised = (
        recommender.recommend(["M"], 19, popularity_penalty=penalty).set_index("item").score for penalty in (0, 0.5)
    )
    expected = 0.5 * np.log(101 / 4)  # how much more film 20 loses than any other
    np.testing.assert_allclose((plain - penalised)[20] - (plain - penalised)[1], expected, rtol=1e-5)


@pytest.mark.parametrize("penalty", [-0.1, 1.1, np.nan])
def test_an_impossible_popularity_penalty_is_refused(recommender, penalty):
    with pytest.raises(ValueError, match=r"popularity_penalty is .*from 0 \(familiar\) to 1 \(distinctive\)"):
        recommender.recommend(["M"], popularity_penalty=penalty)


def histories_of_tokens(*histories, users):
    return Sequences(np.concatenate(histories), np.cumsum([0, *map(len, histories)]), np.array(users, object))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"as_set": True},
        {"popularity_penalty": 0.7},
        {"exclude_series": True},
        {"only": [3, 7, 18, 29], "allow_seen": True},
        {"only": range(5, 20), "without": [7, 8]},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_all_at_once_as_one_after_the_other(small_model, monkeypatch, options):
    """Twenty histories of different lengths, in batches of four, in parts of seven users: the order stays."""
    titles = {3: "Alien (1979)", 18: "Aliens (1986)", 4: "Iron Man (2008)", 29: "Iron Man 2 (2010)"}
    items = thirty_films().assign(ratings=np.arange(30) ** 2)
    items["title"] = items.item.map(titles).fillna(items.title)
    recommender = Recommender(small_model, Vocabulary(np.arange(1, 31)), items)
    random = np.random.default_rng(0)
    tokens = [random.permutation(30)[: random.integers(1, 20)] + 1 for _ in range(20)]
    monkeypatch.setattr(module, "USERS_PER_PART", 7)
    monkeypatch.setattr(module, "MAX_SCORES", 4 * 30)
    users = [f"user {number}" for number in random.permutation(20)]
    table = recommender.recommend_all(histories_of_tokens(*tokens, users=users), 5, **options)
    assert list(table) == ["user", "rank", "item", "title", "score"]
    assert table.index.tolist() == list(range(len(table))) and table.user.unique().tolist() == users
    for user, history in zip(users, tokens, strict=True):
        expected = recommender.recommend_items(history.tolist(), 5, **options)
        found = table[table.user == user]
        for column in ("rank", "item", "title"):
            assert found[column].tolist() == expected[column].tolist()
        np.testing.assert_allclose(found.score, expected.score, rtol=1e-4, atol=1e-5)


def test_only_these_without_those_and_seen_ones(recommender):
    """The higher an id, the better."""

    def listed(history=(20, 18), **options):
        return recommender.recommend_items(history, 3, **options).item.tolist()

    assert listed() == [19, 17, 16]
    assert listed(only=[2, 20, 9, 4, 99]) == [9, 4, 2]  # 20 is seen, and 99 nothing that the model knows
    assert listed(only=[2, 20]) == [2] and listed(only=[20]) == listed(only=[]) == []
    assert listed(without=[19, 16, 99]) == [17, 15, 14]
    assert listed(only=np.array([5, 6]), without=iter([6])) == [5]
    assert listed(allow_seen=True) == [20, 19, 18] and listed(allow_seen=True, only=[18, 1]) == [18, 1]
    assert recommender.recommend(["M"], 2, without=[20]).item.tolist() == [18, 17]
    for option in ("only", "without"):
        with pytest.raises(KeyError, match=r"the model knows none of '19', '16' \.\.\.; its ids are such as 1"):
            listed(**{option: ["19", "16"]})


def test_nobody_without_a_history(recommender):
    with pytest.raises(ValueError, match="a history is empty; give every user at least one item"):
        recommender.recommend_all(histories_of_tokens([3], np.zeros(0, int), users=[1, 2]))
    with pytest.raises(ValueError, match="there are no histories"):
        recommender.recommend_all(Sequences(np.zeros(0, int), np.array([0]), np.zeros(0)))


def test_lists_of_everybody_where_nothing_is_left(recommender):
    histories = histories_of_tokens(np.arange(1, 20), np.arange(1, 21), users=["a", "b"])
    assert recommender.recommend_all(histories).user.tolist() == ["a"]
    assert recommender.recommend_all(histories, only=[1]).empty


def test_films_of_the_same_series_can_be_left_out():
    items = ITEMS.assign(title=ITEMS.item.map(TITLES | {3: "Alien (1979)", 18: "Aliens (1986)"}))
    recommender = Recommender(CountingUp(), Vocabulary(np.arange(1, 21)), items)
    assert 18 in recommender.recommend(["Alien"], 5).item.tolist()
    assert 18 not in recommender.recommend(["Alien"], 19, exclude_series=True).item.tolist()
    assert len(recommender.recommend(["M"], 19, exclude_series=True)) == 19  # M is of no series


class Votes:
    """Each film of the history adds `weights[film, candidate]` to the candidate's logit."""

    weights = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)

    def score(self, histories):
        return np.stack([self.weights[histories[row] - 1].sum(0) for row in range(len(histories))])


def test_a_film_contributes_what_leaving_it_out_changes():
    recommender = Recommender(Votes(), Vocabulary(np.arange(1, 21)), ITEMS)
    gains = recommender.explain([2, 5, 7], [11, 13])
    assert gains.index.tolist() == [2, 5, 7] and gains.columns.tolist() == [11, 13]
    weights = Votes.weights.astype(np.float64)
    whole, without = (softmax_log(weights[films].sum(0)) for films in ([1, 4, 6], [1, 6]))
    np.testing.assert_allclose(gains.loc[5], (whole - without)[[10, 12]], atol=1e-5)
    with pytest.raises(ValueError, match="needs another one"):
        recommender.explain([2], [11])


def test_contributions_to_a_history_with_repeats():
    """As `recommend` reads it, every time counts: without 5 both of its votes are gone."""
    recommender, weights = Recommender(Votes(), Vocabulary(np.arange(1, 21)), ITEMS), Votes.weights.astype(np.float64)
    gains = recommender.explain([5, 7, 5], [11])
    assert gains.index.tolist() == [5, 7]
    whole, without_5, without_7 = (softmax_log(weights[films].sum(0))[10] for films in ([4, 6, 4], [6], [4, 4]))
    np.testing.assert_allclose(gains[11], [whole - without_5, whole - without_7], atol=1e-5)


def test_contributions_to_a_set_are_over_the_same_orders(by_order):
    """Here only the last film matters: one that is never last contributes nothing, and exactly nothing."""
    items = list(range(1, 9))
    gains = by_order.explain(items, [20], as_set=True)
    keys = by_order.sort_keys[:, by_order.vocabulary.tokens(items)]
    never_last = sorted(set(items) - {items[position] for position in keys.argmax(1)})
    assert never_last and (gains.loc[never_last, 20].abs() < 1e-6).all()


def test_similar_items_by_cosine(small_model):
    recommender = Recommender(small_model, Vocabulary(np.arange(1, 31)), thirty_films())
    vectors = small_model.item_vectors.detach()
    similarity = torch.nn.functional.cosine_similarity(vectors[4:5], vectors)
    expected = [film + 1 for film in similarity.argsort(descending=True).tolist() if film != 4][:3]
    assert recommender.similar_items(5, 3).item.tolist() == expected


def thirty_films():
    items = np.arange(1, 31)
    titles = [f"Film {item} (1999)" for item in items]
    return pd.DataFrame({"item": items, "title": titles, "genres": "Comedy", "ratings": 1})


def test_the_noun_of_the_data_is_used():
    with pytest.raises(ValueError, match="give at least one book"):
        Recommender(CountingUp(), Vocabulary(np.arange(1, 21)), ITEMS, "book").recommend([])
