import os
import subprocess
import sys
import time

from bertrec_utils.common import ABANDONED, PROJECT, replace_file


def test_two_writers_of_a_file_do_not_share_a_partial_one(tmp_path):
    path, partials = tmp_path / "file", []

    def write_both(partial):
        partial.write_text("first")
        replace_file(path, lambda other: partials.extend([partial, other]) or other.write_text("second"))
        assert path.read_text() == "second" and partial.read_text() == "first"

    replace_file(path, write_both)
    assert len(set(partials)) == 2 and path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import os, pathlib, signal, sys
from bertrec_utils.common import replace_file
replace_file(pathlib.Path(sys.argv[1]), lambda partial: partial.write_text("par") and os.kill(os.getpid(), 9))
"""


def test_what_a_killed_process_leaves_is_removed_after_a_day(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    (tmp_path / "file2.partial").touch()  # of another file
    os.utime(tmp_path / "file2.partial", (0, 0))
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, path], cwd=PROJECT)
    assert path.read_text() == "old"
    left = sorted(tmp_path.glob("file.*.partial"))
    assert len(left) == 2
    a_day_ago = time.time() - ABANDONED - 1
    os.utime(left[0], (a_day_ago, a_day_ago))
    replace_file(path, lambda partial: partial.write_text("new"))
    assert path.read_text() == "new"
    assert sorted(tmp_path.iterdir()) == sorted([path, left[1], tmp_path / "file2.partial"])
