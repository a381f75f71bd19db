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
KINDS = {"mixture": ("C1", "D"), "network": ("C0", "o"), "baseline": ("0.4", "s")}  # in every figure, colour and marker
BLUE, ORANGE = "#9ecae1", "#e6850d"
TOKEN_COLORS = ListedColormap(["#f0f0f0", BLUE, ORANGE])  # PAD, item, [MASK]: three greys in print


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
    """The time from each user's first rating to the last, in seconds (U,), on a log scale; 0 is drawn as 1."""
    ax = _axes(ax)
    sns.histplot(x=np.maximum(seconds, 1), log_scale=True, bins=40, ax=ax)
    ticks = {"1 second": 1, "1 minute": 60, "1 hour": 3600, "1 day": 86_400, "1 month": 2.6e6, "1 year": 3.15e7}
    ax.set_xticks(list(ticks.values()), list(ticks))
    ax.minorticks_off()
    at_once = int((np.asarray(seconds) <= 1).sum())
    note = f"{at_once} users:\none rating,\nor all within\none second"
    ax.annotate(note, (1, at_once), (0, 4), textcoords="offset points", fontsize=9)
    ax.set(xlabel="from the first rating to the last (log scale)", ylabel="users")
    ax.set(title="Most people rate in one sitting")
    return ax


PARTS = {"training": ("C0", "o"), "validation": ("C1", "s"), "test": ("C3", "D"), "not used": ("0.8", "o")}


def plot_splits(log: pd.DataFrame, splits: Mapping[str, str], title: str, cut: float) -> np.ndarray:
    """The time line of each user (columns user, week) under two splits: `splits` names the columns with the part of
    each item, one of PARTS, and says what such a split does. The second is cut at the week `cut`."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 2.9), sharey=True)
    rows = {user: row for row, user in enumerate(log.user.unique())}
    for ax, (split, subtitle) in zip(axes, splits.items(), strict=True):
        for user, row in rows.items():
            weeks = log.week[log.user == user]
            ax.plot([weeks.min(), weeks.max()], [row, row], color="0.75", zorder=0)
        for part, (color, marker) in PARTS.items():
            of_part = log[log[split] == part]
            look = {"color": color, "marker": marker, "s": 80, "edgecolor": "black", "linewidth": 0.6}
            ax.scatter(of_part.week, of_part.user.map(rows), label=part, **look)
        ax.set(xlabel="week", yticks=range(len(rows)), yticklabels=rows, ylim=(len(rows) - 0.5, -0.5))
        ax.set_title(subtitle, weight="normal", fontsize=11)
        ax.grid(False)
    axes[1].axvline(cut, color="black", ls="--")
    figure.suptitle(title, weight="bold", fontsize=12)
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=len(PARTS), frameon=False)
    return axes


def plot_tokens(
    tokens: np.ndarray, mask_token: int, title: str, row_labels: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """A batch of token sequences (B, T) as a grid: PAD, items and [MASK] in their own colours."""
    tokens = np.asarray(tokens)
    kinds = np.select([tokens == 0, tokens == mask_token], [0, 2], default=1)
    texts = np.select([kinds == 0, kinds == 2], ["PAD", "[MASK]"], tokens.astype(str))
    row_labels = row_labels or [f"user {row + 1}" for row in range(len(tokens))]
    return _grid(kinds, texts, row_labels, title, ax, cmap=TOKEN_COLORS, vmin=0, vmax=2)


def plot_visible(
    visible: np.ndarray,
    row_labels: Sequence[str],
    title: str,
    prefix: int,
    answers: Mapping[int, int],
    ax: Axes | None = None,
) -> Axes:
    """What each row sees (columns are positions), shaded: `visible` (Q, T) bool. A dashed line marks the end of the
    `prefix`, an orange frame the position of each row in `answers`: that of the film it has to guess."""
    ax = _grid(visible, None, row_labels, title, ax, cmap=ListedColormap(["white", BLUE]), vmin=0, vmax=1)
    for row, position in answers.items():
        corner = (position + 0.06, row + 0.06)
        ax.add_patch(plt.Rectangle(corner, 0.88, 0.88, edgecolor=ORANGE, lw=3, fill=False, zorder=3))
    ax.axvline(prefix, color="black", lw=2, ls="--")
    return ax


def _grid(
    values: np.ndarray, texts: np.ndarray | None, row_labels: Sequence[str], title: str, ax: Axes | None, **colors: Any
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
    ax = _axes(ax, figsize=(10, 8))
    tokens, masked, layers = ["11", "12", "[MASK]", "14", "15"], 2, [2.2, 3.2, 4.2, 5.2, 6.2]
    colors = [TOKEN_COLORS(2 if position == masked else 1) for position in range(len(tokens))]
    for position, (token, color) in enumerate(zip(tokens, colors, strict=True)):
        _box(ax, position + 0.1, 0, 0.8, token, color)
        _box(ax, position + 0.02, 1, 0.96, f"vector of {token}\n+ of position {position}", "white")
        _box(ax, position + 0.1, 7.2, 0.8, "state", color)
        for start, end in ((0.6, 1), (1.6, 2.2), *((height + 0.6, height + 1) for height in layers)):
            _arrow(ax, position + 0.5, start, end)
    block = ("attention over all positions", "add, layer norm", "feed-forward, at each position", "add, layer norm")
    for height, layer in zip(layers, ("layer norm", *block), strict=True):
        _box(ax, 0.1, height, 4.8, layer, "white" if "norm" in layer else "0.88")
    for height in layers[1::2]:
        _residual(ax, (4.5, height - 0.2), 5.1, (4.9, height + 1.3))
    ax.text(5.25, 4.9, "one block;\nthe paper\nstacks two\n\nblue: what\ncame in\nis added", va="center")
    _arrow(ax, masked + 0.5, 7.8, 8.2)
    output = "project, layer norm, then a dot product with every film's vector: V scores (equation 7)"
    _box(ax, 0.1, 8.2, 4.8, output, "white")
    _arrow(ax, masked + 0.5, 8.8, 9.2)
    _box(ax, 1.3, 9.2, 2.4, "softmax: P(film at the [MASK])", colors[masked])
    ax.set(xlim=(0, 6.1), ylim=(-0.1, 9.9), title="From a history (below) to a guess at the [MASK]")
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


def plot_blocks(message: str, *titles: str) -> np.ndarray:
    """Blocks of BLOCKS side by side, from the bottom up. Blue is a residual: what came in is added at the +."""
    figure, axes = plt.subplots(1, len(titles), figsize=(9.5, 5))
    figure.suptitle(message, weight="bold")
    top = max(len(BLOCKS[title][0]) for title in titles)
    for ax, title in zip(axes, titles, strict=True):
        layers, residuals = BLOCKS[title]
        for height, layer in enumerate([*layers, ""]):
            _arrow(ax, 2.5, height - 0.4, height)
            if layer:
                left, width = (2.2, 0.6) if layer == "+" else (0.5, 4)
                _box(ax, left, height, width, layer, "white" if layer in ("+", "layer norm") else "0.88")
        for left, start, end in residuals:
            _residual(ax, (left, start), 4.7, (2.8, end + 0.3))
        ax.set(xlim=(0, 5), ylim=(-0.6, top + 0.1))
        ax.set_title(title, weight="normal")
        ax.axis("off")
    return axes


def _residual(ax: Axes, start: tuple[float, float], right: float, end: tuple[float, float]) -> None:
    ax.plot([start[0], right, right], [start[1], start[1], end[1]], color="C0", lw=2)
    ax.annotate("", end, (right, end[1]), arrowprops={"arrowstyle": "->", "color": "C0", "lw": 2})


def _box(ax: Axes, left: float, bottom: float, width: float, text: str, color: Any) -> None:
    ax.add_patch(plt.Rectangle((left, bottom), width, 0.6, facecolor=color, edgecolor="0.3"))
    ax.text(left + width / 2, bottom + 0.3, text, ha="center", va="center", fontsize=9.5)


def _arrow(ax: Axes, x: float, start: float, end: float) -> None:
    ax.annotate("", (x, end), (x, start), arrowprops={"arrowstyle": "->", "color": "0.3"})


def plot_attention(weights: np.ndarray, rows: Sequence[str], title: str, ax: Axes | None = None) -> Axes:
    """Attention weights (Q, T): each row is a query, whose weights sum to one over the positions it sees."""
    ax = _axes(ax, figsize=(9, 1.4 + 0.5 * len(rows)))
    sns.heatmap(weights, yticklabels=rows, cmap="Greys", vmin=0, vmax=1, ax=ax, cbar=False)
    for (row, position), weight in np.ndenumerate(weights):
        if weight >= 0.005:
            color = "white" if weight > 0.5 else "black"
            ax.text(position + 0.5, row + 0.5, f"{weight:.2f}", ha="center", va="center", color=color)
    ax.set(title=title, xlabel="position")
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


def equal_groups(values: np.ndarray, groups: int) -> pd.Series:
    """Which of `groups` equally large groups each of `values` (U,) is in: categories such as "3-70", lowest first."""
    bins = pd.qcut(pd.Series(values), groups, duplicates="drop")
    ranges = [(max(values.min(), np.floor(bin.left) + 1), np.floor(bin.right)) for bin in bins.cat.categories]
    return bins.cat.rename_categories([f"{low:,.0f}-{high:,.0f}" for low, high in ranges])


def plot_differences_by_group(
    differences: Mapping[tuple[str, str], np.ndarray], groups: pd.Series, label: str, title: str, ax: Axes | None = None
) -> Axes:
    """The mean of each difference (U,) of two models, user by user, in each of the `equal_groups` that `label` names,
    with 95 % intervals; in the colour of the first of the two."""
    ax = _axes(ax)
    names = groups.cat.categories
    for number, ((one, other), of_users) in enumerate(differences.items()):
        grouped = pd.Series(of_users).groupby(groups, observed=True)
        positions = np.arange(len(names)) + (number - (len(differences) - 1) / 2) * 0.15
        color, marker = KINDS[kind_of(one)]
        label_of_pair, reach = f"{one} - {other}", 1.96 * grouped.sem()
        ax.errorbar(positions, grouped.mean(), reach, fmt=marker, color=color, capsize=3, label=label_of_pair)
    ax.axhline(0, color="0.4", lw=1)
    for text, side in (("above zero the first is better", "bottom"), ("below zero the second is better", "top")):
        ax.text(len(names) - 0.45, 0, f" {text} ", ha="right", va=side, fontsize=9, color="0.3")
    ax.set_xticks(range(len(names)), names)
    ax.set(xlabel=label, ylabel="difference of NDCG@10", title=title, xlim=(-0.5, len(names) - 0.4))
    ax.margins(y=0.25)  # room for the legend
    ax.legend(loc="upper left")
    return ax


def kind_of(model: str) -> str:
    """By its name in results/: a mixture with the linear baseline, a network alone, or a baseline."""
    if model.endswith("-with-linear"):
        return "mixture"
    return "network" if model.startswith(("bert4rec", "modern-")) else "baseline"


def plot_scores(rows: Mapping[str, Mapping], title: str, ax: Axes | None = None) -> Axes:
    """A line per model, in the colour of its kind: `mean`, an interval from `low` to `high` over users, and a tick for
    each of `seeds`."""
    ax = _axes(ax, figsize=(7, 0.8 + 0.3 * len(rows)))
    table = pd.DataFrame({name: {key: row[key] for key in ("mean", "low", "high")} for name, row in rows.items()}).T
    table["position"], kinds = range(len(rows)), table.index.map(kind_of)
    for kind, (color, marker) in KINDS.items():
        of_kind = table[kinds == kind]
        if len(of_kind):
            reach = [of_kind["mean"] - of_kind.low, of_kind.high - of_kind["mean"]]
            ax.errorbar(of_kind["mean"], of_kind.position, xerr=reach, fmt=marker, color=color, capsize=3, label=kind)
    for position, row in enumerate(rows.values()):
        ax.plot(row["seeds"], np.full(len(row["seeds"]), position), "|", color="black", ms=12)
    ax.set_yticks(table.position, rows)
    ax.set(xlabel="NDCG@10, full ranking, test", title=title, xlim=(0, None))
    ax.locator_params("x", nbins=6)
    ax.invert_yaxis()
    if len(set(kinds)) > 1:
        ax.legend(loc="lower right")
    return ax


def plot_comparison(
    scores: Mapping[str, tuple], differences: Mapping[str, tuple], own: str, margin: float
) -> np.ndarray:
    """The NDCG@10 of each model, and that of `own` less that of each other one, as mean, low and high of an interval;
    a difference whose interval lies within the grey band of +-`margin` does not matter."""
    names = sorted(scores, key=lambda name: -scores[name][0])
    _, axes = plt.subplots(1, 2, figsize=(9.5, 1.5 + 0.3 * len(names)), sharey=True, layout="constrained")
    axes[1].axvspan(-margin, margin, color="0.85")
    axes[1].axvline(0, color="0.4", lw=1)
    for ax, intervals in zip(axes, (scores, differences), strict=True):
        for name, (mean, low, high) in intervals.items():
            reach = [[mean - low], [high - mean]]
            ax.errorbar(mean, names.index(name), xerr=reach, fmt="o", capsize=3, color="C0")
        ax.locator_params("x", nbins=6)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set(xlabel="NDCG@10, full ranking, test", ylim=(len(names) - 0.5, -0.5), title="With 95 % intervals")
    axes[1].set(xlabel=f"{own} less the model of the row", title="Right of 0 it is better; grey: too small to matter")
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
