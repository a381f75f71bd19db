"""Write a made-up release of the shape of MovieLens 25M or 32M, to measure with where the real one is not at hand.

    python benchmarks/generate_release.py ml-25m FOLDER [--movies MOVIES.CSV]

FOLDER/ml-25m/ratings.csv and movies.csv, in GroupLens's layout: as many users, films and ratings as the real release,
long tails of both (20 ratings a user at least, half of the films with some twenty or fewer), sessions
with equal timestamps, sorted by user and film. Titles are those of --movies, or made up.

It can be learned from. Films belong to circles. A user has a few open circles and takes each film from one of them, or
what everybody takes; now and then an open circle makes way for one that follows it. So the last film tells of one open
circle, and only a longer history of all of them.
"""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

SHAPES = {"ml-25m": (162_541, 62_423, 59_047, 25_000_095), "ml-32m": (200_948, 87_585, 84_432, 32_000_204)}
OPEN, FOLLOWERS = 4, 4  # circles of a user at a time, and those that may follow a circle
DRIFT, COMMON = 1 / 15, 0.15  # shares of the films at which an open circle changes, and that everybody takes
FILMS_PER_CIRCLE = 50
SURPLUS = 2.6  # so many films are drawn for one that is kept: nobody rates a film twice


def draw_lengths(users: int, ratings: int, random: np.random.Generator) -> np.ndarray:
    """How many films are drawn for each user, (users,), the most first."""
    lengths = 30 + np.exp(random.normal(np.log(45), 1.42, users))
    return np.sort((lengths * (SURPLUS * ratings / lengths.sum())).astype(int))[::-1]


def draw_films(lengths: np.ndarray, films: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The films of all users in the order they watch them: user numbers and film numbers, two equally long arrays."""
    circles = films // FILMS_PER_CIRCLE
    weights = np.exp(random.normal(0, 3, films))
    weights = np.minimum(weights, np.quantile(weights, 1 - 300 / films))  # nobody watches the most watched twice
    weights += 3 * weights.sum() / lengths.sum()  # everything finds somebody
    bounds = np.linspace(0, films, circles + 1).astype(int)  # circle c has films bounds[c] to bounds[c + 1]
    mass = np.concatenate([[0], np.cumsum(weights)])
    of_circle = np.diff(mass[bounds])

    def draw_circles(shape):
        return random.choice(circles, shape, p=of_circle / of_circle.sum())

    follow, opened = draw_circles((circles, FOLLOWERS)), draw_circles((len(lengths), OPEN))
    users, chosen = [], []
    for step in tqdm(range(lengths[0]), desc="films"):
        active = np.arange(np.searchsorted(-lengths, -step, side="left"))  # whose length is above step
        drifting = active[random.random(len(active)) < DRIFT]
        which = random.integers(0, OPEN, len(drifting))
        opened[drifting, which] = follow[opened[drifting, which], random.integers(0, FOLLOWERS, len(drifting))]
        own = opened[active, random.integers(0, OPEN, len(active))]
        now = np.where(random.random(len(active)) < COMMON, draw_circles(len(active)), own)
        low, high = mass[bounds[now]], mass[bounds[now + 1]]
        chosen.append(
            (mass.searchsorted(low + random.random(len(active)) * (high - low), side="right") - 1).astype("i4")
        )
        users.append(active.astype("i4"))
    users, chosen = np.concatenate(users), np.concatenate(chosen).clip(max=films - 1)
    order = users.argsort(kind="stable")
    return users[order], chosen[order]


def keep(users: np.ndarray, films: np.ndarray, ratings: int, film_count: int) -> np.ndarray:
    """Which drawn films are rated, bool: every user's first meetings with a film, `ratings` of them in all.

    All users lose the same share of their newest ones.
    """
    kept = ~pd.Series(users.astype(np.int64) * film_count + films).duplicated().to_numpy()
    counts = np.bincount(users[kept])
    share = ratings / counts.sum()
    if share > 1:
        raise ValueError(f"only {counts.sum():,} different films were drawn; raise SURPLUS")
    wanted = np.maximum(np.minimum(counts, 20), (share * counts).astype(int))
    longest = np.argsort(-counts)
    missing = ratings - wanted.sum()
    wanted[longest[: abs(missing)]] += np.sign(missing)
    positions = np.cumsum(kept) - np.concatenate([[0], np.cumsum(counts)])[users]  # 1 for a user's first film
    return kept & (positions <= wanted[users])


def draw_times(users: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Seconds since 1970 of each row, never falling within a user: sessions, and pages rated in the same second."""
    gaps = random.exponential(9, len(users)).astype(np.int64)
    gaps[random.random(len(users)) < 0.15] = 0
    apart = random.random(len(users)) < 1 / 40
    gaps[apart] = random.exponential(30 * 24 * 3600, apart.sum())
    since = np.cumsum(gaps)
    first = np.flatnonzero(np.diff(users, prepend=-1))
    begins = random.integers(820_000_000, 1_570_000_000, len(first))
    return since + np.repeat(begins - since[first], np.diff(first, append=len(users)))


def write_part(path: Path, part: pd.DataFrame) -> Path:
    part.to_csv(path, index=False, header=False)
    return path


def write(folder: Path, ratings: pd.DataFrame, movies: pd.DataFrame) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    movies.to_csv(folder / "movies.csv", index=False)
    parts = np.array_split(np.arange(len(ratings)), os.cpu_count())
    paths = [folder / f"ratings.{number}.part" for number in range(len(parts))]
    with ProcessPoolExecutor() as pool, open(folder / "ratings.csv", "wb") as whole:
        whole.write(b"userId,movieId,rating,timestamp\n")
        for path in pool.map(write_part, paths, (ratings.iloc[part[0] : part[-1] + 1] for part in parts)):
            whole.write(path.read_bytes())
            path.unlink()


def generate(
    users: int, listed: int, rated: int, ratings: int, movies: pd.DataFrame | None, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ratings and movies with GroupLens's columns: `rated` of the `listed` films have a rating."""
    random = np.random.default_rng(seed)
    drawn_users, films = draw_films(draw_lengths(users, ratings, random), rated, random)
    kept = keep(drawn_users, films, ratings, rated)
    drawn_users, films = drawn_users[kept], films[kept]
    if movies is None:
        ids = np.arange(1, listed + 1)
        movies = pd.DataFrame(
            {"movieId": ids, "title": [f"Film {n} ({1920 + n % 100})" for n in ids], "genres": "Drama"}
        )
    ids = np.sort(random.choice(movies.movieId.to_numpy()[:listed], rated, replace=False))
    ids = random.permutation(ids)[films]  # a film's number tells its circle, its id nothing
    table = pd.DataFrame(
        {
            "userId": random.permutation(users)[drawn_users] + 1,
            "movieId": ids,
            "rating": random.choice(["2.5", "3.0", "3.5", "4.0", "4.5", "5.0"], len(ids)),
            "timestamp": draw_times(drawn_users, random),
        }
    )
    return table.sort_values(["userId", "movieId"], ignore_index=True), movies


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("release", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--movies", type=Path, help="a movies.csv that gives ids and titles, such as ML-25M's own")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    movies = pd.read_csv(arguments.movies) if arguments.movies else None
    ratings, movies = generate(*SHAPES[arguments.release], movies, arguments.seed)
    write(arguments.folder / arguments.release, ratings, movies)
    by_user, by_film = ratings.groupby("userId").size(), ratings.groupby("movieId").size()
    print(
        f"{len(ratings):,} ratings of {len(by_film):,} films by {len(by_user):,} users; a user has {by_user.min()} to "
        f"{by_user.max():,} ratings, median {by_user.median():.0f}; a film up to {by_film.max():,}, median "
        f"{by_film.median():.0f}; {(by_film >= 5).sum():,} films have five or more"
    )


if __name__ == "__main__":
    main()
