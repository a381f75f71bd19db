import functools
import hashlib
import http.server
import threading
import zipfile

import pandas as pd
import pytest

from bertrec_utils import releases
from bertrec_utils.releases import download, load_interactions, load_movielens

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


def test_bundled_release_is_the_2016_edition(bundled):
    assert len(bundled.ratings) == 100_004
    assert bundled.ratings.user.nunique() == 671
    assert bundled.ratings.item.nunique() == len(bundled.movies) == 9_066
    assert set(bundled.ratings.item) == set(bundled.movies.item)
    assert bundled.ratings.rating.between(0.5, 5).all()
    assert bundled.movies.title.str.contains("Harry Potter").sum() == 8


def test_own_folder_comes_before_the_bundled_one(data_home):
    write_release(data_home / "ml-latest-small", "ml-latest-small")
    assert len(load_movielens("ml-latest-small").ratings) == 3


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


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("ml-1m", "1::1193::5\n"),
        ("ml-1m", "1::1193::five::978300760\n"),
        ("ml-1m", "1::1193::5::978300760::9\n"),
        ("ml-1m", "<html>\n"),
        ("ml-100k", "1\t2\n"),
        ("ml-20m", "1,31,,1260759144\n"),
        ("ml-20m", "1,31,4.0\n"),
        ("ml-20m", "1,31,4.0,12607.5,3\n"),
    ],
)
def test_malformed_row_is_named_by_file_and_line(name, row, data_home):
    write_release(data_home / name, name)
    path = data_home / name / releases.RELEASES[name].ratings_file
    line = path.read_text().count("\n") + 1
    with path.open("a") as file:
        file.write(row + row)
    with pytest.raises(ValueError, match=f"{path.name}, line {line}: expected user.*item.*rating.*timestamp"):
        load_movielens(name)


def test_first_row_too_long_is_an_error(data_home):
    write_release(data_home / "ml-20m", "ml-20m")
    (data_home / "ml-20m" / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,31,4.0,100,5\n")
    with pytest.raises(ValueError, match=r"ratings\.csv, line 2"):
        load_movielens("ml-20m")


def test_malformed_film_is_named_by_file_and_line(data_home):
    write_release(data_home / "ml-1m", "ml-1m")
    (data_home / "ml-1m" / "movies.dat").write_text("7::Sabrina (1995)::Comedy\nSabrina\n")
    with pytest.raises(ValueError, match=r"movies\.dat, line 2"):
        load_movielens("ml-1m")


def test_empty_file_is_an_error(data_home):
    write_release(data_home / "ml-20m", "ml-20m")
    (data_home / "ml-20m" / "ratings.csv").write_text("userId,movieId,rating,timestamp\n")
    with pytest.raises(ValueError, match="holds no ratings"):
        load_movielens("ml-20m")


def test_missing_file_says_what_to_do(data_home):
    write_release(data_home / "ml-1m", "ml-1m")
    (data_home / "ml-1m" / "movies.dat").unlink()
    with pytest.raises(FileNotFoundError, match=r"movies\.dat is missing; unpack ml-1m\.zip"):
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


def test_own_log_with_text_ids(tmp_path):
    path = tmp_path / "shop.csv"
    path.write_text("item,user,timestamp\nsocks,ann,3\nhat,ann,5\n")
    log = load_interactions(path)
    assert log.ratings.to_dict("list") == {
        "user": ["ann", "ann"], "item": ["socks", "hat"], "rating": [1.0, 1.0], "timestamp": [3, 5],
    }  # fmt: skip
    assert set(log.movies.title) == {"socks", "hat"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item\na,b\n", "no column timestamp"),
        ("user,item,timestamp\na,b,1\na,,2\n", "line 3: a value is empty"),
        ("user,item,timestamp\na,b,2020-01-31\na,c,10/1/2020\n", "line 3: timestamp '10/1/2020' is neither"),
    ],
)
def test_own_log_errors(tmp_path, text, message):
    path = tmp_path / "shop.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_interactions(path)


def test_own_log_keeps_ids_as_they_are_written(tmp_path):
    path = tmp_path / "shop.csv"
    path.write_text("user,item,timestamp\n7,NA,2020-01-31\n8,001,2020-01-31T12:00:00\n10,1,2019-12-31\n")
    ratings = load_interactions(path).ratings
    assert ratings.user.tolist() == [7, 8, 10]  # plain whole numbers
    assert ratings.item.tolist() == ["NA", "001", "1"]
    assert ratings.timestamp.tolist() == [1580428800, 1580472000, 1577750400]


def test_own_items_may_lack_genres_titles_and_rows(tmp_path):
    (tmp_path / "log.csv").write_text("user,item,timestamp\na,1,1\na,2,2\na,3,3\n")
    (tmp_path / "items.csv").write_text("item,title\n1,Hat\n2,\n")
    log = load_interactions(tmp_path / "log.csv", tmp_path / "items.csv")
    assert log.movies.values.tolist() == [[1, "Hat", ""], [2, "2", ""], [3, "3", ""]]
    (tmp_path / "items.csv").write_text("item,name\n1,Hat\n")
    with pytest.raises(ValueError, match="no column title"):
        load_interactions(tmp_path / "log.csv", tmp_path / "items.csv")


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


def test_movies_without_a_genre_survive(data_home):
    write_release(data_home / "ml-20m", "ml-20m")
    (data_home / "ml-20m" / "movies.csv").write_text("movieId,title,genres\n31,None (2001),(no genres listed)\n")
    assert load_movielens("ml-20m").movies.title.tolist() == ["None (2001)"]


def test_movie_file_that_is_none_is_an_error(data_home):
    write_release(data_home / "ml-20m", "ml-20m")
    pd.DataFrame({"a": ["x"], "b": ["y"], "c": ["z"]}).to_csv(data_home / "ml-20m" / "movies.csv", index=False)
    with pytest.raises(ValueError, match="movieId,title,genres"):
        load_movielens("ml-20m")
