"""Every figure of the notebooks. Each function takes data, draws on `ax` (or a new one) and returns the Axes."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

THOUSANDS = StrMethodFormatter("{x:,.0f}")
LINES = list(zip("os^DvPX", ("-", "--", "-.", ":", "-", "--", "-."), strict=True))  # for readers in greyscale
TOKEN_COLORS = ListedColormap(["#f0f0f0", "#9ecae1", "#e6850d"])  # PAD, item, [MASK]: three greys in print


def use_style() -> None:
    """Colour-blind safe colours on a quiet grid, sharp on screen; $ in a displayed table is a dollar, no formula."""
    pd.set_option("display.html.use_mathjax", False)
    figures = {"figure.figsize": (7, 3.6), "figure.dpi": 80, "figure.constrained_layout.use": True}
    sns.set_theme(style="whitegrid", palette="colorblind", rc=figures | {"axes.titleweight": "bold"})


def _axes(ax: Axes | None, **size: Any) -> Axes:
    return ax if ax is not None else plt.subplots(**size)[1]


def plot_popularity(counts: np.ndarray, ax: Axes | None = None) -> Axes:
    """The long tail, added up: which share of all ratings the most rated films have; `counts` are (V,)."""
    ax = _axes(ax)
    shares = np.sort(counts)[::-1].cumsum() / counts.sum()
    head = int(np.searchsorted(shares, 0.5)) + 1
    ax.plot(np.arange(1, len(shares) + 1), shares)
    ax.plot([head, head], [0, shares[head - 1]], color="black", ls="--")
    ax.annotate(f"{head:,} films:\nhalf of all ratings", (head, 0.5), (8, -4), textcoords="offset points", va="top")
    ax.set(xlabel="number of films, the most rated first", ylabel="share of all ratings", xlim=(0, None), ylim=(0, 1))
    ax.set(title="A few films get most ratings")
    ax.xaxis.set_major_formatter(THOUSANDS)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    return ax


def plot_history_lengths(lengths: np.ndarray, seen: int | None = None, ax: Axes | None = None) -> Axes:
    """How many films each user rated, on a log scale; `seen` marks the most that a model reads."""
    ax = _axes(ax)
    sns.histplot(x=lengths, log_scale=True, bins=40, ax=ax)
    ax.axvline(np.median(lengths), color="black", ls="--", label=f"median: {np.median(lengths):.0f} films")
    if seen:
        ax.axvline(seen, color="C3", ls="-.", label=f"the model reads the last {seen}")
    ax.set(xlabel="films in the history (log scale)", ylabel="users")
    ax.set(title="Most histories are short, a few are very long")
    ax.xaxis.set_major_formatter(THOUSANDS)
    ax.legend()
    return ax


def plot_sittings(seconds: np.ndarray, ax: Axes | None = None) -> Axes:
    """The time from each user's first rating to the last, in seconds (U,); 0 is drawn as 1."""
    ax = _axes(ax)
    sns.histplot(x=np.maximum(seconds, 1), log_scale=True, bins=40, ax=ax)
    where = {"transform": ax.get_xaxis_transform(), "va": "bottom", "ha": "center", "fontsize": 9}
    for name, days in {"minute": 1 / 1440, "hour": 1 / 24, "day": 1, "month": 30, "year": 365}.items():
        ax.axvline(86_400 * days, color="black", lw=1, ls=":")
        ax.text(86_400 * days, 1, f"1 {name}", where)
    ax.set(xlabel="seconds from the first rating to the last (log scale)", ylabel="users")
    ax.set_title("Most people rate in one sitting", pad=18)
    return ax


def plot_tokens(
    tokens: np.ndarray, mask_token: int, row_labels: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """A batch of token sequences (B, T) as a grid: PAD, items and [MASK] in their own colours."""
    tokens = np.asarray(tokens)
    kinds = np.select([tokens == 0, tokens == mask_token], [0, 2], default=1)
    texts = np.select([kinds == 0, kinds == 2], ["PAD", "[MASK]"], tokens.astype(str))
    row_labels = row_labels or [f"user {row + 1}" for row in range(len(tokens))]
    return _grid(kinds, texts, row_labels, "Tokens", ax, cmap=TOKEN_COLORS, vmin=0, vmax=2)


def plot_visible(
    visible: np.ndarray, row_labels: Sequence[str], title: str, prefix: int | None = None, ax: Axes | None = None
) -> Axes:
    """What each row may see (columns are positions): `visible` (Q, T) bool. A line marks the end of a `prefix`."""
    visible = np.asarray(visible)
    ax = _grid(visible, np.where(visible, "sees", ""), row_labels, title, ax, cmap="Greys_r", vmin=-0.3, vmax=1)
    if prefix:
        ax.axvline(prefix, color="C3", lw=3)
    return ax


def _grid(
    values: np.ndarray, texts: np.ndarray, row_labels: Sequence[str], title: str, ax: Axes | None, **colors: Any
) -> Axes:
    rows, columns = values.shape
    ax = _axes(ax, figsize=(min(10, 1.5 + 0.75 * columns), 0.9 + 0.38 * rows))
    cells = {"annot": texts, "fmt": "", "annot_kws": {"fontsize": 9, "color": "black"}, "linewidths": 0.5}
    sns.heatmap(values, yticklabels=row_labels, cbar=False, linecolor="grey", ax=ax, **cells, **colors)
    ax.set(xlabel="position", title=title)
    ax.tick_params("y", rotation=0)
    return ax


def plot_network(ax: Axes | None = None) -> Axes:
    """The paper's network, drawn from the bottom up: what happens to a history of five films of which one is masked."""
    ax = _axes(ax, figsize=(10, 7.2))
    tokens, masked = ["11", "12", "[MASK]", "14", "15"], 2
    colors = [TOKEN_COLORS(2 if position == masked else 1) for position in range(len(tokens))]
    for position, (token, color) in enumerate(zip(tokens, colors, strict=True)):
        _box(ax, position + 0.1, 0, 0.8, token, color)
        _box(ax, position + 0.02, 1, 0.96, f"embedding of {token}\n+ of position {position}", "white")
        _box(ax, position + 0.1, 6.35, 0.8, "state", color)
        for start, end in ((0.6, 1), (1.6, 2.1), (5.85, 6.35)):
            _arrow(ax, position + 0.5, start, end)
    block = ("attention over all films", "add, layer norm", "feed-forward, at each position", "add, layer norm")
    for height, layer in enumerate(("layer norm", *block)):
        _box(ax, 0.1, 2.1 + 0.75 * height, 4.8, layer, "white" if "norm" in layer else "0.88")
    ax.text(5.05, 4.3, "one block;\nthe paper\nstacks two", va="center")
    _arrow(ax, masked + 0.5, 6.95, 7.45)
    output = "project, layer norm, then a dot product with every item embedding: V scores (equation 7)"
    _box(ax, 0.1, 7.45, 4.8, output, "white")
    _arrow(ax, masked + 0.5, 8.05, 8.55)
    _box(ax, 1.3, 8.55, 2.4, "softmax: P(film) behind [MASK]", colors[masked])
    ax.set(xlim=(0, 6), ylim=(-0.1, 9.25), title="BERT4Rec, from the history (below) to an answer")
    ax.axis("off")
    return ax


ATTENTION, FEED_FORWARD, CONVOLUTION = "attention", "feed-forward, at each position", "convolution: films just before"
BLOCKS = {  # title -> its layers from the bottom up, and what goes past them: from x and height to a + at a height
    "The paper's block": (
        [ATTENTION, "+", "layer norm", FEED_FORWARD, "+", "layer norm"],
        [(2.5, -0.4, 1), (2.5, 2.75, 4)],
    ),
    "Norm first": (
        ["layer norm", ATTENTION, "+", "layer norm", FEED_FORWARD, "+"],
        [(2.5, -0.4, 2), (2.5, 2.75, 5)],
    ),
    "With a convolution": (
        ["layer norm", CONVOLUTION, ATTENTION, "+", "layer norm", FEED_FORWARD, "+"],
        [(2.5, -0.4, 3), (4.5, 1.3, 3), (2.5, 3.75, 6)],
    ),
}


def plot_blocks(*titles: str) -> np.ndarray:
    """Blocks of BLOCKS side by side, from the bottom up. Blue is a residual: what came in is added at the +."""
    _, axes = plt.subplots(1, len(titles), figsize=(9.5, 5))
    for ax, title in zip(axes, titles, strict=True):
        layers, residuals = BLOCKS[title]
        for height, layer in enumerate([*layers, ""]):
            _arrow(ax, 2.5, height - 0.4, height)
            if layer:
                left, width = (2.2, 0.6) if layer == "+" else (0.5, 4)
                _box(ax, left, height, width, layer, "white" if layer in ("+", "layer norm") else "0.88")
        for left, start, end in residuals:
            ax.plot([left, 4.7, 4.7], [start, start, end + 0.3], color="C0", lw=2)
            ax.annotate("", (2.8, end + 0.3), (4.7, end + 0.3), arrowprops={"arrowstyle": "->", "color": "C0"})
        ax.set(xlim=(0, 5), ylim=(-0.6, 7.2), title=title)
        ax.axis("off")
    return axes


def _box(ax: Axes, left: float, bottom: float, width: float, text: str, color: Any) -> None:
    ax.add_patch(plt.Rectangle((left, bottom), width, 0.6, facecolor=color, edgecolor="0.3"))
    ax.text(left + width / 2, bottom + 0.3, text, ha="center", va="center", fontsize=9.5)


def _arrow(ax: Axes, x: float, start: float, end: float) -> None:
    ax.annotate("", (x, end), (x, start), arrowprops={"arrowstyle": "->", "color": "0.3"})


def plot_attention(
    weights: np.ndarray, columns: Sequence[str], rows: Sequence[str], title: str, ax: Axes | None = None
) -> Axes:
    """Attention weights (Q, T): each row is a query, whose weights sum to one over the positions it sees."""
    ax = _axes(ax, figsize=(9, 1.6 + 0.6 * len(rows)))
    table = pd.DataFrame(np.asarray(weights), rows, columns)
    sns.heatmap(table, cmap="Greys", vmin=0, vmax=1, annot=True, fmt=".2f", ax=ax, cbar=False, linewidths=0.5)
    ax.set_title(title)
    ax.set_xticklabels(columns, rotation=35, ha="right")
    ax.tick_params("y", rotation=0)
    return ax


def plot_training_curves(
    histories: Mapping[str, pd.DataFrame], references: Mapping[str, float] | None = None
) -> np.ndarray:
    """Loss and validation NDCG@10 by minutes, one line per run; a star is the best epoch, `references` are horizontal
    lines. A run with a column `validation_loss` has a second, thin line for it."""
    _, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    _lines(left, {f"{name}, training": (history.seconds / 60, history.loss) for name, history in histories.items()})
    plot_quality_by_minutes(histories, references, right).legend().remove()  # that of the left one serves both
    for number, (name, history) in enumerate(histories.items()):
        if "validation_loss" in history:
            label = f"{name}, validation"
            left.plot(history.seconds / 60, history.validation_loss, lw=1, color=f"C{number}", label=label)
        best = history.loc[history["ndcg@10"].idxmax()]
        right.plot(best.seconds / 60, best["ndcg@10"], "*", ms=16, color=f"C{number}", mec="black")
    left.set(xlabel="minutes of training", ylabel="cross-entropy (nats per target)", title="Loss")
    left.legend()
    return np.array([left, right])


def plot_quality_by_minutes(
    histories: Mapping[str, pd.DataFrame], references: Mapping[str, float] | None = None, ax: Axes | None = None
) -> Axes:
    """Validation NDCG@10 by minutes of training, one line per run; `references` are horizontal lines."""
    ax = _axes(ax, figsize=(9, 4.5))
    _lines(ax, {name: (history.seconds / 60, history["ndcg@10"]) for name, history in histories.items()})
    where = {"transform": ax.get_yaxis_transform(), "ha": "right", "va": "bottom", "fontsize": 9, "color": "dimgrey"}
    for number, (name, value) in enumerate((references or {}).items()):
        ax.axhline(value, color="grey", ls=LINES[number][1], lw=1)
        ax.text(1, value, name, where)
    ax.set(xlabel="minutes of training", ylabel="NDCG@10, full ranking", title="Validation NDCG@10 by time")
    ax.set(xlim=(0, None), ylim=(0, None))
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


def _lines(ax: Axes, curves: Mapping[str, tuple]) -> None:
    for (name, (across, up)), (marker, line) in zip(curves.items(), cycle(LINES), strict=False):
        ax.plot(across, up, marker=marker, ls=line, markevery=max(1, len(up) // 10), label=name)


def plot_metric_at_k(tables: Mapping[str, Mapping[str, float]], metric: str = "ndcg", ax: Axes | None = None) -> Axes:
    """`metric` ("hit", "ndcg" or "mrr") at each cutoff, one line per model; `tables`: model -> metrics of its ranks."""
    ax = _axes(ax)
    cutoffs = [int(key.split("@")[1]) for key in next(iter(tables.values())) if key.startswith(metric + "@")]
    _lines(ax, {name: (cutoffs, [table[f"{metric}@{k}"] for k in cutoffs]) for name, table in tables.items()})
    label = {"hit": "Hit", "ndcg": "NDCG", "mrr": "MRR"}[metric]
    ax.set(xlabel="length of the list, k", ylabel=f"{label}@k", title=f"{label}@k by model")
    ax.set(xticks=cutoffs, ylim=(0, 1.5 * ax.get_ylim()[1]))  # room for the legend
    ax.legend(loc="upper left")
    return ax


def plot_differences_by_group(
    differences: Mapping[str, np.ndarray], values: np.ndarray, groups: int, label: str, ax: Axes | None = None
) -> Axes:
    """Mean of each difference (U,) in `groups` equally large groups of users by `values` (U,), with 95 % intervals. A
    difference is that of a metric of two models, user by user: only then do intervals tell which of them is better."""
    ax = _axes(ax)
    bins = pd.qcut(pd.Series(values), groups, duplicates="drop")
    ranges = [(max(values.min(), np.floor(bin.left) + 1), np.floor(bin.right)) for bin in bins.cat.categories]
    names = [f"{low:,.0f}-{high:,.0f}" for low, high in ranges]
    for number, (name, of_users) in enumerate(differences.items()):
        grouped = pd.Series(of_users).groupby(bins, observed=True)
        positions = np.arange(len(names)) + (number - (len(differences) - 1) / 2) * 0.15
        marker, _ = LINES[number % len(LINES)]
        ax.errorbar(positions, grouped.mean(), 1.96 * grouped.sem(), fmt=marker, capsize=3, label=name)
    ax.axhline(0, color="0.4", lw=1)
    ax.set_xticks(range(len(names)), names)
    ax.set(xlabel=label, ylabel="difference of NDCG@10", title=f"Who is better, by {label.split(' (')[0]}")
    ax.margins(y=0.25)  # room for the legend
    ax.legend(loc="upper left", ncols=len(differences))
    return ax


def plot_scores(rows: Mapping[str, Mapping], title: str, ax: Axes | None = None) -> Axes:
    """A line per model: `mean`, an interval from `low` to `high` over users, and a tick for each of `seeds`."""
    ax = _axes(ax, figsize=(7, 0.8 + 0.3 * len(rows)))
    positions = np.arange(len(rows))
    table = pd.DataFrame({name: {key: row[key] for key in ("mean", "low", "high")} for name, row in rows.items()}).T
    reach = [table["mean"] - table.low, table.high - table["mean"]]
    ax.errorbar(table["mean"], positions, xerr=reach, fmt="o", capsize=3)
    for position, row in zip(positions, rows.values(), strict=True):
        ax.plot(row["seeds"], np.full(len(row["seeds"]), position), "|", color="black", ms=12)
    ax.set_yticks(positions, rows)
    ax.set(xlabel="NDCG@10, full ranking, test", title=title, xlim=(0, None))
    ax.locator_params("x", nbins=6)
    ax.invert_yaxis()
    return ax


def plot_comparison(
    scores: Mapping[str, tuple], differences: Mapping[str, tuple], own: str, margin: float
) -> np.ndarray:
    """The NDCG@10 of each model, and that of `own` less that of each other one, as mean, low and high of an interval;
    a difference whose interval lies within the grey band of +-`margin` does not matter."""
    names = sorted(scores, key=lambda name: -scores[name][0])
    _, axes = plt.subplots(1, 2, figsize=(11, 1.2 + 0.3 * len(names)), sharey=True, layout="constrained")
    axes[1].axvspan(-margin, margin, color="0.85")
    axes[1].axvline(0, color="0.4", lw=1)
    for ax, intervals in zip(axes, (scores, differences), strict=True):
        for name, (mean, low, high) in intervals.items():
            reach, color = [[mean - low], [high - mean]], "C3" if name == own else "C0"
            ax.errorbar(mean, names.index(name), xerr=reach, fmt="o", capsize=3, color=color)
        ax.locator_params("x", nbins=6)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set(xlabel="NDCG@10, full ranking, test", ylim=(len(names) - 0.5, -0.5))
    axes[1].set(xlabel=f"{own} less the model of the row")
    return axes


def plot_ladder(scores: pd.DataFrame, title: str) -> np.ndarray:
    """One bar a rung (row) in a panel for each protocol (column)."""
    _, axes = plt.subplots(1, scores.shape[1], figsize=(11, 0.9 + 0.36 * len(scores)), sharey=True)
    for ax, protocol in zip(axes, scores, strict=True):
        ax.barh(scores.index, scores[protocol], color="C0", alpha=0.55)
        for row, value in enumerate(scores[protocol]):
            ax.text(value, row, f" {value:.3f}", va="center", fontsize=9)
        ax.set(xlabel="NDCG@10", title=protocol, xlim=(0, 1.25 * scores[protocol].max()))
    axes[0].invert_yaxis()
    axes[0].figure.suptitle(title)
    return axes
