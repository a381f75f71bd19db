"""Where the project lies, and how a file gets its place and content so that a crash or a full disk loses nothing."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

ABANDONED = 24 * 3600  # seconds after which a partial file must be of a process that was killed

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT if (ROOT / "pyproject.toml").exists() else Path.cwd()  # installed without the clone: the folder at hand


def short(path: Path) -> Path:
    """A path as messages show it: from the project on, if it lies inside."""
    path = Path(path).resolve()
    return path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """`write` a file under another name, flush it to disk, then rename it: there is the old file or the new one, never
    a part, even if several processes write it at once."""
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    try:
        write(partial)
        _flush(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _flush(path.parent)  # the new name is on disk too
    _sweep(path)


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


def _sweep(path: Path) -> None:
    """Remove what processes that were killed have left of a file."""
    for partial in path.parent.iterdir():
        if partial.name.startswith(f"{path.name}.") and partial.suffix == ".partial":
            try:
                if time.time() - partial.stat().st_mtime > ABANDONED:
                    partial.unlink()
            except OSError:
                continue  # somebody else has removed it, or it is not ours to remove
