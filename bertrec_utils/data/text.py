"""Reads text files, compressed or not, line by line or as tables; errors name the line that is wrong."""

import contextlib
import csv
import gzip
import io
import lzma
import re
import signal
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

Lines = Iterator[tuple[int, str]]  # numbers and texts
DAMAGED = (lzma.LZMAError, gzip.BadGzipFile, zlib.error, zipfile.BadZipFile, EOFError)  # raised if a packed file is
UNREADABLE = re.compile("[\0\udc80-\udcff]")  # NUL, and what "surrogateescape" makes of bytes that are no text


def open_packed(path: str | Path, mode: str = "rb", **options: Any) -> IO[Any]:
    """Open a file; one that is compressed with xz, gzip or zip, whatever its name, is decompressed as it is read."""
    return (_unpacker(path) or open)(path, mode, **options)


def _unpacker(path: str | Path) -> Callable[..., IO[Any]] | None:
    with open(path, "rb") as file:
        start = file.read(6)
    return next((unpack for magic, unpack in PACKED.items() if start.startswith(magic)), None)


def _open_zip(path: str | Path, mode: str, **options: Any) -> IO[Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
            if len(names) != 1:
                raise ValueError(f"{path} holds {len(names)} files; unpack it, and give one of them")
            member = archive.open(names[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:  # damaged, of another method, encrypted
        raise ValueError(f"{path} cannot be unpacked ({error})") from None
    return member if mode == "rb" else io.TextIOWrapper(member, **options)


# by a file's first bytes
PACKED: dict[bytes, Callable[..., IO[Any]]] = {b"\xfd7zXZ\0": lzma.open, b"\x1f\x8b": gzip.open, b"PK\3\4": _open_zip}


def numbered_lines(path: str | Path, encoding: str) -> Lines:
    """Yield the number (from 1) and text of every line that is not blank. ValueError names a line that is not text."""
    with open_packed(path, "rt", encoding=encoding, errors="surrogateescape") as file:
        try:
            for number, line in enumerate(file, start=1):
                text = line.removesuffix("\n")
                text = text.removeprefix("\ufeff") if number == 1 else text  # the byte order mark that Excel writes
                if UNREADABLE.search(text):
                    expected = f"expected text saved as {encoding}, found {abbreviate(text)}"
                    raise ValueError(f"{path}, line {number}: {expected}")
                if text.strip(" \t"):
                    yield number, text
        except DAMAGED as error:
            raise ValueError(f"{path} is damaged ({error})") from None


def parse_lines(lines: Iterable[tuple[int, str]], path: str | Path, parse: Callable[[str], Any]) -> Iterator[Any]:
    """Yield `parse(line)` for each line; a ValueError that it raises is re-raised with the line's number and text."""
    for number, line in lines:
        try:
            yield parse(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}, found {abbreviate(line)}") from None


def first_line(lines: Lines) -> str:
    """The first line that is not blank; "" if there is none."""
    return next(lines, (1, ""))[1]


def abbreviate(text: str, most: int = 80) -> str:
    return repr(text if len(text) <= most else text[: most - 3] + "...")


def _holds(path: Path, two: bytes) -> bool:
    """Whether two bytes follow each other in a file, or in the part of a damaged one that can be unpacked."""
    last = b""
    with open_packed(path) as file, contextlib.suppress(*DAMAGED):
        while part := file.read(2**20):
            if two in last + part:
                return True
            last = part[-1:]
    return False


def has_doubled_quotes(path: Path, separator: str) -> bool:
    """Whether a value is quoted as by CSV writers, quotes in it doubled: "27"" monitor"; False if text follows a closed
    quote, as in "Heroes" (2006). "Heroes" alone tells nothing: those who quote a value do so for a reason."""
    if not _holds(path, b'""'):
        return False  # as of most logs, and soon known
    is_doubled, lines = False, numbered_lines(path, "utf-8")
    for field in (field for _, line in lines if '"' in line for field in line.split(separator)):
        if field.startswith('"'):
            rest = field[1:].replace('""', "")  # up to the closing quote
            if '"' in rest[:-1]:
                return False
            is_doubled = is_doubled or (rest.endswith('"') and '""' in field[1:-1])
    return is_doubled


def fields_of(line: str, separator: str, is_quoted: bool, width: int | None = None) -> list[str]:
    """The values of a line, padded with empty ones to `width` if that is given. ValueError if there are more, or a
    quote is not closed."""
    try:
        fields = next(csv.reader([line], delimiter=separator, strict=True)) if is_quoted else line.split(separator)
    except csv.Error as error:  # "unexpected end of data" for a quote that is not closed
        raise ValueError(f"expected values in closed quotes or none ({error})") from None
    if width is not None and len(fields) > width:
        raise ValueError(f"expected {width} values as in the first line")
    return fields + [""] * ((width or 0) - len(fields))


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Deliver SIGINT and SIGTERM at the end of the `with`: an exception that a handler raises inside pandas' parser may
    crash the process. (Blocking the signals would not do: another thread, such as one of BLAS, would receive them.)"""
    if threading.current_thread() is not threading.main_thread():  # only the main thread runs handlers
        yield
        return
    received: list[int] = []
    before = {sign: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)}

    def deliver() -> None:
        for number in received:
            signal.raise_signal(number)

    with contextlib.ExitStack() as at_the_end:  # each call is made whatever another raises, the last one first
        at_the_end.callback(deliver)
        for sign, handler in before.items():
            if callable(handler) or handler == signal.SIG_DFL:  # neither ignored nor set by C
                at_the_end.callback(signal.signal, sign, handler)
                signal.signal(sign, lambda number, _: received.append(number))
        yield


def parse_table(path: str | Path, line_count: int | None = None, **options: Any) -> pd.DataFrame | None:
    """Read a table with pandas' fast parser; None if that fails, or if a first row that is too long became an index."""
    source: Any = path
    try:
        with open_packed(path) as file:
            parts: Iterable[bytes] = iter(lambda: file.read(2**20), b"")
            if line_count or _unpacker(path):  # unpacked once, and no further than needed
                content = b"".join(islice(file, line_count) if line_count else parts)
                parts, source = [content], io.BytesIO(content)
            if any(b"\0" in part for part in parts):  # pandas before 3 reads over it
                return None
        with _signals_wait(), np.errstate(all="ignore"):
            table = pd.read_csv(source, header=None, keep_default_na=False, compression=None, **options)
    except (ValueError, TypeError, OverflowError, *DAMAGED):
        return None
    return table if isinstance(table.index, pd.RangeIndex) else None
