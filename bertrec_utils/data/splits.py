"""What is held out: the last items of every user, or all that came after a cut in time."""

import numpy as np
import pandas as pd

from .rows import MIN_HISTORY, in_time_order, keeps_repeats
from .sequences import Holdout, Sequences, Split, Vocabulary


def leave_one_out(sequences: Sequences, seen_are_candidates: bool = False) -> Split:
    """Each user's last item for the test, the one before for validation, the rest for training (section 4.2 of the
    paper). `seen_are_candidates` of sequences with repeats. ValueError below three items."""
    if not len(sequences):
        raise ValueError("there is no sequence to split")
    if sequences.lengths.min() < MIN_HISTORY:
        raise ValueError("leave-one-out needs at least three items in every sequence; drop the shorter ones first")
    known = sequences.without_last(1)
    train = sequences.without_last(2)
    validation = Holdout(train, known.last(), seen_are_candidates)
    return Split(train, validation, Holdout(known, sequences.last(), seen_are_candidates))


def split_in_time(
    ratings: pd.DataFrame,
    quantile: float = 0.9,
    min_item_ratings: int = 5,
    repeats: str | None = "first",
    *,
    tie_seed: int | None = 0,
    own: bool = False,
) -> tuple[Vocabulary, Split]:
    """Train before the `quantile` of the timestamps, test after it ("Time to Split", Gusak et al., RecSys 2025).

    Nothing that came after the cut is known in training: the vocabulary and all counts are from before it, and items
    that are not in it are skipped. `successive` has every item after the cut as a target, after all that the user had
    by then, and `test` the first of them, whether the user is known from before or new. A new user's very first item
    is no target. In validation the target is each user's last item before the cut. Order, repeated items and rare ones
    are treated as in `build_sequences`. ValueError if nobody can be trained on or tested, `repeats` is unknown, or
    `quantile` not between 0 and 1.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"the quantile is {quantile}; it must be above 0 and below 1")
    log = ratings.iloc[in_time_order(ratings, tie_seed, own)[2]]
    cut = ratings.timestamp.quantile(quantile)
    is_repeat, is_early = log.duplicated(["user", "item"]), log.timestamp < cut
    keeps = keeps_repeats(repeats, int((is_repeat & is_early).sum()), int(is_early.sum()))
    log = log if keeps else log[~is_repeat]
    counts = log.item[log.timestamp < cut].value_counts()
    log = log[log.item.isin(counts.index[counts >= min_item_ratings])]
    is_early = (log.timestamp < cut).to_numpy()
    users, lengths = np.unique(log.user, return_counts=True)
    vocabulary = Vocabulary(np.unique(log.item[is_early]))
    codes, items = pd.factorize(log.item)
    whole = Sequences(vocabulary.tokens(items)[codes], np.concatenate([[0], lengths.cumsum()]), users)
    user_rows = whole.token_rows
    known = np.bincount(user_rows[is_early], minlength=len(users))  # how many items of each user are before the cut
    first = np.maximum(known, 1)  # the position of the first target after it
    trained, tested = np.flatnonzero(known >= 2), np.flatnonzero(first < lengths)
    if not len(trained) or not len(tested):
        needed = f"there must be users with two items before the {quantile} quantile of time, and items after"
        raise ValueError(f"{needed}; try another (--set time_split=0.8)")
    positions = np.arange(len(user_rows)) - whole.offsets[user_rows]
    later = positions >= first[user_rows]

    def held_out(rows: np.ndarray, positions: np.ndarray) -> Holdout:
        return Holdout(whole.prefixes(rows, positions), whole.tokens[whole.offsets[rows] + positions], keeps)

    validation = held_out(trained, known[trained] - 1)
    return vocabulary, Split(
        train=validation.histories,
        validation=validation,
        test=held_out(tested, first[tested]),
        successive=held_out(user_rows[later], positions[later]),
    )
