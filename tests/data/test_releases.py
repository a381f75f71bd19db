import functools
import gzip
import hashlib
import http.server
import lzma
import os
import stat
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bertrec_utils.common import PROJECT
from bertrec_utils.data import releases
from bertrec_utils.data.releases import download, load_movielens

RATINGS = [(1, 31, 2.5, 1260759144), (1, 7, 4.0, 1260759145), (12, 31, 3.0, 978300760)]
MOVIES = [(7, "Sabrina (1995)", "Comedy|Romance"), (31, "Misérables, Les (1995)", "Drama")]


def in_own_format(name):
    """File name -> text of a two-film release in the layout GroupLens gives `name`."""
    if name == "ml-100k":
        flags = {"Comedy|Romance": "0|0|0|0|0|1|0|0|0|0|0|0|0|0|1|0|0|0|0", "Drama": "0|0|0|0|0|0|0|0|1" + "|0" * 10}
        return {
            "u.data": "".join(f"{u}\t{i}\t{r:.0f}\t{t}\n" for u, i, r, t in RATINGS),
            "u.item": "".join(f"{i}|{title}|01-Jan-1995||http://x/?{i}|{flags[g]}\n" for i, title, g in MOVIES),
        }
    if name in ("ml-1m", "ml-10m"):
        return {
            "ratings.dat": "".join(f"{u}::{i}::{r:g}::{t}\n" for u, i, r, t in RATINGS),
            "movies.dat": "".join(f"{i}::{title}::{genres}\n" for i, title, genres in MOVIES),
        }
    return {
        "ratings.csv": "userId,movieId,rating,timestamp\n" + "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in RATINGS),
        "movies.csv": "movieId,title,genres\n" + "".join(f'{i},"{title}",{genres}\n' for i, title, genres in MOVIES),
    }


@pytest.fixture
def data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("BERTREC_DATA", str(tmp_path))
    return tmp_path


def write_release(folder, name):
    folder.mkdir(parents=True)
    for file, text in in_own_format(name).items():
        (folder / file).write_text(text, encoding=releases.RELEASES[name].encoding)


@pytest.mark.parametrize("name", [name for name in releases.RELEASES if name != "beauty"])
def test_each_release_is_read_in_its_own_format(name, data_home):
    write_release(data_home / name, name)
    log = load_movielens(name)
    rounded = name == "ml-100k"  # whole stars only
    expected = [(u, i, float(f"{r:.0f}") if rounded else r, t) for u, i, r, t in RATINGS]
    assert list(log.ratings.itertuples(index=False, name=None)) == expected
    assert list(log.ratings) == ["user", "item", "rating", "timestamp"]
    assert list(log.items.itertuples(index=False, name=None)) == MOVIES


def test_own_folder_comes_before_the_bundled_one(data_home):
    write_release(data_home / "ml-5k", "ml-5k")
    assert len(load_movielens("ml-5k").ratings) == 3


PACK = {".xz": lzma.compress, ".gz": gzip.compress}


def pack(path, ending):
    path.with_name(path.name + ending).write_bytes(PACK[ending](path.read_bytes()))
    path.unlink()


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("name", ["ml-5k", "ml-1m", "ml-100k"])
def test_packed_files_are_read_as_if_they_were_not(name, ending, data_home):
    write_release(data_home / name, name)
    plain = load_movielens(name)
    for file in in_own_format(name):
        pack(data_home / name / file, ending)
    packed = load_movielens(name)
    assert packed.ratings.equals(plain.ratings) and packed.items.equals(plain.items)


def test_of_a_packed_and_a_plain_file_the_plain_one_is_read(data_home):
    write_release(data_home / "ml-5k", "ml-5k")
    (data_home / "ml-5k" / "ratings.csv.xz").write_bytes(b"cut off")
    assert len(load_movielens("ml-5k").ratings) == 3


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("file", ["ratings.csv", "movies.csv"])
def test_damaged_packed_file_is_named(file, ending, data_home):
    """Cut off, or with a byte changed."""
    write_release(data_home / "ml-20m", "ml-20m")
    pack(data_home / "ml-20m" / file, ending)
    path = data_home / "ml-20m" / f"{file}{ending}"
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    for content in (whole[:-12], bytes(changed), whole[:7]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"^{path} is damaged \(.*\); unpack ml-20m.zip there again$"):
            load_movielens("ml-20m")


def test_malformed_row_of_a_packed_file_says_where_it_is(data_home):
    write_release(data_home / "ml-20m", "ml-20m")
    path = data_home / "ml-20m" / "ratings.csv"
    path.write_text(path.read_text() + "<html>\n")
    pack(path, ".xz")
    with pytest.raises(ValueError, match=rf"^{path}\.xz, line 5: expected .*, found '<html>'"):
        load_movielens("ml-20m")


@pytest.mark.parametrize("ending", ["", *PACK])
def test_no_more_than_the_first_part_is_read_if_no_more_users_are_wanted(ending, data_home, monkeypatch):
    """What comes behind it may be anything; films that only it has are not listed."""
    write_release(data_home / "ml-5k", "ml-5k")
    ratings = data_home / "ml-5k" / "ratings.csv"
    for damage in ("12,7,<html>,0\n", "12,7,\0\n"):
        ratings.write_text("userId,movieId,rating,timestamp\n1,31,2.5,1\n2,31,1.5,1\n" + damage)
        if ending:
            pack(ratings, ending)
        first_part = releases.Release(rating_count=3, first_part=(2, 2))
        monkeypatch.setitem(releases.RELEASES, "ml-5k", first_part)
        for users in (1, 2):
            log = load_movielens("ml-5k", users)
            assert log.ratings.user.tolist() == [1, 2] and log.items["item"].tolist() == [31]
        for users in (3, None):
            with pytest.raises(ValueError, match="line 4"):
                load_movielens("ml-5k", users)


def test_a_malformed_row_in_the_first_part_is_an_error(data_home, monkeypatch):
    write_release(data_home / "ml-5k", "ml-5k")
    ratings = data_home / "ml-5k" / "ratings.csv"
    ratings.write_text("userId,movieId,rating,timestamp\n1,31,2.5,1\n<html>\n2,31,1.5,1\n")
    monkeypatch.setitem(releases.RELEASES, "ml-5k", releases.Release(first_part=(2, 2)))
    with pytest.raises(ValueError, match=r"line 3: expected .*, found '<html>'"):
        load_movielens("ml-5k", 2)


def test_users_of_a_copy_without_their_table(data_home):
    write_release(data_home / "ml-5k", "ml-5k")
    with pytest.raises(FileNotFoundError, match=r"users\.csv is missing; .*git checkout -- data/ml-5k"):
        releases.load_users()


def test_relative_folder_is_found_from_the_notebooks_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(releases, "PROJECT", tmp_path)
    write_release(tmp_path / "mine" / "ml-1m", "ml-1m")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.setenv("BERTREC_DATA", "mine")
    assert len(load_movielens("ml-1m").ratings) == 3


def test_release_beside_the_notebooks_is_found(tmp_path, monkeypatch):
    monkeypatch.delenv("BERTREC_DATA", raising=False)
    monkeypatch.setattr(releases, "PROJECT", tmp_path)
    write_release(tmp_path / "notebooks" / "ml-1m", "ml-1m")
    assert len(load_movielens("ml-1m").ratings) == 3


@pytest.mark.parametrize(("name", "file"), [("ml-1m", "ratings.dat"), ("ml-20m", "movies.csv"), ("ml-100k", "u.item")])
def test_malformed_row_says_where_it_is_and_what_to_do(name, file, data_home):
    write_release(data_home / name, name)
    path = data_home / name / file
    lines = path.read_text(encoding="latin-1").count("\n")
    with path.open("a") as damaged:
        damaged.write("<html>\n")
    expected = f"^{path}, line {lines + 1}: expected .*, found '<html>'; unpack {name}.zip there again$"
    with pytest.raises(ValueError, match=expected):
        load_movielens(name)


def test_damaged_bundle_is_restored_from_git(data_home):
    write_release(data_home / "ml-5k", "ml-5k")
    (data_home / "ml-5k" / "ratings.csv").write_text("userId,movieId,rating,timestamp\n")
    restore = r"`git checkout -- data/ml-5k` restores it.* --ratings FILE$"
    with pytest.raises(ValueError, match=rf"holds no ratings; .*{restore}"):
        load_movielens("ml-5k")
    (data_home / "ml-5k" / "ratings.csv").unlink()
    with pytest.raises(FileNotFoundError, match=rf"ratings\.csv is missing; .*{restore}"):
        load_movielens("ml-5k")


@pytest.mark.parametrize("name", ["ml-5k", "movietweetings"])
def test_bundle_cannot_be_downloaded(name, data_home, monkeypatch):
    monkeypatch.setattr(releases, "PROJECT", data_home)
    for fetch in (download, load_movielens):
        with pytest.raises(
            FileNotFoundError, match=rf"^{name} cannot be downloaded; it comes with .*git checkout -- data/{name}"
        ):
            fetch(name)


def test_beauty_is_lines_of_a_user_and_an_item_in_order_of_time(data_home):
    with pytest.raises(FileNotFoundError, match=r"beauty cannot be downloaded; take beauty\.txt from .*, put it into"):
        load_movielens("beauty")
    (data_home / "beauty").mkdir()
    (data_home / "beauty" / "beauty.txt").write_text("1 7\n1 3\n2 3\n2 9\n1 9\n")
    log = load_movielens("beauty")
    assert log.name == "beauty" and log.ratings.item[log.ratings.user == 1].tolist() == [7, 3, 9]
    assert log.ratings.timestamp.is_monotonic_increasing and log.items.title.tolist() == ["3", "7", "9"]


def test_missing_file_says_what_to_do(data_home):
    write_release(data_home / "ml-1m", "ml-1m")
    (data_home / "ml-1m" / "movies.dat").unlink()
    with pytest.raises(FileNotFoundError, match=r"movies\.dat is missing; unpack ml-1m\.zip there again"):
        load_movielens("ml-1m")


def test_short_release_is_pointed_out(data_home, caplog):
    write_release(data_home / "ml-1m", "ml-1m")
    load_movielens("ml-1m")
    assert "holds 3 ratings, the official ml-1m 1,000,209" in caplog.text


def test_unknown_release_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"no release 'ml-2m'.*ml-1m.*ml-25m"):
        load_movielens("ml-2m")


class GroupLens(http.server.SimpleHTTPRequestHandler):
    cut_at = None  # the connection ends after so many bytes of a file

    def copyfile(self, source, outputfile):
        outputfile.write(source.read(self.cut_at))

    def log_message(self, *_):
        """Keep the tests' output quiet."""


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A GroupLens of our own, serving ml-20m.zip with files in an inner folder, as the real one does."""
    site = tmp_path / "site"
    site.mkdir()
    with zipfile.ZipFile(site / "ml-20m.zip", "w") as archive:
        for file, text in in_own_format("ml-20m").items():
            archive.writestr(f"inner/{file}", text)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(GroupLens, directory=site)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setattr(releases, "ARCHIVE_URL", f"http://127.0.0.1:{running.server_port}/{{name}}.zip")
        yield site
        running.shutdown()


def with_checksum(name, md5, monkeypatch):
    changed = releases.Release(**{**vars(releases.RELEASES[name]), "md5": md5})
    monkeypatch.setitem(releases.RELEASES, name, changed)


def test_download_verifies_unpacks_and_leaves_nothing_else(server, tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("BERTREC_DATA", str(home))
    with_checksum("ml-20m", hashlib.md5((server / "ml-20m.zip").read_bytes()).hexdigest(), monkeypatch)
    assert len(load_movielens("ml-20m").ratings) == 3
    assert [path.name for path in home.iterdir()] == ["ml-20m"]


def test_wrong_checksum_keeps_nothing(server, tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("BERTREC_DATA", str(home))
    with pytest.raises(ValueError, match="published checksum"):
        download("ml-20m")
    assert list(home.iterdir()) == []


def test_archive_fetched_by_hand_needs_no_network(server, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("BERTREC_DATA", str(home))
    archive = (server / "ml-20m.zip").read_bytes()
    (home / "ml-20m.zip").write_bytes(archive)
    with_checksum("ml-20m", hashlib.md5(archive).hexdigest(), monkeypatch)
    monkeypatch.setattr(releases, "ARCHIVE_URL", "http://127.0.0.1:9/{name}.zip")
    assert download("ml-20m") == home / "ml-20m"


@pytest.mark.parametrize("content", [b"<html>Please log in</html>", b""])
def test_wrong_archive_fetched_by_hand_is_told_from_no_network(content, data_home, monkeypatch):
    monkeypatch.setattr(releases, "ARCHIVE_URL", "http://127.0.0.1:9/{name}.zip")
    archive = data_home / "ml-20m.zip"
    archive.write_bytes(content)
    with pytest.raises(ConnectionError) as raised:
        load_movielens("ml-20m")
    checksum = releases.RELEASES["ml-20m"].md5
    assert str(raised.value).startswith(f"{archive} does not have the checksum of ml-20m (MD5 {checksum}), and ml-20m ")
    assert "replace that file with a whole copy of http://127.0.0.1:9/ml-20m.zip" in str(raised.value)
    assert archive.read_bytes() == content  # it may be what somebody waited for; only they know


def test_wrong_archive_fetched_by_hand_is_replaced_if_there_is_a_network(server, home):
    home.mkdir()
    (home / "ml-20m.zip").write_bytes(b"cut off")
    assert len(load_movielens("ml-20m").ratings) == 3
    assert [path.name for path in home.iterdir()] == ["ml-20m"]


def test_no_network_says_what_to_fetch_and_where_to_put_it(data_home, monkeypatch):
    monkeypatch.setattr(releases, "ARCHIVE_URL", "http://127.0.0.1:9/{name}.zip")
    with pytest.raises(ConnectionError) as raised:
        load_movielens("ml-25m")
    assert "fetch http://127.0.0.1:9/ml-25m.zip by hand" in str(raised.value)
    assert str(data_home / "ml-25m.zip") in str(raised.value)


def test_download_does_not_touch_a_release_that_is_there(data_home):
    write_release(data_home / "ml-20m", "ml-20m")
    with pytest.raises(FileExistsError, match="is there already; rename or delete"):
        download("ml-20m")


def test_page_saved_as_an_archive_is_refused_and_removed(data_home, server, monkeypatch):
    monkeypatch.setenv("BERTREC_DATA", str(data_home / "home"))
    (server / "ml-latest-small.zip").write_text("<html>moved</html>")
    with pytest.raises(ValueError, match="was no archive of ml-latest-small"):
        download("ml-latest-small")
    assert list((data_home / "home").iterdir()) == []


@pytest.fixture
def home(server, tmp_path, monkeypatch):
    """The folder that downloads land in; ml-20m is served with the published checksum."""
    monkeypatch.setenv("BERTREC_DATA", str(tmp_path / "home"))
    with_checksum("ml-20m", hashlib.md5((server / "ml-20m.zip").read_bytes()).hexdigest(), monkeypatch)
    return tmp_path / "home"


@pytest.mark.parametrize("name", ["../evil", "inner/../../evil", "{outside}/evil", "C:\\evil", "..\\evil", "link"])
def test_archive_that_reaches_out_of_its_folder_leaves_nothing_outside(name, server, home, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    name = name.format(outside=outside)
    with zipfile.ZipFile(server / "ml-latest-small.zip", "w") as archive:
        for file, text in in_own_format("ml-latest-small").items():
            archive.writestr(f"inner/{file}", text)
        member = zipfile.ZipInfo(name)
        if name == "link":
            member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, str(outside))
    before = set(tmp_path.rglob("*"))
    assert len(load_movielens("ml-latest-small").ratings) == 3
    after = set(tmp_path.rglob("*"))
    assert {path for path in after if not path.is_relative_to(home)} == before
    assert not any(path.is_symlink() for path in after) and list(outside.iterdir()) == []


@pytest.mark.parametrize(("times", "refused"), [(90, False), (130, True)])
def test_archive_that_would_grow_too_much_is_refused_before_it_is_unpacked(times, refused, server, home):
    path = server / "ml-latest-small.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, text in in_own_format("ml-latest-small").items():
            archive.writestr(f"inner/{file}", text)
        archive.writestr("inner/noise", np.random.default_rng(0).bytes(50_000))
    size = path.stat().st_size
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner/zeros", bytes(times * size))
    if not refused:
        assert len(load_movielens("ml-latest-small").ratings) == 3
        return
    with pytest.raises(ValueError, match=r"no archive of ml-latest-small \(it would grow more than 100 times\)"):
        load_movielens("ml-latest-small")
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("checksum", [True, False])
def test_download_cut_off_half_way_leaves_nothing_and_can_be_tried_again(checksum, server, home, monkeypatch):
    if not checksum:
        with_checksum("ml-20m", None, monkeypatch)
    monkeypatch.setattr(GroupLens, "cut_at", 200)
    with pytest.raises(ConnectionError, match=r"Connection broken: .*; try again, or fetch http.*/ml-20m\.zip by hand"):
        load_movielens("ml-20m")
    assert list(home.iterdir()) == []
    monkeypatch.setattr(GroupLens, "cut_at", None)
    assert len(load_movielens("ml-20m").ratings) == 3


@pytest.mark.parametrize("place", ["file", "file/data", "/proc", "/proc/data"])
def test_folder_that_cannot_be_written_is_named(place, server, tmp_path, monkeypatch):
    """Nobody can write where a file lies or into /proc, root included."""
    if place.startswith("/proc") and not os.path.isdir("/proc"):
        pytest.skip("no /proc here")
    (tmp_path / "file").touch()
    home = tmp_path / place  # an absolute place stays as it is
    monkeypatch.setenv("BERTREC_DATA", str(home))
    with pytest.raises(
        OSError, match=rf"^cannot write to {home} \(.*\); make room or get .* run this again$"
    ) as raised:
        load_movielens("ml-20m")
    assert not isinstance(raised.value, ConnectionError)


DOWNLOAD = """
import resource, sys
from bertrec_utils.data import releases
releases.ARCHIVE_URL = sys.argv[1]
# no file may grow beyond so many bytes: the rest is refused, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
releases.download("ml-latest-small")
"""


@pytest.mark.parametrize(("size", "kept"), [(1000, []), (50_000, ["ml-latest-small.zip"])])
def test_disk_full_while_an_archive_is_fetched_or_unpacked(size, kept, server, home, monkeypatch):
    """What is whole stays, for the next try."""
    pytest.importorskip("resource")
    with zipfile.ZipFile(server / "ml-latest-small.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner/README.txt", np.random.default_rng(0).bytes(10_000))
        for file, text in in_own_format("ml-latest-small").items():
            archive.writestr(f"inner/{file}", text + "\n" * 100_000)  # blank lines pack well and are passed over
    command = [sys.executable, "-c", DOWNLOAD, releases.ARCHIVE_URL, str(size)]
    errors = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT).stderr
    assert f"\nOSError: cannot write to {home} (File too large); make room or" in errors
    assert [path.name for path in home.iterdir()] == kept
    if kept:
        monkeypatch.setattr(releases, "ARCHIVE_URL", "http://127.0.0.1:9/{name}.zip")
    assert len(load_movielens("ml-latest-small").ratings) == 3
    assert [path.name for path in home.iterdir()] == ["ml-latest-small"]


def test_damaged_archive_without_a_checksum_is_refused_and_removed(server, home, monkeypatch):
    path = server / "ml-20m.zip"
    path.write_bytes(path.read_bytes().replace(b"userId", b"userXX"))
    with_checksum("ml-20m", None, monkeypatch)
    with pytest.raises(ValueError, match=r"no archive of ml-20m \(Bad CRC-32 for file 'inner/ratings\.csv'\)"):
        download("ml-20m")
    assert list(home.iterdir()) == []


def test_two_downloads_at_once_both_find_the_release(home, monkeypatch):
    both_are_sent = threading.Barrier(2)
    copy = GroupLens.copyfile

    def copyfile(self, *files):
        both_are_sent.wait(10)
        copy(self, *files)

    monkeypatch.setattr(GroupLens, "copyfile", copyfile)
    with ThreadPoolExecutor(2) as threads:
        folders = list(threads.map(download, ["ml-20m"] * 2))
    assert folders == [home / "ml-20m"] * 2 and list(home.iterdir()) == folders[:1]
    assert sorted(path.name for path in folders[0].iterdir()) == ["movies.csv", "ratings.csv"]
