import numpy as np
import pandas as pd
import pytest

from bertrec_utils.logs import Interactions
from bertrec_utils.recommend import Recommender
from bertrec_utils.sequences import Vocabulary
from bertrec_utils.titles import UnknownTitle

TITLES = {
    **{item: f"Film {item} (1999)" for item in range(1, 15)},
    15: "Spider-Man (2002)",
    16: "(500) Days of Summer (2009)",
    17: "Professional, The (1981)",
    18: "Fast & Furious (2009)",
    19: "M (1931)",
    20: "Æon Flux (2005)",
}
MOVIES = pd.DataFrame({"item": list(TITLES), "title": list(TITLES.values()), "genres": "Comedy"})
RATINGS = pd.DataFrame({"item": list(TITLES)})


class CountingUp:
    """Scores item j as j: the highest id is best."""

    def score(self, histories):
        return np.tile(np.arange(20, dtype=np.float32), (len(histories), 1))


@pytest.fixture
def recommender():
    return Recommender(CountingUp(), Vocabulary(np.arange(1, 21)), Interactions("test", RATINGS, MOVIES))


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
    with pytest.raises(ValueError, match="at least one"):
        recommender.recommend(["M"], k=0)
    with pytest.raises(TypeError, match="list of titles"):
        recommender.recommend("M")


def test_log_without_the_models_items_is_refused(recommender):
    log = Interactions("other", RATINGS, MOVIES[:5])
    with pytest.raises(ValueError, match="does not name 15 of the model's items"):
        Recommender(recommender.model, recommender.vocabulary, log)


def test_film_with_too_few_ratings_is_explained(recommender):
    few = Recommender(recommender.model, Vocabulary(np.arange(1, 20)), Interactions("test", RATINGS, MOVIES))
    with pytest.raises(UnknownTitle, match="too few ratings"):
        few.recommend(["Æon Flux"])
