"""What all folders share: where the clone lies, files that are written wholly or not at all, progress on screen."""

import contextlib
import glob
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

from tqdm.auto import tqdm

ABANDONED = 24 * 3600  # seconds after which a partial file must be that of a killed process

_ROOT = Path(__file__).resolve().parents[1]
# the clone, with its bundled ratings and weights; installed without it: the current folder
PROJECT = _ROOT if (_ROOT / "pyproject.toml").exists() else Path.cwd()


def display_path(path: str | Path) -> Path:
    """A path as messages show it: from the project's folder on, if it lies inside."""
    path = Path(path).resolve()
    return path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """`write` a file under another name, flush it to disk, then rename it: there is the old file or the new one, never
    a part, even if several processes write it at once. A link stays one; what is no file, as a pipe, is written to."""
    if path.exists() and not path.is_file():
        write(path)
        return
    path = path.resolve()
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    try:
        write(partial)
        _flush(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _flush(path.parent)  # the new name is on disk too
    for abandoned in partials(path):
        with contextlib.suppress(OSError):  # another process has removed it, or it is not ours to remove
            if time.time() - abandoned.stat().st_mtime > ABANDONED:
                abandoned.unlink()


def partials(path: Path) -> Iterator[Path]:
    """What `replace_file` writes first, and leaves if it is killed, of the file at `path`; no file of another name."""
    return path.parent.glob(f"{glob.escape(path.name)}.{'[0-9a-f]' * 32}.partial")


def move_file(path: Path, target: Path) -> None:
    """Rename a file, into a new folder if need be, and flush both folders to disk."""
    target.parent.mkdir(exist_ok=True)
    os.replace(path, target)
    _flush(target.parent)
    _flush(path.parent)


def _flush(path: Path) -> None:
    if path.is_dir() and os.name != "posix":
        return  # Windows cannot open a folder
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def leave(error: BaseException) -> NoReturn:
    """Raise `error` from a signal's handler, as the last word: what the signal finds half made, such as a progress bar,
    is not heard when it is thrown away."""
    sys.unraisablehook = lambda _: None
    raise error


def is_main_process() -> bool:
    """Whether this is the only process of a training, or the one of rank 0 in the group that it has joined."""
    distributed: Any = sys.modules.get("torch.distributed")  # without it there is no group
    return not (distributed and distributed.is_initialized()) or distributed.get_rank() == 0


def is_interactive() -> bool:
    """Whether somebody watches: in a terminal or a notebook, not in a log file."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def progress_bar(iterable: Any = None, *, show: bool = True, **options: Any) -> tqdm:
    """tqdm with its own `options`, silent if nobody watches or `show` is False; of several processes, one shows it."""
    return tqdm(iterable, disable=not (show and is_interactive() and is_main_process()), **options)


def print_status(text: str, file: Any = None) -> None:
    """Print a line above the progress bars, on stdout if no `file` is given; of several processes, one prints."""
    if is_main_process():
        tqdm.write(text, file=file)
        (file or sys.stdout).flush()  # at once, also into a log file
