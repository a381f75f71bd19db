"""Figures of notebooks 01 to 04, and of `compare`. Each function takes data, draws on `ax` (or a new one) and returns
the Axes."""

from collections.abc import Mapping, Sequence
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
    """Colour-blind safe colours on a quiet grid, sharp on screen. In a displayed table no text is cut, and $ means a
    dollar, not a formula."""
    pd.set_option("display.html.use_mathjax", False, "display.max_colwidth", None)
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
    edges = 2 ** np.arange(np.log2(lengths.max()) // 1 + 2)  # whole numbers, evenly spaced on a log scale
    ax.hist(lengths, edges.tolist(), alpha=0.75, edgecolor="white")
    ax.set_xscale("log")
    ax.axvline(np.median(lengths), color="black", ls="--", label=f"median: {np.median(lengths):.0f} films")
    if seen:
        ax.axvline(seen, color="C3", ls="-.", label=f"the model reads the last {seen}")
    ax.set(xlabel="films in the history (log scale, a bar for each doubling)", ylabel="users")
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
    ax.annotate(note, (1, at_once), (0, 4), textcoords="offset points", fontsize=11)
    ax.set(xlabel="from the first rating to the last (log scale)", ylabel="users")
    ax.set(title="Most people rate in one sitting")
    return ax


PARTS = {"training": ("C0", "o"), "validation": ("C1", "s"), "test": ("C3", "D")}


def plot_splits(weeks: Mapping[str, Sequence[float]], cut: float, title: str) -> np.ndarray:
    """Time lines of users under both splits, leave-one-out and a cut in time: `weeks` has the weeks of each user's
    items, in order, and `cut` is the last week of training. Returns the two Axes."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 2.9), sharey=True)
    subtitles = ("leave-one-out: everybody's last film", f"a cut in time, after week {cut}")
    for number, (ax, subtitle) in enumerate(zip(axes, subtitles, strict=True)):
        for row, of_user in enumerate(weeks.values()):
            ax.plot([of_user[0], of_user[-1]], [row, row], color="0.75", zorder=0)
            before = sum(week <= cut for week in of_user) if number else len(of_user) - 1  # the test comes after these
            parts = ["training"] * (before - 1) + ["validation"] * (before > 0) + ["test"] * (len(of_user) - before)
            for part, week in zip(parts, of_user, strict=True):
                color, marker = PARTS[part]
                ax.scatter(week, row, 80, color=color, marker=marker, edgecolor="black", linewidth=0.6)
        ax.set(xlabel="week", yticks=range(len(weeks)), yticklabels=weeks, ylim=(len(weeks) - 0.5, -0.5))
        ax.set_title(subtitle, weight="normal", fontsize=11)
        ax.grid(False)
    axes[1].axvline(cut, color="black", ls="--")
    figure.suptitle(title, weight="bold", fontsize=12)
    look: dict[str, Any] = {"ls": "", "ms": 9, "mec": "black", "mew": 0.6}
    legend = [
        plt.Line2D([], [], color=color, marker=marker, label=part, **look) for part, (color, marker) in PARTS.items()
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=len(PARTS), frameon=False)
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
    cells = {"annot": texts, "fmt": "", "annot_kws": {"fontsize": 11, "color": "black"}, "linewidths": 0.5}
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
    ax.plot([5.25, 5.35, 5.35, 5.25], [3.2, 3.2, 6.8, 6.8], color="0.3", lw=1)
    ax.text(5.45, 5, "one block\n(the paper\nstacks two)", va="center")
    ax.text(5.2, 2.5, "blue: what\ncame in is\nadded", va="center", color="C0")
    _arrow(ax, masked + 0.5, 7.8, 8.2)
    output = "project, layer norm, then a dot product with every film's vector: V scores (equation 7)"
    _box(ax, 0.1, 8.2, 4.8, output, "white")
    _arrow(ax, masked + 0.5, 8.8, 9.2)
    _box(ax, 1.3, 9.2, 2.4, "softmax: P(film at the [MASK])", colors[masked])
    ax.set(xlim=(0, 6.4), ylim=(-0.1, 9.9), title="From a history (below) to a guess at the [MASK]")
    ax.axis("off")
    return ax


ATTENTION, FEED_FORWARD, CONVOLUTION = "attention", "feed-forward, at each position", "convolution: films just before"
# title -> the layers from the bottom up, and what goes past them: from a height, past x, to a + at a height; its name
BLOCKS = {
    "The paper's block": (
        [ATTENTION, "+", "layer norm", FEED_FORWARD, "+", "layer norm"],
        [(-0.3, 4.7, 1.3, ""), (2.75, 4.7, 4.3, "")],
    ),
    "Norm first": (
        ["layer norm", ATTENTION, "+", "layer norm", FEED_FORWARD, "+"],
        [(-0.3, 4.7, 2.3, ""), (2.75, 4.7, 5.3, "")],
    ),
    "With a convolution": (
        ["layer norm", CONVOLUTION, "+", ATTENTION, "+", "layer norm", FEED_FORWARD, "+"],
        [(-0.3, 5.15, 4.45, "input"), (0.75, 0.3, 2.3, ""), (1.75, 4.7, 4.15, "convolution"), (4.75, 4.7, 7.3, "")],
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
        for start, past, end, name in residuals:
            _residual(ax, (2.5, start), past, (2.2 if past < 2.5 else 2.8, end))
            ax.text(past + 0.06, (start + end) / 2, name, color="C0", rotation=90, va="center")
        ax.set(xlim=(0, 5.5), ylim=(-0.6, top + 0.1))
        ax.set_title(title, weight="normal")
        ax.axis("off")
    return axes


def _residual(ax: Axes, start: tuple[float, float], past: float, end: tuple[float, float]) -> None:
    ax.plot([start[0], past, past], [start[1], start[1], end[1]], color="C0", lw=2)
    ax.annotate("", end, (past, end[1]), arrowprops={"arrowstyle": "->", "color": "C0", "lw": 2})


def _box(ax: Axes, left: float, bottom: float, width: float, text: str, color: Any) -> None:
    ax.add_patch(plt.Rectangle((left, bottom), width, 0.6, facecolor=color, edgecolor="0.3"))
    ax.text(left + width / 2, bottom + 0.3, text, ha="center", va="center", fontsize=11.5)


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
    histories: Mapping[str, pd.DataFrame], references: Mapping[str, float], title: str
) -> np.ndarray:
    """Training loss, validation loss (of runs that have this column) and validation NDCG@10 by epoch, one line per run;
    a star is the best epoch, `references` are horizontal lines."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 4))
    figure.suptitle(title, weight="bold")
    best_row = {"loss": "", "validation_loss": "idxmin", "ndcg@10": "idxmax"}
    for number, (name, history) in enumerate(histories.items()):
        marker, line = LINES[number % len(LINES)]
        for ax, (column, best) in zip(axes, best_row.items(), strict=True):
            if column in history:
                ax.plot(history.epoch, history[column], line, marker=marker, ms=5, color=f"C{number}", label=name)
            if best and column in history:
                star = history.loc[history[column].agg(best)]
                ax.plot(star.epoch, star[column], "*", ms=16, color=f"C{number}", mec="black")
    where = {"transform": axes[2].get_yaxis_transform(), "ha": "right", "va": "bottom", "color": "dimgrey"}
    for name, value in references.items():
        axes[2].axhline(value, color="grey", lw=1)
        axes[2].text(1, value, name, where)
    for ax, subtitle in zip(axes, ("Training loss", "Validation loss", "Validation NDCG@10"), strict=True):
        ax.set_title(subtitle, weight="normal")
        ax.set_xlabel("epoch")
    for ax in axes[:2]:
        ax.set(ylabel="nats per target")
    axes[0].legend()
    axes[2].set(ylim=(0, 1.1 * axes[2].dataLim.y1))
    return axes


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
    ax.set_xticks(range(len(names)), names)
    ax.set(xlabel=label, ylabel="difference of NDCG@10", title=title, xlim=(-0.5, len(names) - 0.4))
    ax.margins(y=0.25)  # room for the legend
    ax.legend(loc="best", title="above zero, the first is better")
    return ax


def kind_of(model: str) -> str:
    """The kind of a model, a key of KINDS, from its name in results/."""
    if model.endswith(("-with-linear", "-with-chain")):
        return "mixture"
    return "network" if model.startswith(("bert4rec", "modern-", "rectools-", "recbole-")) else "baseline"


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
    """The NDCG@10 of each model, and that of `own` minus that of each other one, as mean, low and high of an interval;
    a difference whose interval lies within the grey band of +-`margin` does not matter."""
    names = sorted(scores, key=lambda name: -scores[name][0])
    _, axes = plt.subplots(1, 2, figsize=(9.5, 1.7 + 0.3 * len(names)), sharey=True, layout="constrained")
    axes[1].axvspan(-margin, margin, color="0.85")
    axes[1].axvline(0, color="0.4", lw=1)
    for ax, intervals in zip(axes, (scores, differences), strict=True):
        for name, (mean, low, high) in intervals.items():
            reach = [[mean - low], [high - mean]]
            ax.errorbar(mean, names.index(name), xerr=reach, fmt="o", capsize=3, color="C0")
        ax.locator_params("x", nbins=6)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set(xlabel="NDCG@10, full ranking, test", ylim=(len(names) - 0.5, -0.5), title="NDCG@10, 95 % intervals")
    xlabel = f"NDCG@10 of {own} minus that of the row\n(grey: too small to matter)"
    axes[1].set(xlabel=xlabel, title=f"Right of 0 {own} is better")
    return axes
