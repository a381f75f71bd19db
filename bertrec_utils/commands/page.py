"""python -m bertrec_utils page"""

import argparse
import contextlib
import hashlib
import io
import json
import sys
import tempfile
import webbrowser
from dataclasses import asdict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch

from ..common import PROJECT, print_status, replace_file
from ..scenarios.recommender import ORDERS, Recommender
from ..scenarios.titles import known_aliases
from ..training.checkpoints import Checkpoint, load
from . import check_permission, noun_of

LARGEST_NUMBER = 2**53 - 1  # of JavaScript's whole numbers, beyond which two may be one
SOURCES = PROJECT / "site"  # the page as it is written by hand; what it needs of a model lies in its folder data
POSITIONS = (
    SOURCES / "positions.csv"
)  # of the films on the map, for the model whose weights have its first line as SHA-256


def add_page(commands: "argparse._SubParsersAction") -> None:
    page = commands.add_parser("page", help="a web page that recommends in the browser, from a trained model")
    default = PROJECT / "pretrained" / "medium"
    page.add_argument("folder", type=Path, nargs="?", default=default, metavar="DIR", help="default: pretrained/medium")
    page.add_argument("--out", type=Path, metavar="FOLDER", help="where to write it; any static server can serve it")
    page.add_argument("--open", action="store_true", help="serve it on this machine, and open it in the browser")
    page.set_defaults(run=page_command)


def page_command(arguments: argparse.Namespace) -> None:
    if not (arguments.out or arguments.open):
        raise ValueError("say where the page is to be written, --out FOLDER, or look at it with --open")
    if arguments.out:
        check_folder(arguments.out)
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.out or Path(temporary)
        size = write_page(out, load(arguments.folder, "cpu"))
        print(f"{out}: the page, {size / 1e6:.1f} MB")
        if arguments.open:
            serve(out)


def check_folder(out: Path) -> None:
    """Raise ValueError, before any work is done, if the page cannot be written into `out`, or that is a folder with
    files, none of which shows that they are of an earlier page."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder, new or not")
    is_page = (out / "data/settings.json").is_file() or out.resolve() == SOURCES  # where only data is written
    if out.is_dir() and not is_page and any(not path.name.startswith(".") for path in out.iterdir()):
        raise ValueError(f"--out {out} holds files that are of no earlier page; name a new or an empty folder")
    for folder in (out, out / "data"):
        place = next(place for place in (folder, *folder.parents) if place.exists())
        check_permission(f"--out {out}", place / "settings.json", "folder")


def write_page(out: Path, checkpoint: Checkpoint, positions: pd.DataFrame | None = None) -> int:
    """Write the page of a model into the folder `out`; its size in bytes. `positions` (item, x, y) are those of films
    on the map, else those of `kept_positions`, else those of `map_films`, which take a minute or two. FileNotFoundError
    outside a clone."""
    sources = [path for path in sorted(SOURCES.glob("*")) if path.is_file() and path != POSITIONS]
    if not sources:
        raise FileNotFoundError(f"there is no page in {SOURCES}; run this command in a clone of the project")
    recommender = Recommender(
        checkpoint.model, checkpoint.vocabulary, checkpoint.load_items(), noun_of(checkpoint.settings.data)
    )
    weights = {name: value.cpu().half().contiguous() for name, value in checkpoint.model.state_dict().items()}
    model = safetensors.torch.save(weights)
    if positions is None:
        positions = kept_positions(out, model)
    texts = {"settings.json": describe(checkpoint), "films.json": pack_films(recommender, positions)}
    files = {  # settings.json first: by it `check_folder` knows what an interrupted command has left
        f"data/{name}": json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()
        for name, values in texts.items()
    }
    files |= {path.name: path.read_bytes() for path in sources}
    files["data/model.safetensors"] = model  # last: by it `kept_positions` knows that films.json is of this model
    (out / "data").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if out.resolve() != SOURCES or name.startswith("data/"):
            replace_file(out / name, partial(Path.write_bytes, data=content))
    return sum(map(len, files.values()))


def kept_positions(out: Path, model: bytes) -> pd.DataFrame | None:
    """Map positions (item, x, y) from the page already in `out`, or else from POSITIONS, if they belong to the weights
    `model`; None if neither does."""
    if (out / "data/model.safetensors").is_file() and (out / "data/model.safetensors").read_bytes() == model:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # it is not there, or damaged
            films = json.loads((out / "data/films.json").read_bytes())
            return pd.DataFrame({name: films[name] for name in ("item", "x", "y")}).dropna()
    digest, *table = POSITIONS.read_text().splitlines(keepends=True)
    return pd.read_csv(io.StringIO("".join(table))) if digest.strip() == hashlib.sha256(model).hexdigest() else None


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the page must know about a model besides its weights: the state of the random generator from which
    `Recommender` draws its orders; what an item is called; whether the data are a MovieLens release, whose ids the
    examples have, and whose terms are named; and whether items of the history may be recommended, as by `recommend`."""
    state = np.random.default_rng(0).bit_generator.state["state"]
    random = {name: str(number) for name, number in state.items()}  # of 128 bits
    settings = checkpoint.settings
    shape = asdict(settings.model) | {"items": len(checkpoint.vocabulary)}
    return {
        "name": settings.name,
        "recipe": settings.recipe,
        "noun": noun_of(settings.data),
        "movielens": not settings.data.is_own and str(settings.data.release).startswith("ml-"),
        "allow_seen": settings.data.repeats == "keep",
        "model": shape,
        "orders": ORDERS,
        "random": random,
    }


def pack_films(recommender: Recommender, positions: pd.DataFrame | None) -> dict[str, Any]:
    """All films of the data in columns, in the order of their ids, those that the model does not know, too, for a title
    may be one of theirs: item (a text if it is beyond LARGEST_NUMBER), token (0: not known), title, ratings, genres and
    series (numbers of `genre_names`, `series_names`), x and y (0 to 1,000; none for a film that is not on the map). And
    `aliases`: other names by title."""
    if positions is None:
        try:
            from ..scenarios.plots import map_films
        except ImportError as error:
            raise ValueError(f"the map needs the extra plots ({error}): pip install 'bertrec-utils[plots]'") from error
        print_status(f"placing all {recommender.noun}s on the map takes a minute or two ...", sys.stderr)
        positions = map_films(recommender, min_ratings=1)
    films = recommender.items.sort_index()
    places = positions.set_index(positions["item"].astype(str))[["x", "y"]]  # as texts, which some on a page are
    places = (1000 * (places - places.min()) / (places.max() - places.min())).round()
    places = places.reindex(films.index.astype(str)).astype("Int64")
    places = places.astype(object).where(places.notna(), None)
    known = recommender.vocabulary.items
    token = pd.Series(np.arange(1, len(known) + 1), known).reindex(films.index, fill_value=0)
    columns = {name: pd.factorize(films[name], sort=True) for name in ("genres", "series")}
    return {
        "item": [str(item) if is_large(item) else item for item in films.index.tolist()],
        "token": token.tolist(),
        "title": films.title.tolist(),
        "ratings": films.ratings.tolist(),
        "genres": columns["genres"][0].tolist(),
        "series": columns["series"][0].tolist(),
        "x": places.x.tolist(),
        "y": places.y.tolist(),
        "genre_names": columns["genres"][1].tolist(),
        "series_names": columns["series"][1].tolist(),
        "aliases": known_aliases(),
    }


def is_large(item: int | str) -> bool:
    return isinstance(item, int) and abs(item) > LARGEST_NUMBER


class Handler(SimpleHTTPRequestHandler):
    """Serves files silently, with the right type for scripts whatever the Windows registry says."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".js": "text/javascript", ".css": "text/css"}

    def log_message(self, *_: Any) -> None:
        pass


def serve(folder: Path) -> None:
    """Serve the folder on this machine alone, and open it in the browser, until Ctrl-C."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        print(f"{address} - stop with Ctrl-C", flush=True)
        webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
