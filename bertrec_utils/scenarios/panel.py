"""Type titles, get films: widgets around a `Recommender`."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd

from .recommender import Recommender
from .titles import look_alikes, names_of, split_year, sum_up

SUGGESTIONS = 6
MAX_REASONS = 60  # films of a history; with more, an answer would take seconds
NO_FORMULAS = "tex2jax_ignore mathjax_ignore"  # CSS classes that stop JupyterLab from reading $ as a formula
WIDE, NARROW = {"width": "420px"}, {"width": "32px"}


class Panel:
    """A search box, the chosen films, a few controls and a table of recommendations, updated after each click; where
    widgets do not run, as on GitHub, the table alone. Of several recommenders of the same films, by name, one is to be
    chosen, at first the first. With `only`, the titles of a watchlist, a box to tick: films of this list alone."""

    def __init__(
        self,
        recommenders: Recommender | Mapping[str, Recommender],
        history: Sequence[str] = (),
        k: int = 10,
        only: Sequence[str] | None = None,
    ):
        if k < 1:
            raise ValueError(f"k is {k}; ask for at least one recommendation")
        named = recommenders if isinstance(recommenders, Mapping) else {"": recommenders}
        self.answered_by = widgets.Dropdown(options=dict(named), description="answered by")
        self.recommender: Recommender = self.answered_by.value
        recommender, self.titles = self.recommender, self.recommender.items.title
        items, self.unknown = recommender.look_up(history)
        self.watchlist, not_found = recommender.look_up(only or ())
        sums = *sum_up(self.unknown, len(history)), *sum_up(not_found, len(only or ()))
        self.notes = [f"Left out: {line}" for line in sums]
        self.items = list(dict.fromkeys(items))
        self.search = widgets.Text(placeholder=f"Type the title of a {recommender.noun} you like", layout=WIDE)
        self.suggestions = widgets.VBox()
        self.chosen = widgets.HBox(layout=widgets.Layout(flex_flow="row wrap"))
        self.k = widgets.IntSlider(k, min(k, 5), max(k, 30), description="how many", continuous_update=False)
        self.order = widgets.ToggleButtons(options={"in any order": True, "in this order": False})
        self.penalty = widgets.FloatSlider(0.0, min=0, max=1, step=0.25, readout=False)
        self.exclude_series = widgets.Checkbox(description="leave out the same series", indent=False)
        self.from_watchlist = widgets.Checkbox(only is not None, description="only from my watchlist", indent=False)
        self.table = widgets.HTML()
        self.search.observe(lambda _: self.suggest(), "value")
        self.search.on_msg(self._on_enter)
        clear = widgets.Button(description="clear", tooltip="remove all", layout={"width": "70px"})
        clear.on_click(lambda _: self.clear())
        for control in (self.k, self.penalty, self.exclude_series, self.from_watchlist):
            control.observe(lambda _: self.answer(), "value")
        self.order.observe(lambda _: self.show_chosen(), "value")
        self.answered_by.observe(self._on_recommender, "value")
        controls = [
            *([self.answered_by] if len(named) > 1 else []),
            widgets.HBox([self.k, self.order]),
            widgets.HBox([widgets.Label("familiar"), self.penalty, widgets.Label("distinctive"), self.exclude_series]),
            *([] if only is None else [self.from_watchlist]),
        ]
        search = widgets.HBox([self.search, clear])
        self.widget = widgets.VBox([search, self.suggestions, self.chosen, *controls, self.table])
        self.widget.add_class("bertrec-panel")
        self.show_chosen()

    def suggest(self) -> None:
        """Show titles that match what is typed; if none has it, say so, and show those that are like it."""
        typed = self.search.value
        found = self.recommender.suggest(typed, SUGGESTIONS)
        buttons = [self._button(self.titles[item], self.add, item, WIDE) for item in found]
        if typed.strip() and not self.recommender.suggest(typed, 1, misspelt=False):
            for error in self.recommender.look_up([typed])[1].values():
                said = f"{typed!r} {error.reason}" + ("; perhaps one of these:" if found else "")
                buttons.insert(0, self._text(said))
        self.suggestions.children = buttons

    def _on_enter(self, _: Any, content: dict[str, Any], __: Any) -> None:
        if content.get("event") == "submit" and (found := self.recommender.suggest(self.search.value, 1)):
            self.add(found[0])

    def _on_recommender(self, change: dict[str, Any]) -> None:
        self.recommender = change["new"]
        self.answer()

    def add(self, item: int) -> None:
        if item not in self.items:
            self.items.append(item)
        self.search.value = ""  # which empties the suggestions
        self.show_chosen()

    def remove(self, item: int) -> None:
        if item in self.items:  # a second click comes before the button is gone
            self.items.remove(item)
            self.show_chosen()

    def clear(self) -> None:
        self.items.clear()
        self.show_chosen()

    def move_left(self, item: int) -> None:
        if item in self.items:
            index = self.items.index(item)
            self.items.insert(max(0, index - 1), self.items.pop(index))
            self.show_chosen()

    def show_chosen(self) -> None:
        chips = []
        for item in self.items:
            left = self._button("◀", self.move_left, item, tooltip="earlier", disabled=self.order.value)
            remove = self._button("✕", self.remove, item, tooltip="remove")
            chips.append(widgets.HBox([left, self._text(self.titles[item]), remove]))
        self.chosen.children = chips
        self.answer()

    def _text(self, text: str) -> widgets.HTML:
        return widgets.HTML(escape(text))  # a Label would read $ as the start of a formula

    def _button(self, text: str, act: Callable, item: Any, layout: dict = NARROW, **more: Any) -> widgets.Button:
        button = widgets.Button(description=text, layout=layout, **more)
        button.on_click(lambda _: act(item))
        return button

    def answer(self) -> None:
        """Recommend again."""
        if not self.items:
            self.table.value = "Nothing chosen yet: type a title above, and click on the one you mean."
            return
        as_set = self.order.value
        only = self.watchlist if self.from_watchlist.value else None
        options: dict[str, Any] = {"popularity_penalty": self.penalty.value, "only": only}
        options["exclude_series"] = self.exclude_series.value
        found = self.recommender.recommend_items(self.items, self.k.value, as_set=as_set, **options)
        reasons: list[list[tuple[str, float]]] = [[] for _ in range(len(found))]
        notes = [*self.notes, *look_alikes(self.unknown, found.title)]
        if 1 < len(self.items) <= MAX_REASONS:
            gains = self.recommender.explain(self.items, found.item, as_set)
            gains.index = [(names_of(self.titles[item])[:2] or [self.titles[item]])[-1] for item in gains.index]
            reasons = [list(gains[item].sort_values(ascending=False).items()) for item in gains]
        elif len(self.items) > MAX_REASONS:
            notes.append(f"Why is worked out for up to {MAX_REASONS} {self.recommender.noun}s.")
        if found.empty:
            of_list = " of your watchlist" if self.from_watchlist.value else ""
            notes.append(f"Nothing is left to recommend of the {self.recommender.noun}s{of_list} that the model knows.")
        head = "".join(f"<p class='{NO_FORMULAS}'>{escape(note)}</p>" for note in notes)
        self.table.value = head if found.empty else head + self.html(found.assign(because=reasons))

    def html(self, found: pd.DataFrame) -> str:
        """The recommendations as a table; a bar is exp(score), as a share of the best one's. `because` has, the largest
        first, what each title of the history contributes: the first is shown, the others after a click."""
        shares = np.exp(found.score - found.score.max())
        rows = []
        for row, share in zip(found.itertuples(), shares, strict=True):
            name, year = split_year(row.title)
            bar = f"<div style='background:#4c72b0;height:.7em;width:{5 * share:.2f}em'></div>"
            people = int(self.recommender.items.ratings[row.item])
            genres = row.genres.replace("|", ", ")
            cells = map(escape, (str(row.rank), name, str(year or ""), genres, f"{people:,}"))
            rows.append("".join(f"<td>{cell}</td>" for cell in (*cells, bar, self._why(row.because))))
        names = ("", "title", "year", "genres", "rated by", "match", "because of (click)")
        head = "".join(f"<th style='text-align:left'>{name}</th>" for name in names)
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        style = f"class='{NO_FORMULAS}' style='line-height:1.5em'"
        return f"<table {style}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _why(self, reasons: Sequence[tuple[str, float]]) -> str:
        lines = [f"{gain:+.1f} {escape(title)}" for title, gain in reasons]
        first = f"<summary>{escape(reasons[0][0])}</summary>" if reasons else ""
        return f"<details>{first}{'<br>'.join(lines)}</details>" if reasons else ""

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        chosen = ", ".join(escape(self.titles[item]) for item in self.items)
        static = f"<p class='{NO_FORMULAS}'>After {chosen}:</p>{self.table.value}" if self.items else self.table.value
        return self.widget._repr_mimebundle_(**options) | {"text/html": static}
