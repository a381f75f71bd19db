import hashlib
import subprocess
import sys
import zipfile

import pandas as pd
import pytest
from build_ml_latest_2k import SHA256, USERS, main

from bertrec_utils.common import PROJECT

RATINGS = ["userId,movieId,rating,timestamp", "1,7,4.0,100", "1,31,2.5,99", "2,31,5.0,50", "4,8,3.0,60", "4,9,3.0,61"]
MOVIES = [
    "movieId,title,genres",
    "7,Sabrina (1995),Comedy",
    '8,"X, The (2000)",Drama',
    '31,"Misérables, Les ""1""",War',
]


def test_bundled_release(bundled):
    ratings = bundled.ratings
    assert (len(ratings), ratings.user.nunique(), len(bundled.items)) == (206_423, USERS, 13_049)
    assert set(ratings.item) == set(bundled.items.item)
    assert (ratings.rating.min(), ratings.rating.max()) == (0.5, 5)
    assert bundled.items.title.str.startswith("Harry Potter and the").sum() == 8
    days = pd.to_datetime(ratings.timestamp, unit="s").dt.strftime("%Y-%m-%d")
    assert (days.min(), days.max()) == ("1996-02-29", "2023-07-20")


@pytest.mark.parametrize("name", SHA256)
def test_bundled_files_have_their_checksums(name):
    content = (PROJECT / "data" / "ml-latest-2k" / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256[name]


@pytest.fixture
def archive(tmp_path):
    """An archive in the layout of ml-latest.zip: an inner folder, and more than is wanted."""
    path = tmp_path / "ml-latest.zip"
    write_archive(path, RATINGS)
    return path


def write_archive(path, ratings):
    with zipfile.ZipFile(path, "w") as content:
        content.writestr("ml-latest/README.txt", "about")
        content.writestr("ml-latest/ratings.csv", "\r\n".join(ratings) + "\r\n")
        content.writestr("ml-latest/movies.csv", "\r\n".join(MOVIES) + "\r\n")


def test_the_first_users_and_their_films_are_copied_as_they_are(archive, tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    main([str(archive), "--users", "2", "--out", str(out)])
    ratings, movies = "\n".join(RATINGS[:4]) + "\n", "\n".join([*MOVIES[:2], MOVIES[3]]) + "\n"
    assert (out / "ratings.csv").read_bytes() == ratings.encode()
    assert (out / "movies.csv").read_bytes() == movies.encode()
    assert sorted(path.name for path in out.iterdir()) == ["movies.csv", "ratings.csv"]
    counts, first, second = capsys.readouterr().out.splitlines()
    assert counts.startswith("2 users, 3 ratings, 2 films in")
    assert first == f"ratings.csv {hashlib.sha256(ratings.encode()).hexdigest()} (NOT as in the project)"
    assert second.startswith(f"movies.csv {hashlib.sha256(movies.encode()).hexdigest()}")


def test_the_last_user_may_be_asked_for(archive, tmp_path):
    main([str(archive), "--users", "3", "--out", str(tmp_path)])
    assert (tmp_path / "ratings.csv").read_text().splitlines() == RATINGS


def test_the_bundled_files_are_recognised(tmp_path):
    archive, bundle = tmp_path / "ml-latest.zip", PROJECT / "data" / "ml-latest-2k"
    with zipfile.ZipFile(archive, "w") as content:
        ratings = (bundle / "ratings.csv").read_text() + f"{USERS + 1},1,4.0,100\n"
        content.writestr("ml-latest/ratings.csv", ratings)
        content.writestr("ml-latest/movies.csv", (bundle / "movies.csv").read_text() + "999999,Unrated,Drama\n")
    # as a reader runs it
    command = [sys.executable, PROJECT / "data" / "build_ml_latest_2k.py", archive, "--out", tmp_path / "out"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "2,148 users, 206,423 ratings, 13,049 films" in printed
    assert printed.count("(as in the project)") == 2


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_text("<html>"), "is no whole zip archive .* fetch ml-latest.zip again"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "is no whole zip archive"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"1,31,2.5", b"1,31,3.5")), "is no whole zip archive"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "holds no ratings.csv"),
        (lambda path: write_archive(path, ["1,2,3,4"]), "ratings.csv in the archive starts with b'1,2,3,4"),
        (lambda path: None, "holds 3 users, not 4; ask for fewer with --users"),
    ],
)
def test_errors_are_one_line_and_write_nothing(archive, tmp_path, damage, message):
    damage(archive)
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        main([str(archive), "--users", "4", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
