import numpy as np
import pandas as pd
import pytest

from bertrec_utils.recommend import NewerTitle, Recommender, TitleIndex, UnknownTitle, normalise
from bertrec_utils.releases import Interactions
from bertrec_utils.sequences import Vocabulary

HARD = {
    1: "Avengers, The (2012)",
    2: "Avengers, The (1998)",
    3: "The Lego Movie (2014)",
    4: "Amelie (Fabuleux destin d'Amélie Poulain, Le) (2001)",
    5: "Léon: The Professional (a.k.a. The Professional) (Léon) (1994)",
    6: "WALL·E (2008)",
    7: "Misérables, Les (1995)",
    8: "War of the Worlds (2005)",
    9: "War of the Worlds (2005)",
    10: "Ghostbusters (a.k.a. Ghost Busters) (1984)",
    11: "Ghostbusters (2016)",
    12: "Toy Story 3 (2010)",
    13: "Seven (a.k.a. Se7en) (1995)",
    14: "Harry Potter and the Sorcerer's Stone (a.k.a. Harry Potter and the Philosopher's Stone) (2001)",
    15: "Spider-Man (2002)",
    16: "(500) Days of Summer (2009)",
    17: "Professional, The (1981)",
    18: "Fast & Furious (2009)",
    19: "M (1931)",
    20: "Æon Flux (2005)",
}
MOVIES = pd.DataFrame({"item": list(HARD), "title": list(HARD.values()), "genres": "Comedy"})
POPULARITY = {1: 9, 2: 3, 8: 2, 9: 40, 10: 50, 11: 5, 5: 100}


@pytest.mark.parametrize(
    ("title", "item"),
    [
        ("Avengers, The (2012)", 1),
        ("The Avengers (2012)", 1),
        ("the avengers", 1),  # no year: the one with more ratings
        ("The Avengers (1998)", 2),
        ("The Avengers (1997)", 2),  # one year off
        ("Lego Movie, The (2014)", 3),
        ("lego movie", 3),
        ("Amélie", 4),
        ("Le Fabuleux destin d'Amélie Poulain", 4),
        ("fabuleux destin d'amelie poulain (2001)", 4),
        ("Leon: The Professional", 5),
        ("Léon (1994)", 5),
        ("The Professional (1994)", 5),
        ("The Professional", 17),  # a main name comes before an alias
        ("WALL-E (2008)", 6),
        ("Wall E", 6),
        ("walle", 6),
        ("Les Miserables (1995)", 7),
        ("War of the Worlds (2005)", 9),  # two films, one title: the one with more ratings
        ("Ghost Busters (1984)", 10),
        ("Ghostbusters (a.k.a. Ghost Busters) (1984)", 10),
        ("Ghostbusters (2016)", 11),
        ("Ghostbusters", 10),
        ("Se7en", 13),
        ("Harry Potter and the Philosopher\u2019s Stone", 14),
        (HARD[14], 14),
        ("spiderman", 15),
        ("(500) Days of Summer (2009)", 16),
        ("Fast and Furious", 18),
        ("m", 19),
        ("Aeon Flux", 20),
    ],
)
def test_title_look_up_on_hard_cases(title, item):
    assert TitleIndex(MOVIES, POPULARITY).find(title) == item


def test_a_sequel_is_not_its_neighbour():
    index = TitleIndex(MOVIES, POPULARITY)
    for title in ("Toy Story 2 (1999)", "Toy Story", "Avengers, The (2005)"):
        with pytest.raises(UnknownTitle):
            index.find(title)


def test_unknown_title_lists_the_closest():
    with pytest.raises(
        UnknownTitle, match=r"'Toy Storry 3' is not a title here; closest: Toy Story 3 \(2010\)"
    ) as raised:
        TitleIndex(MOVIES).find("Toy Storry 3")
    assert raised.value.closest[0] == "Toy Story 3 (2010)"


def test_newer_title_is_named_as_such():
    with pytest.raises(NewerTitle, match=r"'Toy Story 4 \(2019\)' is newer than this release.* 2016"):
        TitleIndex(MOVIES).find("Toy Story 4 (2019)")


@pytest.mark.parametrize("title", ["", "   ", "(2001)", "!!!", "日本"])
def test_a_title_of_nothing_is_unknown_and_like_nothing(title):
    with pytest.raises(UnknownTitle) as raised:
        TitleIndex(MOVIES).find(title)
    assert raised.value.closest == []


def test_an_alias_never_overrides_the_main_name_asked_for():
    assert TitleIndex(MOVIES, POPULARITY).find("M (a.k.a. Ghostbusters)") == 19


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Star Wars", "Star Wars: Episode IV - A New Hope (1977)"),
        (
            "Harry Potter",
            "Harry Potter and the Sorcerer's Stone (a.k.a. Harry Potter and the Philosopher's Stone) (2001)",
        ),
        ("Borat", "Borat: Cultural Learnings of America for Make Benefit Glorious Nation of Kazakhstan (2006)"),
        ("Dr. Strangelove", "Dr. Strangelove or: How I Learned to Stop Worrying and Love the Bomb (1964)"),
        ("Pulp Fictoin", "Pulp Fiction (1994)"),
    ],
)
def test_suggestions_are_what_a_person_meant(bundled, title, expected):
    index = TitleIndex(bundled.movies, bundled.ratings.item.value_counts())
    assert index.closest(title)[0] == expected


def test_names_that_are_only_an_article_survive():
    assert normalise("A") == "a" and normalise("The") == "the"


def test_every_bundled_title_finds_itself_or_its_double(bundled):
    index = TitleIndex(bundled.movies, bundled.ratings.item.value_counts())
    titles = dict(zip(bundled.movies.item, bundled.movies.title, strict=True))
    for title in bundled.movies.title:
        assert titles[index.find(title)] == title


class CountingUp:
    """Scores item j as j: the highest id is best."""

    def score(self, histories):
        return np.tile(np.arange(20, dtype=np.float32), (len(histories), 1))


@pytest.fixture
def recommender():
    ratings = pd.DataFrame({"item": np.repeat(list(POPULARITY), list(POPULARITY.values()))})
    return Recommender(CountingUp(), Vocabulary(np.arange(1, 21)), Interactions("test", ratings, MOVIES))


def test_best_unseen_films_in_order(recommender):
    table = recommender.recommend(["Æon Flux (2005)", "Fast & Furious"], k=3)
    assert table.item.tolist() == [19, 17, 16]
    assert table["rank"].tolist() == [1, 2, 3]
    assert table.title.tolist() == [HARD[19], HARD[17], HARD[16]]
    assert list(table) == ["rank", "item", "title", "genres", "score"]
    assert table.score.is_monotonic_decreasing


def test_asking_for_all_gives_all_unseen_once(recommender):
    table = recommender.recommend(["Spider-Man", "Spider-Man (2002)", "M"], k=99)
    assert sorted(table.item) == [item for item in HARD if item not in (15, 19)]


def test_newer_films_are_named_and_the_rest_is_used(recommender):
    table = recommender.recommend(["Toy Story 4 (2019)", "Æon Flux"], k=1)
    assert table.attrs["unknown"] == ["Toy Story 4 (2019)"]
    assert table.item.tolist() == [19]


def test_errors(recommender):
    with pytest.raises(UnknownTitle, match="closest"):
        recommender.recommend(["Toy Storry 3", "M"])
    with pytest.raises(ValueError, match="history is empty"):
        recommender.recommend([])
    with pytest.raises(ValueError, match=r"none of 'Toy Story 4 \(2019\)' is known"):
        recommender.recommend(["Toy Story 4 (2019)"])
    with pytest.raises(ValueError, match="at least one"):
        recommender.recommend(["M"], k=0)
    with pytest.raises(TypeError, match="list of titles"):
        recommender.recommend("M")


def test_log_without_the_models_items_is_refused(recommender):
    log = Interactions("other", pd.DataFrame({"item": [1]}), MOVIES[:5])
    with pytest.raises(ValueError, match="does not name 15 of the model's items"):
        Recommender(recommender.model, recommender.vocabulary, log)


def test_film_with_too_few_ratings_is_explained(recommender):
    few = Recommender(
        recommender.model, Vocabulary(np.arange(1, 20)), Interactions("test", pd.DataFrame({"item": [1]}), MOVIES)
    )
    with pytest.raises(UnknownTitle, match="too few ratings"):
        few.recommend(["Æon Flux"])
