import logging
import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bertrec_utils import dataset as module
from bertrec_utils.data.dataset import load_dataset
from bertrec_utils.common import PROJECT
from bertrec_utils.settings import get_preset
from conftest import preset

LOG = "user,item,timestamp\n" + "".join(f"{user},{item},{item}\n" for user in (3, 1) for item in (5, 10, 7, 8))


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A preset with a log of its own that counts as big."""
    monkeypatch.setattr(module, "KEPT_FROM", 1)
    (tmp_path / "log.csv").write_text(LOG)
    return preset(ratings_file=str(tmp_path / "log.csv"), min_item_ratings=1)


def kept(own):
    """What lies beside the log."""
    return sorted(path.name for path in Path(own.ratings_file).parent.iterdir() if path.suffix != ".csv")


def same(one, other):
    arrays = [
        (each.vocabulary.items, each.sequences.tokens, each.sequences.offsets, each.sequences.users)
        for each in (one, other)
    ]
    assert [(array.dtype, array.tolist()) for array in arrays[0]] == [(a.dtype, a.tolist()) for a in arrays[1]]


def is_unread(dataset):
    return callable(dataset.source)


def test_second_start_does_not_read_the_log_before_it_is_asked_for(own):
    first = load_dataset(own)
    assert kept(own) == ["log.csv.sequences-1-all.npz"]
    second = load_dataset(own)
    same(first, second)
    assert first.fingerprint == second.fingerprint and second.split
    assert not is_unread(first) and is_unread(second) and "log" not in vars(second)
    assert second.log.ratings.equals(first.log.ratings) and second.log.items.equals(first.log.items)
    assert second.log is second.log


def test_a_release_is_kept_beside_its_own_file(tmp_path, monkeypatch):
    monkeypatch.setenv("BERTREC_DATA", str(tmp_path))
    monkeypatch.setattr(module, "KEPT_FROM", 1)
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ml-1m" / "ratings.dat").write_text("".join(f"1::{item}::3::{9 - item}\n" for item in (2, 4, 7)))
    (tmp_path / "ml-1m" / "items.dat").write_text("2::Two (2002)::Drama\n")
    first, second = (load_dataset(preset(release="ml-1m", min_item_ratings=1)) for _ in range(2))
    assert (tmp_path / "ml-1m" / "ratings.dat.sequences-1-all.npz").is_file()
    same(first, second)
    monkeypatch.setenv("BERTREC_DATA", str(tmp_path / "elsewhere"))  # the log is still that of the sequences
    assert is_unread(second) and second.log.ratings.equals(first.log.ratings) and second.log.name == "ml-1m"
    (tmp_path / "ml-1m" / "items.dat").unlink()
    monkeypatch.setenv("BERTREC_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"items\.dat is missing; unpack ml-1m\.zip there again"):
        load_dataset(preset(release="ml-1m", min_item_ratings=1))


def test_ids_that_are_texts_are_kept(own):
    path = Path(own.ratings_file)
    path.write_text(path.read_text().replace("3,", "Zoë,").replace(",5,", ',"a, b",'))
    first, second = load_dataset(own), load_dataset(own)
    assert is_unread(second) and second.vocabulary.items.tolist() == ["10", "7", "8", "a, b"]
    same(first, second)


def test_small_files_and_the_bundled_data_leave_no_litter(own, monkeypatch):
    monkeypatch.undo()
    assert module.KEPT_FROM == 50_000_000
    load_dataset(own)
    assert kept(own) == []


def test_each_setting_has_its_own_file_and_no_more(own):
    one, other = replace(own, min_item_ratings=2), replace(own, max_users=1)
    for _ in range(2):
        assert [len(load_dataset(each).sequences) for each in (own, one, other)] == [2, 2, 1]
    assert kept(own) == [f"log.csv.sequences-{each}.npz" for each in ("1-1", "1-all", "2-all")]


def test_changed_ratings_are_read_again_and_replace_what_was_kept(own):
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
    assert kept(own) == ["log.csv.sequences-1-all.npz"]


def test_titles_decide_what_an_id_is_so_they_count_too(own, tmp_path):
    titles = tmp_path / "titles.csv"
    titles.write_text("item,title\n5,Five\n")
    named = replace(own, items_file=str(titles))
    assert load_dataset(named).vocabulary.items.tolist() == [5, 7, 8, 10]
    titles.write_text("item,title\n5,Five\nx,Unknown\n")
    assert load_dataset(named).vocabulary.items.tolist() == ["10", "5", "7", "8"]


def test_other_rules_do_not_use_what_was_kept(own, monkeypatch):
    load_dataset(own)
    monkeypatch.setattr(module, "RULES", module.RULES + 1)
    assert [is_unread(load_dataset(own)) for _ in range(2)] == [False, True]


def test_rules_are_those_of_this_number():
    """Whoever changes what `build_sequences` returns raises `RULES`, and writes here what it returns now."""
    built = load_dataset(get_preset("small"))
    assert (module.RULES, built.fingerprint["sequences"][:12]) == (1, "d523577054c4")


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
    path = Path(own.ratings_file).parent / kept(own)[0]
    whole, random = path.read_bytes(), np.random.default_rng(0)
    rebuilt = 0
    for place in random.permutation(len(whole))[:300]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.integers(8)
        for content in (damaged, whole[:place]):
            path.write_bytes(content)
            second = load_dataset(own)
            same(first, second)
            rebuilt += not is_unread(second)
    assert rebuilt > 400  # some bytes, such as times in the archive, tell nothing
    assert kept(own) == [path.name]


def test_file_that_cannot_be_written_is_a_warning(own, caplog):
    Path(own.ratings_file + ".sequences-1-all.npz").mkdir()  # nothing can be renamed to a folder
    with caplog.at_level(logging.WARNING):
        built = load_dataset(own)
    assert len(built.sequences) == 2
    (record,) = caplog.records
    assert "log.csv.sequences-1-all.npz cannot be written (Is a directory): the next start" in record.getMessage()
    assert kept(own) == ["log.csv.sequences-1-all.npz"]


FULL = """
import resource, sys
from bertrec_utils import dataset
from bertrec_utils.settings import Settings
dataset.KEPT_FROM = 1
# no file may grow beyond 500 bytes: the rest is refused, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
print(len(dataset.load_dataset(Settings("test", ratings_file=sys.argv[1], min_item_ratings=1)).sequences))
"""


def test_disk_full_while_sequences_are_kept_is_a_warning_and_leaves_nothing(own):
    pytest.importorskip("resource")
    command = [sys.executable, "-c", FULL, own.ratings_file]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=True)
    assert done.stdout == "2\n"
    assert done.stderr.endswith("(File too large): the next start takes as long as this one\n")
    assert done.stderr.count("\n") == 1 and kept(own) == []


def start(own, barrier, count):
    module.KEPT_FROM = 1
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
    assert kept(own) == ["log.csv.sequences-1-all.npz"]
