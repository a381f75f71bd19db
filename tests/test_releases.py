import functools
import hashlib
import http.server
import threading
import zipfile

import pytest

from bertrec_utils import releases
from bertrec_utils.releases import download, load_movielens

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


@pytest.mark.parametrize("name", releases.RELEASES)
def test_each_release_is_read_in_its_own_format(name, data_home):
    write_release(data_home / name, name)
    log = load_movielens(name)
    rounded = name == "ml-100k"  # whole stars only
    expected = [(u, i, float(f"{r:.0f}") if rounded else r, t) for u, i, r, t in RATINGS]
    assert list(log.ratings.itertuples(index=False, name=None)) == expected
    assert list(log.ratings) == ["user", "item", "rating", "timestamp"]
    assert list(log.movies.itertuples(index=False, name=None)) == MOVIES


def test_own_folder_comes_before_the_bundled_one(data_home):
    write_release(data_home / "ml-latest-2k", "ml-latest-2k")
    assert len(load_movielens("ml-latest-2k").ratings) == 3


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
    write_release(data_home / "ml-latest-2k", "ml-latest-2k")
    (data_home / "ml-latest-2k" / "ratings.csv").write_text("userId,movieId,rating,timestamp\n")
    with pytest.raises(ValueError, match=r"holds no ratings; .* restore it with `git checkout -- data/ml-latest-2k`$"):
        load_movielens("ml-latest-2k")
    (data_home / "ml-latest-2k" / "ratings.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"ratings\.csv is missing; .* restore it with `git checkout"):
        load_movielens("ml-latest-2k")


def test_bundle_cannot_be_downloaded(data_home, monkeypatch):
    monkeypatch.setattr(releases, "PROJECT", data_home)
    for fetch in (download, load_movielens):
        with pytest.raises(
            FileNotFoundError, match=r"^ml-latest-2k cannot be downloaded; it comes with .*git checkout"
        ):
            fetch("ml-latest-2k")


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


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A GroupLens of our own, serving ml-20m.zip with files in an inner folder, as the real one does."""
    site = tmp_path / "site"
    site.mkdir()
    with zipfile.ZipFile(site / "ml-20m.zip", "w") as archive:
        for file, text in in_own_format("ml-20m").items():
            archive.writestr(f"inner/{file}", text)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Keep the tests' output quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=site)) as running:
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
