"""Where the project lies, and how a file is replaced without ever being half-written."""

import os
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """`write` a file under another name, flush it to disk, then rename it: after a crash or a full disk the old file
    is there or the new one, never a part."""
    partial = path.with_name(path.name + ".partial")
    try:
        write(partial)
        _flush(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    if os.name == "posix":
        _flush(path.parent)  # the new name is on disk too


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
