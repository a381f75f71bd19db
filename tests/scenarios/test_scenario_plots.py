import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.cbook import is_math_text
from matplotlib.text import Text

from bertrec_utils.common import PROJECT
from bertrec_utils.data.grouplens import read_movies
from bertrec_utils.data.releases import with_familiar_names
from bertrec_utils.scenarios.plots import (
    InteractiveMap,
    label_of,
    map_films,
    plot_contributions,
    plot_map,
    series_rank,
    shorten,
)
from bertrec_utils.scenarios.recommender import Recommender
from bertrec_utils.scenarios.titles import TitleIndex, known_series, scenarios, series_of
from bertrec_utils.training.checkpoints import load

DOLLARS = [
    "was $9, now $5",
    "A$$hole (2000)",
    "USB_A $3 to USB_C_B $5",
    "Save $5 & 10% now, $3 off",
    "$ (Dollars) (1971)",
]


@pytest.fixture(scope="module")
def films():
    checkpoint = load(PROJECT / "pretrained" / "small")
    recommender = Recommender(checkpoint.model, checkpoint.vocabulary, checkpoint.load_items())
    return map_films(recommender, min_ratings=150)


def test_the_map_has_each_well_known_film_once(films):
    assert films.item.is_unique and (films.ratings >= 150).all() and len(films) > 100
    assert np.isfinite(films[["x", "y"]]).all().all()
    matrix = films[films.title == "Matrix, The (1999)"].iloc[0]
    assert (matrix.year, matrix.decade, matrix.genre, matrix.series) == (1999, "1990s", "Action", "Matrix")


def test_the_picture_draws_the_named_series(films):
    ax = plot_map(films, "ratings", "a map", ("Star Wars", "Matrix", "no such series"))
    for number, series in enumerate(("Star Wars", "Matrix")):
        years = films.year[films.series == series].sort_values()
        labels = [text.get_text() for text in ax.texts[2 * number : 2 * number + 2]]
        assert labels == [f"{series} {years.iloc[0]}", f"{series} {years.iloc[-1]}"]
        assert len(ax.lines[number].get_xdata()) == len(years)
    assert len(ax.texts) == 4
    dots, colours = ax.collections[0].get_offsets(), ax.collections[0].get_array()
    assert np.allclose(dots, films[["x", "y"]]) and np.allclose(colours, films.ratings)
    plt.close(ax.figure)


def test_the_interactive_map_holds_its_data(films):
    chart = InteractiveMap(films).specification()
    again = pd.read_csv(io.StringIO(chart["data"]["values"]), keep_default_na=False)
    assert again.title.tolist() == films.title.tolist()
    assert {parameter["name"] for parameter in chart["params"]} == {"search", "colour"}


def drawn_texts(figure):
    """All texts of a figure as they are on the picture; none of them is a formula, and drawing it is no error."""
    figure.savefig(io.BytesIO(), format="png")
    texts = [text.get_text() for text in figure.findobj(Text) if text.get_visible()]
    plt.close(figure)
    assert not any(map(is_math_text, texts))
    return [text.replace(r"\$", "$") for text in texts]


@pytest.mark.parametrize("title", DOLLARS)
def test_a_label_is_as_wide_as_its_title(title):
    """Not shorter, as a formula would be, and without a backslash."""
    figure, ax = plt.subplots()
    label, plain = ax.text(0, 0, label_of(title, 60)), ax.text(0, 0, title, parse_math=False)
    assert label.get_window_extent().bounds == plain.get_window_extent().bounds
    plt.close(figure)


@pytest.mark.filterwarnings("ignore:The set_bad function:PendingDeprecationWarning")  # seaborn's own
def test_dollars_in_contributions_are_drawn():
    gains = pd.DataFrame(np.arange(10.0).reshape(2, 5) - 4, index=[1, 2], columns=[1, 2, 3, 4, 5])
    texts = drawn_texts(plot_contributions(gains, dict(enumerate(DOLLARS, 1)), "prices").figure)
    assert {title: texts.count(title) for title in DOLLARS} == dict(zip(DOLLARS, [2, 2, 1, 1, 1], strict=True))


def test_dollars_on_the_map_are_drawn():
    table = pd.DataFrame({"x": [0.0, 1.0, 2.0], "y": [0.0, 1.0, 0.0], "ratings": [10, 20, 30], "year": [1, 2, 3]})
    table = table.assign(series=["was $9, now $5"] * 2 + [""])
    texts = drawn_texts(plot_map(table, "year", "a map", ("was $9, now $5",)).figure)
    assert {"was $9, now $5 1", "was $9, now $5 2"} <= set(texts)


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
    items = read_movies(PROJECT / "data" / "ml-5k" / "movies.csv.xz", ",", "utf-8")
    names = pd.read_csv(PROJECT / "bertrec_utils" / "data" / "titles.csv")
    titles = items.set_index("item").title
    assert (titles.reindex(names["item"]).to_numpy() == names.title).all()
    series = known_series()
    assert series.index.is_unique
    shown = with_familiar_names(titles)
    both = series[series["item"].isin(shown.index)]
    assert (shown[both["item"]].to_numpy() == both.index).all()
    assert (series_of(shown) == "Harry Potter").sum() == 8


def test_the_films_of_the_scenarios_are_bundled(bundled):
    table, index = scenarios(), TitleIndex(bundled.item_table())
    assert list(table.columns) == ["scenario", "list", "rank", "title"]
    films = table.title.map(index.find)
    assert not films.groupby([table.scenario, table["list"]]).apply(lambda of_list: of_list.duplicated().any()).any()
    histories = table[table["list"] == "history"].groupby("scenario").title.count()
    assert histories.to_dict() == {"Harry Potter": 4, "Marvel": 7, "Pixar": 8}
