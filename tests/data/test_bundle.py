import hashlib
import lzma
import subprocess
import sys
import zipfile

import pandas as pd
import pytest
from build_ml_5k import PARTS, main

from bertrec_utils.common import PROJECT
from bertrec_utils.data.dataset import build_sequences, load_dataset
from bertrec_utils.data.releases import RELEASES, find_file, load_movielens, load_users
from bertrec_utils.data.text import open_packed
from bertrec_utils.settings import get_preset

SHA256 = {  # of the files as they are when they are unpacked
    "ml-5k/ratings.csv": "ff42b678bec0618a980f10bd9d8a91cdd593ed5a6b22607dac24fb25a7cd9932",
    "ml-5k/movies.csv": "40f7ad19033dc9bcebc3664d104e4d5b701c1a5a90c2e70c4dab6c8f19cfe786",
    "ml-5k/users.csv": "27fec4e73a66a745a229872513ed3ca7bb0a5f61b85647596756eab262a1d3c3",
    "movietweetings/ratings.csv": "5950393de8ab6adce6d89301dacbc71727117b25853e143c07c534c627a53112",
    "movietweetings/movies.csv": "6c4632d1af6dd949b2e98253fd2b16d3e6f75882373c03cde5b0d4f90211542f",
}


@pytest.fixture(scope="module")
def ml_5k():
    return load_movielens("ml-5k")


def days(ratings):
    found = pd.to_datetime(ratings.timestamp, unit="s").dt.strftime("%Y-%m-%d")
    return found.min(), found.max()


@pytest.mark.parametrize("name", SHA256)
def test_bundled_files_have_their_checksums(name):
    folder, file = name.split("/")
    with open_packed(find_file(PROJECT / "data" / folder, file)) as content:
        digest = hashlib.sha256(content.read()).hexdigest()
    assert digest == SHA256[name] and SHA256[name] in (PROJECT / "data" / "README.md").read_text()


def test_ml_5k(ml_5k):
    ratings = ml_5k.ratings
    assert (len(ratings), ratings.user.nunique(), len(ml_5k.items)) == (594_319, 4_742, 17_879)
    assert set(ratings.item) == set(ml_5k.items.item)
    assert not ratings.duplicated(["user", "item"]).any()
    assert (ratings.rating.min(), ratings.rating.max()) == (0.5, 5)
    assert ml_5k.items.title.str.startswith("Harry Potter and the").sum() == 8
    assert days(ratings) == ("1996-02-29", "2023-07-20")


def test_movietweetings():
    log = load_movielens("movietweetings")
    ratings, films = log.ratings, log.items.set_index("item")
    assert (len(ratings), ratings.user.nunique(), len(films)) == (141_695, 21_081, 12_611)
    assert (ratings.rating.min(), ratings.rating.max()) == (0, 10)
    assert films.title[133093] == "The Matrix (1999)"  # imdb.com/title/tt0133093
    assert ratings.duplicated(["user", "timestamp"], keep=False).mean() < 0.0001  # its order is the real one


def test_users_are_of_one_release_each_whose_day_ends_their_histories(ml_5k):
    users = load_users()
    assert users.user.tolist() == list(range(1, 4743)) and set(users.release) == set(PARTS.values())
    assert not users.duplicated(["release", "user_there"]).any()
    assert (users.user_there[:2148] == users.user[:2148]).all()
    ratings = ml_5k.ratings.merge(users, on="user")
    ends = {release: days(part)[1] for release, part in ratings.groupby("release")}
    assert ends == {
        "ml-latest (July 2023)": "2023-07-20",
        "ml-latest-small (September 2018)": "2018-09-24",
        "ml-latest-small (October 2016)": "2016-10-16",
        "ml-latest-small (January 2016)": "2016-01-10",
        "ml-latest-small (August 2015)": "2015-08-05",
    }


def test_a_release_of_one_piece_has_no_table_of_users():
    with pytest.raises(ValueError, match="the users of movietweetings come from one release"):
        load_users("movietweetings")


SMALL = {  # what these presets were when their users were a release of their own, ml-latest-2k
    "tiny": ("30facbd066576a8b", "7ea5d369d5c247bb", (206_423, 2_148, 13_049), (6_149, 112, 626)),
    "small": ("f2d9aeaa5a5397c4", "d523577054c49ab5", (206_423, 2_148, 13_049), (192_704, 2_061, 5_003)),
}


@pytest.mark.parametrize("preset", SMALL)
def test_tiny_and_small_are_what_they_were_before_ml_5k(preset):
    data = get_preset(preset).data
    dataset = load_dataset(data)
    found = [dataset.fingerprint[part][:16] for part in ("items", "sequences")]
    assert (*found, dataset.counts[:3], dataset.counts[-4:-1]) == SMALL[preset]
    assert len(dataset.items) == 13_049 and set(dataset.items.item) == set(dataset.log.ratings.item)
    log = load_movielens(data.release, data.max_users)
    assert build_sequences(log.ratings, 5, data.max_users)[1].tokens.tolist() == dataset.sequences.tokens.tolist()


def test_the_first_part_is_the_beginning_of_the_whole(ml_5k, bundled):
    users, rows = RELEASES["ml-5k"].first_part
    assert users == get_preset("small").data.max_users == 2_148
    pd.testing.assert_frame_equal(bundled.ratings, ml_5k.ratings[ml_5k.ratings.user <= users])
    assert len(bundled.ratings) == rows and days(bundled.ratings) == ("1996-02-29", "2023-07-20")
    assert (load_users().release[:users] == "ml-latest (July 2023)").all()
    assert (load_users().release[users:] != "ml-latest (July 2023)").all()


def test_more_users_than_the_first_part_are_taken_from_the_whole():
    assert len(load_movielens("ml-5k", 2_149).ratings) == 594_319


PART = "ml-latest-small-2018-09"
USERS = [
    "userId,release,userId_there",
    "1,ml-latest (July 2023),1",
    "2,ml-latest-small (September 2018),1",
    "3,ml-latest-small (September 2018),4",
]
HERE = ["userId,movieId,rating,timestamp", "1,7,1.0,5", "2,7,4.0,100", "2,31,2.5,99", "3,8,3.0,60"]
FILMS = ["movieId,title,genres", "7,Sabrina (1995),Comedy", '8,"X, The (2000)",Drama', '31,"Les ""1""",War']
THERE = [HERE[0], "1,7,4.0,100", "1,31,2.5,99", "2,31,5.0,50", "4,8,3.0,60", "4,9,3.0,61", "5,8,3.0,62"]
FILMS_THERE = [*FILMS, "9,Withdrawn (2001),(no genres listed)"]


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """An archive in the layout of ml-latest-small.zip - an inner folder, more than is wanted - and an ml-5k that names
    two of its users. What they say of film 9 is not in that."""
    folder = tmp_path / "ml-5k"
    folder.mkdir()
    (folder / "users.csv").write_text("\n".join(USERS) + "\n")
    (folder / "movies.csv").write_text("\n".join(FILMS) + "\n")
    (folder / "ratings.csv.xz").write_bytes(lzma.compress(("\n".join(HERE) + "\n").encode()))
    monkeypatch.setenv("BERTREC_DATA", str(tmp_path))
    path = tmp_path / "ml-latest-small.zip"
    write_archive(path, THERE)
    return path


def write_archive(path, ratings, films=FILMS_THERE):
    with zipfile.ZipFile(path, "w") as content:
        content.writestr("ml-latest-small/README.txt", "about")
        content.writestr("ml-latest-small/ratings.csv", "\r\n".join(ratings) + "\r\n")
        content.writestr("ml-latest-small/movies.csv", "\r\n".join(films) + "\r\n")


def test_a_part_is_rebuilt_from_its_archive_as_it_is_here(archive, tmp_path, capsys):
    main([PART, str(archive), "--out", str(tmp_path / "part.csv")])
    assert (tmp_path / "part.csv").read_text().splitlines() == [HERE[0], *HERE[2:]]
    first, second, titles, verdict = capsys.readouterr().out.splitlines()
    digest = hashlib.sha256(("\n".join(HERE[2:]) + "\n").encode()).hexdigest()
    assert first.startswith(
        f"{PARTS[PART]} in ml-latest-small.zip: 2 users, 3 ratings, SHA-256 {digest}; 1 of films that are"
    )
    assert second == f"the same in ml-5k: 2 users, 3 ratings, SHA-256 {digest}"
    assert titles.startswith("title or genres differ for 0 of 3 films") and verdict == "the ratings are the same"


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (
            [*THERE[:2], "1,31,2.5,98", *THERE[3:]],
            [
                "NOT the same: 1 ratings are only in the archive, 1 only in ml-5k",
                "  the first only in the archive: 2,31,2.5,98",
                "  the first only in ml-5k: 2,31,2.5,99",
            ],
        ),
        ([*THERE[:2], *THERE[3:]], ["only in ml-5k", "  the first only in ml-5k: 2,31,2.5,99"]),
        ([*THERE[:5], "4,31,3.0,61"], ["1 ratings are only in the archive, 0", "only in the archive: 3,31,3.0,61"]),
        ([THERE[0], THERE[2], THERE[1], *THERE[3:]], ["0 ratings are only in the archive, 0 only in ml-5k"]),  # order
        (
            [THERE[0], "1,31,5.0,50"],
            ["that is most of them: is this another edition than ml-latest-small (September 2018)?"],
        ),
    ],
)
def test_what_differs_is_told(there, expected, archive, capsys):
    write_archive(archive, there)
    with pytest.raises(SystemExit) as raised:
        main([PART, str(archive)])
    printed = capsys.readouterr().out
    assert raised.value.code == 1 and all(text in printed for text in expected)


def test_other_titles_are_counted_and_no_difference(archive, capsys):
    write_archive(archive, THERE, ["movieId,title,genres", "7,Sabrina (1995),Romance", *FILMS[2:]])
    main([PART, str(archive)])
    assert "title or genres differ for 1 of 3 films" in capsys.readouterr().out


def test_the_first_part_of_the_bundled_ratings_is_recognised(tmp_path):
    bundle, users = PROJECT / "data" / "ml-5k", 2_148
    with open_packed(find_file(bundle, "ratings.csv"), "rt") as file:
        ratings = [line.strip() for line in file if line[0] == "u" or int(line.split(",")[0]) <= users]
    with open_packed(find_file(bundle, "movies.csv"), "rt", encoding="utf-8") as file:
        films = file.read().splitlines()
    write_archive(tmp_path / "ml-latest.zip", [*ratings, f"{users + 1},1,4.0,100"], films)
    # as a reader runs it
    command = [sys.executable, PROJECT / "data" / "build_ml_5k.py", "ml-latest-2023-07", tmp_path / "ml-latest.zip"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "2,148 users, 206,423 ratings" in printed and "differ for 0 of 13,049 films" in printed


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_text("<html>"), "is no whole zip archive .* fetch it again"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "is no whole zip archive"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"1,31,2.5", b"1,31,3.5")), "is no whole zip archive"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "holds no ratings.csv"),
        (lambda path: write_archive(path, ["1,2,3,4"]), "ratings.csv in the archive starts with b'1,2,3,4"),
    ],
)
def test_errors_are_one_line_and_write_nothing(archive, tmp_path, damage, message):
    damage(archive)
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        main([PART, str(archive), "--out", str(tmp_path / "out.csv")])
    assert not (tmp_path / "out.csv").exists()
