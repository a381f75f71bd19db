"""What a preset trains on: a log, its vocabulary, its sequences and their split, read by one function."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from .logs import Interactions, load_interactions
from .presets import Preset
from .releases import load_movielens
from .sequences import Sequences, Split, Vocabulary, build_sequences, leave_one_out


@dataclass(frozen=True)
class Dataset:
    """A vocabulary, the sequences over it, and the log they were built from, if there is one."""

    vocabulary: Vocabulary
    sequences: Sequences
    log: Interactions | None = None
    other_split: Split | None = None

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
    """Read the preset's release, or its own log, and build the sequences.

    Raises what `load_movielens`, `load_interactions` and `build_sequences` raise.
    """
    if preset.ratings_file:
        log = load_interactions(preset.ratings_file, preset.items_file)
    else:
        log = load_movielens(preset.release)
    vocabulary, sequences = build_sequences(log.ratings, preset.min_item_ratings, preset.max_users)
    return Dataset(vocabulary, sequences, log)
