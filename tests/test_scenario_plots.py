import io

import numpy as np
import pandas as pd
import pytest

from bertrec_utils.training.checkpoints import load
from bertrec_utils.common import PROJECT
from bertrec_utils.scenarios.plots import InteractiveMap, map_films, plot_map, series_rank, shorten
from bertrec_utils.data.logs import read_movies
from bertrec_utils.scenarios.recommender import Recommender
from bertrec_utils.scenarios.titles import familiar, known_series, series_of


@pytest.fixture(scope="module")
def films():
    checkpoint = load(PROJECT / "pretrained" / "ml-latest-2k")
    recommender = Recommender(checkpoint.model, checkpoint.vocabulary, checkpoint.load_dataset().log)
    return map_films(recommender, least=150)


def test_the_map_has_each_well_known_film_once(films):
    assert films.item.is_unique and (films.ratings >= 150).all() and len(films) > 100
    assert np.isfinite(films[["x", "y"]]).all().all()
    matrix = films[films.title == "Matrix, The (1999)"].iloc[0]
    assert (matrix.year, matrix.decade, matrix.genre, matrix.series) == (1999, "1990s", "Action", "Matrix")


def test_the_picture_draws_the_named_series(films):
    ax = plot_map(films, "a map", ("Star Wars", "Matrix"))
    assert {text.get_text() for text in ax.texts} == {"Star Wars", "Matrix"}
    drawn = [len(line.get_xdata()) for line in ax.lines if len(line.get_xdata())]  # others are of the legend
    assert drawn == [(films.series == series).sum() for series in ("Star Wars", "Matrix")]


def test_the_interactive_map_holds_its_data(films):
    chart = InteractiveMap(films).specification()
    again = pd.read_csv(io.StringIO(chart["data"]["values"]), keep_default_na=False)
    assert again.title.tolist() == films.title.tolist()
    assert {parameter["name"] for parameter in chart["params"]} == {"search", "colour"}


def test_rank_of_a_series_by_hand():
    angles = np.radians([0, 10, 20, 90, 100])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1)
    # a at 0 and 20 degrees: each is the other's second neighbour; b at 90 and 100: each the other's first
    assert series_rank(vectors, np.array(["a", "", "a", "b", "b"])) == (2 + 2 + 1 + 1) / 4
    # c alone has nobody to look for
    assert series_rank(vectors, np.array(["a", "c", "a", "", ""])) == 2


def test_short_titles_lose_their_aliases_first():
    assert (
        shorten("Avengers: Endgame (a.k.a. Avengers: Infinity War - Part II) (2019)", 40) == "Avengers: Endgame (2019)"
    )
    cut = shorten("Dr. Strangelove or: How I Learned to Stop Worrying and Love the Bomb (1964)", 30)
    assert len(cut) <= 30 and cut.endswith("(1964)")


def test_the_tables_of_names_fit_the_bundled_films():
    items = read_movies(PROJECT / "data" / "ml-latest-2k" / "items.csv", ",", "utf-8")
    names = pd.read_csv(PROJECT / "data" / "titles.csv")
    titles = items.set_index("item").title
    assert (titles.reindex(names["item"]).to_numpy() == names.title).all()
    series = known_series()
    assert series.index.is_unique
    shown = familiar(titles)
    both = series[series["item"].isin(shown.index)]
    assert (shown[both["item"]].to_numpy() == both.index).all()
    assert (series_of(shown) == "Harry Potter").sum() == 8
