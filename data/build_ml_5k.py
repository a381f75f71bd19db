"""Rebuild a part of data/ml-5k from the official GroupLens archive it was taken from, and compare.

    python data/build_ml_5k.py PART ARCHIVE.zip [--out FILE]

PART is ml-latest-2023-07 or an edition of ml-latest-small: ml-latest-small-2018-09, -2016-10, -2016-01,
-2015-08. All editions have the same names inside, and a README that says when they were generated. Takes the histories
of the users whom data/ml-5k/users.csv names, gives them their ids in ml-5k, and leaves out films that are not in its
movies.csv. With --out, these ratings are written to FILE. The exit status is 0 if they are those of ml-5k.
"""

import argparse
import csv
import hashlib
import sys
import zipfile
import zlib
from collections import Counter
from pathlib import Path

from bertrec_utils.common import replace_file
from bertrec_utils.data.releases import find_file, find_release
from bertrec_utils.data.text import open_packed

PARTS = {  # what users.csv calls them
    "ml-latest-2023-07": "ml-latest (July 2023)",
    "ml-latest-small-2018-09": "ml-latest-small (September 2018)",
    "ml-latest-small-2016-10": "ml-latest-small (October 2016)",
    "ml-latest-small-2016-01": "ml-latest-small (January 2016)",
    "ml-latest-small-2015-08": "ml-latest-small (August 2015)",
}
HEADER = b"userId,movieId,rating,timestamp\n"


def users_of(release: str, folder: Path) -> dict[int, int]:
    """The id in the release of each of its users -> the id in ml-5k."""
    with open_packed(find_file(folder, "users.csv"), "rt", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return {int(row["userId_there"]): int(row["userId"]) for row in rows if row["release"] == release}


def bundled_rows(users: set[int], folder: Path) -> list[bytes]:
    """The lines of these users in ml-5k."""
    with open_packed(find_file(folder, "ratings.csv")) as file:
        next(file)
        return [line for line in file if int(line.split(b",", 1)[0]) in users]


def films_of(file) -> dict[bytes, list[str]]:
    """Id -> title and genres, of a movies.csv."""
    rows = csv.reader(line.decode() for line in file)
    next(rows)
    return {film.encode(): rest for film, *rest in rows}


def lines_of(archive: zipfile.ZipFile, name: str):
    """The lines of a file in the archive's inner folder, read bit by bit, with plain ends."""
    with archive.open(member_of(archive, name)) as file:
        for line in file:
            yield line.rstrip(b"\r\n") + b"\n"


def member_of(archive: zipfile.ZipFile, name: str) -> str:
    member = next((member for member in archive.namelist() if Path(member).name == name), None)
    if member is None:
        raise ValueError(f"{archive.filename} holds no {name}")
    return member


def taken_rows(lines, users: dict[int, int], films) -> tuple[list[bytes], int]:
    """The rows of the users, by their ids in ml-5k, and how many were left out for their film. The rows of an archive
    are sorted by user: what comes after the last of them is not read."""
    header = next(lines, b"")
    if header != HEADER:
        raise ValueError(f"ratings.csv in the archive starts with {header[:80]!r}, not with {HEADER!r}")
    rows, left_out, last = [], 0, max(users)
    for line in lines:
        user, rest = line.split(b",", 1)
        if int(user) > last:
            break
        if int(user) in users:
            if rest.split(b",", 1)[0] in films:
                rows.append((users[int(user)], rest))
            else:
                left_out += 1
    rows.sort(key=lambda row: row[0])  # stable
    return [b"%d,%s" % row for row in rows], left_out


def compare(part: str, path: Path, folder: Path, out: Path | None) -> bool:
    """Print how the part in the archive differs from that in `folder`; whether it does not.

    Raises ValueError (not such an archive) or OSError; then nothing is written.
    """
    release = PARTS[part]
    users = users_of(release, folder)
    with open_packed(find_file(folder, "movies.csv")) as file:
        films = films_of(file)
    try:
        with zipfile.ZipFile(path) as archive:
            rows, left_out = taken_rows(lines_of(archive, "ratings.csv"), users, films)
            with archive.open(member_of(archive, "movies.csv")) as file:
                films_there = films_of(file)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is no whole zip archive ({error}); fetch it again") from error
    here = bundled_rows(set(users.values()), folder)
    print(f"{release} in {path.name}: {described(rows)}; {left_out:,} of films that are not in movies.csv left out")
    print(f"the same in ml-5k: {described(here)}")
    rated = {row.split(b",", 2)[1] for row in rows}
    renamed = sum(films_there.get(film) != films[film] for film in rated)
    print(f"title or genres differ for {renamed:,} of {len(rated):,} films, for titles are those of July 2023")
    if out:
        replace_file(out, lambda partial: partial.write_bytes(HEADER + b"".join(rows)))
    if rows == here:
        print("the ratings are the same")
        return True
    there_only, here_only = Counter(rows) - Counter(here), Counter(here) - Counter(rows)
    print(f"NOT the same: {there_only.total():,} ratings are only in the archive, {here_only.total():,} only in ml-5k")
    for name, only in (("the archive", there_only), ("ml-5k", here_only)):
        if only:
            print(f"  the first only in {name}: {next(iter(only)).decode().strip()}")
    if here_only.total() > len(here) / 2:
        print(f"that is most of them: is this another edition than {release}?")
    return False


def described(rows: list[bytes]) -> str:
    users = len({row.split(b",", 1)[0] for row in rows})
    return f"{users:,} users, {len(rows):,} ratings, SHA-256 {hashlib.sha256(b''.join(rows)).hexdigest()}"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS, metavar="PART")
    parser.add_argument("archive", type=Path, metavar="ARCHIVE.zip")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the ratings of the part there")
    chosen = parser.parse_args(arguments)
    try:
        if not compare(chosen.part, chosen.archive, find_release("ml-5k"), chosen.out):
            sys.exit(1)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
