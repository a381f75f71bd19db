"""Figures of notebook 05: why something is recommended, and a map of all films."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from sklearn.manifold import TSNE

from .recommender import Recommender
from .titles import names_of, split_year

VEGA_LITE = "application/vnd.vegalite.v5+json"


def label_of(title: str, most: int) -> str:
    """A title ready for matplotlib: shortened, with $ escaped, which would start a formula."""
    return shorten(title, most).replace("$", r"\$")


def shorten(title: str, most: int) -> str:
    """A title of at most `most` characters: the aliases go first, then letters; the year survives."""
    if len(title) > most:
        year = split_year(title)[1]
        title = names_of(title)[:2][-1] + (f" ({year})" if year else "")
    if len(title) <= most:
        return title
    ending = title[-6:] if split_year(title)[1] else ""
    return title[: most - len(ending) - 3].rstrip() + f"… {ending}".rstrip()


def plot_contributions(gains: pd.DataFrame, titles: Mapping[int, str], title: str, ax: Axes | None = None) -> Axes:
    """What each film of a history (rows) contributes to each recommended one (columns): `Recommender.explain`. Both are
    in the order of their years."""
    if ax is None:
        _, ax = plt.subplots(figsize=(2.5 + 0.75 * len(gains.columns), 1.8 + 0.45 * len(gains)))
    rows, columns = (sorted(axis, key=lambda item: split_year(titles[item])[1] or 0) for axis in gains.axes)
    named = gains.loc[rows, columns].rename(lambda item: label_of(titles[item], 34), axis=0)
    named = named.rename(lambda item: label_of(titles[item], 34), axis=1)
    label = {"label": "contribution to the log-probability"}
    sns.heatmap(named, center=0, cmap="RdBu", annot=True, fmt=".1f", ax=ax, cbar_kws=label)
    ax.set(title=title, xlabel="recommended film", ylabel="film of the history")
    ax.set_xticklabels(ax.get_xticklabels(), rotation=35, ha="right")
    return ax


def map_films(recommender: Recommender, min_ratings: int = 30, seed: int = 0) -> pd.DataFrame:
    """The films with at least `min_ratings` ratings on a map: item, title, year, decade, genre (the first), ratings,
    series and the position x, y, from the model's item embeddings by t-SNE (van der Maaten & Hinton, 2008)."""
    films = recommender.items.loc[recommender.vocabulary.items].reset_index(names="item")
    is_shown = (films.ratings >= min_ratings).to_numpy()
    if is_shown.sum() < 4:
        raise ValueError(f"only {is_shown.sum()} films have {min_ratings} ratings; ask for fewer")
    vectors = recommender.item_vectors()[is_shown]
    perplexity = min(30, (len(vectors) - 1) / 3)
    positions = TSNE(metric="cosine", init="pca", perplexity=perplexity, random_state=seed).fit_transform(vectors)
    films = films[is_shown].reset_index(drop=True).astype({"ratings": int})
    films["year"] = films.title.map(lambda title: split_year(title)[1]).astype("Int64")
    films["decade"] = (films.year // 10 * 10).astype(str) + "s"
    films["genre"] = films.genres.str.split("|").str[0]
    films[["x", "y"]] = positions
    return films[["item", "title", "year", "decade", "genre", "ratings", "series", "x", "y"]]


def plot_map(films: pd.DataFrame, colour: str, title: str, named: tuple[str, ...] = (), ax: Axes | None = None) -> Axes:
    """The map as a picture, coloured by the numbers in the column `colour`. A line joins the films of each `named`
    series in the order of their years, in a colour of its own; its ends are labelled."""
    ax = ax if ax is not None else plt.subplots()[1]
    sizes = 4 + 86 * films.ratings / films.ratings.max()
    dots = ax.scatter(films.x, films.y, sizes, films[colour].astype(float), cmap="viridis_r", alpha=0.8)
    ax.figure.colorbar(dots, ax=ax, label=colour)
    look: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": 11}
    for number, (series, line, color) in enumerate(
        zip(named, cycle(("-", "--", ":")), cycle(("C3", "black", "C4")), strict=False)
    ):
        of_series = films[films.series == series].sort_values("year")
        ax.plot(of_series.x, of_series.y, color=color, linestyle=line, linewidth=2)
        look["bbox"] = {"facecolor": "white", "edgecolor": color, "pad": 2}
        look["arrowprops"] = {"arrowstyle": "-", "color": color}
        for end, up in ((0, 1), (-1, -1)) if len(of_series) else ():
            film = of_series.iloc[end]
            ax.annotate(label_of(f"{series} {film.year}", 60), (film.x, film.y), (0, up * (16 + 28 * number)), **look)
    ax.set(title=title, xlabel="", ylabel="", xticks=[], yticks=[])
    return ax


class InteractiveMap:
    """The map to play with in JupyterLab, which draws Vega-Lite itself: hover, zoom, colour, search."""

    def __init__(self, films: pd.DataFrame):
        self.films = films

    def specification(self) -> dict[str, Any]:
        """As Vega-Lite 5 describes a chart."""
        is_lit = "indexof(lower(datum.title + ' ' + datum.series), lower(search)) >= 0"
        of_lit_series = {"test": "search && indexof(lower(datum.series), lower(search)) >= 0", "value": 1}
        position = {axis: {"field": axis, "type": "quantitative", "axis": None} for axis in ("x", "y")}
        opacity = {"condition": of_lit_series, "value": 0.2}
        scheme = "colour == 'decade' ? 'viridis' : 'tableau20'"  # in order, or told apart
        series = {
            "transform": [{"filter": "datum.series"}],
            "mark": {"type": "line", "color": "gray", "strokeWidth": 1},
            "encoding": position | {"detail": {"field": "series"}, "order": {"field": "year"}, "opacity": opacity},
        }
        ratings = {"field": "ratings", "type": "quantitative", "scale": {"range": [10, 200]}, "legend": None}
        dots = {
            "params": [{"name": "zoom", "select": "interval", "bind": "scales"}],
            "transform": [{"calculate": "datum[colour]", "as": "group"}],
            "mark": {"type": "circle"},
            "encoding": position
            | {
                "color": {"field": "group", "type": "ordinal", "title": None, "scale": {"scheme": {"expr": scheme}}},
                "size": ratings | {"condition": {"test": f"search && {is_lit}", "value": 300}},
                "opacity": {"condition": {"test": f"!search || {is_lit}", "value": 0.8}, "value": 0.1},
                "tooltip": [{"field": name} for name in ("title", "year", "genre", "ratings", "series")],
            },
        }
        by = ["genre", "decade"]
        table = self.films.round({"x": 1, "y": 1}).drop(columns="item")
        return {
            "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
            "width": 760,
            "height": 560,
            "data": {"values": table.to_csv(index=False), "format": {"type": "csv"}},
            "params": [
                {"name": "search", "value": "", "bind": {"input": "search", "name": "Light up a title or series "}},
                {"name": "colour", "value": "decade", "bind": {"input": "select", "options": by, "name": "Colour by "}},
            ],
            "layer": [series, dots],
            "config": {"view": {"stroke": None}},
        }

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {VEGA_LITE: self.specification(), "text/plain": f"A map of {len(self.films):,} films"}


def series_rank(vectors: np.ndarray, series: np.ndarray) -> float:
    """How near films of one series are: the rank of each other film of its series among a film's neighbours by cosine
    (1 is the nearest), averaged over films. About V / 2 by chance. `vectors` (V, D); `series` (V,) names, "" for none.
    Films alone in their series are left out; NaN if all are."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    means = []
    for film in np.flatnonzero(series != ""):
        others = np.flatnonzero(series == series[film])
        others = others[others != film]
        if len(others):
            similarity = unit @ unit[film]
            similarity[film] = -np.inf
            means.append(np.mean([(similarity >= similarity[other]).sum() for other in others]))
    return float(np.mean(means)) if means else float("nan")
