import os
import subprocess
import sys
import time

import pytest

from bertrec_utils.common import PROJECT, STALE_SECONDS, check_writable, replace_file


def test_two_writers_of_a_file_do_not_share_a_partial_one(tmp_path):
    path, partials = tmp_path / "file", []

    def write_both(partial):
        partial.write_text("first")
        replace_file(path, lambda other: partials.extend([partial, other]) or other.write_text("second"))
        assert path.read_text() == "second" and partial.read_text() == "first"

    replace_file(path, write_both)
    assert len(set(partials)) == 2 and path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_link_stays_one_and_what_is_no_file_is_written_to(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/file")
    for text in ("first", "second"):
        replace_file(tmp_path / "link", lambda partial, text=text: partial.write_text(text))
        assert (tmp_path / "link").is_symlink() and (tmp_path / "folder" / "file").read_text() == text
    os.mkfifo(pipe := tmp_path / "pipe")
    reader = os.open(pipe, os.O_RDWR)
    replace_file(pipe, lambda path: path.write_text("through it"))
    assert pipe.is_fifo() and os.read(reader, 100) == b"through it"
    os.close(reader)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["file"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link", "pipe"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_whether_a_file_can_be_written_is_told_without_a_trace(tmp_path):
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to("/proc/file")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    for name in ("old", "new", "pipe"):
        check_writable(tmp_path / name)
    for name in ("link", "x" * 230):  # the latter with what replace_file adds to it
        with pytest.raises(OSError):
            check_writable(tmp_path / name)
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "old").read_text() == "old"


def test_the_output_of_a_program_is_written_to(tmp_path):
    """By a link to /dev/stdout, so that a mistake replaces the link alone."""
    if not os.path.exists("/dev/stdout"):
        pytest.skip("no /dev/stdout")
    (tmp_path / "link").symlink_to("/dev/stdout")
    code = "import pathlib, sys; from bertrec_utils.common import replace_file; "
    code += "replace_file(pathlib.Path(sys.argv[1]), lambda path: path.write_text('out'))"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "link"], cwd=PROJECT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "out"), done.stderr
    assert (tmp_path / "link").is_symlink() and len(list(tmp_path.iterdir())) == 1


KILLED = """
import os, pathlib, signal, sys
from bertrec_utils.common import replace_file
replace_file(pathlib.Path(sys.argv[1]), lambda partial: partial.write_text("par") and os.kill(os.getpid(), 9))
"""


def test_what_a_killed_process_leaves_is_removed_after_a_day(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    foreign = [tmp_path / "file.mine.partial", tmp_path / "file2.partial"]
    for other in foreign:
        other.touch()
        os.utime(other, (0, 0))
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, path], cwd=PROJECT)
    assert path.read_text() == "old"
    left = sorted({*tmp_path.glob("file.*.partial")} - {*foreign})
    assert len(left) == 2
    a_day_ago = time.time() - STALE_SECONDS - 1
    os.utime(left[0], (a_day_ago, a_day_ago))
    replace_file(path, lambda partial: partial.write_text("new"))
    assert path.read_text() == "new"
    assert sorted(tmp_path.iterdir()) == sorted([path, left[1], *foreign])
