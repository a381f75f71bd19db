"""What a preset trains on: a log, its vocabulary, its sequences and their split, read by one function.

The sequences of a big log are kept beside its file: the next start takes them from there, without the log.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from .files import replace_file, short
from .logs import Interactions, load_interactions
from .presets import Preset
from .releases import RELEASES, find_release, read_release
from .sequences import Sequences, Split, Vocabulary, build_sequences, leave_one_out

KEPT_FROM = 50_000_000  # bytes of a ratings file; the sequences of a smaller one are built in seconds
RULES = 1  # of `build_sequences`: raise it with any change of what it returns, and no older file is used any more


@dataclass(frozen=True)
class Dataset:
    """A vocabulary, the sequences over it, and the log they were built from, or a function that reads it, if any."""

    vocabulary: Vocabulary
    sequences: Sequences
    source: Interactions | Callable[[], Interactions] | None = None
    other_split: Split | None = None

    @cached_property
    def log(self) -> Interactions | None:
        """The log, read when it is first asked for; raises what `load_movielens` and `load_interactions` raise."""
        return self.source() if callable(self.source) else self.source

    @cached_property
    def split(self) -> Split:
        """The `other_split`, or leave-one-out."""
        return self.other_split or leave_one_out(self.sequences)

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of the `items` and of the `sequences`: equal for equal data, whatever file it was read from."""
        items = "\n".join(map(str, self.vocabulary.items.tolist()))
        sequences = (self.sequences.tokens.astype("<i4"), self.sequences.offsets.astype("<i8"))
        return {
            "items": hashlib.sha256(items.encode()).hexdigest(),
            "sequences": hashlib.sha256(b"".join(part.tobytes() for part in sequences)).hexdigest(),
        }


def load_dataset(preset: Preset) -> Dataset:
    """Read the preset's release, or its own log, and build the sequences, or take those that an earlier start has kept.

    Raises what `load_movielens`, `load_interactions` and `build_sequences` raise.
    """
    if preset.ratings_file:
        files = [Path(file).absolute() for file in (preset.ratings_file, preset.items_file) if file]
        read = partial(load_interactions, *files)
    else:
        folder = find_release(preset.release)
        files = [folder / RELEASES[preset.release].ratings_file]
        read = partial(read_release, preset.release, folder)
    name = f"{files[0].name}.sequences-{preset.min_item_ratings}-{preset.max_users or 'all'}.npz"
    path, origin = files[0].with_name(name), _origin(files, preset)
    if origin and (kept := _read_kept(path, origin)):
        return Dataset(*kept, read)
    log = read()
    vocabulary, sequences = build_sequences(log.ratings, preset.min_item_ratings, preset.max_users)
    if origin:
        _keep(path, origin, vocabulary, sequences)
    return Dataset(vocabulary, sequences, log)


def _origin(files, preset):
    """What kept sequences must have been built from, as a text; None for a small or missing ratings file."""
    if not all(file.is_file() for file in files) or files[0].stat().st_size < KEPT_FROM:
        return None
    states = [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return f"rules {RULES}, {'own log' if preset.ratings_file else preset.release}, {states}"


def _keep(path, origin, vocabulary, sequences):
    """Write the sequences to an .npz, whose checksums `_read_kept` relies on; a warning if that fails."""
    arrays = {
        "origin": np.array(origin),
        "items": _as_bytes(vocabulary.items),
        "users": _as_bytes(sequences.users),
        "tokens": sequences.tokens,
        "offsets": sequences.offsets,
    }

    def write(partial):
        with open(partial, "wb") as file:
            np.savez(file, **arrays)

    try:
        replace_file(path, write)
    except OSError as error:
        logging.getLogger(__name__).warning(
            "%s cannot be written (%s): the next start takes as long as this one", short(path), error.strerror or error
        )


def _read_kept(path, origin):
    """Vocabulary and sequences; None if there are none, if they are of another origin, or damaged."""
    try:
        with open(path, "rb") as file, np.load(file) as arrays:
            if arrays["origin"].item() != origin:
                return None
            items, users = _as_ids(arrays["items"]), _as_ids(arrays["users"])
            return Vocabulary(items), Sequences(arrays["tokens"], arrays["offsets"], users)
    except Exception:  # whatever a damaged file makes of an archive or an array
        return None


def _as_bytes(ids):
    """Ids that are texts as one array of bytes, one text a line (`load_interactions` lets no line break in)."""
    return np.frombuffer("\n".join(ids).encode(), np.uint8) if ids.dtype == object else ids


def _as_ids(array):
    return np.array(array.tobytes().decode().split("\n"), object) if array.dtype == np.uint8 else array
