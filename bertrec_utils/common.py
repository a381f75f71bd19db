"""Helpers shared by all folders: where the project is, atomic file writes, progress output."""

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

STALE_SECONDS = 24 * 3600  # seconds after which a temporary file is taken to be left by a killed process

_ROOT = Path(__file__).resolve().parents[1]
# the clone, with its bundled ratings and weights; installed without it: the current folder
PROJECT = _ROOT if (_ROOT / "pyproject.toml").exists() else Path.cwd()


def display_path(path: str | Path) -> Path:
    """A path as messages show it: from the project's folder on, if it lies inside."""
    path = Path(path).resolve()
    return path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Replace a file atomically: `write` it under a temporary name, flush it to disk, then rename it.

    Readers see the old file or the new one, never half of one, even if several processes write at once. A symbolic
    link stays a link; anything that is not a regular file, such as a pipe, is written to directly. Raises OSError."""
    if path.exists() and not path.is_file():
        write(path)
        return
    path = path.resolve()
    partial = _new_partial(path)
    try:
        write(partial)
        _flush(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _flush(path.parent)  # the new name is on disk too
    for abandoned in partials(path):
        with contextlib.suppress(OSError):  # another process has removed it, or it is not ours to remove
            if time.time() - abandoned.stat().st_mtime > STALE_SECONDS:
                abandoned.unlink()


def check_writable(path: Path) -> None:
    """Raise OSError if `replace_file` could not write `path`. Permissions do not tell: root has them all, even where
    the disk is read-only."""
    if not path.exists() or path.is_file():
        partial = _new_partial(path.resolve())
        partial.touch(exist_ok=False)
        partial.unlink()


def is_same_file(path: str | Path, other: str | Path) -> bool:
    """Whether both are there and are one file, by whatever names."""
    return os.path.isfile(path) and os.path.isfile(other) and os.path.samefile(path, other)


def _new_partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.{uuid4().hex}.partial")


def partials(path: Path) -> Iterator[Path]:
    """The temporary files that `replace_file` leaves behind if it is killed while it writes `path`; no others."""
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
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():  # not all network disks do
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def raise_quietly(error: BaseException) -> NoReturn:
    """Raise `error` from a signal handler, and keep it the last message: errors from half-built objects that are torn
    down with it, such as a progress bar, are not printed."""
    sys.unraisablehook = lambda _: None
    raise error


def is_main_process() -> bool:
    """Whether this is the only process of a training, or the one of rank 0 in the group that it has joined."""
    distributed: Any = sys.modules.get("torch.distributed")  # without it there is no group
    return not (distributed and distributed.is_initialized()) or distributed.get_rank() == 0


def is_interactive() -> bool:
    """Whether a person is watching the output: True in a terminal or a notebook, False in a log file."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def progress_bar(iterable: Any = None, *, show: bool = True, **options: Any) -> tqdm:
    """A tqdm bar with these `options`; hidden unless `show` and `is_interactive()`, and in all but the main process."""
    return tqdm(iterable, disable=not (show and is_interactive() and is_main_process()), **options)


def print_status(text: str, file: Any = None) -> None:
    """Print a line without breaking the progress bars, to `file` (default: stdout), in the main process only."""
    if is_main_process():
        tqdm.write(text, file=file)
        (file or sys.stdout).flush()  # at once, also into a log file
