"""Trained models on disk: one safetensors file a model, with its vocabulary, settings and history inside."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Unpack
from uuid import uuid4

import numpy as np
import pandas as pd
import safetensors.torch
import torch

from ..common import PROJECT, display_path, move_file, replace_file
from ..data.dataset import Dataset, histories_of, load_dataset
from ..data.logs import load_interactions
from ..data.sequences import Sequences, Vocabulary
from ..evaluation.baselines import linear_baseline
from ..evaluation.mixture import Mixture
from ..model.layers import Network
from ..model.modern import build_network
from ..settings import GROUPS, OwnLog, Settings, get_preset
from .devices import find_device
from .formats import FORMAT, NewerFormat, migrate

MODEL, ITEMS = "model.safetensors", "items.csv"
CHECKSUM_PLACEHOLDER = "0" * 64  # stands in for the checksum of the file while that is computed


@dataclass(frozen=True)
class Checkpoint:
    """A trained model with what is needed to use it."""

    model: Network
    vocabulary: Vocabulary
    settings: Settings
    seed: int
    history: pd.DataFrame  # one row per epoch, as `fit` returns it
    fingerprint: dict[str, str]  # `Dataset.fingerprint` of what it was trained on
    linear_weight: float | None = None  # of the linear baseline in the `Mixture`, chosen on validation data
    folder: Path | None = None  # where it was loaded from

    @property
    def is_finished(self) -> bool:
        """Whether its training ran to the end: only then is the weight of the linear baseline known."""
        return self.linear_weight is not None

    def describe(self) -> str:
        """The model in one line, as tables name it."""
        name = f"{self.settings.recipe} (start: {self.settings.start}, seed {self.seed})"
        return name if self.is_finished else f"{name}, UNFINISHED: after epoch {len(self.history)}"

    def check(self, dataset: Dataset) -> None:
        """ValueError unless `dataset` is what the model was trained on."""
        for part, digest in self.fingerprint.items():  # older models know no held-out items
            if dataset.fingerprint.get(part) != digest:
                items = f"{len(self.vocabulary):,} items; at hand: {len(dataset.vocabulary):,}"
                other = f"trained {'beside' if part == 'held-out items' else 'on'} other {part}"
                problem = f"the model was {other} than the data at hand ({items})"
                advice = "use that data (--ratings FILE for a log of your own), or train again on this (--continue)"
                raise ValueError(f"{problem}; {advice}")

    def with_linear(self, dataset: Dataset) -> Mixture:
        """The network mixed with the linear baseline of `dataset`. ValueError if that is not what the model was trained
        on, or if the run was not finished, so that the weight is not known."""
        if self.linear_weight is None:
            raise ValueError("the model's run is not finished; resume it, or leave out the linear baseline")
        self.check(dataset)
        return Mixture(self.model, linear_baseline(dataset.split.train, len(self.vocabulary)), self.linear_weight)

    def load_dataset(self, **log: Unpack[OwnLog]) -> Dataset:
        """The data the model was trained on, read again; if its titles have moved, without them. ValueError if it has
        changed since."""
        data = self.settings.change(**log).data
        if "ratings_file" in log and "items_file" not in log and data.items_file and not Path(data.items_file).exists():
            data = replace(data, items_file=None)
        dataset = load_dataset(data)
        self.check(dataset)
        return dataset

    def load_histories(self, dataset: Dataset | None = None, **log: Unpack[OwnLog]) -> tuple[Sequences, list[str]]:
        """Every user's history in the log as it is today, whether or not it has changed since, and notes for people
        about them, as in `histories_of`. A release does not change: for one, ValueError as in `load_dataset`. Pass the
        `dataset` that returned, to avoid reading the log again."""
        data = self.settings.change(**log).data
        if data.ratings_file and dataset is None:
            interactions: Any = load_interactions(data.ratings_file, columns=data.columns)
        else:
            interactions = (dataset or self.load_dataset()).log
        max_users = None if data.ratings_file else data.max_users
        keeps = data.repeats == "keep"
        histories, notes = histories_of(
            interactions.ratings, self.vocabulary, max_users, keep_repeats=keeps, own=interactions.own
        )
        items = self._saved_items()
        if data.ratings_file and items is not None and items.ratings.sum() != len(interactions.ratings):
            grown = (
                f"rows of the log: {len(interactions.ratings):,}; when the model was trained: {items.ratings.sum():,}"
            )
            notes = [grown, *notes]
        return histories, notes

    def load_items(self, **log: Unpack[OwnLog]) -> pd.DataFrame:
        """The items: item, title, genres, ratings; from the file beside the model, without it from `load_dataset`; with
        the titles of the `items_file`, if there is one."""
        items = self._saved_items()
        if items is None:  # the log may be another than the release that the model was trained on
            items = (self.load_dataset(**log) if self.settings.data.ratings_file else self.load_dataset()).items
        if "items_file" in log:
            data = self.settings.change(**log).data
            now = load_interactions(data.ratings_file or "", data.items_file, columns=data.columns).items
            titles = dict(zip(now.item.astype(str), now.title, strict=True))
            items["title"] = items.item.astype(str).map(titles).fillna(items.title)
        return items

    def _saved_items(self) -> pd.DataFrame | None:
        """What `save_items` wrote beside the model, if it did."""
        path = self.folder / ITEMS if self.folder else None
        if path is None or not path.is_file():
            return None
        kind = str if self.vocabulary.items.dtype.kind in "OU" else "int64"
        types = {"item": kind, "title": str, "genres": str, "ratings": "int64"}
        try:
            return pd.read_csv(path, dtype=types, keep_default_na=False)[list(types)]
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path} is damaged ({error}); delete it, and the titles are read from the log") from error


def save(folder: str | Path, checkpoint: Checkpoint) -> Path:
    """Write the checkpoint into `folder`, wholly or not at all; the path of its file."""
    path = Path(folder) / MODEL
    path.parent.mkdir(parents=True, exist_ok=True)
    description = {
        "format": FORMAT,
        "settings": asdict(_with_files(checkpoint.settings, partial(_relative, folder=_home(path.parent)))),
        "seed": checkpoint.seed,
        "history": checkpoint.history.to_dict("records"),
        "fingerprint": checkpoint.fingerprint,
        "linear_weight": checkpoint.linear_weight,
        "items": checkpoint.vocabulary.items.tolist(),
    }
    weights = {name: value.cpu().contiguous() for name, value in checkpoint.model.state_dict().items()}
    place = uuid4().hex * 2  # holds the place of the checksum; no id of an item is like it
    content = safetensors.torch.save(weights, {"bertrec": json.dumps(description), "sha256": place})
    digest = hashlib.sha256(content.replace(place.encode(), CHECKSUM_PLACEHOLDER.encode(), 1)).hexdigest()
    content = content.replace(place.encode(), digest.encode(), 1)
    replace_file(path, lambda file: file.write_bytes(content))
    return path


def save_items(folder: Path, items: pd.DataFrame) -> None:
    """Write the titles and counts of items beside a model, so that an answer need not read the log."""
    replace_file(folder / ITEMS, lambda file: items.to_csv(file, index=False))


def _with_files(settings: Settings, change: Callable[[str], str]) -> Settings:
    """The settings with the paths of an own log changed."""
    files = {name: getattr(settings.data, name) for name in ("ratings_file", "items_file")}
    return settings.change(**{name: change(file) for name, file in files.items() if file})


def _home(folder: Path) -> Path:
    """The folder that the paths in a checkpoint are relative to: that of its run, even after `set_aside` moved it."""
    folder = folder.resolve()
    while re.fullmatch(r"previous-\d+", folder.name):
        folder = folder.parent
    return folder


def _relative(file: str, folder: Path) -> str:
    """`file` relative to `folder`, so that a published model does not reveal an absolute path."""
    try:
        return os.path.relpath(Path(file).expanduser(), folder)
    except ValueError:  # on another drive of Windows
        return Path(file).name


def load(folder: str | Path, device: str | torch.device | None = None) -> Checkpoint:
    """Read what `save` wrote, onto `device`, else the best there is; the model is in evaluation mode. A warning is
    logged if its run is not finished.
    FileNotFoundError if there is nothing, ValueError if the file is damaged or of a newer version, or there is no such
    device."""
    folder = Path(folder)
    path = folder / MODEL
    if not path.is_file():
        advice = "run notebook 03, or python -m bertrec_utils train --preset PRESET --out DIR"
        raise FileNotFoundError(f"{folder} holds no trained model ({MODEL} is missing); {advice}")
    content = path.read_bytes()
    try:
        metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        description, digest = json.loads(metadata["bertrec"]), metadata["sha256"]
        if hashlib.sha256(content.replace(digest.encode(), CHECKSUM_PLACEHOLDER.encode(), 1)).hexdigest() != digest:
            raise ValueError("its checksum is wrong")
        description, weights = migrate(description, safetensors.torch.load(content))
        parts = {name: kind(**description["settings"][name]) for name, kind in GROUPS.items()}
        settings = Settings(description["settings"]["preset"], description["settings"]["recipe"], **parts)
        items = description["items"]
        vocabulary = Vocabulary(np.array(items, dtype=object if isinstance(items[0], str) else None))
        model = build_network(len(vocabulary), settings.model)
        model.load_state_dict(weights)
    except NewerFormat as error:
        raise ValueError(f"{path} {error}") from error
    except Exception as error:  # whatever a damaged file makes of a header, a JSON text or a tensor
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is damaged or of another version ({reason}); train it again") from error
    model, history = model.to(find_device(device)).eval(), pd.DataFrame(description["history"])
    settings = _with_files(settings, lambda file: os.path.normpath(_home(folder) / file))
    seed, fingerprint, weight = (description[name] for name in ("seed", "fingerprint", "linear_weight"))
    checkpoint = Checkpoint(model, vocabulary, settings, seed, history, fingerprint, weight, folder)
    if not checkpoint.is_finished:
        what = "%s is not finished: this is its best epoch of %d so far; the command that started it resumes it"
        logging.getLogger(__name__).warning(what, display_path(folder), len(checkpoint.history))
    return checkpoint


def load_trained(settings: Settings, device: str | torch.device | None = None) -> Checkpoint:
    """Load your own run of these settings from runs/, else the weights that come with the project; prints which.
    FileNotFoundError if there is neither, ValueError if that run is of other data or of another network."""
    own, shipped = (PROJECT / place / settings.name for place in ("runs", "pretrained"))
    is_preset = settings.data == get_preset(settings.preset, settings.recipe).data
    if not (own / MODEL).exists() and is_preset and (shipped / MODEL).exists():
        print(f"{settings.recipe}: the weights that come with the project, {display_path(shipped)}")
        return load(shipped, device)
    checkpoint = load(own, device)
    if checkpoint.settings.data.is_own:
        raise ValueError(f"{display_path(own)} was trained on a log of your own, not on {settings.data.release}")
    for name, value in (asdict(settings.data) | asdict(settings.model)).items():
        if (other := checkpoint.settings.flat()[name]) != value:
            problem = f"{display_path(own)} was trained with {name}={other}, not {value}"
            raise ValueError(f"{problem}; rename that folder, or train {settings.name} again")
    print(f"{settings.recipe}: your own run, {display_path(own)}")
    return checkpoint


def set_aside(folder: Path) -> Path | None:
    """Move the model in `folder`, if there is one, to the first free of its subfolders previous-1, previous-2, ..."""
    if not (folder / MODEL).exists():
        return None
    places = (folder / f"previous-{number}" for number in count(1))
    target = next(place for place in places if not (place / MODEL).exists())
    if (folder / ITEMS).exists():
        target.mkdir(exist_ok=True)
        (target / ITEMS).write_bytes((folder / ITEMS).read_bytes())  # the model moves last: without it nothing counts
    move_file(folder / MODEL, target / MODEL)
    return target


def last_set_aside(folder: Path) -> Path | None:
    """The subfolder of the newest model that was set aside, if any."""
    models = sorted(folder.glob(f"previous-*/{MODEL}"), key=lambda path: path.stat().st_mtime)
    return models[-1].parent if models else None


def put_back(folder: Path) -> bool:
    """Undo `set_aside`: the model that was set aside last takes the place of an unfinished one, or of none. Whether a
    finished model is in `folder` then."""
    if (folder / MODEL).exists() and load(folder, "cpu").is_finished:
        return True
    if place := last_set_aside(folder):
        if (place / ITEMS).exists():
            (folder / ITEMS).write_bytes((place / ITEMS).read_bytes())
        move_file(place / MODEL, folder / MODEL)
    return place is not None
