"""Make data/ml-latest-2k/ from GroupLens's official archive of ml-latest, in its edition of July 2023.

    python data/build_ml_latest_2k.py ml-latest.zip [--users N] [--out FOLDER]

Takes the first users with their whole histories, and the films that they rated. Lines are copied as they are,
but for their ends, which become plain.
"""

import argparse
import hashlib
import sys
import zipfile
import zlib
from itertools import groupby
from pathlib import Path

from bertrec_utils.common import PROJECT, replace_file

USERS = 2_148
SHA256 = {
    "ratings.csv": "02a0d74a83da2d9bf187ca935b9310ec82ab43b7d0f4dffcf00fa881f2a75e5e",
    "movies.csv": "707b8f39943e02212a17d255c0df3130271d20f7c15b670a49ee65b1de8f524e",
}


def build(archive: Path, user_count: int, folder: Path) -> None:
    """Write ratings.csv and movies.csv into `folder` and print their counts and SHA-256.

    Raises ValueError (not such an archive, too few users) or OSError; then nothing is written.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            ratings = first_users(lines(content, "ratings.csv"), user_count)
            items = {line.split(b",", 2)[1] for line in ratings[1:]}
            header, *films = lines(content, "movies.csv")
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{archive} is no whole zip archive ({error}); fetch ml-latest.zip again") from error
    movies = [header, *(film for film in films if film.split(b",", 1)[0] in items)]
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{user_count:,} users, {len(ratings) - 1:,} ratings, {len(movies) - 1:,} films in {folder}")
    for name, rows in (("ratings.csv", ratings), ("movies.csv", movies)):
        text = b"".join(rows)
        replace_file(folder / name, lambda path, text=text: path.write_bytes(text))
        checksum = hashlib.sha256(text).hexdigest()
        print(f"{name} {checksum} ({'as' if checksum == SHA256[name] else 'NOT as'} in the project)")


def lines(content, name):
    """The raw lines of a file in the archive's inner folder, read bit by bit, with plain line ends."""
    member = next((member for member in content.namelist() if Path(member).name == name), None)
    if member is None:
        raise ValueError(f"{content.filename} holds no {name}; fetch ml-latest.zip from grouplens.org")
    with content.open(member) as file:
        for line in file:
            yield line.rstrip(b"\r\n") + b"\n"


def first_users(rows, user_count):
    """The header and all rows of the first users; the rows of a user stand together."""
    kept = [next(rows, b"")]
    if kept != [b"userId,movieId,rating,timestamp\n"]:
        raise ValueError(f"ratings.csv in the archive starts with {kept[0][:80]!r}; fetch ml-latest.zip again")
    users = groupby(rows, key=lambda row: row.split(b",", 1)[0])
    for user in range(user_count):
        _, histories = next(users, (None, None))
        if histories is None:
            raise ValueError(f"the archive holds {user:,} users, not {user_count:,}; ask for fewer with --users")
        kept.extend(histories)
    return kept


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, metavar="ml-latest.zip")
    parser.add_argument("--users", type=int, default=USERS, metavar="N", help=f"default {USERS:,}")
    parser.add_argument("--out", type=Path, default=PROJECT / "data" / "ml-latest-2k", metavar="FOLDER")
    chosen = parser.parse_args(arguments)
    if chosen.users < 1:
        parser.error("--users must be 1 or more")
    try:
        build(chosen.archive, chosen.users, chosen.out)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
