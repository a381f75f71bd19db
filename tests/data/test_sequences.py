import time

import numpy as np
import pytest

from bertrec_utils.data.sequences import Holdout, Vocabulary
from conftest import rows


def test_vocabulary_round_trip_and_errors():
    vocabulary = Vocabulary(np.array(["ape", "bee", "cat"]))
    assert vocabulary.tokens(["cat", "ape"]).tolist() == [3, 1]
    assert vocabulary.item_ids([3, 1]).tolist() == ["cat", "ape"]
    assert vocabulary.mask_token == 4 and "bee" in vocabulary and "dog" not in vocabulary
    with pytest.raises(KeyError, match="item 'zebra' is not in the vocabulary of 3 items, such as 'ape'"):
        vocabulary.tokens(["ape", "zebra"])
    with pytest.raises(KeyError, match="item '5' is not in the vocabulary of 1 items, such as 5"):
        Vocabulary(np.array([5])).tokens(["5"])
    for token in (0, 4, -1):
        with pytest.raises(IndexError):
            vocabulary.item_ids([token])


def test_tokens_of_any_iterable_and_of_ids_of_another_kind():
    numbers, texts = Vocabulary(np.array([5, 7, 9])), Vocabulary(np.array(["ape", "bee"], object))
    assert numbers.tokens({9: "a", 5: "b"}.keys()).tolist() == [3, 1]
    assert numbers.tokens(item for item in (7, 9)).tolist() == [2, 3]
    assert sorted(texts.tokens({"ape", "bee"}).tolist()) == [1, 2]
    assert numbers.tokens(np.array([[5, 7], [9, 5]])).tolist() == [[1, 2], [3, 1]]
    assert numbers.tokens([]).dtype == np.int32 and len(texts.tokens([])) == 0
    with pytest.raises(KeyError, match="item 5 is not in the vocabulary of 2 items, such as 'ape'"):
        texts.tokens([5])


def test_ids_are_found_as_they_are_written():
    assert Vocabulary(np.array([5, 55])).tokens_as_written(["55", 5, "055", 7]).tolist() == [2, 1, 0, 0]
    assert Vocabulary(np.array(["5", "x"], object)).tokens_as_written(iter([5, "x", "X"])).tolist() == [1, 2, 0]


def test_rows_picks_in_order():
    sequences = rows([1], [2, 3], [4, 5, 6])
    picked = sequences.rows(np.array([2, 0]))
    assert [picked[row].tolist() for row in range(2)] == [[4, 5, 6], [1]]
    assert picked.users.tolist() == [2, 0]
    with pytest.raises(IndexError):
        picked[2]


def test_an_item_is_in_the_vocabulary_as_it_is_written_there():
    numbers, texts = Vocabulary(np.array([5, 7])), Vocabulary(np.array(["05", "7"], object))
    assert 5 in numbers and np.int32(7) in numbers and 6 not in numbers
    assert "5" not in numbers and 7 not in texts and "5" not in texts and "05" in texts
    assert None not in numbers and None not in texts


def test_looking_for_an_item_does_not_go_through_all():
    """Going through all for each would take half a minute, a look-up in a dictionary takes a millisecond."""
    vocabulary = Vocabulary(np.arange(0, 2_000_000, 2))
    assert 0 in vocabulary
    start = time.perf_counter()
    assert sum(item in vocabulary for item in range(4_000)) == 2_000
    assert time.perf_counter() - start < 2


def test_the_last_token_of_each_row_and_none_of_an_empty_one():
    assert rows([1], [2, 3], [4, 5, 6]).last().tolist() == [1, 3, 6]
    for histories in ([[], [1]], [[1], [], [2]], [[1], []]):
        with pytest.raises(ValueError, match="a history is empty; give every user at least one item"):
            rows(*histories).last()


def test_no_prefix_is_longer_than_its_row():
    """It would go on with the items of the next user."""
    sequences = rows([1, 2], [3, 4, 5])
    assert sequences.prefixes(np.array([1, 0]), np.array([3, 1])).tokens.tolist() == [3, 4, 5, 1]
    for lengths in ([3], [-1]):
        with pytest.raises(ValueError, match="a sequence is shorter than the prefix that is asked for"):
            sequences.prefixes(np.array([0]), np.array(lengths))
    with pytest.raises(ValueError, match="a sequence is shorter"):
        sequences.without_last(3)


def test_pairs_do_not_cross_from_one_row_to_the_next():
    earlier, later = rows([1, 2, 3, 4], [5], [6, 7, 8]).pairs(2)
    assert list(zip(earlier.tolist(), later.tolist(), strict=True)) == [(1, 3), (2, 4), (6, 8)]


def test_sample_of_a_holdout_keeps_pairs():
    holdout = Holdout(rows(*([token] for token in range(1, 51))), np.arange(1, 51))
    sample = holdout.sample(10, seed=0)
    assert len(sample.targets) == 10 and sample.targets.tolist() != list(range(1, 11))
    assert [sample.histories[row].tolist() for row in range(10)] == [[target] for target in sample.targets]
    assert holdout.sample(50, seed=0) is holdout
    # anybody may be in it
    assert len({user for seed in range(60) for user in holdout.sample(10, seed).targets}) == 50
