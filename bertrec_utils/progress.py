"""Progress bars where somebody watches: in a terminal or a notebook, not in a log file."""

import sys

from tqdm.auto import tqdm

from .processes import is_first


def is_watched() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def progress_bar(iterable=None, *, show: bool = True, **settings) -> tqdm:
    """tqdm with its own `settings`, silent where nobody watches or `show` is False; of several processes, one shows."""
    return tqdm(iterable, disable=not (show and is_watched() and is_first()), **settings)


def say(text: str) -> None:
    """A line above the progress bars; of several processes, one speaks."""
    if is_first():
        tqdm.write(text)
        sys.stdout.flush()  # into a log file, too, at once
