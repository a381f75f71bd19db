"""From a rating log to what a model is trained and tested on: sequences in time order, and their split. The sequences
of a big log are cached beside its file: the next start takes them from there, without the log."""

import hashlib
import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..common import display_path, replace_file
from ..settings import REPEATS, DataSettings
from .logs import Interactions, load_interactions
from .releases import RELEASES, find_file, find_release, read_release
from .rows import MIN_HISTORY, MIN_REPEAT_SHARE, in_time_order, keeps_repeats
from .sequences import Sequences, Split, Vocabulary
from .splits import leave_one_out, split_in_time

MIN_CACHED_BYTES = 50_000_000  # bytes of a ratings file; the sequences of a smaller one are built in seconds
CACHE_VERSION = 6  # raise it with any change of what `build_sequences` returns: older files are then ignored


class DataCounts(NamedTuple):
    """How many rows, users and items a log has, and how many of them `build_sequences` dropped by which rule."""

    rows: int
    users: int
    items: int
    rows_of_later_users: int  # beyond `max_users`
    repeats: int  # rows with an item that their user has met before, if they are dropped
    min_item_ratings: int
    rare_items: int  # with fewer ratings than that
    rows_of_rare_items: int
    short_users: int  # with fewer than MIN_HISTORY items left
    rows_of_short_users: int
    kept_rows: int
    kept_users: int
    kept_items: int
    kept_repeats: int = 0  # such rows, if they are not dropped as repeats

    @property
    def are_many_repeats(self) -> bool:
        return self.repeats + self.kept_repeats >= MIN_REPEAT_SHARE * (self.rows - self.rows_of_later_users)

    def __str__(self) -> str:
        lowest = self.min_item_ratings
        dropped = [
            (self.rows_of_later_users, "rows of users beyond max_users"),
            (self.repeats, "repeats of an item by a user"),
            (self.rare_items, f"items with fewer than {lowest} ratings ({self.rows_of_rare_items:,} rows)"),
            (self.short_users, f"users with fewer than {MIN_HISTORY} items left ({self.rows_of_short_users:,} rows)"),
        ]
        return (
            f"{self.rows:,} rows, {self.users:,} users, {self.items:,} items; "
            f"{f'repeats: {self.kept_repeats:,} rows kept; ' if self.kept_repeats else ''}dropped: "
            f"{', '.join(f'{count:,} {what}' for count, what in dropped if count) or 'nothing'}; kept: "
            f"{self.kept_rows:,} rows, {self.kept_users:,} users, {self.kept_items:,} items"
        )


def build_sequences(
    ratings: pd.DataFrame,
    min_item_ratings: int = 5,
    max_users: int | None = None,
    repeats: str | None = "first",
    *,
    tie_seed: int | None = 0,
    own: bool = False,
) -> tuple[Vocabulary, Sequences, DataCounts]:
    """The vocabulary, one sequence per user in time order, and counts of what was dropped.

    `ratings` has the columns user, item and timestamp; user and item are all integers or all texts. Users are sorted
    by id, and `max_users` keeps the first of them.

    Ties: equal timestamps stay in file order, unless the file lists every user's ratings by item, as GroupLens's CSV
    releases do. That order says nothing about time, and a model could learn it from the ids, so ties are then shuffled
    with `tie_seed` (None: always file order). An `own` log (`Interactions.own`) may grow, and new rows must not change
    the order of old ones: its ties stay in file order, too, unless they are by item far more often than chance has it
    (ORDER BY user, timestamp, item); then all of them are ordered by a hash of user and item.

    Repeats: with `repeats="first"` an item counts once for a user, at its first time, because a ranking that leaves out
    the history can never hit it again. With "keep" every row counts. None means "keep" if at least a share
    MIN_REPEAT_SHARE of the rows are repeats, else "first".

    Rare items, with fewer than `min_item_ratings` ratings, are dropped once, as in the published splits; then users
    with fewer than three items, who cannot be split. An item may thus end with fewer ratings than asked for.

    Raises ValueError if nothing is left or `repeats` is unknown.
    """
    (user_codes, users), (item_codes, items), order = in_time_order(ratings, tie_seed, own)
    if max_users is not None:
        order = order[user_codes[order] < max_users]
    of_first_users = len(order)
    pairs = (user_codes * len(items) + item_codes)[order]
    is_repeat = np.zeros(len(order), dtype=bool)
    if (np.diff(np.sort(pairs, kind="stable")) == 0).any():  # a stable sort is fast on a log in order, as most are
        is_repeat = pd.Series(pairs).duplicated().to_numpy()
    repeat_count = int(is_repeat.sum())
    if not keeps_repeats(repeats, repeat_count, len(order)):
        order = order[~is_repeat]
    without_repeats = len(order)
    could_split = (np.bincount(user_codes[order]) >= MIN_HISTORY).any()
    item_counts = np.bincount(item_codes[order], minlength=len(items))
    order = order[item_counts[item_codes[order]] >= min_item_ratings]
    without_rare = len(order)
    lengths = np.bincount(user_codes[order], minlength=len(users))
    is_long = lengths >= MIN_HISTORY
    order = order[is_long[user_codes[order]]]
    if not len(order):
        if not could_split:
            different = "" if repeats == "keep" else " different"
            needed = f"{MIN_HISTORY}{different} items, which leave-one-out needs: one for each part"
            raise ValueError(f"no user has {needed}")
        rule = f"{MIN_HISTORY} items with {min_item_ratings} ratings or more"
        raise ValueError(f"no user has {rule}; lower min_item_ratings (--set min_item_ratings=1)")
    is_known = np.bincount(item_codes[order], minlength=len(items)) > 0
    tokens = np.cumsum(is_known, dtype=np.int32)[item_codes[order]]
    offsets = np.concatenate([[0], lengths[is_long].cumsum()])
    vocabulary = Vocabulary(np.asarray(items[is_known]))
    sequences = Sequences(tokens, offsets, np.asarray(users[is_long]))
    counts = DataCounts(
        rows=len(ratings),
        users=len(users),
        items=len(items),
        rows_of_later_users=len(ratings) - of_first_users,
        repeats=of_first_users - without_repeats,
        min_item_ratings=min_item_ratings,
        rare_items=int(((item_counts > 0) & (item_counts < min_item_ratings)).sum()),
        rows_of_rare_items=without_repeats - without_rare,
        short_users=int((~is_long[:max_users]).sum()),
        rows_of_short_users=without_rare - len(order),
        kept_rows=len(order),
        kept_users=len(sequences),
        kept_items=len(vocabulary),
        kept_repeats=repeat_count - (of_first_users - without_repeats),
    )
    return vocabulary, sequences, counts


def histories_of(
    ratings: pd.DataFrame,
    vocabulary: Vocabulary,
    max_users: int | None = None,
    *,
    keep_repeats: bool = False,
    own: bool = False,
) -> tuple[Sequences, list[str]]:
    """Every user's history in a log, over the vocabulary of a model that was trained on this log or an earlier one, and
    what should be known about them: items that the model does not know are skipped, and users without any other.

    The order is that of `build_sequences`, of an `own` log (`Interactions.own`) or a release, and an item counts once,
    at its first time, unless `keep_repeats`. Ids are compared as they are written: a log whose ids were numbers may
    have got one that is a text. `max_users` keeps the first users only. ValueError if no item of the log is known.
    """
    if ratings.empty:
        raise ValueError("the log holds no rows")
    (user_codes, users), (item_codes, items), order = in_time_order(ratings, tie_seed=0, own=own)
    if max_users is not None:
        order, users = order[user_codes[order] < max_users], users[:max_users]
    user_codes, item_codes = user_codes[order], item_codes[order]
    tokens = vocabulary.tokens_as_written(items.tolist())[item_codes]
    is_known = tokens > 0
    if not is_known.any():
        example = f"its items are such as {vocabulary.items[:1].tolist()[0]!r}, those of the log such as {items[0]!r}"
        raise ValueError(f"the model knows no item of the log: {example}; give a log of the items it was trained on")
    unknown_items = len(np.unique(item_codes[~is_known]))
    unknown = f"rows with an item that the model does not know (skipped; items: {unknown_items:,})"
    notes = {unknown: (~is_known).sum()}
    user_codes, tokens = user_codes[is_known], tokens[is_known]
    if not keep_repeats:
        is_first = ~pd.Series(user_codes * (len(vocabulary) + 1) + tokens).duplicated().to_numpy()
        user_codes, tokens = user_codes[is_first], tokens[is_first]
    lengths = np.bincount(user_codes, minlength=len(users))
    has_any = lengths > 0
    notes["users without an item that the model knows (left out)"] = (~has_any).sum()
    offsets = np.concatenate([[0], lengths[has_any].cumsum()])
    histories = Sequences(tokens, offsets, np.asarray(users[has_any]))
    return histories, [f"{what}: {count:,}" for what, count in notes.items() if count]


@dataclass(frozen=True)
class Dataset:
    """A vocabulary, the sequences over it, and the log they were built from, or a function that reads it, if any."""

    vocabulary: Vocabulary
    sequences: Sequences
    source: Interactions | Callable[[], Interactions] | None = None
    other_split: Split | None = None
    counts: DataCounts | None = None  # what came in and what was dropped
    item_table: pd.DataFrame | None = None  # `Interactions.item_table`, where it is known without the log
    repeats: str = "first"  # as in DataSettings, but never None

    @cached_property
    def log(self) -> Interactions | None:
        """The log, read when it is first asked for; raises what `load_movielens` and `load_interactions` raise."""
        return self.source() if callable(self.source) else self.source

    @cached_property
    def items(self) -> pd.DataFrame:
        """Every item of the log: item, title, genres, ratings. ValueError if there is no log."""
        if self.item_table is not None:
            return self.item_table
        if self.log is None:
            raise ValueError("this dataset has no log that names its items")
        return self.log.item_table()

    @cached_property
    def split(self) -> Split:
        """The `other_split`, or leave-one-out."""
        return self.other_split or leave_one_out(self.sequences, self.repeats == "keep")

    @property
    def summary(self) -> str:
        """What came in and what was kept, for people."""
        if self.counts:
            return str(self.counts)
        users = f"{len(self.split.train):,} users before the cut, {len(self.split.test):,} after it"
        kept = "; repeats kept" if self.repeats == "keep" else ""
        return f"cut in time: {len(self.vocabulary):,} items, {users}{kept}"

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of the `items`, of the `sequences` and, where these are of training only, of the `held-out items`:
        equal for equal data, whatever file it was read from."""
        items = "\n".join(map(str, self.vocabulary.items.tolist()))
        found = {"items": hashlib.sha256(items.encode()).hexdigest(), "sequences": _digest(self.sequences)}
        if split := self.other_split:
            parts = [part for part in (split.validation, split.test, split.successive) if part]
            targets = b"".join(part.targets.astype("<i4").tobytes() for part in parts)
            found["held-out items"] = hashlib.sha256(_digest(split.test.histories).encode() + targets).hexdigest()
        return found


def _digest(sequences: Sequences) -> str:
    parts = (sequences.tokens.astype("<i4"), sequences.offsets.astype("<i8"))
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def build_dataset(
    log: Interactions, min_item_ratings: int = 5, max_users: int | None = None, repeats: str | None = None
) -> Dataset:
    """What a model is trained on, from a log that was read (`load_interactions`, `from_frame`); `repeats` as in
    `build_sequences`: the log decides, unless it is told. What was decided is `Dataset.repeats`, and the settings of
    the model must say the same. Raises what that raises."""
    vocabulary, sequences, counts = build_sequences(log.ratings, min_item_ratings, max_users, repeats, own=log.own)
    repeats = repeats or ("keep" if counts.kept_repeats else "first")
    return Dataset(vocabulary, sequences, log, counts=counts, repeats=repeats)


def load_dataset(settings: DataSettings) -> Dataset:
    """Read a release, or a log of your own, and build the sequences, or take those that an earlier start has cached.
    With a `time_split` the sequences are those of training, up to the cut.
    Raises what `load_movielens`, `load_interactions` and `build_sequences` raise."""
    if settings.ratings_file:
        files = [Path(file).expanduser().absolute() for file in (settings.ratings_file, settings.items_file) if file]
        read = partial(load_interactions, files[0], files[1] if settings.items_file else None, columns=settings.columns)
        if settings.time_split:
            log = read()
            is_kept = pd.factorize(log.ratings.user, sort=True)[0] < (settings.max_users or len(log.ratings))
            ratings = log.ratings[is_kept]
            rules = settings.time_split, settings.min_item_ratings, settings.repeats
            vocabulary, split = split_in_time(ratings, *rules, own=True)
            repeats = "keep" if split.test.seen_are_candidates else "first"
            return Dataset(vocabulary, split.train, log, other_split=split, repeats=repeats)
    elif settings.release is None:
        raise ValueError("the model was trained on a data frame, which is not kept; give its rows with --ratings FILE")
    else:
        folder = find_release(settings.release)
        files = [find_file(folder, RELEASES[settings.release].ratings_file)]
        read = partial(read_release, settings.release, folder, settings.max_users)
    name = f"{files[0].name}.sequences-{settings.min_item_ratings}-{settings.max_users or 'all'}"
    paths = {repeats: files[0].with_name(f"{name}{'-keep' if repeats == 'keep' else ''}.npz") for repeats in REPEATS}
    key = _cache_key(files, settings)
    for repeats in [settings.repeats] if settings.repeats else REPEATS:
        cached = _read_cache(paths[repeats], key) if key else None
        if cached and cached.counts and (settings.repeats or cached.counts.are_many_repeats == (repeats == "keep")):
            return replace(cached, source=read, repeats=repeats)
    dataset = build_dataset(read(), settings.min_item_ratings, settings.max_users, settings.repeats)
    if key:
        _write_cache(paths[dataset.repeats], key, dataset)
    return dataset


def _cache_key(files: list[Path], settings: DataSettings) -> str | None:
    """A text that identifies the files and settings of cached sequences; None if the file is too small to cache."""
    if not all(file.is_file() for file in files) or files[0].stat().st_size < MIN_CACHED_BYTES:
        return None
    states = [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return f"version {CACHE_VERSION}, {settings.columns if settings.ratings_file else settings.release}, {states}"


def _write_cache(path: Path, key: str, dataset: Dataset) -> None:
    """Write a dataset to an .npz, whose checksums `_read_cache` relies on; logs a warning if that fails."""
    arrays = {"key": np.array(key), "counts": np.array(dataset.counts), "vocabulary": dataset.vocabulary.items}
    arrays |= vars(dataset.sequences) | {f"items.{name}": dataset.items[name].to_numpy() for name in dataset.items}

    def write(partial: Path) -> None:
        with zipfile.ZipFile(partial, "w") as archive:  # np.savez of NumPy 1 leaves it open on a full disk
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, _as_bytes(array), allow_pickle=False)

    try:
        replace_file(path, write)
    except OSError as error:
        what = "%s cannot be written (%s): the next start takes as long as this one"
        logging.getLogger(__name__).warning(what, display_path(path), error.strerror or error)


def _read_cache(path: Path, key: str) -> Dataset | None:
    """The dataset that was written; None if no file is there, if it is of other data, or damaged."""
    try:
        with open(path, "rb") as file, np.load(file) as arrays:
            if arrays["key"].item() != key:
                return None
            names = ("item", "title", "genres", "ratings")  # not those in the file: a name may be damaged too
            items = pd.DataFrame({name: _as_texts(arrays[f"items.{name}"]) for name in names})
            sequences = Sequences(arrays["tokens"], arrays["offsets"], _as_texts(arrays["users"]))
            counts = DataCounts(*arrays["counts"].tolist())
            return Dataset(Vocabulary(_as_texts(arrays["vocabulary"])), sequences, counts=counts, item_table=items)
    except Exception:  # whatever a damaged file makes of an archive or an array
        return None


def _as_bytes(texts: np.ndarray) -> np.ndarray:
    """Texts as one array of bytes, one a line (no log has a line break in a text); numbers as they are."""
    return np.frombuffer("\n".join(texts).encode(), np.uint8) if texts.dtype == object else texts


def _as_texts(array: np.ndarray) -> np.ndarray:
    return np.array(array.tobytes().decode().split("\n"), object) if array.dtype == np.uint8 else array
