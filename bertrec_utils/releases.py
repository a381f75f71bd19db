"""Find, download, verify and read a MovieLens release, or a log of your own."""

import logging
import os
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pooch

PROJECT = Path(__file__).resolve().parents[1]
ARCHIVE_URL = "https://files.grouplens.org/datasets/movielens/{name}.zip"
RATING_TYPES = {"user": "int32", "item": "int32", "rating": "float32", "timestamp": "int64"}


@dataclass(frozen=True)
class Interactions:
    """A rating log: `.ratings` (user, item, rating, timestamp; in file order) and `.movies` (item, title, genres)."""

    name: str
    ratings: pd.DataFrame
    movies: pd.DataFrame


@dataclass(frozen=True)
class Release:
    """How GroupLens lays out and publishes one release."""

    ratings_file: str
    movies_file: str
    separator: str
    encoding: str
    md5: str | None  # None: the archive changes over time
    rating_count: int | None


def _csv_release(md5, rating_count):
    return Release("ratings.csv", "movies.csv", ",", "utf-8", md5, rating_count)


RELEASES = {
    "ml-latest-small": _csv_release(None, None),
    "ml-100k": Release("u.data", "u.item", "\t", "latin-1", "0e33842e24a9c977be4e0107933c0723", 100_000),
    "ml-1m": Release("ratings.dat", "movies.dat", "::", "latin-1", "c4d9eecfca2ab87c1945afe126590906", 1_000_209),
    "ml-10m": Release("ratings.dat", "movies.dat", "::", "utf-8", "ce571fd55effeba0271552578f2648bd", 10_000_054),
    "ml-20m": _csv_release("cd245b17a1ae2cc31bb14903e1204af3", 20_000_263),
    "ml-25m": _csv_release("6b51fb2759a8657d3bfcbfc42b592ada", 25_000_095),
    "ml-32m": _csv_release("d472be332d4daa821edc399621853b57", 32_000_204),
}

ML_100K_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


def load_movielens(name: str) -> Interactions:
    """Read a MovieLens release: from `$BERTREC_DATA/NAME`, `data/NAME` or `notebooks/NAME`, else download it first.

    Raises ValueError (unknown name, malformed row), FileNotFoundError (a file of the release is missing) or
    ConnectionError (nothing on disk and no network); each message says what to do next.
    """
    release = _release(name)
    folder = _find(name) or download(name)
    ratings = _read_ratings(_existing(folder / release.ratings_file, name), release)
    movies = _read_movies(_existing(folder / release.movies_file, name), release)
    if release.rating_count and len(ratings) != release.rating_count:
        logging.getLogger(__name__).warning(
            "%s holds %s ratings, the official %s %s: is the file cut off?",
            folder / release.ratings_file, f"{len(ratings):,}", name, f"{release.rating_count:,}",
        )  # fmt: skip
    return Interactions(name, ratings, movies)


def load_interactions(ratings_csv: str | Path, items_csv: str | Path | None = None) -> Interactions:
    """Read a log of your own: a CSV with columns user, item, timestamp (rating optional).

    Ids are whole numbers or texts; timestamps are numbers or ISO dates such as 2020-01-31. `items_csv` (item, title,
    genres; genres optional) names the items; one without a title there is named by its id. Raises ValueError.
    """
    ratings = _read_texts(ratings_csv, ["user", "item", "timestamp"])
    titles = (
        _read_texts(items_csv, ["item", "title"]) if items_csv else pd.DataFrame({"item": [], "title": []}, dtype=str)
    )
    empty = (ratings[["user", "item", "timestamp"]] == "").any(axis=1)
    if empty.any():
        raise ValueError(f"{ratings_csv}, line {empty.idxmax() + 2}: a value is empty; fill or drop the row")
    movies = pd.concat([titles, ratings[["item"]]]).drop_duplicates("item").fillna({"title": ""})
    movies["title"] = movies.title.where(movies.title != "", movies.item)
    movies["genres"] = movies.genres.fillna("") if "genres" in movies else ""
    # the same kind of id in both tables
    numbers = _whole_numbers(movies.item)
    if numbers is not None:
        movies["item"], ratings["item"] = numbers, ratings.item.astype("int64")
    users = _whole_numbers(ratings.user)
    ratings["user"] = ratings.user if users is None else users
    ratings["timestamp"] = _times(ratings.timestamp, ratings_csv)
    ratings["rating"] = pd.to_numeric(ratings.rating, errors="coerce") if "rating" in ratings else 1.0
    movies = movies[["item", "title", "genres"]].sort_values("item", ignore_index=True)
    return Interactions(Path(ratings_csv).stem, ratings[list(RATING_TYPES)], movies)


def _read_texts(path, needed):
    """A CSV with every value as it is written: an id may be NA, None or 001."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    missing = [column for column in needed if column not in table]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}; it needs {', '.join(needed)}")
    return table


def _whole_numbers(texts):
    """The texts as int64 if each is a whole number written plainly (not 001), else None."""
    plain = texts.str.fullmatch("0|-?[1-9][0-9]{0,17}")
    return texts.astype("int64") if plain.all() else None


def _times(texts, path):
    numbers = pd.to_numeric(texts, errors="coerce")
    if numbers.notna().all():
        return numbers
    dates = pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=True)
    if dates.isna().any():
        line = dates.isna().idxmax()
        raise ValueError(
            f"{path}, line {line + 2}: timestamp {texts[line]!r} is neither a number nor an ISO date like 2020-01-31"
        )
    return dates.astype("datetime64[s, UTC]").astype("int64")


def download(name: str) -> Path:
    """Fetch, verify and unpack the official archive into `$BERTREC_DATA` if that is set, else `data/`; the folder.

    An archive already lying there as NAME.zip is used when its checksum fits.
    """
    release = _release(name)
    home = _home()
    if (home / name).exists():
        raise FileExistsError(f"{home / name} is there already; rename or delete it to download {name} anew")
    url = ARCHIVE_URL.format(name=name)
    by_hand = f"fetch {url} by hand, put it at {home / (name + '.zip')}, and run this again"
    try:
        home.mkdir(parents=True, exist_ok=True)
        checksum = release.md5 and f"md5:{release.md5}"
        archive = Path(pooch.retrieve(url, checksum, fname=f"{name}.zip", path=home, progressbar=True))
    except ValueError as error:
        raise ValueError(f"{url} does not have the published checksum, so it was not kept; {by_hand}") from error
    except OSError as error:
        raise ConnectionError(f"{name} is not here and could not be downloaded ({error}); {by_hand}") from error
    with tempfile.TemporaryDirectory(dir=home) as partial:
        try:
            zipfile.ZipFile(archive).extractall(partial)
            unpacked = next(Path(partial).rglob(release.ratings_file)).parent
        except (zipfile.BadZipFile, StopIteration) as error:
            archive.unlink()
            raise ValueError(f"{archive} was no archive of {name}, so it was not kept; {by_hand}") from error
        shutil.move(unpacked, home / name)
    archive.unlink()
    return home / name


def _release(name):
    if name not in RELEASES:
        raise ValueError(f"there is no release {name!r}; choose one of {', '.join(RELEASES)}")
    return RELEASES[name]


def _home():
    """Where downloads land: $BERTREC_DATA (a relative one counts from here, or from the project's root), else data/."""
    own = os.environ.get("BERTREC_DATA")
    if not own:
        return PROJECT / "data"
    from_root = (PROJECT / own).resolve()
    return from_root if from_root.is_dir() and not Path(own).is_dir() else Path(own).resolve()


def _find(name):
    places = (_home(), PROJECT / "data", PROJECT / "notebooks")
    return next((place / name for place in places if (place / name).is_dir()), None)


def _existing(path, name):
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; unpack {name}.zip there again, or delete {path.parent} to download it"
        )
    return path


def _read_ratings(path, release):
    # pandas' fast reader takes one-character separators only: "::" is read as ":" with empty columns between.
    columns = range(0, 7, 2) if release.separator == "::" else range(4)
    try:
        table = pd.read_csv(
            path,
            sep=release.separator[0],
            header=0 if path.suffix == ".csv" else None,
            names=range(columns[-1] + 1),
            dtype=dict(zip(columns, RATING_TYPES.values(), strict=True)),
        )
    except ValueError as error:  # pandas' ParserError is one too
        raise ValueError(_first_malformed_row(path, release) or f"{path}: {error}") from error
    ratings = table[list(columns)].set_axis(list(RATING_TYPES), axis=1)
    # a first row that is too long becomes an index
    if ratings.empty or ratings.rating.isna().any() or not isinstance(ratings.index, pd.RangeIndex):
        raise ValueError(_first_malformed_row(path, release) or f"{path} holds no ratings; unpack the archive again")
    return ratings


def _first_malformed_row(path, release):
    with open(path, encoding=release.encoding) as lines:
        for number, line in enumerate(lines, start=1):
            if number == 1 and path.suffix == ".csv":
                continue
            user, item, rating, timestamp, *rest = [*line.rstrip("\n").split(release.separator), *[""] * 4]
            if any(rest) or not (user.isdigit() and item.isdigit() and _is_number(rating) and timestamp.isdigit()):
                expected = release.separator.join(RATING_TYPES).replace("\t", "<tab>")
                return (
                    f"{path}, line {number}: expected {expected}, found {line.strip()[:80]!r}; unpack the archive again"
                )
    return None


def _is_number(text):
    try:
        return float(text) >= 0
    except ValueError:
        return False


def _read_movies(path, release):
    if path.suffix == ".csv":
        movies = pd.read_csv(path, header=0, names=["item", "title", "genres"], encoding=release.encoding)
        if not pd.api.types.is_integer_dtype(movies.item) or movies.isna().any(axis=None):
            raise ValueError(f"{path} does not hold movieId,title,genres in every row; unpack the archive again")
        return movies.astype({"item": "int32"})
    rows = []
    for number, line in enumerate(path.read_text(encoding=release.encoding).splitlines(), start=1):
        fields = line.split("|" if release.separator == "\t" else release.separator)
        if not fields[0].isdigit() or len(fields) not in (3, 24):
            raise ValueError(f"{path}, line {number}: not a film: {line[:80]!r}; unpack the archive again")
        item, title, genres = fields[0], fields[1], fields[2]
        if len(fields) == 24:  # u.item: two dates and an address, then one 0/1 flag a genre
            genres = "|".join(genre for genre, flag in zip(ML_100K_GENRES, fields[5:], strict=True) if flag == "1")
        rows.append((int(item), title, genres))
    return pd.DataFrame(rows, columns=["item", "title", "genres"]).astype({"item": "int32"})
