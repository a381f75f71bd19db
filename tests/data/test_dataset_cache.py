import logging
import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bertrec_utils.common import PROJECT
from bertrec_utils.data import dataset as module
from bertrec_utils.data.dataset import load_dataset
from bertrec_utils.settings import DataSettings, get_preset

LOG = "user,item,timestamp\n" + "".join(f"{user},{item},{item}\n" for user in (3, 1) for item in (5, 10, 7, 8))


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Settings of a log of one's own that counts as big."""
    monkeypatch.setattr(module, "MIN_CACHED_BYTES", 1)
    (tmp_path / "log.csv").write_text(LOG)
    return DataSettings(ratings_file=str(tmp_path / "log.csv"), min_item_ratings=1)


def cached(own):
    """What lies beside the log."""
    return sorted(path.name for path in Path(own.ratings_file).parent.iterdir() if path.suffix != ".csv")


def assert_same(one, other):
    assert one.counts == other.counts and one.counts.kept_rows == len(one.sequences.tokens)
    pd.testing.assert_frame_equal(one.items, other.items)
    arrays = [
        (each.vocabulary.items, each.sequences.tokens, each.sequences.offsets, each.sequences.users)
        for each in (one, other)
    ]
    assert [(array.dtype, array.tolist()) for array in arrays[0]] == [(a.dtype, a.tolist()) for a in arrays[1]]


def is_unread(dataset):
    return callable(dataset.source)


def test_second_start_does_not_read_the_log_before_it_is_asked_for(own):
    first = load_dataset(own)
    assert cached(own) == ["log.csv.sequences-1-all.npz"]
    second = load_dataset(own)
    assert_same(first, second)
    assert first.fingerprint == second.fingerprint and second.split
    assert not is_unread(first) and is_unread(second) and "log" not in vars(second)
    assert second.log.ratings.equals(first.log.ratings) and second.log.items.equals(first.log.items)
    assert second.log is second.log


def test_a_release_is_cached_beside_its_own_file(tmp_path, monkeypatch):
    monkeypatch.setenv("BERTREC_DATA", str(tmp_path))
    monkeypatch.setattr(module, "MIN_CACHED_BYTES", 1)
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ml-1m" / "ratings.dat").write_text("".join(f"1::{item}::3::{9 - item}\n" for item in (2, 4, 7)))
    (tmp_path / "ml-1m" / "movies.dat").write_text("2::Two (2002)::Drama\n")
    first, second = (load_dataset(DataSettings(release="ml-1m", min_item_ratings=1)) for _ in range(2))
    assert (tmp_path / "ml-1m" / "ratings.dat.sequences-1-all.npz").is_file()
    assert_same(first, second)
    monkeypatch.setenv("BERTREC_DATA", str(tmp_path / "elsewhere"))  # the log is still that of the sequences
    assert is_unread(second) and second.log.ratings.equals(first.log.ratings) and second.log.name == "ml-1m"
    (tmp_path / "ml-1m" / "movies.dat").unlink()
    monkeypatch.setenv("BERTREC_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"movies\.dat is missing; unpack ml-1m\.zip there again"):
        load_dataset(DataSettings(release="ml-1m", min_item_ratings=1))


def test_ids_that_are_texts_are_cached(own):
    path = Path(own.ratings_file)
    path.write_text(path.read_text().replace("3,", "Zoë,").replace(",5,", ',"a, b",'))
    first, second = load_dataset(own), load_dataset(own)
    assert is_unread(second) and second.vocabulary.items.tolist() == ["10", "7", "8", "a, b"]
    assert_same(first, second)


@pytest.mark.parametrize(
    ("titles", "five", "first_item"),
    [
        ('item,title,genres\n11,"Eleven, ""unrated""",\n10,Zehn – Größe,War|Drama\n5,,\n', "5", 5),
        ("item,title\nx,\nV,Five\n", "V", "10"),
    ],
    ids=["numbers", "texts"],
)
def test_cached_items_are_those_of_the_log(titles, five, first_item, own, tmp_path):
    Path(own.ratings_file).write_text(LOG.replace(",5,", f",{five},"))
    (tmp_path / "titles.csv").write_text(titles, encoding="utf-8")
    named = replace(own, items_file=str(tmp_path / "titles.csv"))
    first, second = load_dataset(named), load_dataset(named)
    pd.testing.assert_frame_equal(second.items, first.log.item_table())
    assert is_unread(second) and "log" not in vars(second)
    assert len(second.items) == 5 and second.items.item[0] == first_item
    assert second.items.ratings.tolist().count(2) == 4 and second.items.ratings.tolist().count(0) == 1


def test_small_files_and_the_bundled_data_leave_no_litter(own, monkeypatch):
    monkeypatch.undo()
    assert module.MIN_CACHED_BYTES == 50_000_000
    load_dataset(own)
    assert cached(own) == []


def test_each_setting_has_its_own_file_and_no_more(own):
    one, other = replace(own, min_item_ratings=2), replace(own, max_users=1)
    for _ in range(2):
        assert [len(load_dataset(each).sequences) for each in (own, one, other)] == [2, 2, 1]
    assert cached(own) == [f"log.csv.sequences-{each}.npz" for each in ("1-1", "1-all", "2-all")]


def test_changed_ratings_are_read_again_and_replace_what_was_cached(own):
    path = Path(own.ratings_file)
    checkpoint_fingerprint = load_dataset(own).fingerprint
    path.write_text(LOG + "".join(f"2,{item},1\n" for item in (5, 7, 8)))  # another size
    assert len(load_dataset(own).sequences) == 3
    text = path.read_text()
    path.write_text(text.replace("3,5,5", "3,5,9"))  # the same size, another time
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    changed = load_dataset(own)
    assert changed.vocabulary.item_ids(changed.sequences[2]).tolist() == [7, 8, 5, 10]
    assert changed.fingerprint["sequences"] != checkpoint_fingerprint["sequences"]
    assert cached(own) == ["log.csv.sequences-1-all.npz"]


def test_changed_titles_are_read_again_and_change_no_id(own, tmp_path):
    titles = tmp_path / "titles.csv"
    named = replace(own, items_file=str(titles))
    for title in ("Five", "Fünf"):
        titles.write_text(f"item,title\n5,{title}\nx,Unknown\n")
        dataset = load_dataset(named)
        assert dataset.vocabulary.items.tolist() == [5, 7, 8, 10] and dataset.items.title[0] == title


def test_another_version_does_not_use_what_was_cached(own, monkeypatch):
    load_dataset(own)
    monkeypatch.setattr(module, "CACHE_VERSION", module.CACHE_VERSION + 1)
    assert [is_unread(load_dataset(own)) for _ in range(2)] == [False, True]


def test_sequences_are_those_of_this_cache_version():
    """Whoever changes what `build_sequences` returns raises `CACHE_VERSION`, and writes here what it returns now."""
    built = load_dataset(get_preset("small").data)
    assert (module.CACHE_VERSION, built.fingerprint["sequences"][:12]) == (6, "d523577054c4")


def test_missing_or_malformed_files_are_errors_at_once(own, tmp_path):
    named = replace(own, items_file=str(tmp_path / "titles.csv"))
    (tmp_path / "titles.csv").write_text("item,title\n5,Five\n")
    load_dataset(named)
    (tmp_path / "titles.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no file .*titles\.csv"):
        load_dataset(named)
    path = Path(own.ratings_file)
    path.write_text(LOG + "2,5,noon\n")
    with pytest.raises(ValueError, match=r"log\.csv, line 10: timestamp 'noon'"):
        load_dataset(own)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no file .*log\.csv"):
        load_dataset(own)


def test_damaged_files_are_never_used(own):
    """Any byte of the file may be wrong, and it may end anywhere."""
    first = load_dataset(own)
    path = Path(own.ratings_file).parent / cached(own)[0]
    whole, random = path.read_bytes(), np.random.default_rng(0)
    rebuilt = 0
    for position in random.permutation(len(whole))[:300]:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << random.integers(8)
        for content in (damaged, whole[:position]):
            path.write_bytes(content)
            second = load_dataset(own)
            assert_same(first, second)
            rebuilt += not is_unread(second)
    assert rebuilt > 400  # some bytes, such as times in the archive, tell nothing
    assert cached(own) == [path.name]


def test_file_that_cannot_be_written_is_a_warning(own, caplog):
    Path(own.ratings_file + ".sequences-1-all.npz").mkdir()  # nothing can be renamed to a folder
    with caplog.at_level(logging.WARNING):
        built = load_dataset(own)
    assert len(built.sequences) == 2
    (record,) = caplog.records
    assert "log.csv.sequences-1-all.npz cannot be written (Is a directory): the next start" in record.getMessage()
    assert cached(own) == ["log.csv.sequences-1-all.npz"]


FULL = """
import resource, sys
from bertrec_utils.data import dataset
from bertrec_utils.settings import DataSettings
dataset.MIN_CACHED_BYTES = 1
# no file may grow beyond 500 bytes: the rest is refused, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
print(len(dataset.load_dataset(DataSettings(ratings_file=sys.argv[1], min_item_ratings=1)).sequences))
"""


def test_disk_full_while_sequences_are_cached_is_a_warning_and_leaves_nothing(own):
    pytest.importorskip("resource")
    command = [sys.executable, "-c", FULL, own.ratings_file]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=True)
    assert done.stdout == "2\n"
    assert done.stderr.endswith("(File too large): the next start takes as long as this one\n")
    assert done.stderr.count("\n") == 1 and cached(own) == []


def start(own, barrier, count):
    module.MIN_CACHED_BYTES = 1
    for _ in range(count):
        barrier.wait(60)
        Path(own.ratings_file + ".sequences-1-all.npz").unlink(missing_ok=True)
        assert load_dataset(own).sequences.tokens.tolist() == [1, 2, 3, 4] * 2


def test_processes_that_start_at_once_do_not_disturb_each_other(own):
    path = Path(own.ratings_file)
    path.write_text(
        "user,item,timestamp\n" + "".join(f"{user},{item},{item}\n" for user in (3, 1) for item in range(4))
    )
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(2)
    processes = [spawn.Process(target=start, args=(own, barrier, 100)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert cached(own) == ["log.csv.sequences-1-all.npz"]
