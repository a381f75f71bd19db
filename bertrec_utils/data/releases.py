"""Finds, downloads, verifies and reads a MovieLens release, or one of those that come with the project."""

import logging
import os
import tempfile
import zipfile
import zlib
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import pandas as pd
import pooch

from ..common import PROJECT, is_interactive, move_file
from .grouplens import read_movies, read_ratings
from .logs import Interactions, load_interactions

ARCHIVE_URL = "https://files.grouplens.org/datasets/movielens/{name}.zip"
BUNDLED = ("ml-5k", "movietweetings")  # they come with the project
BY_HAND = {
    "beauty": "take beauty.txt from github.com/FeiSun/BERT4Rec, put it into $BERTREC_DATA/beauty, and run this again"
}
MAX_COMPRESSED = 100  # times an archive may grow when it is unpacked; releases grow about four times


@dataclass(frozen=True)
class Release:
    """How one release is laid out and published."""

    md5: str | None = None  # None: the archive changes over time
    rating_count: int | None = None
    ratings_file: str = "ratings.csv"
    movies_file: str | None = "movies.csv"  # None: items without titles
    separator: str = ","
    encoding: str = "utf-8"
    first_part: tuple[int, int] | None = None  # (users, ratings) to read from its start if no more users are wanted
    users_file: str | None = None  # where its users come from


RELEASES = {
    "ml-5k": Release(rating_count=594_319, first_part=(2_148, 206_423), users_file="users.csv"),
    "movietweetings": Release(rating_count=141_695),
    "ml-latest-small": Release(),
    "ml-100k": Release("0e33842e24a9c977be4e0107933c0723", 100_000, "u.data", "u.item", "\t", "latin-1"),
    "ml-1m": Release("c4d9eecfca2ab87c1945afe126590906", 1_000_209, "ratings.dat", "movies.dat", "::", "latin-1"),
    "ml-10m": Release("ce571fd55effeba0271552578f2648bd", 10_000_054, "ratings.dat", "movies.dat", "::"),
    "ml-20m": Release("cd245b17a1ae2cc31bb14903e1204af3", 20_000_263),
    "ml-25m": Release("6b51fb2759a8657d3bfcbfc42b592ada", 25_000_095),
    "ml-32m": Release("d472be332d4daa821edc399621853b57", 32_000_204),
    "beauty": Release(rating_count=353_962, ratings_file="beauty.txt", movies_file=None),
}


def load_movielens(name: str, max_users: int | None = None) -> Interactions:
    """Read a release: from `$BERTREC_DATA/NAME`, `data/NAME` or `notebooks/NAME`, else download it first. Its files may
    be packed (ratings.csv.xz or .gz).

    If only the first `max_users` are wanted, no more than needed may be read: of ml-5k its first 2,148 users, those of
    ml-latest, which are as ever the same log, whatever has been added behind them.

    Raises ValueError (unknown name, malformed row), FileNotFoundError (a file of the release is missing),
    ConnectionError (nothing on disk and no network) or OSError (no room or no permission to download); each message
    says what to do next.
    """
    return read_release(name, find_release(name), max_users)


def find_release(name: str) -> Path:
    """The folder with both files of a release, downloaded if there is none. Raises as `load_movielens` does."""
    release = _release(name)
    places = (_home(), PROJECT / "data", PROJECT / "notebooks")
    folder = next((place / name for place in places if (place / name).is_dir()), None) or download(name)
    for file in filter(None, (release.ratings_file, release.movies_file)):
        if not find_file(folder, file).is_file():
            raise FileNotFoundError(f"{folder / file} is missing; {_repair(name)}")
    return folder


def find_file(folder: Path, name: str) -> Path:
    """A file of a release, as it is or packed; the path it should have if it is missing."""
    paths = [folder / f"{name}{ending}" for ending in ("", ".xz", ".gz")]
    return next((path for path in paths if path.is_file()), paths[0])


def read_release(name: str, folder: Path, max_users: int | None = None) -> Interactions:
    """Read a release that lies in `folder`, as `load_movielens` does. Raises ValueError as that does."""
    release, row_count = _release(name), None
    if release.first_part and max_users and max_users <= release.first_part[0]:
        row_count = release.first_part[1]
    ratings_file = find_file(folder, release.ratings_file)
    if release.movies_file is None:
        return replace(load_interactions(ratings_file), name=name)
    movies_file = find_file(folder, release.movies_file)
    try:
        ratings = read_ratings(ratings_file, release.separator, row_count)
        movies = read_movies(movies_file, "|" if name == "ml-100k" else release.separator, release.encoding)
    except ValueError as error:
        raise ValueError(f"{error}; {_repair(name)}") from None
    expected = row_count or release.rating_count
    if expected and len(ratings) != expected:
        official = f"the official {name} {release.rating_count:,}"
        message = "%s holds %s ratings, %s: is the file cut off?"
        logging.getLogger(__name__).warning(message, ratings_file, f"{len(ratings):,}", official)
    if row_count:
        movies = movies[movies.item.isin(ratings.item)].reset_index(drop=True)
    return Interactions(name, ratings, movies.assign(title=with_familiar_names(movies.title)))


def load_users(name: str = "ml-5k") -> pd.DataFrame:
    """For a release that combines several others, where each user comes from: user, release, user_there.

    Histories end when their source release was published, so split in calendar time only among users of one source.
    ValueError if `name` is not a combined release; otherwise raises as `find_release` does."""
    users_file = _release(name).users_file
    if users_file is None:
        raise ValueError(f"the users of {name} come from one release: there is nothing to tell apart")
    path = find_file(find_release(name), users_file)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {_repair(name)}")
    return pd.read_csv(path).set_axis(["user", "release", "user_there"], axis=1)


def with_familiar_names(titles: pd.Series) -> pd.Series:
    """Titles with the name people use where MovieLens has a working title or no year (the package's titles.csv). The
    old name stays as an alias: `Avengers: Endgame (a.k.a. Avengers: Infinity War - Part II) (2019)`."""
    with (resources.files(__package__) / "titles.csv").open(encoding="utf-8") as file:
        names = pd.read_csv(file, index_col="title").familiar
    return titles.map(names).fillna(titles)


def download(name: str) -> Path:
    """Fetch, verify and unpack the official archive into `$BERTREC_DATA` if that is set, else `data/`; the folder. An
    archive already lying there as NAME.zip is used when its checksum fits, and kept if there is no room to unpack it.
    What comes with the project is a FileNotFoundError."""
    release = _release(name)
    if name in (*BUNDLED, *BY_HAND):
        raise FileNotFoundError(f"{name} cannot be downloaded; {_repair(name)}")
    home = _home()
    folder, archive = home / name, home / f"{name}.zip"
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; rename or delete it to download {name} anew")
    url, checksum = ARCHIVE_URL.format(name=name), release.md5 and f"md5:{release.md5}"
    by_hand = f"fetch {url} by hand, put it at {archive}, and run this again"
    is_wrong = release.md5 and archive.is_file() and pooch.file_hash(archive, alg="md5") != release.md5
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home, suffix=".partial") as partial:
            pooch.retrieve(url, checksum, fname=archive.name, path=home, progressbar=is_interactive())
            move_file(_unpack(archive, Path(partial) / name, release.ratings_file), folder)
    except OSError as error:
        if error.errno is None:  # it is of the network, and not of the system
            problem, advice = f"{name} is not here and", f"try again, or {by_hand}"
            if is_wrong:
                problem = f"{archive} does not have the checksum of {name} (MD5 {release.md5}), and {name}"
                advice = f"replace that file with a whole copy of {url}, and run this again"
            raise ConnectionError(f"{problem} could not be downloaded ({error}); {advice}") from error
        if not folder.is_dir():  # else another process was faster
            advice = "make room or get permission there, or set BERTREC_DATA to another folder, and run this again"
            raise OSError(f"cannot write to {home} ({error.strerror}); {advice}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # what zipfile says of a damaged one
        archive.unlink()
        raise ValueError(f"{archive} was no archive of {name} ({error}), so it was not kept; {by_hand}") from error
    except ValueError as error:
        raise ValueError(f"{url} does not have the published checksum, so it was not kept; {by_hand}") from error
    archive.unlink(missing_ok=True)
    return folder


def _unpack(archive: Path, target: Path, ratings_file: str) -> Path:
    """Unpack into the folder `target`; the folder in it that holds the ratings. BadZipFile if that is not possible."""
    with zipfile.ZipFile(archive) as members:
        if sum(member.file_size for member in members.infolist()) > MAX_COMPRESSED * archive.stat().st_size:
            raise zipfile.BadZipFile(f"it would grow more than {MAX_COMPRESSED} times")
        members.extractall(target)  # which makes no links, and nothing outside the folder
    found = next(target.rglob(ratings_file), None)
    if found is None:
        raise zipfile.BadZipFile(f"no {ratings_file} in it")
    return found.parent


def _repair(name: str) -> str:
    if name in BY_HAND:
        return BY_HAND[name]
    if name not in BUNDLED:
        return f"unpack {name}.zip there again"
    return (
        f"it comes with a clone of the project, in data/{name}: run this inside the clone (`git checkout -- "
        f"data/{name}` restores it), or train on a log of your own with --ratings FILE"
    )


def _release(name: str) -> Release:
    if name not in RELEASES:
        raise ValueError(f"there is no release {name!r}; choose one of {', '.join(RELEASES)}")
    return RELEASES[name]


def _home() -> Path:
    """Where downloads land: $BERTREC_DATA (a relative one counts from here, or from the project's root), else data/."""
    own = os.environ.get("BERTREC_DATA")
    if not own:
        return PROJECT / "data"
    path = Path(own).expanduser()
    from_root = (PROJECT / path).resolve()
    return from_root if from_root.is_dir() and not path.is_dir() else path.resolve()
