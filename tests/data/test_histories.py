"""The history of every user of a log over a model's vocabulary: by hand, and as the training had it."""

import numpy as np
import pandas as pd
import pytest

from bertrec_utils.data.dataset import build_dataset, build_sequences, histories_of
from bertrec_utils.data.logs import from_frame
from bertrec_utils.data.sequences import Vocabulary

KNOWN = Vocabulary(np.array([2, 5, 7]))  # tokens 1, 2, 3
ROWS = [  # user, item, timestamp
    ("b", 7, 4),
    ("a", 5, 3),
    ("b", 2, 1),
    ("c", 9, 1),
    ("a", 9, 2),
    ("b", 7, 2),
    ("b", 8, 3),
    ("b", 5, 4),
]


def log(rows=ROWS):
    return pd.DataFrame(rows, columns=["user", "item", "timestamp"])


def as_lists(histories):
    return {user: histories[row].tolist() for row, user in enumerate(histories.users)}


def test_histories_by_hand():
    histories, notes = histories_of(log(), KNOWN)
    assert as_lists(histories) == {"a": [2], "b": [1, 3, 2]}  # an item counts at its first time
    assert histories.tokens.dtype == np.int32
    assert notes == [
        "rows with an item that the model does not know (skipped; items: 2): 3",
        "users without an item that the model knows (left out): 1",
    ]
    assert as_lists(histories_of(log(), KNOWN, keep_repeats=True)[0]) == {
        "a": [2],
        "b": [1, 3, 3, 2],
    }  # ties as in the file
    first, notes = histories_of(log(), KNOWN, max_users=1)
    assert as_lists(first) == {"a": [2]}
    assert notes == ["rows with an item that the model does not know (skipped; items: 1): 1"]
    assert histories_of(log(ROWS[:3]), KNOWN)[1] == []


def test_ids_are_compared_as_they_are_written():
    """A log of numbers in which a text has come up, and the other way round."""
    rows = [(user, str(item), time) for user, item, time in ROWS]
    assert as_lists(histories_of(log([*rows, ("c", "x", 9)]), KNOWN)[0]) == {"a": [2], "b": [1, 3, 2]}
    texts = Vocabulary(np.array(["2", "5", "7", "x"], object))
    assert as_lists(histories_of(log(), texts)[0]) == {"a": [2], "b": [1, 3, 2]}
    with pytest.raises(
        ValueError, match="the model knows no item of the log: its items are such as 2, those of the log"
    ):
        histories_of(log([("a", "02", 1)]), KNOWN)
    with pytest.raises(ValueError, match="the log holds no rows"):
        histories_of(log([]), KNOWN)


def test_a_log_that_has_not_changed_gives_what_was_trained_on(bundled):
    """Its ties in time, too, which are shuffled; rare items and short users were dropped there."""
    vocabulary, sequences, counts = build_sequences(bundled.ratings, 5, 300)
    histories, notes = histories_of(bundled.ratings, vocabulary, 300)
    trained_on = histories.rows(np.flatnonzero(np.isin(histories.users, sequences.users)))
    for part in ("tokens", "offsets", "users"):
        np.testing.assert_array_equal(getattr(trained_on, part), getattr(sequences, part))
    is_short = ~np.isin(histories.users, sequences.users)
    assert is_short.any() and (histories.lengths[is_short] < 3).all()
    skipped = counts.rows - counts.rows_of_later_users - counts.kept_rows - histories.lengths[is_short].sum()
    assert notes[0].endswith(f"): {skipped:,}")


def test_rows_of_others_change_nobodys_history():
    """A table sorted by user and item, two sittings for each user, but for user 9: so many are enough to tell."""
    rows = [(user, item, 100 + item % 2) for user in range(9) for item in range(16)]
    rows += [(9, item, 100) for item in (3, 2, 11, 7)]

    def histories(rows):
        ratings = from_frame(log(rows))
        dataset = build_dataset(ratings, 1)
        named = [
            {
                str(user): dataset.vocabulary.item_ids(part[row]).astype(str).tolist()
                for row, user in enumerate(part.users)
            }
            for part in (dataset.sequences, histories_of(ratings.ratings, dataset.vocabulary, own=True)[0])
        ]
        assert named[0] == {user: named[1][user] for user in named[0]}
        return named[1]

    before = histories(rows)
    assert before["9"] != ["3", "2", "11", "7"] == histories(rows[-4:])["9"]
    items = np.array([before[str(user)] for user in range(9)], int).reshape(9, 2, 8)
    assert (items % 2 == [[0], [1]]).all()  # time comes first
    steps = np.diff(items) > 0
    assert 0.35 < steps.mean() < 0.65 and len({*map(bytes, steps)}) == 9  # ids do not tell the order
    for more in ([(77, 5, 100)], [(-1, 5, 100), (-1, 3, 100)], [(4, 5, 300)], [("ann", 5, 100)], [(77, "x", 100)]):
        for after in (histories([*more, *rows]), histories(rows + more)):
            assert all(after[user] == before[user] for user in before if user != str(more[0][0]))
